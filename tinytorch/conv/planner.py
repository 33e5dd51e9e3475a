"""Which algorithm computes a convolution, and why not the others.

Every algorithm refuses a problem with a reason, or takes it. Of those that take it the one that is estimated to be
fastest is chosen (`estimate.py`), or the one that was measured to be, unless the caller names one; then that one runs
or the call fails with its reason. Nothing is ever swapped silently.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike

from tinytorch.conv import depthwise, direct, fft, im2col, loops, measured, planar
from tinytorch.conv.cost import cost
from tinytorch.conv.estimate import steps
from tinytorch.conv.finish import PLAIN, Finish
from tinytorch.conv.pack import empty_channels_last
from tinytorch.conv.problem import DIRECTIONS, ConvProblem, Direction
from tinytorch.conv.weights import Weights
from tinytorch.conv.winograd import Winograd
from tinytorch.kernels import jit, memory
from tinytorch.kernels.target import target
from tinytorch.kernels.watch import rehearsing, watcher


class Algorithm(Protocol):
    """What a file of this folder offers to be an algorithm."""

    name: str

    def refuses(self, problem: ConvProblem, direction: Direction) -> str | None: ...
    def forward(self, problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray: ...
    def input_grad(
        self, problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN
    ) -> np.ndarray: ...
    def weight_grad(self, problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray: ...


Choice = str | Mapping[Direction, str]  # an algorithm for all directions, or for some of them by name

_MODULES = (depthwise, direct, planar, Winograd(4), Winograd(2), im2col, fft, loops)
ALGORITHMS = {module.name: cast(Algorithm, module) for module in _MODULES}

# Largest error of a float32 result over the largest result, for operands that are not chosen to be bad. The others sum
# the products themselves.
_ERROR = {"winograd": 1e-5, "winograd2": 2e-6, "fft": 2e-6}
_DIRECT_ERROR = 1e-6


class Wish(NamedTuple):
    """What a caller asks of the planner.

    Parameters
    ----------
    algorithm
        The one to use, by name; None leaves the choice.
    tolerance
        Largest error that a float32 result may have, over the largest result (a float64 result is as much more
        accurate as its numbers are); None takes all.
    measure
        Whether algorithms are timed, once for each problem on this machine, instead of estimated.
    by_direction
        Other algorithms for some directions: pairs of a direction and a name.
    """

    algorithm: str | None = None
    tolerance: float | None = None
    measure: bool = False
    by_direction: tuple[tuple[Direction, str], ...] = ()

    def of(self, direction: Direction) -> Wish:
        """What is asked for one direction."""
        if not self.by_direction:
            return self
        return Wish(dict(self.by_direction).get(direction, self.algorithm), self.tolerance, self.measure)

    def naming(self, choice: Choice | None) -> Wish:
        """The same with other algorithms; a choice by direction leaves those that it does not name."""
        if choice is None:
            return self
        if isinstance(choice, str):
            return self._replace(algorithm=choice, by_direction=())
        check_choice(choice)
        return self._replace(by_direction=tuple({**dict(self.by_direction), **choice}.items()))

    @property
    def turned(self) -> Wish:
        """The same for a transposed convolution: its forward is an input gradient, its input gradient a forward."""
        return self._replace(by_direction=tuple((turned(direction), name) for direction, name in self.by_direction))


def turned(direction: Direction) -> Direction:
    """The direction of a convolution that computes this direction of its transpose."""
    return {"forward": "input_grad", "input_grad": "forward"}.get(direction, direction)  # type: ignore[return-value]


_told: ContextVar[Wish] = ContextVar("tinytorch_algorithm", default=Wish())  # noqa: B039  it does not change


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
        For every algorithm its name and why it was chosen or passed over.
    """

    problem: ConvProblem
    direction: Direction
    algorithm: str
    reasons: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.direction} of {self.problem}: {self.algorithm}"]
        return "\n".join(lines + [f"  {name:9} {reason}" for name, reason in self.reasons])


