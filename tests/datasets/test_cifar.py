"""CIFAR-10's binary files: folder and archive read alike, and every kind of damage is named with its file."""

import gzip
import io
import os
import re
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets import small
from tinytorch import datasets
from tinytorch.datasets import cifar

REAL = os.environ.get("TINYTORCH_CIFAR10_DIR")
ARCHIVE = "cifar-10-binary.tar.gz"


@pytest.fixture(autouse=True, scope="module")
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar, "RECORDS", small.RECORDS)
        yield


def check(data, batches):
    train = [batches[f"data_batch_{i}.bin"] for i in range(1, 6)]
    np.testing.assert_array_equal(data.train_images, np.concatenate([images for images, _ in train]))
    np.testing.assert_array_equal(data.train_labels, np.concatenate([labels for _, labels in train]))
    np.testing.assert_array_equal(data.test_images, batches["test_batch.bin"][0])
    np.testing.assert_array_equal(data.test_labels, batches["test_batch.bin"][1])
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int64
    assert data.train_images.flags.c_contiguous
    assert data.train_images.flags.writeable


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"])
def test_reads_the_folder(tmp_path, place):
    batches = small.write_cifar(tmp_path / place)
    check(datasets.load("cifar10", tmp_path), batches)


def test_reads_the_archive_without_unpacking_it(tmp_path):
    (tmp_path / ARCHIVE).write_bytes(small.tar_gz(small.cifar_members()))
    check(datasets.load("cifar10", tmp_path), small.cifar_batches())
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]


def test_half_a_folder_beside_the_archive_is_passed_over(tmp_path):
    small.write_cifar(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    (tmp_path / "data_batch_1.bin").write_bytes(b"not read")
    (tmp_path / ARCHIVE).write_bytes(small.tar_gz(small.cifar_members()))
    check(datasets.load("cifar10", tmp_path), small.cifar_batches())


def test_pickled_version_is_not_found(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(FileNotFoundError, match="binary version, not the Python one"):
        datasets.load("cifar10", tmp_path)


def test_names_the_missing_batch(tmp_path):
    small.write_cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing data_batch_3\.bin\. Put cifar-10-binary"):
        datasets.load("cifar10", tmp_path)


def damaged(tmp_path, data, message):
    """Load CIFAR-10 with one batch replaced; the error must name the file and match the message."""
    small.write_cifar(tmp_path)
    path = tmp_path / "data_batch_4.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        datasets.load("cifar10", tmp_path)
    assert str(path) in str(caught.value)


def test_cut_short_by_one_record(tmp_path):
    damaged(tmp_path, bytes(3073), "is cut short: expected 6,146 more bytes here, got 3,073")


def test_too_long(tmp_path):
    damaged(tmp_path, bytes(2 * 3073 + 1), "is too long: expected the file to end after its last item")


def test_label_out_of_range(tmp_path):
    data = bytes(3073) + bytes([10]) + bytes(3072)
    damaged(tmp_path, data, "is mislabelled: expected labels 0 to 9, got 10 for item 1")


def damaged_archive(tmp_path, data, message):
    path = tmp_path / ARCHIVE
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        datasets.load("cifar10", tmp_path)
    assert str(path) in str(caught.value)


def test_archive_without_a_batch(tmp_path):
    members = small.cifar_members()
    del members["cifar-10-batches-bin/data_batch_5.bin"]
    damaged_archive(tmp_path, small.tar_gz(members), "test_batch.bin; data_batch_5.bin missing")


def test_archive_with_a_short_batch(tmp_path):
    members = small.cifar_members() | {"cifar-10-batches-bin/data_batch_2.bin": bytes(3073)}
    damaged_archive(tmp_path, small.tar_gz(members), "data_batch_2.bin is cut short: expected 6,146")


def test_archive_with_a_link_in_place_of_a_batch(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in small.CIFAR_NAMES:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    damaged_archive(tmp_path, stream.getvalue(), "test_batch.bin missing")


def test_archive_that_is_no_tar(tmp_path):
    damaged_archive(tmp_path, gzip.compress(b"x" * 2000), "must be a whole tar archive, got a damaged one")


def test_archive_that_is_no_gzip(tmp_path):
    damaged_archive(tmp_path, b"x" * 2000, "must be a whole gzip file, got a damaged one")


@pytest.mark.parametrize("member", ["cifar-10-batches-bin/data_batch_1.bin", "other"])
def test_archive_bomb_in_a_member(tmp_path, member):
    members = {member: bytes(10_000_000)}
    message = "is too long" if member.endswith(".bin") else "must unpack to at most 1,085,452 bytes, got more"
    damaged_archive(tmp_path, small.tar_gz(members), message)


def test_archive_bomb_after_the_members(tmp_path):
    data = small.tar_gz(small.cifar_members()) + gzip.compress(bytes(10_000_000))
    damaged_archive(tmp_path, data, "must unpack to at most 1,085,452 bytes")


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", ["data_batch_1.bin", ARCHIVE])
def test_every_truncation_is_noticed(name, data):
    with tempfile.TemporaryDirectory() as folder:
        small.write_cifar(Path(folder) / cifar.FOLDER)
        path = Path(folder) / cifar.FOLDER / name
        if name == ARCHIVE:
            path = Path(folder) / "alone" / name
            path.parent.mkdir()
            path.write_bytes(small.tar_gz(small.cifar_members()))
        length = data.draw(st.integers(0, path.stat().st_size - 1))
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            datasets.load("cifar10", path.parent)


@pytest.mark.skipif(REAL is None, reason="needs CIFAR-10's binary files in the folder TINYTORCH_CIFAR10_DIR")
def test_real_cifar10(monkeypatch):
    monkeypatch.setattr(cifar, "RECORDS", 10_000)
    data = datasets.load("cifar10", REAL)
    assert data.train_images.shape == (50_000, 3, 32, 32)
    assert data.test_images.shape == (10_000, 3, 32, 32)
    assert np.bincount(data.train_labels).tolist() == [5000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    np.testing.assert_allclose(data.mean, [0.4914, 0.4822, 0.4465], atol=5e-4)
    np.testing.assert_allclose(data.std, [0.2470, 0.2435, 0.2616], atol=5e-3)
