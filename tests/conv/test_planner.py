"""Choosing an algorithm, being told one, and saying why."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, problem_of
from tinytorch import Tensor
from tinytorch.conv import measured, planner
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.core.conv_ops import conv2d

TRIALS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

FLAT = ConvProblem.parse("mb2ic3oc4_ih8kh3ph1")
DEEP = ConvProblem.parse("ic3oc8_id4ih8kd1kh3")
WIDE = ConvProblem.parse("mb8ic64oc64_ih56kh3ph1")  # enough for Winograd to be worth it


@pytest.fixture(autouse=True)
def remembered(tmp_path, monkeypatch):
    """Where the times are kept that these tests measure, which know nothing of this machine's."""
    monkeypatch.setenv("TINYTORCH_CACHE_DIR", str(tmp_path))
    forget()
    yield tmp_path / "measured"
    forget()


def forget():
    """What this process knows by heart."""
    planner._plan.cache_clear()
    planner._measure.cache_clear()


def test_prefers_the_fast_kernel():
    assert planner.plan(FLAT).algorithm == "direct"


def test_says_why_others_are_passed_over():
    plan = planner.plan(DEEP)
    assert plan.algorithm == "direct"
    assert dict(plan.reasons)["winograd"] == "refused: it is made for kernels of 3×3, not 1×3×3"
    assert str(plan).splitlines()[0].endswith(": direct")
    assert len(str(plan).splitlines()) == 1 + len(planner.ALGORITHMS)


@TRIALS
@given(cases(max_dims=3), st.sampled_from(DIRECTIONS))
def test_nobody_gets_the_loops_or_a_matrix_of_windows_by_default(case, direction):
    assert planner.plan(problem_of(case), direction).algorithm not in ("loops", "im2col")


def test_named_algorithm_runs():
    assert planner.plan(FLAT, "input_grad", "loops").algorithm == "loops"
    assert dict(planner.plan(FLAT, "input_grad", "loops").reasons)["loops"] == "chosen: asked for by name"


def test_named_algorithm_that_refuses_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"algorithm 'planar' refuses the forward of .*not 3; use one of \['direct', 'im2col', 'fft', 'loops'\]",
    ):
        planner.plan(DEEP, "forward", "planar")


def test_unknown_algorithm_names_the_near_one():
    with pytest.raises(ValueError, match="got 'im2cool'; did you mean 'im2col'"):
        planner.plan(FLAT, "forward", "im2cool")
    with (
        pytest.raises(
            ValueError,
            match=r"algorithm must be one of \['depthwise', 'direct', 'planar', 'winograd', 'winograd2', 'im2col', 'fft', 'loops'\], got 'x'",
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


def test_directions_are_told_apart():
    with planner.use_algorithm({"forward": "loops", "weight_grad": "fft"}):
        assert [planner.plan(FLAT, d).algorithm for d in DIRECTIONS] == ["loops", "direct", "fft"]
        assert planner.plan(FLAT, algorithm={"input_grad": "im2col"}).algorithm == "loops"
        assert planner.plan(FLAT, "input_grad", {"input_grad": "im2col"}).algorithm == "im2col"
        with planner.use_algorithm({"weight_grad": "im2col"}):
            assert [planner.plan(FLAT, d).algorithm for d in DIRECTIONS] == ["direct", "direct", "im2col"]


def test_a_transposed_convolutions_wish_is_turned():
    wish = planner.told({"forward": "loops", "weight_grad": "fft"})
    assert wish.turned == planner.Wish(by_direction=(("input_grad", "loops"), ("weight_grad", "fft")))
    assert wish.turned.of("input_grad").algorithm == "loops" and wish.turned.of("forward").algorithm is None
    assert planner.Wish("loops").turned == planner.Wish("loops")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"input": "direct"}, "algorithm must be given for directions out of ['forward', 'input_grad', 'weight_grad'], got 'input'"),
        ({"weight_gard": "fft"}, "got 'weight_gard'; did you mean 'weight_grad'?"),
        ({"forward": "im2cool"}, "got 'im2cool'; did you mean 'im2col'?"),
        ({"forward": None}, "algorithm must be one of"),
    ],
)  # fmt: skip
def test_unknown_directions_are_refused(choice, message):
    with pytest.raises(ValueError, match=re.escape(message)), planner.use_algorithm(choice):
        pass
    with pytest.raises(ValueError, match=re.escape(message)):
        planner.plan(FLAT, algorithm=choice)


def test_use_algorithm_is_of_one_thread():
    seen = []
    with planner.use_algorithm("loops"):
        other = threading.Thread(target=lambda: seen.append(planner.plan(FLAT).algorithm))
        other.start()
        other.join()
    assert seen == ["direct"]


