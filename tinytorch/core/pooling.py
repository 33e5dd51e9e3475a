"""Pooling as layers, for one, two and three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytorch.conv.problem import Padding, as_tuples, per_axis
from tinytorch.core import pool_ops as ops
from tinytorch.core.images import Pair
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor


class _Pool(Module):
    """What pooling layers with a window share: its settings, by which `pool_ops.Pooling` knows it."""

    dims: int
    dilation: Pair
    ceil_mode: bool
    padding_mode: str

    def _set(  # type: ignore[no-untyped-def]
        self, kernel_size, stride, padding, dilation, ceil_mode, padding_mode
    ) -> None:
        kernel_size, stride, padding, dilation = map(as_tuples, (kernel_size, stride, padding, dilation))
        self.kernel_size, _ = ops.kernel_and_stride(kernel_size, stride, self.dims)
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.ceil_mode, self.padding_mode = ceil_mode, padding_mode
        ops.Pooling(self.dims, kernel_size, stride, padding, dilation, ceil_mode, padding_mode).check()

    @property
    def pooling(self) -> ops.Pooling:
        """The window, as `pool_ops` takes it."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return ops.Pooling(self.dims, *window, self.ceil_mode, self.padding_mode)

    def extra_repr(self) -> str:
        """Window, step and border, and other settings that are not at their default."""
        window = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding!r}"
        extra = [f"{name}={getattr(self, name)!r}" for name, usual in self._usual() if getattr(self, name) != usual]
        return ", ".join([window, *extra])

    def _usual(self) -> list[tuple[str, Any]]:
        """Further settings and their defaults."""
        return [("dilation", 1), ("ceil_mode", False), ("padding_mode", "zeros")]


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        dilation: Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        padding_mode: str = "zeros",
    ) -> None:
        self._set(kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
        self.return_indices = return_indices

    @property
    def is_bare(self) -> bool:
        """Whether it returns maxima only, of images as they are."""
        return not self.return_indices and self.padding_mode == "zeros"

    def forward(self, input: Tensor) -> Any:
        """Map (N, C, …), or (C, …), to as many windows, and with `return_indices` to where their maxima were too."""
        return ops.max_pooling(input, self.pooling, self.return_indices)

    def _usual(self) -> list[tuple[str, Any]]:
        return [*super()._usual(), ("return_indices", False)]


class MaxPool2d(_MaxPool):
    """Largest value of every window.

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        By default the kernel size, so that windows do not overlap.
    padding : int, (height, width), ((top, bottom), (left, right)), or a name
        Border of −∞, at most half the window: "valid" is none, "same" (or "same_upper") and "same_lower" give
        ⌈size / stride⌉ windows.
    dilation : int or (height, width)
        Pixels between two taps of a window.
    return_indices : bool
        Whether to return where the maxima were as well, as `MaxUnpool2d` takes it.
    ceil_mode : bool
        Whether a last window that begins in the image, or in front of it, may reach beyond the padding.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        "zeros" stands for the border of −∞; others are the image's own pixels, see `pad`.
    """

    dims = 2


class MaxPool1d(_MaxPool):
    """`MaxPool2d` with one axis: maps (N, C, L) to (N, C, L_out)."""

    dims = 1


class MaxPool3d(_MaxPool):
    """`MaxPool2d` with three axes: maps (N, C, D, H, W) to (N, C, D_out, H_out, W_out)."""

    dims = 3


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        dilation: Pair = 1,
        padding_mode: str = "zeros",
    ) -> None:
        self._set(kernel_size, stride, padding, dilation, ceil_mode, padding_mode)
        self.count_include_pad = count_include_pad
        self.divisor_override = ops.check_divisor(divisor_override)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, …), or (C, …), to as many windows."""
        return ops.avg_pooling(input, self.pooling, self.count_include_pad, self.divisor_override)

    def _usual(self) -> list[tuple[str, Any]]:
        return [*super()._usual(), ("count_include_pad", True), ("divisor_override", None)]


class AvgPool2d(_AvgPool):
    """Mean of every window.

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        By default the kernel size, so that windows do not overlap.
    padding : int, (height, width), ((top, bottom), (left, right)), or a name
        Border of zeros, at most half the window; see `MaxPool2d`.
    ceil_mode : bool
        Whether a last window that begins in the image, or in front of it, may reach beyond the padding.
    count_include_pad : bool
        Whether the zeros count in the mean.
    divisor_override : int, optional
        To divide sums by, in place of the number of pixels.
    dilation : int or (height, width)
        Pixels between two taps of a window.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds; see `pad`.
    """

    dims = 2


class AvgPool1d(_AvgPool):
    """`AvgPool2d` with one axis: maps (N, C, L) to (N, C, L_out)."""

    dims = 1


class AvgPool3d(_AvgPool):
    """`AvgPool2d` with three axes: maps (N, C, D, H, W) to (N, C, D_out, H_out, W_out)."""

    dims = 3


class _LPPool(_Pool):
    def __init__(
        self,
        norm_type: float,
        kernel_size: Pair,
        stride: Pair | None = None,
        ceil_mode: bool = False,
        *,
        padding: Padding = 0,
        dilation: Pair = 1,
        padding_mode: str = "zeros",
    ) -> None:
        ops.check_norm_type(norm_type)
        self.norm_type = norm_type
        self._set(kernel_size, stride, padding, dilation, ceil_mode, padding_mode)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, …), or (C, …), to as many windows."""
        return ops.lp_pooling(input, self.pooling, self.norm_type)

    def extra_repr(self) -> str:
        """The power, and the window."""
        return f"norm_type={self.norm_type}, {super().extra_repr()}"


