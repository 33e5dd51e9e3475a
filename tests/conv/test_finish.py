"""What is fused into a convolution, against the same steps one after another; and weights in forms made once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, integers, problem_of
from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch.conv import direct, planner, walk
from tinytorch.conv.finish import Finish
from tinytorch.conv.weights import Weights

TRIALS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ALGORITHMS = {"direct": 40, "im2col": 12, "loops": 5}  # and the largest image that each is tried on
CLIPS = [{}, {"floor": 0.0}, {"floor": 0.0, "ceiling": 6.0}, {"ceiling": -2.0}, {"floor": 3.0, "ceiling": 3.0}]
SMALL = Case(2, 3, 19, (5, 6), (3, 2), (1, 2), ((1, 0), (0, 1)), (1, 1))


@st.composite
def finishes(draw, case: Case, dtype) -> dict:
    """Any choice of bias, residual and bounds; the residual may lie in memory as it likes."""
    _, _, bias, residual = integers(case, draw(st.integers(0, 99)), dtype)
    layout = draw(st.sampled_from([np.ascontiguousarray, np.asfortranarray, lambda a: a[:, :, ::-1]]))
    finish = dict(draw(st.sampled_from(CLIPS)))
    if draw(st.booleans()):
        finish["bias"] = bias
    if draw(st.booleans()):
        finish["residual"] = layout(residual)
    return finish


def one_after_another(y, bias=None, residual=None, floor=-np.inf, ceiling=np.inf):
    """A ReLU by comparison, so that NaN stays NaN."""
    y = y if bias is None else y + bias.reshape(1, -1, *[1] * (y.ndim - 2))
    y = y if residual is None else y + residual
    return np.where(y < floor, floor, np.where(y > ceiling, ceiling, y))


def assert_exact(algorithm, case, x, w, finish):
    copies = {name: np.copy(value) for name, value in finish.items()}
    got = planner.forward(problem_of(case), x, w, Finish(**finish), algorithm)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, one_after_another(oracle.forward(case, x, w), **copies))
    for name, value in copies.items():
        np.testing.assert_array_equal(finish[name], value, err_msg=f"{name} was written to")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@TRIALS
@given(st.data())
def test_finish_is_the_steps_one_after_another(algorithm, data):
    case = data.draw(cases(max_pixels=ALGORITHMS[algorithm]))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    if algorithm == "loops" and problem_of(case).macs > 3000:
        case = SMALL
    x, w, _, _ = integers(case, 0, dtype)
    assert_exact(algorithm, case, x, w, data.draw(finishes(case, dtype)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("where", ["x", "bias", "residual"])
def test_what_is_not_finite_goes_where_it_belongs(algorithm, where):
    x, w, bias, residual = integers(SMALL, 0, np.float32)
    operand = {"x": x, "bias": bias, "residual": residual}[where]
    for number in (np.nan, np.inf, -np.inf):
        operand.flat[7] = number
        with np.errstate(invalid="ignore"):
            expected = one_after_another(oracle.forward(SMALL, x, w), bias, residual, 0.0, 6.0)
            got = planner.forward(problem_of(SMALL), x, w, Finish(bias, residual, 0.0, 6.0), algorithm)
        np.testing.assert_array_equal(got, expected)
        assert np.isnan(got).any() or not np.isnan(number)


@pytest.mark.parametrize(
    "algorithm",
    [
        "direct",
        "im2col",
        "loops",
    ],
)
@pytest.mark.parametrize("name", ["bias", "residual"])
def test_finish_of_another_type_is_converted(algorithm, name):
    x, w, bias, residual = integers(SMALL, 0, np.float32)
    wide = {"bias": bias, "residual": residual}[name].astype(np.float64)
    assert_exact(algorithm, SMALL, x, w, {name: wide})


@pytest.fixture
def tiny_cache(monkeypatch):
    """A CPU whose second-level cache holds so little that the work is cut in every way."""
    made = (walk.forward, walk.input_grad, walk.weight_grad)
    monkeypatch.setattr(walk, "l2_bytes", lambda: 4096)
    for function in made:
        function.cache_clear()
    yield
    for function in made:
        function.cache_clear()


CUT = [
    Case(1, 70, 21, (9, 11), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    Case(2, 96, 40, (6, 7), (2, 3), (2, 1), ((0, 1), (2, 0)), (1, 2), 2),
    Case(3, 200, 17, (1, 9), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
]


@pytest.mark.parametrize("case", CUT, ids=["padded", "strided groups", "pixels"])
@pytest.mark.parametrize("clip", CLIPS[1:3])
def test_finish_waits_for_the_last_chunk_of_the_sum(tiny_cache, case, clip):
    table = walk.forward(problem_of(case), 4, 1, True)[0].table[0]
    assert table.chunks > 1 and table.bands * table.strips > 1
    x, w, bias, residual = integers(case, 0, np.float32)
    assert_exact("direct", case, x, w, {"bias": bias, "residual": residual, **clip})
    assert_exact("direct", case, x, w, clip)


@pytest.mark.parametrize("case", CUT, ids=["padded", "strided groups", "pixels"])
def test_gradients_cut_in_every_way_are_exact(tiny_cache, case):
    x, w, _, dy = integers(case, 0, np.float32)
    problem = problem_of(case)
    np.testing.assert_array_equal(planner.input_grad(problem, dy, w, "direct"), oracle.input_grad(case, dy, w))
    np.testing.assert_array_equal(planner.weight_grad(problem, x, dy, "direct"), oracle.weight_grad(case, x, dy))


# ---- forms of the weights -----------------------------------------------------------------------------------------


def test_a_form_is_made_once_for_each_way_and_options():
    made = []

    def double(weights, *options):
        made.append(options)
        return weights.array * 2

    def negative(weights, *options):
        made.append(("negative", *options))
        return -weights.array

    weights = Weights(np.arange(3.0))
    first = weights.form(double, 1, 2)
    assert first.tolist() == [0, 2, 4]
    assert weights.form(double, 1, 2) is first
    assert weights.form(double, 2, 1) is not first
    assert weights.form(negative, 1, 2).tolist() == [0, -1, -2]
    assert Weights(np.arange(3.0)).form(double, 1, 2) is not first
    assert made == [(1, 2), (2, 1), ("negative", 1, 2), (1, 2)]


def test_weights_of_weights_are_the_same_object():
    array = np.ones(3)
    weights = Weights.of(array)
    assert weights.array is array
    assert Weights.of(weights) is weights


def test_a_step_packs_the_weights_once_for_each_direction(monkeypatch):
    packed = []

    def counting(pack):
        def wrapper(weights, *options):
            packed.append(pack.__name__)
            return pack(weights, *options)

        return wrapper

    for name in ("lane_blocks", "turned_blocks"):
        monkeypatch.setattr(direct, name, counting(getattr(direct, name)))
    case = Case(2, 4, 6, (8, 8), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1))
    x, w, _, dy = integers(case, 0, np.float32)
    weights, problem = Weights(w), problem_of(case)
    for _ in range(3):
        np.testing.assert_array_equal(
            planner.forward(problem, x, weights, algorithm="direct"), oracle.forward(case, x, w)
        )
        np.testing.assert_array_equal(
            planner.input_grad(problem, dy, weights, "direct"), oracle.input_grad(case, dy, w)
        )
    assert packed == ["lane_blocks", "turned_blocks"]
