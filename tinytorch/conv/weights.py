"""Weights, and the forms in which algorithms read them, each made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Weights:
    """Weights (co, ci/g, …) that do not change while this object lives.

    An algorithm asks for the weights as it reads them: in blocks, turned, transformed. The first call makes that form,
    later ones find it. In inference an object lives as long as the layer's weights stay as they are. In training each
    direction has its own: hardly a form serves two, and those of the forward would lie there until the backward.

    Parameters
    ----------
    array
        The weights themselves.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._forms: dict[tuple[Any, ...], np.ndarray] = {}

    @classmethod
    def of(cls, weights: np.ndarray | Weights) -> Weights:
        """The object itself, or a new one around an array."""
        return weights if isinstance(weights, Weights) else cls(weights)

    def form(self, make: Callable[..., np.ndarray], *options: Any) -> np.ndarray:
        """``make(self, *options)``, kept."""
        key = (make, *options)
        if key not in self._forms:
            self._forms[key] = make(self, *options)
        return self._forms[key]
