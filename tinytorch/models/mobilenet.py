"""MobileNetV2: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2.

Modules and parameters have torchvision's names, so that its trained weights fit.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinytorch.core.activations import ReLU6
from tinytorch.core.fusion import conv_block
from tinytorch.core.layers import Linear, Module, Sequential
from tinytorch.core.pool_ops import adaptive_avg_pool2d
from tinytorch.core.regularisation import Dropout
from tinytorch.core.spatial import BatchNorm2d, Conv2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.initial import draw_normal

STAGES = (  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_bn_relu6(channels: int, width: int, kernel_size: int, stride: int = 1, groups: int = 1) -> Sequential:
    conv = Conv2d(channels, width, kernel_size, stride, padding=kernel_size // 2, bias=False, groups=groups)
    return Sequential(conv, BatchNorm2d(width), ReLU6())


class InvertedResidual(Module):
    """Widen by a 1×1 convolution, filter each channel by itself, narrow by a 1×1 convolution without activation.

    A shortcut leads around, if input and output have the same shape.

    Parameters
    ----------
    channels, out_channels : int
        Of the input and the output.
    stride : int
        Of the filter in the middle.
    expansion : int
        By how much to widen; at 1 that convolution is left out.
    """

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int) -> None:
        width = channels * expansion
        self.has_shortcut = stride == 1 and channels == out_channels
        self.conv = Sequential(
            *([_conv_bn_relu6(channels, width, 1)] if expansion > 1 else []),
            _conv_bn_relu6(width, width, 3, stride, groups=width),
            Conv2d(width, out_channels, 1, bias=False),
            BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        *before, conv, norm = self.conv
        y = x
        for module in before:
            y = module(y)
        return conv_block(y, conv, norm, residual=x if self.has_shortcut else None)


class MobileNetV2(Module):
    """A stem, seven stages of inverted residuals, a 1×1 convolution, the mean over the image, a linear classifier.

    Parameters
    ----------
    num_classes : int
    in_channels : int
        Channels of the image.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        self.features = Sequential(
            _conv_bn_relu6(in_channels, 32, 3, stride=2), *_blocks(32), _conv_bn_relu6(320, 1280, 1)
        )
        self.classifier = Sequential(Dropout(0.2), Linear(1280, num_classes))
        draw_normal(self, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to one score per class."""
        return self.classifier(adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def _blocks(channels: int) -> Iterator[Module]:
    for expansion, width, blocks, stride in STAGES:
        for block in range(blocks):
            yield InvertedResidual(channels, width, 1 if block else stride, expansion)
            channels = width


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV2:
    """MobileNetV2: 3,504,872 parameters."""
    return MobileNetV2(num_classes, in_channels)
