"""Winograd's minimal filtering: a 3×3 convolution with a fraction of the multiplications.

F(m×m, 3×3) computes a square of m × m outputs from a square of n × n inputs, n = m + 2, as polynomials are multiplied
at n points (the last of them at infinity)::

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

⊙ multiplies n² numbers where the definition multiplies 9 m²: 36 for 144 with m = 4, 16 for 36 with m = 2. Summed over
channels, each of the n² products is a matrix product, which the register tile computes. The weight gradient is the
same with other sizes, F(3×3, m×m): its outputs are the taps, and the output gradient is the filter.

A thread transforms a block of squares that fits its L2 cache, multiplies, and transforms back, before it turns to the
next. The price is accuracy: the outputs' error is at most `error_bound` times what it bounds, some ten times that
of the direct sum with m = 4. With m = 4 the points are 0, ±3/4, ±3/2 and ∞, which are exact in binary and lose a
third of what the usual 0, ±1, ±2 lose. What is infinite or NaN in a square would spread over all of it; a result
that is not finite is therefore computed again by ``direct``, which keeps each in its place.

S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast Algorithms for Convolutional
Neural Networks", 2015; B. Barabasz, A. Anderson, K. Soodhalter, D. Gregg, "Error Analysis and Improving the Accuracy of
Winograd Convolution for Deep Neural Networks", 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numba import prange

from tinytorch.conv import direct
from tinytorch.conv.finish import PLAIN, Finish, zeros
from tinytorch.conv.pack import channels_last, empty_channels_last, lane_blocks, pixels, turned_blocks
from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.conv.walk import table_of
from tinytorch.conv.weights import Weights
from tinytorch.kernels import jit, memory
from tinytorch.kernels.target import l2_bytes, target, tile_shape
from tinytorch.kernels.tile import numbers, tile, tile_of
from tinytorch.kernels.transform import Matrix, transform, transform_of

_POINTS = {2: (0, 1, -1), 4: (0, Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))}
_CACHE_LINE = 16  # numbers between what two threads write


@lru_cache
def matrices(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Aᵀ, G and Bᵀ of F(outputs, taps): evaluate at the points, multiply, interpolate (Toom and Cook, transposed)."""
    n = outputs + taps - 1
    points = [Fraction(p) for p in _POINTS[n - 2]]
    others = [[q for q in points if q != p] for p in points]
    scale = [math.prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(points, others, strict=True)]
    at = [[p**power for p in points] + [Fraction(power == outputs - 1)] for power in range(outputs)]
    g = [[p**power / s for power in range(taps)] for p, s in zip(points, scale, strict=True)]
    g.append([Fraction(power == taps - 1) for power in range(taps)])
    bt = [[*_product(rest), Fraction(0)] for rest in others] + [_product(points)]
    return tuple(tuple(tuple(map(float, row)) for row in m) for m in (at, g, bt))  # type: ignore[return-value]


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of Π (x − root), the constant one first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def error_bound(squares: int, channels: int, dtype: np.dtype) -> float:
    """Bound of |error| / (max |x| · max over outputs of Σ |w|) for F(squares × squares, 3 × 3).

    Three linear maps with k terms each lose at most k units of rounding, in each of two dimensions, and magnify what
    the one before has lost by their 1-norms; the sum over channels loses one unit a channel. N. Higham, "Accuracy and
    Stability of Numerical Algorithms", 2002, sections 3.1 and 3.5.
    """
    norms = [max(sum(abs(v) for v in row) for row in m) ** 2 for m in matrices(squares, 3)]
    n = squares + 2
    return float(math.prod(norms) * (2 * (n + 3 + n) + channels) * np.finfo(dtype).eps / 2)


