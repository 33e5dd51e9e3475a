"""Sums over everything but the channels, and the normalisation that is made of them. Arrays are (pixels, channels),
channels contiguous.

Sums are taken in float64, each thread over its own run of pixels, and the threads' sums are added in order: the same
bits on every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import prange

from tinytorch.kernels import jit


def channel_sums(x: np.ndarray) -> np.ndarray:
    """Σ x over pixels, for each channel."""
    return _summed(_channel_sums, 1, x)[0]


def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance over pixels, for each channel.

    One pass over the data, shifted by the first pixel so that a large mean does not cancel the variance.
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for Computing the Sample Variance", 1983, section 1.
    """
    first, second = _summed(_shifted_sums, 2, x) / x.shape[0]
    return x[0] + first, np.maximum(second - first * first, 0.0)


def gradient_sums(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Σ dy and Σ dy · (x − mean) / std over pixels, for each channel."""
    plain, weighted = _summed(_gradient_sums, 2, dy, x, mean)
    return plain, weighted * inverse_std


def scale_shift(
    x: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    y: np.ndarray,
    extra: np.ndarray | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> None:
    """y = clip((x − mean) · scale + shift + extra, floor, ceiling), channel by channel; NaN stays NaN."""
    kind = x.dtype.type
    lines = (v.astype(x.dtype) for v in (mean, scale, shift))
    if extra is None:
        jit.run(_scale_shift, x, *lines, kind(bounds[0]), kind(bounds[1]), y)
    else:
        jit.run(_scale_shift_add, x, *lines, extra, kind(bounds[0]), kind(bounds[1]), y)


def combine(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    dx: np.ndarray,
) -> None:
    """dx = a · dy + b · (x − mean) + c, channel by channel: the shape that every batch-norm gradient has."""
    jit.run(_combine, dy, x, *(v.astype(x.dtype) for v in (mean, a, b, c)), dx)


def _summed(kernel: Callable[..., None], kinds: int, *arrays: np.ndarray) -> np.ndarray:
    """Run a kernel that sums ``kinds`` of things per channel, and add up what the threads found: (kinds, channels).

    Threads' sums lie two cache lines apart, or each write of one would take the line away from the other.
    """
    channels = arrays[0].shape[1]
    parts = np.zeros((jit.workers(), kinds, channels + 16))
    jit.run(kernel, *arrays, parts)
    return parts.sum(axis=0)[:, :channels]


@jit.parallel
def _channel_sums(x, parts):  # type: ignore[no-untyped-def]
    workers = parts.shape[0]
    for worker in prange(workers):
        total = parts[worker, 0]
        for p in range(x.shape[0] * worker // workers, x.shape[0] * (worker + 1) // workers):
            for c in range(x.shape[1]):
                total[c] += x[p, c]


@jit.parallel
def _shifted_sums(x, parts):  # type: ignore[no-untyped-def]
    workers = parts.shape[0]
    for worker in prange(workers):
        first, second = parts[worker, 0], parts[worker, 1]
        for p in range(x.shape[0] * worker // workers, x.shape[0] * (worker + 1) // workers):
            for c in range(x.shape[1]):
                away = np.float64(x[p, c]) - np.float64(x[0, c])
                first[c] += away
                second[c] += away * away


@jit.parallel
def _gradient_sums(dy, x, mean, parts):  # type: ignore[no-untyped-def]
    workers = parts.shape[0]
    for worker in prange(workers):
        plain, weighted = parts[worker, 0], parts[worker, 1]
        for p in range(x.shape[0] * worker // workers, x.shape[0] * (worker + 1) // workers):
            for c in range(x.shape[1]):
                g = np.float64(dy[p, c])
                plain[c] += g
                weighted[c] += g * (x[p, c] - mean[c])


@jit.parallel
def _scale_shift(x, mean, scale, shift, floor, ceiling, y):  # type: ignore[no-untyped-def]
    for p in prange(x.shape[0]):
        for c in range(x.shape[1]):
            value = (x[p, c] - mean[c]) * scale[c] + shift[c]
            value = floor if value < floor else value
            y[p, c] = ceiling if value > ceiling else value


@jit.parallel
def _scale_shift_add(x, mean, scale, shift, extra, floor, ceiling, y):  # type: ignore[no-untyped-def]
    for p in prange(x.shape[0]):
        for c in range(x.shape[1]):
            value = (x[p, c] - mean[c]) * scale[c] + shift[c] + extra[p, c]
            value = floor if value < floor else value
            y[p, c] = ceiling if value > ceiling else value


@jit.parallel
def _combine(dy, x, mean, a, b, constant, dx):  # type: ignore[no-untyped-def]
    for p in prange(x.shape[0]):
        for c in range(x.shape[1]):
            dx[p, c] = a[c] * dy[p, c] + b[c] * (x[p, c] - mean[c]) + constant[c]
