"""Winograd's convolution: its matrices exactly, its error within what is stated and proven, nothing beyond memory."""

import math
import os
import subprocess
import sys
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinytorch
from tests.conv.cases import problem_of
from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch.conv import direct, planner, winograd
from tinytorch.conv.finish import PLAIN, Finish
from tinytorch.conv.pack import pixels
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.conv.weights import Weights
from tinytorch.conv.winograd import Winograd, error_bound, matrices
from tinytorch.kernels import memory

TRIALS = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(TRIALS, max_examples=40)
THREADS = sorted({1, min(2, numba.config.NUMBA_NUM_THREADS)})
DTYPES = [np.float32, np.float64]
SIDES = [2, 4]
ROOT = Path(__file__).parent.parent.parent
PLANS = (winograd._forward_plan, winograd._input_grad_plan, winograd._weight_grad_plan)

# The whole vectors of a last, partial one are transformed: what was never written, and memory behind `spare`.


# ---- what runs, and where -----------------------------------------------------------------------------------------


WALL = 256
MARK = {4: np.uint32(0x7FC0BEEF), 8: np.uint64(0x7FF80000DEADBEEF)}


class Walls:
    """Hands out memory full of NaN, between walls of a NaN that no arithmetic makes."""

    def __init__(self):
        self.lines = []

    def empty(self, shape, dtype):
        line = np.full(np.prod(shape) + 2 * WALL, np.nan, dtype)
        for wall in walls_of(line):
            wall[:] = MARK[line.itemsize]
        self.lines.append(line)
        return line[WALL:-WALL].reshape(shape)

    def images(self, array):
        """The same numbers, channels last."""
        copy = self.empty(pixels(array).shape, array.dtype)
        copy[...] = pixels(array)
        return copy.transpose(0, 3, 1, 2)

    def intact(self):
        return all((wall == MARK[line.itemsize]).all() for line in self.lines for wall in walls_of(line))


def walls_of(line):
    bits = line.view(MARK[line.itemsize].dtype)
    return bits[:WALL], bits[-WALL:]


@contextmanager
def alone(threads=1, l2_bytes=None):
    """Without `direct`, which would hide any fault that is not finite; in memory that is NaN, between walls."""
    walls = Walls()
    with pytest.MonkeyPatch.context() as patch, number_of_threads(threads), planned_anew():
        patch.setattr(winograd, "direct", None)
        patch.setattr(memory, "empty", walls.empty)
        patch.setattr(memory, "apart", partial(memory.apart, make=walls.empty))
        patch.setattr(memory, "_scratches", memory._Scratches())
        patch.setattr(winograd, "l2_bytes", lambda: l2_bytes or 1 << 20)
        yield walls
    assert walls.intact()


@contextmanager
def number_of_threads(count):
    before = tinytorch.get_num_threads()
    tinytorch.set_num_threads(count)
    try:
        yield
    finally:
        tinytorch.set_num_threads(before)


@contextmanager
def planned_anew():
    """Without the plans made before, or those made here afterwards."""
    for plan in PLANS:
        plan.cache_clear()
    try:
        yield
    finally:
        for plan in PLANS:
            plan.cache_clear()


def normal(case, seed, dtype):
    """Input, weight and output gradient."""
    rng = np.random.default_rng(seed)
    shapes = (case.input_shape, case.weight_shape, case.output_shape)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def computed(algorithm, direction, case, x, w, dy, finish=PLAIN):
    problem, weights = problem_of(case), Weights(w)
    if direction == "forward":
        return algorithm.forward(problem, x, weights, finish)
    operands = (dy, weights) if direction == "input_grad" else (x, dy)
    return getattr(algorithm, direction)(problem, *operands)


def exact(direction, case, x, w, dy):
    operands = {"forward": (x, w), "input_grad": (dy, w), "weight_grad": (x, dy)}[direction]
    return getattr(oracle, direction)(case, *operands)


