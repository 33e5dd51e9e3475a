"""Convolution, normalisation, residual, activation and pooling as one step: what a network is mostly made of.

`conv_block` is the door through which models hand such a step over as a whole, so that it may be computed in fewer
passes over memory. What it returns is defined by its parts, called one after the other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.conv.weights import Weights
from tinytorch.core.activations import ReLU, ReLU6
from tinytorch.core.autograd import is_recorded
from tinytorch.core.conv_ops import convolve
from tinytorch.core.convolution import Conv1d, Conv2d, Conv3d
from tinytorch.core.images import UNBOUNDED, BatchOnly
from tinytorch.core.layers import Module
from tinytorch.core.normalisation import BatchNorm1d, BatchNorm2d, BatchNorm3d
from tinytorch.core.pooling import MaxPool1d, MaxPool2d, MaxPool3d
from tinytorch.core.tensor import Tensor
from tinytorch.kernels.watch import apart, call, rehearsing


def conv_block(
    x: Tensor,
    conv: Module,
    norm: Module | None = None,
    activation: Module | None = None,
    residual: Tensor | None = None,
    pool: Module | None = None,
) -> Tensor:
    """Return ``pool(activation(norm(conv(x)) + residual))``, where a part that is None is left out.

    Parameters
    ----------
    x : Tensor, shape (N, C_in, H, W)
    conv : Conv2d
    norm : BatchNorm2d, optional
    activation : ReLU or ReLU6, optional
    residual : Tensor, optional
        Of the shape of the convolution's output.
    pool : MaxPool2d, optional
        All of them may have one or three dimensions as well. Any other module may stand for any of these; it is called.

    Returns
    -------
    Tensor, shape (N, C_out, H_out, W_out)
    """
    can = _can_be_fused(conv, norm, activation, pool) and getattr(x, "ndim", None) == conv.dims + 2  # type: ignore[attr-defined]
    return (_fused if can and not apart() else _composed)(x, conv, norm, activation, residual, pool)


_BOUNDS: dict[type[Module], tuple[float, float]] = {ReLU: (0.0, math.inf), ReLU6: (0.0, 6.0)}

# What may follow a convolution: normalisation, activation and pooling.
_FOLLOWERS: dict[type[Module], tuple[tuple[type[Module], ...], ...]] = {
    Conv1d: ((BatchNorm1d,), tuple(_BOUNDS), (MaxPool1d,)),
    Conv2d: ((BatchNorm2d,), tuple(_BOUNDS), (MaxPool2d,)),
    Conv3d: ((BatchNorm3d,), tuple(_BOUNDS), (MaxPool3d,)),
}


def _can_be_fused(conv: Module, norm: Module | None, activation: Module | None, pool: Any) -> bool:
    if not is_plain(conv, *_FOLLOWERS):
        return False
    followers = zip((norm, activation, pool), _FOLLOWERS[_kind(conv)], strict=True)
    return all(part is None or is_plain(part, *kinds) for part, kinds in followers) and (pool is None or pool.is_bare)


def _fused(x, conv, norm, activation, residual, pool) -> Tensor:  # type: ignore[no-untyped-def]
    bounds = UNBOUNDED if activation is None else _BOUNDS[type(activation)]
    pooling = None if pool is None else pool.pooling
    if norm is None:
        parts = residual, activation, pool
        args = conv.options, residual, bounds, pooling
        return call(conv, (x,), lambda: convolve(x, conv.weight, conv.bias, *args), parts)
    inputs = [t for t in (x, residual, *_learned(conv, norm)) if t is not None]
    if norm.training or norm.running_mean is None or is_recorded(inputs):
        y = conv(x)
        y = call(norm, (y,), lambda: norm.normalise(y, residual, bounds), (residual, activation))
        return y if pool is None else pool(y)
    weights, bias = _folded(conv, norm)
    fused = conv.options, residual, bounds, pooling, weights
    return call(conv, (x,), lambda: convolve(x, conv.weight, bias, *fused), (norm, residual, activation, pool))


def _composed(x, conv, norm, activation, residual, pool) -> Tensor:  # type: ignore[no-untyped-def]
    """The definition of `conv_block`."""
    y = conv(x)
    if norm is not None:
        y = norm(y)
    if residual is not None:
        y = y + residual
    if activation is not None:
        y = activation(y)
    return y if pool is None else pool(y)


def _learned(conv, norm) -> list[Tensor | None]:  # type: ignore[no-untyped-def]
    return [conv.weight, conv.bias, norm.weight, norm.bias]


def _folded(conv, norm) -> tuple[Weights, Tensor]:  # type: ignore[no-untyped-def]
    """Weights and bias of the convolution that does both: ``(conv(x) − mean) · scale + shift``.

    The scale is multiplied into the weights, rounded once, so a result differs from that of the two steps by some
    units in the last place of the largest term of its sum.
    """

    def fold() -> tuple[Weights, Tensor]:
        mean, var = (t.array.astype(np.float64) for t in statistics)
        offset, gamma, beta = (
            otherwise if t is None else t.array.astype(np.float64)
            for t, otherwise in zip(_learned(conv, norm)[1:], (0.0, 1.0, 0.0), strict=True)
        )
        scale = gamma / np.sqrt(var + norm.eps)
        shift = beta - mean * scale + offset * scale
        return Weights(_scaled(conv.weight.array, scale)), Tensor(shift.astype(conv.weight.dtype))

    statistics = [norm.running_mean, norm.running_var]
    learned = [t for t in _learned(conv, norm) if t is not None]
    return conv.folded.get([*learned, *statistics], fold, norm.eps)


def _scaled(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights times a float64 factor for each output channel, rounded once; in a rehearsal only their storage."""
    if rehearsing():
        exact = np.empty_like(weight, np.float64)
        return np.empty_like(exact, weight.dtype)
    return (weight * np.reshape(scale, (-1, *(1,) * (weight.ndim - 1)))).astype(weight.dtype)


