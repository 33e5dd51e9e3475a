"""Which pixels of its input a pixel of an operation's output is computed from, axis by axis.

The values are intervals of places, which may lie beyond the borders, in padding; a receptive field is such intervals,
followed from an output back to the image. W. Luo et al., "Understanding the Effective Receptive Field in Deep
Convolutional Neural Networks", 2016; A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural
Networks", 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinytorch.conv.problem import Axis

Interval = tuple[int, int]  # first and last place
Reads = Sequence[Callable[[Interval], Interval]]  # for each spatial axis, from outputs to the inputs that they read


def windows(axes: Sequence[Axis]) -> Reads:
    """Of a convolution, or a pooling: window ``o`` begins at ``o · stride − before``."""
    return [_Window(axis) for axis in axes]


def spread(axes: Sequence[Axis]) -> Reads:
    """Of a transposed convolution, described by the axes of the convolution that it is transposed to."""
    return [_Spread(axis) for axis in axes]


class _Window:
    def __init__(self, axis: Axis) -> None:
        self.axis = axis

    def __call__(self, places: Interval) -> Interval:
        first, last = (place * self.axis.stride - self.axis.before for place in places)
        return first, last + self.axis.extent - 1


class _Spread:
    """Input p reaches outputs p · stride − before + i · dilation for every tap i."""

    def __init__(self, axis: Axis) -> None:
        self.axis = axis

    def __call__(self, places: Interval) -> Interval:
        first, last = (place + self.axis.before for place in places)
        return -(-(first - self.axis.extent + 1) // self.axis.stride), last // self.axis.stride
