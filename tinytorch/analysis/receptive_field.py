"""Receptive fields: which pixels of the image a layer's output can see, and which it does see.

The first is arithmetic. Each operation says which places it reads (`core.reach`), and one walk through the trace of a
model carries fields from the image to every tensor, axis by axis. A field is a box: the smallest that holds all pixels
on any path, so branches are united. The second is the gradient of an output with respect to the image, of the real
model: W. Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", 2016.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from tinytorch.analysis.trace import Operation, Trace, tensors_in, trace
from tinytorch.conv.planner import use_algorithm
from tinytorch.core.autograd import enable_grad
from tinytorch.core.layers import Module
from tinytorch.core.reach import NOWHERE, POINTWISE, SAME, Moves, Reshaped, Step, Taps
from tinytorch.core.tensor import Tensor
from tinytorch.kernels.watch import Watcher, watching

Shape = tuple[int, ...]
Ends = tuple[np.ndarray, np.ndarray]  # first and last pixel for each of some places; (∞, −∞) sees none


# ---- what is found ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extent:
    """A receptive field along one axis of the image.

    Attributes
    ----------
    pixels : int
        Of the image.
    places : int
        Of the layer's output that lie along this axis; 1 where it has no such axis.
    size : int
        Pixels that an output in the middle of an endless image would see. The largest, if outputs differ. Where whole
        axes were read, `pixels`.
    stride : Fraction
        Mean distance, in pixels, between the centres of the fields of neighbouring outputs.
    uniform : bool
        Whether all outputs see as much, and are as far apart.
    whole : bool
        Whether an output sees all of this axis, however long it is.
    first_centre : float
        Centre of the first output's endless field, where that of pixel i is i. NaN where it sees nothing.
    ends : (float, float)
        First and last pixel of the endless field of the output in the middle, number ``places // 2``; or NaN.
    box : (int, int) or None
        First and last pixel of the image that the output in the middle sees; None where it sees nothing.
    """

    pixels: int
    places: int
    size: int
    stride: Fraction
    uniform: bool
    whole: bool
    first_centre: float
    ends: tuple[float, float]
    box: tuple[int, int] | None

    @property
    def centre(self) -> float:
        """Of the field of the output in the middle."""
        return sum(self.ends) / 2

    @property
    def exceeds(self) -> bool:
        """Whether the field is larger than the image, so that every output sees beyond its borders."""
        return not self.whole and self.size > self.pixels


@dataclass(frozen=True)
class Field:
    """The receptive field of a layer's output.

    Attributes
    ----------
    axes : tuple of Extent
        Along each axis of the image, depth, height, width.
    reason : str
        Why it is unavailable; then there are no axes.
    """

    axes: tuple[Extent, ...] = ()
    reason: str = ""

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def stride(self) -> tuple[Fraction, ...]:
        """Pixels from one output's field to the next, along each axis."""
        return tuple(axis.stride for axis in self.axes)

    @property
    def centre(self) -> tuple[float, ...]:
        """Of the output in the middle, in pixels along each axis."""
        return tuple(axis.centre for axis in self.axes)

    @property
    def box(self) -> tuple[tuple[int, int], ...] | None:
        """First and last pixel that the output in the middle sees, along each axis; None where it sees nothing."""
        boxes = tuple(axis.box for axis in self.axes if axis.box is not None)
        return boxes if self.axes and len(boxes) == len(self.axes) else None

    @property
    def whole(self) -> bool:
        """Whether an output sees the whole image, however large it is."""
        return bool(self.axes) and all(axis.whole for axis in self.axes)

    @property
    def exceeds(self) -> bool:
        """Whether it is larger than the image along any axis."""
        return any(axis.exceeds for axis in self.axes)

    @property
    def warning(self) -> str:
        """What to know of a field that is larger than the image; otherwise nothing."""
        if not self.exceeds:
            return ""
        image = _by(axis.pixels for axis in self.axes)
        return f"the field, {_by(self.size)} pixels, exceeds the image of {image}: every output sees beyond its borders"

    def __str__(self) -> str:
        if self.reason:
            return "unavailable"
        return "whole image" if self.whole else _by(self.size)


