"""Where the time of training steps goes: to which layer, forward or backward, and how much of it to none.

`profile` is told of every call of a module and every step of a backward (`kernels.watch`) and writes down a `Span` for
each: when it began and ended, and what was computed within. Times are whole nanoseconds, and each belongs to the
innermost span around it. So the layers' own times and the rest, which is the step's own, are the wall time exactly.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from tinytorch.analysis.timetable import timetable
from tinytorch.analysis.trace import tensors_in
from tinytorch.core.autograd import Node, operation_name
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor
from tinytorch.kernels.jit import workers
from tinytorch.kernels.watch import Watcher, watcher, watching

if TYPE_CHECKING:
    from tinytorch.analysis.roofline import Machine

Way = Literal["forward", "backward"]
Shape = tuple[int, ...]
OUTSIDE = "outside the model"
WAITING = "waiting for data"
_THREADS: dict[Way, int] = {"forward": 1, "backward": 2}


@dataclass(frozen=True)
class Work:
    """What was done, and how long it took.

    Attributes
    ----------
    ns : int
        Nanoseconds.
    macs : int
        Multiply-accumulates of convolutions and matrix products, as their definitions count them.
    bytes : int
        Of operands and results, each once: what has to be moved at least if nothing is in a cache before. Parameters
        are operands, and their gradients results. Views move nothing.
    """

    ns: int = 0
    macs: int = 0
    bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.ns + other.ns, self.macs + other.macs, self.bytes + other.bytes)

    @property
    def gflops(self) -> float | None:
        """GFLOP/s, at 2 FLOP for a multiply-accumulate; None where nothing is multiplied."""
        return 2 * self.macs / self.ns if self.macs and self.ns else None

    @property
    def gbytes(self) -> float | None:
        """GB/s, at 10⁹ bytes; None where nothing is moved."""
        return self.bytes / self.ns if self.bytes and self.ns else None


@dataclass(eq=False)
class Layer:
    """A module where it is called: one that two others call is two of these.

    Attributes
    ----------
    path : str
        Dotted name of the module, empty for the model itself. One that is not registered, such as an element of a
        list, is called after its class: "features.<Linear>".
    kind : str
        Name of the class.
    within : Layer or None
        The one that called it. The model, and layers that are called without it, are within the step itself.
    layers : list of Layer
        Those that it called, in the order of their first calls.
    """

    path: str
    kind: str
    within: Layer | None = field(default=None, repr=False)
    layers: list[Layer] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """The path as seen from the layer around."""
        around = self.within.path + "." if self.within and self.within.path else ""
        return self.path.removeprefix(around) or self.kind

    @property
    def depth(self) -> int:
        """Layers around it."""
        return 0 if self.within is None or self.within.within is None else self.within.depth + 1

    def walk(self) -> Iterator[Layer]:
        """Itself and all that it called, in the order of calls."""
        yield self
        for layer in self.layers:
            yield from layer.walk()


@dataclass(eq=False)
class Span:
    """A stretch of time: a step, a call of a module, or one step of a backward.

    Attributes
    ----------
    layer : Layer
        To which the time belongs.
    way : {"forward", "backward"}
    operation : str
        "call", or what is differentiated, such as "convolve".
    start, end : int
        Nanoseconds since the profile began.
    within : int
        Nanoseconds of spans within this one.
    macs, bytes : int
        As in `Work`; those of spans within are theirs.
    algorithms : list of str
        The planner's choices. A backward has up to two: for the input's gradient and the weight's.
    inputs, outputs : tuple of shapes
    parts : tuple of str
        What was computed in the same pass: names of modules, or "residual".
    """

    layer: Layer
    way: Way
    operation: str = "call"
    start: int = 0
    end: int = 0
    within: int = 0
    macs: int = 0
    bytes: int = 0
    algorithms: list[str] = field(default_factory=list)
    inputs: tuple[Shape, ...] = ()
    outputs: tuple[Shape, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def own(self) -> Work:
        """What is not within another span."""
        return Work(self.end - self.start - self.within, self.macs, self.bytes)


@dataclass(frozen=True)
class Row:
    """A line of the table: what a layer did in the steps that count, all together.

    Attributes
    ----------
    path, name, kind, depth
        Of the `Layer`.
    calls : int
    parts, algorithms : tuple of str
        As in `Span`, of all calls.
    backward_algorithms : tuple of str
        Those of its backward.
    inputs, outputs : tuple of shapes
        Of its last call.
    forward, backward : Work
        Its own and that of the layers within.
    own_forward, own_backward : Work
        Without that of the layers within.
    """

    path: str
    name: str
    kind: str
    depth: int
    calls: int
    parts: tuple[str, ...]
    algorithms: tuple[str, ...]
    backward_algorithms: tuple[str, ...]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    forward: Work
    backward: Work
    own_forward: Work
    own_backward: Work

    @property
    def ns(self) -> int:
        """Nanoseconds, forward and backward, with the layers within."""
        return self.forward.ns + self.backward.ns

    @property
    def own_ns(self) -> int:
        """Nanoseconds, forward and backward, without the layers within."""
        return self.own_forward.ns + self.own_backward.ns


@dataclass(eq=False, repr=False)
class Profile:
    """What `profile` found, to be read after its block.

    A step begins with a call of the model; the first, when the block is entered. Where there are several and the first
    took more than three times as long as the median of the others, it compiled, or planned, or both: then it is kept
    apart, and does not count. Numbers of rows are sums over the steps that count.

    Attributes
    ----------
    kind : str
        Class of the model.
    threads : int
        That kernels used.
    spans : list of Span
        In the order in which they began.
    """

    kind: str
    threads: int
    spans: list[Span]
    _step: Layer
    _ended: bool = False

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Nanoseconds of every step; together they are the time within the block."""
        return tuple(span.end - span.start for span in self._of_steps())

    @cached_property
    def first_apart(self) -> bool:
        """Whether the first step does not count."""
        return len(self.steps) > 1 and self.steps[0] > 3 * statistics.median(self.steps[1:])

    @property
    def counted(self) -> tuple[int, ...]:
        """Nanoseconds of the steps that count."""
        return self.steps[self.first_apart :]

    @property
    def ns(self) -> int:
        """Nanoseconds of all steps that count: the sum of all rows' own."""
        return sum(self.counted)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """A row for every layer in the order of calls, for waits for data, and for what is outside the model."""
        begun = self._of_steps()[self.first_apart].start
        of: dict[Layer, list[Span]] = {layer: [] for layer in self._step.walk()}
        for span in self.spans:
            if span.start >= begun:
                of[span.layer].append(span)
        _, *layers = of
        rows = [_row(layer, of) for layer in layers if any(of[inner] for inner in layer.walk())]
        own = [replace(_own(of[self._step], way), bytes=0) for way in _THREADS]  # an optimizer does not tell its bytes
        return (*rows, Row("", OUTSIDE, "", 0, 0, (), (), (), (), (), *own, *own))

    @property
    def waited(self) -> int:
        """Nanoseconds in which the steps that count waited for a DataLoader."""
        return sum(row.own_ns for row in self.rows if row.path == WAITING)

    def step(self, number: int) -> Profile:
        """One step as a profile of its own; they are counted from 0, and -1 is the last.

        Raises
        ------
        IndexError
            If there is no such step.
        """
        if not -len(self.steps) <= number < len(self.steps):
            raise IndexError(f"step must be one of {len(self.steps)}, counted from 0, got {number}; -1 is the last")
        whole = self._of_steps()[number]
        spans = [span for span in self.spans if whole.start <= span.start and span.end <= whole.end]
        return Profile(self.kind, self.threads, spans, self._step, True)

    @property
    def fastest(self) -> Profile:
        """The step that took least, as a profile of its own: the one that others on the machine disturbed least."""
        return self.step(min(range(len(self.steps)), key=self.steps.__getitem__))

    def __getitem__(self, path: str) -> Row:
        """The first row of a module, by its dotted name; the model's is ``""``."""
        for row in self.rows[:-1]:
            if row.path == path:
                return row
        known = ", ".join(dict.fromkeys(repr(row.path) for row in self.rows[:-1]))
        raise KeyError(f"path must be that of a module that was called, got {path!r}; there are {known or 'none'}")

    def table(
        self,
        width: int | None = None,
        sort: str = "calls",
        depth: int | None = None,
        machine: Machine | None = None,
    ) -> str:
        """The rows as text; times are means of a step.

        Parameters
        ----------
        width : int, optional
            Characters of a line: a narrow table has fewer columns. That of the terminal, 160 if there is none.
        sort : {"calls", "time"}
            In the order of calls, indented, the layers within a layer part of its numbers; or by own time, the most
            expensive first, every layer alone.
        depth : int, optional
            Leaves out what is deeper: 0 leaves the model. Has no meaning when sorted by time.
        machine : Machine, optional
            `tinytorch.analysis.roofline.machine()`, whose peak is then compared with.

        Raises
        ------
        ValueError
            If `sort` is another word.
        RuntimeError
            If the block has not ended.
        """
        return timetable(self, width, sort, depth, machine)

    def __str__(self) -> str:
        return self.table()

    def to_json(self) -> str:
        """All rows as a JSON object; seconds are means of a step."""
        rows = [_as_dict(row, len(self.counted)) for row in self.rows]
        seconds = [ns / 1e9 for ns in self.steps]
        head = {"model": self.kind, "threads": self.threads, "seconds": seconds, "first_apart": self.first_apart}
        return json.dumps({**head, "rows": rows}, indent=1, allow_nan=False)

    def chrome_trace(self) -> dict[str, Any]:
        """All spans in the Trace Event Format, for Perfetto (ui.perfetto.dev) or chrome://tracing.

        Complete events ("X"), in microseconds: steps and calls of modules, nested, as thread 1, and steps of backwards
        as thread 2. `tinytorch.io.timeline.save_trace` writes it to a file.

        Source: Google, "Trace Event Format", 2016.
        """
        names = [_metadata("process_name", 0, f"tinytorch: {self.kind}")]
        names += [_metadata("thread_name", thread, way) for way, thread in _THREADS.items()]
        numbers = {span: number for number, span in enumerate(self._of_steps(), 1)}
        events = [_event(span, f"step {numbers[span]}" if span in numbers else "") for span in self.spans]
        return {"traceEvents": names + events, "displayTimeUnit": "ms"}

    def _of_steps(self) -> list[Span]:
        if not self._ended:
            raise RuntimeError(
                "a profile can be read after its block, and this one has not ended; move the line behind `with "
                "tinytorch.profile(model) as p:`, out of its indentation"
            )
        return [span for span in self.spans if span.operation == "step"]


