"""Differentiable changes of size: interpolation, pixels dealt to channels and back, and windows as columns.

Interpolation is separable: along each axis it is a matrix with few weights in a row (`kernels.resample.Band`). One
function for each mode says which; the rest is the same for all modes and for one, two and three axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinytorch.conv.pack import channels_first, channels_last, empty_channels_last, pixels
from tinytorch.conv.problem import AXIS_NAMES, Axis, as_tuples, check_count, check_fits, per_axis
from tinytorch.core import reach
from tinytorch.core.autograd import record
from tinytorch.core.images import check_images, check_not_empty, check_tables, is_number, with_batch
from tinytorch.core.pad_ops import pad
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import memory, strided
from tinytorch.kernels.resample import Band, identity, resample

Size = int | Sequence[int]
Scale = float | Sequence[float]

# ---- interpolation --------------------------------------------------------------------------------------


def interpolate(
    input: Tensor,
    size: Size | None = None,
    scale_factor: Scale | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Images of another size.

    Along an axis, s = input size / output size, and output pixel i lies at (i + ½) · s − ½ in the input, where the
    whole numbers are the centres of the pixels.

    Parameters
    ----------
    input : Tensor, shape (N, C, …)
        With one to three spatial axes.
    size : int or sequence of int
        Pixels of the output, for all axes or each.
    scale_factor : float or sequence of float
        Instead of `size`: the output has ⌊size · scale_factor⌋ pixels, and s = 1 / scale_factor.
    mode : str
        "nearest" is pixel ⌊i · s⌋, as in OpenCV, and "nearest-exact" the pixel whose centre is nearest, as in Pillow.
        "linear", "bilinear" and "trilinear", for one, two and three axes, weigh the two pixels around along each axis,
        and "bicubic", for two, four: R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981,
        with a = −¾. "area" is the mean of all pixels that an output pixel touches, as in `adaptive_avg_pool2d`.
    align_corners : bool, optional
        Of the linear and cubic modes: whether the centres of the corner pixels coincide, s = (input size − 1) / (output
        size − 1), and output pixel i lies at i · s.
    recompute_scale_factor : bool, optional
        Whether s is input size / output size also where `scale_factor` is given.
    antialias : bool
        In modes "bilinear" and "bicubic" (here with a = −½), stretch the weights over s pixels where the image shrinks,
        as Pillow does.

    Returns
    -------
    Tensor, shape (N, C, …)

    Raises
    ------
    TypeError
        If the input is not a floating-point Tensor, a size is not an integer, or a switch not True or False.
    ValueError
        If the mode is unknown or not for such images, both or neither of `size` and `scale_factor` are given or do not
        fit them, an option is not one of the mode, or a size is not positive.
    """
    check_resizing(size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    _check_axes(input, mode)
    sizes = input.shape[2:]
    outs, factors = _sizes(sizes, size, scale_factor, bool(recompute_scale_factor))
    check_tables((*input.shape[:2], *outs), input.dtype)
    method = f"antialiased {mode}" if antialias else mode
    options = [(*axis, bool(align_corners), input.dtype) for axis in zip(sizes, outs, factors, strict=True)]
    bands, taps = [_band(method, *option) for option in options], [_taps(method, *option) for option in options]

    def backward(grad: np.ndarray):
        return (_resampled(grad, [band.transposed(n) for band, n in zip(bands, sizes, strict=True)]),)

    return record(_resampled(input.array, bands), (input,), backward, reach.bands(taps))


def _resampled(images: np.ndarray, bands: list[Band]) -> np.ndarray:
    """Images with a band applied along each axis."""
    out = empty_channels_last((*images.shape[:2], *(len(band.first) for band in bands)), images.dtype)
    if not len(images):
        return out
    missing = 3 - len(bands)
    x, y = (_with_axes(pixels(array), missing) for array in (channels_last(images), out))
    resample(x, y, *[identity(1, images.dtype)] * missing, *bands)
    return out


def _with_axes(images: np.ndarray, missing: int) -> np.ndarray:
    """View of (n, …, c) with axes of one pixel in front of its spatial ones."""
    return images.reshape(len(images), *(1,) * missing, *images.shape[1:])


# ---- the weights of each mode ---------------------------------------------------------------------------


class _Grid(NamedTuple):
    """Where the pixels of the output lie along one axis.

    Parameters
    ----------
    size, out
        Pixels of the input and of the output.
    factor
        What counts as the ratio of the two, if it is not just that.
    dtype
        What the places are computed in: rounding decides who is nearest.
    """

    size: int
    out: int
    factor: float | None
    align_corners: bool
    dtype: np.dtype

    @property
    def step(self) -> np.floating:
        """Input pixels from one output pixel to the next."""
        kind = self.dtype.type
        if self.align_corners:
            return kind(self.size - 1) / kind(self.out - 1) if self.out > 1 else kind(0)
        return kind(1 / self.factor) if self.factor else kind(self.size) / kind(self.out)

    @property
    def edges(self) -> np.ndarray:
        """Where output pixels begin, if input pixel i reaches from i to i + 1."""
        return np.arange(self.out, dtype=self.dtype) * self.step

    @property
    def middles(self) -> np.ndarray:
        """The middles of the output pixels, if input pixel i reaches from i to i + 1."""
        return (np.arange(self.out, dtype=self.dtype) + 0.5) * self.step

    @property
    def centres(self) -> np.ndarray:
        """The middles of the output pixels, if that of input pixel i is i."""
        return self.edges if self.align_corners else self.middles - 0.5


Weights = tuple[np.ndarray, np.ndarray, np.ndarray]  # first pixels, counts and weights of a band


@lru_cache(maxsize=256)
def _band(method: str, size: int, out: int, factor: float | None, align_corners: bool, dtype: np.dtype) -> Band:
    """The matrix of one axis. As in PyTorch, pixels are picked in float32."""
    places = np.dtype(np.float32) if method.startswith("nearest") else dtype
    factor = factor if _heeds_factor(method, size, out) else None
    first, count, weights = _METHODS[method](_Grid(size, out, factor, align_corners, places))
    return Band(np.ascontiguousarray(first), count, np.ascontiguousarray(weights, dtype))


@lru_cache(maxsize=256)
def _taps(method: str, size: int, out: int, factor: float | None, *options: Any) -> reach.Band:
    """What the matrix reads."""
    heeded = factor if _heeds_factor(method, size, out) else None
    step = _Grid(size, out, heeded, options[0], np.dtype(np.float64)).step
    return reach.Band(*_band(method, size, out, factor, *options), float(step))


def _heeds_factor(method: str, size: int, out: int) -> bool:
    """Whether the user's factor counts. As in PyTorch it does not along an axis that stays as long as it is, …"""
    if method == "nearest":
        return out not in (size, 2 * size)  # … nor, here, doubles
    return out != size or method in ("nearest-exact", "bicubic")  # except in these two


def _nearest(grid: _Grid) -> Weights:
    return _pixel_at(grid.edges, grid)


def _nearest_exact(grid: _Grid) -> Weights:
    return _pixel_at(grid.middles, grid)


def _pixel_at(places: np.ndarray, grid: _Grid) -> Weights:
    ones = np.ones(grid.out, np.int64)
    return np.minimum(places.astype(np.int64), grid.size - 1), ones, ones[:, None]


def _linear(grid: _Grid) -> Weights:
    """The pixels on either side of the centre; beyond the image, the outermost."""
    centres = np.maximum(grid.centres, 0)
    first = np.minimum(centres.astype(np.int64), grid.size - 1)
    count = np.minimum(grid.size - first, 2)
    share = np.where(count == 2, centres - first, 0)
    return first, count, np.stack([1 - share, share], axis=1)


def _cubic(grid: _Grid) -> Weights:
    """Two pixels on each side of the centre; a pixel beyond the image is the outermost."""
    centres = grid.centres[:, None]
    taps = np.floor(centres) + np.arange(-1, 3)
    inside = np.clip(taps, 0, grid.size - 1).astype(np.int64)
    first = inside[:, :1]
    weights = np.zeros(taps.shape)
    np.add.at(weights, (np.arange(grid.out)[:, None], inside - first), _keys(centres - taps, -0.75))
    return first[:, 0], inside[:, 3] - first[:, 0] + 1, weights


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys's kernel: cubic between the whole numbers, 1 at 0 and 0 at all others, and with slope a at 1."""
    x = np.abs(distance)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _area(grid: _Grid) -> Weights:
    outputs = np.arange(grid.out)
    first, end = outputs * grid.size // grid.out, -(-(outputs + 1) * grid.size // grid.out)
    return first, end - first, np.repeat(1 / (end - first)[:, None], (end - first).max(), axis=1)


def _antialiased(grid: _Grid, kernel: Callable[[np.ndarray], np.ndarray], radius: int) -> Weights:
    """A kernel that is stretched over the pixels that become one; what lies inside the image sums to 1."""
    stretch = max(grid.step, grid.dtype.type(1))
    middles = grid.middles
    first = np.maximum((middles - radius * stretch + 0.5).astype(np.int64), 0)
    count = np.minimum((middles + radius * stretch + 0.5).astype(np.int64), grid.size) - first
    offsets = np.arange(count.max())
    distance = (first[:, None] + offsets - middles[:, None] + 0.5) / stretch
    weights = np.where(offsets < count[:, None], kernel(distance), 0)
    return first, count, weights / weights.sum(axis=1, keepdims=True)


_METHODS: dict[str, Callable[[_Grid], Weights]] = {
    "nearest": _nearest,
    "nearest-exact": _nearest_exact,
    "area": _area,
    "linear": _linear,
    "bilinear": _linear,
    "trilinear": _linear,
    "bicubic": _cubic,
    "antialiased bilinear": lambda grid: _antialiased(grid, _triangle, 1),
    "antialiased bicubic": lambda grid: _antialiased(grid, lambda x: _keys(x, -0.5), 2),
}

# ---- pixels and channels dealt anew ---------------------------------------------------------------------


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Lay r² channels out as the r × r pixels of one.

    ``y[…, c, r·h + i, r·w + j] = x[…, (c·r + i)·r + j, h, w]``. W. Shi et al., "Real-Time Single Image and Video
    Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", 2016, equation 4.

    Parameters
    ----------
    input : Tensor, shape (…, C · r², H, W)
    upscale_factor : int
        r.

    Returns
    -------
    Tensor, shape (…, C, H · r, W · r)

    Raises
    ------
    TypeError
        If the input is not a Tensor.
    ValueError
        If the input has fewer than three axes, or r is not a positive integer whose square divides the channels.
    """
    *batch, channels, height, width = _shape("pixel_shuffle", input)
    r = check_count("upscale_factor", upscale_factor, "pixels")
    if channels % r**2:
        raise ValueError(
            f"upscale_factor={r} needs channels divisible by {r**2}, got {channels} in input {input.shape}"
        )
    split = (*batch, channels // r**2, r, r, height, width)
    shape, reads = (*batch, channels // r**2, height * r, width * r), reach.pixels_of_blocks(input.ndim, r)
    return _rearranged(input, split, (0, 3, 1, 4, 2), shape, reads)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Make r² channels of r × r pixels: the inverse of `pixel_shuffle`.

    Parameters
    ----------
    input : Tensor, shape (…, C, H · r, W · r)
    downscale_factor : int
        r.

    Returns
    -------
    Tensor, shape (…, C · r², H, W)

    Raises
    ------
    TypeError
        If the input is not a Tensor.
    ValueError
        If the input has fewer than three axes, or r is not a positive integer that divides height and width.
    """
    *batch, channels, height, width = _shape("pixel_unshuffle", input)
    r = check_count("downscale_factor", downscale_factor, "pixels")
    if height % r or width % r:
        raise ValueError(f"downscale_factor={r} must divide height and width, got input {input.shape}; crop or pad it")
    split = (*batch, channels, height // r, r, width // r, r)
    shape, reads = (*batch, channels * r**2, height // r, width // r), reach.blocks_of_pixels(input.ndim, r)
    return _rearranged(input, split, (0, 2, 4, 1, 3), shape, reads)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Take channels from g groups in turn: channel i of group j becomes channel i·g + j.

    X. Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", 2018,
    section 3.1.

    Parameters
    ----------
    input : Tensor, shape (N, C, …)
    groups : int
        g.

    Returns
    -------
    Tensor, shape (N, C, …)

    Raises
    ------
    TypeError
        If the input is not a Tensor.
    ValueError
        If the input has fewer than three axes, or g is not a positive integer that divides the channels.
    """
    batch, channels, *sizes = _shape("channel_shuffle", input)
    groups = check_count("groups", groups, "groups of channels")
    if channels % groups:
        raise ValueError(f"groups must divide the channels, got groups={groups} for {channels} in input {input.shape}")
    split = (batch, groups, channels // groups, *sizes)
    return _rearranged(input, split, (1, 0, *range(2, len(split) - 1)), input.shape, reach.pointwise(input.ndim))


def _rearranged(
    input: Tensor, split: Sequence[int], order: Sequence[int], shape: Sequence[int], reads: reach.Reads
) -> Tensor:
    """Split axes, take the last ones in another order, and merge them to ``shape``."""
    lead = len(split) - len(order)
    order = (*range(lead), *(lead + axis for axis in order))
    merged, before = tuple(split[axis] for axis in order), input.shape

    def backward(grad: np.ndarray):
        return (_moved(grad, merged, np.argsort(order).tolist(), before),)

    return record(_moved(input.array, split, order, tuple(shape)), (input,), backward, reads)


def _moved(array: np.ndarray, split: Sequence[int], order: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    out = memory.empty_like(array, shape)
    axes = array.reshape(split).transpose(order)
    strided.assign(out.reshape(axes.shape), axes)  # axes that are only split never need a copy
    return out


# ---- windows as columns ---------------------------------------------------------------------------------


def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """Make a column of every window, as im2col does.

    Parameters
    ----------
    input : Tensor, shape (N, C, …) or (C, …)
        With two spatial axes, or as many as `kernel_size` has numbers.
    kernel_size : int or sequence of int
        Pixels of a window; the other arguments are as in `conv2d`.
    dilation, padding, stride : int or sequence of int

    Returns
    -------
    Tensor, shape (N, C · pixels of a window, windows) or without N

    Raises
    ------
    TypeError
        If the input is not a floating-point Tensor, or an option not an integer.
    ValueError
        If shape and options have no meaning together, or no window fits.
    """
    dims = spatial_axes("kernel_size", kernel_size)
    return with_batch(input, dims, lambda x: _unfold(x, dims, (kernel_size, dilation, padding, stride)))


def _unfold(images: Tensor, dims: int, options: tuple[Size, Size, Size, Size]) -> Tensor:
    check_images("unfold", images, dims)
    check_not_empty(images.shape, dims)
    axes = _windows(images.shape[2:], options)
    widths = _widths(axes)
    images = pad(images, widths) if any(widths) else images
    shape = images.shape

    def backward(grad: np.ndarray):
        return (_sum_windows(grad, shape, axes),)

    columns = _copy_windows(images.array, axes)
    return record(columns, (images,), backward, reach.columns(axes, columns.shape))


def fold(
    input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Add columns up to the images whose windows they are, as col2im does: the transpose of `unfold`.

    Parameters
    ----------
    input : Tensor, shape (N, C · pixels of a window, windows) or without N
    output_size : int or sequence of int
        Pixels of the images, which have two spatial axes, or as many as this has numbers.
    kernel_size, dilation, padding, stride : int or sequence of int
        As in `unfold`.

    Returns
    -------
    Tensor, shape (N, C, …) or (C, …)

    Raises
    ------
    TypeError
        If the input is not a floating-point Tensor, or an option not an integer.
    ValueError
        If the columns are not those of such images.
    """
    sizes = per_axis("output_size", as_tuples(output_size), spatial_axes("output_size", output_size))
    return with_batch(input, 1, lambda x: _fold(x, sizes, (kernel_size, dilation, padding, stride)))


def _fold(columns: Tensor, sizes: tuple[int, ...], options: tuple[Size, Size, Size, Size]) -> Tensor:
    check_images("fold", columns, 1)
    axes = _windows(sizes, options)
    taps, windows = _column_shape(1, axes)
    if not columns.shape[1] or columns.shape[1] % taps or columns.shape[2] != windows:
        raise ValueError(
            f"fold needs input (N, C · {taps}, {windows}): windows of {taps} pixels, {windows} of them in images of "
            f"{sizes}; got input {columns.shape}; output_size and the options must be those of the unfold"
        )
    shape = (len(columns), columns.shape[1] // taps, *(axis.padded for axis in axes))

    def backward(grad: np.ndarray):
        return (_copy_windows(grad, axes),)

    reads = reach.uncolumns(axes, columns.shape)
    images = record(_sum_windows(columns.array, shape, axes), (columns,), backward, reads)
    return pad(images, [-width for width in _widths(axes)])


def _copy_windows(images: np.ndarray, axes: list[Axis]) -> np.ndarray:
    """Columns (n, c · taps, windows) of padded images."""
    windows = _view_windows(channels_first(images), axes)
    columns = memory.empty(windows.shape, images.dtype)
    strided.assign(columns, windows)
    return columns.reshape(*images.shape[:1], *_column_shape(images.shape[1], axes))


def _sum_windows(columns: np.ndarray, shape: tuple[int, ...], axes: list[Axis]) -> np.ndarray:
    """Padded images of this shape, of columns like those; tap after tap, unless no two windows meet."""
    images = memory.zeros(shape, columns.dtype)
    windows = _view_windows(images, axes)
    columns = columns.reshape(windows.shape)
    if all(axis.stride >= axis.extent for axis in axes):
        strided.assign(windows, columns)
        return images
    for tap in np.ndindex(*(axis.kernel for axis in axes)):
        strided.add(windows[:, :, *tap], columns[:, :, *tap])
    return images


def _view_windows(images: np.ndarray, axes: list[Axis]) -> np.ndarray:
    """View of padded images (n, c, …) as (n, c, taps along each axis, windows along each axis)."""
    taps = [stride * axis.dilation for stride, axis in zip(images.strides[2:], axes, strict=True)]
    places = [stride * axis.stride for stride, axis in zip(images.strides[2:], axes, strict=True)]
    shape = (*images.shape[:2], *(axis.kernel for axis in axes), *(axis.out for axis in axes))
    return np.lib.stride_tricks.as_strided(images, shape, (*images.strides[:2], *taps, *places))


def _column_shape(channels: int, axes: list[Axis]) -> tuple[int, int]:
    """Numbers in a column, and columns."""
    return channels * math.prod(axis.kernel for axis in axes), math.prod(axis.out for axis in axes)


# ---- checks ---------------------------------------------------------------------------------------------

_MODES = {  # the numbers of spatial axes that a mode is for
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
}


def check_resizing(
    size: Size | None,
    factor: Scale | None,
    mode: str,
    align_corners: bool | None = None,
    recompute: bool | None = None,
    antialias: bool = False,
) -> None:
    """Raise if no image can make these options of `interpolate` right."""
    if not isinstance(mode, str) or mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}")
    switches = {"align_corners": align_corners, "recompute_scale_factor": recompute, "antialias": antialias}
    for name, switch in switches.items():
        if not isinstance(switch, bool | np.bool_ | None):
            raise TypeError(f"{name} must be True or False, got {switch!r}; leave it out for what is usual")
    if (size is None) == (factor is None):
        raise ValueError(f"give either size or scale_factor, got size={size} and scale_factor={factor}")
    if factor is None and recompute:
        raise ValueError(f"recompute_scale_factor is for a scale_factor, got size={size}; leave it out")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(
            f"align_corners is for the linear and cubic modes, got align_corners={align_corners} with mode={mode!r}; "
            "leave it out"
        )
    if antialias and f"antialiased {mode}" not in _METHODS:
        raise ValueError(f"antialias is for modes 'bilinear' and 'bicubic', got mode={mode!r}; leave it out")


def _check_axes(input: Tensor, mode: str) -> None:
    dims = input.ndim - 2 if isinstance(input, Tensor) else 2
    if dims not in _MODES[mode]:
        fitting = [repr(name) for name, numbers in _MODES.items() if dims in numbers]
        raise ValueError(
            f"mode {mode!r} is for input (N, C, …) with {' or '.join(map(str, _MODES[mode]))} spatial axes, got "
            f"{input.shape}; {'use ' + ' or '.join(fitting) if fitting else 'add or merge axes with reshape'}"
        )
    check_images("interpolate", input, dims)
    check_not_empty(input.shape, dims)


def _sizes(
    sizes: tuple[int, ...], size: Size | None, factor: Scale | None, recompute: bool
) -> tuple[tuple[int, ...], Sequence[float | None]]:
    """Pixels of the output along each axis, and their ratio to those of the input where the user says it."""
    unsaid = (None,) * len(sizes)
    if factor is None:
        return per_axis("size", as_tuples(size), len(sizes)), unsaid
    factors = _factors(factor, len(sizes))
    outs = tuple(int(n * f) for n, f in zip(sizes, factors, strict=True))
    if 0 in outs:
        raise ValueError(
            f"scale_factor must leave a pixel on every axis, got {factor} for {sizes}, which makes {outs}; use a "
            "larger one"
        )
    return outs, unsaid if recompute else factors


def _factors(factor: Scale, dims: int) -> tuple[float, ...]:
    factors: Any = as_tuples(factor)
    factors = factors if isinstance(factors, tuple) else (factors,) * dims
    if len(factors) != dims or not all(is_number(f) and 0 < f < math.inf for f in factors):
        raise ValueError(
            f"scale_factor must be a positive number, or one for each of {', '.join(AXIS_NAMES[dims])}; got {factor!r}"
        )
    return tuple(map(float, factors))


def _shape(name: str, input: Tensor) -> tuple[int, ...]:
    """Shape of what is to be rearranged."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{name} expects a Tensor, got {type(input).__name__}; wrap the array: Tensor(x)")
    if input.ndim < 3:
        raise ValueError(f"{name} needs at least three axes, channels and the image's, got input {input.shape}")
    return input.shape


def spatial_axes(name: str, size: Size) -> int:
    """Spatial axes that a size is meant for: as many as it has numbers, two if it is one number for all.

    Raises
    ------
    ValueError
        If they are not one to three.
    """
    size = as_tuples(size)
    dims = len(size) if isinstance(size, tuple) else 2
    if dims not in AXIS_NAMES:
        raise ValueError(f"{name} must be an integer or one for each of one to three axes, got {size!r}")
    return dims


def check_windows(kernel_size: Size, dilation: Size, padding: Size, stride: Size, dims: int) -> list[tuple[int, ...]]:
    """The same options, each with a number for every axis.

    Raises
    ------
    TypeError
        If a number is not an integer.
    ValueError
        If there are too many or too few, or one is too small.
    """
    least = {"kernel_size": 1, "dilation": 1, "padding": 0, "stride": 1}
    options = zip(least, (kernel_size, dilation, padding, stride), strict=True)
    return [per_axis(name, as_tuples(value), dims, least[name]) for name, value in options]


def _windows(sizes: tuple[int, ...], options: tuple[Size, Size, Size, Size]) -> list[Axis]:
    """The windows along each axis, checked."""
    dims = len(sizes)
    values = zip(sizes, *check_windows(*options, dims), strict=True)
    axes = [Axis(size, kernel, stride, pad, pad, dilation) for size, kernel, dilation, pad, stride in values]
    for name, axis in zip(AXIS_NAMES[dims], axes, strict=True):
        check_fits(name, axis)
    return axes


def _widths(axes: list[Axis]) -> list[int]:
    """Padding as `pad` takes it."""
    return [width for axis in reversed(axes) for width in (axis.before, axis.after)]
