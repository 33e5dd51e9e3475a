"""Observers that end a training run before its last epoch: when it no longer improves, and when time is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from tinytorch.core.training import Observer, Step, Trainer

BETTER = "validation_accuracy"  # what "best" means, of two equal ones the earlier


def best_record(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the first record with the highest validation accuracy; None if no epoch was validated."""
    validated = [record for record in history if BETTER in record]
    return max(validated, key=lambda record: record[BETTER], default=None)


class EarlyStopping(Observer):
    """Stop once the validation accuracy has not risen for a number of epochs.

    It looks at the trainer's history alone and keeps nothing, so a resumed run stops in the same epoch. L. Prechelt,
    "Early Stopping – But When?", 1998, section 2 (criterion UP).

    Parameters
    ----------
    patience : int
        Epochs without a new best that end the run.

    Raises
    ------
    ValueError
        If `patience` is not positive.
    """

    def __init__(self, patience: int) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience must be a positive number of epochs, got {patience!r}; 5 is usual")
        self.patience = patience

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """A run that was over stays over when it is resumed."""
        self._look(trainer)

    def reason(self, trainer: Trainer) -> str | None:
        """Say why the run is over; None if it is not."""
        best = best_record(trainer.history)
        if best is None or trainer.epoch - best["epoch"] < self.patience:
            return None
        return f"no better than epoch {best['epoch']} for {self.patience} epochs"

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Compare with the best epoch so far."""
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        reason = self.reason(trainer)
        if reason is not None:
            trainer.stop(reason)


class WallTime(Observer):
    """Stop after the step under way once a time is up, counted from the making of this object.

    Parameters
    ----------
    seconds : float
        Saving, and at the end of an epoch the validation, come on top: leave room for them.

    Raises
    ------
    ValueError
        If `seconds` is not positive.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"the wall time must be positive, got {seconds} s; leave it out for no limit")
        self._end = perf_counter() + seconds
        self._reason = f"the wall time of {seconds:g} s is up"

    def stepped(self, trainer: Trainer, step: Step) -> None:
        """Look at the clock."""
        if perf_counter() >= self._end:
            trainer.stop(self._reason)
