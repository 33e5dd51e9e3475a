"""`tinytorch train`: train a network on a data set and leave a run folder behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tinytorch.core.training import Trainer
    from tinytorch.datasets import ImageData
    from tinytorch.io.run import Run

RUNS = Path("runs")


def train(
    dataset: Annotated[
        str | None, typer.Argument(help="digits (the default), mnist, fashion-mnist or cifar10.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="simple-cnn, mnist-convnet, mlp, resnet18-cifar …")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times to go through the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's weight decay.")] = None,
    schedule: Annotated[str | None, typer.Option(help="one-cycle, cosine, step or constant.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Upper bound of the gradients' norm.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation; 0 if not given.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set; downloaded if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default the next runs/DATASET-MODEL-N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, or the latest one.")] = False,
    json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON object.")] = False,
) -> None:
    """Train a network. What is not given comes from the data set's recipe.

    Ctrl-C stops after the step under way and saves; --resume then leads to the same result to the bit. Only
    --epochs may differ on resuming: the schedule is stretched to the new length from there on.
    """
    from tinytorch.cli.console import console

    asked = {
        "model": model, "epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay,
        "schedule": schedule, "clip_norm": clip_norm,
    }  # fmt: skip
    asked = {name: value for name, value in asked.items() if value is not None}
    terminal = console(to_stderr=json)
    if resume:
        run, data = _continue(dataset, asked, seed, data_dir, out)
    else:
        run, data = _begin(dataset or "digits", asked, seed or 0, data_dir, out)
    _work(run, data, resume, terminal, json)


def _begin(
    dataset: str, asked: dict[str, Any], seed: int, data_dir: Path | None, out: Path | None
) -> tuple[Run, ImageData]:
    """Make a new run; everything is checked before its folder is made."""
    from tinytorch import datasets
    from tinytorch.cli import session
    from tinytorch.io.run import Run, next_folder
    from tinytorch.models import recipe

    settings = replace(recipe(dataset), **asked)
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}; use --seed 0")
    data = datasets.load(dataset, data_dir)
    config = session.describe(data, settings, seed, str(data_dir.resolve()) if data_dir else None)
    config.build_model()
    return Run.create(out or next_folder(_stem(dataset, settings.model)), config), data


def _continue(
    dataset: str | None, asked: dict[str, Any], seed: int | None, data_dir: Path | None, out: Path | None
) -> tuple[Run, ImageData]:
    """Open the run to resume; of its settings only the number of epochs may change."""
    from tinytorch import datasets
    from tinytorch.io.run import Run

    run = Run.open(out or _latest(dataset or "digits", asked.get("model")))
    config = run.config
    present = {"dataset": config.dataset, "seed": config.seed, **asdict(config.recipe)}
    wanted = {"dataset": dataset, "seed": seed, **asked}
    for name, value in wanted.items():
        if name != "epochs" and value is not None and value != present[name]:
            raise ValueError(
                f"the run in {run.folder} has {name} {present[name]}, got {value}; leave the option out "
                "to resume, or start a new run in another --out"
            )
    run.config = replace(config, recipe=replace(config.recipe, epochs=asked.get("epochs", config.recipe.epochs)))
    return run, datasets.load(config.dataset, data_dir or config.data_dir)


def _stem(dataset: str, model: str) -> Path:
    """Default run folder without its number: runs/digits-mlp, but runs/digits-cnn and not digits-digits-cnn."""
    return RUNS / (model if model.startswith(dataset) else f"{dataset}-{model}")


def _latest(dataset: str, model: str | None) -> Path:
    from tinytorch.io.run import numbered_folders
    from tinytorch.models import recipe

    stem = _stem(dataset, model or recipe(dataset).model)
    folders = numbered_folders(stem)
    if not folders:
        raise ValueError(f"there is nothing to resume: no folder {stem}-1; name the run's folder with --out")
    return folders[-1]


def _work(run: Run, data: ImageData, resume: bool, terminal: Console, json: bool) -> None:
    """Train, with everything that watches."""
    from rich.markup import escape

    from tinytorch.cli import console as out
    from tinytorch.cli import session
    from tinytorch.cli.progress import Progress
    from tinytorch.io.run import RunWriter

    config, recipe = run.config, run.config.recipe
    loader = session.train_loader(config, data)
    trainer = session.make_trainer(config, len(loader))
    if resume:
        if not run.is_untouched():
            run.restore(trainer)
        _check_unfinished(run, trainer)
        run.save_config()  # --epochs may have changed
    parameters = sum(p.size for p in trainer.model.parameters())
    terminal.print(
        f"[bold]{recipe.model}[/] · {parameters:,} parameters · [bold]{config.dataset}[/], "
        f"{len(data.train_images):,} training and {len(data.test_images):,} test images · {escape(str(run.folder))}\n"
    )
    progress = Progress(terminal, recipe.batch_size)
    try:
        with _stopping(trainer, terminal) as received:
            trainer.fit(loader, session.test_loader(config, data), recipe.epochs, [RunWriter(run), progress])
    finally:
        progress.close()
    if trainer.epoch < recipe.epochs:
        _report_stop(run, trainer, terminal)
        raise typer.Exit(128 + received[0])
    result = _finish(run, trainer, parameters)
    terminal.print()
    terminal.print(_table(result))
    if json:
        out.print_json(result)


def _check_unfinished(run: Run, trainer: Trainer) -> None:
    epochs = run.config.recipe.epochs
    if trainer.epoch >= epochs:
        raise ValueError(
            f"there is nothing to resume: the run in {run.folder} has completed {trainer.epoch} epochs and "
            f"{epochs} are wanted; train it longer with --epochs {2 * trainer.epoch}, or evaluate it"
        )


@contextmanager
def _stopping(trainer: Trainer, terminal: Console) -> Iterator[list[int]]:
    """Turn the first Ctrl-C (or SIGTERM) into a request to stop; the second ends the program at once.

    Yields the list of the signals received.
    """
    received: list[int] = []

    def request(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        trainer.stop()
        os.write(2, b"\nStopping after this step; press Ctrl-C again to end at once.\n")  # print is not reentrant

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report_stop(run: Run, trainer: Trainer, terminal: Console) -> None:
    where = (
        f"in epoch {trainer.epoch + 1} after batch {trainer.batch}" if trainer.batch else f"after epoch {trainer.epoch}"
    )
    terminal.print(
        f"\nStopped {where}, and saved. Continue with\n"
        f"  tinytorch train {run.config.dataset} --out {quote(str(run.folder))} --resume",
        markup=False,
    )


def _finish(run: Run, trainer: Trainer, parameters: int) -> dict[str, Any]:
    """Write curves and result into the run's folder."""
    import json

    from tinytorch.io.files import write_atomically
    from tinytorch.io.plots import draw_curves

    config, last = run.config, trainer.history[-1]
    seconds = sum(record["seconds"] for record in trainer.history)
    result = {
        "dataset": config.dataset,
        "model": config.recipe.model,
        "epochs": trainer.epoch,
        "parameters": parameters,
        "test_accuracy": last["validation_accuracy"],
        "test_loss": last["validation_loss"],
        "train_accuracy": last["accuracy"],
        "train_loss": last["loss"],
        "train_seconds": seconds,
        "images_per_second": sum(record["images"] for record in trainer.history) / seconds,
        "seed": config.seed,
        "out": str(run.folder),
    }
    draw_curves(run.folder / "curves.png", trainer.history, f"{config.recipe.model} on {config.dataset}")
    write_atomically(run.folder / "result.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def _table(result: dict[str, Any]) -> Any:
    from rich.markup import escape

    from tinytorch.cli.console import duration, facts, percent

    out = escape(result["out"])
    return facts(
        [
            ("test accuracy", f"[bold green]{percent(result['test_accuracy'])}[/]"),
            ("test loss", f"{result['test_loss']:.4f}"),
            (
                "training time",
                f"{duration(result['train_seconds'])}, {result['images_per_second']:,.0f} images/s",
            ),
            ("weights", f"{out}/model.safetensors"),
            ("curves", f"{out}/curves.png"),
            ("try it", f"tinytorch predict {escape(quote(result['out']))} PICTURE.png"),
        ]
    )
