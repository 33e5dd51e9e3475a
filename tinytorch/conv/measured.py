"""Times of algorithms on this machine, kept on disk: one file for each CPU and number of threads."""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tinytorch.kernels.target import cpu_name

_ROUNDS = 5
_SHORTEST = 2e-3  # seconds; what takes less is repeated, so that the clock and the first call don't show

Times = dict[str, float]


def seconds(run: Callable[[], object]) -> float:
    """Median time of a call, after one that is not counted."""
    run()
    start = time.perf_counter()
    run()
    repeat = max(1, round(_SHORTEST / (time.perf_counter() - start)))
    rounds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        rounds.append((time.perf_counter() - start) / repeat)
    return statistics.median(rounds)


def folder() -> Path:
    """Where the files lie: ``TINYTORCH_CACHE_DIR``, or the user's cache."""
    import pooch  # only where it is needed: importing tinytorch stays light

    return Path(os.environ.get("TINYTORCH_CACHE_DIR") or pooch.os_cache("tinytorch")) / "measured"


def _file(isa: str, workers: int) -> Path:
    return folder() / (re.sub(r"[^A-Za-z0-9]+", "-", f"{cpu_name()} {isa} {workers} threads") + ".json")


def load(isa: str, workers: int) -> dict[str, Times]:
    """Times by problem, as `remember` left them; nothing if there is no file, or not a file of ours."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_file(isa, workers).read_text(encoding="utf-8"))
        return {key: times for key, times in found.items() if _are_times(times)} if isinstance(found, dict) else {}
    return {}


def _are_times(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(v, float) and v >= 0 for v in value.values())


def remember(isa: str, workers: int, problem: str, times: Times) -> None:
    """Add the times of one problem to the file, which is replaced as a whole; a folder that can't be written is
    left alone.
    """
    path = _file(isa, workers)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump({**load(isa, workers), problem: times}, file, indent=1)
        os.replace(file.name, path)
