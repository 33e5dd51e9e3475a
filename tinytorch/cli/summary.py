"""`tinytorch summary`: what a network is made of, and what it costs, without running it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tinytorch.analysis.summary import Summary
    from tinytorch.core.layers import Module

Shape = tuple[int, ...]

_IMAGENET: Shape = (3, 224, 224)
_PANEL = "Limits: exit code 1 if one is not kept"


def summary(
    model: Annotated[str, typer.Argument(help="Name of a network, folder of a run, or a model.safetensors.")],
    input: Annotated[
        str | None, typer.Option(metavar="N,C,H,W", help="Shape of the input, by default that of one usual image.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Classes of a network given by name or file.")] = None,
    flops: Annotated[int, typer.Option(help="FLOPs that a multiply-accumulate counts as: 2 or 1.")] = 2,
    depth: Annotated[int | None, typer.Option(help="Show layers down to this depth, deeper ones added up.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run it, to time its layers.")] = False,
    diff: Annotated[str | None, typer.Option(metavar="MODEL", help="Compare with another model.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the rows as comma-separated values.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown page.")] = False,
    max_macs: Annotated[str | None, typer.Option(help="Such as 300M.", rich_help_panel=_PANEL)] = None,
    max_params: Annotated[str | None, typer.Option(help="Such as 4M.", rich_help_panel=_PANEL)] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Of inference, such as 64MiB or 64MB.", rich_help_panel=_PANEL)
    ] = None,
) -> None:
    """Tell of every layer its shapes, parameters, arithmetic and memory; nothing is convolved to find out.

    MACs and FLOPs are those of convolutions and matrix products. "multiplies" are what the algorithm executes that the
    planner chooses, "kept" are bytes that stay for the backward.
    """
    from tinytorch.analysis.budget import Budget, excesses
    from tinytorch.analysis.figures import parse

    if json + csv + markdown > 1:
        raise ValueError("--json, --csv and --markdown exclude each other; pass one of them")
    if depth is not None and depth < 0:
        raise ValueError(f"--depth must be 0 or more, got {depth}; 1 shows the outermost layers")
    budget = Budget(
        None if max_macs is None else parse("--max-macs", max_macs),
        None if max_params is None else parse("--max-params", max_params),
        None if max_memory is None else parse("--max-memory", max_memory, "B"),
    )
    found = _summarised(model, input, classes, flops, measure)
    if diff is not None:
        _show_difference(model, found, diff, _summarised(diff, input, classes, flops, measure), json)
    else:
        _show(found, depth, json, csv, markdown)
    broken = excesses(found, budget)
    for excess in broken:
        typer.echo(f"over budget: {excess}", err=True)
    if broken:
        raise typer.Exit(1)


def _show(found: Summary, depth: int | None, json: bool, csv: bool, markdown: bool) -> None:
    from tinytorch.cli import console as out

    if json:
        out.print_json(found.to_dict())
    elif csv:
        print(found.to_csv(depth), end="")
    elif markdown:
        print(found.to_markdown(depth), end="")
    else:
        print(found.table(out.console().width, depth))


# ---- which model ----------------------------------------------------------------------------------------------------


def _summarised(model: str, text: str | None, classes: int | None, flops: int, measure: bool) -> Summary:
    from tinytorch import summary as summarise

    shape = None if text is None else _shape(text)
    built, usual = _model(model, shape, classes, measure)
    return summarise(built, shape or (1, *usual), flops=flops, measure=measure)


def _shape(text: str) -> Shape:
    """Read N,C,H,W, or with fewer or more axes."""
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape, default=0) < 0:
        raise ValueError(
            f"--input must be four whole numbers, images, channels, height and width, such as 1,3,224,224, got {text!r}"
        )
    return shape


def _model(name: str, shape: Shape | None, classes: int | None, drawn: bool) -> tuple[Module, Shape]:
    """The network, and the shape of an image that it was made for; without numbers, unless they are to be drawn."""
    from contextlib import nullcontext

    from tinytorch import models
    from tinytorch.analysis.stand_in import rehearsal
    from tinytorch.io.run import Run

    path = Path(name)
    with nullcontext() if drawn else rehearsal():
        if path.is_dir():
            config = Run.open(path).config
            return config.build_model(), config.input_shape
        if path.is_file() or path.suffix == ".safetensors":
            return _from_file(path, shape, classes)
        usual = models.usual_shape(name)
        classes = classes or (1000 if usual == _IMAGENET else 10)
        return models.create(name, (shape or (1, *usual))[1:], classes), usual  # type: ignore[arg-type]


def _from_file(path: Path, shape: Shape | None, classes: int | None) -> tuple[Module, Shape]:
    """A network whose weights are in a file that `tinytorch train` wrote; its name stands there."""
    from tinytorch import models
    from tinytorch.io.checkpoint import load_arrays
    from tinytorch.io.run import Run

    arrays, metadata = load_arrays(path)
    if "model" not in metadata:
        raise ValueError(f"{path} does not say which network its arrays belong to; give a network by name, or a run")
    if classes is None and (path.parent / "config.json").is_file():
        config = Run.open(path.parent).config
        return config.build_model(), config.input_shape
    usual = models.usual_shape(metadata["model"])
    create = partial(models.create, metadata["model"], (shape or (1, *usual))[1:])  # type: ignore[arg-type]
    *_, (last, _) = create(1).named_parameters()
    model = create(classes or len(arrays.get(last, (None,))))
    model.load_state_dict(arrays)
    return model, usual


# ---- two models -----------------------------------------------------------------------------------------------------


def _show_difference(name: str, a: Summary, other: str, b: Summary, json: bool) -> None:
    from rich.table import Table

    from tinytorch.cli import console as out

    if json:
        out.print_json({name: a.to_dict(), other: b.to_dict()})
        return
    table = Table("", name, other, "ratio", box=None, header_style="dim", padding=(0, 2))
    for column in table.columns[1:]:
        column.justify = "right"
    for title, left, right in _totals(a, b):
        ratio = f"{right / left:.3f}×" if left else "–"
        table.add_row(title, f"{left:,.0f}", f"{right:,.0f}", ratio)
    console = out.console()
    console.print(table)
    for here, rows, there in ((name, _only(a, b), other), (other, _only(b, a), name)):
        console.print(f"\n[bold]{here}[/] has {len(rows)} layers with parameters or MACs that {there} has not")
        for row in rows[:20]:
            console.print(f"  {row}", markup=False)
        if len(rows) > 20:
            console.print(f"  … and {len(rows) - 20} more")


def _totals(a: Summary, b: Summary) -> list[tuple[str, float, float]]:
    figures = {
        "parameters": lambda s: s.parameters,
        "parameters and buffers, bytes": lambda s: s.parameter_bytes,
        "MACs": lambda s: s.macs.number,
        "multiplications executed": lambda s: s.multiplies.number,
        "kept for the backward, bytes": lambda s: s.kept.number,
        "memory of inference, bytes": lambda s: s.inference_memory.number,
        "memory of training, bytes": lambda s: s.training_memory.number,
    }
    return [(title, figure(a), figure(b)) for title, figure in figures.items()]


def _only(a: Summary, b: Summary) -> list[str]:
    """Layers of ``a`` that ``b`` does not have with the same path, kind, output, parameters and MACs."""

    def lines(s: Summary) -> list[str]:
        return [
            f"{row.name or s.kind}: {row.kind}, {' '.join('×'.join(map(str, x)) for x in row.output_shapes)}, "
            f"{row.parameters:,} parameters, {row.macs.number:,.0f} MACs"
            for row in s.rows
            if row.parameters or row.macs.value
        ]

    there = set(lines(b))
    return [line for line in lines(a) if line not in there]
