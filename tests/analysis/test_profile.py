"""Profiles with a clock that only layers advance: every nanosecond is where it was spent, and nowhere twice."""

import gc
import json
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.oracle.macs import Conv, ConvTranspose, Linear
from tinytorch import Tensor, nn, no_grad, ones, profile, randn
from tinytorch.analysis import profile as profiling
from tinytorch.analysis.roofline import Machine
from tinytorch.core.autograd import record
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.fusion import conv_block
from tinytorch.core.spatial import SimpleCNN
from tinytorch.io.timeline import save_trace, timeline
from tinytorch.kernels.watch import Watcher, watcher, watching
from tinytorch.models.resnet import BasicBlock
from tinytorch.nn import functional as F

MS = 1_000_000


class Clock:
    """Stands still unless told to."""

    now = 1_000 * MS

    def __call__(self):
        return self.now

    def pass_(self, ns):
        self.now += ns


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(profiling, "perf_counter_ns", clock := Clock())
    return clock


def takes(clock, x, forward, backward):
    """`x` itself, after a time, and its gradient after another."""
    clock.pass_(forward)

    def takes_backward(grad):
        clock.pass_(backward)
        return (grad * 1,)

    return record(x.array * 1, (x,), takes_backward)


class Wait(nn.Module):
    def __init__(self, clock, forward, backward):
        self.clock, self.times = clock, (forward, backward)

    def forward(self, x):
        return takes(self.clock, x, *self.times)


class Around(nn.Module):
    """Takes time before and after the layers in it."""

    def __init__(self, clock, *layers, own=(0, 0)):
        self.clock, self.layers, self.own = clock, nn.Sequential(*layers), own

    def forward(self, x):
        return takes(self.clock, self.layers(takes(self.clock, x, *self.own)), *self.own)


def leaf():
    return Tensor(np.ones((2, 3), np.float32), requires_grad=True)


def times(row):
    return row.forward.ns, row.backward.ns, row.own_forward.ns, row.own_backward.ns


def own_sum(p):
    return sum(row.own_ns for row in p.rows)


# ---- whose time it is -----------------------------------------------------------------------------------------------


def test_forward_and_backward_go_to_the_layer(clock):
    model = Around(clock, Wait(clock, 3, 50), Wait(clock, 4, 60), own=(100, 1000))
    with profile(model) as p:
        clock.pass_(7)  # before the model
        y = model(leaf())
        loss = takes(clock, y, 20, 30).sum()  # a loss
        loss.backward()
        clock.pass_(9)  # an optimizer
    assert times(p[""]) == (207, 2110, 200, 2000)
    assert times(p["layers"]) == (7, 110, 0, 0)
    assert times(p["layers.0"]) == (3, 50, 3, 50)
    assert times(p["layers.1"]) == (4, 60, 4, 60)
    assert times(p.rows[-1]) == (36, 30, 36, 30)
    assert [(row.name, row.depth, row.calls) for row in p.rows] == [
        ("Around", 0, 1), ("layers", 1, 1), ("0", 2, 1), ("1", 2, 1), ("outside the model", 0, 0),
    ]  # fmt: skip
    assert p.ns == own_sum(p) == sum(p.steps) == 207 + 2110 + 36 + 30


