"""Pictures of a training run as PNG files: curves, confusions, mistakes.

Matplotlib is imported only when something is drawn, and without a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.io.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tinytorch.core.lr_finder import LRSearch

History = Sequence[Mapping[str, Any]]

# Okabe and Ito's palette, which colour-blind readers can tell apart; without yellow, too faint for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}


def draw_curves(path: Path | str, history: History, title: str, judged: str = "test") -> None:
    """Draw loss and accuracy of one run, in training and of the images that epochs are judged by.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    history : sequence of dict
        As in `Trainer.history`; at least one epoch.
    title : str
    judged : str
        What the legend calls those images.

    Raises
    ------
    ValueError
        If the history is empty.
    OSError
        If the file can't be written.
    """
    draw_comparison(path, {"": history}, title, judged)


def draw_comparison(path: Path | str, histories: Mapping[str, History], title: str, judged: str = "test") -> None:
    """Draw loss and accuracy of several runs in one picture: a colour a run, test solid, training dashed.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    histories : mapping of str to history
        By the name that the legend shows.
    title : str
    judged : str
        As in `draw_curves`.

    Raises
    ------
    ValueError
        If a history is empty.
    OSError
        If the file can't be written.
    """
    empty = [name for name, history in histories.items() if not history]
    if empty or not histories:
        raise ValueError(f"histories must have an epoch to draw, but {empty} are empty; train for one at least")
    _write(path, _compose, histories, title, judged)


def _write(path: Path | str, compose: Callable[..., Figure], *what: Any) -> None:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        write_atomically(Path(path), _render(compose(*what)))


def _compose(histories: Mapping[str, History], title: str, judged: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    for axes, quantity, unit, scale in ((left, "loss", "nats per image", 1), (right, "accuracy", "%", 100)):
        axes.set(xlabel="epoch", ylabel=f"{quantity} ({unit})")
        axes.xaxis.get_major_locator().set_params(integer=True)
        for colour, (name, history) in zip(_colours(len(histories)), histories.items(), strict=True):
            for key, part, style in ((quantity, "training", _DASHED), (f"validation_{quantity}", judged, _SOLID)):
                values = [scale * record[key] for record in history]
                epochs = [record["epoch"] for record in history]
                axes.plot(
                    epochs, values, color=colour, marker="o", markersize=4, label=f"{name} {part}".strip(), **style
                )
        axes.legend()
    left.set_ylim(bottom=0)
    return figure


def _colours(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


_DASHED: dict[str, Any] = {"linestyle": "--", "alpha": 0.55}
_SOLID: dict[str, Any] = {"linestyle": "-"}


# ---- the search for a learning rate ----------------------------------------------------------------------------------


def draw_lr_search(path: Path | str, search: LRSearch, title: str) -> None:
    """Draw the smoothed loss over the learning rate, and the rate that is suggested.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    search : LRSearch
    title : str

    Raises
    ------
    OSError
        If the file can't be written.
    """
    _write(path, _compose_search, search, title)


def _compose_search(search: LRSearch, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(search.lrs, search.losses, color=_COLOURS[0])
    axes.axvline(search.suggestion, color=_COLOURS[1], linestyle="--", label=f"suggestion: {search.suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed (nats per image)", title=title)
    axes.set_ylim(0, 1.5 * max(search.losses[0], min(search.losses)))
    axes.legend()
    return figure


# ---- what is taken for what ------------------------------------------------------------------------------------------

_NUMBERED = 20  # classes; of more, neither counts nor names can be read


def draw_confusion(path: Path | str, matrix: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Draw a confusion matrix: a row for each true class, shaded by the share of its images, with their numbers.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    matrix : ndarray of int, shape (classes, classes)
        As from `tinytorch.core.training.confusion_matrix`.
    classes : sequence of str
    title : str

    Raises
    ------
    ValueError
        If the matrix does not have a row and a column for each class.
    OSError
        If the file can't be written.
    """
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"matrix must be {len(classes)}×{len(classes)}, a row a class, got shape {matrix.shape}")
    _write(path, _compose_confusion, matrix, classes, title)


def _compose_confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    from matplotlib.figure import Figure

    side = 3.5 + 0.45 * min(len(classes), _NUMBERED)
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(shown, label="share of the true class (%)", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.grid(False)
    if len(classes) <= _NUMBERED:
        _letter(axes, matrix, shares, classes)
    return figure


def _letter(axes: Axes, matrix: np.ndarray, shares: np.ndarray, classes: Sequence[str]) -> None:
    """Class names along both sides, and the counts that are not 0."""
    names = [_plain(name) for name in classes]
    long = max(map(len, names)) > 2
    axes.set_xticks(range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(names)), names)
    size = 12 if matrix.max() < 1000 else 8
    for i, j in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{matrix[i, j]:,}", size=size, ha="center", va="center", color=colour)


def _plain(name: str) -> str:
    """A class's name, short, and with no dollar that matplotlib would take for a formula."""
    return (name if len(name) <= 16 else name[:15] + "…").replace("$", r"\$")


_COLUMNS, _ROW = 8, 1.35  # images side by side; height of a row with its two lines of text, in images


def draw_mistakes(
    path: Path | str,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    title: str,
) -> None:
    """Draw images that are taken for something else, each with what it is and what it is taken for.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    images : ndarray of uint8, shape (N, 1 or 3, H, W)
        A page has room for some two dozen.
    labels : ndarray of int, shape (N,)
        What they are.
    probabilities : ndarray, shape (N, classes)
        What the network takes them for.
    classes : sequence of str
    title : str

    Raises
    ------
    ValueError
        If there is no image, or they have neither 1 nor 3 channels.
    OSError
        If the file can't be written.
    """
    if not len(images) or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be one at least, of 1 or 3 channels, got shape {images.shape}")
    _write(path, _compose_mistakes, images, labels, probabilities, classes, title)


def _compose_mistakes(
    images: np.ndarray, labels: Any, probabilities: Any, classes: Sequence[str], title: str
) -> Figure:
    from matplotlib.figure import Figure

    columns = max(min(_COLUMNS, len(images)), 3)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.6 * _ROW * rows + 0.5), dpi=120, layout="constrained")
    axes = figure.subplots()  # one for all images: each of its own takes as long to draw as they do together
    axes.axis("off")
    for i, (image, label, row) in enumerate(zip(images, labels, probabilities, strict=True)):
        left, top = i % columns, i // columns * _ROW
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=_place(left, top, *image.shape[1:]))
        taken_for = f"as {_plain(classes[row.argmax()])}, {100 * row.max():.0f} %"
        axes.text(left + 0.5, top + 0.33, f"{_plain(classes[label])}\n{taken_for}", size=8, ha="center", va="bottom")
    axes.set(xlim=(0, columns), ylim=(rows * _ROW, 0), aspect="equal", title=title)
    return figure


def _place(left: float, top: float, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of an image below its text."""
    drawn_height, drawn_width = (0.94 * side / max(height, width) for side in (height, width))
    x, y = left + 0.5, top + _ROW - 0.97
    return x - drawn_width / 2, x + drawn_width / 2, y + drawn_height, y


def _render(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
