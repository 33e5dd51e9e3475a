"""Choosing an algorithm, being told one, and saying why."""

import threading

import pytest

from tinytorch.conv import planner
from tinytorch.conv.problem import ConvProblem

FLAT = ConvProblem.parse("mb2ic3oc4_ih8kh3ph1")
DEEP = ConvProblem.parse("ic3oc8_id4ih8kd1kh3")


def test_prefers_the_fast_kernel():
    assert planner.plan(FLAT).algorithm == "direct"


def test_falls_to_the_next_that_accepts_and_says_why():
    plan = planner.plan(DEEP)
    assert plan.algorithm == "im2col"
    assert dict(plan.reasons)["direct"].startswith("refused: the stride tables cover 1 and 2")
    assert str(plan).splitlines()[0].endswith(": im2col")
    assert len(str(plan).splitlines()) == 1 + len(planner.ALGORITHMS)


def test_named_algorithm_runs():
    assert planner.plan(FLAT, "input_grad", "loops").algorithm == "loops"
    assert dict(planner.plan(FLAT, "input_grad", "loops").reasons)["loops"] == "chosen: asked for by name"


def test_named_algorithm_that_refuses_is_an_error():
    with pytest.raises(
        ValueError, match=r"algorithm 'loops' refuses the forward of .*not 3; use one of \['im2col', 'fft'\]"
    ):
        planner.plan(DEEP, "forward", "loops")


def test_unknown_algorithm_names_the_near_one():
    with pytest.raises(ValueError, match="got 'im2cool'; did you mean 'im2col'"):
        planner.plan(FLAT, "forward", "im2cool")
    with (
        pytest.raises(
            ValueError,
            match=r"algorithm must be one of \['direct', 'winograd', 'winograd2', 'im2col', 'fft', 'loops'\], got 'x'",
        ),
        planner.use_algorithm("x"),
    ):
        pass


def test_use_algorithm_nests_and_ends():
    with planner.use_algorithm("loops"):
        assert planner.plan(FLAT).algorithm == "loops"
        with planner.use_algorithm("im2col"):
            assert planner.plan(FLAT).algorithm == "im2col"
        with planner.use_algorithm(None):
            assert planner.plan(FLAT).algorithm == "direct"
        assert planner.plan(FLAT, algorithm="im2col").algorithm == "im2col"
    assert planner.plan(FLAT).algorithm == "direct"


def test_use_algorithm_is_of_one_thread():
    seen = []
    with planner.use_algorithm("loops"):
        other = threading.Thread(target=lambda: seen.append(planner.plan(FLAT).algorithm))
        other.start()
        other.join()
    assert seen == ["direct"]
