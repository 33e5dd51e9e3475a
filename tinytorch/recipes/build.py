"""From a recipe to the objects that train: network, optimizer, schedules, augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from tinytorch.core import finetune
from tinytorch.core.averaging import EMA, Lookahead
from tinytorch.core.dataloader import (
    AlternatingFlip,
    Augment,
    Cutout,
    Dataset,
    Normalize,
    RandomHorizontalFlip,
    RandomTranslate,
)
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import Combined, Optimizer
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Observer, Schedule, Trainer
from tinytorch.models import create
from tinytorch.recipes.recipe import OPTIMIZERS, SCHEDULES, Recipe


def network(recipe: Recipe, input_shape: tuple[int, int, int], num_classes: int) -> Module:
    """Return the network with fresh weights, from the library's generator.

    Raises
    ------
    ValueError
        If there is no such network, it has no such option, or the images are too small, also for what is done to them.
    """
    _check_images(recipe, input_shape)
    try:
        return create(recipe.model, input_shape, num_classes, **recipe.model_options)
    except (TypeError, IndexError) as error:
        if not recipe.model_options:
            raise
        raise ValueError(f"model_options don't fit the network {recipe.model}: {error}") from error


def _check_images(recipe: Recipe, input_shape: tuple[int, int, int]) -> None:
    """Raise if a shift or a hole leaves nothing of an image."""
    least = min(input_shape[1:])
    for name in ("shift", "cutout"):
        if getattr(recipe, name) >= least:
            raise ValueError(
                f"{name} must be less than the images' {least} pixels a side, got {getattr(recipe, name)}; try 2"
            )


def whiten(recipe: Recipe, model: Module, dataset: Dataset, normalize: Normalize) -> None:
    """Compute the first convolution from training images, and freeze it, if the recipe wants that.

    Raises
    ------
    ValueError
        If the network is not made for it.
    """
    if not recipe.whiten:
        return
    if not hasattr(model, "whiten"):
        raise ValueError(f"whiten needs a network that can be whitened, such as airbench94, got {recipe.model}; say 0")
    images, *_ = dataset.gather(np.arange(min(recipe.whiten, len(dataset))))
    model.whiten(Tensor(normalize(images, np.random.default_rng(0))))


def augmentation(recipe: Recipe, normalize: Normalize) -> Augment:
    """Return the transform of training batches: flip, shift and cut out, and normalise."""
    pieces: list[Any] = []
    if recipe.flip:
        pieces.append(AlternatingFlip() if recipe.flip == "alternating" else RandomHorizontalFlip())
    if recipe.shift:
        pieces.append(RandomTranslate(recipe.shift, recipe.shift_edge))
    if recipe.cutout:
        pieces.append(Cutout(recipe.cutout))
    return Augment(pieces, normalize)


def trainer(recipe: Recipe, model: Module, batches: int, layer_decay: float | None = None) -> Trainer:
    """Return the trainer of a network; what is frozen is not trained.

    Parameters
    ----------
    recipe : Recipe
    model : Module
    batches : int
        In an epoch.
    layer_decay : float, optional
        Factor on the learning rate from each block to the one before; see `finetune.parameter_groups`.

    Raises
    ------
    ValueError
        If a setting does not fit the network or its optimizer.
    """
    groups = _groups(recipe, model) if layer_decay is None else _blocks(recipe, model, layer_decay)
    longest = max((group.epochs for group in groups), default=recipe.epochs)
    if longest < recipe.epochs:
        raise ValueError(
            f"all groups of the recipe rest after {longest} epochs, and it has {recipe.epochs}; one must learn to the "
            "end"
        )
    optimizer, groups = _optimizer(groups)
    steps = recipe.epochs * batches
    return Trainer(
        model,
        _lookahead(recipe, optimizer, steps),
        CrossEntropyLoss(label_smoothing=recipe.label_smoothing),
        [_schedule(recipe, min(group.epochs, recipe.epochs) * batches) for group in groups],
        recipe.clip_norm,
        accumulate=recipe.accumulate,
        average=None if recipe.ema is None else EMA(model, recipe.ema),
    )


@dataclass(frozen=True)
class _Group:
    """Parameters that are trained alike: by which optimizer, with which settings, for how long."""

    params: list[Parameter]
    optimizer: str
    settings: Mapping[str, Any]
    epochs: int


def _groups(recipe: Recipe, model: Module) -> list[_Group]:
    """Every parameter that is trained, in its group; what no group names in one at the end."""
    groups = []
    for group, params in _members(recipe, model):
        if group and not params:
            raise ValueError(
                f"the group {group['names']} of the recipe has no parameter of {recipe.model} left to train"
            )
        groups.append(_group(recipe, group, params))
    return [group for group in groups if group.params]


def _members(recipe: Recipe, model: Module) -> Iterator[tuple[Mapping[str, Any], list[Parameter]]]:
    """The recipe's groups with their parameters, each in the first that names it; and an empty group with the rest."""
    rest = dict(model.named_parameters())
    for group in recipe.groups:
        chosen = [name for name in rest if any(fnmatchcase(name, pattern) for pattern in group["names"])]
        yield group, [rest.pop(name) for name in chosen]
    yield {}, list(rest.values())


