"""`tinytorch doctor`: what this computer offers, what is wrong with the installation, and how to mend it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

_GIGABYTE = 2**30


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Examine CPU, threads, caches and versions; exit code 1 if the kernels compute something wrong."""
    from tinytorch.cli import console as out

    broken = list(_failures())  # first: it loads the threading layer and fills the cache
    report, warnings = _report(), list(_warnings())
    if json:
        out.print_json({**report, "broken": broken, "warnings": warnings})
    else:
        _show(report, broken, warnings)
    raise typer.Exit(1 if broken else 0)


def _show(report: dict[str, str], broken: list[str], warnings: list[str]) -> None:
    from tinytorch.cli import console as out

    console = out.console()
    console.print(out.facts(list(report.items())))
    console.print()
    for mark, problems in (("[bold red]broken[/] ", broken), ("[bold yellow]mend[/] ", warnings)):
        for problem in problems:
            console.print(f"{mark} {problem}")
    if not broken and not warnings:
        console.print("[bold green]all is well[/]")


def _report() -> dict[str, str]:
    """The facts, by name."""
    import numba
    import numpy as np

    from tinytorch import __version__
    from tinytorch.kernels.jit import workers
    from tinytorch.kernels.target import cpu_name, target

    cpu = target()
    return {
        "CPU": cpu_name(),
        "vectors": f"{cpu.name}: {8 * cpu.vector_bytes} bits, {cpu.registers} registers",
        "cores": f"{cores()} usable of {os.cpu_count()}",
        "threads": f"{workers()}, by {_threading_layer()}",
        "memory": f"{_free_memory() / _GIGABYTE:.1f} GB free",
        "kernel cache": str(cache_folder()),
        "tinytorch": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "Numba": numba.__version__,
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Return where Numba keeps the compiled kernels."""
    from tinytorch.kernels import elementwise

    return Path(elementwise._clip.stats.cache_path)


def _threading_layer() -> str:
    import numba

    return str(numba.threading_layer())


def _free_memory() -> int:
    """Bytes that a program can have without swapping."""
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    available = (1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return next(available, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _failures() -> Iterator[str]:
    """Say what is broken: compute one convolution by the fast kernels and by the seven loops."""
    import numpy as np

    import tinytorch
    from tinytorch.core import functional as F
    from tinytorch.core.spatial import Conv2d

    x = tinytorch.Tensor(np.arange(-96, 96, dtype=np.float32).reshape(1, 3, 8, 8) % 7)
    conv = Conv2d(3, 4, kernel_size=3, padding=1)
    fast = F.relu(conv(x)).numpy()
    with tinytorch.use_algorithm("loops"):
        expected = np.maximum(conv(x).numpy(), 0)
    if not np.allclose(fast, expected, rtol=1e-4, atol=1e-4):
        worst = np.abs(fast - expected).max()
        yield (
            f"a convolution differs from its definition by {worst:.3g}: the kernels are wrong; delete "
            f"the .nbi and .nbc files in {cache_folder()}, and if that does not help, report it"
        )


def _warnings() -> Iterator[str]:
    """Say what works but should be better, and the remedy."""
    folder = cache_folder()
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        yield f"{folder} is not writable, so every start compiles; set NUMBA_CACHE_DIR to a folder of yours"
    if _threading_layer() == "workqueue":
        yield "Numba has only its slow workqueue threads; install libgomp, or pip install tbb"
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > cores():
            yield f"{name} is {value}, but {cores()} cores are usable: threads wait for each other; unset it"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        yield "NUMBA_DISABLE_JIT is set: the kernels run as plain Python, a thousand times slower; unset it"
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        if name in os.environ:
            yield f"{name} is set: kernels are compiled for that CPU and not for this one; unset it"
    if _free_memory() < _GIGABYTE:
        yield "less than 1 GB of memory is free; close other programs, or use a smaller --batch-size"
    if sys.maxsize < 2**32:
        yield "this is a 32-bit Python; install a 64-bit one"