@dataclass(frozen=True)
class Winograd:
    """The algorithm for squares of m × m outputs."""

    m: int

    @property
    def name(self) -> str:
        """What the planner calls it."""
        return "winograd" if self.m == 4 else f"winograd{self.m}"

    def refuses(self, problem: ConvProblem, direction: Direction) -> str | None:
        """Why this algorithm can't, or None."""
        kernel = tuple(axis.kernel for axis in problem.axes)
        if kernel != (3, 3):
            return f"it is made for kernels of 3×3, not {'×'.join(map(str, kernel))}"
        if any(axis.stride != 1 or axis.dilation != 1 for axis in problem.axes):
            return "it needs stride 1 and dilation 1"
        return f"it needs one group, not {problem.groups}" if problem.groups > 1 else None

    def forward(self, problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
        """Output (n, co, h, w) of input (n, ci, h, w)."""
        y = empty_channels_last(problem.output_shape, x.dtype)
        plan = _forward_plan(problem, self.m, x.itemsize, jit.workers(), finish.residual is not None)
        if _convolve(plan, channels_last(x), weights, finish, y):
            return y
        return direct.forward(problem, x, weights, finish)

    def input_grad(self, problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
        """Gradient of the input: the output gradient convolved with the kernel turned by 180°."""
        dx = empty_channels_last(problem.input_shape, dy.dtype)
        plan = _input_grad_plan(problem, self.m, dy.itemsize, jit.workers(), finish.residual is not None)
        if _convolve(plan, channels_last(dy), weights, finish, dx):
            return dx
        return direct.input_grad(problem, dy, weights, finish)

    def weight_grad(self, problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Gradient of the weight; where threads share the images, their sums are added in order."""
        plan = _weight_grad_plan(problem, self.m, dy.itemsize, jit.workers())
        gradient = _sum_products(plan, channels_last(x), channels_last(dy))
        if gradient is None:
            return direct.weight_grad(problem, x, dy)
        by_tap = gradient.reshape(3, 3, problem.ci, -1)[..., : problem.co]
        return np.moveaxis(by_tap, (-1, -2), (0, 1))


# ---- plans --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Plan:
    """How the squares of one direction are cut into blocks and shared.

    Parameters
    ----------
    m
        Side of a square of outputs.
    turned
        Whether the weights are turned by 180°, as the input gradient has them.
    table
        One row of named integers for the kernel.
    places
        Where the pixels of a square lie in the source, the transformed source, the products, and the output.
    sizes
        The numbers of the tile.
    block
        Lanes of a block of weights.
    scratch
        Elements that one thread needs.
    sums
        Shape of a weight gradient's sums, one set a share.
    """

    m: int
    turned: bool
    table: np.ndarray
    places: np.ndarray
    sizes: np.ndarray
    block: int
    scratch: int
    sums: tuple[int, ...] = ()


@jit.planned(maxsize=1024)
def _forward_plan(problem: ConvProblem, m: int, itemsize: int, workers: int, adds: bool) -> _Plan:
    height, width = problem.axes
    source, sink = (height.size, width.size, problem.ci), (height.out, width.out, problem.co)
    corner = (-height.before, -width.before)
    return _sweep_plan(m, problem.n, source, sink, corner, itemsize, workers, adds, turned=False)


@jit.planned(maxsize=1024)
def _input_grad_plan(problem: ConvProblem, m: int, itemsize: int, workers: int, adds: bool) -> _Plan:
    height, width = problem.axes
    source, sink = (height.out, width.out, problem.co), (height.size, width.size, problem.ci)
    corner = (height.before - 2, width.before - 2)
    return _sweep_plan(m, problem.n, source, sink, corner, itemsize, workers, adds, turned=True)


def _sweep_plan(  # type: ignore[no-untyped-def]
    m: int, images: int, source, sink, corner, itemsize: int, workers: int, adds: bool, turned: bool
) -> _Plan:
    depth, lanes, n = source[2], sink[2], m + 2
    width, dtype = target().lanes(itemsize), np.dtype(f"f{itemsize}")
    squares = images * math.prod(-(-size // m) for size in sink[:2])
    shared_weights = n * n * depth * lanes > images * math.prod(source)
    squares_each = _squares_each(squares, n * n * itemsize * (depth + 2 * width), 1 if shared_weights else workers)
    rows, vectors = tile_shape(squares_each, lanes, itemsize, workers if shared_weights else 1)
    block, row = vectors * width, _row(depth, itemsize)
    blocks, parts = -(-lanes // block), -(-squares // squares_each)
    left = lanes % block
    last = (-(-left // width) or vectors, bool(left % width))
    _, _, into = matrices(m, 3)
    back = matrices(m, 3)[0]
    tails = (squares_each % rows, (squares - (parts - 1) * squares_each) % rows)
    table = table_of(
        **_squares(m, source, sink, corner, squares, squares_each),
        blocks=blocks, block=block, lanes=lanes, depth=depth, row=row, rows=rows, adds=int(adds),
        splits=min(workers, blocks) if shared_weights or parts < workers else 1,
        whole=tile_of(rows, vectors, False, dtype), last=tile_of(rows, *last, dtype),
        whole_rest=tile_of(tails[0] or rows, vectors, False, dtype), last_rest=tile_of(tails[0] or rows, *last, dtype),
        whole_tail=tile_of(tails[1] or rows, vectors, False, dtype), last_tail=tile_of(tails[1] or rows, *last, dtype),
        into=transform_of(into, False, depth % width > 0, dtype),
        back=transform_of(back, True, False, dtype),
        last_back=transform_of(back, True, left % width > 0, dtype),
    )  # fmt: skip
    products = n * n * squares_each
    places = [_grid(n, source[1] * depth, depth), _line(n * n, squares_each * row)]
    places += [_line(n * n, squares_each * block), _grid(m, sink[1] * lanes, lanes)]
    sizes = numbers(c_row=block, a_row=row, a_i=1, b_i=block, n_o=1, n_m=1, n_i=depth, c_t=rows * block, a_t=rows * row)
    scratch = products * (row + block) + max(depth, lanes) + _CACHE_LINE
    return _Plan(m, turned, table, np.concatenate(places), np.array(sizes, np.int64), block, scratch)


def _squares_each(squares: int, square_bytes: int, parts: int) -> int:
    """Squares of a block: as many as half the cache holds, but enough to use each weight often; in ``parts`` blocks
    or a multiple of it.
    """
    fit = max(l2_bytes() // 2 // square_bytes, 28)
    blocks = -(-max(1, -(-squares // fit)) // parts) * parts
    return -(-squares // blocks)


def _row(depth: int, itemsize: int) -> int:
    """Elements from one square to the next: rows at a multiple of 4096 bytes would share a line of the cache."""
    return depth + 16 if depth * itemsize % 4096 == 0 else depth


def _squares(m: int, source, sink, corner, squares: int, squares_each: int) -> dict[str, int]:  # type: ignore[no-untyped-def]
    """A table's part that says which squares there are, and where."""
    return {
        "m": m, "squares": squares, "each": squares_each, "parts": -(-squares // squares_each),
        "down": -(-sink[0] // m), "across": -(-sink[1] // m),
        "source_h": source[0], "source_w": source[1], "source_c": source[2],
        "sink_h": sink[0], "sink_w": sink[1], "sink_c": sink[2], "top": corner[0], "left": corner[1],
    }  # fmt: skip


def _grid(side: int, row: int, pixel: int) -> np.ndarray:
    return (np.arange(side)[:, None] * row + np.arange(side) * pixel).reshape(-1)


def _line(count: int, step: int) -> np.ndarray:
    return np.arange(count) * step


@jit.planned(maxsize=1024)
def _weight_grad_plan(problem: ConvProblem, m: int, itemsize: int, workers: int) -> _Plan:
    height, wide = problem.axes
    source, sink = (height.size, wide.size, problem.ci), (height.out, wide.out, problem.co)
    depth, lanes, n = problem.ci, problem.co, m + 2
    width, dtype = target().lanes(itemsize), np.dtype(f"f{itemsize}")
    squares = problem.n * math.prod(-(-size // m) for size in sink[:2])
    rows, vectors = tile_shape(depth, lanes, itemsize)
    block = vectors * width
    blocks = -(-lanes // block)
    sums = n * n * depth * blocks * block
    by_lanes = blocks >= workers and sums * workers > problem.n * math.prod(source)
    squares_each = _squares_each(squares, n * n * itemsize * (depth + block), 1 if by_lanes else workers)
    if sums * itemsize > l2_bytes() // 2:  # the sums come and go from afar: let that be worth it
        squares_each = min(max(squares_each, 112), -(-squares // (1 if by_lanes else workers)))
    left = lanes % block
    last = (-(-left // width) or vectors, bool(left % width))
    taps, gradient, into = matrices(3, m)
    table = table_of(
        **_squares(m, source, sink, (-height.before, -wide.before), squares, squares_each),
        blocks=blocks, block=block, lanes=lanes, depth=depth, rows=rows, padded=blocks * block,
        whole=tile_of(rows, vectors, False, dtype), last=tile_of(rows, *last, dtype),
        whole_rest=tile_of(depth % rows or rows, vectors, False, dtype),
        last_rest=tile_of(depth % rows or rows, *last, dtype),
        into=transform_of(into, False, depth % width > 0, dtype),
        of_gradient=transform_of(gradient, False, False, dtype),
        of_last_gradient=transform_of(gradient, False, left % width > 0, dtype),
        to_taps=transform_of(taps, True, lanes % width > 0, dtype),
    )  # fmt: skip
    places = [_grid(n, source[1] * depth, depth), _line(n * n, squares_each * depth)]
    places += [_grid(m, sink[1] * lanes, lanes), _line(n * n, squares_each * block)]
    places += [_line(n * n, depth * blocks * block), _line(9, depth * blocks * block)]
    reduction = {
        "c_row": blocks * block,
        "a_row": 1,
        "a_i": depth,
        "b_i": block,
        "n_o": 1,
        "n_m": 1,
        "c_t": rows * blocks * block,
        "a_t": rows,
    }
    sizes = [*numbers(**reduction), *numbers(**reduction, d_row=reduction["c_row"], d_t=reduction["c_t"])]
    scratch = n * n * squares_each * (depth + block)
    shares = 1 if by_lanes else min(workers, -(-squares // squares_each))
    return _Plan(
        m, False, table, np.concatenate(places), np.array(sizes, np.int64), block, scratch,
        (shares, n * n, depth, blocks * block),
    )  # fmt: skip


# ---- running them -------------------------------------------------------------------------------------------------


def _convolve(plan: _Plan, source: np.ndarray, weights: Weights, finish: Finish, out: np.ndarray) -> bool:
    """Convolve ``source`` into ``out``; False if some result is not finite."""
    flat_source, flat_out = pixels(source).reshape(-1), pixels(out).reshape(-1)
    transformed = weights.form(_transformed, plan.m, plan.block, plan.turned)
    flags = np.zeros((jit.workers(), _CACHE_LINE), out.dtype)
    nothing = zeros(max(source.shape[1], plan.block), out.dtype)
    scratch = memory.scratch(jit.workers(), plan.scratch, out.dtype)
    jit.run(
        _convolve_squares, flat_source, transformed, finish.starts(out.shape[1], out.dtype), finish.extra(flat_out),
        flat_out, scratch, nothing, flags, plan.table, plan.places, plan.sizes, finish.bounds(out.dtype),
    )  # fmt: skip
    return not np.isnan(flags).any()


def _sum_products(plan: _Plan, x: np.ndarray, dy: np.ndarray) -> np.ndarray | None:
    """Weight gradient (3·3, ci, lanes filled up), or None if some of it is not finite."""
    _, _, depth, lanes = plan.sums
    sums = memory.apart(plan.sums[0], math.prod(plan.sums[1:]), dy.dtype)
    gradient = memory.empty((9, depth, lanes), dy.dtype)
    scratch = memory.scratch(jit.workers(), plan.scratch, dy.dtype)
    nothing, flags = zeros(max(depth, lanes), dy.dtype), np.zeros((depth, _CACHE_LINE), dy.dtype)
    flat = pixels(x).reshape(-1), pixels(dy).reshape(-1), sums
    bounds = PLAIN.bounds(dy.dtype)
    jit.run(_sum_squares, *flat, scratch, nothing, flags, plan.table, plan.places, plan.sizes, bounds)
    jit.run(_taps_of_sums, flat[2], gradient.reshape(-1), nothing, flags, plan.table, plan.places, bounds)
    return None if np.isnan(flags).any() else gradient


def _transformed(weights: Weights, m: int, lanes: int, turned: bool) -> np.ndarray:
    """Weights G g Gᵀ in blocks of ``lanes``: one line of (blocks, n², ci, lanes)."""
    blocks = weights.form(turned_blocks if turned else lane_blocks, lanes, 1)
    depth = weights.array.shape[0 if turned else 1]
    n = m + 2
    out = memory.empty(blocks.size // 9 * n * n, blocks.dtype)
    _, g, _ = matrices(m, 3)
    places = np.concatenate([_line(9, depth * lanes), _line(n * n, depth * lanes)])
    which = transform_of(g, False, False, blocks.dtype)
    jit.run(_transform_weights, which, blocks, out, places, np.array([depth, lanes, n]), zeros(4, blocks.dtype))
    return out


@jit.parallel
def _transform_weights(which, blocks, out, places, sizes, bounds):  # type: ignore[no-untyped-def]
    for item in prange(blocks.size // (9 * sizes[1])):
        depth, lanes, n = sizes[0], sizes[1], sizes[2]
        block, row = np.int64(item) // depth, np.int64(item) % depth
        source_at, sink_at = (block * 9 * depth + row) * lanes, (block * n * n * depth + row) * lanes
        transform(
            which, (blocks, source_at), (places, 0), (out, sink_at), (places, 9), (bounds, 0), (bounds, 0), (bounds, 0),
            (bounds, 0), (bounds, 0), lanes, 0,
        )  # fmt: skip


@jit.serial
def _places(mine, first, side, top, left, height, width, pixel):  # type: ignore[no-untyped-def]
    """Fill in where the pixels of the square at (top, left) lie, −1 where there are none."""
    for i in range(side):
        for j in range(side):
            inside = 0 <= top + i < height and 0 <= left + j < width
            mine[first + i * side + j] = (i * width + j) * pixel if inside else -1


@jit.serial
def _transform_sources(t, first, last, source, scratch, spare, mine, places, row, bounds):  # type: ignore[no-untyped-def]
    """Bᵀ d B of the squares from ``first`` to ``last``, to the front of the scratch."""
    n = t.m + 2
    for square in range(first, last):
        image, down, across = square // (t.down * t.across), square // t.across % t.down, square % t.across
        top, left = down * t.m + t.top, across * t.m + t.left
        inside = top >= 0 and left >= 0 and top + n <= t.source_h and left + n <= t.source_w
        if not inside:
            _places(mine, 0, n, top, left, t.source_h, t.source_w, t.source_c)
        at = ((image * t.source_h + top) * t.source_w + left) * t.source_c
        transform(
            t.into, (source, at), (places if inside else mine, 0), (scratch, (square - first) * row), (places, n * n),
            (spare, 0), (bounds, 0), (bounds, 0), (bounds, 0), (bounds, 0), t.source_c, 0,
        )  # fmt: skip


@jit.parallel
def _convolve_squares(  # type: ignore[no-untyped-def]
    source, weights, starts, extra, out, scratch, spare, flags, table, places, sizes, bounds
):
    """Forward, and input_grad."""
    workers = scratch.shape[0]
    for thread in prange(workers):
        worker, t = np.int64(thread), table[0]
        n = t.m + 2
        mine = np.empty(n * n + t.m * t.m, np.int64)
        mem, products = scratch[worker], n * n * t.each * t.row
        nowhere = products + n * n * t.each * t.block
        tasks = t.parts * t.splits
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            split, part = task // t.parts, task % t.parts
            first, last = part * t.each, min(t.squares, (part + 1) * t.each)
            count = last - first
            _transform_sources(t, first, last, source, mem, spare, mine, places, t.row, bounds)
            for b in range(t.blocks * split // t.splits, t.blocks * (split + 1) // t.splits):
                lanes, final = min(t.block, t.lanes - b * t.block), b == t.blocks - 1
                whole = t.last if final else t.whole
                rest = t.last_rest if final else t.whole_rest
                if part == t.parts - 1:
                    rest = t.last_tail if final else t.whole_tail
                for point in range(n * n):
                    for piece in range(2):  # whole tiles of squares, then what is left
                        row = count // t.rows * t.rows * piece
                        tile(
                            rest if piece else whole,
                            (mem, products + (point * t.each + row) * t.block),
                            (spare, 0),
                            (mem, (point * t.each + row) * t.row),
                            (weights, (b * n * n + point) * t.depth * t.block),
                            (mem, 0),
                            (sizes, 0),
                            (bounds, 0),
                            lanes,
                            int(count % t.rows > 0) if piece else count // t.rows,
                        )
                for square in range(first, last):
                    image, down, across = square // (t.down * t.across), square // t.across % t.down, square % t.across
                    top, left = down * t.m, across * t.m
                    inside = top + t.m <= t.sink_h and left + t.m <= t.sink_w
                    if not inside:
                        _places(mine, n * n, t.m, top, left, t.sink_h, t.sink_w, t.sink_c)
                    at = ((image * t.sink_h + top) * t.sink_w + left) * t.sink_c + b * t.block
                    transform(
                        t.last_back if final else t.back,
                        (mem, products + (square - first) * t.block),
                        (places, 2 * n * n),
                        (out, at),
                        (places if inside else mine, 3 * n * n if inside else n * n),
                        (mem, nowhere),
                        (starts, b * t.block),
                        (extra, at),
                        (bounds, 2),
                        (flags[worker], 0),
                        lanes,
                        t.adds,
                    )


@jit.parallel
def _sum_squares(source, dy, sums, scratch, spare, flags, table, places, sizes, bounds):  # type: ignore[no-untyped-def]
    """Σ over squares of (Bᵀ d B) ⊙ (G dy Gᵀ), for every pair of channels."""
    shares, workers = sums.shape[0], scratch.shape[0]
    for thread in prange(workers):
        worker, t = np.int64(thread), table[0]
        n = t.m + 2
        mine = np.empty(n * n + t.m * t.m, np.int64)
        mem, gradients = scratch[worker], n * n * t.each * t.depth
        first_part, last_part, first_block, last_block = 0, t.parts, 0, t.blocks
        if shares == 1:  # each thread makes some lanes of the one sum
            first_block, last_block = t.blocks * worker // workers, t.blocks * (worker + 1) // workers
        else:  # each thread sums some of the squares
            first_part, last_part = t.parts * worker // shares, min(t.parts, t.parts * (worker + 1) // shares)
        into = sums[worker % shares]
        size = sizes.copy()
        for part in range(first_part, last_part if first_block < last_block else first_part):
            first, last = part * t.each, min(t.squares, (part + 1) * t.each)
            started = part > first_part
            form = t.form if started else 0
            size[form + t.at_n_i] = last - first
            _transform_sources(t, first, last, source, mem, spare, mine, places, t.depth, bounds)
            for b in range(first_block, last_block):
                lanes, final = min(t.block, t.lanes - b * t.block), b == t.blocks - 1
                for square in range(first, last):
                    image, down, across = square // (t.down * t.across), square // t.across % t.down, square % t.across
                    top, left = down * t.m, across * t.m
                    inside = top + t.m <= t.sink_h and left + t.m <= t.sink_w
                    if not inside:
                        _places(mine, n * n, t.m, top, left, t.sink_h, t.sink_w, t.sink_c)
                    at = ((image * t.sink_h + top) * t.sink_w + left) * t.sink_c + b * t.block
                    transform(
                        t.of_last_gradient if final else t.of_gradient,
                        (dy, at),
                        (places if inside else mine, 2 * n * n if inside else n * n),
                        (mem, gradients + (square - first) * t.block),
                        (places, 2 * n * n + t.m * t.m),
                        (spare, 0),
                        (bounds, 0),
                        (bounds, 0),
                        (bounds, 0),
                        (bounds, 0),
                        lanes,
                        0,
                    )
                for point in range(n * n):
                    for piece in range(2):  # whole tiles of input channels, then what is left
                        row = t.depth // t.rows * t.rows * piece
                        at = (point * t.depth + row) * t.padded + b * t.block
                        tile(
                            (t.last_rest if final else t.whole_rest) if piece else (t.last if final else t.whole),
                            (into, at),
                            (into, at) if started else (spare, 0),
                            (mem, point * t.each * t.depth + row),
                            (mem, gradients + point * t.each * t.block),
                            (into, at),
                            (size, form),
                            (bounds, 0),
                            lanes,
                            int(t.depth % t.rows > 0) if piece else t.depth // t.rows,
                        )


@jit.parallel
def _taps_of_sums(sums, gradient, spare, flags, table, places, bounds):  # type: ignore[no-untyped-def]
    """Add up the shares, and transform the sums to the nine taps."""
    for channel in prange(table[0].depth):
        t = table[0]
        n = t.m + 2
        first = np.int64(channel) * t.padded
        for share in range(1, sums.shape[0]):
            for point in range(n * n):
                at = point * t.depth * t.padded + first
                for lane in range(t.lanes):
                    sums[0, at + lane] += sums[share, at + lane]
        squared = 3 * n * n + t.m * t.m
        transform(
            t.to_taps, (sums[0], first), (places, squared), (gradient, first), (places, squared + n * n), (spare, 0),
            (spare, 0), (spare, 0), (bounds, 0), (flags[channel], 0), t.lanes, 0,
        )  # fmt: skip
