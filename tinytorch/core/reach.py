"""Which pixels of its inputs an operation computes a pixel of its output from: what receptive fields are made of.

An operation hands `autograd.record` a function, `Reads`, that nobody calls unless someone watches. Of each axis of an
input it says which axis of the output lies along it, and which places on it each place there is computed from: `Taps`.
Channels are not told apart: a place stands for all that an image has there.

A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial

import numpy as np

from tinytorch.conv.problem import Axis

NOWHERE = np.iinfo(np.int64).min  # the place of a tap that falls between two pixels

# Names of operations on numbers at the same place, of shapes that are broadcast.
POINTWISE = {
    "abs", "add", "astype", "bounded", "clip", "exp", "expand", "gelu", "leaky_relu", "log", "maximum", "mul", "neg",
    "power_of_number", "power_of_tensor", "sigmoid", "silu", "sqrt", "std", "sub", "tanh", "truediv",
}  # fmt: skip


class Taps:
    """Along an axis, the places that are read for each place of the output, as if both went on without end.

    Attributes
    ----------
    period : (outputs, inputs)
        So many outputs further the same places are read, so many inputs further.
    """

    period: tuple[int, int] = (1, 1)

    def places(self, outputs: np.ndarray) -> np.ndarray:
        """Places (outputs, taps); they may lie beyond the borders, in padding, or `NOWHERE`."""
        raise NotImplementedError

    def inside(self, outputs: np.ndarray) -> np.ndarray:
        """The same for outputs that there are; of padding that repeats the image, the places that it repeats."""
        return self.places(outputs)


@dataclass(frozen=True)
class Window(Taps):
    """Window ``o`` begins at ``o · stride − before``."""

    axis: Axis

    @property
    def period(self) -> tuple[int, int]:  # type: ignore[override]
        return 1, self.axis.stride

    def places(self, outputs: np.ndarray) -> np.ndarray:
        """One for every tap."""
        return outputs[:, None] * self.axis.stride - self.axis.before + np.arange(self.axis.kernel) * self.axis.dilation


@dataclass(frozen=True)
class Spread(Taps):
    """The transpose of a `Window`: place p reaches outputs p · stride − before + i · dilation for every tap i."""

    axis: Axis

    @property
    def period(self) -> tuple[int, int]:  # type: ignore[override]
        return self.axis.stride, 1

    def places(self, outputs: np.ndarray) -> np.ndarray:
        """One for every tap that reaches the output."""
        steps = outputs[:, None] + self.axis.before - np.arange(self.axis.kernel) * self.axis.dilation
        return np.where(steps % self.axis.stride == 0, steps // self.axis.stride, NOWHERE)


@dataclass(frozen=True)
class Border(Taps):
    """``before`` more pixels in front of ``size``, and others behind, which repeat the image as the mode says.

    Seen without end, what lies beyond the borders stays there.
    """

    before: int
    size: int
    mode: str

    def places(self, outputs: np.ndarray) -> np.ndarray:
        """The same pixel, counted from where the image begins."""
        return outputs[:, None] - self.before

    def inside(self, outputs: np.ndarray) -> np.ndarray:
        """The pixel of the image that is repeated there."""
        places, last = self.places(outputs), self.size - 1
        if self.mode == "reflect":
            return last - np.abs(last - np.abs(places))
        return np.clip(places, 0, last) if self.mode == "replicate" else places % self.size


@dataclass(frozen=True)
class Adaptive(Taps):
    """Window i of ``out`` reaches from ⌊i · size / out⌋ to ⌈(i + 1) · size / out⌉."""

    size: int
    out: int

    @property
    def period(self) -> tuple[int, int]:  # type: ignore[override]
        common = math.gcd(self.size, self.out)
        return self.out // common, self.size // common

    def places(self, outputs: np.ndarray) -> np.ndarray:
        """As many as the largest window has."""
        first, end = outputs * self.size // self.out, -(-(outputs + 1) * self.size // self.out)
        places = first[:, None] + np.arange((end - first).max())
        return np.where(places < end[:, None], places, NOWHERE)


@dataclass(frozen=True, eq=False)
class Band(Taps):
    """Weighted sums of neighbours; weights that are 0 read nothing.

    Without end, the middle of the band goes on: at the borders the weights may be others.

    Parameters
    ----------
    first, counts, weights
        As in `kernels.resample.Band`.
    step
        Input pixels from one output pixel to the next.
    """

    first: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    step: float

    @cached_property
    def period(self) -> tuple[int, int]:  # type: ignore[override]
        out, step = len(self.first), Fraction(self.step).limit_denominator(len(self.first))
        return (step.denominator, step.numerator) if step else (out, 0)

    @cached_property
    def _rows(self) -> np.ndarray:
        taps = np.arange(self.weights.shape[1])
        read = (taps < self.counts[:, None]) & (self.weights != 0)
        return np.where(read, self.first[:, None] + taps, NOWHERE)

    def places(self, outputs: np.ndarray) -> np.ndarray:
        """Those of the output nearest to the middle that reads alike, moved on."""
        outs, ins = self.period
        turns = (len(self.first) - outs) // 2 // outs
        turn, phase = np.divmod(outputs, outs)
        rows = self._rows[turns * outs + phase]
        return np.where(rows == NOWHERE, NOWHERE, rows + ((turn - turns) * ins)[:, None])

    def inside(self, outputs: np.ndarray) -> np.ndarray:
        """Those of the outputs themselves."""
        return self._rows[outputs]


SAME = Window(Axis(1, 1))

# For each axis of an input: the axis of the output along it, if any, and the places that are read, or None if these
# are unknown. An axis that is not mentioned is read whole for every element of the output.
Moves = Mapping[int, tuple[int | None, Taps | None]]


@dataclass(frozen=True)
class Reshaped:
    """Other axes for the same elements in C order."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def moved(self, axis: int, inner: int, places: int) -> tuple[int, int] | None:
        """Where places are that lay along an axis, ``inner`` elements apart; None if on no axis, or on several."""
        if places == 1:  # many axes may be of length 1: what counts is their order
            new = axis + len(self.after) - len(self.before)
            return (new, 1) if new >= 0 and self.after[new] == 1 else None
        apart = inner * math.prod(self.before[axis + 1 :])
        for new, length in enumerate(self.after):
            beyond = math.prod(self.after[new + 1 :])
            if length >= places and apart % beyond == 0 and beyond * length % (apart * places) == 0:
                return new, apart // beyond
        return None


