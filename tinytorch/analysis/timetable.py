"""A profile as a table of text, as wide as it may be: a narrow one has fewer columns, none is broken over lines."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tinytorch.analysis.columns import GAP, cut, grid
from tinytorch.analysis.figures import short

if TYPE_CHECKING:
    from tinytorch.analysis.profile import Profile, Row, Work
    from tinytorch.analysis.roofline import Machine


def timetable(profile: Profile, width: int | None, sort: str, depth: int | None, machine: Machine | None) -> str:
    """`Profile.table`."""
    if sort not in ("calls", "time"):
        raise ValueError(f"sort must be 'calls' or 'time', got {sort!r}; 'time' lists the most expensive layer first")
    width = width or shutil.get_terminal_size((160, 24)).columns
    rows = _tree(profile, depth) if sort == "calls" else _ranking(profile)
    paragraphs = [_head(profile), _legend(profile, sort, machine)]
    head, legend = (textwrap.fill(text, width) for text in paragraphs)
    fitting = _fitting(_columns(profile, machine), rows, width)
    table = "\n".join(grid(((column.left, texts) for column, texts in fitting), titles=2))
    return "\n\n".join([head, table, legend])


def _tree(profile: Profile, depth: int | None) -> list[Row]:
    rows = [row for row in profile.rows if depth is None or row.depth <= depth]
    return [replace(row, name="  " * row.depth + row.name) for row in rows]


def _ranking(profile: Profile) -> list[Row]:
    alone = [
        replace(row, name=row.path or row.name, forward=row.own_forward, backward=row.own_backward)
        for row in profile.rows
    ]
    return sorted(alone, key=lambda row: -row.ns)


def _head(profile: Profile) -> str:
    milliseconds = _milliseconds(profile)
    steps = len(profile.counted)
    outside = profile.rows[-1].own_ns
    forward = sum(row.own_forward.ns for row in profile.rows[:-1]) - profile.waited
    backward = profile.ns - forward - outside - profile.waited
    parts = {"forward": forward, "backward": backward, "outside the model": outside}
    parts |= {"waiting for data": profile.waited} if profile.waited else {}
    times = ", ".join(f"{name} {milliseconds(ns)}" for name, ns in parts.items())
    head = f"{profile.kind}, {steps} step{'s' * (steps > 1)} of {milliseconds(profile.ns)} ms ({times})"
    head += f", {profile.threads} thread{'s' * (profile.threads > 1)}."
    if profile.first_apart:
        head += f" A first step of {profile.steps[0] / 1e6:,.1f} ms does not count: it compiles and plans."
    return head


def _legend(profile: Profile, sort: str, machine: Machine | None) -> str:
    within = {
        "calls": "A layer's numbers include those of the layers within it; outermost rows add up to the step.",
        "time": "Every layer without the layers within it; the rows add up to the step.",
    }
    rates = "GFLOP/s at 2 FLOP for a multiply-accumulate of the definition, GB/s with operands and results once each."
    only_first = len(profile.steps) == 1 and not profile.spans[0].start
    alone = " A first step may include compilation: profile several." if only_first else ""
    peak = f" The peak is {short(machine.flops, 'FLOP/s')}, measured." if machine else ""
    return f"{within[sort]} {rates}{peak}{alone}"


def _milliseconds(profile: Profile) -> Callable[[int], str]:
    """Mean of a step as text, all with as many digits: four of the whole step."""
    steps = max(len(profile.counted), 1)
    digits = max(1, 4 - len(str(profile.ns // steps // 1_000_000)))
    return lambda ns: f"{ns / steps / 1e6:,.{digits}f}"


# ---- columns --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """Two lines of a title, the text of a row, and how much wider than others the table has to be for it."""

    above: str
    title: str
    text: Callable[[Row], str]
    rank: int
    left: bool = False


def _columns(profile: Profile, machine: Machine | None) -> list[_Column]:
    milliseconds = _milliseconds(profile)
    steps, total = max(len(profile.counted), 1), max(profile.ns, 1)
    return [
        _Column("", "layer", lambda row: row.name, 0, left=True),
        _Column("", "kind", lambda row: row.kind, 10, left=True),
        _Column("computed in the", "same pass", lambda row: ", ".join(row.parts), 5, left=True),
        _Column("", "output", lambda row: " ".join("×".join(map(str, shape)) for shape in row.outputs), 7, left=True),
        _Column("", "calls", lambda row: f"{row.calls / steps:g}" if row.calls else "", 11),
        _Column("forward", "MACs", lambda row: short(row.forward.macs / steps) if row.forward.macs else "–", 9),
        _Column("", "share", lambda row: f"{100 * row.ns / total:.1f} %", 0),
        _Column("forward", "ms", lambda row: milliseconds(row.forward.ns), 0),
        _Column("", "GFLOP/s", lambda row: _number(row.forward.gflops), 3),
        _Column("", "of peak", lambda row: _of_peak(row.forward, machine), 4),
        _Column("", "GB/s", lambda row: _number(row.forward.gbytes), 6),
        _Column("", "algorithm", lambda row: ", ".join(row.algorithms), 8, left=True),
        _Column("backward", "ms", lambda row: milliseconds(row.backward.ns), 0),
        _Column("", "GFLOP/s", lambda row: _number(row.backward.gflops), 3),
        _Column("", "of peak", lambda row: _of_peak(row.backward, machine), 4),
        _Column("", "GB/s", lambda row: _number(row.backward.gbytes), 6),
        _Column("", "algorithms", lambda row: ", ".join(row.backward_algorithms), 8, left=True),
    ]


def _of_peak(work: Work, machine: Machine | None) -> str:
    return f"{1e11 * work.gflops / machine.flops:.0f} %" if machine and work.gflops else "–"


def _number(value: float | None) -> str:
    return f"{value:,.1f}" if value else "–"


def _fitting(columns: Sequence[_Column], rows: Sequence[Row], width: int) -> list[tuple[_Column, list[str]]]:
    """Columns with their cells, titles first: those that something is in, as many as fit side by side."""
    cells = {column: [column.above, column.title, *map(column.text, rows)] for column in columns}
    cells = {c: texts for c, texts in cells.items() if c.rank == 0 or any(text.strip("–") for text in texts[2:])}
    taken, chosen = -len(GAP), set()
    for rank in sorted({column.rank for column in cells}):
        together = [column for column in cells if column.rank == rank]
        needed = sum(_wide(cells[column]) for column in together)
        if rank == 0 or taken + needed <= width:
            taken += needed
            chosen.update(together)
    names = cells[columns[0]]
    room = max(_wide(names) - len(GAP) - max(0, taken - width), 8)
    cells[columns[0]] = [cut(name, room) for name in names]
    return [(column, texts) for column, texts in cells.items() if column in chosen]


def _wide(texts: Sequence[str]) -> int:
    return max(map(len, texts)) + len(GAP)
