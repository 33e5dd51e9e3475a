"""Padding as layers; see `pad_ops.pad` for what the borders hold.

All take `padding` as a number of pixels for every side, or one for each, last axis first: (left, right), (left, right,
top, bottom) or (left, right, top, bottom, front, back). A negative number crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.conv.problem import as_tuples
from tinytorch.core.layers import Module
from tinytorch.core.pad_ops import check_value, pad
from tinytorch.core.tensor import Number, Tensor


class _Pad(Module):
    """What the padding layers share; each names its mode, and the number of axes that it pads."""

    mode: str
    dims: int
    value: Number = 0

    def __init__(self, padding: int | Sequence[int]) -> None:
        self.padding = _sides(padding, self.dims)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, …) or (C, …) to the same with larger images."""
        return pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The pixels on each side."""
        return f"{self.padding}"


def _sides(padding: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Pixels on each side of so many axes."""
    sides: Any = as_tuples(padding)
    sides = sides if isinstance(sides, tuple) else (sides,) * (2 * dims)
    if len(sides) != 2 * dims or any(isinstance(side, bool) or not hasattr(side, "__index__") for side in sides):
        raise ValueError(
            f"padding must be an integer or {2 * dims} integers, {', '.join(_SIDES[: 2 * dims])}, got {padding!r}"
        )
    return sides


_SIDES = ("left", "right", "top", "bottom", "front", "back")


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: Number) -> None:
        super().__init__(padding)
        check_value(value)
        self.value = value

    def extra_repr(self) -> str:
        """The pixels on each side, and what is put there."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Surround sequences (…, L) with `value`."""

    dims = 1


class ConstantPad2d(_ConstantPad):
    """Surround images (…, H, W) with `value`."""

    dims = 2


class ConstantPad3d(_ConstantPad):
    """Surround volumes (…, D, H, W) with `value`."""

    dims = 3


class ZeroPad1d(_Pad):
    """Surround sequences (…, L) with zeros."""

    mode, dims = "constant", 1


class ZeroPad2d(_Pad):
    """Surround images (…, H, W) with zeros."""

    mode, dims = "constant", 2


class ZeroPad3d(_Pad):
    """Surround volumes (…, D, H, W) with zeros."""

    mode, dims = "constant", 3


class ReflectionPad1d(_Pad):
    """Surround sequences (N, C, L) or (C, L) with their mirror images; each side is less than the length."""

    mode, dims = "reflect", 1


class ReflectionPad2d(_Pad):
    """Surround images (N, C, H, W) or (C, H, W) with their mirror images; each side is less than the axis."""

    mode, dims = "reflect", 2


class ReflectionPad3d(_Pad):
    """Surround volumes (N, C, D, H, W) or (C, D, H, W) with their mirror images; each side is less than the axis."""

    mode, dims = "reflect", 3


class ReplicationPad1d(_Pad):
    """Surround sequences (N, C, L) or (C, L) with their first and last value."""

    mode, dims = "replicate", 1


class ReplicationPad2d(_Pad):
    """Surround images (N, C, H, W) or (C, H, W) with their outermost pixels."""

    mode, dims = "replicate", 2


class ReplicationPad3d(_Pad):
    """Surround volumes (N, C, D, H, W) or (C, D, H, W) with their outermost pixels."""

    mode, dims = "replicate", 3


class CircularPad1d(_Pad):
    """Continue sequences (N, C, L) or (C, L) with their other end; each side is at most the length."""

    mode, dims = "circular", 1


class CircularPad2d(_Pad):
    """Continue images (N, C, H, W) or (C, H, W) with their other side; each side is at most the axis."""

    mode, dims = "circular", 2


class CircularPad3d(_Pad):
    """Continue volumes (N, C, D, H, W) or (C, D, H, W) with their other side; each side is at most the axis."""

    mode, dims = "circular", 3
