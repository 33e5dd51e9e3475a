"""A model's double, for rehearsals: the same modules and settings, and arrays of the same shapes that nobody wrote to.

Untouched storage takes no memory and no time, so the double of a network of 500 MB is made in a millisecond. Whatever
happens to the double, in training mode too, the model, its gradients and its running statistics stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.core import random
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor
from tinytorch.kernels.watch import Watcher, watching

Shape = tuple[int, ...]


def stand_in(model: Module) -> Module:
    """Copy a model without its numbers.

    Parameters
    ----------
    model : Module
        Is left as it is.

    Returns
    -------
    Module
        Has the same modules and settings, parameters and buffers of the same shapes, types and orders in memory, whose
        numbers mean nothing, and no gradients.

    Raises
    ------
    TypeError
        If it is no Module.
    ValueError
        If an attribute can't be copied; the message names it.
    """
    if not isinstance(model, Module):
        hint = "; make an instance first" if isinstance(model, type) and issubclass(model, Module) else ""
        raise TypeError(f"model must be a Module, got {_described(model)}{hint}")
    memo = {id(array): untouched(array) for array in _arrays(model)}
    try:
        double = copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(
            f"{_culprit(model)} can't be copied ({error}), and a model is rehearsed as a copy, so that it stays as it "
            "is; keep locks, files and generators outside of modules, or give the class a __deepcopy__"
        ) from error
    double.zero_grad()
    return double


def untouched(template: np.ndarray) -> np.ndarray:
    """An array with the shape, the type and the order in memory of ``template``; nothing is written to it."""
    order = sorted(range(template.ndim), key=lambda axis: -abs(template.strides[axis]))
    return np.empty([template.shape[axis] for axis in order], template.dtype).transpose(np.argsort(order))


def images(shape: Shape, dtype: DTypeLike) -> Tensor:
    """An input of this shape, in untouched storage."""
    return Tensor.wrap(np.zeros(shape, dtype))


def shapes_of(input_shape: Sequence[Any]) -> tuple[Shape, ...]:
    """Read ``(1, 3, 32, 32)``, or several such for a model of several inputs.

    Raises
    ------
    ValueError
        If it is something else.
    """
    given = input_shape if isinstance(input_shape, Sequence) and not isinstance(input_shape, str) else ()
    several = tuple(tuple(s) if isinstance(s, Sequence) else s for s in given)
    shapes = several if any(isinstance(shape, tuple) for shape in several) else (several,)
    if not given or not all(isinstance(shape, tuple) and all(map(_is_size, shape)) for shape in shapes):
        raise ValueError(
            "input_shape must be the shape of the input with its batch, such as (1, 3, 224, 224), or a tuple of such "
            f"shapes, one for each input of the model, got {input_shape!r}"
        )
    return shapes  # type: ignore[return-value]


def dtype_of(model: Module, dtype: DTypeLike | None) -> np.dtype:
    """The input's type: what is asked for, or that of the model's parameters.

    Raises
    ------
    TypeError
        If it is not float32 or float64.
    """
    own = [p.dtype for p in model.parameters() if p.dtype.kind == "f"]
    wanted = np.dtype(dtype) if dtype is not None else np.dtype(own[0] if own else np.float32)
    if wanted not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {wanted}; images are floating-point numbers")
    return wanted


@contextmanager
def rehearsal() -> Iterator[None]:
    """Within the block nothing is computed, drawn or compiled: a model that is built there has no numbers."""
    with watching(Rehearsal()):
        yield


class Rehearsal(Watcher):
    """Leaves arithmetic out; whoever looks at a number sees 0, and always the same path is taken."""

    rehearsing = True

    def look(self, tensor: Tensor) -> None:
        """Make zeros of numbers that mean nothing."""
        if tensor.array.flags.writeable and tensor.dtype.kind in "fb":
            tensor.array[...] = 0


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block, draws and arithmetic on numbers that mean nothing leave no trace."""
    state = random.get_state()
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        random.set_state(state)


def _is_size(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)


def _arrays(model: Module) -> Iterator[np.ndarray]:
    """Of all floating-point tensors that are attributes of a module: their values and their gradients.

    Integers are indices, as a rule, and stay what they are.
    """
    tensors = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    floating = (tensor for tensor in tensors if tensor.dtype.kind == "f")
    return (array for tensor in floating for array in (tensor.array, tensor.grad) if array is not None)


def _culprit(model: Module) -> str:
    """Name of the first attribute that can't be copied by itself."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if not isinstance(value, Module | Tensor):
                try:
                    copy.deepcopy(value)
                except Exception:
                    return f"the attribute {f'{path}.{name}'.lstrip('.')} ({_described(value)})"
    return f"the model, a {type(model).__name__},"


def _described(value: Any) -> str:
    return (
        f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__module__}.{type(value).__name__}"
    )
