"""Counts of work and memory, against counting one by one, against published figures, and against what is allocated."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, integers, problem_of
from tinytorch.conv import fft, im2col, loops
from tinytorch.conv.cost import Cost, cost
from tinytorch.conv.pack import channels_last
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.conv.weights import Weights
from tinytorch.kernels import memory

TRIALS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ALGORITHMS = ("loops", "im2col", "direct", "fft")


def channel_pairs(case):
    """Pairs (input channel, output channel) of the same group, counted one by one."""
    of_group = [
        (i * case.groups // case.ci, o * case.groups // case.co) for i in range(case.ci) for o in range(case.co)
    ]
    return sum(left == right for left, right in of_group)


def positions(*sizes):
    return list(itertools.product(*map(range, sizes)))


def visits(case):
    """Multiplications of the seven loops, counted along the spatial ones."""
    return sum(case.n * channel_pairs(case) for _ in positions(*case.output_size, *case.kernel))


def meetings(case):
    """Multiplications where each input pixel looks for the windows that could have read it through each tap."""
    before = [low for low, _ in case.padding]

    def is_window(pixel, tap):
        starts = [p + b - t * d for p, b, t, d in zip(pixel, before, tap, case.dilation, strict=True)]
        return all(start % stride == 0 for start, stride in zip(starts, case.stride, strict=True))

    pairs = itertools.product(positions(*case.size), positions(*case.kernel))
    return sum(case.n * channel_pairs(case) for pixel, tap in pairs if is_window(pixel, tap))


@TRIALS
@given(cases(max_dims=3, max_pixels=6), st.sampled_from(DIRECTIONS))
def test_multiplications_are_those_of_the_loops(case, direction):
    problem, expected = problem_of(case), visits(case)
    for algorithm in ALGORITHMS:
        assert cost(problem, direction, algorithm, 4).macs == expected
    assert cost(problem, direction, "loops", 4).multiplies == expected
    assert cost(problem, direction, "im2col", 4).multiplies == expected
    direct = meetings(case) if direction == "input_grad" else expected
    assert cost(problem, direction, "direct", 4).multiplies == direct


def fourier(values, products):
    """Transform of 2ᵗ numbers by halves (Cooley and Tukey); ``products`` gets one entry a complex multiplication."""
    if len(values) == 1:
        return values
    even, odd = fourier(values[::2], products), fourier(values[1::2], products)
    turns = [np.exp(-2j * np.pi * k / len(values)) for k in range(len(odd))]
    turned = [turn * number for turn, number in zip(turns, odd, strict=True)]
    products += turned
    return [e + t for e, t in zip(even, turned, strict=True)] + [e - t for e, t in zip(even, turned, strict=True)]


@pytest.mark.parametrize("points", [2, 8, 64])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fft_multiplications(points, direction):
    """Two images, three input and five output channels: 6 + 15 + 10 planes, and 30 products a frequency."""
    products = []
    signal = np.random.default_rng(0).standard_normal(points)
    np.testing.assert_allclose(fourier(list(signal), products), np.fft.fft(signal))
    of_transforms = 31 * 4 * len(products) // 2  # real numbers need half
    of_frequencies = 4 * 30 * len(np.fft.rfft(signal))
    counted = cost(ConvProblem.of((2, 3, points), (5, 3, 2)), direction, "fft", 4)
    assert counted.multiplies == of_transforms + of_frequencies


@pytest.mark.parametrize("limit", [0, 1 << 16])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fft_of_several_blocks_repeats_transforms_and_not_products(limit, direction, monkeypatch):
    problem = ConvProblem.parse("mb4ic6oc5_ih16kh5")
    whole = cost(problem, direction, "fft", 4)
    monkeypatch.setattr(fft, "SCRATCH_BYTES", limit)
    cut = cost(problem, direction, "fft", 4)
    again = fft.blocks(problem, direction, 4).transforms - (4 * 6 + 6 * 5 + 4 * 5)
    assert again > 0 and cut.scratch < whole.scratch
    assert cut.multiplies - whole.multiplies == again * 256 * 8  # log₂ 256
    assert cut.bytes - whole.bytes == again * 16 * 9 * 8  # half a spectrum of complex numbers


@pytest.mark.parametrize(("tile", "saving"), [(2, 2.25), (4, 4.0)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_winograd_saves_what_lavin_and_gray_say(tile, saving, direction):
    counted = cost(ConvProblem.parse("mb2ic8oc6_ih56kh3ph1"), direction, "winograd", 4, tile)
    assert counted.macs / counted.multiplies == saving


@TRIALS
@given(cases(max_dims=3, max_pixels=9), st.sampled_from(DIRECTIONS), st.integers(1, 5))
def test_winograd_multiplications(case, direction, tile):
    """One by one: tiles begun along each axis, numbers of a transformed tile, pairs of channels."""
    problem = ConvProblem.of(
        (case.n, case.ci, *case.size), (case.co, case.ci // case.groups, *[3] * len(case.size)), 1, 2, 1, case.groups
    )
    covered = problem.input_shape[2:] if direction == "input_grad" else problem.output_shape[2:]
    tiles = sum(all(p % tile == 0 for p in pixel) for pixel in positions(*covered)) * case.n
    numbers = len(positions(*[tile + 2] * len(case.size)))
    counted = cost(problem, direction, "winograd", 8, tile)
    assert counted.multiplies == tiles * numbers * channel_pairs(case)
    operands = math.prod(problem.input_shape) + math.prod(problem.weight_shape) + math.prod(problem.output_shape)
    assert counted.scratch == 8 * numbers * channel_pairs(case)
    assert counted.bytes == 8 * operands + counted.scratch


def test_winograd_tile_is_4_by_4_unless_told():
    problem = ConvProblem.parse("ic3oc5_ih11kh3")
    assert cost(problem, "forward", "winograd", 4) == cost(problem, "forward", "winograd", 4, tile=4)


@TRIALS
@given(cases(max_dims=3, max_pixels=9), st.sampled_from(DIRECTIONS), st.sampled_from([np.float32, np.float64]))
def test_bytes_are_the_operands_and_what_is_written_in_between(case, direction, dtype):
    x, w, _, dy = integers(case, 0, dtype)
    problem, itemsize = problem_of(case), x.itemsize
    operands = x.nbytes + w.nbytes + dy.nbytes
    padded = np.pad(x, [(0, 0), (0, 0), *case.padding]).nbytes
    columns = im2col.columns(problem, x).nbytes
    relaid = dy.nbytes if direction == "forward" else 0
    spectrum = np.fft.rfftn(np.zeros(fft.grid(problem))).size * 2 * itemsize
    planes = case.n * case.ci + channel_pairs(case) + case.n * case.co
    between = {"loops": padded + relaid, "im2col": padded + columns, "direct": w.nbytes, "fft": planes * spectrum}
    for algorithm, written in between.items():
        assert cost(problem, direction, algorithm, itemsize).bytes == operands + written, algorithm


def peak(call):
    """Bytes allocated at the peak of a call, its result among them."""
    memory.release()  # recycled storage would not show
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("module", "text"),
    [
        (loops, "mb1ic3oc2_ih60kh1ph20"),
        (im2col, "mb2ic8oc6_ih40kh5ph2"),
        (im2col, "g2mb2ic8oc6_ih40kh3ph1sh2"),
        (fft, "mb2ic8oc6_ih40kh5ph2"),
    ],
)
def test_scratch_is_what_is_allocated(module, text, direction):
    problem = ConvProblem.parse(text)
    shapes = (problem.input_shape, problem.weight_shape, problem.output_shape)
    x, w, dy = (np.ones(shape, np.float32) for shape in shapes)
    x, dy = channels_last(x), channels_last(dy)
    call, result = {
        "forward": (lambda: module.forward(problem, x, Weights(w)), dy.nbytes),
        "input_grad": (lambda: module.input_grad(problem, dy, Weights(w)), x.nbytes),
        "weight_grad": (lambda: module.weight_grad(problem, x, dy), w.nbytes),
    }[direction]
    stated = cost(problem, direction, module.name, 4).scratch
    assert 0.6 * stated < peak(call) < stated + result + 3 * w.nbytes + (16 << 10)


def test_empty_batch_costs_the_weights():
    problem = ConvProblem.of((0, 3, 8, 8), (4, 3, 3, 3))
    for algorithm in (*ALGORITHMS, "winograd"):
        for direction in DIRECTIONS:
            counted = cost(problem, direction, algorithm, 4)
            assert (counted.macs, math.prod(problem.weight_shape) * 4 <= counted.bytes) == (0, True)


def test_large_kernels_are_for_fft_and_small_ones_are_not():
    small, large = ConvProblem.parse("mb8ic32oc32_ih64kh3ph1"), ConvProblem.parse("mb8ic32oc32_ih64kh15ph7")
    assert cost(small, "forward", "fft", 4).bytes > cost(small, "forward", "direct", 4).bytes
    assert cost(large, "forward", "fft", 4).multiplies < cost(large, "forward", "direct", 4).multiplies / 20


def test_cost_is_a_value():
    problem = ConvProblem.parse("ic3oc5_ih11kh3")
    assert cost(problem, "forward", "direct", 4) == Cost(10935, 10935, 4 * (3 * 121 + 2 * 135 + 5 * 81), 4 * 135)


@pytest.mark.parametrize(
    ("text", "algorithm", "tile", "message"),
    [
        ("ic3oc5_ih9kh3", "wino", None, r"algorithm must be one of \['loops', .*'winograd'\], got 'wino'; check its"),
        ("ic3oc5_ih9kh3", "direct", 4, "tile must be None for 'direct', got 4; only 'winograd' has tiles"),
        ("ic3oc5_ih9kh3", "winograd", 0, "tile must be at least 1 pixel, got 0; "),
        ("ic3oc5_ih9kh5", "winograd", 2, "winograd must have kernel 3, stride 1 and dilation 1, got g1mb1.*kh5.*; use"),
        ("ic3oc5_ih9kh3sh2", "winograd", 2, "winograd must have kernel 3, stride 1 and dilation 1, got .*sh2"),
        ("ic3oc5_ih9kh3dh1", "winograd", None, "winograd must have kernel 3, stride 1 and dilation 1, got .*dh1"),
    ],
)
def test_errors_teach(text, algorithm, tile, message):
    with pytest.raises(ValueError, match=message):
        cost(ConvProblem.parse(text), "forward", algorithm, 4, tile)
