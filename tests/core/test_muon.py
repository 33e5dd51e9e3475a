"""Muon against the singular value decomposition and torch.optim.Muon; several optimizers as one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.core.layers import Parameter
from tinytorch.core.optimizers import QUINTIC, SGD, Combined, Muon, orthogonalize

DTYPES = [(np.float32, 1e-4), (np.float64, 1e-11)]


def by_svd(matrix, steps=5, coefficients=QUINTIC):
    """What the iteration does, told by what it does to each singular value."""
    u, values, vt = np.linalg.svd(np.float64(matrix), full_matrices=False)
    values = values / np.linalg.norm(values)
    a, b, c = coefficients
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return u * values @ vt


def draw(shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), steps=st.integers(1, 5))
def test_orthogonalize_acts_on_the_singular_values(dtype, tolerance, rows, columns, steps):
    matrix = draw((rows, columns), dtype, rows)
    out = orthogonalize(matrix, steps)
    assert out.dtype == dtype and out.shape == matrix.shape
    np.testing.assert_allclose(out, by_svd(matrix, steps), rtol=0, atol=tolerance)


def test_singular_values_come_near_one():
    values = np.linalg.svd(orthogonalize(draw((64, 200))), compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.25


def test_a_matrix_of_zeros_stays():
    np.testing.assert_array_equal(orthogonalize(np.zeros((3, 4), np.float32)), np.zeros((3, 4)))


SETTINGS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.0, "nesterov": False},
    {"lr": 0.05, "momentum": 0.6, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 0.05, "adjust_lr_fn": "original", "eps": 1e-3, "ns_coefficients": (2.0, -1.5, 0.5)},
]


@pytest.mark.parametrize("kwargs", SETTINGS)
@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_steps_as_torch(kwargs, shape):
    """PyTorch iterates in bfloat16, with 8 bits of precision: the norm of the difference is all that can be held."""
    torch = pytest.importorskip("torch")
    start = draw(shape, np.float32)
    ours, theirs = Parameter(start.copy()), torch.nn.Parameter(torch.tensor(start))
    optimizer, reference = Muon([ours], **kwargs), torch.optim.Muon([theirs], **kwargs)
    for step in range(5):
        gradient = draw(shape, np.float32, step + 1)
        ours.grad, theirs.grad = gradient.copy(), torch.tensor(gradient)
        optimizer.step()
        reference.step()
        np.testing.assert_array_equal(ours.grad, gradient)
    expected = theirs.detach().numpy()
    assert np.linalg.norm(ours.data - expected) < 0.02 * np.linalg.norm(expected - start)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (40, 2, 1, 3), (5, 7)])
def test_filters_kept_at_one_norm_step_by_definition(shape, nesterov, dtype, tolerance):
    lr, momentum = 0.24, 0.6
    p = Parameter(draw(shape, dtype))
    optimizer = Muon([p], lr, 0.0, momentum, nesterov, ns_steps=3, normalize=True)
    expected, velocity = draw(shape, dtype).astype(np.float64), np.zeros(shape)
    for step in range(4):
        p.grad = draw(shape, dtype, step + 1)
        optimizer.step()
        velocity = momentum * velocity + p.grad
        ahead = p.grad + momentum * velocity if nesterov else velocity
        expected *= np.sqrt(shape[0]) / np.linalg.norm(expected)
        rows = ahead.reshape(shape[0], -1)
        scale = max(1, rows.shape[0] / rows.shape[1]) ** 0.5
        expected -= lr * scale * by_svd(rows, 3).reshape(shape)
    assert p.dtype == dtype
    np.testing.assert_allclose(p.data, expected, rtol=0, atol=10 * tolerance)


def test_filters_of_zeros_have_no_norm_to_keep():
    p = Parameter(np.zeros((2, 2), np.float32))
    p.grad = np.zeros((2, 2), np.float32)
    Muon([p], normalize=True).step()
    np.testing.assert_array_equal(p.data, np.zeros((2, 2)))


def test_resume_is_exact():
    def steps(optimizer, p, numbers):
        for number in numbers:
            p.grad = draw(p.shape, np.float32, number)
            optimizer.step()

    p = Parameter(draw((4, 3, 2, 2), np.float32))
    optimizer = Muon([p], lr=0.1)
    steps(optimizer, p, range(3))
    saved, resumed = optimizer.state_dict(), Parameter(p.data.copy())
    other = Muon([resumed], lr=9.0)
    other.load_state_dict(saved)
    steps(optimizer, p, range(3, 6))
    steps(other, resumed, range(3, 6))
    np.testing.assert_array_equal(p.data, resumed.data)


def test_muon_refuses():
    matrix = Parameter(np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"parameter of shape \(3,\); give biases to another optimizer"):
        Muon([matrix, Parameter(np.ones(3, np.float32))])
    for bad in (3, ["a", "b", "c"]):
        with pytest.raises(ValueError, match="ns_coefficients must be three numbers"):
            Muon([Parameter(np.ones((2, 2)))], ns_coefficients=bad)
    with pytest.raises(ValueError, match=r"ns_coefficients must be three numbers \(a, b, c\), got \(1, 2\)"):
        Muon([matrix], ns_coefficients=(1, 2))
    for steps in (0, 100, 2.0, True):
        with pytest.raises(ValueError, match="ns_steps must be a whole number from 1 to 99"):
            Muon([matrix], ns_steps=steps)
    with pytest.raises(ValueError, match="adjust_lr_fn must be None or one of original, match_rms_adamw, got 'rms'"):
        Muon([matrix], adjust_lr_fn="rms")
    for name in ("lr", "momentum", "eps", "weight_decay"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number, not negative"):
            Muon([matrix], **{name: -1})


# ---- several as one ----------------------------------------------------------------------------------------


def pair(dtype=np.float32):
    bias, filters = Parameter(draw(3, dtype)), Parameter(draw((3, 4), dtype))
    return bias, filters, Combined(SGD([bias], lr=0.1, momentum=0.9), Muon([filters], lr=0.2))


def step(bias, filters, optimizer, seed):
    bias.grad, filters.grad = draw(3, np.float32, seed), draw((3, 4), np.float32, seed)
    optimizer.step()


def test_each_optimizer_moves_its_own():
    bias, filters, optimizer = pair()
    alone_bias, alone_filters = Parameter(bias.data.copy()), Parameter(filters.data.copy())
    sgd, muon = SGD([alone_bias], lr=0.1, momentum=0.9), Muon([alone_filters], lr=0.2)
    for seed in range(3):
        step(bias, filters, optimizer, seed)
        alone_bias.grad, alone_filters.grad = bias.grad, filters.grad
        sgd.step()
        muon.step()
    np.testing.assert_array_equal(bias.data, alone_bias.data)
    np.testing.assert_array_equal(filters.data, alone_filters.data)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    optimizer.zero_grad()
    assert bias.grad is None and filters.grad is None


def test_a_schedule_reaches_the_groups():
    bias, filters, optimizer = pair()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = bias.data.copy(), filters.data.copy()
    step(bias, filters, optimizer, 0)
    np.testing.assert_array_equal(bias.data, before[0])
    np.testing.assert_array_equal(filters.data, before[1])


def test_combined_resumes_exactly_also_from_keys_that_became_strings():
    bias, filters, optimizer = pair()
    step(bias, filters, optimizer, 0)
    saved = {"optimizers": {str(i): state for i, state in optimizer.state_dict()["optimizers"].items()}}
    other_bias, other_filters, other = pair()
    other_bias.data[...], other_filters.data[...] = bias.data, filters.data
    other.load_state_dict(saved)
    step(bias, filters, optimizer, 1)
    step(other_bias, other_filters, other, 1)
    np.testing.assert_array_equal(bias.data, other_bias.data)
    np.testing.assert_array_equal(filters.data, other_filters.data)


def test_combined_refuses():
    bias, filters, optimizer = pair()
    with pytest.raises(ValueError, match="needs at least one optimizer"):
        Combined()
    with pytest.raises(ValueError, match="belongs to two of the optimizers"):
        Combined(SGD([filters]), Muon([filters]))
    with pytest.raises(ValueError, match="state is of 0 combined optimizers, here are 2"):
        optimizer.load_state_dict({})
    step(bias, filters, optimizer, 0)
    saved = optimizer.state_dict()
    saved["optimizers"][1]["param_groups"][0]["params"] = []
    fresh = pair()[2]
    with pytest.raises(ValueError, match=r"groups of \[0\] parameters"):
        fresh.load_state_dict(saved)
    assert all(not optimizer.state for optimizer in fresh.optimizers)
