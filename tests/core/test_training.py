"""The trainer, its schedules, clipping and metrics, and resuming to the same bits."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.core import random, training
from tinytorch.core.activations import ReLU
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.layers import Linear, Module, Parameter, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD, AdamW
from tinytorch.core.regularisation import Dropout
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Observer, Trainer

CLASSES = 3


def make_data(n: int = 50, seed: int = 0) -> TensorDataset:
    """Points around three centres."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    points = rng.normal(size=(n, 4)).astype(np.float32) + 3 * np.eye(CLASSES, 4, dtype=np.float32)[labels]
    return TensorDataset(points, labels)


def make_loader(**options) -> DataLoader:
    return DataLoader(make_data(), batch_size=8, shuffle=True, seed=5, **options)


def make_trainer(epochs: int = 3, **options) -> Trainer:
    """A small network with dropout, so that the generator's state matters."""
    random.manual_seed(0)
    model = Sequential(Linear(4, 16), ReLU(), Dropout(0.2), Linear(16, CLASSES))
    schedule = training.one_cycle(epochs * len(make_loader()))
    return Trainer(model, AdamW(model.parameters(), lr=0.01), CrossEntropyLoss(), schedule, **options)


def without_time(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name not in ("seconds", "waiting")} for record in history]


class Recorder(Observer):
    """Notes all losses; stops after a number of steps, or copies the state after each."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.losses: list[float] = []
        self.steps: list[training.Step] = []
        self.events: list[str] = []

    def started(self, trainer, epochs, batches):
        self.events.append(f"started {epochs} {batches}")

    def stepped(self, trainer, step):
        self.losses.append(step.loss)
        self.steps.append(step)
        if step.step == self.stop_at:
            trainer.stop()

    def epoch_ended(self, trainer, record):
        self.events.append(f"epoch {record['epoch']}")

    def stopped(self, trainer):
        self.events.append("stopped")


# ---- metrics and schedules --------------------------------------------------------------------------


def test_accuracy_counts_the_rows_whose_largest_logit_is_the_label():
    logits = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    assert training.accuracy(logits, np.array([1, 0, 0, 0])) == 0.75


@pytest.mark.parametrize("total", [4, 7, 100, 937])
def test_one_cycle_is_that_of_torch(total):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=total, cycle_momentum=False)
    ours = training.one_cycle(total)
    for step in range(total):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimizer.step()
        if step + 1 < total:
            theirs.step()


def test_cosine_is_that_of_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1)
    ours = training.cosine(20, final=0.1)
    for step in range(21):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_step_decay_and_constant():
    schedule = training.step_decay(every=3, factor=0.5)
    assert [schedule(step) for step in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert [training.constant()(step) for step in (0, 99)] == [1, 1]


@given(total=st.integers(1, 400), warmup=st.floats(0.01, 0.99))
def test_one_cycle_stays_between_zero_and_one_and_never_fails(total, warmup):
    schedule = training.one_cycle(total, warmup)
    assert all(0 <= schedule(step) <= 1 for step in range(total + 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: training.one_cycle(0), "total_steps must be a positive integer, got 0"),
        (lambda: training.cosine(-1), "total_steps must be a positive integer, got -1"),
        (lambda: training.step_decay(True), "every must be a positive integer, got True"),
        (lambda: training.one_cycle(10, warmup=1.0), "warmup must be a fraction .* got 1.0"),
    ],
)
def test_schedules_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- clipping -----------------------------------------------------------------------------------------


def test_clipping_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    grads = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (5,), (2, 2, 2))]
    for max_norm in (0.5, 100.0):
        ours = [Parameter(np.zeros_like(g)) for g in grads]
        theirs = [torch.zeros(g.shape, requires_grad=True) for g in grads]
        for p, q, g in zip(ours, theirs, grads, strict=True):
            p.grad, q.grad = g.copy(), torch.tensor(g)
        norm = training.clip_grad_norm([*ours, Parameter(np.zeros(2, np.float32))], max_norm)
        assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, max_norm).item(), rel=1e-6)
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-5)


def test_clipping_leaves_infinite_gradients_to_be_noticed():
    p = Parameter(np.zeros(2, np.float32))
    p.grad = np.array([np.inf, 1], np.float32)
    assert training.clip_grad_norm([p], 1.0) == math.inf
    assert p.grad.tolist() == [math.inf, 1]


@pytest.mark.parametrize("bad", [0, -1.0, math.nan])
def test_clipping_refuses(bad):
    with pytest.raises(ValueError, match="max_norm must be positive"):
        training.clip_grad_norm([], bad)
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        make_trainer(clip_norm=bad)


# ---- fitting --------------------------------------------------------------------------------------------


def test_fit_learns_and_keeps_a_history():
    trainer, recorder = make_trainer(), Recorder()
    validation = DataLoader(make_data(seed=1), batch_size=16)
    history = trainer.fit(make_loader(), validation, epochs=3, observers=[recorder])
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert [record["step"] for record in history] == [7, 14, 21]
    assert all(record["images"] == 50 for record in history)
    assert history[-1]["validation_loss"] < 0.8 * history[0]["validation_loss"]
    assert history[-1]["validation_accuracy"] > 0.7
    assert recorder.events == ["started 3 7", "epoch 1", "epoch 2", "epoch 3"]
    assert recorder.steps[6].averages["loss"] == pytest.approx(history[0]["loss"])
    assert [(s.epoch, s.batch, s.step) for s in recorder.steps[6:8]] == [(1, 7, 7), (2, 1, 8)]


def test_the_epoch_averages_weigh_images_not_batches():
    trainer, recorder = make_trainer(), Recorder()
    trainer.fit(make_loader(), epochs=1, observers=[recorder])
    sizes = [8] * 6 + [2]
    assert trainer.history[0]["loss"] == pytest.approx(np.average(recorder.losses, weights=sizes))


def test_the_schedule_multiplies_the_rate_of_each_group():
    model = Sequential(Linear(4, 4), Linear(4, CLASSES))
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.3}]
    trainer = Trainer(model, SGD(groups, lr=1.0), CrossEntropyLoss(), training.step_decay(7, 0.5))
    trainer.fit(make_loader(), epochs=2)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.05, 0.15]


def test_clipping_bounds_each_step():
    model = Sequential(Linear(4, CLASSES))
    trainer = Trainer(model, SGD(model.parameters(), lr=1.0), CrossEntropyLoss(), clip_norm=1e-3)
    before = model.state_dict()
    trainer.fit(DataLoader(make_data(8), batch_size=8), epochs=1)
    moved = math.sqrt(sum(((model.state_dict()[k] - before[k]) ** 2).sum() for k in before))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_metrics_can_be_chosen():
    trainer = make_trainer(metrics={"wrong": lambda logits, labels: 1 - training.accuracy(logits, labels)})
    record = trainer.fit(make_loader(), make_loader(), epochs=1)[0]
    assert 0 <= record["wrong"] <= 1
    assert 0 <= record["validation_wrong"] <= 1
    assert "accuracy" not in record


def test_no_graph_survives_a_step():
    class Watched(Linear):
        def forward(self, x):
            self.out = super().forward(x)
            return self.out

    model = Watched(4, CLASSES)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), CrossEntropyLoss())
    trainer.fit(make_loader(), epochs=1)
    assert model.out.node.backward is None


def test_evaluation_restores_every_mode_and_leaves_no_gradient():
    trainer = make_trainer()
    trainer.model[2].eval()  # the dropout alone was frozen by its user
    scores = trainer.evaluate(make_loader())
    assert scores == trainer.evaluate(make_loader())
    assert [module.training for module in trainer.model.modules()] == [True, True, True, False, True]
    assert all(p.grad is None for p in trainer.model.parameters())


def test_evaluation_is_the_mean_over_all_images():
    trainer = make_trainer()
    data = make_data()
    scores = trainer.evaluate(DataLoader(data, batch_size=7))
    model = trainer.model.eval()
    logits = model(Tensor(data.arrays[0]))
    assert scores["loss"] == pytest.approx(CrossEntropyLoss()(logits, Tensor(data.arrays[1])).item(), rel=1e-6)
    assert scores["accuracy"] == training.accuracy(logits.numpy(), data.arrays[1])


class Clock:
    """Tells the time that others take."""

    now = 0

    def __call__(self):
        return self.now


class SlowLoader(DataLoader):
    def __init__(self, clock, *arguments, **options):
        super().__init__(*arguments, **options)
        self.clock = clock

    def __iter__(self):
        for batch in super().__iter__():
            self.clock.now += 2
            yield batch


class SlowObserver(Observer):
    def __init__(self, clock):
        self.clock = clock

    def stepped(self, trainer, step):
        self.clock.now += 100


def test_time_is_that_of_steps_and_of_waits_for_data_only(monkeypatch):
    monkeypatch.setattr(training, "perf_counter", clock := Clock())
    mean = CrossEntropyLoss()

    def loss(scores, labels):
        clock.now += 30
        return mean(scores, labels)

    model = Linear(3, 4)
    data = TensorDataset(np.ones((12, 3), np.float32), np.arange(12) % 4)
    trainer = Trainer(model, SGD(model.parameters()), loss)
    loader = SlowLoader(clock, data, 4, prefetch=0)
    trainer.fit(loader, epochs=1, observers=[SlowObserver(clock), Recorder(stop_at=2)])
    trainer.fit(loader, epochs=2, observers=[SlowObserver(clock)])  # the batches of before are read, and don't count
    assert [(record["waiting"], record["seconds"]) for record in trainer.history] == [(6, 96), (6, 96)]


def test_the_learning_rate_is_that_of_the_largest_group():
    model = Linear(3, 4)
    groups = [{"params": [model.bias], "lr": 5.0}, {"params": [model.weight], "lr": 0.5}]
    assert Trainer(model, SGD(groups), CrossEntropyLoss()).lr == 0.5


# ---- stopping and resuming ------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [1, 6, 7, 10, 20])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_resumed_run_gives_the_same_bits(stop_at, prefetch):
    validation = DataLoader(make_data(seed=1), batch_size=16)
    whole, unbroken = make_trainer(), Recorder()
    whole.fit(make_loader(), validation, epochs=3, observers=[unbroken])

    first, before = make_trainer(), Recorder(stop_at)
    first.fit(make_loader(prefetch=prefetch), validation, epochs=3, observers=[before])
    assert before.events[-1] == "stopped"
    assert len(before.losses) == stop_at
    state = copy.deepcopy(first.state_dict())
    random.manual_seed(99)  # the other process knows nothing

    second, after = make_trainer(), Recorder()
    random.manual_seed(123)
    second.load_state_dict(state)
    second.fit(make_loader(prefetch=prefetch), validation, epochs=3, observers=[after])
    assert before.losses + after.losses == unbroken.losses
    assert without_time(second.history) == without_time(whole.history)
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], array, err_msg=name)


def test_a_state_is_a_snapshot():
    trainer = make_trainer()
    trainer.fit(make_loader(), epochs=1)
    state = trainer.state_dict()
    kept = copy.deepcopy(state)
    trainer.fit(make_loader(), epochs=2)
    np.testing.assert_equal(state, kept)


def test_a_state_of_another_model_is_refused_and_nothing_is_loaded():
    trainer = make_trainer()
    wide = Sequential(Linear(4, 17), ReLU(), Dropout(0.2), Linear(17, CLASSES))
    wide_trainer = Trainer(wide, AdamW(wide.parameters()), CrossEntropyLoss())
    before = trainer.state_dict()
    with pytest.raises(ValueError, match=r"0.weight has shape \(17, 4\)"):
        trainer.load_state_dict(wide_trainer.state_dict())
    np.testing.assert_equal(trainer.state_dict(), before)


def test_a_state_of_another_optimizer_is_refused_and_nothing_is_loaded():
    trainer, donor = make_trainer(), make_trainer()
    donor.fit(make_loader(), epochs=1)
    state = donor.state_dict()
    state["optimizer"]["param_groups"][0]["params"].pop()
    before = trainer.state_dict()
    with pytest.raises(ValueError, match="groups of"):
        trainer.load_state_dict(state)
    np.testing.assert_equal(trainer.state_dict(), before)


def test_an_incomplete_state_is_refused():
    trainer = make_trainer()
    state = trainer.state_dict()
    del state["random"], state["step"]
    with pytest.raises(ValueError, match="it lacks random, step"):
        trainer.load_state_dict(state)


def test_a_state_with_other_metrics_is_refused():
    state = make_trainer(metrics={}).state_dict()
    with pytest.raises(ValueError, match="make the Trainer with the same metrics"):
        make_trainer().load_state_dict(state)


# ---- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True])
def test_epochs_must_be_positive(epochs):
    with pytest.raises(ValueError, match="epochs must be a positive integer"):
        make_trainer().fit(make_loader(), epochs=epochs)


def test_an_empty_data_set_is_refused():
    empty = DataLoader(TensorDataset(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)), batch_size=4)
    with pytest.raises(ValueError, match="training data is empty"):
        make_trainer().fit(empty)
    with pytest.raises(ValueError, match="the loader yields no batch"):
        make_trainer().evaluate(empty)


def test_labels_out_of_range_are_refused_before_anything_moves():
    data = TensorDataset(np.zeros((8, 4), np.float32), np.full(8, CLASSES))
    trainer = make_trainer()
    before = trainer.model.state_dict()
    with pytest.raises(ValueError, match="3"):
        trainer.fit(DataLoader(data, batch_size=4))
    np.testing.assert_equal(trainer.model.state_dict(), before)


def test_a_non_finite_loss_stops_before_the_update_and_names_the_step():
    inputs, labels = make_data().arrays
    inputs[20] = np.nan
    trainer, recorder = make_trainer(), Recorder()
    with pytest.raises(training.NonFiniteError, match=r"epoch 1, step 3: the loss is nan .*clip_norm"):
        trainer.fit(DataLoader(TensorDataset(inputs, labels), batch_size=8), epochs=1, observers=[recorder])
    assert len(recorder.losses) == 2
    assert all(np.isfinite(array).all() for array in trainer.model.state_dict().values())


def test_a_model_broken_by_the_last_step_of_an_epoch_is_not_an_epoch_end():
    class Poison(Observer):
        def stepped(self, trainer, step):
            if step.batch == 7:
                trainer.model[3].bias.data[0] = np.inf

    trainer, recorder = make_trainer(), Recorder()
    with pytest.raises(training.NonFiniteError, match=r"3.bias is not finite"):
        trainer.fit(make_loader(), epochs=1, observers=[Poison(), recorder])
    assert recorder.events == ["started 1 7"]


def test_a_non_finite_validation_loss_is_not_an_epoch_end():
    validation = TensorDataset(np.full((4, 4), np.nan, np.float32), np.zeros(4, np.int64))
    trainer = make_trainer()
    with pytest.raises(training.NonFiniteError, match="the validation loss is nan"):
        trainer.fit(make_loader(), DataLoader(validation, batch_size=4), epochs=1)
    assert trainer.history == []


def test_any_module_can_be_trained():
    class Plain(Module):
        def __init__(self):
            self.layer = Linear(4, CLASSES)

        def forward(self, x):
            return self.layer(x)

    model = Plain()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), CrossEntropyLoss())
    assert len(trainer.fit(make_loader(), epochs=2)) == 2


def test_a_loader_without_an_order_is_refused():
    for loader in (make_data(), list(make_loader())):
        with pytest.raises(TypeError, match=r"train_loader must be a DataLoader, got (TensorDataset|list)"):
            make_trainer().fit(loader)
