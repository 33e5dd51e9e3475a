"""Depthwise convolution: every channel by itself, a vector of channels at a time.

There is little to compute for each number that is read, so nothing is copied: the outputs of an image are cut into
patches, each of which meets the same taps of the kernel. The inside of the image is one; its borders and corners,
where some taps lie outside, are others. With stride s an input gradient has such patches for s phases per axis, as in
``walk.py``. A strip (``kernels/strip.py``) computes a patch along its longer side.

Where images have a depth, each plane of outputs meets some planes of the input, one after the other; from the second on
a strip adds to what the plane of outputs holds.

Where a channel has several outputs, the input is read as if each channel were there as often.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numba import prange

from tinytorch.conv.finish import PLAIN, Finish, zeros
from tinytorch.conv.pack import channels_last, empty_channels_last, pixels, taps_in_line
from tinytorch.conv.problem import Axis, ConvProblem, Direction
from tinytorch.conv.walk import table_of
from tinytorch.conv.weights import Weights
from tinytorch.kernels import jit, memory
from tinytorch.kernels.strip import NUMBERS, strip, strip_of
from tinytorch.kernels.target import l2_bytes, target

name = "depthwise"

_MOST_VECTORS = 16  # of the channels that are computed together: few enough that a kernel's rows stay in the L1 cache


def refuses(problem: ConvProblem, direction: Direction) -> str | None:
    """Why this algorithm can't, or None."""
    if problem.groups != problem.ci or problem.groups == 1:
        return f"it needs groups of one input channel, and more than one group, not {problem.groups} of {problem.ci}"
    return None


