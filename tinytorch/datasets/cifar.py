"""CIFAR-10's binary format: six batches of 10,000 records, a label byte and 3,072 pixels each.

A batch has no header, so its length is the only sign that it is whole. The pixels are three 32×32 planes:
red, green, blue. The data set's Python version is pickled, and a pickle can run any code: it is never read.
Source: A. Krizhevsky, "The CIFAR-10 dataset", section "Binary version".
"""

from __future__ import annotations

import tarfile
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from tinytorch.datasets.files import check_labels, expect_end, open_data, read_bytes
from tinytorch.datasets.image_data import Splits

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
BATCHES = (*TRAIN, "test_batch.bin")
CLASSES = 10
IMAGE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
RECORDS = 10_000

Found = dict[str, Path | None]
Batch = tuple[np.ndarray, np.ndarray]


def find(folder: Path) -> Found:
    """Where the six batches are in `folder` or its `cifar-10-batches-bin`, or else where the archive is."""
    places = (_find_batches(folder / FOLDER), _find_batches(folder))
    fullest = min(places, key=lambda found: list(found.values()).count(None))
    if None in fullest.values() and (folder / ARCHIVE).is_file():
        return {ARCHIVE: folder / ARCHIVE}
    return fullest


def _find_batches(folder: Path) -> Found:
    return {name: folder / name if (folder / name).is_file() else None for name in BATCHES}


def read(paths: dict[str, Path]) -> Splits:
    """Read and check what `find` found: the archive or the six batches."""
    batches = read_archive(paths[ARCHIVE]) if ARCHIVE in paths else _read_files(paths)
    images = np.concatenate([batches[name][0] for name in TRAIN])
    labels = np.concatenate([batches[name][1] for name in TRAIN])
    return Splits(images, labels, *batches[BATCHES[-1]])


def _read_files(paths: dict[str, Path]) -> dict[str, Batch]:
    batches = {}
    for name, path in paths.items():
        with open_data(path) as stream:
            batches[name] = read_batch(stream, str(path))
    return batches


def read_batch(stream: BufferedIOBase, source: str) -> Batch:
    """Read one batch, to the stream's end; `source` names it in errors.

    Returns
    -------
    images : ndarray of uint8, shape (RECORDS, 3, 32, 32)
    labels : ndarray of int64, shape (RECORDS,)

    Raises
    ------
    ValueError
        If the stream is shorter or longer than a batch, or a label is not 0 to 9.
    """
    records = read_bytes(stream, RECORDS * RECORD_BYTES, source).reshape(RECORDS, RECORD_BYTES)
    expect_end(stream, source)
    check_labels(records[:, 0], CLASSES, source)
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, *IMAGE), records[:, 0].astype(np.int64)


def read_archive(path: Path) -> dict[str, Batch]:
    """Read the batches from the .tar.gz, in one pass and without writing anything to disk.

    Members are known by their last name, whatever folder they are in; all others are passed over.

    Raises
    ------
    ValueError
        If the archive is damaged or too large, or a batch is missing or wrong.
    """
    with open_data(path) as stream:
        limited = _Limited(stream, path)
        try:
            batches = _read_members(limited, path)
        except tarfile.TarError as error:
            raise ValueError(f"{path} must be a whole tar archive, got a damaged one ({error})") from error
        limited.read_to_end()
    missing = [name for name in BATCHES if name not in batches]
    if missing:
        raise ValueError(f"{path} must hold the batches {', '.join(BATCHES)}; {', '.join(missing)} missing")
    return batches


def _read_members(limited: _Limited, path: Path) -> dict[str, Batch]:
    batches = {}
    with tarfile.open(fileobj=limited, mode="r|", bufsize=1 << 20) as archive:  # type: ignore[call-overload]
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in BATCHES and member.isreg():
                stream = archive.extractfile(member)
                assert stream is not None  # a regular member always has a stream
                batches[name] = read_batch(stream, f"{path}:{member.name}")
    return batches


class _Limited:
    """A stream that refuses to give more than an honest archive holds, so that a small bomb stays small."""

    def __init__(self, stream: BufferedIOBase, path: Path):
        self._stream = stream
        self._path = path
        self._left = self.limit = len(BATCHES) * RECORDS * RECORD_BYTES + (1 << 20)

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"{self._path} must unpack to at most {self.limit:,} bytes, got more")
        return data

    def read_to_end(self) -> None:
        """Read what follows the last member: only at its end does a gzip stream show that it is whole."""
        while self.read(1 << 16):
            pass
