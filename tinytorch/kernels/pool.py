"""Pooling over channels-last memory: all channels of a pixel are taken at once, which is what a vector wants.

Arrays are (n, d, h, w, c). How windows lie is told axis by axis, in runs: of every window the pixels in it or, the
other way about, of every pixel the windows that it is in. Padding is never stored: runs leave out what lies outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import prange

from tinytorch.kernels import jit, memory, norm
from tinytorch.kernels.pick import pick, pick_of

Axes = tuple["Windows", "Windows", "Windows"]
Numbers = tuple[np.ndarray, np.ndarray, np.ndarray]  # one for every window, or pixel, of each axis
Kernel = Callable[..., None]

_MOST_UNROLLED = 32  # taps; all of a window's loads and comparisons are written out
_MOST_FACTORS = 4  # of a power that is multiplied out
_MOST_AT_ONCE = 24  # pixels of a window; of more, rows come first: fewer steps, more threads, and less rounding


# ---- how windows lie ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows along one axis.

    Parameters
    ----------
    taps
        Of a window, or of the largest.
    pixels
        For every window the pixels in it: ``count`` of them, the ``first`` under tap number ``tap``, the others each
        ``step`` pixels and one tap further.
    windows
        For every pixel the windows that it is in: ``count`` of them, each ``step`` windows after the ``first``; if the
        windows are solid, in that by tap number ``tap``, in the next ``stride`` taps before.
    stride
        Pixels from one window to the next if they are solid, copies of one without gaps between its taps; else 0.
    before
        Pixels by which the first window begins in front of the image.
    tiled
        Whether they are solid, cover the axis and share no pixel.
    """

    taps: int
    pixels: np.recarray
    windows: np.recarray
    stride: int = 0
    before: int = 0
    tiled: bool = False


