"""`tinytorch receptive-field`: the table, the picture, the numbers, and what it refuses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.cli import command
from tinytorch.analysis.receptive_field import Effective, Extent, Field, effective
from tinytorch.cli.main import app
from tinytorch.io.field_plot import draw_field
from tinytorch.models import create

BOX, BEYOND = "#D55E00", "#0072B2"


tinytorch, refused = partial(command.tinytorch, "receptive-field"), partial(command.refused, "receptive-field")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def has_colour(path, colour: str) -> bool:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - rgb).max(axis=2) < 3).any())


# ---- all layers ------------------------------------------------------------------------------------------------------


def test_table(here):
    lines = tinytorch("resnet18").stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(" ")}
    assert rows["layer"] == ["kind", "output", "field", "stride"]
    assert rows["conv1"] == ["Conv2d", "64×112×112", "7×7", "2×2"]
    assert rows["layer2.1.conv2"] == ["Conv2d", "128×28×28", "99×99", "8×8"]
    assert rows["layer4.0.conv1"] == ["Conv2d", "512×7×7", "243×243", "!", "32×32"]
    assert rows["fc"] == ["Linear", "10", "whole", "image"]
    assert "! from layer4.0.conv1 on: the field, 243×243 pixels, exceeds the image of 224×224" in "\n".join(lines)
    assert not list(here.iterdir())


def test_unknown_fields_say_why():
    lines = tinytorch("vit-patch-embedding").stdout
    assert "unavailable for encoder: cat joins or cuts along an axis of the image" in lines
    assert "16×16" in lines


def test_fractions_and_means(here):
    rows = {
        line.split()[0]: line.split()[1:]
        for line in tinytorch("unet", "--input", "1,32,48").stdout.splitlines()
        if line
    }
    assert rows["up4.up"][-1] == "~8×8"


def test_table_as_json():
    answer = json.loads(tinytorch("simple-cnn", "--json").stdout)
    assert answer["model"] == "simple-cnn" and answer["input"] == [3, 32, 32]
    layers = {layer["layer"]: layer for layer in answer["layers"]}
    assert layers["fc"]["whole_image"] and not layers["pool2"]["whole_image"]
    assert layers["pool2"]["axes"][0] == {
        "image_pixels": 32, "outputs": 8, "size": 10, "stride": 4.0, "uniform": True, "first_centre": 1.5,
        "centre": 17.5, "box": [13, 22],
    }  # fmt: skip
    encoder = json.loads(tinytorch("vit-patch-embedding", "--json").stdout)["layers"][-1]
    assert encoder["unavailable"].startswith("cat joins")


# ---- one layer -------------------------------------------------------------------------------------------------------


def test_picture(here):
    result = tinytorch("simple-cnn", "--layer", "pool2", "--samples", 2)
    assert "10×10 pixels" in result.stdout and "sees 13–22 × 13–22" in result.stdout
    assert "2 random images" in result.stdout and "picture in receptive-field.png" in result.stdout
    assert Image.open("receptive-field.png").size == (1000, 540)
    assert has_colour("receptive-field.png", BOX) and not has_colour("receptive-field.png", BEYOND)


def test_picture_of_a_picture_as_json(here):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8)).save("photo.png")
    options = ("--image", "photo.png", "--out", "field.png", "--input", "1,3,48,64", "--json")
    answer = json.loads(tinytorch("resnet18-cifar", "--layer", "layer2.0", *options).stdout)
    assert answer["input"] == [3, 48, 64] and answer["images"] == "the image" and answer["picture"] == "field.png"
    assert answer["layer"] == "layer2.0" and answer["axes"][1]["size"] == 17 and 0 < answer["effective_pixels"] <= 17
    assert has_colour("field.png", BOX)


def test_a_field_larger_than_the_image(here):
    result = tinytorch("resnet18", "--layer", "layer3.0", "--input", "3,64,64", "--samples", 1)
    assert "Warning: the field, 147×147 pixels, exceeds the image of 64×64" in result.stdout
    assert has_colour("receptive-field.png", BEYOND)


def test_a_run_with_its_weights(here):
    training = ["train", "digits", "--model", "digits-cnn", "--epochs", "1", "--batch-size", "500", "--out", "run"]
    assert CliRunner().invoke(app, training).exit_code == 0
    Image.fromarray(np.full((20, 30), 200, np.uint8)).save("digit.png")
    answer = json.loads(tinytorch("run", "--layer", "features.3", "--image", "digit.png", "--json").stdout)
    assert answer["input"] == [1, 8, 8] and answer["layer"] == "features.3"
    other = json.loads(tinytorch("digits-cnn", "--layer", "features.3", "--json").stdout)
    assert other["axes"] == answer["axes"]
    assert "Conv2d" in tinytorch("run").stdout


def test_what_is_refused(here):
    assert "or 'layer2.0.conv1' or" in refused("resnet18", "--layer", "layer2.0.conv")
    assert "'resnet18'" in refused("resnet-18")
    assert "--samples must be a positive integer, got 0" in refused("resnet18", "--samples", 0)
    assert "--out must end in .png, got a.jpg" in refused("resnet18", "--out", "a.jpg")
    assert "--image is for one layer, got no --layer" in refused("resnet18", "--image", "a.png")
    for text in ("3,224", "3,x,8", "3,0,8"):
        assert "--input must be channels, height and width of an image" in refused("resnet18", "--input", text)
    assert "is no file" in refused("simple-cnn", "--layer", "conv1", "--image", "missing.png")
    assert not list(here.iterdir())


# ---- the drawing -----------------------------------------------------------------------------------------------------


def test_gaps_and_odd_channels_are_drawn(here):
    nothing = Extent(9, 3, 1, 1, False, False, 0.0, (np.nan, np.nan), None)
    gap = Effective("gap", Field((nothing, nothing)), np.zeros((9, 9)), 1)
    draw_field("gap.png", np.zeros((4, 9, 9), np.uint8), gap, "a gap")
    assert Image.open("gap.png").size == (1000, 540) and not has_colour("gap.png", BOX)


def test_what_can_not_be_drawn(here):
    found = effective(create("digits-cnn", (1, 8, 8), 10), "features.3", (1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"path must end in .png, got field.svg"):
        draw_field("field.svg", np.zeros((1, 8, 8), np.uint8), found, "")
    with pytest.raises(ValueError, match=r"image must be \(channels, 8 × 8\), got shape \(1, 9, 8\)"):
        draw_field("field.png", np.zeros((1, 9, 8), np.uint8), found, "")
    assert not list(here.iterdir())


def test_the_page_shows_what_is_printed():
    page = (Path(__file__).parents[2] / "docs" / "receptive-field.md").read_text()
    shown = page.split("$ tinytorch receptive-field simple-cnn\n")[1].split("```")[0]
    assert tinytorch("simple-cnn").stdout == shown
