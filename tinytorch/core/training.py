"""Training: the loop over epochs and batches, schedules, gradient clipping, metrics, exact resume.

Nothing here prints or opens a file. A `Trainer` tells its observers what happens; a progress bar and the
writer of a run's folder are observers. Its `state_dict` holds everything that the next step depends on, so
that a run which is stopped after any batch and continued reaches the same numbers, bit for bit, as one never
stopped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np

from tinytorch.conv.pack import channels_last
from tinytorch.core import random
from tinytorch.core.autograd import no_grad
from tinytorch.core.averaging import EMA
from tinytorch.core.layers import Module
from tinytorch.core.pad_ops import pad
from tinytorch.core.tensor import Tensor

Metric = Callable[[np.ndarray, np.ndarray], float]
Schedule = Callable[[int], float]


class NonFiniteError(ValueError):
    """Training ran into infinity or NaN; the message names the step."""


# ---- metrics ----------------------------------------------------------------------------------------


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows whose largest logit is at the label.

    Parameters
    ----------
    logits : ndarray, shape (N, classes)
    labels : ndarray of int, shape (N,)
    """
    return float((logits.argmax(axis=1) == labels).mean())


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count how often each class is taken for each: entry (i, j) is the number of rows of class i predicted as j.

    Parameters
    ----------
    logits : ndarray, shape (N, classes)
    labels : ndarray of int, shape (N,)

    Returns
    -------
    ndarray of int64, shape (classes, classes)
    """
    classes = logits.shape[1]
    return np.bincount(classes * labels + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


# ---- schedules: step → factor on the learning rate --------------------------------------------------


def constant() -> Schedule:
    """Keep the learning rate."""
    return lambda step: 1.0


def step_decay(every: int, factor: float = 0.1) -> Schedule:
    """Multiply the learning rate by `factor` after each `every` steps.

    Raises
    ------
    ValueError
        If `every` is not positive.
    """
    _check_positive("every", every)
    return lambda step: factor ** (step // every)


def cosine(total_steps: int, final: float = 0.0) -> Schedule:
    """Fall from 1 to `final` along half a cosine: I. Loshchilov & F. Hutter, "SGDR", 2017, equation 5.

    Raises
    ------
    ValueError
        If `total_steps` is not positive.
    """
    _check_positive("total_steps", total_steps)
    return lambda step: _between(1.0, final, step / total_steps)


def one_cycle(total_steps: int, warmup: float = 0.3, start: float = 1 / 25, final: float = 1 / 250_000) -> Schedule:
    """Rise from `start` to 1 during the first `warmup` of all steps, then fall to `final`, as half cosines.

    The defaults are PyTorch's OneCycleLR; after L. Smith & N. Topin, "Super-Convergence", 2018.

    Raises
    ------
    ValueError
        If `total_steps` is not positive or `warmup` lies outside (0, 1).
    """
    _check_positive("total_steps", total_steps)
    if not 0 < warmup < 1:
        raise ValueError(f"warmup must be a fraction of the steps between 0 and 1, got {warmup}; use warmup=0.3")
    peak = max(warmup * total_steps - 1, 0.0)  # a run too short to warm up starts at the peak
    fall = (total_steps - 1 - peak) or 1.0

    def schedule(step: int) -> float:
        if step <= peak:
            return _between(start, 1.0, step / peak if peak else 1.0)
        return _between(1.0, final, (step - peak) / fall)

    return schedule


def triangle(total_steps: int, peak: float = 0.2, start: float = 0.0, final: float = 0.0) -> Schedule:
    """Rise in a line from `start` to 1 during the share `peak` of all steps, then fall in a line to `final`.

    With `peak=0`, or where the rise would be shorter than a step, it only falls. airbench94 (arXiv:2404.00498) has peak
    0.23, start 0.2 and final 0.07; after L. Smith & N. Topin, "Super-Convergence", 2018.

    Raises
    ------
    ValueError
        If `total_steps` is not positive or `peak` lies outside [0, 1].
    """
    _check_positive("total_steps", total_steps)
    if not 0 <= peak <= 1:
        raise ValueError(f"peak must be a fraction of the steps between 0 and 1, got {peak}; use peak=0.2")
    top = peak * total_steps if peak * total_steps >= 1 else 0.0  # a run too short to warm up starts at the peak
    fall = (total_steps - top) or 1.0

    def schedule(step: int) -> float:
        if step < top:
            return start + (1 - start) * step / top
        return 1 + (final - 1) * min((step - top) / fall, 1.0)

    return schedule


def _between(a: float, b: float, fraction: float) -> float:
    """Half a cosine that leads from `a` at 0 to `b` at 1, and stays there."""
    return b + (a - b) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


# ---- gradients --------------------------------------------------------------------------------------


def grad_norm(parameters: Iterable[Tensor]) -> float:
    """Return the common Euclidean norm of all gradients; parameters without one are passed over."""
    return math.sqrt(sum(_squared_norm(p.grad) for p in parameters if p.grad is not None))


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their common Euclidean norm is at most `max_norm`.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those without a gradient are passed over.
    max_norm : float
        Positive.

    Returns
    -------
    float
        The norm before clipping. If it is not finite, the gradients are left as they are.

    Raises
    ------
    ValueError
        If `max_norm` is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}; use max_norm=1.0, or leave clipping out")
    parameters = list(parameters)
    norm = grad_norm(parameters)
    if max_norm < norm < math.inf:
        grads = [p.grad for p in parameters if p.grad is not None]
        for g in grads:
            g *= max_norm / norm
    return norm


def _squared_norm(array: np.ndarray) -> float:
    flat = array.ravel(order="K")
    return float(flat @ flat)


# ---- evaluation -------------------------------------------------------------------------------------


@contextmanager
def _inference(model: Module) -> Iterator[None]:
    """Switch to evaluation mode without recording, and put every module back into its own mode after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