def _by(numbers: Any) -> str:
    return "×".join(map(str, numbers))


# ---- by arithmetic ---------------------------------------------------------------------------------------------------


def fields(model: Module, input_shape: Sequence[Any]) -> dict[str, Field]:
    """Receptive field of every layer's output.

    Parameters
    ----------
    model : Module
        Is left as it is, and regarded in evaluation mode.
    input_shape : tuple of int, or a tuple of such
        Of the input with its batch, (N, C, …); of several inputs, the first is the image.

    Returns
    -------
    dict of str to Field
        By the layer's path; "" is the model itself. Of a layer that is called several times, "path (2)" is the second
        call.

    Raises
    ------
    ValueError, TypeError
        As `analysis.trace.trace` does.
    """
    traced = trace(model, input_shape)
    found = receptive_fields(traced)
    return {
        call.path if not call.turn else f"{call.path} ({call.turn + 1})": found[call.index] for call in traced.calls
    }


def receptive_fields(traced: Trace) -> list[Field]:
    """Receptive field of the first output of every call of a trace, with respect to the first input."""
    sizes = traced.values[traced.inputs[0]].shape[2:]
    seen, known = follow(traced), dict[int, Field]()
    for number in {call.outputs[0] for call in traced.calls if call.outputs}:
        known[number] = _field(seen.get(number, _NO_PATH), sizes)
    no_tensor = Field(reason="the layer returns no tensor")
    return [known[call.outputs[0]] if call.outputs else no_tensor for call in traced.calls]


_NO_PATH = "no differentiable operation leads here from the image"


