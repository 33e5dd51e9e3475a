"""Checkpoint files: exact round trips, and damage that never goes unnoticed."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch.io.checkpoint import load_arrays, load_state, save_arrays, save_state
from tinytorch.io.files import write_atomically

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_])
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, min_side=0))
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | ARRAYS
KEYS = st.text(st.characters(categories=["Ll", "Nd"]), min_size=1, max_size=4)
STATES = st.dictionaries(
    KEYS,
    st.recursive(NUMBERS, lambda s: st.lists(s, max_size=3) | st.dictionaries(KEYS, s, max_size=3), max_leaves=8),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


@settings(max_examples=60, deadline=None)
@given(state=STATES)
def test_a_state_comes_back_exactly(state, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "state.safetensors"
    save_state(path, state)
    loaded = load_state(path)
    np.testing.assert_equal(loaded, state)
    assert described(loaded) == described(state)


def described(state: dict) -> str:
    """The state with dtype and shape in place of each array: assert_equal broadcasts."""
    return json.dumps(state, default=lambda array: f"{array.dtype} {array.shape}")


def test_keys_become_strings_and_tuples_lists(path):
    save_state(path, {1: (np.float32(0.5), np.int64(3))})
    assert load_state(path) == {"1": [0.5, 3]}


def test_arrays_in_any_memory_order(path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    save_arrays(path, {"a": array, "b": array[::2]}, {"note": "x"})
    arrays, metadata = load_arrays(path)
    np.testing.assert_array_equal(arrays["a"], array)
    np.testing.assert_array_equal(arrays["b"], array[::2])
    assert metadata == {"note": "x"}


def test_torch_reads_our_weights_and_we_read_torch_s(path):
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    save_arrays(path, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    assert safetensors_torch.load_file(path)["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    safetensors_torch.save_file({"w": torch.ones(2)}, path)
    assert load_arrays(path)[0]["w"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="holds arrays alone and no training state"):
        load_state(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_by_name(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_state(path, {"w": np.arange(20, dtype=np.float32), "epoch": 3})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        state = load_state(path)
    except ValueError as error:
        assert "damaged.safetensors" in str(error)
    else:  # a changed space in the header changes nothing
        np.testing.assert_equal(state, {"w": np.arange(20, dtype=np.float32), "epoch": 3})


def test_a_flipped_bit_is_noticed(path):
    save_state(path, {"w": np.arange(20, dtype=np.float32)})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its content does not match the digest"):
        load_state(path)


def test_a_pickle_is_refused(path):
    import pickle

    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(ValueError, match="no readable safetensors file"):
        load_state(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint.safetensors does not exist"):
        load_state(path)


def test_an_object_is_refused(path):
    with pytest.raises(TypeError, match="a/b is a set; a checkpoint holds"):
        save_state(path, {"a": {"b": {1}}})
    assert not path.exists()


# ---- atomic writing -------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_same_content_is_the_same_file(path):
    files = set()
    for _ in range(12):
        save_arrays(path, {"b": np.arange(3), "a": np.ones(2)}, {"model": "x", "seed": "0"})
        files.add(path.read_bytes())
    assert len(files) == 1
