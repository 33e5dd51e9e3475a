"""Where figures go: tables as they come, and one JSON file at the end."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers import installed
from benchmarks.timing import Effort, Row, Void, measure
from tinytorch.kernels.target import target

PACKAGES = ("tinytorch", "numpy", "numba", "torch", "onnx", "onnxruntime", "openvino")
BUSY = 50  # preemptions a second; alone there are 10 to 30
Columns = dict[str, Callable[[Row], str]]


class Report:
    """Measures, prints, remembers.

    Parameters
    ----------
    threads
        Of every library.
    effort
        How long to measure.
    only
        Measure only what has this in its name.
    """

    def __init__(self, threads: int, effort: Effort, only: str = "") -> None:
        self.threads, self.effort, self.only = threads, effort, only
        self.peers, missing = installed(threads)
        self.environment = environment(threads)
        self.rows: list[Row] = []
        self.notes: list[dict[str, Any]] = []
        self.void: list[str] = []
        self._start = time.perf_counter(), _preemptions()
        self.console = Console(highlight=False)
        self.console.width = max(self.console.width, 180)  # better wrapped by a narrow terminal than cut
        self.say("{cpu}, {threads} threads of {cores} cores, {isa}".format(**self.environment))
        if missing:
            self.say(f"left out because not installed: {', '.join(missing)}")

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, soft_wrap=True)

    def wants(self, name: str) -> bool:
        """Whether something of this name is to be measured."""
        return self.only in name

    def compare(self, kind: str, task: Any, tolerance: float, **facts: Any) -> list[Row]:
        """Measure every peer that does this kind of task; a list of one row, or of none if the outputs differ.

        ``kind`` is the name of the method of `benchmarks.peers.Peer`.
        """
        with self.console.status(facts["name"]):
            runners = [runner for peer in self.peers if kind in peer.does and (runner := getattr(peer, kind)(task))]
            try:
                self.rows.append(measure(runners, self.effort, tolerance, **facts))
            except Void as reason:
                self.void.append(str(reason))
                self.say(f"void: {reason}")
                return []
        return self.rows[-1:]

    def networks(
        self, kind: str, cases: Sequence[tuple[str, int]], task: Callable[[str, int], Any], tolerance: float
    ) -> None:
        """Measure networks, given as (name, batch), and print their table."""
        rows = [
            row
            for name, n in cases
            if self.wants(f"{name}, N={n}, {kind}")
            for row in self.compare(kind, task(name, n), tolerance, name=name, n=n)
        ]
        before: Columns = {"network": lambda row: row.facts["name"], "N": lambda row: str(row.facts["n"])}
        self.show(kind, rows, before, {"images/s": lambda row: f"{row.facts['n'] / row.ours:,.0f}"})
        self.summarise(kind, rows)

    def show(self, title: str, rows: Sequence[Row], before: Columns, after: Columns) -> None:
        """Print a table: the columns ``before``, every runner's time, the ratio, and the columns ``after``."""
        if not rows:
            return
        times: Columns = {name: partial(_time, name) for name in rows[0].seconds}
        columns = {**before, **times, "ratio": lambda row: f"{row.ratio:.2f}×" if row.differences else "–", **after}
        table = Table(title=title, title_justify="left", box=None, header_style="dim", padding=(0, 1))
        for index, header in enumerate(columns):
            table.add_column(header, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(text(row) for text in columns.values()))
        self.console.print(table)

    def summarise(self, name: str, rows: Sequence[Row]) -> None:
        """Print and keep the means of the ratios and the smallest."""
        rows = [row for row in rows if not math.isnan(row.ratio)]
        if not rows:
            return
        logarithms, counts = [math.log(row.ratio) for row in rows], [row.facts.get("count", 1) for row in rows]
        least = min(rows, key=lambda row: row.ratio)
        mean, weighted = (math.exp(statistics.fmean(logarithms, weights)) for weights in (None, counts))
        place = " ".join(str(least.facts[key]) for key in ("name", "problem", "n") if key in least.facts)
        self.note(name, geometric_mean=mean, weighted_by_count=weighted, minimum=least.ratio, minimum_at=place)
        self.say(
            f"{name}: best peer / ours, geometric mean {mean:.2f}×, weighted by count {weighted:.2f}×, "
            f"minimum {least.ratio:.2f}× ({place})\n"
        )

    def note(self, name: str, **figures: Any) -> None:
        """Keep figures that are no comparison of one task."""
        self.notes.append({"name": name, **figures})

    def finish(self) -> None:
        """Say how quiet the computer was: where others take the CPUs away, threads wait for each other in vain."""
        start, preemptions = self._start
        rate = (_preemptions() - preemptions) / (time.perf_counter() - start)
        self.environment["preemptions_per_second"] = rate
        self.say(f"preempted {rate:.1f} times a second" + ("; too busy, measure again" if rate > BUSY else ""))

    def save(self, path: Path) -> None:
        """Write all figures as JSON."""
        figures = {
            "environment": self.environment,
            "notes": self.notes,
            "void": self.void,
            "rows": [row.as_dict() for row in self.rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1, allow_nan=False))
        self.say(f"figures in {path}")


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _time(name: str, row: Row) -> str:
    return duration(row.median(name))


def duration(seconds: float) -> str:
    """Three or four digits and the unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e6:.1f} µs"


def environment(threads: int) -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": target().name,
        "threads": threads,
        "malloc": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
        "python": platform.python_version(),
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Model of the processor, as the system tells."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
