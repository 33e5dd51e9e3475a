"""Interpolation, shuffles, unfold and fold, as functions and layers: against their definitions written as loops, PyTorch,
finite differences, and when misused.
"""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.oracle.gradcheck import check_gradients
from tests.oracle.torch_twin import compare
from tinytorch import Tensor, nn
from tinytorch.kernels import jit
from tinytorch.nn import functional as F

TRIALS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(TRIALS, max_examples=50)
DTYPES = st.sampled_from([np.float32, np.float64])
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
MODES = {d: ("nearest", "nearest-exact", "area", LINEAR[d]) + ("bicubic",) * (d == 2) for d in (1, 2, 3)}


def normal(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def integers(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).integers(-9, 10, shape).astype(dtype)


def channels_last(array):
    """The same array, its channels (axis 1) neighbours in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


# ---- the definition: a matrix for each axis, entry by entry -------------------------------------------------------


def matrix(mode, size, out, factor=None, corners=False, antialias=False):
    """What `mode` says of one axis, as a dense matrix in float64; places are exact where the sizes are small."""
    weights = np.zeros((out, size))
    step = size / out if factor is None else 1 / factor
    if corners:
        step = (size - 1) / (out - 1) if out > 1 else 0
    for i in range(out):
        if mode == "area":
            pixels = range(i * size // out, math.ceil((i + 1) * size / out))
            weights[i, pixels] = 1 / len(pixels)
        elif mode.startswith("nearest"):
            place = i * step if mode == "nearest" else (i + 0.5) * step
            weights[i, min(math.floor(place + 1e-9), size - 1)] = 1
        elif antialias:
            weights[i] = antialiased(mode, (i + 0.5) * step, max(step, 1), size)
        else:
            place = i * step if corners else (i + 0.5) * step - 0.5
            for tap in range(math.floor(place) - 1, math.floor(place) + 3):
                weights[i, min(max(tap, 0), size - 1)] += KERNELS[mode](place - tap)
    return weights


def antialiased(mode, middle, stretch, size):
    row, radius = np.zeros(size), {"bilinear": 1, "bicubic": 2}[mode]
    for tap in range(max(int(middle - radius * stretch + 0.5), 0), min(int(middle + radius * stretch + 0.5), size)):
        row[tap] = KERNELS[f"antialiased {mode}"]((tap + 0.5 - middle) / stretch)
    return row / row.sum()


def triangle(x):
    return max(1 - abs(x), 0)


def cubic(x, a):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0


KERNELS = {
    **dict.fromkeys([*LINEAR.values(), "antialiased bilinear"], triangle),
    "bicubic": lambda x: cubic(x, -0.75),
    "antialiased bicubic": lambda x: cubic(x, -0.5),
}


def applied(x, matrices):
    """A matrix along each spatial axis."""
    for axis, weights in enumerate(matrices, start=2):
        x = np.moveaxis(np.tensordot(weights, x, (1, axis)), 0, axis)
    return x


@st.composite
def changes(draw):
    """Images' sizes, and arguments of `interpolate`."""
    dims = draw(st.integers(1, 3))
    sizes = draw(st.tuples(*[st.integers(1, 9)] * dims))
    options = {"mode": draw(st.sampled_from(MODES[dims]))}
    if draw(st.booleans()):
        options["size"] = draw(st.tuples(*[st.integers(1, 14)] * dims))
    else:
        options["scale_factor"] = draw(st.tuples(*[st.sampled_from([0.3, 0.5, 0.6, 1, 1.5, 1.7, 2.0, 2.6, 3])] * dims))
        options["recompute_scale_factor"] = draw(st.sampled_from([None, False, True]))
    if "linear" in options["mode"] or options["mode"] == "bicubic":
        options["align_corners"] = draw(st.sampled_from([None, False, True]))
        options["antialias"] = dims == 2 and draw(st.booleans())
    return sizes, options


def result_sizes(sizes, options):
    return options.get("size") or [int(n * f) for n, f in zip(sizes, options["scale_factor"], strict=True)]


def rule_of_thumb(sizes, options):
    """Whether PyTorch heeds the factor although the sizes are the same, or twice as large, as without one."""
    return "scale_factor" in options and any(
        out in (n, 2 * n) for n, out in zip(sizes, result_sizes(sizes, options), strict=True)
    )


@TRIALS
@given(changes())
def test_interpolation_is_a_matrix_on_each_axis(change):
    sizes, options = change
    outs = result_sizes(sizes, options)
    assume(min(outs) > 0 and not rule_of_thumb(sizes, options))
    factors = options.get("scale_factor", (None,) * len(sizes))
    if options.get("recompute_scale_factor"):
        factors = (None,) * len(sizes)
    corners, antialias = bool(options.get("align_corners")), options.get("antialias", False)
    matrices = [matrix(options["mode"], *axis, corners, antialias) for axis in zip(sizes, outs, factors, strict=True)]
    x = Tensor(normal(2, 3, *sizes), requires_grad=True)
    y = F.interpolate(x, **options)
    np.testing.assert_allclose(y.numpy(), applied(x.data, matrices), rtol=1e-11, atol=1e-11)
    weights = normal(*y.shape, seed=1)
    y.backward(weights)
    np.testing.assert_allclose(x.grad, applied(weights, [m.T for m in matrices]), rtol=1e-11, atol=1e-11)


@TRIALS
@given(changes(), DTYPES, st.sampled_from([(2, 1), (1, 3), (2, 9), (1, 17)]), st.booleans())
def test_interpolation_as_torch(change, dtype, lead, last):
    torch = pytest.importorskip("torch")
    sizes, options = change
    outs = result_sizes(sizes, options)
    assume(min(outs) > 0)
    # PyTorch's gradient does not belong to its result there, and its antialiasing of one column is all one pixel.
    assume(not rule_of_thumb(sizes, options) or options["mode"] in ("area", "nearest-exact", LINEAR[len(sizes)]))
    assume(not (options.get("antialias") and (outs[-1] == 1 or rule_of_thumb(sizes, options))))
    x = normal(*lead, *sizes, dtype=dtype)
    x = channels_last(x) if last else x
    compare(lambda t: F.interpolate(t, **options), lambda t: torch.nn.functional.interpolate(t, **options), x)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_picks_the_pixels_that_torch_picks(mode, dtype):
    torch = pytest.importorskip("torch")
    for size, factor in itertools.product(range(1, 33), [8 / 7, 9 / 7, 1.29, 2.05, 1.03, 5 / 13, 1 / 3, 29 / 28]):
        x = np.arange(2.0 * size, dtype=dtype).reshape(1, 1, size, 2)
        if int(size * factor):
            options = {"scale_factor": (factor, 1.0), "mode": mode}
            expected = torch.nn.functional.interpolate(torch.tensor(x), **options).numpy()
            np.testing.assert_array_equal(F.interpolate(Tensor(x), **options).numpy(), expected)


@pytest.mark.parametrize("mode, dims", [(mode, dims) for dims in MODES for mode in MODES[dims]])
@pytest.mark.parametrize("outs", [(5, 2, 4), (2, 7, 3)])
def test_interpolation_gradcheck(mode, dims, outs):
    x = normal(1, 2, 4, 3, 2)[(..., *[0] * (3 - dims))]
    check_gradients(lambda t: F.interpolate(t, outs[:dims], mode=mode), x)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("options", [{"align_corners": True}, {"antialias": True}])
def test_interpolation_gradcheck_of_the_options(mode, options):
    check_gradients(lambda t: F.interpolate(t, (3, 4), mode=mode, **options), normal(1, 2, 7, 3))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_interpolation_of_integers_is_exact(dims):
    """Quarters of small integers are numbers of float32, and so are their sums and products."""
    x = integers(2, 5, *(6, 3, 4)[:dims], dtype=np.float32)
    for mode, factor in itertools.product(("nearest", "area", LINEAR[dims]), (0.5, 2)):
        if factor == 2 or all(n % 2 == 0 for n in x.shape[2:]):
            out = F.interpolate(Tensor(x), scale_factor=factor, mode=mode)
            expected = applied(x, [matrix(mode, n, int(n * factor)) for n in x.shape[2:]])
            np.testing.assert_array_equal(out.numpy(), expected)


@FEW
@given(changes())
def test_a_constant_image_stays_constant(change):
    sizes, options = change
    assume(min(result_sizes(sizes, options)) > 0)
    out = F.interpolate(Tensor(np.full((1, 2, *sizes), 3.0)), **options)
    np.testing.assert_allclose(out.numpy(), 3, rtol=1e-14)


def test_a_ramp_stays_a_ramp_where_corners_are_aligned():
    x = Tensor(np.arange(7.0)[None, None])
    out = F.interpolate(x, 13, mode="linear", align_corners=True)
    np.testing.assert_allclose(out.numpy()[0, 0], np.linspace(0, 6, 13), rtol=1e-14)


@pytest.mark.parametrize("mode", MODES[1])
def test_an_infinite_pixel_spoils_only_what_depends_on_it(mode):
    x = np.zeros((1, 1, 9))
    x[0, 0, 4] = np.inf
    out = F.interpolate(Tensor(x), 5, mode=mode).numpy()
    np.testing.assert_array_equal(np.isfinite(out[0, 0]), matrix(mode, 9, 5)[:, 4] == 0)


@pytest.mark.parametrize("mode", MODES[2])
def test_interpolation_of_no_images(mode):
    x = Tensor(np.ones((0, 3, 4, 5), np.float32), requires_grad=True)
    out = F.interpolate(x, (2, 9), mode=mode)
    out.sum().backward()
    assert out.shape == (0, 3, 2, 9) and x.grad.shape == x.shape


@pytest.fixture
def threads():
    """Sets the number of threads; afterwards it is as before."""
    before = jit.workers()
    yield jit.set_num_threads
    jit.set_num_threads(before)


def test_interpolation_returns_channels_last_and_the_same_bits_for_any_number_of_threads(threads):
    x, results = normal(3, 20, 17, 11, dtype=np.float32), []
    for count in (1, jit.workers()):
        threads(count)
        images = Tensor(x, requires_grad=True)
        out = F.interpolate(images, (30, 7), mode="bicubic")
        out.backward(out.numpy())
        results.append((out.numpy(), images.grad))
    assert np.moveaxis(results[0][0], 1, -1).flags.c_contiguous
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- shuffles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_pixel_shuffle_by_its_formula(r, lead, dtype):
    x = integers(*lead, 2 * r * r, 3, 4, dtype=dtype)
    expected = np.zeros((*lead, 2, 3 * r, 4 * r), dtype)
    for c, i, j, h, w in np.ndindex(2, r, r, 3, 4):
        expected[..., c, r * h + i, r * w + j] = x[..., (c * r + i) * r + j, h, w]
    out = F.pixel_shuffle(Tensor(x), r)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out.numpy(), expected)
    np.testing.assert_array_equal(F.pixel_unshuffle(out, r).numpy(), x)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("sizes", [(4,), (3, 2), (2, 3, 2)])
