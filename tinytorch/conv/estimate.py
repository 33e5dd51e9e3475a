"""How long each algorithm will take, in steps: what a core does in the time of one vector multiply-add.

A model of the machine in a few numbers, and of an algorithm in a few terms: the multiply-adds of its tiles, as they
fill the registers of this CPU; what begins and ends a tile; transforms; and bytes that come from beyond a core's
second-level cache. It is right to some ten percent where algorithms differ by factors. `measure` in the planner times
them instead.

S. Williams, A. Waterman, D. Patterson, "Roofline", 2009, is the idea: the slower of arithmetic and memory.
"""

from __future__ import annotations

import math

from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.conv.walk import joined
from tinytorch.kernels.target import cover, l2_bytes, target, tile_shape

# Measured on CPUs with AVX-512 and AVX2, and rounded.
_BYTES_A_STEP = 6  # from memory, for one core
_CALL = 30  # steps to begin and end a line of tiles, beside loading and storing its sums
_TRANSFORM = 6  # steps for each vector of a square that is transformed
_TURN = 1.5  # steps to turn one number from a pixel into a plane, or back
_PLANES = 20000  # steps to prepare planes for a thread
_PLANE = 500  # steps to begin the Fourier transform of a plane
_BLAS = 1.3  # the time of a matrix product by a library, over that of the tile
_LAUNCH = 8000  # steps to start the threads of a parallel loop, and to prepare it


def steps(problem: ConvProblem, direction: Direction, algorithm: str, itemsize: int, workers: int) -> float:
    """Steps of one thread out of ``workers``, start to end.

    Parameters
    ----------
    algorithm
        By its name in the planner.
    itemsize
        Bytes of a number.
    """
    arithmetic = _ARITHMETIC[algorithm](problem, direction, itemsize, workers)
    operands = math.prod(problem.input_shape) + math.prod(problem.output_shape) + math.prod(problem.weight_shape)
    return _LAUNCH + max(arithmetic, operands * itemsize / _BYTES_A_STEP) / workers


def _direct(problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> float:
    rows, lanes, depth, lines = _matrix(problem, direction)
    return problem.groups * lines * _tiles(rows, lanes, depth, itemsize)


def _planar(problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> float:
    rows, lanes, depth, lines = _matrix(problem, direction)
    source, sink = map(math.prod, (problem.input_shape, problem.output_shape))
    if direction == "input_grad":  # every phase turns the output gradient anew
        source, sink = sink * math.prod(min(axis.kernel, axis.stride) for axis in problem.axes), source
    turned = _TURN * (source + sink) + _PLANES * workers
    return problem.groups * _tiles(lanes, rows * lines, depth, itemsize) + turned


def _matrix(problem: ConvProblem, direction: Direction) -> tuple[int, int, int, int]:
    """Rows and lanes of the tiles of one group, terms of their sums, and how many such matrices there are."""
    problem = joined(problem)
    ci, co = problem.ci // problem.groups, problem.co // problem.groups
    planes, taps = problem.axes[0].kernel, math.prod(problem.weight_shape[2:])
    outputs, width = problem.n * math.prod(problem.output_shape[2:]), problem.axes[-1]
    if direction == "weight_grad":
        return width.kernel * ci, co, outputs, taps // width.kernel
    if direction == "input_grad":
        met = [max(1, axis.size * min(axis.kernel, axis.stride) // axis.stride) for axis in problem.axes]
        inputs = problem.n * math.prod(met)
        return met[-1], ci, co * outputs * taps // inputs // planes, inputs // met[-1] * planes
    return width.out, co, ci * taps // planes, outputs // width.out * planes


def _tiles(rows: int, lanes: int, depth: int, itemsize: int) -> float:
    """Steps of a matrix product (rows × depth) · (depth × lanes), cut into tiles."""
    tile_rows, vectors = tile_shape(rows, lanes, itemsize)
    needed = -(-lanes // target().lanes(itemsize))
    covers = [(m * n, r, v) for m, r in cover(rows, tile_rows) for n, v in cover(needed, vectors)]
    return sum(count * (max(r * v, r + v, 8) * depth + 3 * r * v + _CALL) for count, r, v in covers)


def _winograd(m: int, problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> float:
    height, width = problem.axes
    n, vector = m + 2, target().lanes(itemsize)
    size = (height.size, width.size) if direction == "input_grad" else (height.out, width.out)
    squares = problem.n * math.prod(-(-pixels // m) for pixels in size)
    ci, co = -(-problem.ci // vector), -(-problem.co // vector)
    weights = problem.ci * problem.co
    transforms = _TRANSFORM * n * n * (squares * (ci + co) + weights / vector / 2)
    each = min(squares, max(28, l2_bytes() // 2 // (n * n * itemsize * max(problem.ci, problem.co))))
    traffic = n * n * weights * itemsize * max(1, squares // workers // each) * workers / _BYTES_A_STEP
    if direction == "weight_grad":
        products = n * n * _tiles(problem.ci, problem.co, squares, itemsize)
    else:
        depth, lanes = (problem.co, problem.ci) if direction == "input_grad" else (problem.ci, problem.co)
        products = n * n * squares / each * _tiles(each, lanes, depth, itemsize)
    return max(products, traffic if weights * n * n * itemsize > 8 * l2_bytes() else 0) + transforms


def _im2col(problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> float:
    rows, _lanes, depth, lines = _matrix(problem, "forward")
    columns = problem.groups * rows * lines * depth * itemsize * workers  # written and read by one thread
    return _BLAS * _direct(problem, direction, itemsize, workers) + 3 * columns / _BYTES_A_STEP


def _fft(problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> float:
    points = math.prod(axis.padded for axis in problem.axes)
    planes = problem.n * (problem.ci + problem.co) + problem.co * problem.ci // problem.groups
    transforms = (_PLANE + 2.5 * points * math.log2(points + 1)) * planes  # NumPy's, one number at a time on one thread
    products = 4 * problem.n * points / 2 * problem.co * problem.ci / problem.groups / target().lanes(itemsize)
    return transforms * workers + _BLAS * products + 3 * points * planes * itemsize * workers / _BYTES_A_STEP


def _depthwise(problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> float:
    return 1.5 * problem.macs / target().lanes(itemsize)


def _loops(problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> float:
    return 1500 * problem.macs * workers


_ARITHMETIC = {
    "depthwise": _depthwise,
    "direct": _direct,
    "planar": _planar,
    "winograd": lambda *problem: _winograd(4, *problem),
    "winograd2": lambda *problem: _winograd(2, *problem),
    "im2col": _im2col,
    "fft": _fft,
    "loops": _loops,
}
