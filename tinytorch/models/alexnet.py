"""AlexNet in the form of A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

Modules and parameters have torchvision's names, so that its trained weights fit.
"""

from __future__ import annotations

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Linear, Module, Sequential
from tinytorch.core.regularisation import Dropout
from tinytorch.core.spatial import AdaptiveAvgPool2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.initial import draw_uniform


class AlexNet(Module):
    """Five convolutions, the first with wide windows, then three linear layers on 6×6 places.

    Parameters
    ----------
    num_classes : int
    in_channels : int
        Channels of the image, which is at least 63 pixels a side.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        self.features = Sequential(
            Conv2d(in_channels, 64, 11, stride=4, padding=2), ReLU(), MaxPool2d(3, stride=2),
            Conv2d(64, 192, 5, padding=2), ReLU(), MaxPool2d(3, stride=2),
            Conv2d(192, 384, 3, padding=1), ReLU(),
            Conv2d(384, 256, 3, padding=1), ReLU(),
            Conv2d(256, 256, 3, padding=1), ReLU(), MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.avgpool = AdaptiveAvgPool2d(6)
        self.classifier = Sequential(
            Dropout(), Linear(256 * 6 * 6, 4096), ReLU(),
            Dropout(), Linear(4096, 4096), ReLU(),
            Linear(4096, num_classes),
        )  # fmt: skip
        draw_uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to one score per class."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet(num_classes: int = 1000, in_channels: int = 3) -> AlexNet:
    """AlexNet: 61,100,840 parameters."""
    return AlexNet(num_classes, in_channels)
