"""Convolution and transposed convolution, explained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tinytorch.analysis.explain import axes as windows
from tinytorch.analysis.explain.answer import (
    OUTPUT_NOTE,
    Answer,
    Explanation,
    batch_letters,
    count,
    five,
    flops,
    given,
    itemsize,
    memory,
    ratio,
    spatial,
    total_memory,
)
from tinytorch.analysis.explain.text import (
    equals,
    figure,
    in_time,
    letters,
    number,
    percent,
    power,
    product,
    shape,
    symbols,
)
from tinytorch.conv.cost import cost
from tinytorch.conv.planner import ALGORITHMS
from tinytorch.conv.problem import Axis, ConvProblem, Padding, check_count, check_groups, per_axis
from tinytorch.core.images import Pair

_PADDED = (
    "How many of the MACs fall on padding?",
    "T is the number of taps on the image along an axis, over all windows. A library may skip the others.",
)
_CUT_OFF = (
    "How many of the MACs land on what the padding cuts off?",
    "T is the number of taps that land on the output along an axis, over all pixels.",
)
PLAIN_PYTHON = 2_600_000  # multiply-accumulates a second of the seven loops in plain Python, by the README


def conv(
    input_shape: Sequence[int],
    out_channels: int,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    bias: bool = True,
    dtype: str = "float32",
) -> Explanation:
    """Explain `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`: as many axes as ``input_shape`` has behind (N, C).

    Raises
    ------
    ValueError, TypeError
        If the options have no meaning together; the message names the option, or the axis.

    Examples
    --------
    >>> conv((32, 3, 224, 224), 64, 3, padding=1)["macs"].number
    2774532096
    """
    dims, item = spatial(input_shape), itemsize(dtype)
    channels = input_shape[1], check_count("out_channels", out_channels, "feature maps")
    check_groups(groups, *channels)
    kernels = per_axis("kernel_size", kernel_size, dims)
    weight_shape = (channels[1], channels[0] // groups, *kernels)
    problem = ConvProblem.of(input_shape, weight_shape, stride, padding, dilation, groups)
    options = {"stride": (stride, 1), "padding": (padding, 0), "dilation": (dilation, 1), "groups": (groups, 1)}
    return Explanation(
        _layer(f"Conv{dims}d", channels, kernel_size, {**options, "bias": (bias, True)}),
        given(problem.input_shape, batch_letters(dims), dtype),
        five(
            [_shape(problem, padding)],
            [_parameters(problem, bias), *_dense(problem, bias)],
            [*_work(problem, bias), *_compared(problem), *_winograd(problem, item), _plain_loops(problem)],
            _memory(problem.input_shape, problem.output_shape, _learned(problem, problem.co, bias), dtype),
            [windows.field(problem.axes), _windows(problem)],
        ),
    )


def _layer(name: str, channels: tuple[int, int], kernel_size: Pair, options: dict) -> str:
    """The layer in Python; options at their default are left out."""
    extra = [f"{option}={value!r}" for option, (value, usual) in options.items() if value != usual]
    return f"{name}({', '.join([*map(str, channels), f'kernel_size={kernel_size}', *extra])})"


def _outs(problem: ConvProblem) -> list[int]:
    return [axis.out for axis in problem.axes]


def _out_letters(dims: int) -> list[str]:
    return [f"{letter}_out" for letter in letters(dims)]


def _kernel_letters(dims: int) -> list[str]:
    return [f"k_{letter}" for letter in letters(dims)] if dims > 1 else ["k"]


# ---- shape and parameters -----------------------------------------------------------------------------------------


def _shape(problem: ConvProblem, padding: Padding) -> Answer:
    formula, lines = windows.window_count(problem.axes, _outs(problem))
    note = windows.floor_note(problem.axes) + windows.shape_note(padding, problem.axes)
    note += windows.sequence_note(problem.input_shape)
    value = shape(problem.output_shape)
    return Answer(
        "output_shape", "What is the output's shape?", formula, lines, value, problem.output_shape, "sizes", note
    )


def _learned(problem: ConvProblem, offsets: int, bias: bool) -> int:
    """Weights and offsets."""
    return math.prod(problem.weight_shape) + offsets * bias


def _parameters(problem: ConvProblem, bias: bool, names: tuple[str, str] = ("C_out", "C_in")) -> Answer:
    """Parameters of filters whose two channel axes are called ``names``; a bias is for each output channel."""
    outer, inner = problem.co, problem.ci
    offsets = outer if names[0] == "C_out" else inner
    weights, total = math.prod(problem.weight_shape), _learned(problem, offsets, bias)
    depth, depth_text = _shared(names[1], inner, problem.groups)
    formula = symbols(names[0], depth, *_kernel_letters(problem.dims)) + " + C_out" * bias
    line = f"{number(outer)} · {depth_text} · {product(problem.weight_shape[2:])}"
    line += f" + {number(offsets)} = {number(weights)} + {number(offsets)}" if bias else ""
    line += f" = {number(total)}"
    note = "The size of the image does not come in: the same weights are used at every place."
    note += " The last term is the bias." * bias
    return count("parameters", "How many are learned?", formula, [line], total, "parameters", note)


def _shared(name: str, channels: int, groups: int) -> tuple[str, str]:
    """Channels of a group as factor of a formula, and as number."""
    return (name, number(channels)) if groups == 1 else (f"({name} / g)", f"({number(channels)} / {groups})")


def _dense(problem: ConvProblem, bias: bool) -> list[Answer]:
    """The pages' comparison: a unit that sees the whole image, for each output channel."""
    sizes = problem.input_shape[1:]
    seen, learned = math.prod(sizes), _learned(problem, problem.co, bias)
    dense, whole = seen * problem.co, seen * math.prod(problem.output_shape[1:])
    line = f"{product((*sizes, problem.co))} = {product((seen, problem.co))} = {number(dense)}"
    return [
        count(
            "dense", f"How many weights would a dense layer of {number(problem.co)} units have?",
            symbols("C_in", *letters(problem.dims), "C_out"), [line], dense, "weights",
            f"A unit for each output channel. One for each number of the output would take {number(whole)} weights.",
        ),
        ratio(
            "dense_ratio", "How many times as many is that?", "dense / parameters",
            f"{number(dense)} / {number(learned)} {equals(dense / learned)}", dense / learned,
            "That is what sharing weights between places saves.",
        ),
    ]  # fmt: skip


