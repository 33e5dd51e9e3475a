"""The command line: ``python -m benchmarks conv|family|train|infer``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

# Keep freed memory, so that the system does not hand out large arrays page by page, again and again.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": 1 << 32, "MALLOC_MMAP_THRESHOLD_": 1 << 32, "MALLOC_TOP_PAD_": 1 << 28}


class What(StrEnum):
    """What can be measured."""

    conv, family, train, infer = "conv", "family", "train", "infer"


def main(
    what: Annotated[What, typer.Argument(help="Convolution layers, all operations, training steps, or inference.")],
    quick: Annotated[bool, typer.Option("--quick", help="3 rounds of short blocks, not 7 of longer ones.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every library.")] = 2,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    only: Annotated[str, typer.Option(metavar="SUBSTRING", help="Only what has this in its name.")] = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of every comparison.")] = None,
    roofline: Annotated[Path | None, typer.Option(help="Draw our layers under the roofline into this PNG.")] = None,
    malloc_tuned: Annotated[bool, typer.Option("--malloc-tuned", help="Let glibc keep freed memory.")] = False,
) -> None:
    """Compare tinytorch with other libraries, all timed in one run.

    What was measured is kept even if interrupted. The exit code is 1 if outputs differed and a comparison was void.
    """
    if malloc_tuned:
        _with_malloc_tuned()
    _pin(threads)
    from benchmarks.report import Report
    from benchmarks.timing import Effort

    report = Report(threads, Effort(rounds or (3 if quick else 7), 0.02 if quick else 0.06), only)
    try:
        import_module(f"benchmarks.{what}").run(report)
        if roofline:
            import_module("benchmarks.roofline").draw(report, roofline)
    finally:
        report.finish()
        if json:
            report.save(json)
    raise typer.Exit(1 if report.void else 0)


def _with_malloc_tuned() -> None:
    """Start anew with the settings, which glibc reads only then."""
    wanted = {name: str(value) for name, value in MALLOC.items()}
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], {**os.environ, **wanted})


def _pin(threads: int) -> None:
    """Settings that libraries read when they are loaded."""
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(threads)
    os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")  # else OpenVINO's TBB, once loaded, would run our threads
    with suppress(ImportError):
        import torch  # noqa: F401  (before tinytorch, which shortens the spinning of OpenMP's threads)


if __name__ == "__main__":
    typer.run(main)
