"""Recycled storage: what it hands out, when it takes it back, and that two arrays never share a block."""

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.kernels import memory

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20
PAGE = memory._GRAIN


@pytest.fixture(autouse=True)
def fresh_shelf():
    with memory.afresh():
        yield


def address(array):
    return array.__array_interface__["data"][0]


def reach():
    """Bytes up to the highest that was in use."""
    return sum(arena.reached - arena.start for arena in memory._shelf._arenas)


# ---- arrays -------------------------------------------------------------------------------------------------------


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


def test_neighbours_join():
    arrays = [memory.empty(MIB, np.uint8) for _ in range(5)]
    where, before = address(arrays[1]), reach()
    for index in (2, 1, 3):
        arrays[index] = None
    assert address(memory.empty(3 * MIB, np.uint8)) == where
    assert reach() == before


def test_a_step_takes_what_is_in_use_at_its_peak():
    """Forward and backward of eight layers: what the forward keeps is freed in reverse, and gradients come and go."""
    for _ in range(3):
        kept, gradient = [memory.empty((i + 1) * MIB, np.uint8) for i in range(8)], None
        for size in range(8, 0, -1):
            gradient = memory.empty(size * MIB, np.uint8)
            kept.pop()
    del gradient
    assert reach() <= (36 + 8 + 7) * MIB + 20 * PAGE


def test_the_smallest_hole_that_fits_is_taken():
    arrays = [memory.empty(size * MIB, np.uint8) for size in (4, 1, 2, 1, 3, 1)]
    where = address(arrays[2])
    arrays[0] = arrays[2] = arrays[4] = None
    assert address(memory.empty(MIB + 5, np.uint8)) == where


def test_neighbours_are_never_a_power_of_two_apart():
    first, second = (memory.empty(1 << 20, np.uint8) for _ in range(2))
    assert address(second) - address(first) == (1 << 20) + PAGE


def test_shapes_types_and_alignment():
    for shape, dtype in [
        ((3,), np.float64),
        ((64, 1024), np.float32),
        (100_000, np.int32),
        (100_000, np.bool_),
        ((0, 5), np.float32),
        ((), np.float32),
    ]:
        array = memory.empty(shape, dtype)
        assert array.shape == np.empty(shape, dtype).shape and array.dtype == dtype
        assert array.flags.writeable and array.flags.c_contiguous
    assert address(memory.empty((64, 1024), np.float32)) % 64 == 0
    assert (memory.zeros((300, 300), np.float32) == 0).all()


# ---- what goes back -----------------------------------------------------------------------------------------------


def test_release_gives_blocks_back():
    array = memory.empty(MIB, np.float32)
    pages = weakref.ref(memory._shelf._arenas[0])
    memory.release()
    assert pages() is not None and memory._shelf.kept == 0
    del array
    assert memory._shelf.kept > 4 * MIB
    memory.release()
    assert pages() is None and memory._shelf.kept == 0


