"""Which network a name means."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from tinytorch.core.layers import Module
from tinytorch.core.spatial import SimpleCNN
from tinytorch.models import resnet, vgg
from tinytorch.models.airbench import Airbench94
from tinytorch.models.alexnet import alexnet
from tinytorch.models.convnets import DigitsCNN, LeNet5, MNISTConvNet, checked
from tinytorch.models.mlp import MLP
from tinytorch.models.mobilenet import mobilenet_v2

Shape = tuple[int, int, int]
Builder = Callable[[Shape, int], Module]


def _of_any_size(network: Callable[[int, int], Module], at_least: int = 1) -> Builder:
    """A network that averages over the image, and so asks only for its channels and a least size."""
    return lambda shape, classes: network(classes, checked(shape, at_least)[0])


_BUILDERS: dict[str, Builder] = {
    "simple-cnn": lambda shape, classes: SimpleCNN(classes, in_channels=shape[0], image_size=shape[1:]),
    "mnist-convnet": MNISTConvNet,
    "digits-cnn": DigitsCNN,
    "mlp": MLP,
    "lenet5": LeNet5,
    "airbench94": Airbench94,
    "alexnet": _of_any_size(alexnet, at_least=63),
    "vgg11": _of_any_size(vgg.vgg11, at_least=32),
    "vgg11_bn": _of_any_size(vgg.vgg11_bn, at_least=32),
    "vgg13": _of_any_size(vgg.vgg13, at_least=32),
    "vgg13_bn": _of_any_size(vgg.vgg13_bn, at_least=32),
    "vgg16": _of_any_size(vgg.vgg16, at_least=32),
    "vgg16_bn": _of_any_size(vgg.vgg16_bn, at_least=32),
    "vgg19": _of_any_size(vgg.vgg19, at_least=32),
    "vgg19_bn": _of_any_size(vgg.vgg19_bn, at_least=32),
    "resnet18-cifar": _of_any_size(resnet.resnet18_cifar),
    "resnet18": _of_any_size(resnet.resnet18),
    "resnet34": _of_any_size(resnet.resnet34),
    "resnet50": _of_any_size(resnet.resnet50),
    "resnet101": _of_any_size(resnet.resnet101),
    "resnet152": _of_any_size(resnet.resnet152),
    "mobilenet_v2": _of_any_size(mobilenet_v2),
}


def names() -> tuple[str, ...]:
    """Names that `create` knows."""
    return tuple(_BUILDERS)


def create(name: str, input_shape: Shape, num_classes: int) -> Module:
    """Build a network with fresh parameters, drawn from the library's generator.

    Parameters
    ----------
    name : str
        One of `names()`.
    input_shape : (channels, height, width)
    num_classes : int

    Raises
    ------
    ValueError
        If the name is unknown (the message gives the nearest), or the image too small.
    """
    check_known(name)
    return _BUILDERS[name](input_shape, num_classes)


def check_known(name: str) -> None:
    """Raise unless there is a network called ``name``."""
    if name not in _BUILDERS:
        near = get_close_matches(name.lower(), _BUILDERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"model must be one of {', '.join(_BUILDERS)}, got {name!r}; {hint}".rstrip("; "))
