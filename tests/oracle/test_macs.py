"""The counts of multiply-accumulates: by hand, by summing ones, by walking over channels too, and as published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases
from tests.oracle import convolution
from tests.oracle.macs import Conv, ConvTranspose, Linear, Macs, Pool, total

TRIALS = settings(max_examples=60, deadline=None, derandomize=True)


# ---- by hand ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "output_shape", "every", "inside"),
    [
        # 16 windows of 9 taps; 4 corners see 4 pixels, 8 edges 6, and 4 in the middle 9
        (Conv((1, 1, 4, 4), 1, 3, padding=1), (1, 1, 4, 4), 144, 4 * 4 + 8 * 6 + 4 * 9),
        (Conv((5, 4, 4, 4), 6, 3, padding=1, groups=2), (5, 6, 4, 4), 5 * 12 * 144, 5 * 12 * 100),
        (Conv((1, 1, 4, 4), 1, 3), (1, 1, 2, 2), 36, 36),
        # windows at -2, 0, 2 and 4 of 5 pixels, with taps 0 and 2 further: pixels 0; 0 2; 2 4; 4
        (Conv((1, 1, 5), 1, 2, stride=2, padding=2, dilation=2), (1, 1, 4), 8, 6),
        # only in front: -1 0 1; 1 2 3
        (Conv((1, 1, 4), 1, 3, stride=2, padding=((1, 0),)), (1, 1, 2), 6, 5),
        (Conv((1, 2, 2, 2, 2), 3, 2), (1, 3, 1, 1, 1), 48, 48),
        (Conv((0, 2, 5), 3, 2), (0, 3, 4), 0, 0),
        (Conv((32, 3, 224, 224), 64, 3, padding=1), (32, 64, 224, 224), 2_774_532_096, 32 * 64 * 3 * (3 * 224 - 2) ** 2),
        # each of 4 pixels is spread over 2×2 of its own
        (ConvTranspose((1, 3, 2, 2), 5, 2, stride=2), (1, 5, 4, 4), 15 * 16, 15 * 16),
        # 3 pixels at 0, 2 and 4, spread over 3 each, are 7; the first and the last are cut off, and one product each
        (ConvTranspose((1, 1, 3), 1, 3, stride=2, padding=1), (1, 1, 5), 9, 7),
        (ConvTranspose((1, 1, 3), 1, 3, stride=2, padding=1, output_padding=1), (1, 1, 6), 9, 8),
        (ConvTranspose((1, 1, 3), 1, 2, stride=2, output_padding=1), (1, 1, 7), 6, 6),
        (ConvTranspose((1, 4, 3), 6, 2, groups=2), (1, 6, 4), 12 * 6, 12 * 6),
        (ConvTranspose((1, 1, 2), 1, 2, padding=((1, 0),), dilation=3), (1, 1, 4), 4, 3),
        (Linear((7, 3), 5), (7, 5), 105, 105),
        (Linear((2, 196, 4), 3), (2, 196, 3), 2 * 196 * 12, 2 * 196 * 12),
        (Linear((0, 4), 3), (0, 3), 0, 0),
    ],
)  # fmt: skip
def test_by_hand(layer, output_shape, every, inside):
    assert layer.output_shape == output_shape
    assert layer.macs == Macs(every, inside)
    assert total([layer, layer]) == Macs(2 * every, 2 * inside)


@pytest.mark.parametrize(
    ("layer", "output_shape", "every", "inside"),
    [
        (Pool((1, 1, 4, 4), 2), (1, 1, 2, 2), 16, 16),
        (Pool((2, 3, 4, 4), 3, stride=2, padding=1), (2, 3, 2, 2), 6 * 36, 6 * 25),  # -1 0 1; 1 2 3
        (Pool((1, 1, 5), 2, ceil_mode=True), (1, 1, 3), 6, 5),
        (Pool((1, 1, 5), 2), (1, 1, 2), 4, 4),
        (Pool((1, 1, 4), 2, ceil_mode=True), (1, 1, 2), 4, 4),
        (Pool((1, 1, 3), 2, padding=1, ceil_mode=True), (1, 1, 2), 4, 3),  # a third would begin in the padding
        (Pool((1, 1, 5), 2, stride=1, dilation=2), (1, 1, 3), 6, 6),
    ],
)
def test_pools_look_and_do_not_multiply(layer, output_shape, every, inside):
    assert layer.output_shape == output_shape
    assert layer.looks == (every, inside)
    assert total([layer]) == (0, 0)


# ---- against other ways of counting -----------------------------------------------------------------------------


def described(case, layer, shape, out_channels):
    options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups}
    return layer(shape, out_channels, case.kernel, **options)


@TRIALS
@given(cases(max_dims=3, max_pixels=8))
def test_a_convolution_of_ones_with_ones_sums_up_what_it_multiplies(case):
    """Every product is 1, on padding 0; with ones for the padding too, every product is counted."""
    layer = described(case, Conv, case.input_shape, case.co)
    assert layer.output_shape == case.output_shape
    inside = convolution.forward(case, np.ones(case.input_shape), np.ones(case.weight_shape)).sum()
    size = tuple(pixels + sum(pads) for pixels, pads in zip(case.size, case.padding, strict=True))
    padded = Conv((case.n, case.ci, *size), case.co, case.kernel, case.stride, 0, case.dilation, case.groups)
    assert layer.macs == (padded.macs.inside, inside)


@TRIALS
@given(cases(max_dims=3, max_pixels=8), st.data())
def test_a_transposed_convolution_of_ones_sums_up_what_it_multiplies(case, data):
    """It is the gradient of a convolution, whose input may have had some pixels more behind that no window saw."""
    layer = described(case, ConvTranspose, case.output_shape, case.ci)
    missing = tuple(size - made for size, made in zip(case.size, layer.output_shape[2:], strict=True))
    layer = ConvTranspose(**{**vars(layer), "output_padding": missing})
    assert layer.output_shape == case.input_shape
    spread = convolution.input_grad(case, np.ones(case.output_shape), np.ones(case.weight_shape))
    assert layer.macs.inside == spread.sum()
    assert layer.macs.every == described(case, Conv, case.input_shape, case.co).macs.every


@TRIALS
@given(cases(max_dims=2, max_pixels=5))
def test_all_seven_loops(case):
    """Images and channels walked over as well, each tap looked up in an image whose padding is marked."""
    marked = np.pad(np.ones(case.size, bool), case.padding)
    every = inside = 0
    channels = [
        (i, o)
        for i in range(case.ci)
        for o in range(case.co)
        if i * case.groups // case.ci == o * case.groups // case.co
    ]
    for window in itertools.product(*map(range, case.output_size)):
        for tap in itertools.product(*map(range, case.kernel)):
            pixel = tuple(w * s + t * d for w, s, t, d in zip(window, case.stride, tap, case.dilation, strict=True))
            for _ in itertools.product(range(case.n), channels):
                every, inside = every + 1, inside + bool(marked[pixel])
    assert described(case, Conv, case.input_shape, case.co).macs == (every, inside)


@TRIALS
@given(st.data())
def test_pools_as_torch(data):
    """The sums of windows over ones are the pixels that they meet."""
    torch = pytest.importorskip("torch")
    integers = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    kernel, size = integers(1, 4), (integers(4, 9), integers(4, 9))
    options = {"stride": integers(1, 5), "padding": integers(0, kernel // 2), "ceil_mode": data.draw(st.booleans())}
    sums = torch.nn.functional.avg_pool2d(torch.ones(1, 2, *size), kernel, **options, divisor_override=1)
    layer = Pool((1, 2, *size), kernel, **options)
    assert layer.output_shape == sums.shape
    assert layer.looks == (sums.numel() * kernel**2, sums.sum())


# ---- a whole network --------------------------------------------------------------------------------------------


def resnet18():
    """Convolutions and the linear layer of ResNet-18 from table 1 of its paper, for an image of 224×224."""
    yield Conv((1, 3, 224, 224), 64, 7, stride=2, padding=3)
    for width, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        if width > 64:
            yield Conv((1, width // 2, 2 * size, 2 * size), width, 1, stride=2)
            yield Conv((1, width // 2, 2 * size, 2 * size), width, 3, stride=2, padding=1)
        for _ in range(4 if width == 64 else 3):
            yield Conv((1, width, size, size), width, 3, padding=1)
    yield Linear((1, 512), 1000)


def test_resnet18_has_the_published_gigamacs():
    """torchvision says 1.814."""
    every, inside = total(resnet18())
    assert every == 1_814_073_344 and 0 < inside < every