@dataclass(frozen=True, eq=False)
class Endless:
    """Fields on an axis without ends: ``shift`` pixels further every ``len(first)`` places."""

    first: np.ndarray
    last: np.ndarray
    shift: int = 0

    @property
    def period(self) -> int:
        """Places after which fields repeat."""
        return len(self.first)

    @property
    def jump(self) -> Fraction:
        """Pixels from a place to the next."""
        return Fraction(self.shift, self.period)

    @property
    def whole(self) -> bool:
        """Whether a place sees everything."""
        return bool(np.isneginf(self.first).any())

    def ends(self, place: int) -> tuple[float, float]:
        """First and last pixel that a place sees; NaN if it sees none."""
        turn, phase = divmod(place, self.period)
        first, last = (float(pixel[phase]) + turn * self.shift for pixel in (self.first, self.last))
        return (first, last) if first <= last else (math.nan, math.nan)

    def of(self, places: np.ndarray) -> Ends:
        """Ends of the field of each row of places together."""
        turn, phase = np.divmod(places, self.period)
        return _hull(self.first[phase] + turn * self.shift, self.last[phase] + turn * self.shift, places != NOWHERE)

    def through(self, taps: Taps) -> Endless:
        """The fields of what reads these places."""
        outs, ins = taps.period
        turns = self.period // math.gcd(self.period, ins)
        ends = self.of(taps.places(np.arange(outs * turns)))
        return Endless(*ends, turns * ins * self.shift // self.period)

    def united(self, other: Endless, places: int) -> Endless:
        """The boxes around both; where one moves faster than the other, of so many places, over and over."""
        if self.whole or other.whole:
            return self if self.whole else other
        period = math.lcm(self.period, other.period) if self.jump == other.jump else places
        each = np.arange(period)[:, None]
        return Endless(*_around(self.of(each), other.of(each)), round(max(self.jump, other.jump, key=abs) * period))


WHOLE = Endless(np.array([-np.inf]), np.array([np.inf]))


@dataclass(frozen=True, eq=False)
class Along:
    """What the places of a tensor see along one axis of the image.

    Attributes
    ----------
    axis : int or None
        Of the tensor, along which the places lie; None if all its elements see the same.
    first, last : ndarray
        For each place, the ends of what it sees of the image as it is.
    endless : Endless
        The same as if the image, and all that is computed from it, went on without end.
    inner : int
        Elements from one place to the next, on an axis where several are merged.
    """

    axis: int | None
    first: np.ndarray
    last: np.ndarray
    endless: Endless
    inner: int = 1

    def alone_on(self, length: int) -> bool:
        """Whether the places are all there is on an axis of this length."""
        return self.inner == 1 and len(self.first) == length

    def through(self, taps: Taps, axis: int, places: int) -> Along:
        """What the places of an operation's output see."""
        read = taps.inside(np.arange(places))
        there = (read >= 0) & (read < len(self.first))
        read = np.where(there, read, 0)
        return Along(axis, *_hull(self.first[read], self.last[read], there), self.endless.through(taps))

    def together(self) -> Along:
        """What all places see, as everything that is computed from the whole axis does."""
        ends = (np.array([self.first.min()]), np.array([self.last.max()]))
        return Along(None, *ends, WHOLE if len(self.first) > 1 else _still(self.endless))

    def fixed(self) -> Along:
        """The same for a tensor without this axis, on which there is one place."""
        return replace(self, axis=None, inner=1, endless=_still(self.endless))

    def lies_as(self, other: Along) -> bool:
        """Whether places of both are the same elements, or one of them is the same for all."""
        here, there = ((along.axis, along.inner, len(along.first)) for along in (self, other))
        return here == there or self.axis is None or other.axis is None

    def at(self, place: int) -> tuple[float, float]:
        """Ends of what a place sees."""
        place = place if len(self.first) > 1 else 0
        return float(self.first[place]), float(self.last[place])

    @property
    def empty(self) -> np.ndarray:
        """For each place, whether it sees nothing."""
        return self.first > self.last

    def is_like(self, other: Along) -> bool:
        """Whether the same places see nothing, too."""
        return self.lies_as(other) and bool((self.empty == other.empty).all())

    def united(self, other: Along) -> Along:
        """The boxes around both."""
        ends = _around((self.first, self.last), (other.first, other.last))
        moving = other if self.axis is None else self
        return Along(moving.axis, *ends, self.endless.united(other.endless, len(ends[0])), moving.inner)


def _still(endless: Endless) -> Endless:
    """The first place, for ever."""
    return Endless(endless.first[:1], endless.last[:1])


def _hull(first: np.ndarray, last: np.ndarray, there: np.ndarray) -> Ends:
    """Ends of what the entries of each row see together, of those that are there."""
    return np.where(there, first, np.inf).min(axis=1), np.where(there, last, -np.inf).max(axis=1)


def _around(a: Ends, b: Ends) -> Ends:
    return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])


class _Unknown(Exception):
    """Why the fields of an operation's output are not known."""


Box = tuple[Along, ...]  # along each axis of the image
Seen = tuple[Box, ...] | str  # as few boxes as hold all that is seen; or why that is not known


def follow(traced: Trace) -> dict[int, Seen]:
    """What the places of each tensor of a trace see of its first input: by the tensor's number, if it sees any."""
    image = traced.inputs[0]
    seen: dict[int, Seen] = {image: _image(traced.values[image].shape)}
    for operation in traced.operations:
        if any(number in seen for number in operation.inputs):
            seen[operation.output] = _output(traced, operation, seen)
    return seen


def _image(shape: Shape) -> Seen:
    """Every pixel sees itself."""
    if len(shape) < 3:
        return f"the input, {shape}, has no axes of an image behind batch and channels"
    pixel, each = Endless(np.zeros(1), np.zeros(1), 1), [np.arange(float(size)) for size in shape[2:]]
    return (tuple(Along(axis, places, places, pixel) for axis, places in enumerate(each, start=2)),)


