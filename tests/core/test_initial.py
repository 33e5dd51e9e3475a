"""Computed initial weights: the identity against torch.nn.init, whitening against what it promises."""

import numpy as np
import pytest

from tinytorch import nn
from tinytorch.core.initial import dirac_, whiten_
from tinytorch.core.layers import Parameter
from tinytorch.core.tensor import Tensor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((4, 4, 3, 3), 1), ((6, 4, 3, 5), 1), ((4, 6, 2, 2), 1), ((6, 2, 3), 3), ((8, 3, 3, 1, 4), 2), ((2, 1, 1), 2)],
)
def test_dirac_as_torch(shape, groups, dtype):
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    ours, theirs = Parameter(start.copy()), torch.tensor(start)
    assert nn.init.dirac_(ours, groups) is ours
    torch.nn.init.dirac_(theirs, groups)
    np.testing.assert_array_equal(ours.data, theirs.numpy())
    assert ours.dtype == dtype


def test_dirac_passes_images_through():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    dirac_(conv.weight)
    images = np.random.default_rng(0).integers(-9, 10, (2, 3, 6, 5)).astype(np.float32)
    out = conv(Tensor(images)).numpy()
    np.testing.assert_array_equal(out[:, :3], images)
    np.testing.assert_array_equal(out[:, 3:], 0)


def test_dirac_refuses():
    with pytest.raises(ValueError, match=r"dirac_ fills filters of shape .*, got \(3, 3\); use eye"):
        dirac_(Parameter(np.ones((3, 3), np.float32)))
    for groups in (0, 2):
        with pytest.raises(ValueError, match=f"groups must divide the 3 output channels, got {groups}"):
            dirac_(Parameter(np.ones((3, 1, 3), np.float32)), groups)


def smooth_images(*shape):
    """Neighbours that resemble each other, as those of pictures do."""
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for axis in range(1, len(shape)):
        images = images + np.float32(0.6) * np.roll(images, 1, axis)
    return images


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (lambda: nn.Conv2d(3, 24, 2, bias=False), (50, 3, 12, 9)),
        (lambda: nn.Conv2d(2, 24, (2, 3), bias=False), (60, 2, 9, 12)),
        (lambda: nn.Conv1d(2, 12, 3, bias=False), (80, 2, 40)),
        (lambda: nn.Conv3d(1, 16, 2, bias=False), (20, 1, 7, 8, 9)),
    ],
)
def test_what_comes_out_is_white_and_has_both_signs(conv, shape):
    layer, images = conv(), smooth_images(*shape)
    whiten_(layer.weight, Tensor(images), eps=1e-9)
    out = np.moveaxis(layer(Tensor(images)).numpy().astype(np.float64), 1, 0).reshape(layer.out_channels, -1)
    half = len(out) // 2
    np.testing.assert_array_equal(layer.weight.data[half:], -layer.weight.data[:half])
    np.testing.assert_allclose(out[:half] @ out[:half].T / out.shape[1], np.eye(half), atol=2e-3)


def test_filters_come_by_falling_variance_and_eps_bounds_them():
    images = smooth_images(40, 3, 10, 10)
    patches = np.stack([images[:, :, i : i + 9, j : j + 9] for i in (0, 1) for j in (0, 1)], axis=2)
    rows = np.moveaxis(patches, (1, 2), (3, 4)).reshape(-1, 12).astype(np.float64)  # channels, then taps
    values = np.linalg.eigvalsh(rows.T @ rows / len(rows))[::-1]
    weight = whiten_(Parameter(np.zeros((24, 3, 2, 2))), Tensor(images), eps=0.1).data.reshape(24, 12)
    np.testing.assert_allclose((weight[:12] ** 2).sum(axis=1), 1 / (values + 0.1), rtol=1e-5)


def test_whitening_refuses():
    images = Tensor(np.ones((4, 3, 5, 5), np.float32))
    for shape in ((12, 3, 2, 2), (24, 12)):
        with pytest.raises(ValueError, match=r"whiten_ needs filters \(out, C, …\) with out = 2 · C · taps"):
            whiten_(Parameter(np.zeros(shape, np.float32)), images)
    weight = Parameter(np.zeros((24, 3, 2, 2), np.float32))
    for shape in ((4, 1, 5, 5), (3, 5, 5), (4, 3, 1, 5), (0, 3, 5, 5)):
        with pytest.raises(ValueError, match=r"images must have shape \(N, 3, …\) and be as large as the filters"):
            whiten_(weight, Tensor(np.ones(shape, np.float32)))
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        whiten_(weight, images, eps=0)
