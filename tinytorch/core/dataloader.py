"""From arrays to shuffled, augmented batches: data sets, whole-batch transforms, and the loader.

Everything random about batch i of epoch e is a function of (seed, e, i), so that neither the prefetch thread
nor a resumed run can change it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from tinytorch.core import random
from tinytorch.core.tensor import Tensor, as_array
from tinytorch.kernels import images as kernels
from tinytorch.kernels import jit, memory, watch

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Batch = tuple[Tensor, ...]


class Dataset:
    """Base of data sets: `len(dataset)` items, each a tuple such as (image, label), by `dataset[i]`."""

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} needs __len__; return the number of items")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs __getitem__; return one item as a tuple")

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Collect the items of a batch into one array for each field.

        Raises
        ------
        ValueError
            If the items differ in shape or in their number of fields.
        """
        items = [self[int(i)] for i in indices]
        rows = [item if isinstance(item, tuple | list) else (item,) for item in items]
        try:
            return tuple(np.stack([as_array(x) for x in field]) for field in zip(*rows, strict=True))
        except ValueError as error:
            raise ValueError(
                f"the items of a batch must agree in shape and number of fields ({error}); resize or pad the "
                "images in __getitem__"
            ) from error


class TensorDataset(Dataset):
    """Arrays held in memory, item i being the i-th entry of each.

    Parameters
    ----------
    *arrays : array_like or Tensor
        Of equal lengths: for example images (N, C, H, W) in uint8 and labels (N,).

    Raises
    ------
    ValueError
        If there is no array or the lengths differ.
    """

    def __init__(self, *arrays: Any) -> None:
        self.arrays = tuple(as_array(array) for array in arrays)
        lengths = [array.shape[0] if array.ndim else None for array in self.arrays]
        if not lengths or None in lengths or len(set(lengths)) != 1:
            raise ValueError(
                f"TensorDataset needs arrays of one length, got lengths {lengths}; item i is the i-th of each"
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        return tuple(array[index] for array in self.arrays)

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Collect a batch with one indexing operation for each array."""
        return tuple(array[indices] for array in self.arrays)


class Subset(Dataset):
    """Some items of a data set, in an order of their own.

    Parameters
    ----------
    dataset : Dataset
    indices : array_like of int
        Item i is the ``indices[i]``-th of the data set.
    """

    def __init__(self, dataset: Any, indices: Any) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Collect a batch as the data set does."""
        return _gather_of(self.dataset)(self.indices[indices])


def random_split(dataset: Any, lengths: Sequence[float], seed: int | None = None) -> list[Subset]:
    """Split a data set at random into parts without common items.

    Parameters
    ----------
    dataset : Dataset
    lengths : sequence of int, or of float
        Items of each part, which add up to all; or shares that add up to 1, the last part getting what rounding leaves.
    seed : int, optional
        Drawn from the library's generator if not given.

    Raises
    ------
    ValueError
        If a length is negative, or they don't add up.
    """
    total = len(dataset)
    if lengths and any(isinstance(length, float) for length in lengths) and abs(sum(lengths) - 1) < 1e-9:
        counts = [int(share * total + 1e-9) for share in lengths[:-1]]
        counts.append(total - sum(counts))
    else:
        counts = [int(length) for length in lengths]
    if sum(counts) != total or min(counts, default=0) < 0 or min(lengths, default=0) < 0:
        raise ValueError(
            f"lengths must be shares that add up to 1, or numbers of items that add up to {total}, got {list(lengths)}"
        )
    drawn = int(random.generator().integers(2**32)) if seed is None else _at_least("seed", seed, 0)
    order = np.random.default_rng([drawn, 0, 0, 2]).permutation(total)  # apart from the loader's order of an epoch
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(counts)[:-1])]


def _gather_of(dataset: Any) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """How batches of a data set are collected, also of one that only has items."""
    return dataset.gather if isinstance(dataset, Dataset) else partial(Dataset.gather, dataset)


class BatchGenerator(np.random.Generator):
    """The random numbers of one batch, which follow from its place alone; it also tells the place.

    Parameters
    ----------
    seed, epoch, batch : int
        Of the loader, and counted from 0.
    indices : ndarray of int
        Numbers of the batch's items in the data set.
    """

    def __init__(self, seed: int, epoch: int, batch: int, indices: np.ndarray) -> None:
        super().__init__(np.random.PCG64([seed, epoch, batch]))
        self.seed = seed
        self.epoch = epoch
        self.indices = indices


