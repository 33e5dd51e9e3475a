"""What came of a training run: result.json, the pictures, and the table at the end."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from tinytorch.cli.session import Data
    from tinytorch.core.training import Trainer
    from tinytorch.io.run import Run, RunConfig


def finish(run: Run, data: Data, trainer: Trainer, end: str) -> dict[str, Any]:
    """Test, draw the pictures and write the result, which marks the run as finished."""
    from tinytorch.cli import session
    from tinytorch.core.stopping import BETTER, best_record

    config, last, best = run.config, trainer.history[-1], best_record(trainer.history)
    assert best is not None  # every epoch was validated
    figures, logits, labels = session.test(config, data, trainer.predict, config.recipe.views)
    seconds, images = (sum(record[name] for record in trainer.history) for name in ("seconds", "images"))
    result = {
        "dataset": config.dataset,
        "model": config.recipe.model,
        "epochs": trainer.epoch,
        "stopped": end if trainer.epoch < config.recipe.epochs else None,
        "parameters": sum(p.size for p in trainer.model.parameters()),
        **figures,
        "judged_by": config.judged_by,
        "best_accuracy": best[BETTER],
        "best_epoch": best["epoch"],
        "train_accuracy": last["accuracy"],
        "train_loss": last["loss"],
        "train_seconds": seconds,
        "waiting_seconds": sum(record["waiting"] for record in trainer.history),
        "images_per_second": images / seconds,
        "pflop": session.arithmetic(config, images) / 1e15,
        "seed": config.seed,
        "out": str(run.folder),
    }
    result["goal"] = _goal(config, trainer.history, result)
    _draw(run, data, trainer, logits, labels)
    run.save_result(result)
    return result


def _goal(config: RunConfig, history: list[dict[str, Any]], result: dict[str, Any]) -> dict[str, Any] | None:
    """Whether the finished network has the accuracy that the recipe is for, in its views, and what that took.

    Where epochs are judged by the test images, the first that was as good without views is enough.
    """
    from tinytorch.core.stopping import BETTER

    wanted = config.recipe.goal
    if wanted is None or config.recipe.dataset != config.dataset:
        return None
    reached = result["accuracy_in_views"] >= wanted
    good = [record["epoch"] for record in history if record[BETTER] >= wanted]
    epoch = good[0] if reached and good and config.judged_by == "test" else len(history)
    before = history[:epoch]
    share = sum(record["images"] for record in before) / sum(record["images"] for record in history)
    return {
        "accuracy": wanted,
        "reached": reached,
        "epoch": epoch,
        "train_seconds": sum(record["seconds"] for record in before),
        "pflop": share * result["pflop"],
    }


def _draw(run: Run, data: Data, trainer: Trainer, logits: np.ndarray, labels: np.ndarray) -> None:
    from tinytorch.cli import session
    from tinytorch.core.training import confusion_matrix
    from tinytorch.io import plots

    config, folder = run.config, run.folder
    title = f"{config.recipe.model} on {config.title}"
    plots.draw_curves(folder / "curves.png", trainer.history, title, config.judged_by)
    plots.draw_confusion(folder / "confusion.png", confusion_matrix(logits, labels), config.classes, title)
    mistakes, probabilities = session.surest_mistakes(logits, labels)
    if len(mistakes):
        images, names = data.test.gather(mistakes)
        path = folder / "misclassified.png"
        plots.draw_mistakes(path, images, names, probabilities, config.classes, f"{title}: the surest mistakes")
    else:
        (folder / "misclassified.png").unlink(missing_ok=True)  # of an earlier end of this run


def table(run: Run, result: dict[str, Any]) -> Any:
    from rich.markup import escape

    from tinytorch.cli.console import duration, facts, percent

    out = escape(result["out"])
    views, seconds = result["views"].replace("-", " "), result["train_seconds"]
    seen = [] if views == "plain" else [(views, f"[bold green]{percent(result['accuracy_in_views'])}[/]")]
    rows = [
        ("test accuracy", f"[bold green]{percent(result['test_accuracy'])}[/]"),
        *seen,
        ("test loss", f"{result['test_loss']:.4f}"),
        (
            "best epoch",
            f"{result['best_epoch']}, {percent(result['best_accuracy'])} of the {result['judged_by']} images",
        ),
        ("training time", f"{duration(seconds)}, {duration(result['waiting_seconds'])} of it waiting for data"),
        ("speed", f"{result['images_per_second']:,.0f} images/s, {1e3 * result['pflop'] / seconds:.2f} TFLOP/s"),
        *_goal_row(result["goal"]),
        ("weights", f"{out}/model.safetensors"),
        ("pictures", ", ".join(f"{out}/{path.name}" for path in sorted(run.folder.glob("*.png")))),
        ("try it", f"tinytorch predict {escape(quote(result['out']))} PICTURE.png"),
    ]
    return facts([("stopped", escape(result["stopped"])), *rows] if result["stopped"] else rows)


def _goal_row(goal: dict[str, Any] | None) -> list[tuple[str, str]]:
    """How long it took to the accuracy that the recipe is for, and what it took."""
    from tinytorch.cli.console import duration, operations, percent

    if goal is None:
        return []
    spent = f"{duration(goal['train_seconds'])}, {operations(goal['pflop'])}"
    if not goal["reached"]:
        return [(f"goal {percent(goal['accuracy'])}", f"[yellow]not reached[/] after {spent}")]
    return [(f"goal {percent(goal['accuracy'])}", f"reached in epoch {goal['epoch']}: {spent}")]
