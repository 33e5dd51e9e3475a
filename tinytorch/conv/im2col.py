"""The step between the loops and the fast kernels: copy every window into a row, then multiply matrices.

A window of kh·kw·ci pixels becomes one row of a matrix with n·ho·wo rows ("image to columns", transposed because
channels come last here). The convolution is then a product with the (kh·kw·ci) × co weight matrix, which a BLAS
library runs near the machine's peak. The price is memory: a 3×3 window copies every pixel nine times.

Source: K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing",
2006.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinytorch.conv.finish import PLAIN, Finish
from tinytorch.conv.pack import channels_last, pixels, taps
from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.conv.weights import Weights

name = "im2col"


def refuses(problem: ConvProblem, direction: Direction) -> str | None:
    """Why this algorithm can't, or None; it takes every problem."""
    return None


def forward(problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Output (n, co, …) of input (n, ci, …): gather, then multiply."""
    y = columns(problem, x) @ _matrices(problem, weights.array)
    return finish.apply(_from_rows(problem, y))


def input_grad(problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Gradient of the input: multiply back, then add every window's row to the pixels that it was copied from."""
    rows = _to_rows(problem, dy) @ _matrices(problem, weights.array).swapaxes(1, 2)
    return finish.apply(scatter(problem, rows))


def weight_grad(problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Gradient of the weight: one product of the gathered windows with the output gradient."""
    product = columns(problem, x).swapaxes(1, 2) @ _to_rows(problem, dy)
    kernel = tuple(axis.kernel for axis in problem.axes)
    per_group = product.reshape(problem.groups, *kernel, problem.ci // problem.groups, -1)
    return np.concatenate([np.moveaxis(group, (-1, -2), (0, 1)) for group in per_group])


def columns(problem: ConvProblem, x: np.ndarray) -> np.ndarray:
    """Windows as rows: (g, n·ho·wo, kh·kw·ci/g)."""
    windows = _windows(problem, _padded(problem, x))
    ordered = np.moveaxis(windows, -2, 0)  # groups in front
    return ordered.reshape(problem.groups, _positions(problem), _taps_of_group(problem))


def scatter(problem: ConvProblem, rows: np.ndarray) -> np.ndarray:
    """The transpose of ``columns``: add each row of (g, n·ho·wo, kh·kw·ci/g) to the pixels of its window."""
    padded = np.zeros((problem.n, *(axis.padded for axis in problem.axes), problem.ci), rows.dtype)
    windows = _windows(problem, padded)
    kernel = tuple(axis.kernel for axis in problem.axes)
    parts = np.moveaxis(rows.reshape(problem.groups, *windows.shape[:-2], -1), 0, -2)
    every = (slice(None),) * (1 + problem.dims)
    for tap in itertools.product(*map(range, kernel)):  # within one tap no two windows share a pixel
        windows[every + tap] += parts[every + tap]
    inner = tuple(slice(axis.before, axis.before + axis.size) for axis in problem.axes)
    return channels_last(np.moveaxis(padded[:, *inner], -1, 1))


def _padded(problem: ConvProblem, x: np.ndarray) -> np.ndarray:
    """Input as (n, …, ci) with its zeros around."""
    around = [(0, 0), *((axis.before, axis.after) for axis in problem.axes), (0, 0)]
    return np.ascontiguousarray(np.pad(pixels(x), around))


def _windows(problem: ConvProblem, padded: np.ndarray) -> np.ndarray:
    """View of a padded (n, …, ci) array as (n, ho, wo, kh, kw, g, ci/g): a pixel is in every window over it."""
    per_group = problem.ci // problem.groups
    batch, *spatial, channel = padded.strides
    steps = [s * axis.stride for s, axis in zip(spatial, problem.axes, strict=True)]
    hops = [s * axis.dilation for s, axis in zip(spatial, problem.axes, strict=True)]
    shape = (problem.n, *problem.output_shape[2:], *problem.weight_shape[2:], problem.groups, per_group)
    return as_strided(padded, shape, (batch, *steps, *hops, channel * per_group, channel))


def _matrices(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Weights as (g, kh·kw·ci/g, co/g)."""
    groups = weight.reshape(problem.groups, -1, *problem.weight_shape[1:])
    return np.stack([taps(group).reshape(_taps_of_group(problem), -1) for group in groups])


def _to_rows(problem: ConvProblem, dy: np.ndarray) -> np.ndarray:
    """Output gradient (n, co, …) as (g, n·ho·wo, co/g)."""
    return pixels(dy).reshape(_positions(problem), problem.groups, -1).swapaxes(0, 1)


def _from_rows(problem: ConvProblem, rows: np.ndarray) -> np.ndarray:
    """(g, n·ho·wo, co/g) as (n, co, …), channels last."""
    joined = np.ascontiguousarray(rows.swapaxes(0, 1))
    return np.moveaxis(joined.reshape(problem.n, *problem.output_shape[2:], problem.co), -1, 1)


def _positions(problem: ConvProblem) -> int:
    return problem.n * math.prod(problem.output_shape[2:])


def _taps_of_group(problem: ConvProblem) -> int:
    return math.prod(problem.weight_shape[1:])
