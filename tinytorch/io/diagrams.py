"""Pictures of windows, borders and channels as grids of squares, drawn from what the library computes with.

A picture is laid out in units of one square, rows downwards. Every square is a rectangle whose group id says what it
is: "input", "padding", "output", "tap 0" and "output 0" for the first window that is shown, and so on. Matplotlib is
imported only when something is drawn, and without a window.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.conv.problem import Axis, ConvProblem
from tinytorch.io.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = tuple[int, int]  # row and column
Plane = tuple[Axis, Axis]
Kind = tuple[str, str]  # of a square: its group id, which is its name in the legend, and its colour

# Okabe and Ito's palette, which colour-blind readers can tell apart; pale shades are for what is not pointed at.
_WINDOWS = ("#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#56B4E9")
_PADDING = {"zeros": "#E4E4E4", "reflect": "#EBD3E2", "replicate": "#D3EBDD", "circular": "#F6E3BD"}
_INPUT, _OUTPUT, _IMAGE = ("input", "#CFE3F2"), ("output", "#F3E9D2"), ("image", "#333333")
_ZEROS, _CUT, _BEYOND = ("padding", _PADDING["zeros"]), ("cut off by padding", "#EDEDED"), ("beyond", "#FFFFFF")


# ---- windows --------------------------------------------------------------------------------------------------------


def gather(axes: Sequence[Axis], windows: Collection[Cell] | None = None, padding_mode: str = "zeros") -> Figure:
    """What a convolution or a pooling does: each output pixel is made of the pixels under one window.

    Parameters
    ----------
    axes : sequence of Axis
        One or two, such as `ConvProblem.axes`.
    windows : collection of (row, column), optional
        Windows that are coloured, with the output pixels that they make; by default the first and the last.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds, for its shade and its name.

    Raises
    ------
    ValueError
        If there are more than two axes, a window is none of theirs, or the mode is unknown.
    """
    if padding_mode not in _PADDING:
        raise ValueError(
            f"padding_mode must be one of {list(_PADDING)}, got {padding_mode!r}; 'zeros' is the usual one"
        )
    ring = f"padding, {padding_mode}", _PADDING[padding_mode]
    plane = _plane(axes)
    canvas, chosen = _Canvas(), _chosen(plane, windows)
    _draw_slid(canvas, plane, chosen, 0, _INPUT, ring)
    _draw_arrow(canvas, plane, plane[1].padded, "gathers")
    _draw_made(canvas, plane, chosen, plane[1].padded + _GAP, _OUTPUT)
    return canvas.figure([_INPUT, ring] if _has_ring(plane) else [_INPUT])


def scatter(axes: Sequence[Axis], windows: Collection[Cell] | None = None) -> Figure:
    """What a transposed convolution does: each input pixel is spread over the output pixels under one window.

    Parameters
    ----------
    axes : sequence of Axis
        Those of the convolution that it is transposed to, `ConvProblem.transposed(…)[0].axes`.
    windows : collection of (row, column), optional
        Input pixels that are coloured, with the output pixels that they are spread over; by default the first and the
        last.

    Raises
    ------
    ValueError
        As for `gather`.
    """
    plane = _plane(axes)
    canvas, chosen = _Canvas(), _chosen(plane, windows)
    _draw_made(canvas, plane, chosen, 0, _INPUT)
    _draw_arrow(canvas, plane, plane[1].out, "scatters")
    _draw_slid(canvas, plane, chosen, plane[1].out + _GAP, _OUTPUT, _CUT)
    return canvas.figure([_INPUT, _OUTPUT, _CUT] if _has_ring(plane) else [_INPUT, _OUTPUT])


def strips(lines: Mapping[str, Axis], windows: Mapping[str, int] | None = None) -> Figure:
    """All windows over a line of pixels, for several lines one below the other.

    Parameters
    ----------
    lines : mapping of str to Axis
        By the name that is written beside them.
    windows : mapping of str to int, optional
        Windows of those lines that have another number of them than fit, as a pooling's with ``ceil_mode``.

    Raises
    ------
    ValueError
        If there is no line, or one of `windows` is not among them.
    """
    _check_any("lines", lines)
    counts = dict(windows or {})
    if unknown := sorted(set(counts) - set(lines)):
        raise ValueError(f"windows must be for lines that are drawn, got {unknown}; the lines are {list(lines)}")
    canvas = _Canvas()
    top, left = 0.0, -max(axis.before for axis in lines.values())
    for name, axis in lines.items():
        canvas.text(top + 0.5, left - 0.4, name, align="right")
        top = _draw_strip(canvas, axis, counts.get(name, axis.out), top) + 0.9
    kinds = [_INPUT]
    if any(axis.padded > axis.size for axis in lines.values()):
        kinds.append(_ZEROS)
    if any(count > lines[name].out for name, count in counts.items()):
        kinds.append(_BEYOND)
    return canvas.figure(kinds)


_GAP = 5  # squares between two grids, where the arrow is


def _plane(axes: Sequence[Axis]) -> Plane:
    """Two axes, of which a line has one of a single pixel."""
    if len(axes) not in (1, 2):
        raise ValueError(f"axes must be one or two, which a page has room for, got {len(axes)}; leave the depth out")
    rows, columns = (Axis(1, 1), *axes)[-2:]
    return rows, columns


def _chosen(plane: Plane, windows: Collection[Cell] | None) -> list[Cell]:
    outs = [axis.out for axis in plane]
    if windows is None:
        windows = {(0, 0): None, (outs[0] - 1, outs[1] - 1): None}
    for window in windows:
        if len(window) != 2 or not all(0 <= place < out for place, out in zip(window, outs, strict=True)):
            raise ValueError(
                f"windows must be (row, column) of a window, less than {tuple(outs)}, got {window}; they count from 0"
            )
    return list(windows)


def _taps(plane: Plane, window: Cell) -> Iterator[Cell]:
    """Rows and columns under a window's taps, in the padded input."""
    lines = [_line(axis, place) for axis, place in zip(plane, window, strict=True)]
    yield from product(*lines)  # type: ignore[misc]


