"""A CNN and an MLP of as many parameters, trained alike: ``python -m benchmarks.cnn_and_mlp --data-dir DIR``.

What locality, shared weights and pooling are worth, and where they cost more than they bring: docs/cnn-and-mlp.md.
Nothing is augmented. Rows of a table are conditions, columns are networks.
"""

from __future__ import annotations

import json as json_format
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

import tinytorch
from benchmarks.timing import Effort, Runner, interleave
from tinytorch import Tensor, datasets, models, no_grad, recipes
from tinytorch.core.dataloader import DataLoader, Normalize, TensorDataset
from tinytorch.core.layers import Module
from tinytorch.core.random import manual_seed
from tinytorch.core.training import Trainer
from tinytorch.datasets.image_data import channel_statistics
from tinytorch.kernels.target import target
from tinytorch.recipes import build

TOLERANCE = 0.01  # equal numbers of parameters are equal so far
SHIFTS = (1, 2, 3)
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # rows down, columns right
BATCH = 250  # of images that are tested or timed
PLAIN = "as they are"
CNN, MLP, SAME_MACS = "CNN", "MLP", "MLP, equal MACs"
COLOURS = {CNN: "#0072B2", MLP: "#D55E00", SAME_MACS: "#E69F00"}  # of Okabe and Ito's


# ---- what is compared ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """How a network is trained: on how many images, how often it sees them, and whether their pixels are permuted."""

    name: str
    images: int
    epochs: int
    permuted: bool = False


@dataclass(frozen=True)
class Task:
    """A data set and two networks.

    Parameters
    ----------
    title, dataset, cnn
        The last two as `tinytorch.datasets` and `tinytorch.models` name them.
    trainings
        The first with the pixels as they are.
    hidden
        Units of the MLP; by default as many as give it the CNN's number of parameters.
    """

    title: str
    dataset: str
    cnn: str
    trainings: tuple[Training, ...]
    hidden: int | None = None


def trainings(images: int, epochs: int, few: dict[int, int]) -> tuple[Training, ...]:
    """All of them; ``few`` maps fewer training images to more epochs."""
    return (
        Training(PLAIN, images, epochs),
        *(Training(f"{count:,} training images", count, times) for count, times in few.items()),
        Training("pixels permuted", images, epochs, permuted=True),
    )


TASKS = (
    Task("digits", "digits", "digits-cnn", trainings(1_500, 10, {100: 60})),
    Task("MNIST", "mnist", "mnist-convnet", trainings(10_000, 3, {1_000: 10, 100: 40})),
    Task("CIFAR-10", "cifar10", "mnist-convnet", trainings(10_000, 3, {1_000: 10, 100: 40})),
    Task("CIFAR-10, the pages' pair", "cifar10", "simple-cnn", (Training(PLAIN, 10_000, 3),), hidden=1_000),
)


@dataclass
class Column:
    """A network, and what is found out about it.

    Attributes
    ----------
    kind, name : str
        One of `COLOURS`, and which.
    create : callable
        Makes it, its parameters drawn anew.
    parameters, macs : int
        The latter of one image, forward.
    accuracies : dict of str to list of float
        Of the test images by condition, a number a seed.
    seconds : list of float
        Of each epoch of plain training.
    images_per_second : float
        Forward, in batches.
    """

    kind: str
    name: str
    create: Callable[[], Module]
    parameters: int
    macs: int
    accuracies: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    images_per_second: float = 0.0


@dataclass
class Result:
    """A task and its columns: the CNN, the MLP, and where parameters are equal the MLP of equal MACs."""

    task: Task
    seeds: int
    columns: list[Column]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        columns = [{name: value for name, value in vars(column).items() if name != "create"} for column in self.columns]
        return {**asdict(self.task), "seeds": self.seeds, "columns": columns}


