"""The CPU that the kernels run on: how wide its vectors are, and how many of them it can hold at once.

Numba's own view of the CPU counts (``NUMBA_CPU_FEATURES`` included), since that is what the code is compiled for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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


@lru_cache(maxsize=4096)
def tile_shape(pixels: int, channels: int, itemsize: int) -> tuple[int, int]:
    """Rows and vectors of the register tile that wastes least on a line of ``pixels`` × ``channels`` outputs.

    A tile of ``rows × vectors`` does that many multiply-adds a step and loads ``rows`` broadcasts and ``vectors``
    vectors for them; with fewer than eight independent sums the adder's latency shows. The cheapest cover of the line
    wins, then the largest tile.
    """
    cpu = target()
    vectors_needed = -(-channels // cpu.lanes(itemsize))

    def steps(shape: tuple[int, int]) -> tuple[int, int]:
        rows, vectors = shape
        tiles = -(-pixels // rows) * -(-vectors_needed // vectors)
        return tiles * max(rows * vectors, rows + vectors, 8), -rows * vectors

    return min(_shapes(cpu, pixels, vectors_needed), key=steps)


# Heights of a tile. Every one is a kernel to compile, so these few have to do: powers of two, and what divides 7, 14,
# 28, 56, 9 and 12.
_ROWS = (1, 2, 3, 4, 6, 7, 8, 9, 12, 14, 16)


def _shapes(cpu: Target, pixels: int, vectors_needed: int) -> list[tuple[int, int]]:
    """Tiles whose sums, vectors and one spare (AVX-512 broadcasts from memory and needs none) fit the registers."""
    spare = 0 if cpu.registers == 32 else 1
    return [
        (rows, vectors)
        for vectors in range(1, min(4, vectors_needed) + 1)
        for rows in _ROWS
        if rows <= pixels and rows * vectors + vectors + spare <= cpu.registers - (cpu.registers == 32)
    ]
