"""Differentiable operations on images: convolution, pooling and batch normalisation, each beside its backward.

The arithmetic is done below, in ``tinytorch.conv`` and ``tinytorch.kernels``; here arrays become tensors, bad input
is refused, and what the backward needs is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.conv import planner
from tinytorch.conv.finish import Finish
from tinytorch.conv.pack import channels_last, empty_channels_last, pixels
from tinytorch.conv.problem import AXIS_NAMES, Axis, ConvProblem, Padding, check_fits, per_axis
from tinytorch.conv.weights import Weights
from tinytorch.core.autograd import is_recorded, record
from tinytorch.core.kept import weights_of
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import elementwise, norm, pool

Pair = int | Sequence[int]
Bounds = tuple[float, float]

UNBOUNDED: Bounds = (-math.inf, math.inf)
OutputSize = int | None | Sequence[int | None]


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


@dataclass(frozen=True)
class Convolution:
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
    dtype = np.result_type(x.dtype, weight.dtype)
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
        y, winners, window = _max_pooled(y, pooling)
    if not recorded:
        return x.wrap(y)
    clipped = None if bounds == UNBOUNDED else y
    saved = images if weight.requires_grad else None
    wanted = [tensor.requires_grad for tensor in inputs]

    def backward(grad: np.ndarray):
        dy = channels_last(grad)
        if clipped is not None:
            dy = elementwise.bounded_grad(dy, clipped, *bounds)
        db = norm.channel_sums(_rows(dy)).astype(dy.dtype) if bias is not None and bias.requires_grad else None
        if window is not None and winners is not None:
            dy = _unpooled(dy, winners, unpooled, window)
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


def check_images(name: str, x: Tensor) -> None:
    """Raise unless ``x`` is a floating-point tensor of shape (N, C, H, W)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} expects a Tensor, got {type(x).__name__}; wrap the array: Tensor(x)")
    if x.ndim != 4:
        raise ValueError(
            f"Expected 4D input (batch, channels, height, width), got {x.shape}\n{_missing_dimension(x.shape)}"
        )
    if x.dtype.kind != "f":
        raise TypeError(f"{name} computes in float32 or float64, got {x.dtype}; convert with x.float()")


