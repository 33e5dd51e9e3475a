"""How each data set is trained unless the caller says otherwise: one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from tinytorch.core.training import Schedule, constant, cosine, one_cycle, step_decay

SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "one-cycle": one_cycle,
    "cosine": cosine,
    "step": lambda total_steps: step_decay(every=-(-total_steps // 3)),
    "constant": lambda total_steps: constant(),
}


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run with AdamW.

    Parameters
    ----------
    model : str
        See `tinytorch.models.names()`.
    epochs, batch_size : int
    lr : float
        Peak learning rate.
    weight_decay : float
    schedule : str
        One of `SCHEDULES`; "step" divides the learning rate by ten after each third of the run.
    clip_norm : float or None
        Upper bound of the gradients' norm.
    shift : int
        Each training image is moved by up to this many pixels, up or down and left or right.
    flip : bool
        Whether half of the training images are mirrored.
    margin : float
        For prediction from any picture: the blank border of this data set's images, as a share of the side.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    model: str
    epochs: int
    batch_size: int = 64
    lr: float = 0.003
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    clip_norm: float | None = None
    shift: int = 0
    flip: bool = False
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}; 1 is the least")
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}; try {name}={_TYPICAL[name]}")
        if not 0 <= self.weight_decay < np.inf:
            raise ValueError(f"weight_decay must be finite and not negative, got {self.weight_decay}; 0.01 is usual")
        if self.schedule not in SCHEDULES:
            near = get_close_matches(self.schedule, SCHEDULES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}{hint}")


_TYPICAL = {"lr": 0.003, "clip_norm": 1.0}

RECIPES = {
    "digits":        Recipe("digits-cnn",    epochs=30, batch_size=32, lr=0.003, shift=1),
    "mnist":         Recipe("mnist-convnet", epochs=5,  batch_size=64, lr=0.003, shift=2, margin=1 / 7),
    "fashion-mnist": Recipe("mnist-convnet", epochs=8,  batch_size=64, lr=0.003, shift=1, flip=True),
    "cifar10":       Recipe("simple-cnn",    epochs=12, batch_size=64, lr=0.003, shift=1, flip=True),
}  # fmt: skip


def recipe(dataset: str) -> Recipe:
    """Return the recipe of a data set.

    Raises
    ------
    ValueError
        If there is none.
    """
    if dataset not in RECIPES:
        near = get_close_matches(dataset.lower(), RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"dataset must be one of {', '.join(RECIPES)}, got {dataset!r}{hint}")
    return RECIPES[dataset]
