"""What a convolution is asked to do: a frozen value that every algorithm, test and benchmark reads.

This file is the only home of the output-size formula (`Axis.out`). A problem says nothing of how it is computed, and
can describe more than any one algorithm accepts: groups, dilation, uneven padding, and one to three spatial
dimensions.

Glossary of the short names used throughout ``tinytorch.conv``

====================  ===================================================
n                     images in the batch
ci, co                input and output channels
g                     groups; a group has ci/g input and co/g output channels
hi, wi / ho, wo       height and width of the input / of the output
kh, kw                height and width of the kernel
sh, sw                stride; dh, dw dilation
====================  ===================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

Direction = Literal["forward", "input_grad", "weight_grad"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "input_grad", "weight_grad")

Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
AXIS_NAMES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class Axis:
    """One spatial dimension: a window of ``kernel`` taps that slides over ``size`` pixels.

    Parameters
    ----------
    size
        Pixels of the input.
    kernel
        Taps of the window.
    stride
        Pixels between two windows.
    before, after
        Padding pixels added in front and behind.
    dilation
        Pixels between two taps; 1 is a dense window.
    """

    size: int
    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    @property
    def extent(self) -> int:
        """Pixels that the window spans: ``dilation · (kernel − 1) + 1``."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def padded(self) -> int:
        """Pixels of the input with its padding."""
        return self.before + self.size + self.after

    @property
    def out(self) -> int:
        """Windows that fit: ``⌊(size + padding − extent) / stride⌋ + 1``."""
        return (self.padded - self.extent) // self.stride + 1


