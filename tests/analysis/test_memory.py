"""Predicted memory against that of real passes, as `tracemalloc` counts it, and what is kept against sums by hand."""

import gc
import importlib
import os
import sys
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from benchmarks.memory import forget_peak, resident
from tinytorch import Tensor, models, nn, no_grad
from tinytorch.analysis.memory import inference, reachable, training
from tinytorch.conv.weights import Weights
from tinytorch.core import functional as F
from tinytorch.core import random
from tinytorch.core.layers import Module
from tinytorch.kernels import memory

FLOAT = np.dtype(np.float32)


# ---- real passes --------------------------------------------------------------------------------------------------


@contextmanager
def counting(model, recycling):
    """What it gives tells the most bytes that were allocated since, with parameters and buffers."""
    own = sum(tensor.data.nbytes for tensor in (*model.parameters(), *model.buffers()))
    gc.collect()
    with memory.afresh(recycling):
        tracemalloc.start()
        start = tracemalloc.get_traced_memory()[0]
        try:
            yield lambda: tracemalloc.get_traced_memory()[1] - start + own
        finally:
            tracemalloc.stop()


def train_step(model, shape, recycling):
    """The second of two steps: the first compiles."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    model(Tensor(x)).sum().backward()
    model.zero_grad()
    with counting(model, recycling) as peak:
        model(Tensor(x.copy())).sum().backward()
        return peak()


def infer(build, shape, recycling):
    """Two calls of a new model, of which another one has compiled everything."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with no_grad():
        build().eval()(Tensor(x))
        model = build().eval()
        with counting(model, recycling) as peak:
            images = Tensor(x.copy())
            for _ in range(2):
                model(images)
            return peak()


@pytest.fixture(params=["in use", "held"])
def recycling(request):
    """Whether arrays are cut from one stretch, as they are, or each is counted while it lives."""
    return request.param == "held"


def assert_predicted(found, real, recycling):
    assert (found.held if recycling else found.peak.bytes) == pytest.approx(real, rel=0.02)


def test_training_of_resnet18(recycling):
    model, shape = models.create("resnet18", (3, 64, 64), 1000), (8, 3, 64, 64)
    assert_predicted(training(model, [shape], FLOAT), train_step(model, shape, recycling), recycling)


def test_inference_of_vgg16(recycling, monkeypatch):
    narrow = lambda *sizes: nn.Linear(*(64 if size == 4096 else size for size in sizes))  # noqa: E731
    monkeypatch.setattr(importlib.import_module("tinytorch.models.vgg"), "Linear", narrow)
    build, shape = models.vgg16, (1, 3, 224, 224)
    assert_predicted(inference(build(), [shape], FLOAT), infer(build, shape, recycling), recycling)


def test_inference_of_folded_normalisations(recycling):
    build, shape = partial(models.create, "resnet18", (3, 64, 64), 1000), (4, 3, 64, 64)
    assert_predicted(inference(build(), [shape], FLOAT), infer(build, shape, recycling), recycling)


@pytest.mark.skipif("TINYTORCH_LARGE" not in os.environ, reason="takes a minute, and 2 GB; set TINYTORCH_LARGE")
def test_large_networks(recycling):
    model, shape = models.create("resnet18", (3, 224, 224), 1000), (8, 3, 224, 224)
    assert_predicted(training(model, [shape], FLOAT), train_step(model, shape, recycling), recycling)
    build, shape = partial(models.create, "vgg16", (3, 224, 224), 1000), (1, 3, 224, 224)
    assert_predicted(inference(build(), [shape], FLOAT), infer(build, shape, recycling), recycling)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_grows_by_what_is_held():
    """What the operating system says, kernels being compiled and small objects made by the step before."""
    model, shape = models.create("resnet18-cifar", (3, 32, 32), 10), (32, 3, 32, 32)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = training(model, [shape], FLOAT)
    own = found.peak.parts["parameters"] + found.peak.parts["buffers"]
    grown = []
    for _ in range(2):
        model.zero_grad()
        gc.collect()
        with memory.afresh():
            forget_peak()
            start = resident("VmRSS")
            model(Tensor(x.copy())).sum().backward()
            grown.append(resident("VmHWM") - start)
    assert found.held == pytest.approx(own + grown[1], rel=0.05)


# ---- what is kept -------------------------------------------------------------------------------------------------

MIB = 1 << 20
SHAPE = (4, 64, 32, 32)  # 1 MiB of float32


def kept(model, shape=SHAPE, dtype=FLOAT, **options):
    return dict(training(model, [shape], dtype, **options).kept)


def test_each_activation_is_kept_once_by_the_first_that_needs_it():
    class Twice(Module):
        def __init__(self):
            self.a, self.b = nn.ReLU(), nn.Sigmoid()

        def forward(self, x):
            y = self.a(x)  # keeps its result
            return self.b(y) + y * y  # the sigmoid its own; y is kept already

    found = kept(nn.Sequential(nn.Conv2d(64, 64, 1, bias=False, algorithm="loops"), Twice()))
    assert found[("1.a", 0)] == MIB
    assert found[("1.b", 0)] == MIB
    assert found.get(("1", 0), 0) == 0


def test_parameters_are_not_kept_for_the_backward():
    model = nn.Sequential(nn.Conv2d(64, 1, 1, bias=False, algorithm="loops"))  # which packs nothing
    assert kept(model, (4, 64, 64, 64))[("0", 0)] == 4 * 64 * 64 * 64 * 4  # its input


