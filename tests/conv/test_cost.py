"""Counts of work and memory, against counting one by one, against published figures, and against what is allocated."""

import gc
import itertools
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, integers, problem_of
from tinytorch.conv import fft, im2col, planner
from tinytorch.conv.cost import Cost, cost
from tinytorch.conv.pack import channels_last, lanes_last
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.conv.weights import Weights
from tinytorch.kernels import jit, memory

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


def places(case, output, tap):
    """Where a tap of a window lies, along each axis."""
    before = [low for low, _ in case.padding]
    return [o * s + t * d - b for o, t, s, d, b in zip(output, tap, case.stride, case.dilation, before, strict=True)]


def visits(case, inside=0):
    """Multiplications of the seven loops, counted along the spatial ones; of those whose first axes are on the image."""
    pairs = itertools.product(positions(*case.output_size), positions(*case.kernel))
    on_image = (
        all(0 <= place < size for place, size in zip(places(case, *pair)[:inside], case.size, strict=False))
        for pair in pairs
    )
    return case.n * channel_pairs(case) * sum(on_image)


def meetings(case):
    """Multiplications where each input pixel looks for the windows that could have read it through each tap.

    Windows that are not there, along all axes but the last, are left out.
    """
    before = [low for low, _ in case.padding]

    def is_window(pixel, tap):
        starts = [p + b - t * d for p, b, t, d in zip(pixel, before, tap, case.dilation, strict=True)]
        there = [0 <= s // step < n for s, step, n in zip(starts, case.stride, case.output_size, strict=True)]
        return all(start % step == 0 for start, step in zip(starts, case.stride, strict=True)) and all(there[:-1])

    pairs = itertools.product(positions(*case.size), positions(*case.kernel))
    return sum(case.n * channel_pairs(case) for pixel, tap in pairs if is_window(pixel, tap))


def trimmed(case):
    """Without the outermost taps of dilated kernels that meet no pixel, one after the other."""
    kernel, padding = list(case.kernel), list(case.padding)
    for axis, dilation in enumerate(case.dilation):
        starts = [o * case.stride[axis] for o in range(case.output_size[axis])]

        def meets(tap, axis=axis, dilation=dilation, starts=starts):
            return any(0 <= s + tap * dilation - padding[axis][0] < case.size[axis] for s in starts)

        while dilation > 1 and kernel[axis] > 1 and padding[axis][0] >= dilation and not meets(0):
            kernel[axis], padding[axis] = kernel[axis] - 1, (padding[axis][0] - dilation, padding[axis][1])
        while dilation > 1 and kernel[axis] > 1 and padding[axis][1] >= dilation and not meets(kernel[axis] - 1):
            kernel[axis], padding[axis] = kernel[axis] - 1, (padding[axis][0], padding[axis][1] - dilation)
    return replace(case, kernel=tuple(kernel), padding=tuple(padding))


@TRIALS
@given(cases(max_dims=3, max_pixels=6), st.sampled_from(DIRECTIONS))
def test_multiplications_are_those_of_the_loops(case, direction):
    problem, expected = problem_of(case), visits(case)
    for algorithm in ALGORITHMS:
        assert cost(problem, direction, algorithm, 4).macs == expected
    live, dims = trimmed(case), len(case.size)
    assert cost(problem, direction, "loops", 4).multiplies == visits(live)
    assert cost(problem, direction, "im2col", 4).multiplies == visits(live)
    direct = {
        "forward": lambda: visits(live, dims - 1),
        "input_grad": lambda: meetings(live),
        "weight_grad": lambda: visits(live, max(0, dims - 2)),
    }
    assert cost(problem, direction, "direct", 4).multiplies == direct[direction]()


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


@pytest.mark.parametrize(("name", "saving"), [("winograd2", 2.25), ("winograd", 4.0)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_winograd_saves_what_lavin_and_gray_say(name, saving, direction):
    counted = cost(ConvProblem.parse("mb2ic8oc6_ih56kh3ph1"), direction, name, 4)
    assert counted.macs / counted.multiplies == saving


@TRIALS
@given(*[st.integers(1, 9)] * 2, *[st.integers(1, 3)] * 3, st.sampled_from(DIRECTIONS), st.sampled_from([2, 4]))
def test_winograd_multiplications(height, width, n, ci, co, direction, tile):
    """One by one: tiles begun along each axis, numbers of a transformed tile, pairs of channels."""
    problem = ConvProblem.of((n, ci, height, width), (co, ci, 3, 3), 1, 2)
    covered = problem.input_shape[2:] if direction == "input_grad" else problem.output_shape[2:]
    tiles = sum(all(p % tile == 0 for p in pixel) for pixel in positions(*covered)) * n
    numbers = len(positions(tile + 2, tile + 2))
    counted = cost(problem, direction, "winograd" if tile == 4 else "winograd2", 8)
    assert counted.multiplies == tiles * numbers * ci * co
    operands = math.prod(problem.input_shape) + math.prod(problem.weight_shape) + math.prod(problem.output_shape)
    assert counted.bytes == 8 * (operands + numbers * ci * co)


def test_a_tile_is_another_way_to_name_winograd():
    problem = ConvProblem.parse("ic3oc5_ih11kh3")
    for name, tile in (("winograd", 4), ("winograd2", 2)):
        assert cost(problem, "forward", name, 4) == cost(problem, "forward", "winograd", 4, tile=tile)
    assert cost(problem, "forward", "winograd", 4) != cost(problem, "forward", "winograd2", 4)


def inside(case):
    """Windows and taps that meet on the image, for each axis."""
    axes = zip(case.size, case.output_size, case.kernel, case.stride, case.padding, case.dilation, strict=True)
    for size, out, kernel, stride, (before, _), dilation in axes:
        yield sum(0 <= o * stride - before + k * dilation < size for o, k in positions(out, kernel))


@TRIALS
@given(cases(max_dims=3, max_pixels=7), st.integers(2, 4), st.integers(1, 3), st.sampled_from(DIRECTIONS))
def test_depthwise_leaves_padding_out(case, channels, outputs, direction):
    case = replace(case, ci=channels, co=channels * outputs, groups=channels)
    counted = cost(problem_of(case), direction, "depthwise", 4)
    assert counted.multiplies == case.n * channels * outputs * math.prod(inside(case)) <= counted.macs
    operands = sum(map(math.prod, (case.input_shape, case.weight_shape, case.output_shape)))
    again = math.prod(case.input_shape) * outputs if outputs > 1 else 0
    assert counted.bytes == 4 * (operands + again)


def phases(size, out, kernel, stride, before, dilation, direction):
    """(outputs, taps, pixels from the first tap to the last) of the sweeps along an axis, found pixel by pixel."""
    if direction == "forward":
        return [(out, kernel, dilation * (kernel - 1) + 1)]
    met = {}
    for pixel in range(size):
        reached = [(pixel + before - tap * dilation, tap) for tap in range(kernel)]
        places = [at // stride for at, tap in reached if at % stride == 0]
        if places:
            met.setdefault(pixel % stride, []).append((len(places), max(places) - min(places) + 1))
    return [(len(each), *each[0]) for each in met.values()]


@TRIALS
@given(cases(max_dims=2, max_pixels=9), st.sampled_from(DIRECTIONS[:2]))
def test_planar_also_makes_the_sums_between_the_rows(case, direction):
    """Position by position along the one line that the rows of an image make."""
    case = trimmed(replace(case, stride=(1,) * len(case.size)) if direction == "forward" else case)
    befores = [before for before, _ in case.padding]
    axes = list(zip(case.size, case.output_size, case.kernel, case.stride, befores, case.dilation, strict=True))
    height, width = [(1, 1, 1, 1, 0, 1), *axes][-2:]
    sums = 0
    for rows, cols in itertools.product(phases(*height, direction), phases(*width, direction)):
        line = list(range(cols[0] - 1 + cols[2])) * rows[0]
        while line[-1] != cols[0] - 1:
            line.pop()  # behind the last output
        sums += len(line) * rows[1] * cols[1]
    counted = cost(problem_of(case), direction, "planar", 4)
    assert counted.multiplies == case.n * channel_pairs(case) * sums
    operands = math.prod(case.input_shape) + 2 * math.prod(case.weight_shape) + math.prod(case.output_shape)
    assert counted.bytes == 4 * operands


@TRIALS
@given(cases(max_dims=3, max_pixels=9), st.sampled_from(DIRECTIONS), st.sampled_from([np.float32, np.float64]))
def test_bytes_are_the_operands_and_what_is_written_in_between(case, direction, dtype):
    case = trimmed(case)
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


def operands(problem, dtype):
    """Input, weights and output gradient as layers keep them."""
    shapes = (problem.input_shape, problem.weight_shape, problem.output_shape)
    x, w, dy = (np.ones(shape, dtype) for shape in shapes)
    return channels_last(x), lanes_last(w), channels_last(dy)


def run(problem, direction, algorithm, x, weights, dy):
    if direction == "forward":
        return planner.forward(problem, x, weights, algorithm=algorithm)
    if direction == "input_grad":
        return planner.input_grad(problem, dy, weights, algorithm)
    return planner.weight_grad(problem, x, dy, algorithm)


def held(problem, direction, algorithm, dtype):
    """Bytes allocated at the peak of a call besides its result and forms, and bytes of forms."""
    x, w, dy = operands(problem, dtype)
    run(problem, direction, algorithm, x, Weights(w), dy)  # compiles, and leaves its tables behind
    weights = Weights(w)
    gc.collect()
    with memory.afresh(recycling=False):  # recycled storage would not show
        tracemalloc.start()
        result = run(problem, direction, algorithm, x, weights, dy)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    forms = sum(form.nbytes for form in weights._forms.values() if not np.shares_memory(form, w))
    return most - forms - result.nbytes, forms


def assert_held(problem, direction, algorithm, dtype=np.float32):
    """Pages are rounded up, in at most a few arrays; NumPy's loops buffer up to 8192 numbers of three operands."""
    scratch, forms = held(problem, direction, algorithm, dtype)
    stated = cost(problem, direction, algorithm, np.dtype(dtype).itemsize)
    buffers = 3 * 8192 * np.dtype(dtype).itemsize
    assert stated.forms == forms
    assert stated.scratch - (8 << 10) < scratch < stated.scratch + buffers + (8 << 10)


SHAPES = [
    "mb4ic16oc40_ih22kh3ph1",
    "mb1ic100oc72_ih7kh3ph1",
    "mb2ic48oc80_ih28kh3sh2ph1",
    "mb2ic64oc128_ih28kh1sh2",
    "mb4ic100oc64_ih14kh1",
    "mb2ic32oc3_ih64kh3ph1",
    "mb4ic1oc8_ih64kh3",
    "mb2ic3oc64_ih112kh7sh2ph3",
    "g4mb2ic32oc64_ih28kh3ph1",
    "g2mb2ic8oc6_ih40kh3ph1sh2",
    "g32mb2ic32oc32_ih30kh3ph1",
    "g16mb2ic16oc48_ih30kh5ph2",
    "g16mb5ic640oc48_ih5kh3ph2_iw28kw3sw3",
    "mb4ic8oc8_ih32kh11ph5",
    "mb4ic24oc20_iw2000kw9pw4",
    "mb2ic8oc12_id12ih20kd3kh3pd1ph1",
]
SMALL = ["mb1ic3oc2_ih50kh1ph15", "mb2ic2oc1_iw900kw3", "mb1ic1oc3_id4ih30kd2kh1", "g2mb1ic2oc4_ih60kh2sh2dh1"]


@pytest.mark.parametrize("text", SHAPES)
def test_scratch_and_forms_are_what_is_allocated(text):
    problem = ConvProblem.parse(text)
    for direction, algorithm in itertools.product(DIRECTIONS, planner.ALGORITHMS):
        if algorithm != "loops" and not planner.ALGORITHMS[algorithm].refuses(problem, direction):
            assert_held(problem, direction, algorithm)


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_scratch_of_every_algorithm_in_double_precision(text, direction):
    problem = ConvProblem.parse(text)
    for algorithm in planner.ALGORITHMS:
        if not planner.ALGORITHMS[algorithm].refuses(problem, direction):
            assert_held(problem, direction, algorithm, np.float64)


@pytest.mark.parametrize("limit", [0, 1 << 19, 1 << 22])
@pytest.mark.parametrize("text", ["g2mb4ic8oc12_ih30kh5", "mb3ic8oc6_iw500kw9", "mb3ic8oc6_id10ih10kd3kh3"])
def test_scratch_of_an_fft_in_blocks(limit, text, monkeypatch):
    monkeypatch.setattr(fft, "SCRATCH_BYTES", limit)
    for direction in DIRECTIONS:
        assert_held(ConvProblem.parse(text), direction, "fft")


def test_more_threads_hold_more():
    """Every thread copies the areas that it works on; forms are shared."""
    problem, most = ConvProblem.parse("mb8ic16oc16_ih32kh5ph2"), jit.workers()
    try:
        jit.set_num_threads(1)
        alone = cost(problem, "forward", "direct", 4)
        assert_held(problem, "forward", "direct")
    finally:
        jit.set_num_threads(most)
    together = cost(problem, "forward", "direct", 4)
    assert (together.scratch > alone.scratch) == (most > 1) and together.bytes == alone.bytes


def test_empty_batch_costs_the_weights():
    problem = ConvProblem.of((0, 3, 8, 8), (4, 3, 3, 3))
    for algorithm in (*ALGORITHMS, "winograd"):
        for direction in DIRECTIONS:
            counted = cost(problem, direction, algorithm, 4)
            assert (counted.macs, counted.scratch, counted.forms) == (0, 0, 0)
            assert math.prod(problem.weight_shape) * 4 <= counted.bytes


def test_large_kernels_are_for_fft_and_small_ones_are_not():
    small, large = ConvProblem.parse("mb8ic32oc32_ih64kh3ph1"), ConvProblem.parse("mb8ic32oc32_ih64kh15ph7")
    assert cost(small, "forward", "fft", 4).bytes > cost(small, "forward", "direct", 4).bytes
    assert cost(large, "forward", "fft", 4).multiplies < cost(large, "forward", "direct", 4).multiplies / 20


def test_cost_is_a_value():
    problem = ConvProblem.parse("ic3oc5_ih11kh3")
    counted = cost(problem, "forward", "im2col", 4)
    moved = 4 * (3 * 121 + 135 + 5 * 81 + 3 * 121 + 27 * 81)
    assert counted == Cost(10935, 10935, moved, scratch=4 * (27 * 81 + 135), forms=0)


def test_every_algorithm_has_a_cost():
    depthwise = ConvProblem.parse("g4ic4oc4_ih9kh3ph1")
    others = ConvProblem.parse("ic4oc4_ih9kh3ph1")
    for name in planner.ALGORITHMS:
        assert cost(depthwise if name == "depthwise" else others, "forward", name, 4).multiplies > 0


@pytest.mark.parametrize(
    ("text", "algorithm", "tile", "message"),
    [
        ("ic3oc5_ih9kh3", "wino", None, r"algorithm must be one of \['loops', .*'winograd2'\], got 'wino'; check its"),
        ("ic3oc5_ih9kh3", "direct", 4, "tile must be None for 'direct', got 4; only 'winograd' has tiles"),
        ("ic3oc5_ih9kh3", "winograd", 3, r"tile must be one of \[4, 2\] pixels, got 3; "),
        (
            "ic3oc5_ih9kh5",
            "winograd",
            2,
            "'winograd2' refuses the forward of g1mb1.*kh5.*: it is made for .*; use another",
        ),
        (
            "ic3oc5_ih9kh3sh2",
            "winograd",
            None,
            "'winograd' refuses the forward .*: it needs stride 1 and dilation 1; use",
        ),
        ("ic3oc5_ih9kh3sh2", "planar", None, "'planar' refuses the forward .*: it needs stride 1"),
        ("ic3oc5_ih9kh3", "depthwise", None, "'depthwise' refuses the forward .*: it needs groups of one input"),
    ],
)
def test_errors_teach(text, algorithm, tile, message):
    with pytest.raises(ValueError, match=message):
        cost(ConvProblem.parse(text), "forward", algorithm, 4, tile)
