"""Recipes as TOML: those that come with the package, by name, and anybody's own, by path."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path

from tinytorch.recipes.recipe import NAMES, Recipe

_FOLDER = Path(__file__).parent
PICTURES = "pictures"  # for folders of pictures


def names() -> tuple[str, ...]:
    """Names that `load` knows."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load(name: str | Path) -> Recipe:
    """Return a recipe by its name, or read one's own.

    Parameters
    ----------
    name : str or path
        One of `names()`, or the path of a .toml file.

    Raises
    ------
    ValueError
        If there is none, or the file is no recipe; the message says what is wrong with it.
    """
    path = _path(name)
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no recipe {path}; copy one with `tinytorch recipes NAME > {path.name}`") from error
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"the recipe {path} can't be used: {reason}") from error


def text(name: str | Path) -> str:
    """Return a recipe as it is written, with its comments: to copy and change.

    Raises
    ------
    ValueError
        If there is none.
    """
    load(name)
    return _path(name).read_text(encoding="utf-8")


def of_dataset(dataset: str) -> Recipe:
    """Return the recipe that a data set is trained by unless another is named.

    Raises
    ------
    ValueError
        If there is none.
    """
    if dataset not in names() or load(dataset).dataset != dataset:
        known = [name for name in names() if load(name).dataset == name]
        near = get_close_matches(dataset.lower(), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"dataset must be one of {', '.join(known)}, got {dataset!r}{hint}")
    return load(dataset)


def parse(toml: str) -> Recipe:
    """Return what a TOML text describes.

    Raises
    ------
    ValueError
        If it is no TOML, or a setting is missing, unknown or out of range.
    """
    settings = tomllib.loads(toml)
    for name in settings.keys() - set(NAMES):
        near = get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it may say {', '.join(NAMES)}"
        raise ValueError(f"it says {name}, which no recipe knows{hint}")
    for name in ("model", "epochs"):
        if name not in settings:
            raise ValueError(f"it must say {name}; see `tinytorch recipes mnist`")
    return Recipe(**settings)


def _path(name: str | Path) -> Path:
    """Where a recipe is: a name without a dot or a slash is one of the package's own."""
    path = Path(os.path.expanduser(name))  # which leaves a home that is not there as it is
    if isinstance(name, Path) or path.suffix == ".toml" or path.name != str(name):
        return path
    if name not in names():
        near = get_close_matches(name.lower(), names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"recipe must be one of {', '.join(names())}, or the path of a .toml file, got {name!r}{hint}")
    return _FOLDER / f"{name}.toml"
