"""`tinytorch summary` as a person runs it."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.cli import command
from tinytorch import models
from tinytorch.cli.main import app
from tinytorch.core import random
from tinytorch.io.checkpoint import save_arrays

PAGE = Path(__file__).parents[2] / "docs" / "summary.md"
DIGITS = ("digits-cnn", "--input", "2,1,8,8")


tinytorch, refused = partial(command.tinytorch, "summary"), partial(command.refused, "summary")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mlp"
    arguments = ["train", "digits", "--model", "mlp", "--epochs", "1", "--batch-size", "300", "--out", str(folder)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return folder


def test_a_network_by_name():
    drawn = random.get_state()
    output = tinytorch(*DIGITS).stdout
    assert output.splitlines()[0].startswith("layer")
    assert "parameters: 29,258" in output and "DigitsCNN, input (2, 1, 8, 8), float32" in output
    assert random.get_state() == drawn


@pytest.mark.parametrize(("name", "shape"), [("lenet5", "(1, 1, 28, 28)"), ("resnet18", "(1, 3, 224, 224)")])
def test_the_usual_image(name, shape):
    assert f"input {shape}" in tinytorch(name, "--depth", 0).stdout


def test_classes():
    assert json.loads(tinytorch("simple-cnn", "--classes", 7, "--json").stdout)["parameters"] == 25_578 - 3 * 2049


def test_a_run_and_its_file(run):
    by_run, by_file = (json.loads(tinytorch(path, "--json").stdout) for path in (run, run / "model.safetensors"))
    assert by_run["parameters"] == by_file["parameters"] > 0
    assert by_run["rows"] == by_file["rows"] and by_run["input_shapes"] == [[1, 1, 8, 8]]


def test_a_file_by_itself(tmp_path):
    save_arrays(tmp_path / "a.safetensors", models.create("lenet5", (1, 28, 28), 7).state_dict(), {"model": "lenet5"})
    found = json.loads(tinytorch(tmp_path / "a.safetensors", "--json").stdout)
    assert found["rows"][0]["outputs"] == [[1, 7]]


def test_formats_agree():
    whole = json.loads(tinytorch(*DIGITS, "--json").stdout)
    rows = list(csv.DictReader(io.StringIO(tinytorch(*DIGITS, "--csv").stdout)))
    assert [row["layer"] for row in rows] == [row["layer"] for row in whole["rows"]]
    assert sum(int(row["macs"]) for row in rows) == whole["macs"]["value"]
    assert tinytorch(*DIGITS, "--markdown").stdout.startswith("| layer | kind |")


def test_flops():
    one, two = (json.loads(tinytorch(*DIGITS, "--flops", n, "--json").stdout)["flops"]["value"] for n in (1, 2))
    assert two == 2 * one


def test_measured():
    assert " ms " in tinytorch(*DIGITS, "--measure").stdout.splitlines()[0]


def test_two_networks():
    output = tinytorch("vgg11", "--diff", "vgg11_bn", "--input", "1,3,32,32").stdout
    assert re.search(r"parameters +132,863,336 +132,868,840 +1\.000×", output)
    assert "vgg11_bn has" in output and "features.1: BatchNorm2d, 1×64×32×32, 128 parameters, 0 MACs" in output
    both = json.loads(tinytorch("lenet5", "--diff", "mlp", "--json").stdout)
    assert list(both) == ["lenet5", "mlp"]


def test_limits_that_are_kept():
    tinytorch("mobilenet_v2", "--max-macs", "301M", "--max-params", "4M", "--max-memory", "1GiB")


def test_limits_that_are_not():
    result = tinytorch("resnet18", "--max-macs", "300M", "--max-params", "4M", "--max-memory", "64MiB", code=1)
    macs, parameters, memory = result.stderr.splitlines()
    assert macs.startswith(
        "over budget: MACs: 1,814,073,344, and 300,000,000 are allowed; most in conv1 118.0 M, layer1"
    )
    assert parameters.startswith("over budget: parameters: 11,689,512, and 4,000,000 are allowed; most in layer4")
    assert "67,108,864 B are allowed; most in packed weights" in memory
    assert result.stdout.startswith("layer")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("resnt18",), "did you mean 'resnet18'?"),
        (("lenet5", "--input", "1,28,28"), "--input must be four whole numbers, images, channels, height and width"),
        (("lenet5", "--input", "1,1,x,28"), "such as 1,3,224,224, got '1,1,x,28'"),
        (("lenet5", "--json", "--csv"), "--json, --csv and --markdown exclude each other"),
        (("lenet5", "--depth", -1), "--depth must be 0 or more, got -1"),
        (("lenet5", "--flops", 3), "flops must be 2 or 1"),
        (("lenet5", "--max-macs", "many"), "--max-macs must be a number"),
        (("lenet5", "--max-memory", "64MIB"), "--max-memory must be a number, with a suffix or without, such as 64MiB"),
        (("gone.safetensors",), "gone.safetensors"),
    ],
)
def test_what_is_refused(args, message):
    assert message in refused(*args)


def test_folders_and_files_that_are_no_models(tmp_path):
    assert "holds no run" in refused(tmp_path)
    save_arrays(tmp_path / "a.safetensors", {"x": np.zeros(3)})
    assert "does not say which network its arrays belong to" in refused(tmp_path / "a.safetensors")


# ---- the page -----------------------------------------------------------------------------------------------------


def commands():
    """Each `$ tinytorch summary …` of the page, with what it prints there."""
    for block in re.findall(r"```console\n\$ tinytorch (.*?)```", PAGE.read_text(), re.DOTALL):
        command, _, printed = block.partition("\n")
        yield pytest.param(command, printed, id=command)


@pytest.mark.parametrize(("command", "printed"), list(commands()))
def test_the_page_shows_what_is_printed(command, printed):
    """What depends on the model alone; algorithms, and so memory, depend on the CPU."""
    result = CliRunner().invoke(app, shlex.split(command))
    assert definition(printed) == definition(result.stdout) != []
    assert len(re.findall("over budget", printed)) == len(result.stderr.splitlines())


def definition(text: str) -> list[list[str]]:
    """Of every layer its name, shapes and parameters; and the totals of parameters, MACs and FLOPs."""
    found = [
        re.findall(r"^ *\S+|\d+(?:×\d+)+|\d{1,3}(?:,\d{3})+(?![\d,]| B)", line)
        for line in text.splitlines()
        if "×" in line or line.startswith(("parameters:", "forward:"))
    ]
    return [parts[:4] for parts in found]
