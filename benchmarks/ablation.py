"""What each trick of a recipe is worth: ``python -m benchmarks.ablation`` trains without each, with the same seeds."""

from __future__ import annotations

import json as json_format
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.fast94 import train
from tinytorch import datasets, recipes
from tinytorch.recipes import Recipe
from tinytorch.recipes.recipe import VIEWS

Change = Callable[[Recipe], Recipe]
WHOLE = "all of them"
RECIPE = Path(__file__).with_suffix(".toml")


def says(**settings: Any) -> Change:
    """The recipe with other settings."""
    return lambda recipe: replace(recipe, **settings)


def without_identity(recipe: Recipe) -> Recipe:
    """Filters drawn at random."""
    return replace(recipe, model_options={**recipe.model_options, "identity": False})


def without_nesterov(recipe: Recipe) -> Recipe:
    """Momentum without looking ahead, in all groups."""
    plain = {"nesterov": False}
    groups = [{**group, "options": {**group.get("options", {}), **plain}} for group in recipe.groups]
    return replace(recipe, groups=groups, optimizer_options={**recipe.optimizer_options, **plain})


def changed_groups(change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Change:
    """The recipe with every group changed."""
    return lambda recipe: replace(recipe, groups=[change(group) for group in recipe.groups])


def slow_biases(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Biases that learn 64 times as slowly, with the same decay in a step."""
    if not group["names"][0].endswith("bias") or "lr" not in group:
        return group
    return {**group, "lr": group["lr"] / 64, "weight_decay": group["weight_decay"] * 64}


def nesterov_sgd(recipe: Recipe) -> Recipe:
    """The settings of the paper, which has no Muon; but its Lookahead."""
    paper = recipes.load("airbench94")
    share = recipe.batch_size / paper.batch_size
    groups = [{**group, **({"lr": group["lr"] * share} if "lr" in group else {})} for group in paper.groups]
    options = {**recipe.model_options, "scale": 1 / 9}
    taken = {name: getattr(paper, name) for name in ("optimizer", "optimizer_options", "schedule", "schedule_options")}
    return replace(
        recipe, model_options=options, lr=paper.lr * share, weight_decay=paper.weight_decay, groups=groups, **taken
    )


def with_lookahead(recipe: Recipe) -> Recipe:
    """Slow weights that lead the paper's settings back."""
    return replace(nesterov_sgd(recipe), lookahead=recipes.load("airbench94").lookahead)


VARIANTS: dict[str, Change] = {
    WHOLE: lambda recipe: recipe,
    "first convolution not whitened": says(whiten=0),
    "filters start at random": without_identity,
    "flips by chance, not alternating": says(flip=True),
    "no flips": says(flip=False),
    "no translation": says(shift=0),
    "with cutout of 8 pixels": says(cutout=8),
    "no label smoothing": says(label_smoothing=0.0),
    "learning rate constant": says(schedule="constant", schedule_options={}),
    "with a warm-up of 20 %": says(schedule_options={"peak": 0.2, "start": 0.2}),
    "no Nesterov": without_nesterov,
    "biases learn 64 times as slowly": changed_groups(slow_biases),
    "no weight decay": changed_groups(lambda group: {**group, "weight_decay": 0.0}),
    "whitening's bias learns to the end": changed_groups(
        lambda group: {k: v for k, v in group.items() if k != "epochs"}
    ),
    "Nesterov SGD instead of Muon": nesterov_sgd,
    "Nesterov SGD with Lookahead": with_lookahead,
    "tested with an average (EMA 0.9)": says(ema=0.9),
}


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the data set.")],
    recipe: Annotated[str, typer.Option(help="Name or path.")] = str(RECIPE),
    epochs: Annotated[int | None, typer.Option(min=1, help="By default those of the recipe.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train with so many, from 0.")] = 2,
    only: Annotated[str, typer.Option(metavar="SUBSTRING", help="Only variants with this in their names.")] = "",
    json: Annotated[
        Path | None, typer.Option(help="Write every run to this file, and go on from what is there.")
    ] = None,
) -> None:
    """Train every variant with every seed, and print mean accuracies and what each change costs."""
    chosen = recipes.load(recipe)
    chosen = replace(chosen, epochs=epochs or chosen.epochs)
    data = datasets.load(chosen.dataset or "cifar10", data_dir)
    variants = {name: change(chosen) for name, change in VARIANTS.items() if only in name}
    done = earlier(json, chosen) if json else []
    for seed in range(seeds):
        for name, variant in variants.items():
            if any((run["variant"], run["seed"]) == (name, seed) for run in done):
                continue
            done.append({"variant": name, **train(variant, data, seed, quiet=True)})
            print(f"seed {seed}, {name}: {done[-1]['plain']:.2%}, {sum(done[-1]['seconds']):.0f} s", flush=True)
            if json:
                json.write_text(json_format.dumps({"recipe": asdict(chosen), "runs": done}, indent=1) + "\n")
    Console(width=120).print(as_table(done, f"{Path(recipe).stem}, {chosen.epochs} epochs"))


def earlier(path: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The runs in a file; those of another recipe are not gone on from."""
    if not path.exists():
        return []
    found = json_format.loads(path.read_text())
    if Recipe(**found["recipe"]) != recipe:
        raise ValueError(f"{path} has runs of another recipe or other epochs; name another file")
    return found["runs"]


def as_table(runs: list[dict[str, Any]], recipe: str) -> Table:
    """Mean accuracy of every variant, and the difference from the whole recipe, seed by seed."""
    seeds = sorted({run["seed"] for run in runs})
    title = f"{recipe}, mean of {len(seeds)} seeds"
    table = Table("variant", *VIEWS, "worth (plain)", "seconds", title=title, title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in VARIANTS:
        own = [run for run in runs if run["variant"] == name]
        if own:
            means = [f"{statistics.mean(run[view] for run in own):.2%}" for view in VIEWS]
            seconds = statistics.median(sum(run["seconds"]) for run in own)
            table.add_row(name, *means, worth(runs, name), f"{seconds:.0f}")
    return table


def worth(runs: list[dict[str, Any]], name: str) -> str:
    """Points that the whole recipe is better by: mean over the seeds, and half of the span between them."""
    plain = {(run["variant"], run["seed"]): run["plain"] for run in runs}
    gains = [100 * (plain[WHOLE, s] - value) for (n, s), value in plain.items() if n == name and (WHOLE, s) in plain]
    if name == WHOLE or not gains:
        return ""
    spread = f" ± {(max(gains) - min(gains)) / 2:.2f}" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.2f}{spread}"


if __name__ == "__main__":
    typer.run(main)
