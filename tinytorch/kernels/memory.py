"""Recycled storage for large arrays.

The system hands out fresh memory as unmapped pages, and the first write to each costs a trip into the kernel: filling
a fresh 64 MB array runs several times slower than filling one that was used before. A training step asks for the same
sizes again and again, so a block goes back on a shelf when the last view of it dies, and the next array of that size
takes it from there.
"""

from __future__ import annotations

import math
import operator
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import numpy.typing as npt

from tinytorch.kernels import strided

SMALLEST = 1 << 16  # bytes; the C library already recycles what is smaller
_GRAIN = 4096  # sizes are rounded up to pages, so that nearly equal shapes share blocks
_ALIGNMENT = 64  # bytes; one cache line, one AVX-512 vector

_Block = tuple[np.ndarray, int]  # memory, and the first aligned address in it


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
    if 0 < count * dtype.itemsize < SMALLEST:
        return np.empty(shape, dtype)
    check_size(shape, dtype)
    if not count:
        return np.empty(shape, dtype)
    size = -(-count * dtype.itemsize // _GRAIN) * _GRAIN
    return np.asarray(_Lease(_shelf, size, _shelf.take(size))).view(dtype)[:count].reshape(shape)


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


class _Shelf:
    """Blocks nobody uses, by size. Keeps at most ``limit`` bytes; the rest goes back to the system."""

    def __init__(self, limit: int):
        self.limit = limit
        self.kept = 0
        self._blocks: dict[int, list[_Block]] = defaultdict(list)
        self._lock = threading.RLock()  # re-entrant: a collection during take() may give blocks back

    def take(self, size: int) -> _Block:
        with self._lock:
            if self._blocks[size]:
                self.kept -= size
                return self._blocks[size].pop()
        memory = np.empty(size + _ALIGNMENT, np.uint8)
        return memory, -(-memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT

    def give(self, size: int, block: _Block) -> None:
        with self._lock:
            if self.kept + size <= self.limit:
                self.kept += size
                self._blocks[size].append(block)

    def clear(self) -> None:
        with self._lock:
            self._blocks.clear()
            self.kept = 0


_shelf = _Shelf(limit=2 << 30)


class _Lease:
    """Owns one block while any array looks at it; NumPy keeps it alive as the array's base."""

    def __init__(self, shelf: _Shelf, size: int, block: _Block):
        self._shelf, self._size, self._block = shelf, size, block
        self.__array_interface__ = {
            "version": 3,
            "shape": (self._size,),
            "typestr": "|u1",
            "data": (self._block[1], False),
        }

    def __del__(self) -> None:
        self._shelf.give(self._size, self._block)


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


@contextmanager
def afresh(recycling: bool = True) -> Iterator[None]:
    """Within the block nothing is recycled that is not from within the block, or nothing at all.

    For rehearsals in one thread: others, if they run, get fresh memory meanwhile.
    """
    global _shelf
    before, scratches = _shelf, _scratches.arrays
    _shelf, _scratches.arrays = _Shelf(before.limit if recycling else 0), {}
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
