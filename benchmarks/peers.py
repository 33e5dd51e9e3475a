"""Us and the other libraries: how each is given a task, in the form it likes best.

A peer makes a `Runner` of a task. Threads are pinned alike, and memory for outputs is handed in once where a library
takes it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

import tinytorch
from benchmarks import optional
from benchmarks.layers import Layer
from benchmarks.networks import Network, onnx_model, torch_twin
from benchmarks.timing import Runner
from tinytorch import Tensor, nn, optim
from tinytorch.conv.pack import channels_last, lanes_last, pixels
from tinytorch.kernels.memory import in_order_of

if TYPE_CHECKING:
    from benchmarks.family import OperationTask

torch, onnxruntime = optional("torch"), optional("onnxruntime")

# Small, so that the first losses stay comparable: at 1e-3 ResNet-18 knows its one batch by heart after five steps, and
# the loss of float32, PyTorch's too, is then more than a thousandth off that of float64.
LEARNING_RATE = 1e-4

Mode = Callable[[], AbstractContextManager[Any]]


class ConvTask:
    """One layer on ``n`` random images, forward or (``training``) forward and backward."""

    def __init__(self, layer: Layer, n: int, training: bool = False) -> None:
        def normal(shape: tuple[int, ...]) -> np.ndarray:
            return rng.standard_normal(shape, np.float32)

        rng, problem, conv = np.random.default_rng(0), layer.problem(n), layer.conv
        self.conv, self.training = conv, training
        self.x, self.bias = normal(problem.input_shape), normal((conv.co,))
        self.weight = normal(problem.weight_shape) / np.float32(math.sqrt(math.prod(problem.weight_shape[1:])))
        self.dy = normal(problem.output_shape) if training else None
        self.wants_dx = training and not layer.reads_images
        self.options: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups}


class NetworkTask:
    """A fresh network of ours with its description, images, and for training their labels."""

    def __init__(
        self, model: nn.Module, network: Network, images: np.ndarray, labels: np.ndarray | None = None
    ) -> None:
        self.model, self.network, self.images, self.labels = model, network, images, labels
        self.weights = model.state_dict()


class Peer:
    """A library, or one way of using it.

    Attributes
    ----------
    does
        The kinds of task that it takes part in, each a method that makes a `Runner`, or None of a task that is too
        much: ``conv``, a layer; ``operation``, a function; ``train``, steps whose outputs are the first five losses;
        ``infer``, a forward.
    needs
        Packages that must be installed.
    """

    name: str
    does: tuple[str, ...]
    needs: tuple[str, ...] = ()


def autograd_runner(name: str, forward: Callable[[], Any], leaves: Iterable[Any], dy: Any, inference: Mode) -> Runner:
    """Something forward, or if there is a ``dy`` forward and backward: the same text for two libraries."""

    def both() -> Any:
        for leaf in leaves:
            leaf.grad = None
        results = forward()
        first(results).backward(dy)
        return results

    call, mode = (forward, inference) if dy is None else (both, nullcontext)

    def outputs() -> list[np.ndarray]:
        results = call()
        made = [y.detach().numpy() for y in (results if isinstance(results, tuple) else (results,))]
        return made + [np.asarray(leaf.grad) for leaf in leaves if leaf.grad is not None]

    return Runner(name, call, outputs, mode)


def first(results: Any) -> Any:
    """The output that has a gradient; indices may come after it."""
    return results[0] if isinstance(results, tuple) else results


def step_runner(name: str, model: Any, optimizer: Any, loss_of: Any, images: Any, labels: Any) -> Runner:
    """A whole training step: the same text for two libraries."""

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Runner(name, step, lambda: [np.array(step()) for _ in range(5)])


class Ours(Peer):
    """tinytorch through its public functions, images channels last and weights as its layers keep them."""

    name = "tinytorch"
    does: tuple[str, ...] = ("conv", "operation", "train", "infer")

    def conv(self, task: ConvTask) -> Runner:
        x = Tensor(channels_last(task.x), requires_grad=task.wants_dx)
        leaves = (x, nn.Parameter(lanes_last(task.weight)), nn.Parameter(task.bias))
        dy = None if task.dy is None else channels_last(task.dy)
        forward = partial(nn.functional.conv2d, *leaves, **task.options)
        return autograd_runner(self.name, forward, leaves, dy, tinytorch.no_grad)

    def operation(self, task: OperationTask) -> Runner:
        leaves = {name: Tensor(self._packed(task, name), requires_grad=True) for name in task.arrays}
        forward = partial(task.operation, nn.functional, leaves)
        y = first(forward())
        dy = in_order_of(y.array, task.gradient(y.shape)) if task.training else None
        return autograd_runner(self.name, forward, leaves.values(), dy, tinytorch.no_grad)

    def _packed(self, task: OperationTask, name: str) -> np.ndarray:
        pack = channels_last if name == "input" else lanes_last
        return pack(task.arrays[name]) if task.has_channels(name) else task.arrays[name]

    def train(self, task: NetworkTask) -> Runner:
        optimizer = optim.AdamW(task.model.train().parameters(), lr=LEARNING_RATE)
        images, labels = Tensor(channels_last(task.images)), Tensor(task.labels)
        return step_runner(self.name, task.model, optimizer, nn.CrossEntropyLoss(), images, labels)

    def infer(self, task: NetworkTask) -> Runner:
        model, images = task.model.eval(), Tensor(channels_last(task.images))
        return Runner(self.name, lambda: model(images), lambda: [model(images).numpy()], tinytorch.no_grad)


class Torch(Peer):
    """PyTorch as its users write it, in one of its two memory formats."""

    does: tuple[str, ...] = ("conv", "operation", "train", "infer")
    needs = ("torch",)

    def __init__(self, name: str, memory_format: str) -> None:
        self.name, self._format = name, memory_format

    def _tensor(self, array: np.ndarray) -> Any:
        return torch.from_numpy(array).to(memory_format=getattr(torch, self._format))

    def _twin(self, task: NetworkTask) -> Any:
        twin = torch_twin(task.network)
        twin.load_state_dict({name: torch.from_numpy(value) for name, value in task.weights.items()})
        return twin.to(memory_format=getattr(torch, self._format))

    def conv(self, task: ConvTask) -> Runner:
        x = self._tensor(task.x).requires_grad_(task.wants_dx)
        leaves = (x, self._tensor(task.weight).requires_grad_(), torch.from_numpy(task.bias).requires_grad_())
        dy = None if task.dy is None else self._tensor(task.dy)
        forward = partial(torch.nn.functional.conv2d, *leaves, **task.options)
        return autograd_runner(self.name, forward, leaves, dy, torch.inference_mode)

    def operation(self, task: OperationTask) -> Runner:
        leaves = {name: torch.from_numpy(self._packed(task, name)).requires_grad_() for name in task.arrays}
        forward = partial(task.operation, torch.nn.functional, leaves)
        y = first(forward())
        dy = torch.empty_like(y).copy_(torch.from_numpy(task.gradient(tuple(y.shape)))) if task.training else None
        return autograd_runner(self.name, forward, leaves.values(), dy, torch.inference_mode)

    def _packed(self, task: OperationTask, name: str) -> np.ndarray:
        is_last = self._format == "channels_last" and task.has_channels(name)  # in 1-D and 3-D too
        return channels_last(task.arrays[name]) if is_last else task.arrays[name]

    def train(self, task: NetworkTask) -> Runner:
        model, labels = self._twin(task).train(), torch.from_numpy(task.labels)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, fused=True
        )  # three times as fast as the default
        return step_runner(self.name, model, optimizer, torch.nn.CrossEntropyLoss(), self._tensor(task.images), labels)

    def infer(self, task: NetworkTask) -> Runner:
        return self._runner(self._twin(task).eval(), self._tensor(task.images))

    def _runner(self, model: Any, images: Any) -> Runner:
        return Runner(self.name, lambda: model(images), lambda: [model(images).numpy()], torch.inference_mode)


class FrozenTorch(Torch):
    """PyTorch with a traced, frozen and optimised graph: batch normalisation folded, layers fused."""

    does: tuple[str, ...] = ("infer",)

    def infer(self, task: NetworkTask) -> Runner:
        images = self._tensor(task.images)
        with torch.no_grad():
            frozen = torch.jit.freeze(torch.jit.trace(self._twin(task).eval(), images))
            return self._runner(torch.jit.optimize_for_inference(frozen), images)


class GraphPeer(Peer, ABC):
    """A library that runs ONNX graphs, in inference."""

    does: tuple[str, ...] = ("conv", "infer")

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def conv(self, task: ConvTask) -> Runner | None:
        if task.training:
            return None
        weights = {f"{task.conv.name}.weight": task.weight, f"{task.conv.name}.bias": task.bias}
        return self._runner(onnx_model((task.conv,), weights, task.x.shape), task.x)

    def infer(self, task: NetworkTask) -> Runner:
        return self._runner(onnx_model(task.network, task.weights, task.images.shape), task.images)

    def _runner(self, model: bytes, x: np.ndarray) -> Runner:
        call, y = self.session(model, x)

        def outputs() -> list[np.ndarray]:
            call()
            return [y]

        return Runner(self.name, call, outputs)

    @abstractmethod
    def session(self, model: bytes, x: np.ndarray) -> tuple[Callable[[], Any], np.ndarray]:
        """What runs the model on ``x``, and where it leaves the output."""


class OnnxRuntime(GraphPeer):
    """ONNX Runtime's CPU provider, input and output bound once."""

    name = "onnxruntime"
    needs = ("onnx", "onnxruntime")

    def session(self, model: bytes, x: np.ndarray) -> tuple[Callable[[], Any], np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (result,), binding = session.get_outputs(), session.io_binding()
        y = np.empty(result.shape, np.float32)
        for bind, name, array in ((binding.bind_input, "input", x), (binding.bind_output, result.name, y)):
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return lambda _alive=x: session.run_with_iobinding(binding), y


class OpenVino(GraphPeer):
    """OpenVINO's CPU plug-in in float32, one stream, input and output in the request's own memory."""

    name = "openvino"
    needs = ("onnx", "openvino")

    def session(self, model: bytes, x: np.ndarray) -> tuple[Callable[[], Any], np.ndarray]:
        import openvino  # late: it loads TBB, which Numba, if it has not started its threads, would then use

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        request = core.compile_model(self.prepared(core.read_model(model)), "CPU", settings).create_infer_request()
        request.get_input_tensor().data[...] = x
        return request.infer, request.get_output_tensor().data

    def prepared(self, model: Any) -> Any:
        """The model as it is to be compiled."""
        return model


class OpenVinoChannelsLast(OpenVino):
    """The same for single layers, images channels last in memory."""

    name = "openvino NHWC"
    does: tuple[str, ...] = ("conv",)

    def session(self, model: bytes, x: np.ndarray) -> tuple[Callable[[], Any], np.ndarray]:
        call, y = super().session(model, pixels(x))
        return call, y.transpose(0, 3, 1, 2)

    def prepared(self, model: Any) -> Any:
        from openvino import Layout, preprocess

        steps = preprocess.PrePostProcessor(model)
        for end in (steps.input(), steps.output()):
            end.tensor().set_layout(Layout("NHWC"))
            end.model().set_layout(Layout("NCHW"))
        return steps.build()


def installed(threads: int) -> tuple[list[Peer], list[str]]:
    """All that can be measured here, ours first, with their threads pinned; and the packages that others lack."""
    if torch:
        torch.set_num_threads(threads)
    contiguous, strided = Torch("torch NCHW", "contiguous_format"), Torch("torch NHWC", "channels_last")
    graphs = (OnnxRuntime(threads), OpenVino(threads), OpenVinoChannelsLast(threads))
    peers = (Ours(), contiguous, strided, FrozenTorch("torch frozen", "channels_last"), *graphs)
    missing = {package for peer in peers for package in peer.needs if not find_spec(package)}
    return [peer for peer in peers if missing.isdisjoint(peer.needs)], sorted(missing)
