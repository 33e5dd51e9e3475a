"""The estimate is a model, right to some ten percent: what must hold of any such model, and whom it has to prefer."""

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, problem_of
from tinytorch.conv import planner
from tinytorch.conv.estimate import steps
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.kernels.target import target

TRIALS = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PROBLEMS = cases(max_dims=3).map(problem_of)
MANY = PROBLEMS.map(lambda problem: replace(problem, n=1_000_000 * problem.n))  # so that the start does not count
BYTES_A_STEP = 6  # what one core reads from memory in the time of a vector multiply-add, as the model has it


def estimates(problem, direction, itemsize, workers):
    """For each algorithm that accepts, in the order of their names."""
    accepting = [name for name, algorithm in planner.ALGORITHMS.items() if not algorithm.refuses(problem, direction)]
    return {name: steps(problem, direction, name, itemsize, workers) for name in sorted(accepting)}


@TRIALS
@given(PROBLEMS, st.sampled_from(DIRECTIONS), st.sampled_from([4, 8]), st.sampled_from([1, 2, 64]))
def test_estimates_are_positive_numbers(problem, direction, itemsize, workers):
    made = estimates(problem, direction, itemsize, workers)
    assert made and all(0 < value < math.inf for value in made.values())


@TRIALS
@given(MANY, st.sampled_from(DIRECTIONS), st.sampled_from([4, 8]))
def test_memory_is_not_read_faster_than_it_can_be(problem, direction, itemsize):
    shapes = (problem.input_shape, problem.weight_shape, problem.output_shape)
    operands = sum(map(math.prod, shapes)) * itemsize
    assert all(value >= operands / BYTES_A_STEP for value in estimates(problem, direction, itemsize, 1).values())


@TRIALS
@given(MANY, st.sampled_from(["forward", "weight_grad"]), st.sampled_from([4, 8]))
def test_no_step_does_more_than_one_vector_of_multiply_adds(problem, direction, itemsize):
    saving = {"winograd": 4, "winograd2": 2.25, "fft": math.inf}
    for name, value in estimates(problem, direction, itemsize, 1).items():
        assert value >= problem.macs / saving.get(name, 1) / target().lanes(itemsize), name


@TRIALS
@given(PROBLEMS, st.sampled_from(DIRECTIONS))
def test_more_images_take_longer_and_more_threads_do_not(problem, direction):
    once, twice = (estimates(replace(problem, n=problem.n * k), direction, 4, 1) for k in (1, 2))
    assert all(few <= many for few, many in zip(once.values(), twice.values(), strict=True))
    shared = estimates(problem, direction, 4, 2)
    assert all(two <= one for one, two in zip(once.values(), shared.values(), strict=True))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("text", "fastest"),
    [
        ("mb8ic64oc64_ih56kh3ph1", "winograd"),
        ("mb8ic256oc256_ih14kh3ph1", "winograd"),
        ("mb8ic64oc256_ih56kh1", "direct"),
        ("mb8ic128oc128_ih56kh3ph1sh2", "direct"),
        ("mb8ic16oc64_ih224kh7ph3sh2", "direct"),
        ("mb1ic1oc1_ih4kh3ph1", "direct"),
        ("mb1ic8oc8_ih128kh63ph31", "fft"),
        ("g144mb8ic144oc144_ih56kh3ph1", "depthwise"),
    ],
)
def test_the_clear_cases(text, fastest, direction):
    made = estimates(ConvProblem.parse(text), direction, 4, 2)
    assert min(made, key=made.get) == fastest


@pytest.mark.parametrize("text", ["g32mb4ic128oc128_ih56kh3ph1", "mb4ic4oc4_ih56kh5ph2"])
def test_few_channels_are_for_vectors_of_pixels(text):
    for direction in ("forward", "input_grad"):
        made = estimates(ConvProblem.parse(text), direction, 4, 2)
        assert min(made, key=made.get) == "planar"


def test_an_upsampling_to_an_image_is_for_vectors_of_pixels():
    made = estimates(ConvProblem.parse("mb4ic3oc64_ih128kh4ph1sh2"), "input_grad", 4, 2)
    assert min(made, key=made.get) == "planar"


def test_loops_are_the_last_choice():
    made = estimates(ConvProblem.parse("mb1ic16oc16_ih28kh3ph1"), "forward", 4, 2)
    assert max(made, key=made.get) == "loops"
