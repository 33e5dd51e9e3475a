"""The PyTorch-style door to the layers: names only, their homes are in ``tinytorch.core``."""

from tinytorch.core.activations import GELU, LeakyReLU, LogSoftmax, ReLU, ReLU6, Sigmoid, SiLU, Softmax, Tanh
from tinytorch.core.convolution import Conv2d
from tinytorch.core.layers import Dropout, Flatten, Identity, Linear, Module, Parameter, Sequential
from tinytorch.core.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from tinytorch.core.normalisation import BatchNorm2d
from tinytorch.core.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from tinytorch.nn import functional

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "functional",
]
