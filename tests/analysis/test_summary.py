"""Every figure of a summary against counts by others: by brute force, by PyTorch, by hand."""

import csv
import importlib
import io
import json
import math
import re

import numpy as np
import pytest

import tinytorch
from tests.oracle import macs as oracle
from tinytorch import Tensor, models, nn, no_grad, summary
from tinytorch.analysis import roofline
from tinytorch.analysis.budget import Budget, excesses
from tinytorch.analysis.figures import Figure, parse, short, total, unavailable
from tinytorch.analysis.stand_in import rehearsal
from tinytorch.conv import planner
from tinytorch.conv.cost import cost
from tinytorch.conv.problem import ConvProblem
from tinytorch.core import functional as F
from tinytorch.core.autograd import record
from tinytorch.core.layers import Module, Parameter
from tinytorch.kernels import jit
from tinytorch.kernels.watch import Watcher, watching

home = importlib.import_module("tinytorch.analysis.summary")


def quick(model, shape, **options):
    return summary(model, shape, memory=False, **options)


# ---- multiply-accumulates and parameters --------------------------------------------------------------------------


class Shapes(Watcher):
    """The shapes that really come to each layer."""

    def __init__(self):
        self.met = []

    def call(self, module, inputs, run):
        self.met.append((module, inputs[0].shape if inputs else None))
        return run()


def described(module, shape):
    """A layer as the oracle understands it; None if it multiplies nothing."""
    if isinstance(module, nn.Linear):
        return oracle.Linear(shape, module.out_features)
    options = {name: getattr(module, name, None) for name in ("kernel_size", "stride", "padding", "dilation", "groups")}
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return oracle.ConvTranspose(shape, module.out_channels, **options, output_padding=module.output_padding)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return oracle.Conv(shape, module.out_channels, **options)
    return None


def counted(model, shape):
    """What the oracle counts when the model really runs."""
    shapes = Shapes()
    shapes.apart = True
    with no_grad(), watching(shapes):
        model.eval()(Tensor(np.zeros(shape, np.float32)))
    layers = [described(module, x) for module, x in shapes.met]
    return oracle.total([layer for layer in layers if layer is not None])


