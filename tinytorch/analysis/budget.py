"""Limits on what a model may cost, and which layers to look at where it costs more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinytorch.analysis.figures import Figure, short, unavailable
from tinytorch.analysis.memory import Pass
from tinytorch.analysis.summary import Row, Summary

_MOST = 5  # layers that are named


@dataclass(frozen=True)
class Budget:
    """The most that is allowed; None allows all.

    Attributes
    ----------
    macs, parameters : int or None
    memory : int or None
        Bytes that the process may hold in inference, gaps between arrays among them; see `memory.Pass.held`.
    """

    macs: int | None = None
    parameters: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Excess:
    """A limit that is not kept, or that can't be checked.

    Attributes
    ----------
    name : str
        "MACs", "parameters" or "memory".
    limit : int
    found : Figure
    most : tuple of (str, int)
        What contributes most, and how much.
    unit : str
    """

    name: str
    limit: int
    found: Figure
    most: tuple[tuple[str, int], ...]
    unit: str = ""

    def __str__(self) -> str:
        if self.found.value is None:
            return f"{self.name}: {self.found.reason}; the limit of {_exactly(self.limit, self.unit)} can't be checked"
        named = ", ".join(f"{name} {short(value, self.unit)}" for name, value in self.most)
        found, limit = _exactly(self.found.value, self.unit), _exactly(self.limit, self.unit)
        return f"{self.name}: {found}, and {limit} are allowed; most in {named}"


def excesses(summary: Summary, budget: Budget) -> list[Excess]:
    """All limits that a model does not keep."""
    return list(_excesses(summary, budget))


def _excesses(summary: Summary, budget: Budget) -> Iterator[Excess]:
    parameters = Figure(summary.parameters)
    if _is_over(summary.macs, budget.macs):
        yield Excess("MACs", budget.macs or 0, summary.macs, _most(summary, lambda row: row.macs.number))
    if _is_over(parameters, budget.parameters):
        yield Excess("parameters", budget.parameters or 0, parameters, _most(summary, lambda row: row.parameters))
    found = summary.inference
    held = unavailable(found) if isinstance(found, str) else Figure(found.held, "estimated")
    if _is_over(held, budget.memory):
        yield Excess("memory", budget.memory or 0, held, _parts(found), "B")


def _is_over(found: Figure, limit: int | None) -> bool:
    return limit is not None and (found.value is None or found.value > limit)


def _most(summary: Summary, share: Callable[[Row], float]) -> tuple[tuple[str, int], ...]:
    rows = sorted((row for row in summary.rows if share(row)), key=share, reverse=True)[:_MOST]
    return tuple((row.name or summary.kind, int(share(row))) for row in rows)


def _parts(found: Pass | str) -> tuple[tuple[str, int], ...]:
    parts = {} if isinstance(found, str) else found.peak.parts
    return tuple(sorted(((name, size) for name, size in parts.items() if size), key=lambda part: -part[1])[:_MOST])


def _exactly(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}".rstrip()
