"""`tinytorch predict`: what a trained run sees in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures in any common format.")],
    top: Annotated[int, typer.Option(help="Classes to show for each picture.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of bars.")] = False,
) -> None:
    """Classify pictures: the most probable classes with their probabilities.

    A picture is scaled to the size of the data set. For grey data sets (digits, mnist, fashion-mnist) one
    with a light border is inverted, and what is drawn on it is cut out and centred.
    """
    import numpy as np

    from tinytorch.cli import console as out
    from tinytorch.cli import session
    from tinytorch.core import functional as F
    from tinytorch.core import training
    from tinytorch.core.tensor import Tensor
    from tinytorch.io.images import load_image
    from tinytorch.io.run import Run

    if top < 1:
        raise ValueError(f"--top must be a positive integer, got {top}; 3 shows the three likeliest classes")
    opened = Run.open(run)
    config = opened.config
    pixels = np.concatenate([load_image(path, config.input_shape, config.recipe.margin) for path in images])
    loader = session.image_loader(config, pixels, np.zeros(len(pixels), np.int64))  # labels are not looked at
    logits, _ = training.predict(opened.load_model(), loader)
    rows = F.softmax(Tensor(logits), dim=1).numpy()
    ranked = [_best(row, config.classes, top) for row in rows]
    if json:
        predictions = {str(path): dict(best) for path, best in zip(images, ranked, strict=True)}
        out.print_json({"run": str(run), "model": config.recipe.model, "predictions": predictions})
    else:
        _show(images, ranked)


def _best(probabilities: np.ndarray, classes: tuple[str, ...], top: int) -> list[tuple[str, float]]:
    order = (-probabilities).argsort(kind="stable")[:top]
    return [(classes[i], float(probabilities[i])) for i in order]


def _show(images: list[Path], ranked: list[list[tuple[str, float]]]) -> None:
    from rich.table import Table

    from tinytorch.cli import console as out

    console = out.console()
    width = max(len(name) for best in ranked for name, _ in best)
    for path, best in zip(images, ranked, strict=True):
        table = Table.grid(padding=(0, 2))
        for i, (name, probability) in enumerate(best):
            row = (f"  {name:<{width}}", out.bar(probability), f"{100 * probability:6.2f} %")
            table.add_row(*row, style="" if i else "bold")
        console.print(str(path), markup=False)
        console.print(table)
