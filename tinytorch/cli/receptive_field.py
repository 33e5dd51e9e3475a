"""`tinytorch receptive-field`: which pixels a layer can see, and which it does see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    import numpy as np

    from tinytorch.analysis.receptive_field import Effective, Extent, Field
    from tinytorch.analysis.trace import Trace
    from tinytorch.core.layers import Module

Shape = tuple[int, int, int]

# What networks are built for; all others for photographs.
_CLASSES = 10


def receptive_field(
    model: Annotated[str, typer.Argument(help="Name of a network, with fresh weights, or folder of a run.")],
    layer: Annotated[str | None, typer.Option(metavar="PATH", help="One layer, such as layer2.0.conv1.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture; by default an embedded digit.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture to write or replace.")] = Path(
        "receptive-field.png"
    ),
    input: Annotated[str | None, typer.Option(metavar="C,H,W", help="Shape of an image.")] = None,
    samples: Annotated[int, typer.Option(help="Random images to average gradients over, without --image.")] = 8,
    seed: Annotated[int, typer.Option(help="Of random images and fresh weights.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show which pixels of the image a layer can see, and which it does see.

    Without --layer: a table of all layers. With it: a picture of the field of the output in the middle, by arithmetic
    and by the gradient with respect to the image.
    """
    if samples < 1:
        raise ValueError(f"--samples must be a positive integer, got {samples}; 8 is enough for a picture")
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out must end in .png, got {out}; the picture is a PNG")
    if layer is None:
        if image is not None:
            raise ValueError("--image is for one layer, got no --layer; the table of all layers needs no picture")
        _show_all(model, _open(model, input, seed, drawn=False), json)
    else:
        _show_one(_open(model, input, seed, drawn=True), model, layer, image, out, samples, seed, json)


# ---- what is asked about ---------------------------------------------------------------------------------------------


class _Subject(NamedTuple):
    """A network, and the images that it is made for."""

    model: Module
    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    margin: float


def _open(name: str, text: str | None, seed: int, drawn: bool) -> _Subject:
    """A run's network, or a new one; if not drawn, its parameters are anything."""
    from tinytorch.core.random import manual_seed
    from tinytorch.io.run import Run
    from tinytorch.kernels.watch import Watcher, watching
    from tinytorch.models import create, names, usual_shape

    given = None if text is None else _parsed(text)
    if Path(name).is_dir() and name not in names():
        run = Run.open(Path(name))
        shape = given or run.config.input_shape
        return _Subject(run.load_model(), shape, run.config.mean, run.config.std, run.config.recipe.margin)
    shape = given or usual_shape(name)
    watcher = Watcher()
    watcher.rehearsing = not drawn
    manual_seed(seed)
    with watching(watcher):
        built = create(name, shape, _CLASSES)
    return _Subject(built, shape, (0.5,) * shape[0], (0.25,) * shape[0], 0.0)


def _parsed(text: str) -> Shape:
    """C,H,W; a batch in front is left out."""
    try:
        channels, height, width = [int(number) for number in text.split(",")][-3:]
    except ValueError:
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise ValueError(f"--input must be channels, height and width of an image, such as 3,224,224, got {text!r}")
    return channels, height, width


# ---- one layer -------------------------------------------------------------------------------------------------------


def _show_one(
    subject: _Subject, name: str, layer: str, image: Path | None, out: Path, samples: int, seed: int, json: bool
) -> None:
    import numpy as np

    from tinytorch.analysis.receptive_field import check_layer, effective
    from tinytorch.cli import console
    from tinytorch.io.field_plot import draw_field

    check_layer(subject.model, layer)
    pixels = _picture(subject, image)
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (subject.mean, subject.std))
    images = (samples, *subject.shape) if image is None else ((pixels / 255 - mean) / std)[None]
    found = effective(subject.model, layer, images, seed)
    draw_field(out, pixels, found, f"{layer or 'the output'} of {name}, images of {_by(subject.shape[1:])} pixels")
    if json:
        console.print_json({"model": name, "input": subject.shape, **_numbers(found), "picture": str(out)})
        return
    terminal = console.console()
    terminal.print(console.facts(_facts(found)))
    if found.field.warning:
        terminal.print(f"Warning: {found.field.warning}", style="yellow", markup=False)
    terminal.print(f"picture in {out}", markup=False)


