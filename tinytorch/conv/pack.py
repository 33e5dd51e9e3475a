"""Memory layouts: where the channels of an image and the taps of a weight lie.

Images have shape (n, c, h, w) as everywhere in the library, but their memory runs n, h, w, c: all channels of one pixel are neighbours
("channels last"), which is the order in which a convolution reads them. NumPy expresses that by strides, at no cost.
Weights have shape (co, ci, kh, kw), and their memory runs kh, kw, ci, co ("lanes last"): the output channels, which fill a vector, are neighbours.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from tinytorch.kernels import jit, memory


def empty_channels_last(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised (n, c, …) array whose memory is n, …, c."""
    return _channels_second(memory.empty((shape[0], *shape[2:], shape[1]), dtype))


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same (n, c, …) array with memory n, …, c; copied only if it is not so already."""
    if pixels(array).flags.c_contiguous:
        return array
    copy = empty_channels_last(array.shape, array.dtype)
    copy[...] = array
    return copy


def pixels(array: np.ndarray) -> np.ndarray:
    """View of (n, c, …) as (n, …, c)."""
    return array.transpose(0, *range(2, array.ndim), 1)


def _channels_second(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def taps(weight: np.ndarray) -> np.ndarray:
    """View of (co, ci, …) weights as (…, ci, co)."""
    return weight.transpose(*range(2, weight.ndim), 1, 0)


def lanes_last(weight: np.ndarray) -> np.ndarray:
    """The same (co, ci, …) weights with memory …, ci, co; copied only if they are not so already."""
    ordered = np.ascontiguousarray(taps(weight))
    return ordered.transpose(ordered.ndim - 1, ordered.ndim - 2, *range(ordered.ndim - 2))


def taps_in_line(weight: np.ndarray) -> np.ndarray:
    """View of (co, ci, …) weights as (taps, ci, co), the taps of all spatial dimensions in one line."""
    spatial = int(np.prod(weight.shape[2:]))
    by_tap = taps(weight)
    if by_tap.flags.c_contiguous:
        return by_tap.reshape(spatial, *by_tap.shape[-2:])
    return weight.reshape(*weight.shape[:2], spatial).transpose(2, 1, 0)


def lane_blocks(rows: np.ndarray, lanes: int, groups: int = 1) -> np.ndarray:
    """Cut the last axis into blocks of ``lanes``, filled up with zeros, and put the blocks in front.

    (taps, k, c) becomes one line of (g, ⌈c/g / lanes⌉, taps, k, lanes): what one tile reads is then contiguous, and a tile never reads past the end.
    """
    per_group = rows.shape[-1] // groups
    blocks = -(-per_group // lanes)
    packed = memory.empty((groups * blocks, *rows.shape[:-1], lanes), rows.dtype)
    jit.run(_lane_blocks, rows, packed, per_group)
    return packed.reshape(-1)


@jit.parallel
def _lane_blocks(rows, packed, per_group):  # type: ignore[no-untyped-def]
    blocks, taps, depth, lanes = packed.shape
    for b in prange(blocks):
        group, block = b // -(-per_group // lanes), b % -(-per_group // lanes)
        first = group * per_group + block * lanes
        count = min(lanes, (group + 1) * per_group - first)
        for tap in range(taps):
            for start in range(
                0, depth, 16
            ):  # squares of 16 × lanes stay in L1 whichever way the source is laid out
                stop = min(start + 16, depth)
                if count < lanes:
                    packed[b, tap, start:stop] = 0
                if rows.strides[1] < rows.strides[2]:
                    for lane in range(count):
                        for k in range(start, stop):
                            packed[b, tap, k, lane] = rows[tap, k, first + lane]
                else:
                    for k in range(start, stop):
                        for lane in range(count):
                            packed[b, tap, k, lane] = rows[tap, k, first + lane]
