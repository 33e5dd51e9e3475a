"""The network of CIFAR-10's speed records. The recipe fast94 trains it; what each trick does is in docs/recipes.md.

K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498.
"""

from __future__ import annotations

from tinytorch.core.activations import GELU
from tinytorch.core.fusion import conv_block
from tinytorch.core.initial import dirac_, whiten_
from tinytorch.core.layers import Linear, Module
from tinytorch.core.spatial import BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor
from tinytorch.models.convnets import checked
from tinytorch.models.initial import draw_uniform


class ConvGroup(Module):
    """Convolution, pooling, normalisation, GELU; convolution, normalisation, GELU.

    The scales of the normalisation stay at 1.

    Parameters
    ----------
    channels, width : int
        Of input and output.
    identity : bool
        Whether the convolutions start as the identity on their first channels.
    """

    def __init__(self, channels: int, width: int, identity: bool = True) -> None:
        self.conv1 = Conv2d(channels, width, 3, padding=1, bias=False)
        self.pool = MaxPool2d(2)
        self.norm1 = _normalisation(width)
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = _normalisation(width)
        self.gelu = GELU()
        draw_uniform(self)
        for conv in (self.conv1, self.conv2) if identity else ():
            dirac_(Tensor.wrap(conv.weight.data[: conv.in_channels]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, width, H / 2, W / 2)."""
        y = self.gelu(self.norm1(conv_block(x, self.conv1, pool=self.pool)))
        return self.gelu(conv_block(y, self.conv2, self.norm2))


def _normalisation(width: int) -> BatchNorm2d:
    norm = BatchNorm2d(width, eps=1e-12, momentum=0.4)  # statistics of the last few batches: the weights move fast
    norm.weight.requires_grad = False
    return norm


class Airbench94(Module):
    """A 2×2 convolution that whitens, three groups of two 3×3 convolutions, a linear layer: 1,972,792 parameters.

    Call `whiten` with training images before training; otherwise the first convolution is learned like the others.

    Parameters
    ----------
    input_shape : (channels, height, width)
        Height and width at least 25.
    num_classes : int
    widths : (int, int, int)
        Channels of the groups.
    scale : float
        Of the logits: 1/9 as in the paper, with SGD. The variant with Muon has 1 / widths[-1].
    identity : bool
        Whether the convolutions of the groups start as the identity.

    Raises
    ------
    ValueError
        If the image is too small, or a setting out of range.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        widths: tuple[int, int, int] = (64, 256, 256),
        scale: float = 1 / 9,
        identity: bool = True,
    ) -> None:
        channels, height, width = checked(input_shape, at_least=25)
        if len(widths) != 3 or not all(isinstance(n, int) and n > 0 for n in widths):
            raise ValueError(f"widths must be three positive integers, got {widths!r}; airbench94 has (64, 256, 256)")
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive and finite, got {scale!r}; 1 / 9 is the paper's")
        self.whitening = Conv2d(channels, 2 * channels * 2 * 2, 2)
        draw_uniform(self.whitening)
        self.gelu = GELU()
        self.group1 = ConvGroup(self.whitening.out_channels, widths[0], identity)
        self.group2 = ConvGroup(widths[0], widths[1], identity)
        self.group3 = ConvGroup(widths[1], widths[2], identity)
        self.pool = MaxPool2d(3)
        places = ((height - 1) // 8 // 3) * ((width - 1) // 8 // 3)
        self.head = Linear(widths[2] * places, num_classes, bias=False)
        self.head.weight.data[...] /= self.head.weight.data.std()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) to one score per class."""
        y = self.gelu(self.whitening(x))
        y = self.pool(self.group3(self.group2(self.group1(y))))
        return self.head(y.flatten(1)) * self.scale

    def whiten(self, images: Tensor) -> None:
        """Make the first convolution whiten these images, (N, C, H, W), for good: its filters are not trained."""
        whiten_(self.whitening.weight, images)
        self.whitening.weight.requires_grad = False
