"""Tiny data sets in the real formats, written with struct and tarfile: what the readers are tested on."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np

TRAIN, TEST = 5, 3  # MNIST's images here
RECORDS = 2  # in a CIFAR batch here
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR_NAMES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def idx_bytes(array: np.ndarray, element_type: int = 8) -> bytes:
    header = struct.pack(">BBBB", 0, 0, element_type, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((TRAIN, 28, 28), (TRAIN,), (TEST, 28, 28), (TEST,))
    return {
        name: rng.integers(0, 10 if len(shape) == 1 else 256, shape)
        for name, shape in zip(IDX_NAMES, shapes, strict=True)
    }


def write_mnist(folder: Path, spelling: str = "{}", zipped: bool = False) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = mnist_arrays()
    for name, array in arrays.items():
        data = idx_bytes(array)
        (folder / spelling.format(name)).write_bytes(gzip.compress(data) if zipped else data)
    return arrays


def cifar_batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {name: (rng.integers(0, 256, (RECORDS, 3, 32, 32)), rng.integers(0, 10, RECORDS)) for name in CIFAR_NAMES}


def batch_bytes(images: np.ndarray, labels: np.ndarray) -> bytes:
    return b"".join(
        struct.pack("B", label) + bytes(image.ravel().tolist()) for image, label in zip(images, labels, strict=True)
    )


def write_cifar(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder.mkdir(parents=True, exist_ok=True)
    batches = cifar_batches()
    for name, (images, labels) in batches.items():
        (folder / name).write_bytes(batch_bytes(images, labels))
    return batches


def cifar_members() -> dict[str, bytes]:
    """What the official archive holds, in an order that is not alphabetical."""
    batches = {f"cifar-10-batches-bin/{name}": batch_bytes(*batch) for name, batch in cifar_batches().items()}
    return {"cifar-10-batches-bin/readme.html": b"<p>", **dict(reversed(batches.items()))}


def tar_gz(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()
