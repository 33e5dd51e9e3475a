"""VGG: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, table 1.

Modules and parameters have torchvision's names, so that its trained weights fit.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Linear, Module, Sequential
from tinytorch.core.regularisation import Dropout
from tinytorch.core.spatial import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.initial import draw_normal

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(Module):
    """Five stages of 3×3 convolutions, each halving the image, then three linear layers on 7×7 places.

    Parameters
    ----------
    layers : {11, 13, 16, 19}
        Layers with weights.
    num_classes : int
    in_channels : int
        Channels of the image, which is at least 32 pixels a side.
    batch_norm : bool
        Whether each convolution is normalised.

    Raises
    ------
    ValueError
        If there is no VGG of so many layers.
    """

    def __init__(self, layers: int, num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False) -> None:
        if layers not in DEPTHS:
            raise ValueError(f"layers must be one of {', '.join(map(str, DEPTHS))}, got {layers!r}; try VGG(16)")
        self.features = Sequential(*_features(DEPTHS[layers], in_channels, batch_norm))
        self.avgpool = AdaptiveAvgPool2d(7)
        self.classifier = Sequential(
            Linear(WIDTHS[-1] * 7 * 7, 4096), ReLU(), Dropout(),
            Linear(4096, 4096), ReLU(), Dropout(),
            Linear(4096, num_classes),
        )  # fmt: skip
        draw_normal(self, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to one score per class."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _features(depths: tuple[int, ...], channels: int, batch_norm: bool) -> Iterator[Module]:
    for width, depth in zip(WIDTHS, depths, strict=True):
        for _ in range(depth):
            yield Conv2d(channels, width, 3, padding=1)
            if batch_norm:
                yield BatchNorm2d(width)
            yield ReLU()
            channels = width
        yield MaxPool2d(2)


def vgg11(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-11: 132,863,336 parameters."""
    return VGG(11, num_classes, in_channels)


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-11 with batch normalisation: 132,868,840 parameters."""
    return VGG(11, num_classes, in_channels, batch_norm=True)


def vgg13(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-13: 133,047,848 parameters."""
    return VGG(13, num_classes, in_channels)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-13 with batch normalisation: 133,053,736 parameters."""
    return VGG(13, num_classes, in_channels, batch_norm=True)


def vgg16(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-16: 138,357,544 parameters."""
    return VGG(16, num_classes, in_channels)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-16 with batch normalisation: 138,365,992 parameters."""
    return VGG(16, num_classes, in_channels, batch_norm=True)


def vgg19(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-19: 143,667,240 parameters."""
    return VGG(19, num_classes, in_channels)


def vgg19_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-19 with batch normalisation: 143,678,248 parameters."""
    return VGG(19, num_classes, in_channels, batch_norm=True)
