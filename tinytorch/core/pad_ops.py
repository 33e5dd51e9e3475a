"""Differentiable padding: images grow by a border made of a constant or of their own pixels, or are cropped.

The body is one copy. The borders follow axis by axis, each as wide as the axes before it have become, so that the
corners need no case of their own; the gradient takes the same steps backwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np

from tinytorch.conv.problem import AXIS_NAMES, as_tuples
from tinytorch.core import reach
from tinytorch.core.autograd import record
from tinytorch.core.images import check_not_empty
from tinytorch.core.tensor import Number, Tensor
from tinytorch.kernels import memory, strided

Widths = tuple[tuple[int, int], ...]  # pixels before and after, for every axis
Index = tuple[slice, ...]

MODES = ("constant", "reflect", "replicate", "circular")


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Number | None = 0) -> Tensor:
    """Surround with a border; a negative width crops.

    Parameters
    ----------
    input : Tensor
        Of any shape in constant mode, else (N, C, …) or (C, …) with one to three spatial axes.
    pad : sequence of int
        Pixels, last axis first: (left, right), (left, right, top, bottom), (left, right, top, bottom, front, back), …
    mode : {"constant", "reflect", "replicate", "circular"}
        What the border holds: `value`; the image mirrored at its outermost pixel, which is not repeated; that pixel;
        or the image over again. Reflected and replicated pixels may be such as are cropped on the other side, circular
        ones come from what is left.
    value : float
        The constant; None is 0.

    Returns
    -------
    Tensor
        Of the input's type, with the axes in the input's order in memory.

    Raises
    ------
    TypeError
        If the input is not a Tensor, a width not an integer, or the value not a number.
    ValueError
        If the mode is unknown or takes no value, the input's type can't hold the value, the number of widths does not
        fit the input, the border needs more pixels than there are, or too little is left of the input.
    """
    _check_mode(input, mode, value)
    widths = _widths(input.shape, as_tuples(pad), mode)
    grown = tuple((max(before, 0), max(after, 0)) for before, after in widths)
    if mode in ("reflect", "replicate"):
        return _crop(_pad(input, grown, mode, 0), widths)
    return _pad(_crop(input, widths), grown, mode, value or 0)


def surround(x: Tensor, widths: Sequence[tuple[int, int]], padding_mode: str) -> Tensor:
    """The padding of a convolution or a pooling: (before, after) pixels of every spatial axis, in the axes' order.

    Raises
    ------
    ValueError
        If the image has too few pixels for its padding to be made of.
    """
    if not any(map(any, widths)):
        return x
    sizes = x.shape[2:]
    for name, n, (before, after) in zip(AXIS_NAMES[len(sizes)], sizes, widths, strict=True):
        most = _most(padding_mode, n, n)
        if max(before, after) > most:
            raise ValueError(
                f"padding_mode={padding_mode!r} can make at most {most} pixels of padding from an image with {n} along "
                f"the {name}, and {max(before, after)} are needed; change padding, or use padding_mode='replicate'"
            )
    flat = [pixels for pair in reversed(widths) for pixels in pair]
    return pad(x, flat, "constant" if padding_mode == "zeros" else padding_mode)


def _most(mode: str, n: int, kept: int) -> float:
    """Pixels that a border can repeat of an axis with n, of which so many are kept."""
    return {"reflect": n - 1, "circular": kept}.get(mode, math.inf)


def _crop(x: Tensor, widths: Widths) -> Tensor:
    """Without as many pixels as the negative widths say."""
    if min(map(min, widths), default=0) >= 0:
        return x
    return x[
        tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, widths, strict=True))
    ]


def _pad(x: Tensor, widths: Widths, mode: str, value: Number) -> Tensor:
    body = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))
    out = memory.empty_like(
        x.array, tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    )
    inner: Any = (*body, ...)  # a view even of a single number
    strided.assign(out[inner], x.array)
    borders = list(_borders(x.shape, widths, mode, body))
    for _, border, source in borders:
        out[border] = value if mode == "constant" else out[source]

    def backward(grad: np.ndarray):
        return ((grad if mode == "constant" else _folded(grad, borders, mode))[body],)

    return record(out, (x,), backward, reach.padded(widths, x.shape, mode))


def _folded(grad: np.ndarray, borders: list[tuple[int, Index, Index]], mode: str) -> np.ndarray:
    """A copy with what arrived at each border added to where the border's pixels came from."""
    folded = memory.empty_like(grad)
    strided.assign(folded, grad)
    for axis, border, source in reversed(borders):
        arrived = folded[border]
        folded[source] += arrived.sum(axis=axis, keepdims=True) if mode == "replicate" else arrived
    return folded


