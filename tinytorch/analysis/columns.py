"""Tables of text: cells side by side, a line under the titles, names that are cut and not broken."""

from __future__ import annotations

from collections.abc import Iterable

GAP = "  "


def cut(name: str, width: int) -> str:
    """The end of a name that is too long."""
    return name if len(name) <= width else "…" + name[1 - width :]


def grid(columns: Iterable[tuple[bool, list[str]]], titles: int = 1) -> list[str]:
    """The lines of a table.

    Parameters
    ----------
    columns : iterable of (bool, list of str)
        Whether a column is flush left, and its cells, titles first.
    titles : int
        Lines of titles.
    """
    padded = []
    for left, texts in columns:
        size = max(map(len, texts))
        padded.append([text.ljust(size) if left else text.rjust(size) for text in texts])
    lines = [GAP.join(line).rstrip() for line in zip(*padded, strict=True)]
    rule = "─" * max(map(len, lines[titles - 1 :]))
    return [*lines[:titles], rule, *lines[titles:]]
