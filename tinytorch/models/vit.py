"""How a vision transformer reads an image: A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for
Image Recognition at Scale", 2021, equation 1.

Modules and parameters have the names of torchvision's `vit_b_16`, so that its trained weights fit.
"""

from __future__ import annotations

from math import prod, sqrt

from tinytorch.conv.problem import check_count, per_axis
from tinytorch.core.creation import randn, zeros
from tinytorch.core.images import Pair
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor, cat
from tinytorch.models.initial import draw
from tinytorch.models.sizes import by, check_multiples


class Positions(Module):
    """Add to every token what tells its place: attention by itself does not know the order of its input.

    Parameters
    ----------
    tokens, hidden_dim : int
        How many there are, and how long each is.

    Attributes
    ----------
    pos_embedding : Parameter, shape (1, tokens, hidden_dim)
        Drawn from N(0, 0.02²).
    """

    def __init__(self, tokens: int, hidden_dim: int) -> None:
        self.pos_embedding = Parameter(0.02 * randn(1, tokens, hidden_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, hidden_dim) to the same shape."""
        return x + self.pos_embedding


class PatchEmbedding(Module):
    """Cut an image into patches and make a token of each: a convolution whose stride is its kernel.

    By default it has 742,656 parameters, and makes 196 patches of 768 numbers.

    Parameters
    ----------
    image_size, patch_size : int or (height, width)
        Pixels; the image is a whole number of patches high and wide.
    hidden_dim : int
        Length of a token.
    in_channels : int
        Channels of the image.

    Attributes
    ----------
    class_token : Parameter, shape (1, 1, hidden_dim)
        Put in front of every image's patches; a transformer gathers there what it makes of them. Starts at zero.
    conv_proj : Conv2d
        Its weight is drawn from N(0, 1 / fan_in), its bias starts at zero.
    encoder : Positions
        Embeddings of the places, that of the class token first.

    Raises
    ------
    ValueError
        If the image is not a whole number of patches high and wide.

    Examples
    --------
    >>> PatchEmbedding()(zeros(1, 3, 224, 224)).shape
    (1, 197, 768)
    """

    def __init__(
        self, image_size: Pair = 224, patch_size: Pair = 16, hidden_dim: int = 768, in_channels: int = 3
    ) -> None:
        self.image_size, patch = per_axis("image_size", image_size, 2), per_axis("patch_size", patch_size, 2)
        check_multiples(self.image_size, patch, "an image is cut into whole patches")
        patches = prod(pixels // side for pixels, side in zip(self.image_size, patch, strict=True))
        self.class_token = Parameter(zeros(1, 1, check_count("hidden_dim", hidden_dim, "feature maps")))
        self.conv_proj = Conv2d(in_channels, hidden_dim, patch, stride=patch)
        self.encoder = Positions(1 + patches, hidden_dim)
        draw(self.conv_proj.weight, 1 / sqrt(self.conv_proj.weight[0].size))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to tokens (N, 1 + patches, hidden_dim), patches in rows from the top left.

        Raises
        ------
        ValueError
            If the images are not of `image_size`.
        """
        if x.shape[-2:] != self.image_size:
            raise ValueError(
                f"images must be {by(self.image_size)} pixels, for every patch has a learned embedding of its place, "
                f"got shape {x.shape}; resize them, or build the module for their size with image_size=…"
            )
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        return self.encoder(cat((self.class_token.expand(x.shape[0], -1, -1), patches), dim=1))