class DataLoader:
    """Iterate over a data set in batches.

    Each `for` loop over the loader is the next epoch. A batch is a tuple of Tensors: uint8 images become
    float32 (without scaling; that is the business of `Normalize`), integer labels int64.

    Parameters
    ----------
    dataset : Dataset
    batch_size : int
        Items in a batch; the last one may be smaller.
    shuffle : bool
        Whether to visit the items in a new random order each epoch.
    drop_last : bool
        Whether to leave out a smaller last batch.
    seed : int, optional
        Of order and transforms; drawn from the library's generator if not given.
    transform : callable, optional
        `transform(images, rng)` maps the first field of a whole batch, an array, to another; rng is a
        `BatchGenerator`.
    prefetch : int
        Batches that a background thread prepares ahead; 0 prepares each when it is asked for.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
        transform: Transform | None = None,
        prefetch: int = 2,
    ) -> None:
        self.dataset = dataset
        self._gather = _gather_of(dataset)
        self.batch_size = _at_least("batch_size", batch_size, 1)
        self.shuffle = shuffle
        self.drop_last = drop_last
        drawn = int(random.generator().integers(2**32)) if seed is None else seed
        self.seed = _at_least("seed", drawn, 0)
        self.transform = transform
        self.prefetch = _at_least("prefetch", prefetch, 0)
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Make the next loop be this epoch, as when a run resumes."""
        self.epoch = _at_least("epoch", epoch, 0)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._batches(self.epoch)
        self.epoch += 1
        return self._watched(_prefetched(batches, self.prefetch) if self.prefetch else batches)

    def _watched(self, batches: Generator[Batch, None, None]) -> Iterator[Batch]:
        """The same batches; who watches is told of every time that the loop waits for one."""
        with closing(batches):
            while (batch := watch.waiting(self, partial(next, batches, None))) is not None:
                yield batch

    def order(self, epoch: int) -> np.ndarray:
        """Return the item numbers in the order in which an epoch visits them."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        # NumPy pads a short seed with zeros: the last 1 keeps the order apart from the seeds of the batches.
        return np.random.default_rng([self.seed, epoch, 0, 1]).permutation(len(self.dataset))

    def _batches(self, epoch: int) -> Generator[Batch, None, None]:
        order = self.order(epoch)
        for i in range(len(self)):
            indices = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield self._batch(indices, BatchGenerator(self.seed, epoch, i, indices))

    def _batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        first, *others = self._gather(indices)
        if self.transform is not None:
            first = self.transform(first, rng)
        if first.dtype == np.uint8:
            first = first.astype(np.float32)
        return tuple(Tensor.wrap(_widened(field)) for field in (first, *others))


def _widened(array: np.ndarray) -> np.ndarray:
    """Labels of any integer type as int64."""
    return array.astype(np.int64, copy=False) if array.dtype.kind in "iu" else array


def _at_least(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def _prefetched(batches: Iterator[Batch], depth: int) -> Generator[Batch, None, None]:
    """Run an iterator in a background thread that stays at most `depth` items ahead.

    The thread takes a permit for each item it prepares, and the consumer returns the permit with the item.
    Leaving the loop early sets `stop` and returns one more, so that a waiting thread wakes up and ends.
    """
    ready: queue.SimpleQueue[tuple[Batch | None, BaseException | None]] = queue.SimpleQueue()
    permits = threading.Semaphore(depth)
    stop = threading.Event()

    def work() -> None:
        try:
            while permits.acquire() and not stop.is_set():
                ready.put((next(batches, None), None))
        except BaseException as error:  # whatever it is, the consumer is the one to see it
            ready.put((None, error))

    thread = threading.Thread(target=work, name="tinytorch-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error  # with the traceback of the thread
            if batch is None:
                return
            permits.release()
            yield batch
    finally:
        stop.set()
        permits.release()
        thread.join()


# ---- transforms of whole batches ------------------------------------------------------------------------


class Compose:
    """Apply transforms one after the other.

    Parameters
    ----------
    transforms : sequence of callables `(images, rng) -> images`
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            images = transform(images, rng)
        return images


class Normalize:
    """Subtract a mean from each channel and divide by a standard deviation.

    uint8 images are scaled to 0 … 1 first, so mean and std are on that scale; floating images are taken as
    they are. The result is channels-last in memory, as convolution wants it, under the shape (N, C, H, W).

    Parameters
    ----------
    mean, std : array_like, shape (C,)

    Raises
    ------
    ValueError
        If the shapes differ, a std is not positive, or images with another number of channels come.
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean = np.asarray(mean, np.float32).reshape(-1)
        self.std = np.asarray(std, np.float32).reshape(-1)
        if self.mean.shape != self.std.shape or not (self.std > 0).all():
            raise ValueError(
                f"mean and std must have one entry for each channel and std must be positive, got mean "
                f"{mean} and std {std}"
            )

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(images)
        dtype, mean, std = self.scale(images)
        n, channels, height, width = images.shape
        out = np.empty((n, height, width, channels), dtype)
        kernels.normalize(images, mean, std, out)
        return out.transpose(0, 3, 1, 2)

    def scale(self, images: np.ndarray) -> tuple[np.dtype, np.ndarray, np.ndarray]:
        """Type of the result, and mean and standard deviation on the images' scale."""
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"Normalize has {len(self.mean)} channels, the images {images.shape[1]}, shape {images.shape}"
            )
        dtype = images.dtype if images.dtype.kind == "f" else np.dtype(np.float32)
        unit = 255 if images.dtype == np.uint8 else 1
        return dtype, (self.mean * unit).astype(dtype), (self.std * unit).astype(dtype)


