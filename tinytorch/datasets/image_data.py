"""What every data set is once loaded: uint8 images, integer labels, class names, per-channel statistics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from tinytorch.core.dataloader import TensorDataset


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
    skipped: tuple[str, ...] = ()  # these formats are whole or an error

    @property
    def train(self) -> TensorDataset:
        return TensorDataset(self.train_images, self.train_labels)

    @property
    def test(self) -> TensorDataset:
        return TensorDataset(self.test_images, self.test_labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.train_images.shape[1:]

    @property
    def mean(self) -> np.ndarray:
        return self._statistics[0]

    @property
    def std(self) -> np.ndarray:
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return channel_statistics(self.train_images)

    @cached_property
    def digest(self) -> str:
        """A digest of all images and labels."""
        digest = blake2b(digest_size=16)
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.train_images.shape[1:]))
        train, test = len(self.train_images), len(self.test_images)
        return f"ImageData({self.name!r}: {train:,} + {test:,} images, {shape}, {len(self.classes)} classes)"


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel of uint8 images (N, C, H, W), on the scale where 255 is 1.

    From integer sums: exact, whatever the order of summing.
    """
    pixels = images.size // images.shape[1]
    mean = images.sum(axis=(0, 2, 3), dtype=np.int64) / pixels
    mean_square = np.einsum("nchw,nchw->c", images, images, dtype=np.int64) / pixels
    return (mean / 255).astype(np.float32), (np.sqrt(mean_square - mean**2) / 255).astype(np.float32)
