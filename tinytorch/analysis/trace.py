"""What a model does with an input: its modules as they are called, its operations as a graph, its convolutions.

The model is rehearsed (`kernels.watch`), as a double (`stand_in`), in evaluation mode and layer by layer, although
neighbours may be computed in one pass when it really runs. No convolution is computed.

Tensors are told apart by numbers: `Trace.values[number]` has the shape and the dtype. An operation leads from the
numbers of its inputs to that of its output, and the operations are in the order in which they ran; so a receptive
field, for one, is found by walking through `Trace.operations` once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.analysis.stand_in import Rehearsal, Shape, dtype_of, images, shapes_of, stand_in, undisturbed
from tinytorch.conv.problem import ConvProblem, Direction
from tinytorch.core.autograd import operation_name
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor
from tinytorch.kernels.watch import watching

if TYPE_CHECKING:
    from tinytorch.core.reach import Reads


@dataclass(frozen=True)
class Value:
    """A tensor.

    Attributes
    ----------
    shape, dtype
    name : str
        "input", the path of a parameter or buffer, or nothing.
    """

    shape: Shape
    dtype: np.dtype
    name: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass
class Call:
    """A module is called. A module may be called several times, and each has its own entry.

    Attributes
    ----------
    index : int
        Its place in `Trace.calls`: calls are in the order in which they began.
    path : str
        Dotted name of the module; empty for the model itself. A module that is held under several names has the first.
        One that is not registered, such as an element of a list, is called after its class: "features.<Linear>".
    kind : str
        Name of the class.
    module : Module
        Of the double.
    parent : int or None
        The call that it is part of; None for the model's own.
    depth : int
        0 for the model's own, and one more for each call around it.
    turn : int
        0 for the first call of this module, 1 for the second, …
    inputs, outputs : tuple of int
        Numbers of the tensors that come in, and that go out.
    """

    index: int
    path: str
    kind: str
    module: Module
    parent: int | None
    depth: int
    turn: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operation:
    """A tensor is computed from tensors.

    Attributes
    ----------
    name : str
        That of the function, such as "convolve", "relu" or "add".
    inputs : tuple of int
    output : int
        Numbers of tensors.
    reads : sequence of callables, or None
        For each spatial axis, which pixels of the first input a pixel of the output is computed from; see `core.reach`.
    call : int
        The innermost call, within which it happens.
    begun : int
        How many calls had begun when it happened.
    ours : bool
        Whether the library defines it, or the user.
    """

    name: str
    inputs: tuple[int, ...]
    output: int
    reads: Reads | None
    call: int
    begun: int
    ours: bool


@dataclass(frozen=True)
class Convolution:
    """A convolution, or a matrix product of features and weights, is computed.

    Attributes
    ----------
    problem, direction
        What is computed; the forward of a transposed convolution is an "input_grad".
    algorithm : str
        The planner's choice.
    itemsize : int
        Bytes of a number.
    call, begun : int
        As in `Operation`.
    """

    problem: ConvProblem
    direction: Direction
    algorithm: str
    itemsize: int
    call: int
    begun: int


@dataclass
class Trace:
    """All that happened when the model was called with an input of some shape.

    Attributes
    ----------
    model : Module
        The double.
    values : list of Value
        By number.
    calls : list of Call
        `calls[0]` is that of the model.
    operations : list of Operation
    convolutions : list of Convolution
    looks : list of str
        Paths of the modules that looked at a number of a tensor, in an ``if`` for example: since a rehearsal has no
        numbers, the path that was taken may not be that of a real image.
    """

    model: Module
    values: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    convolutions: list[Convolution] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the images."""
        return self.calls[0].inputs

    def children(self, call: Call) -> Iterator[Call]:
        """The calls within a call, without those within them."""
        return (other for other in self.calls[call.index + 1 :] if other.parent == call.index)

    def shapes(self, numbers: Sequence[int]) -> tuple[Shape, ...]:
        """The shapes of some tensors."""
        return tuple(self.values[number].shape for number in numbers)