def _missing_dimension(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f"Fix: add the batch dimension: x = x.reshape({', '.join(map(str, (1, *shape)))})"
    if len(shape) == 2:
        return f"Fix: add the batch and channel dimensions: x = x.reshape(1, 1, {shape[0]}, {shape[1]})"
    return "Fix: reshape the data to (batch, channels, height, width)"


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Largest value of every window; padding is −∞, so that it never wins.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        Pixels between two windows; by default the kernel size, so that windows do not overlap.
    padding : int or (height, width)
        At most half the kernel, so that every window holds a pixel.

    Returns
    -------
    Tensor, shape (N, C, ⌊(H + 2·padding − K) / stride⌋ + 1, …)
        The gradient goes to the first pixel that holds the maximum, row by row; NaN is larger than everything.

    Raises
    ------
    ValueError
        If no window fits, a size is not positive, or the padding is more than half the kernel.
    """
    check_images("max_pool2d", x)
    y, winners, window = _max_pooled(channels_last(x.array), (kernel_size, stride, padding))
    shape = x.shape

    def backward(grad: np.ndarray):
        return (_unpooled(channels_last(grad), winners, shape, window),)

    return record(y, (x,), backward)


def _max_pooled(
    images: np.ndarray, pooling: tuple[Pair, Pair | None, Pair]
) -> tuple[np.ndarray, np.ndarray, pool.Window]:
    """Pooled images, for each of their pixels the tap that won, and the window."""
    axes, window = _windows(images.shape, *pooling)
    shape = (*images.shape[:2], *(axis.out for axis in axes))
    y = empty_channels_last(shape, images.dtype)
    few_taps = axes[0].kernel * axes[1].kernel <= 256
    winners = empty_channels_last(shape, np.dtype(np.uint8 if few_taps else np.int32))
    pool.max_pool(pixels(images), pixels(y), pixels(winners), window)
    return y, winners, window


def _unpooled(grad: np.ndarray, winners: np.ndarray, shape: tuple[int, ...], window: pool.Window) -> np.ndarray:
    """Gradient of the pooling's input, of this shape."""
    dx = empty_channels_last(shape, grad.dtype)
    pool.max_pool_grad(pixels(grad), pixels(winners), pixels(dx), window)
    return dx


def avg_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Mean of every window; padding counts as zeros.

    Parameters, returned shape and errors are those of `max_pool2d`.
    """
    check_images("avg_pool2d", x)
    axes, window = _windows(x.shape, kernel_size, stride, padding)
    y = empty_channels_last((*x.shape[:2], *(axis.out for axis in axes)), x.dtype)
    pool.avg_pool(pixels(channels_last(x.array)), pixels(y), window)
    input_shape = x.shape

    def backward(grad: np.ndarray):
        dx = empty_channels_last(input_shape, grad.dtype)
        pool.avg_pool_grad(pixels(channels_last(grad)), pixels(dx), window)
        return (dx,)

    return record(y, (x,), backward)


def adaptive_avg_pool2d(x: Tensor, output_size: OutputSize) -> Tensor:
    """Mean of every window, with as many windows as the output is to have pixels.

    Along an axis of H pixels, window i of o reaches from ⌊i·H/o⌋ to ⌈(i + 1)·H/o⌉: the windows cover the image as
    evenly as its pixels allow, and share pixels where o does not divide H.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    output_size : int or (height, width)
        Pixels of the output; None for a side that stays as it is. More than the input has are allowed.

    Returns
    -------
    Tensor, shape (N, C, height, width)

    Raises
    ------
    ValueError
        If a size is not positive.
    """
    check_images("adaptive_avg_pool2d", x)
    _check_not_empty(x.shape)
    sizes = [given or old for given, old in zip(check_output_size(output_size), x.shape[2:], strict=True)]
    y = empty_channels_last((*x.shape[:2], *sizes), x.dtype)
    pool.adaptive_avg_pool(pixels(channels_last(x.array)), pixels(y))
    input_shape = x.shape

    def backward(grad: np.ndarray):
        dx = empty_channels_last(input_shape, grad.dtype)
        pool.adaptive_avg_pool_grad(pixels(channels_last(grad)), pixels(dx))
        return (dx,)

    return record(y, (x,), backward)


def check_output_size(output_size: OutputSize) -> tuple[int | None, ...]:
    """Height and width of an adaptive pooling's output, each a number or None.

    Raises
    ------
    ValueError
        If there are more or fewer than two, or one is not positive.
    """
    sizes = tuple(output_size) if isinstance(output_size, Sequence) else (output_size, output_size)
    per_axis("output_size", [1 if size is None else size for size in sizes], 2)
    return sizes


def _windows(
    shape: tuple[int, ...], kernel_size: Pair, stride: Pair | None, padding: Pair
) -> tuple[list[Axis], pool.Window]:
    """The pooling windows, checked: one axis each for height and width, and what the kernels want to know of them."""
    kernels, strides, pads = check_pooling(kernel_size, stride, padding)
    axes = [Axis(size, k, s, p, p) for size, k, s, p in zip(shape[2:], kernels, strides, pads, strict=True)]
    for name, axis in zip(AXIS_NAMES[2], axes, strict=True):
        check_fits(name, axis)
    _check_not_empty(shape)
    return axes, (*kernels, *strides, *pads)  # type: ignore[return-value]


def _check_not_empty(shape: tuple[int, ...]) -> None:
    if 0 in shape[1:]:
        raise ValueError(f"every size but the batch must be positive, got input {shape}")


def check_pooling(
    kernel_size: Pair, stride: Pair | None, padding: Pair
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, stride and padding of a pooling layer as (height, width) each.

    Raises
    ------
    ValueError
        If a size is not positive, or the padding is more than half the kernel.
    """
    kernels = per_axis("kernel_size", kernel_size, 2)
    strides = kernels if stride is None else per_axis("stride", stride, 2)
    pads = per_axis("padding", padding, 2, least=0)
    if any(2 * p > k for p, k in zip(pads, kernels, strict=True)):
        raise ValueError(
            f"padding must be at most half the kernel, got padding={padding} for kernel_size={kernel_size}: a window "
            f"that lies wholly in the padding has no pixel to choose from; use padding={min(kernels) // 2} or less"
        )
    return kernels, strides, pads


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    bounds: Bounds = UNBOUNDED,
) -> Tensor:
    """Normalise every channel to mean 0 and variance 1, then scale and shift it.

    ``y = weight · (x − mean) / √(var + eps) + bias``, per channel. In training the mean and the (biased) variance are
    those of the batch, and the running statistics move towards the mean and the unbiased variance by ``momentum``, in
    place; otherwise the running statistics themselves are used. S. Ioffe, C. Szegedy, "Batch Normalization", 2015,
    algorithms 1 and 2.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    running_mean, running_var : Tensor, shape (C,)
    weight, bias : Tensor, shape (C,)
        Scale (gamma) and shift (beta).
    residual : Tensor, optional
        Of the shape of x; added to the result.
    bounds : (floor, ceiling)
        That the result, with the residual, is clipped to; (0, ∞) is a ReLU.

    Raises
    ------
    ValueError
        If the channels do not match, or training has a single value per channel to take statistics of.
    """
    check_images("batch_norm", x)
    if weight.shape != (x.shape[1],):
        raise ValueError(
            f"Expected {weight.size} channels, got input {x.shape} with {x.shape[1]}; "
            f"build BatchNorm2d(num_features={x.shape[1]})"
        )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, {x.shape}, got {residual.shape}")
    rows = _rows(channels_last(x.array))
    if training:
        mean, var = _batch_statistics(rows, x.shape)
        _move(running_mean, mean, momentum)
        _move(running_var, var * (len(rows) / (len(rows) - 1)), momentum)
    else:
        mean, var = running_mean.array.astype(np.float64), running_var.array.astype(np.float64)
    inverse_std = 1 / np.sqrt(var + eps)
    scale = weight.array * inverse_std
    y = empty_channels_last(x.shape, x.dtype)
    extra = None if residual is None else _rows(channels_last(residual.array.astype(x.dtype, copy=False)))
    norm.scale_shift(rows, mean, scale, bias.array, _rows(y), extra, bounds)
    clipped = None if bounds == UNBOUNDED else y

    def backward(grad: np.ndarray):
        grad = channels_last(grad)
        if clipped is not None:
            grad = elementwise.bounded_grad(grad, clipped, *bounds)
        dy = _rows(grad)
        d_bias, d_weight = norm.gradient_sums(dy, rows, mean, inverse_std)
        dx = empty_channels_last(grad.shape, grad.dtype)
        through = scale / len(rows) if training else np.zeros_like(scale)  # frozen statistics do not depend on x
        norm.combine(dy, rows, mean, scale, -through * inverse_std * d_weight, -through * d_bias, _rows(dx))
        return (dx, d_weight, d_bias) if residual is None else (dx, d_weight, d_bias, grad)

    return record(y, (x, weight, bias) if residual is None else (x, weight, bias, residual), backward)


def _batch_statistics(rows: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if len(rows) < 2:
        raise ValueError(
            f"BatchNorm in training needs more than one value per channel to take statistics of, got input {shape}; "
            "use a larger batch, or model.eval() to use the running statistics"
        )
    return norm.channel_moments(rows)


def _move(running: Tensor, value: np.ndarray, momentum: float) -> None:
    """Exponential moving average, in place."""
    running.data[...] = (1 - momentum) * running.data + momentum * value


def _rows(images: np.ndarray) -> np.ndarray:
    """View of channels-last (N, C, H, W) as (N·H·W, C)."""
    return pixels(images).reshape(-1, images.shape[1])
