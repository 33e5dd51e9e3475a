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
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

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

    @property
    def inside(self) -> int:
        """Pairs of a window and a tap of it that lies on the input, not on padding."""
        firsts = [tap * self.dilation - self.before for tap in range(self.kernel)]
        return sum(0 <= first + step * self.stride < self.size for first in firsts for step in range(self.out))


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

        Parameters
        ----------
        padding
            Pixels: one number, one for each axis, or a (before, after) pair for each axis. ``"valid"`` is none.
            ``"same"``, ``"same_upper"`` and ``"same_lower"`` give ⌈size / stride⌉ outputs, as XLA and ONNX have it; an
            odd pixel goes behind the image, with ``"same_lower"`` in front.

        Raises
        ------
        ValueError
            When the shapes and options have no meaning together; the message names the argument.
        """
        options = (tuple(input_shape), tuple(weight_shape), stride, padding, dilation, groups)
        try:
            return _problem(*options)
        except TypeError:  # lists and arrays can't be looked up
            return _described(_problem, *options)

    @classmethod
    def transposed(
        cls,
        input_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        output_size: Sequence[int] | None = None,
        endless: bool = False,
    ) -> tuple[ConvProblem, tuple[tuple[int, int], ...]]:
        """Describe the transposed convolution of an ``(n, ci, …)`` input with ``(ci, co/groups, …)`` weights.

        Parameters
        ----------
        padding
            Pixels that are cut off the output; ``"same"`` and its kin leave size · stride of them.
        output_padding
            Pixels that are added behind, since several sizes of a convolution's input lead to one of its output.
        output_size
            Pixels of the output, which then decide about ``output_padding``.
        endless
            Whether the input goes on beyond its borders.

        Returns
        -------
        problem
            The convolution whose input gradient this is: it leads from the output's shape back to that of the input.
        beyond
            For each axis, pixels that the input needs (before, after) for that; zeros unless ``endless``.

        Raises
        ------
        ValueError
            When the shapes and options have no meaning together; the message names the argument.

        Notes
        -----
        Along an axis, size = (input − 1) · stride − padding + dilation · (kernel − 1) + output_padding + 1.
        """
        options = (stride, padding, output_padding, dilation, groups, output_size)
        return _described(_transposed, tuple(input_shape), tuple(weight_shape), *options, endless)

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

    @property
    def padded(self) -> ConvProblem:
        """The same convolution of an input that holds its padding."""
        axes = tuple(replace(axis, size=axis.padded, before=0, after=0) for axis in self.axes)
        return replace(self, axes=axes)

    @cached_property
    def live_taps(self) -> Any:
        """Index of the weights whose taps may meet a pixel; None where these are all.

        Of a kernel that is dilated beyond the image, the others would multiply nothing but padding.
        """
        live = [_live_taps(axis) if axis.dilation > 1 else slice(0, axis.kernel) for axis in self.axes]
        return None if live == [slice(0, axis.kernel) for axis in self.axes] else (..., *live)

    @cached_property
    def trimmed(self) -> ConvProblem:
        """The same convolution of only these taps."""
        if self.live_taps is None:
            return self
        return replace(self, axes=tuple(map(_trimmed, self.axes, self.live_taps[1:])))

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the definition, padding counted: output elements × taps × channels of a group."""
        return math.prod(self.output_shape) * math.prod(self.weight_shape[1:])

    @property
    def channel_pairs(self) -> int:
        """Pairs of an input and an output channel that are in one group."""
        return self.ci // self.groups * self.co

    @cached_property
    def macs_inside(self) -> int:
        """Multiply-accumulates of the definition whose tap lies on the input, not on padding."""
        return self.n * self.channel_pairs * math.prod(axis.inside for axis in self.axes)

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


