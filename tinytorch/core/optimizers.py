"""Gradient descent and its relatives. Each updates `parameter.data` in place from `parameter.grad`.

The updates are those of torch.optim, step by step. The arithmetic is in ``tinytorch.kernels.update``, one pass over
each parameter, so that a step allocates nothing; but Muon multiplies matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.conv import planner
from tinytorch.conv.problem import ConvProblem
from tinytorch.conv.weights import Weights
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
        check_keys(state_dict, "param_groups", "state")
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


def _are_numbers(values: Any, count: int) -> bool:
    """Whether it is a sequence of so many numbers."""
    if not isinstance(values, Sequence) or len(values) != count:
        return False
    return all(isinstance(value, int | float | np.number) for value in values)


def check_keys(state_dict: Mapping[str, Any], *names: str) -> None:
    """Raise unless a snapshot has all that this kind of optimizer saves."""
    if missing := [name for name in names if name not in state_dict]:
        raise ValueError(f"state lacks {', '.join(missing)}; load it into the kind of optimizer it was saved from")


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
        if not _are_numbers(group["betas"], 2) or not all(0 <= beta < 1 for beta in group["betas"]):
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


# ---- orthogonal updates ------------------------------------------------------------------------------

QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(
    matrix: np.ndarray, steps: int = 5, coefficients: Sequence[float] = QUINTIC, eps: float = 1e-7
) -> np.ndarray:
    """Bring all singular values of a matrix near 1 and keep its singular vectors, by a Newton–Schulz iteration.

    From X = G / ‖G‖ each step is X ← a X + (b A + c A²) X with A = X Xᵀ, which maps every singular value σ to
    aσ + bσ³ + cσ⁵. The usual coefficients rise steeply at 0 and don't converge: after five steps singular values above
    0.005 of the norm have come to lie between about 0.7 and 1.2, which is near enough.

    Parameters
    ----------
    matrix : ndarray, shape (rows, columns)
    steps : int
    coefficients : (a, b, c)
    eps : float
        Least norm to divide by.

    Returns
    -------
    ndarray, shape (rows, columns)

    References
    ----------
    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    a, b, c = map(matrix.dtype.type, coefficients)
    wide = matrix.shape[0] <= matrix.shape[1]  # A is as small as it can be
    x = matrix if wide else matrix.T
    x = x / max(np.linalg.norm(x), matrix.dtype.type(eps))
    for _ in range(steps):
        gram = _by_transposed(x, x)
        x = a * x + _by_transposed(b * gram + c * _by_transposed(gram, gram), x.T)
    return x if wide else x.T


