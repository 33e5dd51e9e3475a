"""Depthwise convolution: which outputs meet which taps, and all directions against the oracle and PyTorch."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinytorch
from tests.conv.cases import integers, problem_of
from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch.conv import depthwise
from tinytorch.conv.finish import PLAIN, Finish
from tinytorch.conv.pack import channels_last, pixels
from tinytorch.conv.problem import Axis, ConvProblem
from tinytorch.conv.weights import Weights

TRIALS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(TRIALS, max_examples=40)
THREADS = sorted({1, min(2, numba.config.NUMBA_NUM_THREADS)})
DTYPES = [np.float32, np.float64]
ROOT = Path(__file__).parent.parent.parent


@contextmanager
def cut_small(threads=1, l2_bytes=1 << 12):
    """With so many threads, and as if the cache were tiny: images are cut into many bands."""
    before = tinytorch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depthwise, "l2_bytes", lambda: l2_bytes)
        patch.setattr(depthwise, "_plan", depthwise._plan.__wrapped__)
        tinytorch.set_num_threads(threads)
        try:
            yield
        finally:
            tinytorch.set_num_threads(before)


# ---- which outputs meet which taps --------------------------------------------------------------------------------


@st.composite
def axes(draw) -> Axis:
    size, kernel, dilation = draw(st.integers(1, 30)), draw(st.integers(1, 7)), draw(st.integers(1, 4))
    before, after = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    missing = max(0, dilation * (kernel - 1) + 1 - size - before - after)
    return Axis(size, kernel, draw(st.integers(1, 5)), before, after + missing, dilation)


def meetings(way, runs) -> list[tuple[int, int, int]]:
    """All (output, pixel of the source, tap) of some runs."""
    (step, out_step), (hop, tap_step) = way.steps, way.hops
    return [
        (run.output + k * out_step, run.place + k * step + j * hop, run.tap + j * tap_step)
        for run in runs
        for k in range(run.count)
        for j in range(run.taps)
    ]


@TRIALS
@given(axes(), st.booleans(), st.data())
def test_runs_are_the_definition(axis, backward, data):
    windows = range(axis.out)
    defined = [(w, w * axis.stride - axis.before + k * axis.dilation, k) for w in windows for k in range(axis.kernel)]
    inside = [(w, pixel, tap) for w, pixel, tap in defined if 0 <= pixel < axis.size]
    if backward:
        inside = [(pixel, w, tap) for w, pixel, tap in inside]
    way = depthwise._Way(axis, backward)
    outputs = way.sizes[1]
    first = data.draw(st.integers(0, outputs))
    last = data.draw(st.integers(first, outputs))
    runs = way.runs(first, last)
    assert sorted(meetings(way, runs)) == sorted(meeting for meeting in inside if first <= meeting[0] < last)
    covered = Counter(run.output + k * way.steps[1] for run in runs for k in range(run.count))
    assert covered == Counter(range(first, last))


def test_inside_of_an_image_is_one_patch():
    way = depthwise._Way(Axis(112, 3, 1, 1, 1), backward=False)
    assert [run.count for run in way.runs(0, 112)] == [1, 110, 1]


# ---- against the oracle -------------------------------------------------------------------------------------------


@st.composite
def cases(draw, max_pixels: int = 17) -> Case:
    """Any depthwise convolution with an output; channels that fill vectors, and that do not."""
    dims = draw(st.integers(1, 3))

    def each(strategy):
        return tuple(draw(strategy) for _ in range(dims))

    size, kernel = each(st.integers(1, max_pixels if dims < 3 else 6)), each(st.integers(1, 5 if dims < 3 else 3))
    dilation, stride = each(st.integers(1, 3)), each(st.integers(1, 4))
    least = [max(0, d * (k - 1) + 1 - s) for s, k, d in zip(size, kernel, dilation, strict=True)]
    before = each(st.integers(0, 3))
    after = tuple(max(need - low, draw(st.integers(0, 3))) for need, low in zip(least, before, strict=True))
    channels = draw(st.sampled_from([2, 3, 5, 8, 16, 17, 32, 40]))
    co = channels * draw(st.sampled_from([1, 1, 1, 2, 3]))
    padding = tuple(zip(before, after, strict=True))
    return Case(draw(st.integers(1, 3)), channels, co, size, kernel, stride, padding, dilation, channels)


def square(n, channels, size, kernel, stride=1, pad=0, dilation=1, times=1) -> Case:
    sides = ((size,) * 2, (kernel,) * 2, (stride,) * 2, ((pad, pad),) * 2, (dilation,) * 2)
    return Case(n, channels, times * channels, *sides, channels)


CORNERS = {
    "one pixel": square(1, 2, 1, 1),
    "one output": square(2, 5, 6, 6),
    "MobileNet": square(2, 48, 14, 3, pad=1),
    "MobileNet, stride 2": square(2, 48, 14, 3, stride=2, pad=1),
    "odd, stride 2": square(2, 20, 15, 3, stride=2, pad=1),
    "ConvNeXt": square(1, 32, 9, 7, pad=3),
    "more taps than are written out": square(1, 17, 21, 11, pad=5),
    "more taps than pixels": square(1, 4, 3, 9, pad=4),
    "more vectors than are computed together": square(1, 16 * 35 + 1, 5, 3, pad=1),
    "stride beyond the kernel": square(2, 3, 11, 2, stride=5),
    "dilation beyond the image": square(1, 3, 3, 3, pad=5, dilation=5),
    "stride and dilation share a factor": square(1, 3, 13, 3, stride=4, pad=2, dilation=6),
    "windows of padding alone": square(1, 3, 2, 1, stride=2, pad=3),
    "several outputs a channel": square(2, 6, 9, 3, pad=1, times=4),
    "a line": Case(1, 6, 6, (200,), (5,), (2,), ((3, 1),), (3,), 6),
    "padding only at the far side": Case(1, 4, 4, (5, 5), (3, 3), (2, 2), ((0, 2), (0, 3)), (1, 1), 4),
}


def assert_exact(case: Case, dtype, seed: int = 0) -> None:
    problem = problem_of(case)
    x, w, b, dy = integers(case, seed, dtype)
    weights = Weights(w)
    results = {
        "forward": (depthwise.forward(problem, x, weights, Finish(b)), oracle.forward(case, x, w, b)),
        "input_grad": (depthwise.input_grad(problem, dy, weights), oracle.input_grad(case, dy, w)),
        "weight_grad": (depthwise.weight_grad(problem, x, dy), oracle.weight_grad(case, x, dy)),
    }
    for direction, (got, expected) in results.items():
        assert got.dtype == dtype, direction
        np.testing.assert_array_equal(got, expected, err_msg=f"{direction} of {problem}")


@TRIALS
@given(cases(), st.sampled_from(DTYPES), st.integers(0, 1000))
def test_exact_on_integers(case, dtype, seed):
    assert_exact(case, dtype, seed)


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("threads", THREADS)
def test_corner_is_exact(name, threads):
    with cut_small(threads, 1 << 20):
        assert_exact(CORNERS[name], np.float32)


@pytest.mark.parametrize("threads", THREADS)
@FEW
@given(cases(), st.integers(0, 1000))
def test_many_bands_are_exact(threads, case, seed):
    with cut_small(threads):
        assert_exact(case, np.float32, seed)


def test_exact_without_a_compiler():
    """In a process of its own: Numba reads the switch when it is imported."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from tests.conv.test_depthwise import CORNERS, assert_exact