def _borders(shape: tuple[int, ...], widths: Widths, mode: str, body: Index) -> Iterator[tuple[int, Index, Index]]:
    """Axis, place of a border, and place of the pixels that it repeats, in the order in which they become known."""
    for axis, (n, (before, after)) in enumerate(zip(shape, widths, strict=True)):
        end = before + n
        fronts, backs = _sources(mode, before, after, end)
        for width, at, source in ((before, slice(0, before), fronts), (after, slice(end, end + after), backs)):
            if width:
                around = body[axis + 1 :]
                lead = (slice(None),) * axis
                yield axis, (*lead, at, *around), (*lead, source, *around)


def _sources(mode: str, before: int, after: int, end: int) -> tuple[slice, slice]:
    """Pixels that the borders of an axis repeat, whose body lies from ``before`` to ``end``."""
    if mode == "reflect":
        return slice(2 * before, before, -1), slice(end - 2, end - 2 - after if end - 2 - after >= 0 else None, -1)
    if mode == "replicate":
        return slice(before, before + 1), slice(end - 1, end)
    return slice(end - before, end), slice(before, before + after)


# ---- checks ---------------------------------------------------------------------------------------------


def _check_mode(input: Tensor, mode: str, value: Number | None) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"pad expects a Tensor, got {type(input).__name__}; wrap the array: Tensor(x)")
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    if value is not None:
        check_value(value, input.dtype)
    if mode != "constant" and value:
        raise ValueError(f"value is for mode='constant' only, got value={value} with mode={mode!r}; leave it out")


def check_value(value: Number, dtype: np.dtype | None = None) -> None:
    """Raise unless this is a number, and one that the type, if given, can hold."""
    if not isinstance(value, Real | np.bool_):
        raise TypeError(f"value must be a number, got {value!r}; it is what the border holds")
    if dtype is not None and dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:  # type: ignore[operator]
        raise ValueError(
            f"value must be a number that {dtype} can hold, {np.iinfo(dtype).min} to {np.iinfo(dtype).max}, got "
            f"{value!r}; use another, or convert the input with x.float()"
        )


def _widths(shape: tuple[int, ...], pad: Sequence[int], mode: str) -> Widths:
    """(before, after) for every axis, first axis first, checked."""
    if not isinstance(pad, Sequence) or any(isinstance(p, bool) or not hasattr(p, "__index__") for p in pad):
        raise TypeError(f"pad must be a sequence of integers, (left, right, top, bottom, …), got {pad!r}")
    dims = len(pad) // 2
    if len(pad) % 2 or dims > len(shape):
        raise ValueError(
            f"pad must be (before, after) pairs, last axis first, for at most the {len(shape)} axes of input {shape}, "
            f"got {tuple(pad)}"
        )
    if mode != "constant":
        _check_images(shape, pad, mode)
    widths = ((0, 0),) * (len(shape) - dims) + tuple(zip(pad[-2::-2], pad[::-2], strict=True))
    for axis, width in enumerate(widths):
        if width != (0, 0):
            _check_width(shape, axis, width, mode)
    return widths


def _check_images(shape: tuple[int, ...], pad: Sequence[int], mode: str) -> None:
    dims = len(pad) // 2
    if dims not in (1, 2, 3) or len(shape) not in (dims + 1, dims + 2):
        raise ValueError(
            f"pad in mode {mode!r} must have two widths for every spatial axis, one to three, of an input (N, C, …) or "
            f"(C, …), got {tuple(pad)} for input {shape}; give 0 for an axis that stays as it is"
        )
    if mode != "circular":
        check_not_empty(shape, dims, f" in mode {mode!r}")


def _check_width(shape: tuple[int, ...], axis: int, width: tuple[int, int], mode: str) -> None:
    """Raise unless what remains of an axis is not too little, and enough for its borders."""
    before, after = width
    n, kept = shape[axis], shape[axis] + min(before, 0) + min(after, 0)
    remains, least = (n + before + after, 1) if mode in ("reflect", "replicate") else (kept, 0)
    where = f"({before}, {after}) in mode {mode!r} for axis {axis} of input {shape}"
    if remains < least:
        raise ValueError(f"pad must leave at least {least} pixels, got {where}, which leaves {remains}; crop less")
    most = _most(mode, n, kept)
    if max(width) > most:
        raise ValueError(
            f"pad must be at most {most}, the pixels that a border can repeat, got {where}; pad less or twice, or use "
            "mode 'replicate'"
        )
