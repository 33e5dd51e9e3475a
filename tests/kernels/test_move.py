"""Runs, rows and squares of numbers from place to place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tinytorch.kernels import move
from tinytorch.kernels.pick import pick, pick_of
from tinytorch.kernels.target import target

TRIALS = settings(max_examples=60, deadline=None, derandomize=True)
WALL = 64
FLOATS = st.sampled_from([np.dtype(np.float32), np.dtype(np.float64)])


def walled(array):
    """The numbers of an array in the middle of a line of NaN."""
    line = np.full(array.size + 2 * WALL, np.nan, array.dtype)
    line[WALL:-WALL] = array.reshape(-1)
    return line


@njit
def run_transpose(which, source, source_step, sink, sink_step, rows, columns):
    move.transpose(which, (source, WALL), source_step, (sink, WALL), sink_step, rows, columns)


@njit
def run_copy_rows(which, source, source_step, sink, sink_step, rows, columns):
    move.copy_rows(which, (source, WALL), source_step, (sink, WALL), sink_step, rows, columns)


@njit
def run_moves(source, sink, at, start, count):
    move.copy(sink, at, source, start, count)
    move.clear(sink, at + count, 3)


@njit
def run_pick(which, dy, winners, dx, tap, windows, step, lanes):
    pick(which, (dy, WALL), (winners, 0), (dx, WALL), tap, windows, step, lanes)


@TRIALS
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3), FLOATS)
def test_transpose(rows, columns, gap, dtype):
    source = np.arange(rows * (columns + gap), dtype=dtype).reshape(rows, columns + gap)
    sink = np.full(columns * (rows + gap) + 2 * WALL, -1, dtype)
    run_transpose(move.transpose_of(dtype), walled(source), columns + gap, sink, rows + gap, rows, columns)
    expected = np.full((columns, rows + gap), -1, dtype)
    expected[:, :rows] = source[:, :columns].T
    np.testing.assert_array_equal(sink[WALL:-WALL].reshape(columns, rows + gap), expected)
    assert (sink[:WALL] == -1).all() and (sink[-WALL:] == -1).all()


@TRIALS
@given(st.integers(0, 9), st.integers(1, 70), st.integers(0, 3), FLOATS)
def test_copy_rows(rows, columns, gap, dtype):
    width = target().lanes(dtype.itemsize)
    source = np.arange(rows * (columns + gap), dtype=dtype).reshape(rows, columns + gap)
    sink = np.full(rows * (columns + gap) + 2 * WALL, -1, dtype)
    which = move.copy_rows_of(-(-columns // width), columns % width > 0, dtype)
    run_copy_rows(which, walled(source), columns + gap, sink, columns + gap, rows, columns)
    expected = np.full_like(source, -1)
    expected[:, :columns] = source[:, :columns]
    np.testing.assert_array_equal(sink[WALL:-WALL].reshape(source.shape), expected)
    assert (sink[:WALL] == -1).all() and (sink[-WALL:] == -1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copy_and_clear(dtype):
    source, sink = np.arange(20, dtype=dtype), np.full(20, -1, dtype)
    run_moves(source, sink, 4, 10, 5)
    np.testing.assert_array_equal(sink, [-1] * 4 + [10, 11, 12, 13, 14] + [0] * 3 + [-1] * 8)


@TRIALS
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 5), FLOATS, st.integers(0, 99))
def test_pick(windows, lanes, gap, dtype, seed):
    rng = np.random.default_rng(seed)
    winners = rng.integers(0, 3, (windows, lanes)).astype(np.uint8)
    dy, step = rng.integers(-9, 9, (windows, lanes)).astype(dtype), lanes + gap
    dx = np.full(windows * step + 2 * WALL, -1, dtype)
    run_pick(pick_of(lanes, dtype), walled(dy), winners.reshape(-1), dx, 1, windows, step, lanes)
    expected = np.full((windows, step), -1, dtype)
    expected[:, :lanes] = np.where(winners == 1, dy, 0)
    np.testing.assert_array_equal(dx[WALL:-WALL].reshape(windows, step), expected)
    assert (dx[:WALL] == -1).all() and (dx[-WALL:] == -1).all()


def test_interpreted_twins_agree():
    source = np.arange(12.0)
    sink, picked = np.zeros(12), np.zeros(8)
    move.transpose(0, (source, 0), 4, (sink, 0), 3, 3, 4)
    np.testing.assert_array_equal(sink.reshape(4, 3), source.reshape(3, 4).T)
    move.copy_rows(0, (source, 4), 4, (sink, 0), 6, 2, 3)
    np.testing.assert_array_equal(sink[[0, 1, 2, 6, 7, 8]], [4, 5, 6, 8, 9, 10])
    pick(0, (source, 0), (np.array([0, 1, 1, 0], np.uint8), 0), (picked, 0), 1, 2, 4, 2)
    np.testing.assert_array_equal(picked, [0, 1, 0, 0, 2, 0, 0, 0])
