"""`tinytorch train`: train a network on a data set and leave a run folder behind."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tinytorch.cli.session import Data
    from tinytorch.core.training import Observer, Trainer
    from tinytorch.io.run import Run, RunConfig
    from tinytorch.recipes import Recipe

RUNS = Path("runs")
TIME_IS_UP = 124  # the exit code of timeout(1)
_SETTINGS = (
    "model", "epochs", "batch_size", "lr", "weight_decay", "schedule", "clip_norm", "accumulate", "validation"
)  # fmt: skip


def train(
    dataset: Annotated[
        str | None,
        typer.Argument(help="digits (the default), mnist, fashion-mnist, cifar10, or a folder with train/CLASS/*.jpg."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A name that `tinytorch recipes` lists, such as fast94, or your own file.toml.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="simple-cnn, mnist-convnet, mlp, resnet18-cifar …")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times to go through the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; `tinytorch find-lr` suggests one.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of the optimizer.")] = None,
    schedule: Annotated[str | None, typer.Option(help="one-cycle, triangle, cosine, step or constant.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Upper bound of the gradients' norm.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts in which each batch is computed, for less memory.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation; 0 if not given.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data set; downloaded if not given.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side that a folder's pictures get; 64.")] = None,
    skip_corrupt: Annotated[
        bool | None, typer.Option("--skip-corrupt", help="Leave out pictures of a folder that are damaged.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Begin with what fits of a run, or a .safetensors file.")] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(help="Don't train parameters of these names, such as 'features.*'.")
    ] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Factor on the learning rate from each block to the one before.")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the training images by which epochs are judged, such as 0.1.")
    ] = None,
    patience: Annotated[int | None, typer.Option(help="End after so many epochs without a new best.")] = None,
    wall_time: Annotated[str | None, typer.Option(help="Stop and save after 90s, 45m or 1h30m: exit code 124.")] = None,
    log: Annotated[
        list[str] | None, typer.Option(help="jsonl (of steps), csv (of epochs), tensorboard; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default the next runs/DATASET-MODEL-N, or -RECIPE-N.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out, or the latest one.")] = False,
    json: Annotated[bool, typer.Option("--json", help="End standard output with one JSON object.")] = False,
) -> None:
    """Train a network. What is not given comes from the recipe: the named one, or that of the data set.

    Ctrl-C stops after the step under way and saves; --resume then leads to the same result to the bit, as it does
    after a crash. Only --epochs and --patience may differ on resuming; with other epochs the schedule is stretched to
    the new length from there on. --patience and best.safetensors go by the test images, which flatters a little, unless
    --validation holds out some of the training images.
    """
    from tinytorch.cli.console import console
    from tinytorch.core.stopping import WallTime
    from tinytorch.io.logs import make_logs

    settings = _given(
        model=model, epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay, schedule=schedule,
        clip_norm=clip_norm, accumulate=accumulate, validation=validation,
    )  # fmt: skip
    options = _given(
        skip_corrupt=skip_corrupt, weights=str(weights.resolve()) if weights else None, patience=patience,
        freeze=tuple(freeze) if freeze else None, layer_decay=layer_decay,
    )  # fmt: skip
    clock: list[Observer] = [WallTime(_seconds(wall_time))] if wall_time is not None else []
    make_logs(log or [], Path())  # a wrong name shows before anything is written
    terminal = console(to_stderr=json)
    if resume:
        run, data = _continue(dataset, recipe, settings, options, seed, data_dir, image_size, out)
    else:
        run, data = _begin(dataset, recipe, settings, options, seed or 0, data_dir, image_size, out)
    with run.locked():
        _work(run, data, resume, terminal, json, [*make_logs(log or [], run.folder), *clock])


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


_TIME = re.compile(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?")


def _seconds(text: str) -> float:
    """'1h30m' → 5400."""
    parts = _TIME.fullmatch(text.replace(" ", ""))
    with suppress(ValueError):  # of two points in a number
        if text and parts:
            return sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True))
    raise ValueError(
        f"--wall-time must be hours, minutes and seconds such as 1h30m or 90s, got {text!r}; name the unit"
    )


def _begin(
    dataset: str | None,
    recipe_name: str | None,
    settings: dict[str, Any],
    options: dict[str, Any],
    seed: int,
    data_dir: Path | None,
    image_size: int | None,
    out: Path | None,
) -> tuple[Run, Data]:
    """Make a new run; everything is checked before its folder is made."""
    from tinytorch.cli import session
    from tinytorch.io.run import Run

    dataset, recipe = _chosen(dataset, recipe_name)
    recipe = replace(recipe, **settings)
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}; use --seed 0")
    data = session.load_new(dataset, data_dir, image_size, options.get("skip_corrupt"))
    config = session.describe(data, recipe, seed, str(data_dir.resolve()) if data_dir else None, **options)
    _begin_with(session.make_trainer(config, data, len(session.train_loader(config, data))), config)
    if out:
        return Run.create(out, config), data
    return Run.create_next(_stem(dataset, recipe_name or recipe.model), config), data


def _chosen(dataset: str | None, recipe_name: str | None) -> tuple[str, Recipe]:
    """Data set and recipe, each by its name or as the other has it; the digits if neither is named."""
    from tinytorch.cli import session
    from tinytorch.recipes import load

    if recipe_name is None:
        return dataset or "digits", session.recipe(dataset or "digits")
    recipe = load(recipe_name)
    wanted = dataset or recipe.dataset
    if wanted is None:
        raise ValueError(f"the recipe {recipe_name} was made for no data set in particular; name one before --recipe")
    return wanted, recipe


def _begin_with(trainer: Trainer, config: RunConfig) -> str:
    """Take over the weights that the run is to begin with, and say what came of it."""
    from tinytorch.cli import session

    if config.weights is None:
        return ""
    found = session.begin_with(trainer.model, Path(config.weights))
    left = [*found.missing, *found.mismatched]
    fresh = f", fresh: {', '.join(left)}" if left else ""
    return f"began with {len(found.loaded):,} arrays of {config.weights}{fresh}"


def _continue(
    dataset: str | None,
    recipe_name: str | None,
    settings: dict[str, Any],
    options: dict[str, Any],
    seed: int | None,
    data_dir: Path | None,
    image_size: int | None,
    out: Path | None,
) -> tuple[Run, Data]:
    """Open the run to resume; of its settings only the number of epochs and the patience may change."""
    from tinytorch.cli import session
    from tinytorch.io.run import Run

    wanted_set, recipe = _chosen(dataset, recipe_name)
    run = Run.open(out or _latest(wanted_set, recipe_name or settings.get("model") or recipe.model))
    config = run.config
    if recipe_name is not None:
        options_may_differ = {name: getattr(config.recipe, name) for name in _SETTINGS}
        if replace(recipe, **options_may_differ) != config.recipe:
            raise ValueError(
                f"the run in {run.folder} has another recipe than {recipe_name}; leave --recipe out to resume"
            )
    present = {**asdict(config.recipe), **asdict(config), "image_size": config.input_shape[1]}
    wanted = {"dataset": dataset and session.canonical(dataset), "seed": seed, "image_size": image_size}
    for name, value in {**wanted, **settings, **options}.items():
        if name not in ("epochs", "patience") and value is not None and value != present[name]:
            raise ValueError(
                f"the run in {run.folder} has {name} {present[name]}, got {value}; leave the option out "
                "to resume, or start a new run in another --out"
            )
    run.config = replace(
        config,
        recipe=replace(config.recipe, epochs=settings.get("epochs", config.recipe.epochs)),
        patience=options.get("patience", config.patience),
    )
    data = session.load(config, data_dir)
    session.check_unchanged(config, data)
    return run, data


def _stem(dataset: str, how: str) -> Path:
    """Default run folder without its number, from data set and recipe or model.

    runs/digits-mlp, but runs/digits-cnn and not digits-digits-cnn.
    """
    name, how = Path(dataset).expanduser().resolve().name, Path(how).stem
    return RUNS / (how if how.startswith(name) else f"{name}-{how}")


def _latest(dataset: str, how: str) -> Path:
    from tinytorch.io.run import numbered_folders

    stem = _stem(dataset, how)
    folders = numbered_folders(stem)
    if not folders:
        raise ValueError(f"there is nothing to resume: no folder {stem}-1; name the run's folder with --out")
    return folders[-1]


def _work(run: Run, data: Data, resume: bool, terminal: Console, json: bool, watching: list[Observer]) -> None:
    """Train, with everything that watches."""
    from tinytorch.cli import console as out
    from tinytorch.cli import session
    from tinytorch.cli.outcome import finish, table
    from tinytorch.cli.progress import Progress
    from tinytorch.io.run import RunWriter

    config, recipe = run.config, run.config.recipe
    loader, judged = session.train_loader(config, data), session.validation_loader(config, data)
    trainer = session.make_trainer(config, data, len(loader))
    begun = "" if resume and not run.is_untouched() else _begin_with(trainer, config)
    if resume:
        _restore(run, trainer)
    _introduce(run, data, trainer, begun, terminal)
    progress = Progress(terminal, recipe.batch_size, config.judged_by)
    observers = [*session.observers(config), RunWriter(run), *watching, progress]
    try:
        with _stopping(trainer, terminal) as received:
            trainer.fit(loader, judged, recipe.epochs, observers)
    finally:
        progress.close()
    end = _end(run, trainer)
    if end is None:
        _report_stop(run, trainer, terminal)
        raise typer.Exit(128 + received[0] if received else TIME_IS_UP)
    result = finish(run, data, trainer, end)
    terminal.print()
    terminal.print(table(run, result))
    if json:
        out.print_json(result)


def _restore(run: Run, trainer: Trainer) -> None:
    """Bring the trainer to the checkpoint, if there is more to do: epochs, or what a killed process did not write."""
    if not run.is_untouched():
        run.restore(trainer)
    end = _end(run, trainer)
    if end is not None and run.is_finished(trainer.epoch):
        longer = f"--epochs {2 * trainer.epoch}" if trainer.epoch >= run.config.recipe.epochs else "a larger --patience"
        raise ValueError(
            f"there is nothing to resume: the run in {run.folder} has completed {trainer.epoch} epochs and {end}; "
            f"train it longer with {longer}, or evaluate it"
        )
    run.save_config()  # --epochs or --patience may have changed


def _end(run: Run, trainer: Trainer) -> str | None:
    """Say why the run is over: all epochs are complete, or early stopping ends it; None if it is not."""
    from tinytorch.cli import session

    if trainer.epoch >= run.config.recipe.epochs:
        return f"{run.config.recipe.epochs} are wanted"
    return next((stopping.reason(trainer) for stopping in session.early_stopping(run.config)), None)


def _introduce(run: Run, data: Data, trainer: Trainer, begun: str, terminal: Console) -> None:
    """Say what is trained on what, and what is unusual about it."""
    from rich.markup import escape

    from tinytorch.cli import session

    parameters = trainer.model.parameters()
    count, trained = sum(p.size for p in parameters), sum(p.size for p in parameters if p.requires_grad)
    frozen = f", {trained:,} of them trained" if trained < count else ""
    train, held_out = session.splits(run.config, data)
    judging = "" if held_out is None else f", {len(held_out):,} validation"
    terminal.print(
        f"[bold]{run.config.recipe.model}[/] · {count:,} parameters{frozen} · [bold]{escape(run.config.title)}[/], "
        f"{len(train):,} training{judging} and {len(data.test):,} test images · {escape(str(run.folder))}"
    )
    if begun:
        terminal.print(begun, markup=False)
    for path in data.skipped:
        terminal.print(f"skipped, damaged: {path}", markup=False)
    terminal.print()


@contextmanager
def _stopping(trainer: Trainer, terminal: Console) -> Iterator[list[int]]:
    """Turn the first Ctrl-C (or SIGTERM, or hang-up) into a request to stop; the second ends the program at once.

    What the caller has the program ignore, as nohup does with the hang-up, stays ignored. Yields the list of the
    signals received.
    """
    received: list[int] = []

    def request(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        trainer.stop()
        with suppress(OSError):  # the terminal may be gone
            os.write(2, b"\nStopping after this step; press Ctrl-C again to end at once.\n")  # print is not reentrant

    watched = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request) for number in watched}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _report_stop(run: Run, trainer: Trainer, terminal: Console) -> None:
    where = (
        f"in epoch {trainer.epoch + 1} after batch {trainer.batch}" if trainer.batch else f"after epoch {trainer.epoch}"
    )
    terminal.print(
        f"\nStopped {where} ({trainer.stop_reason}), and saved. Continue with\n"
        f"  tinytorch train {quote(run.config.dataset)} --out {quote(str(run.folder))} --resume",
        markup=False,
    )
