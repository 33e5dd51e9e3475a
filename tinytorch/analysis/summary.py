"""What every layer of a model is, holds and costs, for an input of some shape; nothing is convolved to find out.

Figures come from three places. Shapes, parameters and multiply-accumulates are those of the definition, layer by layer
(`trace`). What is kept for the backward, the algorithms and the memory are those of a pass as it would run, where
neighbouring layers are computed at once (`memory`). What an algorithm executes is `conv.cost`'s.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.analysis import memory as passes
from tinytorch.analysis import roofline
from tinytorch.analysis.figures import Figure, total, unavailable
from tinytorch.analysis.memory import Loss, Pass
from tinytorch.analysis.profile import profile
from tinytorch.analysis.receptive_field import Field, receptive_fields
from tinytorch.analysis.stand_in import Shape, dtype_of, images, rehearsal, shapes_of
from tinytorch.analysis.summary_table import CSV, as_dict, markdown, table
from tinytorch.analysis.trace import Call, Convolution, Operation, Trace, trace
from tinytorch.conv.cost import cost
from tinytorch.core.autograd import no_grad
from tinytorch.core.layers import Module, Parameter

NOTHING, NOT_MEASURED = Figure(0), unavailable("not measured")
_NOT_ASKED_FOR = "not asked for"
_RUNS = 5  # of a model that is measured

Times = dict[str, tuple[float, int]]  # seconds and MACs, by the path of a module


@dataclass(frozen=True)
class Work:
    """A convolution, or a product with weights, and who computes it.

    Attributes
    ----------
    direction : str
        "forward", "input_grad" or "weight_grad" of the layer.
    problem : str
        As `ConvProblem.parse` reads it; that of a transposed convolution is the convolution that it is transposed to.
    algorithm : str
        The planner's choice.
    macs, multiplies : int
        Multiply-accumulates of the definition, and multiplications that the algorithm executes.
    scratch : int
        Bytes that the algorithm holds while it works.
    """

    direction: str
    problem: str
    algorithm: str
    macs: int
    multiplies: int
    scratch: int


@dataclass(frozen=True)
class Row:
    """A call of a module, without the modules that it calls; or what a module that calls others computes by itself.

    Attributes
    ----------
    path : str
        Dotted name of the module, empty for the model.
    kind : str
        Its class; of a module's own operations, their names.
    depth : int
        Calls around it.
    turn : int
        0 for the first call of the module, 1 for the second, …; None if it is never called.
    is_own : bool
        Whether these are the own operations of a module that also calls others.
    input_shapes, output_shapes : tuple of shapes
    parameters, trainable : int
        Numbers of its own, counted where they are met first; those that require grad.
    shared : bool
        Whether it has parameters that were counted before.
    macs, macs_inside : Figure
        Multiply-accumulates of its convolutions and matrix products; those whose tap is not on padding.
    moved : int
        Bytes of the operands and results of these.
    output_bytes : int
    kept : Figure
        Bytes that stay for the backward.
    field : Field or None
        Receptive field of its output.
    work : tuple of Work
    seconds, backward_seconds : Figure
        Of a measured forward, and of a measured backward.
    backward_macs : Figure
        Multiply-accumulates of that backward.
    """

    path: str
    kind: str
    depth: int
    turn: int | None = 0
    is_own: bool = False
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    parameters: int = 0
    trainable: int = 0
    shared: bool = False
    macs: Figure = NOTHING
    macs_inside: Figure = NOTHING
    moved: int = 0
    output_bytes: int = 0
    kept: Figure = NOTHING
    field: Field | None = None
    work: tuple[Work, ...] = ()
    seconds: Figure = NOT_MEASURED
    backward_seconds: Figure = NOT_MEASURED
    backward_macs: Figure = NOT_MEASURED

    @property
    def name(self) -> str:
        """Path, and which call if there are several."""
        return f"{self.path} ({self.turn + 1})" if self.turn else self.path

    @property
    def algorithm(self) -> str:
        """Who computes the forward."""
        return ", ".join(dict.fromkeys(work.algorithm for work in self.work if work.direction == "forward"))

    @property
    def multiplies(self) -> Figure:
        """Multiplications that the forward executes; those of products without weights are their MACs."""
        spared = sum(work.macs - work.multiplies for work in self.work if work.direction == "forward")
        return self.macs if self.macs.value is None else replace(self.macs, value=self.macs.value - spared)

    @property
    def scratch(self) -> Figure:
        """Bytes that the hungriest of its algorithms holds while it works."""
        return Figure(max((work.scratch for work in self.work), default=0), "estimated", "from the algorithm's plan")


@dataclass
class Summary:
    """Everything about a model and an input shape.

    ``str()`` is a table as wide as the terminal, `table` one of another width; `to_json`, `to_csv` and `to_markdown`
    are for programs and pages.

    Attributes
    ----------
    kind : str
        Class of the model.
    input_shapes : tuple of shapes
    dtype : dtype
    flops_per_mac : int
        1 or 2.
    rows : list of Row
        In the order of calls; modules that are never called come last.
    buffers : int
        Numbers that are saved with the model but not learned.
    parameter_bytes : int
        Of parameters and buffers.
    inference, training : Pass or str
        Memory; or why it is not known.
    notes : list of str
        What to know of the figures.
    """

    kind: str
    input_shapes: tuple[Shape, ...]
    dtype: np.dtype
    flops_per_mac: int
    rows: list[Row]
    buffers: int
    parameter_bytes: int
    inference: Pass | str
    training: Pass | str
    machine: roofline.Machine | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """Numbers that the model learns, each once."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Those that require grad."""
        return sum(row.trainable for row in self.rows)

    @property
    def macs(self) -> Figure:
        """Multiply-accumulates of all convolutions and matrix products of a forward, taps on padding counted."""
        return total(row.macs for row in self.rows)

    @property
    def macs_inside(self) -> Figure:
        """The same without taps on padding."""
        return total(row.macs_inside for row in self.rows)

    @property
    def flops(self) -> Figure:
        """MACs times `flops_per_mac`."""
        return self.macs.times(self.flops_per_mac)

    @property
    def multiplies(self) -> Figure:
        """Multiplications that the algorithms of the forward execute."""
        return total(row.multiplies for row in self.rows)

    @property
    def kept(self) -> Figure:
        """Bytes that stay for the backward."""
        if isinstance(self.training, str):
            return unavailable(self.training)
        return Figure(sum(self.training.kept.values()))

    @property
    def inference_memory(self) -> Figure:
        """Bytes in use at the peak of a forward, parameters included."""
        return _peak(self.inference)

    @property
    def training_memory(self) -> Figure:
        """Bytes in use at the peak of forward and backward, parameters and gradients included."""
        return _peak(self.training)

    def intensity(self, row: Row) -> Figure:
        """FLOPs of a row for each byte of its operands and results."""
        if row.macs.value is None or not row.moved:
            return unavailable("nothing is convolved" if row.macs.value is not None else row.macs.reason)
        return row.macs.times(self.flops_per_mac / row.moved)

    def cut(self, depth: int | None = None) -> list[Row]:
        """The rows down to a depth; one that has others below it stands for them, too."""
        if depth is None:
            return self.rows
        shown: list[Row] = []
        for row in self.rows:
            if row.depth <= depth:
                shown.append(row)
            else:
                shown[-1] = _joined(shown[-1], row)
        return shown

    def table(self, width: int | None = None, depth: int | None = None) -> str:
        """The rows and totals as text.

        Parameters
        ----------
        width : int, optional
            Characters of a line: a narrow table has fewer columns. That of the terminal, 160 if there is none.
        depth : int, optional
            Deeper rows are added to those that they belong to; 0 leaves one.
        """
        return table(self, width, depth)

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """All figures, each with its status, as JSON has them."""
        return as_dict(self)

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)

    def to_csv(self, depth: int | None = None) -> str:
        """The rows as comma-separated values; what is unavailable is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV)
        writer.writerows([cell(self, row) for cell in CSV.values()] for row in self.cut(depth))
        return text.getvalue()

    def to_markdown(self, depth: int | None = None) -> str:
        """The rows and totals as a page."""
        return markdown(self, depth)


def _peak(found: Pass | str) -> Figure:
    if isinstance(found, str):
        return unavailable(found)
    return Figure(found.peak.bytes, "estimated", "a rehearsal's allocations")


def _joined(above: Row, row: Row) -> Row:
    """A row that stands for another one as well."""
    return replace(
        above,
        parameters=above.parameters + row.parameters,
        trainable=above.trainable + row.trainable,
        shared=above.shared or row.shared,
        macs=total((above.macs, row.macs)),
        macs_inside=total((above.macs_inside, row.macs_inside)),
        moved=above.moved + row.moved,
        kept=total((above.kept, row.kept)),
        work=above.work + row.work,
        seconds=_known(above.seconds, row.seconds),
        backward_seconds=_known(above.backward_seconds, row.backward_seconds),
        backward_macs=_known(above.backward_macs, row.backward_macs),
    )


def _known(one: Figure, other: Figure) -> Figure:
    """The sum of two, or that which is known."""
    return other if one.value is None else one if other.value is None else total((one, other))


def summary(
    model: Module,
    input_shape: Sequence[Any],
    *,
    dtype: DTypeLike | None = None,
    flops: int = 2,
    memory: bool = True,
    loss: Loss | None = None,
    measure: bool = False,
) -> Summary:
    """Tell of every layer of a model its shapes, parameters, arithmetic and memory, without running it.

    Parameters
    ----------
    model : Module
        Is left as it is: parameters, gradients, running statistics and random numbers.
    input_shape : tuple of int, or a tuple of such
        Of the input with its batch, or of each input.
    dtype : dtype, optional
        Of the input, float32 or float64; by default that of the parameters.
    flops : {2, 1}
        Floating-point operations that a multiply-accumulate counts as.
    memory : bool
        Whether passes are rehearsed to find the peaks of memory and what is kept for the backward.
    loss : callable, optional
        Makes one number of what the model returns, for the memory of training; by default the sum.
    measure : bool
        Whether a copy of the model really runs, forward in evaluation mode and backward in training mode, to time its
        layers, and the machine's limits are measured.

    Returns
    -------
    Summary
        To be printed, or read.

    Raises
    ------
    TypeError
        If the model is no Module, or the dtype another.
    ValueError
        If the input does not fit: the message names the layer and the shapes up to it.

    Examples
    --------
    >>> from tinytorch import nn, summary
    >>> summary(nn.Conv2d(3, 64, 3, padding=1), (32, 3, 224, 224)).macs.value
    2774532096
    """
    if isinstance(flops, bool) or flops not in (1, 2):
        raise ValueError(f"flops must be 2 or 1, FLOPs that a multiply-accumulate counts as, got {flops!r}")
    traced = trace(model, input_shape, dtype)
    shapes, kind = shapes_of(input_shape), dtype_of(model, dtype)
    rehearse = _rehearsed if memory else lambda *_: _NOT_ASKED_FOR
    inference = rehearse(passes.inference, model, shapes, kind)
    training = rehearse(partial(passes.training, loss=loss), model, shapes, kind)
    times = _timed(model, shapes, kind) if measure else None
    with rehearsal():
        rows = _Rows(model, traced, training, times).rows()
    return Summary(
        type(model).__name__, shapes, kind, flops, rows,
        sum(buffer.size for buffer in traced.model.buffers()),
        sum(tensor.array.nbytes for tensor in (*traced.model.parameters(), *traced.model.buffers())),
        inference, training, roofline.machine() if measure else None,
        list(_notes(traced, rows, inference=inference, training=training)),
    )  # fmt: skip


def _rehearsed(
    run: Callable[[Module, Sequence[Shape], np.dtype], Pass], model: Module, shapes: Sequence[Shape], dtype: np.dtype
) -> Pass | str:
    try:
        return run(model, shapes, dtype)
    except Exception as error:  # the model's own code runs, in another mode than in the trace
        return f"{type(error).__name__}: {error}"


def _timed(model: Module, shapes: Sequence[Shape], dtype: np.dtype) -> tuple[Times, Times | str]:
    """Forwards in evaluation mode, and backwards of the sum of all outputs; of these, or why there are none."""
    inputs = [images(shape, dtype) for shape in shapes]
    alone = copy.deepcopy(model)  # running statistics and gradients will change

    def step() -> None:
        passes.sum_of(alone(*inputs)).backward()

    alone.eval()
    with no_grad():
        forward = _fastest(alone, lambda: alone(*inputs), "own_forward")
    alone.train()
    try:
        return forward, _fastest(alone, step, "own_backward")
    except Exception as error:  # the model's own code runs, in another mode
        return forward, f"{type(error).__name__}: {error}"


def _fastest(model: Module, run: Callable[[], Any], which: str) -> Times:
    """Seconds and MACs of the fastest of some runs, for each module by itself."""
    with profile(model) as timed:
        for _ in range(_RUNS):
            run()
    found: Times = defaultdict(lambda: (0.0, 0))
    for row in timed.fastest.rows[:-1]:  # the last is what is outside of the model
        (seconds, macs), work = found[row.path], getattr(row, which)
        found[row.path] = seconds + work.ns / 1e9, macs + work.macs
    return dict(found)


class _Rows:
    """From a trace to the rows of a summary."""

    def __init__(
        self, model: Module, traced: Trace, training: Pass | str, times: tuple[Times, Times | str] | None
    ) -> None:
        self.traced, self.training = traced, training
        self.forward: Times | str | None
        self.backward: Times | str | None
        self.forward, self.backward = times or (None, None)
        pairs = zip(traced.model.parameters(), model.parameters(), strict=True)
        self.trainable = {id(mine): theirs.requires_grad for mine, theirs in pairs}
        self.registered = set(self.trainable)
        self.fields = receptive_fields(traced)
        self.parents = {call.parent for call in traced.calls}
        self.operations: dict[int, list[Operation]] = defaultdict(list)
        self.convolutions: dict[int, list[Convolution]] = defaultdict(list)
        for operation in traced.operations:
            self.operations[operation.call].append(operation)
        for convolution in traced.convolutions:
            self.convolutions[convolution.call].append(convolution)
        made = {operation.output for operation in traced.operations}
        named = {number for number, value in enumerate(traced.values) if value.name}
        self.seen = made | named

    def rows(self) -> list[Row]:
        """All of them, in order."""
        placed: list[tuple[tuple[int, int], Row]] = []
        for call in self.traced.calls:
            within = call.index in self.parents
            row = self._row(call)
            if not within:
                row = self._working(row, call)
            placed.append(((call.index, -1), row))
            if within and (self.operations[call.index] or self.convolutions[call.index]):
                placed.append((self._begin(call), self._own(call)))
        placed.sort(key=lambda pair: pair[0])
        return [row for _, row in placed] + list(self._never_called())

    def _row(self, call: Call) -> Row:
        """What a call is, without what it computes."""
        shapes = self.traced.shapes
        return Row(
            call.path, call.kind, call.depth, call.turn, False, shapes(call.inputs), shapes(call.outputs),
            **self._learned(call.module), output_bytes=self._bytes(call.outputs), field=self.fields[call.index],
        )  # fmt: skip

    def _own(self, call: Call) -> Row:
        """What a call computes beside those within it."""
        operations = self.operations[call.index]
        names = Counter(operation.name for operation in operations)
        kind = ", ".join(name if count == 1 else f"{name} ×{count}" for name, count in names.items())
        outputs = tuple(operation.output for operation in operations[-1:])
        inputs = tuple(number for number in (operations[0].inputs if operations else ()) if not self._is_weight(number))
        row = Row(
            call.path, kind or "convolve", call.depth + 1, call.turn, True, self.traced.shapes(inputs),
            self.traced.shapes(outputs), output_bytes=self._bytes(outputs),
        )  # fmt: skip
        return self._working(row, call)

    def _working(self, row: Row, call: Call) -> Row:
        """A row with what the call computes itself."""
        convolutions = self.convolutions[call.index]
        products = [self._product(o) for o in self.operations[call.index] if o.name == "matmul" and o.ours]
        macs = sum(c.problem.macs for c in convolutions) + sum(macs for macs, _ in products)
        inside = sum(c.problem.macs_inside for c in convolutions) + sum(macs for macs, _ in products)
        reason = self._unseen(call)
        seconds, _ = self._measured(self.forward, call)
        backward_seconds, backward_macs = self._measured(self.backward, call)
        return replace(
            row,
            macs=unavailable(reason) if reason else Figure(macs),
            macs_inside=unavailable(reason) if reason else Figure(inside),
            moved=sum(map(_operand_bytes, convolutions)) + sum(size for _, size in products),
            kept=self._kept(call),
            work=tuple(self._work(call)),
            seconds=seconds,
            backward_seconds=backward_seconds,
            backward_macs=backward_macs,
        )

    def _product(self, operation: Operation) -> tuple[int, int]:
        """MACs and operand bytes of a matrix product."""
        left, right, out = (self.traced.values[n] for n in (*operation.inputs, operation.output))
        return math.prod(out.shape) * left.shape[-1], left.nbytes + right.nbytes + out.nbytes

    def _work(self, call: Call) -> Iterator[Work]:
        for convolution in self.convolutions[call.index]:
            yield _as_work("forward", convolution)
        if isinstance(self.training, Pass):
            for convolution in self.training.backward.get((call.path, call.turn), ()):
                yield _as_work("weight_grad" if convolution.direction == "weight_grad" else "input_grad", convolution)

    def _unseen(self, call: Call) -> str:
        """Why the arithmetic of a call is not known, if it is not."""
        for operation in self.operations[call.index]:
            if not operation.ours:
                return f"the operation {operation.name!r} is not the library's, and does not tell what it multiplies"
        if any(number not in self.seen for number in call.outputs) and call.index not in self.parents:
            return "its output is not made of its input by operations that can be seen"
        return ""

    def _kept(self, call: Call) -> Figure:
        if isinstance(self.training, str):
            return unavailable(self.training)
        key = call.path, call.turn
        within = self.training.fused.get(key)
        return Figure(self.training.kept.get(key, 0), reason=f"computed within {within[0]}" if within else "")

    def _measured(self, times: Times | str | None, call: Call) -> tuple[Figure, Figure]:
        """Seconds and MACs of a call, or the reason why they are not known."""
        if times is None:
            return NOT_MEASURED, NOT_MEASURED
        if isinstance(times, str):
            return unavailable(times), unavailable(times)
        if call.path not in times:
            within = unavailable("computed within another layer")
            return within, within
        seconds, macs = times.pop(call.path)
        return Figure(seconds, "estimated", f"the fastest of {_RUNS} runs"), Figure(macs)

    def _begin(self, call: Call) -> tuple[int, int]:
        """The place of a call's own work: where the first of it happened."""
        operations, convolutions = self.operations[call.index], self.convolutions[call.index]
        begun = min([o.begun for o in operations] + [c.begun for c in convolutions])
        order = self.traced.operations.index(operations[0]) if operations else 0
        return begun - 1, order

    def _learned(self, module: Module) -> dict[str, Any]:
        """The parameters of a module's own that were not counted before."""
        own = {id(p): p for p in vars(module).values() if isinstance(p, Parameter) and id(p) in self.trainable}
        new = {number: parameter for number, parameter in own.items() if number in self.registered}
        self.registered -= set(new)
        trainable = sum(parameter.size for number, parameter in new.items() if self.trainable[number])
        return {
            "parameters": sum(parameter.size for parameter in new.values()),
            "trainable": trainable,
            "shared": len(new) < len(own),
        }

    def _never_called(self) -> Iterator[Row]:
        """Modules that hold parameters of their own and are not called."""
        for path, module in self.traced.model.named_modules():
            learned = self._learned(module)
            if learned["parameters"]:
                yield Row(path, type(module).__name__, path.count(".") + 1, None, **learned)

    def _bytes(self, numbers: Sequence[int]) -> int:
        return sum(self.traced.values[number].nbytes for number in numbers)

    def _is_weight(self, number: int) -> bool:
        return self.traced.values[number].name not in ("", "input")


