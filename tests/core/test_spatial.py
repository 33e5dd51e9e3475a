"""Convolution, pooling and batch normalisation as tensors and layers: against PyTorch, by finite differences, and
when misused.
"""

import re
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle.gradcheck import check_gradients
from tests.oracle.torch_twin import compare
from tinytorch import Tensor, no_grad, use_algorithm
from tinytorch.core.spatial import AdaptiveAvgPool2d, AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d, SimpleCNN
from tinytorch.nn import functional as ops

TRIALS = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
DTYPES = st.sampled_from([np.float32, np.float64])


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    options = {
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": draw(st.sampled_from([1, 2])),
        "groups": groups,
    }
    x = (
        draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 4)),
        draw(st.integers(5, 9)),
        draw(st.integers(5, 9)),
    )
    return x, (groups * draw(st.sampled_from([1, 4, 8])), x[1] // groups, *kernel), options


@TRIALS
@given(convolutions(), DTYPES, st.booleans())
def test_conv2d_as_torch(convolution, dtype, with_bias):
    torch = pytest.importorskip("torch")
    x_shape, w_shape, options = convolution
    arrays = [normal(*x_shape, dtype=dtype), normal(*w_shape, dtype=dtype)]
    arrays += [normal(w_shape[0], dtype=dtype)] if with_bias else []
    compare(lambda *t: ops.conv2d(*t, **options), lambda *t: torch.nn.functional.conv2d(*t, **options), *arrays)


@st.composite
def poolings(draw):
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(draw(st.integers(k, 9)) for k in kernel)
    return (draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 16, 17])), *size), kernel, stride, padding


@TRIALS
@given(poolings(), DTYPES, st.sampled_from(["max_pool2d", "avg_pool2d"]))
def test_pooling_as_torch(pooling, dtype, name):
    torch = pytest.importorskip("torch")
    shape, *window = pooling
    theirs = getattr(torch.nn.functional, name)
    compare(lambda x: getattr(ops, name)(x, *window), lambda x: theirs(x, *window), normal(*shape, dtype=dtype))


@TRIALS
@given(poolings())
def test_max_pool_ties_go_to_the_first_as_in_torch(pooling):
    torch = pytest.importorskip("torch")
    shape, *window = pooling
    x = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
    compare(lambda t: ops.max_pool2d(t, *window), lambda t: torch.nn.functional.max_pool2d(t, *window), x)


def test_max_pool_of_a_window_of_many_taps():
    x = normal(1, 2, 20, 20)
    y = ops.max_pool2d(Tensor(x, requires_grad=True), 20)
    np.testing.assert_array_equal(y.data[..., 0, 0], x.max((2, 3)))
    t = Tensor(x, requires_grad=True)
    ops.max_pool2d(t, 20).sum().backward()
    np.testing.assert_array_equal(t.grad, x == x.max((2, 3), keepdims=True))


def test_max_pool_pads_with_minus_infinity_and_passes_nan():
    x = np.full((1, 1, 4, 4), -5.0, np.float32)
    assert (ops.max_pool2d(Tensor(x), 2, padding=1).data == -5).all()
    x[0, 0, 1, 1] = np.nan
    assert np.isnan(ops.max_pool2d(Tensor(x), 2).data[0, 0, 0, 0])
    x[:] = -np.inf
    assert (ops.max_pool2d(Tensor(x), 2).data == -np.inf).all()


def test_the_page_pools():
    x = Tensor(np.arange(1.0, 17.0, dtype=np.float32).reshape(1, 1, 4, 4))
    np.testing.assert_array_equal(MaxPool2d(2)(x).data[0, 0], [[6, 8], [14, 16]])
    np.testing.assert_array_equal(AvgPool2d(2)(x).data[0, 0], [[3.5, 5.5], [11.5, 13.5]])


