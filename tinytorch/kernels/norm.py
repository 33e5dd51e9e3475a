"""Sums over parts of an array, the normalisations that are made of them, and what drops parts of it at random.

By channel, arrays are (blocks, pixels, channels): a channel has its statistics in every block. A batch normalisation
has one block, an instance or group normalisation one for each image. By row, arrays are (rows, numbers), and a row has
its statistics. Each is contiguous.

Sums are taken in float64. Where threads share a block or a long row, each sums over its own run of it, and these sums
are added in order: the same bits on every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from tinytorch.kernels import jit, memory
from tinytorch.kernels.move import transpose, transpose_of

Pair = tuple[np.ndarray, np.ndarray]
Clip = tuple[np.ndarray, np.ndarray, tuple[float, float]]  # scale, shift and bounds of a `scale_shift` that clipped


def _runs(parts: int) -> int:
    """Runs to cut each of so many parts into, for all threads to have their share of the work."""
    workers = jit.workers()
    return workers if parts == 1 else -(-4 * workers // parts)


# ---- by channel -----------------------------------------------------------------------------------------------------


def channel_sums(x: np.ndarray) -> np.ndarray:
    """Σ x over pixels, for each channel of (pixels, channels)."""
    return _summed(_channel_sums, 1, x[None])[0, 0]


def image_sums(x: np.ndarray) -> np.ndarray:
    """Σ x over pixels, for each image and channel of (images, pixels, channels)."""
    return _summed(_channel_sums, 1, x)[0]


def channel_moments(x: np.ndarray) -> Pair:
    """Mean and (biased) variance over pixels: (blocks, channels) each.

    One pass over the data, shifted by the first pixel so that a large mean does not cancel the variance.
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for Computing the Sample Variance", 1983, section 1.
    """
    first, second = _summed(_shifted_sums, 2, x) / x.shape[1]
    return x[:, 0] + first, np.maximum(second - first * first, 0.0)


def gradient_sums(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, clip: Clip | None = None
) -> Pair:
    """Σ dy and Σ dy · (x − mean) / std over pixels: (blocks, channels) each; dy counts as 0 where y was clipped.

    Where that is follows from x again, so that nobody has to keep y, or to read it.
    """
    if clip is None:
        plain, weighted = _summed(_gradient_sums, 2, dy, x, mean)
    else:
        plain, weighted = _summed(_clipped_gradient_sums, 2, dy, x, mean, *_clip_of(x, mean, clip))
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
    *lines, limits = _clip_of(x, mean, (scale, shift, bounds))
    if extra is None:
        jit.run(_scale_shift, x, *lines, limits, _runs(len(x)), y)
    else:
        jit.run(_scale_shift_add, x, *lines, extra, limits, _runs(len(x)), y)


def combine(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    dx: np.ndarray,
    clip: Clip | None = None,
) -> None:
    """dx = a · dy + b · (x − mean) + c, channel by channel: the shape that every gradient of these has.

    As in `gradient_sums` dy counts as 0 where y was clipped.
    """
    lines = _lines(x, a, b, c)
    if clip is None:
        jit.run(_combine, dy, x, *_lines(x, mean), *lines, _runs(len(x)), dx)
    else:
        jit.run(_clipped_combine, dy, x, *_clip_of(x, mean, clip), *lines, _runs(len(x)), dx)


def _clip_of(x: np.ndarray, mean: np.ndarray, clip: Clip) -> list[Any]:
    """Mean, scale, shift and bounds as the kernels read them."""
    scale, shift, (floor, ceiling) = clip
    return [*_lines(x, mean, scale, shift), (x.dtype.type(floor), x.dtype.type(ceiling))]


def _lines(x: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """Values of channels as the kernels read them: (blocks, channels), of the type of x."""
    return [np.full((len(x), x.shape[2]), value, x.dtype) for value in values]


def _summed(kernel: Callable[..., None], kinds: int, x: np.ndarray, *others: Any) -> np.ndarray:
    """Run a kernel that sums ``kinds`` of things per channel, and add up the runs: (kinds, blocks, channels).

    The sums of two runs lie two cache lines apart, or each write of one would take the line away from the other.
    """
    blocks, _, channels = x.shape
    parts = np.zeros((blocks, _runs(blocks), kinds, channels + 16))
    jit.run(kernel, x, *others, parts)
    return parts.sum(axis=1)[:, :, :channels].swapaxes(0, 1)


@jit.serial
def _run_of(item, runs, size):  # type: ignore[no-untyped-def]
    """Of parts of ``size`` steps, each cut into runs: which part and run an item is, its first step, and the end.

    Unsigned, so that the compiler sees that no index counts from the end; it would not use vectors otherwise.
    """
    item, runs, size = np.uint64(item), np.uint64(runs), np.uint64(size)
    part, run = item // runs, item % runs
    return part, run, size * run // runs, size * (run + np.uint64(1)) // runs


@jit.parallel
def _channel_sums(x, parts):  # type: ignore[no-untyped-def]
    runs = parts.shape[1]
    for item in prange(len(x) * runs):
        n, run, start, stop = _run_of(item, runs, x.shape[1])
        total = parts[n, run, 0]
        for p in range(start, stop):
            for c in range(x.shape[2]):
                total[c] += x[n, p, c]


@jit.parallel
def _shifted_sums(x, parts):  # type: ignore[no-untyped-def]
    runs = parts.shape[1]
    for item in prange(len(x) * runs):
        n, run, start, stop = _run_of(item, runs, x.shape[1])
        first, second = parts[n, run, 0], parts[n, run, 1]
        for p in range(start, stop):
            for c in range(x.shape[2]):
                away = np.float64(x[n, p, c]) - np.float64(x[n, 0, c])
                first[c] += away
                second[c] += away * away


@jit.parallel
def _gradient_sums(dy, x, mean, parts):  # type: ignore[no-untyped-def]
    runs = parts.shape[1]
    for item in prange(len(x) * runs):
        n, run, start, stop = _run_of(item, runs, x.shape[1])
        plain, weighted = parts[n, run, 0], parts[n, run, 1]
        for p in range(start, stop):
            for c in range(x.shape[2]):
                g = np.float64(dy[n, p, c])
                plain[c] += g
                weighted[c] += g * (x[n, p, c] - mean[n, c])


@jit.serial
def _clipped(value, bounds):  # type: ignore[no-untyped-def]
    value = bounds[0] if value < bounds[0] else value
    return bounds[1] if value > bounds[1] else value


@jit.serial
def _passed(gradient, value, bounds, zero):  # type: ignore[no-untyped-def]
    """The gradient that arrives at a value through its clipping: none at the bounds and beyond."""
    return zero if (value <= bounds[0]) | (value >= bounds[1]) else gradient


@jit.parallel
def _scale_shift(x, mean, scale, shift, bounds, runs, y):  # type: ignore[no-untyped-def]
    for item in prange(len(x) * runs):
        n, _, start, stop = _run_of(item, runs, x.shape[1])
        for p in range(start, stop):
            for c in range(x.shape[2]):
                y[n, p, c] = _clipped((x[n, p, c] - mean[n, c]) * scale[n, c] + shift[n, c], bounds)


@jit.parallel
def _scale_shift_add(x, mean, scale, shift, extra, bounds, runs, y):  # type: ignore[no-untyped-def]
    for item in prange(len(x) * runs):
        n, _, start, stop = _run_of(item, runs, x.shape[1])
        for p in range(start, stop):
            for c in range(x.shape[2]):
                value = (x[n, p, c] - mean[n, c]) * scale[n, c] + shift[n, c] + extra[n, p, c]
                y[n, p, c] = _clipped(value, bounds)


@jit.parallel
def _clipped_gradient_sums(dy, x, mean, middle, scale, shift, bounds, parts):  # type: ignore[no-untyped-def]
    # The middle is the mean in the type of x, as `_scale_shift` had it: only so y has the bits that were clipped.
    runs, zero = parts.shape[1], dy.dtype.type(0)
    for item in prange(len(x) * runs):
        n, run, start, stop = _run_of(item, runs, x.shape[1])
        plain, weighted = parts[n, run, 0], parts[n, run, 1]
        for p in range(start, stop):
            for c in range(x.shape[2]):
                y = (x[n, p, c] - middle[n, c]) * scale[n, c] + shift[n, c]
                g = np.float64(_passed(dy[n, p, c], y, bounds, zero))
                plain[c] += g
                weighted[c] += g * (x[n, p, c] - mean[n, c])


@jit.parallel
def _combine(dy, x, mean, a, b, constant, runs, dx):  # type: ignore[no-untyped-def]
    for item in prange(len(x) * runs):
        n, _, start, stop = _run_of(item, runs, x.shape[1])
        for p in range(start, stop):
            for c in range(x.shape[2]):
                dx[n, p, c] = a[n, c] * dy[n, p, c] + b[n, c] * (x[n, p, c] - mean[n, c]) + constant[n, c]


@jit.parallel
def _clipped_combine(dy, x, mean, scale, shift, bounds, a, b, constant, runs, dx):  # type: ignore[no-untyped-def]
    zero = dy.dtype.type(0)
    for item in prange(len(x) * runs):
        n, _, start, stop = _run_of(item, runs, x.shape[1])
        for p in range(start, stop):
            for c in range(x.shape[2]):
                away = x[n, p, c] - mean[n, c]
                g = _passed(dy[n, p, c], away * scale[n, c] + shift[n, c], bounds, zero)
                dx[n, p, c] = a[n, c] * g + b[n, c] * away + constant[n, c]


# ---- by row ---------------------------------------------------------------------------------------------------------


def row_moments(x: np.ndarray) -> Pair:
    """Mean and (biased) variance of each row, shifted by its first number; see `channel_moments`."""
    first, second = _row_summed(_row_sums, _short_row_sums, x, x[:, 0].copy()) / x.shape[1]
    return x[:, 0] + first, np.maximum(second - first * first, 0.0)


def row_squares(x: np.ndarray) -> np.ndarray:
    """Σ x² of each row."""
    return _row_summed(_row_sums, _short_row_sums, x, np.zeros(len(x), x.dtype))[1]


def row_gradient_sums(
    dy: np.ndarray, x: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, weight: np.ndarray
) -> Pair:
    """Σ weight · dy and Σ weight · dy · (x − mean) / std of each row."""
    plain, weighted = _row_summed(_row_gradient_sums, _short_row_gradient_sums, dy, x, mean, weight)
    return plain, weighted * inverse_std


def column_gradient_sums(dy: np.ndarray, x: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray) -> Pair:
    """Σ dy and Σ dy · (x − mean) / std over rows, for each column.

    A thread takes so few columns at once that their sums stay in its first cache, and of few columns some rows.
    """
    columns = x.shape[1]
    parts = memory.zeros((max(1, jit.workers() * _STRIP // columns), 2, columns + 16), np.float64)
    jit.run(_column_sums, dy, x, mean, inverse_std, (-(-columns // _STRIP), len(parts)), parts)
    plain, weighted = (parts.sum(axis=0) if len(parts) > 1 else parts[0])[:, :columns]
    return plain, weighted


_STRIP = 1024  # columns


def normalise_rows(
    x: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, weight: np.ndarray, bias: np.ndarray, y: np.ndarray
) -> None:
    """y = (x − mean) / std · weight + bias: mean and std of the row, weight and bias of the column."""
    values = (v.astype(x.dtype, copy=False) for v in (mean, inverse_std, weight, bias))
    jit.run(_normalise_rows, x, *values, _blocks_and_runs(x), y)


def combine_rows(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    weight: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    dx: np.ndarray,
) -> None:
    """dx = a · weight · dy + b · (x − mean) + c: weight of the column, the others of the row."""
    values = (v.astype(x.dtype, copy=False) for v in (mean, weight, a, b, c))
    jit.run(_combine_rows, dy, x, *values, _blocks_and_runs(x), dx)


def _row_summed(
    long: Callable[..., None], short: Callable[..., None], x: np.ndarray, *others: np.ndarray
) -> np.ndarray:
    """Run a kernel that takes two sums of every row, and add up the runs: (2, rows).

    A vector needs sums side by side: a long row has 64, each of every 64th number, and short rows are turned, so that
    the sums of 64 of them are.
    """
    rows, length = x.shape
    if length <= 256:
        turned = memory.empty((jit.workers(), 2, _LANES * length + 16), x.dtype)
        sums = np.zeros((2, rows + 16))  # a store and a load 4096 bytes apart would wait for each other
        jit.run(short, transpose_of(x.dtype), x, *others, turned, sums)
        return sums[:, :rows]
    blocks, runs = _blocks_and_runs(x)
    lanes = np.empty((blocks * runs, 2, _LANES))
    parts = np.empty((2, runs, rows))
    jit.run(long, x, *others, (blocks, runs), lanes, parts)
    return parts.sum(axis=1)


_LANES = 64


def _blocks_and_runs(x: np.ndarray) -> tuple[int, int]:
    """Blocks to take the rows in, and runs to cut each row into, for all threads to have their share of the work."""
    return min(len(x), 4 * jit.workers()), _runs(len(x))


@jit.serial
def _area_of(item, cut, rows, columns):  # type: ignore[no-untyped-def]
    """Of rows in blocks, each row cut into runs: which run an item is, its first row and the end, and its columns."""
    block, run, start, stop = _run_of(item, cut[1], columns)
    _, _, first, last = _run_of(block, cut[0], rows)
    return run, first, last, start, stop


@jit.serial
def _totals(first, second):  # type: ignore[no-untyped-def]
    """The sum of each of two arrays, from the first number to the last."""
    a = b = 0.0
    for lane in range(first.size):
        a += first[lane]
        b += second[lane]
    return a, b


@jit.parallel
def _row_sums(x, origin, cut, lanes, parts):  # type: ignore[no-untyped-def]
    for item in prange(len(lanes)):
        run, begin, end, start, stop = _area_of(item, cut, *x.shape)
        first, second, width = lanes[item, 0], lanes[item, 1], np.uint64(lanes.shape[2])
        for r in range(begin, end):
            for lane in range(width):
                first[lane], second[lane] = 0, 0
            for i in range(start, stop, width):
                for lane in range(min(width, stop - i)):
                    away = np.float64(x[r, i + lane]) - np.float64(origin[r])
                    first[lane] += away
                    second[lane] += away * away
            parts[0, run, r], parts[1, run, r] = _totals(first, second)


@jit.parallel
def _row_gradient_sums(dy, x, mean, weight, cut, lanes, parts):  # type: ignore[no-untyped-def]
    for item in prange(len(lanes)):
        run, begin, end, start, stop = _area_of(item, cut, *x.shape)
        plain, weighted, width = lanes[item, 0], lanes[item, 1], np.uint64(lanes.shape[2])
        for r in range(begin, end):
            for lane in range(width):
                plain[lane], weighted[lane] = 0, 0
            for i in range(start, stop, width):
                for lane in range(min(width, stop - i)):
                    g = np.float64(dy[r, i + lane]) * weight[i + lane]
                    plain[lane] += g
                    weighted[lane] += g * (x[r, i + lane] - mean[r])
            parts[0, run, r], parts[1, run, r] = _totals(plain, weighted)


@jit.serial
def _block_of(block, rows, which, x, turned):  # type: ignore[no-untyped-def]
    """Turn a block of rows, so that those with the same place are neighbours; return its first and their number."""
    first = block * _LANES
    count = min(_LANES, rows - first)
    length = x.size // rows
    transpose(which, (x, first * length), length, (turned, 0), _LANES, count, length)
    return np.uint64(first), np.uint64(count)


@jit.parallel
def _short_row_sums(which, x, origin, turned, sums):  # type: ignore[no-untyped-def]
    (rows, length), blocks, workers = x.shape, (len(x) + _LANES - 1) // _LANES, len(turned)
    line, first, second = x.reshape(-1), sums[0], sums[1]
    for worker in prange(workers):
        numbers = turned[worker, 0]
        for block in range(blocks * worker // workers, blocks * (worker + 1) // workers):
            r, count = _block_of(block, rows, which, line, numbers)
            for i in range(np.uint64(length)):
                for lane in range(count):
                    away = np.float64(numbers[i * np.uint64(_LANES) + lane]) - np.float64(origin[r + lane])
                    first[r + lane] += away
                    second[r + lane] += away * away


@jit.parallel
def _short_row_gradient_sums(which, dy, x, mean, weight, turned, sums):  # type: ignore[no-untyped-def]
    (rows, length), blocks, workers = x.shape, (len(x) + _LANES - 1) // _LANES, len(turned)
    lines, plain, weighted = (x.reshape(-1), dy.reshape(-1)), sums[0], sums[1]
    for worker in prange(workers):
        numbers, gradients = turned[worker, 0], turned[worker, 1]
        for block in range(blocks * worker // workers, blocks * (worker + 1) // workers):
            r, count = _block_of(block, rows, which, lines[0], numbers)
            _block_of(block, rows, which, lines[1], gradients)
            for i in range(np.uint64(length)):
                for lane in range(count):
                    g = np.float64(gradients[i * np.uint64(_LANES) + lane]) * weight[i]
                    plain[r + lane] += g
                    weighted[r + lane] += g * (numbers[i * np.uint64(_LANES) + lane] - mean[r + lane])


@jit.parallel
def _column_sums(dy, x, mean, inverse_std, cut, parts):  # type: ignore[no-untyped-def]
    for item in prange(cut[0] * cut[1]):
        run, first, last, start, stop = _area_of(item, cut, x.shape[1], x.shape[0])
        plain, weighted = parts[run, 0], parts[run, 1]
        for r in range(start, stop):
            for i in range(first, last):
                g = np.float64(dy[r, i])
                plain[i] += g
                weighted[i] += g * (x[r, i] - mean[r]) * inverse_std[r]


@jit.parallel
def _normalise_rows(x, mean, inverse_std, weight, bias, cut, y):  # type: ignore[no-untyped-def]
    for item in prange(cut[0] * cut[1]):
        _, begin, end, start, stop = _area_of(item, cut, *x.shape)
        for r in range(begin, end):
            for i in range(start, stop):
                y[r, i] = (x[r, i] - mean[r]) * inverse_std[r] * weight[i] + bias[i]


@jit.parallel
def _combine_rows(dy, x, mean, weight, a, b, c, cut, dx):  # type: ignore[no-untyped-def]
    for item in prange(cut[0] * cut[1]):
        _, begin, end, start, stop = _area_of(item, cut, *x.shape)
        for r in range(begin, end):
            for i in range(start, stop):
                dx[r, i] = a[r] * (weight[i] * dy[r, i]) + b[r] * (x[r, i] - mean[r]) + c[r]


# ---- across channels ------------------------------------------------------------------------------------------------


def respond(x: np.ndarray, window: tuple[int, int], k: float, alpha: float, beta: float) -> Pair:
    """y = x · s^−β, and s = k + α · Σ x² over a window of neighbours in the row: so many before, so many behind."""
    y, s = memory.empty_like(x), memory.empty_like(x)
    jit.run(_respond, x, window, float(k), float(alpha), x.dtype.type(-beta), s, y)
    return y, s


def respond_grad(
    dy: np.ndarray, x: np.ndarray, y: np.ndarray, s: np.ndarray, window: tuple[int, int], alpha: float, beta: float
) -> np.ndarray:
    """dx = dy · s^−β − 2αβ · x · Σ dy · y / s over the neighbours whose windows hold x."""
    dx = memory.empty_like(x)
    jit.run(_respond_grad, dy, x, y, s, window, 2.0 * alpha * beta, x.dtype.type(-beta), dx)
    return dx


@jit.parallel
def _respond(x, window, k, alpha, power, s, y):  # type: ignore[no-untyped-def]
    before, behind = window
    for r in prange(len(x)):
        for c in range(x.shape[1]):
            total = 0.0
            for i in range(max(0, c - before), min(x.shape[1], c + behind + 1)):
                total += np.float64(x[r, i]) * x[r, i]
            s[r, c] = k + alpha * total
            y[r, c] = x[r, c] * s[r, c] ** power


@jit.parallel
def _respond_grad(dy, x, y, s, window, factor, power, dx):  # type: ignore[no-untyped-def]
    before, behind = window
    for r in prange(len(x)):
        for c in range(x.shape[1]):
            total = 0.0
            for i in range(max(0, c - behind), min(x.shape[1], c + before + 1)):
                total += np.float64(dy[r, i]) * y[r, i] / s[r, i]
            dx[r, c] = dy[r, c] * s[r, c] ** power - factor * x[r, c] * total


# ---- dropping -------------------------------------------------------------------------------------------------------


def drop(x: np.ndarray, keep: np.ndarray, scale: float, shift: float, instead: float) -> np.ndarray:
    """x · scale + shift where a number is kept, elsewhere x · 0 + ``instead``, so that NaN stays NaN."""
    y = memory.empty(x.shape, x.dtype)
    jit.run(_drop, x.reshape(-1), keep.reshape(-1), *(x.dtype.type(v) for v in (scale, shift, instead)), y.reshape(-1))
    return y


def keep_blocks(seeds: np.ndarray, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """True but in the squares of ``size`` pixels whose upper left corners are ``seeds``: (images, h, w, channels)."""
    keep = memory.empty(shape, np.bool_)
    jit.run(_keep_blocks, seeds, size, keep)
    return keep


@jit.parallel
def _drop(x, keep, scale, shift, instead, y):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = x[i] * (scale if keep[i] else zero) + (shift if keep[i] else instead)


@jit.parallel
def _keep_blocks(seeds, size, keep):  # type: ignore[no-untyped-def]
    for n in prange(len(keep)):
        for h in range(keep.shape[1]):
            for w in range(keep.shape[2]):
                for c in range(keep.shape[3]):
                    keep[n, h, w, c] = True
        for h in range(seeds.shape[1]):
            for w in range(seeds.shape[2]):
                for c in range(seeds.shape[3]):
                    if seeds[n, h, w, c]:
                        for i in range(h, h + size):
                            for j in range(w, w + size):
                                keep[n, i, j, c] = False