def columns(task: Task, shape: tuple[int, int, int], classes: int) -> list[Column]:
    """The networks of a task for images of this shape."""
    cnn = _column(CNN, task.cnn, partial(models.create, task.cnn, shape, classes), shape)
    perceptron = partial(_mlp, shape=shape, classes=classes)
    if task.hidden is not None:
        return [cnn, perceptron(MLP, task.hidden)]
    alike = perceptron(MLP, width_of_parameters(cnn.parameters, prod(shape), classes))
    return [cnn, alike, perceptron(SAME_MACS, width_of_macs(cnn.macs, prod(shape), classes))]


def _mlp(kind: str, hidden: int, shape: tuple[int, int, int], classes: int) -> Column:
    return _column(kind, f"{hidden:,} hidden units", partial(models.MLP, shape, classes, hidden), shape)


def _column(kind: str, name: str, create: Callable[[], Module], shape: tuple[int, int, int]) -> Column:
    model = create()
    macs = tinytorch.summary(model, (1, *shape), memory=False).macs.value
    return Column(kind, name, create, sum(p.size for p in model.parameters()), macs)  # type: ignore[arg-type]  # known


def width_of_parameters(parameters: int, inputs: int, classes: int) -> int:
    """Hidden units that give an MLP so many parameters: each has a weight for every input, a bias, a weight a class.

    Raises
    ------
    ValueError
        If no whole number of units comes within 1 %.
    """
    each = inputs + 1 + classes
    hidden = max(1, round((parameters - classes) / each))
    count = hidden * each + classes
    if abs(count - parameters) > TOLERANCE * parameters:
        raise ValueError(
            f"parameters must be within {TOLERANCE:.0%} of what some MLP has, got {parameters:,}: with {inputs:,} "
            f"inputs a hidden unit has {each:,}, and {hidden:,} units have {count:,}; take a larger CNN"
        )
    return hidden


def width_of_macs(macs: int, inputs: int, classes: int) -> int:
    """Hidden units that let an MLP do so many multiply-accumulates: each weight does one."""
    return max(1, round(macs / (inputs + classes)))


# ---- images -------------------------------------------------------------------------------------------


def permuted(images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) whose k-th pixel, counted along the rows, is pixel ``order[k]`` of the original."""
    return images.reshape(*images.shape[:2], -1)[..., order].reshape(images.shape)


def shifted(images: np.ndarray, pixels: int) -> np.ndarray:
    """Images (N, C, H, W) moved, by turns, right, down, left and up; what moves in repeats the outermost pixels."""
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), "edge")
    out = np.empty_like(images)
    for turn, (down, right) in enumerate(DIRECTIONS):
        top, left = pixels * (1 - down), pixels * (1 - right)
        out[turn::4] = padded[turn::4, :, top : top + height, left : left + width]
    return out


def train_images(data: datasets.ImageData, training: Training, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels drawn by the seed alone, so that all networks get the same."""
    chosen = np.random.default_rng(seed).permutation(len(data.train_images))[: training.images]
    return _arranged(data.train_images[chosen], training), data.train_labels[chosen]


def test_images(data: datasets.ImageData, training: Training) -> Iterator[tuple[str, np.ndarray]]:
    """What a network trained so is tested on; the shifts are of no interest but for plain training."""
    yield training.name, _arranged(data.test_images, training)
    if training.name == PLAIN:
        for pixels in SHIFTS:
            yield f"shifted by {pixels} pixel{'s' * (pixels > 1)}", shifted(data.test_images, pixels)


def _arranged(images: np.ndarray, training: Training) -> np.ndarray:
    """The images, or with their pixels in an order that is the same for training, test and all seeds."""
    order = np.random.default_rng(0).permutation(prod(images.shape[2:]))
    return permuted(images, order) if training.permuted else images


# ---- training and timing ------------------------------------------------------------------------------


