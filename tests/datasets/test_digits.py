"""The embedded digits: the same as scikit-learn's where that is installed, and learnable."""

import numpy as np
import pytest

from tinytorch import datasets


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def test_shapes_and_types(digits):
    assert digits.train_images.shape == (1500, 1, 8, 8)
    assert digits.test_images.shape == (297, 1, 8, 8)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int64
    assert digits.classes == tuple("0123456789")


def test_every_class_is_in_both_splits_and_the_whole_range_is_used(digits):
    for labels in (digits.train_labels, digits.test_labels):
        assert np.unique(labels).tolist() == list(range(10))
    levels = [(510 * value + 16) // 32 for value in range(17)]  # round(value·255/16), halves up, in integers
    assert np.unique(digits.train_images).tolist() == levels


def test_class_counts_are_those_of_the_repository(digits):
    # optdigits.names, "Class Distribution", testing set.
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_equals_scikit_learn(digits):
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    official = sklearn_datasets.load_digits()
    images = np.concatenate([digits.train_images, digits.test_images])[:, 0]
    np.testing.assert_array_equal(images, np.floor(official.images * 255 / 16 + 0.5))
    np.testing.assert_array_equal(np.concatenate([digits.train_labels, digits.test_labels]), official.target)


def test_nearest_mean_image_classifies_most_test_images(digits):
    # Labels that belong to other images would leave one in ten.
    train, test = (x.reshape(len(x), -1).astype(float) for x in (digits.train_images, digits.test_images))
    means = np.stack([train[digits.train_labels == label].mean(0) for label in range(10)])
    nearest = np.linalg.norm(test[:, None] - means, axis=2).argmin(1)
    assert np.mean(nearest == digits.test_labels) > 0.8


def test_each_load_is_a_fresh_writable_copy(digits):
    changed = datasets.load("digits")
    before = digits.train_images[0].copy()
    changed.train_images[0] = 99
    np.testing.assert_array_equal(digits.train_images[0], before)
    np.testing.assert_array_equal(datasets.load("digits").train_images[0], before)
