"""What is dropped by chance: how often, in which shape, what becomes of the rest, and of the gradient."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle.gradcheck import check_gradients
from tinytorch import Tensor, manual_seed, nn
from tinytorch.nn import functional as F

TRIALS = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
DTYPES = [np.float32, np.float64]
ALPHA = 1.7580993408473766  # of SELU


def ones(*shape, dtype=np.float32):
    return Tensor(np.ones(shape, dtype), requires_grad=True)


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, -1 % x.ndim, *range(1, x.ndim - 1))


def draws(seed, *shape):
    """What the generator gives, said a second time."""
    return np.random.Generator(np.random.PCG64(seed)).random(shape, dtype=np.float32)


FUNCTIONS = {
    "dropout": lambda x, p=0.5, training=True: F.dropout(x, p, training),
    "dropout1d": lambda x, p=0.5, training=True: F.dropout1d(x.flatten(2), p, training).reshape(x.shape),
    "dropout2d": lambda x, p=0.5, training=True: F.dropout2d(x, p, training),
    "dropout3d": lambda x, p=0.5, training=True: F.dropout3d(x.unsqueeze(2), p, training).squeeze(2),
    "alpha_dropout": lambda x, p=0.5, training=True: F.alpha_dropout(x, p, training),
    "feature_alpha_dropout": lambda x, p=0.5, training=True: F.feature_alpha_dropout(x, p, training),
    "drop_block2d": lambda x, p=0.5, training=True: F.drop_block2d(x, p, 3, training=training),
    "stochastic_depth row": lambda x, p=0.5, training=True: F.stochastic_depth(x, p, "row", training),
    "stochastic_depth batch": lambda x, p=0.5, training=True: F.stochastic_depth(x, p, "batch", training),
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


# ---- all of them ----------------------------------------------------------------------------------------------------


@each_function
def test_nothing_happens_in_inference_or_without_probability_or_to_nothing(function):
    x, empty = ones(2, 3, 5, 5), ones(0, 3, 5, 5)
    for out in (function(x, training=False), function(x, 0)):
        np.testing.assert_array_equal(out.data, x.data)
    assert function(empty).shape == empty.shape


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "drop_block2d"])  # whose squares overlap
def test_with_probability_one_nothing_is_left(name):
    x = ones(2, 3, 5, 5)
    out = FUNCTIONS[name](x, 1)
    out.sum().backward()
    assert not out.data.any() and not x.grad.any()


@each_function
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_seed_reproduces_and_the_next_call_differs(function, dtype):
    x = Tensor(normal(8, 16, 6, 5, dtype=dtype))
    manual_seed(3)
    first, second = function(x).data, [function(x).data for _ in range(8)]
    manual_seed(3)
    np.testing.assert_array_equal(function(x).data, first)
    assert first.dtype == dtype and any((first != other).any() for other in second)


@each_function
def test_gradient_by_finite_differences(function):
    def seeded(x):
        manual_seed(1)
        return function(x)

    check_gradients(seeded, normal(2, 3, 4, 4, dtype=np.float64))


@each_function
@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last])
def test_the_gradient_is_that_of_what_was_kept(function, order):
    """In whatever order of memory: zero where the output does not follow the input, and 1 / scale elsewhere."""
    manual_seed(2)
    x = Tensor(order(normal(3, 4, 6, 5) + 9), requires_grad=True)
    out = function(x)
    weights = np.ascontiguousarray(normal(3, 4, 6, 5, seed=1))
    out.backward(weights)
    manual_seed(2)
    further = function(Tensor(order(x.data + 1)))
    np.testing.assert_allclose(x.grad, (further.data - out.data) * weights, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("dropout1d", "dropout3d")])
def test_memory_stays_channels_last(name):
    x = Tensor(channels_last(normal(4, 8, 6, 5)), requires_grad=True)
    out = FUNCTIONS[name](x)
    assert np.moveaxis(out.data, 1, -1).flags.c_contiguous and f"grad_fn=<{name.split()[0]}>" in repr(out)
    out.backward(channels_last(normal(4, 8, 6, 5)))
    assert np.moveaxis(x.grad, 1, -1).flags.c_contiguous


@each_function
def test_nan_is_not_hidden(function):
    manual_seed(0)
    x = Tensor(np.full((2, 3, 6, 6), np.nan, np.float32))
    assert np.isnan(function(x).data).all()


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_scales_what_it_keeps_and_its_gradient(dtype):
    manual_seed(0)
    x = ones(200, 50, dtype=dtype)
    out = F.dropout(x, 0.25)
    assert out.dtype == dtype
    assert set(np.unique(out.data)) == {dtype(0), dtype(1 / 0.75)}
    assert abs((out.data == 0).mean() - 0.25) < 0.02
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, out.data)


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 3)])
def test_dropout_draws_once_for_each_number(shape):
    manual_seed(4)
    expected = np.where(draws(4, *shape) >= 0.3, 1 / np.float32(0.7), 0)
    np.testing.assert_allclose(F.dropout(ones(*shape), 0.3).data, expected, rtol=1e-6)
    np.testing.assert_array_equal(F.dropout(x := ones(*shape), 0.3, training=False).data, x.data)


def test_dropout_of_views_and_of_broadcast_numbers():
    x = Tensor(normal(6, 8))
    for view in (x.data[::2, ::3], x.data[::-1], np.broadcast_to(x.data[0], (5, 8)), x.data.T):
        out = F.dropout(Tensor(view), 0.5).data
        np.testing.assert_allclose(out[out != 0], 2 * view[out != 0])
        assert (out == 0).any() and (out != 0).any()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_alpha_dropout_keeps_mean_and_variance(p):
    manual_seed(0)
    x = normal(500, 400, dtype=np.float64)
    out = F.alpha_dropout(Tensor(x), p, training=True).data
    assert abs(out.mean()) < 0.02 and abs(out.var() - 1) < 0.02
    a = ((ALPHA**2 * p + 1) * (1 - p)) ** -0.5  # as torch says it
    dropped = np.isclose(out, -ALPHA * a + ALPHA * a * p)
    assert abs(dropped.mean() - p) < 0.01
    np.testing.assert_allclose(out[~dropped], (x * a + ALPHA * a * p)[~dropped])


# ---- channels -------------------------------------------------------------------------------------------------------


@TRIALS
@given(st.sampled_from([1, 2, 3]), st.booleans(), st.sampled_from([0.2, 0.5]), st.integers(0, 9))
def test_dropout_of_channels_keeps_or_drops_them_whole(dims, batched, p, seed):
    shape = (3, 16, 4, 3, 2)[: dims + 2]
    if not batched and dims != 2:  # to dropout2d three axes are (N, C, L)
        shape = shape[1:]
    manual_seed(seed)
    out = getattr(F, f"dropout{dims}d")(ones(*shape), p).data
    one_each = shape[: -dims or None]
    kept = draws(seed, *one_each) >= p
    expected = np.where(kept, np.float32(1 / (1 - p)), 0).reshape(*one_each, *[1] * dims)
    np.testing.assert_array_equal(out, np.broadcast_to(expected, shape))


def test_dropout2d_takes_three_axes_for_a_batch_of_lines():
    manual_seed(0)
    out = F.dropout2d(ones(5, 6, 7)).data
    assert (out == out[:, :, :1]).all() and len(np.unique(out[:, 0, 0])) == 2


def test_feature_alpha_dropout_drops_whole_channels_to_the_saturation():
    manual_seed(0)
    out = F.feature_alpha_dropout(ones(8, 32, 3, 3), 0.5, training=True).data
    a = ((ALPHA**2 * 0.5 + 1) * 0.5) ** -0.5
    assert (out == out[:, :, :1, :1]).all()
    np.testing.assert_allclose(np.unique(out), [-ALPHA * a * 0.5, a + ALPHA * a * 0.5], rtol=1e-6)


# ---- squares of pixels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "size", "shape"),
    [(0.1, 3, (2, 3, 9, 11)), (0.3, 5, (3, 4, 16, 16)), (0.5, 1, (2, 2, 6, 6)), (0.9, 7, (2, 16, 7, 9))],
)
def test_drop_block_as_torchvision_defines_it(p, size, shape):
    """torchvision.ops.drop_block2d, from its source, with the numbers that our generator gives."""
    torch = pytest.importorskip("torch")
    n, c, h, w = shape
    gamma = p * h * w / (size**2 * ((h - size + 1) * (w - size + 1)))
    seeds = draws(5, n, h - size + 1, w - size + 1, c).transpose(0, 3, 1, 2) < gamma
    noise = torch.nn.functional.pad(torch.tensor(seeds.astype(np.float32)), [size // 2] * 4)
    noise = 1 - torch.nn.functional.max_pool2d(noise, size, 1, size // 2)
    x = normal(*shape)
    expected = torch.tensor(x) * noise * (noise.numel() / (1e-6 + noise.sum()))
    manual_seed(5)
    np.testing.assert_allclose(F.drop_block2d(Tensor(x), p, size).data, expected.numpy(), rtol=1e-5, atol=1e-6)


@TRIALS
@given(st.integers(1, 6), st.integers(0, 99))
def test_drop_block_drops_whole_squares(size, seed):
    manual_seed(seed)
    dropped = F.drop_block2d(ones(2, 3, 12, 10), 0.2, size).data == 0
    squares = np.lib.stride_tricks.sliding_window_view(dropped, (size, size), (2, 3)).all((4, 5))
    covered = np.zeros_like(dropped)
    for i, j in np.ndindex(size, size):
        covered[:, :, i : i + squares.shape[2], j : j + squares.shape[3]] |= squares
    np.testing.assert_array_equal(covered, dropped)


def test_drop_block_drops_about_what_it_says_and_keeps_the_sum():
    manual_seed(0)
    out = F.drop_block2d(ones(32, 16, 28, 28), 0.1, 5).data
    assert 0.08 < (out == 0).mean() < 0.1
    np.testing.assert_allclose(out.mean(dtype=np.float64), 1, rtol=1e-5)


def test_a_square_is_at_most_the_image():
    manual_seed(0)
    out = F.drop_block2d(ones(64, 4, 3, 5), 0.5, 9).data  # of 3 pixels, which cover the height
    assert (out == out[:, :, :1]).all() and (out == 0).any() and (out != 0).any()


# ---- branches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(400,), (400, 3), (400, 2, 3), (400, 2, 3, 4)])
@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last])
def test_stochastic_depth_of_rows(shape, order):
    manual_seed(7)
    x = normal(*shape)
    out = F.stochastic_depth(Tensor(order(x) if len(shape) > 1 else x), 0.25, "row").data
    kept = (draws(7, 400) >= 0.25).reshape(-1, *[1] * (len(shape) - 1))
    np.testing.assert_allclose(out, np.where(kept, x / 0.75, 0), rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.06


def test_stochastic_depth_of_batches():
    manual_seed(0)
    x, survived = normal(5, 3, 2, 2), 0
    for _ in range(100):
        out = F.stochastic_depth(Tensor(x), 0.25, "batch").data
        assert not out.any() or np.allclose(out, x / 0.75)
        survived += out.any()
    assert 60 < survived < 90


# ---- layers ---------------------------------------------------------------------------------------------------------

LAYERS = [
    (lambda: nn.Dropout(), "Dropout(p=0.5)", (4, 3)),
    (lambda: nn.Dropout1d(0.4), "Dropout1d(p=0.4)", (4, 3, 2)),
    (lambda: nn.Dropout2d(0.4), "Dropout2d(p=0.4)", (4, 3, 2, 2)),
    (lambda: nn.Dropout3d(), "Dropout3d(p=0.5)", (4, 3, 2, 2, 2)),
    (lambda: nn.AlphaDropout(), "AlphaDropout(p=0.5)", (4, 3)),
    (lambda: nn.FeatureAlphaDropout(), "FeatureAlphaDropout(p=0.5)", (4, 3, 2)),
    (lambda: nn.DropBlock2d(0.4, 3), "DropBlock2d(p=0.4, block_size=3)", (4, 3, 6, 6)),
    (lambda: nn.StochasticDepth(0.5, "batch"), "StochasticDepth(p=0.5, mode=batch)", (4, 3)),
    (lambda: nn.DropPath(0.5), "DropPath(p=0.5, mode=row)", (4, 3)),
]


@pytest.mark.parametrize(("layer", "text", "shape"), LAYERS, ids=[text for _, text, _ in LAYERS])
def test_layers_drop_only_in_training(layer, text, shape):
    layer, x = layer(), Tensor(normal(*shape))
    assert repr(layer) == text and not layer.state_dict()
    manual_seed(0)
    assert any((layer(x).data != x.data).any() for _ in range(20))
    assert layer.eval()(x) is x


def test_drop_path_does_nothing_by_default():
    x = ones(3, 2)
    assert nn.DropPath()(x) is x


# ---- misuse ---------------------------------------------------------------------------------------------------------

X = ones(2, 3, 5, 5)


@pytest.mark.parametrize("p", [-0.1, 1.1, "half", True, np.nan])
@pytest.mark.parametrize("training", [True, False])
@each_function
def test_a_probability_lies_between_0_and_1(function, p, training):
    with pytest.raises(ValueError, match=re.escape(f"p must be a probability between 0 and 1, got {p!r}; use p=0.5")):
        function(X, p, training)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout(X.data), TypeError, "dropout expects a Tensor, got ndarray; wrap the array: Tensor(x)"),
        (lambda: F.dropout(X.long()), TypeError, "dropout computes in float32 or float64, got int64; convert with x.float()"),
        (lambda: F.alpha_dropout(X.long()), TypeError, "alpha_dropout computes in float32 or float64"),
        (lambda: F.dropout1d(X), ValueError, "dropout1d expects input of 2 to 3 axes, (batch, channels, …), got shape (2, 3, 5, 5)"),
        (lambda: F.dropout2d(ones(2, 3)), ValueError, "dropout2d expects input of 3 to 4 axes"),
        (lambda: F.dropout3d(ones(2, 3, 4)), ValueError, "dropout3d expects input of 4 to 5 axes"),
        (lambda: F.feature_alpha_dropout(ones(3), training=True), ValueError, "feature_alpha_dropout expects input of 2 or more axes"),
        (lambda: F.drop_block2d(ones(3, 5, 5), 0.1, 3), ValueError, "Expected 4D input (batch, channels, height, width), got (3, 5, 5)"),
        (lambda: F.drop_block2d(X, 0.1, 0), ValueError, "block_size must be a positive integer, got 0; it counts pixels"),
        (lambda: F.stochastic_depth(ones(), 0.1, "row"), ValueError, "stochastic_depth expects input of 1 or more axes"),
        (lambda: F.stochastic_depth(X, 0.1, "column"), ValueError, "mode must be 'batch' (all samples together) or 'row' (each by itself), got 'column'"),
        (lambda: nn.Dropout(2), ValueError, "p must be a probability between 0 and 1, got 2"),
        (lambda: nn.Dropout2d(-1), ValueError, "p must be a probability between 0 and 1, got -1"),
        (lambda: nn.DropBlock2d(0.1, 2.5), ValueError, "block_size must be a positive integer, got 2.5"),
        (lambda: nn.StochasticDepth(0.1, "rows"), ValueError, "mode must be 'batch'"),
    ],
)  # fmt: skip
def test_misuse_is_explained(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
