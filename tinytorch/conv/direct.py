"""The fast convolution: the register tile, walked over the images by the tables of ``walk.py``.

A thread takes a band of rows of one image, copies what its windows read, with the padding around it, into a scratch
that stays in its L2 cache, and sweeps the tile over it: for each block of output channels, row by row, a tile of
pixels at a time. An image without padding is read where it lies. Nothing is blocked further: weights stream from L2,
sums live in registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import prange

from tinytorch.conv import walk
from tinytorch.conv.pack import channels_last, empty_channels_last, lane_blocks, pixels, taps_in_line, turned_blocks
from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.kernels import jit, memory
from tinytorch.kernels.emit import DIGEST
from tinytorch.kernels.target import target
from tinytorch.kernels.tile import tile

name = "direct"


def refuses(problem: ConvProblem, direction: Direction) -> str | None:
    """Why this algorithm can't, or None."""
    if problem.dims == 3:
        return "the stride tables cover 1 and 2 spatial dimensions, not 3"
    return None


def forward(problem: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Output (n, co, …) of input (n, ci, …) and weight (co, ci/g, …)."""
    y = empty_channels_last(problem.output_shape, x.dtype)
    walks = walk.forward(problem, x.itemsize, jit.workers())
    by_tap = taps_in_line(weight)
    start = None if bias is None else np.ascontiguousarray(bias)[None, None]
    _sweep(problem.groups, walks, channels_last(x), (lane_blocks, by_tap), start, y)
    return y


def input_grad(problem: ConvProblem, dy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Gradient of the input: the output gradient convolved with the kernel turned by 180°."""
    dx = empty_channels_last(problem.input_shape, dy.dtype)
    walks = walk.input_grad(problem, dy.itemsize, jit.workers())
    by_tap = taps_in_line(weight)
    _sweep(problem.groups, walks, channels_last(dy), (turned_blocks, by_tap), None, dx)
    return dx


def weight_grad(problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Gradient of the weight; where threads share the images, their sums are added in order."""
    plan = walk.weight_grad(problem, dy.itemsize, jit.workers())
    sums = memory.zeros(plan.sums, dy.dtype)
    scratch = memory.empty((jit.workers(), plan.scratch), dy.dtype)
    kernel = gradient_kernel(plan.rows, plan.vectors, plan.masked, target().lanes(dy.itemsize))
    jit.run(kernel, _flat(channels_last(x)), _flat(channels_last(dy)), sums, scratch, plan.table)
    return _weight_from(problem, sums[0] if len(sums) == 1 else sums.sum(axis=0))


def _weight_from(problem: ConvProblem, sums: np.ndarray) -> np.ndarray:
    """Cut the filling off (g, kh · lines, tap rows, lanes); the shape is that of the weight, the memory lanes last."""
    _, depth, *kernel = problem.weight_shape
    lanes = problem.co // problem.groups
    line_rows = math.prod(kernel) * depth // sums.shape[1]
    by_tap = sums[:, :, :line_rows, :lanes].reshape(problem.groups, *kernel, depth, lanes)
    joined = np.moveaxis(by_tap, 0, -2).reshape(*kernel, depth, problem.co)
    return np.moveaxis(joined, (-1, -2), (0, 1))


def _sweep(
    groups: int,
    walks: tuple[walk.Walk, ...],
    source: np.ndarray,
    weight: tuple[Callable[[np.ndarray, int, int], np.ndarray], np.ndarray],
    start: np.ndarray | None,
    out: np.ndarray,
) -> None:
    """Sweep each walk over ``source`` into ``out``; ``weight`` is a way to pack, and what to pack."""
    pack, by_tap = weight
    width = target().lanes(source.itemsize)
    packed: dict[int, np.ndarray] = {}
    for plan in walks:
        block = plan.vectors * width
        if block not in packed:
            packed[block] = pack(by_tap, block, groups)
        starts = np.zeros(plan.sums, source.dtype) if start is None else lane_blocks(start, block, groups)
        scratch = memory.empty((jit.workers(), max(plan.scratch, 1)), source.dtype)
        kernel = sweep_kernel(plan.rows, plan.vectors, plan.masked, width)
        jit.run(kernel, _flat(source), packed[block], starts, _flat(out), scratch, plan.table)


def _flat(array: np.ndarray) -> np.ndarray:
    """Channels-last memory as one line."""
    return pixels(array).reshape(-1)


@jit.serial
def _copy_window(source, image_at, t, group, row, window_h, scratch):  # type: ignore[no-untyped-def]
    """Copy ``window_h`` rows of one group's channels, from source row ``row`` on; outside the image is 0.

    Loops, not slices: what NumPy's slice assignment may have to say about shapes takes seconds to compile.
    """
    line = t.window_w * t.channels
    first = min(max(0, -t.left), t.window_w)
    last = max(first, min(t.window_w, t.source_w - t.left))
    for h in range(window_h):
        to = h * line
        if row + h < 0 or row + h >= t.source_h:
            _clear(scratch, to, to + line)
            continue
        _clear(scratch, to, to + first * t.channels)
        _clear(scratch, to + last * t.channels, to + line)
        at = image_at + ((row + h) * t.source_w + t.left + first) * t.source_c + group * t.channels
        whole = t.channels == t.source_c  # then the pixels of a row are one run
        runs, length = (1, (last - first) * t.channels) if whole else (last - first, t.channels)
        for run in range(runs):
            here, there = to + first * t.channels + run * length, at + run * t.source_c
            for i in range(length):
                scratch[here + i] = source[there + i]


@jit.serial
def _clear(line, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        line[i] = 0


@cache
def sweep_kernel(tile_rows: int, vectors: int, masked: int, width: int) -> Callable[..., Any]:
    """The compiled loops around one tile size, for forward and input_grad."""
    block = vectors * width
    digest = DIGEST

    @jit.parallel
    def sweep(source, weights, starts, out, scratch, table):  # type: ignore[no-untyped-def]
        digest  # noqa: B018  the emitter's fingerprint, part of the cache key
        tasks = table[0].images * table[0].bands * table[0].groups * table[0].splits
        workers = scratch.shape[0]
        for worker in prange(workers):
            t = table[0]
            for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
                split, group = task % t.splits, task // t.splits % t.groups
                band, image = task // (t.splits * t.groups) % t.bands, task // (t.splits * t.groups * t.bands)
                row0 = band * t.band_rows
                band_rows = min(t.band_rows, t.rows - row0)
                top = t.top + row0 * t.step_h
                image_at = image * t.source_h * t.source_w * t.source_c
                if t.in_place:
                    area, line = source, t.source_w * t.source_c
                    area_at = image_at + top * line + t.left * t.source_c
                else:
                    area, line, area_at = scratch[worker], t.window_w * t.channels, 0
                    window_h = (band_rows - 1) * t.step_h + max(t.n_o - 1, 0) * t.hop_h + 1
                    _copy_window(source, image_at, t, group, top, window_h, area)
                for b in range(t.blocks * split // t.splits, t.blocks * (split + 1) // t.splits):
                    weights_at = ((group * t.blocks + b) * t.block_taps + t.first_tap) * block
                    lanes = min(block, t.lanes - b * block)
                    for row in range(band_rows):
                        for edge in range(0, t.cols, tile_rows):
                            col = min(edge, t.cols - tile_rows)  # the last tile overlaps its neighbour
                            out_at = image * t.out_image + t.out_at + (row0 + row) * t.out_row + col * t.out_col
                            tile(
                                tile_rows, vectors, masked, width,
                                (out, out_at + group * t.lanes + b * block, t.out_col),
                                (starts, (group * t.blocks + b) * block, 0),
                                (area, area_at + row * t.step_h * line + col * t.step_w * t.channels,
                                 t.step_w * t.channels, t.hop_h * line, t.a_m, 1),
                                (weights, weights_at, t.tap_o * block, t.tap_m * block, block),
                                (t.n_o, t.n_m, t.n_i), lanes,
                            )  # fmt: skip

    return sweep


@cache
def gradient_kernel(tile_rows: int, vectors: int, masked: int, width: int) -> Callable[..., Any]:
    """The compiled loops around one tile size, for weight_grad."""
    block = vectors * width
    digest = DIGEST

    @jit.parallel
    def gradient(source, dy, sums, scratch, table):  # type: ignore[no-untyped-def]
        digest  # noqa: B018  the emitter's fingerprint, part of the cache key
        units = table[0].images * table[0].bands * table[0].groups
        shares = sums.shape[0]
        workers = scratch.shape[0]
        for worker in prange(workers):
            t = table[0]
            line, dy_pixel = (t.source_w if t.in_place else t.window_w) * t.channels, t.groups * t.lanes
            first_unit, last_unit, first_block, last_block = 0, units, 0, t.blocks
            if shares == 1:  # each thread makes some lanes of the one sum
                first_block, last_block = t.blocks * worker // workers, t.blocks * (worker + 1) // workers
            else:  # each thread sums some of the images
                first_unit, last_unit = units * worker // workers, units * (worker + 1) // workers
            into = sums[worker % shares].reshape(-1)
            for task in range(first_unit, last_unit if first_block < last_block else first_unit):
                group, band, image = task % t.groups, task // t.groups % t.bands, task // (t.groups * t.bands)
                row0 = band * t.band_rows
                band_rows = min(t.band_rows, t.rows - row0)
                window_h = (band_rows - 1) * t.step_h + (t.kernel_h - 1) * t.hop_h + 1
                image_at = image * t.source_h * t.source_w * t.source_c
                if t.in_place:
                    area, origin = source, image_at + (t.top + row0 * t.step_h) * line + t.left * t.channels
                else:
                    area, origin = scratch[worker], 0
                    _copy_window(source, image_at, t, group, t.top + row0 * t.step_h, window_h, area)
                dy_at = (image * t.rows + row0) * t.cols * dy_pixel + group * t.lanes
                for b in range(first_block, last_block):
                    for tap in range(t.kernel_h * t.lines):
                        kernel_row, kernel_line = tap // t.lines, tap % t.lines
                        area_at = origin + kernel_row * t.hop_h * line + kernel_line * t.hop_w * t.channels
                        for r in range(0, t.padded_rows, tile_rows):
                            into_at = (
                                (group * t.kernel_h * t.lines + tap) * t.padded_rows + r
                            ) * t.padded_lanes + b * block
                            tile(
                                tile_rows, vectors, masked, width,
                                (into, into_at, t.padded_lanes),
                                (into, into_at, t.padded_lanes),
                                (area, area_at + r, 1, t.step_h * line, 0, t.step_w * t.channels),
                                (dy, dy_at + b * block, t.cols * dy_pixel, 0, dy_pixel),
                                (band_rows, 1, t.cols), min(block, t.lanes - b * block),
                            )  # fmt: skip

    return gradient
