"""Averages of weights against torch.optim.swa_utils and against their definitions."""

import numpy as np
import pytest

from tinytorch.core.averaging import EMA, Lookahead
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.layers import Linear, Parameter, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.normalisation import BatchNorm1d
from tinytorch.core.optimizers import SGD, Adam
from tinytorch.core.random import manual_seed
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Observer, Trainer, predict


def move(model, step):
    """Change every parameter and buffer."""
    rng = np.random.default_rng(step)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data[...] = 10 * rng.random(tensor.shape)


def small():
    return Sequential(Linear(3, 4), BatchNorm1d(4))


# ---- exponential moving average ---------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_ema_as_torch(decay):
    torch = pytest.importorskip("torch")
    model, twin = small(), torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    ema = EMA(model, decay)
    averaged = torch.optim.swa_utils.AveragedModel(
        twin, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    for step in range(5):
        move(model, step)
        twin.load_state_dict({name: torch.tensor(array) for name, array in model.state_dict().items()})
        ema.update()
        averaged.update_parameters(twin)
    expected = averaged.module.state_dict()
    for name, array in ema.average.items():
        if array.dtype.kind == "f":  # torch averages the number of batches too
            np.testing.assert_allclose(array, expected[name].numpy(), rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(ema.average["1.num_batches_tracked"], model.state_dict()["1.num_batches_tracked"])


def test_the_average_is_put_in_and_the_model_put_back():
    model = small()
    ema = EMA(model, 0.5)
    for step in range(2):
        move(model, step)
        ema.update()
    own = model.state_dict()
    with pytest.raises(RuntimeError, match="inside"), ema.applied() as inside:
        np.testing.assert_equal(inside.state_dict(), ema.average)
        raise RuntimeError("inside")
    np.testing.assert_equal(model.state_dict(), own)
    assert any((own[name] != ema.average[name]).any() for name in own)


def test_a_trainer_updates_it_after_each_step():
    data = TensorDataset(np.random.default_rng(0).random((12, 3)).astype(np.float32), np.arange(12) % 4)
    model = Linear(3, 4)
    ema, by_hand = EMA(model, 0.9), EMA(model, 0.9)

    class Watch(Observer):
        def stepped(self, trainer, step):
            by_hand.update()
            np.testing.assert_equal(ema.average, by_hand.average)
            assert trainer.step == step.step

    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), CrossEntropyLoss(), average=ema)
    trainer.fit(DataLoader(data, 4), epochs=2, observers=[Watch()])
    assert trainer.step == 6 and (ema.average["weight"] != model.weight.data).any()


def average_trainer(average=0.5):
    manual_seed(0)
    data = TensorDataset(np.random.default_rng(0).random((12, 3)).astype(np.float32), np.arange(12) % 4)
    model = small()
    ema = None if average is None else EMA(model, average)
    return Trainer(model, SGD(model.parameters(), lr=0.5), CrossEntropyLoss(), average=ema), DataLoader(data, 4)


def test_a_trainer_evaluates_saves_and_resumes_the_average():
    whole, loader = average_trainer()
    whole.fit(loader, loader, epochs=2)
    with whole.average.applied() as model:
        logits, labels = predict(model, loader)
    assert whole.history[-1]["validation_loss"] == CrossEntropyLoss()(Tensor(logits), Tensor(labels)).item()
    np.testing.assert_array_equal(whole.predict(loader)[0], logits)
    np.testing.assert_equal(whole.weights(), whole.average.average)
    first, loader = average_trainer()
    first.fit(loader, loader, epochs=1)
    second, loader = average_trainer()
    second.load_state_dict(first.state_dict())
    second.fit(loader, loader, epochs=2)
    np.testing.assert_equal(second.weights(), whole.weights())
    np.testing.assert_equal(second.model.state_dict(), whole.model.state_dict())


def test_before_the_first_step_and_without_an_average_the_weights_are_the_model_s():
    for trainer, _ in (average_trainer(), average_trainer(None)):
        np.testing.assert_equal(trainer.weights(), trainer.model.state_dict())


