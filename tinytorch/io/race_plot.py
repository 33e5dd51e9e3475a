"""The outcome of a race of algorithms as bars, in a PNG file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinytorch.io.files import write_atomically
from tinytorch.io.plots import _STYLE, _render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tinytorch.analysis.race import Entry, Race

_BAR, _CHOSEN, _ESTIMATED = "#56B4E9", "#0072B2", "#BBBBBB"


def draw_race(path: Path | str, races: Sequence[Race], machine: str) -> None:
    """Draw the times of one or several races, each a panel of horizontal bars on a logarithmic axis.

    Parameters
    ----------
    path : path
        Of the PNG, written atomically.
    races : sequence of Race
        Directions of one problem; at least one.
    machine : str
        Where they ran, for the title.

    Raises
    ------
    ValueError
        If there is no race, or the file is not to be a PNG.
    OSError
        If the file can't be written.
    """
    if not races:
        raise ValueError("races must have at least one to draw, got none; run race() first")
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path}; the picture is a PNG")
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        write_atomically(Path(path), _render(_compose(races, machine)))


def _compose(races: Sequence[Race], machine: str) -> Figure:
    from matplotlib.figure import Figure

    heights = [len(race.entries) + 1 for race in races]
    figure = Figure(figsize=(9, 1.4 + 0.42 * sum(heights)), dpi=110, layout="constrained")
    panels = figure.subplots(len(races), 1, squeeze=False, height_ratios=heights)[:, 0]
    figure.suptitle(f"{races[0].problem}\n{races[0].dtype}, {machine}", fontsize=11)
    for race, axes in zip(races, panels, strict=True):
        _draw(axes, race)
    panels[-1].set_xlabel("time of a call, logarithmic; dark: the planner's choice; grey: estimated")
    return figure


def _draw(axes: Axes, race: Race) -> None:
    slowest_first = race.entries[::-1]
    times = [entry.median for entry in slowest_first]
    bars = axes.barh([entry.algorithm for entry in slowest_first], times, height=0.7)
    for bar, entry in zip(bars, slowest_first, strict=True):
        bar.set_color(_colour(race, entry))
    axes.bar_label(bars, [_label(race, entry) for entry in slowest_first], padding=4, fontsize=10)
    axes.set(xscale="log", title=race.direction)
    axes.set_xlim(min(times) / 2, 3 * max(times) * (max(times) / min(times)) ** 0.25)  # room for the labels
    axes.xaxis.set_major_formatter(lambda seconds, _: re.sub(r"\.0+ ", " ", duration(seconds)))
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)


def _colour(race: Race, entry: Entry) -> str:
    return _ESTIMATED if entry.sample else _CHOSEN if entry.algorithm == race.chosen else _BAR


def _label(race: Race, entry: Entry) -> str:
    """Time, and how often it goes into that of the loops."""
    if entry.algorithm == "loops":
        return f"{'≈ ' if entry.sample else ''}{duration(entry.median)}"
    return f"{duration(entry.median)}, {digits(race.speed_up(entry))}×"


def duration(seconds: float) -> str:
    """0.00405 → '4.05 ms'."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 0.9995:
            return f"{digits(seconds * factor)} {unit}"
    return f"{digits(seconds * 1e6)} µs"


def digits(value: float) -> str:
    """Three digits, and all of those before the point: 0.0512, 4.05, 43,622."""
    if not value > 0:
        return "0"
    exponent = math.floor(math.log10(float(f"{value:.2e}")))
    return f"{value:,.{max(0, 2 - exponent)}f}" if exponent >= -3 else f"{value:.1e}"
