"""Few output channels in a group: a vector of pixels at a time.

The tiles of ``direct`` have output channels for lanes, and where a group has four of them, three quarters of a vector
are empty. Here the same tile has output channels for rows and pixels for lanes. To make neighbouring pixels neighbours
in memory, a band of rows is turned into planes on the way to the cache, one for every channel, with the padding around
it; what is made of them, planes too, is turned back::

    pixels × channels  →  planes of the input  →  planes of the output  →  pixels × channels

A plane is one long line: its rows follow each other, padding between them, and a tap is a shift of all of it. The sums
that the padding gets are dropped on the way back.

An input gradient is that for each stride phase, as in ``walk.py``. A forward convolution with a stride would need
pixels that are not neighbours.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numba import prange

from tinytorch.conv import walk
from tinytorch.conv.finish import PLAIN, Finish
from tinytorch.conv.pack import channels_last, empty_channels_last, pixels
from tinytorch.conv.problem import Axis, ConvProblem, Direction
from tinytorch.conv.walk import Taps, forward_taps, phase_taps, table_of, tile_of_width
from tinytorch.conv.weights import Weights
from tinytorch.kernels import emit, jit, memory
from tinytorch.kernels.move import clear, transpose
from tinytorch.kernels.target import l2_bytes, target, tile_shape
from tinytorch.kernels.tile import numbers, tile

name = "planar"

_CACHE_LINE = 64  # bytes; a bundle of groups has at least as many of a pixel's channels


def refuses(problem: ConvProblem, direction: Direction) -> str | None:
    """Why this algorithm can't, or None."""
    if problem.dims == 3:
        return "its planes have 1 or 2 dimensions, not 3"
    if direction == "weight_grad":
        return "a weight gradient sums over pixels, which are its lanes"
    if direction == "forward" and any(axis.stride != 1 for axis in problem.axes):
        return "it needs stride 1, so that outputs side by side are made of pixels side by side"
    return None


