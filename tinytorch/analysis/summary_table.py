"""A summary as text: a table as wide as it may be, a page, and the fields of files.

A narrow table has fewer columns; none is broken over lines.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tinytorch.analysis.columns import GAP, cut, grid
from tinytorch.analysis.figures import Figure, short
from tinytorch.analysis.memory import Pass

if TYPE_CHECKING:
    from tinytorch.analysis.summary import Row, Summary

    Cell = Callable[[Summary, Row], str]


@dataclass(frozen=True)
class _Column:
    """A title, the text of a row, and the place in the queue for room: 0 is always there."""

    title: str
    text: Cell
    rank: int
    left: bool = False


def _figure(figure: Figure, unit: str = "", factor: float = 1) -> str:
    """A dash for nothing, a question mark for what is not known, a tilde before an estimate."""
    if figure.value is None:
        return "?"
    if not figure.value:
        return "–"
    return ("~" if figure.status == "estimated" else "") + short(figure.value * factor, unit)


def _parameters(summary: Summary, row: Row) -> str:
    if not row.parameters:
        return "shared" if row.shared else "–"
    return f"{row.parameters:,}" + (" +shared" if row.shared else "")


def _intensity(summary: Summary, row: Row) -> str:
    figure = summary.intensity(row)
    if figure.value is None:
        return "?" if row.macs.value is None else "–"
    return f"{figure.value:.1f}"


def _limit(summary: Summary, row: Row) -> str:
    figure = summary.intensity(row)
    return "" if summary.machine is None or figure.value is None else summary.machine.limit(figure.value)


def _rate(summary: Summary, macs: Figure, seconds: Figure) -> float | None:
    """FLOPs of the definition a second, whatever the algorithm executes."""
    return summary.flops_per_mac * macs.value / seconds.value if macs.value and seconds.value else None


def _gflops(rate: float | None) -> str:
    return "–" if rate is None else f"{rate / 1e9:.1f}"


def _of_peak(summary: Summary, row: Row) -> str:
    rate = _rate(summary, row.macs, row.seconds)
    if rate is None or summary.machine is None:
        return "–"
    return f"{100 * rate * 2 / summary.flops_per_mac / summary.machine.flops:.0f} %"


def _milliseconds(seconds: Figure) -> str:
    return "–" if seconds.value is None else f"{1e3 * seconds.value:.3f}"


def _kept(summary: Summary, row: Row) -> str:
    within = row.kept.reason and row.kept.value == 0
    return "↑" if within else _figure(row.kept, "B")


def _name(summary: Summary, row: Row) -> str:
    """The last part of the path, indented."""
    last = "(itself)" if row.is_own else row.name.rsplit(".", 1)[-1] or summary.kind
    return "  " * row.depth + last


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("×".join(map(str, shape)) or "one number" for shape in shapes) or "–"


_COLUMNS = (
    _Column("layer", _name, 0, left=True),
    _Column("kind", lambda s, row: row.kind if row.path or row.is_own else "", 2, left=True),
    _Column("input", lambda s, row: _shapes(row.input_shapes), 9, left=True),
    _Column("output", lambda s, row: _shapes(row.output_shapes), 0, left=True),
    _Column("parameters", _parameters, 0),
    _Column("MACs", lambda s, row: _figure(row.macs), 0),
    _Column("MACs inside", lambda s, row: _figure(row.macs_inside), 11),
    _Column("multiplies", lambda s, row: _figure(row.multiplies) if row.work else "–", 6),
    _Column("algorithm", lambda s, row: row.algorithm, 5, left=True),
    _Column("FLOP/B", _intensity, 7),
    _Column("limit", _limit, 3, left=True),
    _Column("output bytes", lambda s, row: _figure(Figure(row.output_bytes), "B"), 8),
    _Column("kept", _kept, 4),
    _Column("scratch", lambda s, row: _figure(row.scratch, "B") if row.work else "–", 10),
    _Column("field", lambda s, row: str(row.field) if row.field is not None else "", 3, left=True),
    _Column("ms", lambda s, row: _milliseconds(row.seconds), 1),
    _Column("GFLOP/s", lambda s, row: _gflops(_rate(s, row.macs, row.seconds)), 2),
    _Column("of peak", _of_peak, 2),
    _Column("backward ms", lambda s, row: _milliseconds(row.backward_seconds), 1),
    _Column("GFLOP/s back", lambda s, row: _gflops(_rate(s, row.backward_macs, row.backward_seconds)), 2),
)


def table(summary: Summary, width: int | None, depth: int | None) -> str:
    """`Summary.table`."""
    width = width or shutil.get_terminal_size((160, 24)).columns
    fitting = _fitting(summary, summary.cut(depth), width)
    lines = grid((column.left, texts) for column, texts in fitting.items())
    paragraphs = [_legend(lines[2:]), *_totals(summary), *summary.notes]
    wrapped = (textwrap.fill(text, width, subsequent_indent="  ") for text in paragraphs if text)
    return "\n".join([*lines, "", *wrapped])


_MARKS = {"–": "nothing", "~": "estimated", "?": "not known", "↑": "computed together with a layer above"}


def _legend(lines: Sequence[str]) -> str:
    """What the marks in a table mean."""
    cells = {cell[:1] for line in lines for cell in line.split(GAP)}
    return ", ".join(f"{mark} {meaning}" for mark, meaning in _MARKS.items() if mark in cells)


def _fitting(summary: Summary, rows: Sequence[Row], width: int) -> dict[_Column, list[str]]:
    """Columns with their cells, titles first: those that say something, as many as fit side by side."""
    cells = {column: [column.title, *(column.text(summary, row) for row in rows)] for column in _COLUMNS}
    cells = {c: texts for c, texts in cells.items() if c.rank == 0 or any(text.strip("–?") for text in texts[1:])}
    taken, chosen = -len(GAP), set()
    for column in sorted(cells, key=lambda column: column.rank):  # the first that finds no room leaves it to others
        needed = max(map(len, cells[column])) + len(GAP)
        if column.rank == 0 or taken + needed <= width:
            taken += needed
            chosen.add(column)
    first = _COLUMNS[0]
    room = max(map(len, cells[first])) - max(0, taken - width)
    cells[first] = [cut(name, max(room, 12)) for name in cells[first]]
    return {column: texts for column, texts in cells.items() if column in chosen}


def _totals(summary: Summary) -> Iterator[str]:
    shapes = ", ".join(map(str, summary.input_shapes))
    yield f"{summary.kind}, input {shapes}, {summary.dtype}"
    frozen = summary.parameters - summary.trainable
    buffers = f", and {summary.buffers:,} numbers in buffers" if summary.buffers else ""
    yield (
        f"parameters: {summary.parameters:,}{f', {frozen:,} of them frozen' if frozen else ''}{buffers}; "
        f"{short(summary.parameter_bytes, 'B')} together"
    )
    yield (
        f"forward: {_exactly(summary.macs)} MACs, {_exactly(summary.flops)} FLOPs at {summary.flops_per_mac} for a "
        f"MAC, of convolutions and matrix products; {_exactly(summary.macs_inside)} MACs inside the image, not on "
        f"padding, {_exactly(summary.multiplies)} multiplications executed"
    )
    yield from _memory("inference", summary.inference)
    yield from _memory("training", summary.training)
    if isinstance(summary.training, Pass):
        yield f"kept for the backward: {short(summary.kept.number, 'B')}, packed weights among it"
    if summary.machine is not None:
        peak, bandwidth = short(summary.machine.flops, "FLOP/s"), short(summary.machine.bandwidth, "B/s")
        yield f"this machine, measured: {peak} and {bandwidth}, so {summary.machine.ridge:.1f} FLOP/B at the ridge"


def _exactly(figure: Figure) -> str:
    if figure.value is None:
        return "unavailable"
    return f"{figure.value:,.0f}" if figure.status == "exact" else f"at least {figure.value:,.0f}"


def _memory(name: str, found: Pass | str) -> Iterator[str]:
    if isinstance(found, str):
        return
    peak = found.peak
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])
    named = ", ".join(f"{part} {short(size, 'B')}" for part, size in parts if size >= 0.005 * peak.bytes)
    where = f"{peak.phase} of {peak.path}" if peak.path else peak.phase
    yield (
        f"memory of {name}, estimated: {short(peak.bytes, 'B')} in use at the peak, in the {where} ({named}); "
        f"the process holds about {short(found.held, 'B')}, gaps between arrays among it"
    )


# ---- pages and files ------------------------------------------------------------------------------------------------


def markdown(summary: Summary, depth: int | None) -> str:
    """`Summary.to_markdown`."""
    columns = _fitting(summary, summary.cut(depth), 10_000)
    titles, *lines = zip(*columns.values(), strict=True)
    rules = ["---" if column.left else "---:" for column in columns]
    body = [[text.replace("  ", "&emsp;").replace("|", "\\|") for text in line] for line in lines]
    grid = ["| " + " | ".join(line) + " |" for line in (titles, rules, *body)]
    return "\n".join([*grid, "", *(f"- {text}" for text in (*_totals(summary), *summary.notes)), ""])


def _value(figure: Figure) -> Any:
    return "" if figure.value is None else figure.value


def _of(direction: str) -> Cell:
    return lambda s, row: " ".join(work.algorithm for work in row.work if work.direction == direction)


CSV: dict[str, Callable[[Summary, Row], Any]] = {
    "layer": lambda s, row: row.path,
    "call": lambda s, row: "" if row.turn is None else row.turn + 1,
    "kind": lambda s, row: row.kind,
    "own_operations": lambda s, row: int(row.is_own),
    "depth": lambda s, row: row.depth,
    "input": lambda s, row: _shapes(row.input_shapes),
    "output": lambda s, row: _shapes(row.output_shapes),
    "parameters": lambda s, row: row.parameters,
    "trainable": lambda s, row: row.trainable,
    "macs": lambda s, row: _value(row.macs),
    "macs_inside": lambda s, row: _value(row.macs_inside),
    "flops": lambda s, row: _value(row.macs.times(s.flops_per_mac)),
    "multiplies": lambda s, row: _value(row.multiplies),
    "algorithm": _of("forward"),
    "input_grad_algorithm": _of("input_grad"),
    "weight_grad_algorithm": _of("weight_grad"),
    "flop_per_byte": lambda s, row: _value(s.intensity(row)),
    "output_bytes": lambda s, row: row.output_bytes,
    "kept_bytes": lambda s, row: _value(row.kept),
    "scratch_bytes": lambda s, row: _value(row.scratch),
    "receptive_field": lambda s, row: "" if row.field is None else str(row.field),
    "seconds": lambda s, row: _value(row.seconds),
}


def as_dict(summary: Summary) -> dict[str, Any]:
    """`Summary.to_dict`."""
    names = ("macs", "macs_inside", "flops", "multiplies", "kept", "inference_memory", "training_memory")
    return {
        "model": summary.kind,
        "input_shapes": [list(shape) for shape in summary.input_shapes],
        "dtype": str(summary.dtype),
        "flops_per_mac": summary.flops_per_mac,
        "parameters": summary.parameters,
        "trainable": summary.trainable,
        "buffers": summary.buffers,
        "parameter_bytes": summary.parameter_bytes,
        **{name: asdict(getattr(summary, name)) for name in names},
        "memory": {name: _pass(getattr(summary, name)) for name in ("inference", "training")},
        "machine": None if summary.machine is None else asdict(summary.machine),
        "notes": summary.notes,
        "rows": [_row(summary, row) for row in summary.rows],
    }


def _pass(found: Pass | str) -> Any:
    if isinstance(found, str):
        return {"unavailable": found}
    return {"peak_bytes": found.peak.bytes, "held_bytes": found.held, "parts": found.peak.parts,
            "layer": found.peak.path, "phase": found.peak.phase}  # fmt: skip


def _row(summary: Summary, row: Row) -> dict[str, Any]:
    field = row.field
    return {
        "layer": row.path,
        "call": None if row.turn is None else row.turn + 1,
        "kind": row.kind,
        "own_operations": row.is_own,
        "depth": row.depth,
        "inputs": [list(shape) for shape in row.input_shapes],
        "outputs": [list(shape) for shape in row.output_shapes],
        "parameters": row.parameters,
        "trainable": row.trainable,
        "shared": row.shared,
        "output_bytes": row.output_bytes,
        "moved_bytes": row.moved,
        "macs": asdict(row.macs),
        "macs_inside": asdict(row.macs_inside),
        "flops": asdict(row.macs.times(summary.flops_per_mac)),
        "multiplies": asdict(row.multiplies),
        "intensity": asdict(summary.intensity(row)),
        "kept": asdict(row.kept),
        "scratch": asdict(row.scratch),
        "seconds": asdict(row.seconds),
        "backward_seconds": asdict(row.backward_seconds),
        "backward_macs": asdict(row.backward_macs),
        "receptive_field": None
        if field is None
        else {"size": list(field.size), "stride": [float(s) for s in field.stride], "unavailable": field.reason},
        "work": [asdict(work) for work in row.work],
    }
