"""The networks that torchvision has too: sizes of images, and initial weights. Their names are in test_parameters."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import models
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.random import manual_seed
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.initial import draw_normal, draw_uniform


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def shapes(model):
    return {name: tensor.shape for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def test_resnet18_for_small_images_differs_in_the_stem_and_the_classes_alone():
    large, small = shapes(models.resnet18()), shapes(models.resnet18_cifar())
    assert list(large) == list(small)
    assert {name for name in large if large[name] != small[name]} == {"conv1.weight", "fc.weight", "fc.bias"}
    assert small["conv1.weight"] == (64, 3, 3, 3) and small["fc.weight"] == (10, 512)


# ---- sizes of images, call styles -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), ("vgg11", 32)])
def test_the_least_size_is_the_least(name, least, narrow):
    with pytest.raises(ValueError, match=f"at least {least} pixels a side, got \\(3, {least - 1}, 99\\)"):
        models.create(name, (3, least - 1, 99), 10)
    model = models.create(name, (3, least, least), 10)
    assert model.features(Tensor(images(1, 3, least, least))).shape[2:] == (1, 1)
    with pytest.raises(ValueError, match="kernel is larger than the padded input"):
        model(Tensor(images(1, 3, least - 1, least)))


def test_a_vgg_of_another_depth_is_refused():
    with pytest.raises(ValueError, match=r"layers must be one of 11, 13, 16, 19, got 12; try VGG\(16\)"):
        models.VGG(12)


def test_create_passes_channels_and_classes_on():
    model = models.create("resnet18", (1, 28, 28), 7)
    assert (model.conv1.in_channels, model.fc.out_features) == (1, 7)
    assert models.mobilenet_v2(num_classes=5).classifier[1].out_features == 5


# ---- initial weights ------------------------------------------------------------------------------------------


def test_normal_weights_have_the_variance_of_fan_out():
    manual_seed(0)
    wide, grouped, linear = Conv2d(8, 256, 3), Conv2d(512, 512, 3, groups=512), Linear(300, 200)
    bound = np.abs(linear.weight.data).max()
    draw_normal(Sequential(wide, grouped, linear))
    assert abs(wide.weight.data.std() / np.sqrt(2 / (256 * 9)) - 1) < 0.03
    assert abs(grouped.weight.data.std() / np.sqrt(2 / (512 * 9)) - 1) < 0.03
    assert np.abs(linear.weight.data).max() == bound and (linear.bias.data != 0).any()
    draw_normal(Sequential(linear), linear_std=0.01)
    assert abs(linear.weight.data.std() / 0.01 - 1) < 0.03 and np.abs(linear.weight.data).max() > 0.035
    assert (linear.bias.data == 0).all() and linear.weight.dtype == np.float32


def test_uniform_weights_are_pytorch_s_default():
    manual_seed(0)
    conv = Conv2d(16, 256, (3, 1))
    draw_uniform(conv)
    bound = 1 / np.sqrt(48)
    for parameter in conv.parameters():
        assert bound * 0.98 < np.abs(parameter.data).max() <= bound * (1 + 1e-6)
        assert abs(parameter.data.std() / (bound / np.sqrt(3)) - 1) < 0.1


@pytest.mark.parametrize(
    ("name", "layer", "std"),
    [
        ("resnet18", "layer1.0.conv1.weight", np.sqrt(2 / (64 * 9))),
        ("resnet18", "fc.weight", 1 / np.sqrt(3 * 512)),
        ("mobilenet_v2", "features.0.0.weight", np.sqrt(2 / (32 * 9))),
        ("mobilenet_v2", "classifier.1.weight", 0.01),
        ("vgg11", "features.0.weight", np.sqrt(2 / (64 * 9))),
        ("vgg11", "classifier.0.weight", 0.01),
        ("alexnet", "features.0.weight", 1 / np.sqrt(3 * 363)),
        ("alexnet", "classifier.6.weight", 1 / np.sqrt(3 * 32)),
    ],
)
def test_each_network_draws_as_torchvision_does(name, layer, std, narrow):
    manual_seed(0)
    weight = dict(getattr(models, name)().named_parameters())[layer].data
    assert abs(weight.std() / std - 1) < 0.1