def plan(
    problem: ConvProblem,
    direction: Direction = "forward",
    algorithm: Choice | Wish | None = None,
    *,
    tolerance: float | None = None,
    measure: bool = False,
    dtype: DTypeLike = np.float32,
) -> Plan:
    """Choose an algorithm.

    Parameters
    ----------
    problem
        The convolution.
    direction
        ``"forward"``, ``"input_grad"`` or ``"weight_grad"``.
    algorithm, tolerance, measure
        As in `use_algorithm`, whose wishes stand where these are left out.
    dtype
        float32 or float64.

    Raises
    ------
    ValueError
        When ``algorithm`` is unknown or refuses the problem, or the tolerance is not positive.

    Examples
    --------
    >>> plan(ConvProblem.parse("ic3oc8_id4ih8kd1kh3")).algorithm
    'im2col'
    """
    _check_tolerance(tolerance)
    wish = algorithm if isinstance(algorithm, Wish) else told(algorithm)
    wish = wish._replace(tolerance=tolerance or wish.tolerance, measure=measure or wish.measure)
    return _chosen(problem, direction, wish, np.dtype(dtype).itemsize)


def _chosen(problem: ConvProblem, direction: Direction, wish: Wish, itemsize: int) -> Plan:
    problem, wish = problem.trimmed, wish.of(direction)
    if wish.measure and problem.n > 0:
        _measure(problem, direction, itemsize, jit.workers())
    return _plan(problem, direction, wish, itemsize, jit.workers())


@lru_cache(maxsize=4096)
def _plan(problem: ConvProblem, direction: Direction, wish: Wish, itemsize: int, workers: int) -> Plan:
    refusals = {name: _refusal(name, problem, direction, wish) for name in ALGORITHMS}
    if wish.algorithm is not None:
        check_known(wish.algorithm)
        if refusals[wish.algorithm]:
            raise ValueError(
                f"algorithm {wish.algorithm!r} refuses the {direction} of {problem}: {refusals[wish.algorithm]}; use "
                f"one of {[name for name, reason in refusals.items() if reason is None]}, or leave algorithm out"
            )
    accepting = [name for name, refusal in refusals.items() if refusal is None]
    times, unit = _times(replace(problem, n=max(problem.n, 1)), direction, accepting, itemsize, workers)
    chosen = wish.algorithm or min(accepting, key=times.__getitem__)
    reasons = [(name, _reason(name, refusals, chosen, wish, times, unit)) for name in ALGORITHMS]
    return Plan(problem, direction, chosen, tuple(reasons))


def _refusal(name: str, problem: ConvProblem, direction: Direction, wish: Wish) -> str | None:
    """Why an algorithm may not be chosen; one that is asked for by name is not asked for its accuracy."""
    error = _ERROR.get(name, _DIRECT_ERROR)
    if wish.tolerance is not None and error > wish.tolerance and wish.algorithm is None and name in _ERROR:
        return f"its error may reach {error:g} of the largest result, and {wish.tolerance:g} is asked for"
    return ALGORITHMS[name].refuses(problem, direction)


def _times(
    problem: ConvProblem, direction: Direction, accepting: list[str], itemsize: int, workers: int
) -> tuple[dict[str, float], str]:
    """For each algorithm how long it takes, and in which unit: as measured, where it was."""
    known = measured.load(target().name, workers).get(_key(problem, direction, itemsize), {})
    if any(name in known for name in accepting):
        return {name: known.get(name, float("inf")) * 1e3 for name in accepting}, "ms measured"
    return {name: steps(problem, direction, name, itemsize, workers) / 1e3 for name in accepting}, "thousand steps"


def _reason(
    name: str, refusals: dict[str, str | None], chosen: str, wish: Wish, times: dict[str, float], unit: str
) -> str:
    if refusals[name]:
        return f"refused: {refusals[name]}"
    if name == chosen:
        return "chosen: asked for by name" if wish.algorithm else f"chosen: {times[name]:,.2f} {unit}"
    return f"accepts: {times[name]:,.2f} {unit}"


