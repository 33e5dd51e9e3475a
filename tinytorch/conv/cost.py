"""What a convolution costs, algorithm by algorithm, before any of them runs: counts, not times.

Work and traffic come from the problem alone and are the same on every machine: left out are register tiles and vectors
that are not full, and copies so small that they never leave a core's cache. The memory that is held is that of this
machine and its number of threads, as its plans cut the work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinytorch.conv import depthwise, fft, im2col, planar, walk, winograd
from tinytorch.conv.problem import Axis, ConvProblem, Direction
from tinytorch.kernels import jit, memory


@dataclass(frozen=True)
class Cost:
    """The cost of one direction of a convolution.

    Parameters
    ----------
    macs
        Multiply-accumulates of the definition, taps on padding counted.
    multiplies
        Real multiplications that the algorithm executes; taps on padding count where it multiplies by their zeros.
    bytes
        Input, weights and output once each, and once whatever the algorithm writes in between.
    scratch
        Bytes that a call holds at its peak besides operands, result and ``forms``, when no memory is recycled: with
        images channels last and weights lanes last, as layers keep them, and without a residual. The copies of threads
        (`memory.scratch`) are among it, although the next call finds them again.
    forms
        Bytes of packed or transformed weights, which stay with the weights (`Weights.form`) for the next call.
    """

    macs: int
    multiplies: int
    bytes: int
    scratch: int
    forms: int


_Counts = tuple[int, int]  # multiplications and numbers written in between, or numbers of scratch and of forms
_Formula = Callable[[ConvProblem, Direction, int], _Counts]


def cost(problem: ConvProblem, direction: Direction, algorithm: str, itemsize: int, tile: int | None = None) -> Cost:
    """Count what an algorithm does for one direction of a problem.

    Parameters
    ----------
    problem, direction
        The convolution.
    algorithm
        By its name in the planner.
    itemsize
        Bytes of a number: 4 or 8.
    tile
        Pixels m along the side of a Winograd tile F(m×m, 3×3), 2 or 4: another way to tell ``"winograd2"`` from
        ``"winograd"``.

    Raises
    ------
    ValueError
        When the algorithm is unknown, has no such tile, or refuses the problem.

    Examples
    --------
    >>> problem = ConvProblem.parse("ic64oc64_ih56kh3ph1")
    >>> problem.macs / cost(problem, "forward", "winograd2", 4).multiplies
    2.25
    """
    name, live = _tiled(algorithm, tile), problem.trimmed
    _check_accepts(live, direction, name)
    multiplies, written = _WORK[name](live, direction, itemsize)
    scratch, forms = _HELD[name](live, direction, itemsize) if problem.n else (0, 0)
    operands = sum(map(math.prod, (problem.input_shape, problem.weight_shape, problem.output_shape)))
    return Cost(problem.macs, multiplies, (operands + written) * itemsize, scratch * itemsize, forms * itemsize)


def _tiled(algorithm: str, tile: int | None) -> str:
    """Name of the algorithm with that tile."""
    if algorithm not in _WORK:
        raise ValueError(f"algorithm must be one of {list(_WORK)}, got {algorithm!r}; check its spelling")
    if tile is None:
        return algorithm
    if algorithm != "winograd":
        raise ValueError(f"tile must be None for {algorithm!r}, got {tile!r}; only 'winograd' has tiles")
    if tile not in _TILES:
        raise ValueError(f"tile must be one of {list(_TILES)} pixels, got {tile!r}; F(4×4, 3×3) is tile=4")
    return _TILES[tile].name


def _check_accepts(problem: ConvProblem, direction: Direction, name: str) -> None:
    refuses = {"depthwise": depthwise.refuses, "planar": planar.refuses}
    refuses |= {algorithm.name: algorithm.refuses for algorithm in _TILES.values()}
    reason = refuses[name](problem, direction) if name in refuses else None
    if reason:
        raise ValueError(f"{name!r} refuses the {direction} of {problem}: {reason}; use another algorithm")


# ---- work and traffic: multiplications, and numbers written in between --------------------------------------------


def _loops(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """A padded image; forward also lays its output out anew, channels last."""
    return problem.macs, _padded(problem) + (math.prod(problem.output_shape) if direction == "forward" else 0)


def _im2col(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """A padded image, and a row for each window; those of a 1×1 kernel are counted too, although they may be a view."""
    return problem.macs, _padded(problem) + _columns(problem)


def _direct(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Packed weights. Planes and rows of taps on padding are left out; of a weight gradient, planes.

    An input gradient multiplies every input pixel with the taps of its stride phase: V. Dumoulin, F. Visin, "A guide to
    convolution arithmetic for deep learning", 2016, section 4.6.
    """
    *deep, wide = problem.axes
    left_out = problem.dims - 2 if direction == "weight_grad" else len(deep)
    met = [axis.inside if k < left_out else axis.out * axis.kernel for k, axis in enumerate(deep)]
    along = _meetings(wide) if direction == "input_grad" else wide.out * wide.kernel
    return problem.n * problem.channel_pairs * math.prod([*met, along]), math.prod(problem.weight_shape)


