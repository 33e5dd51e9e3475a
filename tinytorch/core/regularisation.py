"""Regularisation by chance: in training, numbers, channels, squares of pixels or whole branches are dropped.

What is kept is scaled so that its expectation stays; in inference nothing is done. Every draw comes from
`tinytorch.core.random`, in the order of the input's memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinytorch.conv.pack import pixels
from tinytorch.conv.problem import check_count
from tinytorch.core import random, reach
from tinytorch.core.autograd import record
from tinytorch.core.images import check_images, is_number
from tinytorch.core.layers import Module
from tinytorch.core.norm_ops import Rows, check_input
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import memory, norm

Change = tuple[float, float, float]  # kept numbers are scaled and shifted; the third stands for those that are dropped

_SATURATION = -1.7580993408473766  # of SELU, −λα: G. Klambauer et al., "Self-Normalizing Neural Networks", 2017

# ---- functions ------------------------------------------------------------------------------------------------------


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """In training zero each number with probability ``p`` and scale the rest by 1 / (1 − p); else return the input.

    N. Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.

    Raises
    ------
    ValueError
        If ``p`` is not in [0, 1].
    """
    return _drop_numbers("dropout", input, p, training, _zeroing(p))


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """Dropout that keeps mean 0 and variance 1: to the limit of SELU for −∞, and not to 0.

    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-Normalizing Neural Networks", 2017, section 2.

    Raises
    ------
    ValueError
        If ``p`` is not in [0, 1].
    """
    return _drop_numbers("alpha_dropout", input, p, training, _saturating(p))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels of (N, C, L), or of (C, L).

    J. Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015, section 3.2.

    Raises
    ------
    ValueError
        If ``p`` is not in [0, 1], or the input has other axes.
    """
    check_input("dropout1d", input, 2, 3)
    return _drop_channels("dropout1d", input, p, training, _zeroing(p), 3 - input.ndim)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels of (N, C, H, W); three axes are (N, C, L), as in PyTorch. See `dropout1d`."""
    check_input("dropout2d", input, 3, 4)
    return _drop_channels("dropout2d", input, p, training, _zeroing(p))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels of (N, C, D, H, W), or of (C, D, H, W). See `dropout1d`."""
    check_input("dropout3d", input, 4, 5)
    return _drop_channels("dropout3d", input, p, training, _zeroing(p), 5 - input.ndim)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of (N, C, …)."""
    if training:
        check_input("feature_alpha_dropout", input, 2)
    return _drop_channels("feature_alpha_dropout", input, p, training, _saturating(p))


def drop_block2d(input: Tensor, p: float, block_size: int, *, eps: float = 1e-6, training: bool = True) -> Tensor:
    """In training zero squares of pixels of each channel, about ``p`` of all pixels, and scale the rest.

    A square starts at each pixel from which it fits into the image with probability
    ``p · H · W / (size² · (H − size + 1) · (W − size + 1))``; what is kept is multiplied by the number of all pixels
    over that of those kept. G. Ghiasi, T.-Y. Lin, Q. V. Le, "DropBlock: A regularization method for convolutional
    networks", 2018, algorithm 1 and equation 1.

    Parameters
    ----------
    input : Tensor, shape (N, C, H, W)
    p : float
        In [0, 1]. Squares overlap, so that a little less is dropped.
    block_size : int
        Side of a square; at most the image's.
    eps : float
        Added to the number of pixels kept, which may be 0.

    Raises
    ------
    ValueError
        If ``p`` is not in [0, 1], ``block_size`` not a positive integer, or the input has other axes.
    """
    check_images("drop_block2d", input)
    check_probability(p)
    check_count("block_size", block_size, "pixels")
    if not training or p == 0 or not input.size:
        return input
    images, height, width, channels = pixels(input.array).shape
    size = min(block_size, height, width)
    starts = (height - size + 1, width - size + 1)
    seeds = _draw((images, *starts, channels)) < p * height * width / (size**2 * starts[0] * starts[1])
    keep = norm.keep_blocks(seeds, size, (images, height, width, channels))
    scale = keep.size / (eps + np.count_nonzero(keep))
    return _changed("drop_block2d", input, input.array, 1, keep, (scale, 0.0, 0.0))


def stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """In training zero the whole input, or samples of it, with probability ``p``, and scale the rest by 1 / (1 − p).

    Of a residual branch, what remains is the shortcut. G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep
    Networks with Stochastic Depth", 2016, section 3.

    Parameters
    ----------
    input : Tensor, shape (N, …)
    p : float
        In [0, 1].
    mode : {"batch", "row"}
        Whether the samples are dropped together or each by itself; the latter is also called drop path.

    Raises
    ------
    ValueError
        If ``p`` is not in [0, 1], or the mode another.
    """
    check_input("stochastic_depth", input, 1)
    check_probability(p)
    _check_mode(mode)
    if not training or p == 0 or not input.size:
        return input
    keep = _draw((len(input) if mode == "row" else 1, 1)) >= p
    rows = input.array if input.ndim > 1 else input.array[:, None]
    return _scaled("stochastic_depth", input, rows, _fastest(rows, 1), keep, _zeroing(p))


def _zeroing(p: float) -> Change:
    survival = 1 - check_probability(p)
    return (1 / survival if survival else 0.0), 0.0, 0.0


def _saturating(p: float) -> Change:
    """What keeps mean 0 and variance 1 when ``p`` of the numbers become the saturation; with all gone, 0 is left."""
    if check_probability(p) == 1:
        return 0.0, 0.0, 0.0
    scale = ((1 - p) * (1 + p * _SATURATION**2)) ** -0.5
    return scale, -scale * p * _SATURATION, scale * (1 - p) * _SATURATION


def _drop_numbers(name: str, x: Tensor, p: float, training: bool, change: Change) -> Tensor:
    check_input(name, x, 0)
    if not training or p == 0 or not x.size:
        return x
    numbers = np.atleast_1d(x.array)
    return _changed(name, x, numbers, _fastest(numbers), _draw(x.size) >= p, change)


def _drop_channels(name: str, x: Tensor, p: float, training: bool, change: Change, missing: int = 0) -> Tensor:
    """Drop channels of a batch, or of one image, which misses the axis of a batch."""
    check_input(name, x, 0)
    if not training or p == 0 or not x.size:
        return x
    batch = x.array[None] if missing else x.array
    return _scaled(name, x, batch, 1, _draw(batch.shape[:2]) >= p, change)


def _draw(shape: int | tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1), equally likely."""
    numbers: np.ndarray = random.generator().random(out=memory.empty(shape, np.float32), dtype=np.float32)
    return numbers


