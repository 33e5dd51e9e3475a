"""Layers on top of each other: how far the last one sees.

A stack is written as words, one for each layer::

    conv3 conv3s2p1 pool2 conv3d2c64 bn relu linear10

A word is a layer, its kernel size, and options: ``s`` stride, ``p`` padding, ``d`` dilation, ``c`` output channels and
``g`` groups, in any order. ``pool`` (or ``maxpool``) and ``avgpool`` have their kernel size as stride unless told;
``linear`` has its outputs in place of a kernel size, and flattens what it is given; ``relu``, ``bn`` and ``flatten``
have nothing. Without ``c`` a convolution keeps the channels. Commas and arrows may stand between words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tinytorch.analysis.explain.answer import (
    Answer,
    Explanation,
    Question,
    batch_letters,
    count,
    five,
    flops,
    given,
    itemsize,
    ratio,
    spatial,
)
from tinytorch.analysis.explain.text import equals, in_bytes, number, plural, product, shape
from tinytorch.conv.problem import ConvProblem, check_groups
from tinytorch.core.pool_ops import Pooling

_POOLS = ("pool", "maxpool", "avgpool")
_WINDOWS = {"conv": "spdcg", **dict.fromkeys(_POOLS, "spd")}
_POINTS = ("relu", "bn", "flatten")
_FLAT = ("flatten", "linear")
_MEANING = {"s": "stride", "p": "padding", "d": "dilation", "c": "channels", "g": "groups"}
_KNOWN = (*_WINDOWS, "linear", *_POINTS)


@dataclass(frozen=True)
class Word:
    """One layer of a stack, as written and as read; ``size`` is that of the kernel, or the outputs of a dense layer."""

    text: str
    kind: str
    size: int = 1
    s: int = 1
    p: int = 0
    d: int = 1
    c: int | None = None
    g: int = 1


@dataclass(frozen=True)
class Stage:
    """A stack up to one of its layers.

    Parameters
    ----------
    layer
        The word.
    jump
        Input pixels from one output to the next; 0 behind a dense layer, where outputs have no place.
    field
        Input pixels that one output sees along an axis: the receptive field.
    start, centre
        Of the first output's field: its first pixel and its middle, counted from the input's first pixel, which is 0.
        Negative ones lie on padding.
    recurrence
        How the field comes from that of the layer before.
    shape, parameters, macs
        Of the layer, where the input is known.
    """

    layer: str
    jump: int
    field: int
    start: int
    centre: float
    recurrence: str = ""
    shape: tuple[int, ...] | None = None
    parameters: int | None = None
    macs: int | None = None


@dataclass(frozen=True)
class Stack(Explanation):
    """An explanation with one line for each layer."""

    stages: tuple[Stage, ...] = ()


def stack(
    layers: str, input_shape: Sequence[int] | None = None, dense: int | None = None, dtype: str = "float32"
) -> Stack:
    """Explain how the receptive field grows, and with the input's shape what each layer makes of it.

    Parameters
    ----------
    layers
        Such as "conv3 pool2 conv3p1c64"; see the module.
    input_shape
        (N, C, …): lets sizes, parameters and work be told.
    dense
        Units of a dense layer over the input to compare the stack's parameters with.

    Raises
    ------
    ValueError
        If a word has no meaning, or a layer does not fit on what comes before; the message names the word.

    Notes
    -----
    With jump j and field r before a layer, r' = r + (k − 1)·d·j and j' = j·s; the first output's field begins at
    u' = u − p·j and its middle is u' + (r' − 1) / 2. A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of
    Convolutional Neural Networks", Distill 2019.

    Examples
    --------
    >>> stack("conv3 pool2 conv3 conv3")["receptive_field"].number
    12
    """
    words = parse(layers)
    itemsize(dtype)
    if dense is not None and (input_shape is None or dense < 1):
        raise ValueError(f"dense must be a positive number of units over a known input, got {dense}; add --input")
    if input_shape is not None:
        spatial(input_shape)
    first = Stage("input", 1, 1, 0, 0.0, "", None if input_shape is None else tuple(input_shape), 0, 0)
    stages = [first]
    for place, word in enumerate(words, 1):
        _check_order(words[:place])
        stages.append(_after(stages[-1], word, place, first))
    names = () if input_shape is None else batch_letters(len(input_shape) - 2)
    return Stack(
        " ".join(word.text for word in words),
        "an input of any size" if input_shape is None else given(input_shape, names, dtype),
        (*_known_input(stages, dense, dtype), Question("Receptive field", _fields(words, stages))),
        tuple(stages),
    )


# ---- words --------------------------------------------------------------------------------------------------------


def parse(layers: str) -> tuple[Word, ...]:
    """Read the words of a stack.

    Raises
    ------
    ValueError
        If there are none, or one has no meaning.
    """
    texts = [text for text in re.split(r"[\s,→]+|->", layers) if text]
    if not texts:
        raise ValueError(f"stack must name layers, got {layers!r}; write for example 'conv3 conv3 pool2 conv3s2d2'")
    return tuple(_word(text, place) for place, text in enumerate(texts, 1))


def _word(text: str, place: int) -> Word:
    kind, size, rest = re.fullmatch(r"([^\d]*)(\d*)(.*)", text).groups()  # type: ignore[union-attr]
    if kind not in _KNOWN:
        near = get_close_matches(kind, _KNOWN, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise _wrong(text, place, f"begins with no layer: known are {', '.join(_KNOWN)}{hint}")
    if kind in _POINTS:
        if size or rest:
            raise _wrong(text, place, f"has more than a name: write {kind}")
        return Word(text, kind)
    if not size or int(size) < 1:
        what = "number of outputs" if kind == "linear" else "kernel size"
        raise _wrong(text, place, f"needs a positive {what} behind its name: write for example {kind}3")
    return Word(text, kind, int(size), **_options(kind, int(size), rest, text, place))


def _options(kind: str, size: int, rest: str, text: str, place: int) -> dict[str, int]:
    allowed = _WINDOWS.get(kind, "")
    found = re.findall(r"([a-z])(\d+)", rest)
    unread = re.sub(r"[a-z]\d+", "", rest) or "".join(letter + n for letter, n in found if letter not in allowed)
    known = ", ".join(f"{letter} ({_MEANING[letter]})" for letter in allowed) or "none"
    if unread:
        raise _wrong(
            text, place, f"has {unread!r}, which is no option of {kind}: there are {known}, each with a number"
        )
    values = {letter: int(n) for letter, n in found}
    if len(values) < len(found):
        raise _wrong(text, place, "has an option twice: write each once")
    zero = [letter for letter, n in values.items() if n < 1 and letter != "p"]
    if zero:
        raise _wrong(text, place, f"has a {_MEANING[zero[0]]} of 0: the least is 1")
    return values if kind == "conv" else {"s": size, **values} if allowed else values


def _wrong(text: str, place: int, why: str) -> ValueError:
    return ValueError(f"word {place} of the stack, {text!r}, {why}")


# ---- from layer to layer ------------------------------------------------------------------------------------------


def _check_order(words: Sequence[Word]) -> None:
    """Raise if the last word slides over what is no image any more."""
    *earlier, word = words
    flat = [other.text for other in earlier if other.kind in _FLAT]
    if flat and word.kind in _WINDOWS:
        raise _wrong(word.text, len(words), f"does not fit: {flat[0]} leaves no image to slide over; put it in front")


def _after(before: Stage, word: Word, place: int, first: Stage) -> Stage:
    try:
        shape, parameters, macs = _made(before.shape, word)
    except ValueError as error:
        raise _wrong(word.text, place, f"does not fit: {error}") from None
    if word.kind == "linear":
        field = max(first.shape[2:]) if first.shape else 0
        return Stage(word.text, 0, field, 0, 0.0, "all of the input", shape, parameters, macs)
    if word.kind in _POINTS:
        line = "all of the input" if before.jump == 0 else "as before"
        return Stage(word.text, before.jump, before.field, before.start, before.centre, line, shape, parameters, macs)
    j, r = before.jump, before.field
    field, start = r + (word.size - 1) * word.d * j, before.start - word.p * j
    line = f"{r} + ({word.size} − 1)·{word.d}·{j} = {field}"
    return Stage(word.text, j * word.s, field, start, start + (field - 1) / 2, line, shape, parameters, macs)


def _made(sizes: tuple[int, ...] | None, word: Word) -> tuple[tuple[int, ...] | None, int | None, int | None]:
    """Shape, parameters and multiply-accumulates of a layer over an input of these sizes."""
    if sizes is None:
        if word.kind in _POOLS:
            _pooling(word, 1).check()
        return None, None, None
    if word.kind == "linear":
        features = math.prod(sizes[1:])
        macs = ConvProblem.of((sizes[0], features, 1), (word.size, features, 1)).macs
        return (sizes[0], word.size), (features + 1) * word.size, macs
    if word.kind == "bn":
        return sizes, 2 * sizes[1], 0
    if word.kind == "flatten":
        return (sizes[0], math.prod(sizes[1:])), 0, 0
    return (sizes, 0, 0) if word.kind == "relu" else _slid(sizes, word)


def _slid(sizes: tuple[int, ...], word: Word) -> tuple[tuple[int, ...], int, int]:
    """Of a pooling or a convolution."""
    dims, channels = len(sizes) - 2, sizes[1]
    if word.kind in _POOLS:
        return (*sizes[:2], *_pooling(word, dims).windows(sizes[2:]).out), 0, 0
    out = word.c or channels
    check_groups(word.g, channels, out)
    weight_shape = (out, channels // word.g, *(word.size,) * dims)
    problem = ConvProblem.of(sizes, weight_shape, word.s, word.p, word.d, word.g)
    return problem.output_shape, math.prod(problem.weight_shape) + out, problem.macs


def _pooling(word: Word, dims: int) -> Pooling:
    return Pooling(dims, word.size, word.s, word.p, word.d)


# ---- answers ------------------------------------------------------------------------------------------------------


def _fields(words: Sequence[Word], stages: Sequence[Stage]) -> tuple[Answer, ...]:
    """The field of the last output, its jump, and where the first one looks."""
    last = stages[-1]
    slid = [stage for stage, word in zip(stages[1:], words, strict=True) if word.kind in _WINDOWS]
    if last.jump == 0:
        note = "A dense layer sees everything."
        question = "How many input pixels can change one output?"
        lines = (f"r = {number(last.field)}",) if last.field else ()
        value = f"{number(last.field)} pixels along the longest axis" if last.field else "all pixels"
        return (Answer("receptive_field", question, "r = all", lines, value, last.field, "pixels", note),)
    return (_field(slid, last, stages[0].shape), _jump(words, last), _first_window(words, stages))


def _field(slid: Sequence[Stage], last: Stage, image: tuple[int, ...] | None) -> Answer:
    lines = tuple(f"r = {stage.recurrence}" for stage in slid) or ("r = 1",)
    note = "Strides multiply the step of all layers after them: that makes the field grow fast."
    if image is not None and last.field > min(image[2:]):
        note += f" It is larger than the image of {' × '.join(map(str, image[2:]))}: every output sees padding."
    question = "How many input pixels, along an axis, can change one output?"
    return Answer(
        "receptive_field", question, "r' = r + (k − 1)·d·j, from r = 1", lines, plural(last.field, "pixel"),
        last.field, "pixels", note,
    )  # fmt: skip


def _jump(words: Sequence[Word], last: Stage) -> Answer:
    strides = [word.s for word in words if word.kind in _WINDOWS]
    line = f"j = {product([1, *strides])} = {number(last.jump)}"
    note = "That is the stride of the whole stack."
    question = "How far apart are the fields of two neighbouring outputs?"
    value = plural(last.jump, "pixel")
    return Answer("jump", question, "j' = j·s, from j = 1", (line,), value, last.jump, "pixels", note)


def _first_window(words: Sequence[Word], stages: Sequence[Stage]) -> Answer:
    last = stages[-1]
    steps = [(word.p, stage.jump) for word, stage in zip(words, stages, strict=False) if word.kind in _WINDOWS]
    line = "u = 0" + "".join(f" − {p}·{j}" for p, j in steps) + f" = {number(last.start)}"
    middle = f"c = {number(last.start)} + ({last.field} − 1) / 2 = {number(last.centre)}"
    note = "Pixel 0 is the input's first. What is negative lies on padding."
    question = "Where does the first output's field begin, and where is its middle?"
    value = f"from pixel {number(last.start)}, middle at {number(last.centre)}"
    return Answer(
        "start", question, "u' = u − p·j, c = u + (r − 1) / 2", (line, middle), value, last.start, "pixels", note
    )


def _known_input(stages: Sequence[Stage], dense: int | None, dtype: str) -> tuple[Question, ...]:
    first, *rest = stages
    if first.shape is None:
        return ()
    shapes = [stage.shape or () for stage in rest]
    final = Answer(
        "output_shape", "What is the output's shape?", "layer by layer, as in the table", (), shape(shapes[-1]),
        shapes[-1], "sizes",
    )  # fmt: skip
    macs = _sum("macs", "How many multiply-accumulates?", [s.macs or 0 for s in rest], "MACs", "Taps on padding count.")
    twice = flops(int(macs.number), "A multiplication and an addition each.")  # type: ignore[arg-type]
    learned = [stage.parameters or 0 for stage in rest]
    parameters = _sum("parameters", "How many are learned?", learned, "parameters", "Each layer has a bias.")
    compared = [] if dense is None else _dense(first.shape, dense, sum(learned))
    return five([final], [parameters, *compared], [macs, twice], [_memory(shapes, dtype)], [])


def _sum(name: str, question: str, values: Sequence[int], unit: str, note: str) -> Answer:
    kept = [value for value in values if value] or [0]
    line = f"{' + '.join(map(number, kept))} = {number(sum(kept))}"
    return count(name, question, "sum over the layers", [line], sum(kept), unit, note)


def _dense(sizes: tuple[int, ...], units: int, learned: int) -> list[Answer]:
    weights = math.prod(sizes[1:]) * units
    line = f"{product((*sizes[1:], units))} = {number(weights)}"
    question = f"How many weights has a dense layer of {number(units)} units over the input?"
    note = "Each unit sees the whole input."
    answer = count("dense", question, "C · pixels · units", [line], weights, "weights", note)
    if not learned:
        return [answer]
    times = weights / learned
    line = f"{number(weights)} / {number(learned)} {equals(times)}"
    note = "The stack shares its weights between places."
    question = "How many times as many is that?"
    return [answer, ratio("dense_ratio", question, "dense / parameters", line, times, note)]


def _memory(shapes: Sequence[tuple[int, ...]], dtype: str) -> Answer:
    """Outputs of all layers, as training holds them."""
    numbers = [math.prod(sizes) for sizes in shapes]
    item = itemsize(dtype)
    line = f"({' + '.join(map(number, numbers))}) · {item} = {number(sum(numbers) * item)}"
    note = "As in training, which holds them all for the gradient; a library may hold fewer."
    total = sum(numbers) * item
    return Answer(
        "memory", "How much memory do the outputs of all layers take?", "sum over the layers · bytes", (line,),
        in_bytes(total), total, "B", note,
    )  # fmt: skip
