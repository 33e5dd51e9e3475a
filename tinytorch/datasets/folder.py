"""A folder of pictures as a data set: `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, of any size and format.

The names of the folders are the classes. Without a `test` folder (or `val`, `valid`, `validation`) every fifth picture
of each class is held out; without a `train` folder the classes are those beside each other in the folder itself.

A picture is decoded by a thread when it is first asked for, its middle square scaled to the data set's size, and kept
as uint8 if all of them fit into half of the memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinytorch.core.dataloader import Dataset
from tinytorch.datasets.image_data import channel_statistics
from tinytorch.io.images import load_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
TEST_FOLDERS = ("test", "val", "valid", "validation")
HELD_OUT = 5  # every so many pictures one is a test picture, where there is no folder of them
SAMPLE = 1_000  # pictures that mean and standard deviation are estimated from


class Picture(NamedTuple):
    """A file as it was when the folder was read."""

    path: Path
    size: int
    label: int


class ImageFolder(Dataset):
    """Labelled pictures on disk; item i is (image, label), the image uint8 of shape (3, side, side).

    Parameters
    ----------
    pictures : sequence of Picture
    side : int
        Pixels of the height and the width that they are scaled to.
    keep : bool
        Whether decoded pictures stay in memory: 3·side² bytes each.
    """

    def __init__(self, pictures: Sequence[Picture], side: int, keep: bool = True) -> None:
        self.pictures = list(pictures)
        self.labels = np.array([picture.label for picture in pictures], np.int64)
        self.shape = (3, side, side)
        self._pixels = np.empty((len(pictures), *self.shape), np.uint8) if keep else None  # takes memory when written
        self._decoded = np.zeros(len(pictures), bool)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64]:
        images, labels = self.gather(np.array([index]))
        return images[0], labels[0]

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode a batch of pictures, on threads, as far as they are not in memory yet.

        Raises
        ------
        ValueError
            If a file is damaged, or is not what it was when the folder was read; the message names it.
        """
        indices = np.asarray(indices)
        if self._pixels is None:
            return np.stack(list(_threads().map(self._decode, indices))), self.labels[indices]
        new = np.unique(indices[~self._decoded[indices]])
        for index, image in zip(new, _threads().map(self._decode, new), strict=True):
            self._pixels[index] = image
            self._decoded[index] = True
        return self._pixels[indices], self.labels[indices]

    def _decode(self, index: int) -> np.ndarray:
        picture = self.pictures[index]
        if not picture.path.is_file() or picture.path.stat().st_size != picture.size:
            raise ValueError(
                f"{picture.path} has changed or is gone since the data set was read; leave its files alone while "
                "a model trains on them"
            )
        try:
            return load_image(picture.path, self.shape)[0]
        except ValueError as error:
            raise ValueError(f"{error}, or leave such files out with skip_corrupt (--skip-corrupt)") from error

    def damaged(self) -> list[int]:
        """Decode everything once, and return the numbers of what can't be decoded."""
        return [i for i, ok in enumerate(_threads().map(self._can_decode, range(len(self)))) if not ok]

    def _can_decode(self, index: int) -> bool:
        picture = self.pictures[index]
        try:
            load_image(picture.path, self.shape)
        except ValueError:
            return False
        return True


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "tinytorch-decode")


