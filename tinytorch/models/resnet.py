"""Residual networks: K. He et al., "Deep Residual Learning for Image Recognition", 2015.

Modules and parameters have torchvision's names, so that its trained weights fit. As there, a bottleneck halves the
image in its 3×3 convolution (the paper does so in the first 1×1).
"""

from __future__ import annotations

from collections.abc import Iterator

from tinytorch.core.activations import ReLU
from tinytorch.core.fusion import conv_block
from tinytorch.core.layers import Linear, Module, Sequential
from tinytorch.core.spatial import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.initial import draw_normal


class BasicBlock(Module):
    """Two 3×3 convolutions and a shortcut around them.

    Parameters
    ----------
    channels : int
        Of the input.
    width : int
        Of the output.
    stride : int
        Of the first convolution.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        self.conv1 = Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.relu = ReLU()
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_block(x, self.conv1, self.bn1, self.relu)
        return conv_block(y, self.conv2, self.bn2, self.relu, residual=shortcut)


class Bottleneck(Module):
    """A 3×3 convolution between two 1×1 that narrow and widen, and a shortcut around them.

    Parameters
    ----------
    channels : int
        Of the input.
    width : int
        Of the 3×3 convolution; the output has four times as many.
    stride : int
        Of the 3×3 convolution.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        self.conv1 = Conv2d(channels, width, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = BatchNorm2d(width * self.expansion)
        self.relu = ReLU()
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, 4·width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_block(x, self.conv1, self.bn1, self.relu)
        y = conv_block(y, self.conv2, self.bn2, self.relu)
        return conv_block(y, self.conv3, self.bn3, self.relu, residual=shortcut)


def _shortcut(channels: int, out_channels: int, stride: int) -> Sequential | None:
    """What brings the input to the shape of the output; None if it has it already."""
    if stride == 1 and channels == out_channels:
        return None
    return Sequential(Conv2d(channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels))


class ResNet(Module):
    """A stem, four stages of blocks, the mean over the image, and a linear classifier.

    Parameters
    ----------
    block : type
        BasicBlock or Bottleneck.
    depths : tuple of four int
        Blocks in each stage. From one stage to the next the width doubles and the image halves.
    num_classes : int
    in_channels : int
        Channels of the image.
    small_images : bool
        Begin with a 3×3 convolution, for images of about 32 pixels, instead of a 7×7 one of stride 2 and a pooling,
        which leave a quarter of height and width.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        small_images: bool = False,
    ) -> None:
        kernel_size, stride = (3, 1) if small_images else (7, 2)
        self.conv1 = Conv2d(in_channels, 64, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.relu = ReLU()
        self.maxpool = None if small_images else MaxPool2d(3, stride=2, padding=1)
        self.layer1 = Sequential(*_stage(block, 64, 64, depths[0], stride=1))
        self.layer2 = Sequential(*_stage(block, 64 * block.expansion, 128, depths[1], stride=2))
        self.layer3 = Sequential(*_stage(block, 128 * block.expansion, 256, depths[2], stride=2))
        self.layer4 = Sequential(*_stage(block, 256 * block.expansion, 512, depths[3], stride=2))
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(512 * block.expansion, num_classes)
        draw_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to one score per class."""
        x = conv_block(x, self.conv1, self.bn1, self.relu, pool=self.maxpool)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(
    block: type[BasicBlock | Bottleneck], channels: int, width: int, depth: int, stride: int
) -> Iterator[Module]:
    yield block(channels, width, stride)
    for _ in range(depth - 1):
        yield block(width * block.expansion, width)


def resnet18(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-18: 11,689,512 parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels)


def resnet18_cifar(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """ResNet-18 for images of about 32 pixels: 11,173,962 parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, small_images=True)


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-34: 21,797,672 parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels)


def resnet50(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-50: 25,557,032 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels)


def resnet101(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-101: 44,549,160 parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels)


def resnet152(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-152: 60,192,808 parameters."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, in_channels)
