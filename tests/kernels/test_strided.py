"""Copies and sums of arrays in any order of memory, against NumPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.core.tensor import Tensor, cat
from tinytorch.kernels import strided


@st.composite
def views(draw, shape, rng):
    """An array of this shape inside a larger one: axes in any order, with gaps, some of them backwards."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, 3])) for _ in shape]
    spare = [draw(st.integers(0, 2)) for _ in shape]
    whole = rng.integers(-50, 50, [shape[axis] * steps[axis] + spare[axis] for axis in order]).astype(np.float32)
    part = whole.transpose(np.argsort(order))[tuple(slice(0, n * s, s) for n, s in zip(shape, steps, strict=True))]
    return np.flip(part, [axis for axis in range(len(shape)) if draw(st.booleans())])


@st.composite
def pairs(draw):
    shape = tuple(draw(st.lists(st.integers(1, 19), min_size=1, max_size=5)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return draw(views(shape, rng)), draw(views(shape, rng))


@pytest.fixture(autouse=True)
def even_small_ones(monkeypatch):
    monkeypatch.setattr(strided, "_SMALL", 1)


@settings(deadline=None)  # the first compiles
@given(pairs())
def test_assign(pair):
    to, source = pair
    around = to.base.sum(dtype=np.float64) - to.sum(dtype=np.float64)
    strided.assign(to, source)
    np.testing.assert_array_equal(to, source)
    assert to.base.sum(dtype=np.float64) - to.sum(dtype=np.float64) == around  # what lies between is left alone


@settings(deadline=None)  # the first compiles
@given(pairs())
def test_add(pair):
    to, source = pair
    expected = to + source
    strided.add(to, source)
    np.testing.assert_array_equal(to, expected)


@pytest.mark.parametrize("shape", [(2, 40, 33, 17), (1, 64, 16, 16), (3, 16, 700), (2, 5, 6, 7, 8), (9000, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_order_of_axes(shape, dtype):
    source = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    order = np.roll(np.arange(len(shape)), 1)
    to = np.zeros([shape[axis] for axis in order], dtype).transpose(np.argsort(order))
    strided.assign(to, source)
    np.testing.assert_array_equal(to, source)
    back = np.zeros(shape, dtype)
    strided.assign(back, to)
    strided.add(back, to)
    np.testing.assert_array_equal(back, 2 * source)


def test_a_place_read_many_times():
    to = np.zeros((30, 40), np.float32)
    strided.assign(to, np.lib.stride_tricks.as_strided(np.full(40, 3, np.float32), (30, 40), (0, 4), writeable=True))
    assert (to == 3).all()


@pytest.mark.parametrize(
    "source", [np.arange(12).reshape(3, 4), np.broadcast_to(np.float32(2), (3, 4)), np.ones((1, 4)), np.float32(1)]
)
def test_what_is_left_to_numpy(source):
    to, total = np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32)
    strided.assign(to, source)
    strided.add(total, np.asarray(source, np.float32))
    np.testing.assert_array_equal(to, np.broadcast_to(source, (3, 4)))
    np.testing.assert_array_equal(total, 1 + to)


def test_joined_images_stay_channels_last():
    first, second = (
        Tensor(np.random.default_rng(c).standard_normal((2, 6, 5, c)).transpose(0, 3, 1, 2)) for c in (3, 4)
    )
    joined = cat([first, second], dim=1)
    np.testing.assert_array_equal(joined.data, np.concatenate([first.data, second.data], 1))
    assert joined.data.transpose(0, 2, 3, 1).flags.c_contiguous