@contextmanager
def profile(model: Module) -> Iterator[Profile]:
    """Time every layer of a model within the block, forward and backward.

    Only what the thread that enters the block does is seen, not what others do in the meantime. Timing a layer costs
    some microseconds, which are counted to the layer around it.

    Parameters
    ----------
    model : Module
        Whose modules are told apart. The work of others, such as a loss, is outside the model.

    Yields
    ------
    Profile
        To be printed, or read, after the block; also when an exception has left it.

    Raises
    ------
    TypeError
        If `model` is no Module.
    RuntimeError
        If the block is within another one, or anything else is watching.

    Examples
    --------
    >>> with tinytorch.profile(model) as p:  # doctest: +SKIP
    ...     for x, y in batches:
    ...         optimizer.zero_grad()
    ...         F.cross_entropy(model(x), y).backward()
    ...         optimizer.step()
    >>> print(p)  # doctest: +SKIP
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"model must be a Module, got {type(model).__name__}; to profile a function make it the forward of one"
        )
    if watcher.get() is not None:
        raise RuntimeError(
            "a profile can't begin within another profile or summary, whose times it would take away; end that first"
        )
    recorder = _Recorder(model)
    result = Profile(type(model).__name__, workers(), recorder.spans, recorder.step)
    with watching(recorder):
        try:
            recorder.begin_step(0)
            yield result
        finally:
            recorder.end_step(recorder.now())
            result._ended = True


# ---- recording ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Differentiable:
    """What is known of an operation when its backward runs."""

    layer: Layer
    outputs: tuple[Shape, ...]
    macs: int
    bytes: int


class _Recorder(Watcher):
    """Writes down spans; the stack holds those that have not ended, the step's at the bottom."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.step = Layer("", OUTSIDE)
        self._waits = Layer(WAITING, "DataLoader", self.step)
        self.spans: list[Span] = []
        self._stack: list[Span] = []
        self._layers: dict[tuple[Layer, Module], Layer] = {}
        self._paths = {module: path for path, module in model.named_modules()}
        self._made: WeakKeyDictionary[Callable[..., Any], _Differentiable] = WeakKeyDictionary()
        self._fused: tuple[Any, ...] = ()
        self._zero = perf_counter_ns()

    def now(self) -> int:
        """Nanoseconds since the beginning."""
        return perf_counter_ns() - self._zero

    def begin_step(self, now: int) -> None:
        self._stack = [Span(self.step, "forward", "step", now, now)]
        self.spans += self._stack

    def end_step(self, now: int) -> None:
        self._stack[0].end = now

    # ---- what a watcher is told ----

    def call(self, module: Module, inputs: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        parts, self._fused = self._fused, ()
        within = self._stack[-1]
        if module not in self._paths and within.layer is self.step:
            return run()
        if module is self.model and len(self._stack) == 1:
            within = self._begin_with_model()
        span = Span(self._layer(module, within.layer), "forward", parts=tuple(self._name(p, within) for p in parts))
        before = len(self.spans)
        output = self._timed(span, run)
        operands, results = list(tensors_in(inputs)), list(tensors_in(output))
        span.inputs, span.outputs = _shapes(operands), _shapes(results)
        if len(self.spans) == before + 1:  # nothing within: whatever it does, it reads and writes these
            span.bytes = _moved([*operands, *(t for part in (module, *parts) for t in _tensors_of(part))], results)
        return output

    def fused(self, module: Module, parts: tuple[Any, ...]) -> None:
        self._fused = parts

    def operation(self, inputs: tuple[Tensor, ...], output: Tensor, backward: Callable[..., Any], reads: Any) -> None:
        span, name = self._stack[-1], operation_name(backward)
        macs = _products(inputs, output) if name == "matmul" else 0
        span.macs += macs
        span.bytes += _moved(inputs, [output])
        if output.node is not None:
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            moved = 0 if name in _HANDED_ON else _moved(inputs, [output, *wanted])
            self._made[backward] = _Differentiable(span.layer, (output.shape,), macs * len(wanted), moved)

    def convolution(self, problem: Any, direction: str, algorithm: str, itemsize: int) -> None:
        span = self._stack[-1]
        span.macs += problem.macs
        span.algorithms.append(algorithm)

    def waiting(self, loader: Any, run: Callable[[], Any]) -> Any:
        if self._waits not in self.step.layers:
            self.step.layers.append(self._waits)
        return self._timed(Span(self._waits, "forward"), run)

    def backward(self, node: Node, run: Callable[[], Any]) -> Any:
        made = self._made.get(node.backward) if node.backward else None
        made = made or _Differentiable(self.step, (node.shape,), 0, 0)
        span = Span(made.layer, "backward", node.name, macs=made.macs, bytes=made.bytes, inputs=made.outputs)
        return self._timed(span, run)

    # ---- how ----

    def _timed(self, span: Span, run: Callable[[], Any]) -> Any:
        self._stack.append(span)
        self.spans.append(span)
        span.start = self.now()
        try:
            return run()
        finally:
            span.end = self.now()
            self._stack.pop()
            self._stack[-1].within += span.end - span.start

    def _begin_with_model(self) -> Span:
        """The step's span: a new one, unless this is its first call of the model."""
        if (self.step, self.model) in self._layers:
            now = self.now()
            self.end_step(now)
            self.begin_step(now)
        return self._stack[0]

    def _layer(self, module: Module, within: Layer) -> Layer:
        if (within, module) not in self._layers:
            kind = type(module).__name__
            path = self._paths.get(module, f"{within.path}.<{kind}>".lstrip("."))
            self._layers[within, module] = layer = Layer(path, kind, within)
            within.layers.append(layer)
        return self._layers[within, module]

    def _name(self, part: Any, within: Span) -> str:
        """Of something that was computed along with a layer, as seen from the layer around both."""
        if not isinstance(part, Module):
            return "residual"
        path = self._paths.get(part, type(part).__name__)
        return path.removeprefix(within.layer.path + "." if within.layer.path else "")


def _products(inputs: Sequence[Tensor], output: Tensor) -> int:
    """Multiply-accumulates of a matrix product."""
    return math.prod(output.shape) * inputs[0].shape[-1]


def _tensors_of(part: Any) -> Sequence[Tensor]:
    """A module's parameters, or a tensor itself."""
    return part.parameters() if isinstance(part, Module) else [part]


def _shapes(tensors: Sequence[Tensor]) -> tuple[Shape, ...]:
    return tuple(tensor.shape for tensor in tensors)


def _moved(operands: Sequence[Tensor], results: Sequence[Tensor]) -> int:
    """Bytes of all; none if the first result is a view of an operand."""
    if any(np.may_share_memory(r.array, tensor.array) for r in results[:1] for tensor in operands):
        return 0
    return sum(tensor.array.nbytes for tensor in (*operands, *results))


# Their backwards return the gradient that they get, or a view of it.
_HANDED_ON = {"add", "mean", "permute", "reshape", "sum", "transpose"}


# ---- adding up ------------------------------------------------------------------------------------------------------


def _own(spans: Sequence[Span], way: str) -> Work:
    return sum((span.own for span in spans if span.way == way), Work())


def _row(layer: Layer, of: dict[Layer, list[Span]]) -> Row:
    whole = [span for inner in layer.walk() for span in of[inner]]
    calls = [span for span in of[layer] if span.way == "forward"]
    back = [span for span in of[layer] if span.way == "backward"]
    last = calls[-1] if calls else Span(layer, "forward")
    return Row(
        layer.path, layer.name, layer.kind, layer.depth, len(calls),
        tuple(dict.fromkeys(part for span in calls for part in span.parts)),
        _algorithms(calls), _algorithms(back), last.inputs, last.outputs,
        _own(whole, "forward"), _own(whole, "backward"), _own(calls, "forward"), _own(back, "backward"),
    )  # fmt: skip


def _algorithms(spans: Sequence[Span]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for span in spans for name in span.algorithms))