@TRIALS
@given(
    st.tuples(st.integers(2, 4), st.sampled_from([1, 3, 16]), st.integers(1, 5), st.integers(1, 5)),
    DTYPES,
    st.booleans(),
    st.integers(0, 99),
)
def test_batch_norm_as_torch(shape, dtype, training, seed):
    torch = pytest.importorskip("torch")
    c = shape[1]
    x = normal(*shape, dtype=dtype, seed=seed) * 3 + 5
    weight, bias = normal(c, dtype=dtype, seed=1), normal(c, dtype=dtype, seed=2)
    mean, var = normal(c, dtype=dtype, seed=3), np.abs(normal(c, dtype=dtype, seed=4)) + 0.5
    ours, theirs = (Tensor(mean.copy()), Tensor(var.copy())), (torch.tensor(mean), torch.tensor(var))
    compare(
        lambda x, w, b: ops.batch_norm(x, *ours, w, b, training, 0.1, 1e-3),
        lambda x, w, b: torch.nn.functional.batch_norm(x, *theirs, w, b, training, 0.1, 1e-3),
        x,
        weight,
        bias,
    )
    for mine, his in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.data, his.numpy(), rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_batch_norm_survives_a_large_mean():
    x = Tensor(normal(8, 2, 9, 9, dtype=np.float64) + 1e7)
    layer = BatchNorm2d(2).double()
    assert abs(layer(x).data.std() - 1) < 1e-4


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: ops.conv2d(x, w, stride=2, padding=1),
        lambda x, w: ops.conv2d(x, w, padding=((0, 2), (1, 0)), dilation=2),
        lambda x, w: ops.max_pool2d(x, 2, padding=1) * w.sum(),
        lambda x, w: ops.avg_pool2d(x, 3, 2, 1) * w.sum(),
        lambda x, w: ops.batch_norm(
            x, Tensor(np.zeros(2)), Tensor(np.ones(2)), w[:2, 0, 0, 0], w[:2, 0, 1, 1], training=True
        ),
    ],
)
def test_gradients_by_finite_differences(function):
    check_gradients(function, normal(2, 2, 5, 6, dtype=np.float64), normal(3, 2, 3, 2, dtype=np.float64))


@pytest.mark.parametrize("algorithm", ["direct", "im2col", "loops"])
def test_algorithms_agree_through_the_layer(algorithm):
    conv = Conv2d(2, 3, 3, padding=1, algorithm=algorithm)
    conv.weight.data[...] = np.random.default_rng(0).integers(-3, 4, conv.weight.shape)
    x = Tensor(np.random.default_rng(1).integers(-3, 4, (2, 2, 5, 5)).astype(np.float32), requires_grad=True)
    conv(x).sum().backward()
    reference = Conv2d(2, 3, 3, padding=1)
    reference.load_state_dict(conv.state_dict())
    other = Tensor(x.data.copy(), requires_grad=True)
    reference(other).sum().backward()
    np.testing.assert_array_equal(x.grad, other.grad)
    np.testing.assert_array_equal(conv.weight.grad, reference.weight.grad)
    np.testing.assert_array_equal(conv.bias.grad, reference.bias.grad)


def test_gradients_keep_the_algorithm_of_the_forward(monkeypatch):
    from tinytorch.conv import loops

    called = []
    monkeypatch.setattr(
        loops, "input_grad", lambda *a: called.append("input_grad") or np.zeros((1, 1, 4, 4), np.float32)
    )
    monkeypatch.setattr(
        loops, "weight_grad", lambda *a: called.append("weight_grad") or np.zeros((1, 1, 3, 3), np.float32)
    )
    x, w = Tensor(normal(1, 1, 4, 4), requires_grad=True), Tensor(normal(1, 1, 3, 3), requires_grad=True)
    with use_algorithm("loops"):
        y = ops.conv2d(x, w)
    y.sum().backward()
    assert called == ["input_grad", "weight_grad"]


def test_frozen_operands_get_no_gradient():
    x, w = Tensor(normal(1, 2, 5, 5)), Tensor(normal(3, 2, 3, 3), requires_grad=True)
    ops.conv2d(x, w).sum().backward()
    assert x.grad is None and w.grad.shape == w.shape
    x.requires_grad, w.requires_grad = True, False
    ops.conv2d(x, w).sum().backward()
    assert x.grad.shape == x.shape


def test_empty_batch_goes_through():
    x = Tensor(np.zeros((0, 3, 32, 32), np.float32), requires_grad=True)
    SimpleCNN()(x).sum().backward()
    assert x.grad.shape == x.shape


