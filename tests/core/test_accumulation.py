"""A batch in parts: the loss and the gradient of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.core import random
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.optimizers import SGD
from tinytorch.core.training import Observer, Trainer

RNG = np.random.default_rng(2)
INPUTS, LABELS = RNG.standard_normal((23, 4)), RNG.integers(0, 3, 23)


class Watching(nn.Sequential):
    """Notes the batches that it sees."""

    def forward(self, x: Tensor) -> Tensor:
        vars(self).setdefault("seen", []).append(len(x))
        return super().forward(x)


class Losses(Observer):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def stepped(self, trainer, step) -> None:
        self.losses.append(step.loss)


def train(accumulate: int, batch_size: int = 10, **options):
    random.manual_seed(0)
    model, losses = Watching(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double(), Losses()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.5), nn.CrossEntropyLoss(), accumulate=accumulate, **options)
    trainer.fit(DataLoader(TensorDataset(INPUTS, LABELS), batch_size=batch_size), epochs=2, observers=[losses])
    return trainer, losses.losses


@pytest.mark.parametrize("accumulate", [2, 3, 10, 50])
def test_parts_give_the_losses_gradients_and_metrics_of_the_whole(accumulate):
    (whole, expected), (parts, losses) = train(1), train(accumulate, clip_norm=1e9)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    for ours, theirs in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-10, atol=1e-14)
    for a, b in zip(parts.history, whole.history, strict=True):
        assert (a["step"], a["images"], a["accuracy"]) == (b["step"], b["images"], b["accuracy"])


def test_parts_are_as_equal_as_they_can_be():
    assert train(4)[0].model.seen[:12] == [2, 3, 2, 3, 2, 3, 2, 3, 1, 1, 1, 2]
    assert train(1)[0].model.seen == [10, 10, 3] * 2


def test_the_gradient_is_that_of_torch():
    torch = pytest.importorskip("torch")
    trainer, _ = train(3, batch_size=23)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    random.manual_seed(0)
    start = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in start.state_dict().items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(INPUTS)), torch.from_numpy(LABELS)).backward()
        optimizer.step()
    for ours, theirs in zip(trainer.model.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_no_parts_are_refused(bad):
    with pytest.raises(ValueError, match="accumulate must be a positive integer, got"):
        train(bad)