def _output(traced: Trace, operation: Operation, seen: dict[int, Seen]) -> Seen:
    """What the output of an operation sees through all inputs that see the image."""
    found: list[Box] = []
    shape = traced.values[operation.output].shape
    try:
        for which, number in enumerate(operation.inputs):
            before = seen.get(number)
            if isinstance(before, str):
                return before
            if before is not None:
                steps = _steps(operation, which, traced.values[number].shape, shape)
                found += [tuple(_through(along, steps) for along in box) for box in before]
        return _merged(found)
    except _Unknown as reason:
        return f"{operation.name} {reason}"


def _merged(boxes: list[Box]) -> tuple[Box, ...]:
    """One box instead of two where that is no larger than around both: where neither is empty without the other."""
    merged: list[Box] = []
    for box in sorted(boxes, key=lambda box: sum(along.axis is None for along in box)):
        alike = next((i for i, other in enumerate(merged) if all(map(Along.is_like, box, other))), None)
        if alike is None:
            merged.append(box)
        else:
            merged[alike] = _around_both(merged[alike], box)
    return tuple(merged)


def _around_both(a: Box, b: Box) -> Box:
    return tuple(map(Along.united, a, b))


def _through(along: Along, steps: Sequence[tuple[Step, Shape, Shape]]) -> Along:
    for step, before, after in steps:
        if along.axis is not None:
            along = _reshaped(along, step) if isinstance(step, Reshaped) else _moved(along, step, before, after)
    return along


def _steps(operation: Operation, which: int, before: Shape, after: Shape) -> list[tuple[Step, Shape, Shape]]:
    """How an operation moves the places of an input, each step with the shapes before and after it."""
    if operation.reads is not None:
        step = operation.reads(which)
        if step is None:
            raise _Unknown("makes use of the image in an operand that is not an image")
        if not isinstance(step, tuple):
            return [(step, before, after)]
        first, second = step
        between = second.before if isinstance(second, Reshaped) else first.after  # type: ignore[union-attr]
        return [(first, before, between), (second, between, after)]
    if not operation.ours or operation.name not in POINTWISE:
        raise _Unknown("does not say which pixels it reads")
    missing = len(after) - len(before)  # shapes are broadcast, aligned at their last axes
    return [({axis: (axis + missing, SAME) for axis in range(len(before))}, before, after)]


def _reshaped(along: Along, step: Reshaped) -> Along:
    assert along.axis is not None
    moved = step.moved(along.axis, along.inner, len(along.first))
    if moved is not None:
        return replace(along, axis=moved[0], inner=moved[1])
    if len(along.first) == 1:
        return along.fixed()
    raise _Unknown("cuts an axis of the image into pieces")


def _moved(along: Along, moves: Moves, before: Shape, after: Shape) -> Along:
    assert along.axis is not None
    if along.axis not in moves:
        return along.together()
    axis, taps = moves[along.axis]
    if taps is SAME and axis is not None:
        if before[along.axis] == after[axis]:
            return along if along.axis == axis else replace(along, axis=axis)
        if before[along.axis] == 1:  # and is repeated
            return along.fixed()
    if taps is None or not along.alone_on(before[along.axis]):
        raise _Unknown("joins or cuts along an axis of the image")
    if axis is None:
        return along.through(taps, 0, 1).fixed()
    return along.through(taps, axis, after[axis])


# ---- its numbers -----------------------------------------------------------------------------------------------------


def _field(seen: Seen, sizes: Shape) -> Field:
    if isinstance(seen, str):
        return Field(reason=seen)
    if not _lie_alike(seen):
        return Field(reason="its elements see two places each, as in a matrix of attention")
    around = reduce(_around_both, seen)
    axes = zip(around, sizes, zip(*_in_the_middle(seen, around), strict=True), strict=True)
    return Field(tuple(_extent(along, pixels, ends) for along, pixels, ends in axes))


