"""Module 09: the layers of a convolutional network, and the network that the module ends with.

The layers are those of ``tinytorch.nn``, but take batches only: what is missing from ``x.reshape(1, 3, 32, 32)`` is
more often forgotten than meant.
"""

from __future__ import annotations

from typing import Any

from tinytorch.conv.problem import Padding, as_tuples, per_axis
from tinytorch.core import convolution, pooling
from tinytorch.core.activations import ReLU
from tinytorch.core.fusion import conv_block
from tinytorch.core.images import BatchOnly, Pair
from tinytorch.core.layers import Linear, Module
from tinytorch.core.normalisation import BatchNorm2d
from tinytorch.core.tensor import Tensor

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "Conv2d", "MaxPool2d", "SimpleCNN"]


class Conv2d(BatchOnly, convolution.Conv2d):
    """`nn.Conv2d` for batches, with the arguments in the order of the pages: bias is the sixth."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias, **options)


class MaxPool2d(BatchOnly, pooling.MaxPool2d):
    """`nn.MaxPool2d` for batches."""


class AvgPool2d(BatchOnly, pooling.AvgPool2d):
    """`nn.AvgPool2d` for batches."""


class AdaptiveAvgPool2d(BatchOnly, pooling.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d` for batches."""


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
        height, width = per_axis("image_size", as_tuples(image_size), 2)
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
        x = conv_block(x, self.conv1, activation=self.relu, pool=self.pool1)
        x = conv_block(x, self.conv2, activation=self.relu, pool=self.pool2)
        return x.flatten(1)

    def forward(self, input: Tensor) -> Tensor:
        """Map images to one score per class, before softmax."""
        features = self.features(input)
        return features if self.fc is None else self.fc(features)
