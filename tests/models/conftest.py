"""Networks whose classifiers have a hundred million weights, made small."""

import importlib

import pytest

from tinytorch.core.layers import Linear

FILES = [importlib.import_module(f"tinytorch.models.{name}") for name in ("vgg", "alexnet")]


@pytest.fixture
def replace_linear(monkeypatch):
    """A function that gives VGG and AlexNet another class of linear layers."""
    return lambda layer: [monkeypatch.setattr(file, "Linear", layer) for file in FILES]


@pytest.fixture
def narrow(replace_linear):
    """VGG and AlexNet with 32 hidden units in place of 4096."""
    replace_linear(lambda *sizes: Linear(*(32 if n == 4096 else n for n in sizes)))
