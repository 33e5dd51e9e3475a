"""The fully connected network that the convolutional ones are compared with."""

from __future__ import annotations

from math import prod

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Flatten, Linear, Module
from tinytorch.core.tensor import Tensor


class MLP(Module):
    """Flatten, one hidden layer with ReLU, and a linear classifier: no notion of which pixels are neighbours.

    With the default 1000 hidden units it has 795,010 parameters on MNIST, about as many as `MNISTConvNet`
    (824,458), and 3,083,010 on CIFAR-10, 120 times those of `SimpleCNN` (25,578).

    Parameters
    ----------
    input_shape : (channels, height, width)
    num_classes : int
    hidden : int
        Units of the hidden layer.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int = 10, hidden: int = 1000) -> None:
        self.flatten = Flatten()
        self.hidden = Linear(prod(input_shape), hidden)
        self.relu = ReLU()
        self.classifier = Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to one score per class."""
        return self.classifier(self.relu(self.hidden(self.flatten(x))))