def _key(problem: ConvProblem, direction: Direction, itemsize: int) -> str:
    return f"{direction} f{8 * itemsize} {problem}"


@lru_cache(maxsize=4096)
def _measure(problem: ConvProblem, direction: Direction, itemsize: int, workers: int) -> None:
    """Time every algorithm that accepts, and that is not hopeless, on random numbers, and remember the times."""
    key = _key(problem, direction, itemsize)
    if key in measured.load(target().name, workers):
        return
    accepting = [name for name in ALGORITHMS if not ALGORITHMS[name].refuses(problem, direction)]
    estimates = {name: steps(problem, direction, name, itemsize, workers) for name in accepting}
    hopeful = [name for name in accepting if estimates[name] < 10 * min(estimates.values())]
    rng = np.random.default_rng(0)
    dtype = np.dtype(f"f{itemsize}")
    x, w, dy = (
        rng.standard_normal(shape).astype(dtype)
        for shape in (problem.input_shape, problem.weight_shape, problem.output_shape)
    )
    runs = {
        "forward": lambda name: forward(problem, x, w, algorithm=Wish(name)),
        "input_grad": lambda name: input_grad(problem, dy, w, Wish(name)),
        "weight_grad": lambda name: weight_grad(problem, x, dy, Wish(name)),
    }
    times = {name: measured.seconds(lambda name=name: runs[direction](name)) for name in hopeful}  # type: ignore[misc]
    measured.remember(target().name, workers, key, times)
    _plan.cache_clear()


def told(algorithm: Choice | None = None) -> Wish:
    """What `use_algorithm` asks for in this thread; ``algorithm``, if given, stands before it."""
    return _told.get().naming(algorithm)


def check_choice(algorithm: Choice) -> None:
    """Raise unless this names an algorithm, or algorithms by direction."""
    choice = algorithm if isinstance(algorithm, Mapping) else {DIRECTIONS[0]: algorithm}
    for direction, name in choice.items():
        if direction not in DIRECTIONS:
            raise ValueError(
                f"algorithm must be given for directions out of {list(DIRECTIONS)}, got {direction!r}"
                + _near(direction, DIRECTIONS)
            )
        check_known(name)


def check_known(name: str) -> None:
    """Raise unless there is an algorithm called ``name``."""
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {list(ALGORITHMS)}, got {name!r}{_near(name, ALGORITHMS)}")


def _near(name: object, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_tolerance(tolerance: float | None) -> None:
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}; 1e-6 is about what float32 can keep")


@contextmanager
def use_algorithm(
    name: Choice | None = None, *, tolerance: float | None = None, measure: bool = False
) -> Iterator[None]:
    """Within the block, in this thread, convolutions are computed as is asked for here.

    The choice is made when the forward runs, and its gradients keep to it.

    Parameters
    ----------
    name
        Algorithm that every convolution uses, or a dictionary of them by direction ("forward", "input_grad",
        "weight_grad"; for a transposed convolution these are its own directions); None lets the planner choose.
    tolerance
        Largest error of a float32 result, over the largest result, that is acceptable: 1e-6 keeps all algorithms out
        that do not sum the products themselves.
    measure
        Time the algorithms for every problem that is met for the first time on this machine, and choose by that.

    Raises
    ------
    ValueError
        If a name or direction is unknown, or the tolerance not positive.
    """
    if name is not None:
        check_choice(name)
    _check_tolerance(tolerance)
    token = _told.set(Wish(tolerance=tolerance, measure=measure).naming(name))
    try:
        yield
    finally:
        _told.reset(token)


