"""The ONNX project's backend node tests, run through ``tinytorch.nn.functional``.

Each test is a model of one node with stored inputs and outputs. A function here for each operator carries the node's
attributes over to the arguments of ours; what has no spelling there is refused as `Foreign`, and listed below.
Operators: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

from tests.agreement.trials import DIFFERS, FOREIGN, REFUSED, Difference, Foreign, Trial, attempt, call, gap
from tinytorch import Tensor
from tinytorch.nn import functional

TOLERANCE = 1e-5
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 5e-4}  # tolerance of outputs stored to four digits


def named(*names: str) -> Callable[[Any], bool]:
    """Whether a case is one of these tests."""
    return lambda case: case.name.removeprefix("test_") in names


def among(*parts: str, but: Sequence[str] = ()) -> Callable[[Any], bool]:
    """Whether a case has one of these words in its name, and none of those."""
    return lambda case: any(p in case.name for p in parts) and not any(p in case.name for p in but)


DIFFERENCES: list[Difference] = [
    Difference(
        "MaxPool", FOREIGN, "indices that count down the columns", named("maxpool_with_argmax_2d_precomputed_strides")
    ),
    Difference("MaxPool", REFUSED, "integer input", named("maxpool_2d_uint8")),
    Difference("MaxPool", REFUSED, "padding of more than half the kernel", named("maxpool_2d_pads")),
    Difference(
        "AveragePool",
        REFUSED,
        "padding of more than half the kernel",
        named("averagepool_2d_pads", "averagepool_2d_pads_count_include_pad"),
    ),
    Difference("LpPool", REFUSED, "padding of more than half the kernel", named("lppool_2d_pads")),
    Difference(
        "Resize",
        FOREIGN,
        "coordinates that are neither half_pixel nor align_corners",
        among("crop_and_resize", "symmetric", "asymmetric", "ceil_half_pixel", "floor_align_corners"),
    ),
    Difference("Resize", FOREIGN, "a cubic that leaves outside pixels out", among("exclude_outside")),
    Difference("Resize", FOREIGN, "a = −0.75 in an antialiased cubic; PyTorch's is −0.5", among("cubic_antialias")),
    Difference("Resize", DIFFERS, "ONNX repeats the edge under the antialiasing filter", among("linear_antialias")),
    Difference(
        "Resize",
        DIFFERS,
        "between two pixels at equal distance ONNX takes the lower, nearest-exact the upper one",
        among(
            "_sizes_nearest", but=("align_corners", "half_pixel", "asymmetric", "upsample_sizes_nearest_not_smaller")
        ),
    ),
    Difference(
        "Resize",
        DIFFERS,
        "ONNX aligns the corners of an image of scale · size pixels before it is rounded down",
        among("downsample_scales_linear_align_corners", "downsample_scales_cubic_align_corners"),
    ),
    Difference(
        "Resize",
        DIFFERS,
        "one output pixel: ONNX takes the first pixel, PyTorch the middle",
        among("pytorch_half_pixel"),
    ),
]


# ---- arguments ----------------------------------------------------------------------------------------------


def at(name: str, rank: int | None = None) -> Callable:
    """Our function of this name, in `rank` dimensions."""
    return partial(call, getattr(functional, name if rank is None else f"{name}{rank}d"))


def numbers(tensor: Tensor) -> list:
    """An input that holds sizes or the like, as Python numbers."""
    return tensor.numpy().tolist()


def padding(rank: int, auto_pad: str, pads: Sequence[int] | None) -> Any:
    """`auto_pad` and `pads` (all that lie before, then all after) as our padding."""
    if auto_pad != "NOTSET":
        return auto_pad.lower()
    pairs = list(zip(pads[:rank], pads[rank:], strict=True)) if pads else [(0, 0)] * rank
    symmetric = all(before == after for before, after in pairs)
    return tuple(before for before, _ in pairs) if symmetric else tuple(pairs)


# ---- convolution --------------------------------------------------------------------------------------------


def conv(x, weight, bias=None, *, kernel_shape=None, strides=1, auto_pad="NOTSET", pads=None, dilations=1, group=1):
    rank = x.ndim - 2
    return at("conv", rank)(x, weight, bias, strides, padding(rank, auto_pad, pads), dilations, group)


def conv_transpose(
    x, weight, bias=None, *, kernel_shape=None, strides=None, auto_pad="NOTSET", pads=None, dilations=None, group=1,
    output_padding=None, output_shape=None,
):  # fmt: skip
    """ONNX derives the padding from `output_shape`, and SAME means an output of input · stride; if that is more than
    there is without padding, zeros follow."""
    rank = x.ndim - 2
    ones, zeros = (1,) * rank, (0,) * rank
    strides, dilations, extra = strides or ones, dilations or ones, output_padding or zeros
    if auto_pad.startswith("SAME"):
        output_shape = output_shape or [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if output_shape:
        whole = [
            (n - 1) * s + more + (k - 1) * d + 1
            for n, s, more, k, d in zip(x.shape[2:], strides, extra, weight.shape[2:], dilations, strict=True)
        ]
        totals = [a - b for a, b in zip(whole, output_shape, strict=True)]
        extra = [more - min(total, 0) for more, total in zip(extra, totals, strict=True)]
        pads = split([max(total, 0) for total in totals], auto_pad == "SAME_UPPER")
    pads = padding(rank, "NOTSET", pads)
    return at("conv_transpose", rank)(x, weight, bias, strides, pads, extra, group, dilations)


def split(totals: Sequence[int], upper: bool) -> list[int]:
    """Pads before and after that share these totals; the odd pixel lies after if `upper`, else before."""
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*less, *more] if upper else [*more, *less]


# ---- pooling ------------------------------------------------------------------------------------------------


def max_pool(
    x, *, kernel_shape, strides=1, auto_pad="NOTSET", pads=None, dilations=1, ceil_mode=0, storage_order=0
):  # fmt: skip
    if storage_order:
        raise Foreign("indices that count down the columns")
    rank = x.ndim - 2
    pads = padding(rank, auto_pad, pads)
    y, indices = at("max_pool", rank)(x, kernel_shape, strides, pads, dilations, bool(ceil_mode), return_indices=True)
    return y, Tensor(indices.numpy() + first_of_plane(x.shape))


def first_of_plane(shape: Sequence[int]) -> np.ndarray:
    """Number of each plane's first pixel: ONNX counts pixels through the whole tensor, PyTorch through a plane."""
    planes = np.arange(prod(shape[:2])).reshape(*shape[:2], *[1] * (len(shape) - 2))
    return planes * prod(shape[2:])


