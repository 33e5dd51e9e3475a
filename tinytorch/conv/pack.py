"""Memory layouts: where the channels of an image and the taps of a weight lie.

Images have shape (n, c, h, w) as everywhere in the library, but their memory runs n, h, w, c: all channels of one
pixel are neighbours ("channels last"), which is the order in which a convolution reads them. NumPy expresses that by
strides, at no cost. Weights have shape (co, ci, kh, kw), and their memory runs kh, kw, ci, co ("lanes last"): the
output channels, which fill a vector, are neighbours.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from tinytorch.conv.weights import Weights
from tinytorch.kernels import jit, memory, strided
from tinytorch.kernels.move import copy, transpose, transpose_of


def empty_channels_last(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised (n, c, …) array whose memory is n, …, c."""
    return _channels_second(memory.empty((shape[0], *shape[2:], shape[1]), dtype))


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same (n, c, …) array with memory n, …, c; copied only if it is not so already."""
    if pixels(array).flags.c_contiguous:
        return array
    images = empty_channels_last(array.shape, array.dtype)
    strided.assign(images, array)
    return images


def channels_first(array: np.ndarray) -> np.ndarray:
    """The same (n, c, …) array with its memory in that order; copied only if it is not so already."""
    if array.flags.c_contiguous:
        return array
    planes = memory.empty(array.shape, array.dtype)
    strided.assign(planes, array)
    return planes


def pixels(array: np.ndarray) -> np.ndarray:
    """View of (n, c, …) as (n, …, c)."""
    return array.transpose(_CHANNELS_LAST[array.ndim])


def _channels_second(array: np.ndarray) -> np.ndarray:
    return array.transpose(_CHANNELS_SECOND[array.ndim])


# By number of axes, of which an array has at most 64; looked up at every call.
_CHANNELS_LAST = {ndim: (0, *range(2, ndim), 1) for ndim in range(2, 65)}
_CHANNELS_SECOND = {ndim: (0, ndim - 1, *range(1, ndim - 1)) for ndim in range(2, 65)}


def taps(weight: np.ndarray) -> np.ndarray:
    """View of (co, ci, …) weights as (…, ci, co)."""
    return weight.transpose(*range(2, weight.ndim), 1, 0)


def lanes_last(weight: np.ndarray) -> np.ndarray:
    """The same (co, ci, …) weights with memory …, ci, co; copied only if they are not so already."""
    ordered = np.ascontiguousarray(taps(weight))
    return ordered.transpose(ordered.ndim - 1, ordered.ndim - 2, *range(ordered.ndim - 2))


def lanes_last_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 zeros for (co, ci, …) weights, lanes last, in storage that nobody has written to."""
    ordered = np.zeros((*shape[2:], *shape[1::-1]), np.float32)
    return ordered.transpose(ordered.ndim - 1, ordered.ndim - 2, *range(ordered.ndim - 2))


def taps_in_line(weights: Weights) -> np.ndarray:
    """Weights (co, ci, …) as (taps, ci, co), contiguous; a view if they are lanes last."""
    by_tap = taps(weights.array)
    return np.ascontiguousarray(by_tap.reshape(-1, *by_tap.shape[-2:]))


def lane_blocks(weights: Weights, lanes: int, groups: int) -> np.ndarray:
    """Weights in blocks of ``lanes`` output channels, as a forward convolution reads them.

    One line of (g, ⌈co/g / lanes⌉, taps, ci/g, lanes), filled up with zeros: what one tile reads is contiguous, and it
    never reads past the end.
    """
    weight = weights.form(taps_in_line)
    spatial, depth, channels = weight.shape
    packed = _blocks(channels // groups, lanes, groups, (spatial, depth), weight.dtype)
    jit.run(_lane_blocks, weight.reshape(-1), packed.reshape(-1), packed.shape, channels, groups)
    return packed.reshape(-1)


def turned_blocks(weights: Weights, lanes: int, groups: int) -> np.ndarray:
    """The same weights in blocks of ``lanes`` input channels, the taps turned by 180°, as an input gradient reads them.

    One line of (g, ⌈ci/g / lanes⌉, taps, co/g, lanes).
    """
    weight = weights.form(taps_in_line)
    spatial, depth, channels = weight.shape
    packed = _blocks(depth, lanes, groups, (spatial, channels // groups), weight.dtype)
    which = transpose_of(weight.dtype)
    jit.run(_turned_blocks, which, weight.reshape(-1), packed.reshape(-1), packed.shape, weight.shape[1:], groups)
    return packed.reshape(-1)


def _blocks(per_group: int, lanes: int, groups: int, inner: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    make = memory.zeros if per_group % lanes else memory.empty
    return make((groups * -(-per_group // lanes), *inner, lanes), dtype)


@jit.parallel
def _lane_blocks(weight, packed, shape, channels, groups):  # type: ignore[no-untyped-def]
    blocks, spatial, depth, lanes = shape
    per_group, blocks_of_group = channels // groups, blocks // groups
    for item in prange(blocks * spatial):
        b, tap = np.int64(item) // spatial, np.int64(item) % spatial
        start = b % blocks_of_group * lanes
        first, count = b // blocks_of_group * per_group + start, min(lanes, per_group - start)
        for k in range(depth):
            copy(packed, ((b * spatial + tap) * depth + k) * lanes, weight, (tap * depth + k) * channels + first, count)


@jit.parallel
def _turned_blocks(which, weight, packed, shape, sides, groups):  # type: ignore[no-untyped-def]
    blocks, spatial, depth, lanes = shape
    of_group, channels = sides
    blocks_of_group = blocks // groups
    for item in prange(blocks * spatial):
        b, tap = np.int64(item) // spatial, np.int64(item) % spatial
        group, first = b // blocks_of_group, b % blocks_of_group * lanes
        count = min(lanes, of_group - first)
        to = (b * spatial + tap) * depth * lanes
        at = ((spatial - 1 - tap) * of_group + first) * channels + group * depth
        transpose(which, (weight, at), channels, (packed, to), lanes, count, depth)