def _group(recipe: Recipe, group: Mapping[str, Any], params: list[Parameter]) -> _Group:
    """A group as it is, where it says nothing as the recipe has it; another optimizer has its own further settings."""
    optimizer = group.get("optimizer", recipe.optimizer)
    options = {**(recipe.optimizer_options if optimizer == recipe.optimizer else {}), **group.get("options", {})}
    settings = {name: group.get(name, getattr(recipe, name)) for name in ("lr", "weight_decay")}
    trained = [p for p in params if p.requires_grad]
    return _Group(trained, optimizer, {**settings, **options}, group.get("epochs", recipe.epochs))


def _blocks(recipe: Recipe, model: Module, layer_decay: float) -> list[_Group]:
    """A group for each block of the network."""
    if recipe.groups:
        raise ValueError(
            "layer_decay needs a recipe without groups, which have learning rates of their own; leave it out"
        )
    blocks = finetune.parameter_groups(model, recipe.lr, layer_decay)
    return [_group(recipe, {"lr": block["lr"]}, block["params"]) for block in blocks]


def _optimizer(groups: list[_Group]) -> tuple[Optimizer | Combined, list[_Group]]:
    """One optimizer, combined if the groups have several kinds; and the groups in its order."""
    kinds = dict.fromkeys(group.optimizer for group in groups)
    by_kind = {kind: [group for group in groups if group.optimizer == kind] for kind in kinds}
    made = [
        OPTIMIZERS[kind]([{"params": group.params, **group.settings} for group in members])
        for kind, members in by_kind.items()
    ]
    ordered = [group for members in by_kind.values() for group in members]
    return made[0] if len(made) == 1 else Combined(*made), ordered


def _schedule(recipe: Recipe, steps: int) -> Schedule:
    try:
        return SCHEDULES[recipe.schedule](steps, **recipe.schedule_options)
    except TypeError as error:
        raise ValueError(f"schedule_options don't fit the schedule {recipe.schedule}: {error}") from error


def _lookahead(recipe: Recipe, optimizer: Any, steps: int) -> Any:
    """The optimizer, led back to its slow weights if the recipe wants that."""
    if recipe.lookahead is None:
        return optimizer
    options = dict(recipe.lookahead)
    if "decay" in options:
        most = options.pop("decay") ** options.get("k", 5)
        options["alpha"] = lambda step: 1 - most * (step / steps) ** 3
    return Lookahead(optimizer, **options)


class Resting(Observer):
    """Once the epochs of a recipe's group are over, its parameters ask for no gradients: what led to them is saved.

    Parameters
    ----------
    recipe : Recipe
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """Also when the run is resumed."""
        self._look(trainer)

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Let go of the groups whose last epoch this was."""
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        for group, params in _members(self.recipe, trainer.model):
            if group.get("epochs", trainer.epoch + 1) <= trainer.epoch:
                for p in params:
                    p.requires_grad = False
