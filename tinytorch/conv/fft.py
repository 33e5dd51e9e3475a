"""Large kernels at the price of small ones: at each frequency, a convolution is one product of matrices.

Input x, weight w and output y lie on one periodic grid: the input behind its padding, the taps a dilation apart, the
output pixels a stride apart, zeros between. A grid that holds the padded image leaves no window that wraps around.
With X, W and Y for the Fourier transforms, channels in rows and columns, and a bar for the complex conjugate:

==============  ==============  ===================
direction       on the grid     at each frequency
==============  ==============  ===================
forward         correlation     Y = X · W̄
input_grad      convolution     X = Y · Wᵀ
weight_grad     correlation     W = Xᵀ · Ȳ
==============  ==============  ===================

A larger kernel costs nothing more, and a stride saves nothing.

**Rounding.** A transform of N points errs by at most ε = t η / (1 − t η) of its norm, where t = log₂ N and η is a few
unit roundoffs (N. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., 2002, theorem 24.2, for powers of
two). Two transforms, a sum of k products, and the transform back: to first order, a plane made of row a of the left
operand and column b of the right one errs, in root mean square over the grid, by at most (3 ε + γₖ₊₂) ‖a‖₂ ‖b‖₂. The
norms run over everything that is summed: beside large numbers in an image, small ones lose their digits.

**NaN and infinity** would spread over whole planes. A call whose result shows one, be it from an operand or from an
overflow on the way, is computed again by ``im2col``, which keeps it in the windows that it belongs to; the limit of
the scratch does not hold for that.

Source: M. Mathieu, M. Henaff, Y. LeCun, "Fast Training of Convolutional Networks through FFTs", 2014.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinytorch.conv import im2col
from tinytorch.conv.finish import PLAIN, Finish
from tinytorch.conv.pack import empty_channels_last
from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.conv.weights import Weights
from tinytorch.kernels import memory

name = "fft"

# What one call may hold besides operands and result. It is exceeded only where blocks of single planes do not fit.
SCRATCH_BYTES = 256 << 20


def refuses(problem: ConvProblem, direction: Direction) -> str | None:
    """Why this algorithm can't, or None; it takes every problem."""
    return None