# ---- as JSON --------------------------------------------------------------------------------------------------------


def _as_dict(row: Row, steps: int) -> dict[str, Any]:
    layer = {key: getattr(row, key) for key in ("path", "name", "kind", "depth", "calls", "inputs", "outputs")}
    work = {key: _rates(getattr(row, key), steps) for key in ("forward", "backward", "own_forward", "own_backward")}
    ways = {"forward": row.algorithms, "backward": row.backward_algorithms}
    return {**layer, "calls": row.calls / steps, "with": row.parts, "algorithms": ways, **work}


def _rates(work: Work, steps: int) -> dict[str, float | None]:
    means = {"seconds": work.ns / steps / 1e9, "macs": work.macs / steps, "bytes": work.bytes / steps}
    return {**means, "gflops_per_second": work.gflops, "gbytes_per_second": work.gbytes}


def _metadata(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "ts": 0, "pid": 1, "tid": thread, "args": {"name": name}}


def _event(span: Span, step: str) -> dict[str, Any]:
    times = {"ts": span.start / 1e3, "dur": (span.end - span.start) / 1e3}
    name = step or span.layer.path or (span.layer.kind if span.layer.within else span.operation)
    thread = {"pid": 1, "tid": _THREADS[span.way]}
    return {"name": name, "cat": span.way, "ph": "X", **times, **thread, "args": _facts(span)}


def _facts(span: Span) -> dict[str, Any]:
    """What a viewer shows of a span that is clicked on; what is empty is left out."""
    facts = {
        "kind": span.layer.kind if span.layer.within else "",
        "operation": span.operation,
        "with": ", ".join(span.parts),
        "inputs": " ".join(map(str, span.inputs)),
        "outputs": " ".join(map(str, span.outputs)),
        "MACs": span.macs,
        "bytes": span.bytes,
        "algorithm": ", ".join(dict.fromkeys(span.algorithms)),
    }
    return {name: value for name, value in facts.items() if value}