LAYERS = {
    "1-D": (lambda nn: nn.Conv1d(3, 5, 3, stride=2, padding=1), (2, 3, 9)),
    "2-D": (lambda nn: nn.Conv2d(3, 5, 3, padding=1), (2, 3, 6, 7)),
    "3-D": (lambda nn: nn.Conv3d(2, 3, (1, 3, 2), padding=(0, 1, 1)), (1, 2, 3, 4, 5)),
    "no bias": (lambda nn: nn.Conv2d(3, 5, 3, bias=False), (2, 3, 6, 7)),
    "strided": (lambda nn: nn.Conv2d(3, 8, 7, stride=2, padding=3), (1, 3, 11, 12)),
    "dilated": (lambda nn: nn.Conv2d(2, 2, 3, padding=4, dilation=4), (1, 2, 9, 9)),
    "grouped": (lambda nn: nn.Conv2d(6, 4, 3, groups=2), (1, 6, 5, 5)),
    "depthwise": (lambda nn: nn.Conv2d(6, 12, 3, padding=1, groups=6), (1, 6, 5, 5)),
    "transposed 1-D": (lambda nn: nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1), (1, 3, 5)),
    "transposed 2-D": (lambda nn: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (2, 4, 3, 4)),
    "transposed 3-D": (lambda nn: nn.ConvTranspose3d(2, 2, 2, stride=2), (1, 2, 2, 3, 2)),
    "linear": (lambda nn: nn.Linear(5, 7), (3, 5)),
    "linear of sequences": (lambda nn: nn.Linear(5, 7, bias=False), (2, 3, 5)),
    "a stack": (
        lambda nn: nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            nn.Sequential(nn.Conv2d(64, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Sigmoid()),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        ),
        (2, 3, 32, 32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_macs_are_those_that_brute_force_counts(name):
    build, shape = LAYERS[name]
    found, expected = quick(build(nn), shape), counted(build(nn), shape)
    assert (found.macs, found.macs_inside) == (Figure(expected.every), Figure(expected.inside))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [1, 7])
def test_macs_and_parameters_are_pytorchs(name, size):
    torch = pytest.importorskip("torch")
    from tests.oracle.torch_macs import macs

    build, (n, c, *rest) = LAYERS[name]
    shape = (n, c, *(size * pixels for pixels in rest)) if "linear" not in name else (n * size, c, *rest)
    with torch.device("meta"):
        twin = build(torch.nn)
    found = quick(build(nn), shape)
    assert found.macs.value == macs(twin, shape)
    assert found.parameters == found.trainable == sum(p.numel() for p in twin.parameters())


def test_asymmetric_padding():
    model = nn.Conv2d(2, 3, 3, padding=((0, 2), (1, 0)))
    assert quick(model, (1, 2, 5, 6)).macs_inside.value == counted(model, (1, 2, 5, 6)).inside


SMALL = {
    "simple-cnn": (3, 16, 16),
    "mnist-convnet": (1, 12, 12),
    "digits-cnn": (1, 8, 8),
    "mlp": (1, 8, 8),
    "lenet5": (1, 28, 28),
    "alexnet": (3, 63, 63),
    "vgg11_bn": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "resnet50": (3, 32, 32),
    "mobilenet_v2": (3, 32, 32),
    "unet": (1, 16, 16),
    "vit-patch-embedding": (3, 32, 32),
}


@pytest.mark.parametrize("name", SMALL)
def test_shrunken_networks(name, monkeypatch):
    for file in ("vgg", "alexnet"):  # whose classifiers have a hundred million weights
        narrow = lambda *sizes: nn.Linear(*(8 if n == 4096 else n for n in sizes))  # noqa: E731
        monkeypatch.setattr(importlib.import_module(f"tinytorch.models.{file}"), "Linear", narrow)
    model = models.create(name, SMALL[name], 7)
    found, expected = quick(model, (2, *SMALL[name])), counted(model, (2, *SMALL[name]))
    assert (found.macs, found.macs_inside) == (Figure(expected.every), Figure(expected.inside))
    assert found.parameters == sum(p.size for p in model.parameters())


# Of torchvision's documentation: parameters, and "GFLOPS", which are thousand million multiply-accumulates.
PUBLISHED = {
    "alexnet": (61_100_840, 0.714),
    "vgg11": (132_863_336, 7.609),
    "vgg13": (133_047_848, 11.308),
    "vgg16": (138_357_544, 15.470),
    "vgg16_bn": (138_365_992, 15.470),
    "vgg19": (143_667_240, 19.632),
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "mobilenet_v2": (3_504_872, 0.301),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    with rehearsal():
        model = models.create(name, (3, 224, 224), 1000)
    found = quick(model, (1, 3, 224, 224))
    assert (found.parameters, round(found.macs.value / 1e9, 3)) == PUBLISHED[name]


# ---- modules of all kinds -----------------------------------------------------------------------------------------


class Attention(Module):
    """One head, by hand."""

    def __init__(self, width):
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.width = width

    def forward(self, x):
        y = self.qkv(x)
        q, k, v = (y[..., i * self.width : (i + 1) * self.width] for i in range(3))
        return self.out(F.softmax(q @ k.transpose(1, 2), dim=-1) @ v)


def test_products_of_tensors_count():
    found = quick(Attention(8), (2, 5, 8))
    own = next(row for row in found.rows if row.is_own)
    assert own.macs.value == 2 * 5 * 5 * 8 + 2 * 5 * 8 * 5
    assert own.moved == 4 * (2 * (2 * 5 * 8) + 2 * 5 * 5 + 2 * 5 * 5 + 2 * (2 * 5 * 8))
    assert "matmul ×2" in own.kind and "softmax" in own.kind
    assert found.macs.value == own.macs.value + 2 * 5 * (8 * 24 + 8 * 8)


class Functional(Module):
    def __init__(self):
        self.weight = Parameter(np.ones((4, 3, 3, 3), np.float32))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        y = F.relu(nn.functional.conv2d(x, self.weight, padding=1))
        return self.head(y.mean(dim=(2, 3)))


def test_functional_convolutions_count():
    found = quick(Functional(), (1, 3, 6, 6))
    assert [(row.path, row.is_own, row.parameters, row.macs.value) for row in found.rows] == [
        ("", False, 108, 0),
        ("", True, 0, 4 * 36 * 27),
        ("head", False, 10, 8),
    ]


def test_own_work_stands_where_it_happens():
    with rehearsal():
        model = models.create("resnet18", (3, 64, 64), 10)
    names = [(row.name, row.kind) for row in quick(model, (1, 3, 64, 64)).rows if row.path.startswith("layer1.0")]
    assert names[-3:] == [("layer1.0.bn2", "BatchNorm2d"), ("layer1.0", "add"), ("layer1.0.relu (2)", "ReLU")]


class Often(Module):
    def __init__(self):
        self.layer = nn.Linear(4, 4)
        self.spare = nn.Linear(4, 9)

    def forward(self, x):
        for _ in range(3):
            x = self.layer(x)
        return x


def test_shared_and_spare_modules():
    found = quick(Often(), (2, 4))
    assert [(row.name, row.parameters, row.shared) for row in found.rows] == [
        ("", 0, False),
        ("layer", 20, False),
        ("layer (2)", 0, True),
        ("layer (3)", 0, True),
        ("spare", 45, False),
    ]
    assert found.parameters == 65 and found.macs.value == 3 * 2 * 16
    assert "never called, but with parameters: spare" in found.notes
    assert "parameters counted before: layer (2), layer (3)" in found.notes


def test_tied_parameters_count_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    found = quick(model, (1, 4))
    assert found.parameters == 16 + 4 + 4 == sum(p.size for p in model.parameters())
    assert [row.shared for row in found.rows] == [False, False, True]


def test_frozen_parameters():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad = False
    found = quick(model, (1, 4))
    assert (found.parameters, found.trainable) == (30, 14)
    assert "parameters: 30, 16 of them frozen" in str(found)


def test_parameters_that_are_not_registered_are_told():
    class Hidden(Module):
        def __init__(self):
            self.layers = [nn.Linear(2, 3)]

        def forward(self, x):
            return self.layers[0](x)

    found = quick(Hidden(), (1, 2))
    assert found.parameters == 0 and found.macs.value == 6
    assert "<Linear> holds 9 parameters that the model does not register, so that none is counted" in found.notes


# ---- what is not known --------------------------------------------------------------------------------------------


def test_an_operation_of_others_is_not_counted_as_nothing():
    class Other(Module):
        def forward(self, x):
            return record(x.array @ x.array, (x,), lambda grad: (grad,))

    model = nn.Sequential(nn.Linear(3, 3), Other())
    found = quick(model, (3, 3))
    assert found.rows[2].macs.status == "unavailable" and "is not the library's" in found.rows[2].macs.reason
    assert (found.macs.value, found.macs.status) == (27, "estimated") and "at least" in found.macs.reason
    assert "forward: at least 27 MACs" in str(found)
    assert any(note.startswith("1: MACs unavailable") for note in found.notes)


def test_arithmetic_outside_the_library_is_not_counted_as_nothing():
    class NumPy(Module):
        def forward(self, x):
            return Tensor(np.fft.rfft(x.data).real.astype(np.float32))

    found = quick(nn.Sequential(nn.Linear(4, 4), NumPy()), (1, 4))
    assert "not made of its input by operations that can be seen" in found.rows[2].macs.reason


def test_what_passes_the_input_on_computes_nothing():
    found = quick(nn.Sequential(nn.Identity(), nn.Dropout(0.5), nn.Flatten()), (1, 4))
    assert found.macs == Figure(0)


def test_a_path_that_depends_on_values_is_told():
    class Deciding(Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    assert "the path taken depends on values: the model looks at numbers" in "".join(quick(Deciding(), (2,)).notes)


def test_a_model_that_can_not_be_trained_says_so():
    found = summary(nn.ReLU(), (1, 4))
    assert found.training_memory.status == "unavailable"
    assert found.kept.value is None and found.inference_memory.value > 0
    assert any(note.startswith("memory of training unavailable: RuntimeError") for note in found.notes)


# ---- what runs ----------------------------------------------------------------------------------------------------


def test_algorithms_and_what_they_execute():
    model = nn.Conv2d(64, 64, 3, padding=1, algorithm={"forward": "winograd", "weight_grad": "direct"})
    found = summary(nn.Sequential(nn.ReLU(), model), (2, 64, 56, 56)).rows[2]
    problem = ConvProblem.parse("mb2ic64oc64_ih56kh3ph1")
    assert [(w.direction, w.algorithm) for w in found.work][:1] == [("forward", "winograd")]
    assert {w.direction: w.algorithm for w in found.work}["weight_grad"] == "direct"
    assert (
        found.multiplies.value == cost(problem, "forward", "winograd", 4).multiplies < found.macs.value == problem.macs
    )
    assert all(w.macs == problem.macs and ConvProblem.parse(w.problem) == problem for w in found.work)


def test_directions_of_a_transposed_layer_are_its_own():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 5, 2, stride=2))
    works = summary(model, (1, 3, 4, 4)).rows[2].work
    assert sorted(work.direction for work in works) == ["forward", "input_grad", "weight_grad"]


@pytest.mark.parametrize("flops", [1, 2])
def test_flops(flops):
    found = quick(nn.Linear(3, 4), (5, 3), flops=flops)
    assert found.flops.value == flops * 60
    assert found.intensity(found.rows[0]).value == flops * 60 / (4 * (15 + 12 + 20))
    assert f"FLOPs at {flops} for a MAC" in str(found)


@pytest.mark.parametrize("flops", [0, 3, True, 1.5, "2"])
def test_flops_that_are_none(flops):
    with pytest.raises(ValueError, match="flops must be 2 or 1"):
        quick(nn.Linear(3, 4), (5, 3), flops=flops)


def test_float64_has_twice_the_bytes():
    single, double = (quick(nn.Linear(3, 4).to(dtype), (5, 3)) for dtype in ("f4", "f8"))
    assert double.parameter_bytes == 2 * single.parameter_bytes == 8 * 16
    assert double.rows[0].output_bytes == 2 * single.rows[0].output_bytes == 160
    assert double.rows[0].moved == 2 * single.rows[0].moved


def test_nothing_runs(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a kernel runs")

    monkeypatch.setattr(jit, "_is_reentrant", refuse)  # the last step before a kernel
    for name, algorithm in planner.ALGORITHMS.items():
        silent = type(name, (), {"name": name, "refuses": staticmethod(algorithm.refuses), "forward": refuse})
        monkeypatch.setitem(planner.ALGORITHMS, name, silent)
    with rehearsal():
        model = models.create("resnet50", (3, 224, 224), 1000)
    found = summary(model, (1, 3, 224, 224))
    assert found.training_memory.status == found.inference_memory.status == "estimated"


def test_kept_bytes_are_those_of_the_pass():
    found = summary(models.create("simple-cnn", (3, 32, 32), 10), (4, 3, 32, 32))
    assert sum(row.kept.number for row in found.rows) == found.kept.value > 0
    assert found.rows[2].kept == Figure(0, "exact", "computed within conv1")


def test_receptive_fields_are_there():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, dilation=2))
    assert [str(row.field) for row in quick(model, (1, 1, 9, 9)).rows] == ["7×7", "3×3", "7×7"]