def forward(problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Output (n, co, …) of input (n, ci, …) and weights (co, ci/g, …): Y = X · W̄."""
    y = empty_channels_last(problem.output_shape, x.dtype)
    right = _weight(problem, weights.array)
    if not _multiply(problem, "forward", _input(problem, x), right, _output(problem, y)):
        return im2col.forward(problem, x, weights, finish)
    return finish.apply(y)


def input_grad(problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Gradient of the input: X = Y · Wᵀ."""
    dx = empty_channels_last(problem.input_shape, dy.dtype)
    right = _turned(_weight(problem, weights.array))
    if not _multiply(problem, "input_grad", _output(problem, dy), right, _input(problem, dx)):
        return im2col.input_grad(problem, dy, weights, finish)
    return finish.apply(dx)


def weight_grad(problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Gradient of the weight: W = Xᵀ · Ȳ, which sums over the images."""
    _, depth, *kernel = problem.weight_shape
    dw = np.moveaxis(memory.empty((*kernel, depth, problem.co), dy.dtype), (-1, -2), (0, 1))
    left = _turned(_input(problem, x))
    if not _multiply(problem, "weight_grad", left, _output(problem, dy), _weight(problem, dw)):
        return im2col.weight_grad(problem, x, dy)
    return dw


def grid(problem: ConvProblem) -> tuple[int, ...]:
    """Points of the periodic grid along every axis: no fewer than the padded image has."""
    return tuple(good_size(axis.padded) for axis in problem.axes)


def good_size(least: int) -> int:
    """The smallest 2ᵃ·3ᵇ·5ᶜ from ``least`` on: transforms are fast where a size has small factors only."""
    return next(size for size in itertools.count(least) if pow(30, size.bit_length(), size) == 0)


def spectrum_points(problem: ConvProblem) -> int:
    """Complex numbers in the spectrum of a plane: half of the last axis, since the rest is its mirror image."""
    *others, last = grid(problem)
    return math.prod(others) * (last // 2 + 1)


@dataclass(frozen=True)
class Blocks:
    """The products (rows × inner) · (inner × columns) of all groups, cut so that the scratch stays below its limit.

    Parameters
    ----------
    whole
        Groups, rows, inner, columns.
    step
        How many of each are multiplied at a time.
    plane
        Bytes of the spectrum of one plane.
    """

    whole: tuple[int, ...]
    step: tuple[int, ...]
    plane: int

    @property
    def scratch(self) -> int:
        """Bytes at the peak: three blocks of spectra, and of the largest three more while it is transformed."""
        groups, rows, inner, columns = self.step
        held = (rows * inner, inner * columns, rows * columns)
        return (sum(held) + 3 * max(held)) * groups * self.plane

    @property
    def transforms(self) -> int:
        """Planes transformed, there or back: each once, but operands of several blocks as often as they are met."""
        groups, rows, inner, columns = self.whole
        _, row_blocks, inner_blocks, column_blocks = (-(-w // s) for w, s in zip(self.whole, self.step, strict=True))
        left = rows * inner * (column_blocks if inner_blocks > 1 else 1)
        right = inner * columns * (row_blocks if inner_blocks * column_blocks > 1 else 1)
        return groups * (left + right + rows * columns)


def blocks(problem: ConvProblem, direction: Direction, itemsize: int) -> Blocks:
    """Halve whatever is longest until the scratch is below its limit: blocks near to cubes are reused most."""
    n, ci, co = problem.n, problem.ci // problem.groups, problem.co // problem.groups
    sizes = {"forward": (n, ci, co), "input_grad": (n, co, ci), "weight_grad": (ci, n, co)}
    whole = (problem.groups, *sizes[direction])
    cut = Blocks(whole, tuple(max(size, 1) for size in whole), spectrum_points(problem) * 2 * itemsize)
    while cut.scratch > SCRATCH_BYTES and max(cut.step) > 1:
        longest = cut.step.index(max(cut.step))
        halved = tuple(-(-size // 2) if i == longest else size for i, size in enumerate(cut.step))
        cut = replace(cut, step=halved)
    return cut


class _Planes(NamedTuple):
    """A view (…, g, rows, columns) of an array, and the grid points that its pixels or taps lie on."""

    values: np.ndarray
    place: tuple[slice, ...]


def _input(problem: ConvProblem, x: np.ndarray) -> _Planes:
    return _images(problem, x, tuple(slice(axis.before, axis.before + axis.size) for axis in problem.axes))


def _output(problem: ConvProblem, y: np.ndarray) -> _Planes:
    return _images(problem, y, tuple(slice(0, (axis.out - 1) * axis.stride + 1, axis.stride) for axis in problem.axes))


def _weight(problem: ConvProblem, weight: np.ndarray) -> _Planes:
    """(co, ci/g, …) as (…, g, ci/g, co/g)."""
    by_group = weight.reshape(problem.groups, -1, *problem.weight_shape[1:])
    place = tuple(slice(0, axis.extent, axis.dilation) for axis in problem.axes)
    return _Planes(np.moveaxis(by_group, (0, 2, 1), (-3, -2, -1)), place)


def _images(problem: ConvProblem, array: np.ndarray, place: tuple[slice, ...]) -> _Planes:
    """(n, c, …) as (…, g, n, c/g)."""
    by_group = array.reshape(problem.n, problem.groups, -1, *array.shape[2:])
    return _Planes(np.moveaxis(by_group, (1, 0, 2), (-3, -2, -1)), place)


def _turned(planes: _Planes) -> _Planes:
    return planes._replace(values=planes.values.swapaxes(-1, -2))


def _multiply(problem: ConvProblem, direction: Direction, left: _Planes, right: _Planes, out: _Planes) -> bool:
    """Fill ``out`` with the product of the operands, block by block; False as soon as one has a number not finite."""
    cut, points = blocks(problem, direction, out.values.itemsize), grid(problem)
    g, r, k, c = cut.step

    # Only the block that was used last is kept; so an operand that is one block is transformed once.
    @lru_cache(maxsize=1)
    def left_block(*start: int) -> np.ndarray:
        return _spectrum(_part(left.values, start, (g, r, k)), left.place, points)

    @lru_cache(maxsize=1)
    def right_block(*start: int) -> np.ndarray:
        spectrum = _spectrum(_part(right.values, start, (g, k, c)), right.place, points)
        return spectrum if direction == "input_grad" else np.conj(spectrum, out=spectrum)  # see the table above

    groups, rows, inner, columns = (range(0, size, step) for size, step in zip(cut.whole, cut.step, strict=True))
    with np.errstate(over="ignore", invalid="ignore"):
        for i, j, m in itertools.product(groups, rows, columns):
            part = _part(out.values, (i, j, m), (g, r, c))
            part[...] = _back(sum(left_block(i, j, n) @ right_block(i, n, m) for n in inner), points, out.place)
            if not np.isfinite(part.sum()):  # a sum passes on both NaN and infinity
                return False
    return True


def _part(values: np.ndarray, start: tuple[int, ...], size: tuple[int, int, int]) -> np.ndarray:
    """View of one block of groups, rows and columns."""
    groups, rows, columns = (slice(first, first + count) for first, count in zip(start, size, strict=True))
    return values[..., groups, rows, columns]


def _spectrum(part: np.ndarray, place: tuple[slice, ...], points: tuple[int, ...]) -> np.ndarray:
    """Fourier transform of planes put in their place on a grid of zeros.

    Scaled to keep norms: what needs no factor, NumPy (2.4) computes in double precision and rounds, in five times the
    time and memory.
    """
    planes = np.zeros((*points, *part.shape[-3:]), part.dtype)
    planes[place] = part
    return np.fft.rfftn(planes, axes=range(len(points)), norm="ortho")


def _back(spectrum: np.ndarray, points: tuple[int, ...], place: tuple[slice, ...]) -> np.ndarray:
    """What a product of two spectra has in that place of its planes; a third factor 1/√N would be one too many."""
    planes = np.fft.irfftn(spectrum, points, range(len(points)), norm="ortho")
    return planes[place] * math.sqrt(math.prod(points))
