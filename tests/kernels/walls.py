"""Operands of a kernel in one line of memory, with walls between them.

A number read from beside an operand shows in the result, since the walls are NaN; one written beside a result shows
too, since the walls around that are not.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinytorch.kernels.target import target

WALL = 4 * target().lanes(4)  # what four vectors could reach beyond a row
UNTOUCHED = 777.0


def places(*axes: tuple[int, int]) -> np.ndarray:
    """How far from its start the numbers of an operand lie: one axis for each (count, stride)."""
    index = np.array(0)
    for count, stride in axes:
        index = np.add.outer(index, stride * np.arange(count))
    return index


class Line:
    """The line of memory, and where the operands lie in it.

    Parameters
    ----------
    dtype
        float32 or float64.
    operands
        The `places` of each; the first is the result.
    """

    def __init__(self, dtype: type, **operands: np.ndarray):
        self.start: dict[str, int] = {}
        length = WALL
        for name, index in operands.items():
            self.start[name] = length
            length += int(index.max(initial=0)) + 1 + WALL
        self.at = {name: index + self.start[name] for name, index in operands.items()}
        self.numbers: np.ndarray = np.full(length, np.nan, dtype)
        self.numbers[: list(self.start.values())[1]] = UNTOUCHED

    def __getitem__(self, name: str) -> np.ndarray:
        """Values of an operand, in double precision."""
        return self.numbers[self.at[name]].astype(np.float64)

    def __setitem__(self, name: str, values: np.ndarray | float) -> None:
        self.numbers[self.at[name]] = values

    def fill(self, rng: np.random.Generator, names: Iterable[str]) -> None:
        """Small integers, whose sums every order of adding makes alike."""
        for name in names:
            self[name] = rng.integers(-4, 5, self.at[name].shape)
