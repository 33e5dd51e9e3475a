"""The course pages' snippets, run as a reader would type them, and the figures that they state (misprints corrected)."""

import numpy as np
import pytest

import tinytorch as t
import tinytorch.nn as nn
from tinytorch import ConvProblem, Tensor
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Linear
from tinytorch.core.spatial import AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d, SimpleCNN
from tinytorch.nn import functional as F

image_batch = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)


def count(model) -> int:
    return sum(p.size for p in model.parameters())


# ---- module 09 ------------------------------------------------------------------------------------------


def test_the_pattern_you_will_enable():
    conv = Conv2d(3, 64, kernel_size=3, padding=1)
    pool = MaxPool2d(kernel_size=2, stride=2)
    x = Tensor(image_batch)
    features = pool(ReLU()(conv(x)))
    assert features.shape == (2, 64, 112, 112)


@pytest.mark.parametrize("pooling", [MaxPool2d, AvgPool2d])
def test_code_comparison(pooling):
    conv1 = Conv2d(3, 64, kernel_size=3, padding=1)
    conv2 = Conv2d(64, 128, kernel_size=3, padding=1)
    pool = pooling(kernel_size=2, stride=2)
    relu = ReLU()
    shapes = []
    with t.no_grad():
        x = Tensor(image_batch)
        for layer in (conv1, relu, pool, conv2, relu, pool):
            x = layer(x)
            shapes.append(x.shape[1:])
    assert shapes == [(64, 224, 224)] * 2 + [(64, 112, 112)] + [(128, 112, 112)] * 2 + [(128, 56, 56)]


def seven_loops(self, x):
    """Conv2d.forward as listing 9.1 prints it; the page leaves the first four lines to the reader."""
    batch_size, in_channels, in_height, in_width = x.shape
    out_channels, _, kernel_h, kernel_w = self.weight.shape
    p = self.padding
    padded_input = np.pad(x.data, ((0, 0), (0, 0), (p, p), (p, p)))
    out_height = (in_height + 2 * self.padding - kernel_h) // self.stride + 1
    out_width = (in_width + 2 * self.padding - kernel_w) // self.stride + 1
    output = np.zeros((batch_size, out_channels, out_height, out_width))
    for b in range(batch_size):
        for out_ch in range(out_channels):
            for out_h in range(out_height):
                for out_w in range(out_width):
                    in_h_start = out_h * self.stride
                    in_w_start = out_w * self.stride
                    conv_sum = 0.0
                    for k_h in range(kernel_h):
                        for k_w in range(kernel_w):
                            for in_ch in range(in_channels):
                                input_val = padded_input[b, in_ch, in_h_start + k_h, in_w_start + k_w]
                                weight_val = self.weight.data[out_ch, in_ch, k_h, k_w]
                                conv_sum += input_val * weight_val
                    output[b, out_ch, out_h, out_w] = conv_sum
    return Tensor(output)


def test_the_printed_loops_are_what_the_layer_computes():
    conv = Conv2d(2, 3, kernel_size=3, stride=2, padding=1, bias=False)
    x = Tensor(image_batch[:1, :2, :9, :9])
    np.testing.assert_allclose(conv(x).data, seven_loops(conv, x).data, atol=1e-5)


def test_conv2d_initialization_and_state_of_the_slides():
    class SlideConv2d:
        def __init__(self, in_channels, out_channels, kernel_size):
            self.kernel_size = kernel_size
            kernel_h, kernel_w = self.kernel_size
            fan_in = in_channels * kernel_h * kernel_w
            std = np.sqrt(2.0 / fan_in)
            self.weight = Tensor(np.random.normal(0, std, (out_channels, in_channels, kernel_h, kernel_w)))

    assert SlideConv2d(3, 16, (3, 3)).weight.shape == Conv2d(3, 16, (3, 3)).weight.shape == (16, 3, 3, 3)


