"""Numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tinytorch.conv.problem import AXIS_NAMES

_POWERS = {1: "", 2: "²", 3: "³"}


def number(value: int | float) -> str:
    """1234567 → '1,234,567'; negative numbers have a minus sign, not a hyphen."""
    return f"{value:,}".replace("-", "−")


def product(factors: Iterable[int]) -> str:
    """(32, 3, 1024) → '32 · 3 · 1,024'."""
    return " · ".join(map(number, factors))


def shape(sizes: Sequence[int]) -> str:
    """(32, 64) → '(32, 64)', as Python has it: without commas between thousands."""
    return f"({', '.join(map(str, sizes))})"


def figure(value: float, digits: int = 3) -> str:
    """So many significant digits, of a whole number all, and two decimals where these are exact."""
    if round(value, 2) == value:
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def equals(value: float, digits: int = 3) -> str:
    """'= 2.25', or '≈ 2.78' where digits are left out."""
    text = figure(value, digits)
    return f"{'=' if float(text.replace(',', '')) == value else '≈'} {text}"


def in_bytes(count: int) -> str:
    """822083584 → '822,083,584 B = 822 MB = 784 MiB': decimal and binary units to three digits or exactly."""
    power = min(4, max(0, (len(str(count)) - 1) // 3))
    if not power:
        return f"{count:,} B"
    decimal, binary = count / 1000**power, count / 1024**power
    return f"{count:,} B = {figure(decimal)} {' kMGT'[power]}B = {figure(binary)} {' KMGT'[power]}iB"


def in_words(count: int) -> str:
    """2774532096 → ' ≈ 2.8 billion'; nothing below a million."""
    for power, word in ((12, "trillion"), (9, "billion"), (6, "million")):
        if count >= 10**power:
            return f" ≈ {count / 10**power:.1f} {word}"
    return ""


def in_time(seconds: float) -> str:
    """1067 → '17.8 minutes'."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} seconds"


def letters(dims: int) -> tuple[str, ...]:
    """Names of the axes in formulas: ('H', 'W') of an image."""
    return tuple(name[0].upper() for name in AXIS_NAMES[dims])


def symbols(*parts: str) -> str:
    """Factors of a formula: 'N · C · H · W'."""
    return " · ".join(parts)


def power(dims: int) -> str:
    """The exponent of something that is so in all axes: '²' of an image."""
    return _POWERS[dims]


def plural(count: int, noun: str) -> str:
    """(1, 'pixel') → '1 pixel', (2, 'pixel') → '2 pixels'."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """(1, 8) → '12.5 %'; of nothing it is 0."""
    return f"{figure(100 * part / whole) if part else 0} %"
