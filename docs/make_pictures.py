"""Draws the pictures of docs/operations: ``python docs/make_pictures.py [FOLDER]``, docs/images/operations if none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinytorch import ConvProblem, Tensor, manual_seed, nn, ones
from tinytorch.conv.problem import Axis
from tinytorch.core.pool_ops import Pooling
from tinytorch.io import diagrams
from tinytorch.nn import functional as F

FOLDER = Path(__file__).parent / "images" / "operations"


def conv_axes(size: int, kernel: int, **options) -> tuple[Axis, ...]:
    """Both axes of a convolution with square images and kernels."""
    return ConvProblem.of((1, 1, size, size), (1, 1, kernel, kernel), **options).axes


def line(size: int, kernel: int, **options) -> Axis:
    """The axis of a convolution of a sequence."""
    return ConvProblem.of((1, 1, size), (1, 1, kernel), **options).axes[0]


def image(array) -> Tensor:
    """Rows of numbers as a batch of one image with one channel."""
    return Tensor(np.array(array, np.float64)[None, None])


def plane(tensor: Tensor) -> np.ndarray:
    """The first image's first channel."""
    return tensor.numpy()[0, 0]


# ---- convolution ----------------------------------------------------------------------------------------------------


def conv_window():
    return diagrams.gather(conv_axes(7, 3, stride=2, padding=1, dilation=2))


def conv_circular():
    padding = ((0, 1), (1, 2))
    return diagrams.gather(conv_axes(5, 3, padding=padding), [(0, 0), (3, 5)], "circular")


def conv_same():
    names = {"valid": "valid", "same, same_upper": "same", "same_lower": "same_lower"}
    return diagrams.strips({name: line(6, 3, stride=2, padding=padding) for name, padding in names.items()})


def conv_groups():
    shapes = {"groups=1": 1, "groups=2": 2, "groups=4, depthwise": 4}
    return diagrams.channels(
        {name: ConvProblem.of((1, 4, 8, 8), (4, 4 // g, 3, 3), groups=g) for name, g in shapes.items()}
    )


# ---- transposed convolution -----------------------------------------------------------------------------------------


def transposed_scatter():
    problem, _ = ConvProblem.transposed((1, 1, 3, 3), (1, 1, 3, 3), stride=2, padding=1, output_padding=1)
    return diagrams.scatter(problem.axes, [(0, 0), (0, 1)])


def transposed_sizes():
    return diagrams.strips({f"{size} pixels": line(size, 3, stride=2, padding=1) for size in (5, 6)})


# ---- pooling --------------------------------------------------------------------------------------------------------


def pooling_numbers():
    x = image([[1, 2, 5, 3], [4, 3, 1, 7], [8, 0, 2, 2], [4, 4, 6, 2]])
    return diagrams.sheets(
        {
            "input": plane(x),
            "max_pool2d(x, 2)": plane(F.max_pool2d(x, 2)),
            "avg_pool2d(x, 2)": plane(F.avg_pool2d(x, 2)),
        }
    )


def pooling_window():
    return diagrams.gather((Axis(6, 3, 2, 1, 1),) * 2, [(0, 0), (2, 1)])


def pooling_ceil():
    pooling = {f"ceil_mode={ceil}": Pooling(1, 3, 2, ceil_mode=ceil) for ceil in (False, True)}
    outs = {name: p.windows((6,)).out[0] for name, p in pooling.items()}
    return diagrams.strips(dict.fromkeys(pooling, line(6, 3, stride=2)), outs)


def pooling_unpool():
    x = image([[1, 2, 5, 3], [4, 3, 1, 7], [8, 0, 2, 2], [4, 4, 6, 2]])
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(y, indices, 2)
    return diagrams.sheets({"maxima": plane(y), "indices": plane(indices), "max_unpool2d": plane(back)})


# ---- padding --------------------------------------------------------------------------------------------------------


def padding_modes():
    x, widths = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), (2, 2, 1, 1)
    modes = ("constant", "reflect", "replicate", "circular")
    return diagrams.sheets({mode: plane(F.pad(x, widths, mode)) for mode in modes}, widths)


# ---- resampling -----------------------------------------------------------------------------------------------------

MODES = {
    "nearest": {"mode": "nearest"},
    "bilinear": {"mode": "bilinear"},
    "bilinear, align_corners": {"mode": "bilinear", "align_corners": True},
    "bicubic": {"mode": "bicubic"},
}


def resampling_modes():
    x = image([[0, 1], [2, 3]])
    return diagrams.sheets({name: plane(F.interpolate(x, 4, **options)) for name, options in MODES.items()})


def resampling_weights():
    """The matrix of a mode: what it makes of sequences with a single 1."""
    units = Tensor(np.eye(4)[None])
    modes = {"nearest": {}, "linear": {}, "linear, align_corners": {"align_corners": True}, "area, 4 to 2": {}}
    return diagrams.sheets(
        {
            name: F.interpolate(units, 2 if "to 2" in name else 8, mode=name.split(",")[0], **options).numpy()[0].T
            for name, options in modes.items()
        }
    )


def resampling_shuffle():
    x = Tensor(np.arange(16.0).reshape(1, 4, 2, 2))
    parts = {f"channel {i}": x.numpy()[0, i] for i in range(4)}
    return diagrams.sheets({**parts, "pixel_shuffle(x, 2)": plane(F.pixel_shuffle(x, 2))}, columns=5)


def resampling_unfold():
    x = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    return diagrams.sheets({"input": plane(x), "unfold(x, 2)": F.unfold(x, 2).numpy()[0]})


# ---- normalisation --------------------------------------------------------------------------------------------------


def behind(place: tuple[int, ...], layer: Callable[[Tensor], Tensor], shape=(3, 4, 3, 3)) -> np.ndarray:
    """Which numbers of the input one number of the output depends on."""
    x = Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
    layer(x)[place].backward()
    return x.grad != 0


def normalisation_statistics():
    layers = {
        "batch": nn.BatchNorm2d(4),
        "instance": nn.InstanceNorm2d(4),
        "group, num_groups=2": nn.GroupNorm(2, 4),
        "layer, (4, 3, 3)": nn.LayerNorm((4, 3, 3)),
        "layer, 3": nn.LayerNorm(3),
        "local response, size=3": nn.LocalResponseNorm(3),
    }
    return diagrams.masks({name: behind((1, 1, 1, 1), layer) for name, layer in layers.items()})


def normalisation_dropout():
    manual_seed(3)
    x = ones(3, 4, 6, 6)
    dropped = {
        "dropout": F.dropout(x, 0.3),
        "dropout2d": F.dropout2d(x, 0.3),
        "drop_block2d": F.drop_block2d(x, 0.3, 3),
        "stochastic_depth": F.stochastic_depth(x, 0.3, "row"),
    }
    return diagrams.masks({name: y.numpy() == 0 for name, y in dropped.items()}, "#555555", columns=2)


PICTURES = [
    conv_window, conv_circular, conv_same, conv_groups, transposed_scatter, transposed_sizes, pooling_numbers,
    pooling_window, pooling_ceil, pooling_unpool, padding_modes, resampling_modes, resampling_weights,
    resampling_shuffle, resampling_unfold, normalisation_statistics, normalisation_dropout,
]  # fmt: skip


def main(folder: Path = FOLDER) -> None:
    """Draw all of them, each under its function's name."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        diagrams.save(picture(), folder / f"{picture.__name__}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