# ---- layers ---------------------------------------------------------------------------------------------


def test_conv2d_initialisation_is_he():
    conv = Conv2d(64, 128, 3)
    assert abs(conv.weight.data.std() / np.sqrt(2 / (64 * 9)) - 1) < 0.02
    assert abs(conv.weight.data.mean()) < 1e-3
    assert (conv.bias.data == 0).all()
    assert conv.weight.shape == (128, 64, 3, 3) and conv.weight.dtype == np.float32


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: Conv2d(3, 16, 3), "Conv2d(3, 16, kernel_size=(3, 3), stride=1, padding=0)"),
        (
            lambda: Conv2d(4, 8, (3, 1), 2, "valid", False, groups=2, dilation=2, algorithm="im2col"),
            "Conv2d(4, 8, kernel_size=(3, 1), stride=2, padding='valid', dilation=2, groups=2, algorithm='im2col', bias=False)",
        ),
        (lambda: MaxPool2d(2), "MaxPool2d(kernel_size=(2, 2), stride=2, padding=0)"),
        (
            lambda: AvgPool2d((3, 2), stride=1, padding=1),
            "AvgPool2d(kernel_size=(3, 2), stride=1, padding=1)",
        ),
        (lambda: BatchNorm2d(8), "BatchNorm2d(8, eps=1e-05, momentum=0.1)"),
    ],
)
def test_repr(layer, text):
    assert repr(layer()) == text


def test_parameters_are_lists_and_named_as_in_torch():
    assert [p.shape for p in Conv2d(3, 16, 3).parameters()] == [(16, 3, 3, 3), (16,)]
    assert len(Conv2d(3, 16, 3, bias=False).parameters()) == 1
    assert MaxPool2d(2).parameters() == []
    norm = BatchNorm2d(4)
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert norm.gamma is norm.weight and norm.beta is norm.bias


def test_batch_norm_layer_follows_torch_through_train_and_eval():
    torch = pytest.importorskip("torch")
    ours, theirs = BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    for step in range(3):
        x = normal(4, 3, 5, 5, seed=step) * 2 + 1
        np.testing.assert_allclose(ours(Tensor(x)).data, theirs(torch.tensor(x)).detach().numpy(), atol=1e-5)
    ours.eval()
    theirs.eval()
    np.testing.assert_allclose(ours(Tensor(x)).data, theirs(torch.tensor(x)).detach().numpy(), atol=1e-5)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-5, atol=1e-6)


def test_batch_norm_of_one_image_normalises_over_its_pixels():
    y = BatchNorm2d(3)(Tensor(normal(1, 3, 8, 8) * 4 + 2)).data
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 2, 3)), 1, atol=1e-3)


def test_simple_cnn_counts_and_learns_everywhere():
    model = SimpleCNN()
    assert sum(p.size for p in model.parameters()) == 25_578
    assert sum(p.size for p in SimpleCNN(num_classes=None).parameters()) == 5_088
    assert model.flattened_size == 32 * 8 * 8
    x = Tensor(normal(2, 3, 32, 32))
    assert model.features(x).shape == (2, 2048) and SimpleCNN(num_classes=None)(x).shape == (2, 2048)
    model(x).sum().backward()
    assert all(np.abs(p.grad).max() > 0 for p in model.parameters())


def test_simple_cnn_of_other_images():
    assert SimpleCNN(5, in_channels=1, image_size=(8, 13))(Tensor(normal(2, 1, 8, 13))).shape == (2, 5)


def test_two_threads_give_the_right_answers():
    model, x = SimpleCNN(), Tensor(normal(8, 3, 32, 32))
    expected = model(x).data.copy()
    wrong = []

    def work():
        for _ in range(20):
            with no_grad():
                if not np.array_equal(model(x).data, expected):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nchw_and_channels_last_memory_give_the_same():
    x = normal(2, 3, 9, 9)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    conv = Conv2d(3, 5, 3)
    np.testing.assert_array_equal(conv(Tensor(x)).data, conv(Tensor(last)).data)
    for function in (lambda t: ops.max_pool2d(t, 2), lambda t: ops.avg_pool2d(t, 2)):
        np.testing.assert_array_equal(function(Tensor(x)).data, function(Tensor(last)).data)


