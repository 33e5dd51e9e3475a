"""`tinytorch runs`: what has been trained, and how far it came."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tinytorch.io.run import RunSummary


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look, also further down.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """List the runs in a folder, the oldest first. A stopped one is continued with train --out RUN --resume."""
    from tinytorch.cli import console as out
    from tinytorch.io.run import summaries

    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; make a first run with tinytorch train, or name another folder")
    found = summaries(folder)
    if json:
        out.print_json({"folder": str(folder), "runs": [asdict(summary) for summary in found]})
    elif found:
        _show(found)
    else:
        out.console().print(f"no run in {folder}; make one with tinytorch train", markup=False)


def _show(found: list[RunSummary]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from tinytorch.cli import console as out

    headers = ("run", "data set", "model", "epochs", "accuracy", "best", "time", "")
    table = Table(*headers, box=None, header_style="dim", padding=(0, 1))
    for column in table.columns[3:7]:
        column.justify = "right"
    for summary in found:
        table.add_row(escape(summary.folder), *_cells(summary), _STATES[summary.state])
    terminal = out.console()
    terminal.print(table)
    for summary in found:
        if summary.problem:
            terminal.print(f"\n{summary.problem}", markup=False)


_STATES = {
    "training": "[cyan]training[/]",
    "finished": "[green]finished[/]",
    "stopped": "[yellow]stopped[/]",
    "damaged": "[red]damaged[/]",
}


def _cells(summary: RunSummary) -> tuple[str, ...]:
    from rich.markup import escape

    from tinytorch.cli.console import duration, percent

    if summary.problem:
        return ("",) * 6
    accuracies = (summary.accuracy, summary.best_accuracy)
    shown = ("–" if value is None else percent(value) for value in accuracies)
    epochs = f"{summary.epochs}/{summary.epochs_wanted}"
    return (escape(summary.dataset), summary.model, epochs, *shown, duration(summary.train_seconds))
