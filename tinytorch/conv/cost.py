"""What a convolution costs, algorithm by algorithm, before any of them runs: counts, not times.

All numbers come from the problem alone and are the same on every machine. Left out is what depends on the machine:
register tiles and vectors that are not full, and copies so small that they never leave a core's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinytorch.conv import fft
from tinytorch.conv.problem import Axis, ConvProblem, Direction


@dataclass(frozen=True)
class Cost:
    """The cost of one direction of a convolution.

    Parameters
    ----------
    macs
        Multiply-accumulates of the definition, taps on padding counted.
    multiplies
        Real multiplications that the algorithm executes, taps on padding counted.
    bytes
        Input, weights and output once each, and once whatever the algorithm writes in between.
    scratch
        Bytes that it holds at its peak besides operands and result.
    """

    macs: int
    multiplies: int
    bytes: int
    scratch: int


_Extra = tuple[int, int, int]  # multiplications, bytes written in between, bytes held at the peak


def cost(problem: ConvProblem, direction: Direction, algorithm: str, itemsize: int, tile: int | None = None) -> Cost:
    """Count what an algorithm does for one direction of a problem.

    Parameters
    ----------
    problem, direction
        The convolution.
    algorithm
        ``"loops"``, ``"im2col"``, ``"direct"``, ``"fft"`` or ``"winograd"``.
    itemsize
        Bytes of a number: 4 or 8.
    tile
        Pixels m along the side of a Winograd tile F(m×m, 3×3); 4 if not given.

    Raises
    ------
    ValueError
        When the algorithm is unknown, has no tiles, or has no formula for the problem.

    Examples
    --------
    >>> problem = ConvProblem.parse("ic64oc64_ih56kh3ph1")
    >>> problem.macs / cost(problem, "forward", "winograd", 4, tile=2).multiplies
    2.25
    """
    multiplies, written, scratch = _extra(problem, direction, algorithm, itemsize, tile)
    operands = sum(map(math.prod, (problem.input_shape, problem.weight_shape, problem.output_shape)))
    return Cost(problem.macs, multiplies, operands * itemsize + written, scratch)


def _extra(problem: ConvProblem, direction: Direction, algorithm: str, itemsize: int, tile: int | None) -> _Extra:
    if algorithm == "winograd":
        return _winograd(problem, direction, itemsize, 4 if tile is None else tile)
    if algorithm not in _FORMULAS:
        raise ValueError(f"algorithm must be one of {[*_FORMULAS, 'winograd']}, got {algorithm!r}; check its spelling")
    if tile is not None:
        raise ValueError(f"tile must be None for {algorithm!r}, got {tile!r}; only 'winograd' has tiles")
    return _FORMULAS[algorithm](problem, direction, itemsize)


def _loops(problem: ConvProblem, direction: Direction, itemsize: int) -> _Extra:
    """A padded image; forward also lays its output out anew, channels last."""
    copies = _padded(problem) + (math.prod(problem.output_shape) if direction == "forward" else 0)
    return problem.macs, copies * itemsize, copies * itemsize


def _im2col(problem: ConvProblem, direction: Direction, itemsize: int) -> _Extra:
    """A padded image, and a row for each window; those of a 1×1 kernel are counted too, although they may be a view."""
    windows = problem.n * math.prod(problem.output_shape[2:])
    copies = _padded(problem) + windows * problem.ci * math.prod(problem.weight_shape[2:])
    return problem.macs, copies * itemsize, copies * itemsize


def _direct(problem: ConvProblem, direction: Direction, itemsize: int) -> _Extra:
    """Packed weights. An input gradient multiplies every input pixel with the taps of its stride phase.

    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.6.
    """
    packed = math.prod(problem.weight_shape) * itemsize
    if direction != "input_grad":
        return problem.macs, packed, packed
    meetings = math.prod(map(_meetings, problem.axes))
    return problem.n * _channel_pairs(problem) * meetings, packed, packed


def _meetings(axis: Axis) -> int:
    """Pairs of an input pixel and a tap that some window, inside the image or not, brings together."""
    first = [(tap * axis.dilation - axis.before) % axis.stride for tap in range(axis.kernel)]
    return sum(len(range(pixel, axis.size, axis.stride)) for pixel in first)


def _fft(problem: ConvProblem, direction: Direction, itemsize: int) -> _Extra:
    """Spectra; four real multiplications for a complex one, and N log₂ N for a transform of N real points.

    J. Cooley, J. Tukey, "An Algorithm for the Machine Calculation of Complex Fourier Series", 1965: ½ N log₂ N complex
    products for N complex points, half as many for real ones. Radices above 2 need fewer.
    """
    blocks, points = fft.blocks(problem, direction, itemsize), math.prod(fft.grid(problem))
    products = 4 * math.prod(blocks.whole) * fft.spectrum_points(problem)
    transforms = round(blocks.transforms * points * math.log2(points))
    return products + transforms, blocks.transforms * blocks.plane, blocks.scratch


def _winograd(problem: ConvProblem, direction: Direction, itemsize: int, m: int) -> _Extra:
    """Transformed weights, or their gradient; (m + 2)² multiplications for each tile and pair of channels.

    Tiles cover the result, or for a weight gradient the output gradient; multiplications by the transforms' constants
    are left out. A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.
    """
    if m < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {m!r}; F(4×4, 3×3) is tile=4")
    if any((axis.kernel, axis.stride, axis.dilation) != (3, 1, 1) for axis in problem.axes):
        raise ValueError(f"winograd must have kernel 3, stride 1 and dilation 1, got {problem}; use another algorithm")
    covered = [axis.size if direction == "input_grad" else axis.out for axis in problem.axes]
    tiles = problem.n * math.prod(-(-size // m) for size in covered)
    points, pairs = (m + 2) ** problem.dims, _channel_pairs(problem)
    transformed = points * pairs * itemsize
    return points * tiles * pairs, transformed, transformed


_FORMULAS = {"loops": _loops, "im2col": _im2col, "direct": _direct, "fft": _fft}


def _padded(problem: ConvProblem) -> int:
    return problem.n * problem.ci * math.prod(axis.padded for axis in problem.axes)


def _channel_pairs(problem: ConvProblem) -> int:
    """Input and output channels that meet in a group."""
    return problem.ci // problem.groups * problem.co