def test_a_normalisation_keeps_what_it_normalises_and_not_what_it_clips():
    model = nn.Sequential(nn.Conv2d(64, 64, 1, bias=False, algorithm="loops"), nn.BatchNorm2d(64), nn.ReLU())
    found = kept(model)
    assert MIB <= found[("1", 0)] < 1.01 * MIB  # and some numbers for each channel


def test_float64_is_twice_as_much():
    assert kept(nn.Sequential(nn.Linear(64, 64), nn.ReLU()).double(), (4096, 64), np.dtype("f8"))[("1", 0)] == 2 * MIB


def test_frozen_layers_keep_nothing():
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 8, 1))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    found = kept(model)
    assert ("0", 0) not in found and ("1", 0) not in found


def test_layers_computed_at_once_are_told():
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    found = training(model, [SHAPE], FLOAT)
    assert found.fused == {("1", 0): ("0", 0), ("2", 0): ("0", 0)}
    assert [c.direction for c in found.backward[("0", 0)]] == ["weight_grad"]


def test_a_loss_may_be_given():
    def loss(output):
        return F.cross_entropy(output, Tensor(np.zeros(4096, np.int64)))

    model = nn.Linear(64, 64)
    assert kept(model, (4096, 64), loss=loss)[("", 0)] > kept(model, (4096, 64))[("", 0)]


def test_training_needs_something_to_learn():
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        training(model, [(1, 2)], FLOAT)


def test_outputs_of_several_tensors_are_added_up():
    class Two(Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return x, {"y": [self.layer(x), self.layer(x)]}

    assert training(Two(), [(3, 2)], FLOAT).peak.phase in ("forward", "backward")


# ---- the peak -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [inference, training])
def test_parts_are_the_whole(run):
    found = run(models.create("simple-cnn", (3, 32, 32), 10), [(16, 3, 32, 32)], FLOAT)
    assert sum(found.peak.parts.values()) == found.peak.bytes <= found.held
    assert found.peak.parts["parameters"] == 4 * 25_578
    assert min(found.peak.parts.values()) >= 0


def test_the_peak_is_where_the_largest_arrays_meet():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=8), nn.MaxPool2d(8), nn.Flatten())
    found = inference(model, [(8, 4, 32, 32)], FLOAT).peak
    assert (found.path, found.phase) in (("1", "forward"), ("2", "forward"))
    assert found.bytes > 8 * 4 * 256 * 256 * 4


def test_packed_weights_stay_in_inference():
    model = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1, algorithm="winograd"), nn.Conv2d(128, 1, 1))
    packed = inference(model, [(1, 128, 8, 8)], FLOAT).peak.parts["packed weights"]
    assert packed >= 128 * 128 * 36 * 4  # F(4×4, 3×3) has 36 numbers for 9


def test_nothing_is_left_behind():
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.Dropout(0.5))
    shelf, scratches, drawn = memory._shelf, memory._scratches.arrays, random.get_state()
    waiting = shelf.kept
    training(model, [SHAPE], FLOAT)
    assert memory._shelf is shelf and memory._scratches.arrays is scratches and shelf.kept == waiting
    assert random.get_state() == drawn
    assert not tracemalloc.is_tracing()
    assert all(p.grad is None for p in model.parameters())


def test_tracing_goes_on_where_it_was_on():
    tracemalloc.start()
    try:
        inference(nn.ReLU(), [(1, 2)], FLOAT)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_an_error_puts_everything_back():
    shelf = memory._shelf
    with pytest.raises(ValueError, match="linear needs x"):
        inference(nn.Linear(2, 2), [(1, 3)], FLOAT)
    assert memory._shelf is shelf and not tracemalloc.is_tracing()


# ---- what a closure holds -----------------------------------------------------------------------------------------


@dataclass
class Holder:
    array: np.ndarray


class Slotted:
    __slots__ = ("array", "missing")

    def __init__(self, array):
        self.array = array


class Method:
    def __init__(self, array):
        self.array = array

    def run(self):
        return self.array


def closure(value):
    return lambda: value


def late():
    """A closure over a variable that is never assigned."""

    def function():
        return value

    return function
    value = 1


ARRAY = np.ones(3)
HOLDERS = {
    "itself": ARRAY,
    "closure": closure(ARRAY),
    "closure of a closure": closure(closure(ARRAY)),
    "tuple": ((ARRAY,),),
    "dictionary": {"a": [ARRAY]},
    "set": frozenset([closure(ARRAY)]),
    "dataclass": Holder(ARRAY),
    "slots": Slotted(ARRAY),
    "method": Method(ARRAY).run,
    "default": lambda a=ARRAY: a,
    "tensor": closure(Tensor(ARRAY)),
    "weights": closure(Weights(ARRAY)),
    "partial": partial(print, ARRAY),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_arrays_are_found(name):
    assert [(array is ARRAY, packed) for array, packed in reachable(HOLDERS[name])] == [(True, False)]


def test_forms_of_weights_are_told_apart():
    weights = Weights(ARRAY)
    weights.form(lambda w: w.array + 1)
    assert sorted(packed for _, packed in reachable(closure(weights))) == [False, True]


@pytest.mark.parametrize("value", [nn.Linear(2, 2), Tensor, np, 3, "text", late()])
def test_modules_classes_and_the_rest_hold_none(value):
    assert list(reachable(closure(value))) == []


def test_cycles_end():
    around: list = [ARRAY]
    around.append(around)
    assert len(list(reachable(around))) == 1
