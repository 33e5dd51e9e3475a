"""Optimizers against torch.optim step by step, exact resume, and errors."""

import pickle
import tracemalloc

import numpy as np
import pytest

from tinytorch.core.layers import Linear, Parameter
from tinytorch.core.optimizers import SGD, Adam, AdamW, Optimizer
from tinytorch.core.tensor import Tensor

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "weight_decay": 0.05}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6}),
    ("Adam", {"lr": 0.02, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3}),
]
OURS = {"SGD": SGD, "Adam": Adam, "AdamW": AdamW}
SHAPES = [(3, 4), (5,), ()]


def start(dtype):
    rng = np.random.default_rng(0)
    return [np.array(rng.standard_normal(shape), dtype) for shape in SHAPES]


def gradients(step, dtype):
    rng = np.random.default_rng([1, step])
    return [np.array(rng.standard_normal(shape), dtype) for shape in SHAPES]


def run(optimizer, params, steps, dtype=np.float64):
    for step in steps:
        for p, g in zip(params, gradients(step, dtype), strict=True):
            p.grad = g
        optimizer.step()
    return [p.data.copy() for p in params]


@pytest.mark.parametrize("dtype,tolerance", [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("name,kwargs", CASES)
def test_twenty_steps_as_torch(name, kwargs, dtype, tolerance):
    torch = pytest.importorskip("torch")
    ours = [Parameter(a) for a in start(dtype)]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in start(dtype)]
    optimizer, reference = OURS[name](ours, **kwargs), getattr(torch.optim, name)(theirs, **kwargs)
    for step in range(20):
        for p, q, g in zip(ours, theirs, gradients(step, dtype), strict=True):
            p.grad, q.grad = g.copy(), torch.tensor(g)
        optimizer.step()
        reference.step()
        for p, q, g in zip(ours, theirs, gradients(step, dtype), strict=True):
            assert p.dtype == dtype
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=tolerance, atol=tolerance)
            np.testing.assert_array_equal(p.grad, g)  # a step leaves the gradients alone


def test_groups_have_their_own_settings_as_torch():
    torch = pytest.importorskip("torch")
    ours = [Parameter(a) for a in start(np.float64)]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in start(np.float64)]

    def groups(p):
        return [{"params": p[:1], "lr": 0.5}, {"params": p[1:], "momentum": 0.9}]

    optimizer, reference = SGD(groups(ours), lr=0.1), torch.optim.SGD(groups(theirs), lr=0.1)
    for step in range(3):
        for q, g in zip(theirs, gradients(step, np.float64), strict=True):
            q.grad = torch.tensor(g)
        reference.step()
    run(optimizer, ours, range(3))
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name,kwargs", CASES)
def test_resume_is_exact(name, kwargs, dtype):
    params = [Parameter(a) for a in start(dtype)]
    optimizer = OURS[name](params, **kwargs)
    run(optimizer, params, range(5), dtype)
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    resumed = [Parameter(p.data.copy()) for p in params]
    expected = run(optimizer, params, range(5, 10), dtype)
    other = OURS[name](resumed, lr=123.0)
    other.load_state_dict(saved)
    for a, b in zip(run(other, resumed, range(5, 10), dtype), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_state_dict_is_a_snapshot_of_plain_values():
    params = [Parameter(a) for a in start(np.float32)]
    optimizer = Adam(params)
    run(optimizer, params, range(2), np.float32)
    saved = optimizer.state_dict()
    before = saved["state"][0]["exp_avg"].copy()
    run(optimizer, params, range(2), np.float32)
    np.testing.assert_array_equal(saved["state"][0]["exp_avg"], before)
    assert saved["param_groups"][0]["params"] == [0, 1, 2] and saved["state"][0]["step"] == 2
    assert sorted(saved["state"][1]) == ["exp_avg", "exp_avg_sq", "step"]


def test_load_errors_load_nothing():
    params = [Parameter(a) for a in start(np.float32)]
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    run(optimizer, params, range(2), np.float32)
    good = optimizer.state_dict()
    fresh = SGD([Parameter(a) for a in start(np.float32)], lr=0.5, momentum=0.9)
    with pytest.raises(ValueError, match=r"groups of \[3\] parameters, this optimizer of \[1\]"):
        SGD([Parameter([1.0])], lr=0.1).load_state_dict(good)
    wrong_shape = {**good, "state": {0: {"momentum_buffer": np.zeros(2)}}}
    with pytest.raises(ValueError, match=r"momentum_buffer has shape \(2,\), its parameter \(3, 4\)"):
        fresh.load_state_dict(wrong_shape)
    with pytest.raises(ValueError, match=r"state is for parameters \[9\], this optimizer has 3"):
        fresh.load_state_dict({**good, "state": {9: {"momentum_buffer": np.zeros(2)}}})
    with pytest.raises(ValueError, match=r"Adam keeps step, exp_avg, exp_avg_sq .* the state has momentum_buffer"):
        Adam([Parameter(a) for a in start(np.float32)]).load_state_dict(good)
    with pytest.raises(ValueError, match="lr must be"):
        fresh.load_state_dict({**good, "param_groups": [{**good["param_groups"][0], "lr": -1}]})
    assert fresh.lr == 0.5 and not fresh.state


def test_parameters_without_gradient_stay():
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = Adam([a, b], weight_decay=1)
    a.grad = np.ones(1, np.float32)
    optimizer.step()
    assert a.item() != 1 and b.item() == 1


def test_updates_are_in_place():
    p = Parameter([1.0, 2.0])
    array = p.data
    for optimizer in (SGD([p], lr=0.1), Adam([p]), AdamW([p])):
        p.grad = np.ones(2, np.float32)
        optimizer.step()
        assert p.data is array


@pytest.mark.parametrize("name,kwargs", CASES)
def test_a_step_allocates_no_arrays(name, kwargs):
    p = Parameter(np.ones(100_000, np.float32))
    p.grad = np.ones_like(p.data)
    optimizer = OURS[name]([p], **kwargs)
    for _ in range(2):
        optimizer.step()
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < p.data.nbytes / 4


def test_lr_property_and_zero_grad():
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = SGD([{"params": [a], "lr": 0.3}, {"params": b}], lr=0.1)
    assert optimizer.lr == 0.3
    optimizer.lr = 0.01
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.01]
    with pytest.raises(ValueError, match="lr must be a finite number, not negative, got nan"):
        optimizer.lr = float("nan")
    a.grad = np.ones(1)
    optimizer.zero_grad()
    assert a.grad is None


