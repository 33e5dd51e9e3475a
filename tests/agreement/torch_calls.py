"""The same call here and in PyTorch: arguments carried over, results and gradients compared."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest import TestCase

import numpy as np
import torch

import tinytorch
from tests.agreement.trials import gap, largest
from tinytorch import Tensor

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def internal(name: str) -> Any:
    """A module of ``torch.testing._internal``, which wants expecttest for a base class of tests that are not run here."""
    stand_in = ModuleType("expecttest")
    stand_in.TestCase = TestCase  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", stand_in)
    return import_module(f"torch.testing._internal.{name}")


@contextmanager
def alone() -> Iterator[None]:
    """One thread for each side, which on images this small would only wait for the others; no warnings from PyTorch."""
    before = torch.get_num_threads(), tinytorch.get_num_threads()
    torch.set_num_threads(1)
    tinytorch.set_num_threads(1)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.set_num_threads(before[0])
        tinytorch.set_num_threads(before[1])


def carried(value: Any) -> Any:
    """A PyTorch tensor as one of ours with memory of its own; everything else as it is.

    The order in memory is PyTorch's in single precision, and channels last in double, so that both orders are run.
    """
    if not isinstance(value, torch.Tensor):
        return value
    array = value.detach().numpy()
    if value.dtype == torch.float64 and value.ndim > 2:
        array = np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1)
    return Tensor(array.copy(order="K"), requires_grad=value.requires_grad)


def compare(
    mine: Callable[[], Any],
    theirs: Callable[[], Any],
    own: Mapping[str, Tensor],
    their: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
) -> str:
    """How results, arguments after the call, and gradients of Σ result · random differ; "" for not at all.

    Parameters
    ----------
    own, their : mapping of str to tensor
        Arguments, parameters and buffers of the two calls, by the same names.
    """
    tolerance = TOLERANCE[dtype]
    results, expected = _listed(mine()), _listed(theirs())
    if len(results) != len(expected):
        return f"{len(results)} results instead of {len(expected)}"
    pairs = [("result", a, b) for a, b in zip(results, expected, strict=True)]
    pairs += [(f"{name} after the call", own[name], tensor) for name, tensor in their.items()]
    gaps = [gap(what, a.array, b.detach().numpy(), tolerance) for what, a, b in pairs]
    return _joined(gaps) or _compare_gradients(results[0], expected[0], own, their, tolerance)


def _compare_gradients(result: Tensor, expected: torch.Tensor, own: Mapping, their: Mapping, tolerance: float) -> str:
    if result.requires_grad != expected.requires_grad:
        return f"requires_grad is {result.requires_grad} instead of {expected.requires_grad}"
    leaves = {name: tensor for name, tensor in their.items() if tensor.requires_grad}
    if not expected.requires_grad:
        return ""
    weights = np.random.default_rng(0).standard_normal(result.shape).astype(result.dtype)
    gradients = torch.autograd.grad(expected, list(leaves.values()), torch.from_numpy(weights), allow_unused=True)
    inputs = max(map(largest, (weights, *(tensor.detach().numpy() for tensor in their.values()))))
    result.backward(weights)
    return _joined(
        _compare_gradient(name, own[name], gradient, tolerance, inputs)
        for name, gradient in zip(leaves, gradients, strict=True)
    )


def _compare_gradient(name: str, mine: Tensor, gradient: torch.Tensor | None, tolerance: float, inputs: float) -> str:
    """One that is absent is less than the rounding of the inputs; others lose that in some steps, and magnified."""
    rounding = np.finfo(mine.dtype).eps * inputs
    rounding = rounding if mine.grad is None else min(tolerance, 256 * rounding)
    return gap(f"gradient of {name}", _gradient(mine.grad, mine), _gradient(gradient, mine), tolerance, rounding)


def _gradient(gradient: Any, tensor: Tensor) -> np.ndarray:
    """No gradient is a gradient of zeros."""
    return np.zeros(tensor.shape, tensor.dtype) if gradient is None else np.asarray(gradient)


def _listed(results: Any) -> list[Any]:
    return [results] if isinstance(results, torch.Tensor | Tensor) else list(results)


def _joined(gaps: Iterable[str]) -> str:
    return "; ".join(filter(None, gaps))


def spoken(args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
    """The arguments of a call, in a line."""
    return f"({', '.join([*map(_value, args), *(f'{name}={_value(value)}' for name, value in kwargs.items())])})"


def _value(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{list(value.shape)}".removeprefix("torch.")
    return repr(value)


def values(args: Sequence[Any]) -> list[str]:
    """Shapes, dtypes and tuples among the arguments, as the text of an error may quote them."""
    tensors = [value for value in args if isinstance(value, torch.Tensor)]
    shapes = [str(tuple(tensor.shape)) for tensor in tensors]
    dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors]
    return [*shapes, *dtypes, *(str(value) for value in args if isinstance(value, tuple | list))]
