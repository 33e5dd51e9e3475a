"""Functional operations against torch.nn.functional, forward and backward, and their errors."""

import warnings

import numpy as np
import pytest

from tests.oracle.gradcheck import check_gradients
from tests.oracle.torch_twin import compare
from tinytorch.core import functional as F
from tinytorch.core.tensor import Tensor

RNG = np.random.default_rng(11)
DTYPES = (np.float32, np.float64)
EXTREME = [-1e4, -100, -20, -1, -1e-3, 0, 1e-3, 1, 20, 100, 1e4]

ACTIVATIONS = {
    "relu": (F.relu, lambda t, x: t.relu(x)),
    "leaky_relu": (F.leaky_relu, lambda t, x: t.leaky_relu(x)),
    "leaky_relu 0.3": (lambda x: F.leaky_relu(x, 0.3), lambda t, x: t.leaky_relu(x, 0.3)),
    "sigmoid": (F.sigmoid, lambda t, x: t.sigmoid(x)),
    "tanh": (F.tanh, lambda t, x: t.tanh(x)),
    "silu": (F.silu, lambda t, x: t.silu(x)),
    "gelu": (F.gelu, lambda t, x: t.gelu(x)),
    "gelu tanh": (lambda x: F.gelu(x, "tanh"), lambda t, x: t.gelu(x, approximate="tanh")),
    "softmax": (lambda x: F.softmax(x, 1), lambda t, x: t.softmax(x, 1)),
    "softmax 0": (lambda x: F.softmax(x, dim=0), lambda t, x: t.softmax(x, dim=0)),
    "log_softmax": (lambda x: F.log_softmax(x, axis=-1), lambda t, x: t.log_softmax(x, -1)),
    "flatten": (lambda x: F.flatten(x, 1), lambda t, x: x.flatten(1)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_as_torch(name, dtype):
    torch = pytest.importorskip("torch")
    ours, theirs = ACTIVATIONS[name]
    for shape in ((3, 4), (2, 3, 5), (4, 1)):
        x = (3 * RNG.standard_normal(shape)).astype(dtype)
        compare(ours, lambda t: theirs(torch.nn.functional, t), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "flatten"])
def test_extreme_values_as_torch_without_warnings(name, dtype):
    torch = pytest.importorskip("torch")
    ours, theirs = ACTIVATIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(ours, lambda t: theirs(torch.nn.functional, t), np.array(EXTREME, dtype)[None].copy())


def test_sigmoid_keeps_relative_precision_in_the_tail():
    np.testing.assert_allclose(F.sigmoid(Tensor(np.array([-80.0]))).item(), np.exp(-80.0), rtol=1e-12)


@pytest.mark.parametrize("f", [F.gelu, lambda x: F.gelu(x, "tanh"), F.silu, lambda x: F.softmax(x, 0)])
def test_gradcheck(f):
    check_gradients(f, RNG.standard_normal((3, 4)))


def test_activations_keep_the_memory_order():
    x = Tensor(np.ones((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2))
    for f in (F.relu, F.leaky_relu, F.sigmoid, F.silu, F.gelu):
        assert f(x).data.transpose(0, 2, 3, 1).flags.c_contiguous


# ---- linear -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
def test_linear_as_torch(lead, dtype):
    torch = pytest.importorskip("torch")
    x, w, b = (RNG.standard_normal(s).astype(dtype) for s in ((*lead, 4), (3, 4), (3,)))
    compare(F.linear, torch.nn.functional.linear, x, w, b)
    compare(F.linear, torch.nn.functional.linear, x, w)


def test_linear_takes_mixed_precision():
    x, w, b = Tensor(np.ones((2, 3), np.float32)), Tensor(np.ones((4, 3))), Tensor(np.ones(4))
    assert F.linear(x, w, b).dtype == np.float64


def test_linear_errors():
    x, w = Tensor(np.zeros((2, 3))), Tensor(np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(4, 5\); flatten images"):
        F.linear(x, w)
    with pytest.raises(ValueError, match=r"bias must have shape \(out_features,\) = \(4,\), got \(5,\)"):
        F.linear(Tensor(np.zeros((2, 5))), w, Tensor(np.zeros(5)))


# ---- losses -----------------------------------------------------------------------------------------------


def twin_loss(ours, theirs, *arrays):
    torch = pytest.importorskip("torch")
    compare(ours, lambda *t: theirs(torch.nn.functional, torch.tensor, *t), *arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_elementwise_losses_as_torch(reduction, dtype):
    x, y = RNG.standard_normal((3, 4)).astype(dtype), RNG.random((3, 4)).astype(dtype)
    twin_loss(
        lambda a, b: F.mse_loss(a, b, reduction),
        lambda f, _, a, b: f.mse_loss(a, b, reduction=reduction),
        x,
        y,
    )
    twin_loss(
        lambda a, b: F.binary_cross_entropy_with_logits(20 * a, b, reduction),
        lambda f, _, a, b: f.binary_cross_entropy_with_logits(20 * a, b, reduction=reduction),
        x,
        y,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("extra", [(), (3,), (2, 3)])
def test_cross_entropy_as_torch(extra, smoothing, reduction, dtype):
    x = (4 * RNG.standard_normal((6, 5, *extra))).astype(dtype)
    labels = RNG.integers(0, 5, (6, *extra))
    labels[1] = -100
    twin_loss(
        lambda a: F.cross_entropy(a, Tensor(labels), reduction=reduction, label_smoothing=smoothing),
        lambda f, t, a: f.cross_entropy(a, t(labels), reduction=reduction, label_smoothing=smoothing),
        x,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("extra", [(), (3,)])
def test_nll_loss_as_torch(extra, reduction):
    x, labels = RNG.standard_normal((6, 5, *extra)), RNG.integers(0, 5, (6, *extra))
    twin_loss(
        lambda a: F.nll_loss(a, Tensor(labels), 2, reduction),
        lambda f, t, a: f.nll_loss(a, t(labels), ignore_index=2, reduction=reduction),
        x,
    )


def test_cross_entropy_of_extreme_logits():
    x = Tensor(np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32), requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = F.cross_entropy(x, Tensor([0, 0]))
        loss.backward()
    assert loss.item() == 1e4
    np.testing.assert_array_equal(x.grad, [[0, 0], [-0.5, 0.5]])


def test_cross_entropy_gradcheck():
    labels = Tensor(np.array([0, 2, -100]))
    check_gradients(lambda x: F.cross_entropy(x, labels, label_smoothing=0.2), RNG.standard_normal((3, 4)))


def test_cross_entropy_with_nothing_to_count_is_nan_as_torch():
    x = Tensor(np.zeros((2, 3), np.float32))
    assert np.isnan(F.cross_entropy(x, Tensor([-100, -100])).item())
    assert F.cross_entropy(x, Tensor([-100, -100]), reduction="sum").item() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_type(dtype):
    x = Tensor(np.array([[0.0, 1.0], [2.0, 0.0]]))
    labels = Tensor(np.array([1, 0], dtype))
    np.testing.assert_allclose(F.cross_entropy(x, labels).item(), (np.log1p(np.exp(-1)) + np.log1p(np.exp(-2))) / 2)


def test_one_hot():
    out = F.one_hot(Tensor([[0, 2]]), 3)
    assert out.dtype == np.int64
    np.testing.assert_array_equal(out.numpy(), [[[1, 0, 0], [0, 0, 1]]])


def test_loss_errors():
    x = Tensor(np.zeros((2, 3), np.float32))
    for loss in (F.cross_entropy, F.nll_loss):
        with pytest.raises(ValueError, match=r"labels must lie in 0 … 2 for 3 classes, got 3"):
            loss(x, Tensor([0, 3]))
        with pytest.raises(ValueError, match="got -1; count classes from 0"):
            loss(x, Tensor([0, -1]))
        with pytest.raises(TypeError, match=r"labels must be integers.*got float32"):
            loss(x, Tensor([0.0, 1.0]))
        with pytest.raises(ValueError, match=r"got logits \(2, 3\) and labels \(2, 3\).*argmax"):
            loss(x, Tensor(np.zeros((2, 3), int)))
        with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'avg'"):
            loss(x, Tensor([0, 1]), reduction="avg")
    with pytest.raises(ValueError, match=r"got logits \(3,\)"):
        F.cross_entropy(Tensor([0.0, 1.0, 2.0]), Tensor(1))
    with pytest.raises(ValueError, match=r"label_smoothing must be between 0 and 1, got 1.5"):
        F.cross_entropy(x, Tensor([0, 1]), label_smoothing=1.5)
    for loss in (F.mse_loss, F.binary_cross_entropy_with_logits):
        with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 1\)"):
            loss(x, Tensor(np.zeros((2, 1), np.float32)))
    with pytest.raises(ValueError, match="got 3"):
        F.one_hot(Tensor([3]), 3)
    with pytest.raises(TypeError, match="integers"):
        F.one_hot(Tensor([0.5]), 3)
    with pytest.raises(ValueError, match=r"approximate must be 'none' .* got 'erf'"):
        F.gelu(x, "erf")


@pytest.mark.parametrize("kind", [np.array, list])
def test_labels_may_be_arrays_or_lists(kind):
    x = Tensor(np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32))
    expected = F.cross_entropy(x, Tensor([0, 2])).item()
    assert F.cross_entropy(x, kind([0, 2])).item() == expected
    assert F.cross_entropy(x, kind([0, 2]), reduction="sum").item() == pytest.approx(2 * expected)
    np.testing.assert_array_equal(F.one_hot(kind([0, 2]), 3).numpy(), [[1, 0, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match="labels must lie in 0 … 2 for 3 classes, got 3"):
        F.cross_entropy(x, kind([0, 3]))
    with pytest.raises(ValueError, match="labels must lie in 0 … 2 for 3 classes, got 3"):
        F.one_hot(kind([3]), 3)


def test_binary_targets_may_be_an_array():
    x = Tensor(np.array([0.5, -1.0], np.float32))
    expected = F.binary_cross_entropy_with_logits(x, Tensor([0.0, 1.0])).item()
    assert F.binary_cross_entropy_with_logits(x, np.array([0.0, 1.0])).item() == expected