def _line(axis: Axis, window: int) -> range:
    start = window * axis.stride
    return range(start, start + axis.extent, axis.dilation)


def _has_ring(plane: Plane) -> bool:
    return any(axis.padded > axis.size for axis in plane)


def _draw_slid(canvas: _Canvas, plane: Plane, chosen: list[Cell], left: float, body: Kind, ring: Kind) -> None:
    """The grid that windows slide over, its ring, and the chosen windows' taps and outlines."""
    rows, columns = plane
    taps = [set(_taps(plane, window)) for window in chosen]
    for row, column in np.ndindex(rows.padded, columns.padded):
        inside = _is_inside(rows, row) and _is_inside(columns, column)
        canvas.square(row, left + column, body if inside else ring)
        sharing = [i for i, cells in enumerate(taps) if (row, column) in cells]
        for part, i in enumerate(sharing):  # windows that meet in a pixel share its square
            share = 1 / len(sharing)
            canvas.square(row, left + column + part * share, _coloured("tap", i, pale=not inside), share)
    for i, window in enumerate(chosen):
        row, column = (place * axis.stride for place, axis in zip(window, plane, strict=True))
        canvas.outline(row, left + column, rows.extent, columns.extent, _coloured("window", i))
    canvas.outline(rows.before, left + columns.before, rows.size, columns.size, _IMAGE)
    caption = f"{body[0]} {_sizes(axis.size for axis in _shown(plane))}"
    canvas.text(rows.padded + 0.6, left + columns.padded / 2, caption)