@st.composite
def cases(draw) -> Case:
    """Any 3×3 convolution of small images: uneven padding up to 4, any number of channels up to 70."""
    size = tuple(draw(st.integers(1, 20)) for _ in range(2))
    before = tuple(draw(st.integers(0, 4)) for _ in range(2))
    after = tuple(max(3 - s - b, draw(st.integers(0, 4))) for s, b in zip(size, before, strict=True))
    ci, co = (draw(st.integers(1, 70)) for _ in range(2))
    return plain(draw(st.integers(1, 3)), ci, co, size, tuple(zip(before, after, strict=True)))


def plain(n, ci, co, size, padding=((1, 1), (1, 1))):
    return Case(n, ci, co, size, (3, 3), (1, 1), padding, (1, 1))


# ---- matrices -----------------------------------------------------------------------------------------------------


def fractions(matrix):
    """The simple fractions that these numbers are the nearest floating-point numbers of."""
    exact = [[Fraction(value).limit_denominator(10_000) for value in row] for row in matrix]
    assert [[float(value) for value in row] for row in exact] == [list(row) for row in matrix]
    return exact


@pytest.mark.parametrize(("outputs", "taps"), [(2, 3), (4, 3), (3, 2), (3, 4)])
def test_matrices_make_a_correlation_exactly(outputs, taps):
    """Aᵀ [(G g) ⊙ (Bᵀ d)] is bilinear: it is the correlation if it is for each single tap and each single pixel."""
    at, g, bt = map(fractions, matrices(outputs, taps))
    n = outputs + taps - 1
    assert (len(at), len(g), len(bt)) == (outputs, n, n)
    assert {len(row) for row in at + bt} == {n} and {len(row) for row in g} == {taps}
    for output, tap, pixel in product(range(outputs), range(taps), range(n)):
        assert sum(at[output][k] * g[k][tap] * bt[k][pixel] for k in range(n)) == (pixel == output + tap)


@pytest.mark.parametrize("m", SIDES)
def test_input_and_output_matrices_are_exact_in_float32(m):
    """Only the weights' matrix is rounded, which is where a rounding costs least."""
    at, _, bt = matrices(m, 3)
    assert all(np.float32(value) == value for row in at + bt for value in row)


# ---- error --------------------------------------------------------------------------------------------------------


def stated(m, dtype, count):
    """What the planner states for float32, in units of this dtype; of less than a hundred results the largest may
    itself be what cancellation has left, so four times that.
    """
    units = float(np.finfo(dtype).eps / np.finfo(np.float32).eps)
    return planner._ERROR[Winograd(m).name] * units * (1 if count >= 100 else 4)


@pytest.mark.parametrize("direction", DIRECTIONS)
@TRIALS
@given(
    cases(), st.sampled_from(SIDES), st.sampled_from(DTYPES), st.sampled_from(THREADS), st.sampled_from([None, 4096])
)
def test_error_is_as_stated(direction, case, m, dtype, threads, l2_bytes):
    """Alone, between walls, and cut into blocks for a large and a tiny cache."""
    x, w, dy = normal(case, 0, dtype)
    with alone(threads, l2_bytes) as walls:
        got = computed(Winograd(m), direction, case, walls.images(x), w, walls.images(dy))
    expected = exact(direction, case, x, w, dy)
    assert got.dtype == dtype and got.shape == expected.shape
    assert np.abs(got - expected).max() <= stated(m, dtype, expected.size) * np.abs(expected).max()


def bound(direction, m, case, x, w, dy):
    """What no error may exceed, whatever the numbers are."""
    if direction == "weight_grad":
        return gradient_bound(m, case, x, dy)
    source, depth, summed = (x, case.ci, (1, 2, 3)) if direction == "forward" else (dy, case.co, (0, 2, 3))
    largest_sum = np.abs(w.astype(np.float64)).sum(axis=summed).max()
    return error_bound(m, depth, x.dtype) * float(np.abs(source).max()) * largest_sum


