"""The networks that torchvision has too: the same names and shapes, sizes of images, and initial weights."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tinytorch import models
from tinytorch.core.layers import Linear, Parameter, Sequential
from tinytorch.core.random import manual_seed
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.initial import draw_normal, draw_uniform

# Parameters, and the SHA-256 of the sorted lines "name 64x3x7x7" of the state_dict, from torchvision 0.29.2.
PUBLISHED = [
    ("resnet18", 11_689_512, "f0e35161599236f315cd146cd4248bf0732a9445b57a806ea3787184467b15b4"),
    ("resnet34", 21_797_672, "c1372162bc2e8e861f0e7c2d13d683bdb9d66996aa4447248d69bc670d51b4bf"),
    ("resnet50", 25_557_032, "fe1d335c3c7786ffda005558842d02e739fc8008f65d509710f49da78719aa43"),
    ("resnet101", 44_549_160, "b6755676a9dbfb7d2416e0393ea27402a774a31280fddd82036f9860e6b32f42"),
    ("resnet152", 60_192_808, "3446679ffd752d79aa40ee9bd9cf312341999ee99a0138842705c0b330340d91"),
    ("vgg11", 132_863_336, "839b1d4e93d78d88be45c0a773a2d9011714bce60e0a84961fe7e162b16c1c54"),
    ("vgg11_bn", 132_868_840, "92b35921413c89111c5e6075de3f70f0e71d33390e1d89cb335e5b2b7dff9c14"),
    ("vgg13", 133_047_848, "16c588a61614aa272ad6a9ab56de1678e303b3db0c4d9236fbf92a8c0b7f3870"),
    ("vgg13_bn", 133_053_736, "2ee9fb082618c35c08da2ef3e348ae920398f0c53d42aa697790d1eab884a2d1"),
    ("vgg16", 138_357_544, "e36b43eb356035da8773e7fcc78b2535bbbf866e196790b7e11f3a547e89dfc3"),
    ("vgg16_bn", 138_365_992, "ac9d6e9725a44cb188e9b689e9bb23f1b28c088e7a4969ff1bf0785c3409d862"),
    ("vgg19", 143_667_240, "fafd9d516f77ba5559e8c4fde3a02a63df4ffbfe8b07b9c8b2b9367afa01a6ec"),
    ("vgg19_bn", 143_678_248, "95c2fa41f19fe7a11c5c9c7d00e5e9a4e27dbc104e70193d8945aa3699fe074a"),
    ("mobilenet_v2", 3_504_872, "2a196dc04125b8ce696f40d01e523bf91e7c3f4cfaf09ca3f4cdce41e0302d59"),
    ("alexnet", 61_100_840, "9b204a0e6319cabaa511a49db16c85e934b970be356cc92e9f36779b55084021"),
]


class Hollow(Linear):
    """A Linear whose hundred million weights are one number in memory."""

    def __init__(self, in_features, out_features):
        self.weight = Parameter(np.broadcast_to(np.float32(0), (out_features, in_features)))
        self.bias = Parameter(np.zeros(out_features, np.float32))


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def shapes(model):
    return {name: tensor.shape for name, tensor in (*model.named_parameters(), *model.named_buffers())}


@pytest.mark.parametrize(("name", "count", "digest"), PUBLISHED)
def test_names_and_shapes(name, count, digest, replace_linear, monkeypatch):
    replace_linear(Hollow)
    monkeypatch.setattr("tinytorch.models.vgg.draw_normal", lambda model, linear_std: None)
    model = getattr(models, name)()
    assert sum(p.size for p in model.parameters()) == count
    lines = sorted(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes(model).items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


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
