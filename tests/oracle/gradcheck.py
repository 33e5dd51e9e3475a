"""Central finite differences in float64: what a gradient is by definition. No library code but the call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def numeric_gradients(function: Callable[..., float], arrays: list[np.ndarray], step: float = 1e-6) -> list[np.ndarray]:
    """Gradient of a function of float64 arrays that returns one number, with respect to each array."""
    gradients = []
    for k, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[k][index] += sign * step
                values.append(function(*moved))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def check_gradients(function: Callable, *arrays: np.ndarray, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Assert that `backward` of a function of tensors agrees with finite differences.

    `function` takes one Tensor for each float64 array and returns a Tensor; it is reduced to a number by a
    fixed random weighting, so that errors in different elements can't cancel.
    """
    from tinytorch.core.tensor import Tensor

    arrays_64 = [np.array(a, dtype=np.float64) for a in arrays]
    weights = np.random.default_rng(0).standard_normal(function(*map(Tensor, arrays_64)).shape)
    tensors = [Tensor(a, requires_grad=True) for a in arrays_64]
    function(*tensors).backward(weights)
    expected = numeric_gradients(
        lambda *moved: float((function(*map(Tensor, moved)).numpy() * weights).sum()), arrays_64
    )
    for tensor, gradient in zip(tensors, expected, strict=True):
        assert tensor.grad is not None and tensor.grad.dtype == np.float64
        np.testing.assert_allclose(tensor.grad, gradient, rtol=rtol, atol=atol)
