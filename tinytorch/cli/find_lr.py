"""`tinytorch find-lr`: which learning rate suits a network and a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer


def find_lr(
    dataset: Annotated[str, typer.Argument(help="A data set, as for train.")] = "digits",
    model: Annotated[str | None, typer.Option(help="By default that of the data set's recipe.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    low: Annotated[float, typer.Option(help="First learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="Last learning rate.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Steps from the first to the last.")] = 100,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set; downloaded if not given.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side that a folder's pictures get; 64.")] = None,
    out: Annotated[Path, typer.Option(help="The picture to write or replace.")] = Path("lr.png"),
    json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON object.")] = False,
) -> None:
    """Raise the learning rate at every step, and suggest a tenth of the one at which the loss is least.

    No run is made; give the suggestion to train with --lr. It is a peak for the one-cycle schedule.
    """
    from tinytorch.cli import console, session
    from tinytorch.core.lr_finder import find_lr as search
    from tinytorch.io.plots import draw_lr_search

    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {out}; the picture is a PNG")
    settings: dict[str, Any] = {"model": model, "batch_size": batch_size}
    recipe = replace(session.recipe(dataset), **{name: value for name, value in settings.items() if value is not None})
    data = session.load_new(dataset, data_dir, image_size, None)
    config = session.describe(data, recipe, seed, None)
    loader = session.train_loader(config, data)
    found = search(session.make_trainer(config, data, len(loader)), loader, low, high, steps)
    draw_lr_search(out, found, f"{recipe.model} on {config.title}")
    if json:
        console.print_json(
            {"suggestion": found.suggestion, "lrs": found.lrs, "losses": found.losses, "picture": str(out)}
        )
        return
    terminal = console.console()
    least = found.lrs[found.losses.index(min(found.losses))]
    terminal.print(f"suggestion [bold green]{found.suggestion:.2g}[/]; the loss was least at {least:.2g}\n")
    command = f"tinytorch train {quote(dataset)} --model {recipe.model} --lr {found.suggestion:.2g}"
    terminal.print(f"try it: {command}\ncurve in {out}", markup=False)