def trace(model: Module, input_shape: Sequence[Any], dtype: DTypeLike | None = None) -> Trace:
    """Rehearse a model.

    Parameters
    ----------
    model : Module
        Is left as it is.
    input_shape : tuple of int, or a tuple of such
        Of the input, or of each input, with the batch.
    dtype : dtype, optional
        Of the input, float32 or float64; by default that of the parameters.

    Raises
    ------
    TypeError
        If the model is no Module, or the dtype another.
    ValueError
        If an input does not fit: the message names the layer, the shapes up to it, and what is wrong. If the model
        can't be copied, or `input_shape` is no shape.
    """
    shapes, double = shapes_of(input_shape), stand_in(model).eval()
    double.requires_grad_()
    recorder = _Recorder(double)
    inputs = [images(shape, dtype_of(double, dtype)) for shape in shapes]
    for x in inputs:
        x.requires_grad = True
    with undisturbed(), watching(recorder):
        try:
            double(*inputs)
        except Exception as error:
            raise ValueError(_failure(recorder, shapes, error)) from error
    return recorder.trace


class _Recorder(Rehearsal):
    """Writes a trace."""

    apart = True
    holding = False

    def __init__(self, model: Module) -> None:
        self.trace = Trace(model)
        self.failed: list[int] = []  # calls that an error went through, innermost first
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._within: list[int] = []
        self._turns: dict[int, int] = {}
        self._numbers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        for path, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._number(tensor, path)

    def call(self, module: Module, inputs: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        call = self._begin(module, inputs)
        self._within.append(call.index)
        try:
            output = run()
            call.outputs = self._all(output)
            return output
        except Exception:
            self.failed.append(call.index)
            raise
        finally:
            self._within.pop()

    def _begin(self, module: Module, inputs: tuple[Any, ...]) -> Call:
        calls, turn = self.trace.calls, self._turns.get(id(module), 0)
        self._turns[id(module)] = turn + 1
        kind, parent = type(module).__name__, self._within[-1] if self._within else None
        numbers = self._all(inputs, "" if calls else "input")
        call = Call(len(calls), self._path(module), kind, module, parent, len(self._within), turn, numbers)
        calls.append(call)
        return call

    def _path(self, module: Module) -> str:
        around = self.trace.calls[self._within[-1]].path if self._within else ""
        return self._paths.get(id(module), f"{around}.<{type(module).__name__}>".lstrip("."))

    def operation(self, inputs: tuple[Tensor, ...], output: Tensor, backward: Callable[..., Any], reads: Any) -> None:
        numbers = tuple(map(self._number, inputs))
        ours = backward.__module__.startswith("tinytorch.")
        name, made = operation_name(backward), self._number(output)
        self.trace.operations.append(Operation(name, numbers, made, reads, *self._place(), ours))

    def convolution(self, problem: ConvProblem, direction: Any, algorithm: str, itemsize: int) -> None:
        self.trace.convolutions.append(Convolution(problem, direction, algorithm, itemsize, *self._place()))

    def look(self, tensor: Tensor) -> None:
        super().look(tensor)
        path = self.trace.calls[self._place()[0]].path
        if path not in self.trace.looks:
            self.trace.looks.append(path)

    def _place(self) -> tuple[int, int]:
        return self._within[-1], len(self.trace.calls)

    def _all(self, value: Any, name: str = "") -> tuple[int, ...]:
        return tuple(self._number(tensor, name) for tensor in tensors_in(value))

    def _number(self, tensor: Tensor, name: str = "") -> int:
        """The tensor's number; an id alone may belong to several, one after the other."""
        known = self._numbers.get(id(tensor))
        if known is None or known[0]() is not tensor:
            self._numbers[id(tensor)] = known = weakref.ref(tensor), len(self.trace.values)
            self.trace.values.append(Value(tensor.shape, tensor.dtype, name))
        return known[1]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def _failure(recorder: _Recorder, shapes: Sequence[Shape], error: Exception) -> str:
    """Where it failed, what went well before, and why."""
    trace = recorder.trace
    call = trace.calls[recorder.failed[0]]
    where = f"layer {call.path!r} ({call.kind})" if call.path else f"the forward of {call.kind}"
    got = " and ".join(map(str, trace.shapes(call.inputs))) or "no tensor"
    containers = {other.parent for other in trace.calls}
    done = [c for c in trace.calls if c.outputs and c.index not in containers]
    lines = [f"  {c.path} ({c.kind}) -> {', '.join(map(str, trace.shapes(c.outputs)))}" for c in done]
    return "\n".join(
        [
            f"input_shape {', '.join(map(str, shapes))} does not fit the model: {where} was called with {got} and "
            f"failed; check the input's shape, or the layer's settings",
            *(["shapes up to it:", *lines] if lines else []),
            f"the layer's own error: {type(error).__name__}: {error}",
        ]
    )
