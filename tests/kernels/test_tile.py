"""The register tile, compiled and interpreted, against einsum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.walls import Line, places
from tinytorch.kernels.target import target
from tinytorch.kernels.tile import numbers, tile, tile_of

TRIALS = settings(max_examples=70, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SIZES = [(r, v) for r in range(1, 17) for v in range(1, 5) if r * v + v < target().registers]
BOUNDS = [(-np.inf, np.inf), (0, np.inf), (0, 6), (-np.inf, -3), (2, 2)]
SPECIALS = [1, np.nan, np.inf, -np.inf]


class Case(NamedTuple):
    """One call of a tile: what is compiled, then what it is called with."""

    size: dict[str, Any]
    lanes: int
    tiles: int
    number: dict[str, int]
    bounds: tuple[float, float]
    specials: tuple[float, float]
    in_place: bool
    seed: int


@st.composite
def cases(draw) -> Case:
    """Any size that fits the registers; strides may be 0, trip counts too, and the sums may start from C itself."""
    dtype, masked, in_place = draw(st.sampled_from([np.float32, np.float64])), draw(st.booleans()), draw(st.booleans())
    rows, vectors = draw(st.sampled_from(SIZES))
    full = vectors * target().lanes(np.dtype(dtype).itemsize)
    lanes = draw(st.integers(0, full)) if masked else full
    strides = ["a_row", "a_o", "a_m", "a_i", "a_t", "b_o", "b_m", "b_i", "d_row", "d_t", "e_row", "f_i"]
    number = {name: draw(st.integers(0, 9)) for name in strides}
    number |= {name: draw(st.sampled_from([2, 1, 3, 4, 0])) for name in ("n_o", "n_m", "n_i")}
    number["n_e"] = draw(st.integers(0, 1))
    number["c_row"] = lanes + draw(st.integers(0, 3))
    number["c_t"] = rows * number["c_row"] + draw(st.integers(0, 3))
    if in_place:
        number |= {"d_row": number["c_row"], "d_t": number["c_t"]}
    size = {"rows": rows, "vectors": vectors, "masked": masked, "dtype": dtype, "ahead": draw(st.booleans())}
    specials = draw(st.sampled_from(SPECIALS)), draw(st.sampled_from(SPECIALS))
    bounds, seed = draw(st.sampled_from(BOUNDS)), draw(st.integers(0, 1000))
    return Case(size, lanes, draw(st.sampled_from([1, 2, 3, 0])), number, bounds, specials, in_place, seed)


def line_of(case: Case) -> Line:
    """The operands of a case; E is a wall where it must not be read."""
    n, rows, rng = case.number, case.size["rows"], np.random.default_rng(case.seed)

    def block(t: str, row: str) -> np.ndarray:
        return places((case.tiles, n[t]), (rows, n[row]), (case.lanes, 1))

    reduction_a, reduction_b = ([(n[f"n_{x}"], n[f"{operand}_{x}"]) for x in "omi"] for operand in "ab")
    a = places((case.tiles, n["a_t"]), (rows, n["a_row"]), *reduction_a)
    b = places(*reduction_b, (case.lanes, 1))
    line = Line(case.size["dtype"], c=block("c_t", "c_row"), d=block("d_t", "d_row"), a=a, b=b, e=block("c_t", "e_row"))
    if case.in_place:
        line.start["d"], line.at["d"] = line.start["c"], line.at["c"]
    line.fill(rng, "abde" if n["n_e"] else "abd")
    for name, special in zip("ad", case.specials, strict=True):
        line.numbers[line.at[name].flat[:1]] = special
    return line


def expected(case: Case, line: Line) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        sums = line["d"] + np.einsum("tromi,omiv->trv", line["a"], line["b"])
        return np.clip(sums + line["e"] if case.number["n_e"] else sums, *case.bounds)


@numba.njit
def compiled(which, operands):
    tile(which, *operands)


def interpreted(which, operands):
    with np.errstate(invalid="ignore"):
        tile(which, *operands)


@pytest.mark.parametrize("run", [compiled, interpreted])
@TRIALS
@given(cases())
def test_tile_is_einsum(run, case):
    line = line_of(case)
    want = line.numbers.copy()
    want[line.at["c"]] = expected(case, line)
    operands = [(line.numbers, line.start[name]) for name in "cdabe"]
    sizes = np.array([-1, *numbers(**case.number)]), 1
    bounds = np.array([np.nan, *case.bounds], case.size["dtype"]), 1
    which = tile_of(**case.size) if run is compiled else case.size["rows"]
    run(which, (*operands, sizes, bounds, case.lanes, case.tiles))
    np.testing.assert_array_equal(line.numbers, want)
