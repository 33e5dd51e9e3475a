"""Pooling, explained."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinytorch.analysis.explain import axes as windows
from tinytorch.analysis.explain.answer import (
    OUTPUT_NOTE,
    Answer,
    Explanation,
    batch_letters,
    count,
    five,
    given,
    itemsize,
    memory,
    nothing,
    ratio,
    spatial,
)
from tinytorch.analysis.explain.text import equals, in_bytes, letters, number, product, shape, symbols
from tinytorch.conv.problem import Axis, Padding
from tinytorch.core.images import Pair
from tinytorch.core.pool_ops import Pooling

_STEPS = {"max": "comparisons", "avg": "additions"}


def pool(
    input_shape: Sequence[int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    mode: str = "max",
    dtype: str = "float32",
) -> Explanation:
    """Explain `nn.MaxPool2d` (``mode="max"``) or `nn.AvgPool2d` ("avg"), or their kin with one or three axes.

    Raises
    ------
    ValueError, TypeError
        If the options have no meaning together; the message names the option, or the axis.

    Examples
    --------
    >>> pool((1, 64, 224, 224), 2)["output_shape"].number
    (1, 64, 112, 112)
    """
    dims = spatial(input_shape)
    itemsize(dtype)
    if mode not in _STEPS:
        raise ValueError(f"mode must be 'max' or 'avg', got {mode!r}; choose one")
    pooling = Pooling(dims, kernel_size, stride, padding, dilation, ceil_mode)
    sizes = tuple(input_shape[2:])
    axes, outs = pooling._axes(sizes), pooling.windows(sizes).out
    output = (*input_shape[:2], *outs)
    options = {"stride": (stride, None), "padding": (padding, 0), "dilation": (dilation, 1)}
    options["ceil_mode"] = (ceil_mode, False)
    extra = [f"{name}={value!r}" for name, (value, usual) in options.items() if value != usual]
    return Explanation(
        f"{mode.capitalize()}Pool{dims}d({', '.join([f'kernel_size={kernel_size}', *extra])})",
        given(input_shape, batch_letters(dims), dtype),
        five(
            [_shape(axes, output, padding, ceil_mode)],
            [nothing("parameters", "How many are learned?", "parameters", "A window takes what is there.")],
            _work(axes, output, mode),
            _memory(input_shape, output, dtype),
            [windows.field(axes), _windows(axes, outs)],
        ),
    )


def _shape(axes: Sequence[Axis], output: tuple[int, ...], padding: Padding, ceil: bool) -> Answer:
    formula, lines = windows.window_count(axes, output[2:], ceil)
    note = windows.floor_note(axes)
    if ceil:
        note = (
            "A last window may reach beyond the border if it begins in front of the image or in it; one that does not"
        )
        note += " is left out, which the − 1 stands for."
    note += windows.shape_note(padding, axes)
    return Answer("output_shape", "What is the output's shape?", formula, lines, shape(output), output, "sizes", note)


def _work(axes: Sequence[Axis], output: tuple[int, ...], mode: str) -> list[Answer]:
    kernels = [axis.kernel for axis in axes]
    steps = math.prod(output) * math.prod(kernels)
    dims = len(axes)
    taps = [f"k_{letter}" for letter in letters(dims)] if dims > 1 else ["k"]
    formula = symbols("N", "C", *(f"{letter}_out" for letter in letters(dims)), *taps)
    line = f"{product((*output, *kernels))} = {product((math.prod(output), math.prod(kernels)))} = {number(steps)}"
    start = "−∞" if mode == "max" else "0"
    note = f"One for each tap of each output, beginning with {start}; taps on padding are counted."
    note += " A division for each output comes on top." if mode == "avg" else ""
    question = f"How many {_STEPS[mode]}?"
    return [
        nothing("macs", "How many multiply-accumulates?", "MACs", "Nothing is multiplied with a weight."),
        count("operations", question, formula, [line], steps, _STEPS[mode], note),
    ]


def _memory(inputs: Sequence[int], output: tuple[int, ...], dtype: str) -> list[Answer]:
    dims = len(output) - 2
    before = memory("input_memory", "How much memory does the input take?", batch_letters(dims), inputs, dtype, "")
    names = ("N", "C", *(f"{letter}_out" for letter in letters(dims)))
    after = memory("memory", "And the output?", names, output, dtype, OUTPUT_NOTE)
    large, small = math.prod(inputs[1:]), math.prod(output[1:])
    line = f"{number(large)} / {number(small)} {equals(large / small)}"
    saved = (math.prod(inputs) - math.prod(output)) * itemsize(dtype)
    note = f"{in_bytes(saved)} less, and so much less work for the next layer." if saved > 0 else ""
    question = "How many times less is that?"
    return [before, after, ratio("memory_ratio", question, "input / output", line, large / small, note)]


def _windows(axes: Sequence[Axis], outs: Sequence[int]) -> Answer:
    formula = symbols(*(f"n_{letter}" for letter in letters(len(axes))))
    note = "n is the number of windows with a tap on the pixel, along an axis; 1 where windows tile the image."
    return windows.coverage(axes, outs, "How many windows read one pixel?", formula, note)
