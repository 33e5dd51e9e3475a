"""What is kept between forward and backward, counted on the shelf; and the pieces of the benchmark of memory."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest

from benchmarks import memory as benchmark
from tinytorch import Tensor, nn
from tinytorch.conv.pack import channels_last
from tinytorch.core.checkpointing import checkpoint
from tinytorch.kernels import memory

MIB = 1 << 20


@pytest.fixture(autouse=True)
def fresh_shelf():
    with memory.afresh():
        yield


def in_use():
    """Bytes of all recycled arrays that are alive."""
    memory.release()
    return sum(arena.top - arena.start - sum(size for size, _ in arena._holes) for arena in memory._shelf._arenas)


def images(channels, size):
    return Tensor(channels_last(np.ones((4, channels, size, size), np.float32)))


@pytest.mark.parametrize("algorithm", ["winograd", "direct"])
def test_a_convolution_keeps_its_input_and_no_form_of_its_weights(algorithm):
    layer, x = nn.Conv2d(128, 128, 3, padding=1, algorithm=algorithm), images(128, 16)
    layer(x).sum().backward()  # scratch memory is made once
    layer.zero_grad()
    before = in_use()
    y = layer(x)
    assert y.array.nbytes <= in_use() - before < 1.1 * y.array.nbytes


def test_a_checkpoint_keeps_its_input_only():
    block = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(3))
    )
    x = images(16, 64)
    checkpoint(block, x).sum().backward()
    block.zero_grad()
    grown = []
    for run in (block, lambda t: checkpoint(block, t)):
        before = in_use()
        y = run(x)
        grown.append((in_use() - before) / y.array.nbytes)
        del y
    assert grown[0] > 5.9  # of each layer what it normalises, and what it clips
    assert 1 <= grown[1] < 1.1


# ---- the benchmark ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_benchmark_sees_what_a_step_takes_for_a_moment():
    sizes = iter([16, 64, 32])

    def touch():
        pages = mmap.mmap(-1, next(sizes) * MIB)  # the system's own: the C library may have some to spare
        np.frombuffer(pages, np.uint8)[...] = 1

    figures = benchmark.measure(touch)
    assert 15 * MIB < figures["first"] - figures["start"] < 40 * MIB
    assert 63 * MIB < figures["peak"] - figures["start"] < 90 * MIB


def test_the_table_compares_with_the_best_of_the_others():
    at = {way: {"start": 10 * MIB, "peak": (110 + 50 * i) * MIB} for i, way in enumerate(benchmark.WAYS)}
    table = benchmark.as_table({"net, N=1": at})
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells == ["net, N=1", "100", "150", "200", "250", "300", "2.50×"]
