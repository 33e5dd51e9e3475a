"""Images as tokens, against patches cut out by hand and multiplied with a matrix."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import models, randn, zeros
from tinytorch.core.random import manual_seed
from tinytorch.core.tensor import Tensor


def tokens_by_hand(model, images, side):
    """Rows of patches from the top left, each a line of channels, rows and columns; the class token; the places."""
    state = model.state_dict()
    matrix = state["conv_proj.weight"].reshape(len(state["conv_proj.weight"]), -1)
    lines = [
        [
            image[:, y : y + side, x : x + side].ravel()
            for y in range(0, image.shape[1], side)
            for x in range(0, image.shape[2], side)
        ]
        for image in images
    ]
    patches = np.array(lines) @ matrix.T + state["conv_proj.bias"]
    first = np.broadcast_to(state["class_token"], (len(images), 1, len(matrix)))
    return np.concatenate([first, patches], 1) + state["encoder.pos_embedding"]


def randomise(model):
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.2, parameter.shape)
    return model


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tokens_are_patches_times_a_matrix(dtype):
    model = randomise(models.PatchEmbedding((8, 12), 4, hidden_dim=5, in_channels=2).to(dtype))
    images = np.random.default_rng(1).normal(size=(3, 2, 8, 12)).astype(dtype)
    tokens = model(Tensor(images))
    assert tokens.shape == (3, 1 + 2 * 3, 5) and tokens.dtype == dtype
    np.testing.assert_allclose(tokens.numpy(), tokens_by_hand(model, images, 4), rtol=1e-4, atol=1e-5)


def test_196_patches_of_768_and_a_class_token():
    model = models.create("vit-patch-embedding", (3, 224, 224), 10)
    images = zeros(2, 3, 224, 224)
    assert model.conv_proj(images).shape == (2, 768, 14, 14)
    assert model(images).shape == (2, 197, 768)
    assert model(zeros(0, 3, 224, 224)).shape == (0, 197, 768)
    np.testing.assert_array_equal(model(images).numpy()[1], model.encoder.pos_embedding.numpy()[0])


def test_gradients_reach_every_parameter():
    """Of a sum weighted by random numbers: they are sums of those weights, but for the projection's weight."""
    model = randomise(models.PatchEmbedding(6, 3, hidden_dim=4, in_channels=1).double())
    images = np.random.default_rng(1).normal(size=(2, 1, 6, 6))
    weights = np.random.default_rng(2).normal(size=(2, 5, 4))
    model(Tensor(images)).backward(weights)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    np.testing.assert_allclose(gradients["encoder.pos_embedding"], weights.sum(0, keepdims=True))
    np.testing.assert_allclose(gradients["class_token"], weights[:, :1].sum(0, keepdims=True))
    np.testing.assert_allclose(gradients["conv_proj.bias"], weights[:, 1:].sum((0, 1)))
    cut = images.reshape(2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4).reshape(2, 4, 1, 3, 3)
    expected = np.einsum("npd,npchw->dchw", weights[:, 1:], cut)
    np.testing.assert_allclose(gradients["conv_proj.weight"], expected)


def test_patches_may_be_oblong():
    model = models.PatchEmbedding((32, 30), (16, 10), hidden_dim=8)
    assert model(randn(1, 3, 32, 30)).shape == (1, 7, 8)


def test_weights_are_drawn_as_in_torchvision():
    manual_seed(0)
    model = models.PatchEmbedding()
    assert abs(model.conv_proj.weight.data.std() * np.sqrt(3 * 16 * 16) - 1) < 0.01
    assert abs(model.encoder.pos_embedding.data.std() / 0.02 - 1) < 0.01
    assert not model.conv_proj.bias.data.any() and not model.class_token.data.any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"image_size": (224, 230)},
            ValueError,
            "multiples of 16 and 16, for an image is cut into whole patches, got 224×230; pad or resize the images to 224×240",
        ),
        ({"patch_size": (16, 15)}, ValueError, "multiples of 16 and 15, .* got 224×224; .* to 224×225"),
        ({"image_size": 0}, ValueError, "image_size must be positive, got 0"),
        ({"patch_size": 1.5}, TypeError, "patch_size must be an integer"),
        ({"hidden_dim": 0}, ValueError, "hidden_dim must be a positive integer, got 0"),
        ({"in_channels": 0}, ValueError, "in_channels must be a positive integer, got 0"),
    ],
)
def test_refuses_to_be_built(options, error, message):
    with pytest.raises(error, match=message):
        models.PatchEmbedding(**options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 32, 48), r"images must be 32×32 pixels, .* got shape \(1, 3, 32, 48\); resize them, or .* image_size="),
        ((3, 32, 32), "Expected 4D input"),
        ((1, 1, 32, 32), "Expected 3 input channels"),
    ],
)
def test_refuses_images(shape, message):
    with pytest.raises(ValueError, match=message):
        models.PatchEmbedding(32, hidden_dim=4)(zeros(*shape))