@dataclass(frozen=True)
class Run:
    """Neighbours in a Sequential that `conv_block` computes together."""

    conv: Module
    norm: Module | None
    activation: Module | None
    pool: Module | None

    def __call__(self, x: Tensor) -> Tensor:
        return conv_block(x, self.conv, self.norm, self.activation, pool=self.pool)


def runs(modules: Iterable[Module]) -> list[Callable[[Tensor], Tensor]]:
    """Cut a chain of modules into runs of convolution, normalisation, activation and pooling, and single others.

    Parameters
    ----------
    modules : iterable of Module
        In the order in which they are applied.

    Returns
    -------
    list of callable
        To be applied one after the other: `Run` for every Conv2d with what follows it of BatchNorm2d, ReLU or ReLU6,
        and MaxPool2d, in this order, and the same in one and three dimensions; any other module itself.
    """
    rest = deque(modules)
    cut: list[Callable[[Tensor], Tensor]] = []
    while rest:
        module = rest.popleft()
        if is_plain(module, *_FOLLOWERS):
            cut.append(Run(module, *(_next(rest, *kinds) for kinds in _FOLLOWERS[_kind(module)])))
        else:
            cut.append(module)
    return cut


def _next(modules: deque[Module], *kinds: type[Module]) -> Module | None:
    """Take the first module away if it is of one of these kinds."""
    return modules.popleft() if modules and is_plain(modules[0], *kinds) else None


def is_plain(module: Module, *kinds: type[Module]) -> bool:
    """Whether a module computes what its kind says: a subclass, or an instance, may have a ``forward`` of its own."""
    return _kind(module) in kinds and "forward" not in vars(module)


def _kind(module: Module) -> type[Module]:
    """Its type; for a layer that takes batches only, the one that takes single images too."""
    kind = type(module)
    return kind.__bases__[1] if BatchOnly in kind.__bases__ else kind
