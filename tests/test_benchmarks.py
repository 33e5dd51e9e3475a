"""The pieces of the benchmarks, on tiny sizes: what is compared, and how; never how fast."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
import typer

from benchmarks import __main__ as command
from benchmarks import conv, family, networks, roofline
from benchmarks.family import FAMILY, OperationTask, op
from benchmarks.layers import SETS, distinct, single
from benchmarks.networks import NETWORKS
from benchmarks.peers import ConvTask, NetworkTask, installed
from benchmarks.report import Report, duration
from benchmarks.timing import Effort, Row, Runner, Void, compare, interleave, measure
from tinytorch import models

ROOT = Path(__file__).parent.parent
ONCE = Effort(rounds=1, block=0.0)


def constant(name, *values, calls=None):
    """A runner that returns numbers and writes its name into a list."""
    return Runner(name, lambda: None if calls is None else calls.append(name), lambda: [np.array(values)])


# ---- timing -------------------------------------------------------------------------------------------


def test_runners_take_turns_and_the_first_call_of_a_block_only_wakes():
    calls = []
    seconds = interleave([constant(name, calls=calls) for name in "ab"], Effort(3, 0.0))
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name] == list("ababab")


def test_a_row_compares_medians_with_the_best_peer():
    row = Row({}, {"ours": [2.0, 1.0, 9.0], "slow": [8.0, 8.0, 8.0], "fast": [3.0, 5.0, 1.0]}, {"slow": 0, "fast": 0})
    assert (row.ours, row.ratio) == (2.0, 1.5)
    alone = Row({}, {"ours": [2.0]}, {})
    assert math.isnan(alone.ratio) and alone.as_dict()["ratio"] is None


def test_differences_are_relative_to_the_largest_output():
    assert compare([constant("ours", 4.0, -8.0), constant("peer", 5.0, -8.0)]) == {"peer": 1 / 8}


@pytest.mark.parametrize("wrong", [1.5, math.nan])
def test_a_comparison_of_different_results_is_void(wrong):
    with pytest.raises(Void, match=r"'name': 'layer'.*differences from ours above 0.1: \{'peer'"):
        measure([constant("ours", 1.0), constant("peer", wrong)], ONCE, tolerance=0.1, name="layer")


@pytest.mark.parametrize(("seconds", "text"), [(2.5, "2.50 s"), (0.0123, "12.30 ms"), (0.0000081, "8.1 µs")])
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


# ---- what is compared ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "convolutions", "macs"),  # as the papers and torchvision count them, linear layers left out
    [("resnet50", 53, 4_087_136_256), ("vgg16", 13, 15_346_630_656), ("mobilenet_v2", 52, 299_494_272)],
)
def test_layers_of_a_network(name, convolutions, macs):
    layers = distinct(name)
    assert sum(layer.count for layer in layers) == convolutions
    assert sum(layer.count * layer.problem(1).macs for layer in layers) == macs
    assert len({layer.text for layer in layers}) == len(layers)


def test_a_layer_is_one_line_of_text():
    layer = next(layer for layer in distinct("resnet50") if layer.conv.name == "layer2.0.conv2")
    assert (layer.text, layer.count) == ("ic128oc128_ih56kh3sh2ph1", 1)
    assert layer.problem(8).output_shape == (8, 128, 28, 28)


def test_sets_hold_what_they_say():
    by_name = {layers.name: layers.layers for layers in SETS}
    assert all(layer.conv.groups == layer.conv.ci for layer in by_name["mobilenet depthwise"])
    assert all(layer.conv.kernel == layer.conv.groups == 1 for layer in by_name["mobilenet pointwise"])
    assert all(layer.conv.bias for layers in by_name.values() for layer in layers)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("vgg16", 138_357_544), ("mobilenet_v2", 3_504_872)],
)
def test_the_twins_of_pytorch_have_the_published_sizes(name, count):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        assert sum(p.numel() for p in networks.torch_twin(NETWORKS[name]).parameters()) == count


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("simple-cnn", (3, 32, 32), 10), ("mnist-convnet", (1, 28, 28), 10), ("resnet18-cifar", (3, 32, 32), 10),
     ("mobilenet_v2", (3, 224, 224), 1000)],
)  # fmt: skip
def test_the_twins_share_the_names_of_our_models(name, shape, classes):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        twin = {key: tuple(value.shape) for key, value in networks.torch_twin(NETWORKS[name]).state_dict().items()}
    assert twin == {key: value.shape for key, value in models.create(name, shape, classes).state_dict().items()}


# ---- the peers agree ----------------------------------------------------------------------------------


def runners(kind, task):
    return [made for peer in installed(1)[0] if kind in peer.does and (made := getattr(peer, kind)(task))]


def names(made):
    return {runner.name for runner in made}


@pytest.mark.parametrize("layer", [single("first", 3, 4, 6), single("strided", 5, 4, 7, kernel=5, stride=2)])
@pytest.mark.parametrize("training", [False, True])
def test_everybody_computes_the_same_layer(layer, training):
    pytest.importorskip("torch")
    made = runners("conv", ConvTask(layer, 2, training))
    assert names(made) >= {"tinytorch", "torch NCHW", "torch NHWC"}
    gradients = training * (2 if layer.reads_images else 3)
    assert {len(runner.outputs()) for runner in made} == {1 + gradients}
    assert max(compare(made).values()) < 1e-5


OPERATIONS = [(group, operation) for group, operations in FAMILY.items() for operation in operations]


@pytest.mark.parametrize(("group", "operation"), OPERATIONS, ids=lambda part: getattr(part, "text", part))
def test_everybody_computes_the_same_operation(group, operation):
    pytest.importorskip("torch")
    alone = replace(operation, tensors={**operation.tensors, "input": (1, *operation.tensors["input"][1:])})
    made = runners("operation", OperationTask(alone, training=True))
    assert names(made) == {"tinytorch", "torch NCHW", "torch NHWC"}
    assert min(len(runner.outputs()) for runner in made) >= 1 + len(operation.tensors)
    assert max(compare(made).values()) < family.TOLERANCE


def test_an_operation_forward_has_no_gradients():
    for runner in runners("operation", OperationTask(op("conv2d", 1, 2, 5, 5, weight=(3, 2, 3, 3)), training=False)):
        with runner.mode():
            (y,) = runner.outputs()
        assert y.shape == (1, 3, 3, 3)


def test_the_family_is_measured_in_both_directions_and_summed_up(monkeypatch, capsys):
    pytest.importorskip("torch")
    small = {
        "pads": (op("pad", 1, 2, 4, pad=(1, 1)), op("pad", 1, 2, 5, pad=(1, 1))),
        "pools": (op("avg_pool1d", 1, 2, 4, kernel_size=2),),
    }
    monkeypatch.setattr(family, "FAMILY", small)
    report = Report(1, ONCE, only="4 ")
    family.run(report)
    assert [(row.facts["name"], row.facts["measured"]) for row in report.rows] == [
        ("pad", "forward + backward"), ("avg_pool1d", "forward + backward"), ("pad", "forward"), ("avg_pool1d", "forward")
    ]  # fmt: skip
    assert all(set(row.seconds) == {"tinytorch", "torch NCHW", "torch NHWC"} for row in report.rows)
    assert [note["name"].split(",")[0] for note in report.notes] == ["pads", "pools", "the family"] * 2
    assert "1×2×4 kernel_size=2" in capsys.readouterr().out


def test_an_operation_is_one_line_of_text():
    names = {f"{operation.name} {operation.text}" for _, operation in OPERATIONS}
    assert len(names) == len(OPERATIONS)
    norm = op("batch_norm", 8, 4, 7, running_mean=None, weight=(4,), bias=(4,), training=True)
    assert (norm.name, norm.text) == ("batch_norm", "8×4×7 weight=4 training=True")


def test_images_and_kernels_may_be_channels_last_and_nothing_else():
    task = OperationTask(op("layer_norm", 2, 3, 4, 5, normalized_shape=(3, 4, 5), weight=(3, 4, 5)), training=False)
    assert task.has_channels("input") and not task.has_channels("weight")
    assert OperationTask(op("conv1d", 2, 3, 4, weight=(3, 3, 1)), training=False).has_channels("weight")
    assert not OperationTask(op("fold", 2, 9, 4, images=False), training=False).has_channels("input")


def test_graph_libraries_take_part_in_inference_alone():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    layer, graphs = single("layer", 4, 4, 6), {"onnxruntime", "openvino", "openvino NHWC"}
    assert names(runners("conv", ConvTask(layer, 1))) >= graphs
    assert not names(runners("conv", ConvTask(layer, 1, training=True))) & graphs


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["resnet18-cifar", "mobilenet_v2"])
def test_everybody_computes_the_same_network(name):
    pytest.importorskip("torch")
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    model = models.create(name, (3, 32, 32), 10 if name == "resnet18-cifar" else 1000)
    made = runners("infer", NetworkTask(model, NETWORKS[name], images))
    assert names(made) >= {"tinytorch", "torch NCHW", "torch frozen"}
    assert max(compare(made).values()) < 1e-4


def test_everybody_takes_the_same_training_steps():
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((4, 3, 32, 32), np.float32), rng.integers(0, 10, 4)
    task = NetworkTask(models.create("simple-cnn", (3, 32, 32), 10), NETWORKS["simple-cnn"], images, labels)
    losses = {runner.name: np.array(runner.outputs()) for runner in runners("train", task)}
    assert set(losses) == {"tinytorch", "torch NCHW", "torch NHWC"}
    assert losses["tinytorch"][-1] < losses["tinytorch"][0]
    for values in losses.values():
        np.testing.assert_allclose(values, losses["tinytorch"], rtol=1e-4)


# ---- reports ------------------------------------------------------------------------------------------


def test_a_void_comparison_is_kept_out_and_told():
    report = Report(1, ONCE)
    report.peers = [FixedPeer("ours", 1.0), FixedPeer("peer", 2.0)]
    assert report.compare("conv", None, 0.1, name="layer") == report.rows == []
    assert len(report.void) == 1


class FixedPeer:
    does = ("conv",)

    def __init__(self, name, value):
        self.name, self.value = name, value

    def conv(self, task):
        return constant(self.name, self.value)


def test_means_count_each_layer_once_or_as_often_as_it_occurs():
    report = Report(1, ONCE)
    rows = [
        Row({"name": name, "count": count}, {"ours": [1.0], "peer": [ratio]}, {"peer": 0.0})
        for name, count, ratio in (("a", 3, 2.0), ("b", 1, 0.5))
    ]
    report.summarise("both", rows)
    (note,) = report.notes
    assert note["geometric_mean"] == pytest.approx(1.0)
    assert note["weighted_by_count"] == pytest.approx(2.0**0.5)
    assert (note["minimum"], note["minimum_at"]) == (0.5, "b")


def test_the_command_line_measures_and_writes(tmp_path):
    words = [sys.executable, "-m", "benchmarks", "conv", "--quick", "--rounds", "1", "--threads", "1"]
    words += ["--only", "small forward", "--json", "out.json"]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    (row,) = figures["rows"]
    assert row["problem"] == "mb1ic3oc16_ih32kh3ph1" and row["flop"] == 2 * 16 * 32 * 32 * 27
    assert all(len(seconds) == 1 for seconds in row["seconds"].values())
    assert figures["environment"]["threads"] == 1
    assert "small forward" in done.stdout


def test_the_exit_code_tells_of_void_comparisons(monkeypatch):
    threads = numba.config.NUMBA_NUM_THREADS
    for name, value in (("OMP_NUM_THREADS", threads), ("NUMBA_NUM_THREADS", threads), ("NUMBA_THREADING_LAYER", "omp")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(conv, "run", lambda report: report.void.append("these differ"))
    with pytest.raises(typer.Exit) as done:
        command.main(command.What.conv, threads=threads)
    assert done.value.exit_code == 1


def test_malloc_is_tuned_by_starting_anew_once(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda program, arguments, settings: started.append(settings))
    command._with_malloc_tuned()
    (settings,) = started
    assert int(settings["MALLOC_TRIM_THRESHOLD_"]) > 1 << 30
    monkeypatch.setattr(os, "environ", settings)
    command._with_malloc_tuned()
    assert len(started) == 1


def test_the_roofline_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "SIDE", 8)
    monkeypatch.setattr(roofline, "TRIAD_BYTES", 1 << 10)
    report = Report(1, ONCE)
    report.rows = [Row({"set": "s", "direction": "forward", "flop": 200, "bytes": 10}, {"ours": [1e-6]}, {})]
    roofline.draw(report, tmp_path / "made" / "roof.png")
    assert (tmp_path / "made" / "roof.png").read_bytes().startswith(b"\x89PNG")
    assert report.notes[0]["flops"] > 0