for name in ("one output", "odd, stride 2", "several outputs a channel", "a line"):
    assert_exact(CORNERS[name], np.float32)
print("exact")
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "exact\n", done.stderr


# ---- what is fused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-np.inf, -2.0)])
@FEW
@given(cases(), st.booleans(), st.booleans(), st.sampled_from(DTYPES))
def test_finish_is_the_steps_one_after_another(clip, case, has_bias, has_residual, dtype):
    x, w, bias, residual = integers(case, 1, dtype)
    finish = Finish(bias if has_bias else None, residual if has_residual else None, *clip)
    y = oracle.forward(case, x, w, bias if has_bias else None)
    expected = np.clip(y + residual if has_residual else y, *clip)
    np.testing.assert_array_equal(depthwise.forward(problem_of(case), x, Weights(w), finish), expected)


def test_one_weights_object_serves_all_calls():
    case = CORNERS["MobileNet"]
    x, w, _, dy = integers(case, 0, np.float32)
    problem, weights = problem_of(case), Weights(w)
    for _ in range(2):
        np.testing.assert_array_equal(depthwise.forward(problem, x, weights), oracle.forward(case, x, w))
        np.testing.assert_array_equal(depthwise.input_grad(problem, dy, weights), oracle.input_grad(case, dy, w))
    np.testing.assert_array_equal(weights.array, integers(case, 0, np.float32)[1])


# ---- numbers, bits, memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
@pytest.mark.parametrize("stride", [1, 2])
def test_real_numbers_agree_with_pytorch(dtype, tolerance, stride):
    torch = pytest.importorskip("torch")
    problem = ConvProblem.of((2, 40, 23, 23), (40, 1, 3, 3), stride, 1, groups=40)
    rng = np.random.default_rng(0)
    shapes = problem.input_shape, problem.weight_shape, problem.output_shape
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    his_x, his_w = (torch.tensor(array, requires_grad=True) for array in (x, w))
    his_y = torch.nn.functional.conv2d(his_x, his_w, stride=stride, padding=1, groups=40)
    his_y.backward(torch.tensor(dy))
    pairs = [
        (depthwise.forward(problem, x, Weights(w)), his_y.detach()),
        (depthwise.input_grad(problem, dy, Weights(w)), his_x.grad),
        (depthwise.weight_grad(problem, x, dy), his_w.grad),
    ]
    for got, expected in pairs:
        assert np.abs(got - expected.numpy()).max() <= tolerance * np.abs(expected.numpy()).max()