def test_release_spares_what_is_in_use():
    arrays = [memory.zeros(MIB, np.float32) for _ in range(3)]
    arrays[1] = None
    arrays[0] += 1
    before = reach()
    memory.release()
    assert reach() == before and (arrays[0] == 1).all() and (arrays[2] == 0).all()
    arrays[2] = None
    memory.release()
    assert reach() == before - 2 * (before // 3)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system takes pages back when it likes")
def test_what_goes_back_is_gone():
    low, high = memory.empty(MIB, np.uint8), memory.empty(MIB, np.uint8)
    low.fill(7)
    where = address(low)
    del low
    memory.release()
    again = memory.empty(MIB, np.uint8)
    assert address(again) == where and not again.any() and high.size


def test_the_shelf_has_a_limit():
    shelf = memory._Shelf(limit=100 * PAGE)
    first, second = shelf.take(60 * PAGE), shelf.take(60 * PAGE)
    shelf.give(first)
    assert shelf.kept == 60 * PAGE
    shelf.give(second)
    assert shelf.kept == 0 and shelf._arenas == []


def test_what_has_gone_back_is_not_counted_when_it_is_taken():
    shelf = memory._Shelf(limit=100 * PAGE)
    large, high = shelf.take(90 * PAGE), shelf.take(20 * PAGE)
    shelf.give(large)
    shelf.clear()
    for _ in range(3):  # a smaller model after a large one: its blocks stay
        shelf.give(shelf.take(30 * PAGE))
        assert shelf.kept == 30 * PAGE
    shelf.give(high)
    assert shelf.kept == 50 * PAGE


# ---- no two share -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30), st.booleans()), max_size=80))
def test_blocks_never_overlap_and_join_to_nothing(steps):
    """Random takes and gives against a list of intervals; what is given back is one hole again."""
    shelf, taken, peak = memory._Shelf(limit=1 << 60), [], 0
    for pages, which, takes in steps:
        if takes or not taken:
            block = _, start, end = shelf.take(pages * PAGE)
            assert end - start == pages * PAGE and start % PAGE == 0
            assert all(end <= other or start >= behind for _, other, behind in taken)
            taken.append(block)
            peak = max(peak, sum(behind - other for _, other, behind in taken))
        else:
            shelf.give(taken.pop(which % len(taken)))
        for arena in shelf._arenas:
            used = sum(end - start for _, start, end in taken)
            assert arena.top - arena.start - used == sum(length for length, _ in arena._holes)
            assert arena.reached - arena.start - used == shelf.kept
            assert arena.reached - arena.start >= peak
    for block in taken:
        shelf.give(block)
    assert all(arena.top == arena.start and not arena._holes for arena in shelf._arenas)


def test_threads_never_share_a_block():
    failures = []

    def work(value):
        mine = []
        for step in range(300):
            mine.append(memory.empty(20_000 + 9_000 * (step % 5), np.float32))
            mine[-1].fill(value)
            if any((array != value).any() for array in mine):
                failures.append(value)
            del mine[: len(mine) // 3]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.release()
    assert not failures and memory._shelf._arenas == []


def test_a_collection_while_a_block_is_taken_gives_back_later(monkeypatch):
    array, where = memory.empty(MIB, np.uint8), []

    def take(self, size):
        nonlocal array
        where.append(address(array))
        array = None  # its lease dies here, in the middle of take()
        return original(self, size)

    original = memory._Arena.take
    monkeypatch.setattr(memory._Arena, "take", take)
    other = memory.empty(MIB, np.uint8)
    monkeypatch.undo()
    assert address(other) != where[0]
    assert address(memory.empty(MIB, np.uint8)) == where[0]


def test_afresh_shares_nothing_and_leaves_nothing_behind():
    shelf, scratch = memory._shelf, memory.scratch(1, 100_000, np.dtype(np.float32))
    where = address(memory.empty(MIB, np.uint8))
    with memory.afresh():
        inner = memory.empty(MIB, np.uint8)
        assert address(inner) != where and address(memory.scratch(1, 100_000, scratch.dtype)) != address(scratch)
        inner.fill(3)
    assert memory._shelf is shelf and address(memory.scratch(1, 100_000, scratch.dtype)) == address(scratch)
    assert address(memory.empty(MIB, np.uint8)) == where and (inner == 3).all()
    kept = shelf.kept
    del inner
    assert shelf.kept == kept


def test_afresh_without_recycling_makes_arrays_of_their_own():
    with memory.afresh(recycling=False):
        array = memory.empty(MIB, np.uint8)
        memory.release()
    assert array.flags.owndata and memory._shelf.kept == 0


# ---- processes and systems ----------------------------------------------------------------------------------------


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


FORK = """
import os, threading, time
import numpy as np
from tinytorch.kernels import memory

def work():
    while True:
        memory.empty(50_000, np.float32).fill(1)

threading.Thread(target=work, daemon=True).start()
mine = memory.zeros(1 << 20, np.float32)
for _ in range(40):
    child = os.fork()
    if not child:
        others = [memory.empty(100_000, np.float32) for _ in range(5)]
        mine[:] = 5
        os._exit(0 if all(not np.shares_memory(mine, other) for other in others) else 1)
    assert os.waitpid(child, 0)[1] == 0
print(mine.any())
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_a_fork_goes_on_by_itself():
    """While another thread is at the shelf; what the child writes, the parent does not see."""
    assert run(FORK) == "False\n"


LIMITED = """
import resource
import numpy as np
from tinytorch.kernels import memory

size = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + (300 << 20),) * 2)
arrays = [memory.empty(4 << 20, np.float32) for _ in range(10)]
for value, array in enumerate(arrays):
    array.fill(value)
