"""Copies and sums of arrays whose axes lie in memory in any order, shared among threads.

NumPy does the same on one thread, a number at a time. Here the axes are brought into the order of the result's memory
and neighbours that run on into each other are joined; three of them make a block, which is copied in runs, turned in
squares, or done number by number, and the others say where the blocks lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import prange

from tinytorch.kernels import jit
from tinytorch.kernels.move import copy, copy_rows, copy_short_rows_of, transpose, transpose_of
from tinytorch.kernels.target import target

_SMALL = 1 << 15  # numbers; NumPy is done with fewer before threads have started
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_TASKS = 4  # for each thread


def assign(to: np.ndarray, source: np.ndarray) -> None:
    """``to[...] = source``, for arrays of one shape that don't overlap."""
    if not _is_worth_it(to, source):
        to[...] = source
        return
    blocks = _blocks(to.shape, to.strides, source.strides, to.dtype, jit.workers())
    jit.run(_assign, _first(to), _first(source), blocks.table, blocks.outer)


def add(to: np.ndarray, source: np.ndarray) -> None:
    """``to += source``, for arrays of one shape that don't overlap."""
    if not _is_worth_it(to, source):
        to += source
        return
    blocks = _blocks(to.shape, to.strides, source.strides, to.dtype, jit.workers())
    jit.run(_add, _first(to), _first(source), blocks.table, blocks.outer)


def _is_worth_it(to: np.ndarray, source: np.ndarray) -> bool:
    """Whether there is enough to do, in a type that there is a kernel for; a read-only array would be another type."""
    return (
        to.size >= _SMALL
        and to.dtype == source.dtype in _FLOATS
        and to.shape == source.shape
        and source.flags.writeable
    )


def _first(array: np.ndarray) -> np.ndarray:
    """The number at the lowest address, from which compiled code counts."""
    if min(array.strides) >= 0:
        return array[(slice(1),) * array.ndim].reshape(1)
    return array[tuple(slice(1) if stride >= 0 else slice(-1, None) for stride in array.strides)].reshape(1)


# ---- plans ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Blocks:
    """How a copy is cut.

    Parameters
    ----------
    table
        One row of named integers for the kernel.
    outer
        For every axis but the three of a block: its length, and the strides of result and source.
    """

    table: np.ndarray
    outer: np.ndarray


_Axis = tuple[int, int, int]  # length, and strides of result and source, in numbers