def test_batch_norm_logic_of_the_slides():
    norm = BatchNorm2d(3)
    x = Tensor(image_batch[:, :, :8, :8] * 3 + 1)
    m = norm.momentum
    batch_mean = np.mean(x.data, axis=(0, 2, 3))
    batch_var = np.var(x.data, axis=(0, 2, 3))
    running_mean = (1 - m) * norm.running_mean.data + m * batch_mean
    gamma, beta = (v.data[:, None, None] for v in (norm.gamma, norm.beta))
    out = gamma * (x.data - batch_mean[:, None, None]) / np.sqrt(batch_var[:, None, None] + norm.eps) + beta
    np.testing.assert_allclose(norm(x).data, out, atol=1e-5)
    np.testing.assert_allclose(norm.running_mean.data, running_mean, rtol=1e-5)
    norm.eval()
    frozen = (x.data - norm.running_mean.data[:, None, None]) / np.sqrt(norm.running_var.data[:, None, None] + norm.eps)
    np.testing.assert_allclose(norm(x).data, frozen, atol=1e-4)


def test_simple_cnn_of_the_slides_learns_below_the_flatten():
    class SlideCNN:
        def __init__(self):
            self.conv1 = Conv2d(3, 16, kernel_size=3, padding=1)
            self.pool1 = MaxPool2d(2, stride=2)
            self.conv2 = Conv2d(16, 32, kernel_size=3, padding=1)
            self.pool2 = MaxPool2d(2, stride=2)
            self.relu = ReLU()
            self.flattened_size = 32 * 8 * 8

        def forward(self, x):
            x = self.pool1(self.relu(self.conv1(x)))
            x = self.pool2(self.relu(self.conv2(x)))
            batch_size = x.shape[0]
            return x.reshape(batch_size, -1)  # the slide's Tensor(x.data.reshape(…)) would cut the graph here

    model = SlideCNN()
    features = model.forward(Tensor(image_batch[:, :, :32, :32]))
    assert features.shape == (2, model.flattened_size)
    features.sum().backward()
    assert np.abs(model.conv1.weight.grad).max() > 0


# ---- page 003 -------------------------------------------------------------------------------------------


class PageConv2d(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        k = 1 / np.sqrt(in_channels * kernel_size * kernel_size)
        weight = k * (2 * t.rand(out_channels, in_channels, kernel_size, kernel_size) - 1)
        self.weight = nn.Parameter(weight)

    def forward(self, x: t.Tensor) -> t.Tensor:
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)


class PageMaxPool2d(nn.Module):
    def __init__(self, kernel_size: int, stride: int = None):  # noqa: RUF013  as printed
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride else kernel_size

    def forward(self, x: t.Tensor) -> t.Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride)


class PageSimpleCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_layers = nn.Sequential(
            PageConv2d(1, 32, kernel_size=3, stride=1, padding=1),
            ReLU(),
            PageMaxPool2d(2),
            PageConv2d(32, 64, kernel_size=3, stride=1, padding=1),
            ReLU(),
            PageMaxPool2d(2),
        )
        self.fc_layers = nn.Sequential(
            nn.Flatten(),
            Linear(64 * 7 * 7, 128),
            ReLU(),
            Linear(128, 10),
        )

    def forward(self, x):
        x = self.conv_layers(x)
        x = self.fc_layers(x)
        return x


