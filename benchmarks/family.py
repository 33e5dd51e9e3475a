"""The whole family of operations against PyTorch: one call each, in the shapes that networks have them.

Both libraries are given the same functional call, with the same arguments; input and weights require gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.report import Columns, Report
from benchmarks.timing import Row

TOLERANCE = 1e-4  # of the largest output or gradient
DIRECTIONS = {"forward + backward": True, "forward": False}
WEIGHTS = ("weight", "bias", "pointwise")  # arguments that are tensors

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """A call of a function.

    Parameters
    ----------
    function
        Its name, or several of them in one, given the library's ``nn.functional`` first.
    tensors
        Shapes of the tensors by the names of their arguments, the input first.
    options
        The other arguments.
    images
        Whether the input has channels, which may be last in memory: not if it is tokens or columns.
    """

    function: str | Callable[..., Any]
    tensors: dict[str, Shape]
    options: dict[str, Any]
    images: bool = True

    @property
    def name(self) -> str:
        """Of the function."""
        return self.function if isinstance(self.function, str) else self.function.__name__

    @property
    def text(self) -> str:
        """The arguments in one line."""
        shapes = {name: "×".join(map(str, shape)) for name, shape in self.tensors.items() if name != "bias"}
        told = {**shapes, **{name: value for name, value in self.options.items() if value is not None}}
        return " ".join(f"{name}={value}".replace(" ", "") for name, value in told.items()).removeprefix("input=")

    def __call__(self, functional: Any, tensors: dict[str, Any]) -> Any:
        """What the library of this ``nn.functional`` makes of the tensors."""
        if isinstance(self.function, str):
            return getattr(functional, self.function)(**tensors, **self.options)
        return self.function(functional, **tensors, **self.options)


def op(function: str | Callable[..., Any], *input: int, images: bool = True, **arguments: Any) -> Operation:
    """An operation on an input of this shape; of the arguments, weights and biases are given as shapes."""
    tensors: dict[str, Shape] = {name: arguments.pop(name) for name in WEIGHTS if name in arguments}
    return Operation(function, {"input": input, **tensors}, arguments, images)


class OperationTask:
    """An operation on random tensors, forward or (``training``) with all their gradients."""

    def __init__(self, operation: Operation, training: bool) -> None:
        rng = np.random.default_rng(0)
        self.operation, self.training = operation, training
        self.arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in operation.tensors.items()}
        for name in set(self.arrays) - {"input"}:
            if self.has_channels(name):
                self.arrays[name] /= np.float32(math.sqrt(math.prod(self.arrays[name].shape[1:])))

    def has_channels(self, name: str) -> bool:
        """Whether those of a tensor may be last in memory: images, and a kernel, which has as many axes."""
        return self.operation.images and self.arrays[name].ndim == self.arrays["input"].ndim

    def gradient(self, shape: Shape) -> np.ndarray:
        """Of an output of this shape, the same in all libraries."""
        return np.random.default_rng(1).standard_normal(shape, np.float32)


def depthwise_separable(functional: Any, input: Any, weight: Any, pointwise: Any, **options: Any) -> Any:
    """A filter for every channel, then a mixture of the channels."""
    return functional.conv2d(functional.conv2d(input, weight, groups=input.shape[1], **options), pointwise)


def padded_conv2d(functional: Any, input: Any, weight: Any, pad: Shape, mode: str) -> Any:
    """A convolution with another padding than zeros, as PyTorch's layer does it."""
    return functional.conv2d(functional.pad(input, pad, mode), weight)


def pool_unpool2d(functional: Any, input: Any, kernel_size: int) -> Any:
    """Encoder and decoder of SegNet, with nothing between them."""
    y, indices = functional.max_pool2d(input, kernel_size, return_indices=True)
    return functional.max_unpool2d(y, indices, kernel_size)


