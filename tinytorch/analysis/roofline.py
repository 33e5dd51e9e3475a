"""What this machine can do at best, measured in a fraction of a second, and which of its limits a layer meets.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore architectures",
2009: a layer that does I floating-point operations for every byte that it has to move can't exceed
min(peak, I · bandwidth).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from tinytorch.analysis.race import peak_flops

_COPIED = 32 << 20  # bytes; more than caches hold


@dataclass(frozen=True)
class Machine:
    """Two limits.

    Attributes
    ----------
    flops : float
        Floating-point operations a second, float32; see `race.peak_flops`.
    bandwidth : float
        Bytes a second, read and written, of a copy of an array larger than the caches.
    """

    flops: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """FLOPs for each byte above which arithmetic is the limit, below which memory is."""
        return self.flops / self.bandwidth

    def limit(self, intensity: float) -> str:
        """Which limit so many FLOPs for each byte meet: "arithmetic" or "memory"."""
        return "arithmetic" if intensity >= self.ridge else "memory"


@cache
def machine() -> Machine:
    """Measure it, the first time. The best of several runs, since others may be using the machine too."""
    return Machine(peak_flops(4), 2 * _COPIED / min(_copy_seconds() for _ in range(7)))


@cache
def _arrays() -> tuple[np.ndarray, np.ndarray]:
    return np.ones(_COPIED, np.uint8), np.ones(_COPIED, np.uint8)


def _copy_seconds() -> float:
    start = time.perf_counter()
    np.copyto(*_arrays())
    return time.perf_counter() - start