@FEW
@given(cases(), st.integers(0, 1000))
def test_gradients_are_adjoint(case, seed):
    """⟨dy, conv(x, w)⟩ = ⟨input_grad(dy, w), x⟩ = ⟨weight_grad(x, dy), w⟩: a convolution is bilinear."""
    problem = problem_of(case)
    x, w, _, dy = integers(case, seed, np.float64)
    inner = (dy * depthwise.forward(problem, x, Weights(w))).sum()
    assert inner == (depthwise.input_grad(problem, dy, Weights(w)) * x).sum()
    assert inner == (depthwise.weight_grad(problem, x, dy) * w).sum()


@pytest.mark.parametrize("threads", THREADS)
def test_same_inputs_give_the_same_bits(threads):
    problem = ConvProblem.of((5, 33, 19, 19), (33, 1, 3, 3), 1, 1, groups=33)
    rng = np.random.default_rng(0)
    shapes = problem.input_shape, problem.weight_shape, problem.output_shape
    x, w, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    with cut_small(threads, 1 << 16):
        for compute in (
            lambda: depthwise.forward(problem, x, Weights(w)),
            lambda: depthwise.input_grad(problem, dy, Weights(w)),
            lambda: depthwise.weight_grad(problem, x, dy),
        ):
            first = compute()
            assert all((compute() == first).all() for _ in range(5))


@pytest.mark.parametrize(
    "name", ["one output", "odd, stride 2", "several outputs a channel", "windows of padding alone"]
)
def test_layouts_and_shapes(name):
    case = CORNERS[name]
    x, w, _, dy = integers(case, 0, np.float32)
    problem = problem_of(case)
    y, dx = depthwise.forward(problem, x, Weights(w)), depthwise.input_grad(problem, dy, Weights(w))
    assert y.shape == case.output_shape and pixels(y).flags.c_contiguous
    assert dx.shape == case.input_shape and pixels(dx).flags.c_contiguous
    assert depthwise.weight_grad(problem, x, dy).shape == case.weight_shape


def test_empty_batch():
    case = square(0, 4, 5, 3)
    x, w, _, dy = integers(case, 0, np.float32)
    problem = problem_of(case)
    assert depthwise.forward(problem, x, Weights(w)).shape == case.output_shape
    assert depthwise.input_grad(problem, dy, Weights(w)).shape == case.input_shape
    assert not depthwise.weight_grad(problem, x, dy).any()


@pytest.mark.parametrize(
    "name", ["MobileNet", "odd, stride 2", "more taps than pixels", "padding only at the far side"]
)
def test_nothing_beyond_the_operands_is_read(name):
    """The operands lie between walls of NaN: one number read past an end would show in the result."""
    case = CORNERS[name]
    problem = problem_of(case)
    x, w, b, dy = (walled(array) for array in integers(case, 1, np.float32))
    assert np.isfinite(depthwise.forward(problem, x, Weights(w), Finish(b, dy))).all()
    assert np.isfinite(depthwise.input_grad(problem, dy, Weights(w))).all()
    assert np.isfinite(depthwise.weight_grad(problem, x, dy)).all()


def walled(array):
    """The same numbers, channels last where they are images, in the middle of a longer line of NaN."""
    ordered = pixels(channels_last(array)) if array.ndim == 4 else array
    line = np.full(ordered.size + 512, np.nan, array.dtype)
    line[256:-256] = ordered.reshape(-1)
    inner = line[256:-256].reshape(ordered.shape)
    return inner.transpose(0, 3, 1, 2) if array.ndim == 4 else inner


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_channel_and_window(number):
    case = square(1, 20, 9, 3, pad=1)
    x, w = np.zeros(case.input_shape, np.float32), np.ones(case.weight_shape, np.float32)
    x[0, 7, 4, 4] = number
    y = depthwise.forward(problem_of(case), x, Weights(w), PLAIN)
    touched = np.zeros(case.output_shape, bool)
    touched[0, 7, 3:6, 3:6] = True
    np.testing.assert_array_equal(~np.isfinite(y), touched)
    dx = depthwise.input_grad(problem_of(case), x, Weights(w))
    np.testing.assert_array_equal(~np.isfinite(dx), touched)
    dw = depthwise.weight_grad(problem_of(case), x, np.ones(case.output_shape, np.float32))
    np.testing.assert_array_equal(np.isfinite(dw).all(axis=(1, 2, 3)), np.arange(20) != 7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g2ic4oc4_ih5kh3", "groups of one input channel, and more than one group, not 2 of 4"),
        ("ic1oc8_ih5kh3", "more than one group, not 1 of 1"),
    ],
)
def test_refusals_name_a_reason(text, reason):
    assert reason in depthwise.refuses(ConvProblem.parse(text), "forward")


def test_takes_one_input_channel_a_group():
    assert depthwise.refuses(ConvProblem.parse("g4ic4oc12_ih5kh3"), "weight_grad") is None