def _lie_alike(seen: tuple[Box, ...]) -> bool:
    return all(a.lies_as(b) for axis in zip(*seen, strict=True) for a, b in itertools.combinations(axis, 2))


def _in_the_middle(seen: tuple[Box, ...], around: Box) -> list[list[tuple[float, float]]]:
    """Ends, axis by axis, of the boxes that the output in the middle sees, of those that are not empty if there are."""
    middles = [len(along.first) // 2 for along in around]
    boxes = [[along.at(place) for along, place in zip(box, middles, strict=True)] for box in seen]
    return [box for box in boxes if all(first <= last for first, last in box)] or boxes


def _extent(along: Along, pixels: int, boxes: Sequence[tuple[float, float]]) -> Extent:
    endless, places = along.endless, len(along.first)
    widths, whole, everything = np.maximum(endless.last - endless.first + 1, 0), endless.whole, (0.0, pixels - 1.0)
    first, last = min(first for first, _ in boxes), max(last for _, last in boxes)
    return Extent(
        pixels,
        places,
        pixels if whole else int(widths.max()),
        endless.jump,
        whole or _is_uniform(endless),
        whole,
        sum(everything if whole else endless.ends(0)) / 2,
        everything if whole else endless.ends(places // 2),
        None if first > last else (int(first), int(last)),
    )


def _is_uniform(endless: Endless) -> bool:
    """Whether each place sees what the place before it does, moved on."""
    if endless.period == 1:
        return True
    steps = np.arange(endless.period) * float(endless.jump)
    seeing = bool(np.isfinite(endless.first).all())
    return seeing and all(np.ptp(ends - steps) < 1e-9 for ends in (endless.first, endless.last))


# ---- by gradients ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Effective:
    """How much each pixel moves the output of a layer that is in the middle.

    Attributes
    ----------
    layer : str
    field : Field
        By arithmetic; no pixel outside of its box moves the output.
    strength : ndarray, of the image's size
        |∂y/∂x|, where y is the sum of the output's channels: the mean over the image's channels, and over images.
    images : int
        How many there were.
    drawn : bool
        Whether they were random.
    """

    layer: str
    field: Field
    strength: np.ndarray
    images: int
    drawn: bool = False

    @property
    def of(self) -> str:
        """Which images, in words."""
        if self.drawn:
            return f"{self.images} random image{'s' * (self.images > 1)}"
        return "the image" if self.images == 1 else f"{self.images} images"

    @property
    def box(self) -> tuple[tuple[int, int], ...] | None:
        """First and last pixel along each axis with any strength; None if there is none."""
        there = np.nonzero(self.strength)
        return tuple((int(places.min()), int(places.max())) for places in there) if len(there[0]) else None

    @property
    def size(self) -> float:
        """Side, in pixels, of a square (or cube) with as many pixels as have 4.55 % of the largest strength or more.

        Of a Gaussian, these are the pixels within 2.5 standard deviations. The threshold is that of W. Luo et al.,
        section 3.
        """
        strong = np.count_nonzero(self.strength >= _STRONG * self.strength.max()) if self.strength.any() else 0
        return float(strong ** (1 / self.strength.ndim))


_STRONG = 1 - 0.9545


def effective(model: Module, layer: str, images: Any, seed: int = 0) -> Effective:
    """Find how much each pixel moves the middle output of a layer, by the gradient.

    Parameters
    ----------
    model : Module
        With its weights as they are. While this runs it is in evaluation mode and its parameters are frozen; then all
        is as before.
    layer : str
        Path of a module, as `Module.named_modules` has it. If it is called several times, the first counts.
    images : Tensor or ndarray (N, C, …), or a tuple of int
        Images; a tuple is the shape of random ones, drawn from N(0, 1).
    seed : int
        Of the random images.

    Returns
    -------
    Effective

    Raises
    ------
    ValueError
        If there is no such layer (the message gives those that are near), it is not called, the place of its outputs
        in the image is not known, or there is no image.
    """
    drawn = isinstance(images, tuple | list)
    shape = tuple(images) if drawn else np.shape(images)
    if not shape or shape[0] < 1:
        raise ValueError(f"images must be one or more, of shape (N, C, …), got {shape}; give N images")
    check_layer(model, layer)
    middle, field = _middle(model, layer, (1, *shape[1:]))
    dtype = next((p.dtype for p in model.parameters() if p.dtype.kind == "f"), np.dtype(np.float32))
    random = np.random.default_rng(seed)
    total = np.zeros(shape[2:])
    for number in range(shape[0]):
        image = random.standard_normal(shape[1:]) if drawn else np.asarray(images)[number]
        total += np.abs(_gradient(model, layer, image[None].astype(dtype), middle))[0].mean(axis=0, dtype=np.float64)
    return Effective(layer, field, total / shape[0], shape[0], drawn)


def check_layer(model: Module, layer: str) -> None:
    """Raise unless the model has a layer with this path.

    Raises
    ------
    ValueError
        The message gives those that are near.
    """
    paths = [path for path, _ in model.named_modules() if path]
    if layer and layer not in paths:
        ends = [path for path in paths if path.endswith(f".{layer}")]
        near = list(dict.fromkeys((*get_close_matches(layer, paths, n=3), *ends)))[:5]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(paths[:8])}, …"
        raise ValueError(f"layer must be the path of a layer of {type(model).__name__}, got {layer!r}; {hint}")


def _middle(model: Module, layer: str, shape: Shape) -> tuple[np.ndarray, Field]:
    """Where in a layer's output its middle is, as zeros and ones, and its receptive field."""
    traced = trace(model, shape)
    call = next((call for call in traced.calls if call.path == layer), None)
    if call is None or not call.outputs:
        raise ValueError(f"layer {layer!r} is not called by the model, or returns no tensor; choose one that is")
    seen = follow(traced).get(call.outputs[0], _NO_PATH)
    field = _field(seen, shape[2:])
    if isinstance(seen, str) or field.reason:
        raise ValueError(f"the field of layer {layer!r} is not known: {field.reason}; choose a layer before that")
    middle = np.ones(traced.values[call.outputs[0]].shape, bool)
    for along in reduce(_around_both, seen):
        if along.axis is not None:
            places = np.arange(middle.shape[along.axis]) // along.inner % len(along.first)
            there = places == len(along.first) // 2
            middle &= there.reshape(-1, *(1,) * (middle.ndim - along.axis - 1))
    return middle, field


_EXACT = 1e-6  # keeps out algorithms whose rounding leaves traces beyond the field


def _gradient(model: Module, layer: str, image: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Gradient of the sum of some of a layer's outputs with respect to the image."""
    x = Tensor(image, requires_grad=True)
    catcher = _Catcher(dict(model.named_modules())[layer])
    with _frozen(model), enable_grad(), use_algorithm(tolerance=_EXACT):
        try:
            with watching(catcher):
                model(x)
        except _Caught:
            pass
        if catcher.output is None:
            raise ValueError(
                f"layer {layer!r} is not called with these images, for the path through the model depends on their "
                "numbers; choose a layer that all images pass"
            )
        catcher.output.backward(middle.astype(catcher.output.dtype))
    return np.zeros_like(image) if x.grad is None else x.grad


class _Caught(Exception):
    """What was to be computed is there."""


class _Catcher(Watcher):
    """Ends the forward as soon as a module has returned."""

    apart = True

    def __init__(self, module: Module) -> None:
        self.module = module
        self.output: Tensor | None = None

    def call(self, module: Any, inputs: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        output = run()
        if module is self.module:
            self.output = next(tensors_in(output))
            raise _Caught
        return output


@contextmanager
def _frozen(model: Module) -> Iterator[None]:
    """The model in evaluation mode, and its parameters without gradients."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad = flag
