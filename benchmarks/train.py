"""Train the same network on the same batches here and in PyTorch, step for step, and compare the times.

    python -m benchmarks.train [--threads 2] [--rounds 9] [--steps 12]

Both start from the same weights and see the same data; their losses must stay together, else the comparison is void.
PyTorch runs in both of its memory formats and the better one counts. Rounds are interleaved, with a rest between
them because OpenMP threads spin for a while after their work and would slow the next library down. The figure of a
library is the median over rounds of its mean time a step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

REST = 0.05  # seconds

Step = Callable[[], float]


def network(nn, name: str):
    """The layers of one network, in either library."""
    if name == "SimpleCNN":
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10))
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, 256), nn.ReLU(), nn.Linear(256, 10))


SHAPES = {"SimpleCNN": (64, 3, 32, 32), "MNISTConvNet": (64, 1, 28, 28)}


def batch(name: str):
    import numpy as np

    rng = np.random.default_rng(0)
    n, c, h, w = SHAPES[name]
    images = rng.standard_normal((n, h, w, c)).astype(np.float32).transpose(0, 3, 1, 2)
    return images, rng.integers(0, 10, n)


def training_step(model, optimizer, loss_of, images, labels) -> Step:
    """Forward, backward and update, the same text for both libraries."""

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_step(name: str, weights: dict) -> Step:
    import tinytorch
    from tinytorch import nn, optim

    model = network(nn, name)
    model.load_state_dict(weights)
    optimizer, loss_of = optim.AdamW(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    images, labels = (tinytorch.Tensor(a) for a in batch(name))
    return training_step(model, optimizer, loss_of, images, labels)


def torch_step(name: str, weights: dict, memory_format) -> Step:
    import torch

    model = network(torch.nn, name)
    model.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    model = model.to(memory_format=memory_format)
    optimizer, loss_of = torch.optim.AdamW(model.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()
    images, labels = (torch.from_numpy(a.copy()) for a in batch(name))
    images = images.to(memory_format=memory_format)
    return training_step(model, optimizer, loss_of, images, labels)


def measure(runners: dict[str, Step], rounds: int, steps: int) -> dict[str, float]:
    """Milliseconds a step of each runner, checked to compute the same."""
    losses = {name: [step() for _ in range(5)] for name, step in runners.items()}
    first = next(iter(losses.values()))
    for name, values in losses.items():
        if any(abs(a - b) > 1e-3 * abs(a) for a, b in zip(first, values, strict=True)):
            raise SystemExit(f"losses differ: {losses}; the comparison is void ({name})")
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, step in runners.items():
            time.sleep(REST)
            step()
            start = time.perf_counter()
            for _ in range(steps):
                step()
            times[name].append((time.perf_counter() - start) / steps * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(options.threads)

    import torch
    from rich.console import Console
    from rich.table import Table

    from tinytorch import nn
    from tinytorch.kernels.target import target

    torch.set_num_threads(options.threads)
    table = Table(title=f"Training step, batch 64, {options.threads} threads · {cpu_name()} ({target().name})")
    for column in ("network", "tinytorch ms", "torch NCHW ms", "torch channels_last ms", "images/s", "ratio"):
        table.add_column(column, justify="left" if column == "network" else "right")
    figures = {}
    for name, shape in SHAPES.items():
        weights = network(nn, name).state_dict()
        runners = {
            "tinytorch": our_step(name, weights),
            "nchw": torch_step(name, weights, torch.contiguous_format),
            "channels_last": torch_step(name, weights, torch.channels_last),
        }
        ms = measure(runners, options.rounds, options.steps)
        ratio = min(ms["nchw"], ms["channels_last"]) / ms["tinytorch"]
        figures[name] = {**ms, "ratio": ratio}
        row = [f"{ms[key]:.2f}" for key in runners] + [f"{shape[0] / ms['tinytorch'] * 1e3:,.0f}", f"{ratio:.2f}×"]
        table.add_row(name, *row)
    console = Console(width=110)
    console.print(table)
    console.print("ratio = the better PyTorch time / ours; above 1 we are ahead")
    if options.json:
        options.json.write_text(json.dumps({"cpu": cpu_name(), "threads": options.threads, "ms": figures}, indent=1))


if __name__ == "__main__":
    main()
