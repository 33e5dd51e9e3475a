"""`tinytorch compare`: the curves of several runs in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of two or more runs.")],
    out: Annotated[Path, typer.Option(help="The picture to write or replace.")] = Path("compare.png"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Compare runs: which learns faster, which ends higher. Draws their curves in one picture."""
    from tinytorch.cli import console
    from tinytorch.io.plots import draw_comparison
    from tinytorch.io.run import Run

    _check(runs, out)
    opened = [Run.open(folder) for folder in runs]
    histories = [run.history() for run in opened]
    for run, history in zip(opened, histories, strict=True):
        if not history:
            raise ValueError(f"{run.folder} has no complete epoch; continue it with tinytorch train --resume")
    common = min(history[-1]["validation_accuracy"] for history in histories)
    rows = [_summary(run, history, common) for run, history in zip(opened, histories, strict=True)]
    labels = _labels(opened)
    title = " and ".join(dict.fromkeys(run.config.dataset for run in opened))
    draw_comparison(out, dict(zip(labels, histories, strict=True)), title)
    if json:
        console.print_json({"runs": rows, "common_accuracy": common, "picture": str(out)})
    else:
        _show(rows, labels, common, out)


def _check(runs: list[Path], out: Path) -> None:
    if len(runs) < 2:
        raise ValueError(f"compare needs two runs, got {len(runs)}; train another with tinytorch train")
    if len(set(map(Path.resolve, runs))) < len(runs):
        raise ValueError(f"compare needs different runs, got {', '.join(map(str, runs))}; name each once")
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {out}; the picture is a PNG")


def _labels(runs: list[Any]) -> list[str]:
    """Names for the legend: the models, or the folders where two are the same."""
    models = [run.config.recipe.model for run in runs]
    return models if len(set(models)) == len(models) else [str(run.folder) for run in runs]


def _summary(run: Any, history: list[dict[str, Any]], common: float) -> dict[str, Any]:
    reached = next(record for record in history if record["validation_accuracy"] >= common)
    return {
        "run": str(run.folder),
        "dataset": run.config.dataset,
        "model": run.config.recipe.model,
        "parameters": sum(p.size for p in run.config.build_model().parameters()),
        "epochs": len(history),
        "accuracy": history[-1]["validation_accuracy"],
        "judged_by": run.config.judged_by,
        "epochs_to_common_accuracy": reached["epoch"],
        "train_seconds": sum(record["seconds"] for record in history),
    }


def _show(rows: list[dict[str, Any]], labels: list[str], common: float, picture: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from tinytorch.cli import console

    headers = ("run", "parameters", "epochs", "accuracy", f"{console.percent(common)} by", "time")
    table = Table(*headers, box=None, header_style="dim", padding=(0, 1))
    for column in table.columns[1:]:
        column.justify = "right"
    for row, label in zip(rows, labels, strict=True):
        table.add_row(
            escape(label),
            f"{row['parameters']:,}",
            str(row["epochs"]),
            console.percent(row["accuracy"]),
            f"epoch {row['epochs_to_common_accuracy']}",
            console.duration(row["train_seconds"]),
        )
    terminal = console.console()
    terminal.print(f"[bold]{' and '.join(dict.fromkeys(row['dataset'] for row in rows))}[/]\n")
    terminal.print(table)
    if len({row["judged_by"] for row in rows}) > 1:
        terminal.print(
            "\nnot all are judged by the same images: some by held-out training images, some by the test images"
        )
    terminal.print(f"\ncurves in {picture}", markup=False)
