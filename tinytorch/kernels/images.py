"""Loops over batches of images on their way from the data set to the network."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels.jit import serial


@serial
def normalize(images: np.ndarray, mean: np.ndarray, std: np.ndarray, out: np.ndarray) -> None:
    """out[n, h, w, c] = (images[n, c, h, w] - mean[c]) / std[c]: converts and reorders in the same pass."""
    for n in range(out.shape[0]):
        for h in range(out.shape[1]):
            for w in range(out.shape[2]):
                for c in range(out.shape[3]):
                    out[n, h, w, c] = (images[n, c, h, w] - mean[c]) / std[c]
