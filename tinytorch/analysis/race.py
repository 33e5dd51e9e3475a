"""A race of the algorithms on one convolution: how long each takes, what it does for that, and whether it is right.

Everybody computes the same random problem. Results are compared before anything is timed: with ``direct`` in double
precision, which for its part is compared with the definition, the seven loops, on some elements. Then all take turns,
round after round, so that whatever else the computer does hits all of them. A call begins with the weights as they are
and packs or transforms them, as in a training step.

The seven loops are plain Python, some million multiply-accumulates a second. Where they would take long they are timed
on a smaller convolution with the same channels and kernel, and their time is estimated by multiply-accumulates.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numba import prange
from numpy.typing import DTypeLike

from tinytorch.conv import direct, loops, planner
from tinytorch.conv.cost import Cost, cost
from tinytorch.conv.pack import channels_last, lanes_last
from tinytorch.conv.problem import Axis, ConvProblem, Direction
from tinytorch.conv.weights import Weights
from tinytorch.kernels import jit, memory
from tinytorch.kernels.target import target, tile_shape
from tinytorch.kernels.tile import numbers, tile, tile_of

LIMITS = {4: 1e-4, 8: 1e-12}  # largest error over the largest result that passes, by bytes of a number

_LOOPS = 200_000  # multiply-accumulates that the seven loops may do in a round, and to check results
_ELEMENTS = 64  # elements that they check
_BLOCK = 0.02  # seconds of a turn
_REST = 0.02  # seconds before a turn: threads spin for a while after their work

Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """What one algorithm did.

    Parameters
    ----------
    algorithm
        By its name in the planner.
    seconds
        Of a call, one number a round.
    cost
        Its work, traffic and memory.
    error
        Largest difference from the reference, over the largest result; None if there was nothing to compare.
    exact
        Whether it computes small integers without any error; None if there was nothing to compare.
    sample
        The smaller convolution from which ``seconds`` are estimated, by multiply-accumulates; None where they are
        measured.
    """

    algorithm: str
    seconds: tuple[float, ...]
    cost: Cost
    error: float | None
    exact: bool | None
    sample: ConvProblem | None = None

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Seconds: half the distance of the quartiles."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(high - low) / 2

    @property
    def saved(self) -> float:
        """Multiply-accumulates of the definition for each multiplication that is executed; ∞ where there are none."""
        return self.cost.macs / self.cost.multiplies if self.cost.multiplies else math.inf


@dataclass(frozen=True)
class Race:
    """The outcome, the fastest first.

    Parameters
    ----------
    problem, direction, dtype
        What was computed; the type by its name.
    threads
        Of the kernels. NumPy's matrix product, in ``im2col`` and ``fft``, uses as many as its library was told.
    peak
        FLOP/s of this computer's multiply-adds with so many threads, measured.
    chosen
        The algorithm that the planner would have chosen.
    entries
        Who took part; the seven loops always do.
    refused
        Who did not, and why.
    elements
        How many elements of the reference were compared with the seven loops.
    reference_error
        Their largest difference, over the largest result; None without elements.
    """

    problem: ConvProblem
    direction: Direction
    dtype: str
    threads: int
    peak: float
    chosen: str
    entries: tuple[Entry, ...]
    refused: tuple[tuple[str, str], ...]
    elements: int
    reference_error: float | None

    def of(self, algorithm: str) -> Entry:
        """What an algorithm that took part did."""
        return next(entry for entry in self.entries if entry.algorithm == algorithm)

    def speed_up(self, entry: Entry) -> float:
        """Time of the seven loops over that of an algorithm."""
        return self.of("loops").median / entry.median

    def flops(self, entry: Entry) -> float:
        """FLOP/s of the definition: two for each of its multiply-accumulates, whatever is executed."""
        return 2 * self.problem.macs / entry.median

    def bandwidth(self, entry: Entry) -> float:
        """Bytes moved a second."""
        return entry.cost.bytes / entry.median

    @property
    def wrong(self) -> tuple[str, ...]:
        """Algorithms whose results are not what they should be: the race is void."""
        limit = LIMITS[np.dtype(self.dtype).itemsize]
        return tuple(entry.algorithm for entry in self.entries if _is_wrong(entry, limit))


def _is_wrong(entry: Entry, limit: float) -> bool:
    """Who sums the products as they are makes no error with integers."""
    inexact = entry.exact is False and entry.algorithm not in planner._ERROR
    return inexact or (entry.error is not None and not entry.error <= limit)


def race(
    problem: ConvProblem,
    direction: Direction = "forward",
    algorithms: Sequence[str] | None = None,
    *,
    dtype: DTypeLike = np.float32,
    rounds: int = 7,
    say: Say = lambda text: None,
) -> Race:
    """Let algorithms compute the same convolution, and compare.

    Parameters
    ----------
    problem, direction
        The convolution.
    algorithms
        Names as in the planner; all if left out. Those that refuse the problem are listed with their reasons.
    dtype
        float32 or float64.
    rounds
        How often each is timed.
    say
        Is told what is going on.

    Raises
    ------
    ValueError
        If a name is unknown, all refuse, there are no images or no rounds, or the type is another.
    """
    dtype = np.dtype(dtype)
    names = list(dict.fromkeys([*(planner.ALGORITHMS if algorithms is None else algorithms), "loops"]))
    check(problem, direction, names, dtype, rounds)
    refused = {name: reason for name in names if (reason := _left_out(problem, direction, name, dtype))}
    running = [name for name in names if name not in refused]
    elements = _elements(problem, direction)
    say("compiling, and computing integers")
    on_integers = _Data.integers(problem, direction, dtype).errors(running, elements, say)
    say("computing the reference")
    data = _Data.random(problem, direction, dtype)
    errors = data.errors(running, elements, say)
    sample = loops_sample(problem)
    peaks, *seconds = _take_turns(_runners(data, running, sample), rounds, say)
    entries = [
        Entry(
            name, tuple(times), cost(problem, direction, name, dtype.itemsize), errors[name],
            None if on_integers[name] is None else on_integers[name] == 0,
            sample if name == "loops" and sample != problem else None,
        )
        for name, times in zip(running, seconds, strict=True)
    ]  # fmt: skip
    chosen = planner.plan(problem, direction, dtype=dtype).algorithm
    fastest_first = tuple(sorted(entries, key=lambda entry: entry.median))
    return Race(
        problem, direction, dtype.name, jit.workers(), max(peaks), chosen, fastest_first, tuple(refused.items()),
        len(elements), data.reference_error(elements),
    )  # fmt: skip


def check(problem: ConvProblem, direction: Direction, names: Sequence[str], dtype: np.dtype, rounds: int) -> None:
    """Raise where `race` would."""
    for name in names:
        planner.check_known(name)
    if problem.n < 1:
        raise ValueError(f"problem must have at least one image, got {problem}; write mb1 or more")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}; 7 give a median that one disturbance leaves alone")
    if dtype.itemsize not in LIMITS or dtype.kind != "f":
        raise ValueError(f"dtype must be float32 or float64, got {dtype}; convolutions compute in these")
    others = [name for name in names if name != "loops"]
    if others and all(planner.ALGORITHMS[name].refuses(problem, direction) for name in others):
        planner.plan(problem, direction, others[0], dtype=dtype)  # raises, with the reason


def _left_out(problem: ConvProblem, direction: Direction, name: str, dtype: np.dtype) -> str | None:
    """Why an algorithm does not take part."""
    reason = planner.ALGORITHMS[name].refuses(problem, direction)
    if reason or name == "loops":  # which run on a sample
        return reason
    scratch = cost(problem, direction, name, dtype.itemsize).scratch
    if scratch > memory.installed() // 2:
        return f"it holds {scratch / 1e9:.1f} GB of scratch, more than half of this machine's memory"
    return None


# ---- results ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Data:
    """Input, weights and output gradient of a convolution, without the one whose place the result takes, and the
    reference: the result in double precision.
    """

    problem: ConvProblem
    direction: Direction
    operands: tuple[np.ndarray, ...]
    reference: np.ndarray

    @classmethod
    def random(cls, problem: ConvProblem, direction: Direction, dtype: np.dtype) -> _Data:
        rng = np.random.default_rng(0)
        return cls._of(problem, direction, dtype, rng.standard_normal)

    @classmethod
    def integers(cls, problem: ConvProblem, direction: Direction, dtype: np.dtype) -> _Data:
        rng = np.random.default_rng(1)
        return cls._of(problem, direction, dtype, lambda shape: rng.integers(-2, 3, shape, np.int8))

    @classmethod
    def _of(cls, problem: ConvProblem, direction: Direction, dtype: np.dtype, draw: Callable[..., np.ndarray]) -> _Data:
        operands = [
            (lanes_last if index == 1 else channels_last)(draw(shape).astype(dtype, copy=False))
            if index != _RESULT[direction] else np.empty(0, dtype)
            for index, shape in enumerate(_shapes(problem))
        ]  # fmt: skip
        return cls(problem, direction, tuple(operands), _run(direct, problem, direction, _doubles(operands)))

    def call(self, algorithm: str) -> np.ndarray:
        return _run(planner.ALGORITHMS[algorithm], self.problem, self.direction, self.operands)

    def errors(self, names: Sequence[str], elements: Sequence[tuple[int, ...]], say: Say) -> dict[str, float | None]:
        """Of each algorithm the largest error, over the largest result."""
        found: dict[str, float | None] = {}
        for name in names:
            say(f"checking {name}")
            found[name] = self._error_on(elements, self.operands) if name == "loops" else self._error_of(name)
        return found

    def reference_error(self, elements: Sequence[tuple[int, ...]]) -> float | None:
        """Error of the reference, as the seven loops see it."""
        return self._error_on(elements, _doubles(self.operands))

    def _error_of(self, algorithm: str) -> float:
        return self._error(self.call(algorithm), self.reference)

    def _error_on(self, elements: Sequence[tuple[int, ...]], operands: Sequence[np.ndarray]) -> float | None:
        """Difference of the reference and the seven loops."""
        if not elements:
            return None
        by_loops = [_ELEMENT[self.direction](self.problem, index, *operands) for index in elements]
        return self._error(np.array(by_loops), np.array([self.reference[index] for index in elements]))

    def _error(self, result: np.ndarray, expected: np.ndarray) -> float:
        return float(np.abs(result - expected).max() / (np.abs(self.reference).max() or 1))


_RESULT = {"forward": 2, "input_grad": 0, "weight_grad": 1}  # which of input, weights and output is computed


def _shapes(problem: ConvProblem) -> tuple[tuple[int, ...], ...]:
    return problem.input_shape, problem.weight_shape, problem.output_shape


def _doubles(operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in operands]


def _run(algorithm, problem: ConvProblem, direction: Direction, operands) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Compute one direction, from weights that are not packed yet."""
    x, w, dy = operands
    if direction == "forward":
        return algorithm.forward(problem, x, Weights(w))
    if direction == "input_grad":
        return algorithm.input_grad(problem, dy, Weights(w))
    return algorithm.weight_grad(problem, x, dy)