def test_construction_errors():
    p = Parameter([1.0])
    with pytest.raises(ValueError, match="params is empty"):
        SGD([], lr=0.1)
    with pytest.raises(TypeError, match=r"got a single Tensor; pass \[tensor\]"):
        SGD(p, lr=0.1)
    with pytest.raises(TypeError, match="params must be tensors, got Linear"):
        SGD([Linear(1, 1)], lr=0.1)
    with pytest.raises(ValueError, match="given twice"):
        SGD([p, p], lr=0.1)
    with pytest.raises(ValueError, match="given twice"):
        SGD([{"params": [p]}, {"params": [p]}], lr=0.1)
    with pytest.raises(ValueError, match="leaves that require grad"):
        SGD([Tensor([1.0])], lr=0.1)
    with pytest.raises(ValueError, match="leaves that require grad"):
        SGD([p * 2], lr=0.1)
    with pytest.raises(ValueError, match="SGD has no setting speed; it has lr, momentum"):
        SGD([{"params": [p], "speed": 1}], lr=0.1)
    for bad in (-0.1, float("inf"), "fast", None):
        with pytest.raises(ValueError, match="lr must be a finite number, not negative"):
            SGD([p], lr=bad)
    with pytest.raises(ValueError, match="weight_decay must be"):
        Adam([p], weight_decay=-1)
    with pytest.raises(ValueError, match="momentum must be"):
        SGD([p], momentum=-1)
    with pytest.raises(ValueError, match="eps must be"):
        Adam([p], eps=-1)
    for kwargs in ({"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(ValueError, match="nesterov needs momentum > 0 and dampening 0"):
            SGD([p], **kwargs)
    for betas in ((0.9, 1.0), (-0.1, 0.9), (0.9,), 3, ["a", "b"]):
        with pytest.raises(ValueError, match=r"betas must be two numbers in \[0, 1\)"):
            Adam([p], betas=betas)


def test_a_converted_model_or_a_wrong_gradient_is_noticed():
    layer = Linear(2, 2, bias=False)
    optimizer = SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer.weight.grad = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match=r"keeps for it is float32 of shape \(1, 2\)"):
        optimizer.step()
    layer.weight.grad = np.ones((2, 2), np.float32)
    optimizer.step()
    layer.double()
    layer.weight.grad = np.ones((2, 2))
    with pytest.raises(ValueError, match="convert the model before making the optimizer"):
        optimizer.step()


def test_the_base_class_has_no_update():
    p = Parameter([1.0])
    p.grad = np.ones(1, np.float32)
    optimizer = Optimizer([p], {"lr": 0.1, "weight_decay": 0.0})
    with pytest.raises(NotImplementedError, match="Optimizer needs new_state"):
        optimizer.step()
    optimizer.state[p] = {"step": 1, "exp_avg": np.empty(1, np.float32)}
    with pytest.raises(NotImplementedError, match="Optimizer needs update"):
        optimizer.step()


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.5, momentum=0.9), lambda p: Adam(p, lr=0.5)])
@pytest.mark.parametrize("view", [np.s_[:, ::2], np.s_[::-1], np.s_[::2, ::-2]])
def test_a_parameter_with_gaps_in_memory_is_updated(make, view):
    strided = Parameter(np.arange(24, dtype=np.float32).reshape(4, 6)[view])
    plain = Parameter(np.ascontiguousarray(strided.data))
    for p in (strided, plain):
        optimizer = make([p])
        for step in range(3):
            p.grad = np.arange(p.size, dtype=np.float32).reshape(p.shape) - step
            optimizer.step()
    np.testing.assert_array_equal(strided.data, plain.data)
