"""Which algorithm computes a convolution, and why not the others.

The algorithms stand in order of preference. Each refuses a problem with a reason, or takes it. The first that takes
it is chosen, unless the caller names one; then that one runs or the call fails with its reason. Nothing is ever
swapped silently.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

import numpy as np

from tinytorch.conv import direct, im2col, loops
from tinytorch.conv.pack import empty_channels_last
from tinytorch.conv.problem import ConvProblem, Direction


class Algorithm(Protocol):
    """What a file of this folder offers to be an algorithm."""

    name: str

    def refuses(self, problem: ConvProblem, direction: Direction) -> str | None: ...
    def forward(
        self, problem: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
    ) -> np.ndarray: ...
    def input_grad(self, problem: ConvProblem, dy: np.ndarray, weight: np.ndarray) -> np.ndarray: ...
    def weight_grad(self, problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray: ...


ALGORITHMS = {module.name: cast(Algorithm, module) for module in (direct, im2col, loops)}

_told: ContextVar[str | None] = ContextVar("tinytorch_algorithm", default=None)


@dataclass(frozen=True)
class Plan:
    """The algorithm chosen for one direction of a problem, and what came of the others.

    Parameters
    ----------
    problem, direction
        What is planned.
    algorithm
        Name of the algorithm that will run.
    reasons
        For every algorithm its name and why it was chosen or passed over, in order of preference.
    """

    problem: ConvProblem
    direction: Direction
    algorithm: str
    reasons: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.direction} of {self.problem}: {self.algorithm}"]
        return "\n".join(lines + [f"  {name:8} {reason}" for name, reason in self.reasons])


def plan(problem: ConvProblem, direction: Direction = "forward", algorithm: str | None = None) -> Plan:
    """Choose an algorithm.

    Parameters
    ----------
    problem
        The convolution.
    direction
        ``"forward"``, ``"input_grad"`` or ``"weight_grad"``.
    algorithm
        Name of the one to use; by default what `use_algorithm` says, else the first that accepts.

    Raises
    ------
    ValueError
        When ``algorithm`` is unknown, or refuses the problem.

    Examples
    --------
    >>> print(plan(ConvProblem.parse("ic3oc8_id4ih8kd1kh3")))
    forward of g1mb1ic3oc8_id4od4kd1sd1pd0dd0_ih8oh6kh3sh1ph0dh0_iw8ow6kw3sw1pw0dw0: im2col
      direct   refused: the stride tables cover 1 and 2 spatial dimensions, not 3
      im2col   chosen: the first that accepts
      loops    refused: the seven loops are written for 1 and 2 spatial dimensions, not 3
    """
    return _plan(problem, direction, algorithm or _told.get())


@lru_cache(maxsize=4096)
def _plan(problem: ConvProblem, direction: Direction, wanted: str | None) -> Plan:
    refusals = {name: module.refuses(problem, direction) for name, module in ALGORITHMS.items()}
    if wanted is not None:
        check_known(wanted)
        if refusals[wanted]:
            raise ValueError(
                f"algorithm {wanted!r} refuses the {direction} of {problem}: {refusals[wanted]}; use one of "
                f"{[name for name, reason in refusals.items() if reason is None]}, or leave algorithm out"
            )
    chosen = wanted or next(name for name, reason in refusals.items() if reason is None)
    return Plan(problem, direction, chosen, tuple(_reasons(refusals, chosen, wanted)))


def _reasons(refusals: dict[str, str | None], chosen: str, wanted: str | None) -> Iterator[tuple[str, str]]:
    for name, refusal in refusals.items():
        if name == chosen:
            yield name, "chosen: asked for by name" if wanted else "chosen: the first that accepts"
        else:
            yield name, f"refused: {refusal}" if refusal else "accepts, not needed"


def told() -> str | None:
    """Name of the algorithm that `use_algorithm` asks for in this thread."""
    return _told.get()


def check_known(name: str) -> None:
    """Raise unless there is an algorithm called ``name``."""
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(str(name), ALGORITHMS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"algorithm must be one of {list(ALGORITHMS)}, got {name!r}{hint}")


@contextmanager
def use_algorithm(name: str | None) -> Iterator[None]:
    """Within the block, in this thread, every convolution runs by the algorithm called ``name``.

    None lets the planner choose.

    The choice is made when the forward runs, and its gradients keep it.
    """
    if name is not None:
        check_known(name)
    token = _told.set(name)
    try:
        yield
    finally:
        _told.reset(token)


def forward(
    problem: ConvProblem,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    algorithm: str | None = None,
) -> np.ndarray:
    """Output of a convolution: (n, co, …), channels last in memory."""
    chosen = plan(problem, "forward", algorithm).algorithm
    if problem.n == 0:
        return empty_channels_last(problem.output_shape, x.dtype)
    return ALGORITHMS[chosen].forward(problem, x, weight, bias)


def input_grad(problem: ConvProblem, dy: np.ndarray, weight: np.ndarray, algorithm: str | None = None) -> np.ndarray:
    """Gradient of a convolution's input: (n, ci, …), channels last in memory."""
    chosen = plan(problem, "input_grad", algorithm).algorithm
    if problem.n == 0:
        return empty_channels_last(problem.input_shape, dy.dtype)
    return ALGORITHMS[chosen].input_grad(problem, dy, weight)


def weight_grad(problem: ConvProblem, x: np.ndarray, dy: np.ndarray, algorithm: str | None = None) -> np.ndarray:
    """Gradient of a convolution's weight: (co, ci/g, …)."""
    chosen = plan(problem, "weight_grad", algorithm).algorithm
    if problem.n == 0:
        return np.zeros(problem.weight_shape, dy.dtype)
    return ALGORITHMS[chosen].weight_grad(problem, x, dy)