def avg_pool(
    x, *, kernel_shape, strides=1, auto_pad="NOTSET", pads=None, dilations=None, ceil_mode=0, count_include_pad=0
):
    rank = x.ndim - 2
    pads, more = padding(rank, auto_pad, pads), {"dilation": dilations} if dilations else {}
    return at("avg_pool", rank)(x, kernel_shape, strides, pads, bool(ceil_mode), bool(count_include_pad), **more)


def lp_pool(x, *, kernel_shape, p=2, strides=1, auto_pad="NOTSET", pads=None, dilations=1, ceil_mode=0):
    """ONNX sums |x|^p, PyTorch x^p."""
    rank = x.ndim - 2
    more = {"padding": padding(rank, auto_pad, pads), "dilation": dilations}
    return at("lp_pool", rank)(Tensor(abs(x.numpy())), p, kernel_shape, strides, bool(ceil_mode), **more)


def global_avg_pool(x):
    return at("adaptive_avg_pool", x.ndim - 2)(x, 1)


def global_max_pool(x):
    return at("adaptive_max_pool", x.ndim - 2)(x, 1)


def max_unpool(x, indices, output_shape=None, *, kernel_shape, strides, pads=None):
    """Indices count in the smallest output; a larger `output_shape` adds zeros at the end."""
    rank = x.ndim - 2
    pads = padding(rank, "NOTSET", pads)
    sizes = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(x.shape[2:], strides, kernel_shape, pads, strict=True)]
    own = Tensor(indices.numpy() - first_of_plane([*x.shape[:2], *sizes]))
    y = at("max_unpool", rank)(x, own, kernel_shape, strides, pads, sizes)
    after = [0] * x.ndim if output_shape is None else np.subtract(numbers(output_shape), y.shape)
    return at("pad")(y, [width for more in after[::-1] for width in (0, int(more))])


