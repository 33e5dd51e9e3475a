"""Who won a pooling's windows gets its gradient: contract, and a plain-Python twin."""

from __future__ import annotations

import numpy as np

from tinytorch.kernels import emit, jit
from tinytorch.kernels.target import target


@jit.planned(maxsize=128)
def pick_of(lanes: int, dtype: np.dtype) -> int:
    """Compile ``pick`` for this many channels, if need be, and return what it is known by."""
    if not jit.compiles():
        return 0
    width = target().lanes(dtype.itemsize)
    return emit.address_of_pick(int(lanes % width > 0), width, dtype.itemsize)


def pick(which, dy, winners, dx, tap, windows, step, lanes):  # type: ignore[no-untyped-def]
    """``dx[w, c] = dy[w, c] if winners[w, c] == tap else 0`` for ``windows`` windows and ``lanes`` channels.

    Parameters
    ----------
    which
        What ``pick_of`` returned.
    dy, winners, dx : (array, start)
        Gradients of the windows, the numbers of the taps that won (uint8), and the gradient of the pixels under tap
        number ``tap``, which lie ``step`` numbers apart.
    """
    for w in range(windows):
        gradient, winner = (a[at + w * lanes : at + (w + 1) * lanes] for a, at in (dy, winners))
        dx[0][dx[1] + w * step : dx[1] + w * step + lanes] = np.where(winner == tap, gradient, 0)


emit.teach(pick)