Step = Moves | Reshaped
Reads = Callable[[int], Step | tuple[Step, Step] | None]  # of the input with this number; None if that is unknown


# ---- what operations say --------------------------------------------------------------------------------------------


def windows(axes: Sequence[Axis]) -> Reads:
    """Of a convolution."""
    return partial(_slide, Window, tuple(axes), (0,))


def spread(axes: Sequence[Axis]) -> Reads:
    """Of a transposed convolution, described by the axes of the convolution that it is transposed to."""
    return partial(_slide, Spread, tuple(axes), (0,))


def pooling(axes: Sequence[Axis]) -> Reads:
    """Of windows that leave channels apart."""
    return partial(_slide, Window, tuple(axes), (0, 1))


def unpooling(axes: Sequence[Axis]) -> Reads:
    """Of values that are put back to somewhere in their windows: all that may be there."""
    return partial(_slide, Spread, tuple(axes), (0, 1))


def _slide(kind: Callable[[Axis], Taps], axes: tuple[Axis, ...], kept: tuple[int, ...], which: int) -> Moves | None:
    same = {axis: (axis, SAME) for axis in kept}
    return None if which else same | {2 + i: (2 + i, kind(axis)) for i, axis in enumerate(axes)}  # type: ignore[return-value]


def adaptive(sizes: Sequence[int], outs: Sequence[int]) -> Reads:
    """Of an adaptive pooling; to one pixel, of the whole axis."""

    def reads(which: int) -> Moves:
        axes = enumerate(zip(sizes, outs, strict=True), start=2)
        return {0: (0, SAME), 1: (1, SAME)} | {a: (a, Adaptive(n, out)) for a, (n, out) in axes if out > 1 or n == 1}

    return reads


def bands(taps: Sequence[Taps]) -> Reads:
    """Of a map that is separable into one along each spatial axis."""
    return lambda which: {0: (0, SAME), 1: (1, SAME)} | {2 + i: (2 + i, along) for i, along in enumerate(taps)}


def pixels_of_blocks(ndim: int, block: int) -> Reads:
    """Of a pixel shuffle: along the last two axes each pixel becomes a block."""
    return partial(_last_two, ndim, Spread(Axis(block, block, block)))


def blocks_of_pixels(ndim: int, block: int) -> Reads:
    """Of the inverse: along the last two axes each block becomes a pixel."""
    return partial(_last_two, ndim, Window(Axis(block, block, block)))


def _last_two(ndim: int, taps: Taps, which: int) -> Moves:
    return {axis: (axis, taps if axis >= ndim - 2 else SAME) for axis in range(ndim)}


def columns(axes: Sequence[Axis], shape: tuple[int, ...]) -> Reads:
    """Of windows over images with their padding, which become columns (n, numbers, windows) of this shape."""
    return partial(_columns, Window, tuple(axes), shape)


