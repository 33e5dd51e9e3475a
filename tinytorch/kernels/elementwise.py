"""Functions of one number at a time, over whole arrays, in the order of their memory."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from tinytorch.kernels import jit, memory


def clip(x: np.ndarray, floor: float, ceiling: float) -> np.ndarray:
    """min(max(x, floor), ceiling); NaN stays NaN."""
    x = memory.dense(x)
    y = memory.empty_like(x)
    jit.run(_clip, memory.line(x), x.dtype.type(floor), x.dtype.type(ceiling), memory.line(y))
    return y


def bounded_grad(gradient: np.ndarray, y: np.ndarray, floor: float, ceiling: float) -> np.ndarray:
    """Gradient of min(max(x, floor), ceiling) from its output: passes where ``floor < y < ceiling``, and at NaN."""
    dx = memory.empty_like(y)
    bounds = (y.dtype.type(floor), y.dtype.type(ceiling))
    jit.run(_bounded_grad, memory.line(memory.in_order_of(y, gradient)), memory.line(y), *bounds, memory.line(dx))
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
def _clip(x, floor, ceiling, y):  # type: ignore[no-untyped-def]
    for i in prange(x.size):
        value = floor if x[i] <= floor else x[i]
        y[i] = ceiling if value > ceiling else value


@jit.parallel
def _bounded_grad(gradient, y, floor, ceiling, dx):  # type: ignore[no-untyped-def]
    zero = dx.dtype.type(0)
    for i in prange(dx.size):
        dx[i] = zero if (y[i] <= floor) | (y[i] >= ceiling) else gradient[i]
