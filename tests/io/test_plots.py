"""Curves are drawn, and nothing is drawn of nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tinytorch.io.plots import draw_comparison, draw_curves


def history(epochs: int, best: float) -> list[dict]:
    return [
        {
            "epoch": epoch,
            "loss": 2 / epoch,
            "accuracy": best - 1 / (epoch + 1),
            "validation_loss": 2.2 / epoch,
            "validation_accuracy": best - 0.9 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def has_colour(path, colour: str) -> bool:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - rgb).max(axis=2) < 3).any())


@pytest.mark.parametrize("epochs", [1, 12])
def test_curves(tmp_path, epochs):
    draw_curves(tmp_path / "curves.png", history(epochs, 0.97), "mlp on digits")
    width, height = Image.open(tmp_path / "curves.png").size
    assert width > 1000 and height > 400
    assert has_colour(tmp_path / "curves.png", "#0072B2")


def test_every_compared_run_has_its_colour(tmp_path):
    path = tmp_path / "compare.png"
    draw_comparison(path, {"cnn": history(5, 0.99), "mlp": history(3, 0.9)}, "digits")
    assert has_colour(path, "#0072B2") and has_colour(path, "#D55E00")


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match=r"\['b'\] are empty"):
        draw_comparison(tmp_path / "a.png", {"a": history(1, 0.9), "b": []}, "")
    with pytest.raises(ValueError, match="must have an epoch to draw"):
        draw_comparison(tmp_path / "a.png", {}, "")
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_imported_only_when_it_draws():
    code = "import sys, tinytorch.io.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