def sliding(size: int, out: int, kernel: int, stride: int, before: int = 0, dilation: int = 1) -> Windows:
    """``out`` windows over ``size`` pixels; the first begins ``before`` pixels in front of them."""
    starts = np.arange(out) * stride - before
    first = np.maximum(0, -(starts // dilation))
    last = np.minimum(kernel, -((starts - size) // dilation))
    return Windows(
        kernel,
        _runs(starts + first * dilation, last - first, dilation, first),
        _windows_of_pixels(np.arange(size) + before, out, kernel, stride, dilation),
        stride if dilation == 1 else 0,
        before,
        tiled=kernel == stride and before == 0 and dilation == 1 and size == out * kernel,
    )


def _windows_of_pixels(places: np.ndarray, out: int, kernel: int, stride: int, dilation: int) -> np.recarray:
    """Window o has a tap t on place p if p = o · stride + t · dilation.

    So o · stride ≡ p modulo the dilation. With g, the greatest common divisor of both, that has solutions if g divides
    p: all o ≡ p / g · (stride / g)⁻¹ modulo dilation / g.
    """
    common = math.gcd(stride, dilation)
    hop = dilation // common
    solution = places // common * pow(stride // common, -1, hop) % hop
    lowest = np.maximum(0, -(((kernel - 1) * dilation - places) // stride))
    first = lowest + (solution - lowest) % hop
    count = np.where(places % common == 0, (np.minimum(out - 1, places // stride) - first) // hop + 1, 0)
    return _runs(first, count, hop, (places - first * stride) // dilation)


def adaptive(size: int, out: int) -> Windows:
    """``out`` windows over ``size`` pixels: ⌊i · size / out⌋ up to ⌈(i + 1) · size / out⌉ for window i.

    Window i holds pixel h exactly if [i / out, (i + 1) / out) and [h / size, (h + 1) / size) overlap. That is
    symmetric: the windows of a pixel are found as the pixels of a window are.
    """
    if size % out == 0:  # their size comes with the image's, so that no kernel is compiled for it
        return replace(sliding(size, out, size // out, size // out), stride=0)
    pixels = _overlaps(out, size)
    return Windows(int(pixels.count.max()), pixels, _overlaps(size, out))


def _overlaps(parts: int, others: int) -> np.recarray:
    part = np.arange(parts)
    first = part * others // parts
    return _runs(first, -(-(part + 1) * others // parts) - first, 1, 0)


@lru_cache(maxsize=32)
def _each(size: int) -> np.recarray:
    """Windows of one pixel, that leave an axis as it is."""
    return _runs(np.arange(size), 1, 1, 0)


@lru_cache(maxsize=32)
def _ones(size: int) -> np.ndarray:
    return np.ones(size)


def _runs(first: np.ndarray, count: Any, step: int, tap: Any) -> np.recarray:
    fields = {"first": first, "count": np.maximum(count, 0), "step": step, "tap": tap}
    runs = np.empty(len(first), [(name, np.int64) for name in fields])
    for name, values in fields.items():
        runs[name] = values
    return runs.view(np.recarray)


# ---- sums ---------------------------------------------------------------------------------------------------------


def sums(x: np.ndarray, y: np.ndarray, windows: Axes, divisors: Numbers) -> None:
    """Sum of every window into ``y``, divided by the product of the window's divisors along the axes."""
    if y.size and y.shape[1:4] == (1, 1, 1) and _hold_all(windows, x.shape[1:4]):
        whole = norm.image_sums(x.reshape(len(x), -1, x.shape[4]))  # so many numbers need more digits
        y[...] = (whole / math.prod(divisor[0] for divisor in divisors)).reshape(y.shape)
        return
    _sum_up(x, y, [axis.pixels for axis in windows], [_ones(n) for n in x.shape[1:4]], divisors)


def _hold_all(windows: Axes, sizes: tuple[int, ...]) -> bool:
    """Whether the first window holds every pixel."""
    return all(axis.pixels.count[0] == size for axis, size in zip(windows, sizes, strict=True))


def sums_grad(dy: np.ndarray, dx: np.ndarray, windows: Axes, divisors: Numbers) -> None:
    """Every output gradient, divided likewise, goes to all pixels of its window."""
    shares = [1 / divisor for divisor in divisors]
    _sum_up(dy, dx, [axis.windows for axis in windows], shares, [_ones(n) for n in dx.shape[1:4]])


def _sum_up(x, y, runs, weights, divisors) -> None:  # type: ignore[no-untyped-def]
    """``y[r] = Σ weight[s] · x[s] / divisor[r]``, at once or first along the width."""
    if not _goes_by_width(runs):
        jit.run(_sums, x, y, tuple(runs), tuple(weights), tuple(divisors))
        return
    part = memory.empty((*x.shape[:3], y.shape[3], x.shape[4]), y.dtype)
    ones = tuple(_ones(n) for n in part.shape[1:4])
    along, across = _by_width(runs, part.shape)
    jit.run(_sums, x, part, along, tuple(weights), ones)
    jit.run(_sums, part, y, across, ones, tuple(divisors))


def _goes_by_width(runs: Sequence[np.recarray]) -> bool:
    deep, high, wide = (int(run.count.max()) for run in runs)
    return min(deep * high, wide) > 1 and deep * high * wide > _MOST_AT_ONCE


def _by_width(runs: Sequence[np.recarray], shape: tuple[int, ...]) -> tuple[tuple, tuple]:
    """The runs in two steps, with an array of this shape between them."""
    deep, high, wide = runs
    return (_each(shape[1]), _each(shape[2]), wide), (deep, high, _each(shape[3]))


@jit.serial
def _line(item, depth, height):  # type: ignore[no-untyped-def]
    """Image, depth and height of a line of pixels."""
    line = np.int64(item)
    return line // (depth * height), line // height % depth, line % height


@jit.parallel
def _sums(x, y, runs, weights, divisors):  # type: ignore[no-untyped-def]
    images, depth, height, width, channels = y.shape
    for item in prange(images * depth * height):
        n, d, h = _line(item, depth, height)
        deep, high = runs[0][d], runs[1][h]
        for w in range(width):
            for c in range(channels):
                y[n, d, h, w, c] = 0
        for i in range(deep.count):
            a = deep.first + i * deep.step
            for j in range(high.count):
                b = high.first + j * high.step
                line = x[n, a, b]
                for w in range(width):
                    wide, total = runs[2][w], y[n, d, h, w]
                    for k in range(wide.count):
                        e = wide.first + k * wide.step
                        pixel, weight = line[e], x.dtype.type(weights[0][a] * weights[1][b] * weights[2][e])
                        for c in range(channels):
                            total[c] += weight * pixel[c]
        for w in range(width):
            divisor = y.dtype.type(divisors[0][d] * divisors[1][h] * divisors[2][w])
            if divisor != 1:
                for c in range(channels):
                    y[n, d, h, w, c] /= divisor


# ---- maxima -------------------------------------------------------------------------------------------------------


def winners_type(windows: Axes) -> np.dtype:
    """How the winners of such windows are told: uint8 for numbers of taps, int64 for places in the image's plane.

    Taps are faster to find and to follow back where a window has few.
    """
    by_tap = math.prod(axis.taps for axis in windows) <= _MOST_UNROLLED and all(axis.stride for axis in windows)
    return np.dtype(np.uint8 if by_tap else np.int64)


def max_pool(x: np.ndarray, y: np.ndarray, winners: np.ndarray, windows: Axes) -> None:
    """Largest value of every window into ``y``, and which it was into ``winners``, of `winners_type`.

    A tap's number is (its depth · kernel_h + its row) · kernel_w + its column; a place counts pixels likewise. The
    first of equal values wins; NaN beats every number, and the last of several wins.
    """
    runs, wide = tuple(axis.pixels for axis in windows), windows[2]
    if winners.dtype == np.uint8:
        jit.run(_max_pool(*(axis.taps for axis in windows)), x, y, winners, runs, (wide.stride, wide.before))
    elif _goes_by_width(runs):
        _max_by_width(x, y, winners, runs)
    else:
        _search_all(x, y, winners, runs)


def _search_all(x, y, winners, runs) -> None:  # type: ignore[no-untyped-def]
    """Windows of any size and kind; winners are told by place."""
    jit.run(_max_pool(0, 0, 0), x, y, winners, tuple(runs), (0, 0))


def _max_by_width(x: np.ndarray, y: np.ndarray, winners: np.ndarray, runs: Sequence[np.recarray]) -> None:
    """The largest of the largest of each row; the winner is where the winning row had it."""
    shape = (*x.shape[:3], y.shape[3], x.shape[4])
    largest, columns = memory.empty(shape, x.dtype), memory.empty(shape, winners.dtype)
    along, across = _by_width(runs, shape)
    _search_all(x, largest, columns, along)
    _search_all(largest, y, winners, across)
    rows = winners.copy()
    take(columns, rows, winners)


def max_pool_grad(dy: np.ndarray, winners: np.ndarray, dx: np.ndarray, windows: Axes) -> None:
    """Hand every output gradient to the input pixel that won its window."""
    kernel = tuple(axis.taps for axis in windows)
    if winners.dtype != np.uint8:
        put(dy, winners, dx, adding=True)
    elif all(axis.tiled for axis in windows):
        flat = (array.reshape(-1) for array in (dy, winners, dx))
        jit.run(_max_pool_grad_tiled, pick_of(dx.shape[4], dx.dtype), *flat, dy.shape, kernel)
    else:
        deep, high, wide = windows
        strides = (deep.stride, high.stride, wide.stride)
        jit.run(_max_pool_grad, dy, winners, dx, (deep.windows, high.windows), strides, wide.before, kernel)


def places(winners: np.ndarray, out: np.ndarray, windows: Axes, sizes: tuple[int, ...]) -> None:
    """Places in a plane of these sizes from the numbers of taps."""
    runs, kernel = tuple(axis.pixels for axis in windows), tuple(axis.taps for axis in windows)
    jit.run(_places, winners, out, runs, kernel, sizes)


@cache
def _max_pool(kernel_d: int, kernel_h: int, kernel_w: int) -> Kernel:
    """The kernel for one window size: whole windows are unrolled, so that the search stays in registers.

    That for windows of no size searches any, and says in which places the winners are.
    """
    by_place = kernel_d == 0

    @jit.parallel
    def max_pool(x, y, winners, runs, slide):  # type: ignore[no-untyped-def]
        images, depth, height, width, channels = y.shape
        sides = x.shape[2:4] if by_place else (kernel_h, kernel_w)
        for item in prange(images * depth * height):
            n, d, h = _line(item, depth, height)
            deep, high, image = runs[0][d], runs[1][h], x[n]
            a, b = deep.first, high.first
            whole = deep.count == kernel_d and high.count == kernel_h and not by_place
            largest_of, winners_of = y[n, d, h], winners[n, d, h]
            for w in range(width):
                e, largest, winner_of = w * slide[0] - slide[1], largest_of[w], winners_of[w]
                if not whole or e < 0 or e + kernel_w > x.shape[3]:
                    _search(image, deep, high, runs[2][w], by_place, sides, largest, winner_of)
                    continue
                for c in range(channels):
                    best, winner = image[a, b, e, c], 0
                    for i in range(kernel_d):
                        for j in range(kernel_h):
                            for k in range(kernel_w):
                                value = image[a + i, b + j, e + k, c]
                                wins = (value > best) | (value != value)
                                tap = (i * kernel_h + j) * kernel_w + k
                                best, winner = (value, tap) if wins else (best, winner)
                    largest[c], winner_of[c] = best, winner

    return max_pool


@jit.serial
def _search(x, deep, high, wide, by_place, sides, y, winners):  # type: ignore[no-untyped-def]
    """The search in a window that reaches over the border of the image, or of any size."""
    for i in range(deep.count):
        for j in range(high.count):
            for k in range(wide.count):
                place = deep.first + i * deep.step, high.first + j * high.step, wide.first + k * wide.step
                tap = deep.tap + i, high.tap + j, wide.tap + k
                number = place if by_place else tap
                mark = winners.dtype.type((number[0] * sides[0] + number[1]) * sides[1] + number[2])
                pixel, first = x[place], i + j + k == 0
                for c in range(y.size):
                    wins = (pixel[c] > y[c]) | (pixel[c] != pixel[c]) | first
                    y[c], winners[c] = (pixel[c], mark) if wins else (y[c], winners[c])


@jit.parallel
def _max_pool_grad_tiled(which, dy, winners, dx, shape, kernel):  # type: ignore[no-untyped-def]
    """Windows that cover the image without sharing a pixel: each pixel is written once."""
    images, depth, height, width, channels = shape
    kernel_d, kernel_h, kernel_w = kernel
    step = kernel_w * channels
    for item in prange(images * depth * height):
        row = np.int64(item)
        at, tap = row * width * channels, 0
        for i in range(kernel_d):
            for j in range(kernel_h):
                line = ((row // height * kernel_d + i) * height + row % height) * kernel_h + j
                for k in range(kernel_w):
                    to = line * width * step + k * channels
                    pick(which, (dy, at), (winners, at), (dx, to), tap, width, step, channels)
                    tap += 1


@jit.parallel
def _max_pool_grad(dy, winners, dx, runs, strides, before, kernel):  # type: ignore[no-untyped-def]
    """Each line of the image gathers from the lines of windows that reach it; along a line, windows spread."""
    images, depth, height, width, channels = dx.shape
    nothing = dy.dtype.type(0)
    for item in prange(images * depth * height):
        n, d, h = _line(item, depth, height)
        deep, high, line = runs[0][d], runs[1][h], dx[n, d, h]
        for w in range(width):
            for c in range(channels):
                line[w, c] = 0
        for i in range(deep.count):
            for j in range(high.count):
                a, b = deep.first + i, high.first + j
                gradients, winners_of = dy[n, a, b], winners[n, a, b]
                row = (deep.tap - i * strides[0]) * kernel[1] + high.tap - j * strides[1]
                for w in range(dy.shape[3]):
                    e, gradient, winner = w * strides[2] - before, gradients[w], winners_of[w]
                    for k in range(max(0, -e), min(kernel[2], width - e)):
                        pixel, tap = line[e + k], winner.dtype.type(row * kernel[2] + k)
                        for c in range(channels):
                            pixel[c] += gradient[c] if winner[c] == tap else nothing


@jit.parallel
def _places(winners, out, runs, kernel, sizes):  # type: ignore[no-untyped-def]
    images, depth, height, width, channels = winners.shape
    for item in prange(images * depth * height):
        n, d, h = _line(item, depth, height)
        deep, high = runs[0][d], runs[1][h]
        for w in range(width):
            wide, winner, place = runs[2][w], winners[n, d, h, w], out[n, d, h, w]
            for i in range(deep.count):
                for j in range(high.count):
                    row = (deep.first + i) * sizes[1] + high.first + j
                    tap_row = (deep.tap + i) * kernel[1] + high.tap + j
                    for k in range(wide.count):
                        tap = winner.dtype.type(tap_row * kernel[2] + wide.tap + k)
                        here = row * sizes[2] + wide.first + k
                        for c in range(channels):
                            place[c] = here if winner[c] == tap else place[c]


# ---- by place -----------------------------------------------------------------------------------------------------


def put(values: np.ndarray, places: np.ndarray, out: np.ndarray, adding: bool) -> None:
    """Every value to its place in the plane of its image and channel, the rest zeros.

    Several to one place are added up or, not ``adding``, the last stays.
    """
    out.fill(0)
    jit.run(_put, *map(_planes, (values, places, out)), adding, _parts(values))


def take(values: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    """The values at these places of the planes."""
    jit.run(_take, *map(_planes, (values, places, out)), _parts(places))


def _planes(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), math.prod(array.shape[1:-1]), array.shape[-1])


def _parts(array: np.ndarray) -> int:
    """Parts of the channels, if the images alone do not give every thread as much to do."""
    return min(jit.workers(), array.shape[-1]) if len(array) % jit.workers() else 1


@jit.serial
def _share(task, parts, channels):  # type: ignore[no-untyped-def]
    """Image, first channel and one past the last of a task."""
    number = np.int64(task)
    part = number % parts
    return number // parts, channels * part // parts, channels * (part + 1) // parts


@jit.parallel
def _put(values, places, out, adding, parts):  # type: ignore[no-untyped-def]
    images, pixels, channels = places.shape
    for task in prange(images * parts):
        n, first, last = _share(task, parts, channels)
        line = out[n].reshape(-1)
        for p in range(pixels):
            value, place = values[n, p], places[n, p]
            for c in range(first, last):
                at = np.uint64(place[c] * channels + c)  # without a sign, no look whether it counts from the end
                line[at] = line[at] + value[c] if adding else value[c]


@jit.parallel
def _take(values, places, out, parts):  # type: ignore[no-untyped-def]
    images, pixels, channels = places.shape
    for task in prange(images * parts):
        n, first, last = _share(task, parts, channels)
        line = values[n].reshape(-1)
        for p in range(pixels):
            to, place = out[n, p], places[n, p]
            for c in range(first, last):
                to[c] = line[np.uint64(place[c] * channels + c)]


# ---- powers -------------------------------------------------------------------------------------------------------


def powers(x: np.ndarray, exponent: float, y: np.ndarray) -> None:
    """``y = x ** exponent``; both are dense arrays with one order in memory.

    NumPy takes logarithms a vector at a time, which compiled loops don't.
    """
    if _is_product(exponent):
        jit.run(_powers, memory.line(x), int(exponent), memory.line(y))
        return
    with np.errstate(all="ignore"):
        if exponent == 0.5:
            np.sqrt(x, out=y)
        else:
            np.power(x, x.dtype.type(exponent), out=y)


def times_powers(x: np.ndarray, exponent: float, y: np.ndarray) -> None:
    """``y *= x ** exponent``, likewise, where a negative power of 0 counts as 0."""
    if _is_product(exponent):
        jit.run(_times_powers, memory.line(x), int(exponent), memory.line(y))
        return
    raised = memory.empty_like(x)
    powers(x, exponent, raised)
    if exponent < 0:
        raised[x == 0] = 0
    y *= raised


def _is_product(exponent: float) -> bool:
    return exponent == int(exponent) and abs(exponent) <= _MOST_FACTORS


@jit.serial
def _power(x, exponent, one):  # type: ignore[no-untyped-def]
    product = one
    for factor in range(_MOST_FACTORS):
        product *= x if factor < abs(exponent) else one
    return product if exponent >= 0 else one / product


@jit.parallel
def _powers(x, exponent, y):  # type: ignore[no-untyped-def]
    for i in prange(x.size):
        y[i] = _power(x[i], exponent, x.dtype.type(1))


@jit.parallel
def _times_powers(x, exponent, y):  # type: ignore[no-untyped-def]
    for i in prange(x.size):
        power = _power(x[i], exponent, x.dtype.type(1))
        y[i] = 0 if exponent < 0 and x[i] == 0 else y[i] * power
