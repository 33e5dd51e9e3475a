"""Changes of size as layers: interpolation, pixels dealt to channels and back, and windows as columns."""

from __future__ import annotations

from tinytorch.conv.problem import check_count
from tinytorch.core import resample_ops as ops
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor


class Upsample(Module):
    """Images of another size, larger or smaller; see `resample_ops.interpolate`.

    Parameters
    ----------
    size : int or sequence of int, optional
        Pixels of the output along each axis.
    scale_factor : float or sequence of float, optional
        Instead of `size`: by how much the images grow.
    mode : str
        "nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear" or "area".
    align_corners : bool, optional
        In the linear and cubic modes, whether the centres of the corner pixels coincide.
    recompute_scale_factor : bool, optional
        Whether the ratio of the sizes counts in place of `scale_factor`.
    """

    def __init__(
        self,
        size: ops.Size | None = None,
        scale_factor: ops.Scale | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        ops.check_resizing(size, scale_factor, mode, align_corners, recompute_scale_factor)
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, …) to the same with images of another size."""
        return ops.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        """The size or the factor, and the mode."""
        change = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{change}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` of images (N, C, H, W) in mode "nearest"."""

    def __init__(self, size: ops.Size | None = None, scale_factor: ops.Scale | None = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of images (N, C, H, W) in mode "bilinear", with the corners aligned."""

    def __init__(self, size: ops.Size | None = None, scale_factor: ops.Scale | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class PixelShuffle(Module):
    """Lay r² channels out as the r × r pixels of one: (…, C · r², H, W) becomes (…, C, H · r, W · r).

    Parameters
    ----------
    upscale_factor : int
        r.
    """

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = check_count("upscale_factor", upscale_factor, "pixels")

    def forward(self, input: Tensor) -> Tensor:
        """Map (…, C · r², H, W) to (…, C, H · r, W · r)."""
        return ops.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Make r² channels of r × r pixels: the inverse of `PixelShuffle`.

    Parameters
    ----------
    downscale_factor : int
        r.
    """

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = check_count("downscale_factor", downscale_factor, "pixels")

    def forward(self, input: Tensor) -> Tensor:
        """Map (…, C, H · r, W · r) to (…, C · r², H, W)."""
        return ops.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Take channels from several groups in turn, so that a grouped convolution after this one sees all of them.

    Parameters
    ----------
    groups : int
        Divides the channels.
    """

    def __init__(self, groups: int) -> None:
        self.groups = check_count("groups", groups, "groups of channels")

    def forward(self, input: Tensor) -> Tensor:
        """Reorder the channels of (N, C, …)."""
        return ops.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        """The number of groups."""
        return f"groups={self.groups}"


class _Windows(Module):
    """What Unfold and Fold share: the windows."""

    def __init__(
        self, kernel_size: ops.Size, dilation: ops.Size = 1, padding: ops.Size = 0, stride: ops.Size = 1
    ) -> None:
        ops.check_windows(kernel_size, dilation, padding, stride, self._spatial_axes(kernel_size))
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def _spatial_axes(self, kernel_size: ops.Size) -> int:
        return ops.spatial_axes("kernel_size", kernel_size)

    def extra_repr(self) -> str:
        """The windows."""
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Unfold(_Windows):
    """Make a column of every window: (N, C, H, W) becomes (N, C · pixels of a window, windows).

    Parameters
    ----------
    kernel_size : int or sequence of int
        Two numbers; one or three for sequences and volumes.
    dilation, padding, stride : int or sequence of int
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) or (C, H, W) to columns."""
        return ops.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(_Windows):
    """Add columns up to the images whose windows they are: the transpose of `Unfold`.

    Parameters
    ----------
    output_size : int or sequence of int
        Pixels of the images: two numbers; one or three for sequences and volumes.
    kernel_size, dilation, padding, stride : int or sequence of int
    """

    def __init__(
        self,
        output_size: ops.Size,
        kernel_size: ops.Size,
        dilation: ops.Size = 1,
        padding: ops.Size = 0,
        stride: ops.Size = 1,
    ) -> None:
        self.output_size = output_size
        super().__init__(kernel_size, dilation, padding, stride)

    def _spatial_axes(self, kernel_size: ops.Size) -> int:
        return ops.spatial_axes("output_size", self.output_size)

    def forward(self, input: Tensor) -> Tensor:
        """Map columns (N, C · pixels of a window, windows) to (N, C, H, W)."""
        return ops.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """The images and the windows."""
        return f"output_size={self.output_size}, {super().extra_repr()}"
