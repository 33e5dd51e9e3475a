"""Differentiable pooling, each beside its backward; the arithmetic is done in ``tinytorch.kernels.pool``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinytorch.conv.pack import channels_last, empty_channels_last, pixels
from tinytorch.conv.problem import AXIS_NAMES, Axis, check_fits, per_axis
from tinytorch.core.autograd import record
from tinytorch.core.images import Pair, check_images
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import pool

OutputSize = int | None | Sequence[int | None]


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
    y, winners, window = max_pooled(channels_last(x.array), (kernel_size, stride, padding))
    shape = x.shape

    def backward(grad: np.ndarray):
        return (unpooled_grad(channels_last(grad), winners, shape, window),)

    return record(y, (x,), backward)


def max_pooled(
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


def unpooled_grad(grad: np.ndarray, winners: np.ndarray, shape: tuple[int, ...], window: pool.Window) -> np.ndarray:
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
