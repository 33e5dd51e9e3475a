"""Early stopping, wall time, the reason of a stop, the norm of gradients, and the search for a learning rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinytorch import nn, optim
from tinytorch.core import stopping
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.lr_finder import _suggestion, find_lr
from tinytorch.core.random import manual_seed
from tinytorch.core.stopping import EarlyStopping, WallTime, best_record
from tinytorch.core.training import Observer, Trainer, confusion_matrix, grad_norm


def problem(n: int = 60, clip_norm: float | None = None, lr: float = 0.1) -> tuple[Trainer, DataLoader]:
    """A linear problem that is learned at once."""
    manual_seed(0)
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).astype(np.int64)), batch_size=10, shuffle=True, seed=0)
    model = nn.Linear(4, 2)
    return Trainer(
        model, optim.SGD(model.parameters(), lr=lr, momentum=0.5), nn.CrossEntropyLoss(), clip_norm=clip_norm
    ), loader


class Scores(Observer):
    """Puts chosen validation accuracies into the history, before the others look."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def epoch_ended(self, trainer, record):
        record["validation_accuracy"] = self.values[record["epoch"] - 1]


@pytest.mark.parametrize(
    ("patience", "scores", "end"),
    [
        (2, (0.5, 0.6, 0.6, 0.6, 0.9), 4),  # an equal score is no improvement
        (2, (0.5, 0.4, 0.6, 0.5, 0.7, 0.8), 6),
        (1, (0.5, 0.4, 0.9), 2),
        (9, (0.5, 0.4, 0.3), 3),
    ],
)
def test_early_stopping(patience, scores, end):
    trainer, loader = problem()
    trainer.fit(loader, epochs=len(scores), observers=[Scores(*scores), EarlyStopping(patience)])
    assert trainer.epoch == end and trainer.batch == 0
    if end < len(scores):
        best = 1 + scores.index(max(scores[:end]))
        assert trainer.stop_reason == f"no better than epoch {best} for {patience} epochs"
    else:
        assert trainer.stop_reason is None


def test_a_run_that_was_over_stays_over_when_resumed():
    trainer, loader = problem()
    trainer.fit(loader, epochs=5, observers=[Scores(0.5, 0.4, 0.3), EarlyStopping(2)])
    resumed, _ = problem()
    resumed.load_state_dict(trainer.state_dict())
    resumed.fit(loader, epochs=5, observers=[EarlyStopping(2)])
    assert resumed.step == trainer.step
    np.testing.assert_equal(resumed.state_dict()["model"], trainer.state_dict()["model"])


def test_without_validation_there_is_no_best():
    trainer, loader = problem()
    trainer.fit(loader, epochs=3, observers=[EarlyStopping(1)])
    assert trainer.epoch == 3 and best_record(trainer.history) is None


def test_of_equal_epochs_the_first_is_the_best():
    history = [{"epoch": i, "validation_accuracy": score} for i, score in enumerate((0.5, 0.7, 0.7, 0.6))]
    assert best_record(history)["epoch"] == 1


@pytest.mark.parametrize("patience", [0, -1, 1.5, True])
def test_patience_must_be_positive(patience):
    with pytest.raises(ValueError, match=f"patience must be a positive number of epochs, got {patience!r}"):
        EarlyStopping(patience)


def test_wall_time_stops_after_the_step_under_way(monkeypatch):
    times = iter([100.0, 101.0, 102.0, 103.0, 104.0])
    monkeypatch.setattr(stopping, "perf_counter", lambda: next(times))
    trainer, loader = problem()
    trainer.fit(loader, epochs=9, observers=[WallTime(3)])
    assert trainer.step == 3 and trainer.batch == 3
    assert trainer.stop_reason == "the wall time of 3 s is up"


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_wall_time_must_be_positive(seconds):
    with pytest.raises(ValueError, match="the wall time must be positive, got"):
        WallTime(seconds)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_gradient_norm_is_that_before_clipping(clip):
    class Norms(Observer):
        def stepped(self, trainer, step):
            seen.append((trainer.gradient_norm(), grad_norm(trainer.model.parameters())))

    seen: list[tuple[float, float]] = []
    trainer, loader = problem(clip_norm=clip)
    trainer.fit(loader, observers=[Norms()])
    assert all(before > 0.01 for before, _ in seen)
    assert all(after == (before if clip is None else pytest.approx(clip)) for before, after in seen)


def test_grad_norm_is_numpy_s():
    trainer, loader = problem()
    trainer.fit(loader)
    flat = np.concatenate([p.grad.ravel() for p in trainer.model.parameters()])
    assert grad_norm(trainer.model.parameters()) == pytest.approx(np.linalg.norm(flat), rel=1e-6)


def test_confusion_matrix_counts_pairs():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    expected = np.zeros((4, 4), int)
    for row, label in zip(logits, labels, strict=True):
        expected[label, list(row).index(max(row))] += 1
    np.testing.assert_array_equal(confusion_matrix(logits, labels), expected)
    assert confusion_matrix(np.zeros((0, 3)), np.zeros(0, np.int64)).tolist() == [[0] * 3] * 3


# ---- the search for a learning rate --------------------------------------------------------------------------------


def test_the_search_puts_everything_back():
    trainer, loader = problem()
    trainer.fit(loader, epochs=1)
    before = trainer.state_dict()
    found = find_lr(trainer, loader, 1e-5, 1e3, steps=50)
    np.testing.assert_equal(trainer.state_dict(), before)
    trainer.fit(loader, epochs=2)
    other, _ = problem()
    other.fit(loader, epochs=2)
    np.testing.assert_equal(trainer.state_dict()["model"], other.state_dict()["model"])
    assert len(found.lrs) == len(found.losses) <= 50
    np.testing.assert_allclose(np.diff(np.log(found.lrs)), math.log(1e8) / 49)


def test_the_suggestion_lies_between_too_low_and_too_high():
    trainer, loader = problem(n=400)
    found = find_lr(trainer, loader, 1e-5, 1e4, steps=100)
    assert 0.01 < found.suggestion <= 10


def test_the_search_ends_when_the_loss_blows_up():
    trainer, loader = problem(n=400)
    found = find_lr(trainer, loader, 1e-3, 1e30, steps=200)
    assert len(found.lrs) < 200 and found.losses[-1] > min(found.losses)


def test_the_suggestion_of_a_known_curve():
    assert _suggestion([1e-4, 1e-3, 1e-2, 1e-1, 1], [2, 1.9, 0.8, 0.3, 9]) == pytest.approx(0.01)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 1), (2, 1), (1e-3, math.inf), (math.nan, 1)])
def test_the_range_must_be_one(low, high):
    trainer, loader = problem()
    with pytest.raises(ValueError, match="low and high must be 0 < low < high, got"):
        find_lr(trainer, loader, low, high)


@pytest.mark.parametrize("steps", [9, 20.0, True])
def test_steps_must_be_enough(steps):
    trainer, loader = problem()
    with pytest.raises(ValueError, match=f"steps must be an integer of at least 10, got {steps!r}"):
        find_lr(trainer, loader, steps=steps)


def test_a_loss_that_never_fell_suggests_nothing():
    trainer, loader = problem()
    with pytest.raises(ValueError, match=r"the loss never fell in \d+ steps; search from a lower"):
        find_lr(trainer, loader, 1e20, 1e30)
