"""The IDX format of MNIST and Fashion-MNIST: a big-endian header, then unsigned bytes.

Header: two zero bytes, the element type (8 = unsigned byte), the number of dimensions, then each dimension as
a 4-byte integer. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "File formats".
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tinytorch.datasets.files import check_labels, expect_end, open_data, read_bytes
from tinytorch.datasets.image_data import Splits

UNSIGNED_BYTE = 8
CLASSES = 10
# The most items each file may hold, and the shape of one: a header that asks for more is not believed.
SHAPES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}

Found = dict[str, Path | None]


def find(folder: Path) -> Found:
    """Where each of the four files is in `folder`; unzipped before .gz, `-idx3` before `.idx3`."""
    return {name: _find_one(folder, name) for name in SHAPES}


def _find_one(folder: Path, name: str) -> Path | None:
    spellings = (name, name.replace("-idx", ".idx"))
    paths = (folder / (spelling + suffix) for suffix in ("", ".gz") for spelling in spellings)
    return next((path for path in paths if path.is_file()), None)


def read(paths: dict[str, Path]) -> Splits:
    """Read and check the four files that `find` found."""
    train_images, train_labels, test_images, test_labels = SHAPES
    return Splits(
        *_read_split(paths[train_images], paths[train_labels], SHAPES[train_images]),
        *_read_split(paths[test_images], paths[test_labels], SHAPES[test_images]),
    )


def _read_split(images_path: Path, labels_path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    images = read_array(images_path, shape)
    labels = read_array(labels_path, shape[:1])
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path} must have one label for each image: expected {len(images):,}, as many as "
            f"{images_path} has images, got {len(labels):,}"
        )
    check_labels(labels, CLASSES, str(labels_path))
    return images.reshape(-1, 1, *shape[1:]), labels.astype(np.int64)


def read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        Read through gzip if the name ends in .gz.
    shape : tuple of int
        The most items the file may hold, then the exact shape of one.

    Returns
    -------
    ndarray of uint8
        Of the shape in the header.

    Raises
    ------
    ValueError
        If the file is cut short, too long, of another type or of another shape.
    """
    with open_data(path) as stream:
        _check_magic(read_bytes(stream, 4, str(path)), len(shape), path)
        dimensions = read_bytes(stream, 4 * len(shape), str(path)).view(">u4").tolist()
        _check_shape(dimensions, shape, path)
        values = read_bytes(stream, math.prod(dimensions), str(path))
        expect_end(stream, str(path))
    return values.reshape(dimensions)


def _check_magic(magic: np.ndarray, dimensions: int, path: Path) -> None:
    expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if magic.tobytes() != expected:
        raise ValueError(
            f"{path} must begin as an IDX file of unsigned bytes in {dimensions} dimension(s), "
            f"{expected.hex(' ')}, got {magic.tobytes().hex(' ')}; is it another file under this name?"
        )


def _check_shape(dimensions: list[int], shape: tuple[int, ...], path: Path) -> None:
    most, *item = shape
    if not 1 <= dimensions[0] <= most or dimensions[1:] != item:
        expected = "×".join(map(str, [f"(1 to {most})", *item]))
        raise ValueError(f"{path} must hold {expected} values, got {'×'.join(map(str, dimensions))}")