def gradient_bound(m, case, x, dy):
    """The same for F(3×3, m×m), which sums over squares, and then over threads."""
    at, g, bt = ([[abs(value) for value in row] for row in matrix] for matrix in winograd.matrices(3, m))
    magnified = math.prod(max(map(sum, matrix)) for matrix in (at, g, bt)) ** 2
    squares = case.n * math.prod(-(-size // m) for size in case.output_size)
    roundings = 2 * ((m + 2) + m + (m + 2)) + squares + len(THREADS)
    largest_sum = np.abs(dy.astype(np.float64)).sum(axis=(0, 2, 3)).max()
    return magnified * roundings * np.finfo(x.dtype).eps / 2 * float(np.abs(x).max()) * largest_sum


def assert_within_bound(direction, m, case, x, w, dy):
    with alone():
        got = computed(Winograd(m), direction, case, x, w, dy)
        allowed = bound(direction, m, case, x, w, dy)
    error = np.abs(got - exact(direction, case, x, w, dy)).max()
    assert error <= allowed, f"an error of {error:g} is beyond the bound {allowed:g}"


@pytest.mark.parametrize("direction", DIRECTIONS)
@FEW
@given(cases(), st.sampled_from(SIDES), st.sampled_from(DTYPES), st.data())
def test_error_is_within_the_bound(direction, case, m, dtype, data):
    """Numbers of all magnitudes, so that the largest of a square drowns its neighbours."""
    x, w, dy = normal(case, data.draw(st.integers(0, 99)), dtype)
    for array in (x, w, dy):
        array *= dtype(10) ** np.random.default_rng(0).integers(-6, 7, array.shape).astype(dtype)
    assert_within_bound(direction, m, case, x, w, dy)


SIXTEEN = plain(2, 16, 16 * 4, (9, 10))  # of whole vectors on every CPU


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["A", "G", "B"])
@pytest.mark.parametrize(("dtype", "change"), [(np.float64, 1e-7), (np.float32, -2.0)])
def test_bound_tells_when_one_coefficient_is_off(direction, m, which, dtype, change, monkeypatch):
    """The bound is no formality: a ten-millionth in float64, or a wrong sign in float32, goes beyond it."""

    def mistaken(outputs, taps):
        made = [list(matrix) for matrix in matrices(outputs, taps)]
        made[which][0] = (made[which][0][0] * (1 + change), *made[which][0][1:])
        return tuple(tuple(matrix) for matrix in made)

    operands = normal(SIXTEEN, 0, dtype)
    assert_within_bound(direction, m, SIXTEEN, *operands)
    monkeypatch.setattr(winograd, "matrices", mistaken)
    with pytest.raises(AssertionError, match="beyond the bound"):
        assert_within_bound(direction, m, SIXTEEN, *operands)


def test_bound_grows_with_channels_and_shrinks_with_the_unit():
    assert error_bound(4, 64, np.dtype(np.float32)) > error_bound(4, 1, np.dtype(np.float32))
    assert error_bound(4, 64, np.dtype(np.float32)) > error_bound(2, 64, np.dtype(np.float32))
    ratio = error_bound(2, 8, np.dtype(np.float32)) / error_bound(2, 8, np.dtype(np.float64))
    assert ratio == 2.0**29  # of 24 and 53 bits


# ---- how the work is cut ------------------------------------------------------------------------------------------


def last_block_is_partial(t):
    return t.blocks > 1 and t.lanes % t.block > 0


def last_part_is_shorter(t):
    return t.parts > 1 and t.squares % t.each > 0


def some_squares_fill_no_tile(t):
    return t.parts > 1 and (t.each % t.rows or (t.squares - (t.parts - 1) * t.each) % t.rows)


FORWARD_CUTS = {
    "one square": (plain(1, 3, 5, (1, 1)), 1, None, lambda t: t.squares == 1),
    "last block of lanes is partial": (plain(1, 5, 200, (7, 9)), 1, None, last_block_is_partial),
    "last part is shorter": (plain(1, 9, 11, (18, 26)), 1, 4096, last_part_is_shorter),
    "squares are left over in every part": (plain(1, 9, 40, (18, 26)), 1, 4096, some_squares_fill_no_tile),
    "threads share the lanes": (plain(1, 70, 70, (8, 8)), 2, None, lambda t: t.splits > 1),
    "threads share the squares": (plain(2, 3, 40, (28, 28)), 2, None, lambda t: t.splits == 1 < t.parts),
    "rows a page apart": (plain(1, 1024, 3, (4, 5)), 1, None, lambda t: t.row > t.depth),
}


def assert_as_stated(direction, m, case, dtype=np.float32):
    operands = normal(case, 0, dtype)
    got, expected = computed(Winograd(m), direction, case, *operands), exact(direction, case, *operands)
    assert np.abs(got - expected).max() <= stated(m, dtype, expected.size) * np.abs(expected).max()


@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("name", FORWARD_CUTS)
def test_forward_however_it_is_cut(name, m):
    case, threads, l2_bytes, holds = FORWARD_CUTS[name]
    if threads not in THREADS:
        pytest.skip("needs two threads")
    with alone(threads, l2_bytes):
        assert holds(winograd._forward_plan(problem_of(case), m, 4, threads, False).table[0])
        assert_as_stated("forward", m, case)


def shares(count):
    return lambda plan: plan.sums[0] == count


WEIGHT_CUTS = {
    "one square": (plain(1, 16, 64, (1, 1)), 1, None, lambda plan: plan.table[0].squares == 1),
    "sums in several parts": (plain(3, 3, 64, (30, 26)), 1, 4096, lambda plan: plan.table[0].parts > 1),
    "threads share the lanes": (plain(1, 70, 256, (8, 8)), 2, None, shares(1)),
    "threads share the squares": (plain(3, 5, 16, (20, 20)), 2, None, shares(2)),
    "input channels are left over": (plain(1, 67, 64, (9, 9)), 1, None, lambda plan: 67 % plan.table[0].rows > 0),
}


@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("name", WEIGHT_CUTS)
def test_weight_grad_however_it_is_cut(name, m):
    case, threads, l2_bytes, holds = WEIGHT_CUTS[name]
    if threads not in THREADS:
        pytest.skip("needs two threads")
    with alone(threads, l2_bytes):
        assert holds(winograd._weight_grad_plan(problem_of(case), m, 4, threads))
        assert_as_stated("weight_grad", m, case)


@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("co", [1, 17, 70])
def test_weight_grad_of_partial_vectors_needs_no_second_algorithm(co, m):
    with alone():
        assert_as_stated("weight_grad", m, plain(1, 3, co, (6, 6)))


INTERPRETED = """
from tests.conv.test_winograd import DIRECTIONS, SIDES, alone, assert_as_stated, plain
for m in SIDES:
    for direction in DIRECTIONS:
        with alone():
            assert_as_stated(direction, m, plain(2, 3, 16, (5, 6)))
"""


def test_plain_python_does_the_same():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# ---- finish -------------------------------------------------------------------------------------------------------

CLIPS = [(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-np.inf, -2.0)]
LAYOUTS = [
    Walls.images,
    lambda walls, array: np.ascontiguousarray(array),
    lambda walls, array: np.asfortranarray(array),
]


def one_after_another(y, bias, residual, clip):
    y = y if bias is None else y + bias.reshape(1, -1, 1, 1)
    y = y if residual is None else y + residual
    return np.where(y < clip[0], clip[0], np.where(y > clip[1], clip[1], y))


@FEW
@given(cases(), st.sampled_from(SIDES), st.sampled_from(DTYPES), st.sampled_from(THREADS), st.data())
def test_finish_is_the_steps_one_after_another(case, m, dtype, threads, data):
    x, w, residual = normal(case, 0, dtype)
    bias = np.random.default_rng(1).standard_normal(case.co).astype(dtype) if data.draw(st.booleans()) else None
    clip = data.draw(st.sampled_from(CLIPS))
    with alone(threads) as walls:
        residual = data.draw(st.sampled_from(LAYOUTS))(walls, residual) if data.draw(st.booleans()) else None
        before = np.copy(residual)
        got = computed(Winograd(m), "forward", case, walls.images(x), w, None, Finish(bias, residual, *clip))
    y = oracle.forward(case, x, w)
    expected = one_after_another(y, bias, residual, clip)
    rounding = 4 * np.finfo(dtype).eps * (np.abs(y).max() + 8)  # of the sums with bias and residual, which are below 4
    assert np.abs(got - expected).max() <= stated(m, dtype, y.size) * np.abs(y).max() + rounding
    np.testing.assert_array_equal(residual, before)


# ---- what is not finite -------------------------------------------------------------------------------------------

SPECIAL = [np.nan, np.inf, -np.inf]


def kinds(array):
    """1, 2, 3 for NaN and the two infinities, 0 for the rest."""
    return np.isnan(array) + 2 * np.isposinf(array) + 3 * np.isneginf(array)


def assert_travels_as_with_direct(case, m, dtype, direction, operands, finish=PLAIN):
    with np.errstate(invalid="ignore", over="ignore"):
        got = computed(Winograd(m), direction, case, *operands, finish)
        wanted = computed(direct, direction, case, *operands, finish)
    np.testing.assert_array_equal(kinds(got), kinds(wanted))
    finite = np.isfinite(wanted)
    largest = np.abs(wanted[finite]).max(initial=0) + 1
    assert np.abs(got[finite] - wanted[finite]).max(initial=0) <= 8 * stated(m, dtype, 1) * largest
    return wanted


@pytest.mark.parametrize("direction", DIRECTIONS)
@FEW
@given(cases(), st.sampled_from(SIDES), st.sampled_from(DTYPES), st.sampled_from(SPECIAL), st.data())
def test_what_is_not_finite_travels_as_with_direct(direction, case, m, dtype, number, data):
    operands = normal(case, 0, dtype)
    for array in operands:
        if data.draw(st.booleans()):
            array.flat[data.draw(st.integers(0, array.size - 1))] = number
    assert_travels_as_with_direct(case, m, dtype, direction, operands)


@FEW
@given(cases(), st.sampled_from(SIDES), st.sampled_from(SPECIAL), st.sampled_from(CLIPS), st.data())
def test_what_is_not_finite_is_clipped_as_with_direct(case, m, number, clip, data):
    """An infinity that the ceiling makes 6 is 6 only where it belongs, and NaN passes every bound."""
    x, w, residual = normal(case, 0, np.float32)
    bias = np.zeros(case.co, np.float32)
    array = data.draw(st.sampled_from([x, w, residual, bias]))
    array.flat[data.draw(st.integers(0, array.size - 1))] = number
    finish = Finish(bias, residual, *clip)
    wanted = assert_travels_as_with_direct(case, m, np.float32, "forward", (x, w, None), finish)
    assert np.isnan(wanted).any() or not (np.isnan(number) and array is residual)


@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_overflow_on_the_way_does_no_harm(direction, m):
    """Every result is finite, but not every sum of the transforms is."""
    case = plain(1, 2, 3, (8, 8))
    x, w, dy = normal(case, 0, np.float32)
    x, w, dy = (np.where(a > 0, np.float32(s), -np.float32(s)) for a, s in ((x, 3e38), (w, 1e-3), (dy, 1e-3)))
    if direction == "input_grad":
        x, dy = dy.reshape(-1)[: x.size].reshape(x.shape), np.where(dy > 0, np.float32(3e38), -np.float32(3e38))
    with np.errstate(over="raise", invalid="raise"):  # nor is it talked of
        got = computed(Winograd(m), direction, case, x, w, dy)
    expected = exact(direction, case, x, w, dy)
    assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()


def test_residual_that_is_not_finite_needs_no_second_algorithm():
    case = plain(1, 3, 5, (6, 7))
    x, w, residual = normal(case, 0, np.float32)
    residual[0, 2, 3, 4] = np.nan
    with alone():
        got = computed(Winograd(4), "forward", case, x, w, None, Finish(None, residual, 0.0, 6.0))
    assert np.argwhere(np.isnan(got)).tolist() == [[0, 2, 3, 4]]


# ---- the rest of the contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_same_inputs_give_the_same_bits(direction, m, threads):
    """Whatever the memory was used for before."""
    case = plain(5, 20, 64, (19, 18))
    operands = normal(case, 0, np.float32)
    with alone(threads):
        first = computed(Winograd(m), direction, case, *operands).copy()
        assert all((computed(Winograd(m), direction, case, *operands) == first).all() for _ in range(3))
    with number_of_threads(threads):
        assert (computed(Winograd(m), direction, case, *operands) == first).all()


@pytest.mark.parametrize("m", SIDES)
def test_memory_is_channels_last_and_lanes_last(m):
    case = plain(2, 4, 16, (6, 5))
    x, w, dy = normal(case, 0, np.float32)
    assert pixels(computed(Winograd(m), "forward", case, x, w, dy)).flags.c_contiguous
    assert pixels(computed(Winograd(m), "input_grad", case, x, w, dy)).flags.c_contiguous
    assert computed(Winograd(m), "weight_grad", case, x, w, dy).strides[0] == 4  # output channels are neighbours


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_any_memory_order_of_the_operands(direction):
    case = plain(2, 4, 16, (6, 5))
    operands = normal(case, 0, np.float32)
    straight = computed(Winograd(4), direction, case, *operands)
    for layout in (np.asfortranarray, lambda array: array[::-1, ::-1].copy()[::-1, ::-1]):
        turned = computed(Winograd(4), direction, case, *map(layout, operands))
        np.testing.assert_array_equal(turned, straight)


def test_weights_are_transformed_once_for_each_direction(monkeypatch):
    made = []

    def counting(weights, *options):
        made.append(options[-1])
        return transform(weights, *options)

    transform = winograd._transformed
    monkeypatch.setattr(winograd, "_transformed", counting)
    case = plain(1, 4, 5, (6, 6))
    x, w, dy = normal(case, 0, np.float32)
    weights, problem = Weights(w), problem_of(case)
    for _ in range(3):
        Winograd(4).forward(problem, x, weights)
        Winograd(4).input_grad(problem, dy, weights)
    assert made == [False, True]  # as they are, and turned


REFUSED = {
    "ic3oc4_ih9kh5": "it is made for kernels of 3×3, not 5×5",
    "ic3oc4_ih9kh3kw1": "it is made for kernels of 3×3, not 3×1",
    "ic3oc4_iw9kw3": "it is made for kernels of 3×3, not 3",
    "ic3oc4_id9ih9kd3kh3": "it is made for kernels of 3×3, not 3×3×3",
    "ic3oc4_ih9kh3sh2sw1": "it needs stride 1 and dilation 1",
    "ic3oc4_ih9kh3dh0dw1": "it needs stride 1 and dilation 1",
    "g2mb1ic4oc4_ih9kh3": "it needs one group, not 2",
    "ic3oc4_ih9iw4kh3ph0-4": None,
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("text", REFUSED)
def test_refusals_name_a_reason(text, direction):
    for m in SIDES:
        assert Winograd(m).refuses(ConvProblem.parse(text), direction) == REFUSED[text]


def test_names():
    assert [Winograd(m).name for m in (4, 2)] == ["winograd", "winograd2"]
