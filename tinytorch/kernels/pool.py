"""Pooling over channels-last memory: all channels of a pixel are taken at once, which is what a vector wants.

Arrays are (n, h, w, c). A window is described by ``(kernel_h, kernel_w, stride_h, stride_w, top, left)``, where top
and left are the padding in front. Padding is never stored: taps outside the image are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import prange

from tinytorch.kernels import jit
from tinytorch.kernels.pick import pick, pick_of

Window = tuple[int, int, int, int, int, int]


def max_pool(x: np.ndarray, y: np.ndarray, winners: np.ndarray, window: Window) -> None:
    """Largest value of every window into ``y``, and its tap number (kernel row · kernel_w + column) into ``winners``.

    The first of equal values wins; NaN beats every number.
    """
    jit.run(_max_pool(*window[:2]), x, y, winners, window)


def max_pool_grad(dy: np.ndarray, winners: np.ndarray, dx: np.ndarray, window: Window) -> None:
    """Hand every output gradient to the input pixel that won its window."""
    kernel, stride, before = window[:2], window[2:4], window[4:]
    images, out_h, out_w, channels = dy.shape
    covered = dx.shape[1:3] == (out_h * kernel[0], out_w * kernel[1])
    if kernel == stride and before == (0, 0) and covered and winners.dtype == np.uint8:
        flat = (array.reshape(-1) for array in (dy, winners, dx))
        shape = (images * out_h, kernel[0], out_w, kernel[1], channels)
        jit.run(_max_pool_grad_tiled, pick_of(channels, dx.dtype), *flat, shape)
    else:
        jit.run(_max_pool_grad, dy, winners, dx, window)


def avg_pool(x: np.ndarray, y: np.ndarray, window: Window) -> None:
    """Mean of every window into ``y``; padding counts as zeros."""
    jit.run(_avg_pool, x, y, window)


def avg_pool_grad(dy: np.ndarray, dx: np.ndarray, window: Window) -> None:
    """Spread every output gradient evenly over its window."""
    jit.run(_avg_pool_grad, dy, dx, window)


def adaptive_avg_pool(x: np.ndarray, y: np.ndarray) -> None:
    """Mean of every window into ``y``, whose height and width say how many windows lie along each axis of ``x``."""
    jit.run(_adaptive_sums, x, y)
    y /= _adaptive_sizes(x, y)


def adaptive_avg_pool_grad(dy: np.ndarray, dx: np.ndarray) -> None:
    """Spread every output gradient evenly over its window.

    Window i of o holds pixel h of H exactly if [i/o, (i+1)/o) and [h/H, (h+1)/H) overlap. That is symmetric: the
    windows that hold a pixel are the pixels of an adaptive window over the outputs, and the gradient is the same sum.
    """
    jit.run(_adaptive_sums, dy / _adaptive_sizes(dx, dy), dx)


def _adaptive_sizes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pixels of every window: what it sums up to over an image of ones."""
    ones, sizes = np.ones((1, *x.shape[1:3], 1), x.dtype), np.empty((1, *y.shape[1:3], 1), y.dtype)
    jit.run(_adaptive_sums, ones, sizes)
    return sizes


@jit.serial
def _clip(start, taps, size):  # type: ignore[no-untyped-def]
    """Taps of a window at ``start`` that lie inside an image of ``size`` pixels: first, and one past the last."""
    return max(0, -start), min(taps, size - start)


@cache
def _max_pool(kernel_h: int, kernel_w: int) -> Callable[..., None]:
    """The kernel for one window size: whole windows are unrolled, so that the search stays in registers."""

    @jit.parallel
    def max_pool(x, y, winners, window):  # type: ignore[no-untyped-def]
        _, _, stride_h, stride_w, top, left = window
        images, out_h, out_w, channels = y.shape
        for line in prange(images * out_h):
            n, h = line // out_h, line % out_h
            h0 = h * stride_h - top
            for w in range(out_w):
                w0 = w * stride_w - left
                if h0 < 0 or w0 < 0 or h0 + kernel_h > x.shape[1] or w0 + kernel_w > x.shape[2]:
                    _search_edge(x, n, h0, w0, kernel_h, kernel_w, y[n, h, w], winners[n, h, w])
                    continue
                largest, winner_of = y[n, h, w], winners[n, h, w]
                for c in range(channels):
                    best, winner = x[n, h0, w0, c], 0
                    for kh in range(kernel_h):
                        for kw in range(kernel_w):
                            value = x[n, h0 + kh, w0 + kw, c]
                            wins = (value > best) | (value != value)
                            best, winner = (value, kh * kernel_w + kw) if wins else (best, winner)
                    largest[c], winner_of[c] = best, winner

    return max_pool


