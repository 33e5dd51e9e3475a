"""The embedded data set: 1,797 handwritten digits of 8×8 pixels, enough to train a CNN in seconds, offline.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998, doi:10.24432/C50P49; CC BY 4.0 (see data/LICENSE-digits.txt).
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from tinytorch.datasets.image_data import Splits

TRAIN = 1_500
LARGEST_PIXEL = 16


def read() -> Splits:
    """Read the embedded images, scaled from 0..16 to 0..255; the first 1,500 are the training images."""
    with (files("tinytorch.datasets") / "data" / "digits.npz").open("rb") as stream:
        archive = np.load(stream, allow_pickle=False)
        images, labels = archive["images"], archive["labels"].astype(np.int64)
    images = np.rint(images[:, np.newaxis] * (255 / LARGEST_PIXEL)).astype(np.uint8)
    # Copies, so that neither split keeps the other's memory or shows its changes.
    return Splits(images[:TRAIN].copy(), labels[:TRAIN].copy(), images[TRAIN:].copy(), labels[TRAIN:].copy())
