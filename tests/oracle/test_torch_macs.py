"""MACs through hooks, against counting one by one, PyTorch's own counter of operations, and published figures."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.oracle import macs as by_hand

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tests.oracle.torch_macs import layer_macs, macs  # noqa: E402

CONVS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": 3, "padding": 2, "dilation": 2, "groups": 2},
        {"groups": 4, "padding": 1, "bias": False},
    ],
)
def test_every_kind_of_convolution(dims, options):
    shape = (2, 4, *(7, 9, 6)[:dims])
    conv, transposed = (layer(4, 8, 3, **options, device="meta") for layer in CONVS[dims])
    options = {name: value for name, value in options.items() if name != "bias"}
    assert macs(conv, shape) == by_hand.Conv(shape, 8, 3, **options).macs.every
    assert macs(transposed, shape) == by_hand.ConvTranspose(shape, 8, 3, **options).macs.every


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("kernel", "size"), [((3, 3), (7, 5)), ((2, 4), (6, 6))])
def test_same_padding_and_output_padding(kernel, size):
    conv = nn.Conv2d(3, 5, kernel, padding="same", device="meta")
    pads = tuple(((k - 1) // 2, k // 2) for k in kernel)
    assert macs(conv, (1, 3, *size)) == by_hand.Conv((1, 3, *size), 5, kernel, padding=pads).macs.every
    up = nn.ConvTranspose2d(3, 5, kernel, stride=3, padding=1, output_padding=(1, 2), device="meta")
    layer = by_hand.ConvTranspose((1, 3, *size), 5, kernel, 3, 1, (1, 2))
    assert macs(up, (1, 3, *size)) == layer.macs.every
    assert up(torch.empty(1, 3, *size, device="meta")).shape == layer.output_shape


class Small(nn.Module):
    """A layer called twice, one never, a branch, one image without a batch, and a linear layer over rows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.never = nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.norm(self.conv(self.conv(x)) + x)
        return self.head(self.up(x[0]))


def test_names_and_sums():
    with torch.device("meta"):
        model = Small()
    counts = layer_macs(model, (1, 4, 6, 8))
    assert counts == {"conv": 2 * 48 * 144, "up": 48 * 4 * 2 * 4, "head": 2 * 12 * 16 * 3}
    assert list(counts) == ["conv", "up", "head"]
    assert macs(model, (1, 4, 6, 8)) == sum(counts.values())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_pytorch_s_own_counter_agrees(device):
    """It counts the operations below the layers, two for each multiply-accumulate."""
    with torch.device(device):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=4),
            nn.ConvTranspose2d(16, 4, 3, stride=2, groups=2), nn.Flatten(2), nn.Linear(13 * 13, 5),
        )  # fmt: skip
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(torch.zeros(2, 3, 15, 15))
    assert 2 * macs(model, (2, 3, 15, 15)) == counter.get_total_flops()


def test_vgg16_has_the_published_gigamacs():
    """torchvision says 15.47."""
    layers, channels = [], 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1, device="meta"), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    sizes = (25_088, 4096, 4096, 1000)
    layers += [nn.Flatten(), *(nn.Linear(*pair, device="meta") for pair in pairwise(sizes))]
    assert macs(nn.Sequential(*layers), (1, 3, 224, 224)) == 15_470_264_320