def test_mixed_precision_promotes_and_returns_each_gradient_in_its_own():
    x, w = (
        Tensor(normal(1, 2, 5, 5, dtype=np.float64), requires_grad=True),
        Tensor(normal(3, 2, 3, 3), requires_grad=True),
    )
    y = ops.conv2d(x, w)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype, w.grad.dtype) == (np.float64, np.float64, np.float32)


# ---- misuse ---------------------------------------------------------------------------------------------

X = Tensor(normal(1, 3, 8, 8))
W = Tensor(normal(4, 3, 3, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Conv2d(3, 64, 3)(Tensor(normal(3, 224, 224))), ValueError, "Expected 4D input (batch, channels, height, width), got (3, 224, 224)\nFix: add the batch dimension: x = x.reshape(1, 3, 224, 224)"),
        (lambda: MaxPool2d(2)(Tensor(normal(5, 6))), ValueError, "Fix: add the batch and channel dimensions: x = x.reshape(1, 1, 5, 6)"),
        (lambda: AvgPool2d(2)(Tensor(normal(5))), ValueError, "Fix: reshape the data to (batch, channels, height, width)"),
        (lambda: BatchNorm2d(3)(Tensor(normal(3, 4, 4))), ValueError, "Expected 4D input"),
        (lambda: Conv2d(3, 4, 3)(X.data), TypeError, "conv2d expects a Tensor, got ndarray; wrap the array: Tensor(x)"),
        (lambda: ops.conv2d(Tensor(np.ones((1, 3, 8, 8), np.int64)), W), TypeError, "conv2d computes in float32 or float64, got int64; convert with x.float()"),
        (lambda: ops.conv2d(X, Tensor(normal(4, 3, 3))), TypeError, "weight must be a floating-point Tensor (out_channels, in_channels / groups, height, width), got float32 of shape (4, 3, 3)"),
        (lambda: ops.conv2d(X, W.data), TypeError, "got ndarray"),
        (lambda: ops.conv2d(X, W, Tensor(normal(5))), ValueError, "bias must have shape (out_channels,) = (4,), got (5,)"),
        (lambda: Conv2d(1, 4, 3)(X), ValueError, "Expected 1 input channels (weight (4, 1, 3, 3), groups=1), got 3 in input (1, 3, 8, 8); build the layer with in_channels=3"),
        (lambda: Conv2d(3, 4, 9)(X), ValueError, "kernel is larger than the padded input: along the height the kernel spans 9 pixels"),
        (lambda: Conv2d(0, 4, 3), ValueError, "in_channels must be a positive integer, got 0"),
        (lambda: Conv2d(3, -4, 3), ValueError, "out_channels must be a positive integer, got -4"),
        (lambda: Conv2d(3, 4, 0), ValueError, "kernel_size must be positive, got 0"),
        (lambda: Conv2d(3, 4, 3, stride=0), ValueError, "stride must be positive, got 0"),
        (lambda: Conv2d(3, 4, 3, padding=-1), ValueError, "padding must be zero or more, got -1"),
        (lambda: Conv2d(3, 4, 3, groups=2), ValueError, "groups must divide both channel counts"),
        (lambda: Conv2d(3, 4, 3, algorithm="gemm"), ValueError, "algorithm must be one of"),
        (lambda: MaxPool2d(2, padding=2), ValueError, "padding must be at most half the kernel, as in PyTorch, got padding=2 for kernel_size=2"),
        (lambda: MaxPool2d(0), ValueError, "kernel_size must be positive, got 0"),
        (lambda: AvgPool2d(2, stride=0), ValueError, "stride must be positive, got 0"),
        (lambda: MaxPool2d(9)(X), ValueError, "kernel is larger than the padded input"),
        (lambda: ops.max_pool2d(Tensor(np.zeros((2, 0, 4, 4), np.float32)), 2), ValueError, "every size but the batch must be positive"),
        (lambda: BatchNorm2d(0), ValueError, "num_features must be a positive integer, got 0"),
        (lambda: BatchNorm2d(3, eps=0), ValueError, "eps must be positive, got 0"),
        (lambda: BatchNorm2d(3, momentum=2), ValueError, "momentum must be between 0 and 1, got 2"),
        (lambda: BatchNorm2d(4)(X), ValueError, "Expected 4 channels, got input (1, 3, 8, 8) with 3"),
        (lambda: BatchNorm2d(3)(Tensor(normal(1, 3, 1, 1))), ValueError, "more than one value per channel"),
        (lambda: SimpleCNN(image_size=3), ValueError, "image_size must be at least 4, got 3"),
    ],
)  # fmt: skip
def test_misuse_is_explained(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


# ---- adaptive pooling -----------------------------------------------------------------------------------


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@TRIALS
@given(st.integers(1, 3), st.sampled_from([1, 3, 16, 17]), SIZES, SIZES, DTYPES)
def test_adaptive_pooling_as_torch(images, channels, size, output_size, dtype):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.adaptive_avg_pool2d
    compare(
        lambda x: ops.adaptive_avg_pool2d(x, output_size),
        lambda x: theirs(x, output_size),
        normal(images, channels, *size, dtype=dtype),
    )


@TRIALS
@given(SIZES, SIZES)
def test_adaptive_pooling_is_exact_on_integers(size, output_size):
    x = np.random.default_rng(0).integers(-9, 10, (2, 5, *size)).astype(np.float32)
    expected = np.empty((2, 5, *output_size), np.float32)
    for h, w in np.ndindex(output_size):
        rows, columns = (
            slice(i * n // o, -(-(i + 1) * n // o)) for i, n, o in zip((h, w), size, output_size, strict=True)
        )
        expected[:, :, h, w] = x[:, :, rows, columns].mean((2, 3), dtype=np.float64)
    np.testing.assert_array_equal(ops.adaptive_avg_pool2d(Tensor(x), output_size).data, expected)


@pytest.mark.parametrize("output_size", [1, 7, (2, 9), (None, 3), (4, None), (None, None), [3, 2]])
def test_adaptive_pooling_layer_as_torch(output_size):
    torch = pytest.importorskip("torch")
    ours, theirs = AdaptiveAvgPool2d(output_size), torch.nn.AdaptiveAvgPool2d(output_size)
    compare(ours, theirs, normal(2, 3, 7, 5))
    assert repr(ours) == repr(theirs).replace("[", "(").replace("]", ")")  # a list is kept as a tuple


def test_adaptive_pooling_gradient_by_finite_differences():
    check_gradients(lambda x: ops.adaptive_avg_pool2d(x, (3, 7)), normal(2, 2, 5, 4, dtype=np.float64))


def test_adaptive_pooling_takes_any_memory_order_and_no_images_at_all():
    x = normal(2, 3, 9, 8)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    layer = AdaptiveAvgPool2d((4, 3))
    np.testing.assert_array_equal(layer(Tensor(x)).data, layer(Tensor(last)).data)
    assert layer(Tensor(x[:0])).shape == (0, 3, 4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: AdaptiveAvgPool2d(0), ValueError, "output_size must be positive, got [0, 0]; the smallest allowed value is 1"),
        (lambda: AdaptiveAvgPool2d((1, 2, 3)), ValueError, "output_size must be one integer or 2 (height, width), got [1, 2, 3]"),
        (lambda: AdaptiveAvgPool2d(1.5), TypeError, "output_size must be an integer or a tuple of 2 integers, got [1.5, 1.5]"),
        (lambda: AdaptiveAvgPool2d(1)(Tensor(normal(3, 8, 8))), ValueError, "Expected 4D input (batch, channels, height, width), got (3, 8, 8)"),
        (lambda: ops.adaptive_avg_pool2d(X.data, 1), TypeError, "adaptive_avg_pool2d expects a Tensor, got ndarray"),
        (lambda: ops.adaptive_avg_pool2d(Tensor(np.zeros((2, 3, 0, 4), np.float32)), 1), ValueError, "every size but the batch must be positive"),
    ],
)  # fmt: skip
def test_misuse_of_adaptive_pooling_is_explained(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
