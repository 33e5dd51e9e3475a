"""How things look in the terminal: numbers, bars and tables."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(to_stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error when the output is for a program."""
    result = Console(stderr=to_stderr, highlight=False, soft_wrap=True)
    if not result.is_terminal:
        result.width = 160  # a file has no width to fit into
    return result


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on one line of standard output."""
    print(json.dumps(value, allow_nan=False), flush=True)


def percent(fraction: float) -> str:
    """0.98765 → '98.77 %'."""
    return f"{100 * fraction:.2f} %"


def duration(seconds: float) -> str:
    """83.4 → '1 min 23 s'; below a minute with one decimal."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def operations(pflop: float) -> str:
    """0.2841 → '0.284 PFLOP', 0.00031 → '0.31 TFLOP'."""
    return f"{pflop:.3g} PFLOP" if pflop >= 0.01 else f"{1000 * pflop:.3g} TFLOP"


def bar(fraction: float, width: int = 24) -> Text:
    """A horizontal bar, in eighths of a character."""
    whole, eighths = divmod(round(8 * width * min(max(fraction, 0.0), 1.0)), 8)
    filled = "█" * whole + ("▏▎▍▌▋▊▉"[eighths - 1] if eighths else "")
    return Text(filled.ljust(width), style="cyan")


def facts(rows: list[tuple[str, str]]) -> Table:
    """A table of names and values without lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table
