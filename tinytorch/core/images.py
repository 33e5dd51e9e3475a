"""Images as tensors: what every operation on them asks of its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from tinytorch.conv.pack import pixels
from tinytorch.conv.problem import AXIS_NAMES
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import memory

Pair = int | Sequence[int]
Bounds = tuple[float, float]  # floor and ceiling that a result is clipped to; (0, ∞) is a ReLU

UNBOUNDED: Bounds = (-math.inf, math.inf)

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


_TABLE = 16  # numbers for each output pixel along an axis, at most, while it is worked out where it comes from


def check_tables(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise unless images (N, C, …) of this shape, and the tables that tell where each pixel comes from, would fit.

    Raises
    ------
    MemoryError
        If one is larger than the machine's memory.
    """
    memory.check_size(shape, dtype)
    memory.check_size((max(shape[2:]), _TABLE), np.int64)


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


def check_not_empty(shape: tuple[int, ...], dims: int, where: str = "") -> None:
    """Raise unless an input of this shape, with ``dims`` spatial dimensions, has channels and pixels."""
    if 0 in shape[-dims - 1 :]:
        raise ValueError(f"every size but the batch must be positive{where}, got input {shape}")


def check_padding_mode(mode: str) -> None:
    """Raise unless padding can be filled like that."""
    if not isinstance(mode, str) or mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {list(PADDING_MODES)}, got {mode!r}; 'zeros' is the usual one")


def is_number(value: Any) -> bool:
    """Whether this is one real number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_number(name: str, value: Any) -> float:
    """Return a real number as a float.

    Raises
    ------
    TypeError
        If it is none.
    """
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def with_batch(x: Tensor, dims: int, compute: Callable[[Tensor], Any]) -> Any:
    """``compute(x)``, a tensor or several, where an image without a batch, (C, …), is a batch of one on the way.

    What is refused is told with the shape that the caller knows.
    """
    if not isinstance(x, Tensor) or x.ndim != dims + 1:
        return compute(x)
    batch = x.unsqueeze(0)
    try:
        y = compute(batch)
    except ValueError as error:
        error.args = (str(error).replace(f"input {batch.shape}", f"input {x.shape}"),)
        raise
    return tuple(part.squeeze(0) for part in y) if isinstance(y, tuple) else y.squeeze(0)


class BatchOnly:
    """Mixed into a layer in front of it: refuses one image, (C, H, W), that is not a batch."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) as the layer does."""
        if isinstance(input, Tensor):
            _check_rank(input, 2)
        return super().forward(input)  # type: ignore[misc]


def rows_of(images: np.ndarray) -> np.ndarray:
    """View of channels-last (N, C, …) as (pixels of all images, C)."""
    return pixels(images).reshape(-1, images.shape[1])
