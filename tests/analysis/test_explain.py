"""Explanations: every line of arithmetic holds, and every figure is that of an independent count."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_operations_pages import holds, value
from tinytorch.analysis import explain
from tinytorch.analysis.explain import text

small = st.integers(1, 4)


def lines_of(explanation):
    return [(answer, line) for q in explanation.questions for answer in q.answers for line in answer.substituted]


def is_true(line: str) -> bool:
    """Whether its sides are equal, names on the left left out."""
    arithmetic = re.sub(r"^(?:\w+ = )+(?=.)", "", line) if re.match(r"[A-Za-z]", line) else line
    return holds(arithmetic) if re.search(r"[=≈]", arithmetic) else value(arithmetic) is not None


def check_arithmetic(explanation):
    assert [line for _, line in lines_of(explanation) if not is_true(line)] == []
    for answer, line in lines_of(explanation):
        if isinstance(answer.number, int) and len(answer.substituted) == 1:
            assert value(re.split(r"[=≈]", line)[-1]) == answer.number, line


def test_wrong_arithmetic_would_be_found():
    assert is_true("H_out = W_out = ⌊(5 − 2) / 2⌋ + 1 = ⌊1.5⌋ + 1 = 2") and is_true("r = 3")
    assert not is_true("H_out = ⌊(5 − 2) / 2⌋ + 1 = 3") and not is_true("7 · 7 / 3² = 49 / 9 ≈ 5.5")


# ---- convolution --------------------------------------------------------------------------------------------


@st.composite
def convolutions(draw):
    """Input shape and options of a convolution that fits."""
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    per_axis = st.tuples(*[small] * dims)
    kernel, dilation = draw(per_axis), draw(per_axis)
    sizes = tuple(
        draw(st.integers(d * (k - 1) + 1, 9)) if d * (k - 1) < 9 else d * (k - 1) + 1
        for k, d in zip(kernel, dilation, strict=True)
    )
    padding = draw(st.one_of(st.tuples(*[st.integers(0, 3)] * dims), st.sampled_from(["same", "valid"])))
    stride = draw(per_axis)
    shape = (draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), *sizes)
    return shape, {
        "out_channels": groups * draw(st.integers(1, 2)), "kernel_size": kernel, "stride": stride, "padding": padding,
        "dilation": dilation, "groups": groups, "bias": draw(st.booleans()),
    }  # fmt: skip


def pads_of(shape, options):
    """(before, after) of every axis, from the definition of "same": ⌈size / stride⌉ outputs."""
    padding = options["padding"]
    if padding == "valid":
        return [(0, 0)] * (len(shape) - 2)
    if padding != "same":
        return [(p, p) for p in padding]
    pads = []
    for n, k, s, d in zip(shape[2:], options["kernel_size"], options["stride"], options["dilation"], strict=True):
        total = max(0, (math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n)
        pads.append((total // 2, total - total // 2))
    return pads


def taps_along(n, k, s, d, before, after):
    """(window, pixel) of every tap along an axis; pixels outside 0 … n − 1 are padding."""
    starts = [
        start for start in range(-before, n + after) if (start + before) % s == 0 and start + d * (k - 1) < n + after
    ]
    return [(o, start + d * t) for o, start in enumerate(starts) for t in range(k)], len(starts)


def test_winograd_in_groups_saves_as_much_and_is_not_counted_here():
    grouped = explain.conv((1, 2, 3, 3), 2, 3, padding=1, groups=2)
    assert grouped["winograd2"].number == 2.25 and "Whole tiles" not in grouped["winograd2"].note
    assert "Whole tiles" in explain.conv((1, 2, 3, 3), 2, 3, padding=1)["winograd2"].note


@settings(max_examples=100, deadline=None)
@given(convolutions())
def test_convolution_against_counting(case):
    shape, options = case
    explained = explain.conv(shape, **options)
    check_arithmetic(explained)
    geometry = zip(
        shape[2:], options["kernel_size"], options["stride"], options["dilation"], pads_of(shape, options), strict=True
    )
    axes = [taps_along(n, k, s, d, *pads) for n, k, s, d, pads in geometry]
    pairs = shape[0] * options["out_channels"] * shape[1] // options["groups"]
    inside = [sum(0 <= pixel < n for _, pixel in taps) for (taps, _), n in zip(axes, shape[2:], strict=True)]
    macs = pairs * math.prod(len(taps) for taps, _ in axes)
    assert explained["output_shape"].number == (shape[0], options["out_channels"], *(outs for _, outs in axes))
    assert explained["macs"].number == macs and explained["flops"].number == 2 * macs
    assert explained["padding_macs"].number == macs - pairs * math.prod(inside)
    seen = [
        [sum(pixel == p for _, pixel in taps) for p in range(n)] for (taps, _), n in zip(axes, shape[2:], strict=True)
    ]
    middle = [counts[len(counts) // 2] for counts in seen]
    corner, inner = explained["windows"].number[0], explained["windows"].number[-1]
    assert (corner, inner) == (math.prod(counts[0] for counts in seen), math.prod(middle))
    spans = [max(p for o, p in taps if o == 0) - min(p for o, p in taps if o == 0) + 1 for taps, _ in axes]
    assert list(explained["receptive_field"].number) == spans


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_convolution_against_pytorch(case):
    torch = pytest.importorskip("torch")
    shape, options = case
    dims = len(shape) - 2
    layer = getattr(torch.nn, f"Conv{dims}d")
    if options["padding"] == "same":
        options["stride"] = (1,) * dims
    theirs = layer(shape[1], device="meta", **options)
    explained = explain.conv(shape, **options)
    assert explained["output_shape"].number == tuple(theirs(torch.empty(shape, device="meta")).shape)
    learned = sum(p.numel() for p in theirs.parameters())
    assert explained["parameters"].number == learned
    assert explained["memory"].number == 4 * math.prod(explained["output_shape"].number)
    assert explained["total_memory"].number == 4 * (
        math.prod(shape) + learned + math.prod(explained["output_shape"].number)
    )


def test_float64_takes_twice_the_memory():
    one, two = (explain.conv((2, 3, 8, 8), 4, 3, dtype=dtype) for dtype in ("float32", "float64"))
    assert two["memory"].number == 2 * one["memory"].number and "float64" in two.given
    assert two["total_memory"].number == 2 * one["total_memory"].number


def test_dense_layer_of_the_pages():
    explained = explain.conv((1, 3, 8, 10), 16, 3, bias=False)
    assert explained["dense"].number == 3 * 8 * 10 * 16
    assert explained["dense_ratio"].number == 3 * 8 * 10 * 16 / (16 * 3 * 3 * 3)
    assert f"{3 * 8 * 10 * 16 * 6 * 8:,} weights" in explained["dense"].note


@pytest.mark.parametrize(
    ("kernel", "tile", "saved"), [(3, 2, 36 / 16), (3, 4, 144 / 36), (5, 2, 100 / 36), (7, 2, 196 / 64)]
)
def test_winograd_saves(kernel, tile, saved):
    explained = explain.conv((1, 4, 16, 16), 4, kernel, padding="same")
    assert explained[f"winograd{tile}"].number == saved
    check_arithmetic(explained)


def test_winograd_counts_whole_tiles():
    note = explain.conv((1, 1, 5, 5), 1, 3, padding=1)["winograd4"].note
    assert f"{4 * 36} multiplications, {225 / 144:.2f}× fewer" in note  # 2 × 2 tiles of 36 products


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"kernel_size": (3, 5)}, {"kernel_size": 1}])
def test_winograd_is_not_offered_where_it_does_not_apply(options):
    explained = explain.conv((1, 4, 16, 16), 4, **{"kernel_size": 3, **options})
    with pytest.raises(KeyError, match=r"has no answer 'winograd2'; it has output_shape, parameters"):
        explained["winograd2"]


def test_sequences_and_volumes_have_powers_of_their_own():
    line, solid = explain.conv((1, 2, 20), 2, 3), explain.conv((1, 2, 9, 9, 9), 2, 3, padding=1)
    assert line["winograd2"].number == 6 / 4 and solid["winograd2"].number == (6 / 4) ** 3
    assert solid["growth"].number == 8 and "cubic in the side" in solid["growth"].note
    assert len(solid["windows"].number) == 4 and solid["windows"].number == (8, 12, 18, 27)
    assert "kernel_ratio" not in str(line) and explain.conv((1, 2, 20), 2, 5)["kernel_ratio"].number == 5 / 3


def test_the_border_makes_a_difference_to_growth():
    explained = explain.conv((1, 1, 5, 5), 1, 3)
    assert explained["growth"].number == 64 / 9 and "The border makes the difference" in explained["growth"].note


@pytest.mark.parametrize(
    ("size", "padding", "words"),
    [
        (224, 1, "behind the last window lies 1 pixel of padding, less than a stride"),
        (224, 0, "behind the last window lies 1 pixel of the image"),
        (225, 0, "comes out even"),
    ],
)
def test_what_the_floor_leaves_out(size, padding, words):
    assert words in explain.conv((1, 1, size, size), 1, 3, stride=2, padding=padding)["output_shape"].note


def test_what_the_floor_leaves_out_may_be_mixed():
    note = explain.conv((1, 1, 6), 1, 3, stride=5, padding=1)["output_shape"].note
    assert "comes out even" in note
    note = explain.conv((1, 1, 8), 1, 3, stride=9, padding=1)["output_shape"].note
    assert "behind the last window lie 7 pixels, 6 of them of the image, less than a stride" in note


def test_same_padding_says_what_it_comes_to():
    note = explain.conv((1, 1, 6), 1, 3, stride=2, padding="same")["output_shape"].note
    assert "Padding 'same' comes to 0 before and 1 after." in note


def test_three_sizes_are_sequences():
    assert (
        "not an image without a batch, (3, 8, 8): that is 1,3,8,8" in explain.conv((3, 8, 8), 4, 3)["output_shape"].note
    )
    assert "not an image" not in explain.conv((3, 8, 9), 4, 3)["output_shape"].note


def test_an_empty_batch():
    explained = explain.conv((0, 3, 8, 8), 4, 3, padding=1)
    assert explained["macs"].number == explained["memory"].number == 0 and explained["growth"].number == 4
    check_arithmetic(explained)


def test_the_title_is_the_layer_in_python():
    explained = explain.conv((1, 4, 8, 8), 8, (3, 5), stride=2, padding="same", groups=2, bias=False)
    assert explained.layer == "Conv2d(4, 8, kernel_size=(3, 5), stride=2, padding='same', groups=2, bias=False)"
    assert explained.given == "(N, C, H, W) = (1, 4, 8, 8), float32"


@pytest.mark.parametrize(
    ("error", "message", "shape", "options"),
    [
        (ValueError, r"input must have 3 to 5 sizes .* got \(1, 3\)", (1, 3), {}),
        (ValueError, r"every size must be positive, got input \(1, 3, 0, 8\)", (1, 3, 0, 8), {}),
        (ValueError, r"out_channels must be a positive integer, got 0", (1, 3, 8, 8), {"out_channels": 0}),
        (ValueError, r"groups must divide both channel counts, got groups=2", (1, 3, 8, 8), {"groups": 2}),
        (ValueError, r"along the width the kernel spans 3 pixels", (1, 3, 8, 2), {}),
        (ValueError, r"dtype must be float32 or float64, got 'half'", (1, 3, 8, 8), {"dtype": "half"}),
        (TypeError, r"kernel_size must be an integer", (1, 3, 8, 8), {"kernel_size": 3.0}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [explain.conv, explain.conv_transpose])
def test_what_is_refused(function, error, message, shape, options):
    if "along the width" in message and function is explain.conv_transpose:
        message, options = r"the output has no pixel along the height", {"padding": 9}
    with pytest.raises(error, match=message):
        function(shape, **{"out_channels": 4, "kernel_size": 3, **options})


# ---- transposed ---------------------------------------------------------------------------------------------


@st.composite
def transposed(draw):
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    per_axis = st.tuples(*[small] * dims)
    kernel, stride, dilation = draw(per_axis), draw(per_axis), draw(per_axis)
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    sizes = tuple(draw(st.integers(1, 5)) for _ in range(dims))
    most = [(n - 1) * s + d * (k - 1) + e for n, s, d, k, e in zip(sizes, stride, dilation, kernel, extra, strict=True)]
    padding = tuple(draw(st.integers(0, min(2, m // 2))) for m in most)
    shape = (draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), *sizes)
    return shape, {
        "out_channels": groups * draw(st.integers(1, 2)), "kernel_size": kernel, "stride": stride, "padding": padding,
        "output_padding": extra, "groups": groups, "bias": draw(st.booleans()), "dilation": dilation,
    }  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(transposed())
def test_transposed_convolution_against_counting(case):
    shape, options = case
    explained = explain.conv_transpose(shape, **options)
    check_arithmetic(explained)
    names = ("kernel_size", "stride", "padding", "output_padding", "dilation")
    axes = []
    for n, k, s, p, e, d in zip(shape[2:], *(options[name] for name in names), strict=True):
        out = (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        landings = [(pixel, pixel * s + t * d - p) for pixel in range(n) for t in range(k)]
        axes.append((out, landings, k, s, d))
    outs = tuple(out for out, *_ in axes)
    assert explained["output_shape"].number == (shape[0], options["out_channels"], *outs)
    sources = [[[i for i, o in landings if o == place] for place in range(out)] for out, landings, *_ in axes]
    pairs = shape[0] * shape[1] * options["out_channels"] // options["groups"]
    inside = pairs * math.prod(sum(map(len, along)) for along in sources)
    macs = explained["macs"].number
    assert macs - explained["padding_macs"].number == inside
    assert macs == pairs * math.prod(n * k for n, k in zip(shape[2:], options["kernel_size"], strict=True))
    assert explained["terms"].number[0] == math.prod(len(along[0]) for along in sources)
    assert explained["terms"].number[-1] == math.prod(len(along[len(along) // 2]) for along in sources)
    endless = [field_of_endless(k, s, d) for _, _, k, s, d in axes]
    assert list(explained["receptive_field"].number) == endless


def field_of_endless(k, s, d):
    """Largest distance of two pixels of an endless line that are spread to the same place, plus one."""
    by_place = {}
    for pixel, tap in itertools.product(range(40), range(k)):
        by_place.setdefault(pixel * s + tap * d, []).append(pixel)
    return max(max(pixels) - min(pixels) + 1 for pixels in by_place.values())


@settings(max_examples=40, deadline=None)
@given(transposed())
def test_transposed_convolution_against_pytorch(case):
    torch = pytest.importorskip("torch")
    shape, options = case
    theirs = getattr(torch.nn, f"ConvTranspose{len(shape) - 2}d")(shape[1], device="meta", **options)
    explained = explain.conv_transpose(shape, **options)
    assert explained["output_shape"].number == tuple(theirs(torch.empty(shape, device="meta")).shape)
    assert explained["parameters"].number == sum(p.numel() for p in theirs.parameters())


def test_transposed_padding_by_name():
    explained = explain.conv_transpose((1, 2, 5, 7), 3, 3, stride=2, padding="same")
    assert explained["output_shape"].number == (1, 3, 10, 14)
    check_arithmetic(explained)


def test_a_checkerboard_shows():
    note = explain.conv_transpose((1, 1, 9, 9), 1, 3, stride=2)["terms"].note
    assert "inside, 1 to 4" in note
    assert "inside" not in explain.conv_transpose((1, 1, 9, 9), 1, 4, stride=2)["terms"].note


# ---- pooling ------------------------------------------------------------------------------------------------


@st.composite
def poolings(draw):
    dims = draw(st.integers(1, 3))
    kernel = draw(st.tuples(*[small] * dims))
    return (2, 3, *(draw(st.integers(k, 9)) for k in kernel)), {
        "kernel_size": kernel, "stride": draw(st.one_of(st.none(), st.tuples(*[small] * dims))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel), "ceil_mode": draw(st.booleans()),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(poolings(), st.sampled_from(["max", "avg"]))
def test_pooling_against_pytorch(case, mode):
    torch = pytest.importorskip("torch")
    shape, options = case
    theirs = getattr(torch.nn, f"{mode.capitalize()}Pool{len(shape) - 2}d")(**options)
    output = tuple(theirs(torch.zeros(shape)).shape)
    explained = explain.pool(shape, mode=mode, **options)
    check_arithmetic(explained)
    assert explained["output_shape"].number == output
    assert explained["operations"].number == math.prod(output) * math.prod(options["kernel_size"])
    assert explained["operations"].unit == {"max": "comparisons", "avg": "additions"}[mode]
    assert (explained["macs"].number, explained["parameters"].number) == (0, 0)
    assert explained["memory_ratio"].number == math.prod(shape) / math.prod(output)
    assert explained["receptive_field"].number == options["kernel_size"]


def test_windows_of_a_pooling_that_tiles():
    explained = explain.pool((1, 2, 8, 8), 2)
    assert explained["windows"].number == (1, 1, 1) and explained.layer == "MaxPool2d(kernel_size=2)"
    assert "A stride" not in explained["windows"].note


def test_a_last_window_is_left_out_that_would_begin_behind_the_image():
    explained = explain.pool((1, 1, 3), 1, stride=3, ceil_mode=True)
    assert explained["output_shape"].substituted[0].endswith("⌈2 / 3⌉ + 1 − 1 = 1 + 1 − 1 = 1")


def test_what_pooling_refuses():
    with pytest.raises(ValueError, match=r"mode must be 'max' or 'avg', got 'min'"):
        explain.pool((1, 1, 4, 4), 2, mode="min")
    with pytest.raises(ValueError, match=r"along the height the kernel spans 5 pixels"):
        explain.pool((1, 1, 4, 8), 5)
    with pytest.raises(ValueError, match=r"every size must be positive"):
        explain.pool((1, 0, 4, 4), 2)


# ---- batch normalisation and dense layers -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 5), (4, 5, 7), (2, 5, 3, 4), (2, 5, 3, 4, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_against_pytorch(shape, affine):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, f"BatchNorm{max(1, len(shape) - 2)}d")(5, affine=affine)
    explained = explain.batchnorm(shape, affine)
    check_arithmetic(explained)
    assert explained["output_shape"].number == shape
    assert explained["parameters"].number == sum(p.numel() for p in theirs.parameters())
    assert explained["buffers"].number == sum(b.numel() for b in theirs.buffers())
    assert explained["values"].number == math.prod(shape) // 5
    assert (explained["flops"].number, explained["training_flops"].number) == (
        2 * math.prod(shape),
        6 * math.prod(shape),
    )
    assert explained["memory"].number == 4 * math.prod(shape)


def test_batch_normalisation_without_tracking_keeps_nothing():
    explained = explain.batchnorm((2, 5, 3, 4), track_running_stats=False)
    assert explained.layer == "BatchNorm2d(5, track_running_stats=False)"
    with pytest.raises(KeyError, match="has no answer 'buffers'"):
        explained["buffers"]


@pytest.mark.parametrize(("shape", "bias"), [((4, 7), True), ((2, 3, 7), False), ((2, 3, 5, 7), True)])
def test_dense_layers_against_pytorch(shape, bias):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(7, 9, bias)
    explained = explain.linear(shape, 9, bias)
    check_arithmetic(explained)
    assert explained["output_shape"].number == tuple(theirs(torch.zeros(shape)).shape)
    assert explained["parameters"].number == sum(p.numel() for p in theirs.parameters())
    assert explained["macs"].number == math.prod(shape) * 9
    assert explained["receptive_field"].number == (7,)


@pytest.mark.parametrize("function", [explain.batchnorm, lambda shape: explain.linear(shape, 3)])
def test_what_layers_of_points_refuse(function):
    with pytest.raises(ValueError, match=r"must have 2 to 5 sizes, the batch first, got \(3,\)"):
        function((3,))
    with pytest.raises(ValueError, match=r"every size must be positive, got input \(2, 0\)"):
        function((2, 0))


def test_outputs_of_a_dense_layer_are_positive():
    with pytest.raises(ValueError, match=r"out_features must be a positive integer, got 0"):
        explain.linear((1, 4), 0)


# ---- stacks -------------------------------------------------------------------------------------------------

layers = st.builds(
    lambda kind, k, s, p, d: (kind, k, s, p if kind == "conv" else min(p, k // 2), d),
    st.sampled_from(["conv", "pool", "avgpool"]), small, small, st.integers(0, 3), st.integers(1, 3),
)  # fmt: skip


def word_of(kind, k, s, p, d):
    return f"{kind}{k}s{s}p{p}d{d}"


def pixels_seen(stack, output):
    """Pixels of an endless line that one output depends on."""
    places = {output}
    for _, k, s, p, d in reversed(stack):
        places = {place * s - p + t * d for place in places for t in range(k)}
    return places


@settings(max_examples=100, deadline=None)
@given(st.lists(layers, min_size=1, max_size=4))
def test_stacks_against_the_pixels_that_outputs_see(stack):
    explained = explain.stack(" ".join(word_of(*layer) for layer in stack))
    check_arithmetic(explained)
    for depth, stage in enumerate(explained.stages):
        seen, following = pixels_seen(stack[:depth], 0), pixels_seen(stack[:depth], 1)
        assert stage.field == max(seen) - min(seen) + 1
        assert (stage.start, stage.jump) == (min(seen), min(following) - min(seen))
        assert stage.centre == (min(seen) + max(seen)) / 2
    last = explained.stages[-1]
    assert (explained["receptive_field"].number, explained["jump"].number) == (last.field, last.jump)
    assert explained["start"].number == last.start


def test_stacks_against_pytorch():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 5, stride=2, groups=2),
        nn.AvgPool2d(3, stride=1, padding=1), nn.Conv2d(8, 6, 3, dilation=2, padding=2), nn.Flatten(), nn.Linear(6 * 6 * 10, 10),
    )  # fmt: skip
    words = "conv3p1c8 bn relu pool2, conv5s2g2 → avgpool3s1p1 -> conv3d2p2c6 flatten linear10"
    explained = explain.stack(words, (2, 3, 32, 48), dense=7)
    check_arithmetic(explained)
    x = torch.zeros(2, 3, 32, 48)
    for layer, stage in zip(theirs, explained.stages[1:], strict=True):
        x = layer(x)
        assert stage.shape == tuple(x.shape), stage
        assert stage.parameters == sum(p.numel() for p in layer.parameters()), stage
    learned = sum(p.numel() for p in theirs.parameters())
    assert explained["parameters"].number == learned
    assert explained["dense_ratio"].number == 3 * 32 * 48 * 7 / learned
    outputs = [stage.shape for stage in explained.stages[1:]]
    assert explained["memory"].number == 4 * sum(map(math.prod, outputs))
    macs = {1: 8 * 32 * 48 * 27, 5: 8 * 6 * 10 * 4 * 25, 7: 6 * 6 * 10 * 8 * 9, 9: 360 * 10}
    assert {place: stage.macs // 2 for place, stage in enumerate(explained.stages) if stage.macs} == macs
    assert explained["macs"].number == 2 * sum(macs.values())


def test_an_output_behind_a_dense_layer_sees_all():
    known, unknown = explain.stack("conv3 linear4 relu", (1, 1, 8, 9)), explain.stack("conv3 linear4 bn")
    assert known["receptive_field"].number == 9 and known.stages[-1].jump == 0
    assert unknown["receptive_field"].value == "all pixels"


def test_a_field_larger_than_the_image_is_mentioned():
    explained = explain.stack("conv9p4 conv9p4", (1, 1, 16, 20))
    assert "larger than the image of 16 × 20" in explained["receptive_field"].note


def test_points_alone_see_a_pixel():
    explained = explain.stack("relu bn", (1, 2, 4, 4))
    assert explained["receptive_field"].value == "1 pixel" and explained["parameters"].number == 4
    assert explain.stack("relu", (1, 2, 4, 4), dense=3)["dense"].number == 96


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("  ", r"stack must name layers, got '  '; write for example"),
        ("conv3 cnv3", r"word 2 of the stack, 'cnv3', begins with no layer: known are conv, .*; did you mean 'conv'\?"),
        ("conv3 9", r"word 2 of the stack, '9', begins with no layer"),
        ("conv", r"word 1 of the stack, 'conv', needs a positive kernel size behind its name: write for example conv3"),
        ("conv0", r"needs a positive kernel size"),
        ("linear", r"needs a positive number of outputs"),
        ("relu2", r"word 1 of the stack, 'relu2', has more than a name: write relu"),
        ("conv3 pool2c4", r"word 2 of the stack, 'pool2c4', has 'c4', which is no option of pool: there are s \(stride\)"),
        ("conv3s", r"has 's', which is no option of conv"),
        ("linear3s2", r"which is no option of linear: there are none"),
        ("conv3s2s2", r"has an option twice: write each once"),
        ("conv3d0", r"has a dilation of 0: the least is 1"),
    ],
)  # fmt: skip
def test_words_without_meaning(words, message):
    with pytest.raises(ValueError, match=message):
        explain.stack(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pool3p2", r"word 1 of the stack, 'pool3p2', does not fit: padding must be at most half the kernel"),
        ("pool2 conv9", r"word 2 of the stack, 'conv9', does not fit: kernel is larger than the padded input: along the height"),
        ("conv3c4 conv3g3", r"word 2 of the stack, 'conv3g3', does not fit: groups must divide both channel counts"),
        ("linear4 conv3", r"word 2 of the stack, 'conv3', does not fit: linear4 leaves no image to slide over"),
        ("flatten conv3", r"word 2 of the stack, 'conv3', does not fit: flatten leaves no image to slide over; put it in front"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit(words, message):
    with pytest.raises(ValueError, match=message):
        explain.stack(words, (1, 3, 8, 8))


def test_a_pooling_is_checked_without_an_input_too():
    with pytest.raises(ValueError, match=r"word 1 of the stack, 'pool3p2', does not fit: padding must be at most half"):
        explain.stack("pool3p2")


def test_a_dense_layer_needs_an_input_and_units():
    for shape, units in ((None, 10), ((1, 3, 8, 8), 0)):
        with pytest.raises(ValueError, match=r"dense must be a positive number of units over a known input"):
            explain.stack("conv3", shape, units)


# ---- one window ---------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 99))
def test_windows_against_sums(high, wide, more, seed):
    rng = np.random.default_rng(seed)
    image, kernel = rng.integers(-9, 9, (high + more, wide + 1)), rng.integers(-9, 9, (high, wide))
    explained = explain.window(image.tolist(), kernel.tolist())
    check_arithmetic(explained)
    outputs = [
        sum(int(image[h + i, w + j]) * int(kernel[i, j]) for i in range(high) for j in range(wide))
        for h in range(more + 1)
        for w in range(2)
    ]
    assert list(explained["outputs"].number) == outputs
    assert explained["first_output"].number == outputs[0]


def test_what_windows_refuse():
    with pytest.raises(ValueError, match=r"kernel must fit on the image, got \(2, 2\) on \(1, 2\)"):
        explain.window([[1, 2]], [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"image must have rows of one length, got \[\[1, 2\], \[3\]\]"):
        explain.window([[1, 2], [3]], [[1]])
    with pytest.raises(ValueError, match=r"kernel must have rows of one length"):
        explain.window([[1]], [])


# ---- numbers as text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1,024 B = 1.02 kB = 1 KiB"),
        (12_845_056, "12,845,056 B = 12.8 MB = 12.25 MiB"),
        (822_083_584, "822,083,584 B = 822 MB = 784 MiB"),
        (3 * 2**40, "3,298,534,883,328 B = 3.30 TB = 3 TiB"),
        (5 * 10**15, "5,000,000,000,000,000 B = 5,000 TB = 4,547 TiB"),
    ],
)
def test_bytes_in_both_units(count, expected):
    assert text.in_bytes(count) == expected


@given(st.floats(1e-3, 1e9))
def test_three_digits_are_right(value):
    shown = float(text.figure(value).replace(",", ""))
    assert abs(shown - value) <= 0.005 * value * (1 + 1e-9)


def test_words_and_times():
    assert [text.in_words(n) for n in (999_999, 10**6, 2_774_532_096, 10**12)] == ["", " ≈ 1.0 million", " ≈ 2.8 billion", " ≈ 1.0 trillion"]  # fmt: skip
    assert [text.in_time(s) for s in (0, 1.5, 150, 9000, 10**6)] == ["0 seconds", "1.5 seconds", "2.5 minutes", "2.5 hours", "11.6 days"]  # fmt: skip
    assert text.number(-3) == "−3" and text.percent(1, 8) == "12.5 %" and text.percent(0, 0) == "0 %"
