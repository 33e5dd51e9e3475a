"""How much memory a model takes: a pass is rehearsed as it would run, while all that it allocates is counted.

A rehearsal (`kernels.watch`) allocates what the pass would, and lets go of it when the pass would, but writes to next
to none of it, so that the operating system need not provide it. ``tracemalloc`` counts it: NumPy reports arrays, and
`kernels.memory` the stretch of memory that large ones are cut from.

There are two peaks. The arrays in use are what the model needs. The process has to have more: the whole stretch as far
as it was ever reached, gaps between arrays among it. Both hold parameters and buffers. Neither holds the interpreter,
the libraries and compiled code, some 100 to 300 MB, nor the state of an optimizer.
"""

from __future__ import annotations

import tracemalloc
import types
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from tinytorch.analysis.stand_in import Rehearsal, Shape, images, stand_in, undisturbed
from tinytorch.analysis.trace import Convolution, tensors_in
from tinytorch.conv.weights import Weights
from tinytorch.core.autograd import Node, no_grad
from tinytorch.core.kept import Kept
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import memory
from tinytorch.kernels.watch import watching

Key = tuple[str, int]  # path of a module, and which of its calls
Loss = Callable[[Any], Tensor]
_Run = Callable[[Module, list[Tensor]], None]
_KEPT, _OWN = "kept for backward", "parameters and buffers"
_PASSING = ("", "activations", "input")  # storage that was not seen before, or that may still be kept
_Watcher = TypeVar("_Watcher", bound=Rehearsal)


@dataclass(frozen=True)
class Peak:
    """The moment of a pass when most memory is in use.

    Attributes
    ----------
    bytes : int
        At that moment.
    parts : dict of str to int
        What they are for; they sum up to ``bytes``.
    path, phase : str
        The module whose work it is, and "forward" or "backward".
    """

    bytes: int
    parts: dict[str, int]
    path: str
    phase: str


@dataclass
class Pass:
    """What a rehearsed pass found.

    Attributes
    ----------
    peak : Peak
        Of the arrays in use.
    held : int
        Bytes that the process has at its own peak: the stretch that arrays are cut from, as far as it was reached, and
        what is not cut from it.
    kept : dict of (path, turn) to int
        Bytes that stay for the backward, by the call of a module that made them stay; each array counts once, for the
        first call that keeps it, and parameters do not count.
    backward : dict of (path, turn) to list of Convolution
        What is convolved in the backward.
    fused : dict of (path, turn) to (path, turn)
        Calls that are computed within another.
    """

    peak: Peak
    held: int = 0
    kept: dict[Key, int] = field(default_factory=dict)
    backward: dict[Key, list[Convolution]] = field(default_factory=dict)
    fused: dict[Key, Key] = field(default_factory=dict)


def inference(model: Module, shapes: Sequence[Shape], dtype: np.dtype) -> Pass:
    """Rehearse two calls in evaluation mode under `no_grad`: the first packs weights, the second finds them packed."""

    def run(double: Module, inputs: list[Tensor]) -> None:
        with no_grad():
            for _ in range(2):
                double(*inputs)

    return _measured(model, False, shapes, dtype, run)


def training(model: Module, shapes: Sequence[Shape], dtype: np.dtype, loss: Loss | None = None) -> Pass:
    """Rehearse forward and backward in training mode.

    Parameters
    ----------
    loss : callable, optional
        Makes one number of what the model returns; by default the sum of all.

    Raises
    ------
    RuntimeError
        If nothing requires grad.
    """

    def run(double: Module, inputs: list[Tensor]) -> None:
        (loss or sum_of)(double(*inputs)).backward()

    return _measured(model, True, shapes, dtype, run)


def sum_of(outputs: Any) -> Tensor:
    first, *others = (tensor.sum() for tensor in tensors_in(outputs))
    return sum(others, first)


def _measured(model: Module, train: bool, shapes: Sequence[Shape], dtype: np.dtype, run: _Run) -> Pass:
    """The pass is rehearsed three times: the first makes what the library keeps of Python's objects."""

    def pass_of(double: Module, watcher: _Watcher) -> _Watcher:
        with watching(watcher):
            run(double, [images(shape, dtype) for shape in shapes])
        return watcher

    def rehearse(watcher: Callable[[Module], _Watcher], recycling: bool) -> tuple[_Watcher, int]:
        double = stand_in(model).train(train)
        with undisturbed(), memory.afresh(recycling), _traced() as peak:
            by = pass_of(double, watcher(double))
            return by, peak() + _bytes(double.parameters()) + _bytes(double.buffers())

    with undisturbed(), memory.afresh():
        pass_of(stand_in(model).train(train), Rehearsal())
    _, held = rehearse(lambda _: Rehearsal(), recycling=True)
    gauge, _ = rehearse(_Gauge, recycling=False)
    return replace(gauge.result, held=max(held, gauge.result.peak.bytes))


@contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    """Let allocations be counted; what it gives tells the most bytes that there were at a time since."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - start
    finally:
        if not was_tracing:
            tracemalloc.stop()


class _Gauge(Rehearsal):
    """Reads the peak whenever something happens, and notes what the memory is taken for when it has risen."""

    def __init__(self, model: Module) -> None:
        self.result = Pass(Peak(0, {}, "", "forward"), 0, defaultdict(int), defaultdict(list))
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._turns: dict[int, int] = defaultdict(int)
        self._within: list[tuple[Key, str]] = [(("", 0), "forward")]
        self._keys: dict[int, Key] = {}  # of nodes
        self._joined: tuple[Any, ...] = ()
        self._parameters = model.parameters()
        self._own = {"parameters": _bytes(self._parameters), "buffers": _bytes(model.buffers())}
        self._claimed: dict[int, tuple[str, weakref.ref[np.ndarray] | None]] = {}
        self._live: dict[str, int] = defaultdict(int)
        for tensor in (*model.parameters(), *model.buffers()):
            self.claim(_OWN, tensor.array)
        self._start = tracemalloc.get_traced_memory()[0]

    # ---- what happens -------------------------------------------------------------------------------------------

    def call(self, module: Module, inputs: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if len(self._within) == 1:
            for tensor in tensors_in(inputs):
                self.claim(_PASSING[2], tensor.array)
        key = self._next(module)
        for part in self._joined:
            self.result.fused[self._next(part)] = key
        self._joined = ()
        output = self._as(key, "forward", run)
        for array in _packed(module):
            self.claim("packed weights", array)
        for tensor in tensors_in(output):
            self.claim(_PASSING[1], tensor.array)
        return output

    def fused(self, module: Module, parts: tuple[Any, ...]) -> None:
        self._joined = tuple(part for part in parts if isinstance(part, Module))

    def operation(self, inputs: tuple[Tensor, ...], output: Tensor, backward: Callable[..., Any], reads: Any) -> None:
        self.read()
        if output.node is not None:
            key, _ = self._within[-1]
            self._keys[id(output.node)] = key
            for array, packed in reachable(backward):
                if self.claim("packed weights" if packed else _KEPT, array) in _PASSING:
                    self.result.kept[key] += _owner(array).nbytes

    def convolution(self, problem: Any, direction: Any, algorithm: str, itemsize: int) -> None:
        key, phase = self._within[-1]
        if phase == "backward":
            self.result.backward[key].append(Convolution(problem, direction, algorithm, itemsize, 0, 0))

    def backward(self, node: Node, run: Callable[[], Any]) -> Any:
        return self._as(self._keys.get(id(node), ("", 0)), "backward", run)

    def _as(self, key: Key, phase: str, run: Callable[[], Any]) -> Any:
        """``run()``, as the work of this call."""
        self.read()
        self._within.append((key, phase))
        try:
            return run()
        finally:
            self.read()
            self._within.pop()

    def _next(self, module: Module) -> Key:
        turn = self._turns[id(module)]
        self._turns[id(module)] = turn + 1
        around = self._within[-1][0][0]
        return self._paths.get(id(module), f"{around}.<{type(module).__name__}>".lstrip(".")), turn

    # ---- what is taken ------------------------------------------------------------------------------------------

    def claim(self, part: str, array: np.ndarray) -> str:
        """Count an array's storage for a part while it lives, if it only passes through; return its part so far."""
        owner = _owner(array)
        before, alive = self._claimed.get(id(owner), ("", None))
        if before in _PASSING:
            alive = alive or weakref.ref(owner, partial(self._drop, id(owner), owner.nbytes))
            self._live[before] -= owner.nbytes
            self._live[part] += owner.nbytes
            self._claimed[id(owner)] = part, alive
        return before

    def _drop(self, number: int, size: int, _: Any) -> None:
        part, _ = self._claimed.pop(number)
        self._live[part] -= size

    def read(self) -> None:
        """Note the peak if it has risen."""
        taken = tracemalloc.get_traced_memory()[1] - self._start + sum(self._own.values())
        if taken > self.result.peak.bytes:
            (path, _), phase = self._within[-1]
            self.result.peak = Peak(taken, self._parts(taken), path, phase)

    def _parts(self, taken: int) -> dict[str, int]:
        gradients = sum(p.grad.nbytes for p in self._parameters if p.grad is not None)
        live = {part: size for part, size in self._live.items() if part not in ("", _OWN)}
        parts = {**self._own, **live, "gradients": gradients}
        return {**parts, "being computed": max(0, taken - sum(parts.values()))}


def _packed(module: Module) -> Iterator[np.ndarray]:
    """Weights in other forms that a layer keeps."""
    for value in vars(module).values():
        kept = vars(value).get("kept") if isinstance(value, Tensor) else value
        if isinstance(kept, Kept):
            yield from (array for array, _ in reachable(kept))


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Of the storage of some tensors; what several share counts once."""
    return sum({id(owner): owner.nbytes for owner in (_owner(tensor.array) for tensor in tensors)}.values())


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose storage this one looks at."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def reachable(root: Any) -> Iterator[tuple[np.ndarray, bool]]:
    """All arrays that live as long as ``root`` does, a closure for example, and for each whether it is packed weights.

    Goes through functions, containers and plain objects, and stops at modules and at the graph.
    """
    stack, seen = [(root, False)], set()
    while stack:
        value, packed = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            yield value, packed
        else:
            own = value.array if isinstance(value, Weights) else value
            stack += [(inner, packed or (own is not value and inner is not own)) for inner in _inside(value)]


def _inside(value: Any) -> Iterator[Any]:
    """What a value refers to, as far as it may hold arrays."""
    if isinstance(value, Tensor):
        yield value.array
    elif isinstance(value, types.FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        yield from value.__defaults__ or ()
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, tuple | list | set | frozenset):
        yield from value
    elif not isinstance(value, Module | Node | type | types.ModuleType):
        yield from getattr(value, "__dict__", {}).values()
        slots = (name for kind in type(value).__mro__ for name in _slots(kind))
        yield from (getattr(value, name) for name in slots if hasattr(value, name))


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  a variable that is not yet assigned has none
    except ValueError:
        return False
    return True
