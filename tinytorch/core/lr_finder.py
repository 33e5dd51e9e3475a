"""Which learning rate to train with: raise it at every step, and watch the loss fall and then blow up.

L. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3; smoothing, the end of the search
and the suggestion as in S. Gugger, "How Do You Find A Good Learning Rate", 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.core.training import NonFiniteError, Observer, Step, Trainer

_SMOOTHING = 0.95  # share of the running mean that each step keeps
_BLOWN_UP = 4.0  # times the least smoothed loss


@dataclass(frozen=True)
class LRSearch:
    """What `find_lr` saw, step by step.

    Attributes
    ----------
    lrs : list of float
        Learning rate of each step.
    losses : list of float
        Loss of each batch, smoothed.
    suggestion : float
        A tenth of the rate with the least smoothed loss: there the loss still falls, and steeply.
    """

    lrs: list[float]
    losses: list[float]
    suggestion: float


def find_lr(trainer: Trainer, loader: Any, low: float = 1e-6, high: float = 1.0, steps: int = 100) -> LRSearch:
    """Train for a moment with a learning rate that grows geometrically; then put everything back as it was.

    Parameters
    ----------
    trainer : Trainer
        Fresh; its schedule is not used, its clipping is.
    loader : DataLoader
        Of the training data; gone through again if it is shorter than the search.
    low, high : float
        First and last learning rate, of every group alike.
    steps : int
        At most; the search ends when the smoothed loss has grown to four times its least.

    Returns
    -------
    LRSearch

    Raises
    ------
    ValueError
        If the numbers make no range, or the loss blows up before there is anything to see.
    """
    if not 0 < low < high < np.inf:
        raise ValueError(f"low and high must be 0 < low < high, got {low} and {high}; use low=1e-6, high=1.0")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 10:
        raise ValueError(f"steps must be an integer of at least 10, got {steps!r}; 100 shows enough")
    search = _Search(np.geomspace(low, high, steps))
    before, schedules = trainer.state_dict(), trainer.schedules
    trainer._base_lrs, trainer.schedules = [1.0] * len(schedules), [search.lr] * len(schedules)
    try:
        trainer.fit(loader, epochs=trainer.epoch + -(-steps // max(len(loader), 1)), observers=[search])
    except NonFiniteError:
        pass  # one more way to see that the rate is too high
    finally:
        trainer.schedules = schedules
        trainer.load_state_dict(before)
    return LRSearch(search.lrs, search.losses, _suggestion(search.lrs, search.losses))


class _Search(Observer):
    """The schedule and what comes of it."""

    def __init__(self, rates: np.ndarray) -> None:
        self.rates = rates
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self._mean = 0.0

    def lr(self, step: int) -> float:
        return float(self.rates[len(self.lrs)])

    def stepped(self, trainer: Trainer, step: Step) -> None:
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * step.loss
        self.lrs.append(float(self.rates[len(self.lrs)]))
        self.losses.append(self._mean / (1 - _SMOOTHING ** len(self.lrs)))  # without the bias towards 0
        if len(self.lrs) == len(self.rates) or self.losses[-1] > _BLOWN_UP * min(self.losses):
            trainer.stop("the search is over")


def _suggestion(lrs: Sequence[float], losses: Sequence[float]) -> float:
    least = losses.index(min(losses)) if losses else 0
    if least < 2:
        raise ValueError(f"the loss never fell in {len(losses)} steps; search from a lower learning rate")
    return lrs[least] / 10
