"""Functions of one number at a time, over whole arrays, in the order of their memory."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from tinytorch.kernels import jit, memory


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0); NaN stays NaN."""
    x = memory.dense(x)
    y = memory.empty_like(x)
    jit.run(_relu, memory.line(x), memory.line(y))
    return y


def relu_grad(gradient: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of relu from its output: passes where ``y`` is positive."""
    dx = memory.empty_like(y)
    jit.run(_relu_grad, memory.line(memory.in_order_of(y, gradient)), memory.line(y), memory.line(dx))
    return dx


def erf(x: np.ndarray) -> np.ndarray:
    """2/√π · ∫₀ˣ exp(−t²) dt, which NumPy lacks."""
    x = memory.dense(x)
    y = memory.empty_like(x)
    jit.run(_erf, memory.line(x), memory.line(y))
    return y


@jit.parallel
def _erf(x, y):  # type: ignore[no-untyped-def]
    for i in prange(x.size):
        y[i] = math.erf(x[i])


@jit.parallel
def _relu(x, y):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@jit.parallel
def _relu_grad(gradient, y, dx):  # type: ignore[no-untyped-def]
    zero = dx.dtype.type(0)
    for i in prange(dx.size):
        dx[i] = zero if y[i] <= zero else gradient[i]
