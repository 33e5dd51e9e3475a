"""Images as tensors: what every operation on them asks of its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tinytorch.conv.pack import pixels
from tinytorch.conv.problem import AXIS_NAMES
from tinytorch.core.tensor import Tensor

Pair = int | Sequence[int]
Bounds = tuple[float, float]  # floor and ceiling that a result is clipped to; (0, ∞) is a ReLU

UNBOUNDED: Bounds = (-math.inf, math.inf)


def check_images(name: str, x: Tensor, dims: int = 2) -> None:
    """Raise unless ``x`` is a floating-point tensor of shape (N, C, …) with ``dims`` spatial dimensions."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} expects a Tensor, got {type(x).__name__}; wrap the array: Tensor(x)")
    _check_rank(x, dims)
    if x.dtype.kind != "f":
        raise TypeError(f"{name} computes in float32 or float64, got {x.dtype}; convert with x.float()")


def _check_rank(x: Tensor, dims: int) -> None:
    if x.ndim != dims + 2:
        axes = f"(batch, channels, {', '.join(AXIS_NAMES[dims])})"
        raise ValueError(f"Expected {dims + 2}D input {axes}, got {x.shape}\n{_missing_dimension(x.shape, dims, axes)}")


def _missing_dimension(shape: tuple[int, ...], dims: int, axes: str) -> str:
    missing = {1: "batch dimension", 2: "batch and channel dimensions"}.get(dims + 2 - len(shape))
    if missing is None:
        return f"Fix: reshape the data to {axes}"
    sizes = ", ".join(map(str, (1,) * (dims + 2 - len(shape)) + shape))
    return f"Fix: add the {missing}: x = x.reshape({sizes})"


def with_batch(x: Tensor, dims: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """``compute(x)``, where an image without a batch, of shape (C, …), is a batch of one on the way."""
    if not isinstance(x, Tensor) or x.ndim != dims + 1:
        return compute(x)
    return compute(x.unsqueeze(0)).squeeze(0)


class BatchOnly:
    """Mixed into a layer in front of it: refuses one image, (C, H, W), that is not a batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) as the layer does."""
        if isinstance(x, Tensor):
            _check_rank(x, 2)
        return super().forward(x)  # type: ignore[misc]


def rows_of(images: np.ndarray) -> np.ndarray:
    """View of channels-last (N, C, …) as (pixels of all images, C)."""
    return pixels(images).reshape(-1, images.shape[1])


def feature_maps(name: str, value: int) -> int:
    """A number of channels, checked."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}; it counts feature maps")
    return int(value)
