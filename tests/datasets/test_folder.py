"""Folders of pictures: which files count, what they become, and what is said of those that are damaged."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinytorch import datasets
from tinytorch.datasets import folder

COLOURS = {"blue": (10, 20, 250), "red": (250, 20, 10)}


def write(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def flowers(tmp_path) -> Path:
    """Six training and two test pictures of each class, in sizes and formats of all kinds."""
    root = tmp_path / "flowers"
    for name, colour in COLOURS.items():
        for i, suffix in enumerate(("png", "jpg", "JPEG", "bmp", "gif", "webp")):
            write(root / "train" / name / f"{i}.{suffix}", colour, (10 + 7 * i, 40 - 5 * i))
        for i in range(2):
            write(root / "test" / name / f"{i}.png", colour)
    return root


def test_classes_are_the_folders_and_pictures_get_one_size(flowers):
    data = datasets.load(str(flowers), image_size=8)
    assert data.classes == ("blue", "red") and data.image_shape == (3, 8, 8) and data.skipped == ()
    images, labels = data.train.gather(np.arange(12))
    assert images.shape == (12, 3, 8, 8) and images.dtype == np.uint8
    np.testing.assert_array_equal(labels, [0] * 6 + [1] * 6)
    for image, label in zip(images, labels, strict=True):
        expected = np.array(COLOURS[data.classes[label]])[:, None, None]
        assert np.abs(image.astype(int) - expected).max() < 12  # JPEG and GIF change colours a little
    assert repr(data) == f"FolderData({str(flowers)!r}: 12 + 4 pictures, 3×8×8, 2 classes)"


def test_an_item_is_a_row_of_the_batch(flowers):
    data = datasets.load(str(flowers), image_size=8)
    image, label = data.train[7]
    images, labels = data.train.gather(np.array([3, 7]))
    np.testing.assert_array_equal(image, images[1])
    assert label == labels[1] == 1


@pytest.mark.parametrize("keep", [True, False])
def test_pictures_are_decoded_when_asked_for_and_once_if_kept(flowers, monkeypatch, keep):
    decoded = []
    whole = folder.load_image
    monkeypatch.setattr(folder, "load_image", lambda path, shape: decoded.append(path) or whole(path, shape))
    monkeypatch.setattr(folder, "_memory", lambda: float("inf") if keep else 0.0)
    train = datasets.load(str(flowers), image_size=8).train
    assert not decoded
    first = train.gather(np.array([5, 0, 5]))[0]
    assert len(decoded) == (2 if keep else 3)
    np.testing.assert_array_equal(train.gather(np.array([5, 0, 5]))[0], first)
    assert len(decoded) == (2 if keep else 6)


def test_mean_and_std_are_those_of_the_pixels(flowers):
    data = datasets.load(str(flowers), image_size=8)
    pixels = data.train.gather(np.arange(12))[0].astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, np.maximum(pixels.std(axis=(0, 2, 3)), 1 / 255), rtol=1e-5)


def test_without_a_test_folder_every_fifth_picture_is_held_out(tmp_path):
    for name in COLOURS:
        for i in range(7):
            write(tmp_path / "all" / name / f"{i}.png", COLOURS[name])
    data = datasets.load(str(tmp_path / "all"))
    assert [picture.path.name for picture in data.test.pictures] == ["4.png", "4.png"]
    assert len(data.train) == 12
    assert not {p.path for p in data.train.pictures} & {p.path for p in data.test.pictures}
    (tmp_path / "all").rename(tmp_path / "train")
    assert len(datasets.load(str(tmp_path)).test) == 2


@pytest.mark.parametrize("name", folder.TEST_FOLDERS)
def test_names_of_the_test_folder(flowers, name):
    (flowers / "test").rename(flowers / name)
    assert len(datasets.load(str(flowers)).test) == 4


def test_pictures_further_down_count_and_other_files_do_not(flowers):
    write(flowers / "train" / "red" / "more" / "deep" / "x.png", COLOURS["red"])
    write(flowers / "train" / "red" / ".thumbnails" / "x.png", COLOURS["red"])
    (flowers / "train" / "red" / "notes.txt").write_text("red")
    (flowers / "train" / "red" / "._0.jpg").write_bytes(b"resource fork")
    (flowers / "train" / ".cache").mkdir()
    data = datasets.load(str(flowers), image_size=8)
    assert data.classes == ("blue", "red") and len(data.train) == 13


def test_the_order_is_that_of_the_names(flowers):
    paths = [picture.path for picture in datasets.load(str(flowers)).train.pictures]
    assert paths == sorted(paths)


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_a_damaged_file_is_named(flowers):
    path = cut_short(flowers / "train" / "red" / "0.png")
    data = datasets.load(str(flowers), image_size=8)
    data.train.gather(np.arange(6))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is a damaged picture .*--skip-corrupt"):
        data.train.gather(np.arange(12))


def test_damaged_files_are_skipped_when_asked(flowers):
    paths = [cut_short(flowers / "train" / "red" / "0.png"), flowers / "test" / "blue" / "1.png"]
    paths[1].write_bytes(b"")
    data = datasets.load(str(flowers), image_size=8, skip_corrupt=True)
    assert data.skipped == tuple(map(str, paths))
    assert len(data.train) == 11 and len(data.test) == 3
    data.train.gather(np.arange(11))
    assert (data.train.labels == 1).sum() == 5


def test_nothing_left_after_skipping(flowers):
    for path in (flowers / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="training and test pictures that can be read, but none of one is left"):
        datasets.load(str(flowers), skip_corrupt=True)


@pytest.mark.parametrize("change", ["other", "gone"])
def test_a_file_that_changes_under_training_is_named(flowers, change):
    data = datasets.load(str(flowers), image_size=8)
    path = flowers / "train" / "blue" / "3.bmp"
    path.unlink()
    if change == "other":
        write(path, (1, 2, 3), (5, 5))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} has changed or is gone"):
        data.train.gather(np.arange(12))


def test_what_was_decoded_does_not_change_any_more(flowers):
    train = datasets.load(str(flowers), image_size=8).train
    before = train.gather(np.arange(12))[0]
    (flowers / "train" / "blue" / "3.bmp").unlink()
    np.testing.assert_array_equal(train.gather(np.arange(12))[0], before)


def test_the_digest_tells_other_data_and_not_another_place(flowers):
    digest = datasets.load(str(flowers)).digest
    moved = flowers.rename(flowers.with_name("moved"))
    assert datasets.load(str(moved)).digest == digest
    assert datasets.load(str(flowers), data_dir=moved).digest == digest  # by the old name, from where it is now
    write(moved / "train" / "red" / "new.png", COLOURS["red"])
    assert datasets.load(str(moved)).digest != digest


def test_a_folder_is_known_by_its_path(flowers, monkeypatch):
    monkeypatch.chdir(flowers.parent)
    for name in ("flowers", "./flowers", f"{flowers}/"):
        assert datasets.load(name).name == str(flowers)
    flowers.rename("digits")
    assert len(datasets.load("digits").classes) == 10 and len(datasets.load("./digits").classes) == 2


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8"])
def test_image_size_must_be_positive(flowers, size):
    with pytest.raises(ValueError, match=f"image_size must be a positive number of pixels, got {size!r}"):
        datasets.load(str(flowers), image_size=size)


def test_layouts_that_are_no_data_set(tmp_path, flowers):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder; a data set of pictures has train/CLASS/\*.jpg"):
        datasets.load(str(tmp_path / "nowhere"))
    write(tmp_path / "one" / "train" / "red" / "0.png", COLOURS["red"])
    with pytest.raises(ValueError, match="must have a folder of pictures for each of two or more classes, got 1"):
        datasets.load(str(tmp_path / "one"))
    (flowers / "train" / "green").mkdir()
    with pytest.raises(ValueError, match="train has no pictures of green; add some"):
        datasets.load(str(flowers))
    (flowers / "train" / "green").rename(flowers / "test" / "green")
    with pytest.raises(ValueError, match="test has the classes green, which train lacks"):
        datasets.load(str(flowers))


def test_too_few_pictures_to_test_on(tmp_path, flowers):
    for name in COLOURS:
        write(tmp_path / "few" / name / "0.png", COLOURS[name])
    with pytest.raises(ValueError, match="fewer than 5 pictures of each class, too few to hold out every fifth"):
        datasets.load(str(tmp_path / "few"))
    for path in (flowers / "test").rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match=r"test has no pictures; put them into test/CLASS/\*.jpg"):
        datasets.load(str(flowers))