@dataclass(frozen=True, eq=False, repr=False)
class FolderData:
    """A folder of pictures, split into training and test pictures; the counterpart of `ImageData`.

    Attributes
    ----------
    name : str
        The folder's absolute path.
    train, test : ImageFolder
    classes : tuple of str
        The name of each label, sorted.
    skipped : tuple of str
        Paths of damaged files that were left out.
    mean, std : ndarray of float32, shape (3,)
        Of each channel, on the scale where 255 is 1, from 1,000 training pictures evenly spaced over the classes.
    """

    name: str
    train: ImageFolder
    test: ImageFolder
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.train.shape

    @property
    def mean(self) -> np.ndarray:
        return self._statistics[0]

    @property
    def std(self) -> np.ndarray:
        return np.maximum(self._statistics[1], np.float32(1 / 255))  # a channel may be the same everywhere

    @cached_property
    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        sample = np.linspace(0, len(self.train) - 1, min(SAMPLE, len(self.train))).round().astype(np.int64)
        return channel_statistics(self.train.gather(sample)[0])

    @cached_property
    def digest(self) -> str:
        """A digest of the names and sizes of all files: not of their content, which may be large."""
        digest = blake2b(digest_size=16)
        for split in (self.train, self.test):
            for path, size, label in split.pictures:
                digest.update(f"{path.relative_to(self.name)}|{size}|{label}\n".encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        train, test = len(self.train), len(self.test)
        shape = "×".join(map(str, self.image_shape))
        return f"FolderData({self.name!r}: {train:,} + {test:,} pictures, {shape}, {len(self.classes)} classes)"


def load(path: str | os.PathLike[str], image_size: int = 64, skip_corrupt: bool = False) -> FolderData:
    """Read the names in a folder of pictures; they are decoded when they are needed.

    Parameters
    ----------
    path : path
        With `train/CLASS/…` and `test/CLASS/…`, `train/CLASS/…` alone, or `CLASS/…`; pictures may lie in folders
        further down. What is not named as a picture, or begins with a dot, is passed over.
    image_size : int
        Height and width of the images in pixels.
    skip_corrupt : bool
        Decode everything once, now, and leave out what is damaged; without it the first damaged file is an error
        when it is come to.

    Returns
    -------
    FolderData

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it does not have two classes with pictures, the test folder has others, or `image_size` is not positive.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"image_size must be a positive number of pixels, got {image_size!r}; 64 is the default")
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; a data set of pictures has train/CLASS/*.jpg in one")
    classes, train, test = _split(folder)
    damaged: list[Picture] = []
    if skip_corrupt:
        (train, damaged_train), (test, damaged_test) = (_sorted_out(pictures, image_size) for pictures in (train, test))
        damaged = damaged_train + damaged_test
        _check_any(train, test, folder)
    keep = (len(train) + len(test)) * 3 * image_size**2 <= _memory() / 2
    splits = [ImageFolder(pictures, image_size, keep) for pictures in (train, test)]
    return FolderData(str(folder), splits[0], splits[1], classes, tuple(str(picture.path) for picture in damaged))


def _memory() -> float:
    """Bytes of the machine's memory; infinite where the system does not tell."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else float("inf")


def _sorted_out(pictures: list[Picture], side: int) -> tuple[list[Picture], list[Picture]]:
    """The sound pictures and the damaged ones."""
    damaged = set(ImageFolder(pictures, side, keep=False).damaged())
    return (
        [picture for i, picture in enumerate(pictures) if i not in damaged],
        [pictures[i] for i in sorted(damaged)],
    )


def _check_any(train: list[Picture], test: list[Picture], folder: Path) -> None:
    if not train or not test:
        raise ValueError(f"{folder} must have training and test pictures that can be read, but none of one is left")


def _split(folder: Path) -> tuple[tuple[str, ...], list[Picture], list[Picture]]:
    """The classes, and the pictures to train and to test on."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    classes = tuple(_subfolders(root))
    if len(classes) < 2:
        raise ValueError(
            f"{root} must have a folder of pictures for each of two or more classes, got {len(classes)}; "
            "put them into train/CLASS/*.jpg"
        )
    train = {name: _pictures(root / name, label) for label, name in enumerate(classes)}
    if empty := [name for name, pictures in train.items() if not pictures]:
        raise ValueError(f"{root} has no pictures of {', '.join(empty)}; add some ({', '.join(SUFFIXES)}) or remove it")
    other = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir() and root != folder), None)
    test = _held_out(train, root) if other is None else _test(other, classes)
    return classes, _joined(train.values()), test


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _held_out(train: dict[str, list[Picture]], root: Path) -> list[Picture]:
    """Take every fifth picture of each class away from `train`."""
    test = _joined(pictures[HELD_OUT - 1 :: HELD_OUT] for pictures in train.values())
    if not test:
        raise ValueError(
            f"{root} has fewer than {HELD_OUT} pictures of each class, too few to hold out every fifth; add some, or "
            "a test folder beside train"
        )
    for pictures in train.values():
        del pictures[HELD_OUT - 1 :: HELD_OUT]
    return test


def _test(folder: Path, classes: tuple[str, ...]) -> list[Picture]:
    present = _subfolders(folder)
    if unknown := sorted(set(present) - set(classes)):
        raise ValueError(f"{folder} has the classes {', '.join(unknown)}, which train lacks; the names must agree")
    test = _joined(_pictures(folder / name, classes.index(name)) for name in present)
    if not test:
        raise ValueError(f"{folder} has no pictures; put them into {folder.name}/CLASS/*.jpg, or remove the folder")
    return test


def _joined(lists: Iterable[list[Picture]]) -> list[Picture]:
    return [picture for pictures in lists for picture in pictures]


def _pictures(folder: Path, label: int) -> list[Picture]:
    """The pictures in a folder and below, sorted by path: the same order on every file system."""
    return sorted(Picture(path, path.stat().st_size, label) for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, n) for n in names if n.lower().endswith(SUFFIXES) and not n.startswith("."))
