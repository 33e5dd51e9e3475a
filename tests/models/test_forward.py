"""The networks of torchvision against themselves, written with torch.nn.functional: outputs, and a training step."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import models, no_grad
from tinytorch.core.convolution import ConvTranspose2d
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.random import manual_seed
from tinytorch.core.spatial import BatchNorm2d, Conv2d
from tinytorch.core.tensor import Tensor

torch = pytest.importorskip("torch")
f = torch.nn.functional


class Twin:
    """Layers by name, from a dict of torch tensors."""

    def __init__(self, state, training=False):
        self.state, self.training = state, training

    def conv(self, x, name, **options):
        return f.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def norm(self, x, name):
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return f.batch_norm(x, mean, var, weight, bias, self.training)

    def linear(self, x, name):
        return f.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def has(self, name):
        return any(key.startswith(f"{name}.") for key in self.state)


def residual_block(net, x, name, stride):
    def conv_bn(x, index, **options):
        return net.norm(net.conv(x, f"{name}.conv{index}", **options), f"{name}.bn{index}")

    if net.has(f"{name}.conv3"):
        y = f.relu(conv_bn(f.relu(conv_bn(x, 1)), 2, stride=stride, padding=1))
        y = conv_bn(y, 3)
    else:
        y = conv_bn(f.relu(conv_bn(x, 1, stride=stride, padding=1)), 2, padding=1)
    if net.has(f"{name}.downsample"):
        x = net.norm(net.conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
    return f.relu(x + y)


def resnet(net, x, small_images=False):
    x = net.conv(x, "conv1", **({"padding": 1} if small_images else {"padding": 3, "stride": 2}))
    x = f.relu(net.norm(x, "bn1"))
    x = x if small_images else f.max_pool2d(x, 3, 2, 1)
    for stage in (1, 2, 3, 4):
        block = 0
        while net.has(f"layer{stage}.{block}"):
            x = residual_block(net, x, f"layer{stage}.{block}", stride=2 if stage > 1 and block == 0 else 1)
            block += 1
    return net.linear(x.mean((2, 3)), "fc")


def vgg(net, x, pools):
    """`pools` are the places of the poolings in `features`. Whoever reads a layer's output applies its relu first."""
    for place in range(max(pools) + 1):
        name = f"features.{place}"
        if place in pools:
            x = f.max_pool2d(f.relu(x), 2)
        elif f"{name}.running_mean" in net.state:
            x = net.norm(x, name)
        elif net.has(name):
            x = net.conv(f.relu(x) if place else x, name, padding=1)
    return classifier(net, f.adaptive_avg_pool2d(x, 7).flatten(1), (0, 3, 6))


def classifier(net, x, places):
    for place in places[:-1]:
        x = f.relu(net.linear(x, f"classifier.{place}"))
    return net.linear(x, f"classifier.{places[-1]}")


def alexnet(net, x):
    x = f.max_pool2d(f.relu(net.conv(x, "features.0", stride=4, padding=2)), 3, 2)
    x = f.max_pool2d(f.relu(net.conv(x, "features.3", padding=2)), 3, 2)
    for place in (6, 8, 10):
        x = f.relu(net.conv(x, f"features.{place}", padding=1))
    return classifier(net, f.adaptive_avg_pool2d(f.max_pool2d(x, 3, 2), 6).flatten(1), (1, 4, 6))


def mobilenet(net, x):
    def step(x, name, **options):
        return f.relu6(net.norm(net.conv(x, f"{name}.0", **options), f"{name}.1"))

    x = step(x, "features.0", stride=2, padding=1)
    for block in range(1, 18):
        name, y = f"features.{block}.conv", x
        last = 2 if block > 1 else 1
        if block > 1:
            y = step(y, f"{name}.0")
        stride = 2 if block in (2, 4, 7, 14) else 1
        y = step(y, f"{name}.{last - 1}", stride=stride, padding=1, groups=y.shape[1])
        y = net.norm(net.conv(y, f"{name}.{last}"), f"{name}.{last + 1}")
        x = x + y if x.shape == y.shape else y
    return net.linear(step(x, "features.18").mean((2, 3)), "classifier.1")


