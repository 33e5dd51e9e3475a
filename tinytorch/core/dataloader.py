"""From arrays to shuffled, augmented batches: data sets, whole-batch transforms, and the loader.

Everything random about batch i of epoch e is a function of (seed, e, i), so that neither the prefetch thread
nor a resumed run can change it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinytorch.core import random
from tinytorch.core.tensor import Tensor, as_array
from tinytorch.kernels.images import normalize

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
        `transform(images, rng)` maps the first field of a whole batch, an array, to another.
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
        self._gather = dataset.gather if isinstance(dataset, Dataset) else partial(Dataset.gather, dataset)
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
        return _prefetched(batches, self.prefetch) if self.prefetch else batches

    def order(self, epoch: int) -> np.ndarray:
        """Return the item numbers in the order in which an epoch visits them."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        # NumPy pads a short seed with zeros: the last 1 keeps the order apart from the seeds of the batches.
        return np.random.default_rng([self.seed, epoch, 0, 1]).permutation(len(self.dataset))

    def _batches(self, epoch: int) -> Iterator[Batch]:
        order = self.order(epoch)
        for i in range(len(self)):
            indices = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield self._batch(indices, np.random.default_rng([self.seed, epoch, i]))

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


def _prefetched(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
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
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"Normalize has {len(self.mean)} channels, the images {images.shape[1]}, shape {images.shape}"
            )
        dtype = images.dtype if images.dtype.kind == "f" else np.dtype(np.float32)
        unit = 255 if images.dtype == np.uint8 else 1
        n, channels, height, width = images.shape
        out = np.empty((n, height, width, channels), dtype)
        normalize(images, (self.mean * unit).astype(dtype), (self.std * unit).astype(dtype), out)
        return out.transpose(0, 3, 1, 2)


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
        flip = rng.random(len(images)) < self.p
        out = images.copy()
        out[flip] = images[flip][..., ::-1]
        return out


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


def _check_images(images: np.ndarray) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {images.shape}; add an axis with images[:, None]")
