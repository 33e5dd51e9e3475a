"""Activations in place: PyTorch's results, the same memory where that is safe, and what was saved stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import Tensor, nn, no_grad
from tinytorch.core import functional as F

RNG = np.random.default_rng(5)
BOTH = pytest.mark.parametrize("name", ["relu", "relu6"])


def address(x: Tensor) -> int:
    return x.array.__array_interface__["data"][0]


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5, 5), (0, 2), (8, 64, 64, 2)])
def test_as_torch(name, dtype, shape):
    torch = pytest.importorskip("torch")
    data = (5 * RNG.standard_normal(shape)).astype(dtype)
    x, tx = Tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
    h, th = x * 2, tx * 2
    y, ty = getattr(F, name)(h, inplace=True), getattr(torch.nn.functional, name)(th, inplace=True)
    assert y is h and ty is th
    (h * h).sum().backward()
    (th * th).sum().backward()
    np.testing.assert_array_equal(h.numpy(), th.detach().numpy())
    np.testing.assert_array_equal(x.grad, tx.grad.numpy())


def test_nan_and_the_bounds_themselves():
    h = Tensor([np.nan, -0.0, 0.0, 6.0, 7.0, -np.inf, np.inf], requires_grad=True) * 1
    np.testing.assert_array_equal(F.relu6(h, inplace=True).numpy(), [np.nan, 0, 0, 6, 6, 0, 6])


@BOTH
@pytest.mark.parametrize("n", [3, 100_000])
def test_the_memory_is_used_again(name, n):
    h = Tensor(np.ones((n, 2), np.float32), requires_grad=True) * -1
    before = address(h)
    getattr(F, name)(h, inplace=True)
    assert address(h) == before and not h.numpy().any()


def test_what_an_operation_saved_is_not_written_to():
    data = RNG.standard_normal(6)

    def gradient(inplace: bool) -> np.ndarray:
        x = Tensor(data, requires_grad=True)
        F.relu(x.tanh(), inplace=inplace).sum().backward()  # tanh needs its output
        return x.grad

    np.testing.assert_array_equal(gradient(True), gradient(False))


def test_views_and_arrays_of_others_keep_their_values():
    data = np.array([-1.0, 1.0])
    x = Tensor(data)
    view, held = x[:1], (y := Tensor([-2.0]) * 1).numpy()
    assert F.relu(x, inplace=True) is x and x.numpy().tolist() == [0, 1]
    F.relu(y, inplace=True)
    assert data.tolist() == [-1, 1] and view.numpy().tolist() == [-1] and held.tolist() == [-2]


def test_a_leaf_is_refused_only_while_recording():
    x = Tensor([-1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"a leaf that requires grad can't be changed in place .*use inplace=False"):
        F.relu(x, inplace=True)
    assert x.numpy().tolist() == [-1]
    with no_grad():
        F.relu(x, inplace=True)
    assert x.numpy().tolist() == [0] and x.requires_grad and x.is_leaf


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
def test_modules(kind):
    assert repr(kind(inplace=True)) == f"{kind.__name__}(inplace=True)" and repr(kind()) == f"{kind.__name__}()"
    x = Tensor(RNG.standard_normal((2, 3, 6, 6)).astype(np.float32))
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5))
    conv, norm, flatten, linear = layers
    nets = [nn.Sequential(conv, norm, kind(flag), flatten, linear, kind(flag)) for flag in (False, True)]
    gradients = []
    for net in nets:
        net.zero_grad()
        net(x).sum().backward()
        gradients.append([p.grad.copy() for p in net.parameters()])
    for plain, inplace in zip(*gradients, strict=True):
        np.testing.assert_array_equal(plain, inplace)
