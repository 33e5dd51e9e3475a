"""Shapes and options far from the usual: right, quick, and refused before memory is taken."""

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.nn import functional as F


def uniform(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("ndim", [6, 7])
def test_many_axes(ndim):
    torch = pytest.importorskip("torch")
    x = uniform(*[2] * (ndim - 1), 4)
    np.testing.assert_allclose(
        nn.LayerNorm(4)(Tensor(x)).numpy(), torch.nn.functional.layer_norm(torch.tensor(x), (4,)), atol=1e-5
    )
    np.testing.assert_allclose(
        F.group_norm(Tensor(x), 2).numpy(), torch.nn.functional.group_norm(torch.tensor(x), 2), atol=1e-5
    )
    assert nn.Dropout()(Tensor(x)).shape == x.shape


@pytest.mark.parametrize(("size", "stride", "dilation"), [(100_000, 1, 50_000), (3_000, 6, 1_500), (2_999, 4, 1_000)])
def test_pooling_dilated_by_thousands(size, stride, dilation):
    torch = pytest.importorskip("torch")
    x = Tensor(uniform(1, 1, size), requires_grad=True)
    theirs = torch.tensor(x.numpy(), requires_grad=True)
    y = F.max_pool1d(x, 2, stride, 0, dilation)
    expected = torch.nn.functional.max_pool1d(theirs, 2, stride, 0, dilation)
    np.testing.assert_array_equal(y.numpy(), expected.detach())
    y.sum().backward()
    expected.sum().backward()
    np.testing.assert_array_equal(x.grad, theirs.grad)


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_the_mean_of_a_long_line_is_exact(size):
    assert F.adaptive_avg_pool1d(Tensor(np.full((1, 1, size), 0.1, np.float32)), 1).item() == np.float32(0.1)


def test_one_pixel_seen_by_many_windows():
    x = Tensor(uniform(2, 3, 1, 1))
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, 7).numpy(), np.broadcast_to(x.numpy(), (2, 3, 7, 7)))


def test_a_weight_gradient_over_millions_of_pixels():
    w = Tensor(np.ones((1, 1, 1, 1), np.float32), requires_grad=True)
    y = F.conv2d(Tensor(np.full((1, 1, 2000, 2000), 0.1, np.float32)), w)
    y.backward(np.ones(y.shape, np.float32))
    assert w.grad.item() == pytest.approx(400_000, rel=1e-4)


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "padding", "stride"),
    [(8, 3, 5, 5, 1), (8, 3, 9, 9, 1), (7, 5, 4, 8, 2), (3, 4, 3, 6, 1), (5, 3, 40, 41, 3), (8, 3, 10**6, 10**6, 1)],
)
def test_kernels_dilated_beyond_the_image(size, kernel, dilation, padding, stride):
    torch = pytest.importorskip("torch")
    x, w = (Tensor(uniform(*shape), requires_grad=True) for shape in ((2, 4, size, size), (6, 4, kernel, kernel)))
    their_x, their_w = (torch.tensor(t.numpy(), requires_grad=True) for t in (x, w))
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    y, expected = F.conv2d(x, w, **options), torch.nn.functional.conv2d(their_x, their_w, **options)
    dy = uniform(*y.shape)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    for mine, theirs in ((y.numpy(), expected.detach()), (x.grad, their_x.grad), (w.grad, their_w.grad)):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_integers_of_numpy_are_integers():
    x = Tensor(uniform(1, 1, 4, 4))
    assert nn.MaxPool2d(2, np.int64(2))(x).shape == (1, 1, 2, 2)
    assert F.max_pool2d(x, np.array([2, 4])).shape == (1, 1, 2, 1)
    assert nn.MaxUnpool1d(2)(Tensor(uniform(1, 1, 2)), Tensor(np.array([[[0, 2]]])), 5).shape == (1, 1, 5)


def test_sizes_that_no_machine_has():
    x = Tensor(uniform(1, 1, 4, 4))
    with pytest.raises(ValueError, match="stride must be less than 2,147,483,648, got 1000000000000"):
        F.conv2d(x, x, stride=10**12)
    with pytest.raises(ValueError, match="output_size must be less than"):
        F.adaptive_avg_pool2d(x, 1 << 40)
    with pytest.raises(ValueError, match="size must be less than"):
        F.interpolate(x, (1 << 31, 1))
    for refused in (
        lambda: F.adaptive_avg_pool1d(Tensor(uniform(1, 1, 4)), (1 << 31) - 1),
        lambda: F.interpolate(x, ((1 << 31) - 1, 1)),
        lambda: F.conv2d(Tensor(uniform(0, 1, 4, 4)), x, padding=10**9),
        lambda: F.unfold(x, 3, padding=10**6),
    ):
        with pytest.raises(MemoryError, match=r"takes [\d,]+ bytes, and this machine has"):
            refused()


def test_output_padding_says_nothing_beside_same():
    with pytest.raises(ValueError, match="output_padding must be 0 with padding='same'"):
        F.conv_transpose1d(
            Tensor(uniform(1, 1, 3)), Tensor(uniform(1, 1, 3)), stride=2, padding="same", output_padding=1
        )
