"""Averages of weights: what lies between the last steps is often better than the last step.

`EMA` averages beside the training and leaves it alone; `Lookahead` leads the training back to its average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinytorch.core.layers import Module
from tinytorch.core.optimizers import State, check_keys
from tinytorch.core.tensor import Tensor, as_array

Factor = Callable[[int], float]


class EMA:
    """Exponential moving average of a model's parameters and buffers.

    After each step avg ← decay · avg + (1 − decay) · p; the first step makes avg = p. Integers, such as the number of
    batches that a BatchNorm has seen, are copied. `Trainer(average=…)` updates it after each step, and evaluates it.

    Parameters
    ----------
    model : Module
    decay : float
        In [0, 1): about 1 / (1 − decay) steps are averaged.

    Attributes
    ----------
    average : dict of str to ndarray
        By the names of `Module.state_dict`; empty before the first step.

    Raises
    ------
    ValueError
        If ``decay`` is out of range.

    Examples
    --------
    >>> ema = EMA(model, decay=0.999)
    >>> trainer = Trainer(model, optimizer, loss, average=ema)
    >>> trainer.fit(loader, test_loader, epochs=3)
    >>> with ema.applied():
    ...     logits, labels = predict(model, test_loader)

    References
    ----------
    B. Polyak, A. Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; with exponential weights,
    D. Page, "How to Train Your ResNet", 2019, part 8.
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay!r}; 0.999 averages about a thousand steps")
        self.model = model
        self.decay = decay
        self.average: dict[str, np.ndarray] = {}

    def update(self) -> None:
        """Take in the model as it is now."""
        now = self.model.state_dict()
        for name, average in self.average.items():
            if average.dtype.kind == "f":
                now[name] *= 1 - self.decay
                now[name] += self.decay * average
        self.average = now

    @contextmanager
    def applied(self) -> Iterator[Module]:
        """Put the average into the model for the time of a ``with`` block.

        Raises
        ------
        ValueError
            If nothing has been averaged yet.
        """
        if not self.average:
            raise ValueError(
                "there is no average yet; call update() after each step, or give it to a trainer: Trainer(average=…)"
            )
        own = self.model.state_dict()
        self.model.load_state_dict(self.average)
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a snapshot of the average."""
        return {name: array.copy() for name, array in self.average.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot.

        Raises
        ------
        ValueError
            If its names are not those of the model.
        """
        names = self.model.state_dict()
        if state and state.keys() != names.keys():
            raise ValueError(
                f"state must have the model's names, it differs in {', '.join(sorted(state.keys() ^ names.keys()))}; "
                "build the model as it was when saved"
            )
        self.average = {name: as_array(array).copy() for name, array in state.items()}


class Lookahead:
    """k steps forward, one step back: after every ``k`` steps of an optimizer the weights return part of the way.

    Slow weights φ, at first those of the model, move to φ ← φ + α (p − φ), and p ← φ.

    Parameters
    ----------
    optimizer : Optimizer or Combined
        Takes the steps.
    k : int
        Steps between two returns.
    alpha : float or callable
        α in [0, 1]; a callable is given the number of steps done.

    Attributes
    ----------
    slow : dict of int to ndarray
        Slow weights by the parameters' numbers in the groups.

    Raises
    ------
    ValueError
        If ``k`` or ``alpha`` is out of range.

    References
    ----------
    M. Zhang, J. Lucas, G. Hinton, J. Ba, "Lookahead Optimizer: k steps forward, 1 step back", arXiv:1907.08610,
    algorithm 1. airbench94 (arXiv:2404.00498) has k = 5 and α = 1 − 0.95⁵ · (step / steps)³.
    """

    def __init__(self, optimizer: Any, k: int = 5, alpha: float | Factor = 0.5) -> None:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k must be a positive integer, got {k!r}; it counts the steps between two returns")
        if not callable(alpha) and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be between 0 (return) and 1 (stay), got {alpha!r}; 0.5 is usual")
        self.optimizer = optimizer
        self.k = k
        self.alpha = alpha
        self.steps = 0
        self.slow = {i: np.array(p.data) for i, p in enumerate(self._parameters())}

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @property
    def param_groups(self) -> list[State]:
        """Those of the optimizer."""
        return self.optimizer.param_groups  # type: ignore[no-any-return]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Let the optimizer take its step; every k-th time, return."""
        self.optimizer.step()
        self.steps += 1
        if self.steps % self.k == 0:
            alpha = self.alpha(self.steps) if callable(self.alpha) else self.alpha
            for p, slow in zip(self._parameters(), self.slow.values(), strict=True):
                slow += alpha * (p.data - slow)
                p.data[...] = slow

    def state_dict(self) -> State:
        """Return a snapshot of the optimizer and the slow weights."""
        slow = {i: np.array(array, order="C") for i, array in self.slow.items()}
        return {"optimizer": self.optimizer.state_dict(), "steps": self.steps, "slow": slow}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot, so that the next step is the one that would have come.

        Raises
        ------
        ValueError
            If it does not fit; nothing has been loaded then.
        """
        check_keys(state_dict, "optimizer", "steps", "slow")
        slow = {int(i): as_array(array) for i, array in state_dict["slow"].items()}
        shapes = {i: array.shape for i, array in slow.items()}
        if shapes != {i: array.shape for i, array in self.slow.items()}:
            raise ValueError(
                f"state has slow weights of shapes {list(shapes.values())}, this optimizer has "
                f"{[array.shape for array in self.slow.values()]}; build it with the same model"
            )
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.steps = int(state_dict["steps"])
        for i, array in slow.items():
            self.slow[i][...] = array