@jit.planned(maxsize=1024)
def _blocks(
    shape: tuple[int, ...], to: tuple[int, ...], source: tuple[int, ...], dtype: np.dtype, workers: int
) -> _Blocks:
    strides = [[stride // dtype.itemsize for stride in strides] for strides in (to, source)]
    lowest = [-sum(min(0, stride) * (n - 1) for n, stride in zip(shape, side, strict=True)) for side in strides]
    axes = _joined(sorted(zip(shape, *strides, strict=True), key=lambda axis: -abs(axis[1])))
    along = axes.pop() if axes else (1, 1, 1)
    down = axes.pop(_partner(axes, along)) if axes else (1, 0, 0)
    runs = along[1] == along[2] == 1
    turns = along[1] == down[2] == 1 and min(down[0], along[0]) >= target().lanes(dtype.itemsize)
    if not runs and not turns and down[0] > along[0]:
        down, along = along, down
    (rows, to_down, source_down), (columns, to_along, source_along) = down, along
    deep, to_deep, source_deep = axes.pop(max(range(len(axes))[-2:], key=lambda k: axes[k][0])) if axes else (1, 0, 0)
    blocks = math.prod(n for n, _, _ in axes)
    parts = min(deep, -(-_TASKS * workers // blocks))
    table = jit.table_of(
        # blocks, cut into parts of planes and of rows until every thread has some
        blocks=blocks, parts=parts, cuts=min(rows, -(-_TASKS * workers // (blocks * parts))),
        to_first=lowest[0], source_first=lowest[1], deep=deep, rows=rows, columns=columns,
        to_deep=to_deep, to_down=to_down, to_along=to_along,
        source_deep=source_deep, source_down=source_down, source_along=source_along,
        # how a block is copied, if not number by number
        runs=runs, copy_rows=copy_short_rows_of(columns, dtype) if runs else 0,
        turns=turns, transpose=transpose_of(dtype) if turns else 0,
    )  # fmt: skip
    return _Blocks(table, np.array(axes, np.int64).reshape(-1, 3))


def _joined(axes: list[_Axis]) -> list[_Axis]:
    """Neighbours that run on into each other in both arrays made one; single places left out."""
    joined: list[_Axis] = []
    for n, to, source in axes:
        if n > 1 and joined and joined[-1][1:] == (n * to, n * source):
            joined[-1] = (joined[-1][0] * n, to, source)
        elif n > 1:
            joined.append((n, to, source))
    return joined


def _partner(axes: list[_Axis], along: _Axis) -> int:
    """The other axis of a block: the one whose numbers are neighbours in the source, if not those of ``along`` are."""
    if along[2] == 1:
        return len(axes) - 1
    return min(range(len(axes)), key=lambda k: (abs(axes[k][2]) or math.inf, -k))


# ---- running them ---------------------------------------------------------------------------------------


@jit.serial
def _places(block, t, outer):  # type: ignore[no-untyped-def]
    """Where a block begins in the result and in the source."""
    to_at, at = t.to_first, t.source_first
    for k in range(outer.shape[0] - 1, -1, -1):
        index, block = block % outer[k, 0], block // outer[k, 0]
        to_at += index * outer[k, 1]
        at += index * outer[k, 2]
    return to_at, at


@jit.serial
def _share(item, parts, length):  # type: ignore[no-untyped-def]
    """The first and the last of what is one of ``parts`` of a length."""
    part = item % parts
    return length * part // parts, length * (part + 1) // parts


@jit.parallel
def _assign(to, source, table, outer):  # type: ignore[no-untyped-def]
    for item in prange(table[0].blocks * table[0].parts * table[0].cuts):
        t, task = table[0], np.int64(item)
        first_row, last_row = _share(task, t.cuts, t.rows)
        first_plane, last_plane = _share(task // t.cuts, t.parts, t.deep)
        to_block, block = _places(task // (t.cuts * t.parts), t, outer)
        rows, columns = last_row - first_row, np.uint64(t.columns)
        to_along, along = np.uint64(t.to_along), np.uint64(t.source_along)
        for plane in range(first_plane, last_plane):
            to_at = to_block + plane * t.to_deep + first_row * t.to_down
            at = block + plane * t.source_deep + first_row * t.source_down
            if t.copy_rows:
                copy_rows(t.copy_rows, (source, at), t.source_down, (to, to_at), t.to_down, rows, t.columns)
            elif t.runs:
                for row in range(rows):
                    copy(to, to_at + row * t.to_down, source, at + row * t.source_down, t.columns)
            elif t.turns:
                transpose(t.transpose, (source, at), t.source_along, (to, to_at), t.to_down, t.columns, rows)
            else:
                for row in range(rows):
                    to_row, from_row = np.uint64(to_at + row * t.to_down), np.uint64(at + row * t.source_down)
                    for column in range(columns):
                        to[to_row + column * to_along] = source[from_row + column * along]


@jit.parallel
def _add(to, source, table, outer):  # type: ignore[no-untyped-def]
    for item in prange(table[0].blocks * table[0].parts * table[0].cuts):
        t, task = table[0], np.int64(item)
        first_row, last_row = _share(task, t.cuts, t.rows)
        first_plane, last_plane = _share(task // t.cuts, t.parts, t.deep)
        to_block, block = _places(task // (t.cuts * t.parts), t, outer)
        columns, to_along, along = np.uint64(t.columns), np.uint64(t.to_along), np.uint64(t.source_along)
        for plane in range(first_plane, last_plane):
            for row in range(first_row, last_row):
                to_row = np.uint64(to_block + plane * t.to_deep + row * t.to_down)
                from_row = np.uint64(block + plane * t.source_deep + row * t.source_down)
                if t.runs:
                    for column in range(columns):
                        to[to_row + column] += source[from_row + column]
                else:
                    for column in range(columns):
                        to[to_row + column * to_along] += source[from_row + column * along]
