"""Which network a name means."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from tinytorch.core.layers import Module
from tinytorch.core.spatial import SimpleCNN
from tinytorch.models.convnets import DigitsCNN, MNISTConvNet
from tinytorch.models.mlp import MLP

Shape = tuple[int, int, int]

_BUILDERS: dict[str, Callable[[Shape, int], Module]] = {
    "simple-cnn": lambda shape, classes: SimpleCNN(classes, in_channels=shape[0], image_size=shape[1:]),
    "mnist-convnet": MNISTConvNet,
    "digits-cnn": DigitsCNN,
    "mlp": MLP,
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
        If the name is unknown; the message gives the nearest.
    """
    if name not in _BUILDERS:
        near = get_close_matches(name.lower(), _BUILDERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"model must be one of {', '.join(_BUILDERS)}, got {name!r}; {hint}".rstrip("; "))
    return _BUILDERS[name](input_shape, num_classes)
