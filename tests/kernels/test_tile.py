"""The emitted tile against its plain-Python twin, on every block size the planner may ask for."""

import numba
import numpy as np
import pytest

from tinytorch.kernels import emit  # noqa: F401  teaches the compiler what tile means
from tinytorch.kernels import target as cpu
from tinytorch.kernels.tile import tile


def compiled(rows, vectors, masked, width):
    @numba.njit
    def run(c, d, a, b, counts, lanes):
        tile(
            rows,
            vectors,
            masked,
            width,
            (c, 3, 200),
            (d, 1, 0),
            (a, 2, 7, 31, 11, 2),
            (b, 5, 400, 150, 70),
            counts,
            lanes,
        )

    return run


def operands(dtype, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(-4, 5, 4000).astype(dtype) for _ in range(4)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "vectors"), [(1, 1), (3, 2), (14, 2), (16, 1), (6, 4), (9, 3)])
@pytest.mark.parametrize("masked", [0, 1])
def test_emitted_tile_is_its_twin(dtype, rows, vectors, masked):
    width = cpu.target().lanes(np.dtype(dtype).itemsize)
    run = compiled(rows, vectors, masked, width)
    for lanes in {1, width, vectors * width - 1, vectors * width} if masked else {vectors * width}:
        for counts in ((2, 3, 4), (1, 1, 1), (0, 3, 4), (2, 0, 1)):
            c, d, a, b = operands(dtype, lanes)
            expected = c.copy()
            run(c, d, a, b, counts, lanes)
            tile(
                rows,
                vectors,
                masked,
                width,
                (expected, 3, 200),
                (d, 1, 0),
                (a, 2, 7, 31, 11, 2),
                (b, 5, 400, 150, 70),
                counts,
                lanes,
            )
            np.testing.assert_array_equal(c, expected)


def test_masked_tile_reads_and_writes_no_further_than_its_lanes():
    width = cpu.target().lanes(4)
    run = compiled(2, 2, 1, width)
    lanes = width + 1
    c, d, a, b = operands(np.float32, 0)
    b_line = np.full(b.size, np.nan, np.float32)
    for o in range(2):
        for m in range(2):
            for i in range(3):
                at = 5 + o * 400 + m * 150 + i * 70
                b_line[at : at + lanes] = b[at : at + lanes]
    before = c.copy()
    run(c, d, a, b_line, (2, 2, 3), lanes)
    written = np.zeros(c.size, bool)
    for r in range(2):
        written[3 + 200 * r : 3 + 200 * r + lanes] = True
    assert np.isfinite(c).all()
    np.testing.assert_array_equal(c[~written], before[~written])
    assert (c[written] != before[written]).any()


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize(
    ("name", "vector_bytes", "registers"), [("AVX-512", 64, 32), ("AVX2", 32, 16), ("generic", 16, 16)]
)
def test_tile_shapes_fit_the_registers(monkeypatch, itemsize, name, vector_bytes, registers):
    kind = cpu.Target(name, vector_bytes, registers)
    monkeypatch.setattr(cpu, "target", lambda: kind)
    for pixels in range(1, 70):
        for channels in (1, 3, 16, 33, 64, 512):
            rows, vectors = cpu.tile_shape.__wrapped__(pixels, channels, itemsize)
            assert 1 <= rows <= pixels
            assert rows * vectors + vectors <= registers - (registers == 16)
            assert (vectors - 1) * kind.lanes(itemsize) < channels


@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        ("haswell", None, "AVX2"),
        ("sapphirerapids", None, "AVX-512"),
        ("x86-64", None, "generic 128-bit"),
        (None, "+avx2,+fma,-avx512f", "AVX2"),
        (None, "+avx512f", "AVX-512"),
        (None, "", "generic 128-bit"),
    ],
)
def test_numbas_view_of_the_cpu_counts(monkeypatch, name, features, expected):
    monkeypatch.setattr(numba.config, "CPU_NAME", name)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    assert cpu.target.__wrapped__().name == expected
