"""Timing that treats all libraries alike.

The runners of a comparison take turns, round after round, so that whatever else the computer does hits all of them.
Before its turn everybody rests, because OpenMP's threads spin for a while after their work and would slow the next
library down. A turn is one call that wakes the threads and then as many as fill the block; its figure is the mean of
a call. Outputs are compared before anything is timed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

REST = 0.04  # seconds


class Void(Exception):
    """The runners of a comparison did not compute the same; there is nothing to compare."""


@dataclass(frozen=True)
class Runner:
    """One library at one task.

    Parameters
    ----------
    name
        As the tables show it.
    call
        What is timed.
    outputs
        Calls it (or what else shows that it computes the right thing) and returns the results.
    mode
        Makes the context in which both run, such as ``torch.inference_mode``; entering it is not timed.
    """

    name: str
    call: Callable[[], Any]
    outputs: Callable[[], list[np.ndarray]]
    mode: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, and seconds of a block."""

    rounds: int
    block: float


@dataclass(frozen=True)
class Row:
    """One comparison.

    Parameters
    ----------
    facts
        What was run.
    seconds
        Of a call, for every runner and round; ours first, then the peers.
    differences
        Of each peer's outputs from ours, relative to the largest.
    """

    facts: dict[str, Any]
    seconds: dict[str, list[float]]
    differences: dict[str, float]

    def median(self, name: str) -> float:
        """Seconds of a call of one runner."""
        return statistics.median(self.seconds[name])

    @property
    def ours(self) -> float:
        """Seconds of a call of the first runner."""
        return self.median(next(iter(self.seconds)))

    @property
    def ratio(self) -> float:
        """Time of the best peer over ours: above 1 we are ahead. NaN without a peer."""
        return min(map(self.median, self.differences), default=math.nan) / self.ours

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no NaN."""
        ratio = self.ratio if self.differences else None
        return {**self.facts, "ratio": ratio, "seconds": self.seconds, "differences": self.differences}


def measure(runners: Sequence[Runner], effort: Effort, tolerance: float, **facts: Any) -> Row:
    """Compare the outputs, then the times.

    Raises
    ------
    Void
        If the outputs of a peer differ from those of the first runner by more than ``tolerance`` of the largest.
    """
    differences = compare(runners)
    if any(not difference <= tolerance for difference in differences.values()):
        raise Void(f"{facts}: differences from {runners[0].name} above {tolerance}: {differences}")
    return Row(facts, interleave(runners, effort), differences)


def compare(runners: Sequence[Runner]) -> dict[str, float]:
    """Largest difference of each peer's outputs from the first runner's, relative to the largest number there."""
    ours, *theirs = [_outputs(runner) for runner in runners]
    return {
        runner.name: max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(ours, outputs, strict=True))
        for runner, outputs in zip(runners[1:], theirs, strict=True)
    }


def _outputs(runner: Runner) -> list[np.ndarray]:
    """Results of a first call, which compiles, and a second, because a tracing compiler specialises only then."""
    with runner.mode():
        outputs = runner.outputs()
        runner.call()
    return outputs


def interleave(runners: Sequence[Runner], effort: Effort) -> dict[str, list[float]]:
    """Seconds of a call for every runner and round."""
    seconds: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for _ in range(effort.rounds):
        for runner in runners:
            time.sleep(REST)
            with runner.mode():
                seconds[runner.name].append(_block(runner.call, effort.block))
    return seconds


def _block(call: Callable[[], Any], seconds: float) -> float:
    """Mean time of a call; the first, which wakes the threads, counts only if it fills the block alone."""
    first = _repeat(call, 0)
    return first if first > seconds else _repeat(call, seconds)


def _repeat(call: Callable[[], Any], seconds: float) -> float:
    calls, start, elapsed = 0, time.perf_counter(), -1.0
    while elapsed < seconds:
        call()
        calls += 1
        elapsed = time.perf_counter() - start
    return elapsed / calls