def test_measured():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.5)).train()
    found = summary(model, (1, 3, 16, 16), measure=True)
    assert found.rows[1].seconds.value > 0 and found.rows[1].seconds.status == "estimated"
    assert found.rows[2].seconds.reason == "computed within another layer"
    assert model.training and model[2].training and model[0].weight.grad is None
    first = found.rows[1]
    assert first.backward_seconds.value > 0 and first.backward_macs.value == first.macs.value  # of the weights alone
    assert "of peak  backward ms" in found.table(400).splitlines()[0]
    assert found.machine.limit(found.machine.ridge) == "arithmetic"
    assert found.machine.limit(found.machine.ridge / 2) == "memory"
    assert "this machine, measured" in str(found) and "ms" in found.table(200).splitlines()[0]
    assert roofline.machine() is roofline.machine()


# ---- what it looks like -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def residual():
    with rehearsal():
        return summary(models.create("resnet18", (3, 64, 64), 10), (1, 3, 64, 64))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_tables_fit(residual, width):
    lines = residual.table(width).splitlines()
    assert max(map(len, lines)) <= width
    grid = lines[2 : lines.index("")]
    assert len(grid) == len(residual.rows)
    assert re.split(r"  +", lines[0].strip())[:1] == ["layer"]


def test_wider_tables_say_more(residual):
    columns = [set(re.split(r"  +", residual.table(width).splitlines()[0])) for width in (80, 120, 200)]
    assert {"layer", "output", "parameters", "MACs"} <= columns[0] < columns[1] < columns[2]


