"""The strip of a depthwise convolution, compiled and interpreted, against einsum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.walls import Line, places
from tinytorch.kernels.strip import NUMBERS, strip, strip_of
from tinytorch.kernels.target import target

TRIALS = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ROWS = [(3, 1, 1), (3, 2, 1), (2, 1, 2), (1, 1, 1), (1, 3, 1), (5, 2, 3), (9, 1, 1), (10, 2, 3), (0, 1, 1)]
BOUNDS = [(-np.inf, np.inf), (0, np.inf), (0, 6), (-np.inf, -3), (2, 2)]
SPECIALS = [1, np.nan, np.inf, -np.inf]


class Case(NamedTuple):
    """One call of a strip: what is compiled, then what it is called with."""

    kind: dict[str, Any]
    n_o: int
    lanes: int
    lines: int
    pixels: int
    number: dict[str, int]
    turned: bool
    bounds: tuple[float, float]
    specials: tuple[float, float]
    seed: int


@st.composite
def cases(draw) -> Case:
    """Every length of a piece; pixels may lie between lines; the weights may run backwards; counts may be 0."""
    dtype, masked = draw(st.sampled_from([np.float32, np.float64])), draw(st.booleans())
    kind = dict(zip(("taps", "stride", "hop"), draw(st.sampled_from(ROWS)), strict=True))
    kind |= {"masked": masked, "dtype": dtype, **draw(st.sampled_from([{}, {"adds": True}, {"gradient": True}]))}
    width = target().lanes(np.dtype(dtype).itemsize)
    lanes = draw(st.integers(0, 3 * width)) if masked else width * draw(st.integers(1, 3))
    n_o, lines, pixels = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(0, 19))
    number = {name: draw(st.integers(0, 9)) for name in ("a_l", "a_x", "a_o")}
    short, count, long = draw(st.sampled_from([("c_p", pixels, "c_l"), ("c_l", lines, "c_p")]))
    number[short] = lanes + draw(st.integers(0, 3))
    number[long] = count * number[short] + draw(st.integers(0, 3))
    number["b_m"] = lanes + draw(st.integers(0, 3))
    number["b_o"] = kind["taps"] * number["b_m"] + draw(st.integers(0, 3))
    specials = draw(st.sampled_from(SPECIALS)), draw(st.sampled_from(SPECIALS))
    bounds, seed = draw(st.sampled_from(BOUNDS)), draw(st.integers(0, 1000))
    return Case(kind, n_o, lanes, lines, pixels, number, draw(st.booleans()), bounds, specials, seed)


def line_of(case: Case) -> Line:
    """The operands of a case; what must not be read is a wall."""
    n, taps, lanes = case.number, case.kind["taps"], (case.lanes, 1)
    step, hop = case.kind["stride"] * n["a_x"], case.kind["hop"] * n["a_x"]
    b = places((case.n_o, n["b_o"]), (taps, n["b_m"]), lanes)
    c = places((case.lines, n["c_l"]), (case.pixels, n["c_p"]), lanes)
    a = places((case.lines, n["a_l"]), (case.pixels, step), (case.n_o, n["a_o"]), (taps, hop), lanes)
    if case.kind.get("gradient"):
        line = Line(case.kind["dtype"], b=b, c=c, a=a, d=places(lanes), e=c)
    else:
        line = Line(case.kind["dtype"], c=c, b=b, a=a, d=places(lanes), e=c)
    if case.turned:
        line.start["b"] += max(case.n_o - 1, 0) * n["b_o"] + max(taps - 1, 0) * n["b_m"]
        line.at["b"] = line.at["b"][::-1, ::-1]
    return line


def fill(case: Case, line: Line) -> None:
    reads = "abc" if case.kind.get("gradient") else "abde" if case.kind.get("adds") else "abd"
    line.fill(np.random.default_rng(case.seed), reads)
    for name, special in zip((reads[0], reads[2]), case.specials, strict=True):
        line.numbers[line.at[name].flat[:1]] = special


def expected(case: Case, line: Line) -> tuple[str, np.ndarray]:
    """Name of the result, and its values."""
    with np.errstate(invalid="ignore"):
        if case.kind.get("gradient"):
            return "b", line["b"] + np.einsum("lpomv,lpv->omv", line["a"], line["c"])
        sums = line["d"] + np.einsum("lpomv,omv->lpv", line["a"], line["b"])
        return "c", np.clip(sums + line["e"] if case.kind.get("adds") else sums, *case.bounds)


@numba.njit
def compiled(which, operands):
    strip(which, *operands)


def interpreted(which, operands):
    with np.errstate(invalid="ignore"):
        strip(which, *operands)


def compile_for(run, kind: dict[str, Any]) -> int:
    if run is compiled:
        return strip_of(**kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        return strip_of.__wrapped__(**kind)


def sizes_of(case: Case) -> tuple[np.ndarray, int]:
    """The numbers of the strip, not at the start of their line."""
    sign = {"b_o": -1, "b_m": -1} if case.turned else {}
    return np.array([-1, *(sign.get(name, 1) * case.number[name] for name in NUMBERS)]), 1


@pytest.mark.parametrize("run", [compiled, interpreted])
@TRIALS
@given(cases())
def test_strip_is_einsum(run, case):
    line = line_of(case)
    fill(case, line)
    want = line.numbers.copy()
    name, values = expected(case, line)
    want[line.at[name]] = values
    operands = [(line.numbers, line.start[name]) for name in "cdabe"]
    bounds = np.array([np.nan, *case.bounds], case.kind["dtype"]), 1
    counts = case.n_o, case.kind["taps"], case.lanes, case.lines, case.pixels
    run(compile_for(run, case.kind), (*operands, sizes_of(case), bounds, *counts))
    np.testing.assert_array_equal(line.numbers, want)
