"""A receptive field, drawn on the image and beside what the gradient makes of it, in a PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinytorch.analysis.receptive_field import Effective, Field
from tinytorch.io.files import write_atomically
from tinytorch.io.plots import _render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOX, _BEYOND = "#D55E00", "#0072B2"
_MOST_BEYOND = 1.0  # image sides that are drawn of a field beyond the image, at most


def draw_field(path: Path | str, image: np.ndarray, found: Effective, title: str) -> None:
    """Draw the field of a layer's middle output: on the left by arithmetic, on the image; on the right by the gradient.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    image : ndarray of uint8, shape (C, H, W)
        With 1 or 3 channels; of any other number, the mean is drawn.
    found : Effective
        Of images of this size.
    title : str

    Raises
    ------
    ValueError
        If the image has another size, or the file is not to be a PNG.
    OSError
        If the file can't be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path}; the picture is a PNG")
    if image.ndim != 3 or image.shape[1:] != found.strength.shape:
        raise ValueError(f"image must be (channels, {_by(found.strength.shape)}), got shape {image.shape}; scale it")
    import matplotlib

    with matplotlib.rc_context({"font.size": 10, "axes.titlesize": 11}):
        write_atomically(Path(path), _render(_compose(image, found, title)))


def _by(numbers: tuple[int, ...]) -> str:
    return " × ".join(map(str, numbers))


def _compose(image: np.ndarray, found: Effective, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    left.imshow(_drawable(image), interpolation="nearest", alpha=0.55)
    _draw_beyond(left, found.field)
    strength = found.strength / (found.strength.max() or 1)
    heat = right.imshow(strength, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(heat, ax=right, shrink=0.8, label="|∂y/∂x|, largest = 1")
    for axes in (left, right):
        _draw_box(axes, found.field)
        axes.set(xlabel="column (pixels)", ylabel="row (pixels)")
    left.set_title(f"what the middle output can see\n{_in_words(found.field)}")
    right.set_title(f"what moves it: gradient, {found.of}\n{found.size:.0f} pixels a side above 4.55 % of the largest")
    return figure


def _drawable(image: np.ndarray) -> np.ndarray:
    """As matplotlib takes it: (height, width, 3)."""
    colours = image if len(image) == 3 else np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0)
    return np.moveaxis(colours, 0, -1).astype(np.uint8)


def _in_words(field: Field) -> str:
    if field.box is None:
        return "nothing: it lies in a gap"
    rows, columns = (f"{first}–{last}" for first, last in field.box)
    stride = "" if field.whole else f", stride {'×'.join(map(str, field.stride))}"
    return f"{field}{stride}: rows {rows}, columns {columns}"


def _draw_box(axes: Axes, field: Field) -> None:
    """The pixels of the image that the output sees, and the centre of its field."""
    if field.box is not None:
        _draw_rectangle(axes, *field.box, edgecolor=_BOX, linewidth=2)  # type: ignore[misc]
        axes.plot(*field.centre[::-1], "+", color=_BOX, markersize=9)  # type: ignore[misc]


def _draw_beyond(axes: Axes, field: Field) -> None:
    """The field as if the image went on, if it does not fit in."""
    if not field.exceeds or field.box is None:
        return
    rows, columns = (axis.ends for axis in field.axes)
    _draw_rectangle(axes, rows, columns, edgecolor=_BEYOND, linewidth=1.5, linestyle="--", label="with padding")
    limits = [_seen(ends, axis.pixels) for ends, axis in zip((rows, columns), field.axes, strict=True)]
    axes.set_ylim(*limits[0][::-1])
    axes.set_xlim(*limits[1])
    axes.set_facecolor("#eeeeee")
    axes.legend(loc="lower right")


def _seen(ends: tuple[float, float], pixels: int) -> tuple[float, float]:
    """What part of an axis is drawn."""
    margin = 0.04 * pixels + 1
    first, last = max(ends[0] - margin, -_MOST_BEYOND * pixels), min(ends[1] + margin, (1 + _MOST_BEYOND) * pixels)
    return min(first, -0.5), max(last, pixels - 0.5)


def _draw_rectangle(axes: Axes, rows: tuple[float, float], columns: tuple[float, float], **style: object) -> None:
    """Around pixels from the first to the last, both included."""
    from matplotlib.patches import Rectangle

    size = columns[1] - columns[0] + 1, rows[1] - rows[0] + 1
    axes.add_patch(Rectangle((columns[0] - 0.5, rows[0] - 0.5), *size, fill=False, **style))  # type: ignore[arg-type]