def _by_transposed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a bᵀ by the threads that compute everything else (BLAS has its own, and they get in each other's way).

    To a 1×1 convolution each row of a is an image of one pixel, and b is the weight.
    """
    pixels, weights = np.ascontiguousarray(a)[..., None], Weights(b[..., None])
    return planner.forward(ConvProblem.of(pixels.shape, weights.array.shape), pixels, weights)[..., 0]


class Muon(Optimizer):
    """Momentum, orthogonalized by Newton–Schulz: every step moves all directions of a weight matrix equally far.

    The velocity is v ← momentum · v + (1 − momentum) · g, with Nesterov's look-ahead u = momentum · v +
    (1 − momentum) · g, without u = v. Then p ← (1 − lr · weight_decay) · p − lr · s · `orthogonalize`(u), where s
    depends on the shape. Filters (out, in, kh, kw) are matrices (out, in · kh · kw). For the weights of hidden layers;
    biases, first and last layers are left to another optimizer: see `Combined`.

    Parameters
    ----------
    params : iterable
        See `Optimizer`; each with two dimensions or more.
    lr, weight_decay, momentum : float
    nesterov : bool
    ns_coefficients, eps, ns_steps
        Of `orthogonalize`.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        s for a matrix (rows, columns): √max(1, rows / columns), the default, or 0.2 · √max(rows, columns), with which
        the learning rates of AdamW carry over.
    normalize : bool
        Whether to scale p to the norm √rows before each step, which takes the place of weight decay: the step is then
        a turn whose angle lr sets. So in airbench.

    Raises
    ------
    ValueError
        As for `Optimizer`, or if a parameter is no matrix.

    References
    ----------
    K. Jordan et al., "Muon", 2024, kellerjordan.github.io/posts/muon; J. Liu et al., "Muon is Scalable for LLM
    Training", arXiv:2502.16982, for the second s; ``normalize``: github.com/KellerJordan/cifar10-airbench.
    """

    _saved = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Sequence[float] = QUINTIC,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        normalize: bool = False,
    ) -> None:
        iteration = {"ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps}
        scale = {"adjust_lr_fn": adjust_lr_fn, "normalize": normalize}
        step = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, {**step, **iteration, **scale})

    def check_settings(self, group: State) -> None:
        """Check the settings of one group."""
        super().check_settings(group)
        _check_not_negative(group, "momentum", "eps")
        coefficients, steps = group["ns_coefficients"], group["ns_steps"]
        if not _are_numbers(coefficients, 3):
            raise ValueError(f"ns_coefficients must be three numbers (a, b, c), got {coefficients!r}; use {QUINTIC}")
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or not 1 <= steps < 100:
            raise ValueError(f"ns_steps must be a whole number from 1 to 99, got {steps!r}; 5 is usual")
        if group["adjust_lr_fn"] not in (None, *_ADJUSTMENTS):
            raise ValueError(
                f"adjust_lr_fn must be None or one of {', '.join(_ADJUSTMENTS)}, got {group['adjust_lr_fn']!r}"
            )

    def _check_parameters(self, params: list[Any]) -> None:
        super()._check_parameters(params)
        for p in params:
            if p.ndim < 2:
                raise ValueError(
                    f"Muon moves matrices, and filters as matrices, got a parameter of shape {p.shape}; give biases "
                    "to another optimizer: Combined(SGD(biases, lr=0.1), Muon(filters, lr=0.02))"
                )

    def new_state(self, data: np.ndarray, group: State) -> State:
        """The velocity at zero."""
        return {"momentum_buffer": np.zeros_like(data)}

    def update(self, data: np.ndarray, grad: np.ndarray, state: State, group: State) -> None:
        """Take one step for one parameter."""
        momentum, velocity = group["momentum"], state["momentum_buffer"]
        fresh = (1 - momentum) * grad
        velocity *= momentum
        velocity += fresh
        ahead = momentum * velocity + fresh if group["nesterov"] else velocity
        matrix = ahead.reshape(len(ahead), -1)
        direction = orthogonalize(matrix, group["ns_steps"], group["ns_coefficients"], group["eps"])
        scale = _ADJUSTMENTS[group["adjust_lr_fn"] or "original"](*matrix.shape)
        data *= _norm_to(data, math.sqrt(len(data))) if group["normalize"] else 1.0
        data *= 1 - group["lr"] * group["weight_decay"]
        data -= (group["lr"] * scale) * direction.reshape(data.shape)


_ADJUSTMENTS = {
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}


def _norm_to(data: np.ndarray, wanted: float) -> float:
    """What to multiply an array with for it to have this norm; an array of zeros stays."""
    norm = float(np.linalg.norm(data))
    return wanted / norm if norm else 1.0


class Combined:
    """Several optimizers that step as one, each with parameters of its own.

    Parameters
    ----------
    *optimizers : Optimizer

    Attributes
    ----------
    param_groups : list of dict
        The groups of all of them, in order.

    Raises
    ------
    ValueError
        If there are none, or a parameter belongs to two of them.
    """

    def __init__(self, *optimizers: Any) -> None:
        if not optimizers:
            raise ValueError("Combined needs at least one optimizer: Combined(SGD(biases), Muon(filters))")
        self.optimizers = optimizers
        params = [p for group in self.param_groups for p in group["params"]]
        if len(set(map(id, params))) < len(params):
            raise ValueError(
                "a parameter belongs to two of the optimizers and would take two steps for one gradient; give each "
                "parameter to one"
            )

    @property
    def param_groups(self) -> list[State]:
        """The groups of all optimizers; changing a setting changes it for good."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> State:
        """Return a snapshot: {"optimizers": {number: snapshot}}."""
        return {"optimizers": {i: optimizer.state_dict() for i, optimizer in enumerate(self.optimizers)}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a snapshot.

        Raises
        ------
        ValueError
            If one does not fit; nothing has been loaded then.
        """
        saved = {int(number): state for number, state in state_dict.get("optimizers", {}).items()}
        if sorted(saved) != list(range(len(self.optimizers))):
            raise ValueError(
                f"state is of {len(saved)} combined optimizers, here are {len(self.optimizers)}; combine the same ones"
            )
        before = self.state_dict()["optimizers"]
        try:
            for i, optimizer in enumerate(self.optimizers):
                optimizer.load_state_dict(saved[i])
        except ValueError:
            for i, optimizer in enumerate(self.optimizers):
                optimizer.load_state_dict(before[i])
            raise