def run(task: Task, data: datasets.ImageData, seeds: int, say: Callable[[str], Any]) -> Result:
    """Train and test all networks of a task, and time them. ``say`` is told what is under way."""
    result = Result(task, seeds, columns(task, data.image_shape, len(data.classes)))
    for training, seed, column in product(task.trainings, range(seeds), result.columns):
        if training.name == PLAIN or column.kind != SAME_MACS:
            say(f"{task.title}: {column.kind}, {training.name}, seed {seed}")
            _learn(column, task.dataset, data, training, seed)
    say(f"{task.title}: inference")
    _time_inference(result.columns, data.test_images[:BATCH])
    return result


def _learn(column: Column, dataset: str, data: datasets.ImageData, training: Training, seed: int) -> None:
    """Train once, and keep the accuracies."""
    images, labels = train_images(data, training, seed)
    normalize = Normalize(*channel_statistics(images))
    trainer = train(column.create, dataset, images, labels, normalize, training.epochs, seed)
    if training.name == PLAIN:
        column.seconds += [record["seconds"] for record in trainer.history]
    for condition, tested in test_images(data, training):
        loader = DataLoader(TensorDataset(tested, data.test_labels), BATCH, seed=seed, transform=normalize)
        column.accuracies.setdefault(condition, []).append(trainer.evaluate(loader)["accuracy"])


def train(
    create: Callable[[], Module],
    dataset: str,
    images: np.ndarray,
    labels: np.ndarray,
    normalize: Normalize,
    epochs: int,
    seed: int,
) -> Trainer:
    """Train by the data set's recipe as ``tinytorch train`` has it, but without augmentation."""
    recipe = replace(recipes.of_dataset(dataset), epochs=epochs)
    manual_seed(seed)
    model = create()
    loader = DataLoader(TensorDataset(images, labels), recipe.batch_size, True, seed=seed, transform=normalize)
    trainer = build.trainer(recipe, model, len(loader))
    trainer.fit(loader, epochs=epochs)
    return trainer


def _time_inference(networks: Sequence[Column], images: np.ndarray) -> None:
    """Images per second of each network, all of them taking turns."""
    batch = Tensor(Normalize(*channel_statistics(images))(images, np.random.default_rng(0)))
    runners = [Runner(column.kind, partial(column.create().eval(), batch), list, no_grad) for column in networks]
    seconds = interleave(runners, Effort(21, 0.1))  # some seconds, which outlast a moment of noise
    for column in networks:
        column.images_per_second = len(images) / statistics.median(seconds[column.kind])


# ---- tables and the picture ---------------------------------------------------------------------------


def table(result: Result) -> Table:
    """Conditions in rows, networks in columns, in Markdown."""
    made = Table(box=MARKDOWN)
    made.add_column("test accuracy, %")
    for column in result.columns:
        made.add_column(f"{column.kind}: {column.name}", justify="right")
    made.add_column("CNN against MLP", justify="right")
    cnn, mlp, *_ = result.columns
    for condition in cnn.accuracies:
        difference = _mean(cnn.accuracies[condition]) - _mean(mlp.accuracies[condition])
        found = [column.accuracies.get(condition) for column in result.columns]
        made.add_row(condition, *map(_accuracy, found), f"{difference:+.1f}")
    for label, value, text in _costs(result.task.trainings[0].epochs):
        made.add_row(label, *(text(value(c)) for c in result.columns), f"{value(cnn) / value(mlp):.2g}×")
    return made


def _costs(epochs: int) -> list[tuple[str, Callable[[Column], float], Callable[[float], str]]]:
    """Rows of costs: the label, the figure, how to write it."""
    return [
        ("parameters", lambda column: column.parameters, "{:,}".format),
        ("MACs of an image", lambda column: column.macs, "{:,}".format),
        (f"{epochs} epochs, s", lambda column: epochs * statistics.median(column.seconds), "{:.1f}".format),
        ("inference, images/s", lambda column: column.images_per_second, "{:,.0f}".format),
    ]


def _mean(accuracies: Sequence[float]) -> float:
    """In percent."""
    return 100 * statistics.fmean(accuracies)


def _deviation(accuracies: Sequence[float]) -> float:
    """Sample standard deviation in percent; 0 for a single seed."""
    return 100 * statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0


