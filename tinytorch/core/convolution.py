"""Convolution as layers.

A layer checks its settings, keeps its parameters, and hands the work to one function of ``conv_ops``. To see the seven
loops run, use ``tinytorch.use_algorithm("loops")``; they are written out in ``tinytorch/conv/loops.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tinytorch.conv import planner
from tinytorch.conv.pack import lanes_last, lanes_last_zeros
from tinytorch.conv.planner import ALGORITHMS, Choice, Plan
from tinytorch.conv.problem import (
    AXIS_NAMES,
    DIRECTIONS,
    ConvProblem,
    Direction,
    Padding,
    as_tuples,
    check_count,
    check_groups,
    per_axis,
)
from tinytorch.core import random
from tinytorch.core.conv_ops import Convolution, Transposed, convolution, told, transposed
from tinytorch.core.images import Pair, check_padding_mode
from tinytorch.core.kept import Kept
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.tensor import Tensor
from tinytorch.kernels.watch import rehearsing


class _Filters(Module):
    """What all convolution layers share: settings, filters, and an offset for each output channel."""

    dims: int
    weight: Parameter
    bias: Parameter | None

    def _set(  # type: ignore[no-untyped-def]
        self, channels: tuple[int, int], kernel_size, stride, padding, dilation, groups, padding_mode, algorithm
    ) -> None:
        self.in_channels = check_count("in_channels", channels[0], "feature maps")
        self.out_channels = check_count("out_channels", channels[1], "feature maps")
        self.kernel_size = per_axis("kernel_size", as_tuples(kernel_size), self.dims)
        self.stride, self.padding, self.dilation = map(as_tuples, (stride, padding, dilation))
        self.groups = check_groups(groups, *channels)
        self.padding_mode, self.algorithm = padding_mode, algorithm
        check_padding_mode(padding_mode)

    @property
    def _large(self) -> tuple[int, ...]:
        """The shape of an image that is large enough for all settings."""
        return (1, self.in_channels, *[1 << 30] * self.dims)

    def _check_algorithm(
        self, problem: ConvProblem, turned: Callable[[Direction], Direction] = lambda way: way
    ) -> None:
        """Raise unless the algorithm exists, and takes the problem, whose directions are the layer's ones, turned."""
        told(self.algorithm)
        if self.algorithm is None:
            return
        planner.check_choice(self.algorithm)
        named = self.algorithm if isinstance(self.algorithm, Mapping) else {DIRECTIONS[0]: self.algorithm}
        for way, name in named.items():
            reason = ALGORITHMS[name].refuses(problem, turned(way))
            if reason:
                raise ValueError(
                    f"algorithm {name!r} refuses the {way} of a {type(self).__name__} with these options: {reason}; "
                    "use another, or leave algorithm out"
                )

    def _draw(self, channels: tuple[int, int], fan_in: float, bias: bool) -> None:
        """Draw the weight, of so many outer and inner channels, from N(0, 2 / fan_in); in a rehearsal none."""
        shape = (*channels, *self.kernel_size)
        if rehearsing():
            self.weight = Parameter(lanes_last_zeros(shape))
        else:
            values = random.generator().normal(0, math.sqrt(2 / fan_in), shape)
            self.weight = Parameter(lanes_last(values.astype(np.float32)))
        self.bias = Parameter(np.zeros(self.out_channels, np.float32)) if bias else None

    def extra_repr(self) -> str:
        """Settings, those at their default left out."""
        defaults = {"output_padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros", "algorithm": None}
        options = {name: getattr(self, name, default) for name, default in defaults.items()}
        extra = [f"{name}={value!r}" for name, value in options.items() if value != defaults[name]]
        extra += ["bias=False"] if self.bias is None else []
        head = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return ", ".join([head, f"stride={self.stride}", f"padding={self.padding!r}", *extra])

    def _with_batch(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        shape = as_tuples(input_shape)
        known = isinstance(shape, tuple) and len(shape) - self.dims in (1, 2)
        if not known or not all(hasattr(size, "__index__") for size in shape):
            axes = ", ".join(("channels", *AXIS_NAMES[self.dims]))
            raise ValueError(f"input_shape must be integers (batch, {axes}) or ({axes}), got {input_shape!r}")
        return shape if len(shape) == self.dims + 2 else (1, *shape)


class _Conv(_Filters):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        algorithm: Choice | None = None,
    ) -> None:
        channels = in_channels, out_channels
        self._set(channels, kernel_size, stride, padding, dilation, groups, padding_mode, algorithm)
        filters = self.out_channels, self.in_channels // self.groups
        self._check_algorithm(self._problem(self._large, filters))
        self._draw(filters, filters[1] * math.prod(self.kernel_size), bias)
        self.folded = Kept()  # its weights with a batch normalisation folded in

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, in_channels, …), or (in_channels, …), to (N, out_channels, …), or (out_channels, …)."""
        return convolution(input, self.weight, self.bias, self.options)

    @property
    def options(self) -> Convolution:
        """Everything but the channels, as `conv_ops` takes it."""
        return Convolution(
            self.stride, self.padding, self.dilation, self.groups, self.algorithm, self.padding_mode, self.dims
        )

    def plan(self, input_shape: Sequence[int]) -> dict[Direction, Plan]:
        """Which algorithms compute the layer's three directions for an input of this shape, and why."""
        problem = self._problem(self._with_batch(input_shape), self.weight.shape[:2])
        wish = planner.told(self.algorithm)
        return {way: planner.plan(problem, way, wish, dtype=self.weight.dtype) for way in DIRECTIONS}

    def _problem(self, input_shape: Sequence[int], filters: tuple[int, ...]) -> ConvProblem:
        """The convolution that is computed; there is none if it refuses the settings."""
        shapes = input_shape, (*filters, *self.kernel_size)
        problem = ConvProblem.of(*shapes, self.stride, self.padding, self.dilation, self.groups)
        return problem if self.padding_mode == "zeros" else problem.padded


