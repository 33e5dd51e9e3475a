"""GELU against the error function in double precision."""

import math

import numpy as np
import pytest

from tests.oracle.gradcheck import check_gradients
from tinytorch.core import functional as F
from tinytorch.core.tensor import Tensor


def exact(x):
    """x · Φ(x) and its derivative, number by number."""
    cdf = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    return x * cdf, cdf + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def value_and_gradient(x):
    tensor = Tensor(x, requires_grad=True)
    y = F.gelu(tensor)
    y.backward(np.ones_like(x))
    return y.numpy(), tensor.grad


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float32, 8), (np.float64, 8)])
def test_within_a_few_units_in_the_last_place_even_in_the_tail(dtype, ulps):
    x = np.linspace(-12.5, 12.5, 100_001).astype(dtype)
    y, gradient = value_and_gradient(x)
    expected, slope = exact(x.astype(np.float64))
    assert y.dtype == gradient.dtype == dtype
    eps = np.finfo(dtype).eps
    tail = 320 * (dtype == np.float64)  # x / √2 is rounded, here and there: an error of x² units for each
    np.testing.assert_allclose(y, expected, rtol=(ulps + tail) * eps, atol=0)
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=4 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_and_special_values(dtype):
    x = np.array([-np.inf, -1e30, -40, -0.0, 0.0, 40, 1e30, np.inf, np.nan], dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        y, gradient = value_and_gradient(x)
    np.testing.assert_array_equal(y, np.array([np.nan, 0, 0, 0, 0, 40, 1e30, np.inf, np.nan], dtype))
    assert np.signbit(y[3]) and not np.signbit(y[4])
    np.testing.assert_array_equal(gradient[2:6], np.array([0, 0.5, 0.5, 1], dtype))


def test_strided_empty_and_double_inputs():
    x = np.random.default_rng(0).standard_normal((6, 8))
    check_gradients(F.gelu, x[::2, 1::3])
    y = F.gelu(Tensor(np.float32(x)[::-2, ::3])).numpy()
    np.testing.assert_allclose(y, exact(x[::-2, ::3].ravel())[0].reshape(y.shape), rtol=1e-5, atol=1e-7)
    assert F.gelu(Tensor(np.zeros((0, 3), np.float32))).shape == (0, 3)


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"gelu computes in float32 or float64, got int64; convert with x.float\(\)"):
        F.gelu(Tensor(np.arange(3)))
