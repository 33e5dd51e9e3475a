"""Pooling as layers."""

from __future__ import annotations

from tinytorch.core import pool_ops as ops
from tinytorch.core.images import Pair
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor


class _Pool2d(Module):
    """What the two pooling layers share: their settings."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, _, _ = ops.check_pooling(kernel_size, stride, padding)
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    def extra_repr(self) -> str:
        """Window, step and border."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool2d):
    """Largest value of every window.

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        By default the kernel size, so that windows do not overlap.
    padding : int or (height, width)
        Border of −∞, at most half the kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H_out, W_out)."""
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool2d):
    """Mean of every window.

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        By default the kernel size, so that windows do not overlap.
    padding : int or (height, width)
        Border of zeros, which count in the mean; at most half the kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H_out, W_out)."""
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class AdaptiveAvgPool2d(Module):
    """Mean of every window, with as many windows as the output is to have pixels; see `pool_ops`.

    Parameters
    ----------
    output_size : int or (height, width)
        Pixels of the output; None for a side that stays as it is. 1 is the mean over the whole image.
    """

    def __init__(self, output_size: ops.OutputSize) -> None:
        ops.check_output_size(output_size)
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, height, width)."""
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"