def uncolumns(axes: Sequence[Axis], shape: tuple[int, ...]) -> Reads:
    """Of columns that become images with their padding again."""
    return partial(_columns, Spread, tuple(axes), shape)


def _columns(
    kind: Callable[[Axis], Taps], axes: tuple[Axis, ...], shape: tuple[int, ...], which: int
) -> tuple[Step, Step]:
    apart = (*shape[:2], *(axis.out for axis in axes))
    slid = {0: (0, SAME)} | {2 + i: (2 + i, kind(replace(axis, before=0))) for i, axis in enumerate(axes)}
    return (slid, Reshaped(apart, shape)) if kind is Window else (Reshaped(shape, apart), slid)


def padded(widths: Sequence[tuple[int, int]], shape: Sequence[int], mode: str = "constant") -> Reads:
    """Of a border, (before, after) pixels for every axis."""
    return partial(_padded, widths, shape, mode)


def _padded(widths: Sequence[tuple[int, int]], shape: Sequence[int], mode: str, which: int) -> Moves:
    def along(size: int, before: int) -> Taps:
        return Window(Axis(size, 1, before=before)) if mode == "constant" else Border(before, size, mode)

    axes = enumerate(zip(shape, widths, strict=True))
    return {axis: (axis, SAME if not any(pair) else along(size, pair[0])) for axis, (size, pair) in axes}


def reduced(ndim: int, dim: int | Iterable[int] | None, keepdim: bool) -> Reads:
    """Of what is computed from whole axes; with ``keepdim`` they may also be as long as before."""
    return partial(_reduced, ndim, dim, keepdim)


def _reduced(ndim: int, dim: int | Iterable[int] | None, keepdim: bool, which: int) -> Moves | None:
    dims = range(ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    gone = {axis % ndim for axis in dims}
    kept = [axis for axis in range(ndim) if axis not in gone]
    return None if which else {axis: (axis if keepdim else new, SAME) for new, axis in enumerate(kept)}


def pointwise(ndim: int) -> Reads:
    """Of what leaves every number in its place."""
    return partial(_reduced, ndim, (), True)


def permuted(order: Sequence[int]) -> Reads:
    """Of axis order[i] as axis i."""
    return lambda which: {axis % len(order): (new, SAME) for new, axis in enumerate(order)}


def swapped(ndim: int, dim0: int, dim1: int) -> Reads:
    """Of two axes that change places."""
    return partial(_swapped, ndim, dim0, dim1)


def _swapped(ndim: int, dim0: int, dim1: int, which: int) -> Moves:
    order = list(range(ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return {axis: (new, SAME) for new, axis in enumerate(order)}


def reshaped(before: tuple[int, ...], after: tuple[int, ...]) -> Reads:
    """Of the same elements in other axes."""
    return lambda which: Reshaped(before, after)


def sliced(key: Sequence[int | slice | None], shape: Sequence[int]) -> Reads:
    """Of an index of integers, slices and new axes, an entry for each axis."""
    return partial(_sliced, key, shape)


def _sliced(key: Sequence[int | slice | None], shape: Sequence[int], which: int) -> Moves:
    moves: dict[int, tuple[int | None, Taps | None]] = {}
    new = 0
    for entry in key:
        axis = len(moves)
        if isinstance(entry, slice):
            start, _, step = entry.indices(shape[axis])
            moves[axis] = new, Window(Axis(shape[axis], 1, step, -start)) if (start, step) != (0, 1) else SAME
        elif entry is not None:
            moves[axis] = None, Window(Axis(shape[axis], 1, before=-(entry % shape[axis])))
        new += entry is None or isinstance(entry, slice)
    return moves


def joined(ndim: int, dim: int) -> Reads:
    """Of tensors that are joined along an axis: where they come to lie on it is not followed."""
    return lambda which: {axis: (axis, None if axis == dim % ndim else SAME) for axis in range(ndim)}


def stacked(ndim: int, dim: int) -> Reads:
    """Of tensors that are joined along a new axis."""
    return lambda which: {axis: (axis + (axis >= dim % (ndim + 1)), SAME) for axis in range(ndim)}


def product(left: int, right: int) -> Reads:
    """Of a matrix product of tensors with so many axes."""
    return partial(_product, (left, right))


def _product(ndims: tuple[int, int], which: int) -> Moves:
    """The left factor's columns and the right one's rows are read whole; stacks are aligned at the right."""
    ndim, most = ndims[which], max(*ndims, 2)
    if ndim == 1:
        return {}
    kept = [*range(ndim - 2), ndim - 1 if which else ndim - 2]
    return {axis: (axis + most - ndim - (which and ndims[0] == 1 and axis == ndim - 1), SAME) for axis in kept}
