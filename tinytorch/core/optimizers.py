"""Gradient descent and its relatives. Each updates `parameter.data` in place from `parameter.grad`.

The updates are those of torch.optim, step by step. The arithmetic is in ``tinytorch.kernels.update``, one pass over
each parameter, so that a step allocates nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinytorch.core.tensor import Tensor, as_array
from tinytorch.kernels import update

State = dict[str, Any]


class Optimizer:
    """Base of all optimizers: parameter groups, and state that can be saved and restored exactly.

    Parameters
    ----------
    params : iterable of Tensor, or of dicts {"params": tensors, "lr": …}
        What to optimize; a dict is a group whose settings override the defaults.
    defaults : dict
        Settings of the groups that do not give their own.

    Attributes
    ----------
    param_groups : list of dict
        Each with "params" and the settings; a schedule may change group["lr"] between steps.
    state : dict of Tensor to dict
        Arrays and counters of each parameter that has taken a step.

    Raises
    ------
    TypeError
        If something that is no tensor is to be optimized.
    ValueError
        If there is nothing to optimize, a parameter comes twice or does not require grad, or a setting is
        unknown or out of range.
    """

    _saved: tuple[str, ...] = ()  # names of the arrays and counters kept for a parameter

    def __init__(self, params: Iterable[Any], defaults: State) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of tensors, got a single Tensor; pass [tensor]")
        entries = list(params)
        if not entries:
            raise ValueError("params is empty: there is nothing to optimize; pass model.parameters()")
        self._defaults = defaults
        self.state: dict[Tensor, State] = {}
        self.param_groups: list[State] = []
        for group in entries if isinstance(entries[0], Mapping) else [{"params": entries}]:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimize more parameters, with settings of their own."""
        params = group["params"]
        full = {**self._defaults, **group, "params": [params] if isinstance(params, Tensor) else list(params)}
        unknown = sorted(set(full) - set(self._defaults) - {"params"})
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no setting {', '.join(unknown)}; it has {', '.join(self._defaults)}"
            )
        self._check_parameters(full["params"])
        self.check_settings(full)
        self.param_groups.append(full)

    def _check_parameters(self, params: list[Any]) -> None:
        seen = {id(p) for group in self.param_groups for p in group["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"params must be tensors, got {type(p).__name__}; pass model.parameters()")
            if not p.requires_grad or not p.is_leaf:
                raise ValueError(
                    "params must be leaves that require grad; make them with Parameter(...) or "
                    "Tensor(data, requires_grad=True)"
                )
            if id(p) in seen:
                raise ValueError(
                    f"a parameter of shape {p.shape} was given twice and would take two steps for one "
                    "gradient; list each parameter once"
                )
            seen.add(id(p))

    def check_settings(self, group: State) -> None:
        """Check the settings of one group; subclasses add their own."""
        _check_not_negative(group, "lr", "weight_decay")

    @property
    def lr(self) -> float:
        """Learning rate of the first group; setting it sets that of all groups."""
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        _check_not_negative({"lr": value}, "lr")
        for group in self.param_groups:
            group["lr"] = value

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state.get(p)
                    if state is None:
                        state = self.state[p] = self.new_state(p.data, group)
                    _check_unchanged(p, state)
                    self.update(p.data, p.grad, state, group)

    def new_state(self, data: np.ndarray, group: State) -> State:
        """Arrays and counters for a parameter that takes its first step."""
        raise NotImplementedError(f"{type(self).__name__} needs new_state; return a dict, which may be empty")

    def update(self, data: np.ndarray, grad: np.ndarray, state: State, group: State) -> None:
        """Take one step for one parameter, in place."""
        raise NotImplementedError(f"{type(self).__name__} needs update; change data in place")

    def state_dict(self) -> State:
        """Return a snapshot: {"state": {number: arrays and counters}, "param_groups": settings and numbers}.

        Parameters are numbered in the order of the groups. Arrays are C-ordered copies.
        """
        numbers = {p: i for i, p in enumerate(self._parameters())}
        return {
            "state": {numbers[p]: _snapshot(state) for p, state in self.state.items()},
            "param_groups": [{**group, "params": [numbers[p] for p in group["params"]]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot, so that the next step is the one that would have come.

        Raises
        ------
        ValueError
            If groups, names or shapes do not fit; nothing has been loaded then.
        """
        groups, saved = state_dict["param_groups"], state_dict["state"]
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(
                f"state has groups of {sizes} parameters, this optimizer of "
                f"{[len(group['params']) for group in self.param_groups]}; build it with the same model"
            )
        owners = dict(enumerate(self._parameters()))
        entries = {int(number): entry for number, entry in saved.items() if entry}
        if not set(entries) <= set(owners):
            raise ValueError(f"state is for parameters {sorted(entries)}, this optimizer has {len(owners)}")
        restored = {owners[number]: self._restore(owners[number], entry) for number, entry in entries.items()}
        for own, group in zip(self.param_groups, groups, strict=True):
            self.check_settings({**own, **group})
        self.state = restored
        for own, group in zip(self.param_groups, groups, strict=True):
            own.update({name: value for name, value in group.items() if name != "params"})

    def _restore(self, p: Tensor, entry: Mapping[str, Any]) -> State:
        """Copy one parameter's state into arrays laid out like the parameter."""
        if set(entry) != set(self._saved):
            raise ValueError(
                f"{type(self).__name__} keeps {', '.join(self._saved)} for a parameter, the state has "
                f"{', '.join(entry)}; load it into the kind of optimizer it was saved from"
            )
        state: State = dict(entry)
        for name in set(self._saved) - {"step"}:
            array = as_array(entry[name])
            if array.shape != p.shape:
                raise ValueError(f"state {name} has shape {array.shape}, its parameter {p.shape}; build the same model")
            state[name] = np.empty_like(p.data)
            state[name][...] = array
        return state

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


def _snapshot(state: State) -> State:
    return {name: np.array(v, order="C") if isinstance(v, np.ndarray) else v for name, v in state.items()}


def _check_not_negative(group: State, *names: str) -> None:
    for name in names:
        value = group[name]
        if not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a finite number, not negative, got {value!r}")


def _check_unchanged(p: Tensor, state: State) -> None:
    assert p.grad is not None
    for array in (p.grad, *state.values()):
        if isinstance(array, np.ndarray) and (array.shape != p.shape or array.dtype != p.dtype):
            raise ValueError(
                f"the parameter is {p.dtype} of shape {p.shape}, its gradient or what the optimizer keeps for it is "
                f"{array.dtype} of shape {array.shape}; convert the model before making the optimizer"
            )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay.

    With g the gradient plus weight_decay · p, the velocity is v ← momentum · v + (1 - dampening) · g
    (at first v = g), and p ← p - lr · v; with Nesterov's look-ahead p ← p - lr · (g + momentum · v).

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr, momentum, dampening, weight_decay : float
    nesterov : bool
        Needs momentum and no dampening.

    References
    ----------
    Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.
    """

    _saved = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**defaults, "weight_decay": weight_decay, "nesterov": nesterov})

    def check_settings(self, group: State) -> None:
        """Check the settings of one group."""
        super().check_settings(group)
        _check_not_negative(group, "momentum")
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ValueError(
                f"nesterov needs momentum > 0 and dampening 0, got momentum={group['momentum']}, "
                f"dampening={group['dampening']}; use momentum=0.9"
            )

    def new_state(self, data: np.ndarray, group: State) -> State:
        """Nothing yet: the velocity starts as the first gradient."""
        return {}

    def update(self, data: np.ndarray, grad: np.ndarray, state: State, group: State) -> None:
        """Take one step for one parameter."""
        momentum, fresh = group["momentum"], 1 - group["dampening"]
        if momentum and "momentum_buffer" not in state:
            state["momentum_buffer"], fresh = np.zeros_like(data), 1.0
        velocity = state["momentum_buffer"] if momentum else None
        update.sgd(data, grad, velocity, group["lr"], momentum, fresh, group["weight_decay"], group["nesterov"])


class Adam(Optimizer):
    """Adaptive moments, with weight decay added to the gradient.

    m ← β₁ m + (1-β₁) g and v ← β₂ v + (1-β₂) g², then with both divided by their bias 1 - βᵗ
    p ← p - lr · m̂ / (√v̂ + eps).

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
    betas : (float, float)
        Decay of the mean and of the mean square, each in [0, 1).
    eps, weight_decay : float

    References
    ----------
    Kingma and Ba, Adam, arXiv:1412.6980.
    """

    _saved = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def check_settings(self, group: State) -> None:
        """Check the settings of one group."""
        super().check_settings(group)
        _check_not_negative(group, "eps")
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas must be two numbers in [0, 1), got {group['betas']!r}; use (0.9, 0.999)")

    def new_state(self, data: np.ndarray, group: State) -> State:
        """Both moments at zero."""
        return {
            "step": 0,
            "exp_avg": np.zeros_like(data),
            "exp_avg_sq": np.zeros_like(data),
        }

    def update(self, data: np.ndarray, grad: np.ndarray, state: State, group: State) -> None:
        """Take one step for one parameter."""
        state["step"] += 1
        bias1, bias2 = (1 - beta ** state["step"] for beta in group["betas"])
        moments = state["exp_avg"], state["exp_avg_sq"]
        update.adam(
            data, grad, *moments, group["betas"], group["eps"], group["lr"] / bias1, bias2**0.5, self.decay(group)
        )

    def decay(self, group: State) -> tuple[float, float]:
        """How much of the parameter joins its gradient, and how much of the parameter is kept."""
        return group["weight_decay"], 1.0


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p - lr · weight_decay · p before each step.

    Parameters are those of Adam; weight_decay is 0.01 unless given.

    References
    ----------
    Loshchilov and Hutter, Decoupled weight decay regularization, arXiv:1711.05101.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def decay(self, group: State) -> tuple[float, float]:
        """The parameter itself shrinks; the gradient stays."""
        return 0.0, 1 - group["lr"] * group["weight_decay"]
