"""Differentiable convolution, and what may follow it in the same step.

The arithmetic is done below, in ``tinytorch.conv``; here arrays become tensors, bad input is refused, and what the
backward needs is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinytorch.conv import planner
from tinytorch.conv.finish import Finish
from tinytorch.conv.pack import channels_last
from tinytorch.conv.planner import Choice, Wish
from tinytorch.conv.problem import AXIS_NAMES, ConvProblem, Padding
from tinytorch.conv.weights import Weights
from tinytorch.core import reach
from tinytorch.core.autograd import is_recorded, record
from tinytorch.core.images import UNBOUNDED, Bounds, Pair, check_images, check_padding_mode, rows_of, with_batch
from tinytorch.core.kept import weights_of
from tinytorch.core.pad_ops import surround
from tinytorch.core.pool_ops import Pooling, max_pooled, unpooled_grad
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import elementwise, norm


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    algorithm: Choice | None = None,
) -> Tensor:
    """Cross-correlate images with a bank of kernels.

    ``y[n, o, h, w] = bias[o] + Σ_{c, i, j} weight[o, c, i, j] · x[n, c, h·stride + i·dilation − padding, w·stride +
    j·dilation − padding]``

    Parameters
    ----------
    input : Tensor, shape (N, C_in, H, W) or (C_in, H, W)
    weight : Tensor, shape (C_out, C_in / groups, K_h, K_w)
    bias : Tensor, shape (C_out,), optional
    stride, dilation : int or (height, width)
        Pixels between two windows, and between two taps of a window.
    padding : int, (height, width), ((top, bottom), (left, right)), or a name
        Pixels around the image. "valid" is none; "same" (or "same_upper") and "same_lower" give ⌈size / stride⌉
        outputs, an odd pixel going behind or in front of the image: ONNX's ``auto_pad``.
    groups : int
        Independent convolutions that the channels are dealt to.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds; see `pad`.
    algorithm : str, or dict of str to str, optional
        "direct", "winograd", "winograd2", "depthwise", "planar", "im2col", "fft" or "loops", for all directions or by
        direction: ``{"forward": "fft", "input_grad": "direct", "weight_grad": "direct"}``. By default the planner
        chooses, for each direction apart.

    Returns
    -------
    Tensor, shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out)
        H_out = ⌊(H + padding − dilation · (K_h − 1) − 1) / stride⌋ + 1.

    Raises
    ------
    ValueError
        If shapes and options have no meaning together, or the algorithm refuses them.
    TypeError
        If input or weight is not a floating-point Tensor.
    """
    options = Convolution(stride, padding, dilation, groups, algorithm, padding_mode)
    return convolution(input, weight, bias, options)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    algorithm: Choice | None = None,
) -> Tensor:
    """Cross-correlate sequences (N, C_in, L) or (C_in, L) with kernels (C_out, C_in / groups, K); see `conv2d`."""
    options = Convolution(stride, padding, dilation, groups, algorithm, padding_mode, dims=1)
    return convolution(input, weight, bias, options)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    algorithm: Choice | None = None,
) -> Tensor:
    """Cross-correlate volumes (N, C_in, D, H, W) or (C_in, D, H, W) with kernels of three axes; see `conv2d`."""
    options = Convolution(stride, padding, dilation, groups, algorithm, padding_mode, dims=3)
    return convolution(input, weight, bias, options)


@dataclass(frozen=True)
class Convolution:
    """The options of `conv2d`, by their names there, and the spatial dimensions."""

    stride: Pair = 1
    padding: Padding = 0
    dilation: Pair = 1
    groups: int = 1
    algorithm: Choice | None = None
    padding_mode: str = "zeros"
    dims: int = 2

    kind, weight_axes = "conv", "out_channels, in_channels / groups"  # for errors


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, options: Convolution) -> Tensor:
    """`convolve`, which images without a batch may come to as well."""
    return with_batch(x, options.dims, lambda images: convolve(images, weight, bias, options))


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    options: Convolution,
    residual: Tensor | None = None,
    bounds: Bounds = UNBOUNDED,
    pooling: Pooling | None = None,
    weights: Weights | None = None,
) -> Tensor:
    """A convolution, then what follows it while the outputs are at hand: pool(clip(conv(x) + residual, *bounds)).

    Parameters
    ----------
    residual : Tensor, optional
        Of the output's shape, before pooling.
    bounds : (floor, ceiling)
        (0, ∞) is a ReLU.
    pooling : Pooling, optional
        The options of a `max_pool2d` without padding_mode.
    weights : Weights, optional
        To use in place of those of `weight`, where no gradient is wanted.
    """
    _check_operands(x, weight, options)
    _check_bias(bias, weight.shape[0])
    if options.padding_mode != "zeros":
        x, options = _padded(x, weight, options)
    inputs = [tensor for tensor in (x, weight, bias, residual) if tensor is not None]
    dtype = np.promote_types(x.dtype, weight.dtype)
    recorded = is_recorded(inputs)
    images = channels_last(x.array.astype(dtype, copy=False))
    weights = weights or weights_of(weight, dtype, recorded)
    problem = ConvProblem.of(
        images.shape, weight.shape, options.stride, options.padding, options.dilation, options.groups
    )
    algorithm = told(options.algorithm)
    offsets, extra = (None if t is None else t.array.astype(dtype, copy=False) for t in (bias, residual))
    if extra is not None and extra.shape != problem.output_shape:
        raise ValueError(f"residual must have the output's shape {problem.output_shape}, got {extra.shape}")
    y = planner.forward(problem, images, weights, Finish(offsets, extra, *bounds), algorithm)
    unpooled, winners, window = y.shape, None, None
    if pooling is not None:
        y, winners, window = max_pooled(y, pooling)
    if not recorded:
        return x.wrap(y)
    kernel = weights.array  # the backward needs other forms of it, so those of the forward may go
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
        dx = planner.input_grad(problem, dy, kernel, algorithm) if wanted[0] else None
        dw = None if saved is None else planner.weight_grad(problem, saved, dy, algorithm)
        return (dx, dw) + (() if bias is None else (db,)) + (() if residual is None else (dy,))

    return record(y, tuple(inputs), backward, reach.windows(problem.axes))


def _padded(x: Tensor, weight: Tensor, options: Convolution) -> tuple[Tensor, Convolution]:
    """The input with its padding around it, and the options without."""
    problem = ConvProblem.of(x.shape, weight.shape, options.stride, options.padding, options.dilation, options.groups)
    widths = [(axis.before, axis.after) for axis in problem.axes]
    return surround(x, widths, options.padding_mode), replace(options, padding=0, padding_mode="zeros")


# ---- transposed ---------------------------------------------------------------------------------------------


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    *,
    output_size: Sequence[int] | None = None,
    padding_mode: str = "zeros",
    algorithm: Choice | None = None,
) -> Tensor:
    """Spread every pixel over the output, as a kernel of weights: the linear map that is transposed to `conv2d`.

    ``y[n, o, h, w] = bias[o] + Σ weight[c, o, i, j] · x[n, c, p, q]`` over all c, i, j, p, q for which p·stride +
    i·dilation − padding is h, and q·stride + j·dilation − padding is w.

    Parameters
    ----------
    input : Tensor, shape (N, C_in, H, W) or (C_in, H, W)
    weight : Tensor, shape (C_in, C_out / groups, K_h, K_w)
    bias : Tensor, shape (C_out,), optional
    stride, dilation : int or (height, width)
        Output pixels from one input pixel to the next, and from one tap of the kernel to the next.
    padding : int, (height, width), ((top, bottom), (left, right)), or a name
        Output pixels that are cut off. "valid" is none; "same" (or "same_upper") and "same_lower" leave size · stride.
    output_padding : int or (height, width)
        Rows and columns that the output goes on for at the bottom and the right; less than stride or dilation.
    groups : int
        Independent maps that the channels are dealt to.
    output_size : (height, width), optional
        Pixels of the output, to be reached by such rows and columns; `output_padding` then does not count.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What lies beyond the input's borders. Each output pixel is what an input that goes on like that without end
        would make of it; so the input is padded by as many pixels as reach the output, and the rest cut off.
    algorithm : str, or dict of str to str, optional
        As in `conv2d`. Directions are those of this function, each of which is one of a convolution: this one's
        "forward" is an "input_grad" there, and the other way about.

    Returns
    -------
    Tensor, shape (N, C_out, H_out, W_out) or (C_out, H_out, W_out)
        H_out = (H − 1) · stride − padding + dilation · (K_h − 1) + output_padding + 1, where padding counts both sides.

    Raises
    ------
    ValueError
        If shapes and options have no meaning together, or the algorithm refuses them.
    TypeError
        If input or weight is not a floating-point Tensor.
    """
    options = Transposed(stride, padding, dilation, groups, algorithm, padding_mode, 2, output_padding, output_size)
    return transposed(input, weight, bias, options)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    *,
    output_size: Sequence[int] | None = None,
    padding_mode: str = "zeros",
    algorithm: Choice | None = None,
) -> Tensor:
    """The map transposed to `conv1d`, of (N, C_in, L) or (C_in, L); see `conv_transpose2d`."""
    options = Transposed(stride, padding, dilation, groups, algorithm, padding_mode, 1, output_padding, output_size)
    return transposed(input, weight, bias, options)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    *,
    output_size: Sequence[int] | None = None,
    padding_mode: str = "zeros",
    algorithm: Choice | None = None,
) -> Tensor:
    """The map transposed to `conv3d`, of (N, C_in, D, H, W) or (C_in, D, H, W); see `conv_transpose2d`."""
    options = Transposed(stride, padding, dilation, groups, algorithm, padding_mode, 3, output_padding, output_size)
    return transposed(input, weight, bias, options)


@dataclass(frozen=True)
class Transposed(Convolution):
    """The options of `conv_transpose2d`, by their names there, and the spatial dimensions."""

    output_padding: Pair = 0
    output_size: Sequence[int] | None = None

    kind, weight_axes = "conv_transpose", "in_channels, out_channels / groups"

    def mirror(
        self, input_shape: Sequence[int], weight_shape: Sequence[int]
    ) -> tuple[ConvProblem, tuple[tuple[int, int], ...]]:
        """`ConvProblem.transposed` with these options."""
        return ConvProblem.transposed(
            input_shape, weight_shape, self.stride, self.padding, self.output_padding, self.dilation, self.groups,
            self.output_size, endless=self.padding_mode != "zeros",
        )  # fmt: skip


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None, options: Transposed) -> Tensor:
    """`spread`, which images without a batch may come to as well."""
    return with_batch(x, options.dims, lambda images: spread(images, weight, bias, options))


def spread(x: Tensor, weight: Tensor, bias: Tensor | None, options: Transposed) -> Tensor:
    """A transposed convolution: an input gradient as forward, so a forward as input gradient.

    In the weight's gradient, input and output gradient change places.
    """
    _check_operands(x, weight, options)
    problem, beyond = options.mirror(x.shape, weight.shape)
    _check_bias(bias, problem.ci)
    x = surround(x, beyond, options.padding_mode)
    inputs = (x, weight) if bias is None else (x, weight, bias)
    dtype = np.promote_types(x.dtype, weight.dtype)
    recorded = is_recorded(inputs)
    images, weights = channels_last(x.array.astype(dtype, copy=False)), weights_of(weight, dtype, recorded)
    algorithm = told(options.algorithm).turned
    offsets = None if bias is None else bias.array.astype(dtype, copy=False)
    y = planner.input_grad(problem, images, weights, algorithm, Finish(offsets))
    if not recorded:
        return x.wrap(y)
    kernel = weights.array  # the backward needs other forms of it, so those of the forward may go
    saved = images if weight.requires_grad else None
    wanted = [tensor.requires_grad for tensor in inputs]

    def conv_transpose_backward(grad: np.ndarray):
        dy = channels_last(grad)
        dx = planner.forward(problem, dy, kernel, algorithm=algorithm) if wanted[0] else None
        dw = None if saved is None else planner.weight_grad(problem, dy, saved, algorithm)
        db = norm.channel_sums(rows_of(dy)).astype(dy.dtype) if wanted[2:] == [True] else None
        return (dx, dw, db)[: len(wanted)]

    return record(y, inputs, conv_transpose_backward, reach.spread(problem.axes))


# ---- what is refused ----------------------------------------------------------------------------------------


def _check_operands(x: Tensor, weight: Tensor, options: Convolution) -> None:
    dims = options.dims
    check_images(f"{options.kind}{dims}d", x, dims)
    if not isinstance(weight, Tensor) or weight.ndim != dims + 2 or weight.dtype.kind != "f":
        axes = ", ".join((options.weight_axes, *AXIS_NAMES[dims]))
        got = f"{weight.dtype} of shape {weight.shape}" if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating-point Tensor ({axes}), got {got}")
    check_padding_mode(options.padding_mode)


def _check_bias(bias: Tensor | None, channels: int) -> None:
    if bias is not None and (not isinstance(bias, Tensor) or bias.shape != (channels,)):
        got = bias.shape if isinstance(bias, Tensor) else type(bias).__name__
        raise ValueError(f"bias must have shape (out_channels,) = ({channels},), got {got}")


def told(algorithm: Choice | None) -> Wish:
    """`planner.told` of what may be anything.

    Raises
    ------
    TypeError
        If it is neither a name nor a dictionary of names.
    """
    names = algorithm.values() if isinstance(algorithm, Mapping) else (algorithm,)
    if not all(isinstance(name, str | None) for name in names):
        raise TypeError(
            f"algorithm must be a name, or a dictionary of names by direction, got {algorithm!r}; None lets the "
            "planner choose"
        )
    return planner.told(algorithm)