@TRIALS
@given(
    cases(max_dims=3), st.sampled_from(DIRECTIONS), st.sampled_from([None, 1e-6, 3e-6]), st.sampled_from(["f4", "f8"])
)
def test_whatever_the_problem_one_that_accepts_is_chosen(case, direction, tolerance, dtype):
    plan = planner.plan(problem_of(case), direction, tolerance=tolerance, dtype=dtype)
    problem = plan.problem  # without taps that meet no pixel
    assert planner.ALGORITHMS[plan.algorithm].refuses(problem, direction) is None
    reasons = dict(plan.reasons)
    assert list(reasons) == list(planner.ALGORITHMS)
    assert [name for name, reason in reasons.items() if reason.startswith("chosen")] == [plan.algorithm]
    for name, algorithm in planner.ALGORITHMS.items():
        refusal = algorithm.refuses(problem, direction)
        assert refusal is None or reasons[name].startswith(("refused: its error may reach", f"refused: {refusal}"))


def test_the_fewest_steps_are_chosen_and_told():
    plan = planner.plan(WIDE)
    told = [(n, re.fullmatch(r"(chosen|accepts): ([\d,]+\.\d\d) thousand steps", reason)) for n, reason in plan.reasons]
    assert [name for name, match in told if match is None] == ["depthwise"]
    steps = {name: float(match[2].replace(",", "")) for name, match in told if match}
    assert plan.algorithm == min(steps, key=steps.get)


# ---- tolerance ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tolerance", "kept_out"),
    [
        (None, []),
        (1e-5, []),
        (9e-6, ["winograd"]),
        (3e-6, ["winograd"]),
        (2e-6, ["winograd"]),
        (1e-6, ["winograd", "winograd2", "fft"]),
        (1e-9, ["winograd", "winograd2", "fft"]),
    ],
)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_tolerance_keeps_out_what_is_less_accurate(tolerance, kept_out, direction):
    with planner.use_algorithm(tolerance=tolerance):
        plan = planner.plan(WIDE, direction)
    assert plan == planner.plan(WIDE, direction, tolerance=tolerance)
    assert [name for name, reason in plan.reasons if reason.startswith("refused: its error")] == kept_out
    assert plan.algorithm not in kept_out


def test_tolerance_says_what_the_error_may_be():
    reasons = dict(planner.plan(WIDE, tolerance=1e-6).reasons)
    assert reasons["winograd"] == "refused: its error may reach 1e-05 of the largest result, and 1e-06 is asked for"
    assert reasons["fft"] == "refused: its error may reach 2e-06 of the largest result, and 1e-06 is asked for"


def test_tolerance_says_nothing_to_one_that_is_asked_for_by_name():
    assert planner.plan(WIDE, algorithm="winograd", tolerance=1e-9).algorithm == "winograd"


@pytest.mark.parametrize("tolerance", [0, -1e-6, float("nan")])
def test_tolerance_must_be_positive(tolerance):
    message = f"tolerance must be positive, got {tolerance}; 1e-6 is about what float32 can keep"
    with pytest.raises(ValueError, match=message), planner.use_algorithm(tolerance=tolerance):
        pass


@pytest.mark.parametrize("tolerance", [0, -1e-6])
def test_tolerance_of_a_plan_must_be_positive(tolerance):
    with pytest.raises(ValueError, match="tolerance must be positive"):
        planner.plan(WIDE, tolerance=tolerance)


# ---- the gradients ------------------------------------------------------------------------------------------------


@pytest.fixture
def choices(monkeypatch):
    """Every choice that is made: direction, wish, algorithm."""
    made = []

    def choosing(problem, direction, wish, itemsize):
        plan = chosen(problem, direction, wish, itemsize)
        made.append((direction, wish, plan.algorithm))
        return plan

    chosen = planner._chosen
    monkeypatch.setattr(planner, "_chosen", choosing)
    return made


def step(ci=3, co=4, size=8, **options):
    """Forward in the block around this call; the backward is returned."""
    x = Tensor(np.ones((2, ci, size, size), np.float32), requires_grad=True)
    w = Tensor(np.ones((co, ci, 3, 3), np.float32), requires_grad=True)
    return conv2d(x, w, padding=1, **options).sum().backward


@pytest.mark.parametrize("name", ["direct", "winograd", "winograd2", "im2col", "fft", "loops"])
def test_gradients_keep_the_forwards_algorithm(name, choices):
    with planner.use_algorithm(name):
        backward = step()
    with planner.use_algorithm("im2col" if name == "loops" else "loops"):
        backward()
    assert [(direction, algorithm) for direction, _, algorithm in choices] == [(d, name) for d in DIRECTIONS]


def test_gradients_keep_the_forwards_tolerance(choices):
    with planner.use_algorithm(tolerance=1e-6):
        backward = step(ci=64, co=64, size=56)
    backward()
    assert [wish for _, wish, _ in choices] == [planner.Wish(tolerance=1e-6)] * 3
    assert not {"winograd", "winograd2", "fft"} & {algorithm for *_, algorithm in choices}


def test_a_layers_algorithm_stands_before_the_blocks(choices):
    with planner.use_algorithm("loops", tolerance=1e-6):
        step(algorithm="winograd")()
    assert [wish for _, wish, _ in choices] == [planner.Wish("winograd", 1e-6)] * 3


# ---- measuring ----------------------------------------------------------------------------------------------------