def forward(problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Output (n, co, …) of input (n, ci, …)."""
    y = empty_channels_last(problem.output_shape, x.dtype)
    return _sweep(_forward_plans(problem, x.itemsize, jit.workers()), x, weights, finish, y, has_gaps=False)


def input_grad(problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Gradient of the input: the output gradient convolved with the kernel turned by 180°."""
    dx = empty_channels_last(problem.input_shape, dy.dtype)
    plans = _input_grad_plans(problem, dy.itemsize, jit.workers())
    return _sweep(plans, dy, weights, finish, dx, walk.has_gaps(problem))


def _sweep(  # type: ignore[no-untyped-def]
    plans: tuple[_Plan, ...], source, weights: Weights, finish: Finish, out, has_gaps: bool
) -> np.ndarray:
    """Sweep each plan over ``source`` into ``out``; a residual, whose pixels lie otherwise, is added afterwards."""
    first, then = (finish, None) if finish.residual is None else (Finish(finish.bias), finish._replace(bias=None))
    if has_gaps:
        first.fill(out)
    line, out_line = pixels(channels_last(source)).reshape(-1), pixels(out).reshape(-1)
    by_channel = weights.form(_by_channel)
    for plan in plans:
        starts = np.repeat(first.starts(out.shape[1], out.dtype), plan.block)
        scratch = memory.scratch(jit.workers(), plan.scratch, out.dtype)
        arrays = line, by_channel, starts, out_line, scratch
        jit.run(_sweep_bands, *arrays, plan.table, plan.tiles, plan.sizes, first.bounds(out.dtype))
    return out if then is None else then.apply(out)


def _by_channel(weights: Weights) -> np.ndarray:
    """Weights with the taps of a pair of channels side by side: one line of (co, ci/g, …)."""
    return np.ascontiguousarray(weights.array).reshape(-1)


# ---- plans --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Plan:
    """How the work of one phase is cut.

    Parameters
    ----------
    table
        One row of named integers for the kernel.
    tiles
        Tiles for a whole block of lanes, and for as many vectors as the index says; in the second row those for the
        rest of a group's channels.
    sizes
        The numbers of the tile.
    block
        Lanes of a block.
    scratch
        Elements that one thread needs.
    """

    table: np.ndarray
    tiles: np.ndarray
    sizes: np.ndarray
    block: int
    scratch: int


@jit.planned(maxsize=1024)
def _forward_plans(problem: ConvProblem, itemsize: int, workers: int) -> tuple[_Plan, ...]:
    height, width = axes = _two(problem)
    depth = problem.ci // problem.groups
    weight = {"a_row": depth * height.kernel * width.kernel, "a_i": height.kernel * width.kernel}
    source = (*(axis.size for axis in axes), problem.ci)
    sink = (*(axis.out for axis in axes), problem.co)
    taps = forward_taps(height), forward_taps(width)
    weight |= {"a_o": width.kernel, "a_m": 1, "first_tap": 0}
    return (_plan(problem, source, sink, taps, weight, itemsize, workers),)


@jit.planned(maxsize=1024)
def _input_grad_plans(problem: ConvProblem, itemsize: int, workers: int) -> tuple[_Plan, ...]:
    """One for each stride phase; the taps run backwards."""
    height, width = axes = _two(problem)
    depth, kernel = problem.ci // problem.groups, height.kernel * width.kernel
    source = (*(axis.out for axis in axes), problem.co)
    sink = (*(axis.size for axis in axes), problem.ci)
    plans = []
    for taps in itertools.product(phase_taps(height), phase_taps(width)):
        down, across = (axis.kernel - 1 - t.tap for axis, t in zip(axes, taps, strict=True))
        weight = {"a_row": kernel, "a_i": depth * kernel, "first_tap": down * width.kernel + across}
        weight |= {"a_o": -taps[0].tap_step * width.kernel, "a_m": -taps[1].tap_step}
        plans.append(_plan(problem, source, sink, taps, weight, itemsize, workers))
    return tuple(plans)


def _two(problem: ConvProblem) -> tuple[Axis, Axis]:
    """Height and width; a line has the height 1."""
    height, width = (Axis(1, 1), *problem.axes)[-2:]
    return height, width


def _plan(  # type: ignore[no-untyped-def]
    problem: ConvProblem, source, sink, taps: tuple[Taps, Taps], weight: dict[str, int], itemsize: int, workers: int
) -> _Plan:
    rows, cols = taps
    dtype, vector = np.dtype(f"f{itemsize}"), target().lanes(itemsize)
    depth, channels = source[2] // problem.groups, sink[2] // problem.groups
    each = min(problem.groups, -(-_CACHE_LINE // (min(depth, channels) * itemsize)))
    bundles = -(-problem.groups // each)
    line = cols.count - 1 + cols.span
    row_bytes = line * each * (depth + channels) * itemsize
    band_rows = _band_rows(rows, row_bytes, problem.n * bundles, workers)
    plane, made = (band_rows - 1 + rows.span) * line, (band_rows - 1) * line + cols.count
    first, last = max(0, -cols.origin), max(0, min(line, source[1] - cols.origin))
    tile_rows, vectors = tile_shape(channels, made, itemsize)
    table = table_of(
        images=problem.n, groups=problem.groups, each=each, bundles=bundles, depth=depth, channels=channels,
        bands=-(-rows.count // band_rows), band_rows=band_rows, rows=rows.count, cols=cols.count,
        # the source, where the first tap of the first output lies in it, and the pixels of a line that are in it
        source_h=source[0], source_w=source[1], source_c=source[2], top=rows.origin, left=cols.origin,
        first=first, last=max(first, last), **_turns("in", last - first, each * depth, dtype),
        # planes of the input, and of the output behind them
        span_h=rows.span, line=line, plane=plane, made_at=each * depth * plane, made=made,
        block=vectors * vector, vector=vector, tile_rows=tile_rows,
        # the weights
        first_tap=weight.pop("first_tap"), row_weights=weight["a_row"],
        group_weights=math.prod(problem.weight_shape) // problem.groups,
        # the output
        out_at=(rows.first * sink[1] + cols.first) * sink[2], out_row=rows.stride * sink[1] * sink[2],
        out_col=cols.stride * sink[2], out_image=math.prod(sink), **_turns("out", cols.count, each * channels, dtype),
    )  # fmt: skip
    reduction = numbers(
        **weight, a_t=tile_rows * weight["a_row"], b_o=rows.hop * line, b_m=cols.hop, b_i=plane,
        c_row=made, c_t=tile_rows * made, d_row=vectors * vector, d_t=tile_rows * vectors * vector,
        n_o=rows.taps, n_m=cols.taps, n_i=depth,
    )  # fmt: skip
    tiles = [
        [tile_of_width(height, vectors, False, dtype, vector)]
        + [tile_of_width(height, v, True, dtype, vector) for v in range(1, vectors + 1)]
        for height in (tile_rows, channels % tile_rows or tile_rows)
    ]
    scratch = each * (depth * plane + channels * made)
    return _Plan(table, np.array(tiles), np.array(reduction, np.int64), vectors * vector, scratch)


def _band_rows(rows: Taps, row_bytes: int, images: int, workers: int) -> int:
    """Rows of a band: few enough for half of the cache, and enough bands for every thread."""
    fit = max(1, l2_bytes() // 2 // row_bytes - rows.span + 1)
    bands = -(-rows.count // fit)
    if images < 4 * workers:
        bands = min(rows.count, -(-bands // workers) * workers)
    return -(-rows.count // bands)


def _turns(way: str, length: int, channels: int, dtype: np.dtype) -> dict[str, int]:
    """The part of a table that tells how pixels are turned: in squares as large as lines and channels allow."""
    side = target().lanes(dtype.itemsize)
    while side > 2 and side > min(length, channels):
        side //= 2
    return {f"turn_{way}": _turn_of(side, dtype), f"side_{way}": side}


@jit.planned(maxsize=128)
def _turn_of(side: int, dtype: np.dtype) -> int:
    """`transpose_of`, for squares of any side."""
    return emit.address_of_move(0, 0, side, dtype.itemsize) if jit.compiles() else 0


# ---- running them -------------------------------------------------------------------------------------------------


@jit.serial
def _lay_out(source, t, image, group, groups, row0, height, planes):  # type: ignore[no-untyped-def]
    """Turn some groups' channels of ``height`` lines of pixels into planes; the padding beside them is there."""
    channels, count = groups * t.depth, t.last - t.first
    for h in range(height):
        row, to = t.top + row0 + h, h * t.line + t.first
        if row < 0 or row >= t.source_h:
            for channel in range(channels):
                clear(planes, channel * t.plane + to, count)
            continue
        at = ((image * t.source_h + row) * t.source_w + t.left + t.first) * t.source_c + group * t.depth
        whole = count // t.side_in * t.side_in
        transpose(t.turn_in, (source, at), t.source_c, (planes, to), t.plane, whole, channels)
        if whole < count:  # once more up to the end, in squares too
            back = max(0, count - t.side_in)
            last = (planes, to + back)
            transpose(t.turn_in, (source, at + back * t.source_c), t.source_c, last, t.plane, count - back, channels)


@jit.serial
def _lay_back(planes, t, rows, channels, out, at):  # type: ignore[no-untyped-def]
    """Turn the planes of some channels, which begin at ``made_at``, into ``rows`` lines of pixels."""
    whole = t.cols // t.side_out * t.side_out
    back = max(0, t.cols - t.side_out)
    for row in range(rows):
        start, to = t.made_at + row * t.line, at + row * t.out_row
        transpose(t.turn_out, (planes, start), t.made, (out, to), t.out_col, channels, whole)
        if whole < t.cols:
            sink = (out, to + back * t.out_col)
            transpose(t.turn_out, (planes, start + back), t.made, sink, t.out_col, channels, t.cols - back)


@jit.parallel
def _sweep_bands(source, weights, starts, out, scratch, table, tiles, sizes, bounds):  # type: ignore[no-untyped-def]
    """Forward, and one phase of input_grad."""
    workers = scratch.shape[0]
    for thread in prange(workers):
        worker, t = np.int64(thread), table[0]
        planes = scratch[worker]
        clear(planes, 0, t.made_at)
        tasks = t.images * t.bands * t.bundles
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            bundle, band, image = task % t.bundles, task // t.bundles % t.bands, task // (t.bundles * t.bands)
            group0, row0 = bundle * t.each, band * t.band_rows
            groups, rows = min(t.each, t.groups - group0), min(t.band_rows, t.rows - row0)
            _lay_out(source, t, image, group0, groups, row0, rows - 1 + t.span_h, planes)
            count = (rows - 1) * t.line + t.cols
            for group in range(groups):
                for at in range(0, count, t.block):
                    lanes = min(t.block, count - at)
                    which = 0 if lanes == t.block else (lanes + t.vector - 1) // t.vector
                    for part in range(2):  # whole tiles of the group's channels, then what is left
                        row = t.channels // t.tile_rows * t.tile_rows * part
                        channel = group * t.channels + row
                        sums = (planes, t.made_at + channel * t.made + at)
                        tile(
                            tiles[part, which],
                            sums,
                            (starts, (group0 * t.channels + channel) * t.block),
                            (weights, (group0 + group) * t.group_weights + t.first_tap + row * t.row_weights),
                            (planes, group * t.depth * t.plane + at),
                            sums,
                            (sizes, 0),
                            (bounds, 2),
                            lanes,
                            int(t.channels % t.tile_rows > 0) if part else t.channels // t.tile_rows,
                        )
            corner = image * t.out_image + t.out_at + row0 * t.out_row + group0 * t.channels
            _lay_back(planes, t, rows, groups * t.channels, out, corner)