def test_waits_for_a_loader_have_a_row_of_their_own(clock):
    def slow(images, rng):
        clock.pass_(40 * MS)
        return images

    model = Wait(clock, 3 * MS, 50 * MS)
    loader = DataLoader(TensorDataset(np.ones((6, 3), np.float32)), batch_size=2, transform=slow, prefetch=0)
    with profile(model) as p:
        for (x,) in loader:
            model(x)
            clock.pass_(9 * MS)
    assert [(row.name, row.depth, row.own_ns // MS) for row in p.rows] == [
        ("waiting for data", 0, 120), ("Wait", 0, 9), ("outside the model", 0, 27),
    ]  # fmt: skip
    assert p.waited == 120 * MS and p["waiting for data"].calls == 4  # the last finds that there is nothing more
    assert p.steps == ((40 + 3 + 9 + 40) * MS, (3 + 9 + 40) * MS, (3 + 9) * MS) and p.ns == own_sum(p)
    assert "(forward 3.00, backward 0.00, outside the model 9.00, waiting for data 40.00)" in p.table(200)


def test_what_the_thread_of_a_loader_does_is_no_wait(clock):
    model = Wait(clock, 3, 50)
    loader = DataLoader(TensorDataset(np.ones((6, 3), np.float32)), batch_size=2, prefetch=3)
    with profile(model) as p:
        for (x,) in loader:
            model(x)
    assert p.waited == 0 and p["waiting for data"].calls == 4


def test_a_layer_in_two_places_has_a_row_in_each(clock):
    shared = Wait(clock, 3, 5)
    model = nn.Sequential(Around(clock, shared), Around(clock, shared), Around(clock, shared, shared))
    with profile(model) as p:
        model(leaf()).sum().backward()
    rows = [row for row in p.rows if row.path == "0.layers.0"]
    assert [row.name for row in rows] == ["0", "0.layers.0", "0.layers.0"]
    assert [(row.calls, *times(row)[:2]) for row in rows] == [(1, 3, 5), (1, 3, 5), (2, 6, 10)]
    assert times(p["2"])[:2] == (6, 10) and times(p[""])[:2] == (12, 20)


def test_layers_that_are_not_registered(clock):
    class Hidden(nn.Module):
        def __init__(self):
            self.hidden = [Wait(clock, 3, 5), Wait(clock, 4, 6)]

        def forward(self, x):
            return self.hidden[1](self.hidden[0](x))

    model, stranger = nn.Sequential(Hidden()), Wait(clock, 70, 80)
    with profile(model) as p:
        stranger(model(leaf())).sum().backward()
    assert [(row.path, row.ns) for row in p.rows] == [("", 18), ("0", 18), ("0.<Wait>", 8), ("0.<Wait>", 10), ("", 150)]


def test_a_part_of_the_model_alone(clock):
    model = nn.Sequential(Wait(clock, 3, 5), Wait(clock, 4, 6))
    with profile(model) as p:
        model[1](leaf()).sum().backward()
    assert [(row.path, row.depth, row.ns) for row in p.rows] == [("1", 0, 10), ("", 0, 0)]
    assert len(p.steps) == 1


def test_a_backward_of_an_earlier_forward_is_outside(clock):
    model = Wait(clock, 3, 5)
    y = model(leaf()).sum()
    with profile(model) as p:
        y.backward(retain_graph=True)
    assert own_sum(p) == times(p.rows[-1])[1] == 5
    with profile(model) as p:
        y = model(leaf()).sum()
        y.backward(retain_graph=True)
        y.backward()
    assert times(p[""])[:2] == (3, 10)


TREES = st.recursive(
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(tree=TREES, steps=st.integers(1, 3), rest=st.integers(0, 20))
def test_all_times_add_up(tree, steps, rest):
    clock = Clock()

    def build(part):
        return Wait(clock, *part) if isinstance(part, tuple) else Around(clock, *map(build, part), own=(1, 2))

    def spent(part):
        if isinstance(part, tuple):
            return np.array(part)
        return sum(map(spent, part)) + np.array([2, 4])  # its own, before and after

    model = build(tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "perf_counter_ns", clock)
        with profile(model) as p:
            for _ in range(steps):
                model(leaf()).sum().backward()
                clock.pass_(rest)
    kept = steps - p.first_apart
    assert times(p[""])[:2] == tuple(kept * spent(tree))
    assert own_sum(p) == p.ns == kept * (spent(tree).sum() + rest)
    assert sum(p.steps) == steps * (spent(tree).sum() + rest)
    for row in p.rows[:-1]:
        inner = [r for r in p.rows[:-1] if r.path.startswith(f"{row.path}." if row.path else "") and r is not row]
        assert row.ns == row.own_ns + sum(r.own_ns for r in inner)


def test_real_time_adds_up_too():
    model = SimpleCNN()
    with profile(model) as p:
        for _ in range(2):
            F.cross_entropy(model(randn(2, 3, 32, 32)), Tensor([1, 2])).backward()
    assert own_sum(p) == p.ns
    assert sum(p.steps) == max(span.end for span in p.spans)
    assert all(row.own_ns >= 0 and row.ns > 0 for row in p.rows)


# ---- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lasting", "apart"),
    [([9], False), ([31, 10], True), ([30, 10], False), ([31, 10, 10, 99], True), ([10, 40, 10], False)],
)
def test_a_slow_first_step_is_kept_apart(clock, lasting, apart):
    model = Wait(clock, 0, 0)
    with profile(model) as p:
        for ns in lasting:
            model(leaf())
            clock.pass_(ns)
    assert p.steps == tuple(lasting)
    assert p.first_apart is apart and p.counted == tuple(lasting[apart:])
    assert p[""].calls == len(lasting) - apart
    assert own_sum(p) == p.ns == sum(lasting[apart:])


def test_numbers_are_those_of_the_steps_that_count(clock):
    model = Wait(clock, 100, 0)
    with profile(model) as p:
        model(leaf())
        model.times = (8, 1)
        for _ in range(3):
            model(leaf()).sum().backward()
    assert times(p[""]) == (24, 3, 24, 3)


def test_a_step_alone(clock):
    model = Wait(clock, 2, 1)
    with profile(model) as p:
        for lasting in (30, 9, 5, 7):
            model(leaf()).sum().backward()
            clock.pass_(lasting)
    assert [p.step(number).steps for number in (0, 1, -1)] == [(33,), (12,), (10,)]
    assert p.fastest.steps == (8,) and times(p.fastest[""])[:2] == (2, 1) and own_sum(p.fastest) == 8
    assert "may include compilation" in p.step(0).table(80)
    assert "may include compilation" not in p.fastest.table(80) + p.table(80)
    with pytest.raises(IndexError, match=r"step must be one of 4, counted from 0, got -5; -1 is the last"):
        p.step(-5)


def test_without_a_step(clock):
    with profile(Wait(clock, 1, 1)) as p:
        clock.pass_(5)
    assert [times(row) for row in p.rows] == [(5, 0, 5, 0)]
    assert "1 step" in p.table(80)


# ---- work -----------------------------------------------------------------------------------------------------------


def test_macs_and_bytes_of_a_network():
    model = SimpleCNN()
    with profile(model) as p:
        F.cross_entropy(model(randn(4, 3, 32, 32)), Tensor([0, 1, 2, 3])).backward()
    layers = [Conv((4, 3, 32, 32), 16, 3, padding=1), Conv((4, 16, 16, 16), 32, 3, padding=1), Linear((4, 2048), 10)]
    for path, layer, directions in zip(["conv1", "conv2", "fc"], layers, [1, 2, 2], strict=True):
        assert p[path].forward.macs == layer.macs.every
        assert p[path].backward.macs == directions * layer.macs.every  # images need no gradient
        assert p[path].algorithms and p[path].backward_algorithms
    assert p[""].forward.macs == sum(layer.macs.every for layer in layers)
    weights, pooled = 16 * 3 * 9 + 16, 4 * 16 * 16 * 16
    assert p["conv1"].forward.bytes == 4 * (4 * 3 * 32 * 32 + weights + pooled)
    assert p["conv1"].backward.bytes == 4 * (4 * 3 * 32 * 32 + 2 * weights + pooled)
    assert p["fc"].backward.bytes == 4 * (2 * (4 * 2048 + 20490) + 4 * 10)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, groups=2, padding_mode="reflect", padding=1), Conv((2, 4, 9), 6, 3, 2, 1, 1, 2)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), ConvTranspose((2, 4, 9), 6, 3, 2, groups=2)),
    ],
)
def test_macs_without_gradients(layer, macs):
    with no_grad(), profile(layer) as p:
        layer(randn(2, 4, 9))
    assert p[""].forward.macs == macs.macs.every
    assert p[""].backward == profiling.Work()
    assert p[""].outputs == (macs.output_shape,)