class RandomHorizontalFlip:
    """Mirror each image left to right with probability `p`.

    Parameters
    ----------
    p : float

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability between 0 and 1, got {p!r}; use p=0.5")
        self.p = p

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(images)
        flip = self._coins(len(images), rng)
        out = images.copy()
        out[flip] = images[flip][..., ::-1]
        return out

    def draw(self, moves: Moves, rng: np.random.Generator) -> None:
        """Flip as a piece of `Augment`."""
        moves.flip ^= self._coins(len(moves.flip), rng)

    def _coins(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.random(count) < self.p


class RandomCrop:
    """Surround each image with zeros and cut out a window at a random place, its own for each image.

    Zero is black in uint8 images; put the crop before `Normalize`, after which zero is the mean colour.

    Parameters
    ----------
    size : int or (height, width)
        Of the window.
    padding : int
        Rows and columns of zeros on each side.

    Raises
    ------
    ValueError
        If a number is out of range or the window is larger than the padded image.
    """

    def __init__(self, size: int | tuple[int, int], padding: int = 0) -> None:
        height, width = size if isinstance(size, tuple | list) else (size, size)
        self.size = (_at_least("size", height, 1), _at_least("size", width, 1))
        self.padding = _at_least("padding", padding, 0)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(images)
        (n, _, h, w), p = images.shape, self.padding
        rows, columns = h + 2 * p - self.size[0] + 1, w + 2 * p - self.size[1] + 1
        if rows < 1 or columns < 1:
            raise ValueError(
                f"RandomCrop of size {self.size} is larger than images of {h}×{w} with padding {p}; "
                "use a smaller size or more padding"
            )
        padded = np.zeros((*images.shape[:2], h + 2 * p, w + 2 * p), images.dtype)
        padded[:, :, p : p + h, p : p + w] = images
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=(2, 3))
        return windows[np.arange(n), :, rng.integers(rows, size=n), rng.integers(columns, size=n)]


# ---- augmentation in one pass -----------------------------------------------------------------------------

EDGES = ("reflect", "zeros")


class Moves:
    """What augmentation does to each image of a batch: every piece writes its part, one kernel carries all of it out.

    Parameters
    ----------
    shape : (N, C, H, W)
        Of the batch.

    Attributes
    ----------
    shape : (N, C, H, W)
    flip : ndarray of bool, shape (N,)
        Whether left and right are exchanged.
    shift : ndarray of int, shape (N, 2)
        Rows and columns that the window moves down and right.
    hole : ndarray of int, shape (N, 4)
        Top, bottom, left and right of a rectangle without image; bottom and right are the first outside.
    edge : {"reflect", "zeros"}
        What a shift moves in.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.flip = np.zeros(shape[0], np.bool_)
        self.shift = np.zeros((shape[0], 2), np.int64)
        self.hole = np.zeros((shape[0], 4), np.int64)
        self.edge = "reflect"

    def check(self) -> None:
        """Raise unless every shift leaves a part of the image to reflect."""
        if self.edge == "reflect" and (abs(self.shift) >= self.shape[2:]).any():
            raise ValueError(
                f"images of {self.shape[2]}×{self.shape[3]} can't be shifted by {abs(self.shift).max(axis=0).tolist()} "
                "rows and columns, which is all of them; use fewer or smaller shifts"
            )


