"""Multiply-accumulates of layers, counted one by one in plain Python. No library code.

A layer is described by the shape that goes in, (N, C, …spatial), and by its options as PyTorch names them; one number
stands for every spatial axis, and a padding may differ in front and behind: ``((top, bottom), (left, right))``.

Each output element of a convolution is walked through, tap by tap, and each tap is asked whether it meets a pixel.
Pixels are walked over once only: all images, and all pairs of an input and an output channel, see the same ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, product, takewhile
from typing import Any, NamedTuple

Sizes = int | tuple[int, ...]
Padding = int | tuple[int, ...] | tuple[tuple[int, int], ...]


class Macs(NamedTuple):
    """How often a layer multiplies and adds: at every tap, and at those that do not lie on padding."""

    every: int
    inside: int


def total(layers: Iterable[Conv | ConvTranspose | Pool | Linear]) -> Macs:
    """Sum of what the layers multiply; a pool multiplies nothing."""
    counts = [layer.macs for layer in layers if not isinstance(layer, Pool)]
    return Macs(sum(each.every for each in counts), sum(each.inside for each in counts))


@dataclass(frozen=True)
class Conv:
    """A convolution with one to three spatial axes."""

    shape: tuple[int, ...]
    out_channels: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Padding = 0
    dilation: Sizes = 1
    groups: int = 1

    @property
    def axes(self) -> list[Axis]:
        return _axes(self.shape, self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.shape[0], self.out_channels, *(axis.windows for axis in self.axes))

    @property
    def macs(self) -> Macs:
        sizes = [axis.size for axis in self.axes]
        taps = _walk(self.axes, [axis.windows for axis in self.axes], sizes)
        return _times(self.shape[0] * _pairs(self.shape[1], self.out_channels, self.groups), taps)


@dataclass(frozen=True)
class ConvTranspose:
    """A transposed convolution: every pixel of the input is spread over the output, and its borders are cut off.

    Taps on padding are those whose product is cut off with the borders.
    """

    shape: tuple[int, ...]
    out_channels: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Padding = 0
    output_padding: Sizes = 0
    groups: int = 1
    dilation: Sizes = 1

    @property
    def axes(self) -> list[Axis]:
        return _axes(self.shape, self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The border around what is spread is cut off, and the output goes on for `output_padding` pixels."""
        extra = _each(self.output_padding, len(self.axes))
        last = [axis.place(axis.size - 1, axis.kernel - 1) for axis in self.axes]
        sizes = [1 + pixel - axis.after + more for axis, pixel, more in zip(self.axes, last, extra, strict=True)]
        return (self.shape[0], self.out_channels, *sizes)

    @property
    def macs(self) -> Macs:
        taps = _walk(self.axes, [axis.size for axis in self.axes], self.output_shape[2:])
        return _times(self.shape[0] * _pairs(self.shape[1], self.out_channels, self.groups), taps)


@dataclass(frozen=True)
class Pool:
    """A pooling, which looks at pixels and multiplies none of them."""

    shape: tuple[int, ...]
    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Padding = 0
    dilation: Sizes = 1
    ceil_mode: bool = False

    @property
    def axes(self) -> list[Axis]:
        stride = self.kernel_size if self.stride is None else self.stride
        return _axes(self.shape, self.kernel_size, stride, self.padding, self.dilation)

    @property
    def output_shape(self) -> tuple[int, ...]:
        sizes = [axis.begun_windows if self.ceil_mode else axis.windows for axis in self.axes]
        return (*self.shape[:2], *sizes)

    @property
    def looks(self) -> Macs:
        """Taps, in place of multiply-accumulates: all, and those that meet a pixel."""
        taps = _walk(self.axes, self.output_shape[2:], [axis.size for axis in self.axes])
        return _times(self.shape[0] * self.shape[1], taps)


@dataclass(frozen=True)
class Linear:
    """A linear layer over the last axis."""

    shape: tuple[int, ...]
    out_features: int

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.shape[:-1], self.out_features)

    @property
    def macs(self) -> Macs:
        rows = sum(1 for _ in product(*map(range, self.shape[:-1])))
        products = rows * _pairs(self.shape[-1], self.out_features, groups=1)
        return Macs(products, products)


@dataclass(frozen=True)
class Axis:
    """A window sliding along one spatial axis."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int

    def place(self, window: int, tap: int) -> int:
        """The pixel that a tap of a window meets; those in front of the image are negative."""
        return window * self.stride + tap * self.dilation - self.before

    @property
    def windows(self) -> int:
        """Slide until the last tap leaves the padding."""
        return _number(self.place(window, self.kernel - 1) < self.size + self.after for window in count())

    @property
    def begun_windows(self) -> int:
        """With ceil_mode one more, if the last would leave pixels over, and if it begins before the padding behind."""
        all_seen = self.place(self.windows - 1, self.kernel - 1) == self.size + self.after - 1
        return self.windows + (not all_seen and self.place(self.windows, 0) < self.size)


def _number(conditions: Iterator[bool]) -> int:
    """How many hold before the first that does not."""
    return sum(takewhile(bool, conditions))


def _axes(shape: tuple[int, ...], kernel_size: Sizes, stride: Sizes, padding: Padding, dilation: Sizes) -> list[Axis]:
    dims = len(shape) - 2
    pads = [pad if isinstance(pad, tuple) else (pad, pad) for pad in _each(padding, dims)]
    kernels, strides, dilations = (_each(option, dims) for option in (kernel_size, stride, dilation))
    rows = zip(shape[2:], kernels, strides, pads, dilations, strict=True)
    return [Axis(size, kernel, step, pad[0], pad[1], gap) for size, kernel, step, pad, gap in rows]


def _each(option: Any, dims: int) -> tuple[Any, ...]:
    return option if isinstance(option, tuple) else (option,) * dims


def _walk(axes: list[Axis], windows: Iterable[int], limits: Iterable[int]) -> Macs:
    """Go with every window through all of its taps; inside are those whose pixel lies in 0 … limit - 1."""
    limits = tuple(limits)
    every = inside = 0
    for window in product(*map(range, windows)):
        for tap in product(*(range(axis.kernel) for axis in axes)):
            every += 1
            inside += all(
                0 <= axis.place(w, t) < limit for axis, w, t, limit in zip(axes, window, tap, limits, strict=True)
            )
    return Macs(every, inside)


def _pairs(inputs: int, outputs: int, groups: int) -> int:
    """Pairs of an input and an output channel that belong to one group."""
    group_sizes = Counter(channel // (inputs // groups) for channel in range(inputs))
    return sum(group_sizes[channel // (outputs // groups)] for channel in range(outputs))


def _times(factor: int, taps: Macs) -> Macs:
    return Macs(factor * taps.every, factor * taps.inside)
