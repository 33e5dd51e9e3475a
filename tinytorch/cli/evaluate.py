"""`tinytorch evaluate`: a trained run against its test data."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set, if it has moved.")] = None,
    best: Annotated[bool, typer.Option("--best", help="With the weights of the best epoch, not the last.")] = False,
    views: Annotated[
        str | None, typer.Option(help="plain, mirrored or mirrored-and-shifted; by default as the recipe says.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Test a trained run: loss, accuracy, and the accuracy on each class."""
    from tinytorch.cli import console as out
    from tinytorch.cli import session
    from tinytorch.core import training
    from tinytorch.io.run import Run
    from tinytorch.recipes.recipe import VIEWS, check_choice

    opened = Run.open(run)
    config = opened.config
    seen = config.recipe.views if views is None else views
    check_choice("--views", seen, VIEWS)
    model = opened.load_model(best)
    data = session.load(config, data_dir)
    figures, logits, labels = session.test(config, data, partial(training.predict, model), seen)
    result = {
        "run": str(run),
        "dataset": config.dataset,
        "model": config.recipe.model,
        "test_images": len(labels),
        **figures,
        "class_accuracy": class_accuracy(logits, labels, config.classes),
    }
    if json:
        out.print_json(result)
    else:
        _show(result, labels, config.classes)


def class_accuracy(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, float | None]:
    """Return the share of each class's images that are recognised; None for a class without images."""
    right = logits.argmax(axis=1) == labels
    rows = [right[labels == i] for i in range(len(classes))]
    return {name: float(row.mean()) if len(row) else None for name, row in zip(classes, rows, strict=True)}


def _show(result: dict[str, Any], labels: np.ndarray, classes: tuple[str, ...]) -> None:
    from rich.table import Table

    from tinytorch.cli import console as out

    table = Table("class", "images", "accuracy", "", box=None, header_style="dim", padding=(0, 2))
    table.columns[1].justify = table.columns[2].justify = "right"
    for i, name in enumerate(classes):
        share = result["class_accuracy"][name]
        shown = ("–", "") if share is None else (out.percent(share), out.bar(share))
        table.add_row(name, f"{(labels == i).sum():,}", *shown)
    console = out.console()
    model, dataset = result["model"], result["dataset"]
    console.print(f"[bold]{model}[/] on the {len(labels):,} test images of [bold]{dataset}[/]\n")
    console.print(table)
    accuracy, in_views = out.percent(result["test_accuracy"]), out.percent(result["accuracy_in_views"])
    seen = "" if result["views"] == "plain" else f", {result['views'].replace('-', ' ')} [bold green]{in_views}[/]"
    console.print(f"\naccuracy [bold green]{accuracy}[/]{seen}, loss {result['test_loss']:.4f}")
