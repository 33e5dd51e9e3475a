"""The networks of the comparisons, each described once, and what the peers need made of it: PyTorch modules and ONNX.

A network is a sequence of layers in the order in which they run. The names of the parameters are those of
``tinytorch.models``, which are torchvision's, so that weights copy across. What does nothing in inference (dropout)
or on an image of the usual size (VGG's adaptive pooling from 7×7 to 7×7) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import optional

onnx, torch = optional("onnx"), optional("torch")


@dataclass(frozen=True)
class Layer:
    """One step of a network, and how PyTorch and ONNX call it.

    Parameters
    ----------
    torch
        Makes the module.
    onnx
        Kind of the node.
    parameters
        Names of what the node reads besides its input.
    attributes
        Of the node.
    name
        Under which the parameters are found.
    """

    torch: Callable[[], Any]
    onnx: str
    parameters: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Conv:
    """Convolution with a square kernel of odd size, padded so that stride 1 keeps the size."""

    name: str
    ci: int
    co: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = False

    @property
    def padding(self) -> int:
        """Pixels on each side."""
        return self.kernel // 2

    def layer(self) -> Layer:
        settings = (self.ci, self.co, self.kernel, self.stride, self.padding)
        return Layer(
            lambda: torch.nn.Conv2d(*settings, groups=self.groups, bias=self.bias), "Conv",
            ("weight", "bias") if self.bias else ("weight",),
            {**_window(self.kernel, self.stride, self.padding), "group": self.groups}, self.name,
        )  # fmt: skip


@dataclass(frozen=True)
class Residual:
    """Sum of a chain of layers and of a shortcut, by default the input itself."""

    main: Network
    shortcut: Network = ()


Step = Layer | Conv | Residual
Network = tuple[Step, ...]


def _window(kernel: int, stride: int, padding: int) -> dict[str, Any]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}


def _norm(name: str, channels: int) -> Layer:
    statistics = ("weight", "bias", "running_mean", "running_var")
    return Layer(lambda: torch.nn.BatchNorm2d(channels), "BatchNormalization", statistics, {"epsilon": 1e-5}, name)


def _max_pool(kernel: int = 2, padding: int = 0) -> Layer:
    return Layer(lambda: torch.nn.MaxPool2d(kernel, 2, padding), "MaxPool", (), _window(kernel, 2, padding))


def _linear(name: str, ci: int, co: int) -> Layer:
    return Layer(lambda: torch.nn.Linear(ci, co), "Gemm", ("weight", "bias"), {"transB": 1}, name)


RELU = Layer(lambda: torch.nn.ReLU(inplace=True), "Relu")
RELU6 = Layer(lambda: torch.nn.ReLU6(inplace=True), "Clip", ("floor", "ceiling"), name="relu6")
RELU6_BOUNDS = {"relu6.floor": np.float32(0), "relu6.ceiling": np.float32(6)}
GLOBAL_POOL = Layer(lambda: torch.nn.AdaptiveAvgPool2d(1), "GlobalAveragePool")
FLATTEN = Layer(lambda: torch.nn.Flatten(), "Flatten")


# ---- descriptions -----------------------------------------------------------------------------------------------


def simple_cnn() -> Network:
    first, second = Conv("conv1", 3, 16, bias=True), Conv("conv2", 16, 32, bias=True)
    return (first, RELU, _max_pool(), second, RELU, _max_pool(), FLATTEN, _linear("fc", 2048, 10))


def mnist_convnet() -> Network:
    first, second = Conv("features.0", 1, 32, bias=True), Conv("features.3", 32, 64, bias=True)
    head = (FLATTEN, _linear("classifier.1", 3136, 256), RELU, _linear("classifier.3", 256, 10))
    return (first, RELU, _max_pool(), second, RELU, _max_pool(), *head)


def resnet(depths: tuple[int, ...], bottleneck: bool = False, cifar: bool = False) -> Network:
    """K. He et al., "Deep Residual Learning for Image Recognition", 2015; the stride is on the 3×3 convolution."""
    block, expansion = (_bottleneck, 4) if bottleneck else (_basic_block, 1)
    small, large = Conv("conv1", 3, 64), Conv("conv1", 3, 64, kernel=7, stride=2)
    layers: list[Any] = [small if cifar else large, _norm("bn1", 64), RELU, *([] if cifar else [_max_pool(3, 1)])]
    channels = 64
    for stage, depth in enumerate(depths, start=1):
        width = 32 << stage
        for index in range(depth):
            stride = 2 if stage > 1 and index == 0 else 1
            layers += _residual(block, f"layer{stage}.{index}", channels, width, width * expansion, stride)
            channels = width * expansion
    return (*layers, GLOBAL_POOL, FLATTEN, _linear("fc", channels, 10 if cifar else 1000))


def _residual(block: Callable[..., Network], name: str, ci: int, width: int, co: int, stride: int) -> list[Any]:
    project = (Conv(f"{name}.downsample.0", ci, co, 1, stride), _norm(f"{name}.downsample.1", co))
    main = block(name, ci, width, co, stride)
    return [Residual(main, project if stride > 1 or ci != co else ()), RELU]


def _basic_block(name: str, ci: int, width: int, co: int, stride: int) -> Network:
    first = (Conv(f"{name}.conv1", ci, width, 3, stride), _norm(f"{name}.bn1", width), RELU)
    return (*first, Conv(f"{name}.conv2", width, co), _norm(f"{name}.bn2", co))


def _bottleneck(name: str, ci: int, width: int, co: int, stride: int) -> Network:
    first = (Conv(f"{name}.conv1", ci, width, 1), _norm(f"{name}.bn1", width), RELU)
    second = (Conv(f"{name}.conv2", width, width, 3, stride), _norm(f"{name}.bn2", width), RELU)
    return (*first, *second, Conv(f"{name}.conv3", width, co, 1), _norm(f"{name}.bn3", co))


def vgg16() -> Network:
    """K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014."""
    layers: list[Any] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [Conv(f"features.{len(layers)}", channels, width, bias=True), RELU]
            channels = width
        layers.append(_max_pool())
    hidden = (_linear("classifier.0", 512 * 7 * 7, 4096), RELU, _linear("classifier.3", 4096, 4096), RELU)
    return (*layers, FLATTEN, *hidden, _linear("classifier.6", 4096, 1000))


def mobilenet_v2() -> Network:
    """M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2."""
    layers = [*_conv_norm("features.0", 3, 32, 3, 2)]
    channels, index = 32, 1
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, width, depth, first_stride in stages:
        for stride in (first_stride, *(1,) * (depth - 1)):
            block = _inverted_residual(f"features.{index}.conv", channels, width, expand, stride)
            layers += [Residual(block)] if stride == 1 and channels == width else block
            channels, index = width, index + 1
    layers += _conv_norm(f"features.{index}", channels, 1280, 1)
    return (*layers, GLOBAL_POOL, FLATTEN, _linear("classifier.1", 1280, 1000))


def _inverted_residual(name: str, ci: int, co: int, expand: int, stride: int) -> Network:
    width, at = ci * expand, int(expand > 1)
    wide = _conv_norm(f"{name}.0", ci, width, 1) if expand > 1 else ()
    deep = _conv_norm(f"{name}.{at}", width, width, 3, stride, groups=width)
    return (*wide, *deep, Conv(f"{name}.{at + 1}", width, co, 1), _norm(f"{name}.{at + 2}", co))


def _conv_norm(name: str, ci: int, co: int, kernel: int, stride: int = 1, groups: int = 1) -> Network:
    return (Conv(f"{name}.0", ci, co, kernel, stride, groups), _norm(f"{name}.1", co), RELU6)


NETWORKS: dict[str, Network] = {
    "simple-cnn": simple_cnn(),
    "mnist-convnet": mnist_convnet(),
    "resnet18-cifar": resnet((2, 2, 2, 2), cifar=True),
    "resnet18": resnet((2, 2, 2, 2)),
    "resnet50": resnet((3, 4, 6, 3), bottleneck=True),
    "vgg16": vgg16(),
    "mobilenet_v2": mobilenet_v2(),
}


def convolutions(network: Network, size: int) -> Iterator[tuple[Conv, int]]:
    """Every convolution of a network with the height, which is the width, of its input."""
    for layer in network:
        if isinstance(layer, Conv):
            yield layer, size
        if isinstance(layer, Residual):
            yield from convolutions(layer.main, size)
            yield from convolutions(layer.shortcut, size)
        size = _size_after(layer, size)


def _size_after(layer: Step, size: int) -> int:
    if isinstance(layer, Residual):
        for inner in layer.main:
            size = _size_after(inner, size)
        return size
    window = _plain(layer).attributes
    if "strides" not in window:
        return size
    return (size + 2 * window["pads"][0] - window["kernel_shape"][0]) // window["strides"][0] + 1


def _plain(layer: Layer | Conv) -> Layer:
    return layer.layer() if isinstance(layer, Conv) else layer


# ---- PyTorch ----------------------------------------------------------------------------------------------------


def torch_twin(network: Network) -> Any:
    """The network as a ``torch.nn.Module`` with the same ``state_dict`` names, written as torchvision would."""
    root = torch.nn.Module()
    root.forward = _torch_chain(network, root)
    return root


def _torch_chain(network: Network, root: Any) -> Callable[[Any], Any]:
    steps = [_torch_step(layer, root) for layer in network]

    def run(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return run


def _torch_step(layer: Step, root: Any) -> Callable[[Any], Any]:
    if isinstance(layer, Residual):
        main, shortcut = _torch_chain(layer.main, root), _torch_chain(layer.shortcut, root)
        return lambda x: main(x).add_(shortcut(x))
    module = _plain(layer).torch()
    if layer.name:
        _attach(root, layer.name, module)
    return module


def _attach(root: Any, name: str, module: Any) -> None:
    """Register a module under a dotted name, making the levels between."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(root.named_children()):
            root.add_module(part, torch.nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


# ---- ONNX -------------------------------------------------------------------------------------------------------


def onnx_model(network: Network, weights: Mapping[str, np.ndarray], input_shape: tuple[int, ...]) -> bytes:
    """The network with its weights as an ONNX file for one input shape."""
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    graph = _OnnxGraph({**RELU6_BOUNDS, **weights})
    result = make.make_tensor_value_info(graph.chain(network, "input"), number, None)
    given = make.make_tensor_value_info("input", number, input_shape)
    parts = make.make_graph(graph.nodes, "network", [given], [result], list(graph.constants.values()))
    return make.make_model(parts, opset_imports=[make.make_opsetid("", 17)], ir_version=8).SerializeToString()


@dataclass
class _OnnxGraph:
    weights: Mapping[str, Any]
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def chain(self, network: Network, x: str) -> str:
        """Append layers that read the value ``x``; returns the name of what comes out."""
        for layer in network:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Step, x: str) -> str:
        if isinstance(layer, Residual):
            return self._node("Add", self.chain(layer.main, x), self.chain(layer.shortcut, x))
        layer = _plain(layer)
        constants = [self._constant(f"{layer.name}.{name}") for name in layer.parameters]
        return self._node(layer.onnx, x, *constants, **layer.attributes)

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"value{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, name: str) -> str:
        self.constants[name] = onnx.numpy_helper.from_array(np.asarray(self.weights[name]), name)
        return name