def forward(
    problem: ConvProblem,
    x: np.ndarray,
    weights: np.ndarray | Weights,
    finish: Finish = PLAIN,
    algorithm: Choice | Wish | None = None,
) -> np.ndarray:
    """Output of a convolution: (n, co, …), channels last in memory."""
    chosen, weights = _algorithm(problem, "forward", algorithm, x), Weights.of(weights)
    if rehearsing():
        return _rehearsed(problem, "forward", chosen.name, x.dtype, weights)
    if problem.n == 0:
        return empty_channels_last(problem.output_shape, x.dtype)
    return chosen.forward(*_live(problem, weights, x), finish)


def input_grad(
    problem: ConvProblem,
    dy: np.ndarray,
    weights: np.ndarray | Weights,
    algorithm: Choice | Wish | None = None,
    finish: Finish = PLAIN,
) -> np.ndarray:
    """Gradient of a convolution's input: (n, ci, …), channels last in memory."""
    chosen, weights = _algorithm(problem, "input_grad", algorithm, dy), Weights.of(weights)
    if rehearsing():
        return _rehearsed(problem, "input_grad", chosen.name, dy.dtype, weights)
    if problem.n == 0:
        return empty_channels_last(problem.input_shape, dy.dtype)
    return chosen.input_grad(*_live(problem, weights, dy), finish)


def weight_grad(
    problem: ConvProblem, x: np.ndarray, dy: np.ndarray, algorithm: Choice | Wish | None = None
) -> np.ndarray:
    """Gradient of a convolution's weight: (co, ci/g, …)."""
    chosen = _algorithm(problem, "weight_grad", algorithm, dy)
    if rehearsing():
        return _rehearsed(problem, "weight_grad", chosen.name, dy.dtype)
    if problem.n == 0:
        return np.zeros(problem.weight_shape, dy.dtype)
    if problem.live_taps is None:
        return chosen.weight_grad(problem, x, dy)
    dw = np.zeros(problem.weight_shape, dy.dtype)
    dw[problem.live_taps] = chosen.weight_grad(problem.trimmed, x, dy)
    return dw


def _live(problem: ConvProblem, weights: Weights, array: np.ndarray) -> tuple[ConvProblem, np.ndarray, Weights]:
    """Problem, images and weights of those taps that may meet a pixel."""
    if problem.live_taps is None:
        return problem, array, weights
    return problem.trimmed, array, Weights(weights.array[problem.live_taps])


def _algorithm(
    problem: ConvProblem, direction: Direction, wanted: Choice | Wish | None, array: np.ndarray
) -> Algorithm:
    wish = wanted if isinstance(wanted, Wish) else told(wanted)
    name = _chosen(problem, direction, wish, array.itemsize).algorithm
    if (by := watcher.get()) is not None:
        by.convolution(problem, direction, name, array.itemsize)
    return ALGORITHMS[name]


def _rehearsed(
    problem: ConvProblem, direction: Direction, name: str, dtype: np.dtype, weights: Weights | None = None
) -> np.ndarray:
    """What the algorithm would return, without numbers in it; while it is made, what the algorithm would hold."""
    by = watcher.get()
    if by is not None and by.holding:
        demand = cost(problem, direction, name, dtype.itemsize)
        if weights is not None:
            weights.form(_no_numbers, name, direction, demand.forms)  # type: ignore[arg-type]
        held = memory.empty(demand.scratch, np.uint8)  # noqa: F841  it is let go of at the end
    if direction == "weight_grad":
        return memory.empty(problem.weight_shape, dtype)
    return empty_channels_last(problem.output_shape if direction == "forward" else problem.input_shape, dtype)


def _no_numbers(weights: Weights, algorithm: str, direction: Direction, size: int) -> tuple[np.ndarray, ...]:
    """The storage of a form of the weights: for Winograd's that of packed ones, and of those transformed from them.

    Two blocks as in reality, since what is recycled depends on their sizes.
    """
    packed = min(size, weights.array.nbytes) if algorithm.startswith("winograd") else size
    return tuple(memory.empty(part, np.uint8) for part in (packed, size - packed))