class LPPool2d(_LPPool):
    """Power average of every window, ``(Σ xᵖ)^(1/p)``; see `lp_pool2d`.

    Parameters
    ----------
    norm_type : float
        p, larger than 0. 1 is the sum, 2 the Euclidean norm, ∞ the largest absolute value.
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        By default the kernel size, so that windows do not overlap.
    ceil_mode : bool
        Whether a last window that begins in the image may reach beyond it.
    padding, dilation, padding_mode
        Those of `AvgPool2d`.
    """

    dims = 2


class LPPool1d(_LPPool):
    """`LPPool2d` with one axis: maps (N, C, L) to (N, C, L_out)."""

    dims = 1


class LPPool3d(_LPPool):
    """`LPPool2d` with three axes: maps (N, C, D, H, W) to (N, C, D_out, H_out, W_out)."""

    dims = 3


# ---- as many windows as are wanted --------------------------------------------------------------------------------


class _Adaptive(Module):
    dims: int

    def __init__(self, output_size: ops.OutputSize) -> None:
        output_size = as_tuples(output_size)
        ops.check_output_size(output_size, self.dims)
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_Adaptive):
    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, …), or (C, …), to so many windows."""
        return ops.adaptive_avg_pool(self.dims, input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean of every window, with as many windows as the output is to have pixels; see `adaptive_avg_pool2d`.

    Parameters
    ----------
    output_size : int or (height, width)
        Pixels of the output; None for a side that stays as it is. 1 is the mean over the whole image.
    """

    dims = 2


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """`AdaptiveAvgPool2d` with one axis: maps (N, C, L) to (N, C, output_size)."""

    dims = 1


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """`AdaptiveAvgPool2d` with three axes: maps (N, C, D, H, W) to (N, C, depth, height, width)."""

    dims = 3


class _AdaptiveMaxPool(_Adaptive):
    def __init__(self, output_size: ops.OutputSize, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        """Map (N, C, …), or (C, …), to so many windows, and with `return_indices` to where their maxima were too."""
        return ops.adaptive_max_pool(self.dims, input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        """The size, and whether indices are returned."""
        return super().extra_repr() + (", return_indices=True" if self.return_indices else "")


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Largest value of every window, with as many windows as the output is to have pixels.

    Parameters
    ----------
    output_size : int or (height, width)
        Pixels of the output; None for a side that stays as it is.
    return_indices : bool
        Whether to return where the maxima were as well.
    """

    dims = 2


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """`AdaptiveMaxPool2d` with one axis: maps (N, C, L) to (N, C, output_size)."""

    dims = 1


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """`AdaptiveMaxPool2d` with three axes: maps (N, C, D, H, W) to (N, C, depth, height, width)."""

    dims = 3


# ---- one window ---------------------------------------------------------------------------------------------------


class _GlobalAvgPool(Module):
    dims: int

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, …), or (C, …), to one pixel."""
        return ops.adaptive_avg_pool(self.dims, input, 1)


class GlobalAvgPool2d(_GlobalAvgPool):
    """Mean of the whole image: maps (N, C, H, W) to (N, C, 1, 1)."""

    dims = 2


class GlobalAvgPool1d(_GlobalAvgPool):
    """Mean of the whole sequence: maps (N, C, L) to (N, C, 1)."""

    dims = 1


class GlobalAvgPool3d(_GlobalAvgPool):
    """Mean of the whole volume: maps (N, C, D, H, W) to (N, C, 1, 1, 1)."""

    dims = 3


class _GlobalMaxPool(Module):
    dims: int

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, …), or (C, …), to one pixel."""
        return ops.adaptive_max_pool(self.dims, input, 1)


class GlobalMaxPool2d(_GlobalMaxPool):
    """Largest value of the whole image: maps (N, C, H, W) to (N, C, 1, 1)."""

    dims = 2


class GlobalMaxPool1d(_GlobalMaxPool):
    """Largest value of the whole sequence: maps (N, C, L) to (N, C, 1)."""

    dims = 1


class GlobalMaxPool3d(_GlobalMaxPool):
    """Largest value of the whole volume: maps (N, C, D, H, W) to (N, C, 1, 1, 1)."""

    dims = 3


# ---- back to where the largest were -------------------------------------------------------------------------------


class _MaxUnpool(Module):
    dims: int

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride = ops.kernel_and_stride(kernel_size, stride, self.dims)
        self.padding = per_axis("padding", as_tuples(padding), self.dims, least=0)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Map (N, C, …), or (C, …), and indices of the same shape to images of `output_size`; see `max_unpool2d`."""
        return ops.max_unpool(self.dims, input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """Those of the pooling."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool2d(_MaxUnpool):
    """Put maxima back to where a `MaxPool2d` with `return_indices` found them, among zeros.

    Parameters
    ----------
    kernel_size, stride, padding : int or (height, width)
        Those of the pooling.
    """

    dims = 2


class MaxUnpool1d(_MaxUnpool):
    """`MaxUnpool2d` with one axis: maps (N, C, L) and its indices to (N, C, L_out)."""

    dims = 1


class MaxUnpool3d(_MaxUnpool):
    """`MaxUnpool2d` with three axes: maps (N, C, D, H, W) and its indices to (N, C, D_out, H_out, W_out)."""

    dims = 3
