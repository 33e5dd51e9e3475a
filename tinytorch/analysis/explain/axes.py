"""Windows along axes: how many there are, what they see, and who sees a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from tinytorch.analysis.explain.answer import Answer
from tinytorch.analysis.explain.text import letters, number, plural, shape
from tinytorch.conv.problem import AXIS_NAMES, Axis
from tinytorch.kernels.pool import sliding

_PLACES = {1: ("end", "inner"), 2: ("corner", "edge", "inner"), 3: ("corner", "edge", "face", "inner")}


# ---- how many windows ---------------------------------------------------------------------------------------------


def window_count(axes: Sequence[Axis], outs: Sequence[int], ceil: bool = False) -> tuple[str, tuple[str, ...]]:
    """The formula of the output's sizes, as simple as these axes allow, and a line for each with numbers put in."""
    dilated, uneven = any(a.dilation != 1 for a in axes), any(a.before != a.after for a in axes)
    names = letters(len(axes))
    pads, extent = "p₁ + p₂" if uneven else "2·p", "d·(k − 1) − 1" if dilated else "k"
    left, right = "⌈⌉" if ceil else "⌊⌋"
    formula = f"{names[0]}_out = {left}({names[0]} + {pads} − {extent}) / s{right} + 1"
    lines = [_counted(a, out, dilated, uneven, ceil) for a, out in zip(axes, outs, strict=True)]
    return formula, for_axes(lines)


def for_axes(lines: Sequence[str]) -> tuple[str, ...]:
    """'H_out = …' for each axis, or 'H_out = W_out = …' where they are the same."""
    heads = [f"{letter}_out = " for letter in letters(len(lines))]
    if len(set(lines)) == 1:
        return ("".join(heads) + lines[0],)
    return tuple(head + line for head, line in zip(heads, lines, strict=True))


