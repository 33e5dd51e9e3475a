"""The stride tables: how each direction of a convolution walks its arrays with one and the same tile.

==============  ==============================  ==============  ===========  ============
direction       row r of the tile               lanes v         outer o      inner m, i
==============  ==============================  ==============  ===========  ============
forward         output pixel                    out channels    kh           kw, ci
input_grad      input pixel of a stride phase   in channels     kh           kw, co
weight_grad     kw·ci tap                       out channels    out rows     out columns
==============  ==============================  ==============  ===========  ============

Where output channels are few and taps are many, rows and lanes of ``weight_grad`` change places.

``input_grad`` is a forward convolution of the output gradient with the kernel turned by 180°. With stride s it falls
into s phases per axis: the input pixels at distance s from each other that meet the same taps of the kernel; each
phase is a stride-1 convolution of its own. So one table, serves both.

An image with three dimensions is many planes. Each plane of the output is the sum of two-dimensional convolutions, one
for every tap along the depth that meets a plane of the input; from the second on they go on from what the output holds.

V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, sections 4.5 and 4.6, draws these
phases.

The work is cut so that what is read again and again stays in the second-level cache: the image into bands of rows and
strips of columns (an *area*), the output channels into blocks, the sum over input channels into chunks.
K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008, section 4.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from tinytorch.conv.problem import Axis, ConvProblem
from tinytorch.kernels import emit, jit
from tinytorch.kernels.move import copy_rows_of, copy_short_rows_of
from tinytorch.kernels.target import cover, l2_bytes, target, tile_shape
from tinytorch.kernels.tile import NUMBERS, numbers, tile_of

# Pixels that a weight gradient sums over before it moves on: two of its vectors for each fill a first-level cache.
_SUMMED_PIXELS = 256


@dataclass(frozen=True, eq=False)
class Walk:
    """A table, and the numbers of its tiles.

    Parameters
    ----------
    table
        One row of named integers, which the kernel reads as ``t.name``. Sizes and strides count elements unless their
        comment says otherwise.
    sizes
        The numbers of the tile for every place in the sum (see ``_forms``), in one line.
    block
        Lanes of a block of weights.
    scratch
        Elements that one thread needs for its copies.
    sums
        Of a weight gradient: shares, groups, kernel planes · rows · lines, tap rows, lanes; blocks filled up.
    """

    table: np.ndarray
    sizes: np.ndarray
    block: int
    scratch: int
    sums: tuple[int, ...] = ()


@dataclass(frozen=True)
class Taps:
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

    @property
    def span(self) -> int:
        """Source pixels from the first tap to the last, both counted."""
        return (self.taps - 1) * self.hop + 1

    def inside(self, size: int) -> bool:
        """Whether every pixel that the taps read exists."""
        return self.origin >= 0 and self.origin + (self.count - 1) * self.step + self.span <= size


def forward_taps(axis: Axis) -> Taps:
    """All taps, and the pixels of every window."""
    return Taps(axis.out, 0, 1, -axis.before, axis.stride, axis.dilation, axis.kernel, 0, 1)


def phase_taps(axis: Axis) -> list[Taps]:
    """One ``Taps`` per stride phase of the input that meets taps, for a weight whose taps are in reverse order."""
    firsts = sorted({(tap * axis.dilation - axis.before) % axis.stride for tap in range(axis.kernel)})
    return [_phase(axis, first) for first in firsts if first < axis.size]


def _phase(axis: Axis, first: int) -> Taps:
    """The phase first, first + stride, …: a pixel meets tap k in window (pixel + before − k · dilation) / stride.

    Only the taps for which that is a whole number belong to the phase.
    """
    place = first + axis.before
    taps = [k for k in range(axis.kernel) if (place - k * axis.dilation) % axis.stride == 0]
    count = -(-(axis.size - first) // axis.stride)
    tap_step = taps[1] - taps[0] if len(taps) > 1 else 1
    origin = (place - taps[-1] * axis.dilation) // axis.stride
    hop = tap_step * axis.dilation // axis.stride if len(taps) > 1 else 1
    return Taps(count, first, axis.stride, origin, 1, hop, len(taps), axis.kernel - 1 - taps[-1], tap_step)


@jit.planned(maxsize=1024)
def forward(problem: ConvProblem, itemsize: int, workers: int, adds: bool = False) -> tuple[Walk, ...]:
    """The one sweep of a forward convolution; ``adds`` tells whether a residual is added."""
    problem = joined(problem)
    source = (*(axis.size for axis in problem.axes), problem.ci)
    sink = (*(axis.out for axis in problem.axes), problem.co)
    taps = tuple(map(forward_taps, problem.axes))
    return (_sweep(problem, source, sink, taps, itemsize, workers, adds),)


@jit.planned(maxsize=1024)
def input_grad(problem: ConvProblem, itemsize: int, workers: int, adds: bool = False) -> tuple[Walk, ...]:
    """One sweep for each stride phase of the input that meets a tap."""
    problem = joined(problem)
    source = (*(axis.out for axis in problem.axes), problem.co)
    sink = (*(axis.size for axis in problem.axes), problem.ci)
    turned = replace(problem, ci=problem.co, co=problem.ci)
    phases = itertools.product(*map(phase_taps, problem.axes))
    return tuple(_sweep(turned, source, sink, taps, itemsize, workers, adds) for taps in phases)


@lru_cache(maxsize=1024)
def has_gaps(problem: ConvProblem) -> bool:
    """Whether pixels of the input are in no window: phases that meet no tap, as where strides are beyond the kernel."""
    return any(len(phase_taps(axis)) < min(axis.stride, axis.size) for axis in problem.axes)


def joined(problem: ConvProblem) -> ConvProblem:
    """The same work in three dimensions, and where windows are single pixels, in one line of all the batch's pixels.

    The line fills the tiles of small images, and turns a linear layer, whose images are one pixel large, into a
    matrix product. Windows that are single pixels but for the depth leave a line for every plane.
    """
    one = Axis(1, 1)
    depth, height, width = (one, one, *problem.axes)[-3:]
    if any(axis != Axis(axis.size, 1) for axis in (height, width)):
        return replace(problem, axes=(depth, height, width))
    if depth != Axis(depth.size, 1):
        return replace(problem, axes=(depth, one, Axis(height.size * width.size, 1)))
    return replace(problem, n=1, axes=(one, one, Axis(problem.n * depth.size * height.size * width.size, 1)))


# ---- areas --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Area:
    """How the pixels that a band of rows and a strip of columns reads lie in memory: in the source, or in a copy.

    A copy has its padding around it, and only pixels that are read; where channels are so many that the pixels of a
    tile would meet in the same lines of the cache, it also has a gap after every pixel.
    """

    rows: Taps
    cols: Taps
    source: tuple[int, int, int]
    channels: int
    in_place: bool
    band_rows: int
    strip_cols: int
    pixel: int

    def window(self, taps: Taps, outputs: int) -> tuple[int, int]:
        """Pixels that ``outputs`` outputs in a row read of a copy, and from one output to the next."""
        step = 1 if self.picks(taps) > 1 else taps.step
        return (outputs - 1) * step + taps.span, step

    def picks(self, taps: Taps) -> int:
        """Source pixels from one pixel of the copy to the next: single taps read every stride-th only."""
        return taps.step if taps.taps <= 1 and not self.in_place else 1

    @property
    def line(self) -> int:
        """Elements of a row."""
        return self.source[1] * self.pixel if self.in_place else self.window(self.cols, self.strip_cols)[0] * self.pixel

    @property
    def scratch(self) -> int:
        """Elements of a copy."""
        return 0 if self.in_place else self.window(self.rows, self.band_rows)[0] * self.line

    def fields(self, itemsize: int) -> dict[str, int]:
        """The area's part of a table."""
        source_h, source_w, source_c = self.source
        return {
            # the source image, and the pixel at the first tap of the first output
            "source_h": source_h, "source_w": source_w, "source_c": source_c, "channels": self.channels,
            "top": self.rows.origin, "left": self.cols.origin,
            # source pixels: from one output to the next, and from one pixel of the copy to the next
            "step_h": self.rows.step, "step_w": self.cols.step,
            "pick_h": self.picks(self.rows), "pick_w": self.picks(self.cols),
            # the area: pixels from one output to the next and from the first tap to the last, elements of a pixel
            "in_place": int(self.in_place), "pixel": self.pixel, "line": self.line,
            "area_h": self.window(self.rows, 1)[1], "area_w": self.window(self.cols, 1)[1],
            "span_h": self.rows.span, "span_w": self.cols.span,
            # how pixels are copied, where they are short
            "copy_pixels": copy_short_rows_of(self.channels, np.dtype(f"f{itemsize}")),
        }  # fmt: skip