def _draw_made(canvas: _Canvas, plane: Plane, chosen: list[Cell], left: float, body: Kind) -> None:
    """The grid with a pixel for each window, beside the middle of the other."""
    rows, columns = plane
    top = (rows.padded - rows.out) / 2
    for row, column in np.ndindex(rows.out, columns.out):
        canvas.square(top + row, left + column, body)
    for i, (row, column) in enumerate(chosen):
        canvas.square(top + row, left + column, _coloured(body[0], i))
    caption = f"{body[0]} {_sizes(axis.out for axis in _shown(plane))}"
    canvas.text(top + rows.out + 0.6, left + columns.out / 2, caption)


def _draw_arrow(canvas: _Canvas, plane: Plane, left: float, verb: str) -> None:
    middle, centre = plane[0].padded / 2, left + _GAP / 2
    canvas.arrow(middle, left + 0.7, left + _GAP - 0.7)
    canvas.text(middle - 0.5, centre, verb)
    canvas.text(middle + 0.5, centre, "\n".join(_settings(plane)), below=True)


def _settings(plane: Plane) -> Iterator[str]:
    """The kernel, and what is not 1."""
    shown = _shown(plane)
    yield f"kernel {_sizes(axis.kernel for axis in shown)}"
    for name in ("stride", "dilation"):
        values = [getattr(axis, name) for axis in shown]
        if max(values) > 1:
            yield f"{name} {values[0] if len(set(values)) == 1 else _sizes(values)}"


def _sizes(numbers: Iterator[int] | Sequence[int]) -> str:
    return " × ".join(map(str, numbers))


def _shown(plane: Plane) -> Sequence[Axis]:
    """Without the axis that a line has got."""
    return plane if plane[0] != Axis(1, 1) else plane[1:]


def _is_inside(axis: Axis, place: int) -> bool:
    return axis.before <= place < axis.before + axis.size


