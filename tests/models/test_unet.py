"""U-Net: shapes, and what it refuses. Its results are compared in test_forward, its size in test_parameters."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import models, randn, zeros
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.random import manual_seed


@pytest.mark.parametrize("shape", [(1, 3, 16, 32), (2, 3, 48, 16), (0, 3, 32, 32)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_for_every_pixel(shape, dtype):
    model = models.UNet(num_classes=5, width=2).to(dtype).eval()
    scores = model(zeros(*shape, dtype=dtype))
    assert scores.shape == (shape[0], 5, *shape[2:]) and scores.dtype == dtype


def test_create_passes_channels_and_classes_on():
    model = models.create("unet", (1, 64, 48), 7)
    assert (model.down1[0].in_channels, model.classifier.out_channels) == (1, 7)
    assert [model.bottom[3].out_channels, model.up4.up.out_channels] == [1024, 512]


def test_every_parameter_learns():
    manual_seed(0)
    model = models.UNet(num_classes=3, in_channels=1, width=2)
    CrossEntropyLoss()(model(randn(2, 1, 32, 32)), np.arange(2048).reshape(2, 32, 32) % 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and np.abs(parameter.grad).sum() > 0, name


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 3, 100, 96),
            "multiples of 16 and 16, for a U-Net halves them four times and doubles them again, got 100×96; pad or resize the images to 112×96",
        ),
        ((3, 8, 17), "got 8×17; pad or resize the images to 16×32"),
        ((3, 32, 32), "Expected 4D input"),
        ((1, 4, 32, 32), "Expected 3 input channels"),
    ],
)
def test_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        models.UNet(width=2)(zeros(*shape))


def test_weights_have_the_variance_that_the_paper_asks_for():
    manual_seed(0)
    model = models.unet()
    assert abs(model.bottom[3].weight.data.std() / np.sqrt(2 / (1024 * 9)) - 1) < 0.01
    assert abs(model.up4.up.weight.data.std() / np.sqrt(2 / 1024) - 1) < 0.01