@pytest.fixture
def timed(monkeypatch):
    """What was timed; each seems to take half as long as the one before."""
    runs = []

    def seconds(run):
        run()
        runs.append(run)
        return 2.0 ** -len(runs)

    monkeypatch.setattr(measured, "seconds", seconds)
    return runs


def files(folder):
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*")}


def test_measuring_chooses_what_took_least_and_says_so(timed, remembered):
    plan = planner.plan(FLAT, measure=True)
    ((times,),) = (file.values() for file in files(remembered).values())
    assert list(times.values()) == [2.0**-k for k in range(1, len(timed) + 1)]
    assert plan.algorithm == list(times)[-1] != "direct"
    reasons = dict(plan.reasons)
    assert reasons[plan.algorithm] == f"chosen: {1e3 * 2.0 ** -len(timed):,.2f} ms measured"
    assert reasons["direct"] == "accepts: 500.00 ms measured"


def test_hopeless_algorithms_are_not_measured(timed, remembered):
    planner.plan(WIDE, measure=True)
    ((times,),) = (file.values() for file in files(remembered).values())
    assert "loops" not in times and "direct" in times


def test_what_was_measured_stays_known(timed, remembered):
    first = planner.plan(FLAT, measure=True)
    count = len(timed)
    assert count > 1
    assert planner.plan(FLAT, measure=True) == planner.plan(FLAT) == first
    forget()  # as a new process would
    assert planner.plan(FLAT, measure=True) == planner.plan(FLAT) == first
    assert len(timed) == count


def test_another_process_knows_it(timed):
    plan = planner.plan(FLAT, measure=True)
    code = f"""
from tinytorch.conv import measured, planner
from tinytorch.conv.problem import ConvProblem
measured.seconds = None
problem = ConvProblem.parse({str(FLAT)!r})
print(planner.plan(problem))
print(planner.plan(problem, measure=True))
"""
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{plan}\n{plan}\n", done.stderr
    assert "ms measured" in done.stdout


def test_directions_types_and_problems_are_measured_apart(timed, remembered):
    for direction in DIRECTIONS:
        planner.plan(FLAT, direction, measure=True)
    planner.plan(FLAT, measure=True, dtype=np.float64)
    planner.plan(WIDE, measure=True)
    (known,) = files(remembered).values()
    expected = {f"{direction} f32 {FLAT}" for direction in DIRECTIONS} | {f"forward f64 {FLAT}", f"forward f32 {WIDE}"}
    assert set(known) == expected


def test_a_block_measures_the_gradients_too(timed, remembered, choices):
    with planner.use_algorithm(measure=True):
        backward = step()
        assert len(files(remembered)) == 1
    backward()
    (known,) = files(remembered).values()
    assert set(known) == {f"{direction} f32 {FLAT}" for direction in DIRECTIONS}
    own = [(direction, algorithm) for direction, wish, algorithm in choices if wish.measure]
    assert own == [(direction, list(known[f"{direction} f32 {FLAT}"])[-1]) for direction in DIRECTIONS]


def test_time_is_taken_in_earnest(remembered):
    for direction in DIRECTIONS:
        planner.plan(FLAT, direction, measure=True)
    (known,) = files(remembered).values()
    assert len(known) == 3
    assert all(0 < seconds < 1 for times in known.values() for seconds in times.values())


BAD_FILES = {
    "empty": "",
    "no JSON": "fast",
    "half a file": '{"forward f32',
    "no UTF-8": b"\xff\xfe\x00",
    "a list": "[]",
    "null": "null",
    "no times": '{"KEY": 3}',
    "times that are text": '{"KEY": {"direct": "fast"}}',
    "times of nobody": '{"KEY": {"strassen": 0.1}}',
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("measure", [False, True])
def test_a_bad_file_is_no_error(name, measure, timed, remembered):
    planner.plan(WIDE, measure=True)
    (path,) = remembered.glob("*")
    content = BAD_FILES[name]
    path.write_bytes(content if isinstance(content, bytes) else content.replace("KEY", f"forward f32 {FLAT}").encode())
    forget()
    plan = planner.plan(FLAT, measure=measure)
    assert planner.ALGORITHMS[plan.algorithm].refuses(FLAT, "forward") is None
    assert planner.plan(WIDE, measure=True).algorithm in planner.ALGORITHMS


def test_a_folder_that_can_not_be_made_is_no_error(timed, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYTORCH_CACHE_DIR", str(tmp_path / "file"))
    plan = planner.plan(FLAT, measure=True)
    count = len(timed)
    assert planner.plan(FLAT, measure=True) == plan and len(timed) == count  # nor is it timed again and again


EMPTY = ConvProblem.of((0, 3, 8, 8), (4, 3, 3, 3), padding=1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_empty_batch_can_be_planned(direction):
    assert planner.plan(EMPTY, direction).algorithm in planner.ALGORITHMS


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_empty_batch_can_be_measured(direction, timed):
    assert planner.plan(EMPTY, direction, measure=True).algorithm in planner.ALGORITHMS
