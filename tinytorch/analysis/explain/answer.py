"""What an explanation is made of, and the answers that several layers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.analysis.explain.text import figure, in_bytes, in_words, letters, number, product, symbols

Value = int | float | tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The answer to one question about a layer.

    Parameters
    ----------
    name
        What programs call it: ``explanation["macs"]``.
    question
        In words.
    formula
        In symbols.
    substituted
        The formula with numbers put in: lines of arithmetic, each of which holds.
    value
        The result as a person writes it, with its unit.
    number, unit
        The same for programs: bytes, MACs, FLOPs, parameters, pixels, seconds, or "×" of a ratio.
    note
        Why that is so.
    """

    name: str
    question: str
    formula: str
    substituted: tuple[str, ...]
    value: str
    number: Value
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Question:
    """One of the five questions, and all that is answered about it."""

    title: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Explanation:
    """A layer, and the answers about it.

    Parameters
    ----------
    layer
        As it is written in Python.
    given
        What it is given.
    questions
        Of the output's shape, parameters, multiply-accumulates, memory and the receptive field.
    """

    layer: str
    given: str
    questions: tuple[Question, ...]

    def __getitem__(self, name: str) -> Answer:
        """The answer called ``name``.

        Raises
        ------
        KeyError
            If there is none.
        """
        answers = {answer.name: answer for question in self.questions for answer in question.answers}
        if name not in answers:
            raise KeyError(f"{self.layer} has no answer {name!r}; it has {', '.join(answers)}")
        return answers[name]


def five(
    shape: Sequence[Answer],
    parameters: Sequence[Answer],
    work: Sequence[Answer],
    memory: Sequence[Answer],
    field: Sequence[Answer],
) -> tuple[Question, ...]:
    """The five questions that are asked of every layer."""
    titles = ("Output shape", "Parameters", "Multiply-accumulates", "Memory", "Receptive field")
    answers = (shape, parameters, work, memory, field)
    return tuple(Question(title, tuple(group)) for title, group in zip(titles, answers, strict=True) if group)


# ---- what is given ------------------------------------------------------------------------------------------------


def itemsize(dtype: str) -> int:
    """Bytes of a number.

    Raises
    ------
    ValueError
        If the library has no such numbers.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}; these are what layers compute in")
    return np.dtype(dtype).itemsize


def spatial(input_shape: Sequence[int]) -> int:
    """Spatial axes of a batch.

    Raises
    ------
    ValueError
        If the shape is not (batch, channels, then one to three sizes), or a size is not positive.
    """
    if not 3 <= len(input_shape) <= 5:
        raise ValueError(
            f"input must have 3 to 5 sizes (batch, channels, then 1 to 3 spatial), got {tuple(input_shape)}; an image "
            "of 3 channels is 1,3,224,224"
        )
    check_positive(input_shape)
    return len(input_shape) - 2


def check_positive(input_shape: Sequence[int]) -> None:
    """Raise unless every size but the batch, which may be 0, is positive."""
    if min(input_shape[1:]) < 1 or input_shape[0] < 0:
        raise ValueError(f"every size must be positive, got input {tuple(input_shape)}; only the batch may be 0")


def given(input_shape: Sequence[int], names: Sequence[str], dtype: str) -> str:
    """'(N, C, H, W) = (32, 3, 128, 128), float32'."""
    return f"({', '.join(names)}) = ({', '.join(map(str, input_shape))}), {dtype}"


def batch_letters(dims: int) -> tuple[str, ...]:
    """('N', 'C', 'H', 'W') of images."""
    return ("N", "C", *letters(dims))


# ---- answers that layers share ------------------------------------------------------------------------------------


def count(name: str, question: str, formula: str, lines: Sequence[str], value: int, unit: str, note: str) -> Answer:
    """An answer that is a whole number of something."""
    return Answer(name, question, formula, tuple(lines), f"{number(value)} {unit}{in_words(value)}", value, unit, note)


def nothing(name: str, question: str, unit: str, note: str) -> Answer:
    """An answer that there is none."""
    return count(name, question, "0", [], 0, unit, note)


def flops(macs: int, note: str) -> Answer:
    """Floating-point operations of so many multiply-accumulates."""
    lines = [f"2 · {number(macs)} = {number(2 * macs)}"]
    return count("flops", "How many floating-point operations?", "2 · MACs", lines, 2 * macs, "FLOPs", note)


def ratio(name: str, question: str, formula: str, line: str, value: float, note: str, digits: int = 3) -> Answer:
    """An answer that says how many times as much."""
    return Answer(name, question, formula, (line,), f"{figure(value, digits)}×", value, "×", note)


def memory(name: str, question: str, parts: Sequence[str], sizes: Sequence[int], dtype: str, note: str) -> Answer:
    """Bytes of a tensor of these sizes, which the formula calls ``parts``."""
    item = itemsize(dtype)
    total = math.prod(sizes) * item
    lines = (f"{product((*sizes, item))} = {number(total)}",)
    return Answer(name, question, symbols(*parts, "bytes"), lines, in_bytes(total), total, "B", note)


def total_memory(parts: dict[str, int], dtype: str, note: str) -> Answer:
    """Bytes of several tensors together, from their numbers by name."""
    sizes = [n * itemsize(dtype) for n in parts.values()]
    line = f"{' + '.join(map(number, sizes))} = {number(sum(sizes))}"
    question = f"And {', '.join(list(parts)[:-1])} and {list(parts)[-1]} together?"
    return Answer("total_memory", question, " + ".join(parts), (line,), in_bytes(sum(sizes)), sum(sizes), "B", note)


OUTPUT_NOTE = "The gradient needs it again, so in training the outputs of all layers are held at once."