@dataclass(frozen=True)
class ConvProblem:
    """One convolution, forward and backward.

    Parameters
    ----------
    n
        Images in the batch.
    ci, co
        Channels of the input and of the output.
    axes
        Spatial dimensions, outermost first; one to three.
    groups
        Independent convolutions that the channels are dealt to.

    Examples
    --------
    >>> p = ConvProblem.parse("mb32ic3oc64_ih224kh3ph1")
    >>> p.output_shape, p.macs
    ((32, 64, 224, 224), 2774532096)
    """

    n: int
    ci: int
    co: int
    axes: tuple[Axis, ...]
    groups: int = 1

    @classmethod
    def of(
        cls,
        input_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> ConvProblem:
        """Describe the convolution of an ``(n, ci, …)`` input with ``(co, ci/groups, …)`` weights.

        Raises
        ------
        ValueError
            When the shapes and options have no meaning together; the message names the argument.
        """
        options = (stride, padding, dilation)
        try:
            return _problem(tuple(input_shape), tuple(weight_shape), *options, groups)
        except TypeError:  # lists can't be looked up
            return _problem(tuple(input_shape), tuple(weight_shape), *map(_frozen, options), groups)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Made once: a problem is looked up at every call."""
        return hash((self.n, self.ci, self.co, self.axes, self.groups))

    @property
    def dims(self) -> int:
        """Spatial dimensions."""
        return len(self.axes)

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        return (self.n, self.ci, *(axis.size for axis in self.axes))

    @cached_property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.co, self.ci // self.groups, *(axis.kernel for axis in self.axes))

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        return (self.n, self.co, *(axis.out for axis in self.axes))

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the definition, padding counted: output elements × taps × channels of a group."""
        return math.prod(self.output_shape) * math.prod(self.weight_shape[1:])

    @classmethod
    def parse(cls, text: str) -> ConvProblem:
        """Read a problem from one string, as oneDNN's benchdnn writes it.

        ``mb`` images, ``g`` groups, ``ic``/``oc`` channels in all groups; then for each of ``d``, ``h``, ``w``:
        ``i_`` input, ``o_`` output (checked), ``k_`` kernel, ``s_`` stride, ``p_`` padding (``ph1`` or, before and
        after, ``ph0-1``), ``d_`` dilation − 1. What is not given for the width is as for the height; underscores are
        for the eye.
        """
        return _parse(text)

    def __str__(self) -> str:
        head = f"g{self.groups}mb{self.n}ic{self.ci}oc{self.co}"
        return head + "".join(
            "_" + _axis_text(letter, axis) for letter, axis in zip(_letters(self.dims), self.axes, strict=True)
        )


def _frozen(option):  # type: ignore[no-untyped-def]
    """Lists to tuples, all the way down, so that a description can be a dictionary key."""
    if isinstance(option, Sequence) and not isinstance(option, str):
        return tuple(_frozen(item) for item in option)
    return option


@lru_cache(maxsize=4096)
def _problem(input_shape, weight_shape, stride, padding, dilation, groups) -> ConvProblem:  # type: ignore[no-untyped-def]
    dims = len(weight_shape) - 2
    _check_shapes(input_shape, weight_shape, dims, groups)
    names = AXIS_NAMES[dims]
    strides = per_axis("stride", stride, dims)
    dilations = per_axis("dilation", dilation, dims)
    pads = _pads(padding, input_shape[2:], weight_shape[2:], strides, dilations)
    axes = tuple(
        Axis(size, kernel, s, before, after, d)
        for size, kernel, s, (before, after), d in zip(
            input_shape[2:], weight_shape[2:], strides, pads, dilations, strict=True
        )
    )
    for name, axis in zip(names, axes, strict=True):
        check_fits(name, axis)
    return ConvProblem(input_shape[0], input_shape[1], weight_shape[0], axes, groups)


def _check_shapes(input_shape: tuple[int, ...], weight_shape: tuple[int, ...], dims: int, groups: int) -> None:
    if dims not in AXIS_NAMES or len(input_shape) != len(weight_shape):
        raise ValueError(
            "input and weight must both have 3 to 5 dimensions (batch or out, channels, then 1 to 3 spatial), "
            f"got {input_shape} and {weight_shape}; add the missing dimension with reshape"
        )
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ValueError(f"groups must be a positive integer, got {groups!r}; groups=1 is an ordinary convolution")
    ci, co = input_shape[1], weight_shape[0]
    if ci % groups or co % groups:
        raise ValueError(
            f"groups must divide both channel counts, got groups={groups} with {ci} input and {co} output channels; "
            f"use a common divisor such as {math.gcd(ci, co)}"
        )
    if ci // groups != weight_shape[1]:
        expected = weight_shape[1] * groups
        raise ValueError(
            f"Expected {expected} input channels (weight {weight_shape}, groups={groups}), got {ci} in input "
            f"{input_shape}; build the layer with in_channels={ci}, or check that the input is (batch, channels, "
            "height, width)"
        )
    if min(weight_shape) < 1 or min(input_shape[1:]) < 1 or input_shape[0] < 0:
        raise ValueError(
            f"every size must be positive, got input {input_shape} and weight {weight_shape}; only the batch may be 0"
        )


def check_fits(name: str, axis: Axis) -> None:
    """Raise unless at least one window fits on the axis called ``name``."""
    if axis.padded < axis.extent:
        raise ValueError(
            f"kernel is larger than the padded input: along the {name} the kernel spans {axis.extent} pixels "
            f"(kernel_size={axis.kernel}, dilation={axis.dilation}) but the input has {axis.size} + padding "
            f"{axis.before + axis.after} = {axis.padded}; use a smaller kernel or more padding"
        )


def per_axis(name: str, value: int | Sequence[int], dims: int, least: int = 1) -> tuple[int, ...]:
    """One integer an axis from an integer or a tuple, each at least ``least``.

    Raises
    ------
    TypeError
        When a value is not an integer.
    ValueError
        When there are too many values, too few, or one is too small.
    """
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * dims
    if any(isinstance(v, bool) or not hasattr(v, "__index__") for v in values):
        raise TypeError(f"{name} must be an integer or a tuple of {dims} integers, got {value!r}")
    if len(values) != dims:
        raise ValueError(f"{name} must be one integer or {dims} ({', '.join(AXIS_NAMES[dims])}), got {value!r}")
    if min(values) < least:
        rule = {0: "zero or more", 1: "positive"}[least]
        raise ValueError(f"{name} must be {rule}, got {value!r}; the smallest allowed value is {least}")
    return tuple(int(v) for v in values)


def _pads(padding, sizes, kernels, strides, dilations) -> tuple[tuple[int, int], ...]:  # type: ignore[no-untyped-def]
    """(before, after) of every axis."""
    dims = len(sizes)
    if isinstance(padding, str):
        return _named_pads(padding, kernels, strides, dilations)
    if isinstance(padding, tuple) and padding and all(isinstance(pair, tuple) for pair in padding):
        if len(padding) != dims:
            raise ValueError(f"padding must give a (before, after) pair for each of {dims} axes, got {padding!r}")
        return tuple(per_axis("padding", pair, 2, least=0) for pair in padding)  # type: ignore[misc]
    return tuple((p, p) for p in per_axis("padding", padding, dims, least=0))


def _named_pads(name, kernels, strides, dilations) -> tuple[tuple[int, int], ...]:  # type: ignore[no-untyped-def]
    if name == "valid":
        return ((0, 0),) * len(kernels)
    if name != "same":
        raise ValueError(f"padding must be integers, 'same' or 'valid', got {name!r}")
    if any(s != 1 for s in strides):
        raise ValueError(
            f"padding='same' keeps the size and so needs stride 1, got stride {strides}; give the padding in pixels"
        )
    totals = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _letters(dims: int) -> str:
    return "dhw"[3 - dims :]


def _axis_text(letter: str, axis: Axis) -> str:
    pad = f"{axis.before}" if axis.before == axis.after else f"{axis.before}-{axis.after}"
    values = {
        "i": axis.size,
        "o": axis.out,
        "k": axis.kernel,
        "s": axis.stride,
        "p": pad,
        "d": axis.dilation - 1,
    }
    return "".join(f"{key}{letter}{value}" for key, value in values.items())


_FIELD = re.compile(r"([a-z]+)(\d+)(?:-(\d+))?")
_DEFAULTS = {"s": (1, 1), "p": (0, 0), "d": (0, 0)}


def _parse(text: str) -> ConvProblem:
    fields = _fields(text)
    dims = 3 if "id" in fields else 2 if "ih" in fields else 1
    axes = tuple(_parsed_axis(text, fields, letter) for letter in _letters(dims))
    try:
        n, groups = fields.get("mb", (1, 1))[0], fields.get("g", (1, 1))[0]
        ci, co = fields["ic"][0], fields["oc"][0]
    except KeyError as missing:
        raise ValueError(
            f"problem {text!r} does not say {missing.args[0]}; write for example 'mb1ic3oc16_ih32kh3ph1'"
        ) from None
    return ConvProblem.of(
        (n, ci, *(a.size for a in axes)),
        (co, ci // max(groups, 1), *(a.kernel for a in axes)),
        tuple(a.stride for a in axes),
        tuple((a.before, a.after) for a in axes),
        tuple(a.dilation for a in axes),
        groups,
    )


def _fields(text: str) -> dict[str, tuple[int, int]]:
    if _FIELD.sub("", text).strip("_"):
        raise ValueError(
            f"problem {text!r} must be made of names and numbers; write for example 'mb1ic3oc16_ih32kh3ph1'"
        )
    fields = {name: (int(low), int(high or low)) for name, low, high in _FIELD.findall(text)}
    known = {"mb", "g", "ic", "oc"} | {kind + axis for kind in "iokspd" for axis in "dhw"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ValueError(f"problem {text!r} has unknown fields {unknown}; known are {sorted(known)}")
    return fields


def _parsed_axis(text: str, fields: dict[str, tuple[int, int]], letter: str) -> Axis:
    def value(kind: str) -> tuple[int, int]:
        for axis in letter + "hd":
            if kind + axis in fields:
                return fields[kind + axis]
        if kind in _DEFAULTS:
            return _DEFAULTS[kind]
        raise ValueError(f"problem {text!r} does not say {kind + letter}; write for example 'mb1ic3oc16_ih32kh3ph1'")

    before, after = value("p")
    axis = Axis(value("i")[0], value("k")[0], value("s")[0], before, after, value("d")[0] + 1)
    stated = fields.get("o" + letter)
    if stated and axis.stride > 0 and stated[0] != axis.out:
        raise ValueError(
            f"problem {text!r} says o{letter}{stated[0]}, but the formula gives {axis.out}; correct it or leave it out"
        )
    return axis
