"""ImageData: statistics against NumPy's float64 ones, and a description in one line."""

import dataclasses

import numpy as np
import pytest

from tinytorch.datasets import ImageData


@pytest.fixture
def data():
    images = np.random.default_rng(2).integers(0, 256, (7, 3, 5, 4)).astype(np.uint8)
    labels = np.arange(7)
    return ImageData("noise", images, labels, images[:2], labels[:2], classes=("a", "b"))


def test_mean_and_std_of_each_channel(data):
    scaled = data.train_images.astype(np.float64) / 255
    assert data.mean.dtype == data.std.dtype == np.float32
    np.testing.assert_allclose(data.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, scaled.std(axis=(0, 2, 3)), rtol=1e-6)


def test_statistics_do_not_overflow_and_a_constant_channel_has_no_spread():
    images = np.full((300, 1, 28, 28), 255, np.uint8)
    labels = np.zeros(300, np.int64)
    data = ImageData("white", images, labels, images, labels, classes=("white",))
    assert data.mean.tolist() == [1.0]
    assert data.std.tolist() == [0.0]


def test_repr_is_one_line(data):
    assert repr(data) == "ImageData('noise': 7 + 2 images, 3×5×4, 2 classes)"


def test_is_frozen(data):
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
