"""Convolution as a layer.

A layer checks its settings, keeps its parameters, and hands the work to one function of ``conv_ops``. To see the seven
loops run, use ``tinytorch.use_algorithm("loops")``; they are written out in ``tinytorch/conv/loops.py``.
"""

from __future__ import annotations

import numpy as np

from tinytorch.conv.pack import lanes_last
from tinytorch.conv.planner import check_known
from tinytorch.conv.problem import Axis, ConvProblem, Padding, per_axis
from tinytorch.core import random
from tinytorch.core.conv_ops import Convolution, convolve
from tinytorch.core.images import Pair, feature_maps
from tinytorch.core.kept import Kept
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.tensor import Tensor


class Conv2d(Module):
    """2-D convolution with learnable filters.

    Parameters
    ----------
    in_channels, out_channels : int
        Feature maps read and written.
    kernel_size : int or (height, width)
    stride : int or (height, width)
        Pixels between two windows.
    padding : int, (height, width), ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the image, in pixels.
    bias : bool
        Whether each output channel has a learnable offset.
    dilation : int or (height, width)
        Pixels between two taps of the kernel.
    groups : int
        Independent convolutions that the channels are dealt to.
    algorithm : str, optional
        How to compute it; by default the planner chooses.

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

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        bias: bool = True,
        *,
        dilation: Pair = 1,
        groups: int = 1,
        algorithm: str | None = None,
    ) -> None:
        self.in_channels = feature_maps("in_channels", in_channels)
        self.out_channels = feature_maps("out_channels", out_channels)
        self.kernel_size = per_axis("kernel_size", kernel_size, 2)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.algorithm = algorithm
        _check_options(self)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        std = np.sqrt(2.0 / np.prod(shape[1:]))
        self.weight = Parameter(lanes_last(random.generator().normal(0, std, shape).astype(np.float32)))
        self.bias = Parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.folded = Kept()  # its weights with a batch normalisation folded in

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H_out, W_out)."""
        return convolve(x, self.weight, self.bias, self.options)

    @property
    def options(self) -> Convolution:
        """Everything but the channels, as `conv_ops` takes it."""
        return Convolution(self.stride, self.padding, self.dilation, self.groups, self.algorithm)

    def extra_repr(self) -> str:
        """Settings, those at their default left out."""
        options = {
            "dilation": (self.dilation, 1),
            "groups": (self.groups, 1),
            "algorithm": (self.algorithm, None),
        }
        extra = [f"{name}={value!r}" for name, (value, default) in options.items() if value != default]
        extra += ["bias=False"] if self.bias is None else []
        head = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return ", ".join([head, f"stride={self.stride}", f"padding={self.padding!r}", *extra])


def _check_options(layer: Conv2d) -> None:
    """Refuse at construction what no input can make right, by describing the smallest image that could fit."""
    extents = [
        Axis(1, k, 1, 0, 0, d).extent
        for k, d in zip(layer.kernel_size, per_axis("dilation", layer.dilation, 2), strict=True)
    ]
    groups = layer.groups if isinstance(layer.groups, int) and layer.groups > 0 else 1
    weight_shape = (layer.out_channels, layer.in_channels // groups, *layer.kernel_size)
    ConvProblem.of(
        (1, layer.in_channels, *extents),
        weight_shape,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
    if layer.algorithm is not None:
        check_known(layer.algorithm)