def forward(problem: ConvProblem, x: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Output (n, co, …) of input (n, ci, …)."""
    y = empty_channels_last(problem.output_shape, x.dtype)
    plan = _plan(problem, "forward", x.itemsize, jit.workers(), finish.residual is not None)
    _run(plan, _repeated(x, problem), _taps(weights), y, finish)
    return y


def input_grad(problem: ConvProblem, dy: np.ndarray, weights: Weights, finish: Finish = PLAIN) -> np.ndarray:
    """Gradient of the input; that of a channel with several outputs is the sum of what they make of it."""
    each = empty_channels_last((problem.n, problem.co, *problem.input_shape[2:]), dy.dtype)
    alone = problem.co == problem.ci
    plan = _plan(problem, "input_grad", dy.itemsize, jit.workers(), alone and finish.residual is not None)
    _run(plan, dy, _taps(weights), each, finish if alone else PLAIN)
    if alone:
        return each
    dx = empty_channels_last(problem.input_shape, dy.dtype)
    pixels(dx)[...] = sum(_by_turn(each, problem))
    return finish.apply(dx)


def weight_grad(problem: ConvProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Gradient of the weight; where threads share the images, their sums are added in order."""
    plan = _plan(problem, "weight_grad", dy.itemsize, jit.workers())
    count = math.prod(problem.weight_shape)
    sums = memory.apart(plan.shares, count, dy.dtype, memory.zeros)
    _run(plan, _repeated(x, problem), sums, dy)
    total = sums[0, :count] if plan.shares == 1 else sums[:, :count].sum(axis=0)
    return np.moveaxis(total.reshape(*problem.weight_shape[2:], 1, problem.co), (-1, -2), (0, 1))


def _run(plan: _Plan, source: np.ndarray, weights: np.ndarray, out: np.ndarray, finish: Finish = PLAIN) -> None:
    line, out_line = (pixels(channels_last(array)).reshape(-1) for array in (source, out))
    jit.run(
        _run_strips, line, weights, finish.starts(out.shape[1], out.dtype), zeros(out.shape[1], out.dtype),
        finish.extra(out_line), out_line, plan.planes, plan.patches, plan.bands, plan.numbers, finish.bounds(out.dtype),
        plan.work,
    )  # fmt: skip


def _taps(weights: Weights) -> np.ndarray:
    """The weights as (1, taps · co)."""
    return weights.form(taps_in_line).reshape(1, -1)


def _repeated(x: np.ndarray, problem: ConvProblem) -> np.ndarray:
    """The input with each channel as often as it has outputs."""
    if problem.co == problem.ci:
        return x
    repeated = empty_channels_last((problem.n, problem.co, *x.shape[2:]), x.dtype)
    for copy in _by_turn(repeated, problem):
        copy[...] = pixels(x)
    return repeated


def _by_turn(array: np.ndarray, problem: ConvProblem) -> np.ndarray:
    """View of channels-last (n, co, …) as (co / ci, n, …, ci): first all input channels' first outputs."""
    return np.moveaxis(pixels(array).reshape(problem.n, *array.shape[2:], problem.ci, -1), -1, 0)


# ---- what meets what ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """Outputs of one axis that meet the same taps.

    ``count`` outputs from ``output`` on meet ``taps`` taps from ``tap`` on, the first of them at pixel ``place`` of
    the source; the `_Way` tells the distances.
    """

    output: int
    place: int
    tap: int
    taps: int
    count: int


@dataclass(frozen=True)
class _Way:
    """How the outputs of one axis meet the source: forward or, from output gradient to input gradient, backward."""

    axis: Axis
    backward: bool

    @property
    def sizes(self) -> tuple[int, int]:
        """Pixels of the source, and outputs."""
        return (self.axis.out, self.axis.size) if self.backward else (self.axis.size, self.axis.out)

    @property
    def steps(self) -> tuple[int, int]:
        """From one output of a run to the next: pixels of the source, and outputs."""
        return (1, self.axis.stride) if self.backward else (self.axis.stride, 1)

    @property
    def hops(self) -> tuple[int, int]:
        """From one tap that is met to the next: pixels of the source, and taps."""
        if not self.backward:
            return self.axis.dilation, 1
        taps = self.axis.stride // math.gcd(self.axis.stride, self.axis.dilation)
        return taps * self.axis.dilation // self.axis.stride, -taps

    def runs(self, first: int, last: int) -> list[_Run]:
        """Cover the outputs from ``first`` to ``last``, phase by phase."""
        _, step = self.steps
        starts = range(first, min(first + step, last))
        return [run for start in starts for run in self._phase(range(start, last, step))]

    def places(self) -> np.ndarray:
        """For every output the place of the first tap that it meets, that tap, and how many taps it meets."""
        place, output = self.steps
        table = np.empty((self.sizes[1], 3), np.int64)
        for run in self.runs(0, self.sizes[1]):
            for k in range(run.count):
                table[run.output + k * output] = run.place + k * place, run.tap, run.taps
        return table

    def _phase(self, outputs: range) -> Iterator[_Run]:
        """Cut the outputs where a tap begins or ceases to meet the source."""
        (size, _), (step, _) = self.sizes, self.steps
        met = self._met(outputs[0])
        cuts = {-((place - edge) // step) for _, place in met for edge in (0, size)}
        inner = sorted(cut for cut in cuts if 0 < cut < len(outputs))
        for start, stop in itertools.pairwise([0, *inner, len(outputs)]):
            inside = [(tap, place + start * step) for tap, place in met if 0 <= place + start * step < size]
            tap, place = inside[0] if inside else (0, 0)
            yield _Run(outputs[start], place, tap, len(inside), stop - start)

    def _met(self, output: int) -> list[tuple[int, int]]:
        """The taps and the pixels where they meet the source, in order of the pixels, as if it had no borders."""
        axis = self.axis
        if not self.backward:
            return [(tap, output * axis.stride - axis.before + tap * axis.dilation) for tap in range(axis.kernel)]
        places = [(tap, output + axis.before - tap * axis.dilation) for tap in reversed(range(axis.kernel))]
        return [(tap, place // axis.stride) for tap, place in places if place % axis.stride == 0]


@dataclass(frozen=True)
class _Image:
    """Height and width of an image, or of a plane, and its channels."""

    height: _Way
    width: _Way
    lanes: int

    @property
    def elements(self) -> tuple[int, int]:
        """Of a plane of the source, and of the outputs."""
        heights, widths = self.height.sizes, self.width.sizes
        return heights[0] * widths[0] * self.lanes, heights[1] * widths[1] * self.lanes

    def numbers(self, across: bool) -> list[int]:
        """The numbers of strips whose lines run along the width or, not ``across``, along the height."""
        line, other = (self.width, self.height) if across else (self.height, self.width)
        (a_x, a_o), (c_p, c_l), (b_m, b_o) = self._strides[:, ::-1] if across else self._strides
        named = {
            "c_l": c_l * other.steps[1], "c_p": c_p * line.steps[1], "a_l": a_o * other.steps[0], "a_x": a_x,
            "a_o": a_o * other.hops[0], "b_o": b_o * other.hops[1], "b_m": b_m * line.hops[1],
        }  # fmt: skip
        return [named[number] for number in NUMBERS]

    def patches(self, first: int, last: int, *strips_of: Callable[..., int]) -> list[dict[str, int]]:
        """Cover the rows of outputs from ``first`` to ``last``; strips are of the first tap along the depth, and of
        later ones.
        """
        runs = itertools.product(self.height.runs(first, last), self.width.runs(0, self.width.sizes[1]))
        return [self._patch(rows, columns, *strips_of) for rows, columns in runs]

    def _patch(
        self, rows: _Run, columns: _Run, strip_of: Callable[..., int], later_of: Callable[..., int]
    ) -> dict[str, int]:
        """Where rows and columns cross; its lines run along the longer side."""
        across = columns.count >= rows.count
        line, other, way = (columns, rows, self.width) if across else (rows, columns, self.height)
        starts = [(rows.place, columns.place), (rows.output, columns.output), (rows.tap, columns.tap)]
        source, out, tap = (self._strides * starts).sum(axis=1)
        row = line.taps, way.steps[0], way.hops[0]
        return {
            "source": source, "out": out, "tap": tap, "n_o": other.taps, "n_m": line.taps, "lines": other.count,
            "pixels": line.count, "which": strip_of(*row), "later": later_of(*row), "numbers": across * len(NUMBERS),
        }  # fmt: skip

    @cached_property
    def _strides(self) -> np.ndarray:
        """Elements from row to row and from pixel to pixel, of the source, the outputs, and the weights."""
        widths = (*self.width.sizes, self.width.axis.kernel)
        return np.array([(width * self.lanes, self.lanes) for width in widths])


# ---- plans --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Plan:
    """How the work of one direction is cut.

    Parameters
    ----------
    work
        Images, parts of the channels, vectors, lanes of a vector, channels, elements of a plane of the source and of
        the outputs, threads, whether they share the channels and not the pixels; planes of the source, from one tap
        along the depth to the next: planes, weights.
    planes
        For every plane of the outputs the first plane that it meets, the tap that does it, and how many do.
    patches
        One row of named integers for each; places count elements.
    bands
        Where the patches of each band of rows start, and where the last of them end.
    numbers
        The numbers of strips along the height, then of those along the width.
    shares
        Sets of sums of a weight gradient.
    """

    work: tuple[int, ...]
    planes: np.ndarray
    patches: np.ndarray
    bands: np.ndarray
    numbers: np.ndarray
    shares: int


@jit.planned(maxsize=1024)
def _plan(problem: ConvProblem, direction: Direction, itemsize: int, workers: int, adds: bool = False) -> _Plan:
    one, gradient = Axis(1, 1), direction == "weight_grad"
    axes = ((one,) * (problem.dims < 3) + problem.axes + (one,))[:3]
    depth, height, width = (_Way(axis, direction == "input_grad") for axis in axes)
    image, vector = _Image(height, width, problem.co), target().lanes(itemsize)
    vectors = -(-problem.co // vector)
    parts, planes = -(-vectors // _MOST_VECTORS), depth.places()
    by_channels = gradient and parts % workers == 0  # outputs: no, neighbouring channels share cache lines
    pieces = problem.n * len(planes) * (parts if by_channels else 1)
    bands = _bands(sum(image.elements) * itemsize // parts, pieces, workers)
    rows = [height.sizes[1] * band // bands for band in range(bands + 1)]
    strips = partial(strip_of, masked=problem.co % vector > 0, dtype=np.dtype(f"f{itemsize}"), gradient=gradient)
    several = axes[0].kernel > 1 and not gradient
    of_taps = [partial(strips, adds=adds), partial(strips, adds=adds or several)]
    patches = [image.patches(first, last, *of_taps) for first, last in itertools.pairwise(rows)]
    hop, tap_hop = depth.hops
    plane_taps = axes[1].kernel * axes[2].kernel * problem.co
    work = (
        problem.n, parts, vectors, vector, problem.co, *image.elements, workers, int(by_channels),
        depth.sizes[0], hop, tap_hop, plane_taps,
    )  # fmt: skip
    return _Plan(
        work,
        planes,
        _table(list(itertools.chain(*patches))),
        np.cumsum([0, *map(len, patches)]),
        np.array(image.numbers(across=False) + image.numbers(across=True)),
        1 if by_channels else workers,
    )


def _table(patches: list[dict[str, int]]) -> np.ndarray:
    """One row for each patch; filled by columns, since large kernels have thousands of them."""
    table = np.repeat(table_of(**patches[0]), len(patches))
    for name in patches[0]:
        table[name] = [patch[name] for patch in patches]
    return table.view(np.recarray)


def _bands(part_bytes: int, parts: int, workers: int) -> int:
    """Bands of rows that each part of an image is cut into: small enough for the cache, and enough for every thread."""
    bands = -(-part_bytes // (l2_bytes() // 4))
    return bands if parts >= 4 * workers or parts % workers == 0 else -(-bands // workers) * workers


# ---- running them -------------------------------------------------------------------------------------------------


@jit.parallel
def _run_strips(  # type: ignore[no-untyped-def]
    source, weights, starts, nothing, extra, out, planes, patches, bands, numbers, bounds, work
):
    """All directions; ``out`` is the outputs or, for a weight gradient, their gradient."""
    images, parts, vectors, width, all_lanes, source_plane, out_plane, workers, by_channels = work[:9]
    source_d, hop_d, hop_t, plane_taps = work[9:]
    for thread in prange(workers):
        worker = np.int64(thread)
        taps = weights[worker % len(weights)]
        areas = images * len(planes) * (len(bands) - 1)
        for task in range(areas * parts * worker // workers, areas * parts * (worker + 1) // workers):
            part, area = (task // areas, task % areas) if by_channels else (task % parts, task // parts)
            image, band = area // (len(bands) - 1), area % (len(bands) - 1)
            lane = vectors * part // parts * width
            lanes = min(all_lanes, vectors * (part + 1) // parts * width) - lane
            place, first_tap, met = planes[image % len(planes)]
            for step in range(max(1, met)):
                later, last = step > 0, step >= met - 1
                source_at = (image // len(planes) * source_d + place + step * hop_d) * source_plane + lane
                taps_at = (first_tap + step * hop_t) * plane_taps + lane
                for p in range(bands[band], bands[band + 1]):
                    patch = patches[p]
                    out_at = image * out_plane + patch.out + lane
                    strip(
                        patch.later if later else patch.which,
                        (out, out_at),
                        (nothing if later else starts, lane),
                        (source, source_at + patch.source),
                        (taps, taps_at + patch.tap),
                        (out if later else extra, out_at),
                        (numbers, patch.numbers),
                        (bounds, 2 * int(last)),
                        patch.n_o * int(met > 0),
                        patch.n_m,
                        lanes,
                        patch.lines,
                        patch.pixels,
                    )