def unet(net, x):
    def convs(x, name):
        x = f.relu(net.norm(net.conv(x, f"{name}.0", padding=1), f"{name}.1"))
        return f.relu(net.norm(net.conv(x, f"{name}.3", padding=1), f"{name}.4"))

    skips = []
    for level in (1, 2, 3, 4):
        skips.append(convs(x, f"down{level}"))
        x = f.max_pool2d(skips[-1], 2)
    x = convs(x, "bottom")
    for level in (4, 3, 2, 1):
        weight, bias = (net.state[f"up{level}.up.{part}"] for part in ("weight", "bias"))
        x = torch.cat([skips.pop(), f.conv_transpose2d(x, weight, bias, stride=2)], 1)
        x = convs(x, f"up{level}.convs")
    return net.conv(x, "classifier")


def randomise(model):
    """Statistics, scales and shifts that are all different, so that none can be swapped or left out unnoticed."""
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data[...] = rng.uniform(0.5, 1.5, tensor.shape)
            for tensor in (module.bias, module.running_mean):
                tensor.data[...] = rng.normal(0, 0.2, tensor.shape)
        elif isinstance(module, Conv2d | ConvTranspose2d) and module.bias is not None:
            module.bias.data[...] = rng.normal(0, 0.2, module.bias.shape)


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "twin", "shape"),
    [
        ("resnet18", resnet, (1, 3, 64, 64)),
        ("resnet50", resnet, (2, 3, 33, 64)),
        ("resnet18_cifar", lambda net, x: resnet(net, x, small_images=True), (2, 3, 16, 12)),
        ("mobilenet_v2", mobilenet, (2, 3, 64, 48)),
        ("vgg11", lambda net, x: vgg(net, x, (2, 5, 10, 15, 20)), (1, 3, 64, 96)),
        ("vgg13_bn", lambda net, x: vgg(net, x, (6, 13, 20, 27, 34)), (2, 3, 32, 32)),
        ("alexnet", alexnet, (2, 3, 63, 100)),
        ("unet", unet, (2, 3, 32, 48)),
    ],
)
def test_forward_as_torch(name, twin, shape, narrow):
    manual_seed(0)
    model = getattr(models, name)(num_classes=10).eval()
    randomise(model)
    state = {key: torch.from_numpy(value) for key, value in model.state_dict().items()}
    with no_grad(), torch.no_grad():
        expected = twin(Twin(state), torch.from_numpy(images(*shape))).numpy()
        actual = model(Tensor(images(*shape))).numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "exact", "rough"), [(np.float32, 1e-4, 5e-2), (np.float64, 1e-9, 1e-9)])
def test_a_training_step_of_resnet18_as_torch(dtype, exact, rough):
    """In float32 a number next to zero may pass one ReLU and not the other, and that gradient is another one."""
    manual_seed(0)
    x, labels = images(8, 3, 8, 8).astype(dtype), np.arange(8)
    compare_step(models.resnet18_cifar().to(dtype), lambda net, x: resnet(net, x, True), x, labels, exact, rough)


def test_a_training_step_of_a_narrow_unet_as_torch():
    """Every pixel has a label; gradients part and meet again at each of the four skips."""
    manual_seed(0)
    labels = np.random.default_rng(0).integers(0, 5, (3, 32, 16))
    model = models.UNet(num_classes=5, in_channels=2, width=3).double()
    compare_step(model, unet, images(3, 2, 32, 16).astype(np.float64), labels, exact=1e-9, rough=1e-9)


def compare_step(model, twin, x, labels, exact, rough):
    """Loss, gradients and running statistics of one step in training."""
    state = {key: torch.from_numpy(value) for key, value in model.state_dict().items()}
    learned = {name: state[name].requires_grad_() for name, _ in model.named_parameters()}
    expected = f.cross_entropy(twin(Twin(state, training=True), torch.from_numpy(x)), torch.from_numpy(labels))
    expected.backward()
    loss = CrossEntropyLoss()(model(Tensor(x)), Tensor(labels))
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=exact)
    for name, parameter in model.named_parameters():
        theirs = learned[name].grad.numpy()
        assert np.linalg.norm(parameter.grad - theirs) < rough * np.linalg.norm(theirs), name
    for name, buffer in model.named_buffers():
        np.testing.assert_allclose(buffer.data, state[name].numpy() + ("tracked" in name), atol=exact, err_msg=name)
