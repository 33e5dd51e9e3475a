"""IDX files: what struct wrote is read back, and every kind of damage is named with its file."""

import gzip
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets import small
from tinytorch import datasets
from tinytorch.datasets import files, idx

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = small.IDX_NAMES


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_reads_what_was_written(tmp_path, zipped, dotted):
    arrays = small.write_mnist(tmp_path, "{}.gz" if zipped else "{}", zipped)
    if dotted:
        for path in list(tmp_path.iterdir()):
            path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    data = datasets.load("mnist", tmp_path)
    np.testing.assert_array_equal(data.train_images, arrays[TRAIN_IMAGES][:, None])
    np.testing.assert_array_equal(data.train_labels, arrays[TRAIN_LABELS])
    np.testing.assert_array_equal(data.test_images, arrays[TEST_IMAGES][:, None])
    np.testing.assert_array_equal(data.test_labels, arrays[TEST_LABELS])
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int64
    assert data.train_images.flags.c_contiguous
    assert data.train_images.flags.writeable


def test_unzipped_file_is_read_before_the_zipped_one(tmp_path):
    small.write_mnist(tmp_path)
    (tmp_path / f"{TRAIN_IMAGES}.gz").write_bytes(b"not read")
    assert len(datasets.load("mnist", tmp_path).train_images) == small.TRAIN


def damaged(tmp_path, name, data, message, suffix=""):
    """Load MNIST with one file replaced; the error must name the file and match the message."""
    small.write_mnist(tmp_path, "{}" + suffix, zipped=suffix == ".gz")
    path = tmp_path / (name + suffix)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        datasets.load("mnist", tmp_path)
    assert str(path) in str(caught.value)


def test_cut_short(tmp_path):
    whole = small.idx_bytes(small.mnist_arrays()[TRAIN_IMAGES])
    damaged(tmp_path, TRAIN_IMAGES, whole[:-1], "is cut short: expected 3,920 more bytes here, got 3,919")


def test_too_long(tmp_path):
    whole = small.idx_bytes(small.mnist_arrays()[TEST_LABELS])
    damaged(tmp_path, TEST_LABELS, whole + b"\0", "is too long: expected the file to end after its last item")


def test_labels_in_place_of_images(tmp_path):
    labels = small.idx_bytes(small.mnist_arrays()[TRAIN_LABELS])
    damaged(tmp_path, TRAIN_IMAGES, labels, "3 dimension(s), 00 00 08 03, got 00 00 08 01")


def test_wrong_element_type(tmp_path):
    floats = small.idx_bytes(small.mnist_arrays()[TRAIN_LABELS], element_type=13)
    damaged(tmp_path, TRAIN_LABELS, floats, "unsigned bytes in 1 dimension(s), 00 00 08 01, got 00 00 0d 01")


def test_wrong_image_size(tmp_path):
    images = small.idx_bytes(np.zeros((small.TEST, 28, 27)))
    damaged(tmp_path, TEST_IMAGES, images, "must hold (1 to 10000)×28×28 values, got 3×28×27")


def test_no_images(tmp_path):
    images = small.idx_bytes(np.zeros((0, 28, 28)))
    damaged(tmp_path, TEST_IMAGES, images, "must hold (1 to 10000)×28×28 values, got 0×28×28")


def test_fewer_labels_than_images(tmp_path):
    labels = small.idx_bytes(np.zeros(small.TRAIN - 1))
    damaged(tmp_path, TRAIN_LABELS, labels, "must have one label for each image: expected 5, as many as")


def test_label_out_of_range(tmp_path):
    labels = small.idx_bytes(np.array([0, 9, 10, 1, 2]))
    damaged(tmp_path, TRAIN_LABELS, labels, "is mislabelled: expected labels 0 to 9, got 10 for item 2")


def test_not_gzip(tmp_path):
    plain = small.idx_bytes(small.mnist_arrays()[TRAIN_IMAGES])
    damaged(tmp_path, TRAIN_IMAGES, plain, "must be a whole gzip file, got a damaged one", ".gz")


@pytest.mark.parametrize("position", [11, 100, -6], ids=["block length", "pixel", "checksum"])
def test_flipped_bit_in_gzip(tmp_path, position):
    zipped = bytearray(gzip.compress(small.idx_bytes(small.mnist_arrays()[TRAIN_IMAGES])))
    zipped[position] ^= 1
    damaged(tmp_path, TRAIN_IMAGES, bytes(zipped), "must be a whole gzip file", ".gz")


def test_header_that_asks_for_too_much_is_not_believed(tmp_path):
    header = bytes([0, 0, 8, 3]) + b"\xff" * 12
    damaged(tmp_path, TRAIN_IMAGES, header, "must hold (1 to 60000)×28×28 values, got 4294967295×")


def test_gzip_bomb_is_read_one_byte_too_far_at_most(tmp_path, monkeypatch):
    whole = small.idx_bytes(small.mnist_arrays()[TRAIN_IMAGES])
    read = []

    class Counting(gzip.GzipFile):
        def read(self, size=-1):
            data = super().read(size)
            read.append(len(data))
            return data

    monkeypatch.setattr(files.gzip, "open", Counting)
    bomb = gzip.compress(whole + bytes(50_000_000))
    damaged(tmp_path, TRAIN_IMAGES, bomb, "is too long", ".gz")
    assert sum(read) == len(whole) + 1


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_truncation_is_noticed(suffix, data):
    array = small.mnist_arrays()[TEST_IMAGES]
    whole = gzip.compress(small.idx_bytes(array)) if suffix else small.idx_bytes(array)
    length = data.draw(st.integers(0, len(whole) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (TEST_IMAGES + suffix)
        path.write_bytes(whole)
        np.testing.assert_array_equal(idx.read_array(path, (10, 28, 28)), array)
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            idx.read_array(path, (10, 28, 28))


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs the real MNIST files in ../shared/data/mnist")
def test_real_mnist():
    data = datasets.load("mnist", MNIST)
    assert data.train_images.shape == (60_000, 1, 28, 28)
    assert data.test_images.shape == (10_000, 1, 28, 28)
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    np.testing.assert_allclose([data.mean[0], data.std[0]], [0.1307, 0.3081], atol=5e-5)
