"""The roofline: how fast a layer could be, given the arithmetic and the memory of this computer.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore architectures",
2009. A layer that does I floating-point operations for every byte that it has to move can't exceed
min(peak, I · bandwidth). The peak is that of the best matrix product, the bandwidth that of a triad. An algorithm that
multiplies less than the definition (Winograd's) may well stand above the peak.
"""

from __future__ import annotations

import operator
import statistics
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import optional
from benchmarks.report import Report
from benchmarks.timing import Effort, Runner, interleave

torch = optional("torch")
SIDE = 2048
TRIAD_BYTES = 64 << 20
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's


def peak(effort: Effort) -> float:
    """FLOP/s of the best product of two float32 matrices, NumPy's or PyTorch's."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    factors = [a, torch.from_numpy(a)] if torch else [a]
    seconds = interleave([Runner(str(type(x)), partial(operator.matmul, x, x), list) for x in factors], effort)
    return 2 * SIDE**3 / min(map(statistics.median, seconds.values()))


def bandwidth(threads: int, effort: Effort) -> float:
    """Bytes/s of the triad a = b + s·c over arrays of 64 MB, a share for each thread."""
    shares = [np.ones((3, TRIAD_BYTES // 4 // threads), np.float32) for _ in range(threads)]

    def triad(share: np.ndarray) -> None:
        a, b, c = share
        np.multiply(c, 3, out=a)  # NumPy has no fused form: two passes, which read two arrays and three
        np.add(a, b, out=a)

    with ThreadPoolExecutor(threads) as pool:
        seconds = interleave([Runner("triad", lambda: [*pool.map(triad, shares)], list)], effort)["triad"]
    return 5 * TRIAD_BYTES / statistics.median(seconds)


def draw(report: Report, path: Path) -> None:
    """Measure the roof and draw our layers, forward, under it, as a PNG."""
    from matplotlib.figure import Figure

    flops, bytes_a_second = peak(report.effort), bandwidth(report.threads, report.effort)
    report.note("roof", flops=flops, bytes_per_second=bytes_a_second)
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    axes = figure.subplots()
    intensity = np.geomspace(1, 1000, 200)
    axes.plot(intensity, np.minimum(flops, intensity * bytes_a_second) / 1e9, color="black")
    rows = [row for row in report.rows if row.facts.get("direction") == "forward"]
    for colour, name in zip(COLOURS, dict.fromkeys(row.facts["set"] for row in rows), strict=False):
        points = [(row.facts["flop"], row.facts["bytes"], row.ours) for row in rows if row.facts["set"] == name]
        flop, moved, seconds = np.array(points).T
        axes.plot(flop / moved, flop / seconds / 1e9, "o", color=colour, markersize=5, alpha=0.7, label=name)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte of input, weights and output", ylabel="GFLOP/s")
    roof = f"matrix product {flops / 1e9:.0f} GFLOP/s, triad {bytes_a_second / 1e9:.1f} GB/s"
    axes.set_title(f"{report.environment['cpu']}, {report.threads} threads\n{roof}")
    axes.grid(color="#dddddd")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    report.say(f"roofline in {path}")