# ---- normalisation ------------------------------------------------------------------------------------------


def batch_norm(x, scale, bias, mean, var, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    """ONNX moves the running variance towards the biased one of the batch, PyTorch towards the unbiased one."""
    before, count = momentum * var.numpy(), x.size // x.shape[1]
    y = at("batch_norm")(x, mean, var, scale, bias, bool(training_mode), 1 - momentum, epsilon)
    biased = before + (var.numpy() - before) * np.float32((count - 1) / count)
    return y, mean, Tensor(biased) if training_mode else var


def instance_norm(x, scale, bias, *, epsilon=1e-5):
    return at("instance_norm")(x, weight=scale, bias=bias, eps=epsilon)


def group_norm(x, scale, bias, *, num_groups, epsilon=1e-5):
    return at("group_norm")(x, num_groups, scale, bias, epsilon)


def layer_norm(x, scale, bias=None, *, axis=-1, epsilon=1e-5):
    return at("layer_norm")(x, x.shape[axis:], scale, bias, epsilon)


def rms_norm(x, scale, *, axis=-1, epsilon=1e-5):
    return at("rms_norm")(x, x.shape[axis:], scale, epsilon)


def local_response_norm(x, *, size, alpha=1e-4, beta=0.75, bias=1.0):
    return at("local_response_norm")(x, size, alpha, beta, bias)


def lp_normalise(x, *, axis=-1, p=2):
    return at("normalize")(x, p, axis)


def mean_variance_normalise(x):
    """Over all axes but the channels, by default."""
    return at("batch_norm")(x, None, None, training=True, eps=1e-9)


# ---- padding and resampling ---------------------------------------------------------------------------------


def pad(x, pads, value=None, axes=None, *, mode="constant"):
    axes = range(x.ndim) if axes is None else numbers(axes)
    widths = [(0, 0)] * x.ndim
    before, after = np.split(np.array(numbers(pads)), 2)
    for axis, *width in zip(axes, before.tolist(), after.tolist(), strict=True):
        widths[axis] = tuple(width)
    while widths and widths[0] == (0, 0):
        del widths[0]
    ours = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    return at("pad")(x, [w for pair in widths[::-1] for w in pair], ours, 0 if value is None else value.item())


def resize(x, roi=None, scales=None, sizes=None, *, axes=None, keep_aspect_ratio_policy="stretch", **options):
    axes = list(axes or range(x.ndim))
    how = interpolation(x.ndim - 2, **options)
    if scales is not None:
        factors = [1.0] * x.ndim
        for axis, scale in zip(axes, numbers(scales), strict=True):
            factors[axis] = scale
        return at("interpolate")(x, scale_factor=factors[2:], **how)
    shape = list(x.shape)
    ratios = [size / shape[axis] for axis, size in zip(axes, numbers(sizes), strict=True)]
    one = {"not_larger": min(ratios), "not_smaller": max(ratios)}.get(keep_aspect_ratio_policy)
    for axis, ratio in zip(axes, ratios, strict=True):
        shape[axis] = int(shape[axis] * (one or ratio) + 0.5)
    return at("interpolate")(x, shape[2:], **how)


def interpolation(
    rank, *, mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor", antialias=0,
    cubic_coeff_a=-0.75, exclude_outside=0, extrapolation_value=0.0,
):  # fmt: skip
    """What of Resize's options interpolate can express, as its arguments."""
    where = coordinate_transformation_mode
    if mode == "nearest":
        known = {("asymmetric", "floor"): "nearest", ("half_pixel", "round_prefer_floor"): "nearest-exact"}
        if (where, nearest_mode) not in known:
            raise Foreign(f"nearest {where}, {nearest_mode}")
        return {"mode": known[where, nearest_mode]}
    if where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise Foreign(f"{mode} {where}")
    if mode == "cubic" and (exclude_outside or cubic_coeff_a != (-0.5 if antialias else -0.75)):
        raise Foreign(f"cubic with a={cubic_coeff_a}, {exclude_outside=}, {antialias=}")
    ours = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}
    return {"mode": ours[mode, rank], "align_corners": where == "align_corners", "antialias": bool(antialias)}


