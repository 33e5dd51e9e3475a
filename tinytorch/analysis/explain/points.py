"""Layers without windows, explained: batch normalisation and dense layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinytorch.analysis.explain.answer import (
    OUTPUT_NOTE,
    Answer,
    Explanation,
    batch_letters,
    check_positive,
    count,
    five,
    flops,
    given,
    itemsize,
    memory,
    nothing,
    total_memory,
)
from tinytorch.analysis.explain.text import letters, number, product, shape, symbols
from tinytorch.conv.problem import ConvProblem, check_count

_TRAINING_STEPS = 6  # an addition to the mean; subtract, square, add for the variance; multiply and add


# ---- batch normalisation ------------------------------------------------------------------------------------------


def batchnorm(
    input_shape: Sequence[int], affine: bool = True, track_running_stats: bool = True, dtype: str = "float32"
) -> Explanation:
    """Explain `nn.BatchNorm1d`, `nn.BatchNorm2d` or `nn.BatchNorm3d` of a batch (N, C) or (N, C, …).

    Raises
    ------
    ValueError
        If the shape is not that of a batch.

    Examples
    --------
    >>> batchnorm((1, 64, 1, 1))["values"].number
    1
    """
    sizes = _checked("batchnorm", input_shape, 2, 5)
    dims = len(sizes) - 2
    names = batch_letters(dims) if dims else ("N", "C")
    off = {"affine": affine, "track_running_stats": track_running_stats}
    extra = [f"{name}=False" for name, on in off.items() if not on]
    return Explanation(
        f"BatchNorm{max(1, dims)}d({', '.join([str(sizes[1]), *extra])})",
        given(sizes, names, dtype),
        five(
            [_same_shape(sizes, names)],
            [_scales(sizes[1], affine), *_buffers(sizes[1], track_running_stats)],
            _normalising(sizes, names),
            [memory("memory", "How much memory does the output take?", names, sizes, dtype, OUTPUT_NOTE)],
            [_pointwise_field(dims), _values(sizes, names)],
        ),
    )


def _checked(layer: str, input_shape: Sequence[int], least: int, most: int) -> tuple[int, ...]:
    sizes = tuple(input_shape)
    if not least <= len(sizes) <= most:
        raise ValueError(
            f"input of {layer} must have {least} to {most} sizes, the batch first, got {sizes}; add the missing ones"
        )
    check_positive(sizes)
    return sizes


def _same_shape(sizes: tuple[int, ...], names: Sequence[str]) -> Answer:
    formula = f"({', '.join(names)}) → ({', '.join(names)})"
    note = "Every number is shifted and scaled where it is."
    return Answer("output_shape", "What is the output's shape?", formula, (), shape(sizes), sizes, "sizes", note)


def _scales(channels: int, affine: bool) -> Answer:
    formula, line, total = ("2 · C", f"2 · {number(channels)}", 2 * channels) if affine else ("0", "0", 0)
    note = "A scale γ and a shift β for each channel." if affine else "Without affine nothing is learned."
    return count(
        "parameters", "How many are learned?", formula, [f"{line} = {number(total)}"], total, "parameters", note
    )


def _buffers(channels: int, tracked: bool) -> list[Answer]:
    if not tracked:
        return []
    line = f"2 · {number(channels)} + 1 = {number(2 * channels + 1)}"
    note = "A running mean and variance for each channel, and a count of batches: kept, but not learned."
    return [
        count("buffers", "How many numbers are kept besides?", "2 · C + 1", [line], 2 * channels + 1, "numbers", note)
    ]


def _normalising(sizes: tuple[int, ...], names: Sequence[str]) -> list[Answer]:
    """In evaluation y = a·x + b, where a = γ / √(var + ε) and b = β − a·mean are made once for each channel."""
    each = (
        "y = a·x + b, with a = γ / √(var + ε) and b = β − a·mean made once for each channel. Folded into the "
        "convolution before, it costs nothing."
    )
    training = (
        "An addition for the mean, three operations for the variance, and two for a·x + b; what is done once for a "
        "channel is left out."
    )
    return [
        nothing("macs", "How many multiply-accumulates?", "MACs", "Sums of products are counted, and there are none."),
        _operations("flops", "How many floating-point operations, in evaluation?", 2, sizes, names, each),
        _operations("training_flops", "And in training?", _TRAINING_STEPS, sizes, names, training),
    ]


def _operations(name: str, question: str, steps: int, sizes: Sequence[int], names: Sequence[str], note: str) -> Answer:
    """So many FLOPs for each number."""
    total = steps * math.prod(sizes)
    line = f"{product((steps, *sizes))} = {number(total)}"
    return count(name, question, symbols(str(steps), *names), [line], total, "FLOPs", note)


def _pointwise_field(dims: int) -> Answer:
    field = (1,) * max(1, dims)
    note = "In evaluation; in training mean and variance make every output depend on its channel in all images."
    question = "How many input pixels can change one output?"
    value = f"{' × '.join(map(str, field))} pixel"
    return Answer("receptive_field", question, "r = 1", ("r = 1",), value, field, "pixels", note)


def _values(sizes: tuple[int, ...], names: Sequence[str]) -> Answer:
    """How many numbers share a mean, and what becomes of a single image."""
    counted, symbols_of = (sizes[0], *sizes[2:]), (names[0], *names[2:])
    total = math.prod(counted)
    if total == 1:
        note = (
            "A single value less its mean is 0, so that training statistics would destroy the signal; the layer "
            "refuses. After eval() the running statistics are used."
        )
    elif sizes[0] == 1:
        note = (
            "One image in training is normalised over its own pixels: its contrast and brightness are lost, its "
            "signal is not. After eval() the running statistics are used."
        )
    else:
        note = "In training, where the images of a batch depend on each other; after eval() no longer."
    line = f"{product(counted)} = {number(total)}"
    question = "How many values make one mean and variance?"
    return count("values", question, symbols(*symbols_of), [line], total, "values" if total != 1 else "value", note)


# ---- dense --------------------------------------------------------------------------------------------------------


def linear(input_shape: Sequence[int], out_features: int, bias: bool = True, dtype: str = "float32") -> Explanation:
    """Explain `nn.Linear` of a batch (N, in_features), or (N, …, in_features).

    Raises
    ------
    ValueError
        If a size is not positive, or the batch is missing.

    Examples
    --------
    >>> linear((1, 150528), 1024, bias=False)["parameters"].number
    154140672
    """
    sizes = _checked("linear", input_shape, 2, 5)
    itemsize(dtype)
    units = check_count("out_features", out_features, "feature maps")
    features, rows = sizes[-1], sizes[:-1]
    output = (*rows, units)
    names = ("N", *letters(len(sizes) - 2)) if len(sizes) > 2 else ("N",)
    learned = (features + bias) * units
    parts = {"input": math.prod(sizes), "parameters": learned, "output": math.prod(output)}
    return Explanation(
        f"Linear({features}, {units}{'' if bias else ', bias=False'})",
        given(sizes, (*names, "in"), dtype),
        five(
            [_mapped_shape(output, names)],
            [_dense_parameters(features, units, bias)],
            _dense_work(rows, names, features, units, bias),
            [
                memory("memory", "How much memory does the output take?", (*names, "out"), output, dtype, OUTPUT_NOTE),
                total_memory(parts, dtype, "Most of it is weights, each used once for an image."),
            ],
            [_dense_field(features)],
        ),
    )


def _mapped_shape(output: tuple[int, ...], names: Sequence[str]) -> Answer:
    before, after = ", ".join((*names, "in")), ", ".join((*names, "out"))
    note = "Only the last axis is mapped."
    question = "What is the output's shape?"
    return Answer("output_shape", question, f"({before}) → ({after})", (), shape(output), output, "sizes", note)


def _dense_parameters(features: int, units: int, bias: bool) -> Answer:
    weights, total = features * units, (features + bias) * units
    line = product((features, units))
    line += f" + {number(units)} = {number(weights)} + {number(units)} = {number(total)}" if bias else ""
    line += "" if bias else f" = {number(total)}"
    formula = "in · out" + " + out" * bias
    note = "Every output has a weight of its own for every input: nothing is shared."
    return count("parameters", "How many are learned?", formula, [line], total, "parameters", note)


def _dense_work(rows: tuple[int, ...], names: Sequence[str], features: int, units: int, bias: bool) -> list[Answer]:
    macs = ConvProblem.of((math.prod(rows), features, 1), (units, features, 1)).macs
    line = f"{product((*rows, features, units))} = {number(macs)}"
    note = "Each weight is used once for each row of the batch."
    left_out = " The additions of the bias are left out." * bias
    question = "How many multiply-accumulates?"
    return [
        count("macs", question, symbols(*names, "in", "out"), [line], macs, "MACs", note),
        flops(macs, f"A multiplication and an addition each.{left_out}"),
    ]


def _dense_field(features: int) -> Answer:
    note = "All of them: a dense layer knows no neighbours."
    question = "How many inputs can change one output?"
    return Answer(
        "receptive_field", question, "r = in", (f"r = {number(features)}",), f"{number(features)} inputs", (features,),
        "inputs", note,
    )  # fmt: skip