def test_depth_adds_up(residual):
    for depth in range(4):
        rows = residual.cut(depth)
        assert max(row.depth for row in rows) == min(depth, 3)
        assert sum(row.parameters for row in rows) == residual.parameters
        assert total(row.macs for row in rows) == residual.macs
        assert sum(row.kept.number for row in rows) == residual.kept.value
        assert total(row.multiplies for row in rows) == residual.multiplies


def test_csv_holds_every_row(residual):
    rows = list(csv.DictReader(io.StringIO(residual.to_csv())))
    assert len(rows) == len(residual.rows)
    assert sum(int(row["macs"]) for row in rows) == residual.macs.value
    assert sum(int(row["parameters"]) for row in rows) == residual.parameters


def test_json_holds_every_figure_with_its_status(residual):
    read = json.loads(residual.to_json())
    assert read["macs"] == {"value": residual.macs.value, "status": "exact", "reason": ""}
    assert read["memory"]["training"]["peak_bytes"] == residual.training_memory.value
    assert [row["layer"] for row in read["rows"]] == [row.path for row in residual.rows]
    statuses = {
        figure["status"]
        for row in read["rows"]
        for figure in row.values()
        if isinstance(figure, dict) and "status" in figure
    }
    assert statuses == {"exact", "estimated", "unavailable"}