def test_channel_shuffle_by_its_formula(groups, sizes):
    x = integers(2, 6, *sizes)
    out = F.channel_shuffle(Tensor(x), groups).numpy()
    for group, i in np.ndindex(groups, 6 // groups):
        np.testing.assert_array_equal(out[:, i * groups + group], x[:, group * (6 // groups) + i])


@pytest.mark.parametrize("name, argument", [("pixel_shuffle", 2), ("pixel_unshuffle", 2), ("channel_shuffle", 4)])
@pytest.mark.parametrize("last", [True, False])
def test_shuffles_as_torch_in_either_order_of_memory(name, argument, last):
    torch = pytest.importorskip("torch")
    x = normal(2, 8, 4, 6, dtype=np.float32)
    x = channels_last(x) if last else x
    ours, theirs = getattr(F, name), getattr(torch.nn.functional, name)
    compare(lambda t: ours(t, argument), lambda t: theirs(t, argument), x)
    out = ours(Tensor(x), argument).numpy()
    assert (np.moveaxis(out, 1, -1) if last else out).flags.c_contiguous


# ---- unfold and fold ----------------------------------------------------------------------------------------------


def columns_by_loops(x, kernel, dilation, padding, stride):
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    outs = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(padded.shape[2:], kernel, dilation, stride, strict=True)
    ]
    columns = np.zeros((*x.shape[:2], *kernel, *outs), x.dtype)
    for place in np.ndindex(*kernel, *outs):
        taps, windows = place[: len(kernel)], place[len(kernel) :]
        pixel = tuple(w * s + t * d for w, s, t, d in zip(windows, stride, taps, dilation, strict=True))
        columns[(slice(None), slice(None), *place)] = padded[(slice(None), slice(None), *pixel)]
    return columns.reshape(len(x), x.shape[1] * math.prod(kernel), math.prod(outs))


@st.composite
def windows(draw):
    dims = draw(st.integers(1, 3))
    kernel, dilation, padding, stride = (
        draw(st.tuples(*[st.integers(*bounds)] * dims)) for bounds in ((1, 3), (1, 2), (0, 2), (1, 4))
    )
    sizes = tuple(d * (k - 1) + draw(st.integers(1, 4)) for k, d in zip(kernel, dilation, strict=True))
    return sizes, (kernel, dilation, padding, stride)


@TRIALS
@given(windows(), DTYPES, st.booleans())
def test_unfold_by_loops_and_fold_is_its_transpose(window, dtype, last):
    sizes, options = window
    x = integers(2, 3, *sizes, dtype=dtype)
    images = Tensor(channels_last(x) if last else x, requires_grad=True)
    columns = F.unfold(images, *options)
    assert columns.dtype == dtype
    np.testing.assert_array_equal(columns.numpy(), columns_by_loops(x, *options))
    weights = Tensor(integers(*columns.shape, dtype=dtype, seed=1), requires_grad=True)
    folded = F.fold(weights, sizes, *options)
    assert folded.dtype == dtype
    assert (columns.numpy() * weights.numpy()).sum() == (x * folded.numpy()).sum()
    columns.backward(weights.numpy())
    folded.backward(x)
    np.testing.assert_array_equal(images.grad, folded.numpy())
    np.testing.assert_array_equal(weights.grad, columns.numpy())


@pytest.mark.parametrize("options", [(3, 1, 1, 2), ((2, 3), (2, 1), (0, 1), (1, 2)), (2, 1, 0, 2)])
@pytest.mark.parametrize("lead", [(2, 3), (3,), (0, 3)])
def test_unfold_and_fold_as_torch(options, lead):
    torch = pytest.importorskip("torch")
    x = normal(*lead, 6, 7, dtype=np.float32)
    compare(lambda t: F.unfold(t, *options), lambda t: torch.nn.functional.unfold(t, *options), x)
    columns = F.unfold(Tensor(x), *options).numpy()
    compare(lambda t: F.fold(t, (6, 7), *options), lambda t: torch.nn.functional.fold(t, (6, 7), *options), columns)


def test_unfold_and_fold_gradcheck():
    options = ((2, 3), (2, 1), (1, 0), (1, 2))
    x = normal(1, 2, 4, 5)
    check_gradients(lambda t: F.unfold(t, *options), x)
    check_gradients(lambda t: F.fold(t, (4, 5), *options), F.unfold(Tensor(x), *options).numpy())


# ---- layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, arguments, options, shape",
    [
        ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, (2, 3, 4, 5)),
        ("Upsample", ((3, 2, 5),), {"mode": "trilinear", "align_corners": True}, (1, 2, 4, 3, 2)),
        ("Upsample", (), {"scale_factor": 1.7, "mode": "linear", "recompute_scale_factor": True}, (1, 2, 5)),
        ("UpsamplingNearest2d", (), {"scale_factor": (2.0, 3.0)}, (2, 3, 4, 5)),
        ("UpsamplingBilinear2d", (7,), {}, (2, 3, 4, 5)),
        ("PixelShuffle", (2,), {}, (1, 8, 3, 2)),
        ("PixelUnshuffle", (2,), {}, (1, 2, 4, 6)),
        ("ChannelShuffle", (2,), {}, (1, 6, 2, 2)),
        ("Unfold", ((2, 3),), {"dilation": 2, "padding": 1, "stride": (1, 2)}, (2, 3, 6, 7)),
        ("Fold", ((4, 5), 2), {}, (2, 8, 12)),
    ],
)
def test_layers_as_torch(name, arguments, options, shape):
    torch = pytest.importorskip("torch")
    compare(getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options), normal(*shape))