def _picture(subject: _Subject, image: Path | None) -> np.ndarray:
    """What the field is drawn on: uint8 (C, H, W)."""
    import numpy as np

    from tinytorch.datasets import digits
    from tinytorch.io.images import load_image

    channels, height, width = subject.shape
    if image is not None:
        return load_image(image, subject.shape, subject.margin)[0]
    digit = digits.read().train_images[0, 0]
    rows, columns = (np.arange(size) * side // size for size, side in zip((height, width), digit.shape, strict=True))
    return np.broadcast_to(digit[np.ix_(rows, columns)], (channels, height, width))


def _facts(found: Effective) -> list[tuple[str, str]]:
    field = found.field
    centre = ", ".join(f"{axis.first_centre:g} … {axis.centre:g}" for axis in field.axes)
    box = "nothing" if field.box is None else " × ".join(f"{first}–{last}" for first, last in field.box)
    return [
        ("field", f"{field} pixels" if not field.whole else str(field)),
        ("stride", f"{_by(field.stride)} pixels" + ("" if _uniform(field) else ", on average: outputs differ")),
        ("centres", f"{centre} (first … middle output; rows, columns)"),
        ("middle output", f"sees {box} (rows × columns)"),
        ("effectively", f"{found.size:.1f} pixels a side, by the gradient, {found.of}"),
    ]


def _uniform(field: Field) -> bool:
    return all(axis.uniform for axis in field.axes)


def _numbers(found: Effective) -> dict[str, Any]:
    return {"layer": found.layer, **_of_field(found.field), "effective_pixels": found.size, "images": found.of}


# ---- all layers ------------------------------------------------------------------------------------------------------


def _show_all(name: str, subject: _Subject, json: bool) -> None:
    from tinytorch.analysis.receptive_field import receptive_fields
    from tinytorch.analysis.trace import trace
    from tinytorch.cli import console

    traced = trace(subject.model, (1, *subject.shape))
    found = receptive_fields(traced)
    if json:
        layers = [
            {"layer": call.path, "kind": call.kind, **_of_field(field)}
            for call, field in zip(traced.calls, found, strict=True)
        ]
        console.print_json({"model": name, "input": subject.shape, "layers": layers})
        return
    terminal = console.console()
    terminal.print(f"[bold]{name}[/], images of {_by(subject.shape[1:])} pixels; fields are height×width in pixels\n")
    terminal.print(_table(traced, found))
    _warn(terminal, traced, found)


def _table(traced: Trace, found: list[Field]) -> Any:
    """A row for every call of a layer that calls no other."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("layer", "kind", "output", "field", "stride", box=None, header_style="dim", padding=(0, 1))
    for column in table.columns[2:]:
        column.justify = "right"
    parents = {call.parent for call in traced.calls}
    for call, field in zip(traced.calls, found, strict=True):
        if call.index not in parents:
            output = _by(traced.shapes(call.outputs)[0][1:]) if call.outputs else ""
            style = "yellow" if field.exceeds else "dim" if field.reason else ""
            size = str(field) + (" !" if field.exceeds else "")
            table.add_row(escape(call.path), call.kind, output, size, _stride(field), style=style)
    return table


def _stride(field: Field) -> str:
    """With a ~ where it is a mean."""
    return "" if field.reason or field.whole else ("" if _uniform(field) else "~") + _by(field.stride)


def _warn(terminal: Any, traced: Trace, found: list[Field]) -> None:
    """Say what is larger than the image, and what is unknown and why: each with the first layer that it is true of."""
    calls = list(zip(traced.calls, found, strict=True))
    parents = {call.parent for call in traced.calls}
    large = [(call, field) for call, field in calls if field.exceeds and call.index not in parents]
    if large:
        call, field = large[0]
        terminal.print(f"\n! from {call.path} on: {field.warning}", style="yellow", markup=False)
    for reason in dict.fromkeys(field.reason for _, field in calls if field.reason):
        path = next(call.path for call, field in reversed(calls) if field.reason == reason)
        terminal.print(f"\nunavailable for {path or 'the output'}: {reason}", style="dim", markup=False)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _by(numbers: Any) -> str:
    return "×".join(map(str, numbers))


def _of_field(field: Field) -> dict[str, Any]:
    if field.reason:
        return {"unavailable": field.reason}
    return {"whole_image": field.whole, "exceeds": field.exceeds, "axes": [_of_axis(axis) for axis in field.axes]}


def _of_axis(axis: Extent) -> dict[str, Any]:
    """JSON knows no fractions, and no NaN."""
    return {
        "image_pixels": axis.pixels,
        "outputs": axis.places,
        "size": axis.size,
        "stride": float(axis.stride),
        "uniform": axis.uniform,
        "first_centre": None if axis.first_centre != axis.first_centre else axis.first_centre,
        "centre": None if axis.centre != axis.centre else axis.centre,
        "box": axis.box,
    }
