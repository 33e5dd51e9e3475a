"""One window of a convolution, worked out tap by tap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinytorch.analysis.explain.answer import Answer, Explanation, Question
from tinytorch.analysis.explain.text import number, shape

Rows = Sequence[Sequence[int]]


def window(image: Rows, kernel: Rows) -> Explanation:
    """Explain the first output of a one-channel convolution without padding: every tap, multiplied and added up.

    Parameters
    ----------
    image, kernel
        Rows of whole numbers.

    Raises
    ------
    ValueError
        If rows differ in length, or the kernel is larger than the image.

    Examples
    --------
    >>> window([[1, 2, 3], [2, 3, 4], [3, 4, 5]], [[1, 0, 1], [0, 1, 0], [1, 0, 1]])["first_output"].number
    15
    """
    x, w = _matrix("image", image), _matrix("kernel", kernel)
    if w.shape[0] > x.shape[0] or w.shape[1] > x.shape[1]:
        raise ValueError(f"kernel must fit on the image, got {shape(w.shape)} on {shape(x.shape)}; use a smaller one")
    y = (sliding_window_view(x, w.shape) * w).sum((2, 3))
    return Explanation(
        f"conv2d of an image {shape(x.shape)} with a kernel {shape(w.shape)}",
        "one channel, stride 1, no padding",
        (Question("One output", (_first(x[: w.shape[0], : w.shape[1]], w, int(y[0, 0])), _others(y))),),
    )


def _matrix(name: str, rows: Rows) -> np.ndarray:
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"{name} must have rows of one length, got {[list(row) for row in rows]}; write for example '1 2, 3 4'"
        )
    return np.array(rows, np.int64)


def _first(x: np.ndarray, w: np.ndarray, total: int) -> Answer:
    taps = [f"{_bracketed(a)}·{_bracketed(b)}" for a, b in zip(x.flat, w.flat, strict=True)]
    line = f"y = {' + '.join(taps)} = {number(total)}"
    note = "The kernel is laid on the image as it is, not turned: deep learning calls a cross-correlation convolution."
    question = "What is the output's first number?"
    return Answer("first_output", question, "y = Σ x[i, j] · w[i, j]", (line,), number(total), total, "", note)


def _bracketed(value: int) -> str:
    return f"({number(int(value))})" if value < 0 else number(int(value))


def _others(y: np.ndarray) -> Answer:
    rows = ", ".join(" ".join(number(int(v)) for v in row) for row in y)
    numbers = tuple(int(v) for v in y.flat)
    note = f"The window slides over all {y.size} places; each output is made of its own window with the same kernel."
    return Answer(
        "outputs", "And all of them, row by row?", "y[h, w] = Σ x[h + i, w + j] · w[i, j]", (), rows, numbers, "", note
    )
