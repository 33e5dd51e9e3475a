"""Optimizer steps: every parameter is read and written once."""

from __future__ import annotations

import numpy as np
from numba import prange

from tinytorch.kernels import jit, memory


def adam(
    data: np.ndarray,
    grad: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    betas: tuple[float, float],
    eps: float,
    step_size: float,
    root_bias: float,
    decay: tuple[float, float],
) -> None:
    """One Adam step in place.

    ``decay`` is what the gradient gains in proportion to the parameter (Adam), and what the parameter keeps (AdamW);
    ``step_size`` is lr / (1 − β₁ᵗ) and ``root_bias`` √(1 − β₂ᵗ).
    """
    dense = memory.dense(data)
    arrays = (dense, memory.in_order_of(dense, grad), mean, square)
    real = data.dtype.type
    numbers = (*betas, 1 - betas[0], 1 - betas[1], eps, step_size, root_bias, *decay)
    jit.run(_adam, *map(memory.line, arrays), np.array(numbers, real))
    _write_back(data, dense)


def sgd(
    data: np.ndarray,
    grad: np.ndarray,
    velocity: np.ndarray | None,
    lr: float,
    momentum: float,
    fresh: float,
    decay: float,
    nesterov: bool,
) -> None:
    """One step of gradient descent in place; ``fresh`` is the share of the gradient that joins the velocity."""
    speed = np.empty(0, data.dtype) if velocity is None else memory.line(velocity)
    numbers = np.array((lr, momentum, fresh, decay, nesterov), data.dtype)
    dense = memory.dense(data)
    jit.run(_sgd, memory.line(dense), memory.line(memory.in_order_of(dense, grad)), speed, numbers)
    _write_back(data, dense)


def _write_back(data: np.ndarray, dense: np.ndarray) -> None:
    """A parameter with gaps in its memory was updated in a dense copy."""
    if dense is not data:
        data[...] = dense


@jit.parallel
def _adam(data, grad, mean, square, numbers):  # type: ignore[no-untyped-def]
    beta1, beta2, rest1, rest2, eps, step_size, root_bias, pull, keep = numbers
    for i in prange(data.size):
        g = grad[i] + pull * data[i]
        mean[i] = beta1 * mean[i] + rest1 * g
        square[i] = beta2 * square[i] + rest2 * g * g
        data[i] = keep * data[i] - step_size * (mean[i] / (np.sqrt(square[i]) / root_bias + eps))


@jit.parallel
def _sgd(data, grad, velocity, numbers):  # type: ignore[no-untyped-def]
    lr, momentum, fresh, decay, nesterov = numbers
    for i in prange(data.size):
        g = grad[i] + decay * data[i]
        if velocity.size:
            velocity[i] = momentum * velocity[i] + fresh * g
            g = g + momentum * velocity[i] if nesterov else velocity[i]
        data[i] -= lr * g
