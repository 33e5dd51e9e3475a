"""Numbers from one array to another: in runs, transposed, and zeros. Runs go by the C library's ``memcpy``."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels import emit, jit
from tinytorch.kernels.target import target


def copy(to, at, source, start, count):  # type: ignore[no-untyped-def]
    """``to[at + i] = source[start + i]`` for ``count`` numbers of two arrays of one line."""
    to[at : at + count] = source[start : start + count]


def clear(to, at, count):  # type: ignore[no-untyped-def]
    """``to[at + i] = 0`` for ``count`` numbers of an array of one line."""
    to[at : at + count] = 0


@jit.planned(maxsize=128)
def transpose_of(dtype: np.dtype) -> int:
    """Compile ``transpose``, if need be, and return what it is known by."""
    return emit.address_of_move(0, 0, target().lanes(dtype.itemsize), dtype.itemsize) if jit.compiles() else 0


def transpose(which, source, source_step, sink, sink_step, rows, columns):  # type: ignore[no-untyped-def]
    """``sink[c · sink_step + r] = source[r · source_step + c]``; both operands are (array, start).

    ``which`` is what ``transpose_of`` returned.
    """
    for r in range(rows):
        for c in range(columns):
            sink[0][sink[1] + c * sink_step + r] = source[0][source[1] + r * source_step + c]


@jit.planned(maxsize=128)
def copy_rows_of(vectors: int, masked: bool, dtype: np.dtype) -> int:
    """Compile ``copy_rows`` for rows of so many vectors, the last full or not, and return what it is known by."""
    width = target().lanes(dtype.itemsize)
    return emit.address_of_move(vectors, int(masked), width, dtype.itemsize) if jit.compiles() else 0


_SHORT = 8  # vectors


def copy_short_rows_of(columns: int, dtype: np.dtype) -> int:
    """`copy_rows_of` for rows of so many numbers; 0 if they are so long that the C library copies them as fast."""
    lanes = target().lanes(dtype.itemsize)
    return copy_rows_of(-(-columns // lanes), columns % lanes > 0, dtype) if columns <= _SHORT * lanes else 0


def copy_rows(which, source, source_step, sink, sink_step, rows, columns):  # type: ignore[no-untyped-def]
    """``sink[r · sink_step + c] = source[r · source_step + c]``; both operands are (array, start).

    ``which`` is what ``copy_rows_of`` returned. For rows so short that calls of ``copy`` would take longer.
    """
    for r in range(rows):
        to, at = sink[1] + r * sink_step, source[1] + r * source_step
        sink[0][to : to + columns] = source[0][at : at + columns]


emit.teach(copy_rows)
emit.teach(transpose)
emit.teach_move(copy, clear)
