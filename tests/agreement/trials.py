"""One trial is one case of somebody else's test suite, run here: what came of it, and which disagreements are meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import groupby
from typing import Any

import numpy as np
import pytest

MATCHED = "matched"  # the same results
REFUSED = "refused"  # an error that names the argument
CRASHED = "crashed"  # an error that does not
DIFFERS = "differs"  # other results
ACCEPTED = "accepted"  # results where an error was due
FOREIGN = "not expressible"  # what the case asks for has no spelling here


class Foreign(Exception):
    """What a case asks for has no spelling here."""


@dataclass(frozen=True)
class Trial:
    """A case, and what came of it."""

    op: str
    case: Any
    text: str
    outcome: str
    detail: str = ""
    wanted: str = MATCHED

    @property
    def agrees(self) -> bool:
        return self.outcome == self.wanted


@dataclass(frozen=True)
class Difference:
    """Cases that disagree on purpose: of the ops whose whole name `ops` matches, those that `where` is true of."""

    ops: str
    outcome: str
    reason: str
    where: Callable[[Any], bool] = lambda case: True

    def concerns(self, op: str) -> bool:
        return re.fullmatch(self.ops, op) is not None

    def describes(self, trial: Trial) -> bool:
        return self.concerns(trial.op) and self.where(trial.case)


def check(trials: Sequence[Trial], differences: Iterable[Difference], most: int = 12) -> None:
    """Fail a test with what is wrong with the trials of one op."""
    assert trials
    found = complaints(trials, differences)
    if found:
        pytest.fail("\n".join([f"{len(found)} complaints, the first of them:", *found[:most]]), pytrace=False)


def complaints(trials: Sequence[Trial], differences: Iterable[Difference]) -> list[str]:
    """What is wrong with the trials of one op: unlisted disagreements, and listed ones that are not there."""
    listed = [d for d in differences if any(d.concerns(trial.op) for trial in trials)]
    unused = [f"listed, but describes no case: {d.reason}" for d in listed if not any(map(d.describes, trials))]
    return unused + [line for trial in trials for line in _complaint(trial, [d for d in listed if d.describes(trial)])]


def _complaint(trial: Trial, listed: Sequence[Difference]) -> list[str]:
    got = f"{trial.text}: {trial.outcome} {trial.detail}".rstrip()
    if not trial.agrees:
        return [] if any(d.outcome == trial.outcome for d in listed) else [f"not listed: {got}"]
    return [f"listed ({d.reason}), but no longer so: {got}" for d in listed]


def attempt(run: Callable[[], str], names: Callable[[], Iterable[str]]) -> tuple[str, str]:
    """Outcome and detail of a call that returns how its results differ, "" for not at all.

    An error counts as a refusal if it is of a kind meant for callers and its text has one of the names.
    """
    try:
        gap = run()
    except Foreign as error:
        return FOREIGN, str(error)
    except Exception as error:
        meant = isinstance(error, ValueError | TypeError | IndexError | MemoryError)
        named = any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)) for name in names())
        return (REFUSED if meant and named else CRASHED), f"{type(error).__name__}: {error}".splitlines()[0]
    return (DIFFERS, gap) if gap else (MATCHED, "")


def call(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a function whose parameters must take these arguments, else the case is a foreign one."""
    try:
        signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise Foreign(str(error)) from error
    return function(*args, **kwargs)


def gap(what: str, mine: np.ndarray, theirs: np.ndarray, tolerance: float, rounding: float = 0) -> str:
    """How an array differs from the other, "" for not at all.

    The tolerance is relative to the largest entry, since one that cancelled has no relative precision of its own; and no
    less than `rounding`, since all may have cancelled.
    """
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return f"{what} is {mine.dtype}{list(mine.shape)} instead of {theirs.dtype}{list(theirs.shape)}"
    scale = largest(theirs)
    if np.allclose(mine, theirs, rtol=tolerance, atol=max(tolerance * scale, rounding), equal_nan=True):
        return ""
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        worst = np.nanmax(np.abs(np.subtract(mine, theirs, dtype=np.float64)), initial=0)
    return f"{what} is off by {worst:.1e}, where the largest entry is {scale:.1e}"


def largest(array: np.ndarray) -> float:
    """The largest absolute value that is finite."""
    return float(np.abs(array, where=np.isfinite(array), out=np.zeros(array.shape)).max(initial=0))


def table(trials: Sequence[Trial], differences: Sequence[Difference]) -> list[str]:
    """Lines of a Markdown table, one row an op: cases, how many agree, and what the others did, by reason."""
    rows = [_row(op, list(group), differences) for op, group in groupby(trials, key=lambda trial: trial.op)]
    total = f"| all | {len(trials)} | {sum(trial.agrees for trial in trials)} | |"
    return ["| op | cases | agree | the others |", "|---|---|---|---|", *rows, total]


def _row(op: str, trials: Sequence[Trial], differences: Sequence[Difference]) -> str:
    others = Counter(f"{t.outcome}: {_reason(t, differences)}" for t in trials if not t.agrees)
    reasons = "; ".join(f"{count} {reason}" for reason, count in others.items())
    return f"| {op} | {len(trials)} | {sum(t.agrees for t in trials)} | {reasons} |"


def _reason(trial: Trial, differences: Sequence[Difference]) -> str:
    meant = [d.reason for d in differences if d.outcome == trial.outcome and d.describes(trial)]
    return meant[0] if meant else "**not meant**"
