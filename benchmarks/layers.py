"""The convolution layers that are compared, in sets: those of well-known networks, read off their descriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.networks import NETWORKS, Conv, convolutions
from tinytorch.conv.problem import ConvProblem


@dataclass(frozen=True)
class Layer:
    """A convolution on images of one size.

    Parameters
    ----------
    conv
        The layer, named as where it occurs first; with a bias.
    size
        Height and width of the input.
    count
        How often its network has this layer.
    """

    conv: Conv
    size: int
    count: int = 1

    @property
    def text(self) -> str:
        """What oneDNN's benchdnn would be told, without the batch; what is at its default is left out."""
        c = self.conv
        groups = f"g{c.groups}" if c.groups > 1 else ""
        stride = f"sh{c.stride}" if c.stride > 1 else ""
        padding = f"ph{c.padding}" if c.padding else ""
        return f"{groups}ic{c.ci}oc{c.co}_ih{self.size}kh{c.kernel}{stride}{padding}"

    def problem(self, n: int) -> ConvProblem:
        """The convolution of ``n`` images."""
        return ConvProblem.parse(f"mb{n}{self.text}")

    @property
    def reads_images(self) -> bool:
        """Whether this is a first layer, whose input needs no gradient."""
        return self.conv.ci in (1, 3)

    @property
    def is_plain(self) -> bool:
        """3×3 with stride 1: the layer that everybody has tuned for."""
        return (self.conv.kernel, self.conv.stride, self.conv.groups) == (3, 1, 1)


@dataclass(frozen=True)
class LayerSet:
    """Layers, and with how many images each runs: in inference, and in training (forward and backward)."""

    name: str
    layers: tuple[Layer, ...]
    forward: tuple[int, ...] = ()
    training: tuple[int, ...] = ()


def distinct(network: str, wanted: Callable[[Conv], bool] = lambda conv: True) -> tuple[Layer, ...]:
    """Layers of a network at 224×224 pixels, each once and counted, in the order in which they first run."""
    layers: dict[tuple[Conv, int], Layer] = {}
    for conv, size in convolutions(NETWORKS[network], 224):
        key = (replace(conv, name=""), size)
        known = layers.get(key, Layer(replace(conv, bias=True), size, count=0))
        layers[key] = replace(known, count=known.count + 1)
    return tuple(layer for layer in layers.values() if wanted(layer.conv))


def single(name: str, ci: int, co: int, size: int, kernel: int = 3, stride: int = 1) -> Layer:
    return Layer(Conv(name, ci, co, kernel, stride, bias=True), size)


SMALL = (
    single("digits, first", 1, 32, 28),
    single("digits, second", 32, 64, 14),
    single("CIFAR, first", 3, 16, 32),
    single("CIFAR, second", 16, 32, 16),
)
STEM = single("ImageNet, first", 3, 64, 224, kernel=7, stride=2)

SETS = (
    LayerSet("resnet50", distinct("resnet50"), forward=(1, 8, 32), training=(1, 8)),
    LayerSet("vgg16", distinct("vgg16"), forward=(1, 8), training=(8,)),
    LayerSet("mobilenet depthwise", distinct("mobilenet_v2", lambda conv: conv.groups > 1), (1, 8), (1, 8)),
    LayerSet("mobilenet pointwise", distinct("mobilenet_v2", lambda conv: conv.kernel == 1), (1, 8), (1, 8)),
    LayerSet("small networks", SMALL, training=(64, 128)),
    LayerSet("first layer", (STEM,), training=(8,)),
    LayerSet("small forward", SMALL[2:3], forward=(1,)),
)