def _operand_bytes(convolution: Convolution) -> int:
    """Input, weights and output, once each."""
    problem = convolution.problem
    shapes = problem.input_shape, problem.weight_shape, problem.output_shape
    return convolution.itemsize * sum(map(math.prod, shapes))


def _as_work(direction: str, c: Convolution) -> Work:
    known = cost(c.problem, c.direction, c.algorithm, c.itemsize)
    return Work(direction, str(c.problem), c.algorithm, c.problem.macs, known.multiplies, known.scratch)


def _notes(traced: Trace, rows: Sequence[Row], **found: Pass | str) -> Iterator[str]:
    if traced.looks:
        where = ", ".join(path or "the model" for path in traced.looks)
        yield (
            f"the path taken depends on values: {where} looks at numbers, which are zeros here; other images may take "
            "another path"
        )
    for row in rows:
        if row.macs.value is None:
            yield f"{row.name or 'the model'}: MACs unavailable: {row.macs.reason}"
    if never := [row.name for row in rows if row.turn is None]:
        yield f"never called, but with parameters: {', '.join(never)}"
    if shared := [row.name for row in rows if row.shared]:
        yield f"parameters counted before: {', '.join(shared)}"
    known = {id(p) for p in traced.model.parameters()}
    for call in traced.calls:
        strange = sum(p.size for p in vars(call.module).values() if isinstance(p, Parameter) and id(p) not in known)
        if strange:
            yield f"{call.path} holds {strange:,} parameters that the model does not register, so that none is counted"
    for name, reason in found.items():
        if isinstance(reason, str) and reason != _NOT_ASKED_FOR:
            yield f"memory of {name} unavailable: {reason}"
