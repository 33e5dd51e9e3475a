"""The convolution in frequencies: against the oracle, within its error bound, and within its scratch."""

import math
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, integers, problem_of
from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch.conv import fft
from tinytorch.conv.finish import Finish
from tinytorch.conv.pack import channels_last, pixels
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.conv.weights import Weights
from tinytorch.kernels import memory

TRIALS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
DTYPES = st.sampled_from([np.float32, np.float64])
LIMITS = st.sampled_from([0, 1 << 14, fft.SCRATCH_BYTES])  # single planes, several blocks, one block

LARGE = {
    "kernel of 31": Case(1, 3, 4, (50, 41), (31, 31), (1, 1), ((15, 15), (15, 15)), (1, 1)),
    "kernel is the image": Case(2, 3, 5, (16, 16), (16, 16), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "kernel beyond the image": Case(1, 2, 3, (4, 4), (9, 9), (1, 1), ((4, 4), (4, 4)), (1, 1)),
    "long signal": Case(2, 2, 3, (1009,), (101,), (3,), ((0, 50),), (2,)),
    "depthwise": Case(2, 6, 6, (20, 20), (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 6),
    "volume": Case(1, 2, 2, (9, 10, 11), (5, 4, 3), (1, 2, 1), ((2, 1), (0, 0), (1, 1)), (1, 1, 2)),
}


def results(case, x, w, dy):
    """What `fft` makes in every direction, and what the oracle does."""
    problem, weights = problem_of(case), Weights(w)
    return {
        "forward": (fft.forward(problem, x, weights), oracle.forward(case, x, w)),
        "input_grad": (fft.input_grad(problem, dy, weights), oracle.input_grad(case, dy, w)),
        "weight_grad": (fft.weight_grad(problem, x, dy), oracle.weight_grad(case, x, dy)),
    }


@contextmanager
def on_its_own(limit=fft.SCRATCH_BYTES):
    """With that limit of the scratch, and without im2col, which would hide any fault that is not finite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fft, "SCRATCH_BYTES", limit)
        patch.setattr(fft, "im2col", None)
        yield


def assert_rounds_to_oracle(case, dtype, seed=0):
    x, w, _, dy = integers(case, seed, dtype)
    for direction, (got, expected) in results(case, x, w, dy).items():
        assert got.dtype == dtype, direction
        np.testing.assert_array_equal(np.rint(got), expected, err_msg=f"{direction} of {case}")


@TRIALS
@given(cases(max_dims=3), DTYPES, st.integers(0, 1000), LIMITS)
def test_rounds_to_the_exact_integers(case, dtype, seed, limit):
    with on_its_own(limit):
        assert_rounds_to_oracle(case, dtype, seed)


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_kernel_rounds_to_the_exact_integers(name, dtype):
    with on_its_own():
        assert_rounds_to_oracle(LARGE[name], dtype)


def norms(array, groups, channels, kept):
    """Norm of every row or column of an operand: (g, what is kept of a group), over everything that is summed."""
    split = np.stack(np.split(array.astype(np.float64), groups, channels))
    summed = tuple(axis for axis in range(1, split.ndim) if axis != kept + 1)
    return np.sqrt((split**2).sum(axis=summed))


def bounds(case, x, w, dy):
    """‖a‖ ‖b‖ for every plane of the results, in the shape of the result with single pixels."""
    g = case.groups
    y = norms(x, g, 1, 0)[:, :, None] * norms(w, g, 0, 0)[:, None]  # (g, n, co/g)
    dx = norms(dy, g, 1, 0)[:, :, None] * norms(w, g, 0, 1)[:, None]  # (g, n, ci/g)
    dw = norms(dy, g, 1, 1)[:, :, None] * norms(x, g, 1, 1)[:, None]  # (g, co/g, ci/g)
    planes = {"forward": np.hstack(list(y)), "input_grad": np.hstack(list(dx)), "weight_grad": np.vstack(list(dw))}
    return {name: plane.reshape(*plane.shape, *[1] * len(case.size)) for name, plane in planes.items()}


@TRIALS
@given(cases(max_dims=3), DTYPES, st.integers(0, 1000), LIMITS)
def test_error_is_within_the_bound(case, dtype, seed, limit):
    """|error| ≤ (log₂ N + 3) · eps · ‖a‖ ‖b‖ for each number; the operands are such that the oracle is exact."""
    rng = np.random.default_rng(seed)
    shapes = (case.input_shape, case.weight_shape, case.output_shape)
    x, w, dy = (rng.integers(-(2**20), 2**20, shape).astype(dtype) for shape in shapes)
    factor = (math.log2(math.prod(fft.grid(problem_of(case)))) + 3) * np.finfo(dtype).eps
    bound = bounds(case, x, w, dy)
    with on_its_own(limit):
        for direction, (got, expected) in results(case, x, w, dy).items():
            assert (np.abs(got - expected) <= factor * bound[direction]).all(), direction


@pytest.mark.parametrize("sizes", [range(1, 2000)])
def test_good_size_is_the_next_one_of_small_factors(sizes):
    good = sorted(2**a * 3**b * 5**c for a in range(12) for b in range(8) for c in range(6))
    assert [fft.good_size(size) for size in sizes] == [next(g for g in good if g >= size) for size in sizes]


def test_grid_holds_the_padded_image():
    assert fft.grid(ConvProblem.parse("ic1oc1_ih28iw13kh3ph1-6kw1pw0")) == (36, 15)


def calls(problem, dtype=np.float32):
    """One call for each direction, and the bytes of its result."""
    rng = np.random.default_rng(0)
    shapes = (problem.input_shape, problem.weight_shape, problem.output_shape)
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    x, dy, weights = channels_last(x), channels_last(dy), Weights(w)
    return {
        "forward": (lambda: fft.forward(problem, x, weights), dy.nbytes),
        "input_grad": (lambda: fft.input_grad(problem, dy, weights), x.nbytes),
        "weight_grad": (lambda: fft.weight_grad(problem, x, dy), w.nbytes),
    }


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("limit", [1 << 20, 1 << 22])
@pytest.mark.parametrize(
    "text",
    ["mb8ic16oc32_ih40kh9ph4", "mb2ic64oc48_ih20kh5", "g8mb16ic8oc8_ih30kh7ph3", "mb2ic6oc5_id12ih13iw14kd5kh3kw4"],
)
def test_scratch_is_what_is_stated_and_below_the_limit(text, limit, direction, monkeypatch):
    monkeypatch.setattr(fft, "SCRATCH_BYTES", limit)
    problem = ConvProblem.parse(text)
    call, result = calls(problem)[direction]
    call()
    with memory.afresh(recycling=False):  # recycled storage would not show
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1] - result
        tracemalloc.stop()
    stated = fft.blocks(problem, direction, 4).scratch
    assert stated <= limit
    assert stated / 2 < peak < stated + (16 << 10)  # small objects, and one transform's own work space


def test_single_planes_are_the_least():
    blocks = fft.blocks(ConvProblem.parse("mb2ic2oc2_ih4000kh3"), "forward", 4)
    assert blocks.step == (1, 1, 1, 1) and blocks.scratch > fft.SCRATCH_BYTES


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("limit", [0, 1 << 16, 1 << 18, 1 << 30])
@pytest.mark.parametrize(
    "text",
    ["mb8ic6oc5_ih15kh3", "g3mb4ic12oc9_ih15kh3", "mb40ic2oc3_ih15kh3", "mb2ic40oc3_ih15kh3", "mb2ic3oc40_ih15kh3"],
)
def test_transforms_are_counted(text, limit, direction, monkeypatch):
    monkeypatch.setattr(fft, "SCRATCH_BYTES", limit)
    problem = ConvProblem.parse(text)
    planes = []

    def counting(transform):
        def counted(array, *args, **kwargs):
            planes.append(math.prod(array.shape[-3:]))
            return transform(array, *args, **kwargs)

        return counted

    monkeypatch.setattr(np.fft, "rfftn", counting(np.fft.rfftn))
    monkeypatch.setattr(np.fft, "irfftn", counting(np.fft.irfftn))
    calls(problem)[direction][0]()
    assert sum(planes) == fft.blocks(problem, direction, 4).transforms


CASE = Case(2, 4, 6, (9, 8), (3, 3), (2, 1), ((1, 1), (0, 2)), (1, 1), 2)


def test_finish_is_applied():
    x, w, b, dy = integers(CASE, 0, np.float32)
    y = fft.forward(problem_of(CASE), x, Weights(w), Finish(b, dy, 0, 6))
    np.testing.assert_array_equal(np.rint(y), np.clip(oracle.forward(CASE, x, w, b) + dy, 0, 6))


def test_memory_is_channels_last_and_lanes_last():
    x, w, _, dy = integers(CASE, 0, np.float32)
    made = results(CASE, x, w, dy)
    assert pixels(made["forward"][0]).flags.c_contiguous
    assert pixels(made["input_grad"][0]).flags.c_contiguous
    assert made["weight_grad"][0].transpose(2, 3, 1, 0).flags.c_contiguous


def test_any_memory_order_of_the_operands():
    plain = integers(CASE, 0, np.float32)
    x, w, dy = (np.asfortranarray(plain[i]) for i in (0, 1, 3))
    for got, expected in results(CASE, x, w, dy).values():
        np.testing.assert_array_equal(np.rint(got), expected)


def test_same_inputs_give_the_same_bits():
    for call, _ in calls(ConvProblem.parse("mb5ic16oc33_ih19kh7ph3")).values():
        first = call()
        assert all((call() == first).all() for _ in range(3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operand", ["x", "w", "dy"])
def test_nan_and_infinity_stay_in_their_windows(operand, value):
    arrays = dict(zip(("x", "w", "b", "dy"), integers(CASE, 3, np.float64), strict=True))
    arrays[operand][1, 0, 2, 1] = value
    with np.errstate(invalid="ignore"):
        made = results(CASE, arrays["x"], arrays["w"], arrays["dy"])
    for got, expected in made.values():
        np.testing.assert_array_equal(np.rint(got), expected)
        assert np.isfinite(got).any()


def test_infinity_that_no_window_reads_does_no_harm():
    case = Case(1, 1, 1, (6,), (1,), (4,), ((0, 0),), (1,))
    x, w, _, _ = integers(case, 0, np.float32)
    x[0, 0, 5] = np.inf
    np.testing.assert_array_equal(fft.forward(problem_of(case), x, Weights(w)), oracle.forward(case, x, w))


def test_overflow_on_the_way_does_no_harm():
    """Every product is finite, but their sum over the image, which is one of the frequencies, is not."""
    case = Case(1, 1, 1, (64,), (1,), (1,), ((0, 0),), (1,))
    x, w = np.full((1, 1, 64), 2e38, np.float32), np.ones((1, 1, 1), np.float32)
    with np.errstate(over="raise", invalid="raise"):  # nor is it talked of
        np.testing.assert_array_equal(fft.forward(problem_of(case), x, Weights(w)), x)


def test_accepts_everything():
    problem = ConvProblem.parse("g2mb1ic4oc2_id3ih5iw4kd2kh3kw1dh1sh2ph0-3")
    assert [fft.refuses(problem, direction) for direction in DIRECTIONS] == [None] * 3