def _draw_strip(canvas: _Canvas, axis: Axis, count: int, top: float) -> float:
    """One line, and its windows below in as few rows as they need; returns where it ends."""
    end = max(axis.padded, (count - 1) * axis.stride + axis.extent)
    for place in range(end):
        inside = _is_inside(axis, place)
        kind = _INPUT if inside else _ZEROS if place < axis.padded else _BEYOND
        canvas.square(top, place - axis.before, kind, text=str(place - axis.before + 1) if inside else "")
    depth = min(count, -(-axis.extent // axis.stride))
    for i in range(count):
        row = top + 1.2 + i % depth * 0.5
        for place in _line(axis, i):
            canvas.square(row, place - axis.before, _coloured("tap", i), height=0.4)
    canvas.text(top + 0.5, end - axis.before + 0.4, f"{count} output{'s' * (count != 1)}", align="left")
    return top + 1.2 + depth * 0.5


# ---- channels -------------------------------------------------------------------------------------------------------


def channels(problems: Mapping[str, ConvProblem]) -> Figure:
    """Which input channels each output channel is made of: channels as bars, groups as colours.

    Parameters
    ----------
    problems : mapping of str to ConvProblem
        By the name that is written below.

    Raises
    ------
    ValueError
        If there is none.
    """
    _check_any("problems", problems)
    canvas = _Canvas()
    height, left = max(max(p.ci, p.co) for p in problems.values()), 0.0
    for name, problem in problems.items():
        _draw_channels(canvas, problem, height, left)
        for word, centre in (("input", 0.75), ("output", 5.25)):
            canvas.text(-0.4, left + centre, word)
        canvas.text(height + 0.6, left + 3, name)
        left += 9
    return canvas.figure([])


def _draw_channels(canvas: _Canvas, problem: ConvProblem, height: int, left: float) -> None:
    group_in, group_out = problem.ci // problem.groups, problem.co // problem.groups
    top_in, top_out = (height - problem.ci) / 2, (height - problem.co) / 2
    for name, count, of_group, top, x in (
        ("input", problem.ci, group_in, top_in, left),
        ("output", problem.co, group_out, top_out, left + 4.5),
    ):
        for i in range(count):
            canvas.square(top + i + 0.1, x, _coloured(name, i // of_group), 1.5, 0.8)
    for o, i in product(range(problem.co), range(problem.ci)):
        if o // group_out == i // group_in:
            ends = top_in + i + 0.5, top_out + o + 0.5
            colour = _coloured("link", o // group_out)[1]
            canvas.line(ends, (left + 1.5, left + 4.5), (f"link {i} {o}", colour))


# ---- numbers --------------------------------------------------------------------------------------------------------


def sheets(images: Mapping[str, np.ndarray], widths: Sequence[int] = (0, 0, 0, 0), columns: int = 4) -> Figure:
    """Images as their numbers, the larger the darker.

    Parameters
    ----------
    images : mapping of str to array, shape (H, W)
        By the name that is written below.
    widths : (left, right, top, bottom)
        Pixels of each image that are a border, in the order of `pad`.
    columns : int
        Images side by side.

    Raises
    ------
    ValueError
        If there is no image.
    """
    _check_any("images", images)
    canvas = _Canvas()
    low, high = min(map(np.min, images.values())), max(map(np.max, images.values()))
    top = 0.0
    items = list(images.items())
    for start in range(0, len(items), columns):
        row = items[start : start + columns]
        left, height = 0.0, max(len(image) for _, image in row)
        for name, image in row:
            drop = (height - len(image)) / 2
            wide = max(image.shape[1], _WIDTH * len(name))
            _draw_sheet(canvas, image, widths, top + drop, left + (wide - image.shape[1]) / 2, (low, high))
            canvas.text(top + height + 0.6, left + wide / 2, name)
            left += wide + 1.5
        top += height + 2
    return canvas.figure([])


_WIDTH = 0.26  # of a letter, in squares


def _draw_sheet(
    canvas: _Canvas,
    image: np.ndarray,
    widths: Sequence[int],
    top: float,
    left: float,
    limits: tuple[float, float],
) -> None:
    before, after, above, below = widths
    rows = Axis(image.shape[0] - above - below, 1, 1, above, below)
    columns = Axis(image.shape[1] - before - after, 1, 1, before, after)
    for (row, column), value in np.ndenumerate(image):
        name = "pixel" if _is_inside(rows, row) and _is_inside(columns, column) else "padding"
        share = (value - limits[0]) / ((limits[1] - limits[0]) or 1)
        canvas.square(top + row, left + column, (name, _mixed(*_SHADES[name], share)), text=_number(value))
    canvas.outline(top + above, left + before, rows.size, columns.size, _IMAGE)


def _number(value: float) -> str:
    """Short: .25 for 0.25."""
    size = f"{abs(value):.2f}".rstrip("0").rstrip(".")
    sign = "−" if value < 0 and size != "0" else ""
    return sign + (size.removeprefix("0") or "0")


_SHADES = {"pixel": ("#F4F9FD", "#7DB7DE"), "padding": ("#F2F2F2", "#C4C4C4")}  # of the smallest and the largest


def _mixed(one: str, other: str, share: float) -> str:
    """A colour with so much of another."""
    parts = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (one, other))
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*parts, strict=True))


def masks(chosen: Mapping[str, np.ndarray], colour: str = _WINDOWS[0], columns: int = 3) -> Figure:
    """Some numbers of a batch: images are rows of blocks, channels its columns, and pixels the squares of a block.

    Parameters
    ----------
    chosen : mapping of str to array of bool, shape (N, C, H, W)
        Numbers that are coloured, by the name that is written below.
    colour : str
    columns : int
        Batches side by side.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    _check_any("chosen", chosen)
    canvas = _Canvas(inches=0.13)
    for place, (name, mask) in enumerate(chosen.items()):
        n, c, h, w = mask.shape
        high, wide = n * (h + 1), c * (w + 1)
        top, left = place // columns * (high + 3), place % columns * (wide + 3)
        for (i, channel, row, column), on in np.ndenumerate(mask):
            square = top + i * (h + 1) + row, left + channel * (w + 1) + column
            canvas.square(*square, ("chosen", colour) if on else _INPUT)
        canvas.text(top + high + 0.6, left + (wide - 1) / 2, name)
    return canvas.figure([])


# ---- paper ----------------------------------------------------------------------------------------------------------


def save(figure: Figure, path: Path | str) -> None:
    """Write a picture as PNG, atomically, cut to what is drawn.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight", pad_inches=0.1, metadata={"Software": None})
    write_atomically(Path(path), buffer.getvalue())


class _Canvas:
    """A page in units of one square, rows downwards, as large as what is drawn."""

    def __init__(self, inches: float = 0.34) -> None:
        from matplotlib.figure import Figure

        self._figure = Figure()
        self._axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._axes.set_axis_off()
        self._inches = inches  # of a square's side
        self._bottom = self._right = self._left = 0.0

    def square(
        self, row: float, column: float, kind: Kind, width: float = 1, height: float = 1, text: str = ""
    ) -> None:
        edge = "#BBBBBB" if kind == _BEYOND else "white"
        hatch = "////" if kind in (_CUT, _BEYOND) else None
        self._rectangle(row, column, height, width, kind[0], facecolor=kind[1], edgecolor=edge, lw=1, hatch=hatch)
        if text:
            self.text(row + height / 2, column + width / 2, text, size=min(9, 33 / len(text)))

    def outline(self, row: float, column: float, height: float, width: float, kind: Kind) -> None:
        dashes = "-" if kind == _IMAGE else "--"
        self._rectangle(row, column, height, width, kind[0], fill=False, edgecolor=kind[1], lw=1.6, ls=dashes, zorder=3)

    def _rectangle(self, row: float, column: float, height: float, width: float, gid: str, **style: Any) -> None:
        from matplotlib.patches import Rectangle

        self._axes.add_patch(Rectangle((column, row), width, height, gid=gid, **style))
        self._bottom, self._right = max(self._bottom, row + height), max(self._right, column + width)
        self._left = min(self._left, column)

    def line(self, rows: tuple[float, float], columns: tuple[float, float], kind: Kind) -> None:
        self._axes.plot(columns, rows, color=kind[1], lw=1, gid=kind[0])

    def arrow(self, row: float, start: float, end: float) -> None:
        self._axes.annotate(
            "", (end, row), (start, row), arrowprops={"arrowstyle": "-|>", "color": "#333333", "lw": 1.5}
        )

    def text(
        self, row: float, column: float, text: str, *, align: str = "center", below: bool = False, size: float = 10
    ) -> None:
        vertical = "top" if below else "center"
        self._axes.text(column, row, text, ha=align, va=vertical, size=size, color="#222222", linespacing=1.4)

    def figure(self, legend: Sequence[Kind]) -> Figure:
        """The page, with the meaning of colours at its foot."""
        foot, column = self._bottom + 1.5, self._left
        for kind in legend:
            self.square(foot, column, kind, 0.7, 0.7)
            self._axes.patches[-1].set_gid("legend")
            self.text(foot + 0.35, column + 1, kind[0], align="left")
            column += 2 + _WIDTH * len(kind[0])
        self._axes.set(xlim=(self._left - 0.1, self._right + 0.1), ylim=(self._bottom + 0.1, -0.1))
        width, height = self._right - self._left + 0.2, self._bottom + 0.2
        self._figure.set_size_inches(width * self._inches, height * self._inches)
        return self._figure


def _coloured(name: str, index: int, pale: bool = False) -> Kind:
    """The kind of square that belongs to a window, or a group of channels."""
    colour = _WINDOWS[index % len(_WINDOWS)]
    return f"{name} {index}", _mixed(colour, "#FFFFFF", 0.5) if pale else colour


def _check_any(name: str, items: Collection[Any]) -> None:
    if not items:
        raise ValueError(f"{name} must hold something to draw, but it is empty; give one at least")