def test_a_state_whose_optimizer_does_not_fit_leaves_the_average():
    trainer, loader = average_trainer()
    trainer.fit(loader, epochs=1)
    before, state = trainer.state_dict(), trainer.state_dict()
    state["average"] = {name: array + 1 for name, array in state["average"].items()}
    state["optimizer"]["param_groups"] = []
    with pytest.raises(ValueError, match="state has groups of"):
        trainer.load_state_dict(state)
    np.testing.assert_equal(trainer.state_dict()["average"], before["average"])


def test_ema_resumes_from_a_snapshot():
    model = small()
    first, second = EMA(model, 0.7), EMA(model, 0.7)
    move(model, 0)
    first.update()
    second.load_state_dict(first.state_dict())
    move(model, 1)
    first.update()
    second.update()
    np.testing.assert_equal(first.average, second.average)
    snapshot = first.state_dict()
    snapshot["0.weight"][...] = 0
    assert (first.average["0.weight"] != 0).any()


def test_ema_refuses():
    model = small()
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
            EMA(model, decay)
    with pytest.raises(ValueError, match="there is no average yet"), EMA(model).applied():
        pass
    with pytest.raises(ValueError, match=r"it differs in 0.weight; build the model"):
        EMA(model).load_state_dict({name: a for name, a in model.state_dict().items() if name != "0.weight"})


# ---- Lookahead -----------------------------------------------------------------------------------------------


def gradient(step):
    return np.random.default_rng(step).standard_normal(3)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, lambda step: 1 / step])
@pytest.mark.parametrize("k", [1, 3])
def test_lookahead_by_definition(k, alpha):
    p = Parameter(np.arange(3.0))
    optimizer = Lookahead(SGD([p], lr=0.1), k, alpha)
    fast = slow = np.arange(3.0)
    for step in range(1, 8):
        p.grad = gradient(step)
        optimizer.step()
        fast = fast - 0.1 * gradient(step)
        if step % k == 0:
            slow = slow + (alpha(step) if callable(alpha) else alpha) * (fast - slow)
            fast = slow
        np.testing.assert_allclose(p.data, fast, rtol=1e-12, atol=1e-14)


def test_lookahead_resumes_exactly_and_passes_everything_else_on():
    p = Parameter(np.arange(3.0))
    optimizer = Lookahead(Adam([p], lr=0.1), k=2)
    for step in range(3):
        p.grad = gradient(step)
        optimizer.step()
    saved = optimizer.state_dict()
    saved["slow"] = {str(i): array for i, array in saved["slow"].items()}
    q = Parameter(p.data.copy())
    other = Lookahead(Adam([q], lr=9.0), k=2)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.1
    for step in range(3, 6):
        p.grad, q.grad = gradient(step), gradient(step)
        optimizer.step()
        other.step()
    np.testing.assert_array_equal(p.data, q.data)
    other.zero_grad()
    assert q.grad is None


def test_a_snapshot_of_another_kind_of_optimizer_is_refused():
    p = Parameter(np.arange(3.0))
    plain, ahead = SGD([p], lr=0.1), Lookahead(SGD([p], lr=0.1))
    with pytest.raises(ValueError, match="state lacks param_groups, state; load it into the kind of optimizer it was"):
        plain.load_state_dict(ahead.state_dict())
    with pytest.raises(ValueError, match="state lacks optimizer, steps, slow; load it into the kind"):
        ahead.load_state_dict(plain.state_dict())


def test_lookahead_refuses():
    p = Parameter(np.arange(3.0))
    for k in (0, True, 2.5):
        with pytest.raises(ValueError, match="k must be a positive integer"):
            Lookahead(SGD([p]), k=k)
    for alpha in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"alpha must be between 0 \(return\) and 1 \(stay\)"):
            Lookahead(SGD([p]), alpha=alpha)
    state = Lookahead(SGD([Parameter(np.zeros(4))])).state_dict()
    with pytest.raises(ValueError, match=r"slow weights of shapes \[\(4,\)\], this optimizer has \[\(3,\)\]"):
        Lookahead(SGD([p])).load_state_dict(state)
