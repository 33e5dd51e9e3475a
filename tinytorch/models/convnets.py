"""Convolutional networks for small grey pictures; `SimpleCNN`, for colour, is in `tinytorch.core.spatial`."""

from __future__ import annotations

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Flatten, Linear, Module, Sequential
from tinytorch.core.regularisation import Dropout
from tinytorch.core.spatial import BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.sizes import checked


class MNISTConvNet(Module):
    """Two blocks of convolution, ReLU and pooling, then two linear layers: 824,458 parameters on 1×28×28.

    Parameters
    ----------
    input_shape : (channels, height, width)
        Height and width at least 4.
    num_classes : int

    Raises
    ------
    ValueError
        If the image is too small to be halved twice.
    """

    def __init__(self, input_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10) -> None:
        channels, height, width = checked(input_shape, at_least=4)
        self.features = Sequential(
            Conv2d(channels, 32, 3, padding=1), ReLU(), MaxPool2d(2),
            Conv2d(32, 64, 3, padding=1), ReLU(), MaxPool2d(2),
        )  # fmt: skip
        self.classifier = Sequential(
            Flatten(), Linear(64 * (height // 4) * (width // 4), 256), ReLU(), Linear(256, num_classes)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to one score per class."""
        return self.classifier(self.features(x))


class DigitsCNN(Module):
    """Two convolutions with batch normalisation, one pooling, dropout, a linear layer: for tiny images.

    On 1×8×8 it has 29,258 parameters. Pooling once, not twice, leaves 4×4 places to tell strokes apart.

    Parameters
    ----------
    input_shape : (channels, height, width)
        Height and width at least 2.
    num_classes : int

    Raises
    ------
    ValueError
        If the image is too small to be halved.
    """

    def __init__(self, input_shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 10) -> None:
        channels, height, width = checked(input_shape, at_least=2)
        self.features = Sequential(
            Conv2d(channels, 32, 3, padding=1), BatchNorm2d(32), ReLU(),
            Conv2d(32, 64, 3, padding=1), BatchNorm2d(64), ReLU(),
            MaxPool2d(2),
        )  # fmt: skip
        self.classifier = Sequential(Flatten(), Dropout(0.3), Linear(64 * (height // 2) * (width // 2), num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to one score per class."""
        return self.classifier(self.features(x))


class LeNet5(Module):
    """LeNet-5 as it is taught today, with ReLU and max pooling: 61,706 parameters on 1×28×28.

    Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, figure 2, which has tanh, a
    pooling with weights of its own, and digits in a frame of 32×32: here the padding is the frame.

    Parameters
    ----------
    input_shape : (channels, height, width)
        Height and width at least 12.
    num_classes : int

    Raises
    ------
    ValueError
        If the image is too small for two convolutions and two poolings.
    """

    def __init__(self, input_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10) -> None:
        channels, height, width = checked(input_shape, at_least=12)
        self.features = Sequential(
            Conv2d(channels, 6, 5, padding=2), ReLU(), MaxPool2d(2),
            Conv2d(6, 16, 5), ReLU(), MaxPool2d(2),
        )  # fmt: skip
        places = ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        self.classifier = Sequential(
            Flatten(), Linear(16 * places, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, num_classes)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to one score per class."""
        return self.classifier(self.features(x))