# Bytes; pixels at a multiple of it share a few lines of a first-level cache: too few for the rows of a tile, and sooner
# for the many pixels that a weight gradient sums over.
_ALIAS, _ALIAS_OF_SUMS = 4096, 2048


def _area(  # type: ignore[no-untyped-def]
    problem: ConvProblem,
    source,
    rows: Taps,
    cols: Taps,
    tile_rows: int,
    budget: int,
    itemsize: int,
    workers: int,
    too_regular: int = _ALIAS,
) -> _Area:
    """Cut an image into bands and strips that are at most ``budget`` bytes large, and enough for every thread."""
    channels = problem.ci // problem.groups
    alias = (cols.step * source[2] * itemsize) % too_regular == 0 and problem.co // problem.groups > 32
    in_place = problem.groups == 1 and rows.inside(source[0]) and cols.inside(source[1]) and not alias
    pixel = source[2] if in_place else channels + (16 if channels * itemsize % too_regular == 0 else 0)
    whole = _Area(rows, cols, source, channels, in_place, rows.count, cols.count, pixel)
    row_bytes = whole.window(cols, cols.count)[0] * pixel * itemsize * whole.window(rows, 1)[1]
    if problem.groups > 1:  # which read the same lines of the cache in turn: all channels should stay there, in half
        row_bytes = max(row_bytes, source[1] * source[2] * itemsize * rows.step // 2)
    bands = _bands(problem.n, rows.count, row_bytes, budget, workers)
    tiles = -(-cols.count // tile_rows)
    strips = 1 if bands < rows.count else _bands(problem.n * rows.count, tiles, row_bytes // tiles, budget, workers)
    return replace(whole, band_rows=-(-rows.count // bands), strip_cols=-(-tiles // strips) * tile_rows)


def _bands(images: int, pieces: int, piece_bytes: int, budget: int, workers: int) -> int:
    """Parts that ``pieces`` are cut into: small enough for the cache, and enough of them for every thread."""
    bands = max(1, -(-pieces * piece_bytes // budget))
    if images < 4 * workers:
        bands = -(-bands // workers) * workers
    return min(bands, pieces)


# ---- forward and input_grad ---------------------------------------------------------------------------------------


def _sweep(  # type: ignore[no-untyped-def]
    problem: ConvProblem, source, sink, taps: tuple[Taps, ...], itemsize: int, workers: int, adds: bool
) -> Walk:
    """Fill one sweep; ``problem.ci`` channels are read and ``problem.co`` written."""
    planes, rows, cols = taps
    problem, source_d, source = replace(problem, n=problem.n * planes.count), source[0], source[1:]
    out_image, out_plane, out_line, out_pixel = (math.prod(sink[axis:]) for axis in range(4))
    channels, lanes = problem.ci // problem.groups, problem.co // problem.groups
    # Where the weights are larger than the images, threads that share the weights read less than threads that share the
    # images, and each reads its weights once.
    by_lanes = math.prod(problem.weight_shape) > problem.n * math.prod(source)
    tile_rows, vectors, width = shape_of_tiles(cols.count, lanes, itemsize, workers if by_lanes else 1)
    block = vectors * width
    blocks = -(-lanes // block)
    area = _area(problem, source, rows, cols, tile_rows, l2_bytes() // 4, itemsize, 1 if by_lanes else workers)
    bands, strips = -(-rows.count // area.band_rows), -(-cols.count // area.strip_cols)
    whole_lines = cols.hop == 1 and cols.tap_step == 1 and area.pixel == channels
    n_m, n_i = (1, cols.taps * channels) if whole_lines else (cols.taps, channels)
    chunk = _chunk(n_i, rows.taps * n_m * block * itemsize)
    ahead = area.in_place and rows.taps == cols.taps == cols.step == 1 and chunk >= n_i
    _, kernel_h, kernel_w = (axis.kernel for axis in problem.axes)
    tap_o, tap_m = rows.tap_step * kernel_w * channels, cols.tap_step * channels
    a_row = area.window(cols, 1)[1] * area.pixel
    reduction = {
        "a_row": a_row, "a_o": rows.hop * area.line, "a_m": cols.hop * area.pixel, "a_i": 1, "a_t": tile_rows * a_row,
        "b_o": tap_o * block, "b_m": tap_m * block, "b_i": block, "c_t": tile_rows * cols.stride * out_pixel,
        "f_i": tile_rows, "n_o": rows.taps, "n_m": n_m,
    }  # fmt: skip
    table = table_of(
        # the work: bands, strips and groups of the planes of images, and shares of the blocks of lanes
        images=problem.n,
        **_depth(planes, source_d),
        groups=problem.groups,
        bands=bands,
        band_rows=area.band_rows,
        strips=strips,
        strip_cols=area.strip_cols,
        splits=min(workers, blocks) if by_lanes or problem.n * bands * strips * problem.groups < workers else 1,
        rows=rows.count,
        cols=cols.count,
        lanes=lanes,
        block=block,
        blocks=blocks,
        **area.fields(itemsize),
        **_tiles(tile_rows, cols.count, (vectors, width), lanes, itemsize, ahead),
        # the weights, in rows of a block's lanes: the first tap, from one along the depth to the next, and all taps
        first_tap=((planes.tap * kernel_h + rows.tap) * kernel_w + cols.tap) * channels,
        plane_taps=planes.tap_step * kernel_h * kernel_w * channels,
        block_taps=math.prod(axis.kernel for axis in problem.axes) * channels,
        chunk=chunk,
        chunks=-(-n_i // chunk),
        # the taps along the height: how many, source rows and weights from one to the next
        taps_h=rows.taps,
        hop_h=rows.hop,
        weight_row=tap_o * block,
        # the output
        out_at=planes.first * out_plane + rows.first * out_line + cols.first * out_pixel,
        out_plane=planes.stride * out_plane,
        out_row=rows.stride * out_line,
        out_col=cols.stride * out_pixel,
        out_image=out_image,
    )
    return Walk(table, _forms(reduction, cols.stride * out_pixel, n_i, chunk, adds), block, area.scratch)


def _depth(planes: Taps, source_d: int) -> dict[str, int]:
    """The part of a table that tells which planes of the source each plane of the output meets."""
    return {
        "planes": planes.count, "source_d": source_d, "front": planes.origin, "step_d": planes.step,
        "hop_d": planes.hop, "taps_d": planes.taps,
    }  # fmt: skip


def _chunk(length: int, bytes_each: int) -> int:
    """Channels of a chunk of the sum, so that a block's weights for them take an eighth of the cache."""
    pieces = max(1, round(length * bytes_each / (l2_bytes() // 8)))
    return max(1, -(-length // (16 * pieces)) * 16)


def _forms(reduction: dict[str, int], c_row: int, n_i: int, chunk: int, adds: bool) -> np.ndarray:
    """The numbers of the tile for each place of a chunk in the sum, over taps along the depth and channels.

    The first of several, one in the middle, the only one, the last: ``(not first) + 2 · last``. All but the first go on
    from what the output holds, and the last is finished. Then the same four for the last of a tap's chunks, which may
    be shorter than the others, and at the end a sum of nothing.
    """
    forms: list[int] = []
    rest = n_i - (n_i - 1) // chunk * chunk
    for count, last, later in [*itertools.product((min(chunk, n_i), rest), (0, 1), (0, 1)), (0, 1, 0)]:
        forms += numbers(
            **reduction,
            c_row=c_row,
            d_row=later * c_row,
            e_row=c_row,
            d_t=later * reduction["c_t"],
            n_i=count,
            n_e=int(adds and last),
        )
    return np.array(forms, np.int64)


def shape_of_tiles(pixels: int, lanes: int, itemsize: int, shares: int = 1) -> tuple[int, int, int]:
    """Rows and vectors of the tiles, and lanes of a vector.

    A few lanes get a vector that is no longer than needed: many CPUs do two multiply-adds of a half in the time of one.
    """
    width = target().lanes(itemsize)
    while width // 2 >= lanes and width * itemsize > 16:
        width //= 2
    return *tile_shape(pixels, lanes, target().vector_bytes // width, shares), width


def _steps(rows: int, lanes: int, itemsize: int) -> int:
    """Multiply-adds of vectors for one term of so many sums; see `tile_shape`."""
    tile_rows, vectors, width = shape_of_tiles(rows, lanes, itemsize)
    covers = itertools.product(cover(rows, tile_rows), cover(-(-lanes // width), vectors))
    return sum(m * n * max(r * v, r + v, 8) for (m, r), (n, v) in covers)


def _tiles(
    tile_rows: int, length: int, block: tuple[int, int], lanes: int, itemsize: int, ahead: bool = False
) -> dict[str, int]:
    """The part of a table that names the tile functions: for whole blocks of lanes and for the last, for whole tiles
    and for the rest of a line of ``length`` rows. A block is so many vectors of so many lanes.
    """
    vectors, width = block
    dtype = np.dtype(f"f{itemsize}")
    rest, left = length % tile_rows, lanes % (vectors * width)
    last = (-(-left // width) or vectors, bool(left % width))
    tile = partial(tile_of_width, dtype=dtype, width=width)
    return {
        "copy_rows": copy_rows_of(vectors, width < target().lanes(itemsize), dtype),
        "copy_last": copy_rows_of(last[0], width < target().lanes(itemsize) or last[1], dtype),
        "tile_rows": tile_rows,
        "whole": tile(tile_rows, vectors, False),
        "whole_rest": tile(rest or tile_rows, vectors, False),
        "last": tile(tile_rows, *last),
        "last_rest": tile(rest or tile_rows, *last),
        "first": tile(tile_rows, vectors, False, ahead=ahead),
    }


@jit.planned(maxsize=4096)
def tile_of_width(rows: int, vectors: int, masked: bool, dtype: np.dtype, width: int, ahead: bool = False) -> int:
    """`tile_of`, for vectors of ``width`` lanes."""
    if width == target().lanes(dtype.itemsize) or not jit.compiles():
        return tile_of(rows, vectors, masked, dtype, ahead)
    return emit.address_of_tile(rows, vectors, int(ahead), int(masked), width, dtype.itemsize)


def table_of(**fields: int) -> np.ndarray:
    """`jit.table_of`, and among the fields where a tile keeps its trip counts.

    A constant would stay in kernels that were compiled with another.
    """
    places = {f"at_{name}": NUMBERS.index(name) for name in ("n_o", "n_i", "b_o")}
    return jit.table_of(**fields, form=len(NUMBERS), **places)


# ---- weight_grad --------------------------------------------------------------------------------------------------


@jit.planned(maxsize=1024)
def weight_grad(problem: ConvProblem, itemsize: int, workers: int) -> Walk:
    """The table of a weight gradient: every image adds to sums over (kh, kw·ci, co)."""
    problem = joined(problem)
    depth, height, width = problem.axes
    planes, rows, cols = map(forward_taps, problem.axes)
    problem = replace(problem, n=problem.n * planes.count)
    channels, lanes = problem.ci // problem.groups, problem.co // problem.groups
    budget = min(l2_bytes() // 4, _SUMMED_PIXELS * problem.ci * itemsize * height.stride * width.stride)
    area = _area(
        problem, (height.size, width.size, problem.ci), rows, cols, 1, budget, itemsize, workers, _ALIAS_OF_SUMS
    )
    bands, strips = -(-rows.count // area.band_rows), -(-cols.count // area.strip_cols)
    in_line = width.dilation == 1 and area.pixel == channels
    lines, line = (1, width.kernel * channels) if in_line else (width.kernel, channels)
    turned = lanes < target().lanes(itemsize) and _steps(lanes, line, itemsize) < _steps(line, lanes, itemsize)
    line_rows, line_lanes = (lanes, line) if turned else (line, lanes)
    tile_rows, vectors, width_of_vector = shape_of_tiles(line_rows, line_lanes, itemsize)
    block = vectors * width_of_vector
    blocks = -(-line_lanes // block)
    units = problem.n * bands * strips * problem.groups
    padded_lanes = blocks * block
    sums = (problem.groups, depth.kernel * height.kernel * lines, line_rows, padded_lanes)
    # Threads that share the lanes need one set of sums; threads that share the images have their own, to be added up.
    by_lanes = blocks >= workers and math.prod(sums) * workers > problem.n * math.prod(area.source)
    table = table_of(
        images=problem.n,
        **_depth(planes, depth.size),
        groups=problem.groups,
        bands=bands,
        band_rows=area.band_rows,
        strips=strips,
        strip_cols=area.strip_cols,
        rows=rows.count,
        cols=cols.count,
        lanes=line_lanes,
        block=block,
        blocks=blocks,
        **area.fields(itemsize),
        **_tiles(tile_rows, line_rows, (vectors, width_of_vector), line_lanes, itemsize),
        # the output gradient: channels of a group, of a pixel, and where blocks of it are copied to
        dy_channels=lanes,
        dy_pixel=problem.co,
        copied=area.scratch,
        # the sums: kernel planes and rows, and in each the lines of taps whose channels follow each other in memory
        hop_h=rows.hop * area.line,
        hop_w=cols.hop * area.pixel,
        kernel_h=height.kernel,
        lines=lines,
        turned=turned,
        line_rows=line_rows,
        padded_lanes=padded_lanes,
    )
    reduction = {"c_row": padded_lanes, "c_t": tile_rows * padded_lanes, "a_row": 1, "a_t": tile_rows, "n_m": 1}
    of_area = area.window(rows, 1)[1] * area.line, area.window(cols, 1)[1] * area.pixel
    if turned:
        reduction |= dict(
            zip(("a_o", "a_i", "b_o", "b_i"), (cols.count * problem.co, problem.co, *of_area), strict=True)
        )
    else:  # b_o is known when a block is copied
        reduction |= dict(zip(("a_o", "a_i", "b_i"), (*of_area, block), strict=True))
    forms = [*numbers(**reduction), *numbers(**reduction, e_row=padded_lanes, n_e=1)]
    return Walk(
        table, np.array(forms, np.int64), block, area.scratch + area.band_rows * area.strip_cols * block,
        (1 if by_lanes else min(workers, units), *sums),
    )  # fmt: skip
