"""Recycled storage for large arrays.

The system hands out fresh memory as unmapped pages, and the first write to each costs a trip into the kernel: filling
a fresh 64 MB array runs several times slower than filling one that was used before. A training step asks for the same
sizes again and again, so a block goes back on a shelf when the last view of it dies, and the next arrays that fit take
it from there.
"""

from __future__ import annotations

import math
import mmap
import operator
import os
import sys
import threading
from bisect import bisect
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

import numpy as np
import numpy.typing as npt

from tinytorch.kernels import strided

SMALLEST = 1 << 16  # bytes; the C library already recycles what is smaller
_GRAIN = max(4096, mmap.PAGESIZE)  # bytes that blocks are multiples of

_Block = tuple["_Arena", int]  # where it was cut from, and its address


def empty(shape: int | Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
    """An uninitialised C-ordered array, like ``numpy.empty``, whose memory is recycled.

    Raises
    ------
    MemoryError
        If it is larger than the machine's memory: before any of it is touched.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(map(operator.index, shape))
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    if count * dtype.itemsize < SMALLEST:
        return np.empty(shape, dtype)
    if count * dtype.itemsize > installed():
        raise MemoryError(
            f"an array of shape {shape} and type {dtype} takes {count * dtype.itemsize:,} bytes, and this machine has "
            f"{installed():,}; use fewer images at a time, smaller ones, or fewer channels"
        )
    return np.asarray(_Lease(shape, dtype, count * dtype.itemsize))


@cache
def installed() -> int:
    """Bytes of the machine's memory; where the system does not tell, as many as there are addresses."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


def zeros(shape: int | Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
    """``empty``, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


# Numbers between what two threads write: a core that writes to a cache line takes it, and its neighbour, from others.
_APART = 32


def apart(rows: int, columns: int, dtype: npt.DTypeLike, make: Callable[..., np.ndarray] = empty) -> np.ndarray:
    """An array with a row for each of several threads, a little longer than asked for, so that they don't meet."""
    return make((rows, columns + _APART), dtype)


def scratch(rows: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """`apart` for one call of a kernel; the next call gets the same memory.

    No two calls of one Python thread may need theirs at the same time.
    """
    columns += _APART
    count = rows * columns
    held = _scratches.arrays.get(dtype)
    if held is None or held.size < count:
        held = _scratches.arrays[dtype] = empty(count, dtype)
    return held[:count].reshape(rows, columns)


class _Scratches(threading.local):
    """The arrays of one Python thread, by type."""

    def __init__(self) -> None:
        self.arrays: dict[np.dtype, np.ndarray] = {}


_scratches = _Scratches()


class _Arena:
    """A stretch of addresses that blocks are cut from.

    The system puts memory behind a page when it is first written to, so what no block has reached costs nothing.

    Attributes
    ----------
    holes
        (start, end) of what is free, in order; no two touch.
    reached
        End of the highest block so far.
    """

    def __init__(self, size: int):
        self._pages = _reserved(size)
        self.start = self.reached = np.frombuffer(self._pages, np.uint8).ctypes.data
        self.end = self.start + size
        self.holes = [(self.start, self.end)]

    def take(self, size: int) -> int:
        """Cut a block from the smallest hole that holds it, from the last only if there is no other; 0 if none does."""
        best, least = -1, sys.maxsize
        for index, (start, end) in enumerate(self.holes):
            if size <= end - start < least and (end < self.end or best < 0):
                best, least = index, end - start
        if best < 0:
            return 0
        start, end = self.holes[best]
        self.holes[best : best + 1] = [(start + size, end)] if start + size < end else []
        if start + size > self.reached:
            self.reached = start + size
        return start

    def join(self, start: int, end: int) -> None:
        """Make a hole, one with the holes that it touches."""
        index = bisect(self.holes, (start, end))
        if index < len(self.holes) and self.holes[index][0] == end:
            end = self.holes.pop(index)[1]
        if index and self.holes[index - 1][1] == start:
            index -= 1
            start = self.holes.pop(index)[0]
        self.holes.insert(index, (start, end))

    def forget(self, start: int, end: int) -> None:
        """Give the pages to the system; their addresses stay ours."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED, start - self.start, end - start)


def _reserved(size: int) -> mmap.mmap:
    """Addresses without memory behind them, in huge pages where there are such."""
    wanted = ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_NORESERVE")
    flags = sum(getattr(mmap, name, 0) for name in wanted)
    pages = mmap.mmap(-1, size, **({"flags": flags} if flags else {}))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


class _Shelf:
    """Blocks nobody uses, ``kept`` bytes of them. Of these it keeps ``limit``; the rest goes back to the system.

    Neighbours that are free become one hole: a training step frees in the reverse order of what it took, so it leaves
    few holes, and takes hardly more memory than is in use at its peak.
    """

    def __init__(self, limit: int, addresses: int | None = None):
        self.limit = limit
        self.kept = 0
        self._addresses = addresses
        self._arenas: list[_Arena] = []
        self._given: deque[tuple[int, _Block]] = deque()
        self._lock = threading.Lock()

    def take(self, size: int) -> _Block:
        with self._lock:
            self._put_back()
            for arena in self._arenas:
                before = arena.reached
                if start := arena.take(size):
                    self.kept = max(0, self.kept + arena.reached - before - size)  # what was forgotten does not count
                    return arena, start
            self._arenas.append(self._new(size))
            return self._arenas[-1], self._arenas[-1].take(size)

    def give(self, size: int, block: _Block) -> None:
        """Put a block back: later, if someone is at the shelf, for a collection in the middle of take() comes here."""
        self._given.append((size, block))
        if self._lock.acquire(blocking=False):
            try:
                self._put_back()
            finally:
                self._lock.release()

    def _put_back(self) -> None:
        while self._given:
            size, (arena, start) = self._given.popleft()
            arena.join(start, start + size)
            self.kept += size
            if self.kept > self.limit:
                arena.forget(start, start + size)

    def _new(self, size: int) -> _Arena:
        """An arena as long as the machine's memory; where the system refuses that, as the block."""
        try:
            return _Arena(max(size, self._addresses or installed() // _GRAIN * _GRAIN))
        except (OSError, OverflowError, ValueError):
            pass
        try:
            return _Arena(size)
        except OSError as error:
            raise MemoryError(
                f"the system has no {size:,} bytes for an array; use fewer images at a time, or compute them in parts"
            ) from error

    def clear(self) -> None:
        with self._lock:
            self._put_back()
            for arena in self._arenas:
                for start, end in arena.holes:
                    arena.forget(start, end)
                if arena.holes and arena.holes[-1][1] == arena.end:
                    arena.reached = arena.holes[-1][0]
            self.kept = 0


_shelf = _Shelf(limit=2 << 30)


class _Lease:
    """Owns one block while any array looks at it; NumPy keeps it alive as the array's base."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, size: int):
        self._size = (size // _GRAIN + 1) * _GRAIN  # never 2ⁿ: neighbours would meet in the same lines of the caches
        self._block = _shelf.take(self._size)
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (self._block[1], False),
        }

    def __del__(self) -> None:
        _shelf.give(self._size, self._block)


def is_sole(owner: object, name: str) -> bool:
    """Whether the memory of the array ``owner.name`` can be reached through ``owner`` alone; in doubt it is not."""
    if sys.getrefcount(getattr(owner, name)) > 2:  # the owner, and the argument here
        return False
    array = getattr(owner, name)
    if array.base is None:
        return bool(array.flags.owndata)
    return isinstance(array.base, _Lease) or (isinstance(array.base, np.ndarray) and is_sole(array, "base"))


def release() -> None:
    """Give every unused block back to the system."""
    _shelf.clear()


def empty_like(template: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """``empty`` with the type and the order in memory of ``template``, and with its shape if no other is given."""
    shape = template.shape if shape is None else shape
    if template.flags.c_contiguous:
        return empty(shape, template.dtype)
    order = slowest_first(template)
    return empty(tuple(shape[axis] for axis in order), template.dtype).transpose(np.argsort(order))


def in_order_of(template: np.ndarray, array: np.ndarray) -> np.ndarray:
    """``array`` with its memory in the order of ``template``, of the same shape; copied only if it is not."""
    if array.strides == template.strides and array.dtype == template.dtype:
        return array
    copy = empty_like(template)
    strided.assign(copy, array)
    return copy


def line(array: np.ndarray) -> np.ndarray:
    """All numbers of a dense array as one line, in the order of its memory; a view."""
    return array if array.ndim == 1 else array.transpose(slowest_first(array)).reshape(-1)


def dense(array: np.ndarray) -> np.ndarray:
    """The same array without gaps in memory; copied only if it has some."""
    ordered = array.transpose(slowest_first(array))
    return array if ordered.flags.c_contiguous else in_order_of(empty_like(array), array)


def slowest_first(array: np.ndarray) -> tuple[int, ...]:
    """Axes from the slowest to the fastest in memory."""
    if array.flags.c_contiguous:
        return tuple(range(array.ndim))
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))
