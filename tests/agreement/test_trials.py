"""The bookkeeping of trials: each way to disagree, and each way for the list of meant differences to be wrong."""

import numpy as np
import pytest

from tests.agreement.trials import (
    CRASHED,
    DIFFERS,
    FOREIGN,
    MATCHED,
    REFUSED,
    Difference,
    Foreign,
    Trial,
    attempt,
    call,
    complaints,
    gap,
)
from tinytorch import Tensor


def raising(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        (lambda: "", MATCHED),
        (lambda: "off by 1", DIFFERS),
        (raising(ValueError("stride must be positive, got 0")), REFUSED),
        (raising(ValueError("upstride must be positive")), CRASHED),
        (raising(ValueError("")), CRASHED),
        (raising(ZeroDivisionError("stride")), CRASHED),
        (raising(Foreign("stride")), FOREIGN),
    ],
)
def test_outcomes(run, outcome):
    assert attempt(run, lambda: ["stride"])[0] == outcome


def test_arguments_that_do_not_fit_are_foreign():
    with pytest.raises(Foreign, match="unexpected keyword argument 'b'"):
        call(lambda a: a, 1, b=2)


def trial(case, outcome):
    return Trial("op1d", case, f"op1d({case})", outcome)


def test_complaints():
    meant = Difference("op.d", REFUSED, "why", lambda case: case == 1)
    assert complaints([trial(1, REFUSED), trial(2, MATCHED)], [meant]) == []
    assert complaints([trial(1, REFUSED), trial(2, REFUSED)], [meant]) == ["not listed: op1d(2): refused"]
    assert complaints([trial(1, DIFFERS)], [meant]) == ["not listed: op1d(1): differs"]
    assert complaints([trial(1, MATCHED)], [meant]) == ["listed (why), but no longer so: op1d(1): matched"]
    assert complaints([trial(2, MATCHED)], [meant]) == ["listed, but describes no case: why"]


def test_gaps():
    three = np.array([1.0, np.inf, np.nan])
    assert gap("y", three, three, 1e-9) == ""
    assert gap("y", three[:2], three, 1e-9) == "y is float64[2] instead of float64[3]"
    assert gap("y", three.astype(np.float32), three, 1e-9) == "y is float32[3] instead of float64[3]"
    assert gap("y", np.array([1.0, np.inf, 0]), three, 1e-9) != ""
    assert gap("y", np.array([1000.0, 1e-6]), np.array([1000.0, 0]), 1e-8) == ""
    assert (
        gap("y", np.array([1000.0, 1e-4]), np.array([1000.0, 0]), 1e-8)
        == "y is off by 1.0e-04, where the largest entry is 1.0e+03"
    )


def test_what_is_small_is_held_against_itself_but_for_rounding():
    none, small, rounding = (np.full(3, value, np.float32) for value in (0, 5e-6, 1e-8))
    assert gap("y", none, small, 1e-5, 1e-7) == "y is off by 5.0e-06, where the largest entry is 5.0e-06"
    assert gap("y", none, rounding, 1e-5, 1e-7) == ""
    assert gap("y", none, rounding, 1e-5) != ""


def test_a_small_gradient_that_is_absent_is_missed():
    torch = pytest.importorskip("torch")
    from tests.agreement.torch_calls import compare

    his = torch.tensor([1.0, -2.0], requires_grad=True)
    for factor, found in ((5e-6, "gradient of x is off by"), (1e-8, "")):
        mine, other = (Tensor(his.detach().numpy(), requires_grad=True) for _ in range(2))
        gap_found = compare(
            lambda mine=mine, other=other, factor=factor: mine * 1.0 + (other * factor).detach(),
            lambda factor=factor: his.detach() + his * factor,
            {"x": other},
            {"x": his},
            torch.float32,
        )
        assert gap_found.startswith(found) and bool(gap_found) == bool(found)