def upsample(x, scales, *, mode="nearest"):
    return at("interpolate")(x, scale_factor=numbers(scales)[2:], mode=mode)


def depth_to_space(x, *, blocksize, mode="DCR"):
    """DCR has the channel innermost, CRD (pixel_shuffle) the position in the block."""
    ordered = at("channel_shuffle")(x, blocksize**2) if mode == "DCR" else x
    return at("pixel_shuffle")(ordered, blocksize)


def space_to_depth(x, *, blocksize, mode="DCR"):
    y = at("pixel_unshuffle")(x, blocksize)
    return at("channel_shuffle")(y, x.shape[1]) if mode == "DCR" else y


def col2im(x, image_shape, block_shape, *, dilations=1, pads=None, strides=1):
    sizes, blocks = numbers(image_shape), numbers(block_shape)
    return at("fold")(x, sizes, blocks, dilations, padding(len(sizes), "NOTSET", pads), strides)


OPERATORS: dict[str, Callable] = {
    "AveragePool": avg_pool,
    "BatchNormalization": batch_norm,
    "Col2Im": col2im,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "GlobalAveragePool": global_avg_pool,
    "GlobalMaxPool": global_max_pool,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_normalise,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "MeanVarianceNormalization": mean_variance_normalise,
    "Pad": pad,
    "RMSNormalization": rms_norm,
    "Resize": resize,
    "SpaceToDepth": space_to_depth,
    "Upsample": upsample,
}


# ---- trials -------------------------------------------------------------------------------------------------


@cache
def cases() -> dict[str, list[Any]]:
    """The node tests of each operator, of models with this one node."""
    with warnings.catch_warnings(action="ignore"):
        every: list[Any] = load_model_tests(kind="node")
    single = [case for case in every if len(case.model.graph.node) == 1]
    return {op: [case for case in single if case.model.graph.node[0].op_type == op] for op in OPERATORS}


@cache
def trials(op: str) -> list[Trial]:
    """A trial of every node test of an operator."""
    return [_trial(op, case) for case in cases()[op]]


def _trial(op: str, case: Any) -> Trial:
    node = case.model.graph.node[0]
    inputs, outputs = case.data_sets[0]
    attributes = {a.name: _attribute(a) for a in node.attribute}
    arguments = list(_arguments(node, inputs))

    def run() -> str:
        results = call(OPERATORS[op], *arguments, **attributes)
        results = [results] if isinstance(results, Tensor) else results
        tolerance = ROUNDED.get(case.name, TOLERANCE)
        pairs = zip(results, outputs, strict=False)  # later outputs are optional
        return "; ".join(filter(None, (gap("output", mine.numpy(), theirs, tolerance) for mine, theirs in pairs)))

    spoken = ", ".join([*(f"{a.dtype}{list(a.shape)}" for a in inputs), *(f"{k}={v}" for k, v in attributes.items())])
    return Trial(op, case, f"{case.name}: {op}({spoken})", *attempt(run, lambda: ["input", "padding", "uint8"]))


def _arguments(node: Any, inputs: Sequence[Any]) -> Iterator[Tensor | None]:
    """The node's inputs, None for each that is left out."""
    given = iter(inputs)
    return (Tensor(np.array(next(given))) if name else None for name in node.input)


def _attribute(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else tuple(value) if isinstance(value, list) else value