def test_repr_names_the_settings():
    assert repr(nn.Upsample(scale_factor=2)) == "Upsample(scale_factor=2, mode='nearest')"
    assert repr(nn.UpsamplingBilinear2d((3, 4))) == "UpsamplingBilinear2d(size=(3, 4), mode='bilinear')"
    assert repr(nn.PixelShuffle(3)) == "PixelShuffle(upscale_factor=3)"
    assert repr(nn.PixelUnshuffle(3)) == "PixelUnshuffle(downscale_factor=3)"
    assert repr(nn.ChannelShuffle(2)) == "ChannelShuffle(groups=2)"
    assert repr(nn.Fold((4, 5), 2)) == "Fold(output_size=(4, 5), kernel_size=2, dilation=1, padding=0, stride=1)"


# ---- misuse -------------------------------------------------------------------------------------------------------


IMAGES, LINE, VOLUME = (1, 4, 6, 6), (1, 4, 6), (1, 4, 6, 6, 6)


@pytest.mark.parametrize(
    "shape, options, message",
    [
        (IMAGES, {}, "give either size or scale_factor, got size=None and scale_factor=None"),
        (IMAGES, {"size": 3, "scale_factor": 2}, "give either size or scale_factor, got size=3 and scale_factor=2"),
        (
            IMAGES,
            {"size": 3, "recompute_scale_factor": True},
            "recompute_scale_factor is for a scale_factor, got size=3",
        ),
        (
            IMAGES,
            {"size": 3, "mode": "cubic"},
            "mode must be one of 'nearest', 'nearest-exact', 'area', 'linear', 'bilinear', 'trilinear', 'bicubic', got 'cubic'",
        ),
        (
            LINE,
            {"size": 3, "mode": "bilinear"},
            "mode 'bilinear' is for input (N, C, …) with 2 spatial axes, got (1, 4, 6); use 'nearest' or 'nearest-exact' or 'area' or 'linear'",
        ),
        (VOLUME, {"size": 3, "mode": "bicubic"}, "with 2 spatial axes, got (1, 4, 6, 6, 6); use 'nearest'"),
        (IMAGES, {"size": 3, "mode": "linear"}, "with 1 spatial axes"),
        (IMAGES, {"size": 3, "mode": "trilinear"}, "with 3 spatial axes"),
        (
            (4, 6),
            {"size": 3},
            "mode 'nearest' is for input (N, C, …) with 1 or 2 or 3 spatial axes, got (4, 6); add or merge axes with reshape",
        ),
        (
            IMAGES,
            {"size": 3, "align_corners": False},
            "align_corners is for the linear and cubic modes, got align_corners=False with mode='nearest'",
        ),
        (IMAGES, {"size": 3, "mode": "area", "align_corners": True}, "got align_corners=True with mode='area'"),
        (IMAGES, {"size": 3, "antialias": True}, "antialias is for modes 'bilinear' and 'bicubic', got mode='nearest'"),
        (
            LINE,
            {"size": 3, "mode": "linear", "antialias": True},
            "antialias is for modes 'bilinear' and 'bicubic', got mode='linear'",
        ),
        (IMAGES, {"size": (3, 0)}, "size must be positive, got (3, 0)"),
        (IMAGES, {"size": -1}, "size must be positive, got -1"),
        (IMAGES, {"size": (3, 3, 3)}, "size must be one integer or 2 (height, width), got (3, 3, 3)"),
        (
            IMAGES,
            {"scale_factor": (2,)},
            "scale_factor must be a positive number, or one for each of height, width; got (2,)",
        ),
        (
            IMAGES,
            {"scale_factor": 0},
            "scale_factor must be a positive number, or one for each of height, width; got 0",
        ),
        (IMAGES, {"scale_factor": (2, -1.0)}, "got (2, -1.0)"),
        (IMAGES, {"scale_factor": math.inf}, "got inf"),
        (IMAGES, {"scale_factor": "2"}, "got '2'"),
        (
            IMAGES,
            {"scale_factor": 0.1},
            "scale_factor must leave a pixel on every axis, got 0.1 for (6, 6), which makes (0, 0)",
        ),
        ((1, 0, 6, 6), {"size": 3}, "every size but the batch must be positive, got input (1, 0, 6, 6)"),
        ((1, 4, 6, 0), {"size": 3}, "every size but the batch must be positive, got input (1, 4, 6, 0)"),
    ],
)
def test_interpolations_that_have_no_meaning(shape, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        F.interpolate(Tensor(np.ones(shape, np.float32)), **options)


@pytest.mark.parametrize("name", ["align_corners", "recompute_scale_factor", "antialias"])
@pytest.mark.parametrize("value", ["no", 0, np.ones(2)])
def test_switches_are_true_or_false(name, value):
    options = {"scale_factor": 2, "mode": "bilinear", name: value}
    with pytest.raises(TypeError, match=re.escape(f"{name} must be True or False, got {value!r}; leave it out")):
        F.interpolate(Tensor(np.ones(IMAGES, np.float32)), **options)


def test_arrays_are_options():
    x, two = Tensor(np.random.default_rng(0).standard_normal(IMAGES)), np.array([2, 3])
    for arrays, plain in [
        (F.interpolate(x, two), F.interpolate(x, (2, 3))),
        (F.interpolate(x, scale_factor=two / 2), F.interpolate(x, scale_factor=(1.0, 1.5))),
        (F.unfold(x, two, stride=two), F.unfold(x, (2, 3), stride=(2, 3))),
        (F.fold(F.unfold(x, two), two * 3 - (0, 3), two), F.fold(F.unfold(x, (2, 3)), (6, 6), (2, 3))),
    ]:
        np.testing.assert_array_equal(arrays.data, plain.data)


def test_one_image_is_quoted_as_it_was_given():
    with pytest.raises(ValueError, match=r"fold needs input .*; got input \(7, 12\); output_size"):
        F.fold(Tensor(np.ones((7, 12), np.float32)), (4, 5), 2)


def test_interpolate_wants_whole_sizes_and_floating_tensors():
    with pytest.raises(TypeError, match=r"size must be an integer or a tuple of 2 integers, got \(3, 2.5\)"):
        F.interpolate(Tensor(np.ones(IMAGES)), (3, 2.5))
    with pytest.raises(
        TypeError, match=r"interpolate computes in float32 or float64, got int64; convert with x.float\(\)"
    ):
        F.interpolate(Tensor(np.ones(IMAGES, np.int64)), 3)
    with pytest.raises(TypeError, match=r"interpolate expects a Tensor, got ndarray; wrap the array: Tensor\(x\)"):
        F.interpolate(np.ones(IMAGES), 3)


@pytest.mark.parametrize(
    "function, shape, argument, message",
    [
        (
            F.pixel_shuffle,
            (1, 6, 2, 2),
            2,
            "upscale_factor=2 needs channels divisible by 4, got 6 in input (1, 6, 2, 2)",
        ),
        (F.pixel_shuffle, (1, 4, 2, 2), 0, "upscale_factor must be a positive integer, got 0"),
        (
            F.pixel_shuffle,
            (4, 2),
            2,
            "pixel_shuffle needs at least three axes, channels and the image's, got input (4, 2)",
        ),
        (
            F.pixel_unshuffle,
            (1, 1, 4, 5),
            2,
            "downscale_factor=2 must divide height and width, got input (1, 1, 4, 5); crop or pad it",
        ),
        (F.pixel_unshuffle, (1, 1, 4, 4), -2, "downscale_factor must be a positive integer, got -2"),
        (F.pixel_unshuffle, (4, 4), 2, "pixel_unshuffle needs at least three axes"),
        (F.channel_shuffle, (1, 6, 2), 4, "groups must divide the channels, got groups=4 for 6 in input (1, 6, 2)"),
        (F.channel_shuffle, (1, 6, 2), 0, "groups must be a positive integer, got 0"),
        (F.channel_shuffle, (1, 6, 2), 2.0, "groups must be a positive integer, got 2.0"),
        (F.channel_shuffle, (4, 6), 2, "channel_shuffle needs at least three axes"),
    ],
)
def test_shuffles_that_have_no_meaning(function, shape, argument, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(Tensor(np.ones(shape, np.float32)), argument)


@pytest.mark.parametrize("function", [F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle])
def test_shuffles_want_tensors(function):
    with pytest.raises(TypeError, match=f"{function.__name__} expects a Tensor, got ndarray; wrap the array"):
        function(np.ones((1, 4, 2, 2)), 2)


@pytest.mark.parametrize(
    "shape, options, message",
    [
        (
            (2, 3, 4, 4),
            {"kernel_size": 5},
            "kernel is larger than the padded input: along the height the kernel spans 5 pixels",
        ),
        ((2, 3, 4, 4), {"kernel_size": 0}, "kernel_size must be positive, got 0"),
        ((2, 3, 4, 4), {"kernel_size": 2, "stride": 0}, "stride must be positive, got 0"),
        ((2, 3, 4, 4), {"kernel_size": 2, "dilation": -1}, "dilation must be positive, got -1"),
        ((2, 3, 4, 4), {"kernel_size": 2, "padding": -1}, "padding must be zero or more, got -1"),
        (
            (2, 3, 4, 4),
            {"kernel_size": 2, "stride": (1, 2, 3)},
            "stride must be one integer or 2 (height, width), got (1, 2, 3)",
        ),
        (
            (2, 3, 4, 4),
            {"kernel_size": (1, 1, 1, 1)},
            "kernel_size must be an integer or one for each of one to three axes, got (1, 1, 1, 1)",
        ),
        ((2, 4), {"kernel_size": 2}, "Expected 4D input (batch, channels, height, width), got (2, 4)"),
        ((2, 0, 4, 4), {"kernel_size": 2}, "every size but the batch must be positive, got input (2, 0, 4, 4)"),
    ],
)
def test_unfoldings_that_have_no_meaning(shape, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        F.unfold(Tensor(np.ones(shape, np.float32)), **options)


@pytest.mark.parametrize(
    "shape, arguments, message",
    [
        (
            (2, 8, 11),
            ((4, 5), 2),
            "fold needs input (N, C · 4, 12): windows of 4 pixels, 12 of them in images of (4, 5); got input (2, 8, 11)",
        ),
        ((2, 7, 12), ((4, 5), 2), "got input (2, 7, 12); output_size and the options must be those of the unfold"),
        ((2, 0, 12), ((4, 5), 2), "got input (2, 0, 12)"),
        ((2, 8, 12), ((1, 5), 2), "kernel is larger than the padded input: along the height"),
        ((2, 8, 12), (0, 2), "output_size must be positive, got 0"),
        ((2, 8, 12), ((), 2), "output_size must be an integer or one for each of one to three axes, got ()"),
        ((8, 3, 4, 1), ((4, 5), 2), "Expected 3D input (batch, channels, width), got (8, 3, 4, 1)"),
    ],
)
def test_foldings_that_have_no_meaning(shape, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        F.fold(Tensor(np.ones(shape, np.float32)), *arguments)


def test_layers_refuse_at_once_what_no_input_makes_right():
    for make, message in [
        (lambda: nn.PixelShuffle(0), "upscale_factor must be a positive integer, got 0"),
        (lambda: nn.PixelUnshuffle(True), "downscale_factor must be a positive integer, got True"),
        (lambda: nn.ChannelShuffle(-1), "groups must be a positive integer, got -1"),
        (lambda: nn.Upsample(3, mode="foo"), "mode must be one of 'nearest', .*, got 'foo'"),
        (lambda: nn.Upsample(3, mode=["linear"]), r"mode must be one of 'nearest', .*, got \['linear'\]"),
        (lambda: nn.Upsample(), "give either size or scale_factor, got size=None and scale_factor=None"),
        (lambda: nn.Upsample(3, 2), "give either size or scale_factor, got size=3 and scale_factor=2"),
        (lambda: nn.UpsamplingBilinear2d(), "give either size or scale_factor"),
        (lambda: nn.Upsample(3, align_corners=True), "align_corners is for the linear and cubic modes"),
        (
            lambda: nn.Upsample(3, recompute_scale_factor=True),
            "recompute_scale_factor is for a scale_factor, got size=3",
        ),
        (lambda: nn.Unfold((2, 2), stride=0), "stride must be positive, got 0"),
        (
            lambda: nn.Fold((2, 2), (1, 2, 3)),
            r"kernel_size must be one integer or 2 \(height, width\), got \(1, 2, 3\)",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match=r"kernel_size must be an integer or a tuple of 2 integers, got 1\.5"):
        nn.Unfold(1.5)
