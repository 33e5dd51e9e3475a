"""Every algorithm, in every direction, against the oracle."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, integers, problem_of
from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch.conv import direct, im2col, loops, planar, planner, walk
from tinytorch.conv.finish import Finish
from tinytorch.conv.pack import channels_last, pixels
from tinytorch.conv.weights import Weights

TRIALS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(TRIALS, max_examples=40)


def assert_exact(case: Case, algorithm: str, dtype, seed: int = 0) -> None:
    problem = problem_of(case)
    x, w, b, dy = integers(case, seed, dtype)
    results = {
        "forward": (planner.forward(problem, x, w, Finish(b), algorithm), oracle.forward(case, x, w, b)),
        "input_grad": (planner.input_grad(problem, dy, w, algorithm), oracle.input_grad(case, dy, w)),
        "weight_grad": (planner.weight_grad(problem, x, dy, algorithm), oracle.weight_grad(case, x, dy)),
    }
    for direction, (got, expected) in results.items():
        assert got.dtype == dtype, direction
        np.testing.assert_array_equal(got, expected, err_msg=f"{algorithm} {direction} of {problem}")


@TRIALS
@given(cases(max_dims=3), st.sampled_from([np.float32, np.float64]), st.integers(0, 1000))
def test_direct_is_exact_on_integers(case, dtype, seed):
    assert_exact(case, "direct", dtype, seed)


@TRIALS
@given(cases(), st.sampled_from([np.float32, np.float64]), st.booleans(), st.integers(0, 1000))
def test_planar_is_exact_on_integers(case, dtype, small, seed):
    """Also as if the cache were tiny: bands of single rows."""
    problem = problem_of(case)
    x, w, b, dy = integers(case, seed, dtype)
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(planar, "l2_bytes", lambda: 1)
            patch.setattr(planar, "_forward_plans", planar._forward_plans.__wrapped__)
            patch.setattr(planar, "_input_grad_plans", planar._input_grad_plans.__wrapped__)
        dx = planar.input_grad(problem, channels_last(dy), Weights(w))
        if planar.refuses(problem, "forward") is None:
            y = planar.forward(problem, channels_last(x), Weights(w), Finish(b))
            np.testing.assert_array_equal(y, oracle.forward(case, x, w, b))
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, oracle.input_grad(case, dy, w))


@pytest.mark.parametrize(
    ("text", "direction", "reason"),
    [
        ("g2ic4oc4_id5ih5kd1kh1", "forward", "its planes have 1 or 2 dimensions, not 3"),
        ("g2ic4oc4_ih5kh3sh2", "forward", "it needs stride 1, so that outputs side by side"),
        ("g2ic4oc4_ih5kh3", "weight_grad", "a weight gradient sums over pixels"),
    ],
)
def test_planar_refuses_with_a_reason(text, direction, reason):
    assert planar.refuses(planner.ConvProblem.parse(text), direction).startswith(reason)
    assert planar.refuses(planner.ConvProblem.parse("g2ic4oc4_ih5kh3sh2"), "input_grad") is None


@FEW
@given(cases(max_dims=3), st.booleans(), st.integers(0, 1000))
def test_direct_cut_into_small_areas_is_exact_on_integers(case, with_residual, seed):
    """As if the cache were tiny: bands, strips, and chunks of a sum that goes on over the taps along the depth."""
    problem = problem_of(case)
    x, w, b, dy = integers(case, seed, np.float32)
    residual = integers(case, seed + 1, np.float32)[3] if with_residual else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "l2_bytes", lambda: 1 << 10)
        for name in ("forward", "input_grad", "weight_grad"):
            patch.setattr(walk, name, getattr(walk, name).__wrapped__)
        y = direct.forward(problem, channels_last(x), Weights(w), Finish(b, residual, 0.0))
        dx = direct.input_grad(problem, channels_last(dy), Weights(w), Finish(floor=-2.0))
        dw = direct.weight_grad(problem, channels_last(x), channels_last(dy))
    expected = oracle.forward(case, x, w, b) + (0 if residual is None else residual)
    np.testing.assert_array_equal(y, np.maximum(expected, 0))
    np.testing.assert_array_equal(dx, np.maximum(oracle.input_grad(case, dy, w), -2))
    np.testing.assert_array_equal(dw, oracle.weight_grad(case, x, dy))


@TRIALS
@given(cases(max_dims=3), st.sampled_from(list(planner.ALGORITHMS)), st.booleans())
def test_an_input_gradient_is_finished(case, algorithm, with_residual):
    """A transposed convolution has an offset for each channel; and what else may follow a forward."""
    problem = problem_of(case)
    if planner.ALGORITHMS[algorithm].refuses(problem, "input_grad") or (algorithm == "loops" and problem.macs > 10_000):
        return
    x, w, _, dy = integers(case, 0, np.float64)
    offsets, residual = x[0, :, 0, ...].reshape(case.ci, -1)[:, 0], x if with_residual else None
    finish = Finish(offsets, residual, -1.0, 5.0)
    dx = planner.input_grad(problem, dy, w, algorithm, finish)
    expected = oracle.input_grad(case, dy, w) + offsets.reshape(-1, *(1,) * problem.dims) + (x if with_residual else 0)
    np.testing.assert_allclose(dx, np.clip(expected, -1, 5), atol=1e-9)


@TRIALS
@given(cases(max_dims=3), st.sampled_from([np.float32, np.float64]), st.integers(0, 1000))
def test_im2col_is_exact_on_integers(case, dtype, seed):
    assert_exact(case, "im2col", dtype, seed)


@FEW
@given(cases(max_dims=3, max_pixels=5), st.sampled_from([np.float32, np.float64]), st.integers(0, 1000))
def test_loops_are_exact_on_integers(case, dtype, seed):
    if problem_of(case).macs < 10_000:
        assert_exact(case, "loops", dtype, seed)


def solid(n, ci, co, size, kernel, stride=1, pad=0, dilation=1, groups=1) -> Case:
    return Case(n, ci, co, size, (kernel,) * 3, (stride,) * 3, ((pad, pad),) * 3, (dilation,) * 3, groups)


def square(n, ci, co, size, kernel, stride=1, pad=0, dilation=1, groups=1) -> Case:
    return Case(n, ci, co, (size,) * 2, (kernel,) * 2, (stride,) * 2, ((pad, pad),) * 2, (dilation,) * 2, groups)


CORNERS = {
    "one pixel": square(1, 1, 1, 1, 1),
    "kernel is the image": square(2, 3, 5, 6, 6),
    "stride beyond the kernel": square(2, 3, 5, 11, 2, stride=5),
    "dilation beyond the image": square(1, 2, 3, 3, 3, pad=5, dilation=5),
    "depthwise": square(2, 6, 6, 7, 3, pad=1, groups=6),
    "padding only at the far side": Case(1, 2, 4, (5, 5), (3, 3), (2, 2), ((0, 2), (0, 3)), (1, 1)),
    "primes": square(3, 7, 13, 11, 3, pad=1),
    "SimpleCNN conv1": square(3, 3, 16, 32, 3, pad=1),
    "SimpleCNN conv2": square(3, 16, 32, 16, 3, pad=1),
    "MNISTConvNet conv1": square(3, 1, 32, 28, 3, pad=1),
    "MNISTConvNet conv2": square(3, 32, 64, 14, 3, pad=1),
    "ViT patches": square(1, 3, 96, 32, 16, stride=16),
    "stem": square(1, 3, 64, 56, 7, stride=2, pad=3),
    "1x1": square(2, 64, 96, 14, 1),
    "1x1 of one image": square(1, 64, 48, 13, 1),
    "strided 1x1": square(2, 32, 48, 14, 1, stride=2),
    "many bands": square(1, 16, 16, 120, 3, pad=1),
    "wide": square(1, 130, 70, 9, 3, pad=1),
    "groups of four channels": square(2, 32, 32, 9, 3, pad=1, groups=8),
    "groups of eight channels": square(2, 32, 48, 9, 3, stride=2, pad=1, groups=4),
    "groups of other sizes": square(2, 10, 15, 9, 3, pad=1, groups=5),
    "video": solid(2, 3, 16, (6, 14, 14), 3, pad=1),
    "video, strides": solid(1, 16, 32, (7, 9, 8), 3, stride=2, pad=1),
    "video, planes that meet nothing": solid(1, 2, 3, (2, 5, 5), 2, pad=3, dilation=2),
    "video, stride beyond the kernel": solid(1, 3, 4, (9, 9, 9), 2, stride=4),
    "video, single pixels": solid(2, 8, 12, (3, 5, 4), 1),
    "video, along the depth": Case(2, 8, 12, (6, 5, 4), (3, 1, 1), (1, 1, 1), ((1, 1), (0, 0), (0, 0)), (1, 1, 1)),
    "video, across the depth": Case(2, 8, 12, (6, 5, 4), (1, 3, 3), (1, 1, 1), ((0, 0), (1, 1), (1, 1)), (1, 1, 1)),
    "video, many chunks": solid(1, 530, 20, (2, 4, 4), 3, pad=1),
    "video, groups": solid(1, 12, 20, (4, 5, 6), 3, pad=1, groups=4),
}


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
def test_corner_is_exact(name, algorithm):
    assert_exact(CORNERS[name], algorithm, np.float32)


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_real_numbers_agree_with_oracle(algorithm, dtype, tolerance):
    case = square(2, 24, 40, 15, 3, stride=2, pad=1)
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(s).astype(dtype) for s in (case.input_shape, case.weight_shape, case.output_shape))
    problem = problem_of(case)
    pairs = [
        (planner.forward(problem, x, w, algorithm=algorithm), oracle.forward(case, x, w)),
        (planner.input_grad(problem, dy, w, algorithm), oracle.input_grad(case, dy, w)),
        (planner.weight_grad(problem, x, dy, algorithm), oracle.weight_grad(case, x, dy)),
    ]
    for got, expected in pairs:
        assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@FEW
@given(cases(), st.integers(0, 1000))
def test_gradients_are_adjoint(case, seed):
    """⟨dy, conv(x, w)⟩ = ⟨input_grad(dy, w), x⟩ = ⟨weight_grad(x, dy), w⟩: a convolution is bilinear."""
    problem = problem_of(case)
    x, w, _, dy = integers(case, seed, np.float64)
    inner = (dy * planner.forward(problem, x, w)).sum()
    assert inner == (planner.input_grad(problem, dy, w) * x).sum()
    assert inner == (planner.weight_grad(problem, x, dy) * w).sum()


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "loops"])
def test_convolution_commutes_with_translation(algorithm):
    case = square(1, 2, 3, 9, 3)
    x, w, _, _ = integers(case, 0, np.float32)
    shifted = np.roll(x, (1, 2), axis=(2, 3))
    y = planner.forward(problem_of(case), x, w, algorithm=algorithm)
    y_shifted = planner.forward(problem_of(case), shifted, w, algorithm=algorithm)
    np.testing.assert_array_equal(y_shifted[:, :, 1:, 2:], y[:, :, :-1, :-2])


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "loops"])
def test_outputs_are_channels_last_in_memory(algorithm):
    case = square(2, 4, 6, 5, 3, pad=1)
    x, w, _, dy = integers(case, 0, np.float32)
    problem = problem_of(case)
    assert pixels(planner.forward(problem, x, w, algorithm=algorithm)).flags.c_contiguous
    assert pixels(planner.input_grad(problem, dy, w, algorithm)).flags.c_contiguous


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "loops"])
@pytest.mark.parametrize("shape", [(0, 3, 5, 5)])
def test_empty_batch(algorithm, shape):
    problem = planner.ConvProblem.of(shape, (4, 3, 3, 3))
    x, w, dy = (
        np.zeros(shape, np.float32),
        np.ones((4, 3, 3, 3), np.float32),
        np.zeros((0, 4, 3, 3), np.float32),
    )
    assert planner.forward(problem, x, w, algorithm=algorithm).shape == (0, 4, 3, 3)
    assert planner.input_grad(problem, dy, w, algorithm).shape == shape
    np.testing.assert_array_equal(planner.weight_grad(problem, x, dy, algorithm), np.zeros((4, 3, 3, 3)))


def test_same_inputs_give_the_same_bits():
    case = square(5, 16, 33, 19, 3, pad=1)
    rng = np.random.default_rng(0)
    x, w, dy = (
        rng.standard_normal(s).astype(np.float32) for s in (case.input_shape, case.weight_shape, case.output_shape)
    )
    problem = problem_of(case)
    for compute in (
        lambda: planner.forward(problem, x, w),
        lambda: planner.input_grad(problem, dy, w),
        lambda: planner.weight_grad(problem, x, dy),
    ):
        first = compute()
        assert all((compute() == first).all() for _ in range(5))


@pytest.mark.parametrize(
    "name",
    [
        "SimpleCNN conv1", "1x1", "strided 1x1", "depthwise", "primes", "padding only at the far side", "video, groups",
        "video, planes that meet nothing", "groups of four channels", "groups of other sizes",
    ],
)  # fmt: skip
def test_nothing_beyond_the_operands_is_read(name):
    """The operands lie between walls of NaN: one number read past an end would show in the result."""
    case = CORNERS[name]
    problem = problem_of(case)
    x, w, b, dy = (_walled(a) for a in integers(case, 1, np.float32))
    for algorithm in ("direct", "planar"):
        if planner.ALGORITHMS[algorithm].refuses(problem, "forward") is None:
            assert np.isfinite(planner.forward(problem, x, w, Finish(b), algorithm)).all()
        if planner.ALGORITHMS[algorithm].refuses(problem, "input_grad") is None:
            assert np.isfinite(planner.input_grad(problem, dy, w, algorithm)).all()
    assert np.isfinite(planner.weight_grad(problem, x, dy, "direct")).all()


def _walled(array):
    """The same numbers, channels last where there are several axes, in the middle of a longer line of NaN."""
    ordered = pixels(channels_last(array)) if array.ndim > 3 else array
    line = np.full(ordered.size + 512, np.nan, array.dtype)
    line[256:-256] = ordered.reshape(-1)
    inner = line[256:-256].reshape(ordered.shape)
    return np.moveaxis(inner, -1, 1) if array.ndim > 3 else inner


def test_nan_and_infinity_travel():
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 0, 0], x[0, 0, 4, 4] = np.nan, np.inf
    w = np.ones((2, 1, 3, 3), np.float32)
    problem = planner.ConvProblem.of(x.shape, w.shape)
    for algorithm in ("direct", "planar", "im2col", "loops"):
        y = planner.forward(problem, x, w, algorithm=algorithm)
        assert np.isnan(y[:, :, 0, 0]).all() and np.isposinf(y[:, :, 2, 2]).all() and (y[:, :, 0, 2] == 0).all()


def test_refusals_name_a_reason():
    problem = planner.ConvProblem.parse("ic1oc1_id3ih3kd1kh1")
    assert "not 1×1×1" in planner.ALGORITHMS["winograd"].refuses(problem, "forward")
    assert all(algorithm.refuses(problem, "forward") is None for algorithm in (im2col, direct, loops))
