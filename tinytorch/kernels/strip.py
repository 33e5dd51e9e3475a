"""What a depthwise convolution is made of, every channel by itself: its contract, and a plain-Python twin.

A strip is some lines of some pixels of outputs, at even distances, which all meet the same taps. Its sums are made for
many channels (lanes) at once::

    C[l, p, v] = clip(D[v] + Σ_o Σ_m A[l, p, o, m, v] · B[o, m, v] + E[l, p, v], floor, ceiling)

or, where C is the gradient of the outputs, the gradient of the weights is added up::

    B[o, m, v] += Σ_l Σ_p A[l, p, o, m, v] · C[l, p, v]

Operands and sizes are given as to a tile (``tile.py``). Which way lines and pixels, o and m run is up to the caller.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tinytorch.kernels import emit, jit
from tinytorch.kernels.target import target
from tinytorch.kernels.watch import rehearsing

# Strides of the operands: of C and E along lines and pixels; of A from line to line, between neighbouring pixels, and
# from one row of taps to the next; of B along both loops of the sum.
NUMBERS = ("c_l", "c_p", "a_l", "a_x", "a_o", "b_o", "b_m")

_MOST_TAPS = 8  # of a row whose products are written one by one

_interpreted: list[tuple[bool, bool, int, int]] = []


@jit.planned(maxsize=1024)
def strip_of(
    taps: int, stride: int, hop: int, masked: bool, dtype: Any, *, adds: bool = False, gradient: bool = False
) -> int:
    """Compile a strip, if need be, and return what ``strip`` knows it by.

    Parameters
    ----------
    taps
        Taps in a row, which is the length of the loop m.
    stride, hop
        Pixels of A from one output of a line to the next, and from one tap of a row to the next.
    masked
        Whether the lanes may not fill the last vector; then nothing beyond them is read or written.
    dtype
        float32 or float64.
    adds
        Whether E is added.
    gradient
        Whether B is added up, and not C.
    """
    itemsize = np.dtype(dtype).itemsize
    if rehearsing():
        return 0
    if jit.interpreted():
        _interpreted.append((gradient, adds, stride, hop))
        return len(_interpreted) - 1
    row = (taps if taps <= _MOST_TAPS else 0, stride, hop)
    return emit.address_of_strip((int(gradient), int(adds), int(masked)), row, target().lanes(itemsize), itemsize)


def strip(which, c, d, a, b, e, sizes, bounds, n_o, n_m, lanes, lines, pixels):  # type: ignore[no-untyped-def]
    """Compute ``C = clip(D + Σ A · B + E)``, or add to ``B``.

    Parameters
    ----------
    which
        What ``strip_of`` returned.
    c, d, a, b, e : (array, start)
        Outputs or their gradient; what the sums start from; what is multiplied with the weights; the weights or their
        gradient; what is added at the end. Lanes are contiguous.
    sizes : (array, start)
        The numbers of the strip.
    bounds : (array, start)
        Floor and ceiling; NaN passes both.
    n_o, n_m
        Rows of taps, and taps in a row.
    lanes, lines, pixels
        Channels, lines, and pixels of a line.
    """
    gradient, adds, stride, hop = _interpreted[which]
    s = dict(zip(NUMBERS, sizes[0][sizes[1] :], strict=False))
    floor, ceiling = bounds[0][bounds[1] : bounds[1] + 2]
    for line, p in itertools.product(range(lines), range(pixels)):
        y_at, x_at = line * s["c_l"] + p * s["c_p"], line * s["a_l"] + p * stride * s["a_x"]
        y = _lanes(c, y_at, lanes)
        sums = _lanes(d, 0, lanes).copy()
        for o, m in itertools.product(range(n_o), range(n_m)):
            x = _lanes(a, x_at + o * s["a_o"] + m * hop * s["a_x"], lanes)
            weight = _lanes(b, o * s["b_o"] + m * s["b_m"], lanes)
            if gradient:
                weight += x * y
            else:
                sums += x * weight
        if not gradient:
            sums += _lanes(e, y_at, lanes) if adds else 0
            y[:] = np.minimum(np.maximum(sums, floor), ceiling)


def _lanes(operand, at, lanes):  # type: ignore[no-untyped-def]
    array, start = operand
    return array[start + at : start + at + lanes]


emit.teach(strip)
