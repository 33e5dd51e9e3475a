"""Values made from tensors, such as packed weights, that are kept while the tensors can't have changed.

NumPy arrays don't tell when they are written to. But they can be written to only by who holds them: a tensor takes a
new version whenever it hands its array out, and Python counts who still holds it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tinytorch.conv.weights import Weights

if TYPE_CHECKING:
    from tinytorch.core.tensor import Tensor

T = TypeVar("T")


class Kept:
    """At most one value, and what it was made from. A copy of it is empty."""

    __slots__ = ("_pair",)

    def __init__(self) -> None:
        self._pair: tuple[tuple[Any, ...] | None, Any] = (None, None)  # replaced as one: other threads may be reading

    def get(self, tensors: Sequence[Tensor], make: Callable[[], T], *settings: Any) -> T:
        """``make()``, or what it returned before if no tensor's array was handed out, or held by others, since.

        Parameters
        ----------
        tensors
            All that ``make`` reads, through `Tensor.array`.
        settings
            What else the value depends on.
        """
        made_from = (*(tensor.version for tensor in tensors), *settings)
        before, value = self._pair
        if made_from == before:
            return value  # type: ignore[no-any-return]
        self._pair = value = (None, None)  # what it was may hold the arrays
        alone = all(_held_only_by(tensor) for tensor in tensors)
        value = make()
        if alone:
            self._pair = made_from, value
        return value

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def weights_of(weight: Tensor, dtype: np.dtype, recorded: bool) -> Weights:
    """The weights of a layer for `tinytorch.conv`: their packed forms are kept in inference.

    Parameters
    ----------
    weight
        Of shape (out, in, …); (out, in) is taken for a convolution of single pixels.
    recorded
        Whether this is a training step, after which the weights change anyway.
    """

    def make() -> Weights:
        array = weight.array.astype(dtype, copy=False)
        return Weights(array if array.ndim > 2 else array[..., None])

    if recorded or weight.dtype != dtype:
        return make()
    kept: Kept = vars(weight).setdefault("kept", Kept())
    return kept.get([weight], make)


def _held_only_by(tensor: Tensor) -> bool:
    """Whether nobody but the tensor can reach the memory of its array."""
    array = tensor.array
    while True:
        if sys.getrefcount(array) > 3:  # its owner (the tensor, or a view of it), the name here, and the argument
            return False
        if array.base is None:
            return bool(array.flags.owndata)
        if not isinstance(array.base, np.ndarray):
            return False
        array = array.base