# ---- the definition, on single elements ---------------------------------------------------------------------------


def _elements(problem: ConvProblem, direction: Direction) -> list[tuple[int, ...]]:
    """Random places in the result: as many as the loops can do; none if a single one takes them too long."""
    ci, co, *kernel = problem.weight_shape[1], problem.co // problem.groups, *problem.weight_shape[2:]
    windows = math.prod(-(-axis.extent // axis.stride) for axis in problem.axes)
    terms = {
        "forward": ci * math.prod(kernel),
        "input_grad": co * math.prod(kernel) * windows,
        "weight_grad": problem.n * math.prod(problem.output_shape[2:]),
    }[direction]
    shape = _shapes(problem)[_RESULT[direction]]
    count = min(_ELEMENTS, math.prod(shape), max(_LOOPS // terms, int(terms < 10 * _LOOPS)))
    chosen = np.random.default_rng(2).choice(math.prod(shape), count, replace=False)
    return [tuple(map(int, np.unravel_index(place, shape))) for place in chosen]


def _forward_element(problem: ConvProblem, index: tuple[int, ...], x, w, dy):  # type: ignore[no-untyped-def]
    """One output: the convolution whose only window is the one that it is made of."""
    n, o, *place = index
    axes, pixels = _cut(problem, [(p, p + 1) for p in place])
    channels = _group(o // (problem.co // problem.groups), problem.weight_shape[1])
    one = ConvProblem(1, problem.weight_shape[1], 1, axes)
    return loops.forward(one, x[n : n + 1, channels, *pixels], Weights(w[o : o + 1])).item()


def _input_element(problem: ConvProblem, index: tuple[int, ...], x, w, dy):  # type: ignore[no-untyped-def]
    """The gradient of one pixel: of the convolution of all windows that it is in."""
    n, c, *place = index
    windows = [_windows_over(axis, p) for axis, p in zip(problem.axes, place, strict=True)]
    if any(first >= last for first, last in windows):
        return 0.0
    axes, pixels = _cut(problem, windows)
    group, c = divmod(c, problem.weight_shape[1])
    channels = _group(group, problem.co // problem.groups)
    back = dy[n : n + 1, channels, *(slice(*window) for window in windows)]
    one = ConvProblem(1, 1, problem.co // problem.groups, axes)
    dx = loops.input_grad(one, back, Weights(w[channels, c : c + 1]))
    return dx[0, 0, *(p - pixel.start for p, pixel in zip(place, pixels, strict=True))]


def _weight_element(problem: ConvProblem, index: tuple[int, ...], x, w, dy):  # type: ignore[no-untyped-def]
    """The gradient of one tap: of the convolution that has no other."""
    o, c, *place = index
    axes, pixels = _cut(problem, [(0, axis.out) for axis in problem.axes], [(t, t + 1) for t in place])
    channel = o // (problem.co // problem.groups) * problem.weight_shape[1] + c
    one = ConvProblem(problem.n, 1, 1, axes)
    return loops.weight_grad(one, x[:, channel : channel + 1, *pixels], dy[:, o : o + 1]).item()


_ELEMENT = {"forward": _forward_element, "input_grad": _input_element, "weight_grad": _weight_element}
_Ranges = Sequence[tuple[int, int]]


def _group(group: int, channels: int) -> slice:
    return slice(group * channels, (group + 1) * channels)


def _windows_over(axis: Axis, pixel: int) -> tuple[int, int]:
    """The first window over a pixel, and the one behind the last."""
    place = pixel + axis.before
    return max(0, -((axis.extent - 1 - place) // axis.stride)), min(axis.out, place // axis.stride + 1)


def _cut(problem: ConvProblem, windows: _Ranges, taps: _Ranges = ()) -> tuple[tuple[Axis, ...], tuple[slice, ...]]:
    """The axes of a convolution of some windows and taps only, and the pixels that they cover."""
    taps = taps or [(0, axis.kernel) for axis in problem.axes]
    cuts = [_cut_axis(*each) for each in zip(problem.axes, windows, taps, strict=True)]
    return tuple(axis for axis, _ in cuts), tuple(pixels for _, pixels in cuts)


def _cut_axis(axis: Axis, windows: tuple[int, int], taps: tuple[int, int]) -> tuple[Axis, slice]:
    corner = axis.dilation * taps[0] - axis.before
    start = windows[0] * axis.stride + corner
    stop = (windows[1] - 1) * axis.stride + axis.dilation * (taps[1] - 1) - axis.before + 1
    first, last = (min(max(place, 0), axis.size) for place in (start, stop))
    before, after = (first - start, stop - last) if first < last else (stop - start, 0)  # or only padding
    return Axis(last - first, taps[1] - taps[0], axis.stride, before, after, axis.dilation), slice(first, last)


# ---- times --------------------------------------------------------------------------------------------------------


def loops_sample(problem: ConvProblem, macs: int = _LOOPS) -> ConvProblem:
    """The convolution that the seven loops are timed on: the problem itself, or one that takes them a moment.

    It has the same kernel and channels, and fewer images and windows; fewer output channels only where a single window
    is too much.
    """
    if problem.macs <= macs:
        return problem
    sample = replace(problem, n=1)
    while sample.macs > macs and max(axis.out for axis in sample.axes) > 1:
        longest = max(range(sample.dims), key=lambda index: sample.axes[index].out)
        halved = _of_windows(sample.axes[longest], sample.axes[longest].out // 2)
        sample = replace(sample, axes=(*sample.axes[:longest], halved, *sample.axes[longest + 1 :]))
    each = max(1, sample.co // sample.groups * macs // max(sample.macs, macs))
    return replace(sample, co=each * sample.groups)


def _of_windows(axis: Axis, windows: int) -> Axis:
    """An axis with so many windows, and no padding."""
    return Axis((windows - 1) * axis.stride + axis.extent, axis.kernel, axis.stride, dilation=axis.dilation)


def _runners(data: _Data, names: Sequence[str], sample: ConvProblem) -> dict[str, Callable[[], float]]:
    """What is measured in every round: FLOP/s of the peak, then seconds of a call of every algorithm."""
    dtype = data.operands[0].dtype
    small = data if sample == data.problem else _Data.random(sample, data.direction, dtype)
    scale = data.problem.macs / sample.macs
    times: dict[str, Callable[[], float]] = {name: partial(_turn, partial(data.call, name)) for name in names}
    times["loops"] = lambda: scale * _turn(partial(small.call, "loops"))
    return {"the peak": partial(peak_flops, dtype.itemsize)} | times


def _take_turns(runners: dict[str, Callable[[], float]], rounds: int, say: Say) -> list[list[float]]:
    """The figures of every runner, one a round."""
    figures: list[list[float]] = [[] for _ in runners]
    for turn in range(rounds):
        for (name, run), mine in zip(runners.items(), figures, strict=True):
            say(f"round {turn + 1} of {rounds}: {name}")
            time.sleep(_REST)
            mine.append(run())
    return figures


def _turn(call: Callable[[], object]) -> float:
    """Mean seconds of a call; the first, which wakes the threads, counts only if it fills the turn alone."""
    first = _repeated(call, 0.0)
    return first if first > _BLOCK else _repeated(call, _BLOCK)


def _repeated(call: Callable[[], object], least: float) -> float:
    calls, start, elapsed = 0, time.perf_counter(), -1.0
    while elapsed < least:
        call()
        calls += 1
        elapsed = time.perf_counter() - start
    return elapsed / calls


# ---- the peak -----------------------------------------------------------------------------------------------------

_STEPS, _TILES = 64, 64


def peak_flops(itemsize: int, rounds: int = 10) -> float:
    """FLOP/s that the multiply-adds of this computer reach, with the threads that kernels use.

    Measured: the best of some rounds of the register tile, on numbers that never leave the first-level cache.

    Parameters
    ----------
    itemsize
        Bytes of a number: 4 or 8.
    """
    which, rows, block, sizes = _busy_tile(itemsize)
    dtype = np.dtype(f"f{itemsize}")
    sums = memory.apart(jit.workers(), rows * block, dtype, memory.zeros)
    a, b = np.zeros(rows * _STEPS, dtype), np.zeros(_STEPS * block, dtype)
    bounds = np.array([-math.inf, math.inf], dtype)
    call = partial(jit.run, _multiply, which, sums, a, b, sizes, bounds, block, _TILES)
    call()
    seconds = min(_repeated(call, 0.0) for _ in range(rounds))
    return 2 * rows * block * _STEPS * _STEPS * _TILES * jit.workers() / seconds


@lru_cache
def _busy_tile(itemsize: int) -> tuple[int, int, int, np.ndarray]:
    """The largest tile: its function, rows, lanes and numbers, for ``_STEPS`` times the same ``_STEPS`` steps."""
    lanes = target().lanes(itemsize)
    rows, vectors = tile_shape(5040, 60 * lanes, itemsize)  # which all tiles cover without a rest
    block = vectors * lanes
    sizes = numbers(c_row=block, d_row=block, a_row=_STEPS, a_i=1, b_i=block, n_o=_STEPS, n_m=1, n_i=_STEPS)
    return tile_of(rows, vectors, False, np.dtype(f"f{itemsize}")), rows, block, np.array(sizes, np.int64)


@jit.parallel
def _multiply(which, sums, a, b, sizes, bounds, lanes, tiles):  # type: ignore[no-untyped-def]
    for thread in prange(sums.shape[0]):
        mine = sums[np.int64(thread)]
        tile(which, (mine, 0), (mine, 0), (a, 0), (b, 0), (mine, 0), (sizes, 0), (bounds, 0), lanes, tiles)