def test_markdown_is_a_table(residual):
    head, rule, *lines = residual.to_markdown(depth=1).splitlines()
    assert head.startswith("| layer | kind |") and set(rule) <= set("|-: ")
    assert all(line.count("|") == head.count("|") for line in lines[: len(residual.cut(1))])


def test_str_is_a_table_for_the_terminal(residual, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert str(residual) == residual.table(100)


# ---- figures and budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9999, "9,999"), (10_000, "10.00 k"), (1_814_073_344, "1.814 G"), (999_960, "1.000 M"), (0.5, "0.500"),
     (118_013_952, "118.0 M"), (12_345, "12.35 k"), (5e13, "50.00 T")],
)  # fmt: skip
def test_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [("300M", "", 300_000_000), ("1.5G", "", 1_500_000_000), ("4_000", "", 4000), ("4,000", "", 4000), ("2k", "", 2000),
     ("64MiB", "B", 64 << 20), ("64MB", "B", 64_000_000), ("64 kB", "B", 64_000), ("7B", "B", 7), ("7", "B", 7)],
)  # fmt: skip
def test_parse(text, unit, value):
    assert parse("--limit", text, unit) == value


@pytest.mark.parametrize(("text", "unit"), [("", ""), ("M", ""), ("3q", ""), ("-3", ""), ("64MiB", ""), ("64mb", "B")])
def test_numbers_that_are_none(text, unit):
    with pytest.raises(ValueError, match="--limit must be a number, with a suffix or without, such as"):
        parse("--limit", text, unit)


def test_totals_of_what_is_known():
    assert total([Figure(1), Figure(2)]) == Figure(3)
    assert total([Figure(1), Figure(2, "estimated", "why")]) == Figure(3, "estimated", "why")
    assert total([Figure(1), unavailable("gone")]) == Figure(1, "estimated", "at least so much: gone")


def test_budgets():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    found = summary(model, (1, 3, 8, 8))
    held = found.inference.held
    exact = Budget(int(found.macs.value), found.parameters, held)
    assert excesses(found, exact) == [] == excesses(found, Budget())
    over = excesses(found, Budget(exact.macs - 1, exact.parameters - 1, held - 1))
    assert [excess.name for excess in over] == ["MACs", "parameters", "memory"]
    assert over[0].most == (("0", 8 * 36 * 27), ("1", 4 * 16 * 72))
    assert (
        str(over[1])
        == f"parameters: {found.parameters:,}, and {found.parameters - 1:,} are allowed; most in 1 292, 0 224"
    )
    assert math.isclose(sum(size for _, size in over[2].most), found.inference.peak.bytes, rel_tol=0.05)


def test_a_budget_that_can_not_be_checked_is_not_kept():
    (excess,) = excesses(quick(nn.Linear(2, 2), (1, 2)), Budget(memory=10**9))
    assert str(excess) == "memory: not asked for; the limit of 1,000,000,000 B can't be checked"


def test_the_name_in_the_package():
    assert tinytorch.summary is home.summary
