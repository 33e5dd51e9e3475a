"""Y = T · X · Tᵀ, pixel by pixel of small squares, for many channels at once: its contract, and a plain-Python twin.

This is what the Winograd convolution does to images, weights and products before and after it multiplies. X is a
square of S × S pixels and Y one of R × R; a pixel is a run of channels (lanes). Where the pixels of a square lie is
told by a table of places, −1 for a pixel outside the image: that is read as zeros, or written nowhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.kernels import emit, jit
from tinytorch.kernels.target import target
from tinytorch.kernels.watch import rehearsing

Matrix = tuple[tuple[float, ...], ...]

_interpreted: list[tuple[Matrix, bool]] = []


@jit.planned(maxsize=256)
def transform_of(matrix: Matrix, finishing: bool, masked: bool, dtype: Any) -> int:
    """Compile the transform with T = ``matrix``, if need be, and return what ``transform`` knows it by.

    Parameters
    ----------
    finishing
        Whether results are outputs: then ``start`` and ``extra`` are added, they are clipped, and watched for numbers
        that are not finite.
    masked
        Whether the lanes may not fill the last vector.
    """
    itemsize = np.dtype(dtype).itemsize
    if rehearsing():
        return 0
    if jit.interpreted():
        _interpreted.append((matrix, finishing))
        return len(_interpreted) - 1
    return emit.address_of_transform(matrix, int(finishing), int(masked), target().lanes(itemsize), itemsize)


def transform(which, source, places, sink, targets, spare, start, extra, bounds, flag, lanes, adds):  # type: ignore[no-untyped-def]
    """Transform the squares of ``lanes`` channels.

    Parameters
    ----------
    which
        What ``transform_of`` returned.
    source, sink : (array, start)
        Memory of X and of Y.
    places, targets : (array of int64, start)
        For each pixel of X (S² of them, row by row) and of Y (R²) how far from ``start`` it lies; −1 is outside.
    spare : (array, start)
        At least ``lanes`` numbers: zeros to be read for pixels outside or, if finishing, room to write them.
    start : (array, start)
        One number a lane that is added to every result (bias).
    extra : (array, start)
        Added to every result where ``adds`` is 1; pixels lie as in the sink.
    bounds : (array, start)
        Floor and ceiling of the results.
    flag : (array, start)
        One number, which becomes NaN if a result before ``extra`` is not finite.
    """
    matrix, finishing = _interpreted[which]
    t = np.array(matrix, source[0].dtype)
    outside = np.zeros(lanes, source[0].dtype)
    x = np.array([_pixel(source, at, lanes, outside) for at in _table(places, t.shape[1])])
    y = np.einsum("ri,ijl,sj->rsl", t, x.reshape(t.shape[1], t.shape[1], lanes), t).reshape(-1, lanes)
    if finishing:
        y += start[0][start[1] : start[1] + lanes]
        flag[0][flag[1]] += (y * 0).sum()
        y = y + np.array([_pixel(extra, at, lanes, outside) for at in _table(targets, len(t))]) if adds else y
        y = np.clip(y, *bounds[0][bounds[1] : bounds[1] + 2])
    for at, values in zip(_table(targets, len(t)), y, strict=True):
        _pixel(sink, at, lanes, outside.copy())[:] = values


def _table(table, side):  # type: ignore[no-untyped-def]
    return table[0][table[1] : table[1] + side * side]


def _pixel(memory, at, lanes, outside):  # type: ignore[no-untyped-def]
    array, start = memory
    return outside if at < 0 else array[start + at : start + at + lanes]


emit.teach(transform)
