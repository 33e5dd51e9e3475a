"""The networks by name, their sizes, and the recipes."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import models
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.random import manual_seed
from tinytorch.core.tensor import Tensor

LIGHT = ("simple-cnn", "mnist-convnet", "digits-cnn", "mlp", "resnet18-cifar", "mobilenet_v2")  # quick, of any size


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (2, 28, 28)])
def test_every_model_takes_any_shape_and_every_parameter_learns(name, shape):
    model = models.create(name, shape, 7)
    images = Tensor(np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32))
    logits = model(images)
    assert logits.shape == (4, 7)
    CrossEntropyLoss()(logits, Tensor(np.array([0, 1, 2, 6]))).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and np.abs(parameter.grad).sum() > 0, parameter_name


@pytest.mark.parametrize("name", LIGHT)
def test_weights_depend_on_the_seed_alone(name):
    states = []
    for seed in (1, 1, 2):
        manual_seed(seed)
        states.append(models.create(name, (1, 8, 8), 10).state_dict())
    np.testing.assert_equal(states[0], states[1])
    assert any((states[0][key] != states[2][key]).any() for key in states[0])


def test_state_reads_well():
    assert list(models.create("mlp", (1, 8, 8), 10).state_dict()) == [
        "hidden.weight", "hidden.bias", "classifier.weight", "classifier.bias",
    ]  # fmt: skip
    assert list(models.MNISTConvNet().state_dict())[:2] == ["features.0.weight", "features.0.bias"]


def test_mnist_convnet_is_the_page_s_network():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    twin = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip
    model = models.MNISTConvNet()
    with torch.no_grad():
        for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
            theirs.copy_(torch.tensor(np.array(ours.data)))
    images = np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)
    expected = twin(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(model(Tensor(images)).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("simplecnn", r"; did you mean 'simple-cnn'\?"),
        ("ResNet-50", r"; did you mean 'resnet50'\?"),
        ("resnet18_cifar", r"; did you mean 'resnet18-cifar'\?"),
        ("mobilenetv2", r"; did you mean 'mobilenet_v2'\?"),
        ("VGG16 BN", r"; did you mean 'vgg16_bn'\?"),
        ("resnet5", r"; did you mean 'resnet50'\? Also near: .*'resnet34'"),
        ("resnet", r"; did you mean 'resnet\d+'\? Also near: .*'resnet152'"),
        ("vit", r"; did you mean 'vit-patch-embedding'\?"),
        ("cnn", r"; did you mean 'simple-cnn'\? Also near: 'digits-cnn'"),
        ("zzz", ""),
        ("-", ""),
    ],
)
def test_an_unknown_model_is_answered_with_those_that_are_near(name, hint):
    with pytest.raises(ValueError, match=f"model must be one of simple-cnn, .*, got '{name}'{hint}$"):
        models.create(name, (1, 8, 8), 10)


def test_no_two_names_differ_in_capitals_and_separators_alone():
    """Or a hint would name one of them where the other was meant."""
    assert len({"".join(filter(str.isalnum, name.lower())) for name in models.names()}) == len(models.names())


def test_lenet5_is_the_taught_network():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    twin = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    model = models.LeNet5()
    with torch.no_grad():
        for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
            theirs.copy_(torch.tensor(np.array(ours.data)))
    images = np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)
    expected = twin(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(model(Tensor(images)).numpy(), expected, rtol=1e-4, atol=1e-5)
    smallest = models.create("lenet5", (3, 12, 13), 4)
    assert smallest(Tensor(np.zeros((2, 3, 12, 13), np.float32))).shape == (2, 4)


LEAST = [
    ("mnist-convnet", 4), ("digits-cnn", 2), ("lenet5", 12), ("alexnet", 63), ("vgg16_bn", 32), ("resnet18", 1),
    ("unet", 16), ("vit-patch-embedding", 16),
]  # fmt: skip


@pytest.mark.parametrize(("name", "least"), LEAST)
def test_images_must_be_large_enough(name, least):
    with pytest.raises(ValueError, match=f"at least {least} pixels a side"):
        models.create(name, (1, least - 1, 8), 10)


@pytest.mark.parametrize(
    ("name", "reason"), [("unet", "a U-Net halves them four times"), ("vit-patch-embedding", "an image is cut into")]
)
def test_images_must_be_a_multiple_of_sixteen(name, reason):
    with pytest.raises(ValueError, match=f"multiples of 16 and 16, for {reason}.*got 32×100; .*images to 32×112"):
        models.create(name, (3, 32, 100), 10)