class Augment:
    """Flips, shifts and holes, and the normalisation after them, in one pass over the batch by all threads.

    The pieces draw in the order in which they are listed. Whatever that is, an image is shifted, then flipped, then
    cut out; the hole is 0, which after the normalisation is the mean colour. The result is channels-last in memory.

    Parameters
    ----------
    pieces : sequence of AlternatingFlip or RandomHorizontalFlip, RandomTranslate, Cutout
        Or anything with a method `draw(moves, rng)`.
    normalize : Normalize, optional
        Without it the images keep their type and scale.

    Raises
    ------
    ValueError
        If the images' shape does not fit, or the pieces together shift an image by its whole side.

    Examples
    --------
    >>> transform = Augment([AlternatingFlip(), RandomTranslate(2)], Normalize(MEAN, STD))
    >>> loader = DataLoader(train, batch_size=512, shuffle=True, transform=transform)
    """

    def __init__(self, pieces: Sequence[Any], normalize: Normalize | None = None) -> None:
        self.pieces = list(pieces)
        self.normalize = normalize

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_images(images)
        moves = Moves(images.shape)
        for piece in self.pieces:
            piece.draw(moves, rng)
        moves.check()
        dtype, mean, std = self._scale(images)
        n, channels, height, width = images.shape
        out = memory.empty((n, height, width, channels), dtype)
        reflect = moves.edge == "reflect"
        jit.run(kernels.augment, images, moves.flip, moves.shift, reflect, moves.hole, mean, std, out)
        return out.transpose(0, 3, 1, 2)

    def _scale(self, images: np.ndarray) -> tuple[np.dtype, np.ndarray, np.ndarray]:
        """Type of the result, and what to subtract from each channel and divide it by."""
        if self.normalize is not None:
            return self.normalize.scale(images)
        real = images.dtype if images.dtype.kind == "f" else np.dtype(np.float32)
        return images.dtype, np.zeros(images.shape[1], real), np.ones(images.shape[1], real)


class _Piece:
    """One kind of augmentation, which is also a transform by itself."""

    def draw(self, moves: Moves, rng: Any) -> None:
        """Write what happens to each image into ``moves``."""
        raise NotImplementedError(f"{type(self).__name__} needs draw; write into moves.flip, moves.shift or moves.hole")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return Augment([self])(images, rng)


class AlternatingFlip(_Piece):
    """Mirror each image in every other epoch: half of them, by chance, in the even epochs, the others in the odd.

    A fair coin shows an image twice the same way round in half of all pairs of epochs; here two epochs in a row always
    show both. The coin of the first epoch follows from the loader's seed and the item's number. K. Jordan, "94% on
    CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, "Alternating flip".

    Raises
    ------
    TypeError
        If it is not called by a `DataLoader`, and so can't know the epoch and the items.
    """

    def draw(self, moves: Moves, rng: Any) -> None:
        """Flip by epoch and item."""
        if not isinstance(rng, BatchGenerator):
            raise TypeError(
                f"AlternatingFlip needs the epoch and the items' numbers, which {type(rng).__name__} does not know; "
                "use it as transform of a DataLoader, or pass BatchGenerator(seed, epoch, batch, indices)"
            )
        moves.flip ^= (_coins(rng.seed, rng.indices) + rng.epoch) % 2 == 1


def _coins(seed: int, indices: np.ndarray) -> np.ndarray:
    """0 or 1 for each index: the top bit of a hash, the finalizer of G. Steele et al.'s SplitMix, 2014, figure 18."""
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)  # so that any two seeds differ in many bits
    z = (np.asarray(indices, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + state
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return (z >> np.uint64(63)).astype(np.int64)


class RandomTranslate(_Piece):
    """Move each image by up to ``pixels``, up or down and left or right.

    Parameters
    ----------
    pixels : int
    edge : {"reflect", "zeros"}
        What moves in: the image reflected at its outermost pixels, as in airbench94, arXiv:2404.00498; or zeros, which
        are black in uint8 images, as with `RandomCrop`.

    Raises
    ------
    ValueError
        If ``pixels`` is negative, or for reflection not less than the images' sides, or ``edge`` is unknown.
    """

    def __init__(self, pixels: int = 2, edge: str = "reflect") -> None:
        if edge not in EDGES:
            raise ValueError(
                f"edge must be one of {', '.join(EDGES)}, got {edge!r}; images of objects look best reflected"
            )
        self.pixels = _at_least("pixels", pixels, 0)
        self.edge = edge

    def draw(self, moves: Moves, rng: Any) -> None:
        """Shift by independent whole numbers."""
        moves.edge = self.edge
        if self.edge == "reflect" and self.pixels >= min(moves.shape[2:]):
            raise ValueError(
                f"RandomTranslate by {self.pixels} pixels needs images larger than that to reflect, got "
                f"{moves.shape[2]}×{moves.shape[3]}; use fewer pixels"
            )
        moves.shift += rng.integers(-self.pixels, self.pixels + 1, (len(moves.shift), 2))


class Cutout(_Piece):
    """Set a square of each image to 0; its centre is any pixel, and what lies outside the image is cut off.

    T. DeVries, G. Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv:1708.04552.

    Parameters
    ----------
    size : int
        Side of the square, in pixels.

    Raises
    ------
    ValueError
        If it is not positive.
    """

    def __init__(self, size: int) -> None:
        self.size = _at_least("size", size, 1)

    def draw(self, moves: Moves, rng: Any) -> None:
        """Place the square."""
        first = rng.integers(0, moves.shape[2:], (len(moves.hole), 2)) - self.size // 2
        moves.hole[:, ::2] = first
        moves.hole[:, 1::2] = first + self.size


def _check_images(images: np.ndarray) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {images.shape}; add an axis with images[:, None]")
