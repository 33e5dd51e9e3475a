"""Peak memory of training steps, every library in a process of its own: ``python -m benchmarks.memory``.

What is counted is the growth of the process's resident memory, from when model, optimizer and batch are there to its
highest point during some steps. So the optimizer's state and all code that is loaded or compiled on the way count.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

STEPS = 3
MIB = 1 << 20
CASES = (("resnet18-cifar", 128), ("resnet18", 128))
SHAPES = {"resnet18-cifar": (3, 32, 32), "resnet18": (3, 224, 224)}
WAYS = ("tinytorch", "tinytorch, accumulate=4", "tinytorch, checkpoint", "torch NCHW", "torch NHWC")


def main(
    only: Annotated[str, typer.Option(metavar="SUBSTRING", help="Only what has this in its name.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of every library.")] = 2,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Train some steps of ResNet-18 with each library, and print by how much its memory grew."""
    if child:
        name, n, way = json.loads(child)
        print(json.dumps(measure(training_step(name, n, way))))
        return
    rows = [(name, n) for name, n in CASES if only in f"{name}, N={n}"]
    figures = {f"{name}, N={n}": {way: in_process(name, n, way, threads) for way in WAYS} for name, n in rows}
    Console(width=160).print(as_table(figures))
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


def in_process(name: str, n: int, way: str, threads: int) -> dict[str, int]:
    """`measure` in a fresh process."""
    pinned = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps([name, n, way])]
    done = subprocess.run(command, env={**os.environ, **pinned}, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(step: Callable[[], Any]) -> dict[str, int]:
    """Bytes of resident memory: at the start, and the highest during one step, and during some."""
    gc.collect()
    forget_peak()
    start = resident("VmRSS")
    peaks = []
    for _ in range(STEPS):
        step()
        peaks.append(resident("VmHWM"))
    return {"start": start, "first": peaks[0], "peak": peaks[-1]}


def resident(field: str) -> int:
    """Resident memory of this process in bytes, now (VmRSS) or at its highest (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: the highest is all that there is, in bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def forget_peak() -> None:
    """Let the highest point count from now (see proc(5), clear_refs)."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def training_step(name: str, n: int, way: str) -> Callable[[], Any]:
    """What runs one step; the batch is random."""
    from benchmarks.networks import NETWORKS
    from benchmarks.peers import NetworkTask, Ours, Torch

    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((n, *SHAPES[name]), np.float32), rng.integers(0, 10, n)
    task = NetworkTask(network(name), NETWORKS[name], images, labels)
    if way.startswith("torch"):
        peer = Torch(way, {"NCHW": "contiguous_format", "NHWC": "channels_last"}[way.split()[1]])
        return peer.train(task).call
    if way.endswith("checkpoint"):
        checkpoint_blocks(task.model)
    return accumulating(task, 4) if way.endswith("accumulate=4") else Ours().train(task).call


def network(name: str) -> Any:
    from tinytorch.models import resnet

    return resnet.resnet18_cifar() if name == "resnet18-cifar" else resnet.resnet18()


def checkpoint_blocks(model: Any) -> None:
    """Let every residual block keep nothing but its input."""
    from tinytorch.core.checkpointing import checkpoint
    from tinytorch.models.resnet import BasicBlock

    for block in model.modules():
        if isinstance(block, BasicBlock):
            forward = block.forward
            vars(block)["forward"] = lambda x, forward=forward: checkpoint(forward, x)


def accumulating(task: Any, parts: int) -> Callable[[], Any]:
    """Steps of a trainer that computes each batch in parts."""
    from tinytorch import nn, optim
    from tinytorch.core.dataloader import DataLoader, TensorDataset
    from tinytorch.core.training import Trainer

    optimizer = optim.AdamW(task.model.parameters(), lr=1e-4)
    trainer = Trainer(task.model, optimizer, nn.CrossEntropyLoss(), accumulate=parts)
    loader = DataLoader(TensorDataset(task.images, task.labels), batch_size=len(task.images))
    return lambda: trainer.fit(loader, epochs=trainer.epoch + 1)


def as_table(figures: dict[str, dict[str, dict[str, int]]]) -> Table:
    """Growth to the highest point in MiB, and the least of the others over ours."""
    table = Table(title=f"growth of resident memory in {STEPS} training steps, MiB", title_justify="left", box=None)
    for column in ("network", *WAYS, "best peer / ours"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, by_way in figures.items():
        grown = {way: (at["peak"] - at["start"]) / MIB for way, at in by_way.items()}
        best = min(value for way, value in grown.items() if way.startswith("torch"))
        table.add_row(name, *(f"{grown[way]:,.0f}" for way in WAYS), f"{best / grown['tinytorch']:.2f}×")
    return table


if __name__ == "__main__":
    typer.run(main)
