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
