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
def augment(images, flip, shift, reflect, hole, mean, std, out):  # type: ignore[no-untyped-def]
    """Normalise like `normalize`, reading every image from where the augmentation moved it.

    Of image n the output pixel (h, w) is the input's (h + shift[n, 0], w' + shift[n, 1]), with w' counted from the
    right if flip[n], reflected at the edges or, unless ``reflect``, 0 outside; in the rows and columns of hole[n] =
    (top, bottom, left, right) it is the mean.
    """
    count, height, width, channels = out.shape
    for item in prange(count):
        n = np.int64(item)
        top, bottom, left, right = hole[n, 0], hole[n, 1], hole[n, 2], hole[n, 3]
        for h in range(height):
            y = h + shift[n, 0]
            for w in range(width):
                x = (width - 1 - w if flip[n] else w) + shift[n, 1]
                hidden = top <= h < bottom and left <= w < right
                seen = reflect or (0 <= y < height and 0 <= x < width)
                row, column = _reflected(y, height), _reflected(x, width)
                for c in range(channels):
                    if hidden:
                        out[n, h, w, c] = 0
                    elif seen:
                        out[n, h, w, c] = (images[n, c, row, column] - mean[c]) / std[c]
                    else:
                        out[n, h, w, c] = (0 - mean[c]) / std[c]


@serial
def _reflected(at, size):  # type: ignore[no-untyped-def]
    """Mirror an index at the first and the last pixel, which are not repeated."""
    at = -at if at < 0 else at
    return 2 * size - 2 - at if at >= size else at