def _counted(axis: Axis, out: int, dilated: bool, uneven: bool, ceil: bool) -> str:
    """'⌊(128 + 2·2 − 5) / 2⌋ + 1 = ⌊127 / 2⌋ + 1 = ⌊63.5⌋ + 1 = 63 + 1 = 64'."""
    pads = f"{axis.before} + {axis.after}" if uneven else f"2·{axis.before}"
    extent = f"{axis.dilation}·({axis.kernel} − 1) − 1" if dilated else f"{axis.kernel}"
    room = axis.padded - axis.extent
    left, right = "⌈⌉" if ceil else "⌊⌋"
    steps = -(-room // axis.stride) if ceil else room // axis.stride
    more = " + 1 − 1" if steps == out else " + 1"  # the last of them begins behind the image and is left out
    terms = [f"{left}({number(axis.size)} + {pads} − {extent}) / {axis.stride}{right}"]
    terms += [f"{left}{number(room)} / {axis.stride}{right}"]
    terms += [f"{left}{_exact(room, axis.stride)}{right}"] if _exact(room, axis.stride) else []
    return " = ".join([term + more for term in (*terms, number(steps))] + [number(out)])


def _exact(part: int, whole: int) -> str:
    """A fraction as a decimal, if it is one with at most three digits, and none if it is a whole number."""
    value = Fraction(part, whole)
    return number(float(value)) if value.denominator != 1 and 1000 % value.denominator == 0 else ""


def floor_note(axes: Sequence[Axis]) -> str:
    """What the floor leaves out."""
    rests = [(axis.padded - axis.extent) % axis.stride for axis in axes]
    if not any(rests):
        return "The division comes out even: the floor takes nothing away."
    axis, rest = next((axis, rest) for axis, rest in zip(axes, rests, strict=True) if rest)
    lost = max(0, rest - axis.after)
    where = f", {lost} of them of the image" if 0 < lost < rest else " of padding" if not lost else " of the image"
    lie = "lies" if rest == 1 else "lie"
    return f"The floor is the point: behind the last window {lie} {plural(rest, 'pixel')}{where}, less than a stride."


def shape_note(padding: object, axes: Sequence[Axis]) -> str:
    """The pixels that a padding by name comes to."""
    if not isinstance(padding, str):
        return ""
    pairs = ", ".join(f"{axis.before} before and {axis.after} after" for axis in dict.fromkeys(axes))
    return f" Padding {padding!r} comes to {pairs}."


# ---- taps and pixels ----------------------------------------------------------------------------------------------


def taps_inside(axis: Axis, out: int) -> int:
    """Pairs of a window and a tap of it that lies on the image, not on padding."""
    return int(_sliding(axis, out).pixels.count.sum())


def windows_over(axis: Axis, out: int) -> list[int]:
    """For each pixel, windows that have a tap on it."""
    return [int(n) for n in _sliding(axis, out).windows.count]


def _sliding(axis: Axis, out: int):  # type: ignore[no-untyped-def]
    return sliding(axis.size, out, axis.kernel, axis.stride, axis.before, axis.dilation)


def coverage(axes: Sequence[Axis], outs: Sequence[int], question: str, formula: str, note: str) -> Answer:
    """How many windows have a tap on the first pixel, on those in the middle of each kind of border, and inside."""
    counts = [windows_over(axis, out) for axis, out in zip(axes, outs, strict=True)]
    firsts, inner = [c[0] for c in counts], [c[len(c) // 2] for c in counts]
    dims = len(axes)
    factors = [firsts[: dims - free] + inner[dims - free :] for free in range(dims + 1)]
    numbers = tuple(math.prod(f) for f in factors)
    lines = tuple(
        f"{place} = {' · '.join(map(str, f))}" + (f" = {n}" if dims > 1 else "")
        for place, f, n in zip(_PLACES[dims], factors, numbers, strict=True)
    )
    value = ", ".join(f"{place} {number(n)}" for place, n in zip(_PLACES[dims], numbers, strict=True))
    if any(axis.stride > 1 for axis in axes):
        least, most = (math.prod(pick(_middle(c, a)) for c, a in zip(counts, axes, strict=True)) for pick in (min, max))
        note += "" if least == most else f" A stride makes it differ from pixel to pixel: inside, {least} to {most}."
    return Answer("windows", question, formula, lines, f"{value} windows", numbers, "windows", note)


def _middle(counts: list[int], axis: Axis) -> list[int]:
    """Counts of one stride of pixels in the middle of the axis; they repeat from there."""
    start = max(0, len(counts) // 2 - axis.stride // 2)
    return counts[start : start + axis.stride]


def field(axes: Sequence[Axis]) -> Answer:
    """Pixels that one output sees, along each axis."""
    dilated = any(axis.dilation != 1 for axis in axes)
    sizes = tuple(axis.extent for axis in axes)
    texts = [f"{a.dilation}·({a.kernel} − 1) + 1 = {a.extent}" if dilated else f"{a.kernel}" for a in axes]
    names = letters(len(axes))
    lines = [f"r = {texts[0]}"] if len(set(texts)) == 1 else [f"r_{n} = {t}" for n, t in zip(names, texts, strict=True)]
    note = "Of this layer alone; `tinytorch explain stack` adds layers up."
    question = "How many input pixels can change one output?"
    formula = "r = d·(k − 1) + 1" if dilated else "r = k"
    value = f"{' × '.join(map(str, sizes))} pixels"
    return Answer("receptive_field", question, formula, tuple(lines), value, sizes, "pixels", note)


def sequence_note(sizes: Sequence[int]) -> str:
    """A hint where an image may have been forgotten its batch: three sizes, of which the last two are equal."""
    if len(sizes) != 3 or sizes[1] != sizes[2]:
        return ""
    image = ",".join(map(str, (1, *sizes)))
    return (
        f" Three sizes are a batch of sequences (batch, channels, {AXIS_NAMES[1][0]}), not an image without a batch, "
        f"{shape(sizes)}: that is {image}."
    )
