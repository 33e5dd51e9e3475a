"""Recycled storage: what it hands out, when it takes it back, and that two arrays never share a block."""

import gc
import threading

import numpy as np
import pytest

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


def test_the_shelf_has_a_limit():
    shelf = memory._Shelf(limit=100)
    shelf.give(60, np.empty(60, np.uint8))
    shelf.give(60, np.empty(60, np.uint8))
    assert shelf.kept == 60


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
