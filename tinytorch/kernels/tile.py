"""The one multiply-accumulate that every fast convolution is made of: its contract, and a plain-Python twin.

A tile is a block of ``rows × lanes`` outputs whose sums stay in registers while the whole reduction runs past them::

    C[r, v] = clip(D[r, v] + Σ_o Σ_m Σ_i A[r, o, m, i] · B[o, m, i, v] + E[r, v], floor, ceiling)

Every operand is a flat array and the place in it where the operand starts; strides count elements and stand, with the
trip counts, in one line of integers, the numbers of the tile. What the letters mean is up to the caller: in a forward
convolution ``r`` counts output pixels, ``v`` output channels, ``o`` kernel rows, ``m`` kernel columns and ``i`` input
channels.

A tile size is compiled once, by itself, and called by its address: so the loops around it are compiled once for all
sizes. ``tile`` below is the definition, and what runs under ``NUMBA_DISABLE_JIT=1``. Compiled callers get the same
contract written in vector registers by ``emit.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.kernels import emit, jit
from tinytorch.kernels.target import target

# Strides of the operands: from row to row, along the three loops of the reduction, and (…_t) from tile to tile. Then
# trip counts, and whether E is added. A row stride 0 of D repeats one row, which is how a bias enters. f_i tells a tile
# made to look ahead how much of the next tile's A it fetches into the cache at each step.
NUMBERS = (
    "c_row", "d_row", "a_row", "a_o", "a_m", "a_i", "b_o", "b_m", "b_i", "e_row", "c_t", "d_t", "a_t", "f_i", "n_o",
    "n_m", "n_i", "n_e",
)  # fmt: skip


def numbers(**values: int) -> tuple[int, ...]:
    """The numbers of a tile, in their order; those not named are 0."""
    return tuple(values.get(name, 0) for name in NUMBERS)


@jit.planned(maxsize=4096)
def tile_of(rows: int, vectors: int, masked: bool, dtype: Any, ahead: bool = False) -> int:
    """Compile a tile of ``rows × vectors`` registers, if need be, and return what ``tile`` knows it by.

    Parameters
    ----------
    masked
        Whether there may be fewer lanes than ``vectors`` full vectors; then nothing beyond them is read or written.
    dtype
        float32 or float64.
    ahead
        Whether it fetches the next tile's A while it computes.
    """
    width = target().lanes(np.dtype(dtype).itemsize)
    if not jit.compiles():
        return rows
    return emit.address_of_tile(rows, vectors, int(ahead), int(masked), width, np.dtype(dtype).itemsize)


def tile(which, c, d, a, b, e, sizes, bounds, lanes, tiles):  # type: ignore[no-untyped-def]
    """Compute a line of tiles, each ``C = clip(D + A · B + E)``.

    Parameters
    ----------
    which
        What ``tile_of`` returned.
    c, d, a, b, e : (array, start)
        Output; what the sums start from; the operand that is broadcast over lanes; the operand that rows share; what
        is added at the end. Lanes are contiguous.
    sizes : (array, start)
        The numbers of the tile.
    bounds : (array, start)
        Floor and ceiling; NaN passes both.
    lanes
        Outputs in a row, at most vectors × width.
    tiles
        Length of the line: from one tile to the next C and E move on by ``c_t``, D by ``d_t`` and A by ``a_t``.
    """
    s = dict(zip(NUMBERS, sizes[0][sizes[1] :], strict=False))
    floor, ceiling = bounds[0][bounds[1] : bounds[1] + 2]
    for t in range(tiles):
        for r in range(which):
            sums = _lanes(d, t * s["d_t"] + r * s["d_row"], lanes).copy()
            for o in range(s["n_o"]):
                for m in range(s["n_m"]):
                    for i in range(s["n_i"]):
                        at = t * s["a_t"] + r * s["a_row"] + o * s["a_o"] + m * s["a_m"] + i * s["a_i"]
                        sums += a[0][a[1] + at] * _lanes(b, o * s["b_o"] + m * s["b_m"] + i * s["b_i"], lanes)
            if s["n_e"]:
                sums += _lanes(e, t * s["c_t"] + r * s["e_row"], lanes)
            _lanes(c, t * s["c_t"] + r * s["c_row"], lanes)[:] = np.minimum(np.maximum(sums, floor), ceiling)


def _lanes(operand, at, lanes):  # type: ignore[no-untyped-def]
    array, start = operand
    return array[start + at : start + at + lanes]


emit.teach(tile)
