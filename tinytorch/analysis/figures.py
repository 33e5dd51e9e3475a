"""Numbers that know how well they are known, and how they are written: with units, short, or exactly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["exact", "estimated", "unavailable"]


@dataclass(frozen=True)
class Figure:
    """A number, or the lack of one.

    Attributes
    ----------
    value : int, float or None
        None where it is unavailable.
    status : {"exact", "estimated", "unavailable"}
    reason : str
        Why it is not exact.
    """

    value: float | None
    status: Status = "exact"
    reason: str = ""

    @property
    def number(self) -> float:
        """The value, or 0."""
        return self.value or 0

    def times(self, factor: float) -> Figure:
        """A multiple, known as well."""
        return Figure(None if self.value is None else self.value * factor, self.status, self.reason)


def unavailable(reason: str) -> Figure:
    """A number that is not known."""
    return Figure(None, "unavailable", reason)


def total(figures: Iterable[Figure]) -> Figure:
    """Sum of what is known: exact only if all are, and a lower bound where one is missing."""
    figures = list(figures)
    value = sum(figure.number for figure in figures)
    missing = [figure.reason for figure in figures if figure.value is None]
    if missing:
        return Figure(value, "estimated", f"at least so much: {missing[0]}")
    return next((Figure(value, "estimated", f.reason) for f in figures if f.status != "exact"), Figure(value))


_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def short(value: float, unit: str = "") -> str:
    """Four digits and a decimal prefix: 1,814,073,344 is 1.814 G; below 10,000 as it is.

    Examples
    --------
    >>> short(102_228_128, "B"), short(9408)
    ('102.2 MB', '9,408')
    """
    if abs(value) < 10_000 and value == int(value):
        return f"{value:,.0f} {unit}".rstrip()
    prefix = next((p for p, factor in reversed(_PREFIXES.items()) if abs(value) >= 0.99995 * factor), "")
    scaled = value / _PREFIXES[prefix]
    digits = max(0, 4 - len(str(int(abs(scaled) * 1.00005))))
    return f"{scaled:.{digits}f} {prefix}{unit}".rstrip()


def parse(name: str, text: str, unit: str = "") -> int:
    """Read a number with a suffix: 300M, 4k or, with the unit B, 64MB and 64MiB.

    Parameters
    ----------
    name : str
        Of the option, for the message.
    text : str
    unit : {"", "B"}
        B accepts binary prefixes as well: a MB is 10⁶ bytes, a MiB 2²⁰.

    Raises
    ------
    ValueError
        If it is something else.
    """
    known = {**_PREFIXES, "K": 10**3, **(_BINARY if unit else {})}
    match = re.fullmatch(r"\s*([0-9][0-9_,]*\.?[0-9]*)\s*([A-Za-z]*)\s*", text)
    suffix = match[2].removesuffix(unit) if match else ""
    if not match or suffix not in known:
        examples = "64MiB (2²⁰ bytes each), 64MB (10⁶ bytes) or 67108864" if unit else "300M, 1.5G or 4000000"
        raise ValueError(f"{name} must be a number, with a suffix or without, such as {examples}, got {text!r}")
    return round(float(match[1].replace(",", "").replace("_", "")) * known[suffix])
