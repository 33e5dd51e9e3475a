"""The definition: a convolution as seven nested loops, in plain Python.

Every multiply-accumulate is one line that can be pointed at. Nothing here is fast, and nothing is meant to be: the
other algorithms are checked against these loops. The two gradients are the same seven loops; only the line in the
middle changes, because ``y += x · w`` sends ``dy · w`` back to ``x`` and ``dy · x`` back to ``w``. For volumes two more
loops go around them, over the planes of the output and the taps along the depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tinytorch.conv.finish import PLAIN, Finish
from tinytorch.conv.pack import channels_last
from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.conv.weights import Weights

name = "loops"


def refuses(problem: ConvProblem, direction: Direction) -> str | None:
    """None: it can always."""
    return None


def forward(problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Output (n, co, ho, wo) of input (n, ci, hi, wi) and weights (co, ci/g, kh, kw)."""
    if problem.dims == 3:
        volume = channels_last(np.zeros(problem.output_shape, x.dtype))
        for out_d, k_d, in_d in _planes(problem):
            volume[:, :, out_d] += forward(_plane(problem), x[:, :, in_d], Weights(weights.array[:, :, k_d]))
        return finish.apply(volume)
    padded_input, weight_4d = _padded(problem, x), _as_2d(weights.array)
    output = np.zeros(_shape_2d(problem.output_shape), x.dtype)
    batch_size, out_channels, out_height, out_width = output.shape
    _, in_channels, kernel_h, kernel_w = weight_4d.shape
    (stride_h, dilation_h), (stride_w, dilation_w) = _steps(problem)
    for b in range(batch_size):
        for out_ch in range(out_channels):
            first_ch = out_ch // (out_channels // problem.groups) * in_channels
            for out_h in range(out_height):
                for out_w in range(out_width):
                    conv_sum = x.dtype.type(0)
                    for k_h in range(kernel_h):
                        for k_w in range(kernel_w):
                            for in_ch in range(in_channels):
                                in_h = out_h * stride_h + k_h * dilation_h
                                in_w = out_w * stride_w + k_w * dilation_w
                                input_val = padded_input[b, first_ch + in_ch, in_h, in_w]
                                weight_val = weight_4d[out_ch, in_ch, k_h, k_w]
                                conv_sum += input_val * weight_val
                    output[b, out_ch, out_h, out_w] = conv_sum
    return finish.apply(channels_last(output.reshape(problem.output_shape)))


def input_grad(problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Gradient of the input: every output pixel hands its gradient back to the pixels it was made of."""
    if problem.dims == 3:
        volume = channels_last(np.zeros(problem.input_shape, dy.dtype))
        for out_d, k_d, in_d in _planes(problem):
            volume[:, :, in_d] += input_grad(_plane(problem), dy[:, :, out_d], Weights(weights.array[:, :, k_d]))
        return finish.apply(volume)
    dy_4d, weight_4d = _as_2d(dy), _as_2d(weights.array)
    padded = np.zeros(_padded_shape(problem), dy.dtype)
    for (b, out_ch, out_h, out_w), (first_ch, in_ch, k_h, k_w), (in_h, in_w) in _visits(problem):
        padded[b, first_ch + in_ch, in_h, in_w] += dy_4d[b, out_ch, out_h, out_w] * weight_4d[out_ch, in_ch, k_h, k_w]
    inner = tuple(slice(axis.before, axis.before + axis.size) for axis in problem.axes)
    dx = channels_last(padded.reshape(padded.shape[:2] + padded.shape[4 - problem.dims :])[:, :, *inner])
    return finish.apply(dx)


def weight_grad(problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Gradient of the weight: every tap sums, over all windows, what it was multiplied with times what came back."""
    if problem.dims == 3:
        kernel = np.zeros(problem.weight_shape, dy.dtype)
        for out_d, k_d, in_d in _planes(problem):
            kernel[:, :, k_d] += weight_grad(_plane(problem), x[:, :, in_d], dy[:, :, out_d])
        return kernel
    padded_input, dy_4d = _padded(problem, x), _as_2d(dy)
    gradient = np.zeros(_shape_2d(problem.weight_shape), dy.dtype)
    for (b, out_ch, out_h, out_w), (first_ch, in_ch, k_h, k_w), (in_h, in_w) in _visits(problem):
        gradient[out_ch, in_ch, k_h, k_w] += (
            dy_4d[b, out_ch, out_h, out_w] * padded_input[b, first_ch + in_ch, in_h, in_w]
        )
    return gradient.reshape(problem.weight_shape)


def _planes(problem: ConvProblem) -> Iterator[tuple[int, int, int]]:
    """Two loops along the depth: plane of the output, tap, and the plane of the input that they meet at."""
    depth = problem.axes[0]
    for out_d in range(depth.out):
        for k_d in range(depth.kernel):
            in_d = out_d * depth.stride + k_d * depth.dilation - depth.before
            if 0 <= in_d < depth.size:
                yield out_d, k_d, in_d


def _plane(problem: ConvProblem) -> ConvProblem:
    """The convolution of one plane of a volume with one plane of the kernel."""
    return replace(problem, axes=problem.axes[1:])


_Visit = tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[int, int]]


def _visits(problem: ConvProblem) -> Iterator[_Visit]:
    """The seven loops of ``forward``, one visit a multiply-accumulate: output element, tap, padded input pixel.

    A tap is the first channel of its group, the channel in the group, the kernel row and the kernel column.
    """
    batch_size, out_channels, out_height, out_width = _shape_2d(problem.output_shape)
    _, in_channels, kernel_h, kernel_w = _shape_2d(problem.weight_shape)
    (stride_h, dilation_h), (stride_w, dilation_w) = _steps(problem)
    for b in range(batch_size):
        for out_ch in range(out_channels):
            first_ch = out_ch // (out_channels // problem.groups) * in_channels
            for out_h in range(out_height):
                for out_w in range(out_width):
                    for k_h in range(kernel_h):
                        for k_w in range(kernel_w):
                            for in_ch in range(in_channels):
                                pixel = (
                                    out_h * stride_h + k_h * dilation_h,
                                    out_w * stride_w + k_w * dilation_w,
                                )
                                yield (b, out_ch, out_h, out_w), (first_ch, in_ch, k_h, k_w), pixel


def _shape_2d(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A one-dimensional problem is a two-dimensional one of height 1."""
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def _as_2d(array: np.ndarray) -> np.ndarray:
    return array.reshape(_shape_2d(array.shape))


def _steps(problem: ConvProblem) -> list[tuple[int, int]]:
    """(stride, dilation) of the height and of the width."""
    return [(1, 1)] * (2 - problem.dims) + [(axis.stride, axis.dilation) for axis in problem.axes]


def _padded_shape(problem: ConvProblem) -> tuple[int, ...]:
    return _shape_2d((problem.n, problem.ci, *(axis.padded for axis in problem.axes)))


def _padded(problem: ConvProblem, x: np.ndarray) -> np.ndarray:
    around = [(0, 0), (0, 0), *((axis.before, axis.after) for axis in problem.axes)]
    return _as_2d(np.pad(x, around))
