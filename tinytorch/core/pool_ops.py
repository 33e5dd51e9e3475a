"""Differentiable pooling in one, two and three dimensions, each beside its backward.

Every function is written once, for any number of spatial axes, and known by three names. Sequences and images are
volumes with axes of one pixel; the arithmetic is done in ``tinytorch.kernels.pool``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from tinytorch.conv.pack import channels_last, empty_channels_last, pixels
from tinytorch.conv.problem import AXIS_NAMES, Axis, Padding, as_tuples, check_fits, pads_per_axis, per_axis
from tinytorch.core import reach
from tinytorch.core.autograd import record
from tinytorch.core.images import (
    Pair,
    check_images,
    check_not_empty,
    check_padding_mode,
    check_tables,
    is_number,
    with_batch,
)
from tinytorch.core.pad_ops import surround
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import memory, pool, strided

OutputSize = int | None | Sequence[int | None]
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

# ---- how windows slide --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooling:
    """The options of a pooling, by their names in `max_pool`."""

    dims: int
    kernel_size: Pair
    stride: Pair | None = None
    padding: Padding = 0
    dilation: Pair = 1
    ceil_mode: bool = False
    padding_mode: str = "zeros"

    def check(self) -> None:
        """Raise if no image can make these options right."""
        self._axes((1 << 30,) * self.dims)

    def windows(self, sizes: tuple[int, ...]) -> Sliding:
        """The windows over an image of these sizes.

        Raises
        ------
        ValueError
            If the options have no meaning, no window fits, or one holds no pixel.
        """
        axes = self._axes(sizes)
        grown = tuple(replace(axis, after=axis.after + _overhang(axis)) for axis in axes) if self.ceil_mode else axes
        for name, axis in zip(AXIS_NAMES[self.dims], grown, strict=True):
            check_fits(name, axis)
        return _sliding(axes, grown)

    def _axes(self, sizes: tuple[int, ...]) -> tuple[Axis, ...]:
        check_padding_mode(self.padding_mode)
        kernels, strides = kernel_and_stride(self.kernel_size, self.stride, self.dims)
        dilations = per_axis("dilation", as_tuples(self.dilation), self.dims)
        pads = pads_per_axis(self.padding, sizes, kernels, strides, dilations)
        numbers = zip(sizes, kernels, strides, pads, dilations, strict=True)
        axes = tuple(Axis(size, k, s, before, after, d) for size, k, s, (before, after), d in numbers)
        if self.padding_mode == "zeros":
            self._check_padding(axes)
        return axes

    def _check_padding(self, axes: tuple[Axis, ...]) -> None:
        if any(2 * max(axis.before, axis.after) > axis.extent for axis in axes):
            most = min(axis.extent for axis in axes) // 2
            raise ValueError(
                f"padding must be at most half the kernel, as in PyTorch, got padding={self.padding} for kernel_size="
                f"{self.kernel_size}; use padding={most} or less, or pad the input first"
            )

    def surround(self, x: Tensor) -> tuple[Tensor, Pooling]:
        """The image with its padding around it, and the options without; padding of zeros is never stored."""
        if self.padding_mode == "zeros":
            return x, self
        widths = [(axis.before, axis.after) for axis in self._axes(x.shape[2:])]
        return surround(x, widths, self.padding_mode), replace(self, padding=0, padding_mode="zeros")


@dataclass(frozen=True, eq=False)
class Sliding:
    """Windows over images.

    Parameters
    ----------
    out
        Windows along each axis.
    axes
        Where they lie, for depth, height and width.
    padded
        Of each window along those axes, the taps that lie in the image or its padding.
    reads
        The same for `autograd.record`.
    """

    out: tuple[int, ...]
    axes: pool.Axes
    padded: pool.Numbers
    reads: reach.Reads

    @property
    def held(self) -> pool.Numbers:
        """Of each window along the axes, the taps that lie in the image."""
        deep, high, wide = (axis.pixels.count.astype(np.float64) for axis in self.axes)
        return deep, high, wide


def kernel_and_stride(kernel_size: Pair, stride: Pair | None, dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both along every axis; a stride that is not given is the kernel size."""
    kernels, stride = per_axis("kernel_size", as_tuples(kernel_size), dims), as_tuples(stride)
    is_left_out = stride is None or (isinstance(stride, tuple) and not stride)
    return kernels, kernels if is_left_out else per_axis("stride", stride, dims)