def _fastest(array: np.ndarray, first: int = 0) -> int:
    """The axis, from the first on, whose numbers are neighbours in memory."""
    return min(range(first, array.ndim), key=lambda axis: (array.shape[axis] == 1, array.strides[axis], -axis))


def _changed(name: str, x: Tensor, seen: np.ndarray, axis: int, keep: np.ndarray, change: Change) -> Tensor:
    """Change each number of x, seen as an array of rows along an axis, as ``keep`` says in the order of these rows."""
    scale, *rest = change

    def changed(rows: np.ndarray, shifted: bool) -> np.ndarray:
        return norm.drop(rows, keep, scale, *(rest if shifted else (0.0, 0.0)))

    return _by_row(name, x, seen, axis, changed)


def _scaled(name: str, x: Tensor, seen: np.ndarray, axis: int, keep: np.ndarray, change: Change) -> Tensor:
    """Change together the numbers of x, seen as images, that one image has at one place of the axis.

    ``keep`` has shape (images, places), or 1 for either.
    """
    scale, shift, images = np.where(keep, change[0], 0.0), np.where(keep, *change[1:]), len(seen)

    def changed(rows: np.ndarray, shifted: bool) -> np.ndarray:
        blocks = rows.reshape(images, -1, rows.shape[1])
        y = memory.empty(blocks.shape, rows.dtype)
        norm.scale_shift(blocks, np.zeros(1), scale, shift if shifted else np.zeros(1), y)
        return y

    return _by_row(name, x, seen, axis, changed)


