"""Runs of numbers from one array to another, and runs of zeros; the C library's ``memcpy`` and ``memset``."""

from __future__ import annotations

from tinytorch.kernels import emit


def copy(to, at, source, start, count):  # type: ignore[no-untyped-def]
    """``to[at + i] = source[start + i]`` for ``count`` numbers of two arrays of one line."""
    to[at : at + count] = source[start : start + count]


def clear(to, at, count):  # type: ignore[no-untyped-def]
    """``to[at + i] = 0`` for ``count`` numbers of an array of one line."""
    to[at : at + count] = 0


emit.teach_move(copy, clear)
