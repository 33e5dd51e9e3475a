"""The data sets by name: what each is called, where its files are looked for, and `load`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinytorch.datasets import cifar, digits, download, idx
from tinytorch.datasets.folder import FolderData
from tinytorch.datasets.folder import load as load_folder
from tinytorch.datasets.image_data import ImageData, Splits

DIGITS = "digits"
NUMERALS = tuple("0123456789")


@dataclass(frozen=True)
class Source:
    """A data set that lives in files: its classes, its official files and the two functions of its format."""

    classes: tuple[str, ...]
    find: Callable[[Path], dict[str, Path | None]]
    read: Callable[[dict[str, Path]], Splits]
    mirrors: tuple[str, ...]
    sha256: dict[str, str]
    wanted: str


IDX_WANTED = "the four IDX files, each unzipped or as .gz"

SOURCES = {
    "mnist": Source(
        classes=NUMERALS,
        find=idx.find,
        read=idx.read,
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        sha256={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        wanted=IDX_WANTED,
    ),
    "fashion-mnist": Source(
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        find=idx.find,
        read=idx.read,
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        sha256={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        wanted=IDX_WANTED,
    ),
    "cifar10": Source(
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        find=cifar.find,
        read=cifar.read,
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        sha256={cifar.ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
        wanted=f"{cifar.ARCHIVE} or its six .bin files (the binary version, not the Python one)",
    ),
}


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return (DIGITS, *SOURCES)


def is_path(name: str) -> bool:
    """Whether a name means a folder of pictures: it has a slash in it, or is that of a folder and of no data set."""
    return any(mark in name for mark in (os.sep, "/", "~")) or (name not in names() and Path(name).is_dir())


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    image_size: int = 64,
    skip_corrupt: bool = False,
) -> ImageData | FolderData:
    """Load a data set.

    Parameters
    ----------
    name : str
        "digits" (embedded, needs no files), "mnist", "fashion-mnist" or "cifar10"; or the path of a folder of
        pictures such as "./flowers", see `tinytorch.datasets.folder`.
    data_dir : path, optional
        A folder with the data set's files, or with a folder of that `name` that has them (looked into first).
        Nothing is downloaded then. Any whole copy will do: structure is checked, hashes are not. MNIST and
        Fashion-MNIST name their files alike: give each its own folder. Not used for "digits". Of a folder of
        pictures, where it is now.
    download : bool
        Without `data_dir`, files are kept in the user's cache; False forbids fetching what is not there yet.
    image_size, skip_corrupt
        For a folder of pictures; see `tinytorch.datasets.folder.load`.

    Returns
    -------
    ImageData or FolderData

    Raises
    ------
    ValueError
        If the name is unknown, or a file is cut short, too long, mislabelled or of another format.
    TypeError
        If `name` or `data_dir` is of the wrong type.
    FileNotFoundError
        If files are missing; the message says which, and where to put them.
    OSError
        If the download fails.
    """
    if data_dir is not None and not isinstance(data_dir, (str, os.PathLike)):
        raise TypeError(f"data_dir must be a folder's path or None, got {data_dir!r}")
    if isinstance(name, str) and is_path(name):
        return load_folder(data_dir or name, image_size, skip_corrupt)
    _check_name(name)
    if name == DIGITS:
        return ImageData(name, *digits.read(), classes=NUMERALS)
    source = SOURCES[name]
    return ImageData(name, *source.read(_locate(name, source, data_dir, download)), classes=source.classes)


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a data set's name such as {DIGITS!r}, got {name!r}")
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name must be one of {', '.join(names())}, got {name!r}{hint}")


def _locate(name: str, source: Source, data_dir: str | os.PathLike[str] | None, may_download: bool) -> dict[str, Path]:
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
        return _find(name, source, [folder / name, folder])
    if may_download:
        download.fetch(name, source.sha256, source.mirrors)
    return _find(name, source, [download.cache_folder(name)])


def _find(name: str, source: Source, folders: list[Path]) -> dict[str, Path]:
    """The data set's files, all from one folder: half of one copy never meets half of another."""
    closest: list[str] = []
    for folder in folders:
        found = source.find(folder)
        present = {file: path for file, path in found.items() if path is not None}
        if len(present) == len(found):
            return present
        absent = [file for file in found if file not in present]
        closest = absent if not closest or len(absent) < len(closest) else closest
    raise FileNotFoundError(
        f"{name} is not in {' or '.join(map(str, reversed(folders)))}: missing {', '.join(closest)}. Put "
        f"{source.wanted} there, name another folder with data_dir (on the command line --data-dir), or "
        "leave data_dir out and let download=True fetch them"
    )
