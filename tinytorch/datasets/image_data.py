"""What every data set is once loaded: uint8 images, integer labels, class names, per-channel statistics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np


class Splits(NamedTuple):
    """The four arrays of a data set, as a format's reader returns them; shapes as in `ImageData`."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """A labelled image data set, split into training and test images.

    The arrays are fresh, contiguous and writable: each `load` reads them anew, nothing is shared.

    Attributes
    ----------
    name : str
        The name it was loaded by.
    train_images, test_images : ndarray of uint8, shape (N, C, H, W)
        Pixels 0 to 255.
    train_labels, test_labels : ndarray of int64, shape (N,)
        Indices into `classes`.
    classes : tuple of str
        The name of each label.
    mean, std : ndarray of float32, shape (C,)
        Mean and standard deviation of each channel of the training images, on the scale where 255 is 1.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]

    @cached_property
    def mean(self) -> np.ndarray:
        return (self._moments[0] / 255).astype(np.float32)

    @cached_property
    def std(self) -> np.ndarray:
        mean, mean_square = self._moments
        return (np.sqrt(mean_square - mean**2) / 255).astype(np.float32)

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean of v and of v² of each channel, from integer sums: exact, whatever the order of summing."""
        images = self.train_images
        pixels = images.size // images.shape[1]
        total = images.sum(axis=(0, 2, 3), dtype=np.int64)
        squares = np.einsum("nchw,nchw->c", images, images, dtype=np.int64)
        return total / pixels, squares / pixels

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.train_images.shape[1:]))
        train, test = len(self.train_images), len(self.test_images)
        return f"ImageData({self.name!r}: {train:,} + {test:,} images, {shape}, {len(self.classes)} classes)"
