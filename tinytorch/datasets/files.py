"""Opening data files that may be damaged: every read has a limit, every complaint names the file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np


@contextmanager
def open_data(path: Path) -> Iterator[BufferedIOBase]:
    """Open `path` to read bytes, through gzip if its name ends in .gz.

    Raises
    ------
    ValueError
        If, here or while the caller reads, the gzip stream turns out to be damaged or cut short.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} must be a whole gzip file, got a damaged one ({error}); copy or download it again"
        ) from error


def read_bytes(stream: BufferedIOBase, count: int, source: str) -> np.ndarray:
    """Read `count` bytes into a fresh uint8 array; `source` names the stream in the error.

    Raises
    ------
    ValueError
        If the stream ends before.
    """
    buffer = np.empty(count, np.uint8)
    received = stream.readinto(buffer.data)
    if received < count:
        raise ValueError(
            f"{source} is cut short: expected {count:,} more bytes here, got {received:,}; copy or download it again"
        )
    return buffer


def expect_end(stream: BufferedIOBase, source: str) -> None:
    """Raise ValueError if `stream` holds one more byte; in a gzip stream this also checks the checksum."""
    if stream.read(1):
        raise ValueError(
            f"{source} is too long: expected the file to end after its last item, got more bytes; "
            "copy or download it again"
        )


def check_labels(labels: np.ndarray, classes: int, source: str) -> None:
    """Raise ValueError if a label is not below `classes`."""
    wrong = np.flatnonzero(labels >= classes)
    if wrong.size:
        raise ValueError(
            f"{source} is mislabelled: expected labels 0 to {classes - 1}, got {labels[wrong[0]]} for item {wrong[0]}"
        )
