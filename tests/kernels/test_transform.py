"""The transform T · X · Tᵀ of small squares, compiled and interpreted, against einsum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.kernels.walls import Line, places
from tinytorch.kernels.target import target
from tinytorch.kernels.transform import transform, transform_of

TRIALS = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
BOUNDS = [(-np.inf, np.inf), (0, np.inf), (0, 6), (-np.inf, -3)]


class Case(NamedTuple):
    """One call of a transform: what is compiled, then what it is called with."""

    kind: dict[str, Any]
    lanes: int
    outside: int
    adds: int
    bounds: tuple[float, float]
    special: float
    seed: int


@st.composite
def matrices(draw) -> tuple[tuple[float, ...], ...]:
    """Whole numbers, no row of zeros; some columns have a neighbour with other signs, as in Winograd's."""
    values = [st.sampled_from([1.0, -1.0, 2.0, 3.0, 0.0])] * draw(st.integers(1, 4))
    columns = []
    for column in draw(st.lists(st.tuples(*values), min_size=1, max_size=3, unique_by=lambda c: tuple(map(abs, c)))):
        columns.append(column)
        if draw(st.booleans()):
            columns.append(tuple(value * draw(st.sampled_from([1, -1])) for value in column))
    matrix = tuple(zip(*columns, strict=True))
    assume(all(map(any, matrix)))
    return matrix


@st.composite
def cases(draw) -> Case:
    """Pixels outside are read as zeros or, by a transform that finishes, written nowhere."""
    dtype, masked = draw(st.sampled_from([np.float32, np.float64])), draw(st.booleans())
    kind = {"matrix": draw(matrices()), "finishing": draw(st.booleans()), "masked": masked, "dtype": dtype}
    width = target().lanes(np.dtype(dtype).itemsize)
    lanes = draw(st.integers(1, 3 * width)) if masked else width * draw(st.integers(1, 3))
    bounds, special = draw(st.sampled_from(BOUNDS)), draw(st.sampled_from([1, np.nan, np.inf, -np.inf]))
    return Case(
        kind, lanes, draw(st.integers(0, 3)), draw(st.integers(0, 1)), bounds, special, draw(st.integers(0, 99))
    )


class Squares:
    """The operands of a case; what must not be read is a wall."""

    def __init__(self, case: Case):
        self.case, self.t = case, np.array(case.kind["matrix"])
        rng, finishing = np.random.default_rng(case.seed), case.kind["finishing"]
        self.sources, self.targets = (rng.permutation(side * side) * (case.lanes + 2) for side in self.t.shape[::-1])
        (self.targets if finishing else self.sources)[: case.outside] = -1
        x, y = (table[table >= 0, None] + np.arange(case.lanes) for table in (self.sources, self.targets))
        row, one, two = places((case.lanes, 1)), places((1, 1)), places((2, 1))
        self.line = Line(case.kind["dtype"], y=y, x=x, spare=row, start=row, extra=y, flag=one, bounds=two)
        self.line.fill(rng, ["x", "start", *["extra"] * case.adds] if finishing else "x")
        self.line["spare"] = 0
        if finishing:
            self.line["flag"], self.line["bounds"] = 0, np.array(case.bounds)
            self.line.numbers[self.line.at["extra"].flat[: case.adds]] = case.special

    def run(self, compile_it: bool) -> None:
        at = {name: (self.line.numbers, start) for name, start in self.line.start.items()}
        sources, targets = (np.array([5, *table]) for table in (self.sources, self.targets))
        tail = [at[name] for name in ("spare", "start", "extra", "bounds", "flag")]
        operands = (at["x"], (sources, 1), at["y"], (targets, 1), *tail, self.case.lanes, self.case.adds)
        if compile_it:
            compiled(transform_of(**self.case.kind), operands)
        else:
            interpreted(self.case.kind, operands)

    def expected(self) -> np.ndarray:
        """Results that lie inside, one row a pixel."""
        case, x = self.case, np.zeros((self.sources.size, self.case.lanes))
        x[self.sources >= 0] = self.line["x"]
        square = x.reshape(self.t.shape[1], self.t.shape[1], -1)
        y = np.einsum("ri,ijl,sj->rsl", self.t, square, self.t).reshape(-1, case.lanes)[self.targets >= 0]
        if not case.kind["finishing"]:
            return y
        return np.clip(y + self.line["start"] + (self.line["extra"] if case.adds else 0), *case.bounds)


@numba.njit
def compiled(which, operands):
    transform(which, *operands)


def interpreted(kind, operands):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        which = transform_of.__wrapped__(**kind)
    transform(which, *operands)


@pytest.mark.parametrize("compile_it", [True, False], ids=["compiled", "interpreted"])
@TRIALS
@given(cases())
def test_transform_is_einsum(compile_it, case):
    squares = Squares(case)
    line, want = squares.line, squares.line.numbers.copy()
    want[line.at["y"]] = squares.expected()
    squares.run(compile_it)
    if -1 in squares.targets:
        line["spare"] = 0  # where results outside went
    np.testing.assert_array_equal(line.numbers, want)


DOUBLING = {"matrix": ((2.0, 0.0), (0.0, 2.0)), "finishing": True, "masked": True}


@pytest.mark.parametrize("compile_it", [True, False], ids=["compiled", "interpreted"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("operand", "number", "tells"),
    [
        ("x", np.nan, True),
        ("x", -np.inf, True),
        ("x", "largest", True),
        ("start", np.inf, True),
        ("start", "largest", False),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow|invalid value:RuntimeWarning")
def test_flag_tells_of_any_number_that_is_not_finite(compile_it, dtype, operand, number, tells):
    squares = Squares(Case(DOUBLING | {"dtype": dtype}, target().lanes(4) + 1, 0, 0, (0, 6), 1, 0))
    line, usual = squares.line, squares.line[operand]
    for one in line.at[operand].flat:
        line["flag"] = 0
        squares.run(compile_it)
        assert line["flag"] == 0
        line.numbers[one] = np.finfo(dtype).max if number == "largest" else number
        squares.run(compile_it)
        assert np.isnan(line["flag"]) == tells
        line[operand] = usual
        squares.run(compile_it)
        assert np.isnan(line["flag"]) == tells  # that there was one, in some square


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-14)])
def test_coefficients_are_exact_to_the_last_digit(dtype, tolerance):
    thirds = tuple(tuple((-1) ** j * (i + 1) / (3 + i * j) for j in range(4)) for i in range(3))
    kind = {"matrix": thirds, "finishing": False, "masked": False, "dtype": dtype}
    squares = Squares(Case(kind, target().lanes(4), 0, 0, (0, 0), 0, 0))
    squares.run(True)
    np.testing.assert_allclose(squares.line["y"], squares.expected(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("matrix", [((1.0, 1.0, 1.0),), ((1.0, 2.0), (0.0, 0.0))])
def test_any_matrix(matrix):
    kind = {"matrix": matrix, "finishing": False, "masked": False, "dtype": np.float32}
    squares = Squares(Case(kind, target().lanes(4), 0, 0, (0, 0), 0, 0))
    squares.run(True)
    np.testing.assert_array_equal(squares.line["y"], squares.expected())
