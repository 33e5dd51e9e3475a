"""Pooling in one, two and three dimensions: against PyTorch, against windows cut out by NumPy, by finite differences,
and when misused.
"""

import inspect
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.oracle.gradcheck import check_gradients
from tests.oracle.torch_twin import compare
from tinytorch import Tensor, no_grad, set_num_threads
from tinytorch import nn as layers
from tinytorch.core.fusion import conv_block
from tinytorch.nn import functional as ops

TRIALS = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
DTYPES = st.sampled_from([np.float32, np.float64])
SIZES = {1: (9,), 2: (7, 9), 3: (5, 6, 7)}
KERNELS = {1: [(2,), (3,), (40,)], 2: [(2, 2), (3, 3), (1, 2), (7, 5)], 3: [(2, 2, 2), (3, 3, 3), (1, 3, 2), (4, 3, 4)]}


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def integers(*shape, least=-4, most=4, dtype=np.float32):
    return np.random.default_rng([7, *shape]).integers(least, most + 1, shape).astype(dtype)


def of(module, name, dims):
    """The function or layer of so many dimensions."""
    return getattr(module, f"{name}{dims}d")


def outputs(result):
    return result if isinstance(result, tuple) else (result,)


# ---- as PyTorch ---------------------------------------------------------------------------------------------


