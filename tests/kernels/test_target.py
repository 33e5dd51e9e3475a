"""The CPU: which vectors it has, how large its cache is, and the tile that suits both."""

from __future__ import annotations

import itertools

import numba
import pytest

from tinytorch.kernels import target as cpu

AVX512, AVX2, GENERIC = (cpu.Target("AVX-512", 64, 32), cpu.Target("AVX2", 32, 16), cpu.Target("generic", 16, 16))


@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        ("haswell", None, "AVX2"),
        ("sapphirerapids", None, "AVX-512"),
        ("x86-64", None, "generic 128-bit"),
        (None, "+avx2,+fma,-avx512f", "AVX2"),
        (None, "+avx512f", "AVX-512"),
        (None, "", "generic 128-bit"),
        ("haswell", "+avx512f", "AVX-512"),
    ],
)
def test_numbas_view_of_the_cpu_counts(monkeypatch, name, features, expected):
    monkeypatch.setattr(numba.config, "CPU_NAME", name)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    assert cpu.target.__wrapped__().name == expected


def test_lanes_of_a_vector():
    assert [kind.lanes(itemsize) for kind in (AVX512, AVX2, GENERIC) for itemsize in (4, 8)] == [16, 8, 8, 4, 4, 2]


# ---- the second-level cache ---------------------------------------------------------------------------------------


def l2_bytes(monkeypatch, folder, **files):
    """What ``l2_bytes`` says where the system describes its caches by ``files``: folder → level and size."""
    for index, (level, size) in files.items():
        (folder / index).mkdir()
        (folder / index / "level").write_text(f"{level}\n")
        if size:
            (folder / index / "size").write_text(f"{size}\n")
    monkeypatch.setattr(cpu, "Path", lambda path: folder)
    return cpu.l2_bytes.__wrapped__()


def test_l2_is_what_the_system_tells(monkeypatch, tmp_path):
    caches = {"index0": (1, "48K"), "index1": (1, "32K"), "index2": (2, "1280K"), "index3": (3, "32768K")}
    assert l2_bytes(monkeypatch, tmp_path, **caches) == 1280 * 1024


def test_l2_is_half_a_megabyte_where_nothing_tells(monkeypatch, tmp_path):
    assert l2_bytes(monkeypatch, tmp_path / "none") == 512 * 1024
    assert l2_bytes(monkeypatch, tmp_path, index0=(1, "48K")) == 512 * 1024


def test_l2_is_half_a_megabyte_where_the_level_has_no_size(monkeypatch, tmp_path):
    assert l2_bytes(monkeypatch, tmp_path, index0=(1, None), index1=(2, None)) == 512 * 1024


# ---- the shape of the tile ----------------------------------------------------------------------------------------


def sizes_that_fit(kind, pixels, vectors):
    """Every size whose sums and shared vectors leave a register free."""
    sizes = itertools.product(range(1, min(16, pixels) + 1), range(1, min(6, vectors) + 1))
    return [(r, v) for r, v in sizes if r * v + v + 1 <= kind.registers]


def steps(size, pixels, vectors, shares=1):
    """Cost of a line, tile by tile; that of the largest of so many shares of the vectors, dealt tile by tile."""
    rows, columns = size
    tiles_across = len(range(0, vectors, columns))
    vectors = min(vectors, len(range(0, tiles_across, shares)) * columns)
    tiles = [
        (min(rows, pixels - p), min(columns, vectors - v))
        for p in range(0, pixels, rows)
        for v in range(0, vectors, columns)
    ]
    return sum(max(r * v, r + v, 8) for r, v in tiles)


@pytest.mark.parametrize("shares", [1, 2, 5])
@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("kind", [AVX512, AVX2, GENERIC], ids=lambda kind: kind.name)
def test_tile_is_the_cheapest_that_fits_the_registers(monkeypatch, itemsize, kind, shares):
    monkeypatch.setattr(cpu, "target", lambda: kind)
    for pixels, channels in itertools.product((1, 2, 3, 7, 13, 14, 16, 28, 33, 56, 112), (1, 3, 16, 33, 64, 200)):
        vectors = -(-channels // kind.lanes(itemsize))
        chosen = cpu.tile_shape.__wrapped__(pixels, channels, itemsize, shares)
        allowed = sizes_that_fit(kind, pixels, vectors)
        cost = {size: steps(size, pixels, vectors, shares) for size in allowed}
        assert chosen in allowed
        assert cost[chosen] == min(cost.values())
        assert chosen[0] * chosen[1] == max(r * v for r, v in allowed if cost[r, v] == cost[chosen])
