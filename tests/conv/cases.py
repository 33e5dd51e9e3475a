"""Convolutions to try: strategies for hypothesis, and conversions between the oracle's cases and the library's
problems.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.oracle.convolution import Case
from tinytorch.conv.problem import ConvProblem


@st.composite
def cases(draw, max_dims: int = 2, max_pixels: int = 17) -> Case:
    """Any convolution with an output: uneven padding, wide strides, dilation beyond the image, groups, primes."""
    dims = draw(st.integers(1, max_dims))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    limit = max_pixels if dims < 3 else 5

    def each(strategy):
        return tuple(draw(strategy) for _ in range(dims))

    size, kernel = each(st.integers(1, limit)), each(st.integers(1, 4))
    dilation, stride = each(st.integers(1, 3)), each(st.integers(1, 4))
    least = [max(0, d * (k - 1) + 1 - s) for s, k, d in zip(size, kernel, dilation, strict=True)]
    before = each(st.integers(0, 3))
    after = tuple(max(need - low, draw(st.integers(0, 3))) for need, low in zip(least, before, strict=True))
    ci = groups * draw(st.integers(1, 5))
    co = groups * draw(st.sampled_from([1, 2, 3, 7, 8, 16, 17, 33]))
    padding = tuple(zip(before, after, strict=True))
    return Case(draw(st.integers(1, 3)), ci, co, size, kernel, stride, padding, dilation, groups)


def problem_of(case: Case) -> ConvProblem:
    return ConvProblem.of(case.input_shape, case.weight_shape, case.stride, case.padding, case.dilation, case.groups)


def integers(case: Case, seed: int, dtype) -> tuple[np.ndarray, ...]:
    """Input, weight, bias and output gradient of small integers: every order of summation gives the same bits."""
    rng = np.random.default_rng(seed)
    shapes = (case.input_shape, case.weight_shape, (case.co,), case.output_shape)
    return tuple(rng.integers(-3, 4, shape).astype(dtype) for shape in shapes)