def _live_taps(axis: Axis) -> slice:
    """The taps of an axis that may meet a pixel; a tap that the padding would not reach is kept."""
    last_window = (axis.out - 1) * axis.stride
    places = [tap * axis.dilation - axis.before for tap in range(axis.kernel)]
    live = [tap for tap, place in enumerate(places) if place < axis.size and place + last_window >= 0]
    first, last = (live[0], live[-1]) if live else (0, 0)
    first = min(first, axis.before // axis.dilation)
    last = max(last, axis.kernel - 1 - axis.after // axis.dilation)
    return slice(first, last + 1)


def _trimmed(axis: Axis, taps: slice) -> Axis:
    before = axis.before - taps.start * axis.dilation
    after = axis.after - (axis.kernel - taps.stop) * axis.dilation
    return replace(axis, kernel=taps.stop - taps.start, before=before, after=after)


def as_tuples(option: Any) -> Any:
    """Lists and arrays as tuples, all the way down; everything else as it is."""
    if isinstance(option, np.ndarray):
        option = option.tolist()
    if isinstance(option, Sequence) and not isinstance(option, str):
        return tuple(map(as_tuples, option))
    return option


def _described(describe: Callable[..., Any], *options: Any) -> Any:
    """``describe(*options)``, looked up where that can be; what can't be, such as a set, it refuses by name."""
    options = as_tuples(options)
    try:
        hash(options)
    except TypeError:
        return describe.__wrapped__(*options)  # type: ignore[attr-defined]
    return describe(*options)


@lru_cache(maxsize=4096, typed=True)  # True and 1.0 are equal to 1, and no strides
def _problem(input_shape, weight_shape, stride, padding, dilation, groups) -> ConvProblem:  # type: ignore[no-untyped-def]
    dims = len(weight_shape) - 2
    groups = _check_shapes(input_shape, weight_shape, dims, groups)
    names = AXIS_NAMES[dims]
    strides = per_axis("stride", stride, dims)
    dilations = per_axis("dilation", dilation, dims)
    pads = pads_per_axis(padding, input_shape[2:], weight_shape[2:], strides, dilations)
    axes = tuple(
        Axis(size, kernel, s, before, after, d)
        for size, kernel, s, (before, after), d in zip(
            input_shape[2:], weight_shape[2:], strides, pads, dilations, strict=True
        )
    )
    for name, axis in zip(names, axes, strict=True):
        check_fits(name, axis)
    return ConvProblem(input_shape[0], input_shape[1], weight_shape[0], axes, groups)


def _check_shapes(input_shape: tuple[int, ...], weight_shape: tuple[int, ...], dims: int, groups: int) -> int:
    _check_dims(input_shape, weight_shape, dims)
    ci, co = input_shape[1], weight_shape[0]
    groups = check_groups(groups, ci, co)
    if ci // groups != weight_shape[1]:
        raise _wrong_channels(weight_shape[1] * groups, input_shape, weight_shape, groups)
    _check_sizes(input_shape, weight_shape)
    return groups


def _check_dims(input_shape: tuple[int, ...], weight_shape: tuple[int, ...], dims: int) -> None:
    if dims not in AXIS_NAMES or len(input_shape) != len(weight_shape):
        raise ValueError(
            "input and weight must both have 3 to 5 dimensions (batch or out, channels, then 1 to 3 spatial), "
            f"got {input_shape} and {weight_shape}; add the missing dimension with reshape"
        )


def check_count(name: str, value: int, of: str) -> int:
    """Return a positive integer as an int; ``of`` is what it counts.

    Raises
    ------
    ValueError
        If it is not one.
    """
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}; it counts {of}")
    return count


def check_groups(groups: int, ci: int, co: int) -> int:
    """Return ``groups`` if it is a number of groups that ``ci`` input and ``co`` output channels can be dealt to."""
    groups = check_count("groups", groups, "independent convolutions, and 1 is an ordinary one")
    if ci % groups or co % groups:
        raise ValueError(
            f"groups must divide both channel counts, got groups={groups} with {ci} input and {co} output channels; "
            f"use a common divisor such as {math.gcd(ci, co)}"
        )
    return groups


def _wrong_channels(expected: int, input_shape, weight_shape, groups: int) -> ValueError:  # type: ignore[no-untyped-def]
    axes = ", ".join(AXIS_NAMES[len(weight_shape) - 2])
    return ValueError(
        f"Expected {expected} input channels (weight {weight_shape}, groups={groups}), got {input_shape[1]} in input "
        f"{input_shape}; build the layer with in_channels={input_shape[1]}, or check that the input is (batch, "
        f"channels, {axes})"
    )


def _check_sizes(input_shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> None:
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
    """One integer an axis, each at least ``least``, from a tuple, or from one integer for all.

    Raises
    ------
    TypeError
        When a value is not an integer.
    ValueError
        When there are too many values, too few, or one is too small.
    """
    is_one = isinstance(value, str) or not isinstance(value, Sequence | np.ndarray)
    values: tuple[Any, ...] = (value,) if is_one else tuple(value)  # type: ignore[arg-type]
    values = values * dims if len(values) == 1 else values
    if not all(map(_is_index, values)):
        raise TypeError(f"{name} must be an integer or a tuple of {dims} integers, got {value!r}")
    if len(values) != dims:
        raise ValueError(f"{name} must be one integer or {dims} ({', '.join(AXIS_NAMES[dims])}), got {value!r}")
    if min(values) < least:
        rule = {0: "zero or more", 1: "positive"}[least]
        raise ValueError(f"{name} must be {rule}, got {value!r}; the smallest allowed value is {least}")
    if max(values) >= _MOST:
        raise ValueError(
            f"{name} must be less than {_MOST:,}, got {value!r}; no image has as many pixels along an axis"
        )
    return tuple(int(v) for v in values)


_MOST = 1 << 31


def _is_index(value: object) -> bool:
    """Whether it is an integer, of Python or of NumPy; True and False are none."""
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool)


def pads_per_axis(padding, sizes, kernels, strides, dilations) -> tuple[tuple[int, int], ...]:  # type: ignore[no-untyped-def]
    """Pixels (before, after) of every axis, from any kind of padding that `ConvProblem.of` takes."""
    padding, dims = as_tuples(padding), len(sizes)
    if isinstance(padding, str):
        return _named_pads(padding, sizes, kernels, strides, dilations)
    if isinstance(padding, tuple) and padding and all(isinstance(pair, tuple) for pair in padding):
        if len(padding) != dims:
            raise ValueError(f"padding must give a (before, after) pair for each of {dims} axes, got {padding!r}")
        return tuple(per_axis("padding", pair, 2, least=0) for pair in padding)  # type: ignore[misc]
    return tuple((p, p) for p in per_axis("padding", padding, dims, least=0))


def _named_pads(name, sizes, kernels, strides, dilations) -> tuple[tuple[int, int], ...]:  # type: ignore[no-untyped-def]
    if name not in ("same", "same_upper", "same_lower", "valid"):
        raise ValueError(f"padding must be integers, 'same', 'same_upper', 'same_lower' or 'valid', got {name!r}")
    if name == "valid":
        return ((0, 0),) * len(kernels)
    bare = [Axis(n, k, s, dilation=d) for n, k, s, d in zip(sizes, kernels, strides, dilations, strict=True)]
    totals = [max(0, (-(-axis.size // axis.stride) - 1) * axis.stride + axis.extent - axis.size) for axis in bare]
    lower = name == "same_lower"
    return tuple(((total + lower) // 2, (total + 1 - lower) // 2) for total in totals)


# ---- transposed -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096, typed=True)
def _transposed(  # type: ignore[no-untyped-def]
    input_shape, weight_shape, stride, padding, output_padding, dilation, groups, output_size, endless: bool
) -> tuple[ConvProblem, tuple[tuple[int, int], ...]]:
    dims = len(weight_shape) - 2
    _check_dims(input_shape, weight_shape, dims)
    co = weight_shape[1] * groups if hasattr(groups, "__index__") else 0
    groups = check_groups(groups, weight_shape[0], co)
    if input_shape[1] != weight_shape[0]:
        raise _wrong_channels(weight_shape[0], input_shape, weight_shape, groups)
    _check_sizes(input_shape, weight_shape)
    sizes, kernels = input_shape[2:], weight_shape[2:]
    strides, dilations = per_axis("stride", stride, dims), per_axis("dilation", dilation, dims)
    extra = _output_padding(output_padding, strides, dilations)
    wanted = _output_size(output_size, dims)
    if output_size is None and isinstance(padding, str) and padding != "valid":
        if any(extra):
            raise ValueError(
                f"output_padding must be 0 with padding={padding!r}, which says how large the output is, got "
                f"output_padding={output_padding}; leave it out, or give output_size"
            )
        wanted = tuple(size * s for size, s in zip(sizes, strides, strict=True))
    pads = pads_per_axis(padding, sizes if None in wanted else wanted, kernels, strides, dilations)
    numbers = zip(AXIS_NAMES[dims], sizes, kernels, strides, pads, dilations, extra, wanted, strict=True)
    axes, beyond = zip(*(_mirrored(endless, *axis) for axis in numbers), strict=True)
    return ConvProblem(input_shape[0], weight_shape[1] * groups, weight_shape[0], axes, groups), beyond


def _mirrored(  # type: ignore[no-untyped-def]
    endless: bool, name: str, size, kernel, stride, pads, dilation, extra, wanted
) -> tuple[Axis, tuple[int, int]]:
    """The axis that leads from the output back to ``size`` pixels, and how many more of them before and behind.

    Zeros are needed behind where the output goes on for a stride, or more, after all that is made of the input.
    """
    before, extent = pads[0], Axis(size, kernel, dilation=dilation).extent
    least = (size - 1) * stride - sum(pads) + extent
    out = least + extra if wanted is None else wanted
    if out < 1:
        raise ValueError(
            f"the output has no pixel along the {name}: (input − 1) · stride − padding + extent of the kernel + "
            f"output_padding = ({size} − 1) · {stride} − {sum(pads)} + {extent} + {extra} = {out}; use less padding"
        )
    if wanted is not None and not least <= wanted < least + stride:
        raise ValueError(
            f"output_size must be {least} to {least + stride - 1} along the {name}, got {wanted}: these are the sizes "
            f"of which a convolution with stride {stride} makes {size} pixels"
        )
    low, high = 0, (out + before - extent) // stride + 1
    if endless:
        low, high = max(0, (extent - 1 - before) // stride), (out - 1 + before) // stride + 1
    high = max(0, high - size)
    before += low * stride
    after = (low + size + high - 1) * stride + extent - out - before
    return Axis(out, kernel, stride, before, max(0, after), dilation), (low, high)


def _output_padding(output_padding, strides, dilations) -> tuple[int, ...]:  # type: ignore[no-untyped-def]
    extra = per_axis("output_padding", output_padding, len(strides), least=0)
    if any(more >= max(s, d) for more, s, d in zip(extra, strides, dilations, strict=True)):
        raise ValueError(
            f"output_padding must be smaller than stride or dilation, got output_padding={output_padding} with stride "
            f"{strides} and dilation {dilations}: more pixels would be made of nothing"
        )
    return extra


def _output_size(output_size: int | tuple[int, ...] | None, dims: int) -> tuple[int | None, ...]:
    """Pixels of the output along every axis; the output's whole shape is taken too."""
    if output_size is None:
        return (None,) * dims
    if isinstance(output_size, tuple) and len(output_size) in (dims + 1, dims + 2):
        output_size = output_size[-dims:]
    return per_axis("output_size", output_size, dims)


# ---- as text --------------------------------------------------------------------------------------------------------


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
