"""Functions that make new tensors: constants, ranges and random numbers. Shapes as f(2, 3) or f((2, 3))."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.core import random
from tinytorch.core.tensor import Number, Tensor, as_array, shape_argument


def tensor(data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Make a tensor of a copy of `data` (Tensor(data) shares the memory of an array)."""
    return Tensor(as_array(data, dtype).copy(), requires_grad)


def zeros(*shape: Any, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """All zeros."""
    return Tensor(np.zeros(shape_argument(shape), dtype), requires_grad)


def ones(*shape: Any, dtype: DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """All ones."""
    return Tensor(np.ones(shape_argument(shape), dtype), requires_grad)


def full(
    shape: int | tuple[int, ...], value: Number, dtype: DTypeLike | None = None, requires_grad: bool = False
) -> Tensor:
    """All `value`; a Python float makes float32, an int int64."""
    return Tensor(np.full(shape, as_array(value, dtype)), requires_grad)


def zeros_like(other: Tensor) -> Tensor:
    """Zeros in the shape, dtype and memory order of another tensor."""
    return Tensor(np.zeros_like(other.data))


def ones_like(other: Tensor) -> Tensor:
    """Ones in the shape, dtype and memory order of another tensor."""
    return Tensor(np.ones_like(other.data))


def eye(n: int, m: int | None = None, dtype: DTypeLike = np.float32) -> Tensor:
    """Ones on the diagonal of an (n, m) matrix, square by default."""
    return Tensor(np.eye(n, m, dtype=dtype))


def arange(start: Number, end: Number | None = None, step: Number = 1, dtype: DTypeLike | None = None) -> Tensor:
    """Numbers from `start` (0 if alone) up to but without `end`; int64 if all are ints, else float32.

    Raises
    ------
    ValueError
        If `step` is zero.
    """
    if step == 0:
        raise ValueError("step must not be zero; use 1 to count upwards, -1 downwards")
    start, end = (0, start) if end is None else (start, end)
    return Tensor(as_array(np.arange(start, end, step).tolist(), dtype))


def rand(*shape: Any, requires_grad: bool = False) -> Tensor:
    """Float32 numbers, uniform in [0, 1)."""
    return Tensor(random.generator().random(shape_argument(shape), dtype=np.float32), requires_grad)


def randn(*shape: Any, requires_grad: bool = False) -> Tensor:
    """Float32 numbers of the standard normal distribution."""
    return Tensor(random.generator().standard_normal(shape_argument(shape), dtype=np.float32), requires_grad)


def randint(low: int, high: int, shape: int | tuple[int, ...]) -> Tensor:
    """Integers (int64), uniform in low … high - 1."""
    return Tensor(random.generator().integers(low, high, shape, dtype=np.int64))
