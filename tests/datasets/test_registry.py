"""`load` by name: which folder is read, when the network is used, what it says of missing files."""

import re

import numpy as np
import pytest

from tests.datasets import small
from tinytorch import datasets
from tinytorch.datasets import registry


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; anything that reaches for the network fails the test."""
    monkeypatch.setattr(registry.download, "cache_folder", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(registry.download, "fetch", lambda *_: pytest.fail("reached for the network"))
    return tmp_path / "cache"


def test_names():
    assert datasets.names() == ("digits", "mnist", "fashion-mnist", "cifar10")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("minst", "; did you mean 'mnist'?"), ("CIFAR-10", "; did you mean 'cifar10'?"), ("imagenette", "")],
)
def test_unknown_name_lists_the_known_and_the_nearest(name, hint):
    message = f"name must be one of digits, mnist, fashion-mnist, cifar10, got '{name}'{hint}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        datasets.load(name)


def test_name_must_be_a_string():
    with pytest.raises(TypeError, match="name must be a data set's name such as 'digits', got 7"):
        datasets.load(7)


def test_data_dir_must_be_a_path():
    with pytest.raises(TypeError, match="data_dir must be a folder's path or None, got 3"):
        datasets.load("mnist", data_dir=3)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_data_dir_without_the_files_says_what_to_put_where(tmp_path, cache, name):
    folder = tmp_path / "mine"
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load(name, data_dir=folder)
    message = str(caught.value)
    assert message.startswith(f"{name} is not in {folder} or {folder / name}: missing ")
    assert "--data-dir" in message
    for file in small.CIFAR_NAMES if name == "cifar10" else small.IDX_NAMES:
        assert file in message


def test_only_the_missing_file_is_called_missing(tmp_path, cache):
    small.write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing t10k-labels-idx1-ubyte\. Put the four IDX files"):
        datasets.load("mnist", data_dir=tmp_path)


def test_files_of_two_folders_are_not_mixed(tmp_path, cache):
    small.write_mnist(tmp_path)
    small.write_mnist(tmp_path / "mnist")
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing t10k-images-idx3-ubyte\. Put"):
        datasets.load("mnist", data_dir=tmp_path)


def test_folder_of_the_name_goes_first(tmp_path, cache):
    small.write_mnist(tmp_path)
    arrays = small.write_mnist(tmp_path / "fashion-mnist")
    changed = 9 - arrays["train-labels-idx1-ubyte"]
    (tmp_path / "fashion-mnist" / "train-labels-idx1-ubyte").write_bytes(small.idx_bytes(changed))
    data = datasets.load("fashion-mnist", data_dir=str(tmp_path))
    np.testing.assert_array_equal(data.train_labels, changed)
    assert data.classes[8:] == ("Bag", "Ankle boot")


def test_home_folder_is_expanded(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    small.write_mnist(tmp_path / "data")
    assert len(datasets.load("mnist", data_dir="~/data").test_labels) == small.TEST


def test_download_forbidden_reads_the_cache(cache):
    with pytest.raises(FileNotFoundError, match=re.escape(f"mnist is not in {cache / 'mnist'}: missing train-")):
        datasets.load("mnist", download=False)
    small.write_mnist(cache / "mnist", "{}.gz", zipped=True)
    assert len(datasets.load("mnist", download=False).train_images) == small.TRAIN


def test_without_data_dir_the_files_are_fetched_and_read_from_the_cache(cache, monkeypatch):
    def fetch(name, sha256, mirrors):
        assert sorted(sha256) == sorted(f"{file}.gz" for file in small.IDX_NAMES)
        assert all(mirror.endswith("/") for mirror in mirrors)
        small.write_mnist(cache / name, "{}.gz", zipped=True)

    monkeypatch.setattr(registry.download, "fetch", fetch)
    assert len(datasets.load("fashion-mnist").train_images) == small.TRAIN


def test_hashes_are_sha256_in_hex():
    hashes = [digest for source in registry.SOURCES.values() for digest in source.sha256.values()]
    assert len(set(hashes)) == 9
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes)
