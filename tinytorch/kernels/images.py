"""Loops over batches of images on their way from the data set to the network."""

from __future__ import annotations

import numpy as np
from numba import prange

from tinytorch.kernels.jit import parallel, serial


@serial
def normalize(images: np.ndarray, mean: np.ndarray, std: np.ndarray, out: np.ndarray) -> None:
    """out[n, h, w, c] = (images[n, c, h, w] - mean[c]) / std[c]: converts and reorders in the same pass."""
    for n in range(out.shape[0]):
        for h in range(out.shape[1]):
            for w in range(out.shape[2]):
                for c in range(out.shape[3]):
                    out[n, h, w, c] = (images[n, c, h, w] - mean[c]) / std[c]


@parallel
def augment(images, flip, shift, hole, mean, std, out):  # type: ignore[no-untyped-def]
    """Normalise like `normalize`, reading every image from where the augmentation moved it.

    Of image n the output pixel (h, w) is the input's (h + shift[n, 0], w' + shift[n, 1]), with w' counted from the
    right if flip[n], reflected at the edges; in the rows and columns of hole[n] = (top, bottom, left, right) it is 0.
    """
    count, height, width, channels = out.shape
    for item in prange(count):
        n = np.int64(item)
        top, bottom, left, right = hole[n, 0], hole[n, 1], hole[n, 2], hole[n, 3]
        for h in range(height):
            row = _reflected(h + shift[n, 0], height)
            for w in range(width):
                column = _reflected((width - 1 - w if flip[n] else w) + shift[n, 1], width)
                hidden = top <= h < bottom and left <= w < right
                for c in range(channels):
                    out[n, h, w, c] = 0 if hidden else (images[n, c, row, column] - mean[c]) / std[c]


@serial
def _reflected(at, size):  # type: ignore[no-untyped-def]
    """Mirror an index at the first and the last pixel, which are not repeated."""
    at = -at if at < 0 else at
    return 2 * size - 2 - at if at >= size else at