Views = Callable[[Tensor], Iterable[tuple[float, Tensor]]]


def mirrored(images: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Each image and its mirror image, left and right exchanged, at equal weight: views for `predict`."""
    yield 0.5, images
    yield 0.5, Tensor.wrap(channels_last(images.array[..., ::-1]))


def mirrored_and_shifted(images: Tensor) -> Iterator[tuple[float, Tensor]]:
    """`mirrored`, as it is (half of the weight) and moved along the diagonal by a pixel either way: six views.

    What moves in at the edge is the image reflected. airbench94, arXiv:2404.00498, "Multi-crop evaluation".
    """
    padded = pad(images, (1, 1) * (images.ndim - 2), "reflect")
    for at, share in ((1, 0.5), (0, 0.25), (2, 0.25)):
        window = (slice(None), slice(None), *(slice(at, at + size) for size in images.shape[2:]))
        shifted = Tensor.wrap(channels_last(padded.array[window]))
        yield from ((share * weight, view) for weight, view in mirrored(shifted))


def predict(
    model: Module, loader: Iterable[tuple[Tensor, ...]], views: Views | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Run a model over a data set in evaluation mode.

    Parameters
    ----------
    model : Module
    loader : iterable of (images, labels)
    views : callable, optional
        Makes weighted views of a batch, such as `mirrored` or `mirrored_and_shifted`; the logits are the weighted sum
        of what the model says to each.

    Returns
    -------
    logits : ndarray, shape (N, …)
    labels : ndarray, shape (N,)

    Raises
    ------
    ValueError
        If the loader yields no batch.
    """
    with _inference(model):
        batches = [(_logits(model, images, views), labels.numpy()) for images, labels in loader]
    if not batches:
        raise ValueError("the loader yields no batch; evaluation needs at least one example")
    logits, labels = zip(*batches, strict=True)
    return np.concatenate(logits), np.concatenate(labels)


def _logits(model: Module, images: Tensor, views: Views | None) -> np.ndarray:
    if views is None:
        return model(images).numpy()
    return sum(model(view).numpy() * weight for weight, view in views(images))  # type: ignore[return-value]


# ---- the trainer ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """What an observer learns after each batch.

    Attributes
    ----------
    epoch, batch, step : int
        Counted from 1; `batch` within the epoch, `step` over the whole run.
    loss : float
        Of this batch.
    averages : dict of str to float
        Loss and metrics averaged over the epoch's images so far.
    images : int
        Images seen in this epoch.
    """

    epoch: int
    batch: int
    step: int
    loss: float
    averages: dict[str, float]
    images: int


class Observer:
    """Told about the events of a training run; override what you need."""

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """`fit` begins: it will train up to `epochs` epochs of `batches` batches."""

    def stepped(self, trainer: Trainer, step: Step) -> None:
        """The parameters were updated once."""

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """An epoch and its validation are complete; `record` is the last entry of `trainer.history`."""

    def stopped(self, trainer: Trainer) -> None:
        """`Trainer.stop` was called, and the step under way is complete."""

    def ended(self, trainer: Trainer) -> None:
        """`fit` returns, or raises an error."""


def _for_each(groups: Sequence[Any], schedule: Schedule | Sequence[Schedule]) -> list[Schedule]:
    """One schedule for each parameter group."""
    schedules = [schedule] * len(groups) if callable(schedule) else list(schedule)
    if len(schedules) != len(groups):
        raise ValueError(
            f"schedule must be one for all or one for each of the {len(groups)} parameter groups, got {len(schedules)}"
        )
    return schedules


def _parts(n: int, count: int) -> Iterator[tuple[slice, float]]:
    """Cut n images into so many nearly equal parts, or n, each with its share of them."""
    count = min(count, n)
    for k in range(count):
        part = slice(n * k // count, n * (k + 1) // count)
        yield part, (part.stop - part.start) / n


class Trainer:
    """Fit a model to data.

    Parameters
    ----------
    model : Module
    optimizer : optimizer
        Made with the parameters of `model`.
    loss : callable
        `loss(logits, labels)` returns a Tensor with one element, the mean over the batch.
    schedule : callable, or sequence of callables, optional
        Maps the number of steps done to a factor on each parameter group's own learning rate; a sequence has one for
        each group.
    clip_norm : float, optional
        Upper bound of the gradients' common norm; see `clip_grad_norm`.
    metrics : mapping of str to callable, optional
        Each maps (logits, labels) to the mean over a batch. Default: accuracy.
    accumulate : int
        Parts in which each batch is computed, one after the other; their gradients add up. The activations of one part
        are in memory at a time, and a step stays a step: loss and gradient are the means over the whole batch, up to
        rounding. Only batch normalisation sees the parts, as it does in PyTorch.
    average : EMA, optional
        Average of the model's weights, updated after each step. It is what is evaluated, and part of the state.

    Attributes
    ----------
    history : list of dict
        One record an epoch: epoch, step, loss, the metrics, the same of the validation data with the prefix
        `validation_`, lr (as in the property), seconds and images (of steps, not of validation and observers), and
        waiting: how many of the seconds the steps waited for data.
    epoch, batch, step : int
        Epochs complete, batches complete in the epoch under way, steps complete.
    stop_reason : str or None
        What `stop` was told, if it ended the last `fit`.

    Raises
    ------
    ValueError
        If `clip_norm` or `accumulate` is not positive.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Any,
        loss: Callable[[Tensor, Tensor], Tensor],
        schedule: Schedule | Sequence[Schedule] | None = None,
        clip_norm: float | None = None,
        metrics: Mapping[str, Metric] | None = None,
        accumulate: int = 1,
        average: EMA | None = None,
    ) -> None:
        _check_positive("accumulate", accumulate)
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, got {clip_norm}; use clip_norm=1.0, or None for no clipping")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.schedules = _for_each(optimizer.param_groups, schedule or constant())
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.average = average
        self.metrics = dict(metrics) if metrics is not None else {"accuracy": accuracy}
        self.epoch = self.batch = self.step = 0
        self.history: list[dict[str, Any]] = []
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        self._sums = self._zero_sums()
        self._norm: float | None = None
        self._stop = False
        self.stop_reason: str | None = None

    def _zero_sums(self) -> dict[str, float]:
        return dict.fromkeys(("images", "seconds", "waiting", "loss", *self.metrics), 0.0)

    # ---- the loop ------------------------------------------------------------------------------------

    def fit(
        self,
        train_loader: Any,
        validation_loader: Any = None,
        epochs: int = 1,
        observers: Sequence[Observer] = (),
    ) -> list[dict[str, Any]]:
        """Train until `epochs` epochs are complete, counting those done before.

        Parameters
        ----------
        train_loader, validation_loader : DataLoader
            Yield (inputs, labels). The order of `train_loader` must be a pure function of the epoch that
            `set_epoch` is told, or a run continued in mid-epoch will see other batches.
        epochs : int
            Total, not additional.
        observers : sequence of Observer

        Returns
        -------
        list of dict
            `history`; shorter than `epochs` if `stop` was called.

        Raises
        ------
        TypeError
            If `train_loader` is no loader.
        ValueError
            If `epochs` is not positive or there is nothing to train on.
        NonFiniteError
            If a loss, or a parameter at the end of an epoch, is infinite or NaN. The model keeps what it had
            then; the last checkpoint made by an observer is older and sound.
        """
        _check_positive("epochs", epochs)
        if not hasattr(train_loader, "set_epoch"):
            raise TypeError(
                f"train_loader must be a DataLoader, got {type(train_loader).__name__}; its order must follow from the "
                "epoch: DataLoader(dataset, batch_size=64, shuffle=True)"
            )
        if len(train_loader) == 0:
            raise ValueError("the training data is empty: train_loader yields no batch; give it at least one example")
        self._stop, self.stop_reason = False, None
        self._tell(observers, "started", epochs, len(train_loader))
        try:
            while self.epoch < epochs and not self._stop:
                self._train_epoch(train_loader, observers)
                if self._stop and self.batch < len(train_loader):
                    break
                self._end_epoch(validation_loader, observers)
            if self._stop:
                self._tell(observers, "stopped")
        finally:
            self._tell(observers, "ended")
        return self.history

    def stop(self, reason: str = "asked to stop") -> None:
        """Let `fit` return after the step under way; safe to call from a signal handler or another thread."""
        self._stop, self.stop_reason = True, reason

    @property
    def lr(self) -> float:
        """Learning rate of the last step, of the parameter group with the most numbers."""
        largest = max(self.optimizer.param_groups, key=lambda group: sum(p.size for p in group["params"]))
        return float(largest["lr"])

    def gradient_norm(self) -> float:
        """Return the common norm of the last step's gradients, before clipping."""
        return grad_norm(self.model.parameters()) if self._norm is None else self._norm

    def _tell(self, observers: Sequence[Observer], event: str, *details: Any) -> None:
        for observer in observers:
            getattr(observer, event)(self, *details)

    def _train_epoch(self, loader: Any, observers: Sequence[Observer]) -> None:
        """Train on the batches of this epoch that are still to come."""
        self.model.train()
        loader.set_epoch(self.epoch)
        batches = iter(loader)
        deque(islice(batches, self.batch), maxlen=0)  # those that were done before the run was stopped
        asked = perf_counter()
        for images, labels in batches:
            self._sums["waiting"] += perf_counter() - asked
            loss = self._train_batch(images, labels)
            self._sums["seconds"] += perf_counter() - asked
            step = Step(self.epoch + 1, self.batch, self.step, loss, self._averages(), int(self._sums["images"]))
            self._tell(observers, "stepped", step)
            if self._stop:
                break
            asked = perf_counter()

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # checks below say it better than warnings
    def _train_batch(self, images: Tensor, labels: Tensor) -> float:
        """Do one step: forward and backward of every part, update, and count it."""
        self.optimizer.zero_grad()
        value, logits = 0.0, []
        for part, share in _parts(len(labels), self.accumulate):
            scores = self.model(images[part])
            loss = self.loss(scores, labels[part])
            value += share * loss.item()
            if not math.isfinite(value):
                raise NonFiniteError(self._diverged(f"the loss is {value}"))
            loss.backward(np.full(loss.shape, share))
            logits.append(scores.numpy())
        if self.clip_norm is not None:
            self._norm = clip_grad_norm(self.model.parameters(), self.clip_norm)
        self._set_learning_rates()
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.batch += 1
        self.step += 1
        self._count(value, np.concatenate(logits), labels.numpy())
        return value

    def _set_learning_rates(self) -> None:
        groups = self.optimizer.param_groups
        for group, base, schedule in zip(groups, self._base_lrs, self.schedules, strict=True):
            group["lr"] = base * schedule(self.step)

    def _count(self, loss: float, logits: np.ndarray, labels: np.ndarray) -> None:
        n = len(labels)
        self._sums["images"] += n
        self._sums["loss"] += n * loss
        for name, metric in self.metrics.items():
            self._sums[name] += n * metric(logits, labels)

    def _averages(self) -> dict[str, float]:
        images = self._sums["images"]
        return {name: self._sums[name] / images for name in ("loss", *self.metrics)}

    def _end_epoch(self, validation_loader: Any, observers: Sequence[Observer]) -> None:
        """Validate, write the epoch into the history and start the next one."""
        self.check_finite()
        record: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step, **self._averages()}
        if validation_loader is not None:
            scores = self.evaluate(validation_loader)
            if not math.isfinite(scores["loss"]):
                raise NonFiniteError(self._diverged(f"the validation loss is {scores['loss']}"))
            record |= {f"validation_{name}": value for name, value in scores.items()}
        record["lr"] = self.lr
        record["seconds"] = self._sums["seconds"]
        record["waiting"] = self._sums["waiting"]
        record["images"] = int(self._sums["images"])
        self.epoch += 1
        self.batch = 0
        self._sums = self._zero_sums()
        self.history.append(record)
        self._tell(observers, "epoch_ended", record)

    def check_finite(self) -> None:
        """Check that every parameter and buffer is finite, so that no checkpoint of a diverged model is made.

        Raises
        ------
        NonFiniteError
            If one is not; the message names it.
        """
        for name, array in self.model.state_dict().items():
            if not np.isfinite(array).all():
                raise NonFiniteError(self._diverged(f"{name} is not finite"))

    def _diverged(self, what: str) -> str:
        return (
            f"stopped in epoch {self.epoch + 1}, step {self.step + 1}: {what} (learning rate {self.lr:.3g}); "
            "training has diverged: use a lower learning rate, or clip the gradients (clip_norm=1.0)"
        )

    def evaluate(self, loader: Any) -> dict[str, float]:
        """Return loss and metrics over a data set, in evaluation mode; each module gets its own mode back.

        Raises
        ------
        ValueError
            If the loader yields no batch.
        """
        logits, labels = self.predict(loader)
        with no_grad():
            loss = self.loss(Tensor(logits), Tensor(labels)).item()
        return {"loss": loss, **{name: metric(logits, labels) for name, metric in self.metrics.items()}}

    def predict(self, loader: Any, views: Views | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`predict` with the weights that count: the average, if there is one."""
        averaged = self.average is not None and bool(self.average.average)
        with self.average.applied() if averaged else nullcontext():  # type: ignore[union-attr]
            return predict(self.model, loader, views)

    # ---- state ---------------------------------------------------------------------------------------

    def weights(self) -> dict[str, np.ndarray]:
        """Return a snapshot of the weights that are evaluated: the average, if there is one."""
        return self._averaged() or self.model.state_dict()

    def _averaged(self) -> dict[str, np.ndarray]:
        """A snapshot of the average; empty if there is none, or no step was taken."""
        return {} if self.average is None else self.average.state_dict()

    def _load_average(self, average: Mapping[str, Any]) -> None:
        if self.average is not None:
            self.average.load_state_dict(average)

    def state_dict(self) -> dict[str, Any]:
        """Return a snapshot of all that the next step depends on: nested dicts of arrays and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self._averaged(),
            "base_lrs": list(self._base_lrs),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "sums": dict(self._sums),
            "history": [dict(record) for record in self.history],
            "random": random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot, in this or another process.

        Raises
        ------
        ValueError
            If an entry is missing or belongs to another model, optimizer or set of metrics; nothing is loaded
        """
        missing = sorted(self.state_dict().keys() - state.keys())
        if missing:
            raise ValueError(f"state must come from Trainer.state_dict(), it lacks {', '.join(missing)}")
        if state["sums"].keys() != self._sums.keys():
            raise ValueError(
                f"state has sums of {sorted(state['sums'])}, this trainer keeps {sorted(self._sums)}; "
                "make the Trainer with the same metrics"
            )
        own_model, own_average = self.model.state_dict(), self._averaged()
        self.model.load_state_dict(state["model"])
        try:
            self._load_average(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError:
            self.model.load_state_dict(own_model)
            self._load_average(own_average)
            raise
        random.set_state(state["random"])
        self._base_lrs = list(state["base_lrs"])
        self.epoch, self.batch, self.step = (int(state[name]) for name in ("epoch", "batch", "step"))
        self._sums = dict(state["sums"])
        self.history = [dict(record) for record in state["history"]]
