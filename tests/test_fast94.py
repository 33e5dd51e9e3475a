"""The script that trains with all tricks: what each option leaves out, what it counts, and that it runs."""

import json

import numpy as np
import pytest

from benchmarks import fast94
from benchmarks.fast94 import Trick
from tinytorch import Tensor, nn
from tinytorch.core import dataloader
from tinytorch.core.averaging import Lookahead
from tinytorch.core.optimizers import SGD, Combined
from tinytorch.core.random import manual_seed
from tinytorch.datasets import ImageData

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = np.arange(12) % 10
NORMALIZE = dataloader.Normalize(fast94.MEAN, fast94.STD)


def network(*left_out):
    manual_seed(0)
    return fast94.network(set(left_out), NORMALIZE(IMAGES, RNG))


def test_the_arithmetic_is_that_of_the_layers_that_run():
    model, seen = network(), []

    def counting(layer):
        forward = type(layer).forward

        def counted(x):
            y = forward(layer, x)
            seen.append(y.size * layer.weight[0].size)
            return y

        return counted

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.forward = counting(module)
    model(Tensor(np.zeros((1, 3, 32, 32), np.float32)))
    assert len(seen) == 8
    total = sum(seen)  # before the model is rehearsed, which is seen as well
    assert fast94.macs(model) == total


def test_weights_that_are_left_out_are_drawn():
    plain, drawn, learned = network(), network(Trick.dirac), network(Trick.whitening)
    assert plain.group1.conv1.weight.data[0, 0, 1, 1] == 1 != drawn.group1.conv1.weight.data[0, 0, 1, 1]
    assert not plain.whitening.weight.requires_grad and learned.whitening.weight.requires_grad
    assert plain.scale == 1 / 256 and network(Trick.muon).scale == 1 / 9


def kinds(*left_out, cutout=0):
    return [type(piece).__name__ for piece in fast94.augmentation(set(left_out), NORMALIZE, cutout).pieces]


def test_augmentation_that_is_left_out():
    assert kinds() == ["AlternatingFlip", "RandomTranslate"]
    assert kinds(Trick.alternating, cutout=8) == ["RandomHorizontalFlip", "RandomTranslate", "Cutout"]
    assert kinds(Trick.flip) == ["RandomTranslate"]
    assert kinds(Trick.translate) == ["AlternatingFlip"]


def trainer(*left_out, lookahead=False):
    return fast94.make_trainer(network(*left_out), 100, 10, 8, set(left_out), lookahead)


def test_every_group_has_its_schedule():
    with_muon = trainer()
    assert isinstance(with_muon.optimizer, Combined)
    assert [[schedule(step) for step in (0, 15, 30, 40, 80)] for schedule in with_muon.schedules] == [
        [1, 0.5, 0, 0, 0],
        *[[1, 1 - 15 / 80, 1 - 30 / 80, 0.5, 0]] * 3,
    ]
    assert with_muon.loss.label_smoothing == 0.2 and trainer(Trick.smoothing).loss.label_smoothing == 0
    without = trainer(Trick.muon, lookahead=True)
    assert isinstance(without.optimizer, Lookahead) and isinstance(without.optimizer.optimizer, SGD)
    assert [without.schedules[0](step) for step in (0, 80)] == pytest.approx([0.2, 0.07])
    assert without.optimizer.alpha(80) == pytest.approx(1 - 0.95**5)


def run(tmp_path, monkeypatch, **options):
    data = ImageData("cifar10", IMAGES, LABELS, IMAGES[:4], LABELS[:4], classes=tuple("abcdefghij"))
    monkeypatch.setattr(fast94.datasets, "load", lambda name, folder: data)
    path = tmp_path / "figures.json"
    settings = {"epochs": 1, "seed": 3, "batch_size": 6, "without": None, "cutout": 0, "ema": None, "lookahead": False}
    fast94.main(data_dir=tmp_path, images=None, json=path, **{**settings, **options})
    return json.loads(path.read_text())


def test_a_run_prints_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    options = {"epochs": 4, "without": [Trick.alternating], "cutout": 4, "ema": 0.5}
    figures = run(tmp_path, monkeypatch, **options)
    printed = capsys.readouterr().out
    assert printed.count("epoch ") == 4 and "test accuracy, six views" in printed
    assert "PFLOP of training" in printed
    assert figures["without"] == ["alternating"] and len(figures["seconds_per_epoch"]) == 4
    assert figures["training_pflop"] == pytest.approx(6 * fast94.macs(network()) * 48 / 1e15)
    again = run(tmp_path, monkeypatch, **options)
    assert {**again, "seconds_per_epoch": 0} == {**figures, "seconds_per_epoch": 0}


def test_the_bias_of_the_whitening_rests_after_three_epochs():
    class Stub:
        model = network()
        epoch = 2

    record = {"epoch": 2, "seconds": 1.0, "loss": 1.0, "accuracy": 0.5, "validation_accuracy": 0.5}
    fast94._Log().epoch_ended(Stub, record)
    assert Stub.model.whitening.bias.requires_grad
    Stub.epoch = 3
    fast94._Log().epoch_ended(Stub, record)
    assert not Stub.model.whitening.bias.requires_grad
