"""Run the same expression in the library and in torch, forward and backward, and compare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinytorch.core.tensor import Tensor

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}


def assert_close(actual: np.ndarray, expected: np.ndarray, dtype: np.dtype) -> None:
    """Compare relative to the largest entry: one that cancelled has no relative precision of its own."""
    assert actual.shape == expected.shape
    assert actual.dtype == dtype
    scale = max(np.abs(expected).max(initial=0), 1e-30)
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def compare(ours: Callable, theirs: Callable | None = None, *arrays: np.ndarray) -> None:
    """Call both functions on the same arrays and compare results and gradients."""
    torch = pytest.importorskip("torch")
    mine = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    his = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*mine), (theirs or ours)(*his)
    dtype = np.dtype(str(expected.dtype).removeprefix("torch."))
    assert_close(out.numpy(), expected.detach().numpy(), dtype)
    weights = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
    out.backward(weights)
    expected.backward(torch.tensor(weights))
    for a, b in zip(mine, his, strict=True):
        if b.grad is None:
            assert a.grad is None
        else:
            assert_close(a.grad, b.grad.numpy(), a.dtype)