def _accuracy(accuracies: Sequence[float] | None) -> str:
    if accuracies is None:
        return "–"
    spread = f" ± {_deviation(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{_mean(accuracies):.1f}{spread}"


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw the accuracies as a PNG: a panel a task, a row a condition, a dot a network, a line a standard deviation."""
    from matplotlib.figure import Figure

    rows, across = -(-len(results) // 2), min(2, len(results))
    figure = Figure(figsize=(5 * across, 0.6 + 3.3 * rows), dpi=90, layout="constrained")
    panels = list(figure.subplots(rows, across, squeeze=False).flat)
    for axes, result in zip(panels, results, strict=False):
        _panel(axes, result)
    for axes in panels[len(results) :]:
        axes.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _panel(axes: Any, result: Result) -> None:
    conditions = list(result.columns[0].accuracies)
    for place, column in enumerate(result.columns):
        heights = [conditions.index(condition) + 0.16 * (place - 1) for condition in column.accuracies]
        means, spreads = ([of(found) for found in column.accuracies.values()] for of in (_mean, _deviation))
        axes.errorbar(means, heights, xerr=spreads, fmt="o", color=COLOURS[column.kind], label=column.kind)
    axes.set_yticks(range(len(conditions)), conditions)
    axes.set(title=result.task.title, xlim=(0, 101), ylim=(len(conditions) - 0.5, -0.5))
    axes.set_xlabel("test accuracy, %")
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


# ---- the command --------------------------------------------------------------------------------------


def load(name: str, folders: Sequence[Path]) -> datasets.ImageData | None:
    """The data set, from the first folder that has it, or None; nothing is downloaded."""
    for folder in (None,) if name == "digits" else folders:
        with suppress(FileNotFoundError):
            return datasets.load(name, folder)  # type: ignore[return-value]  # names of TASKS are not folders
    return None


def main(
    data_dir: Annotated[list[Path] | None, typer.Option(help="Folder with data sets; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each network under each condition.")] = 3,
    longer: Annotated[int, typer.Option(min=1, help="Times as many epochs, to see who was not done.")] = 1,
    only: Annotated[str, typer.Option(metavar="SUBSTRING", help="Only tasks with this in their title.")] = "",
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the accuracies into this PNG.")] = None,
) -> None:
    """Train CNNs and MLPs of equal size on digits, MNIST and CIFAR-10; a data set that isn't there is left out."""
    console = Console(highlight=False)
    console.width = max(console.width, 140)  # better wrapped by a narrow terminal than cut
    on = f"{tinytorch.get_num_threads()} threads, {target().name}"
    console.print(f"{on}; no augmentation; mean ± standard deviation over seeds 0 to {seeds - 1}")
    results: list[Result] = []
    for task in (_stretched(task, longer) for task in TASKS if only in task.title):
        if (data := load(task.dataset, data_dir or ())) is None:
            console.print(f"\n{task.title} is left out: {task.dataset} is in no --data-dir", markup=False)
            continue
        with console.status(task.title) as status:
            results.append(run(task, data, seeds, status.update))
        _show(console, results[-1])
        if json is not None:
            _save(results, json)  # after each, so that little is lost if the next is interrupted
    if picture is not None and results:
        draw(results, picture)


def _stretched(task: Task, longer: int) -> Task:
    return replace(task, trainings=tuple(replace(t, epochs=longer * t.epochs) for t in task.trainings))


def _show(console: Console, result: Result) -> None:
    trained = [f"{t.images:,} images × {t.epochs} epochs" for t in result.task.trainings if not t.permuted]
    console.print(f"\n{result.task.title}: trained on {', '.join(trained)}", markup=False)
    console.print(table(result))


def _save(results: Sequence[Result], path: Path) -> None:
    figures = {"threads": tinytorch.get_num_threads(), "isa": target().name, "tasks": [r.as_dict() for r in results]}
    path.write_text(json_format.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
