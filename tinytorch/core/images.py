"""Images as tensors: what every operation on them asks of its input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinytorch.conv.pack import pixels
from tinytorch.core.tensor import Tensor

Pair = int | Sequence[int]
Bounds = tuple[float, float]  # floor and ceiling that a result is clipped to; (0, ∞) is a ReLU

UNBOUNDED: Bounds = (-math.inf, math.inf)


def check_images(name: str, x: Tensor) -> None:
    """Raise unless ``x`` is a floating-point tensor of shape (N, C, H, W)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} expects a Tensor, got {type(x).__name__}; wrap the array: Tensor(x)")
    if x.ndim != 4:
        raise ValueError(
            f"Expected 4D input (batch, channels, height, width), got {x.shape}\n{_missing_dimension(x.shape)}"
        )
    if x.dtype.kind != "f":
        raise TypeError(f"{name} computes in float32 or float64, got {x.dtype}; convert with x.float()")


def _missing_dimension(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f"Fix: add the batch dimension: x = x.reshape({', '.join(map(str, (1, *shape)))})"
    if len(shape) == 2:
        return f"Fix: add the batch and channel dimensions: x = x.reshape(1, 1, {shape[0]}, {shape[1]})"
    return "Fix: reshape the data to (batch, channels, height, width)"


def rows_of(images: np.ndarray) -> np.ndarray:
    """View of channels-last (N, C, H, W) as (N·H·W, C)."""
    return pixels(images).reshape(-1, images.shape[1])


def feature_maps(name: str, value: int) -> int:
    """A number of channels, checked."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}; it counts feature maps")
    return int(value)
