"""What `tinytorch.summary` says of the ten networks of docs/other-tools.md, as JSON for `docs/compare_tools.py --ours`.

The five that are not torchvision's are written here again, layer by layer, with this library.

    python docs/compare_tools_ours.py > ours.json
    python docs/compare_tools.py --ours ours.json
"""

import json

import tinytorch
from tinytorch import nn, zeros
from tinytorch.models import create
from tinytorch.nn import functional as F

PHOTO, SMALL = (1, 3, 224, 224), (1, 3, 64, 64)


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    def __init__(self) -> None:
        self.first, self.second, self.third = block(3, 16), block(16, 32), block(32, 64)
        self.down = nn.MaxPool2d(2)
        self.up_third = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.up_second = nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1)
        self.join_second, self.join_first = block(64, 32), block(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        first = self.first(x)
        second = self.second(self.down(first))
        third = self.third(self.down(second))
        x = self.join_second(tinytorch.cat([second, self.up_third(third)], 1))
        return self.head(self.join_first(tinytorch.cat([first, self.up_second(x)], 1)))


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(16, 64, 1, bias=False),
        nn.Conv2d(64, 64, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(64, 64, 5, padding=2, groups=64, bias=False),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, groups=4, bias=False),
        nn.Conv2d(32, 10, 1, bias=False),
    )


def dilated() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding="same", dilation=2, bias=False),
        nn.Conv2d(16, 16, 4, padding="same", bias=False),
        nn.Conv2d(16, 16, (1, 7), padding=(0, 3), bias=False),
        nn.Conv2d(16, 16, (7, 1), padding=(3, 0), bias=False),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(16, 32, 3, stride=2, bias=False),
        nn.Conv2d(32, 32, 3, padding=4, dilation=4, padding_mode="circular", bias=False),
    )


class Branch(nn.Module):
    def __init__(self, shared: nn.Module) -> None:
        self.own, self.shared = nn.Linear(16, 32, bias=False), shared

    def forward(self, x):
        return self.shared(self.own(x))


class Shared(nn.Module):
    def __init__(self) -> None:
        self.kernel, self.table = nn.Parameter(zeros(16, 3, 3, 3)), nn.Parameter(zeros(16, 16))
        self.twice = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        shared = nn.Linear(32, 32, bias=False)
        self.left, self.right = Branch(shared), Branch(shared)
        self.tied, self.last = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.last.weight = self.tied.weight

    def forward(self, x):
        x = F.conv2d(x, self.kernel, padding=1)
        x = self.twice(self.twice(x)).flatten(2).transpose(1, 2)
        x = (x @ x.transpose(1, 2)) @ x
        x = F.linear(x.mean(1), self.table)
        return self.last(self.tied(self.left(x) + self.right(x)))


class MultiheadAttention(nn.Module):
    """With the parameters of PyTorch's."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.in_proj_weight, self.in_proj_bias = nn.Parameter(zeros(3 * width, width)), nn.Parameter(zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        images, tokens, width = x.shape
        parts = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = parts.reshape(images, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = F.softmax(query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5, -1)
        return self.out_proj((weights @ value).transpose(1, 2).reshape(images, tokens, width))


class Attention(nn.Module):
    def __init__(self, width: int = 64, patch: int = 8, tokens: int = 64) -> None:
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(zeros(1, tokens, width), requires_grad=False)
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiheadAttention(width, 4)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = x + self.attention(self.norm(x))
        return self.head((x + self.mlp(self.norm_mlp(x))).mean(1))


NETWORKS = {
    **{name: (lambda name=name: create(name, PHOTO[1:], 1000), PHOTO) for name in ("resnet18", "resnet50", "vgg16")},
    **{name: (lambda name=name: create(name, PHOTO[1:], 1000), PHOTO) for name in ("alexnet", "mobilenet_v2")},
    "unet": (UNet, SMALL),
    "grouped": (grouped, (1, 16, 32, 32)),
    "dilated": (dilated, SMALL),
    "shared": (Shared, (1, 3, 16, 16)),
    "attention": (Attention, SMALL),
}


def figures() -> dict[str, dict[str, int]]:
    """Parameters and MACs by network."""
    summaries = {name: tinytorch.summary(build(), shape, memory=False) for name, (build, shape) in NETWORKS.items()}
    return {name: {"parameters": s.parameters, "macs": s.macs.value} for name, s in summaries.items()}


if __name__ == "__main__":
    print(json.dumps(figures(), indent=2))
