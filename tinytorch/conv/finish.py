"""What is done to the outputs of a convolution while they are still in registers."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinytorch.conv.pack import channels_last, pixels


class Finish(NamedTuple):
    """``y = clip(convolution + bias + residual, floor, ceiling)``; NaN stays NaN.

    Parameters
    ----------
    bias
        One number for each output channel.
    residual
        What is added to the output, of its shape.
    floor, ceiling
        0 and ∞ are a ReLU, 0 and 6 a ReLU6.
    """

    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    floor: float = -math.inf
    ceiling: float = math.inf

    def starts(self, channels: int, dtype: np.dtype) -> np.ndarray:
        """What the sums start from: the bias, or zeros."""
        return zeros(channels, dtype) if self.bias is None else np.ascontiguousarray(self.bias, dtype)

    def extra(self, otherwise: np.ndarray) -> np.ndarray:
        """The residual as one line of channels-last memory; without one, an array that nobody reads."""
        if self.residual is None:
            return otherwise
        return pixels(channels_last(self.residual.astype(otherwise.dtype, copy=False))).reshape(-1)

    def bounds(self, dtype: np.dtype) -> np.ndarray:
        """No bounds at all, for sums that are not complete; then floor and ceiling."""
        return _bounds(self.floor, self.ceiling, dtype)

    def fill(self, y: np.ndarray) -> None:
        """Finish a convolution without terms."""
        pixels(y)[...] = 0
        self.apply(y)

    def apply(self, y: np.ndarray) -> np.ndarray:
        """Finish what a convolution without bias has left in ``y``, in place."""
        if self.bias is not None:
            y += self.bias.reshape(-1, *(1,) * (y.ndim - 2))
        if self.residual is not None:
            y += self.residual
        if self.floor > -math.inf or self.ceiling < math.inf:
            np.clip(y, self.floor, self.ceiling, out=y)
        return y


@lru_cache
def _bounds(floor: float, ceiling: float, dtype: np.dtype) -> np.ndarray:
    return np.array([-math.inf, math.inf, floor, ceiling], dtype)


@lru_cache
def zeros(count: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that kernels read and nobody writes."""
    return np.zeros(count, dtype)


PLAIN = Finish()