@st.composite
def poolings(draw):
    dims = draw(st.integers(1, 3))
    kernel = draw(st.sampled_from(KERNELS[dims]))
    stride = draw(st.one_of(st.none(), st.tuples(*[st.integers(1, 3)] * dims)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(draw(st.integers(k, k + 6)) for k in kernel)
    lead = draw(st.sampled_from([(2, 3), (1, 17), (3,), (0, 2)]))
    return dims, (*lead, *size), kernel, stride, padding


def agree(name, dims, x, *options):
    """Results and gradients are PyTorch's."""
    torch = pytest.importorskip("torch")
    theirs = of(torch.nn.functional, name, dims)
    compare(lambda t: of(ops, name, dims)(t, *options), lambda t: theirs(t, *options), x)


def agree_exactly(name, dims, x, *options):
    """Maxima and indices are PyTorch's."""
    torch = pytest.importorskip("torch")
    y, indices = of(ops, name, dims)(Tensor(x), *options, return_indices=True)
    expected, places = of(torch.nn.functional, name, dims)(torch.tensor(x), *options, return_indices=True)
    np.testing.assert_array_equal(y.data, expected.numpy())
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices.data, places.numpy())


@TRIALS
@given(poolings(), DTYPES, st.sampled_from([1, 1, 2]), st.booleans())
def test_max_pooling_as_torch(pooling, dtype, dilation, ceil_mode):
    dims, shape, kernel, stride, padding = pooling
    assume(all(n + 2 * p > dilation * (k - 1) for n, k, p in zip(shape[-dims:], kernel, padding, strict=True)))
    options = (kernel, stride, padding, dilation, ceil_mode)
    ties = integers(*shape, least=0, most=1, dtype=dtype)
    agree("max_pool", dims, normal(*shape, dtype=dtype), *options)
    agree("max_pool", dims, ties, *options)
    agree_exactly("max_pool", dims, ties, *options)


@TRIALS
@given(poolings(), DTYPES, st.booleans(), st.booleans(), st.sampled_from([None, None, 3, -2]))
def test_average_pooling_as_torch(pooling, dtype, ceil_mode, count_include_pad, divisor):
    dims, shape, *window = pooling
    overridden = (divisor,) if dims > 1 else ()
    agree("avg_pool", dims, normal(*shape, dtype=dtype), *window, ceil_mode, count_include_pad, *overridden)


@TRIALS
@given(poolings(), DTYPES, st.booleans(), st.sampled_from([1, 2, 3, 1.5, 0.5, 6, math.inf]))
def test_power_average_pooling_as_torch(pooling, dtype, ceil_mode, p):
    dims, shape, kernel, stride, _ = pooling
    x = normal(*shape, dtype=dtype)
    x = x if p in (2, 6, math.inf) else np.abs(x) + dtype(0.1)
    window = (kernel, stride) if dims > 1 else (kernel[0], stride and stride[0])
    agree("lp_pool", dims, x, p, *window, ceil_mode)


@TRIALS
@given(st.integers(1, 3), st.data(), DTYPES, st.booleans())
def test_adaptive_pooling_as_torch(dims, data, dtype, batched):
    sizes = st.tuples(*[st.integers(1, 9)] * dims)
    shape, wanted = (2, 3, *data.draw(sizes))[not batched :], data.draw(sizes)
    agree("adaptive_avg_pool", dims, normal(*shape, dtype=dtype), wanted)
    agree("adaptive_max_pool", dims, normal(*shape, dtype=dtype), wanted)
    agree_exactly("adaptive_max_pool", dims, integers(*shape, least=0, most=1), wanted)


@TRIALS
@given(st.integers(1, 3), st.sampled_from([1, 2]), DTYPES, st.booleans(), st.sampled_from(["usual", "sizes", "shape"]))
def test_unpooling_as_torch(dims, stride, dtype, batched, given_size):
    torch = pytest.importorskip("torch")
    assume(given_size != "usual" or stride == 1)  # else some indices lie outside
    shape = (2, 3, *SIZES[dims])[not batched :]
    pooled = of(torch.nn.functional, "max_pool", dims)
    y, indices = pooled(torch.tensor(normal(*shape, dtype=dtype)), 3, stride, 1, return_indices=True)
    size = {"usual": None, "sizes": shape[-dims:], "shape": shape if batched else shape[-dims:]}[given_size]
    mine, theirs = of(ops, "max_unpool", dims), of(torch.nn.functional, "max_unpool", dims)
    places = Tensor(indices.numpy())
    compare(lambda y: mine(y, places, 3, stride, 1, size), lambda y: theirs(y, indices, 3, stride, 1, size), y.numpy())


def test_options_of_one_number_may_stand_in_a_tuple_as_in_torch():
    x = Tensor(normal(1, 2, 6, 6))
    expected = ops.avg_pool2d(x, 3, 2, 1).data
    np.testing.assert_array_equal(ops.avg_pool2d(x, (3,), [2], (1,)).data, expected)
    np.testing.assert_array_equal(ops.adaptive_avg_pool2d(x, (4,)).data, ops.adaptive_avg_pool2d(x, 4).data)
    np.testing.assert_array_equal(ops.max_pool2d(x, 3, ()).data, ops.max_pool2d(x, 3).data)
    np.testing.assert_array_equal(ops.max_pool2d(x, 3, []).data, ops.max_pool2d(x, 3).data)


@pytest.mark.parametrize("kernel", [3, 15, 60])  # by tap, by place, and by width where windows overlap
@pytest.mark.parametrize("dims", [1, 2])
def test_nan_wins_and_the_last_of_several_as_in_torch(dims, kernel):
    x = integers(2, 3, *(70,) * dims, least=0, most=2)
    x[np.random.default_rng(0).random(x.shape) < 0.01] = np.nan
    agree_exactly("max_pool", dims, x, kernel, 1)


@pytest.mark.parametrize(("dims", "kernel", "stride"), [(2, 9, 1), (2, 9, 9), (2, 6, 2), (3, 4, 1), (1, 50, 1)])
def test_large_windows_as_torch(dims, kernel, stride):
    shape = (2, 5, *{1: (120,), 2: (18, 19), 3: (6, 7, 9)}[dims])
    for name in ("max_pool", "avg_pool"):
        agree(name, dims, normal(*shape), kernel, stride, kernel // 2)
    agree_exactly("max_pool", dims, integers(*shape), kernel, stride, kernel // 2)


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_ceil_mode_takes_a_window_larger_than_the_image_as_torch(name):
    agree(name, 2, normal(1, 2, 3, 4), 4, 2, 0, *((1,) if name == "max_pool" else ()), True)


# ---- beyond PyTorch: windows cut out by NumPy ---------------------------------------------------------------


FILL = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def cut_out(x, kernel, stride, pads, dilation, mode="zeros", fill=0.0):
    """Windows as an array (N, C, windows of each axis, taps of each axis)."""
    widths = ((0, 0), (0, 0), *pads)
    x = np.pad(x, widths, constant_values=fill) if mode == "zeros" else np.pad(x, widths, mode=FILL[mode])
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    axes = tuple(range(2, x.ndim))
    every = np.lib.stride_tricks.sliding_window_view(x, extents, axes)
    outer = tuple(slice(None, None, s) for s in stride)
    return every[(slice(None), slice(None), *outer, *(slice(None, None, d) for d in dilation))]


def same(size, kernel, stride, dilation, lower):
    """(before, after) of XLA's SAME padding, the odd pixel behind or in front."""
    total = max(0, (math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
    return (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)


@st.composite
def freer_poolings(draw):
    dims = draw(st.integers(1, 3))
    kernel = draw(st.sampled_from([k for k in KERNELS[dims] if max(k) < 5]))
    stride = draw(st.tuples(*[st.integers(1, 3)] * dims))
    dilation = draw(st.sampled_from([1, 1, 2]))
    size = tuple(draw(st.integers(dilation * (k - 1) + 1, 10)) for k in kernel)
    mode = draw(st.sampled_from(["zeros", *FILL]))
    named = draw(st.sampled_from([None, "valid", "same", "same_upper", "same_lower"]))
    if named is None:
        most = [
            dilation * (k - 1) // 2 if mode == "zeros" else min(2, n - 1) for k, n in zip(kernel, size, strict=True)
        ]
        pads = tuple((draw(st.integers(0, m)), draw(st.integers(0, m))) for m in most)
    elif named == "valid":
        pads = ((0, 0),) * dims
    else:
        numbers = zip(size, kernel, stride, strict=True)
        pads = tuple(same(n, k, s, dilation, named == "same_lower") for n, k, s in numbers)
    assume(mode == "zeros" or all(max(pair) < n for pair, n in zip(pads, size, strict=True)))
    return dims, (2, 3, *size), (kernel, stride, pads, (dilation,) * dims, mode), named or pads


@TRIALS
@given(freer_poolings(), DTYPES)
def test_padding_modes_dilation_and_uneven_padding_are_exact_on_integers(pooling, dtype):
    dims, shape, (kernel, stride, pads, dilation, mode), padding = pooling
    x, inner = integers(*shape, dtype=dtype), tuple(range(2 + dims, 2 + 2 * dims))
    more = {"dilation": dilation, "padding_mode": mode}
    windows = cut_out(x, kernel, stride, pads, dilation, mode)
    lowest = cut_out(x, kernel, stride, pads, dilation, mode, -np.inf)
    assume(not np.isinf(lowest.max(inner)).any())
    numbers = np.arange(math.prod(shape[2:]), dtype=np.float64).reshape(1, 1, *shape[2:])
    places = cut_out(numbers, kernel, stride, pads, dilation, mode, -1)
    y, indices = of(ops, "max_pool", dims)(Tensor(x), kernel, stride, padding, return_indices=True, **more)
    np.testing.assert_array_equal(y.data, lowest.max(inner))
    first = lowest.reshape(*y.shape, -1).argmax(-1)
    flat = np.broadcast_to(places, lowest.shape).reshape(*y.shape, -1)
    np.testing.assert_array_equal(indices.data, np.take_along_axis(flat, first[..., None], -1)[..., 0])
    mean = of(ops, "avg_pool", dims)(Tensor(x), kernel, stride, padding, **more)
    np.testing.assert_array_equal(mean.data, windows.sum(inner) / dtype(math.prod(kernel)))
    held = (cut_out(np.ones_like(numbers), kernel, stride, pads, dilation, mode)).sum(inner).astype(dtype)
    mean = of(ops, "avg_pool", dims)(Tensor(x), kernel, stride, padding, count_include_pad=False, **more)
    np.testing.assert_array_equal(mean.data, windows.sum(inner) / held)
    norm = of(ops, "lp_pool", dims)(Tensor(x), 2, kernel, stride, padding=padding, **more)
    np.testing.assert_array_equal(norm.data, np.sqrt((windows**2).sum(inner)))


@TRIALS
@given(freer_poolings(), st.sampled_from(["max_pool", "avg_pool", "lp_pool"]))
def test_gradients_of_these_by_finite_differences(pooling, name):
    dims, (_, _, *size), (kernel, stride, _, dilation, mode), padding = pooling
    x = np.random.default_rng(0).permutation(math.prod(size)).reshape(1, 1, *size) / 4 + 1.0  # no ties, no zeros
    power = (3,) if name == "lp_pool" else ()
    options = {"padding": padding, "dilation": dilation, "padding_mode": mode}
    windows = cut_out(x, kernel, stride, pooling[2][2], dilation, mode, -np.inf)
    assume(not np.isinf(windows.max(tuple(range(2 + dims, 2 + 2 * dims)))).any())
    check_gradients(lambda x: of(ops, name, dims)(x, *power, kernel, stride, **options), x)


def test_same_padding_gives_as_many_windows_as_strides_begin():
    x = Tensor(normal(1, 2, 7, 10))
    for padding, stride in itertools.product(("same", "same_lower"), (1, 2, 3, 4)):
        for kernel in (1, 2, 3, 5):
            assert ops.avg_pool2d(x, kernel, stride, padding).shape[2:] == (-(-7 // stride), -(-10 // stride))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, dims: of(ops, "max_pool", dims)(x, 3, 2, 1, ceil_mode=True),
        lambda x, dims: of(ops, "max_pool", dims)(x, 4, 1, 2),
        lambda x, dims: of(ops, "avg_pool", dims)(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        lambda x, dims: of(ops, "avg_pool", dims)(x, 4, 1, 2, divisor_override=5),
        lambda x, dims: of(ops, "lp_pool", dims)(x.abs() + 0.1, 2.5, 3, 2, ceil_mode=True),
        lambda x, dims: of(ops, "lp_pool", dims)(x, 1, 3, 1),
        lambda x, dims: of(ops, "adaptive_avg_pool", dims)(x, (3, 4, 2)[:dims]),
        lambda x, dims: of(ops, "adaptive_max_pool", dims)(x, (3, 4, 2)[:dims]),
    ],
)
def test_gradients_by_finite_differences(function, dims):
    check_gradients(lambda x: function(x, dims), normal(2, 2, *(4, 5, 4)[:dims], dtype=np.float64))


def test_gradient_of_unpooling_by_finite_differences():
    y, indices = ops.max_pool2d(Tensor(normal(2, 2, 6, 6, dtype=np.float64)), 2, return_indices=True)
    check_gradients(lambda y: ops.max_unpool2d(y, indices, 2), y.data)


# ---- properties ---------------------------------------------------------------------------------------------


def test_unpooling_puts_maxima_back():
    x = Tensor(normal(2, 3, 9, 7))
    y, indices = ops.max_pool2d(x, 2, return_indices=True)
    back = ops.max_unpool2d(y, indices, 2, output_size=(9, 7)).data
    np.testing.assert_array_equal(back[back != 0], x.data[back != 0])
    np.testing.assert_array_equal(ops.max_pool2d(Tensor(back), 2).data, np.maximum(y.data, 0))


def test_of_several_values_for_one_pixel_the_last_stays():
    values, indices = Tensor(np.float32([[[1, 2, 3]]])), Tensor(np.array([[[4, 4, 0]]]))
    np.testing.assert_array_equal(ops.max_unpool1d(values, indices, 2).data, [[[3, 0, 0, 0, 2, 0]]])


def test_norms_and_sums_where_nothing_is_there():
    x = Tensor(np.float64([[[0, 0, 3, 4, 0, 0]]]), requires_grad=True)
    y = ops.lp_pool1d(x, 2, 2)
    np.testing.assert_array_equal(y.data, [[[0, 5, 0]]])
    y.sum().backward()
    np.testing.assert_allclose(x.grad, [[[0, 0, 0.6, 0.8, 0, 0]]])
    x = Tensor(np.float64([[[0, 4, 0, 0]]]), requires_grad=True)
    ops.lp_pool1d(x, 0.5, 2).sum().backward()
    np.testing.assert_allclose(x.grad, [[[0, 1, 0, 0]]])


def test_powers_keep_their_signs():
    x = Tensor(np.float32([[[2, -1, -2, 1]]]))
    np.testing.assert_allclose(ops.lp_pool1d(x, 3, 2).data, [[[7 ** (1 / 3), np.nan]]], rtol=1e-6)
    np.testing.assert_allclose(ops.lp_pool1d(x.abs(), 3, 2).data, [[[9 ** (1 / 3)] * 2]], rtol=1e-6)
    np.testing.assert_array_equal(ops.lp_pool1d(x, math.inf, 2).data, [[[2, 2]]])


def test_what_ceil_mode_adds_counts_as_the_mean_of_the_rest():
    x = Tensor(np.float32([[[3, 4, 6]]]))
    np.testing.assert_array_equal(ops.lp_pool1d(x, 1, 2, ceil_mode=True).data, [[[7, 12]]])
    np.testing.assert_array_equal(ops.avg_pool1d(x, 2, ceil_mode=True).data, [[[3.5, 6]]])


def test_mean_of_many_pixels_is_accurate():
    x = (normal(1, 3, 300, 301) + 5).astype(np.float32)
    exact = x.mean((2, 3), dtype=np.float64)
    np.testing.assert_allclose(ops.adaptive_avg_pool2d(Tensor(x), 1).data[:, :, 0, 0], exact, rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.max_pool2d(x, 3, 2, 1, return_indices=True),
        lambda x: ops.max_pool2d(x, 7, 1, 3, return_indices=True),
        lambda x: ops.avg_pool2d(x, 3, 1, 1),
        lambda x: ops.avg_pool2d(x, 7, 1, 3),
        lambda x: ops.lp_pool2d(x, 2, 3, 2),
        lambda x: ops.adaptive_max_pool2d(x, (3, 5), return_indices=True),
        lambda x: ops.max_unpool2d(*ops.max_pool2d(x, 2, return_indices=True), 2),
    ],
)
def test_any_memory_order_and_number_of_threads_give_the_same_bits(function):
    x = normal(3, 5, 14, 12)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    results = []
    for array, threads in ((x, 2), (last, 2), (x, 1), (np.asfortranarray(x), 1)):
        try:
            set_num_threads(min(threads, os.cpu_count() or 1))
            tensor = Tensor(array, requires_grad=True)
            out = outputs(function(tensor))
            out[0].backward(normal(*out[0].shape))
            results.append([*(t.data for t in out), tensor.grad])
        finally:
            set_num_threads(min(2, os.cpu_count() or 1))
    for other in results[1:]:
        for mine, same_one in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(mine, same_one)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_no_images_and_no_gradient(dims):
    empty = Tensor(np.zeros((0, 2, *SIZES[dims]), np.float32), requires_grad=True)
    y, indices = of(ops, "max_pool", dims)(empty, 2, return_indices=True)
    shape = (0, 2, *(n // 2 for n in SIZES[dims]))
    assert y.shape == indices.shape == shape == of(ops, "lp_pool", dims)(empty, 2, 2).shape
    assert of(ops, "max_unpool", dims)(y, indices, 2).shape[0] == 0
    (y.sum() + of(ops, "avg_pool", dims)(empty, 2).sum()).backward()
    assert empty.grad.shape == empty.shape
    with no_grad():
        assert of(ops, "max_pool", dims)(empty, 2).node is None


def test_one_image_is_a_batch_of_one():
    x = normal(3, 8, 9)
    for name, options in (
        ("max_pool2d", (2, 1, 1)), ("avg_pool2d", (2,)), ("lp_pool2d", (2, 2)), ("adaptive_avg_pool2d", (3,)),
        ("adaptive_max_pool2d", (3,)),
    ):  # fmt: skip
        function = getattr(ops, name)
        one, batch = Tensor(x, requires_grad=True), Tensor(x[None], requires_grad=True)
        np.testing.assert_array_equal(function(one, *options).data, function(batch, *options).data[0])
        function(one, *options).sum().backward()
        function(batch, *options).sum().backward()
        np.testing.assert_array_equal(one.grad, batch.grad[0])
    y, indices = ops.max_pool2d(Tensor(x), 2, return_indices=True)
    assert y.shape == indices.shape == (3, 4, 4)
    assert ops.max_unpool2d(y, indices, 2, output_size=(8, 9)).shape == (3, 8, 9)


def test_functions_say_their_names_and_arguments():
    assert ops.max_pool3d.__name__ == "max_pool3d"
    arguments = ", ".join(inspect.signature(ops.max_pool3d).parameters)
    assert arguments == "input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, padding_mode"
    assert ops.max_pool1d(input=Tensor(normal(1, 1, 4)), kernel_size=2, stride=1).shape == (1, 1, 3)


INTERPRETED = """
import sys
import numpy as np
from tinytorch import Tensor
from tinytorch.nn import functional as F
results = []
for function in (
    lambda x: F.max_pool2d(x, 2, return_indices=True), lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
    lambda x: F.max_pool2d(x, 6, 1, 3, return_indices=True), lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    lambda x: F.lp_pool2d(x, 2, 2), lambda x: F.adaptive_max_pool2d(x, (3, 4)),
    lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
):
    x = Tensor(np.random.default_rng(0).integers(1, 9, (2, 3, 6, 8)).astype(np.float32), requires_grad=True)
    out = function(x)
    out = out if isinstance(out, tuple) else (out,)
    out[0].sum().backward()
    results += [*(t.data for t in out), x.grad]
np.savez(sys.argv[1], *results)
"""


def test_plain_python_computes_the_same(tmp_path):
    root = Path(__file__).parent.parent.parent
    for name, disabled in (("compiled", "0"), ("plain", "1")):
        settings = {**os.environ, "PYTHONPATH": str(root), "NUMBA_DISABLE_JIT": disabled}
        arguments = [sys.executable, "-c", INTERPRETED, str(tmp_path / f"{name}.npz")]
        done = subprocess.run(arguments, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    compiled, plain = (np.load(tmp_path / f"{name}.npz") for name in ("compiled", "plain"))
    assert len(compiled.files) == 17
    for name in compiled.files:
        np.testing.assert_allclose(compiled[name], plain[name], rtol=1e-6)


# ---- layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MaxPool", {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 1, "ceil_mode": True}),
        ("MaxPool", {"kernel_size": 2, "dilation": 2, "stride": 1}),
        ("AvgPool", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
        ("LPPool", {"norm_type": 2, "kernel_size": 2, "stride": 1, "ceil_mode": False}),
        ("AdaptiveAvgPool", {"output_size": 3}),
        ("AdaptiveMaxPool", {"output_size": 3}),
    ],
)
def test_layers_as_torch(dims, name, arguments):
    torch = pytest.importorskip("torch")
    ours, theirs = of(layers, name, dims)(**arguments), of(torch.nn, name, dims)(**arguments)
    compare(ours, theirs, normal(2, 3, *SIZES[dims]))
    compare(ours, theirs, normal(3, *SIZES[dims]))
    mine, his = (list(inspect.signature(type(layer).__init__).parameters) for layer in (ours, theirs))
    assert mine[: len(his)] == his or name == "AvgPool"  # AvgPool1d has no divisor_override in PyTorch
    assert ours.parameters() == []


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_indices_go_from_layer_to_layer_as_in_torch(dims):
    torch = pytest.importorskip("torch")
    x = normal(2, 3, *SIZES[dims])
    size = (2, 3, *SIZES[dims])
    mine, theirs = (
        lambda x, nn=nn: of(nn, "MaxUnpool", dims)(2)(
            *of(nn, "MaxPool", dims)(2, return_indices=True)(x), output_size=size
        )
        for nn in (layers, torch.nn)
    )
    compare(mine, theirs, x)
    y, indices = of(layers, "AdaptiveMaxPool", dims)(2, return_indices=True)(Tensor(x))
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, 3, -1), indices.data.reshape(2, 3, -1), -1), y.data.reshape(2, 3, -1)
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_global_pooling(dims):
    x, axes = normal(2, 3, *SIZES[dims], dtype=np.float64), tuple(range(2, 2 + dims))
    np.testing.assert_allclose(of(layers, "GlobalAvgPool", dims)()(Tensor(x)).data, x.mean(axes, keepdims=True))
    np.testing.assert_array_equal(of(layers, "GlobalMaxPool", dims)()(Tensor(x)).data, x.max(axes, keepdims=True))
    assert of(layers, "GlobalAvgPool", dims)()(Tensor(x[0])).shape == (3, *(1,) * dims)
    for name in ("GlobalAvgPool", "GlobalMaxPool"):
        check_gradients(of(layers, name, dims)(), x)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: layers.MaxPool1d(2), "MaxPool1d(kernel_size=(2,), stride=2, padding=0)"),
        (
            lambda: layers.MaxPool2d(3, 2, "same", 2, True, True, padding_mode="reflect"),
            "MaxPool2d(kernel_size=(3, 3), stride=2, padding='same', dilation=2, ceil_mode=True, padding_mode='reflect', return_indices=True)",
        ),
        (
            lambda: layers.AvgPool3d(2, padding=((0, 1), (1, 0), (1, 1)), count_include_pad=False, divisor_override=7),
            "AvgPool3d(kernel_size=(2, 2, 2), stride=2, padding=((0, 1), (1, 0), (1, 1)), count_include_pad=False, divisor_override=7)",
        ),
        (lambda: layers.LPPool2d(1.5, (3, 2), 1), "LPPool2d(norm_type=1.5, kernel_size=(3, 2), stride=1, padding=0)"),
        (lambda: layers.AdaptiveAvgPool3d((1, None, 2)), "AdaptiveAvgPool3d(output_size=(1, None, 2))"),
        (lambda: layers.AdaptiveMaxPool1d(4, True), "AdaptiveMaxPool1d(output_size=4, return_indices=True)"),
        (lambda: layers.GlobalAvgPool2d(), "GlobalAvgPool2d()"),
        (lambda: layers.MaxUnpool2d(2, (1, 2), 1), "MaxUnpool2d(kernel_size=(2, 2), stride=(1, 2), padding=(1, 1))"),
    ],
)
def test_repr(layer, text):
    assert repr(layer()) == text


@pytest.mark.parametrize(
    "pool",
    [
        layers.MaxPool2d(3, 1, dilation=2),
        layers.MaxPool2d(3, 2, ceil_mode=True),
        layers.MaxPool2d(3, 2, padding=((1, 0), (0, 1))),
        layers.MaxPool2d(3, 2, "same_lower"),
        layers.MaxPool2d(3, 2, 1, padding_mode="circular"),
        layers.MaxPool2d(2, return_indices=True),
    ],
)
def test_every_max_pooling_follows_a_convolution_as_in_steps(pool):
    conv, x = layers.Conv2d(2, 4, 3), normal(2, 2, 11, 12)
    results = []
    for run in (lambda t: conv_block(t, conv, pool=pool), lambda t: pool(conv(t))):
        tensor = Tensor(x, requires_grad=True)
        out = outputs(run(tensor))
        out[0].sum().backward()
        results.append([*(t.data for t in out), tensor.grad])
    for fused, stepwise in zip(*results, strict=True):
        np.testing.assert_array_equal(fused, stepwise)


def test_arrays_are_options():
    x, two = Tensor(normal(1, 2, 6, 8)), np.array([2, 3])
    for pool in (ops.max_pool2d, ops.avg_pool2d):
        arrays, plain = pool(x, two, two, two // 2, dilation=two // two), pool(x, (2, 3), (2, 3), (1, 1), dilation=1)
        np.testing.assert_array_equal(arrays.data, plain.data)
    np.testing.assert_array_equal(ops.adaptive_avg_pool2d(x, two).data, ops.adaptive_avg_pool2d(x, (2, 3)).data)
    assert repr(layers.MaxPool2d(two, two, two // 2, two // two)) == repr(
        layers.MaxPool2d((2, 3), (2, 3), (1, 1), (1, 1))
    )
    assert repr(layers.AdaptiveAvgPool2d(two)) == "AdaptiveAvgPool2d(output_size=(2, 3))"


# ---- misuse -------------------------------------------------------------------------------------------------

X = Tensor(normal(1, 2, 6, 8))
Y, PLACES = ops.max_pool2d(X, 2, return_indices=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.max_pool2d(Tensor(normal(6, 8)), 2), ValueError, "Expected 4D input (batch, channels, height, width), got (6, 8)"),
        (lambda: ops.avg_pool1d(Tensor(normal(2, 2, 6, 8)), 2), ValueError, "Expected 3D input (batch, channels, width), got (2, 2, 6, 8)"),
        (lambda: ops.lp_pool3d(X.data, 2, 2), TypeError, "lp_pool3d expects a Tensor, got ndarray; wrap the array: Tensor(x)"),
        (lambda: ops.adaptive_max_pool2d(Tensor(np.ones((1, 1, 2, 2), np.int64)), 1), TypeError, "adaptive_max_pool2d computes in float32 or float64, got int64"),
        (lambda: ops.max_pool2d(Tensor(np.zeros((2, 0, 4, 4), np.float32)), 2), ValueError, "every size but the batch must be positive, got input (2, 0, 4, 4)"),
        (lambda: ops.avg_pool2d(Tensor(np.zeros((2, 3, 0, 4), np.float32)), 2), ValueError, "every size but the batch must be positive, got input (2, 3, 0, 4)"),
        (lambda: ops.max_pool2d(X, 0), ValueError, "kernel_size must be positive, got 0"),
        (lambda: ops.max_pool2d(X, (2, 2, 2)), ValueError, "kernel_size must be one integer or 2 (height, width), got (2, 2, 2)"),
        (lambda: ops.max_pool2d(X, 2.0), TypeError, "kernel_size must be an integer or a tuple of 2 integers, got 2.0"),
        (lambda: ops.avg_pool2d(X, 2, stride=0), ValueError, "stride must be positive, got 0"),
        (lambda: ops.max_pool2d(X, 2, dilation=0), ValueError, "dilation must be positive, got 0"),
        (lambda: ops.max_pool2d(X, 2, padding=-1), ValueError, "padding must be zero or more, got -1"),
        (lambda: ops.max_pool2d(X, 2, padding="full"), ValueError, "padding must be integers, 'same', 'same_upper', 'same_lower' or 'valid', got 'full'"),
        (lambda: ops.max_pool2d(X, 3, padding=2), ValueError, "padding must be at most half the kernel, as in PyTorch, got padding=2 for kernel_size=3; use padding=1 or less, or pad the input first"),
        (lambda: ops.avg_pool2d(X, 3, padding=((0, 2), (1, 1))), ValueError, "padding must be at most half the kernel, as in PyTorch, got padding=((0, 2), (1, 1))"),
        (lambda: ops.lp_pool2d(X, 2, 3, padding=2), ValueError, "padding must be at most half the kernel"),
        (lambda: ops.max_pool1d(Tensor(normal(1, 1, 1)), 2, padding=2, dilation=3), ValueError, "every window must hold a pixel, but along the width one of kernel_size=2 and dilation=3 has none of 1 under its taps; use less padding or dilation"),
        (lambda: ops.max_pool2d(X, 7), ValueError, "kernel is larger than the padded input: along the height the kernel spans 7 pixels"),
        (lambda: ops.avg_pool3d(Tensor(normal(1, 2, 3, 4, 5)), 4), ValueError, "kernel is larger than the padded input: along the depth"),
        (lambda: ops.max_pool2d(X, 9, 2, ceil_mode=True), ValueError, "kernel is larger than the padded input"),
        (lambda: ops.max_pool2d(X, 2, padding_mode="mirror"), ValueError, "padding_mode must be one of ['zeros', 'reflect', 'replicate', 'circular'], got 'mirror'"),
        (lambda: ops.max_pool2d(X, 2, padding=6, padding_mode="reflect"), ValueError, "padding_mode='reflect' can make at most 5 pixels of padding from an image with 6 along the height, and 6 are needed; change padding"),
        (lambda: ops.avg_pool2d(X, 2, padding=7, padding_mode="circular"), ValueError, "padding_mode='circular' can make at most 6 pixels of padding from an image with 6 along the height, and 7 are needed"),
        (lambda: ops.max_pool2d(X[0, :0], 2), ValueError, "every size but the batch must be positive, got input (0, 6, 8)"),
        (lambda: ops.avg_pool2d(X, {2}), TypeError, "kernel_size must be an integer or a tuple of 2 integers, got {2}"),
        (lambda: layers.MaxPool2d(2, dilation={1: 1}), TypeError, "dilation must be an integer or a tuple of 2 integers, got {1: 1}"),
        (lambda: ops.avg_pool2d(X, 2, divisor_override=0), ValueError, "divisor_override must be an integer but not 0, got 0; None divides by the number of pixels"),
        (lambda: ops.avg_pool2d(X, 2, divisor_override=1.5), ValueError, "divisor_override must be an integer but not 0, got 1.5"),
        (lambda: ops.lp_pool2d(X, 0, 2), ValueError, "norm_type must be a positive number, got 0; 2 is the Euclidean norm"),
        (lambda: ops.lp_pool2d(X, -math.inf, 2), ValueError, "norm_type must be a positive number, got -inf"),
        (lambda: ops.lp_pool2d(X, math.nan, 2), ValueError, "norm_type must be a positive number, got nan"),
        (lambda: ops.lp_pool2d(X, "2", 2), ValueError, "norm_type must be a positive number, got '2'"),
        (lambda: ops.adaptive_avg_pool1d(Tensor(normal(1, 2, 3)), 0), ValueError, "output_size must be positive, got [0]"),
        (lambda: ops.adaptive_max_pool2d(X, (3, -1)), ValueError, "output_size must be positive, got [3, -1]"),
        (lambda: ops.adaptive_max_pool3d(Tensor(normal(1, 2, 3, 4, 5)), (1, 2)), ValueError, "output_size must be one integer or 3 (depth, height, width), got [1, 2]"),
        (lambda: ops.max_unpool2d(Y, PLACES.data, 2), TypeError, "indices must be a Tensor of int64, as max_pool returns with return_indices=True, got ndarray"),
        (lambda: ops.max_unpool2d(Y, Tensor(PLACES.data.astype(np.int32)), 2), TypeError, "indices must be a Tensor of int64, as max_pool returns with return_indices=True, got int32"),
        (lambda: ops.max_unpool2d(Y, PLACES[:, :, 1:], 2), ValueError, "indices must have the shape of input, (1, 2, 3, 4), got (1, 2, 2, 4)"),
        (lambda: ops.max_unpool2d(Y[0], PLACES, 2), ValueError, "Expected 4D input (batch, channels, height, width), got (2, 3, 4)"),
        (lambda: ops.max_unpool2d(Y, Tensor(PLACES.data + 48), 2), ValueError, "indices must lie in 0 … 47 for an output of (6, 8), got 9"),
        (lambda: ops.max_unpool2d(Y, Tensor(PLACES.data - 99), 2), ValueError, "indices must lie in 0 … 47 for an output of (6, 8), got -9"),
        (lambda: ops.max_unpool2d(Y, PLACES, 2, output_size=(8, 8)), ValueError, "output_size must be less than a stride, (2, 2), away from (6, 8), got (8, 8): a pooling leads from no other size to (3, 4)"),
        (lambda: ops.max_unpool2d(Y, PLACES, 2, output_size=(6, 6, 6)), ValueError, "output_size must be one integer or 2 (height, width), got (6, 6, 6)"),
        (lambda: ops.max_unpool2d(Y, PLACES, 1, 1, 3), ValueError, "the output's size, (size − 1) · stride − 2 · padding + kernel_size, must be positive, got (-3, -2)"),
        (lambda: layers.MaxPool3d(2, padding=2), ValueError, "padding must be at most half the kernel"),
        (lambda: layers.MaxPool1d(2, padding_mode="zero"), ValueError, "padding_mode must be one of"),
        (lambda: layers.AvgPool1d(0), ValueError, "kernel_size must be positive, got 0"),
        (lambda: layers.AvgPool2d(2, divisor_override=0), ValueError, "divisor_override must be an integer but not 0"),
        (lambda: layers.LPPool1d(0, 2), ValueError, "norm_type must be a positive number, got 0"),
        (lambda: layers.LPPool1d(2, 2, -1), ValueError, "stride must be positive, got -1"),
        (lambda: layers.AdaptiveMaxPool2d((1, 2, 3)), ValueError, "output_size must be one integer or 2 (height, width), got [1, 2, 3]"),
        (lambda: layers.MaxUnpool1d(2, padding=-1), ValueError, "padding must be zero or more, got -1"),
    ],
)  # fmt: skip
def test_misuse_is_explained(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
