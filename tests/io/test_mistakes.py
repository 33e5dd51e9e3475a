"""Pictures of confusions, of mistakes and of the search for a learning rate: what is where, read back from the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from tinytorch.core.lr_finder import LRSearch
from tinytorch.io import plots


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share_of(picture: np.ndarray, colour: str) -> float:
    return float((np.abs(picture - 255 * np.array(to_rgb(colour))).max(axis=2) < 6).mean())


def test_the_counts_stand_in_row_true_and_column_predicted():
    matrix = np.array([[5, 2, 0], [0, 7, 0], [1, 0, 0]])
    axes = plots._compose_confusion(matrix, ("cat", "dog", "eel"), "t").axes[0]
    shown = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "5", (0, 1): "2", (1, 1): "7", (2, 0): "1"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[500 / 7, 200 / 7, 0], [0, 100, 0], [100, 0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "eel"]
    assert axes.get_xlabel() == "predicted" and axes.get_ylabel() == "true"


@pytest.mark.parametrize("classes", [2, 20, 150])
def test_confusions_of_any_number_of_classes(tmp_path, classes):
    path = tmp_path / "confusion.png"
    plots.draw_confusion(path, np.eye(classes, dtype=int), [f"class {i}" for i in range(classes)], "all right")
    assert share_of(pixels(path), "#08306b") > 0.002  # the darkest blue, on the diagonal
    axes = plots._compose_confusion(np.eye(classes, dtype=int), ["c"] * classes, "").axes[0]
    assert len(axes.texts) == (classes if classes <= 20 else 0)


def test_a_class_without_images_divides_by_nothing(tmp_path):
    with np.errstate(all="raise"):
        plots.draw_confusion(tmp_path / "x.png", np.zeros((2, 2), int), ("a", "b"), "")


def test_a_matrix_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"matrix must be 3×3, a row a class, got shape \(2, 2\)"):
        plots.draw_confusion(tmp_path / "x.png", np.eye(2), "abc", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 8, 11])
def test_mistakes_show_the_images_and_their_names(tmp_path, count):
    images = np.zeros((count, 3, 4, 4), np.uint8)
    images[:, 1] = 200
    probabilities = np.tile([0.25, 0.75], (count, 1))
    labels = np.zeros(count, int)
    plots.draw_mistakes(tmp_path / "x.png", images, labels, probabilities, ("a $x$", "b"), "wrong")
    assert share_of(pixels(tmp_path / "x.png"), "#00c800") > 0.1
    figure = plots._compose_mistakes(images, labels, probabilities, ("a $x$", "b"), "wrong")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["a \\$x\\$\nas b, 75 %"] * count
    extents = {tuple(image.get_extent()) for image in axes.images}
    assert len(extents) == count  # none hides another
    for left, right, bottom, top in extents:
        assert 0 <= left < right <= axes.get_xlim()[1] and axes.get_ylim()[1] <= top < bottom <= axes.get_ylim()[0]


def test_an_image_that_is_not_square_keeps_its_shape():
    left, right, bottom, top = plots._place(2, 1.35, 30, 10)
    assert (bottom - top) / (right - left) == pytest.approx(3)


def test_grey_mistakes_are_grey(tmp_path):
    plots.draw_mistakes(tmp_path / "x.png", np.full((1, 1, 4, 4), 100, np.uint8), [0], np.array([[0.1, 0.9]]), "ab", "")
    assert share_of(pixels(tmp_path / "x.png"), "#646464") > 0.1


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 2, 4, 4)])
def test_what_is_no_picture_is_refused(tmp_path, shape):
    with pytest.raises(ValueError, match="images must be one at least, of 1 or 3 channels, got shape"):
        plots.draw_mistakes(tmp_path / "x.png", np.zeros(shape, np.uint8), [0], np.ones((1, 2)), "ab", "")


def test_a_long_name_is_cut():
    assert plots._plain("a" * 17) == "a" * 15 + "…" and plots._plain("a" * 16) == "a" * 16


def test_the_search_and_its_suggestion(tmp_path):
    search = LRSearch([1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.8, 1.0, 5.0], 1e-3)
    plots.draw_lr_search(tmp_path / "lr.png", search, "mlp on digits")
    axes = plots._compose_search(search, "").axes[0]
    curve, line = axes.lines
    np.testing.assert_array_equal(curve.get_xydata(), np.transpose([search.lrs, search.losses]))
    assert line.get_xdata()[0] == 1e-3 and axes.get_xscale() == "log"
    assert share_of(pixels(tmp_path / "lr.png"), "#D55E00") > 0.0003
