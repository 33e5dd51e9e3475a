"""Differentiable convolution, and what may follow it in the same step.

The arithmetic is done below, in ``tinytorch.conv``; here arrays become tensors, bad input is refused, and what the
backward needs is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinytorch.conv import planner
from tinytorch.conv.finish import Finish
from tinytorch.conv.pack import channels_last
from tinytorch.conv.problem import ConvProblem, Padding
from tinytorch.conv.weights import Weights
from tinytorch.core.autograd import is_recorded, record
from tinytorch.core.images import UNBOUNDED, Bounds, Pair, check_images, rows_of
from tinytorch.core.kept import weights_of
from tinytorch.core.pool_ops import max_pooled, unpooled_grad
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import elementwise, norm


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> Tensor:
    """Cross-correlate images with a bank of kernels.

    ``y[n, o, h, w] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x[n, c, h·stride + i·dilation − padding, w·stride +
    j·dilation − padding]``

    Parameters
    ----------
    x : Tensor, shape (N, C_in, H, W)
    weight : Tensor, shape (C_out, C_in / groups, K_h, K_w)
    bias : Tensor, shape (C_out,), optional
    stride, dilation : int or (height, width)
        Pixels between two windows, and between two taps of a window.
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the image, in pixels.
    groups : int
        Independent convolutions that the channels are dealt to.
    algorithm : str, optional
        "direct", "winograd", "winograd2", "im2col", "fft" or "loops"; by default the planner chooses, for
        each direction apart. The gradients use the same one.

    Returns
    -------
    Tensor, shape (N, C_out, H_out, W_out)
        H_out = ⌊(H + padding − dilation · (K_h − 1) − 1) / stride⌋ + 1.

    Raises
    ------
    ValueError
        If shapes and options have no meaning together, or the algorithm refuses them.
    TypeError
        If x or weight is not a floating-point Tensor.
    """
    return convolve(x, weight, bias, Convolution(stride, padding, dilation, groups, algorithm))


class Convolution(NamedTuple):
    """The options of `conv2d`, by their names there."""

    stride: Pair = 1
    padding: Padding = 0
    dilation: Pair = 1
    groups: int = 1
    algorithm: str | None = None


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    options: Convolution,
    residual: Tensor | None = None,
    bounds: Bounds = UNBOUNDED,
    pooling: tuple[Pair, Pair | None, Pair] | None = None,
    weights: Weights | None = None,
) -> Tensor:
    """`conv2d`, then what follows it while the outputs are at hand: pool(clip(conv2d(x) + residual, *bounds)).

    Parameters
    ----------
    residual : Tensor, optional
        Of the output's shape, before pooling.
    bounds : (floor, ceiling)
        (0, ∞) is a ReLU.
    pooling : (kernel_size, stride, padding), optional
        Of a `max_pool2d`.
    weights : Weights, optional
        To use in place of those of `weight`, where no gradient is wanted.
    """
    _check_operands(x, weight, bias)
    inputs = [tensor for tensor in (x, weight, bias, residual) if tensor is not None]
    dtype = np.promote_types(x.dtype, weight.dtype)
    recorded = is_recorded(inputs)
    images = channels_last(x.array.astype(dtype, copy=False))
    weights = weights or weights_of(weight, dtype, recorded)
    problem = ConvProblem.of(
        images.shape, weight.shape, options.stride, options.padding, options.dilation, options.groups
    )
    algorithm = planner.told(options.algorithm)
    offsets, extra = (None if t is None else t.array.astype(dtype, copy=False) for t in (bias, residual))
    if extra is not None and extra.shape != problem.output_shape:
        raise ValueError(f"residual must have the output's shape {problem.output_shape}, got {extra.shape}")
    y = planner.forward(problem, images, weights, Finish(offsets, extra, *bounds), algorithm)
    unpooled, winners, window = y.shape, None, None
    if pooling is not None:
        y, winners, window = max_pooled(y, pooling)
    if not recorded:
        return x.wrap(y)
    clipped = None if bounds == UNBOUNDED else y
    saved = images if weight.requires_grad else None
    wanted = [tensor.requires_grad for tensor in inputs]

    def backward(grad: np.ndarray):
        dy = channels_last(grad)
        if clipped is not None:
            dy = elementwise.bounded_grad(dy, clipped, *bounds)
        db = norm.channel_sums(rows_of(dy)).astype(dy.dtype) if bias is not None and bias.requires_grad else None
        if window is not None and winners is not None:
            dy = unpooled_grad(dy, winners, unpooled, window)
        dx = planner.input_grad(problem, dy, weights, algorithm) if wanted[0] else None
        dw = None if saved is None else planner.weight_grad(problem, saved, dy, algorithm)
        return (dx, dw) + (() if bias is None else (db,)) + (() if residual is None else (dy,))

    return record(y, tuple(inputs), backward)


def _check_operands(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    check_images("conv2d", x)
    if not isinstance(weight, Tensor) or weight.ndim != 4 or weight.dtype.kind != "f":
        got = f"{weight.dtype} of shape {weight.shape}" if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(
            f"weight must be a floating-point Tensor (out_channels, in_channels / groups, height, width), got {got}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape (out_channels,) = {weight.shape[:1]}, got {bias.shape}")
