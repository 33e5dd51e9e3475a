"""Initial weights that are computed and not drawn: identities, and filters that whiten the training images."""

from __future__ import annotations

from itertools import product

import numpy as np

from tinytorch.core.tensor import Tensor


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill filters with the identity, in place: output channel i is input channel i, the further ones are 0.

    S. Zagoruyko, N. Komodakis, "DiracNets", arXiv:1706.00388, equation 2.

    Parameters
    ----------
    tensor : Tensor, shape (out, in / groups, …)
        With one to three spatial dimensions; the middle tap becomes 1.
    groups : int
        Each group has an identity of its own.

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    ValueError
        If there are no spatial dimensions, or the groups do not divide the output channels.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(
            f"dirac_ fills filters of shape (out, in / groups, …), got {tensor.shape}; use eye for a matrix"
        )
    if groups < 1 or tensor.shape[0] % groups:
        raise ValueError(f"groups must divide the {tensor.shape[0]} output channels, got {groups}; use groups=1")
    per_group = tensor.shape[0] // groups
    middle = tuple(size // 2 for size in tensor.shape[2:])
    tensor.data[...] = 0
    for group, channel in product(range(groups), range(min(per_group, tensor.shape[1]))):
        tensor.data[(group * per_group + channel, channel, *middle)] = 1
    return tensor


def whiten_(weight: Tensor, images: Tensor, eps: float = 5e-4) -> Tensor:
    """Make filters, in place, whose outputs on these images are uncorrelated and of variance 1; and their negatives.

    The patches p under the filter have second moments C = mean(p pᵀ) = V Λ Vᵀ; the filters are the rows of
    ± (Λ + eps)^(−1/2) Vᵀ, largest eigenvalue first. With both signs no half of the information is lost in a ReLU or
    GELU that follows. The images should be normalised as in training. tysam-code/hlb-CIFAR10, and K. Jordan,
    arXiv:2404.00498, after D. Page, "How to Train Your ResNet", 2019, part 8.

    Parameters
    ----------
    weight : Tensor, shape (out, C, …)
        With out = 2 · C · taps, such as (24, 3, 2, 2).
    images : Tensor, shape (N, C, …)
        A few thousand are enough.
    eps : float
        Bounds how much directions are amplified that hardly occur.

    Returns
    -------
    Tensor
        The weight.

    Raises
    ------
    ValueError
        If the shapes do not fit, or ``eps`` is not positive.
    """
    depth = int(np.prod(weight.shape[1:]))
    if weight.ndim < 3 or weight.shape[0] != 2 * depth:
        raise ValueError(
            f"whiten_ needs filters (out, C, …) with out = 2 · C · taps, both signs of every direction, got "
            f"{weight.shape}; with 3 channels and 2×2 taps that is (24, 3, 2, 2)"
        )
    sizes = zip(images.shape[2:], weight.shape[2:], strict=False)
    if (
        images.ndim != weight.ndim
        or images.shape[1] != weight.shape[1]
        or any(a < b for a, b in sizes)
        or not len(images)
    ):
        raise ValueError(
            f"images must have shape (N, {weight.shape[1]}, …) and be as large as the filters {weight.shape}, got "
            f"{images.shape}"
        )
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}; 5e-4 is usual for images with variance 1")
    patches = _patches(images.array, weight.shape[2:])
    values, vectors = np.linalg.eigh((patches.T @ patches).astype(np.float64) / len(patches))
    filters = (vectors / np.sqrt(np.maximum(values, 0) + eps)).T[::-1].reshape(depth, *weight.shape[1:])
    weight.data[...] = np.concatenate([filters, -filters])
    return weight


def _patches(images: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """Every window of every image, as a row: (windows, C · taps)."""
    axes = tuple(range(2, images.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(images, kernel, axis=axes)
    in_rows = windows.transpose(0, *axes, 1, *range(images.ndim, windows.ndim))
    return in_rows.reshape(-1, images.shape[1] * int(np.prod(kernel)))
