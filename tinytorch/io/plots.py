"""Training curves as PNG files. Matplotlib is imported only when something is drawn, and without a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytorch.io.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def draw_curves(path: Path | str, history: History, title: str) -> None:
    """Draw loss and accuracy of one run, training and test, over the epochs.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    history : sequence of dict
        As in `Trainer.history`; at least one epoch.
    title : str

    Raises
    ------
    ValueError
        If the history is empty.
    OSError
        If the file can't be written.
    """
    draw_comparison(path, {"": history}, title)


def draw_comparison(path: Path | str, histories: Mapping[str, History], title: str) -> None:
    """Draw loss and accuracy of several runs in one picture: a colour a run, test solid, training dashed.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    histories : mapping of str to history
        By the name that the legend shows.
    title : str

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
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        write_atomically(Path(path), _render(_compose(histories, title)))


def _compose(histories: Mapping[str, History], title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    for axes, quantity, unit, scale in ((left, "loss", "nats per image", 1), (right, "accuracy", "%", 100)):
        axes.set(xlabel="epoch", ylabel=f"{quantity} ({unit})")
        axes.xaxis.get_major_locator().set_params(integer=True)
        for colour, (name, history) in zip(_colours(len(histories)), histories.items(), strict=True):
            _draw_run(axes, name, history, quantity, scale, colour)
        axes.legend()
    left.set_ylim(bottom=0)
    return figure


def _colours(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _draw_run(axes: Axes, name: str, history: History, quantity: str, scale: float, colour: str) -> None:
    epochs = [record["epoch"] for record in history]
    for key, part, style in ((quantity, "training", "--"), (f"validation_{quantity}", "test", "-")):
        values = [scale * record[key] for record in history]
        label = f"{name} {part}".strip()
        axes.plot(epochs, values, style, color=colour, marker="o", markersize=4, label=label, alpha=_OPACITY[part])


_OPACITY = {"training": 0.55, "test": 1.0}


def _render(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
