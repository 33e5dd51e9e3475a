"""Images of one size from images of another: along each axis, every output pixel is a weighted sum of neighbours.

Such a map is linear, and separable into one matrix for each axis, whose rows hold few weights side by side: a band. Its
gradient is the transposed matrix, which is a band again. Images are (n, depth, height, width, c), channels last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from tinytorch.kernels import jit, memory


class Band(NamedTuple):
    """A matrix (output pixels, input pixels) along one axis.

    Parameters
    ----------
    first, counts
        For every output pixel the first input pixel that it depends on, and how many. Neither the first nor the last
        ever moves back from one output to the next.
    weights : (output pixels, largest count)
        Of these input pixels; what lies beyond ``counts`` is not read.
    """

    first: np.ndarray
    counts: np.ndarray
    weights: np.ndarray

    def transposed(self, size: int) -> Band:
        """The matrix that carries gradients back to ``size`` input pixels."""
        pixels = np.arange(size)
        first = np.searchsorted(self.first + self.counts, pixels, side="right")
        count = np.maximum(np.searchsorted(self.first, pixels, side="right") - first, 0)
        outputs = first[:, None] + np.arange(count.max(initial=0))
        row, column = np.broadcast_arrays(np.minimum(outputs, len(self.first) - 1), pixels[:, None])
        column = np.clip(column - self.first[row], 0, self.weights.shape[1] - 1)
        return Band(first, count, np.ascontiguousarray(self.weights[row, column]))


def identity(size: int, dtype: np.dtype) -> Band:
    """Every pixel as it is."""
    return Band(np.arange(size), np.ones(size, np.int64), np.ones((size, 1), dtype))


def resample(x: np.ndarray, y: np.ndarray, depth: Band, height: Band, width: Band) -> None:
    """Write to ``y`` what the bands make of ``x``."""
    images, planes, lines, columns, channels = x.shape
    scratch = memory.scratch(jit.workers(), columns * channels, x.dtype)
    rows = x.reshape(images, planes, lines, columns * channels)
    jit.run(_resample, rows, y, scratch, depth, height, width)


@jit.parallel
def _resample(x, y, scratch, depth, height, width):  # type: ignore[no-untyped-def]
    images, planes, lines, _, _ = y.shape
    workers, items = scratch.shape[0], images * planes * lines
    for part in prange(workers):
        worker = np.int64(part)
        for item in range(items * worker // workers, items * (worker + 1) // workers):
            n, d, h = item // (planes * lines), item // lines % planes, item % lines
            _resample_row(x[n], y[n, d, h], scratch[worker, : x.shape[3]], (d, h), depth, height, width)


@jit.serial
def _resample_row(image, out, row, at, depth, height, width):  # type: ignore[no-untyped-def]
    """A row of the output: a row made of rows of the image, then resampled along its width."""
    d, h = at
    for e in range(row.size):
        row[e] = 0
    for i in range(depth.counts[d]):
        plane = image[depth.first[d] + i]
        _add_rows(plane, row, height.first[h], height.counts[h], height.weights[h], depth.weights[d, i])
    pixels = row.reshape(row.size // out.shape[1], out.shape[1])
    _stretch(pixels, out, width.first, width.counts, width.weights)


@jit.serial
def _add_rows(plane, row, first, count, weights, scale):  # type: ignore[no-untyped-def]
    """Add to ``row`` the weighted sum of ``count`` rows from the first on, two at a time."""
    for t in range(0, count - 1, 2):
        one, other, a, b = plane[first + t], plane[first + t + 1], weights[t] * scale, weights[t + 1] * scale
        for e in range(row.size):
            row[e] += a * one[e] + b * other[e]
    if count % 2:
        last, a = plane[first + count - 1], weights[count - 1] * scale
        for e in range(row.size):
            row[e] += a * last[e]


@jit.serial
def _stretch(row, out, first, counts, weights):  # type: ignore[no-untyped-def]
    """Make the pixels of ``out`` of those of ``row``; one or two weights, the usual numbers, take one pass."""
    pixels, channels = out.shape
    for w in range(pixels):
        at, count = first[w], counts[w]
        if count > 1:
            a, b = weights[w, 0], weights[w, 1]
            for c in range(channels):
                out[w, c] = a * row[at, c] + b * row[at + 1, c]
        elif count == 1:
            a = weights[w, 0]
            for c in range(channels):
                out[w, c] = a * row[at, c]
        else:
            for c in range(channels):
                out[w, c] = 0
        for t in range(2, count):
            a = weights[w, t]
            for c in range(channels):
                out[w, c] += a * row[at + t, c]
