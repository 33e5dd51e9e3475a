"""Checkpoints: arrays in a safetensors file, everything else as JSON in its header. Nothing is unpickled.

Each file carries a digest of its content, so that a damaged one is refused and not trained on. Any
safetensors reader opens the files; one written elsewhere has no digest and is read without that check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from tinytorch.io.files import write_atomically

_ARRAY = "$array"  # marks, in the JSON tree, where an array belongs


def save_arrays(path: Path | str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays, for example a model's `state_dict`, as one safetensors file.

    Parameters
    ----------
    path : path
        Written atomically.
    arrays : mapping of str to ndarray
    metadata : mapping of str to str, optional
        Goes into the file's header.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = dict(metadata or {})
    header["digest"] = _digest(contiguous, header)
    write_atomically(Path(path), _in_order(save(contiguous, metadata=header)))


def _in_order(file: bytes) -> bytes:
    """Sort the header of a safetensors file: the library writes metadata in random order, and one content is one file.

    The header is JSON behind its length in 8 bytes, padded to a multiple of 8 with spaces.
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def load_arrays(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file.

    Returns
    -------
    arrays : dict of str to ndarray
    metadata : dict of str to str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a run folder made by `tinytorch train` has this file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, TypeError, KeyError) as error:  # the latter two: a dtype NumPy lacks
        raise ValueError(f"{path} is no readable safetensors file ({error}); restore it from a copy") from error
    digest = metadata.pop("digest", None)
    if digest not in (None, _digest(arrays, metadata)):
        raise ValueError(
            f"{path} is damaged: its content does not match the digest in its header; restore it from a copy"
        )
    return arrays, metadata


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(dict(metadata), sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].dtype}{arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def save_state(path: Path | str, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of arrays and plain values, for example a trainer's `state_dict`.

    Keys become strings and tuples lists; numbers come back exactly.

    Raises
    ------
    TypeError
        If a value is neither an array nor plain (None, bool, number, str, list, dict).
    OSError
        If the file can't be written.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _pack(state, "", arrays)
    save_arrays(path, arrays, {"state": json.dumps(tree)})


def load_state(path: Path | str) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or holds arrays without a state.
    """
    arrays, metadata = load_arrays(path)
    if "state" not in metadata:
        raise ValueError(f"{path} holds arrays alone and no training state; resume from a checkpoint.safetensors")
    return _unpack(json.loads(metadata["state"]), arrays)


def _pack(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Turn `value` into JSON, moving its arrays to `arrays` under the path that leads to them."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {_ARRAY: path}
    if isinstance(value, Mapping):
        return {str(key): _pack(entry, f"{path}/{key}".lstrip("/"), arrays) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(entry, f"{path}/{i}", arrays) for i, entry in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path} is a {type(value).__name__}; a checkpoint holds arrays, numbers, strings, lists and dicts")


def _unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _unpack(entry, arrays) for key, entry in value.items()}
    return [_unpack(entry, arrays) for entry in value] if isinstance(value, list) else value