def _overhang(axis: Axis) -> int:
    """Pixels by which the last window reaches beyond the padding if it need not fit.

    It must begin in front of the image or in it; a further one is left out.
    """
    out = -(-(axis.padded - axis.extent) // axis.stride) + 1
    out -= (out - 1) * axis.stride >= axis.before + axis.size
    return max(0, (out - 1) * axis.stride + axis.extent - axis.padded)


@lru_cache(maxsize=32)
def _sliding(axes: tuple[Axis, ...], grown: tuple[Axis, ...]) -> Sliding:
    """Windows over ``grown`` axes, of which ``axes`` is the image with its padding."""
    out = tuple(axis.out for axis in grown)
    windows = [
        pool.sliding(a.size, n, a.kernel, a.stride, a.before, a.dilation) for a, n in zip(axes, out, strict=True)
    ]
    for name, axis, along in zip(AXIS_NAMES[len(axes)], axes, windows, strict=True):
        if not along.pixels.count.all():
            raise ValueError(
                f"every window must hold a pixel, but along the {name} one of kernel_size={axis.kernel} and dilation="
                f"{axis.dilation} has none of {axis.size} under its taps; use less padding or dilation"
            )
    padded = [_taps_inside(axis, n) for axis, n in zip(axes, out, strict=True)]
    return Sliding(out, _volume(windows, pool.sliding(1, 1, 1, 1)), _volume(padded, np.ones(1)), reach.pooling(axes))


def _taps_inside(axis: Axis, out: int) -> np.ndarray:
    """Of each window, the taps in front of the end of the padding."""
    room = axis.padded - np.arange(out) * axis.stride
    return np.minimum(axis.kernel, -(-room // axis.dilation)).astype(np.float64)


@lru_cache(maxsize=32)
def _adaptive(sizes: tuple[int, ...], out: tuple[int, ...]) -> Sliding:
    windows = [pool.adaptive(size, n) for size, n in zip(sizes, out, strict=True)]
    counts = [along.pixels.count.astype(np.float64) for along in windows]
    reads = reach.adaptive(sizes, out)
    return Sliding(out, _volume(windows, pool.sliding(1, 1, 1, 1)), _volume(counts, np.ones(1)), reads)


# ---- images as volumes --------------------------------------------------------------------------------------------


def _volume(axes: Sequence[Any], one: Any) -> tuple[Any, Any, Any]:
    """One to three axes as depth, height and width; a line lies along the height, where lines are shared by threads."""
    deep, high, wide = {1: (one, *axes, one), 2: (one, *axes), 3: tuple(axes)}[len(axes)]
    return deep, high, wide


def _voxels(array: np.ndarray) -> np.ndarray:
    """Channels-last (n, c, …) as (n, d, h, w, c)."""
    images, *sizes, channels = pixels(array).shape
    return pixels(array).reshape(images, *_volume(sizes, 1), channels)


def _check(name: str, x: Tensor, dims: int) -> None:
    check_images(f"{name}{dims}d", x, dims)
    check_not_empty(x.shape, dims)


def _each_dims(
    function: Callable[Concatenate[int, Arguments], Result],
) -> tuple[Callable[Arguments, Result], Callable[Arguments, Result], Callable[Arguments, Result]]:
    """A function whose first argument is the number of spatial axes, as three: for one, two and three."""

    def of(dims: int) -> Callable[Arguments, Result]:
        @wraps(function)
        def pooling(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return function(dims, *args, **kwargs)

        pooling.__name__ = pooling.__qualname__ = f"{function.__name__}{dims}d"
        signature = inspect.signature(function)
        pooling.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        return pooling

    return of(1), of(2), of(3)


# ---- the largest --------------------------------------------------------------------------------------------------


def max_pool(
    dims: int,
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    padding_mode: str = "zeros",
) -> Any:
    """Largest value of every window.

    Parameters
    ----------
    input : Tensor, shape (N, C, …) or (C, …)
        With one, two or three spatial axes, as the function's name says.
    kernel_size : int or tuple of int
        Taps of a window, for all axes or each.
    stride : int or tuple of int, optional
        Pixels between two windows; by default the kernel size, so that windows do not overlap.
    padding : int, tuple of int, tuple of (before, after) pairs, or a name
        Pixels around the image. "valid" is none; "same" (or "same_upper") and "same_lower" give ⌈size / stride⌉
        windows, an odd pixel going behind or in front of the image: ONNX's ``auto_pad``.
    dilation : int or tuple of int
        Pixels between two taps of a window.
    ceil_mode : bool
        Whether a last window that begins in the image, or in front of it, may reach beyond the padding.
    return_indices : bool
        Whether to return where the values come from as well, as `max_unpool` takes it.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds; see `pad`. Of "zeros" nothing is ever taken: it is −∞ to a maximum, and at most half
        the window, so that no window is without a pixel.

    Returns
    -------
    Tensor, shape (N, C, ⌊(size + padding − dilation · (kernel − 1) − 1) / stride⌋ + 1, …)
        Rounded up with `ceil_mode`. The gradient goes to the first pixel that holds the maximum, row by row; NaN is
        larger than everything, and the gradient of several goes to the last of them.
    indices : Tensor of int64, of the same shape
        With `return_indices`: the pixel's number in the plane, or volume, of its image and channel, without padding.

    Raises
    ------
    ValueError
        If no window fits, one holds no pixel, a size is not positive, or the padding is more than half the kernel.
    TypeError
        If the input is not a floating-point Tensor, or a size not an integer.
    """
    pooling = Pooling(dims, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
    return max_pooling(input, pooling, return_indices)


def max_pooling(x: Tensor, pooling: Pooling, return_indices: bool) -> Any:
    """`max_pool` with these options."""
    return with_batch(x, pooling.dims, lambda images: _slide_max(images, pooling, return_indices))


def _slide_max(x: Tensor, pooling: Pooling, return_indices: bool) -> Any:
    _check("max_pool", x, pooling.dims)
    grown, bare = pooling.surround(x)
    y, indices = _largest(grown, bare.windows(grown.shape[2:]), return_indices)
    if grown is not x and indices is not None:
        numbers = Tensor(np.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:]))
        indices = Tensor.wrap(pooling.surround(numbers)[0].array.reshape(-1)[indices.array])
    return (y, indices) if return_indices else y


def _largest(x: Tensor, windows: Sliding, return_indices: bool) -> tuple[Tensor, Tensor | None]:
    y, winners = _max_pooled(channels_last(x.array), windows)
    shape = x.shape

    def max_pool(grad: np.ndarray):
        return (unpooled_grad(channels_last(grad), winners, shape, windows),)

    out = record(y, (x,), max_pool, windows.reads)
    return out, Tensor.wrap(_indices(winners, shape, windows)) if return_indices else None


def _indices(winners: np.ndarray, shape: tuple[int, ...], windows: Sliding) -> np.ndarray:
    if winners.dtype != np.uint8:
        return winners.copy(order="K")
    indices = empty_channels_last(winners.shape, np.dtype(np.int64))
    pool.places(_voxels(winners), _voxels(indices), windows.axes, _volume(shape[2:], 1))
    return indices


def max_pooled(images: np.ndarray, pooling: Pooling) -> tuple[np.ndarray, np.ndarray, Sliding]:
    """Pooled images, what won each of their pixels, and the windows; padding of zeros only."""
    windows = pooling.windows(images.shape[2:])
    return *_max_pooled(images, windows), windows


def _max_pooled(images: np.ndarray, windows: Sliding) -> tuple[np.ndarray, np.ndarray]:
    shape = (*images.shape[:2], *windows.out)
    y = empty_channels_last(shape, images.dtype)
    winners = empty_channels_last(shape, pool.winners_type(windows.axes))
    pool.max_pool(_voxels(images), _voxels(y), _voxels(winners), windows.axes)
    return y, winners


def unpooled_grad(grad: np.ndarray, winners: np.ndarray, shape: tuple[int, ...], windows: Sliding) -> np.ndarray:
    """Gradient of the pooling's input, of this shape."""
    dx = empty_channels_last(shape, grad.dtype)
    pool.max_pool_grad(_voxels(grad), _voxels(winners), _voxels(dx), windows.axes)
    return dx


# ---- means --------------------------------------------------------------------------------------------------------


def avg_pool(
    dims: int,
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Pair = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Mean of every window.

    Parameters
    ----------
    count_include_pad : bool
        Whether padding of zeros counts in the mean. What `ceil_mode` adds to it never does.
    divisor_override : int, optional
        To divide the sums by, in place of the number of pixels.

    The others, the shape and the errors are those of `max_pool`; a divisor of 0 is refused as well.
    """
    pooling = Pooling(dims, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
    return avg_pooling(input, pooling, count_include_pad, check_divisor(divisor_override))


def avg_pooling(x: Tensor, pooling: Pooling, count_include_pad: bool, divisor: int | None) -> Tensor:
    """`avg_pool` with these options."""

    def mean(images: Tensor) -> Tensor:
        _check("avg_pool", images, pooling.dims)
        grown, bare = pooling.surround(images)
        windows = bare.windows(grown.shape[2:])
        divisors = windows.padded if count_include_pad else windows.held
        if divisor is not None:
            deep, high, wide = map(np.ones_like, divisors)
            divisors = deep, high * divisor, wide
        return _mean(grown, windows, divisors)

    return with_batch(x, pooling.dims, mean)


def check_divisor(divisor: int | None) -> int | None:
    """What sums are divided by in an `avg_pool`, checked."""
    if divisor is not None and (isinstance(divisor, bool) or not hasattr(divisor, "__index__") or divisor == 0):
        raise ValueError(
            f"divisor_override must be an integer but not 0, got {divisor!r}; None divides by the number of pixels"
        )
    return divisor


def _mean(x: Tensor, windows: Sliding, divisors: pool.Numbers) -> Tensor:
    y = _sums(channels_last(x.array), windows, divisors)
    shape = x.shape

    def avg_pool(grad: np.ndarray):
        return (_sums_grad(channels_last(grad), shape, windows, divisors),)

    return record(y, (x,), avg_pool, windows.reads)


def _sums(images: np.ndarray, windows: Sliding, divisors: pool.Numbers) -> np.ndarray:
    y = empty_channels_last((*images.shape[:2], *windows.out), images.dtype)
    pool.sums(_voxels(images), _voxels(y), windows.axes, divisors)
    return y


def _sums_grad(grad: np.ndarray, shape: tuple[int, ...], windows: Sliding, divisors: pool.Numbers) -> np.ndarray:
    dx = empty_channels_last(shape, grad.dtype)
    pool.sums_grad(_voxels(grad), _voxels(dx), windows.axes, divisors)
    return dx


def lp_pool(
    dims: int,
    input: Tensor,
    norm_type: float,
    kernel_size: Pair,
    stride: Pair | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Pair = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Power average of every window: ``(Σ xᵖ)^(1/p)``.

    As in PyTorch the powers keep their signs: where a sum is negative, or a negative number has no such power, the
    result is NaN. The norms proper are those of ``input.abs()``. A window that `ceil_mode` lets reach beyond the
    padding counts as if what is missing had the mean of the rest.

    Parameters
    ----------
    norm_type : float
        p, larger than 0. 1 is the sum, 2 the Euclidean norm, ∞ the largest absolute value.

    The others, the shape and the errors are those of `max_pool`. Where the sum is 0 and p is not 1, so is the gradient.

    Raises
    ------
    ValueError
        If `norm_type` is not positive as well.
    """
    pooling = Pooling(dims, kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
    return lp_pooling(input, pooling, check_norm_type(norm_type))


def lp_pooling(x: Tensor, pooling: Pooling, p: float) -> Tensor:
    """`lp_pool` with these options."""

    def norm(images: Tensor) -> Tensor:
        _check("lp_pool", images, pooling.dims)
        if p == math.inf:
            return _slide_max(images.abs(), pooling, return_indices=False)
        grown, bare = pooling.surround(images)
        return _power_mean(grown, bare.windows(grown.shape[2:]), p)

    return with_batch(x, pooling.dims, norm)


def check_norm_type(norm_type: float) -> float:
    """The exponent of an `lp_pool`, checked."""
    if not is_number(norm_type) or not norm_type > 0:
        raise ValueError(f"norm_type must be a positive number, got {norm_type!r}; 2 is the Euclidean norm")
    return float(norm_type)


def _power_mean(x: Tensor, windows: Sliding, p: float) -> Tensor:
    images = channels_last(x.array)
    deep, high, wide = (taps / axis.taps for taps, axis in zip(windows.padded, windows.axes, strict=True))
    shares = deep, high, wide  # of a window, what lies in the image and its padding
    raised = memory.empty_like(images)
    pool.powers(images, p, raised)
    y = _sums(raised, windows, shares)
    pool.powers(y, 1 / p, y)

    def lp_pool(grad: np.ndarray):
        through = memory.empty_like(y)
        strided.assign(through, grad)
        pool.times_powers(y, 1 - p, through)
        dx = _sums_grad(through, images.shape, windows, shares)
        pool.times_powers(images, p - 1, dx)
        return (dx,)

    return record(y, (x,), lp_pool, windows.reads)


# ---- as many windows as are wanted --------------------------------------------------------------------------------


def adaptive_avg_pool(dims: int, input: Tensor, output_size: OutputSize) -> Tensor:
    """Mean of every window, with as many windows as the output is to have pixels.

    Along an axis of H pixels, window i of o reaches from ⌊i·H/o⌋ to ⌈(i + 1)·H/o⌉: the windows cover the image as
    evenly as its pixels allow, and share pixels where o does not divide H.

    Parameters
    ----------
    input : Tensor, shape (N, C, …) or (C, …)
        With one, two or three spatial axes, as the function's name says.
    output_size : int or tuple of int
        Pixels of the output, for all axes or each; None for an axis that stays as it is. More than the input has are
        allowed.

    Returns
    -------
    Tensor, shape (N, C, *output_size)

    Raises
    ------
    ValueError
        If a size is not positive.
    TypeError
        If the input is not a floating-point Tensor, or a size not an integer.
    """

    def mean(x: Tensor) -> Tensor:
        windows = _windows_for("adaptive_avg_pool", x, output_size, dims)
        return _mean(x, windows, windows.held)

    return with_batch(input, dims, mean)


def adaptive_max_pool(dims: int, input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """Largest value of every window, with as many windows as the output is to have pixels.

    Parameters, returned shape, errors and windows are those of `adaptive_avg_pool`; maxima and `return_indices` are
    those of `max_pool`.
    """

    def largest(x: Tensor) -> Any:
        windows = _windows_for("adaptive_max_pool", x, output_size, dims)
        y, indices = _largest(x, windows, return_indices)
        return (y, indices) if return_indices else y

    return with_batch(input, dims, largest)


def _windows_for(name: str, x: Tensor, output_size: OutputSize, dims: int) -> Sliding:
    _check(name, x, dims)
    wanted = zip(check_output_size(output_size, dims), x.shape[2:], strict=True)
    out = tuple(size if out is None else out for out, size in wanted)
    check_tables((*x.shape[:2], *out), x.dtype)
    return _adaptive(x.shape[2:], out)


def check_output_size(output_size: OutputSize, dims: int = 2) -> tuple[int | None, ...]:
    """Sizes of an adaptive pooling's output, each a number or None.

    Raises
    ------
    ValueError
        If there are more or fewer than `dims`, or one is not positive.
    """
    output_size = as_tuples(output_size)
    sizes = output_size if isinstance(output_size, tuple) else (output_size,)
    sizes = sizes * dims if len(sizes) == 1 else sizes
    per_axis("output_size", [1 if size is None else size for size in sizes], dims)
    return sizes


# ---- back to where the largest were -------------------------------------------------------------------------------


def max_unpool(
    dims: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Put maxima back to where `max_pool` found them, among zeros.

    Parameters
    ----------
    input, indices : Tensor, shape (N, C, …) or (C, …)
        What `max_pool` returned with `return_indices`. Of several values for one pixel, the last stays.
    kernel_size, stride, padding : int or tuple of int
        Those of the pooling.
    output_size : tuple of int, optional
        The pooling's input had this many pixels, or this whole shape: several sizes lead to one of the output. By
        default (size − 1) · stride − 2 · padding + kernel; less than a stride away from that.

    Returns
    -------
    Tensor, shape (N, C, *output_size)

    Raises
    ------
    ValueError
        If shapes, sizes and options have no meaning together, or an index lies outside the output.
    TypeError
        If the input is not a floating-point Tensor, or the indices are not a Tensor of int64.
    """
    _check_index_type(indices)
    if isinstance(input, Tensor) and input.ndim == dims + 1 and indices.ndim == dims + 1:
        whole = max_unpool(
            dims, input.unsqueeze(0), indices.unsqueeze(0), kernel_size, stride, padding,
            (1, *output_size) if output_size is not None and len(output_size) == dims + 1 else output_size,
        )  # fmt: skip
        return whole.squeeze(0)
    _check("max_unpool", input, dims)
    sizes = _unpooled_sizes(input.shape[2:], kernel_size, stride, padding, output_size)
    _check_indices(indices.array, input.shape, sizes)
    options = (*kernel_and_stride(kernel_size, stride, dims), per_axis("padding", padding, dims, least=0))
    axes = [Axis(size, *option) for size, *option in zip(sizes, *options, strict=True)]
    return _put(input, channels_last(indices.array), (*input.shape[:2], *sizes), reach.unpooling(axes))


def _put(x: Tensor, places: np.ndarray, shape: tuple[int, ...], reads: reach.Reads) -> Tensor:
    y = empty_channels_last(shape, x.dtype)
    pool.put(pixels(channels_last(x.array)), pixels(places), pixels(y), adding=False)

    def max_unpool(grad: np.ndarray):
        dx = empty_channels_last(places.shape, grad.dtype)
        pool.take(pixels(channels_last(grad)), pixels(places), pixels(dx))
        return (dx,)

    return record(y, (x,), max_unpool, reads)


def _unpooled_sizes(
    sizes: tuple[int, ...], kernel_size: Pair, stride: Pair | None, padding: Pair, output_size: Pair | None
) -> tuple[int, ...]:
    dims = len(sizes)
    kernels, strides = kernel_and_stride(kernel_size, stride, dims)
    pads = per_axis("padding", padding, dims, least=0)
    usual = tuple((n - 1) * s - 2 * p + k for n, k, s, p in zip(sizes, kernels, strides, pads, strict=True))
    if output_size is None:
        return per_axis("the output's size, (size − 1) · stride − 2 · padding + kernel_size,", usual, dims)
    given = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,)
    wanted = per_axis("output_size", given[2:] if len(given) == dims + 2 else given, dims)
    if any(abs(out - n) >= s for out, n, s in zip(wanted, usual, strides, strict=True)):
        raise ValueError(
            f"output_size must be less than a stride, {strides}, away from {usual}, got {given}: a pooling leads from "
            f"no other size to {sizes}"
        )
    return wanted


def _check_index_type(indices: Tensor) -> None:
    if not isinstance(indices, Tensor) or indices.dtype != np.int64:
        got = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"indices must be a Tensor of int64, as max_pool returns with return_indices=True, got {got}")


def _check_indices(indices: np.ndarray, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    if indices.shape != shape:
        raise ValueError(f"indices must have the shape of input, {shape}, got {indices.shape}")
    pixels_of_plane = math.prod(sizes)
    if indices.size and not 0 <= indices.min() <= indices.max() < pixels_of_plane:
        wrong = indices.min() if indices.min() < 0 else indices.max()
        raise ValueError(
            f"indices must lie in 0 … {pixels_of_plane - 1} for an output of {sizes}, got {wrong}; give output_size, "
            "the sizes of what was pooled"
        )


max_pool1d, max_pool2d, max_pool3d = _each_dims(max_pool)
avg_pool1d, avg_pool2d, avg_pool3d = _each_dims(avg_pool)
lp_pool1d, lp_pool2d, lp_pool3d = _each_dims(lp_pool)
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = _each_dims(adaptive_avg_pool)
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = _each_dims(adaptive_max_pool)
max_unpool1d, max_unpool2d, max_unpool3d = _each_dims(max_unpool)