def test_matrix_products_of_tensors():
    class Attention(nn.Module):
        def forward(self, q, k):
            return (q @ k.transpose(-1, -2)) @ k

    q, k = (Tensor(np.ones((2, n, 4), np.float32), requires_grad=True) for n in (3, 5))
    model = Attention()
    with profile(model) as p:
        model(q, k=k).sum().backward()
    assert p[""].forward.macs == 2 * 3 * 5 * 4 + 2 * 3 * 4 * 5
    assert p[""].backward.macs == 2 * p[""].forward.macs
    assert p[""].inputs == ((2, 3, 4), (2, 5, 4))


def test_views_and_handed_on_gradients_move_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Identity())
    with profile(model) as p:
        model(Tensor(np.ones((2, 3, 4), np.float32), requires_grad=True)).sum().backward()
    assert p[""].forward.bytes == p[""].backward.bytes == 0
    assert p[""].forward.gbytes is None and p[""].forward.gflops is None


def test_an_addition_hands_its_gradient_on():
    class Doubled(nn.Module):
        def forward(self, x):
            return x + x

    model = nn.Sequential(Doubled(), nn.Tanh())
    with profile(model) as p:
        model(leaf()).sum().backward()
    assert [(p[path].forward.bytes, p[path].backward.bytes) for path in ("0", "1")] == [(48, 0), (48, 72)]


