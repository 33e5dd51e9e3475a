"""Convolution layers, one at a time."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace
from typing import Any

import tinytorch
from benchmarks.layers import SETS, Layer, LayerSet, single
from benchmarks.peers import ConvTask, Ours
from benchmarks.report import Columns, Report
from benchmarks.timing import Row, interleave
from tinytorch.conv.problem import DIRECTIONS

TOLERANCE = 1e-4  # of the largest output; ours may transform, which costs two digits


def run(report: Report) -> None:
    """Measure every set, then what spans them."""
    for layers in SETS:
        for training, batches in ((False, layers.forward), (True, layers.training)):
            for n in batches:
                run_set(report, layers, n, training)
    plain = sorted((row for row in report.rows if row.facts["plain"]), key=_kind)
    for (direction, n), rows in itertools.groupby(plain, _kind):
        report.summarise(f"3×3 stride 1 of resnet50 and vgg16, N={n}, {direction}", list(rows))
    seven_loops(report)


def _kind(row: Row) -> tuple[str, int]:
    return row.facts["direction"], row.facts["n"]


def run_set(report: Report, layers: LayerSet, n: int, training: bool) -> None:
    """Measure the layers of a set on ``n`` images, and print their table."""
    direction = "forward + backward" if training else "forward"
    title = f"{layers.name}, N={n}, {direction}"
    rows = [
        row
        for layer in layers.layers
        if report.wants(f"{title}, {layer.conv.name}, {layer.text}")
        for row in report.compare(
            "conv", ConvTask(layer, n, training), TOLERANCE, set=layers.name, direction=direction, n=n,
            **facts(layer, n, training), plain=layer.is_plain and layers.name in ("resnet50", "vgg16"),
        )
    ]  # fmt: skip
    before: Columns = {"layer": lambda row: row.facts["name"], "problem": lambda row: row.facts["problem"]}
    before["×"] = lambda row: str(row.facts["count"])
    after: Columns = {"GFLOP/s": lambda row: f"{row.facts['flop'] / row.ours / 1e9:.0f}"}
    if "depthwise" in layers.name:
        after["GB/s"] = lambda row: f"{row.facts['bytes'] / row.ours / 1e9:.1f}"
    after["ours by"] = lambda row: row.facts["algorithm"]
    report.show(title, rows, before, after)
    report.summarise(title, rows)


def facts(layer: Layer, n: int, training: bool) -> dict[str, Any]:
    """What a row says about its layer; work and bytes are those of the definition."""
    problem = layer.problem(n)
    directions = [d for d in DIRECTIONS[: 3 if training else 1] if d != "input_grad" or not layer.reads_images]
    shapes = (problem.input_shape, problem.weight_shape, problem.output_shape)
    return {
        "name": layer.conv.name,
        "problem": f"mb{n}{layer.text}",
        "count": layer.count,
        "flop": 2 * problem.macs * len(directions),
        "bytes": 4 * sum(map(math.prod, shapes)) * len(directions),
        "algorithm": "/".join(dict.fromkeys(tinytorch.plan(problem, d).algorithm for d in directions)),
    }


def seven_loops(report: Report) -> None:
    """How much faster than the definition in plain Python, which is timed on a tiny layer."""
    name = "seven loops in plain Python"
    if not report.wants(name):
        return
    large, tiny = single("64→64", 64, 64, 56), single("4→4", 4, 4, 12)
    ours, loops = (Ours().conv(ConvTask(layer, 1)) for layer in (large, tiny))
    loops = replace(loops, name=name, mode=lambda: tinytorch.use_algorithm("loops"))
    ours.call()
    seconds = [statistics.median(values) for values in interleave([ours, loops], report.effort).values()]
    fast, slow = (layer.problem(1).macs / s for layer, s in zip((large, tiny), seconds, strict=True))
    report.note(name, macs_per_second=slow, ours_macs_per_second=fast, speed_up=fast / slow)
    report.say(f"{name}: {slow / 1e6:.2f} million MAC/s; ours on {large.text}: {fast / slow:,.0f} times as fast")
