"""The CPU that the kernels run on: how wide its vectors are, and how many of them it can hold at once.

Numba's own view of the CPU counts (``NUMBA_CPU_FEATURES`` included), since that is what the code is compiled for.
"""

from __future__ import annotations

import itertools
import math
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba import config as _numba_config


@dataclass(frozen=True)
class Target:
    """Vector unit of a CPU.

    Parameters
    ----------
    name
        Instruction set, for people.
    vector_bytes
        Width of one vector register.
    registers
        Vector registers that a program can name.
    """

    name: str
    vector_bytes: int
    registers: int

    def lanes(self, itemsize: int) -> int:
        """Numbers of ``itemsize`` bytes in one vector."""
        return self.vector_bytes // itemsize


@lru_cache(maxsize=1)
def target() -> Target:
    """The CPU that Numba compiles for in this process."""
    features = _features()
    if "avx512f" in features:
        return Target("AVX-512", 64, 32)
    if "avx2" in features:
        return Target("AVX2", 32, 16)
    return Target("generic 128-bit", 16, 16)


def _features() -> set[str]:
    """LLVM names of the instruction sets in use, from Numba's settings or from the CPU itself."""
    config: Any = _numba_config  # its settings are made at run time
    forced, name = config.CPU_FEATURES, config.CPU_NAME
    if forced is None and name not in (None, "host"):
        return _FEATURES_OF.get(name, set())
    if forced is None:
        return {name for name, present in binding.get_host_cpu_features().items() if present}
    return {flag[1:] for flag in forced.split(",") if flag.startswith("+")}


# NUMBA_CPU_NAME alone forces a model without naming its features; these are the ones a test or a user would name.
_AVX2 = ("haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "x86-64-v3")
_AVX512 = ("skylake-avx512", "icelake-server", "sapphirerapids", "znver4", "znver5", "x86-64-v4")
_FEATURES_OF = {name: {"avx2"} for name in _AVX2} | {name: {"avx2", "avx512f"} for name in _AVX512}


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """What the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@lru_cache(maxsize=1)
def l2_bytes() -> int:
    """Second-level cache of one core, as the system tells; half a megabyte where it does not."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (index / "level").read_text().strip() == "2" and (index / "size").exists():
            return int((index / "size").read_text().strip().removesuffix("K")) << 10
    return 512 << 10


@lru_cache(maxsize=4096)
def tile_shape(pixels: int, channels: int, itemsize: int, shares: int = 1) -> tuple[int, int]:
    """Rows and vectors of the register tile that wastes least on a line of ``pixels`` × ``channels`` outputs.

    A tile of ``rows × vectors`` does that many multiply-adds a step and loads ``rows`` broadcasts and ``vectors``
    vectors for them; with fewer than eight independent sums the adder's latency shows. What is left at the end of the
    line and of the channels gets a smaller tile. The cheapest cover wins, then the largest tile. Where threads share
    the channels, by whole tiles, it is that of the thread with the largest of so many shares.
    """
    cpu = target()
    needed = -(-channels // cpu.lanes(itemsize))

    def steps(shape: tuple[int, int]) -> tuple[int, int]:
        rows, vectors = shape
        largest = math.ceil(math.ceil(needed / vectors) / shares) * vectors
        covers = itertools.product(cover(pixels, rows), cover(min(largest, needed), vectors))
        return sum(m * n * max(r * v, r + v, 8) for (m, r), (n, v) in covers), -rows * vectors

    return min(_shapes(cpu, pixels, needed), key=steps)


def cover(length: int, piece: int) -> list[tuple[int, int]]:
    """How often which length is needed to cover ``length`` by pieces: (count, length), whole ones first."""
    return [(count, size) for count, size in ((length // piece, piece), (1, length % piece)) if count and size]


_MOST_ROWS, _MOST_VECTORS = 16, 6


def _shapes(cpu: Target, pixels: int, vectors_needed: int) -> list[tuple[int, int]]:
    """Tiles whose sums and vectors fit the registers, with one to spare."""
    return [
        (rows, vectors)
        for vectors in range(1, min(_MOST_VECTORS, vectors_needed) + 1)
        for rows in range(1, min(_MOST_ROWS, pixels) + 1)
        if rows * vectors + vectors < cpu.registers
    ]