def test_rates():
    work = profiling.Work(ns=2_000, macs=5_000, bytes=8_000)
    assert (work.gflops, work.gbytes) == (5.0, 4.0)
    assert work + work == profiling.Work(4_000, 10_000, 16_000)


def test_what_is_computed_in_the_same_pass():
    block = BasicBlock(16, 16)
    model = nn.Sequential(block)
    x = randn(2, 16, 8, 8)
    with profile(model) as training:
        model(x).sum().backward()
    assert training["0.bn1"].parts == ("relu",) and training["0.bn2"].parts == ("residual", "relu")
    assert training["0.conv2"].parts == ()
    model.eval()
    with no_grad(), profile(model) as inference:
        model(x)
    assert inference["0.conv1"].parts == ("bn1", "relu")
    assert inference["0.conv2"].parts == ("bn2", "residual", "relu")
    assert [row.path for row in inference.rows] == ["", "0", "0.conv1", "0.conv2", ""]
    moved = 3 * x.size + 16 * 16 * 9 + 2 * 16  # input, residual, output; weight, scale and shift
    assert inference["0.conv2"].forward.bytes == 4 * moved


def test_parts_of_strangers_are_not_handed_to_the_next_layer():
    conv, stranger = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    with profile(nn.Sequential(conv)) as p:
        conv_block(randn(1, 3, 5, 5), stranger, activation=nn.ReLU())
        conv(randn(1, 3, 5, 5))
    assert p["0"].parts == ()


# ---- what a profile leaves alone ------------------------------------------------------------------------------------


def test_results_are_the_same_to_the_bit():
    def gradients(watched):
        tinytorch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
        x = randn(2, 3, 8, 8)
        if watched:
            with profile(model):
                model(x).sum().backward()
        else:
            model(x).sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    for plain, watched in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_array_equal(plain, watched)


def test_graphs_and_models_are_not_kept():
    model = nn.Sequential(nn.Tanh(), nn.Tanh())
    gone = weakref.ref(model)
    with profile(model) as p:
        y = model(leaf())
        saved = weakref.ref(y.node.backward)
        del y
        gc.collect()
        assert saved() is None
    del model
    gc.collect()
    assert gone() is None and len(p.rows) == 4


def test_other_threads_are_not_seen(clock):
    model = Wait(clock, 3, 5)
    with profile(model) as p:
        thread = threading.Thread(target=lambda: model(leaf()).sum().backward())
        thread.start()
        thread.join()
    assert [row.name for row in p.rows] == ["outside the model"]


def test_an_error_ends_the_profile(clock):
    class Fails(nn.Module):
        def forward(self, x):
            clock.pass_(5)
            raise ZeroDivisionError

    model = nn.Sequential(Wait(clock, 3, 0), Fails())
    with pytest.raises(ZeroDivisionError), profile(model) as p:
        model(leaf())
    assert watcher.get() is None
    assert [(row.path, row.own_ns) for row in p.rows] == [("", 0), ("0", 3), ("1", 5), ("", 0)]


def test_a_step_of_a_backward_delivers_gradients():
    x = leaf()
    seen = []

    class Sees(Watcher):
        def backward(self, node, run):
            before = x.grad is None
            run()
            seen.append((node.name, before, x.grad is None))

    y = x.tanh()
    with watching(Sees()):
        y.sum().backward()
    assert seen == [("freed", True, True), ("freed", True, False)]


# ---- as text --------------------------------------------------------------------------------------------------------