# ---- work ---------------------------------------------------------------------------------------------------------


def _work(problem: ConvProblem, bias: bool) -> list[Answer]:
    depth, depth_text = _shared("C_in", problem.ci, problem.groups)
    kernels = problem.weight_shape[2:]
    formula = symbols("N", "C_out", *_out_letters(problem.dims), depth, *_kernel_letters(problem.dims))
    line = f"{product(problem.output_shape)} · {depth_text} · {product(kernels)}"
    pixels, taps = math.prod(_outs(problem)), math.prod(problem.weight_shape[1:])
    line += f" = {product((problem.n, problem.co, pixels, taps))} = {number(problem.macs)}"
    note = f"One for each of {number(taps)} taps of each output; taps on padding are counted."
    left_out = " The additions of the bias are left out." * bias
    return [
        count("macs", "How many multiply-accumulates?", formula, [line], problem.macs, "MACs", note),
        flops(problem.macs, f"A multiplication and an addition each.{left_out}"),
        _on_padding(problem, problem.macs, _outs(problem), ("C_out", depth), _PADDED),
    ]


def _on_padding(
    problem: ConvProblem, macs: int, outs: Sequence[int], channels: Sequence[str], words: tuple[str, str]
) -> Answer:
    """Products with padding; of a transposed convolution, products that land on what is cut off."""
    question, note = words
    inside = [windows.taps_inside(axis, out) for axis, out in zip(problem.axes, outs, strict=True)]
    pairs = (problem.n, problem.co, problem.ci // problem.groups)
    outside = macs - math.prod(pairs) * math.prod(inside)
    line = f"{number(macs)} − {product((*pairs, *inside))} = {number(outside)}"
    formula = "MACs − " + symbols("N", *channels, *(f"T_{letter}" for letter in letters(problem.dims)))
    answer = count("padding_macs", question, formula, [line], outside, "MACs", note)
    return replace(answer, value=f"{answer.value}, {percent(outside, macs)} of all")


def _compared(problem: ConvProblem) -> list[Answer]:
    """With a 3×3 kernel, as the pages do, and with a larger image."""
    answers = [_growth(problem)]
    taps, small = math.prod(problem.weight_shape[2:]), 3**problem.dims
    if taps != small:
        times, up = taps / small, power(problem.dims)
        line = f"{product(problem.weight_shape[2:])} / 3{up} = {taps} / {small} {equals(times, 2)}"
        formula = f"{symbols(*_kernel_letters(problem.dims))} / 3{up}"
        note = "The cost grows with the number of taps; deep networks stack small kernels in place of large ones."
        question = f"How many times the work of a kernel of {'×'.join('3' * problem.dims)}?"
        answers.insert(0, ratio("kernel_ratio", question, formula, line, times, note, 2))
    return answers


def _growth(problem: ConvProblem) -> Answer:
    """One image of twice the side."""
    one = replace(problem, n=1)
    large = replace(one, axes=tuple(replace(axis, size=2 * axis.size) for axis in problem.axes))
    names = letters(problem.dims)
    formula = f"MACs({', '.join(f'2·{n}' for n in names)}) / MACs({', '.join(names)})"
    line = f"{number(large.macs)} / {number(one.macs)} {equals(large.macs / one.macs)}"
    worse = {1: "linear", 2: "quadratic", 3: "cubic"}[problem.dims]
    note = f"The cost is linear in the number of pixels, so {worse} in the side; and linear in the batch."
    note += "" if large.macs == 2**problem.dims * one.macs else " The border makes the difference."
    question = "How does it grow with an image of twice the side?"
    return ratio("growth", question, formula, line, large.macs / one.macs, note)


def _winograd(problem: ConvProblem, item: int) -> list[Answer]:
    """Multiplications that F(m×m, k×k) saves; S. Winograd, "Arithmetic Complexity of Computations", 1980."""
    kernel = problem.axes[0].kernel
    regular = {(axis.kernel, axis.stride, axis.dilation) for axis in problem.axes} == {(kernel, 1, 1)}
    if not regular or kernel == 1:
        return []
    return [_winograd_tile(problem, kernel, m, item) for m in ((2, 4) if kernel == 3 else (2,))]


def _winograd_tile(problem: ConvProblem, kernel: int, m: int, item: int) -> Answer:
    dims, up = problem.dims, power(problem.dims)
    square, taps = ("×".join([str(side)] * dims) for side in (m, kernel))
    plain, fast = (m * kernel) ** dims, (m + kernel - 1) ** dims
    formula = f"m{up}·k{up} / (m + k − 1){up}"
    line = f"{m}{up}·{kernel}{up} / ({m} + {kernel} − 1){up} = {plain} / {fast} {equals(plain / fast)}"
    note = f"{square} outputs from {fast} products in place of {plain}, for more additions."
    if problem.n and ALGORITHMS["winograd"].refuses(problem, "forward") is None:
        executed = cost(problem, "forward", "winograd", item, tile=m).multiplies
        saved = f"{figure(problem.macs / executed)}× fewer than the definition"
        note += f" Whole tiles over this output take {number(executed)} multiplications, {saved}."
    question = f"Winograd's F({square}, {taps}): how many times fewer multiplications?"
    return ratio(f"winograd{m}", question, formula, line, plain / fast, note)


def _plain_loops(problem: ConvProblem) -> Answer:
    seconds = problem.macs / PLAIN_PYTHON
    line = f"{number(problem.macs)} / {number(PLAIN_PYTHON)} {equals(seconds)}"
    note = f"At some {PLAIN_PYTHON / 1e6:.1f} million MACs a second, which depends on the machine."
    question = "How long do seven loops in plain Python take?"
    return Answer(
        "plain_loops", question, "MACs / MACs a second", (line,), f"about {in_time(seconds)}", seconds, "s", note
    )


def _memory(inputs: Sequence[int], outputs: Sequence[int], learned: int, dtype: str) -> list[Answer]:
    parts = {"input": math.prod(inputs), "parameters": learned, "output": math.prod(outputs)}
    names = ("N", "C_out", *_out_letters(len(inputs) - 2))
    return [
        memory("memory", "How much memory does the output take?", names, outputs, dtype, OUTPUT_NOTE),
        total_memory(parts, dtype, "What a forward pass reads and writes once; scratch of the algorithm comes on top."),
    ]


def _windows(problem: ConvProblem) -> Answer:
    question = "How many windows read one pixel?"
    formula = symbols(*(f"n_{letter}" for letter in letters(problem.dims)))
    note = "n is the number of windows with a tap on the pixel, along an axis: fewer at the border, padded or not."
    return windows.coverage(problem.axes, _outs(problem), question, formula, note)


# ---- transposed ---------------------------------------------------------------------------------------------------


def conv_transpose(
    input_shape: Sequence[int],
    out_channels: int,
    kernel_size: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    bias: bool = True,
    dilation: Pair = 1,
    dtype: str = "float32",
) -> Explanation:
    """Explain `nn.ConvTranspose1d`, `nn.ConvTranspose2d` or `nn.ConvTranspose3d`.

    Raises
    ------
    ValueError, TypeError
        If the options have no meaning together; the message names the option, or the axis.
    """
    dims = spatial(input_shape)
    itemsize(dtype)
    channels = input_shape[1], check_count("out_channels", out_channels, "feature maps")
    check_groups(groups, *channels)
    weight_shape = (channels[0], channels[1] // groups, *per_axis("kernel_size", kernel_size, dims))
    problem, _ = ConvProblem.transposed(input_shape, weight_shape, stride, padding, output_padding, dilation, groups)
    extra = per_axis("output_padding", output_padding, dims, least=0)
    options = {"stride": (stride, 1), "padding": (padding, 0), "output_padding": (output_padding, 0)}
    options |= {"groups": (groups, 1), "bias": (bias, True), "dilation": (dilation, 1)}
    return Explanation(
        _layer(f"ConvTranspose{dims}d", channels, kernel_size, options),
        given(input_shape, batch_letters(dims), dtype),
        five(
            [_grown_shape(problem, input_shape, padding, extra)],
            [_parameters(problem, bias, ("C_in", "C_out"))],
            _spread_work(problem, input_shape),
            _memory(input_shape, problem.input_shape, _learned(problem, problem.ci, bias), dtype),
            [_sources(problem.axes), _terms(problem, input_shape[2:])],
        ),
    )


def _grown_shape(problem: ConvProblem, inputs: Sequence[int], padding: Padding, extra: Sequence[int]) -> Answer:
    name = letters(problem.dims)[0]
    formula = f"{name}_out = ({name} − 1)·s − p₁ − p₂ + d·(k − 1) + 1 + p_out"
    lines = [_grown(*numbers, padding) for numbers in zip(problem.axes, inputs[2:], extra, strict=True)]
    note = "A convolution with these options leads back to the input's size, which its floor makes of several."
    return Answer(
        "output_shape", "What is the output's shape?", formula, windows.for_axes(lines), shape(problem.input_shape),
        problem.input_shape, "sizes", note + windows.sequence_note(inputs),
    )  # fmt: skip


def _grown(axis: Axis, size: int, extra: int, padding: Padding) -> str:
    """'(14 − 1)·2 − 1 − 1 + 1·(3 − 1) + 1 + 1 = 28'; padding by name decides about the size, not the other way."""
    if isinstance(padding, str) and padding != "valid":
        return f"{number(size)}·{axis.stride} = {number(axis.size)}"
    spread = (size - 1) * axis.stride + axis.extent + extra
    after = spread - axis.size - axis.before
    first = f"({number(size)} − 1)·{axis.stride} − {axis.before} − {after}"
    return f"{first} + {axis.dilation}·({axis.kernel} − 1) + 1 + {extra} = {number(axis.size)}"


def _spread_work(problem: ConvProblem, inputs: Sequence[int]) -> list[Answer]:
    """The mirrored convolution's work, without zeros that it may need behind the image."""
    sizes = inputs[2:]
    macs = problem.macs // math.prod(_outs(problem)) * math.prod(sizes)
    depth, depth_text = _shared("C_out", problem.ci, problem.groups)
    formula = symbols("N", "C_in", *letters(problem.dims), depth, *_kernel_letters(problem.dims))
    line = f"{product(inputs)} · {depth_text} · {product(problem.weight_shape[2:])} = {number(macs)}"
    note = "Every input pixel is spread over a whole kernel of outputs; what is cut off is counted."
    return [
        count("macs", "How many multiply-accumulates?", formula, [line], macs, "MACs", note),
        flops(macs, "A multiplication and an addition each."),
        _on_padding(problem, macs, sizes, ("C_in", depth), _CUT_OFF),
    ]


def _sources(axes: Sequence[Axis]) -> Answer:
    """Input pixels that reach one output: every s / g-th tap, each d / g pixels from the next, g = gcd(s, d)."""
    names = letters(len(axes))
    sizes = tuple(_source(axis)[0] for axis in axes)
    lines = [_source(axis)[1] for axis in axes]
    heads = ["r"] if len(set(lines)) == 1 else [f"r_{name}" for name in names]
    return Answer(
        "receptive_field", "How many input pixels can change one output, at most?",
        "r = (⌈k·g / s⌉ − 1)·d / g + 1, g = gcd(s, d)",
        tuple(f"{head} = {line}" for head, line in zip(heads, lines, strict=False)),
        f"{' × '.join(map(str, sizes))} pixels", sizes, "pixels", "A large stride leaves each output to few pixels.",
    )  # fmt: skip


def _source(axis: Axis) -> tuple[int, str]:
    k, s, d = axis.kernel, axis.stride, axis.dilation
    g = math.gcd(s, d)
    size = (-(-k * g // s) - 1) * d // g + 1
    return size, f"(⌈{k}·{g} / {s}⌉ − 1)·{d} / {g} + 1 = {size}"


def _terms(problem: ConvProblem, sizes: Sequence[int]) -> Answer:
    question = "How many input pixels are added up in one output?"
    formula = symbols(*(f"n_{letter}" for letter in letters(problem.dims)))
    note = (
        "n is the number of input pixels with a tap on the output, along an axis. Where kernel size and stride do not "
        "divide, it alternates, and images show a checkerboard (A. Odena et al., Distill 2016)."
    )
    answer = windows.coverage(problem.axes, sizes, question, formula, note)
    return replace(answer, name="terms", value=answer.value.replace("windows", "pixels"), unit="pixels")
