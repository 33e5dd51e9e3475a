"""The fast convolution: the register tile, walked over the images by the tables of ``walk.py``.

A thread takes an area (a band of rows, a strip of columns) of one image, or of one plane where images have a depth.
What its windows read is copied, with the padding around it, into a scratch that stays in the thread's L2 cache; an
image without padding is read where it lies. For each tap along the depth, each block of output channels and each chunk
of the sum, the tile then sweeps over the area, row by row.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from tinytorch.conv import walk
from tinytorch.conv.finish import PLAIN, Finish, zeros
from tinytorch.conv.pack import channels_last, empty_channels_last, lane_blocks, pixels, turned_blocks
from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.conv.weights import Weights
from tinytorch.kernels import jit, memory
from tinytorch.kernels.move import clear, copy, copy_rows
from tinytorch.kernels.tile import tile

name = "direct"


def refuses(problem: ConvProblem, direction: Direction) -> str | None:
    """Why this algorithm can't, or None; it takes every problem."""
    return None


def forward(problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Output (n, co, …) of input (n, ci, …)."""
    y = empty_channels_last(problem.output_shape, x.dtype)
    walks = walk.forward(problem, x.itemsize, jit.workers(), finish.residual is not None)
    _sweep(walks, channels_last(x), (lane_blocks, problem.groups, weights), finish, y)
    return y


def input_grad(problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Gradient of the input: the output gradient convolved with the kernel turned by 180°."""
    dx = empty_channels_last(problem.input_shape, dy.dtype)
    if walk.has_gaps(problem):
        finish.fill(dx)
    walks = walk.input_grad(problem, dy.itemsize, jit.workers(), finish.residual is not None)
    _sweep(walks, channels_last(dy), (turned_blocks, problem.groups, weights), finish, dx)
    return dx


def _sweep(walks, source, packed, finish: Finish, out) -> None:  # type: ignore[no-untyped-def]
    """Sweep each walk over ``source`` into ``out``; ``packed`` is a way to pack, groups, and the weights to pack."""
    pack, groups, weights = packed
    flat_source, flat_out = _flat(source), _flat(out)
    starts, extra, bounds = finish.starts(out.shape[1], out.dtype), finish.extra(flat_out), finish.bounds(out.dtype)
    for plan in walks:
        blocks = weights.form(pack, plan.block, groups)
        scratch = memory.scratch(jit.workers(), max(plan.scratch, 1), source.dtype)
        jit.run(_sweep_areas, flat_source, blocks, starts, extra, flat_out, scratch, plan.table, plan.sizes, bounds)


def weight_grad(problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Gradient of the weight; where threads share the images, their sums are added in order."""
    plan = walk.weight_grad(problem, dy.itemsize, jit.workers())
    make = memory.empty if problem.groups == 1 else memory.zeros  # a thread may not come by every group
    shares, *shape = plan.sums
    sums = memory.apart(shares, math.prod(shape), dy.dtype, make)
    scratch = memory.scratch(jit.workers(), plan.scratch, dy.dtype)
    nothing, bounds = zeros(plan.block, dy.dtype), PLAIN.bounds(dy.dtype)
    arrays = _flat(channels_last(x)), _flat(channels_last(dy)), sums, nothing
    jit.run(_sum_areas, *arrays, scratch, plan.table, plan.sizes, bounds)
    each = sums[:, : math.prod(shape)].reshape(shares, *shape)[..., : plan.table[0].lanes]
    total = each[0] if shares == 1 else each.sum(axis=0)
    return _weight_from(problem, total.swapaxes(-1, -2) if plan.table[0].turned else total)


def _weight_from(problem: ConvProblem, sums: np.ndarray) -> np.ndarray:
    """Bring (g, kd · kh · lines, tap rows, lanes) into the shape of the weight; the memory is lanes last."""
    _, depth, *kernel = problem.weight_shape
    lanes = problem.co // problem.groups
    by_tap = sums.reshape(problem.groups, *kernel, depth, lanes)
    joined = np.moveaxis(by_tap, 0, -2).reshape(*kernel, depth, problem.co)
    return np.moveaxis(joined, (-1, -2), (0, 1))


def _flat(array: np.ndarray) -> np.ndarray:
    """Channels-last memory as one line."""
    return pixels(array).reshape(-1)


@jit.serial
def _taps_met(t, front):  # type: ignore[no-untyped-def]
    """The taps along the depth, from the first to before the last, that meet a plane of the source; ``front`` is where
    the first tap lies.
    """
    first = max(0, -(front // t.hop_d))
    return first, min(t.taps_d, (t.source_d - front + t.hop_d - 1) // t.hop_d)


@jit.serial
def _copy_area(source, image_at, t, group, row0, col0, rows, cols, area):  # type: ignore[no-untyped-def]
    """Copy what ``rows × cols`` outputs read of one group's channels; outside the image is 0."""
    height, width = (rows - 1) * t.area_h + t.span_h, (cols - 1) * t.area_w + t.span_w
    left = t.left + col0 * t.step_w
    first = min(max(0, -(left // t.pick_w)), width)
    last = max(first, min(width, (t.source_w - left + t.pick_w - 1) // t.pick_w))
    whole = t.channels == t.source_c and t.pixel == t.channels and t.pick_w == 1  # then a row's pixels are one run
    for h in range(height):
        row = t.top + row0 * t.step_h + h * t.pick_h
        to = h * t.line
        if row < 0 or row >= t.source_h:
            clear(area, to, width * t.pixel)
            continue
        clear(area, to, first * t.pixel)
        clear(area, to + last * t.pixel, (width - last) * t.pixel)
        at = image_at + (row * t.source_w + left + first * t.pick_w) * t.source_c + group * t.channels
        to, step = to + first * t.pixel, t.pick_w * t.source_c
        if t.copy_pixels and not whole:
            copy_rows(t.copy_pixels, (source, at), step, (area, to), t.pixel, last - first, t.channels)
            continue
        runs, length = (1, (last - first) * t.channels) if whole else (last - first, t.channels)
        for run in range(runs):
            copy(area, to + run * t.pixel, source, at + run * step, length)


@jit.serial
def _rows_met(t, row):  # type: ignore[no-untyped-def]
    """The first of the taps along the height that meets a row of the source, and how many do."""
    top = t.top + row * t.step_h
    first = min(t.taps_h, max(0, -(top // t.hop_h)))
    return first, max(0, min(t.taps_h, (t.source_h - top + t.hop_h - 1) // t.hop_h) - first)


@jit.parallel
def _sweep_areas(source, weights, starts, extra, out, scratch, table, sizes, bounds):  # type: ignore[no-untyped-def]
    """Forward, and one phase of input_grad."""
    workers = scratch.shape[0]
    for thread in prange(workers):
        worker, t = np.int64(thread), table[0]
        size = sizes.copy()
        areas = t.images * t.bands * t.strips * t.groups
        for task in range(areas * t.splits * worker // workers, areas * t.splits * (worker + 1) // workers):
            split, group, strip = task // areas, task % t.groups, task // t.groups % t.strips
            band, image = task // (t.groups * t.strips) % t.bands, task % areas // (t.groups * t.strips * t.bands)
            volume, plane = image // t.planes, image % t.planes
            row0, col0 = band * t.band_rows, strip * t.strip_cols
            rows, cols = min(t.band_rows, t.rows - row0), min(t.strip_cols, t.cols - col0)
            corner = volume * t.out_image + t.out_at + plane * t.out_plane + row0 * t.out_row + col0 * t.out_col
            front = t.front + plane * t.step_d
            first_tap, last_tap = _taps_met(t, front)
            for tap in range(first_tap, max(first_tap + 1, last_tap)):
                met = tap < last_tap
                image_at = (volume * t.source_d + front + tap * t.hop_d) * t.source_h * t.source_w * t.source_c
                if t.in_place:
                    area = source
                    area_at = image_at + (t.top + row0 * t.step_h) * t.line + (t.left + col0 * t.step_w) * t.pixel
                else:
                    area, area_at = scratch[worker], 0
                    if met:
                        _copy_area(source, image_at, t, group, row0, col0, rows, cols, area)
                for b in range(t.blocks * split // t.splits, t.blocks * (split + 1) // t.splits):
                    lanes, lane = min(t.block, t.lanes - b * t.block), group * t.lanes + b * t.block
                    whole, rest = (t.whole, t.whole_rest) if b < t.blocks - 1 else (t.last, t.last_rest)
                    if b == t.blocks * split // t.splits and b < t.blocks - 1:
                        whole = t.first
                    for chunk in range(t.chunks if met else 1):
                        later, shorter = int(tap > first_tap or chunk > 0), int(chunk == t.chunks - 1)
                        last = int(tap >= last_tap - 1 and (shorter or not met))
                        form = (later + 2 * last + 4 * shorter if met else 8) * t.form
                        taps = t.first_tap + tap * t.plane_taps + chunk * t.chunk
                        weights_at = ((group * t.blocks + b) * t.block_taps + taps) * t.block
                        for row in range(rows):
                            a_at = area_at + row * t.area_h * t.line + chunk * t.chunk
                            c_at = corner + row * t.out_row + lane
                            first, count = _rows_met(t, row0 + row)  # the others would multiply padding
                            size[form + t.at_n_o] = count
                            w_at = weights_at + first * t.weight_row
                            a_at += first * t.hop_h * t.line
                            for part in range(2):  # whole tiles, then what is left of the line
                                col = cols // t.tile_rows * t.tile_rows * part
                                at = c_at + col * t.out_col
                                tile(
                                    rest if part else whole,
                                    (out, at),
                                    (out, at) if later else (starts, lane),
                                    (area, a_at + col * t.area_w * t.pixel),
                                    (weights, w_at),
                                    (extra, at),
                                    (size, form),
                                    (bounds, 2 * last),
                                    lanes,
                                    int(cols % t.tile_rows > 0) if part else cols // t.tile_rows,
                                )


@jit.parallel
def _sum_areas(source, dy, sums, zeros, scratch, table, sizes, bounds):  # type: ignore[no-untyped-def]
    """The sums of weight_grad."""
    shares = sums.shape[0]
    workers = scratch.shape[0]
    for thread in prange(workers):
        worker, t = np.int64(thread), table[0]
        units = t.images * t.bands * t.strips * t.groups
        first_unit, last_unit, first_block, last_block = 0, units, 0, t.blocks
        if shares == 1:  # each thread makes some lanes of the one sum
            first_block, last_block = t.blocks * worker // workers, t.blocks * (worker + 1) // workers
        else:  # each thread sums some of the images
            first_unit, last_unit = units * worker // shares, min(units, units * (worker + 1) // shares)
        into = sums[worker % shares]
        copied = scratch[worker]
        size = sizes.copy()
        for unit in range(first_unit, last_unit if first_block < last_block else first_unit):
            group, strip = unit % t.groups, unit // t.groups % t.strips
            band, image = unit // (t.groups * t.strips) % t.bands, unit // (t.groups * t.strips * t.bands)
            row0, col0 = band * t.band_rows, strip * t.strip_cols
            rows, cols = min(t.band_rows, t.rows - row0), min(t.strip_cols, t.cols - col0)
            started = unit >= first_unit + t.groups
            form = t.form if started else 0
            size[form + t.at_n_i] = cols
            if not t.turned:
                size[form + t.at_b_o] = cols * t.block
            for tap_d in range(t.taps_d):
                source_plane = t.front + image % t.planes * t.step_d + tap_d * t.hop_d
                met = 0 <= source_plane < t.source_d
                if started and not met:
                    continue  # before the sums are started, nothing is what they are
                size[form + t.at_n_o] = rows if met else 0
                image_at = (image // t.planes * t.source_d + source_plane) * t.source_h * t.source_w * t.source_c
                if t.in_place:
                    area = source
                    area_at = image_at + (t.top + row0 * t.step_h) * t.line + (t.left + col0 * t.step_w) * t.pixel
                else:
                    area, area_at = copied, 0
                    if met:
                        _copy_area(source, image_at, t, group, row0, col0, rows, cols, area)
                for b in range(first_block, last_block):
                    lanes = min(t.block, t.lanes - b * t.block)
                    whole, rest = (t.whole, t.whole_rest) if b < t.blocks - 1 else (t.last, t.last_rest)
                    dy_at = ((image * t.rows + row0) * t.cols + col0) * t.dy_pixel + group * t.dy_channels
                    copy_of = t.copy_rows if b < t.blocks - 1 else t.copy_last
                    for row in range(0 if t.turned else rows):
                        here, to = dy_at + b * t.block + row * t.cols * t.dy_pixel, t.copied + row * cols * t.block
                        copy_rows(copy_of, (dy, here), t.dy_pixel, (copied, to), t.block, cols, lanes)
                    for tap in range(t.kernel_h * t.lines):
                        a_at = area_at + tap // t.lines * t.hop_h + tap % t.lines * t.hop_w
                        line = (group * t.taps_d + tap_d) * t.kernel_h * t.lines + tap
                        at = line * t.line_rows * t.padded_lanes + b * t.block
                        for part in range(2):
                            r = t.line_rows // t.tile_rows * t.tile_rows * part
                            into_at = at + r * t.padded_lanes
                            tile(
                                rest if part else whole,
                                (into, into_at),
                                (zeros, 0),  # an area has a sum of its own, or later pixels would be lost in it
                                (dy, dy_at + r) if t.turned else (area, a_at + r),
                                (area, a_at + b * t.block) if t.turned else (copied, t.copied),
                                (into, into_at),
                                (size, form),
                                (bounds, 0),
                                lanes,
                                int(t.line_rows % t.tile_rows > 0) if part else t.line_rows // t.tile_rows,
                            )
