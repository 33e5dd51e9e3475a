"""Module 09: the layers of a convolutional network.

Each layer checks its settings, keeps its parameters, and hands the work to one function of ``spatial_ops``. To see
the seven loops run, use ``tinytorch.use_algorithm("loops")``; they are written out in ``tinytorch/conv/loops.py``.
"""

from __future__ import annotations

import numpy as np

from tinytorch.conv.pack import lanes_last
from tinytorch.conv.planner import check_known
from tinytorch.conv.problem import Axis, ConvProblem, Padding, per_axis
from tinytorch.core import random
from tinytorch.core import spatial_ops as ops
from tinytorch.core.activations import ReLU
from tinytorch.core.kept import Kept
from tinytorch.core.layers import Linear, Module, Parameter
from tinytorch.core.spatial_ops import Pair
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
        self.in_channels = _positive("in_channels", in_channels)
        self.out_channels = _positive("out_channels", out_channels)
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
        return ops.convolve(x, self.weight, self.bias, self.options)

    @property
    def options(self) -> ops.Convolution:
        """Everything but the channels, as `spatial_ops` takes it."""
        return ops.Convolution(self.stride, self.padding, self.dilation, self.groups, self.algorithm)

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


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}; it counts feature maps")
    return int(value)


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


class _Pool2d(Module):
    """What the two pooling layers share: their settings."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, _, _ = ops.check_pooling(kernel_size, stride, padding)
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    def extra_repr(self) -> str:
        """Window, step and border."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool2d):
    """Largest value of every window.

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        By default the kernel size, so that windows do not overlap.
    padding : int or (height, width)
        Border of −∞, at most half the kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H_out, W_out)."""
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool2d):
    """Mean of every window.

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        By default the kernel size, so that windows do not overlap.
    padding : int or (height, width)
        Border of zeros, which count in the mean; at most half the kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H_out, W_out)."""
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class AdaptiveAvgPool2d(Module):
    """Mean of every window, with as many windows as the output is to have pixels; see `spatial_ops`.

    Parameters
    ----------
    output_size : int or (height, width)
        Pixels of the output; None for a side that stays as it is. 1 is the mean over the whole image.
    """

    def __init__(self, output_size: ops.OutputSize) -> None:
        ops.check_output_size(output_size)
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, height, width)."""
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"


class BatchNorm2d(Module):
    """Normalise every channel over the batch and the image, then scale and shift it by learned amounts.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float
        How far the running statistics move towards those of each batch.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,)
        Scale and shift, which the pages call ``gamma`` and ``beta``; they start at 1 and 0.
    running_mean, running_var, num_batches_tracked : Tensor
        Buffers, used in place of the batch's statistics after ``eval()``.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.num_features = _positive("num_features", num_features)
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}; it keeps a constant channel from dividing by zero")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}; 0.1 averages over about ten batches")
        self.eps, self.momentum = eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.register_buffer("running_mean", Tensor(np.zeros(num_features, np.float32)))
        self.register_buffer("running_var", Tensor(np.ones(num_features, np.float32)))
        self.register_buffer("num_batches_tracked", Tensor(np.zeros((), np.int64)))

    @property
    def gamma(self) -> Parameter:
        """The scale, by its name in the pages."""
        return self.weight

    @property
    def beta(self) -> Parameter:
        """The shift, by its name in the pages."""
        return self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, num_features, H, W)."""
        return self.normalise(x)

    def normalise(self, x: Tensor, residual: Tensor | None = None, bounds: ops.Bounds = ops.UNBOUNDED) -> Tensor:
        """`forward`, then add a residual and clip, in the same pass over memory."""
        y = ops.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
            residual=residual,
            bounds=bounds,
        )
        if self.training:
            self.num_batches_tracked.data += 1
        return y

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class SimpleCNN(Module):
    """Two blocks of convolution, ReLU and pooling, then a linear classifier.

    Channels grow 3 → 16 → 32 while the image shrinks 32 → 16 → 8. Flattening keeps the autograd graph whole.

    Parameters
    ----------
    num_classes : int or None
        Outputs of the classifier; None leaves it out and returns the flattened features.
    in_channels : int
        Channels of the image.
    image_size : int or (height, width)
        At least 4 pixels.

    Examples
    --------
    >>> sum(p.size for p in SimpleCNN().parameters()), sum(p.size for p in SimpleCNN(num_classes=None).parameters())
    (25578, 5088)
    """

    def __init__(self, num_classes: int | None = 10, in_channels: int = 3, image_size: Pair = 32) -> None:
        height, width = per_axis("image_size", image_size, 2)
        if min(height, width) < 4:
            raise ValueError(f"image_size must be at least 4, got {image_size}; the network halves it twice")
        self.conv1 = Conv2d(in_channels, 16, kernel_size=3, padding=1)
        self.pool1 = MaxPool2d(2, stride=2)
        self.conv2 = Conv2d(16, 32, kernel_size=3, padding=1)
        self.pool2 = MaxPool2d(2, stride=2)
        self.relu = ReLU()
        self.flattened_size = 32 * (height // 4) * (width // 4)
        self.fc = None if num_classes is None else Linear(self.flattened_size, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to vectors (N, flattened_size)."""
        from tinytorch.core.fusion import conv_block  # which imports this file

        x = conv_block(x, self.conv1, activation=self.relu, pool=self.pool1)
        x = conv_block(x, self.conv2, activation=self.relu, pool=self.pool2)
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to one score per class, before softmax."""
        features = self.features(x)
        return features if self.fc is None else self.fc(features)
