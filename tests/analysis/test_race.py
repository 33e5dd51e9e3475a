"""The race: that results are compared with the definition, that the sample is a piece of it, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, integers, problem_of
from tests.oracle import convolution as oracle
from tinytorch.analysis import race as room
from tinytorch.analysis.race import LIMITS, Entry, Race, loops_sample, peak_flops, race
from tinytorch.conv import planner
from tinytorch.conv.cost import cost
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.kernels import jit, memory
from tinytorch.kernels.tile import NUMBERS

TRIALS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SMALL = ConvProblem.parse("mb2ic3oc4_ih9kh3ph1")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(room, "_BLOCK", 0.0)
    monkeypatch.setattr(room, "_REST", 0.0)


# ---- the definition on single elements ----------------------------------------------------------------


@TRIALS
@given(cases(max_dims=3, max_pixels=9), st.sampled_from(DIRECTIONS), st.integers(0, 1000))
def test_an_element_is_what_the_definition_says(case, direction, seed):
    """Every tap, padding, stride and group, against the oracle of the tests, which computes whole results."""
    x, w, _, dy = integers(case, seed, np.float64)
    whole = {
        "forward": lambda: oracle.forward(case, x, w),
        "input_grad": lambda: oracle.input_grad(case, dy, w),
        "weight_grad": lambda: oracle.weight_grad(case, x, dy),
    }[direction]()
    problem = problem_of(case)
    places = np.random.default_rng(seed).choice(whole.size, min(whole.size, 5), replace=False)
    for place in places:
        index = tuple(map(int, np.unravel_index(place, whole.shape)))
        assert room._ELEMENT[direction](problem, index, x, w, dy) == whole[index]


@TRIALS
@given(cases(max_dims=3, max_pixels=9), st.sampled_from(DIRECTIONS))
def test_elements_are_places_in_the_result(case, direction):
    shape = {"forward": case.output_shape, "input_grad": case.input_shape, "weight_grad": case.weight_shape}[direction]
    places = room._elements(problem_of(case), direction)
    assert 1 <= len(places) == len(set(places)) <= 64
    assert all(0 <= index < size for place in places for index, size in zip(place, shape, strict=True))


def test_elements_that_take_the_loops_too_long_are_left_out():
    assert room._elements(ConvProblem.parse("mb64ic2oc2_ih224kh3ph1"), "weight_grad") == []
    assert len(room._elements(ConvProblem.parse("ic512oc512_ih7kh3ph1"), "input_grad")) == 4  # 41,472 MACs each


# ---- the sample ---------------------------------------------------------------------------------------


@TRIALS
@given(cases(max_dims=3), st.integers(1, 20_000))
def test_a_sample_is_small_and_has_the_same_kernel(case, macs):
    problem = problem_of(case)
    sample = loops_sample(problem, macs)
    assert sample == problem or problem.macs > macs
    assert sample.weight_shape[1:] == problem.weight_shape[1:] and sample.groups == problem.groups
    steps = [(axis.kernel, axis.stride, axis.dilation) for axis in sample.axes]
    assert steps == [(axis.kernel, axis.stride, axis.dilation) for axis in problem.axes]
    one_window = math.prod(problem.weight_shape[1:]) * problem.groups
    assert sample.macs <= max(macs, one_window)
    assert ConvProblem.parse(str(sample)) == sample  # it is a convolution


def test_a_sample_gives_up_images_and_windows_before_channels():
    assert loops_sample(ConvProblem.parse("mb32ic64oc64_ih56kh3ph1"), 200_000).co == 64
    assert loops_sample(ConvProblem.parse("ic512oc512_ih7kh3ph1"), 200_000).output_shape == (1, 43, 1, 1)


# ---- the race -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_everybody_who_can_takes_part_and_is_right(direction, dtype):
    told = []
    result = race(SMALL, direction, dtype=dtype, rounds=2, say=told.append)
    able = {name for name in planner.ALGORITHMS if not planner.ALGORITHMS[name].refuses(SMALL, direction)}
    assert {entry.algorithm for entry in result.entries} == able
    assert dict(result.refused).keys() == planner.ALGORITHMS.keys() - able
    assert [entry.median for entry in result.entries] == sorted(entry.median for entry in result.entries)
    assert result.wrong == () and result.dtype == dtype and result.threads == jit.workers()
    assert result.elements > 0 and result.reference_error < 1e-14
    assert result.chosen == planner.plan(SMALL, direction, dtype=dtype).algorithm
    for entry in result.entries:
        assert len(entry.seconds) == 2 and entry.error <= LIMITS[np.dtype(dtype).itemsize]
        assert entry.cost == cost(SMALL, direction, entry.algorithm, np.dtype(dtype).itemsize)
        assert entry.exact or entry.algorithm in ("winograd", "winograd2", "fft")
    assert told[-1].startswith("round 2 of 2: ")


def test_everybody_is_timed_once_a_round(monkeypatch):
    calls = []
    turn = room._turn
    monkeypatch.setattr(room, "_turn", lambda call: calls.append(call.args[0]) or turn(call))
    race(SMALL, algorithms=["direct", "im2col"], rounds=3)
    assert calls == ["direct", "im2col", "loops"] * 3


@pytest.mark.parametrize(
    "text", ["g4mb2ic4oc8_ih9kh3ph1sh2", "mb2ic2oc3_iw40kw5", "mb1ic2oc3_id4ih5kd2kh3", "mb1ic40oc60_ih30kh3"]
)
def test_any_convolution_can_be_raced(text):
    problem = ConvProblem.parse(text)
    for direction in DIRECTIONS:
        result = race(problem, direction, ["direct", "im2col", "depthwise"], rounds=1)
        assert result.wrong == () and result.of("direct").exact and result.of("loops").exact


def test_a_small_problem_is_timed_whole_and_a_large_one_estimated():
    assert race(SMALL, algorithms=["direct"], rounds=1).of("loops").sample is None
    large = ConvProblem.parse("mb4ic16oc16_ih30kh3ph1")
    result = race(large, algorithms=["direct"], rounds=1)
    loops = result.of("loops")
    assert loops.sample == loops_sample(large) and loops.sample.macs < large.macs
    assert loops.cost.macs == large.macs


def test_an_estimate_is_in_proportion_to_the_work(monkeypatch):
    """A clock that every multiply-accumulate of the loops moves on by a microsecond."""
    now = 0.0
    forward = room.loops.forward

    def slow(problem, *operands):
        nonlocal now
        now += problem.macs * 1e-6
        return forward(problem, *operands)

    monkeypatch.setattr(room.loops, "forward", slow)
    monkeypatch.setattr(room.time, "perf_counter", lambda: now)
    large = ConvProblem.parse("mb4ic16oc16_ih30kh3ph1")
    data = room._Data.random(large, "forward", np.dtype(np.float32))
    assert room._runners(data, ["loops"], loops_sample(large))["loops"]() == pytest.approx(large.macs * 1e-6)


def entry(name, seconds, error=0.0, exact=True):
    return Entry(name, tuple(seconds), cost(SMALL, "forward", name, 4), error, exact)


def result_of(*entries):
    return Race(SMALL, "forward", "float32", 2, 1e9, "direct", entries, (), 4, 0.0)


def test_figures_of_a_race():
    direct, loops = entry("direct", [3e-3, 1e-3, 2e-3]), entry("loops", [4.0])
    result = result_of(direct, loops)
    assert direct.median == 2e-3 and direct.spread == pytest.approx(0.5e-3)
    assert loops.spread == 0
    assert result.speed_up(direct) == 2000 and result.speed_up(loops) == 1
    assert result.flops(direct) == 2 * 2 * 4 * 81 * 27 / 2e-3
    assert result.bandwidth(direct) == direct.cost.bytes / 2e-3
    assert entry("winograd2", [1.0]).saved == 81 * 9 / (25 * 16)  # 25 squares of 2 × 2 cover 9 × 9


def test_nothing_is_saved_infinitely_often():
    nothing = replace(entry("direct", [1.0]), cost=replace(cost(SMALL, "forward", "direct", 4), multiplies=0))
    assert nothing.saved == math.inf


@pytest.mark.parametrize(
    ("name", "error", "exact", "is_wrong"),
    [
        ("direct", 1e-6, True, False),
        ("direct", 1e-6, False, True),
        ("direct", 1e-3, True, True),
        ("direct", math.nan, True, True),
        ("winograd", 1e-6, False, False),
        ("winograd", 1e-3, False, True),
        ("loops", None, None, False),
    ],
)
def test_who_is_wrong(name, error, exact, is_wrong):
    assert result_of(entry(name, [1.0], error, exact)).wrong == ((name,) if is_wrong else ())


def test_a_wrong_result_is_noticed(monkeypatch):
    class Wrong:
        name = "im2col"
        refuses = staticmethod(lambda problem, direction: None)
        forward = staticmethod(lambda problem, x, weights: planner.forward(problem, x, weights.array * 1.001))

    monkeypatch.setitem(planner.ALGORITHMS, "im2col", Wrong)
    assert race(SMALL, algorithms=["im2col", "direct"], rounds=1).wrong == ("im2col",)


def test_a_wrong_reference_is_noticed(monkeypatch):
    right = room.direct.forward
    monkeypatch.setattr(room.direct, "forward", lambda *args: right(*args) * 1.01)
    assert race(SMALL, algorithms=["im2col"], rounds=1).reference_error > 1e-3


def test_who_needs_too_much_memory_is_left_out(monkeypatch):
    scratch = cost(SMALL, "forward", "im2col", 4).scratch
    monkeypatch.setattr(memory, "installed", lambda: 2 * scratch - 2)
    assert dict(race(SMALL, algorithms=["im2col", "direct"], rounds=1).refused).keys() == {"im2col"}
    monkeypatch.setattr(memory, "installed", lambda: 2 * scratch)
    assert race(SMALL, algorithms=["im2col", "direct"], rounds=1).refused == ()


@pytest.mark.parametrize("itemsize", [4, 8])
def test_the_peak_counts_what_the_tile_does(itemsize, monkeypatch):
    """On a clock that stands still for a second a call."""
    ticks = iter(range(1000))
    monkeypatch.setattr(room.time, "perf_counter", lambda: float(next(ticks)))
    _, rows, lanes, numbers = room._busy_tile(itemsize)
    steps = numbers[NUMBERS.index("n_o")] * numbers[NUMBERS.index("n_m")] * numbers[NUMBERS.index("n_i")]
    assert peak_flops(itemsize, rounds=2) == 2 * rows * lanes * steps * room._TILES * jit.workers()


@pytest.mark.parametrize(
    ("text", "direction", "options", "message"),
    [
        ("mb0ic3oc4_ih9kh3", "forward", {}, "problem must have at least one image, got .*mb0.*; write mb1 or more"),
        ("ic3oc4_ih9kh3", "forward", {"rounds": 0}, "rounds must be at least 1, got 0; 7 give a median"),
        ("ic3oc4_ih9kh3", "forward", {"dtype": np.int32}, "dtype must be float32 or float64, got int32; "),
        ("ic3oc4_ih9kh3", "forward", {"dtype": np.float16}, "dtype must be float32 or float64, got float16; "),
        ("ic3oc4_ih9kh3", "forward", {"algorithms": ["wino"]}, "algorithm must be one of .*, got 'wino'; did you mean"),
        ("ic3oc4_ih9kh3sh2", "forward", {"algorithms": ["winograd"]}, "algorithm 'winograd' refuses the forward of .*stride 1"),
    ],
)  # fmt: skip
def test_errors_teach(text, direction, options, message):
    with pytest.raises(ValueError, match=message):
        race(ConvProblem.parse(text), direction, **options)