FAMILY = {
    "dilated convolution": (  # DeepLab
        op("conv2d", 8, 256, 28, 28, weight=(256, 256, 3, 3), padding=2, dilation=2),
        op("conv2d", 2, 512, 28, 28, weight=(512, 512, 3, 3), padding=4, dilation=4),
    ),
    "grouped convolution": (  # ResNeXt-50, 32×4d
        op("conv2d", 8, 128, 56, 56, weight=(128, 4, 3, 3), padding=1, groups=32),
        op("conv2d", 8, 256, 28, 28, weight=(256, 8, 3, 3), padding=1, groups=32),
        op("conv2d", 8, 512, 14, 14, weight=(512, 16, 3, 3), padding=1, groups=32),
        op("conv2d", 8, 256, 56, 56, weight=(256, 8, 3, 3), stride=2, padding=1, groups=32),
        op("conv2d", 8, 512, 28, 28, weight=(512, 16, 3, 3), stride=2, padding=1, groups=32),
    ),
    "strided convolution": (
        op("conv2d", 8, 128, 56, 56, weight=(128, 128, 3, 3), stride=2, padding=1),
        op("conv2d", 8, 64, 56, 56, weight=(128, 64, 5, 5), stride=2, padding=2),
        op("conv2d", 8, 256, 56, 56, weight=(512, 256, 1, 1), stride=2),
    ),
    "depthwise convolution": (  # MobileNet, EfficientNet
        op("conv2d", 8, 144, 56, 56, weight=(144, 1, 3, 3), padding=1, groups=144),
        op("conv2d", 8, 144, 56, 56, weight=(144, 1, 3, 3), stride=2, padding=1, groups=144),
        op("conv2d", 8, 240, 28, 28, weight=(240, 1, 5, 5), padding=2, groups=240),
        op("conv2d", 8, 144, 56, 56, weight=(144, 1, 5, 5), stride=2, padding=2, groups=144),
        op(depthwise_separable, 8, 128, 56, 56, weight=(128, 1, 3, 3), pointwise=(128, 128, 1, 1), padding=1),
    ),
    "conv1d": (  # audio
        op("conv1d", 8, 64, 4096, weight=(64, 64, 9), padding=4),
        op("conv1d", 8, 64, 4096, weight=(64, 64, 3), padding=4, dilation=4),
    ),
    "conv3d": (  # video, and factorised as in (2+1)D networks
        op("conv3d", 2, 16, 16, 56, 56, weight=(32, 16, 3, 3, 3), padding=1),
        op("conv3d", 2, 64, 8, 28, 28, weight=(64, 64, 3, 3, 3), padding=1),
        op("conv3d", 2, 64, 8, 28, 28, weight=(64, 64, 1, 3, 3), padding=(0, 1, 1)),
        op("conv3d", 2, 64, 8, 28, 28, weight=(64, 64, 3, 1, 1), padding=(1, 0, 0)),
    ),
    "transposed convolution": (
        op("conv_transpose1d", 8, 64, 1024, weight=(64, 32, 4), stride=2, padding=1),
        op("conv_transpose2d", 8, 128, 28, 28, weight=(128, 64, 2, 2), stride=2),  # U-Net
        op("conv_transpose2d", 8, 256, 16, 16, weight=(256, 128, 4, 4), stride=2, padding=1),  # DCGAN
        op("conv_transpose3d", 2, 64, 8, 14, 14, weight=(64, 32, 2, 2, 2), stride=2),
    ),
    "padding": (
        op(padded_conv2d, 8, 64, 56, 56, weight=(64, 64, 3, 3), pad=(1, 1, 1, 1), mode="reflect"),
        op(padded_conv2d, 8, 64, 56, 56, weight=(64, 64, 3, 3), pad=(1, 1, 1, 1), mode="circular"),
        op("pad", 8, 64, 56, 56, pad=(1, 1, 1, 1), mode="constant"),
        op("pad", 8, 64, 56, 56, pad=(1, 1, 1, 1), mode="reflect"),
        op("pad", 8, 64, 56, 56, pad=(1, 1, 1, 1), mode="replicate"),
        op("pad", 8, 64, 56, 56, pad=(1, 1, 1, 1), mode="circular"),
        op("pad", 8, 64, 4096, pad=(4, 4), mode="reflect"),
        op("pad", 2, 32, 16, 28, 28, pad=(1, 1, 1, 1, 1, 1), mode="replicate"),
    ),
    "max pooling": (
        op("max_pool1d", 8, 64, 4096, kernel_size=2),
        op("max_pool2d", 8, 64, 56, 56, kernel_size=2),
        op("max_pool2d", 8, 64, 112, 112, kernel_size=3, stride=2, padding=1),  # ResNet
        op("max_pool2d", 8, 64, 55, 55, kernel_size=3, stride=2, ceil_mode=True),  # SqueezeNet
        op("max_pool2d", 8, 64, 56, 56, kernel_size=3, stride=1, padding=1, dilation=2),
        op("max_pool2d", 8, 64, 56, 56, kernel_size=2, return_indices=True),
        op(pool_unpool2d, 8, 64, 56, 56, kernel_size=2),
        op("max_pool3d", 2, 64, 8, 56, 56, kernel_size=2),
        op("max_pool3d", 2, 64, 8, 56, 56, kernel_size=3, stride=2, padding=1),
        op("adaptive_max_pool1d", 8, 64, 4096, output_size=64),
        op("adaptive_max_pool2d", 8, 256, 28, 28, output_size=7),
        op("adaptive_max_pool3d", 2, 64, 8, 28, 28, output_size=4),
    ),
    "average and Lp pooling": (
        op("avg_pool1d", 8, 64, 4096, kernel_size=4),
        op("avg_pool2d", 8, 64, 56, 56, kernel_size=2),
        op("avg_pool2d", 8, 64, 56, 56, kernel_size=3, stride=2, padding=1),
        op("avg_pool2d", 8, 192, 28, 28, kernel_size=3, stride=1, padding=1, count_include_pad=False),  # Inception
        op("avg_pool2d", 8, 64, 55, 55, kernel_size=2, ceil_mode=True),
        op("avg_pool3d", 2, 64, 8, 56, 56, kernel_size=2),
        op("adaptive_avg_pool1d", 8, 64, 4096, output_size=64),
        op("adaptive_avg_pool2d", 8, 512, 28, 28, output_size=1),
        op("adaptive_avg_pool2d", 8, 256, 28, 28, output_size=6),  # windows that overlap
        op("adaptive_avg_pool3d", 2, 64, 8, 28, 28, output_size=1),
        op("lp_pool1d", 8, 64, 4096, norm_type=2, kernel_size=4),
        op("lp_pool2d", 8, 64, 56, 56, norm_type=2, kernel_size=2),
        op("lp_pool3d", 2, 64, 8, 28, 28, norm_type=2, kernel_size=2),
    ),
    "normalisation": (
        op("batch_norm", 8, 64, 4096, running_mean=None, running_var=None, weight=(64,), bias=(64,), training=True),
        op("batch_norm", 8, 64, 56, 56, running_mean=None, running_var=None, weight=(64,), bias=(64,), training=True),
        op(
            "batch_norm", 2, 64, 8, 28, 28, running_mean=None, running_var=None, weight=(64,), bias=(64,), training=True
        ),
        op("group_norm", 8, 64, 56, 56, num_groups=32, weight=(64,), bias=(64,)),
        op("group_norm", 8, 256, 28, 28, num_groups=32, weight=(256,), bias=(256,)),
        op("instance_norm", 8, 64, 56, 56, weight=(64,), bias=(64,)),
        op("layer_norm", 8, 64, 56, 56, normalized_shape=(64, 56, 56), weight=(64, 56, 56), bias=(64, 56, 56)),
        op("layer_norm", 8, 784, 192, normalized_shape=(192,), weight=(192,), bias=(192,), images=False),  # ConvNeXt
        op("local_response_norm", 8, 64, 55, 55, size=5),  # AlexNet
    ),
    "resampling": (
        op("interpolate", 8, 64, 4096, scale_factor=2, mode="linear"),
        op("interpolate", 8, 64, 28, 28, scale_factor=2, mode="nearest"),
        op("interpolate", 8, 64, 28, 28, scale_factor=2, mode="bilinear"),
        op("interpolate", 8, 64, 56, 56, scale_factor=2, mode="bilinear"),
        op("interpolate", 8, 64, 28, 28, scale_factor=2, mode="bicubic"),
        op("interpolate", 2, 32, 8, 28, 28, scale_factor=2, mode="trilinear"),
        op("pixel_shuffle", 8, 256, 28, 28, upscale_factor=2),
        op("pixel_unshuffle", 8, 64, 56, 56, downscale_factor=2),
        op("channel_shuffle", 8, 240, 28, 28, groups=4),  # ShuffleNet
        op("unfold", 8, 64, 28, 28, kernel_size=3, padding=1),
        op("unfold", 8, 3, 224, 224, kernel_size=16, stride=16),  # patches of a vision transformer
        op("fold", 8, 576, 784, output_size=(28, 28), kernel_size=3, padding=1, images=False),
    ),
}


def run(report: Report) -> None:
    """Measure every operation with its gradients, then forward alone."""
    report.peers = [peer for peer in report.peers if "operation" in peer.does]
    for direction, training in DIRECTIONS.items():
        rows = [row for group in FAMILY for row in run_group(report, group, direction, training)]
        columns: Columns = {
            "operation": lambda row: row.facts["name"],
            "arguments": lambda row: row.facts["problem"],
        }
        report.show(f"the family, {direction}", rows, columns, {})
        for group in FAMILY:
            report.summarise(f"{group}, {direction}", [row for row in rows if row.facts["group"] == group])
        report.summarise(f"the family, {direction}", rows)


def run_group(report: Report, group: str, direction: str, training: bool) -> list[Row]:
    """Measure the operations of one group."""
    return [
        row
        for operation in FAMILY[group]
        if report.wants(f"{group}, {operation.name} {operation.text}, {direction}")
        for row in report.compare(
            "operation", OperationTask(operation, training), TOLERANCE,
            group=group, name=operation.name, problem=operation.text, measured=direction,
        )
    ]  # fmt: skip
