"""The library's one source of randomness: a NumPy generator that `manual_seed` seeds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_generator = np.random.Generator(np.random.PCG64())


def manual_seed(seed: int) -> np.random.Generator:
    """Seed every random draw the library makes from here on.

    Parameters
    ----------
    seed : int
        A non-negative integer; the same seed gives the same numbers on every machine.

    Returns
    -------
    numpy.random.Generator
        The generator in use. It is reseeded in place, so references to it stay good.

    Raises
    ------
    ValueError
        If `seed` is not a non-negative integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed!r}; use manual_seed(0)")
    _generator.bit_generator.state = np.random.PCG64(int(seed)).state
    return _generator


def generator() -> np.random.Generator:
    """Return the generator that initialisation, dropout and the `rand*` factories draw from."""
    return _generator


def get_state() -> dict[str, Any]:
    """Return the generator's state as plain numbers and strings, ready to be saved."""
    return dict(_generator.bit_generator.state)


def set_state(state: Mapping[str, Any]) -> None:
    """Put the generator back to a state that `get_state` returned.

    Raises
    ------
    ValueError
        If `state` is not such a state.
    """
    try:
        _generator.bit_generator.state = dict(state)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"state must come from random.get_state(), got {state!r}") from error
