"""`tinytorch explain`: a layer's shape, parameters, work, memory and receptive field, each worked out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tinytorch.analysis.explain import Explanation

_WIDEST = 100  # columns that are read comfortably

explain = typer.Typer(
    name="explain",
    help="Work out a layer's shape, parameters, multiply-accumulates, memory and receptive field, step by step.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Input = Annotated[str, typer.Option("--input", metavar="N,C,…", help="Shape of the batch: 32,3,128,128.")]
_Out = Annotated[int, typer.Option("--out", help="Output channels.")]
_Kernel = Annotated[str, typer.Option("--kernel", metavar="K", help="Kernel size: 3, or 3,5 for each axis.")]
_Stride = Annotated[str, typer.Option(metavar="S", help="Pixels between two windows: 2, or 2,1.")]
_Padding = Annotated[
    str, typer.Option(metavar="P", help="Pixels around the image: 1, or 1,2, or before and after 0:1,1:2; same; valid.")
]
_Dilation = Annotated[str, typer.Option(metavar="D", help="Pixels between two taps of a window: 2, or 2,1.")]
_Groups = Annotated[int, typer.Option(help="Convolutions that the channels are dealt to.")]
_Bias = Annotated[bool, typer.Option("--bias/--no-bias", help="Whether each output has a learned offset.")]
_Dtype = Annotated[str, typer.Option(help="float32 or float64.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]


@explain.command("conv")
def explain_conv(
    input_shape: _Input,
    out: _Out,
    kernel: _Kernel,
    stride: _Stride = "1",
    padding: _Padding = "0",
    dilation: _Dilation = "1",
    groups: _Groups = 1,
    bias: _Bias = True,
    dtype: _Dtype = "float32",
    json: _Json = False,
    markdown: _Markdown = False,
) -> None:
    """Explain Conv1d, Conv2d or Conv3d: as many axes as --input has behind batch and channels."""
    from tinytorch.analysis.explain import conv

    window = _window(kernel, stride, padding, dilation)
    _show(conv(_sizes("--input", input_shape), out, *window, groups, bias, dtype), json, markdown)


@explain.command("conv-transpose")
def explain_conv_transpose(
    input_shape: _Input,
    out: _Out,
    kernel: _Kernel,
    stride: _Stride = "1",
    padding: _Padding = "0",
    output_padding: Annotated[str, typer.Option(metavar="P", help="Pixels that the output goes on for.")] = "0",
    groups: _Groups = 1,
    bias: _Bias = True,
    dilation: _Dilation = "1",
    dtype: _Dtype = "float32",
    json: _Json = False,
    markdown: _Markdown = False,
) -> None:
    """Explain ConvTranspose1d, ConvTranspose2d or ConvTranspose3d."""
    from tinytorch.analysis.explain import conv_transpose

    sizes, (k, s, p, d) = _sizes("--input", input_shape), _window(kernel, stride, padding, dilation)
    extra = _pair("--output-padding", output_padding)
    _show(conv_transpose(sizes, out, k, s, p, extra, groups, bias, d, dtype), json, markdown)


@explain.command("pool")
def explain_pool(
    input_shape: _Input,
    kernel: _Kernel,
    stride: Annotated[str | None, typer.Option(metavar="S", help="By default the kernel size.")] = None,
    padding: _Padding = "0",
    dilation: _Dilation = "1",
    ceil_mode: Annotated[bool, typer.Option("--ceil-mode", help="Round the output's size up.")] = False,
    average: Annotated[bool, typer.Option("--avg/--max", help="Mean or maximum of a window.")] = False,
    dtype: _Dtype = "float32",
    json: _Json = False,
    markdown: _Markdown = False,
) -> None:
    """Explain MaxPool or AvgPool in one to three dimensions."""
    from tinytorch.analysis.explain import pool

    sizes, (k, s, p, d) = _sizes("--input", input_shape), _window(kernel, stride or kernel, padding, dilation)
    mode = "avg" if average else "max"
    _show(pool(sizes, k, s if stride else None, p, d, ceil_mode, mode, dtype), json, markdown)


@explain.command("batchnorm")
def explain_batchnorm(
    input_shape: _Input,
    affine: Annotated[bool, typer.Option("--affine/--no-affine", help="Whether scale and shift are learned.")] = True,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Whether running statistics are kept.")] = True,
    dtype: _Dtype = "float32",
    json: _Json = False,
    markdown: _Markdown = False,
) -> None:
    """Explain BatchNorm1d, BatchNorm2d or BatchNorm3d."""
    from tinytorch.analysis.explain import batchnorm

    _show(batchnorm(_sizes("--input", input_shape), affine, track, dtype), json, markdown)


@explain.command("linear")
def explain_linear(
    input_shape: _Input,
    out: Annotated[int, typer.Option("--out", help="Outputs.")],
    bias: _Bias = True,
    dtype: _Dtype = "float32",
    json: _Json = False,
    markdown: _Markdown = False,
) -> None:
    """Explain Linear, the dense layer; the last size of --input is its number of inputs."""
    from tinytorch.analysis.explain import linear

    _show(linear(_sizes("--input", input_shape), out, bias, dtype), json, markdown)


@explain.command("stack")
def explain_stack(
    layers: Annotated[str, typer.Argument(help='Layers, such as "conv3 conv3 pool2 conv3s2d2".')],
    input_shape: Annotated[
        str | None, typer.Option("--input", metavar="N,C,…", help="Shape of the batch, to tell sizes and work, too.")
    ] = None,
    dense: Annotated[
        int | None, typer.Option(help="Compare the parameters with a dense layer of so many units.")
    ] = None,
    dtype: _Dtype = "float32",
    json: _Json = False,
    markdown: _Markdown = False,
) -> None:
    """Explain how far a stack of layers sees: its receptive field, layer by layer.

    A word is a layer, its kernel size, and options: s stride, p padding, d dilation, c output channels, g groups.
    Layers are conv, pool (or maxpool), avgpool; linear, with its outputs; relu, bn and flatten.
    """
    from tinytorch.analysis.explain import stack

    sizes = None if input_shape is None else _sizes("--input", input_shape)
    _show(stack(layers, sizes, dense, dtype), json, markdown)


@explain.command("window")
def explain_window(
    image: Annotated[str, typer.Argument(help='Rows of whole numbers: "1 2 3, 2 3 4, 3 4 5".')],
    kernel: Annotated[str, typer.Argument(help='Likewise: "1 0 1, 0 1 0, 1 0 1".')],
    json: _Json = False,
    markdown: _Markdown = False,
) -> None:
    """Work out one window of a convolution by hand."""
    from tinytorch.analysis.explain import window

    _show(window(_rows("image", image), _rows("kernel", kernel)), json, markdown)


# ---- options ------------------------------------------------------------------------------------------------------


def _window(kernel: str, stride: str, padding: str, dilation: str) -> tuple[Any, Any, Any, Any]:
    pairs = _pair("--kernel", kernel), _pair("--stride", stride)
    return *pairs, _padded(padding), _pair("--dilation", dilation)


def _sizes(option: str, text: str) -> tuple[int, ...]:
    """'32,3,128,128' → (32, 3, 128, 128)."""
    parts = re.split(r"\s*[,x×]\s*", text.strip(" ()"))
    if not all(re.fullmatch(r"-?\d+", part) for part in parts):
        raise ValueError(
            f"{option} must be whole numbers with commas between them, got {text!r}; write for example 3,5"
        )
    return tuple(map(int, parts))


def _pair(option: str, text: str) -> Any:
    """'3' → 3; '3,5' → (3, 5)."""
    sizes = _sizes(option, text)
    return sizes[0] if len(sizes) == 1 else sizes


def _padded(text: str) -> Any:
    """A name, pixels, or '0:1,1:2' → ((0, 1), (1, 2))."""
    if text.isidentifier():
        return text
    if ":" not in text:
        return _pair("--padding", text)
    pairs = [part.split(":") for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"--padding must have before:after for every axis, got {text!r}; write for example 0:1,1:2")
    return tuple(_sizes("--padding", ",".join(pair)) for pair in pairs)


def _rows(name: str, text: str) -> list[list[int]]:
    """'1 2, 3 4' → [[1, 2], [3, 4]]."""
    rows = [re.split(r"\s+", row.strip()) for row in re.split(r"[,;]", text)]
    if not all(re.fullmatch(r"-?\d+", number) for row in rows for number in row):
        raise ValueError(f"{name} must be rows of whole numbers, got {text!r}; write for example '1 2, 3 4'")
    return [list(map(int, row)) for row in rows]


# ---- what is printed ----------------------------------------------------------------------------------------------


def _show(explanation: Explanation, json: bool, markdown: bool) -> None:
    from dataclasses import asdict

    from tinytorch.cli import console as out

    if json and markdown:
        raise ValueError("--json and --markdown must not both be given, got both; leave one out")
    if json:
        out.print_json(asdict(explanation))
    elif markdown:
        print("\n".join(_markdown(explanation)))
    else:
        _print(explanation)


def _print(explanation: Explanation) -> None:
    from rich.text import Text

    from tinytorch.cli import console as out

    console = out.console()
    width = min(console.width, _WIDEST)

    def show(text: str, indent: int, style: str = "", fold: Callable[[str, int], list[str]] = _wrapped) -> None:
        console.print(Text("\n".join(" " * indent + line for line in fold(text, width - indent)), style))

    show(explanation.layer, 0, "bold")
    show(explanation.given, 0, "dim")
    for number, question in enumerate(explanation.questions, 1):
        console.print()
        show(f"{number}  {question.title}", 0, "bold cyan")
        for place, answer in enumerate(question.answers):
            if place:
                console.print()
            show(answer.question, 3)
            show(answer.formula, 5, "dim", _folded)
            for row in answer.substituted:
                show(row, 5, "", _folded)
            show(f"→ {answer.value}", 5, "bold green")
            if answer.note:
                show(answer.note, 5, "dim")
    if stages := _stages(explanation):
        console.print()
        console.print(_table(*stages), soft_wrap=False, width=width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _folded(row: str, width: int) -> list[str]:
    """A chain of equations in lines of this width; they break in front of "=", and elsewhere only where they must."""
    steps = [""]
    for step in re.split(r" (?=[=≈] )", row):
        if steps[-1] and len(steps[-1]) + 1 + len(step) > width:
            steps.append(f"  {step}")
        else:
            steps[-1] = f"{steps[-1]} {step}" if steps[-1] else step
    return [line for step in steps for line in _wrapped(step, width)]


def _stages(explanation: Explanation) -> tuple[list[str], list[list[str]]] | None:
    """Head and rows of a stack's table; what an unknown input leaves open is left out."""
    from tinytorch.analysis.explain import Stack

    if not isinstance(explanation, Stack):
        return None
    known = explanation.stages[0].shape is not None
    head = ["layer", *(["output"] if known else []), "jump j", "field r", "start u", "centre c"]
    head += ["parameters", "MACs"] if known else []
    rows = []
    for stage in explanation.stages:
        shape = ["×".join(map(str, (stage.shape or ())[1:]))] if known else []
        places = (stage.jump, stage.field, stage.start, stage.centre)
        place = [f"{value:,}".replace("-", "−") for value in places] if stage.jump else ["–", "all", "–", "–"]
        rows.append([stage.layer, *shape, *place, *([f"{stage.parameters:,}", f"{stage.macs:,}"] if known else [])])
    return head, rows


def _table(head: list[str], rows: list[list[str]]) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, box=None, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        column.justify, column.overflow = "right", "fold"
    table.columns[0].justify = "left"
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _markdown(explanation: Explanation) -> list[str]:
    lines = [f"## `{explanation.layer}`", "", explanation.given]
    for number, question in enumerate(explanation.questions, 1):
        lines += ["", f"### {number}. {question.title}"]
        for answer in question.answers:
            code = "\n".join([answer.formula, *answer.substituted])
            lines += ["", answer.question, f"**{answer.value}**", "", "```text", code, "```"]
            lines += ["", answer.note] if answer.note else []
    if stages := _stages(explanation):
        head, rows = stages
        lines += ["", *map(_row, [head, ["---"] + ["---:"] * (len(head) - 1), *rows])]
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