def _by_row(
    name: str, x: Tensor, seen: np.ndarray, axis: int, changed: Callable[[np.ndarray, bool], np.ndarray]
) -> Tensor:
    """Change x, seen as an array of rows along an axis; for the gradient, which is linear, without a shift."""
    layout, own, other = Rows(seen, (axis,)), x.shape, seen.shape

    def backward(grad: np.ndarray):
        return (layout.array(changed(layout.rows(grad.reshape(other)), False), other).reshape(own),)

    backward.__qualname__ = name
    y = layout.array(changed(layout.rows(seen), True), other).reshape(own)
    return record(y, (x,), backward, reach.pointwise(x.ndim))


def check_probability(p: float) -> float:
    """Return ``p`` if it is a probability.

    Raises
    ------
    ValueError
        If it is not a number in [0, 1].
    """
    if not is_number(p) or not 0 <= p <= 1:
        raise ValueError(f"p must be a probability between 0 and 1, got {p!r}; use p=0.5 to drop half")
    return float(p)


def _check_mode(mode: str) -> None:
    if mode not in ("batch", "row"):
        raise ValueError(f"mode must be 'batch' (all samples together) or 'row' (each by itself), got {mode!r}")


# ---- layers ---------------------------------------------------------------------------------------------------------


class _Dropout(Module):
    """What the dropouts share: the probability.

    Parameters
    ----------
    p : float
        Probability in [0, 1].

    Raises
    ------
    ValueError
        If it is outside.
    """

    _function: Callable[[Tensor, float, bool], Tensor]

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability(p)

    def forward(self, input: Tensor) -> Tensor:
        """Drop in training; otherwise return ``input``."""
        return self._function(input, self.p, self.training)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training zero each number with probability ``p`` and scale the rest by 1 / (1 − p); see `dropout`."""

    _function = staticmethod(dropout)


class Dropout1d(_Dropout):
    """In training zero channels of (N, C, L) or (C, L) with probability ``p``; see `dropout1d`."""

    _function = staticmethod(dropout1d)


class Dropout2d(_Dropout):
    """In training zero channels of (N, C, H, W) with probability ``p``; see `dropout2d`."""

    _function = staticmethod(dropout2d)


class Dropout3d(_Dropout):
    """In training zero channels of (N, C, D, H, W) or (C, D, H, W) with probability ``p``; see `dropout3d`."""

    _function = staticmethod(dropout3d)


class AlphaDropout(_Dropout):
    """Dropout for networks of SELUs, which keeps mean 0 and variance 1; see `alpha_dropout`."""

    _function = staticmethod(alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels; see `feature_alpha_dropout`."""

    _function = staticmethod(feature_alpha_dropout)


class DropBlock2d(_Dropout):
    """In training zero squares of pixels, about ``p`` of all; see `drop_block2d`.

    Parameters
    ----------
    p : float
        In [0, 1].
    block_size : int
        Side of a square.
    eps : float
        Added to the number of pixels kept.
    """

    def __init__(self, p: float, block_size: int, *, eps: float = 1e-6) -> None:
        super().__init__(p)
        check_count("block_size", block_size, "pixels")
        self.block_size, self.eps = block_size, eps

    def forward(self, input: Tensor) -> Tensor:
        """Drop squares of (N, C, H, W) in training; otherwise return ``input``."""
        return drop_block2d(input, self.p, self.block_size, eps=self.eps, training=self.training)

    def extra_repr(self) -> str:
        """Settings."""
        return f"p={self.p}, block_size={self.block_size}"


class StochasticDepth(_Dropout):
    """In training zero the whole input, or samples of it, with probability ``p``; see `stochastic_depth`.

    Parameters
    ----------
    p : float
        In [0, 1].
    mode : {"batch", "row"}
    """

    def __init__(self, p: float, mode: str) -> None:
        super().__init__(p)
        _check_mode(mode)
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        """Drop in training; otherwise return ``input``."""
        return stochastic_depth(input, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        """Settings."""
        return f"p={self.p}, mode={self.mode}"


class DropPath(StochasticDepth):
    """`StochasticDepth` of single samples, under the name that it has in residual networks of other families.

    Parameters
    ----------
    p : float
        In [0, 1].
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__(p, "row")