def small_profile(clock):
    model = Around(clock, Wait(clock, 3 * MS, 5 * MS), Wait(clock, MS // 2, MS))
    with profile(model) as p:
        for lasting in (100 * MS, MS, 2 * MS):
            model(leaf()).sum().backward()
            clock.pass_(lasting)
    return p


TABLE = """\
Around, 2 steps of 11.00 ms (forward 3.50, backward 6.00,
outside the model 1.50), 2 threads. A first step of 109.5 ms
does not count: it compiles and plans.

                           forward        backward
layer               share       ms  GB/s        ms  GB/s
────────────────────────────────────────────────────────
Around             86.4 %     3.50   0.0      6.00   0.0
  layers           86.4 %     3.50   0.0      6.00   0.0
    0              72.7 %     3.00   0.0      5.00   0.0
    1              13.6 %     0.50   0.0      1.00   0.0
outside the model  13.6 %     1.50     –      0.00     –

A layer's numbers include those of the layers within it;
outermost rows add up to the step. GFLOP/s at 2 FLOP for a
multiply-accumulate of the definition, GB/s with operands
and results once each."""


def test_table(clock, monkeypatch):
    monkeypatch.setattr(profiling, "workers", lambda: 2)
    p = small_profile(clock)
    assert p.table(60) == TABLE


def body(table):
    return table.split("─\n")[1].split("\n\n")[0].splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_table_is_as_wide_as_it_may_be(width):
    model = nn.Sequential(BasicBlock(16, 16), nn.Flatten(), nn.Linear(1024, 4))
    with profile(model) as p:
        model(randn(2, 16, 8, 8)).sum().backward()
    text = p.table(width)
    assert max(map(len, text.splitlines())) <= max(width, 50)
    assert len(body(text)) == len(p.rows)
    assert ("GFLOP/s" in text.split("─")[0]) == (width >= 80)
    assert ("output" in text.split("─")[0]) == (width >= 120)
    assert ("algorithm" in text.split("─")[0]) == (width >= 200)


def test_share_of_the_peak():
    model = nn.Linear(64, 64)
    with profile(model) as p:
        model(randn(8, 64)).sum().backward()
    peak = 1e9 * p[""].forward.gflops
    line, *_ = body(p.table(200, machine=Machine(flops=4 * peak, bandwidth=1.0)))
    assert "  25 %" in line and "of peak" not in p.table(200)
    assert " The peak is " in " ".join(p.table(200, machine=Machine(peak, 1.0)).split("\n"))


def test_depth_and_order(clock):
    p = small_profile(clock)
    assert [line.split()[0] for line in body(p.table(80, depth=0))] == ["Around", "outside"]
    assert [line.split()[0] for line in body(p.table(80, depth=1))] == ["Around", "layers", "outside"]
    ranking = [line.split()[0] for line in body(p.table(80, sort="time"))]
    assert ranking[:3] == ["layers.0", "layers.1", "outside"]
    shares = [float(line.split(" %")[0].split()[-1]) for line in body(p.table(80, sort="time"))]
    assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) < 0.3


def test_str_has_the_width_of_the_terminal(clock, monkeypatch):
    p = small_profile(clock)
    for columns in (60, 90):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert str(p) == p.table(columns)


def test_json(clock):
    p = small_profile(clock)
    told = json.loads(p.to_json())
    assert told["seconds"] == [0.1095, 0.0105, 0.0115] and told["first_apart"] is True
    assert told["rows"][2]["path"] == "layers.0"
    assert told["rows"][2]["backward"]["seconds"] == 0.005 and told["rows"][2]["calls"] == 1
    own = [row[key]["seconds"] for row in told["rows"] for key in ("own_forward", "own_backward")]
    assert sum(own) == pytest.approx(0.011)


# ---- as a Chrome trace ----------------------------------------------------------------------------------------------


def complete_events(trace, thread):
    return [event for event in trace["traceEvents"] if event["ph"] == "X" and event["tid"] == thread]


def assert_nested(events):
    """Any two of a thread are apart, or one is in the other: what a viewer needs to stack them."""
    open_until = []
    for event in events:
        begun, ended = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
        while open_until and open_until[-1] <= begun:
            open_until.pop()
        assert not open_until or ended <= open_until[-1]
        open_until.append(ended)


def test_chrome_trace():
    model = SimpleCNN()
    with profile(model) as p:
        for _ in range(3):
            F.cross_entropy(model(randn(2, 3, 32, 32)), Tensor([1, 2])).backward()
    trace = json.loads(json.dumps(p.chrome_trace(), allow_nan=False))
    for event in trace["traceEvents"]:
        assert {"name", "ph", "ts", "pid", "tid", "args"} <= set(event)
        assert event["ph"] in "XM" and event["name"]
        assert event["ph"] == "M" or (event["dur"] >= 0 and event["cat"] in ("forward", "backward"))
    names = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert names == {1: "forward", 2: "backward"}
    for thread in names:
        events = complete_events(trace, thread)
        assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
        assert_nested(events)
    forward = [event["name"] for event in complete_events(trace, 1)]
    layers = ["SimpleCNN", "conv1", "conv2", "fc"]
    assert forward == ["step 1", *layers, "step 2", *layers, "step 3", *layers]
    backward = [event["name"] for event in complete_events(trace, 2) if event["name"] in layers]
    assert backward[:4] == ["fc", "SimpleCNN", "conv2", "conv1"]  # the model's own is the flattening
    facts = complete_events(trace, 1)[2]["args"]
    assert facts["MACs"] == Conv((2, 3, 32, 32), 16, 3, padding=1).macs.every
    assert facts["inputs"] == "(2, 3, 32, 32)" and facts["outputs"] == "(2, 16, 16, 16)"
    assert facts["with"] == "relu, pool1" and facts["algorithm"] == p["conv1"].algorithms[0]


def test_a_trace_tells_the_time(clock):
    trace = small_profile(clock).chrome_trace()
    waits = [event for event in trace["traceEvents"] if event["name"] == "layers.0"]
    assert [(event["ts"], event["dur"]) for event in waits[:2]] == [(0, 3000), (4500, 5000)]


def test_save_trace(clock, tmp_path):
    p = small_profile(clock)
    save_trace(tmp_path / "step.json", p)
    assert json.loads((tmp_path / "step.json").read_text()) == json.loads(json.dumps(p.chrome_trace()))


def test_timeline(clock):
    p = small_profile(clock)
    for step in (0, 1, -1):
        bars = timeline(p, step).axes[0].patches
        assert len(bars) == len([span for span in p.spans if span.operation != "step"]) / 3
        assert min(bar.get_x() for bar in bars) == 0
    lasting = sorted(bar.get_width() for bar in timeline(p, 1).axes[0].patches if bar.get_width())
    assert lasting == pytest.approx([0.5, 1, 3, 3.5, 3.5, 5])
    with pytest.raises(IndexError, match=r"step must be one of 3, counted from 0, got 3; -1 is the last"):
        timeline(p, 3)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_a_model_is_a_module():
    with pytest.raises(TypeError, match=r"model must be a Module, got function; to profile a function make it"):
        profile(ones).__enter__()


def test_profiles_are_not_nested():
    model = nn.Identity()
    with profile(model), pytest.raises(RuntimeError, match="can't begin within another profile or summary"):
        profile(model).__enter__()
    with profile(model):
        pass


def test_a_profile_is_read_after_its_block():
    with profile(nn.Identity()) as p:
        for read in (str, profiling.Profile.to_json, profiling.Profile.chrome_trace, lambda p: p.rows, timeline):
            with pytest.raises(RuntimeError, match="can be read after its block, and this one has not ended"):
                read(p)
    assert p.rows


def test_unknown_paths_and_orders(clock):
    p = small_profile(clock)
    with pytest.raises(KeyError, match=r"path must be that of a module that was called, got 'layer'.*'layers', "):
        p["layer"]
    with pytest.raises(ValueError, match="sort must be 'calls' or 'time', got 'name'"):
        p.table(sort="name")


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_example_of_the_page(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "profile.md").read_text()
    example, table, *_ = (block.split("\n", 1)[1] for block in page.split("```")[1::2])
    look_around = page.split("```python\n")[2].split("```")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    exec(example.replace("range(20)", "range(3)") + look_around, names := {})
    assert [line[:31] for line in body(capsys.readouterr().out)] == [line[:31] for line in body(table)]
    assert (tmp_path / "step.json").stat().st_size > 1000
    for path in ("conv1", "conv2"):
        assert f"{names['p'].fastest[path].forward.macs // 1_000_000} million" in page
