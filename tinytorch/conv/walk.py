"""The stride tables: how each direction of a convolution walks its arrays with one and the same tile.

==============  ==============================  ==============  ===========  ============
direction       row r of the tile               lanes v         outer o      inner m, i
==============  ==============================  ==============  ===========  ============
forward         output pixel                    out channels    kh           kw, ci
input_grad      input pixel of a stride phase   in channels     kh           kw, co
weight_grad     kw·ci tap                       out channels    out rows     out columns
==============  ==============================  ==============  ===========  ============

``input_grad`` is a forward convolution of the output gradient with the kernel turned by 180°. With stride s it falls
into s phases per axis: the input pixels at distance s from each other that meet the same taps of the kernel; each
phase is a stride-1 convolution of its own. So one table, serves both.

V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, sections 4.5 and 4.6, draws these
phases.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tinytorch.conv.problem import Axis, ConvProblem
from tinytorch.kernels.target import target, tile_shape

# One thread's padded copy of an image band: half of a small L2 cache leaves room for the weights.
SCRATCH_BYTES = 192 << 10


@dataclass(frozen=True, eq=False)
class Walk:
    """A table and the tile it was made for.

    Parameters
    ----------
    table
        One row of named integers, which the kernel reads as ``t.name``. Sizes and strides count elements unless their
        comment says otherwise.
    rows, vectors
        Register tile.
    masked
        Whether the last lanes of a block may be missing.
    scratch
        Elements that one thread needs for its padded copy of the source; 0 if it reads the source in place.
    sums
        Shape of what the sums start from (a sweep: one number for each output lane) or end in (a weight gradient:
        shares, groups, kernel rows · lines, tap rows, lanes); blocks filled up.
    """

    table: np.ndarray
    rows: int
    vectors: int
    masked: int
    scratch: int
    sums: tuple[int, ...]


@dataclass(frozen=True)
class _Taps:
    """The taps of one axis that meet one phase of the pixels, and the pixels they meet.

    Output number t of the phase lies at ``first + t · stride``; its tap number j reads source pixel ``origin + t ·
    step + j · hop`` and weight tap ``tap + j · tap_step``.
    """

    count: int
    first: int
    stride: int
    origin: int
    step: int
    hop: int
    taps: int
    tap: int
    tap_step: int


def _forward_taps(axis: Axis) -> _Taps:
    return _Taps(axis.out, 0, 1, -axis.before, axis.stride, axis.dilation, axis.kernel, 0, 1)


def _phase_taps(axis: Axis) -> list[_Taps]:
    """One ``_Taps`` per stride phase of the input pixels, for a weight whose taps are in reverse order."""
    return [_phase(axis, first) for first in range(min(axis.stride, axis.size))]


def _phase(axis: Axis, first: int) -> _Taps:
    """The phase first, first + stride, …: a pixel meets tap k in window (pixel + before − k · dilation) / stride.

    Only the taps for which that is a whole number belong to the phase.
    """
    place = first + axis.before
    taps = [k for k in range(axis.kernel) if (place - k * axis.dilation) % axis.stride == 0]
    count = -(-(axis.size - first) // axis.stride)
    if not taps:
        return _Taps(count, first, axis.stride, 0, 1, 1, 0, 0, 1)
    tap_step = taps[1] - taps[0] if len(taps) > 1 else 1
    origin = (place - taps[-1] * axis.dilation) // axis.stride
    hop = tap_step * axis.dilation // axis.stride if len(taps) > 1 else 1
    return _Taps(count, first, axis.stride, origin, 1, hop, len(taps), axis.kernel - 1 - taps[-1], tap_step)


@lru_cache(maxsize=1024)
def forward(problem: ConvProblem, itemsize: int, workers: int) -> tuple[Walk, ...]:
    """The one sweep of a forward convolution."""
    problem = _joined(problem, workers)
    height, width = problem.axes
    source = (height.size, width.size, problem.ci)
    sink = (width.out * problem.co, problem.co, height.out * width.out * problem.co)
    return (_sweep(problem, source, sink, _forward_taps(height), _forward_taps(width), itemsize, workers),)


@lru_cache(maxsize=1024)
def input_grad(problem: ConvProblem, itemsize: int, workers: int) -> tuple[Walk, ...]:
    """One sweep for each stride phase of the input."""
    problem = _joined(problem, workers)
    height, width = problem.axes
    source = (height.out, width.out, problem.co)
    sink = (width.size * problem.ci, problem.ci, height.size * width.size * problem.ci)
    turned = replace(problem, ci=problem.co, co=problem.ci)
    phases = itertools.product(_phase_taps(height), _phase_taps(width))
    return tuple(_sweep(turned, source, sink, rows, cols, itemsize, workers) for rows, cols in phases)


def _joined(problem: ConvProblem, workers: int) -> ConvProblem:
    """The same work in two dimensions, and where windows are single pixels, in one line of all the batch's pixels.

    The line is cut for the threads. It fills the tiles of small images, and turns a linear layer, whose images are
    one pixel large, into a matrix product.
    """
    height, width = (Axis(1, 1), *problem.axes)[-2:]
    pixels = height.size * width.size
    if any(axis != Axis(axis.size, 1) for axis in (height, width)) or (pixels >= 64 and problem.n >= workers):
        return replace(problem, axes=(height, width))
    lines = math.gcd(problem.n * pixels, workers)
    return replace(problem, n=lines, axes=(Axis(1, 1), Axis(problem.n * pixels // lines, 1)))


def _sweep(problem, source, sink, rows: _Taps, cols: _Taps, itemsize: int, workers: int) -> Walk:  # type: ignore[no-untyped-def]
    """Fill one row of the ``SWEEP`` table; ``problem.ci`` channels are read and ``problem.co`` written."""
    source_h, source_w, source_c = source
    out_line, out_pixel, out_image = sink
    channels, lanes = problem.ci // problem.groups, problem.co // problem.groups
    tile_rows, vectors = tile_shape(cols.count, lanes, itemsize)
    block = vectors * target().lanes(itemsize)
    window_w = (cols.count - 1) * cols.step + max(cols.taps - 1, 0) * cols.hop + 1
    in_place = problem.groups == 1 and _inside(rows, source_h) and _inside(cols, source_w)
    bands = _bands(problem.n, rows.count, 0 if in_place else rows.step * window_w * channels * itemsize, workers)
    band_rows = -(-rows.count // bands)
    kernel_w = problem.axes[-1].kernel
    whole_lines = cols.hop == 1 and cols.tap_step == 1
    blocks = -(-lanes // block)
    enough = problem.n * bands * problem.groups >= workers
    table = _table(
        # the work: bands of rows of an image, and shares of the blocks of lanes
        images=problem.n,
        groups=problem.groups,
        bands=-(-rows.count // band_rows),
        band_rows=band_rows,
        splits=1 if enough else min(workers, blocks),
        rows=rows.count,
        cols=cols.count,
        lanes=lanes,
        blocks=blocks,
        # the source image, and its window: the first pixel, and pixels from one output, and one tap, to the next
        source_h=source_h,
        source_w=source_w,
        source_c=source_c,
        channels=channels,
        top=rows.origin,
        left=cols.origin,
        step_h=rows.step,
        step_w=cols.step,
        hop_h=rows.hop,
        hop_w=cols.hop,
        window_w=window_w,
        in_place=in_place,
        # the reduction; taps whose channels follow each other in memory are one run
        n_o=rows.taps,
        n_m=1 if whole_lines else cols.taps,
        n_i=cols.taps * channels if whole_lines else channels,
        a_m=cols.hop * channels,
        # the weights, in rows of lanes: the first tap, from tap to tap, and a whole block
        first_tap=(rows.tap * kernel_w + cols.tap) * channels,
        tap_o=rows.tap_step * kernel_w * channels,
        tap_m=cols.tap_step * channels,
        block_taps=math.prod(axis.kernel for axis in problem.axes) * channels,
        # the output
        out_at=rows.first * out_line + cols.first * out_pixel,
        out_row=rows.stride * out_line,
        out_col=cols.stride * out_pixel,
        out_image=out_image,
    )
    window_h = (band_rows - 1) * rows.step + max(rows.taps - 1, 0) * rows.hop + 1
    return Walk(
        table, tile_rows, vectors, int(lanes % block > 0), 0 if in_place else window_h * window_w * channels,
        (problem.groups * blocks * block,),
    )  # fmt: skip


def _table(**fields: int) -> np.ndarray:
    return np.rec.array([tuple(fields.values())], dtype=[(name, np.int64) for name in fields])


def _inside(taps: _Taps, size: int) -> bool:
    """Whether every pixel that the taps read exists."""
    last = taps.origin + (taps.count - 1) * taps.step + (taps.taps - 1) * taps.hop
    return taps.origin >= 0 and last < size


def _bands(images: int, rows: int, row_bytes: int, workers: int) -> int:
    """Bands of rows that an image is cut into: small enough for the cache, and enough of them for every thread."""
    bands = max(1, -(-rows * row_bytes // SCRATCH_BYTES))
    if images < 4 * workers:
        bands = -(-bands // workers) * workers
    return min(bands, rows)


@lru_cache(maxsize=1024)
def weight_grad(problem: ConvProblem, itemsize: int, workers: int) -> Walk:
    """The table of a weight gradient: every image adds to sums over (kh, kw·ci, co)."""
    problem = _joined(problem, workers)
    height, width = problem.axes
    channels, lanes = problem.ci // problem.groups, problem.co // problem.groups
    lines, line_rows = (1, width.kernel * channels) if width.dilation == 1 else (width.kernel, channels)
    tile_rows, vectors = tile_shape(line_rows, lanes, itemsize)
    block = vectors * target().lanes(itemsize)
    window_w = (width.out - 1) * width.stride + width.extent
    bands = _bands(problem.n, height.out, height.stride * window_w * channels * itemsize, workers)
    band_rows = -(-height.out // bands)
    blocks = -(-lanes // block)
    inside = all(_inside(_forward_taps(axis), axis.size) for axis in problem.axes)
    # A last tile that is not full reads past its rows, which only the scratch has room for.
    in_place = inside and problem.groups == 1 and line_rows % tile_rows == 0
    padded_rows, padded_lanes = -(-line_rows // tile_rows) * tile_rows, blocks * block
    shares = workers if problem.n * bands * problem.groups >= workers or blocks < workers else 1
    table = _table(
        images=problem.n,
        groups=problem.groups,
        bands=-(-height.out // band_rows),
        band_rows=band_rows,
        rows=height.out,
        cols=width.out,
        lanes=lanes,
        blocks=blocks,
        source_h=height.size,
        source_w=width.size,
        source_c=problem.ci,
        channels=channels,
        top=-height.before,
        left=-width.before,
        step_h=height.stride,
        step_w=width.stride,
        hop_h=height.dilation,
        hop_w=width.dilation,
        window_w=window_w,
        in_place=in_place,
        # the sums: kernel rows, and in each the lines of taps whose channels follow each other in memory
        kernel_h=height.kernel,
        lines=lines,
        line_rows=line_rows,
        padded_rows=padded_rows,
        padded_lanes=padded_lanes,
    )
    window_h = (band_rows - 1) * height.stride + height.extent
    return Walk(
        table, tile_rows, vectors, int(lanes % block > 0), window_h * window_w * channels + tile_rows,
        (shares, problem.groups, height.kernel * lines, padded_rows, padded_lanes),
    )  # fmt: skip
