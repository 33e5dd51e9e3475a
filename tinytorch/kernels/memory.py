"""Recycled storage for large arrays.

The system hands out fresh memory as unmapped pages, and the first write to each costs a trip into the kernel: filling
a fresh 64 MB array runs several times slower than filling one that was used before. A training step asks for the same
sizes again and again, so a block goes back on a shelf when the last view of it dies, and the next arrays that fit take
it from there. All blocks are cut from one stretch of addresses, in which free neighbours become one.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import operator
import os
import sys
import threading
import tracemalloc
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from tinytorch.kernels import strided

SMALLEST = 1 << 16  # bytes; the C library already recycles what is smaller
_GRAIN = max(4096, mmap.PAGESIZE)  # bytes that blocks are multiples of, and so aligned to
_LIMIT = 2 << 30  # bytes that may wait for their next use

_Block = tuple["_Arena", int, int]  # where it was cut from, its first address, and the one behind it


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
    size = count * dtype.itemsize
    if 0 < size < SMALLEST:
        return np.empty(shape, dtype)
    check_size(shape, dtype)
    shelf = _shelf
    if not size or shelf is None:
        return np.empty(shape, dtype)
    size = (size // _GRAIN + 1) * _GRAIN  # never 2ⁿ: neighbours would meet in the same lines of the caches
    return np.asarray(_Lease(shelf, shelf.take(size), shape, dtype))


def check_size(shape: Sequence[int], dtype: npt.DTypeLike) -> None:
    """Raise unless an array of this shape, with at least one number along each axis, would fit the machine.

    Raises
    ------
    MemoryError
        If it is larger than the machine's memory.
    """
    size = math.prod(max(n, 1) for n in shape) * np.dtype(dtype).itemsize
    if size > installed():
        raise MemoryError(
            f"an array of shape {tuple(shape)} and type {np.dtype(dtype)} takes {size:,} bytes, and this machine has "
            f"{installed():,}; use fewer images at a time, smaller ones, or fewer channels"
        )


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


# For a system that gives addresses first, and memory when it is needed. A forked process gets a copy of its own.
_RESERVE = sum(getattr(mmap, name, 0) for name in ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_NORESERVE"))
_UNNEEDED = getattr(mmap, "MADV_DONTNEED" if sys.platform == "linux" else "MADV_FREE", None)
_track, _untrack = (
    partial(ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_uint, *kinds)((name, ctypes.pythonapi)), 0x7477)
    for name, kinds in (("PyTraceMalloc_Track", (ctypes.c_size_t,) * 2), ("PyTraceMalloc_Untrack", (ctypes.c_size_t,)))
)


class _Arena:
    """A stretch of addresses that blocks are cut from.

    The system puts memory behind a page when it is first written to, so what no block has reached costs nothing.

    Attributes
    ----------
    start, end
        Of the addresses.
    top
        Everything from here on is free.
    reached
        The highest that ``top`` has been.
    """

    def __init__(self, pages: mmap.mmap):
        self._pages = pages
        self.start = self.top = self.reached = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        self.end = self.start + len(pages)
        self._holes: list[tuple[int, int]] = []  # (length, start) of each below the top, in order; no two touch
        self._end_of: dict[int, int] = {}  # by the start of a hole
        self._start_of: dict[int, int] = {}  # by its end
        self._untold = self.start

    def take(self, size: int) -> int:
        """Cut a block from the smallest hole that holds it, or at the top; 0 if there is no room."""
        index = bisect_left(self._holes, (size, 0))
        if index == len(self._holes):
            return self._take_top(size)
        length, start = self._holes[index]
        self._close(start, start + length)
        if length > size:
            self._open(start + size, start + length)
        return start

    def _take_top(self, size: int) -> int:
        start = self.top
        if self.end - start < size:
            return 0
        self.top += size
        if self.top > self.reached:
            self._reach(self.top)
        return start

    def give(self, start: int, end: int) -> None:
        """Make a hole of a block, one with the holes that it touches, or with what is above the top."""
        if before := self._start_of.get(start):
            self._close(before, start)
            start = before
        if after := self._end_of.get(end):
            self._close(end, after)
            end = after
        if end == self.top:
            self.top = start
        else:
            self._open(start, end)

    def _open(self, start: int, end: int) -> None:
        self._end_of[start], self._start_of[end] = end, start
        insort(self._holes, (end - start, start))

    def _close(self, start: int, end: int) -> None:
        del self._holes[bisect_left(self._holes, (end - start, start))], self._end_of[start], self._start_of[end]

    def forget(self) -> None:
        """Give the pages of what is free to the system; their addresses stay ours."""
        if _UNNEEDED is not None:
            for start, end in (*self._end_of.items(), (self.top, self.reached)):
                if start < end:
                    self._pages.madvise(_UNNEEDED, start - self.start, end - start)
        self._reach(self.top)

    def _reach(self, end: int) -> None:
        """Set ``reached``; for ``tracemalloc``, the arena is one block, which grows from where its tracing began."""
        self.reached = end
        if tracemalloc.is_tracing():
            _track(self.start, max(0, end - self._untold))
        else:
            self._untold = end

    def __del__(self, untrack: Callable[[int], int] = _untrack) -> None:
        untrack(self.start)


def _reserved(size: int) -> mmap.mmap | None:
    """Addresses without memory behind them, in huge pages where there are such; None if the system refuses them."""
    try:
        pages = mmap.mmap(-1, size, flags=_RESERVE) if _RESERVE else mmap.mmap(-1, size)
    except (OSError, OverflowError):
        return None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


class _Shelf:
    """Blocks nobody uses, some ``kept`` bytes of them. When they are more than ``limit``, all go back to the system.

    A training step frees in the reverse order of what it took, so its blocks join to few holes, and it takes hardly
    more memory than is in use at its peak.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.kept = 0
        self._arenas: list[_Arena] = []
        self._given: deque[_Block] = deque()

    def take(self, size: int) -> _Block:
        with _lock:
            self._put_back()
            for arena in self._arenas:
                before = arena.reached
                if start := arena.take(size):
                    self.kept = max(0, self.kept - size + arena.reached - before)  # what is new was not kept
                    return arena, start, start + size
            arena = self._another(size)
            return arena, arena.take(size), arena.top

    def give(self, block: _Block) -> None:
        """Put a block back: later, if someone is at the shelf, for a collection in the middle of take() comes here."""
        self._given.append(block)
        if _lock.acquire(blocking=False):
            try:
                self._put_back()
            finally:
                _lock.release()

    def _put_back(self) -> None:
        while self._given:
            arena, start, end = self._given.popleft()
            arena.give(start, end)
            self.kept += end - start
            if self.kept > self.limit:
                self._forget()

    def _another(self, size: int) -> _Arena:
        """An arena as long as the machine's memory; where that is refused, or would be taken at once, as the block."""
        long = installed() // _GRAIN * _GRAIN if _RESERVE else 0
        pages = _reserved(max(size, long)) or _reserved(size)
        if pages is None:
            self._forget()
            pages = _reserved(size)
        if pages is None:
            raise MemoryError(
                f"an array takes {size:,} bytes, and the system gives this process no more; use fewer images at a time "
                "or let go of results, or raise the limit (ulimit -v)"
            )
        self._arenas.append(_Arena(pages))
        return self._arenas[-1]

    def clear(self) -> None:
        with _lock:
            self._put_back()
            self._forget()

    def _forget(self) -> None:
        self._arenas = [arena for arena in self._arenas if arena.top > arena.start]
        for arena in self._arenas:
            arena.forget()
        self.kept = 0


_lock = threading.Lock()  # one for all, so that a fork can take it: what the child gets is whole, and not locked
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)

_shelf: _Shelf | None = _Shelf(_LIMIT)


class _Lease:
    """Owns one block while any array looks at it; NumPy keeps it alive as the array's base."""

    def __init__(self, shelf: _Shelf, block: _Block, shape: tuple[int, ...], dtype: np.dtype):
        self._shelf, self._block = shelf, block
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (block[1], False)}

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:  # when the names of modules are gone
        if not at_exit():
            self._shelf.give(self._block)


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
    if _shelf is not None:
        _shelf.clear()


@contextmanager
def afresh(recycling: bool = True) -> Iterator[None]:
    """Within the block nothing is recycled that is not from within the block, or nothing at all.

    For rehearsals in one thread: others, if they run, get fresh memory meanwhile. ``tracemalloc`` then counts what is
    taken from the system, or, if nothing is recycled, every array while it lives.
    """
    global _shelf
    before, scratches = _shelf, _scratches.arrays
    _shelf, _scratches.arrays = _Shelf(_LIMIT) if recycling else None, {}
    try:
        yield
    finally:
        _shelf, _scratches.arrays = before, scratches


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