@jit.serial
def _search_edge(x, n, h0, w0, kernel_h, kernel_w, y, winners):  # type: ignore[no-untyped-def]
    """The search in a window that reaches over the border of the image."""
    first_h, last_h = _clip(h0, kernel_h, x.shape[1])
    first_w, last_w = _clip(w0, kernel_w, x.shape[2])
    for c in range(y.size):
        best, winner = x[n, h0 + first_h, w0 + first_w, c], first_h * kernel_w + first_w
        for kh in range(first_h, last_h):
            for kw in range(first_w, last_w):
                value = x[n, h0 + kh, w0 + kw, c]
                wins = (value > best) | (value != value)
                best, winner = (value, kh * kernel_w + kw) if wins else (best, winner)
        y[c], winners[c] = best, winner


@jit.parallel
def _max_pool_grad_tiled(which, dy, winners, dx, shape):  # type: ignore[no-untyped-def]
    """Windows that cover the image without sharing a pixel: each pixel is written once.

    The image has the shape (output rows, kernel_h, output width, kernel_w, channels).
    """
    rows, kernel_h, width, kernel_w, channels = shape
    line = width * kernel_w * channels
    for item in prange(rows):
        row = np.int64(item)
        at = row * width * channels
        for tap in range(kernel_h * kernel_w):
            to = (row * kernel_h + tap // kernel_w) * line + tap % kernel_w * channels
            pick(which, (dy, at), (winners, at), (dx, to), tap, width, kernel_w * channels, channels)


@jit.parallel
def _max_pool_grad(dy, winners, dx, window):  # type: ignore[no-untyped-def]
    kernel_h, kernel_w, stride_h, stride_w, top, left = window
    images, out_h, out_w, channels = dy.shape
    for n in prange(images):
        _clear(dx[n])
        for h in range(out_h):
            h0 = h * stride_h - top
            first_h, last_h = _clip(h0, kernel_h, dx.shape[1])
            for w in range(out_w):
                w0 = w * stride_w - left
                first_w, last_w = _clip(w0, kernel_w, dx.shape[2])
                gradient, winner = dy[n, h, w], winners[n, h, w]
                for kh in range(first_h, last_h):
                    for kw in range(first_w, last_w):
                        pixel = dx[n, h0 + kh, w0 + kw]
                        tap = kh * kernel_w + kw
                        for c in range(channels):
                            pixel[c] += gradient[c] if winner[c] == tap else gradient.dtype.type(0)


@jit.serial
def _clear(image):  # type: ignore[no-untyped-def]
    for h in range(image.shape[0]):
        for w in range(image.shape[1]):
            for c in range(image.shape[2]):
                image[h, w, c] = 0


@jit.parallel
def _avg_pool(x, y, window):  # type: ignore[no-untyped-def]
    kernel_h, kernel_w, stride_h, stride_w, top, left = window
    images, out_h, out_w, _ = y.shape
    share = x.dtype.type(1) / x.dtype.type(kernel_h * kernel_w)
    for line in prange(images * out_h):
        n, h = line // out_h, line % out_h
        h0 = h * stride_h - top
        first_h, last_h = _clip(h0, kernel_h, x.shape[1])
        for w in range(out_w):
            w0 = w * stride_w - left
            first_w, last_w = _clip(w0, kernel_w, x.shape[2])
            total = y[n, h, w]
            total[:] = 0
            for kh in range(first_h, last_h):
                for kw in range(first_w, last_w):
                    total += x[n, h0 + kh, w0 + kw]
            total *= share


@jit.parallel
def _avg_pool_grad(dy, dx, window):  # type: ignore[no-untyped-def]
    kernel_h, kernel_w, stride_h, stride_w, top, left = window
    images, out_h, out_w, _ = dy.shape
    share = dy.dtype.type(1) / dy.dtype.type(kernel_h * kernel_w)
    for n in prange(images):
        _clear(dx[n])
        for h in range(out_h):
            h0 = h * stride_h - top
            first_h, last_h = _clip(h0, kernel_h, dx.shape[1])
            for w in range(out_w):
                w0 = w * stride_w - left
                first_w, last_w = _clip(w0, kernel_w, dx.shape[2])
                for kh in range(first_h, last_h):
                    for kw in range(first_w, last_w):
                        dx[n, h0 + kh, w0 + kw] += dy[n, h, w] * share


@jit.serial
def _span(i, windows, size):  # type: ignore[no-untyped-def]
    """Window ``i`` of so many over ``size`` pixels: ⌊i · size / windows⌋ up to ⌈(i + 1) · size / windows⌉."""
    return i * size // windows, ((i + 1) * size + windows - 1) // windows


@jit.parallel
def _adaptive_sums(x, y):  # type: ignore[no-untyped-def]
    images, out_h, out_w, channels = y.shape
    for line in prange(images * out_h):
        n, h = line // out_h, line % out_h
        first_h, last_h = _span(h, out_h, x.shape[1])
        for w in range(out_w):
            first_w, last_w = _span(w, out_w, x.shape[2])
            total = y[n, h, w]
            total[:] = 0
            for i in range(first_h, last_h):
                for j in range(first_w, last_w):
                    for c in range(channels):
                        total[c] += x[n, i, j, c]
