"""A profile to look at: as a Chrome trace in a file, or one step of it as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tinytorch.analysis.profile import Profile, Span
from tinytorch.io.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart, lighter, for dark letters.
_COLOURS = ("#7FB8D9", "#F0B27F", "#7FCFB9", "#E3B9D0", "#F3D37F", "#ABDAF4", "#CCCCCC")


def save_trace(path: Path | str, profile: Profile) -> None:
    """Write a profile as a Chrome trace, for Perfetto (ui.perfetto.dev) or chrome://tracing.

    Parameters
    ----------
    path : path
        Of the JSON file, written atomically.
    profile : Profile
        Whose `chrome_trace` it is.

    Raises
    ------
    RuntimeError
        If the profile's block has not ended.
    OSError
        If the file can't be written.
    """
    write_atomically(Path(path), json.dumps(profile.chrome_trace(), allow_nan=False).encode())


def timeline(profile: Profile, step: int = -1) -> Figure:
    """Draw one step: time runs to the right, a call is below the call around it, and the backward is at the bottom.

    Parameters
    ----------
    profile : Profile
    step : int
        Which; by default the last.

    Raises
    ------
    IndexError
        If there is no such step.
    RuntimeError
        If the profile's block has not ended.
    """
    whole, *spans = profile.step(step).spans
    from matplotlib.figure import Figure

    kinds = dict.fromkeys(span.layer.kind for span in spans)
    colours = {kind: _COLOURS[number % len(_COLOURS)] for number, kind in enumerate(kinds)}
    lanes = 2 + max((span.layer.depth for span in spans if span.way == "forward"), default=0)
    lasting = (whole.end - whole.start) / 1e6
    figure = Figure(figsize=(12, 1.6 + 0.4 * lanes), layout="constrained")
    axes = figure.subplots()
    for span in spans:
        _bar(axes, span, whole, lanes - 1 if span.way == "backward" else span.layer.depth, colours[span.layer.kind])
    for kind, colour in colours.items():
        axes.plot([], "s", color=colour, markersize=8, label=kind)
    figure.legend(loc="outside upper center", ncols=8, frameon=False)
    axes.set(xlim=(0, max(lasting, 1e-6)), xlabel="ms", ylim=(lanes - 0.4, -0.6))
    axes.set_yticks([(lanes - 2) / 2, lanes - 1], ["forward", "backward"])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(left=False)
    return figure


def _bar(axes: Axes, span: Span, whole: Span, lane: int, colour: str) -> None:
    """One span, and its name where there is room for it."""
    begun, lasting = (span.start - whole.start) / 1e6, (span.end - span.start) / 1e6
    axes.barh(lane, lasting, 0.9, begun, color=colour, edgecolor="white", linewidth=0.5)
    if lasting > 0.011 * len(_label(span)) * (whole.end - whole.start) / 1e6:
        axes.text(begun + lasting / 2, lane, _label(span), ha="center", va="center", fontsize=9)


def _label(span: Span) -> str:
    return span.layer.path.rsplit(".", 1)[-1] or span.layer.kind
