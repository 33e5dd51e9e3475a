"""Recycled storage: what it hands out, when it takes it back, and that two arrays never share a block."""

import ctypes
import gc
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.kernels import memory


@pytest.fixture(autouse=True)
def empty_shelf():
    memory.release()
    yield
    memory.release()


def address(array):
    return array.__array_interface__["data"][0]


def test_a_dead_block_is_used_again():
    first = memory.empty((256, 1024), np.float32)
    where = address(first)
    del first
    assert address(memory.empty((1024, 256), np.float32)) == where


def test_a_view_keeps_the_block():
    first = memory.empty((256, 1024), np.float32)
    view = first[3:, ::2].T
    where = address(first)
    del first
    gc.collect()
    assert address(memory.empty((256, 1024), np.float32)) != where
    del view
    assert address(memory.empty((256, 1024), np.float32)) == where


def test_release_gives_blocks_back():
    where = address(memory.empty(1 << 20, np.float32))
    memory.release()
    kept = [memory.empty(1 << 20, np.float32)]
    assert where is not None and memory._shelf.kept == 0
    del kept
    assert memory._shelf.kept > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_shelf_has_a_limit():
    def resident():
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) << 10

    size = 64 << 20
    shelf = memory._Shelf(limit=size)
    before, blocks = resident(), [shelf.take(size) for _ in range(3)]
    for _, start in blocks:
        ctypes.memset(start, 1, size)
    assert resident() - before > 2.9 * size
    for block in blocks:
        shelf.give(size, block)
    assert shelf.kept == 3 * size  # addresses; but of memory
    assert 0.9 * size < resident() - before < 1.1 * size
    shelf.clear()
    assert shelf.kept == 0 and resident() - before < 0.1 * size


def test_neighbours_become_one_hole_and_the_smallest_that_fits_is_taken():
    shelf = memory._Shelf(limit=1 << 30, addresses=64 << 12)
    page = 1 << 12
    blocks = [shelf.take(n * page) for n in (4, 1, 2, 1, 3, 1)]
    starts = [start for _, start in blocks]
    for index, n in ((0, 4), (2, 2), (4, 3)):
        shelf.give(n * page, blocks[index])
    assert shelf.take(2 * page)[1] == starts[2]
    assert shelf.take(3 * page)[1] == starts[4]
    assert shelf.take(5 * page)[1] == starts[5] + page  # nothing but the end is long enough
    shelf.give(page, blocks[1])
    assert shelf.take(5 * page)[1] == starts[0]


def test_a_full_stretch_of_addresses_is_followed_by_another():
    shelf = memory._Shelf(limit=1 << 30, addresses=1 << 16)
    first, second = shelf.take(1 << 16), shelf.take(1 << 17)
    assert first[0] is not second[0]
    shelf.give(1 << 17, second)
    assert shelf.take(1 << 16) == second


def test_where_addresses_are_scarce_a_block_takes_no_more_than_it_needs(monkeypatch):
    def scarce(size, reserved=memory._reserved):
        if size > 1 << 17:
            raise OSError("no")
        return reserved(size)

    monkeypatch.setattr(memory, "_reserved", scarce)
    arena, start = memory._Shelf(limit=0).take(1 << 16)
    assert (arena.start, arena.end) == (start, start + (1 << 16))


def test_no_memory_at_all(monkeypatch):
    def none(size):
        raise OSError("no")

    monkeypatch.setattr(memory, "_reserved", none)
    with pytest.raises(MemoryError, match="the system has no 65,536 bytes for an array; use fewer images at a time"):
        memory._Shelf(limit=0).take(1 << 16)


def test_a_block_given_back_while_another_is_taken_waits():
    shelf = memory._Shelf(limit=1 << 30)
    block = shelf.take(1 << 16)
    with shelf._lock:
        shelf.give(1 << 16, block)
        assert shelf.kept == 0
    assert shelf.take(1 << 16) == block


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60))
def test_blocks_never_overlap_and_all_is_one_hole_again_at_the_end(steps):
    shelf, page, alive = memory._Shelf(limit=1 << 30, addresses=1 << 20), 1 << 12, []
    for takes, n in steps:
        if takes or not alive:
            alive.append((n * page, shelf.take(n * page)))
        else:
            shelf.give(*alive.pop(n % len(alive)))
        ends = sorted((start, start + size) for size, (_, start) in alive)
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))
        reached = sum(arena.reached - arena.start for arena in shelf._arenas)
        assert shelf.kept == reached - sum(size for size, _ in alive)
    for size, block in alive:
        shelf.give(size, block)
    assert all(arena.holes == [(arena.start, arena.end)] for arena in shelf._arenas)


def test_an_array_is_alone_while_nobody_else_can_reach_its_memory():
    class Owner:
        pass

    for make in (lambda: np.ones(3), lambda: np.ones((2, 3))[0], lambda: memory.empty((300, 300), np.float32)):
        owner = Owner()
        owner.array = make()
        assert memory.is_sole(owner, "array")
        view = owner.array[:1]
        assert not memory.is_sole(owner, "array")
        del view
        other = owner.array
        assert not memory.is_sole(owner, "array") and other is not None
    owner.array = np.frombuffer(bytearray(8), np.uint8)
    assert not memory.is_sole(owner, "array")


def test_shapes_types_and_alignment():
    for shape, dtype in [
        ((3,), np.float64),
        ((64, 1024), np.float32),
        (100_000, np.int32),
        ((0, 5), np.float32),
        ((), np.float32),
    ]:
        array = memory.empty(shape, dtype)
        assert array.shape == np.empty(shape, dtype).shape and array.dtype == dtype and array.flags.writeable
    assert address(memory.empty((64, 1024), np.float32)) % 64 == 0
    assert (memory.zeros((300, 300), np.float32) == 0).all()


def test_threads_never_share_a_block():
    failures = []

    def work(value):
        for _ in range(300):
            mine = memory.empty(40_000, np.float32)
            mine.fill(value)
            if (mine != value).any():
                failures.append(value)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_line_and_order():
    x = np.arange(24.0).reshape(2, 3, 4)
    turned = x.transpose(2, 0, 1)
    np.testing.assert_array_equal(memory.line(turned), np.arange(24.0))
    assert np.shares_memory(memory.line(turned), x)
    like = memory.empty_like(turned)
    assert like.shape == turned.shape and like.strides == turned.strides
    copy = memory.in_order_of(turned, np.ascontiguousarray(turned))
    assert copy.strides == turned.strides
    np.testing.assert_array_equal(copy, turned)
    assert memory.in_order_of(turned, turned) is turned


def test_dense_copies_only_what_has_gaps():
    x = np.arange(24.0).reshape(4, 6)
    assert memory.dense(x.T) is not None and np.shares_memory(memory.dense(x.T), x)
    gappy = memory.dense(x[:, ::2])
    assert not np.shares_memory(gappy, x)
    np.testing.assert_array_equal(gappy, x[:, ::2])