class Conv2d(_Conv):
    """2-D convolution with learnable filters.

    Parameters
    ----------
    in_channels, out_channels : int
        Feature maps read and written.
    kernel_size : int or (height, width)
    stride : int or (height, width)
        Pixels between two windows.
    padding : int, (height, width), ((top, bottom), (left, right)), or a name
        Pixels around the image: "valid" is none; "same" (or "same_upper") and "same_lower" give ⌈size / stride⌉
        outputs, an odd pixel going behind or in front of the image.
    dilation : int or (height, width)
        Pixels between two taps of the kernel.
    groups : int
        Independent convolutions that the channels are dealt to.
    bias : bool
        Whether each output channel has a learnable offset.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds.
    algorithm : str, or dict of str to str, optional
        How to compute it, or its "forward", "input_grad" and "weight_grad"; by default the planner chooses. `plan`
        tells what it chooses.

    Attributes
    ----------
    weight : Parameter, shape (out_channels, in_channels / groups, kernel_h, kernel_w)
        Drawn from N(0, 2 / fan_in) with fan_in = in_channels / groups · kernel_h · kernel_w, which keeps the variance
        through ReLU layers: K. He et al., "Delving Deep into Rectifiers", 2015, equation 10.
    bias : Parameter, shape (out_channels,), or None
        Starts at zero.

    Examples
    --------
    >>> conv = Conv2d(3, 64, kernel_size=3, padding=1)
    >>> conv(Tensor(np.zeros((1, 3, 32, 32), np.float32))).shape
    (1, 64, 32, 32)
    """

    dims = 2


class Conv1d(_Conv):
    """`Conv2d` with one axis: maps (N, in_channels, L) to (N, out_channels, L_out)."""

    dims = 1


class Conv3d(_Conv):
    """`Conv2d` with three axes: maps (N, in_channels, D, H, W) to (N, out_channels, D_out, H_out, W_out)."""

    dims = 3


