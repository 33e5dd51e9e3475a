"""Train the recipe fast94, and between its seeds race PyTorch over steps of it: ``python -m benchmarks.fast94``.

PyTorch gets the same weights and the same augmented batch, so nothing but the step is timed; its epoch is as many
medians of a step as ours has steps. In between it rests, and we train.
"""

from __future__ import annotations

import json as json_format
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import torch94
from benchmarks.peers import step_runner
from benchmarks.timing import Effort, Runner, measure
from tinytorch import Tensor, datasets, nn, recipes
from tinytorch.core.dataloader import DataLoader, Normalize
from tinytorch.core.random import manual_seed
from tinytorch.core.training import Observer, Trainer, accuracy
from tinytorch.kernels.jit import workers as get_num_threads
from tinytorch.recipes import Recipe, build
from tinytorch.recipes.recipe import VIEWS

TEST_BATCH = 250
TOLERANCE = 0.05  # of losses after one step and two; bfloat16 has eight bits


class Lines(Observer):
    """Prints a line after each epoch."""

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        tested = f"test accuracy {record['validation_accuracy']:.2%}"
        print(f"epoch {record['epoch']}: {record['seconds']:.1f} s, loss {record['loss']:.4f}, {tested}", flush=True)


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the data set.")],
    recipe: Annotated[str, typer.Option(help="Name or path; its network must be airbench94.")] = "fast94",
    seeds: Annotated[int, typer.Option(min=0, help="Train with so many, from 0.")] = 3,
    rounds: Annotated[int, typer.Option(min=0, help="Of steps of each library, before each training.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Train with each seed, and print accuracies, times and PyTorch's times in the same hour."""
    chosen = recipes.load(recipe)
    data = datasets.load(chosen.dataset or "cifar10", data_dir)
    steps: dict[str, list[float]] = {}
    runs = []
    for seed in range(max(seeds, 1)):
        for name, seconds in (race(chosen, data, rounds) if rounds else {}).items():
            steps.setdefault(name, []).extend(seconds)
            print(f"{name}: {statistics.median(seconds):.3f} s a step", flush=True)
        if seed < seeds:
            runs.append(train(chosen, data, seed))
    batches = len(loaders(chosen, data, 0)[0])
    console = Console(width=120)
    console.print(as_table(runs))
    console.print(epochs_table(steps, batches))
    if json:
        json.write_text(json_format.dumps({"runs": runs, "steps": steps, "batches": batches}, indent=1) + "\n")


# ---- training -------------------------------------------------------------------------------------------------------


def loaders(recipe: Recipe, data: Any, seed: int) -> tuple[DataLoader, DataLoader]:
    """Batches for training and for testing."""
    normalize = Normalize(data.mean, data.std)
    train = DataLoader(
        data.train, recipe.batch_size, shuffle=True, drop_last=recipe.drop_last, seed=seed,
        transform=build.augmentation(recipe, normalize),
    )  # fmt: skip
    return train, DataLoader(data.test, TEST_BATCH, transform=normalize)


def fresh(recipe: Recipe, data: Any, seed: int) -> nn.Module:
    """The network before its first step."""
    manual_seed(seed)
    model = build.network(recipe, data.image_shape, len(data.classes))
    build.whiten(recipe, model, data.train, Normalize(data.mean, data.std))
    return model


def train(recipe: Recipe, data: Any, seed: int, quiet: bool = False) -> dict[str, Any]:
    """Train with one seed: accuracy in every kind of view, and seconds of each epoch."""
    batches, tests = loaders(recipe, data, seed)
    trainer = build.trainer(recipe, fresh(recipe, data, seed), len(batches))
    observers = [build.Resting(recipe), *([] if quiet else [Lines()])]
    trainer.fit(batches, None if quiet else tests, recipe.epochs, observers)
    scores = {name: accuracy(*trainer.predict(tests, view)) for name, view in VIEWS.items()}
    seconds = [record["seconds"] for record in trainer.history]
    return {"seed": seed, "seconds": seconds, "waiting": sum(r["waiting"] for r in trainer.history), **scores}


def as_table(runs: list[dict[str, Any]]) -> Table:
    """Accuracies of every seed and their mean."""
    table = Table(
        "seed", *VIEWS, "seconds", "of an epoch", "waiting", title="test accuracy", box=None, title_justify="left"
    )
    for column in table.columns:
        column.justify = "right"
    for run in runs:
        shares = [f"{run[name]:.2%}" for name in VIEWS]
        seconds = run["seconds"]
        times = f"{sum(seconds):.0f}", f"{statistics.mean(seconds):.1f}", f"{run['waiting']:.2f} s"
        table.add_row(str(run["seed"]), *shares, *times)
    if runs:
        table.add_row("mean", *(f"{statistics.mean(run[name] for run in runs):.2%}" for name in VIEWS))
    return table


# ---- against PyTorch ------------------------------------------------------------------------------------------------


def race(recipe: Recipe, data: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each library, in turns, after their losses were compared."""
    batches, _ = loaders(recipe, data, 0)
    images, labels = next(iter(batches))
    runners = [ours(recipe, data, images, labels)]
    if torch94.torch is not None:
        torch94.torch.set_num_threads(get_num_threads())
        ways = (("torch NCHW", False, False), ("torch NHWC", True, False), ("torch NHWC bf16", True, True))
        runners += [theirs(recipe, data, images, labels, *way) for way in ways]
    return measure(runners, Effort(rounds, 0.0), TOLERANCE, recipe=recipe.model).seconds


def ours(recipe: Recipe, data: Any, images: Tensor, labels: Tensor) -> Runner:
    """A step of this library."""
    trainer = build.trainer(replace(recipe, epochs=10**6), fresh(recipe, data, 0), 1)
    trainer.model.train()

    def step() -> float:
        return trainer._train_batch(images, labels)

    return Runner("tinytorch", step, lambda: [np.array(step()) for _ in range(2)])


def theirs(recipe: Recipe, data: Any, images: Tensor, labels: Tensor, name: str, last: bool, half: bool) -> Runner:
    """The same step in PyTorch, with channels last in memory or not, in autocast to bfloat16 or not."""
    torch = torch94.torch
    model = fresh(recipe, data, 0)
    layout = torch.channels_last if last else torch.contiguous_format
    twin = torch94.network(model.state_dict(), model.scale).to(memory_format=layout).train()
    by_name = dict(twin.named_parameters())
    groups = build.trainer(recipe, model, 1).optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    if "ns_steps" not in groups[-1] or not groups[-1]["normalize"]:
        raise ValueError("the race is for recipes that move all filters by Muon at a constant norm, as fast94 does")
    *by_sgd, by_muon = [([by_name[names[id(p)]] for p in group["params"]], group) for group in groups]
    settings = ("lr", "momentum", "weight_decay", "nesterov")
    optimizer = torch94.Steps(
        [(params, {name: group[name] for name in settings}) for params, group in by_sgd], *by_muon
    )
    loss = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    x = torch.tensor(images.numpy()).contiguous(memory_format=layout)

    def forward(batch: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return twin(batch)

    whole = step_runner(name, forward, optimizer, loss, x, torch.tensor(labels.numpy()))
    return replace(whole, outputs=lambda: [np.array(whole.call()) for _ in range(2)])


def epochs_table(steps: dict[str, list[float]], batches: int) -> Table:
    """Seconds of an epoch by the median step, and the ratio to ours."""
    title = f"an epoch of {batches} steps, {get_num_threads()} threads"
    table = Table("library", "step", "epoch", "ours is faster by", title=title, box=None, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, seconds in steps.items():
        step = statistics.median(seconds)
        ratio = step / statistics.median(steps["tinytorch"])
        table.add_row(name, f"{step:.3f} s", f"{step * batches:.1f} s", f"{ratio:.2f}×")
    return table


if __name__ == "__main__":
    typer.run(main)
