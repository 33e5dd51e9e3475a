"""Convolution and transposed convolution in one to three dimensions, as functions and layers: against PyTorch, by finite
differences, on integers, and when misused.
"""

import itertools
import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle.gradcheck import check_gradients
from tests.oracle.torch_twin import compare
from tinytorch import Tensor, manual_seed, nn, no_grad, use_algorithm
from tinytorch.conv import planner
from tinytorch.conv.problem import DIRECTIONS
from tinytorch.core import spatial
from tinytorch.models.initial import draw_normal
from tinytorch.nn import functional as ops

TRIALS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FEW = settings(TRIALS, max_examples=25)
DTYPES = st.sampled_from([np.float32, np.float64])
MODES = ("reflect", "replicate", "circular")


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def integers(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).integers(-3, 4, shape).astype(dtype)


def of(module, name, dims):
    return getattr(module, f"{name}{dims}d")


# ---- what is tried ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """A convolution, or a transposed one, by the arguments of PyTorch; ``low`` and ``high`` pixels of padding."""

    dims: int
    batch: tuple[int, ...]
    channels: tuple[int, int]
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def extent(self):
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def padding(self):
        return tuple(zip(self.low, self.high, strict=True))

    @property
    def options(self):
        return {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}

    def operands(self, transposed, dtype=np.float32, make=normal):
        """Input, weight and bias."""
        ci, co = self.channels
        weight = (ci, co // self.groups) if transposed else (co, ci // self.groups)
        x = make(*self.batch, ci, *self.size, dtype=dtype)
        return [x, make(*weight, *self.kernel, dtype=dtype), make(co, dtype=dtype)]


@st.composite
def trials(draw, even=True, fits=True):
    """Any options; ``even`` padding is the same on both sides, and ``fits`` leaves room for a window."""
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    most = {1: 12, 2: 7, 3: 5}[dims]

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    size, kernel, stride, dilation = each(1, most), each(1, 3), each(1, 3), each(1, 3)
    low, high = each(0, 2), each(0, 2)
    if fits:
        short = [d * (k - 1) + 1 - s for s, k, d in zip(size, kernel, dilation, strict=True)]
        low = tuple(max(p, -(-lack // 2)) for p, lack in zip(low, short, strict=True))
        high = tuple(max(p, lack // 2 + lack % 2) for p, lack in zip(high, short, strict=True))
    channels = groups * draw(st.integers(1, 4)), groups * draw(st.sampled_from([1, 2, 8, 17]))
    batch = draw(st.sampled_from([(), (1,), (2,), (3,)]))
    return Trial(dims, batch, channels, size, kernel, stride, dilation, groups, low, low if even else high)


# ---- convolution --------------------------------------------------------------------------------------------------


@TRIALS
@given(trials(), DTYPES, st.booleans())
def test_convolution_as_torch(trial, dtype, with_bias):
    torch = pytest.importorskip("torch")
    ours, theirs = of(ops, "conv", trial.dims), of(torch.nn.functional, "conv", trial.dims)
    operands = trial.operands(False, dtype)[: 2 + with_bias]
    compare(
        lambda *t: ours(*t, padding=trial.low, **trial.options),
        lambda *t: theirs(*t, padding=trial.low, **trial.options),
        *operands,
    )


@FEW
@given(trials(even=False), DTYPES, st.sampled_from(["constant", *MODES]))
def test_convolution_with_any_padding_is_one_of_the_padded_image(trial, dtype, mode):
    torch = pytest.importorskip("torch")
    most = {"reflect": -1, "circular": 0}.get(mode, math.inf)
    if any(max(pair) > n + most for pair, n in zip(trial.padding, trial.size, strict=True)):
        return
    ours, theirs = of(ops, "conv", trial.dims), of(torch.nn.functional, "conv", trial.dims)
    widths = [p for pair in reversed(trial.padding) for p in pair]
    name = "zeros" if mode == "constant" else mode
    compare(
        lambda *t: ours(*t, padding=trial.padding, padding_mode=name, **trial.options),
        lambda x, *t: theirs(torch.nn.functional.pad(x, widths, mode), *t, **trial.options),
        *trial.operands(False, dtype),
    )


@FEW
@given(trials(), st.sampled_from(["same", "same_upper", "same_lower", "valid"]))
def test_padding_by_name(trial, name):
    """⌈size / stride⌉ outputs, and the odd pixel where it belongs; "same" with stride 1 is PyTorch's."""
    torch = pytest.importorskip("torch")
    if name == "valid" and any(e > n for e, n in zip(trial.extent, trial.size, strict=True)):
        return
    ours, theirs = of(ops, "conv", trial.dims), of(torch.nn.functional, "conv", trial.dims)
    operands = trial.operands(False)
    y = ours(*map(Tensor, operands), padding=name, **trial.options)
    if name == "valid":
        widths = [(0, 0)] * trial.dims
    else:
        sizes = [-(-n // s) for n, s in zip(trial.size, trial.stride, strict=True)]
        assert list(y.shape[-trial.dims :]) == sizes
        needs = zip(sizes, trial.stride, trial.extent, trial.size, strict=True)
        totals = [max(0, (out - 1) * s + e - n) for out, s, e, n in needs]
        widths = [(t // 2, t - t // 2)[:: -1 if name == "same_lower" else 1] for t in totals]
    x, *others = map(torch.tensor, operands)
    padded = torch.nn.functional.pad(x, [p for pair in reversed(widths) for p in pair])
    expected = theirs(padded, *others, **trial.options).numpy()
    np.testing.assert_allclose(y.data, expected, atol=1e-4)
    if name == "same" and set(trial.stride) == {1}:
        same = theirs(x, *others, padding="same", **trial.options).numpy()
        np.testing.assert_allclose(y.data, same, atol=1e-4)


# ---- transposed convolution ---------------------------------------------------------------------------------------


def natural_size(trial):
    """Pixels of the output that the input's pixels make, cut off by nothing."""
    return [(n - 1) * s + e for n, s, e in zip(trial.size, trial.stride, trial.extent, strict=True)]


@TRIALS
@given(trials(fits=False), DTYPES, st.booleans(), st.data())
def test_transposed_convolution_as_torch(trial, dtype, with_bias, data):
    torch = pytest.importorskip("torch")
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(trial.stride, trial.dilation, strict=True))
    low = tuple(min(p, (n - 1) // 2) for p, n in zip(trial.low, natural_size(trial), strict=True))
    ours, theirs = (of(module, "conv_transpose", trial.dims) for module in (ops, torch.nn.functional))
    options = {"padding": low, "output_padding": extra, **trial.options}
    operands = trial.operands(True, dtype)[: 2 + with_bias]
    compare(lambda *t: ours(*t, **options), lambda *t: theirs(*t, **options), *operands)


@FEW
@given(trials(even=False, fits=False))
def test_transposed_convolution_cuts_off_as_much_as_is_said(trial):
    torch = pytest.importorskip("torch")
    whole = natural_size(trial)
    low, high = ([min(p, (n - 1) // 2) for p, n in zip(pads, whole, strict=True)] for pads in (trial.low, trial.high))
    ours, theirs = (of(module, "conv_transpose", trial.dims) for module in (ops, torch.nn.functional))
    cut = (..., *(slice(before, n - after) for before, n, after in zip(low, whole, high, strict=True)))
    compare(
        lambda *t: ours(*t, padding=tuple(zip(low, high, strict=True)), **trial.options),
        lambda *t: theirs(*t, **trial.options)[cut],
        *trial.operands(True),
    )


@TRIALS
@given(trials(even=False, fits=False), st.sampled_from(MODES))
def test_transposed_convolution_of_an_input_without_end(trial, mode):
    """The input is padded so far that nothing beyond could matter; the output is cut out of what comes of that."""
    torch = pytest.importorskip("torch")
    low, high = (
        [min(p, (n - 1) // 2) for p, n in zip(pads, natural_size(trial), strict=True)]
        for pads in (trial.low, trial.high)
    )
    reach = [-(-e // s) for e, s in zip(trial.extent, trial.stride, strict=True)]
    if mode != "replicate" and any(r >= n for r, n in zip(reach, trial.size, strict=True)):
        return
    ours, theirs = (of(module, "conv_transpose", trial.dims) for module in (ops, torch.nn.functional))
    outs = [n - a - b for n, a, b in zip(natural_size(trial), low, high, strict=True)]
    cut = (..., *(slice(r * s + a, r * s + a + n) for r, s, a, n in zip(reach, trial.stride, low, outs, strict=True)))
    widths = [r for r in reversed(reach) for _ in range(2)]
    compare(
        lambda *t: ours(*t, padding=tuple(zip(low, high, strict=True)), padding_mode=mode, **trial.options),
        lambda x, *t: theirs(torch.nn.functional.pad(x, widths, mode), *t, **trial.options)[cut],
        *trial.operands(True),
    )


@FEW
@given(trials(fits=False), st.data())
def test_output_size_is_reached(trial, data):
    torch = pytest.importorskip("torch")
    more = [data.draw(st.integers(0, s - 1)) for s in trial.stride]
    wanted = tuple(n + m for n, m in zip(natural_size(trial), more, strict=True))
    ours, theirs = (of(module, "conv_transpose", trial.dims) for module in (ops, torch.nn.functional))
    operands = trial.operands(True)
    expected = theirs(*map(torch.tensor, operands), output_padding=more, **trial.options).numpy()
    tensors = list(map(Tensor, operands))
    for size in (wanted, list(wanted), expected.shape):
        y = ours(*tensors, output_size=size, output_padding=0, **trial.options)
        np.testing.assert_allclose(y.data, expected, atol=1e-4)


@FEW
@given(trials(fits=False), st.sampled_from(["same", "same_upper", "same_lower"]))
def test_same_padding_of_a_transposed_convolution_leads_back(trial, name):
    """It is the map that is transposed to a convolution with the same padding: ⟨dy, conv(x)⟩ = ⟨conv_transpose(dy), x⟩."""
    conv, transposed = of(ops, "conv", trial.dims), of(ops, "conv_transpose", trial.dims)
    dy, weight, _ = (Tensor(a) for a in trial.operands(True, np.float64, integers))
    back = transposed(dy, weight, padding=name, **trial.options)
    assert list(back.shape[-trial.dims :]) == [n * s for n, s in zip(trial.size, trial.stride, strict=True)]
    x = Tensor(integers(*back.shape, dtype=np.float64, seed=1))
    assert (conv(x, weight, padding=name, **trial.options) * dy).sum().item() == (back * x).sum().item()


# ---- independent of PyTorch ---------------------------------------------------------------------------------------


GRADIENTS = {
    "conv1d": (lambda x, w, b: ops.conv1d(x, w, b, 2, 1), (2, 3, 6), (4, 3, 3), (4,)),
    "conv3d": (lambda x, w, b: ops.conv3d(x, w, b, padding=1, dilation=(1, 2, 1)), (1, 2, 3, 4, 3), (2, 2, 2, 2, 3), (2,)),
    "reflect": (lambda x, w, b: ops.conv2d(x, w, b, padding=1, padding_mode="reflect"), (1, 2, 4, 3), (2, 2, 3, 3), (2,)),
    "same, stride 2": (lambda x, w, b: ops.conv2d(x, w, b, 2, "same_lower"), (1, 2, 5, 4), (2, 2, 3, 2), (2,)),
    "transposed": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, (2, 3), 1, (1, 2), groups=2), (2, 4, 3, 2), (4, 1, 3, 2), (2,),
    ),
    "transposed, 1-D": (lambda x, w, b: ops.conv_transpose1d(x, w, b, 2, dilation=2), (2, 3, 4), (3, 2, 3), (2,)),
    "transposed, 3-D": (lambda x, w, b: ops.conv_transpose3d(x, w, b, 2), (1, 2, 2, 2, 2), (2, 1, 2, 2, 3), (1,)),
    "transposed, circular": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1, padding_mode="circular"), (1, 2, 3, 3), (2, 2, 4, 3), (2,),
    ),
    "more behind than a stride": (
        lambda x, w, b: ops.conv_transpose1d(x, w, b, 1, output_padding=2, dilation=3), (1, 2, 3), (2, 2, 2), (2,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_by_finite_differences(name):
    function, *shapes = GRADIENTS[name]
    check_gradients(function, *(normal(*shape, dtype=np.float64) for shape in shapes))


def scattered(x, weight, bias, stride, padding, dilation, groups):
    """The definition of a transposed convolution, pixel by pixel and tap by tap, in integers."""
    n, ci, *size = x.shape
    depth, kernel = weight.shape[1], weight.shape[2:]
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    whole = np.zeros((n, depth * groups, *((p - 1) * s + e for p, s, e in zip(size, stride, extent, strict=True))))
    for c in range(ci):
        first = c // (ci // groups) * depth
        for pixel, tap in itertools.product(np.ndindex(*size), np.ndindex(*kernel)):
            place = tuple(p * s + t * d for p, s, t, d in zip(pixel, stride, tap, dilation, strict=True))
            whole[(slice(None), slice(first, first + depth), *place)] += np.outer(
                x[(slice(None), c, *pixel)], weight[(c, slice(None), *tap)]
            )
    cut = tuple(slice(p, w - p) for p, w in zip(padding, whole.shape[2:], strict=True))
    return whole[(..., *cut)] + bias.reshape(-1, *(1,) * len(size))


@FEW
@given(trials(fits=False), DTYPES)
def test_transposed_convolution_is_exact_on_integers(trial, dtype):
    low = tuple(min(p, (n - 1) // 2) for p, n in zip(trial.low, natural_size(trial), strict=True))
    x, weight, bias = trial.operands(True, dtype, integers)
    y = of(ops, "conv_transpose", trial.dims)(*map(Tensor, (x, weight, bias)), padding=low, **trial.options)
    batch = x if trial.batch else x[None]
    expected = scattered(batch, weight, bias, trial.stride, low, trial.dilation, trial.groups)
    np.testing.assert_array_equal(y.data, expected if trial.batch else expected[0])


CORNERS = {
    "one pixel": (1, (1, 1), (1,), {}),
    "kernel is the image": (2, (3, 5), (6,), {"kernel": 6}),
    "stride beyond the kernel": (2, (3, 5), (11,), {"kernel": 2, "stride": 5}),
    "dilation beyond the image": (1, (2, 3), (3,), {"kernel": 3, "padding": 5, "dilation": 5}),
    "a channel a group": (2, (6, 6), (7,), {"kernel": 3, "padding": 1, "groups": 6}),
    "several outputs a channel": (2, (3, 6), (5,), {"kernel": 3, "groups": 3}),
    "primes": (3, (7, 13), (11,), {"kernel": 3, "padding": 1}),
    "no images": (0, (3, 4), (6,), {"kernel": 3, "stride": 2}),
    "padding beyond the kernel": (1, (2, 3), (4,), {"kernel": 2, "padding": 4}),
}


@pytest.mark.parametrize("kind", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("name", CORNERS)
def test_corners_as_torch(name, dims, kind):
    torch = pytest.importorskip("torch")
    n, (ci, co), size, given_options = CORNERS[name]
    options = {"kernel": 1, "padding": 0, "groups": 1, **given_options}
    kernel, groups = options.pop("kernel"), options["groups"]
    if kind == "conv_transpose" and options["padding"] >= 4:
        options["padding"] = 1
    weight = (ci, co // groups) if kind == "conv_transpose" else (co, ci // groups)
    operands = normal(n, ci, *size * dims), normal(*weight, *(kernel,) * dims), normal(co)
    ours, theirs = of(ops, kind, dims), of(torch.nn.functional, kind, dims)
    compare(lambda *t: ours(*t, **options), lambda *t: theirs(*t, **options), *operands)


@pytest.mark.parametrize("kind", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_results_are_channels_last_and_any_memory_order_is_read(kind, dims):
    x, weight = normal(2, 4, *(5,) * dims), normal(4, 4, *(3,) * dims)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    function = of(ops, kind, dims)
    y, other = (function(Tensor(array), Tensor(weight)) for array in (x, last))
    assert np.moveaxis(y.array, 1, -1).flags.c_contiguous
    np.testing.assert_array_equal(y.data, other.data)


def test_mixed_precision_promotes_and_returns_each_gradient_in_its_own():
    x = Tensor(normal(1, 2, 4, 4, dtype=np.float64), requires_grad=True)
    w, b = (Tensor(normal(*shape), requires_grad=True) for shape in ((2, 3, 3, 3), (3,)))
    y = ops.conv_transpose2d(x, w, b)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype, w.grad.dtype, b.grad.dtype) == (np.float64, np.float64, np.float32, np.float32)


def test_frozen_operands_of_a_transposed_convolution_get_no_gradient():
    x, w = Tensor(normal(1, 2, 5, 5)), Tensor(normal(2, 3, 3, 3), requires_grad=True)
    ops.conv_transpose2d(x, w).sum().backward()
    assert x.grad is None and w.grad.shape == w.shape
    x.requires_grad, w.requires_grad = True, False
    w.grad = None
    ops.conv_transpose2d(x, w).sum().backward()
    assert x.grad.shape == x.shape and w.grad is None


# ---- layers -------------------------------------------------------------------------------------------------------

LAYERS = {
    # stride, padding, dilation, groups, bias, padding_mode
    "Conv": (2, 1, 2, 2, False, "zeros"),
    # stride, padding, output_padding, groups, bias, dilation, padding_mode
    "ConvTranspose": (2, 1, 1, 2, True, 2, "zeros"),
}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_layers_as_torch(kind, dims, batch):
    """The same arguments in the same order, the same names of parameters, the same results."""
    torch = pytest.importorskip("torch")
    for count in range(len(LAYERS[kind]) + 1):
        arguments = (4, 6, 3, *LAYERS[kind][:count])
        ours, theirs = of(nn, kind, dims)(*arguments), of(torch.nn, kind, dims)(*arguments)
        theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
        x = normal(*batch, 4, *(7,) * dims)
        np.testing.assert_allclose(ours(Tensor(x)).data, theirs(torch.tensor(x)).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [2, "same", "valid"])
def test_padding_mode_of_layers_as_torch(dims, mode, padding):
    torch = pytest.importorskip("torch")
    options = {"padding": padding, "padding_mode": mode}
    ours, theirs = (of(module, "Conv", dims)(2, 3, 3, **options) for module in (nn, torch.nn))
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    compare(ours, theirs, normal(2, 2, *(5,) * dims))


def test_output_size_of_a_layer_as_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = (module.ConvTranspose2d(3, 4, 3, stride=2, padding=1) for module in (nn, torch.nn))
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    x = normal(2, 3, 5, 4)
    for size in ((9, 8), [10, 7], (2, 4, 10, 8)):
        expected = theirs(torch.tensor(x), output_size=list(size)).detach().numpy()
        np.testing.assert_allclose(ours(Tensor(x), size).data, expected, atol=1e-5)
        assert expected.shape[2:] == tuple(size)[-2:]


def test_depthwise_separable_convolution_is_its_two_steps():
    torch = pytest.importorskip("torch")
    layer = nn.DepthwiseSeparableConv2d(6, 5, 3, 2, 1, 1, True, "circular")
    assert {name: value.shape for name, value in layer.state_dict().items()} == {
        "depthwise.weight": (6, 1, 3, 3), "depthwise.bias": (6,), "pointwise.weight": (5, 6, 1, 1), "pointwise.bias": (5,),
    }  # fmt: skip
    F, state = torch.nn.functional, {name: torch.tensor(value) for name, value in layer.state_dict().items()}

    def theirs(x):
        x = F.pad(x, (1, 1, 1, 1), "circular")
        x = F.conv2d(x, state["depthwise.weight"], state["depthwise.bias"], stride=2, groups=6)
        return F.conv2d(x, state["pointwise.weight"], state["pointwise.bias"])

    compare(layer, theirs, normal(2, 6, 7, 5))
    assert layer(Tensor(normal(6, 7, 5))).shape == (5, 4, 3)
    assert len(nn.DepthwiseSeparableConv2d(6, 5, 3, bias=False).parameters()) == 2


def test_both_steps_of_a_depthwise_separable_convolution_are_told_and_planned(called):
    layer = nn.DepthwiseSeparableConv2d(4, 6, 3, 2, algorithm={"forward": "im2col", "weight_grad": "loops"})
    for shape in ((2, 4, 9, 7), (4, 9, 7)):
        plans = layer.plan(shape)
        called.clear()
        layer(Tensor(normal(*shape), requires_grad=True)).sum().backward()
        runs = [("depthwise", "forward"), ("pointwise", "forward"), *(("pointwise", way) for way in DIRECTIONS[1:])]
        runs += [("depthwise", way) for way in DIRECTIONS[1:]]
        assert [(way, plans[part][way].algorithm) for part, way in runs] == called
        assert [name for way, name in called if way != "input_grad"] == ["im2col", "im2col", "loops", "loops"]
    with pytest.raises(ValueError, match="algorithm 'winograd' refuses the forward of a Conv2d"):
        nn.DepthwiseSeparableConv2d(4, 6, 3, algorithm="winograd")


def test_arrays_and_integers_of_numpy_are_options():
    x, w = Tensor(integers(2, 4, 7, 6)), Tensor(integers(4, 1, 3, 2))
    arrays = {
        "stride": np.array([2, 1]),
        "padding": np.array([1, 0]),
        "dilation": np.array([1, 2]),
        "groups": np.int64(4),
    }
    plain = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 4}
    np.testing.assert_array_equal(ops.conv2d(x, w, **arrays).data, ops.conv2d(x, w, **plain).data)
    up = ops.conv_transpose2d(x, w, **arrays, output_padding=np.array([1, 0]), output_size=np.array([13, 8]))
    np.testing.assert_array_equal(up.data, ops.conv_transpose2d(x, w, **plain, output_size=(13, 8)).data)
    uneven = ops.conv2d(x, w, padding=np.array([[1, 0], [0, 2]]), groups=4)
    np.testing.assert_array_equal(uneven.data, ops.conv2d(x, w, padding=((1, 0), (0, 2)), groups=4).data)
    for kind in (nn.Conv2d, nn.ConvTranspose2d):
        assert repr(kind(4, 4, np.array([3, 2]), **arrays)) == repr(kind(4, 4, (3, 2), **plain))


def test_an_algorithm_that_can_run_forward_is_taken():
    assert nn.Conv2d(2, 2, 3, algorithm="planar").algorithm == "planar"  # it has no weight gradient
    assert nn.Conv2d(2, 2, 3, 2, algorithm={"input_grad": "planar"}).stride == 2
    assert nn.ConvTranspose2d(2, 2, 3, 2, algorithm={"forward": "planar"}).stride == 2


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Conv1d(64, 128, 5), 64 * 5),
        (lambda: nn.Conv3d(16, 128, 3, groups=2), 8 * 27),
        (lambda: nn.ConvTranspose2d(64, 128, 4, stride=2), 64 * 4),
        (lambda: nn.ConvTranspose2d(64, 128, 2, stride=4), 64),
    ],
)
def test_initialisation_keeps_the_variance(layer, fan_in):
    manual_seed(0)
    made = layer()
    assert abs(made.weight.data.std() / np.sqrt(2 / fan_in) - 1) < 0.03
    assert (made.bias.data == 0).all() and made.weight.dtype == np.float32


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_transposed_layer_passes_the_variance_on(stride):
    manual_seed(0)
    layer = nn.ConvTranspose2d(64, 64, 6, stride)
    y = layer(Tensor(normal(1, 64, 20, 20))).data[..., 6:-6, 6:-6]
    assert abs(y.var() / 2 - 1) < 0.1  # a ReLU halves it


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: nn.Conv1d(3, 16, 3), "Conv1d(3, 16, kernel_size=(3,), stride=1, padding=0)"),
        (
            lambda: nn.Conv2d(4, 8, 3, 1, "same", 2, 2, False, "reflect"),
            "Conv2d(4, 8, kernel_size=(3, 3), stride=1, padding='same', dilation=2, groups=2, padding_mode='reflect', bias=False)",
        ),
        (
            lambda: nn.Conv3d(3, 4, (1, 2, 3), algorithm={"forward": "fft", "weight_grad": "im2col"}),
            "Conv3d(3, 4, kernel_size=(1, 2, 3), stride=1, padding=0, algorithm={'forward': 'fft', 'weight_grad': 'im2col'})",
        ),
        (
            lambda: nn.ConvTranspose2d(3, 4, 2, 2, output_padding=1),
            "ConvTranspose2d(3, 4, kernel_size=(2, 2), stride=2, padding=0, output_padding=1)",
        ),
        (
            lambda: spatial.Conv2d(4, 8, 3, 2, 1, False, groups=2),
            "Conv2d(4, 8, kernel_size=(3, 3), stride=2, padding=1, groups=2, bias=False)",
        ),
    ],
)
def test_repr(layer, text):
    assert repr(layer()) == text


def test_the_pages_layer_is_the_same_but_for_the_order_and_the_batch():
    page, full = spatial.Conv2d(3, 4, 3, 1, 1, False), nn.Conv2d(3, 4, 3, 1, 1, bias=False)
    assert page.bias is None and isinstance(page, nn.Conv2d)
    full.load_state_dict(page.state_dict())
    x = normal(3, 6, 6)
    np.testing.assert_array_equal(page(Tensor(x[None])).data[0], full(Tensor(x)).data)
    with pytest.raises(ValueError, match=r"Expected 4D input \(batch, channels, height, width\), got \(3, 6, 6\)"):
        page(Tensor(x))


@pytest.mark.parametrize("home", [nn, spatial])
def test_both_homes_of_a_layer_are_fused(home, monkeypatch):
    from tinytorch.core import fusion

    fused = []
    monkeypatch.setattr(fusion, "_fused", lambda x, *parts: fused.append(parts) or x)
    model = nn.Sequential(home.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), home.MaxPool2d(2))
    model(Tensor(normal(1, 3, 8, 8)))
    assert [type(part).__name__ for part in fused[0] if part] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_chains_of_all_dimensions_are_fused(dims, training, monkeypatch):
    from tinytorch.core import fusion

    parts = [
        of(nn, "Conv", dims)(3, 4, 3, padding=1),
        of(nn, "BatchNorm", dims)(4),
        nn.ReLU(),
        of(nn, "MaxPool", dims)(2),
    ]
    x = Tensor(normal(2, 3, *(6,) * dims))
    chain = nn.Sequential(*parts)
    (chain.train if training else chain.eval)()
    expected = x
    for part in parts:
        expected = part(expected)
    monkeypatch.setattr(fusion, "_composed", None)
    np.testing.assert_allclose(chain(x).data, expected.data, atol=1e-5)


def test_parts_of_other_dimensions_are_refused_as_they_are_alone():
    chain, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4)).eval(), Tensor(normal(2, 3, 8, 8))
    with pytest.raises(ValueError, match="Expected 3D input"), no_grad():
        chain(x)


@pytest.mark.parametrize("settings_of_norm", [{"affine": False}, {"track_running_stats": False}, {"bias": False}, {}])
def test_a_normalisation_is_folded_in_whatever_it_learns(settings_of_norm):
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **settings_of_norm)
    model, x = nn.Sequential(conv, norm, nn.ReLU()), Tensor(normal(4, 3, 8, 8))
    model(x)  # moves the statistics
    model.eval()
    with no_grad():
        np.testing.assert_allclose(model(x).data, np.maximum(norm(conv(x)).data, 0), atol=1e-5)


def test_a_model_of_either_homes_layers_is_drawn_anew():
    for home in (nn, spatial):
        model = nn.Sequential(home.Conv2d(3, 4, 3))
        before = model[0].weight.data.copy()
        draw_normal(model)
        assert (model[0].weight.data != before).all()


def test_a_chain_of_layers_takes_one_image():
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, 2))
    x = normal(3, 8, 8)
    np.testing.assert_array_equal(chain(Tensor(x)).data, chain(Tensor(x[None])).data[0])


@pytest.mark.parametrize("mode", MODES)
def test_a_fused_chain_pads_as_its_convolution_does(mode):
    conv, x = nn.Conv2d(3, 4, 3, padding=2, padding_mode=mode), Tensor(normal(2, 3, 8, 8))
    with no_grad():
        np.testing.assert_array_equal(nn.Sequential(conv, nn.ReLU())(x).data, np.maximum(conv(x).data, 0))


# ---- choosing an algorithm by direction ---------------------------------------------------------------------------


@pytest.fixture
def called(monkeypatch):
    """Algorithm and direction of every convolution that is computed."""
    calls = []
    chosen = planner._chosen

    def choosing(problem, direction, wish, itemsize):
        plan = chosen(problem, direction, wish, itemsize)
        calls.append((direction, plan.algorithm))
        return plan

    monkeypatch.setattr(planner, "_chosen", choosing)
    return calls


def step(function, **options):
    x, w = (Tensor(np.ones(shape, np.float32), requires_grad=True) for shape in ((1, 2, 6, 6), (2, 2, 3, 3)))
    return function(x, w, **options).sum().backward


def test_algorithms_by_direction(called):
    step(ops.conv2d, algorithm={"forward": "fft", "weight_grad": "loops"})()
    assert called == [("forward", "fft"), ("input_grad", "direct"), ("weight_grad", "loops")]


def test_directions_of_a_transposed_convolution_are_its_own(called):
    step(ops.conv_transpose2d, algorithm={"forward": "fft", "input_grad": "im2col"})()
    assert called == [("input_grad", "fft"), ("forward", "im2col"), ("weight_grad", "direct")]


def test_a_layers_directions_stand_before_the_blocks(called):
    with use_algorithm({"forward": "loops", "input_grad": "loops"}):
        backward = step(ops.conv2d, algorithm={"input_grad": "im2col"})
        assert planner.plan(planner.ConvProblem.parse("ic1oc1_ih3kh1"), "input_grad").algorithm == "loops"
    backward()
    assert called[0] == ("forward", "loops")
    assert called[2:] == [("input_grad", "im2col"), ("weight_grad", "direct")]


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (3, 9, 9)])
def test_the_plans_of_a_layer_are_what_runs(called, shape):
    for layer in (
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", algorithm={"input_grad": "im2col"}),
        nn.ConvTranspose2d(3, 4, 3, 2, algorithm={"forward": "im2col", "input_grad": "fft"}),
    ):
        plans = layer.plan(shape)
        called.clear()
        layer(Tensor(normal(*shape), requires_grad=True)).sum().backward()
        assert [(plans[way].direction, plans[way].algorithm) for way in DIRECTIONS] == called


def test_a_plan_describes_the_problem_that_is_computed():
    assert str(nn.Conv2d(3, 4, 3, padding=1).plan((2, 3, 8, 8))["forward"].problem).startswith("g1mb2ic3oc4_ih8oh8kh3")
    padded = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect").plan((2, 3, 8, 8))["forward"].problem
    assert padded == planner.ConvProblem.of((2, 3, 10, 10), (4, 3, 3, 3))
    up = nn.ConvTranspose2d(3, 4, 2, 2).plan((2, 3, 8, 8))
    assert up["forward"].problem == planner.ConvProblem.of((2, 4, 16, 16), (3, 4, 2, 2), 2)
    assert str(up["forward"]).startswith("input_grad of ")
    assert nn.ConvTranspose2d(3, 4, 2, 2).plan((3, 8, 8), (17, 16))["forward"].problem.input_shape == (1, 4, 17, 16)


# ---- misuse -------------------------------------------------------------------------------------------------------

X, W, V = Tensor(normal(1, 4, 8, 8)), Tensor(normal(6, 4, 3, 3)), Tensor(normal(4, 6, 3, 3))
SEQUENCE = Tensor(normal(1, 4, 8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.conv1d(X, Tensor(normal(6, 4, 3))), ValueError, "Expected 3D input (batch, channels, width), got (1, 4, 8, 8)\nFix: reshape the data to (batch, channels, width)"),
        (lambda: ops.conv3d(X[0, 0], Tensor(normal(6, 4, 3, 3, 3))), ValueError, "Expected 5D input (batch, channels, depth, height, width), got (8, 8)"),
        (lambda: ops.conv3d(X[0], Tensor(normal(6, 4, 3, 3, 3))), ValueError, "Fix: add the batch and channel dimensions: x = x.reshape(1, 1, 4, 8, 8)"),
        (lambda: ops.conv_transpose2d(X.data, V), TypeError, "conv_transpose2d expects a Tensor, got ndarray"),
        (lambda: ops.conv1d(SEQUENCE, W), TypeError, "weight must be a floating-point Tensor (out_channels, in_channels / groups, width), got float32 of shape (6, 4, 3, 3)"),
        (lambda: ops.conv_transpose2d(X, V.data), TypeError, "weight must be a floating-point Tensor (in_channels, out_channels / groups, height, width), got ndarray"),
        (lambda: ops.conv_transpose2d(X, V, Tensor(normal(4))), ValueError, "bias must have shape (out_channels,) = (6,), got (4,)"),
        (lambda: ops.conv2d(X, W, np.zeros(6, np.float32)), ValueError, "bias must have shape (out_channels,) = (6,), got ndarray"),
        (lambda: ops.conv_transpose2d(X, W), ValueError, "Expected 6 input channels (weight (6, 4, 3, 3), groups=1), got 4 in input (1, 4, 8, 8)"),
        (lambda: ops.conv_transpose2d(X, V, groups=3), ValueError, "groups must divide both channel counts, got groups=3 with 4 input and 18 output channels"),
        (lambda: ops.conv_transpose2d(X, V, groups=None), ValueError, "groups must be a positive integer, got None"),
        (lambda: ops.conv2d(X, W, groups=3), ValueError, "groups must divide both channel counts, got groups=3 with 4 input and 6 output channels; use a common divisor such as 2"),
        (lambda: ops.conv_transpose2d(X, V, output_padding=1), ValueError, "output_padding must be smaller than stride or dilation, got output_padding=1 with stride (1, 1) and dilation (1, 1)"),
        (lambda: ops.conv_transpose2d(X, V, output_padding=-1), ValueError, "output_padding must be zero or more, got -1"),
        (lambda: ops.conv_transpose2d(X, V, stride=2, output_size=(16, 17)), ValueError, "output_size must be 17 to 18 along the height, got 16: these are the sizes of which a convolution with stride 2 makes 8 pixels"),
        (lambda: ops.conv_transpose2d(X, V, stride=2, output_size=(17, 19)), ValueError, "output_size must be 17 to 18 along the width, got 19"),
        (lambda: ops.conv_transpose2d(X, V, output_size=(1, 2, 3, 4, 5)), ValueError, "output_size must be one integer or 2 (height, width), got (1, 2, 3, 4, 5)"),
        (lambda: ops.conv_transpose2d(X, V, padding=5), ValueError, "the output has no pixel along the height: (input − 1) · stride − padding + extent of the kernel + output_padding = (8 − 1) · 1 − 10 + 3 + 0 = 0; use less padding"),
        (lambda: ops.conv_transpose2d(X, V, stride=0), ValueError, "stride must be positive, got 0"),
        (lambda: ops.conv_transpose2d(X, V, dilation=(1, 0)), ValueError, "dilation must be positive, got (1, 0)"),
        (lambda: ops.conv_transpose2d(X[:, :, :0], V), ValueError, "every size must be positive"),
        (lambda: ops.conv_transpose2d(X, V, padding="full"), ValueError, "padding must be integers, 'same', 'same_upper', 'same_lower' or 'valid', got 'full'"),
        (lambda: ops.conv2d(X, W, padding_mode="mirror"), ValueError, "padding_mode must be one of ['zeros', 'reflect', 'replicate', 'circular'], got 'mirror'"),
        (lambda: ops.conv2d(X, W, padding_mode=np.ones(2)), ValueError, "'circular'], got array([1., 1.]); 'zeros' is the usual one"),
        (lambda: nn.Conv2d(4, 6, 3, padding_mode="constant"), ValueError, "padding_mode must be one of"),
        (lambda: ops.conv2d(X, W, padding=(0, 8), padding_mode="reflect"), ValueError, "padding_mode='reflect' can make at most 7 pixels of padding from an image with 8 along the width, and 8 are needed; change padding, or use padding_mode='replicate'"),
        (lambda: ops.conv_transpose1d(SEQUENCE[..., :2], Tensor(normal(4, 1, 5)), padding_mode="reflect"), ValueError, "padding_mode='reflect' can make at most 1 pixels of padding from an image with 2 along the width, and 4 are needed"),
        (lambda: ops.conv2d(X[0, :2], W), ValueError, "Expected 4 input channels (weight (6, 4, 3, 3), groups=1), got 2 in input (2, 8, 8); build"),
        (lambda: ops.conv_transpose2d(X[0], W), ValueError, "got 4 in input (4, 8, 8)"),
        (lambda: ops.conv2d(X, W, stride={1, 2}), TypeError, "stride must be an integer or a tuple of 2 integers, got {1, 2}"),
        (lambda: ops.conv2d(X, W, padding={1: 1}), TypeError, "padding must be an integer or a tuple of 2 integers, got {1: 1}"),
        (lambda: ops.conv2d(X, W, groups=[1]), ValueError, "groups must be a positive integer, got (1,)"),
        (lambda: ops.conv_transpose2d(X, V, output_padding={0}), TypeError, "output_padding must be an integer or a tuple of 2 integers, got {0}"),
        (lambda: ops.conv2d(X, W, stride=np.array([1.0, 1.0])), TypeError, "stride must be an integer or a tuple of 2 integers, got (1.0, 1.0)"),
        (lambda: ops.conv2d(X, W, algorithm=["direct"]), TypeError, "algorithm must be a name, or a dictionary of names by direction, got ['direct']; None lets the planner choose"),
        (lambda: nn.Conv2d(4, 6, 3, algorithm={"forward": ["fft"]}), TypeError, "algorithm must be a name, or a dictionary of names by direction, got {'forward': ['fft']}"),
        (lambda: nn.Conv2d(2, 2, 3, stride=2, algorithm="winograd"), ValueError, "algorithm 'winograd' refuses the forward of a Conv2d with these options: it needs stride 1 and dilation 1; use another, or leave algorithm out"),
        (lambda: nn.Conv2d(2, 2, 3, stride=2, algorithm={"input_grad": "winograd"}), ValueError, "algorithm 'winograd' refuses the input_grad of a Conv2d"),
        (lambda: nn.Conv3d(2, 2, 3, algorithm="planar"), ValueError, "algorithm 'planar' refuses the forward of a Conv3d"),
        (lambda: nn.ConvTranspose2d(2, 2, 3, 2, algorithm={"input_grad": "planar"}), ValueError, "algorithm 'planar' refuses the input_grad of a ConvTranspose2d with these options: it needs stride 1"),
        (lambda: nn.Conv2d(4, 4, 3).plan("abc"), ValueError, "input_shape must be integers (batch, channels, height, width) or (channels, height, width), got 'abc'"),
        (lambda: nn.Conv1d(4, 4, 3).plan((4, 8, 8, 8)), ValueError, "input_shape must be integers (batch, channels, width) or (channels, width), got (4, 8, 8, 8)"),
        (lambda: nn.ConvTranspose2d(4, 4, 3).plan(8), ValueError, "input_shape must be integers"),
        (lambda: ops.conv2d(X, W, algorithm="gemm"), ValueError, "algorithm must be one of ['depthwise', 'direct'"),
        (lambda: nn.Conv1d(4, 6, 3, algorithm={"forward": "gemm"}), ValueError, "algorithm must be one of ['depthwise', 'direct'"),
        (lambda: nn.Conv1d(4, 6, 3, algorithm={"forwards": "direct"}), ValueError, "algorithm must be given for directions out of ['forward', 'input_grad', 'weight_grad'], got 'forwards'; did you mean 'forward'?"),
        (lambda: ops.conv2d(X, W, algorithm={"backward": "direct"}), ValueError, "algorithm must be given for directions out of"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=4), ValueError, "groups must divide both channel counts"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, output_padding=1), ValueError, "output_padding must be smaller than stride or dilation"),
        (lambda: nn.ConvTranspose3d(0, 6, 3), ValueError, "in_channels must be a positive integer, got 0"),
        (lambda: nn.Conv2d(4, 6, 3, 1, 1, False), TypeError, "dilation must be an integer or a tuple of 2 integers, got False"),
        (lambda: nn.Conv1d(4, 6, (3, 3)), ValueError, "kernel_size must be one integer or 1 (width), got (3, 3)"),
        (lambda: ops.conv3d(Tensor(normal(1, 1, 2, 4, 4)), Tensor(normal(1, 1, 3, 3, 3))), ValueError, "kernel is larger than the padded input: along the depth the kernel spans 3 pixels"),
    ],
)  # fmt: skip
def test_misuse_is_explained(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("call", "shape", "bytes_asked"),
    [
        (lambda: ops.conv2d(X, W, padding=10**6), "(1, 2000006, 2000006, 6)", 6 * 4 * 2000006**2),
        (lambda: ops.conv_transpose2d(X, V, stride=10**6), "(1, 7000003, 7000003, 6)", 6 * 4 * 7000003**2),
    ],
)  # fmt: skip
def test_what_no_memory_can_hold_is_refused_at_once(call, shape, bytes_asked):
    with pytest.raises(
        MemoryError, match=re.escape(f"an array of shape {shape} and type float32 takes {bytes_asked:,} bytes")
    ):
        call()
