"""U-Net: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015.

The variant in common use: the convolutions are padded, so that the output is as large as the image, and normalised.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinytorch.core.activations import ReLU
from tinytorch.core.convolution import ConvTranspose2d
from tinytorch.core.layers import Module, Sequential
from tinytorch.core.spatial import BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor, cat
from tinytorch.models.sizes import check_multiples


def check_size(size: Sequence[int]) -> None:
    """Raise unless an image of this height and width can be halved down to the bottom of the U."""
    check_multiples(size, (16, 16), "a U-Net halves them four times and doubles them again")


def _two_convs(channels: int, width: int) -> Sequential:
    return Sequential(
        Conv2d(channels, width, 3, padding=1, bias=False), BatchNorm2d(width), ReLU(),
        Conv2d(width, width, 3, padding=1, bias=False), BatchNorm2d(width), ReLU(),
    )  # fmt: skip


class Up(Module):
    """One step up: double the image, set what the way down saw at this size beside it, and combine the two.

    Parameters
    ----------
    channels : int
        Of the input; the output has half as many.
    """

    def __init__(self, channels: int) -> None:
        self.up = ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.convs = _two_convs(channels, channels // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (N, channels, H, W), with `skip` (N, channels / 2, 2·H, 2·W), to the shape of `skip`."""
        return self.convs(cat((skip, self.up(x)), dim=1))


class UNet(Module):
    """Four steps down, each halving the image and doubling the channels, and four up: a class for every pixel.

    Parameters
    ----------
    num_classes : int
    in_channels : int
        Channels of the image, whose height and width are multiples of 16.
    width : int
        Channels of the first convolutions; at the bottom there are 16 times as many.

    Notes
    -----
    The paper's convolutions have no padding and no normalisation, so that its output is smaller than the image, and
    what it sets beside each other has to be cropped. Here each convolution is padded, and followed by a BatchNorm2d,
    which makes a bias of its own redundant. Weights are drawn as in the paper (section 3), from N(0, 2 / fan_in).
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 3, width: int = 64) -> None:
        self.pool = MaxPool2d(2)
        self.down1 = _two_convs(in_channels, width)
        self.down2 = _two_convs(width, 2 * width)
        self.down3 = _two_convs(2 * width, 4 * width)
        self.down4 = _two_convs(4 * width, 8 * width)
        self.bottom = _two_convs(8 * width, 16 * width)
        self.up4 = Up(16 * width)
        self.up3 = Up(8 * width)
        self.up2 = Up(4 * width)
        self.up1 = Up(2 * width)
        self.classifier = Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to one score per class and pixel, (N, num_classes, H, W).

        Raises
        ------
        ValueError
            If height or width is not a multiple of 16.
        """
        check_size(x.shape[-2:])
        x1 = self.down1(x)
        x2 = self.down2(self.pool(x1))
        x3 = self.down3(self.pool(x2))
        x4 = self.down4(self.pool(x3))
        x = self.up4(self.bottom(self.pool(x4)), x4)
        x = self.up1(self.up2(self.up3(x, x3), x2), x1)
        return self.classifier(x)


def unet(num_classes: int = 2, in_channels: int = 3) -> UNet:
    """U-Net: 31,037,698 parameters."""
    return UNet(num_classes, in_channels)