class _ConvTranspose(_Filters):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        padding_mode: str = "zeros",
        *,
        algorithm: Choice | None = None,
    ) -> None:
        channels = in_channels, out_channels
        self._set(channels, kernel_size, stride, padding, dilation, groups, padding_mode, algorithm)
        self.output_padding = as_tuples(output_padding)
        filters = self.in_channels, self.out_channels // self.groups
        problem, _ = self._options(None).mirror(self._large, (*filters, *self.kernel_size))  # or it refuses
        self._check_algorithm(problem, planner.turned)
        windows = math.prod(max(1, axis.kernel / axis.stride) for axis in problem.axes)
        self._draw(filters, self.in_channels // self.groups * windows, bias)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Map (N, in_channels, …), or (in_channels, …), to (N, out_channels, …), or (out_channels, …).

        Parameters
        ----------
        output_size : tuple of int, optional
            Pixels of the output, or its whole shape; `output_padding` then does not count.
        """
        return transposed(input, self.weight, self.bias, self._options(output_size))

    def _options(self, output_size: Sequence[int] | None) -> Transposed:
        return Transposed(
            self.stride, self.padding, self.dilation, self.groups, self.algorithm, self.padding_mode, self.dims,
            self.output_padding, output_size,
        )  # fmt: skip

    def plan(self, input_shape: Sequence[int], output_size: Sequence[int] | None = None) -> dict[Direction, Plan]:
        """Which algorithms compute the layer's three directions for an input of this shape, and why.

        Each plan is that of a convolution: an "input_grad" for the layer's "forward", and the other way about.
        """
        problem, _ = self._options(output_size).mirror(self._with_batch(input_shape), self.weight.shape)
        wish = planner.told(self.algorithm).turned
        return {way: planner.plan(problem, planner.turned(way), wish, dtype=self.weight.dtype) for way in DIRECTIONS}


class ConvTranspose2d(_ConvTranspose):
    """2-D transposed convolution: every pixel is spread over the output by learnable filters.

    Parameters
    ----------
    in_channels, out_channels : int
        Feature maps read and written.
    kernel_size : int or (height, width)
    stride : int or (height, width)
        Output pixels from one input pixel to the next.
    padding : int, (height, width), ((top, bottom), (left, right)), or a name
        Output pixels that are cut off: "valid" is none, "same" and its kin leave size · stride.
    output_padding : int or (height, width)
        Rows and columns that the output goes on for at the bottom and the right.
    groups : int
        Independent maps that the channels are dealt to.
    bias : bool
        Whether each output channel has a learnable offset.
    dilation : int or (height, width)
        Output pixels between two taps of the kernel.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What lies beyond the borders of the input; see `conv_transpose2d`.
    algorithm : str, or dict of str to str, optional
        How to compute it, or its "forward", "input_grad" and "weight_grad"; by default the planner chooses. `plan`
        tells what it chooses.

    Attributes
    ----------
    weight : Parameter, shape (in_channels, out_channels / groups, kernel_h, kernel_w)
        Drawn from N(0, 2 / fan_in), as in `Conv2d`. The terms that make an output pixel are, on average, fan_in =
        in_channels / groups · kernel_h / stride_h · kernel_w / stride_w, where a quotient below 1 counts as 1.
    bias : Parameter, shape (out_channels,), or None
        Starts at zero.

    Examples
    --------
    >>> up = ConvTranspose2d(16, 8, kernel_size=2, stride=2)
    >>> up(Tensor(np.zeros((1, 16, 14, 14), np.float32))).shape
    (1, 8, 28, 28)
    """

    dims = 2


class ConvTranspose1d(_ConvTranspose):
    """`ConvTranspose2d` with one axis: maps (N, in_channels, L) to (N, out_channels, L_out)."""

    dims = 1


class ConvTranspose3d(_ConvTranspose):
    """`ConvTranspose2d` with three axes: maps (N, in_channels, D, H, W) to (N, out_channels, D_out, H_out, W_out)."""

    dims = 3


class DepthwiseSeparableConv2d(Module):
    """A filter for every channel, then a mixture of the channels at every pixel.

    For k × k kernels that takes 1 / out_channels + 1 / k² of the multiplications of a `Conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation, padding_mode
        Of the first step, as in `Conv2d`.
    bias : bool
        Whether both steps have learnable offsets.
    algorithm : str, or dict of str to str, optional
        How to compute both steps, as in `Conv2d`. `plan` tells what the planner chooses.

    Attributes
    ----------
    depthwise : Conv2d
        in_channels groups, to as many channels.
    pointwise : Conv2d
        Single pixels, to out_channels.

    Notes
    -----
    A. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017; there
    a normalisation and a ReLU follow each of the two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        algorithm: Choice | None = None,
    ) -> None:
        window = kernel_size, stride, padding, dilation
        self.depthwise = Conv2d(in_channels, in_channels, *window, in_channels, bias, padding_mode, algorithm=algorithm)
        self.pointwise = Conv2d(in_channels, out_channels, 1, bias=bias, algorithm=algorithm)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, in_channels, H, W), or (in_channels, H, W), to (N, out_channels, H_out, W_out), or without N."""
        return self.pointwise(self.depthwise(input))

    def plan(self, input_shape: Sequence[int]) -> dict[str, dict[Direction, Plan]]:
        """The plans of the two steps, "depthwise" and "pointwise", for an input of this shape."""
        depthwise = self.depthwise.plan(input_shape)
        pointwise = self.pointwise.plan(depthwise["forward"].problem.output_shape)
        return {"depthwise": depthwise, "pointwise": pointwise}
