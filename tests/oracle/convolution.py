"""What a convolution is, a second time: tap by tap over whole arrays, in float64, sharing no code with the library."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """A convolution written out in plain tuples, one entry per spatial axis."""

    n: int
    ci: int
    co: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def input_shape(self):
        return (self.n, self.ci, *self.size)

    @property
    def weight_shape(self):
        return (self.co, self.ci // self.groups, *self.kernel)

    @property
    def output_size(self):
        """Count the windows one by one."""
        sizes = []
        for size, kernel, stride, (low, high), dilation in zip(
            self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            last_tap = (kernel - 1) * dilation
            sizes.append(
                sum(1 for start in range(0, size + low + high, stride) if start + last_tap < size + low + high)
            )
        return tuple(sizes)

    @property
    def output_shape(self):
        return (self.n, self.co, *self.output_size)


def _tap_slices(case: Case):
    """For every tap its index and the slice of the padded input that all windows see through it."""
    for tap in itertools.product(*(range(k) for k in case.kernel)):
        slices = tuple(
            slice(t * d, t * d + (out - 1) * s + 1, s)
            for t, d, out, s in zip(tap, case.dilation, case.output_size, case.stride, strict=True)
        )
        yield tap, (slice(None), slice(None), *slices)


def _by_group(array, groups, axis):
    return np.split(array.astype(np.float64), groups, axis)


def forward(case: Case, x, w, b=None):
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *case.padding])
    parts = []
    for xg, wg in zip(_by_group(padded, case.groups, 1), _by_group(w, case.groups, 0), strict=True):
        total = 0.0
        for tap, window in _tap_slices(case):
            total = total + np.einsum("nc...,oc->no...", xg[window], wg[(slice(None), slice(None), *tap)])
        parts.append(total)
    y = np.concatenate(parts, axis=1)
    return y if b is None else y + b.astype(np.float64).reshape(1, -1, *[1] * len(case.size))


def input_grad(case: Case, dy, w):
    parts = []
    for dyg, wg in zip(_by_group(dy, case.groups, 1), _by_group(w, case.groups, 0), strict=True):
        padded = np.zeros((case.n, wg.shape[1], *(s + sum(p) for s, p in zip(case.size, case.padding, strict=True))))
        for tap, window in _tap_slices(case):
            padded[window] += np.einsum("no...,oc->nc...", dyg, wg[(slice(None), slice(None), *tap)])
        parts.append(padded)
    crop = tuple(slice(low, low + s) for s, (low, _) in zip(case.size, case.padding, strict=True))
    return np.concatenate(parts, axis=1)[(slice(None), slice(None), *crop)]


def weight_grad(case: Case, x, dy):
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *case.padding])
    parts = []
    for xg, dyg in zip(_by_group(padded, case.groups, 1), _by_group(dy, case.groups, 1), strict=True):
        grad = np.zeros((dyg.shape[1], xg.shape[1], *case.kernel))
        for tap, window in _tap_slices(case):
            axes = [0, *range(2, dyg.ndim)]
            grad[(slice(None), slice(None), *tap)] = np.tensordot(dyg, xg[window], (axes, axes))
        parts.append(grad)
    return np.concatenate(parts)