class PageMNISTConvNet(nn.Module):
    """Aaliyah's exercise, done."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (PageSimpleCNN, 32 * 9 + 64 * 32 * 9 + (64 * 49 + 1) * 128 + 129 * 10),
        (PageMNISTConvNet, 824_458),
    ],
)
def test_page_003_networks_train(model, parameters):
    network = model()
    assert count(network) == parameters
    out = network(t.randn(2, 1, 28, 28))
    assert out.shape == (2, 10)
    F.cross_entropy(out, t.tensor([3, 7])).backward()
    assert all(p.grad is not None and np.abs(p.grad).max() > 0 for p in network.parameters())


def test_vit_patch_embedding():
    patch_embed = nn.Conv2d(3, 768, kernel_size=16, stride=16)
    patches = patch_embed(Tensor(image_batch))
    assert patches.shape == (2, 768, 14, 14)
    assert patches.shape[2] * patches.shape[3] == 196


def test_the_worked_window_gives_15():
    image = np.arange(5)[:, None] + np.arange(1, 6)[None, :]
    kernel = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    y = F.conv2d(Tensor(image[None, None].astype(np.float32)), Tensor(kernel[None, None].astype(np.float32)))
    assert y.shape == (1, 1, 3, 3) and y.data[0, 0, 0, 0] == 15


# ---- figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: Conv2d(3, 64, kernel_size=3, padding=1, stride=1), (3, 224, 224), (64, 224, 224)),
        (lambda: MaxPool2d(kernel_size=2, stride=2), (64, 224, 224), (64, 112, 112)),
        (lambda: Conv2d(64, 128, kernel_size=3, padding=0, stride=2), (64, 112, 112), (128, 55, 55)),
        (lambda: Conv2d(3, 64, kernel_size=5, padding=2, stride=2), (3, 128, 128), (64, 64, 64)),  # Q1
        (lambda: Conv2d(3, 256, kernel_size=7, padding=3, stride=2), (3, 224, 224), (256, 112, 112)),  # Q4
        (
            lambda: Conv2d(1, 1, kernel_size=3, padding=1, stride=2),
            (1, 224, 224),
            (1, 112, 112),
        ),  # floor(111.5) + 1
        (lambda: Conv2d(1, 1, kernel_size=3, padding=0, stride=2), (1, 224, 224), (1, 111, 111)),
    ],
)
def test_output_shapes(layer, shape, expected):
    with t.no_grad():
        assert layer()(Tensor(np.zeros((1, *shape), np.float32))).shape == (1, *expected)


def test_parameter_counts():
    assert count(Conv2d(3, 64, kernel_size=3)) == 1_792  # Q2
    dense = 224 * 224 * 3 * 64
    assert dense == 9_633_792 and dense // 1_792 == 5_376
    assert count(Conv2d(3, 16, 3)) == 448
    assert count(PageConv2d(32, 64, 3)) == 18_432 and count(Conv2d(32, 64, 3)) == 18_496
    assert count(SimpleCNN(num_classes=None)) == 5_088 and count(SimpleCNN()) == 25_578
    assert round(3_072 * 1_000 / 25_578) == 120


def test_costs():
    assert ConvProblem.parse("mb32ic3oc64_ih224kh3ph1").macs == 2_774_532_096
    assert ConvProblem.parse("mb16ic64oc128_ih56kh3ph1").macs == 3_699_376_128  # Q3
    assert 4 * np.prod(ConvProblem.parse("mb64ic3oc256_ih224kh7sh2ph3").output_shape) == 822_083_584  # Q4
    assert 4 * np.prod(ConvProblem.parse("mb32ic3oc64_ih224kh3ph1").output_shape) == 411_041_792


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([("conv", 3, 1)] * 5, 11),
        ([("conv", 3, 1), ("pool", 2, 2), ("conv", 3, 1), ("conv", 3, 1)], 12),  # Q5
    ],
)
def test_receptive_field_is_the_support_of_the_gradient(layers, field):
    x = Tensor(np.ones((1, 1, 41, 41)), requires_grad=True)
    y = x
    for kind, size, stride in layers:
        if kind == "pool":
            y = F.avg_pool2d(y, size, stride)
        else:
            y = F.conv2d(y, Tensor(np.ones((1, 1, size, size))), stride=stride)
    middle = y.shape[2] // 2
    y[0, 0, middle, middle].backward()
    touched = np.argwhere(x.grad[0, 0] != 0)
    assert tuple(np.ptp(touched, axis=0) + 1) == (field, field)


def test_padding_does_not_give_edge_pixels_as_many_windows():
    x = Tensor(np.zeros((1, 1, 5, 5)), requires_grad=True)
    F.conv2d(x, Tensor(np.ones((1, 1, 3, 3))), padding=1).sum().backward()
    windows = x.grad[0, 0]
    assert (windows[0, 0], windows[0, 2], windows[2, 2]) == (4, 6, 9)


def test_a_missing_batch_dimension_is_refused():
    with pytest.raises(ValueError, match=r"Expected 4D input \(batch, channels, height, width\), got \(3, 224, 224\)"):
        Conv2d(3, 64, 3)(Tensor(image_batch[0]))


def test_translation_equivariance():
    conv = Conv2d(1, 4, 3)
    x = image_batch[:1, :1, :20, :20]
    shifted = np.roll(x, 3, axis=3)
    np.testing.assert_array_equal(conv(Tensor(shifted)).data[..., 3:], conv(Tensor(x)).data[..., :-3])