def _meetings(axis: Axis) -> int:
    """Pairs of an input pixel and a tap that some window, inside the image or not, brings together."""
    first = [(tap * axis.dilation - axis.before) % axis.stride for tap in range(axis.kernel)]
    return sum(len(range(pixel, axis.size, axis.stride)) for pixel in first)


def _depthwise(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Taps inside the image only. Where channels have several outputs, the input, or its gradient, once for each."""
    images = problem.n * problem.co * math.prod(axis.size for axis in problem.axes)
    return problem.macs_inside, images if problem.co > problem.ci else 0


def _planar(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Weights by channel. Rows follow each other in one line, and the sums between them are made and dropped."""
    height, width = (Axis(1, 1), *problem.axes)[-2:]
    taps_of = walk.phase_taps if direction == "input_grad" else lambda axis: [walk.forward_taps(axis)]
    meetings = sum(
        ((rows.count - 1) * (cols.count - 1 + cols.span) + cols.count) * rows.taps * cols.taps
        for rows, cols in itertools.product(taps_of(height), taps_of(width))
    )
    return problem.n * problem.channel_pairs * meetings, math.prod(problem.weight_shape)


def _fft(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Spectra; four real multiplications for a complex one, and N log₂ N for a transform of N real points.

    J. Cooley, J. Tukey, "An Algorithm for the Machine Calculation of Complex Fourier Series", 1965: ½ N log₂ N complex
    products for N complex points, half as many for real ones. Radices above 2 need fewer.
    """
    blocks, points = fft.blocks(problem, direction, itemsize), math.prod(fft.grid(problem))
    products = 4 * math.prod(blocks.whole) * fft.spectrum_points(problem)
    transforms = round(blocks.transforms * points * math.log2(points))
    return products + transforms, blocks.transforms * 2 * fft.spectrum_points(problem)


def _winograd(m: int, problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Transformed weights, or their gradient; (m + 2)² multiplications for each tile and pair of channels.

    Tiles cover the result, or for a weight gradient the output gradient; multiplications by the transforms' constants
    are left out. A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.
    """
    covered = [axis.size if direction == "input_grad" else axis.out for axis in problem.axes]
    tiles = problem.n * math.prod(-(-size // m) for size in covered)
    transformed = (m + 2) ** 2 * problem.channel_pairs
    return tiles * transformed, transformed


def _padded(problem: ConvProblem) -> int:
    return problem.n * problem.ci * math.prod(axis.padded for axis in problem.axes)


def _columns(problem: ConvProblem) -> int:
    windows = problem.n * math.prod(problem.output_shape[2:])
    return windows * problem.ci * math.prod(problem.weight_shape[2:])


# ---- memory: numbers held at the peak of a call, and numbers kept in forms ----------------------------------------


def _loops_held(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """A padded image, and the result before it is laid out anew; volumes plane by plane."""
    shape = _result(problem, direction)
    result, is_line = math.prod(shape), shape[1] == 1 or math.prod(shape[2:]) == 1
    relaid = 0 if is_line or direction == "weight_grad" else result
    if problem.dims == 3:
        plane = replace(problem, axes=problem.axes[1:])
        return max(relaid, _loops_held(plane, direction, itemsize)[0] + math.prod(_result(plane, direction))), 0
    if direction == "input_grad":
        return _padded(problem) - (result if is_line and _is_dense(problem) else 0), 0
    return _padded(problem) + relaid, 0


def _im2col_held(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Stage by stage: the image is padded; windows are gathered; the product; the result is laid out anew."""
    padded, columns = _padded(problem), _columns(problem)
    weights, result = math.prod(problem.weight_shape), math.prod(_result(problem, direction))
    if direction == "input_grad":
        moved = 0 if _is_dense(problem) else result
        return max(weights + columns, columns + padded + moved) - result, 0
    gathered, kept = (padded, padded) if _is_view(problem) else (padded + columns, columns)
    product = kept + result + (weights if direction == "forward" else 0)
    moved = 0 if direction == "forward" and problem.groups == 1 else result
    return max(gathered, product, result + moved) - result, 0


def _padded_images(problem: ConvProblem) -> np.ndarray:
    """An array (n, …, ci) to look at the strides of, without memory."""
    shape = (problem.n, *(axis.padded for axis in problem.axes), problem.ci)
    return as_strided(np.empty(1, np.int8), shape, [math.prod(shape[axis + 1 :]) for axis in range(len(shape))])


def _is_dense(problem: ConvProblem) -> bool:
    """Whether an image without its padding is a line of the memory with it."""
    inner = (slice(axis.before, axis.before + axis.size) for axis in problem.axes)
    return _padded_images(problem)[:, *inner].flags.c_contiguous


def _is_view(problem: ConvProblem) -> bool:
    """Whether the windows of an image are rows as they lie, so that gathering copies nothing."""
    windows = np.moveaxis(im2col._windows(problem, _padded_images(problem)), -2, 0)
    steps = list(zip(windows.shape, windows.strides, strict=True))
    positions, taps = steps[1 : 2 + problem.dims], steps[2 + problem.dims :]
    return _joins(positions) and _joins(taps)


def _joins(steps: list[tuple[int, int]]) -> bool:
    """Whether axes, given as (size, stride), are one line."""
    longer = [(size, stride) for size, stride in steps if size > 1]
    return all(outer == size * stride for (_, outer), (size, stride) in itertools.pairwise(longer))


def _direct_held(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Areas of every thread, packed weights; sums of a weight gradient, which are its result where they are alone."""
    workers = jit.workers()
    if direction == "weight_grad":
        plan = walk.weight_grad(problem, itemsize, workers)
        shares, *shape = plan.sums
        arrays = (shares > 1) + (problem.groups > 1)  # sums added up, and groups joined: the last is the result
        added = (arrays - 1) * math.prod(problem.weight_shape)
        return _apart(shares, math.prod(shape)) + added + _threads([plan.scratch]), 0
    walks = (walk.forward if direction == "forward" else walk.input_grad)(problem, itemsize, workers)
    packed = sum(_packed(problem, direction, block) for block in {plan.block for plan in walks})
    return _threads([max(plan.scratch, 1) for plan in walks]), packed


def _packed(problem: ConvProblem, direction: Direction, block: int) -> int:
    """Weights in blocks of lanes, filled up."""
    lanes, depth = (problem.co, problem.ci) if direction == "forward" else (problem.ci, problem.co)
    blocks = -(-(lanes // problem.groups) // block)
    return blocks * block * depth * math.prod(problem.weight_shape[2:])


def _depthwise_held(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """The input, or its gradient, for each output of a channel; sums of a weight gradient."""
    images = math.prod(problem.input_shape)
    repeated = images // problem.ci * problem.co if problem.co > problem.ci else 0
    if direction == "forward":
        return repeated, 0
    if direction == "input_grad":
        return repeated + (2 * images if repeated else 0), 0
    plan, result = depthwise._plan(problem, direction, itemsize, jit.workers()), math.prod(problem.weight_shape)
    return repeated + _apart(plan.shares, result) - (plan.shares == 1) * result, 0


def _planar_held(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Planes of every thread, what the sums of a block of pixels start from, and weights by channel."""
    plans_of = planar._forward_plans if direction == "forward" else planar._input_grad_plans
    plans = plans_of(problem, itemsize, jit.workers())
    starts = [_result(problem, direction)[1] * plan.block for plan in plans]
    starting = max(map(sum, itertools.pairwise([0, *starts, 0])))  # the former is let go of when the next is there
    taps = math.prod(problem.weight_shape[2:])
    moved = sum(size > 1 for size in (taps, problem.weight_shape[1], problem.co)) > 1
    forms = math.prod(problem.weight_shape) if moved else 0
    return _threads([plan.scratch for plan in plans]) + starting, forms


def _fft_held(problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Stage by stage: the transforms of either operand, their product, the transform back.

    A transform holds a grid, and spectra before and after an axis; the blocks used last are kept meanwhile.
    """
    cut, grid = fft.blocks(problem, direction, itemsize), math.prod(fft.grid(problem))
    spectrum = 2 * fft.spectrum_points(problem)
    groups, rows, inner, columns = cut.step
    several = [whole > step for whole, step in zip(cut.whole, cut.step, strict=True)]
    left, right, out = groups * rows * inner, groups * inner * columns, groups * rows * columns
    there = grid + min(problem.dims, 2) * spectrum
    cropped = math.prod(_result(problem, direction)[2:])
    back = max(there, problem.dims * spectrum, spectrum + grid + cropped)
    sums = several[2] * out * spectrum
    old_left, old_right = any(several[:3]) * left * spectrum, (several[0] or any(several[2:])) * right * spectrum
    both = (left + right) * spectrum
    stages = (
        sums + old_left + any(several) * right * spectrum + left * there,
        sums + left * spectrum + old_right + right * there,
        sums + both + 2 * out * spectrum,
        both + out * back,
    )
    return max(stages), 0


def _winograd_held(m: int, problem: ConvProblem, direction: Direction, itemsize: int) -> _Counts:
    """Squares of every thread, weights packed and transformed; sums of a weight gradient, and their taps."""
    workers = jit.workers()
    if direction == "weight_grad":
        plan = winograd._weight_grad_plan(problem, m, itemsize, workers)
        shares, points, depth, lanes = plan.sums
        sums = _apart(shares, points * depth * lanes) + (9 * lanes + winograd._CACHE_LINE) * depth
        return sums + _threads([plan.scratch]) - math.prod(problem.weight_shape), 0
    plan_of = winograd._forward_plan if direction == "forward" else winograd._input_grad_plan
    plan = plan_of(problem, m, itemsize, workers, False)
    packed = _packed(problem, direction, plan.block)
    return _threads([plan.scratch]) + workers * winograd._CACHE_LINE, packed + packed // 9 * (m + 2) ** 2


def _apart(rows: int, columns: int) -> int:
    """Numbers of `memory.apart`."""
    return rows * (columns + memory._APART)


def _threads(columns: Iterable[int]) -> int:
    """Numbers in `memory.scratch` for one walk after another; a larger one is made before the last goes."""
    peak = held = 0
    for count in columns:
        needed = _apart(jit.workers(), count)
        if needed > held:
            peak, held = held + needed, needed
    return peak


def _result(problem: ConvProblem, direction: Direction) -> tuple[int, ...]:
    shapes = {"forward": problem.output_shape, "input_grad": problem.input_shape, "weight_grad": problem.weight_shape}
    return shapes[direction]


_TILES = {m: winograd.Winograd(m) for m in (4, 2)}
_WORK: dict[str, _Formula] = {
    "loops": _loops,
    "im2col": _im2col,
    "direct": _direct,
    "depthwise": _depthwise,
    "planar": _planar,
    "fft": _fft,
    "winograd": partial(_winograd, 4),
    "winograd2": partial(_winograd, 2),
}
_HELD: dict[str, _Formula] = {
    "loops": _loops_held,
    "im2col": _im2col_held,
    "direct": _direct_held,
    "depthwise": _depthwise_held,
    "planar": _planar_held,
    "fft": _fft_held,
    "winograd": partial(_winograd_held, 4),
    "winograd2": partial(_winograd_held, 2),
}
