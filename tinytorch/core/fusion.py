"""Convolution, normalisation, residual, activation and pooling as one step: what a network is mostly made of.

`conv_block` is the door through which models hand such a step over as a whole, so that it may be computed in fewer
passes over memory. What it returns is defined by its parts, called one after the other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np

from tinytorch.conv.weights import Weights
from tinytorch.core.activations import ReLU, ReLU6
from tinytorch.core.autograd import is_recorded
from tinytorch.core.conv_ops import convolve
from tinytorch.core.convolution import Conv2d
from tinytorch.core.images import UNBOUNDED
from tinytorch.core.layers import Module
from tinytorch.core.normalisation import BatchNorm2d
from tinytorch.core.pooling import MaxPool2d
from tinytorch.core.tensor import Tensor


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
        Any other module may stand for any of these; it is called.

    Returns
    -------
    Tensor, shape (N, C_out, H_out, W_out)
    """
    if (
        is_plain(conv, Conv2d)
        and (norm is None or is_plain(norm, BatchNorm2d))
        and (activation is None or is_plain(activation, *_BOUNDS))
        and (pool is None or is_plain(pool, MaxPool2d))
    ):
        return _fused(x, cast(Conv2d, conv), cast(BatchNorm2d, norm), activation, residual, cast(MaxPool2d, pool))
    return _composed(x, conv, norm, activation, residual, pool)


def _fused(
    x: Tensor,
    conv: Conv2d,
    norm: BatchNorm2d | None,
    activation: Module | None,
    residual: Tensor | None,
    pool: MaxPool2d | None,
) -> Tensor:
    bounds = UNBOUNDED if activation is None else _BOUNDS[type(activation)]
    pooling = None if pool is None else (pool.kernel_size, pool.stride, pool.padding)
    if norm is None:
        return convolve(x, conv.weight, conv.bias, conv.options, residual, bounds, pooling)
    inputs = [x, conv.weight, norm.weight, norm.bias, *(t for t in (conv.bias, residual) if t is not None)]
    if norm.training or is_recorded(inputs):
        y = norm.normalise(conv(x), residual, bounds)
        return y if pool is None else pool(y)
    weights, bias = _folded(conv, norm)
    return convolve(x, conv.weight, bias, conv.options, residual, bounds, pooling, weights)


_BOUNDS: dict[type[Module], tuple[float, float]] = {ReLU: (0.0, math.inf), ReLU6: (0.0, 6.0)}


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


def _folded(conv: Conv2d, norm: BatchNorm2d) -> tuple[Weights, Tensor]:
    """Weights and bias of the convolution that does both: ``(conv(x) − mean) · scale + shift``.

    The scale is multiplied into the weights, rounded once, so a result differs from that of the two steps by some
    units in the last place of the largest term of its sum.
    """

    def fold() -> tuple[Weights, Tensor]:
        mean, var, gamma, beta = (t.array.astype(np.float64) for t in statistics)
        scale = gamma / np.sqrt(var + norm.eps)
        shift = beta - mean * scale + (0 if conv.bias is None else conv.bias.array * scale)
        dtype = conv.weight.dtype
        return Weights((conv.weight.array * scale[:, None, None, None]).astype(dtype)), Tensor(shift.astype(dtype))

    statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    biases = () if conv.bias is None else (conv.bias,)
    return conv.folded.get([conv.weight, *biases, *statistics], fold, norm.eps)


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
        and MaxPool2d, in this order; any other module itself.
    """
    rest = deque(modules)
    cut: list[Callable[[Tensor], Tensor]] = []
    while rest:
        conv = _next(rest, Conv2d)
        if conv is None:
            cut.append(rest.popleft())
        else:
            cut.append(Run(conv, _next(rest, BatchNorm2d), _next(rest, ReLU, ReLU6), _next(rest, MaxPool2d)))
    return cut


def _next(modules: deque[Module], *kinds: type[Module]) -> Module | None:
    """Take the first module away if it is of one of these kinds."""
    return modules.popleft() if modules and is_plain(modules[0], *kinds) else None


def is_plain(module: Module, *kinds: type[Module]) -> bool:
    """Whether a module computes what its kind says: a subclass, or an instance, may have a ``forward`` of its own."""
    return type(module) in kinds and "forward" not in vars(module)
