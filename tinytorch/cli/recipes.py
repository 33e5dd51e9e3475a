"""`tinytorch recipes`: how networks are trained, to look at, copy and change."""

from __future__ import annotations

from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe; without it, a list of all.")] = None,
) -> None:
    """List the recipes that --recipe knows, or print one: `tinytorch recipes fast94 > mine.toml`."""
    from tinytorch.recipes import text

    if name is not None:
        typer.echo(text(name), nl=False)
    else:
        _show()


def _show() -> None:
    from rich.table import Table

    from tinytorch.cli.console import console, percent
    from tinytorch.recipes import load, names

    table = Table("recipe", "data set", "network", "epochs", "goal", box=None, header_style="dim", padding=(0, 1))
    for column in table.columns[3:]:
        column.justify = "right"
    for name in names():
        recipe = load(name)
        goal = "" if recipe.goal is None else percent(recipe.goal)
        table.add_row(name, recipe.dataset or "", recipe.model, str(recipe.epochs), goal)
    console().print(table)