print(len(memory._shelf._arenas), all((array == value).all() for value, array in enumerate(arrays)))
del array, arrays
print(memory.empty(55 << 20, np.float32).size, len(memory._shelf._arenas))
try:
    memory.empty(90 << 20, np.float32)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_long_stretches_are_refused_blocks_are_taken_one_by_one():
    """As under ``ulimit -v``; when there is no more, free blocks make room."""
    first, second, third = run(LIMITED).splitlines()
    assert first == "10 True"
    assert second == f"{55 << 20} 1"
    assert third.startswith(
        f"an array takes {(360 << 20) + PAGE:,} bytes, and the system gives this process no more; use"
    )


@pytest.mark.parametrize("names", [{"_RESERVE": 0, "_UNNEEDED": None}, {"_UNNEEDED": None}])
def test_systems_that_lack_flags_or_advice(monkeypatch, names):
    for name, value in names.items():
        monkeypatch.setattr(memory, name, value)
    arrays = [memory.zeros(MIB, np.uint8) for _ in range(4)]
    arrays[2] = None
    memory.release()
    assert len(memory._shelf._arenas) == (3 if "_RESERVE" in names else 1)
    assert address(memory.empty(MIB, np.uint8)) not in [address(array) for array in arrays if array is not None]
    arrays.clear()
    memory.release()
    assert memory._shelf._arenas == []


def test_arrays_alive_at_exit_are_left_to_the_system():
    code = "import numpy as np, tinytorch.kernels.memory as m; a = m.zeros(1 << 20, 'f4'); np.kept = a[::2]; print(1)"
    assert run(code) == "1\n"


# ---- what tracemalloc sees ----------------------------------------------------------------------------------------


@pytest.fixture
def traced():
    """What it gives tells the bytes that are traced, more than at first."""
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()


def test_the_stretch_is_traced_as_far_as_it_was_reached(traced):
    first, second = memory.empty(2 * MIB, np.uint8), memory.empty(3 * MIB, np.uint8)
    assert 5 * MIB <= traced() < 5.1 * MIB
    del first
    third = memory.empty(MIB, np.uint8)
    assert 5 * MIB <= traced() < 5.1 * MIB  # in the hole
    memory.release()
    assert 5 * MIB <= traced() < 5.1 * MIB
    del second
    memory.release()
    assert third.size <= traced() < 1.1 * MIB
    del third
    memory.release()
    assert traced() < 0.1 * MIB


def test_only_what_grows_while_it_is_traced_counts():
    before = memory.empty(2 * MIB, np.uint8)
    tracemalloc.start()
    try:
        more = memory.empty(3 * MIB, np.uint8)
        assert more.size <= tracemalloc.get_traced_memory()[0] < 3.2 * MIB and before.size
    finally:
        tracemalloc.stop()


def test_arrays_are_traced_each_without_recycling(traced):
    with memory.afresh(recycling=False):
        first, second = memory.empty(2 * MIB, np.uint8), memory.empty(3 * MIB, np.uint8)
        assert 5 * MIB <= traced() < 5.1 * MIB
        del first
        assert second.size <= traced() < 3.1 * MIB


# ---- orders in memory ---------------------------------------------------------------------------------------------


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
