"""How many parameters every network has, and what torchvision's are called."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tinytorch import models
from tinytorch.core.layers import Linear, Parameter

IMAGENET, CIFAR, MNIST = (3, 224, 224), (3, 32, 32), (1, 28, 28)

# Of each network for images of a size that it is made for; torchvision's as its documentation publishes them.
PARAMETERS = [
    ("simple-cnn", CIFAR, 10, 25_578),
    ("mnist-convnet", MNIST, 10, 824_458),
    ("digits-cnn", (1, 8, 8), 10, 29_258),
    ("mlp", MNIST, 10, 795_010),
    ("mlp", CIFAR, 10, 3_083_010),
    ("lenet5", MNIST, 10, 61_706),
    ("resnet18-cifar", CIFAR, 10, 11_173_962),
    ("airbench94", CIFAR, 10, 1_972_792),
    ("resnet18", IMAGENET, 1000, 11_689_512),
    ("resnet34", IMAGENET, 1000, 21_797_672),
    ("resnet50", IMAGENET, 1000, 25_557_032),
    ("resnet101", IMAGENET, 1000, 44_549_160),
    ("resnet152", IMAGENET, 1000, 60_192_808),
    ("vgg11", IMAGENET, 1000, 132_863_336),
    ("vgg11_bn", IMAGENET, 1000, 132_868_840),
    ("vgg13", IMAGENET, 1000, 133_047_848),
    ("vgg13_bn", IMAGENET, 1000, 133_053_736),
    ("vgg16", IMAGENET, 1000, 138_357_544),
    ("vgg16_bn", IMAGENET, 1000, 138_365_992),
    ("vgg19", IMAGENET, 1000, 143_667_240),
    ("vgg19_bn", IMAGENET, 1000, 143_678_248),
    ("mobilenet_v2", IMAGENET, 1000, 3_504_872),
    ("alexnet", IMAGENET, 1000, 61_100_840),
    ("unet", IMAGENET, 2, 31_037_698),
    ("vit-patch-embedding", IMAGENET, 1000, 742_656),
]

# SHA-256 of the sorted lines "name 64x3x7x7" of the state_dict, from torchvision 0.29.2.
NAMES = {
    "resnet18": "f0e35161599236f315cd146cd4248bf0732a9445b57a806ea3787184467b15b4",
    "resnet34": "c1372162bc2e8e861f0e7c2d13d683bdb9d66996aa4447248d69bc670d51b4bf",
    "resnet50": "fe1d335c3c7786ffda005558842d02e739fc8008f65d509710f49da78719aa43",
    "resnet101": "b6755676a9dbfb7d2416e0393ea27402a774a31280fddd82036f9860e6b32f42",
    "resnet152": "3446679ffd752d79aa40ee9bd9cf312341999ee99a0138842705c0b330340d91",
    "vgg11": "839b1d4e93d78d88be45c0a773a2d9011714bce60e0a84961fe7e162b16c1c54",
    "vgg11_bn": "92b35921413c89111c5e6075de3f70f0e71d33390e1d89cb335e5b2b7dff9c14",
    "vgg13": "16c588a61614aa272ad6a9ab56de1678e303b3db0c4d9236fbf92a8c0b7f3870",
    "vgg13_bn": "2ee9fb082618c35c08da2ef3e348ae920398f0c53d42aa697790d1eab884a2d1",
    "vgg16": "e36b43eb356035da8773e7fcc78b2535bbbf866e196790b7e11f3a547e89dfc3",
    "vgg16_bn": "ac9d6e9725a44cb188e9b689e9bb23f1b28c088e7a4969ff1bf0785c3409d862",
    "vgg19": "fafd9d516f77ba5559e8c4fde3a02a63df4ffbfe8b07b9c8b2b9367afa01a6ec",
    "vgg19_bn": "95c2fa41f19fe7a11c5c9c7d00e5e9a4e27dbc104e70193d8945aa3699fe074a",
    "mobilenet_v2": "2a196dc04125b8ce696f40d01e523bf91e7c3f4cfaf09ca3f4cdce41e0302d59",
    "alexnet": "9b204a0e6319cabaa511a49db16c85e934b970be356cc92e9f36779b55084021",
}


class Hollow(Linear):
    """A Linear whose hundred million weights are one number in memory."""

    def __init__(self, in_features, out_features):
        self.weight = Parameter(np.broadcast_to(np.float32(0), (out_features, in_features)))
        self.bias = Parameter(np.zeros(out_features, np.float32))


@pytest.fixture
def create(replace_linear, monkeypatch):
    replace_linear(Hollow)
    monkeypatch.setattr("tinytorch.models.vgg.draw_normal", lambda model, linear_std: None)
    return models.create


def test_every_network_is_listed():
    assert {name for name, *_ in PARAMETERS} == set(models.names())


@pytest.mark.parametrize(("name", "shape", "classes", "count"), PARAMETERS)
def test_parameters(name, shape, classes, count, create):
    model = create(name, shape, classes)
    assert sum(p.size for p in model.parameters()) == count
    if name in NAMES:
        state = (*model.named_parameters(), *model.named_buffers())
        lines = sorted(f"{name} {'x'.join(map(str, tensor.shape))}" for name, tensor in state)
        assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == NAMES[name]


def test_parameters_of_the_u_net_added_up():
    """Layer by layer from figure 1 of the paper; a normalisation takes the place of each bias and counts twice."""
    down = [
        (3, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
        (512, 512),
        (512, 1024),
        (1024, 1024),
    ]
    up = [(1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    convs = sum(3 * 3 * before * after + 2 * after for before, after in down + up)
    doubled = sum(2 * 2 * before * after + after for before, after in up if before != after)
    assert convs + doubled + (64 + 1) * 2 == 31_037_698


def test_patch_embedding_has_the_names_of_torchvision_s_vision_transformer():
    state = models.PatchEmbedding().state_dict()
    assert {name: values.shape for name, values in state.items()} == {
        "class_token": (1, 1, 768),
        "conv_proj.weight": (768, 3, 16, 16),
        "conv_proj.bias": (768,),
        "encoder.pos_embedding": (1, 197, 768),
    }
