"""Which network a name means."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from tinytorch.core.layers import Module
from tinytorch.core.spatial import SimpleCNN
from tinytorch.models import resnet, vgg
from tinytorch.models.airbench import Airbench94
from tinytorch.models.alexnet import alexnet
from tinytorch.models.convnets import DigitsCNN, LeNet5, MNISTConvNet
from tinytorch.models.mlp import MLP
from tinytorch.models.mobilenet import mobilenet_v2
from tinytorch.models.sizes import checked
from tinytorch.models.unet import UNet, check_size
from tinytorch.models.vit import PatchEmbedding

Shape = tuple[int, int, int]
Builder = Callable[..., Module]


def _of_any_size(network: Callable[..., Module], at_least: int = 1) -> Builder:
    """A network that averages over the image, and so asks only for its channels and a least size."""
    return lambda shape, classes, **options: network(classes, checked(shape, at_least)[0], **options)


def _simple_cnn(shape: Shape, classes: int, **options: Any) -> Module:
    return SimpleCNN(classes, in_channels=shape[0], image_size=shape[1:], **options)


def _unet(shape: Shape, classes: int, **options: Any) -> Module:
    channels, *size = checked(shape, at_least=16)
    check_size(size)
    return UNet(classes, channels, **options)


def _patch_embedding(shape: Shape, classes: int, **options: Any) -> Module:
    """Tokens, whatever the classes that a transformer would tell from them."""
    channels, height, width = checked(shape, at_least=16)
    return PatchEmbedding((height, width), in_channels=channels, **options)


_BUILDERS: dict[str, Builder] = {
    "simple-cnn": _simple_cnn,
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
    "unet": _unet,
    "vit-patch-embedding": _patch_embedding,
}


def names() -> tuple[str, ...]:
    """Names that `create` knows."""
    return tuple(_BUILDERS)


def create(name: str, input_shape: Shape, num_classes: int, **options: Any) -> Module:
    """Build a network with fresh parameters, drawn from the library's generator.

    Parameters
    ----------
    name : str
        One of `names()`, spelled as there, so that a network has one name in every record of a run.
    input_shape : (channels, height, width)
        For "unet" and "vit-patch-embedding", height and width are multiples of 16.
    num_classes : int
        Scores for an image, for "unet" for each of its pixels; "vit-patch-embedding" stops before there are any.
    **options
        Further arguments of the network, such as the widths of "airbench94".

    Raises
    ------
    ValueError
        If the name is unknown (the message gives those that are near), or the image too small.
    TypeError
        If the network has no such option.
    """
    check_known(name)
    return _BUILDERS[name](input_shape, num_classes, **options)


def usual_shape(name: str) -> Shape:
    """Return the (channels, height, width) of the images that a network is usually given."""
    return _USUAL.get(name, (3, 224, 224))


_USUAL: dict[str, Shape] = {
    "simple-cnn": (3, 32, 32),
    "mnist-convnet": (1, 28, 28),
    "digits-cnn": (1, 8, 8),
    "mlp": (1, 28, 28),
    "lenet5": (1, 28, 28),
    "airbench94": (3, 32, 32),
    "resnet18-cifar": (3, 32, 32),
}


def check_known(name: str) -> None:
    """Raise unless there is a network called ``name``."""
    if name not in _BUILDERS:
        raise ValueError(f"model must be one of {', '.join(_BUILDERS)}, got {name!r}{_hint(_near(name))}")


def _near(name: str, most: int = 8) -> list[str]:
    """What may have been meant, the likeliest first: alone, if it differs in capitals and separators only."""
    plain, known = _plain(name), {_plain(known): known for known in _BUILDERS}
    if plain in known:
        return [known[plain]]
    alike = get_close_matches(plain, known)
    holding = [other for other in known if plain and plain in other]
    return [known[other] for other in dict.fromkeys((*alike, *holding))][:most]


def _plain(name: str) -> str:
    """ResNet-50, resnet_50 and resnet50 are the same."""
    return "".join(filter(str.isalnum, name.lower()))


def _hint(near: list[str]) -> str:
    if not near:
        return ""
    first, *others = map(repr, near)
    also = f" Also near: {', '.join(others)}" if others else ""
    return f"; did you mean {first}?{also}"
