"""What operations say of the places they read, against what changes when the input is changed at one place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, cat, manual_seed, stack, use_algorithm
from tinytorch.core import functional as F
from tinytorch.core import reach
from tinytorch.core.autograd import operation_name
from tinytorch.kernels.watch import Watcher, watching
from tinytorch.nn import functional as nf


class Reading(Watcher):
    """Keeps what the last operation on images says."""

    def operation(self, inputs, output, backward, reads):
        self.name, self.reads, self.shapes = operation_name(backward), reads, (inputs[0].shape, output.shape)


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 2, shape)


def said(function, shape) -> Reading:
    """What the last operation of a function says."""
    reading, x = Reading(), Tensor(positive(*shape), requires_grad=True)
    with watching(reading):
        function(x)
    assert reading.reads is not None, f"{reading.name} does not say what it reads"
    return reading


def changes(function, shape, axis: int, place: int) -> np.ndarray:
    """Which elements of the result change if the input does, everywhere at this place of this axis."""
    x = positive(*shape)
    other = np.moveaxis(x.copy(), axis, 0)
    other[place] += 1000 * np.random.default_rng(1).uniform(1, 2, other[place].shape)
    with use_algorithm(tolerance=1e-6):  # so that rounding changes nothing
        before, after = (function(Tensor(array)).numpy() for array in (x, np.moveaxis(other, 0, axis)))
    return before != after


def conv(**options):
    dims = options.pop("dims", 2)
    kernel = options.pop("kernel", (3,) * dims)
    convolution = {1: nf.conv1d, 2: nf.conv2d, 3: nf.conv3d}[dims]
    return lambda x: convolution(x, Tensor(positive(4, 4 // options.get("groups", 1), *kernel)), **options)


def transposed(**options):
    return lambda x: nf.conv_transpose2d(x, Tensor(positive(4, 3, *options.get("kernel", (3, 2)))), **{
        name: value for name, value in options.items() if name != "kernel"
    })  # fmt: skip


def seeded_dropout(x):
    manual_seed(0)
    return nf.alpha_dropout(x, 1e-6, training=True)  # that drops nothing here


SPATIAL = {
    "conv": conv(),
    "conv, strides": conv(stride=(2, 3), padding=1),
    "conv, dilated": conv(dilation=(2, 3), padding=(2, 3)),
    "conv, stride beyond the kernel": conv(stride=5),
    "conv, uneven padding": conv(padding=((2, 0), (0, 1)), groups=2),
    "conv, same": conv(kernel=(4, 2), padding="same", stride=2),
    "transposed": transposed(stride=2, padding=1),
    "transposed, dilated": transposed(stride=2, dilation=2, output_padding=1),
    "transposed with gaps": transposed(stride=4, kernel=(2, 1)),
    "max_pool": lambda x: nf.max_pool2d(x, 3, 2, 1),
    "max_pool, dilated": lambda x: nf.max_pool2d(x, (2, 3), 1, dilation=2),
    "max_pool, ceil_mode": lambda x: nf.max_pool2d(x, 2, 2, ceil_mode=True),
    "avg_pool": lambda x: nf.avg_pool2d(x, 2, 3, 1, ceil_mode=True),
    "lp_pool": lambda x: nf.lp_pool2d(x, 2, 3, 2),
    "adaptive_avg_pool": lambda x: nf.adaptive_avg_pool2d(x, (4, 7)),
    "adaptive_max_pool": lambda x: nf.adaptive_max_pool2d(x, (5, 20)),
    "pad": lambda x: nf.pad(x, (1, 2, 0, 3)),
    "pad, reflect": lambda x: nf.pad(x, (1, 5, 4, 3), mode="reflect"),
    "pad, replicate": lambda x: nf.pad(x, (1, 9, 4, 3), mode="replicate"),
    "pad, circular": lambda x: nf.pad(x, (1, 5, 9, 3), mode="circular"),
    "slices": lambda x: x[:, 1:, 2:-1, ::3],
    "a new axis behind": lambda x: x[:, :, 1::2, :, None],
    "nearest": lambda x: nf.interpolate(x, scale_factor=(2, 3)),
    "nearest, smaller": lambda x: nf.interpolate(x, (4, 7)),
    "nearest-exact": lambda x: nf.interpolate(x, (13, 5), mode="nearest-exact"),
    "bilinear": lambda x: nf.interpolate(x, (18, 20), mode="bilinear"),
    "bilinear, corners": lambda x: nf.interpolate(x, (17, 5), mode="bilinear", align_corners=True),
    "bilinear, antialias": lambda x: nf.interpolate(x, (3, 4), mode="bilinear", antialias=True),
    "bicubic": lambda x: nf.interpolate(x, (18, 6), mode="bicubic"),
    "area": lambda x: nf.interpolate(x, (3, 7), mode="area"),
    "pixel_shuffle": lambda x: nf.pixel_shuffle(x, 2),
    "channel_shuffle": lambda x: nf.channel_shuffle(x, 2),
    "batch_norm": lambda x: nf.batch_norm(x, Tensor(np.zeros(4)), Tensor(np.ones(4))),
    "local_response_norm": lambda x: nf.local_response_norm(x, 3),
    "normalize": nf.normalize,
    "softmax of channels": lambda x: F.log_softmax(x / 1e4, 1),
    "sum of channels": lambda x: x.sum(dim=1, keepdim=True),
    "dropout": seeded_dropout,
}


@pytest.mark.parametrize("name", SPATIAL)
def test_places_are_those_that_count(name):
    function, shape = SPATIAL[name], (1, 4, 9, 10)
    reading = said(function, shape)
    for axis in (2, 3):
        along, taps = reading.reads(0)[axis]
        length = reading.shapes[1][along]
        read = taps.inside(np.arange(length))
        for place in range(shape[axis]):
            changed = np.moveaxis(changes(function, shape, axis, place), along, 0).reshape(length, -1).any(axis=1)
            np.testing.assert_array_equal((read == place).any(axis=1), changed)


@pytest.mark.parametrize("name", [name for name in SPATIAL if "corners" not in name])
def test_without_end_the_middle_goes_on(name):
    """Far from borders nothing is special; and places repeat with the period, however far."""
    reading = said(SPATIAL[name], (1, 4, 60, 60))
    for axis in (2, 3):
        along, taps = reading.reads(0)[axis]
        outs, ins = taps.period
        length = reading.shapes[1][along]
        middle = np.arange(3 * length // 8, 5 * length // 8)
        there = [{place for place in row if place != reach.NOWHERE} for row in taps.places(middle)]
        assert there == [{place for place in row if place != reach.NOWHERE} for row in taps.inside(middle)]
        for turns in (-50, 1, 7):
            moved = taps.places(middle + turns * outs)
            moved = [{place - turns * ins for place in row if place != reach.NOWHERE} for row in moved]
            assert moved == there


WHOLE = {
    "instance_norm": nf.instance_norm,
    "group_norm": lambda x: nf.group_norm(x, 2),
    "layer_norm": lambda x: nf.layer_norm(x, (4, 9, 10)),
    "rms_norm": lambda x: nf.rms_norm(x, (9, 10)),
    "batch_norm in training": lambda x: nf.batch_norm(x, None, None, training=True),
    "mean": lambda x: x.mean(dim=(2, 3)),
    "sum": lambda x: x.sum(),
    "max": lambda x: x.max(dim=(-2, -1), keepdim=True),
    "adaptive_avg_pool": lambda x: nf.adaptive_avg_pool2d(x, 1),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_axes_are_read_for_every_output(name):
    function, shape = WHOLE[name], (1, 4, 9, 10)
    reading = said(function, shape)
    for axis in (2, 3):
        assert axis not in reading.reads(0)
        assert all(changes(function, shape, axis, place).all() for place in range(shape[axis]))


def test_one_axis_whole_and_the_other_by_place():
    for function in (lambda x: F.softmax(x / 1e4, -1), lambda x: F.linear(x, Tensor(positive(3, 10)))):
        moves = said(function, (1, 4, 9, 10)).reads(0)
        assert 3 not in moves and moves[2] == (2, reach.SAME)
        for place in range(10):
            assert changes(function, (1, 4, 9, 10), 3, place).all()


# ---- axes that move -------------------------------------------------------------------------------------------------

MOVING = {
    "permute": lambda x: x.permute(0, 2, 3, -3),
    "transpose": lambda x: x.transpose(-1, 1),
    "mean": lambda x: x.mean(dim=(0, -3)),
    "an index": lambda x: x[0, :, 2],
    "a new axis": lambda x: x[:, None, ..., 1:],
    "stack": lambda x: stack((x, x), dim=-3),
    "left factor": lambda x: x @ Tensor(positive(5, 3)),
    "left factor, vector": lambda x: x @ Tensor(positive(5)),
    "right factor": lambda x: Tensor(positive(7, 4)) @ x,
    "right factor, vector": lambda x: Tensor(positive(4)) @ x,
    "right factor, stack": lambda x: Tensor(positive(6, 2, 3, 7, 4)) @ x,
}


@pytest.mark.parametrize("name", MOVING)
def test_axes_are_found_where_they_went(name):
    function, shape = MOVING[name], (2, 3, 4, 5)
    reading = said(function, shape)
    moves = reading.reads(1 if name.startswith("right") else 0)
    for axis, size in enumerate(shape):
        for place in range(size):
            changed = changes(function, shape, axis, place)
            if axis not in moves:
                assert changed.all()
                continue
            along, taps = moves[axis]
            if along is None:
                assert changed.all() if place in taps.inside(np.arange(1)) else not changed.any()
            else:
                read = (taps.inside(np.arange(changed.shape[along])) == place).any(axis=1)
                expected = np.expand_dims(read, [other for other in range(changed.ndim) if other != along])
                np.testing.assert_array_equal(changed, np.broadcast_to(expected, changed.shape))


def test_what_is_not_known_is_said():
    assert said(lambda x: cat((x, x), dim=2), (2, 3, 4, 5)).reads(0)[2][1] is None
    assert said(conv(), (1, 4, 9, 10)).reads(1) is None  # a weight made of an image
    reading, x = Reading(), Tensor(positive(2, 3, 4, 5), requires_grad=True)
    with watching(reading):
        x[:, :, [0, 2]]
    assert reading.reads is None and reading.name not in reach.POINTWISE


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_reshaped_axes_are_followed(shape, data):
    """Merge neighbours, then split: wherever the places are said to be, they are."""
    merged = list(shape)
    while len(merged) > 1 and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(merged) - 2))
        merged[at : at + 2] = [merged[at] * merged[at + 1]]
    parts = [n for n in range(1, merged[0] + 1) if merged[0] % n == 0]
    part = data.draw(st.sampled_from(parts))
    after = (part, merged[0] // part, *merged[1:])
    step = reach.Reshaped(tuple(shape), after)
    for axis, size in enumerate(shape):
        places = np.broadcast_to(np.arange(size).reshape(-1, *(1,) * (len(shape) - axis - 1)), shape).reshape(after)
        found = step.moved(axis, 1, size)
        if found is None:
            assert size == 1 or axis < len(shape) - len(merged) + 1  # the first of the merged axes was split
        else:
            new, inner = found
            index = np.arange(after[new]) // inner % size
            expected = np.broadcast_to(index.reshape(-1, *(1,) * (len(after) - new - 1)), after)
            np.testing.assert_array_equal(places, expected)


def test_unfold_merges_axes():
    for function, shape, apart in (
        (lambda x: nf.unfold(x, (3, 2), stride=2), (1, 2, 9, 10), (1, 12, 4, 5)),
        (lambda x: nf.unfold(x, (3,), dilation=2), (1, 2, 9), (1, 6, 5)),
    ):
        moves, merged = said(function, shape).reads(0)
        assert merged == reach.Reshaped(apart, function(Tensor(positive(*shape))).shape)
        for axis, outs in enumerate(apart[2:], start=2):
            for place in range(shape[axis]):
                changed = changes(function, shape, axis, place).reshape(apart)
                read = (moves[axis][1].inside(np.arange(outs)) == place).any(axis=1)
                np.testing.assert_array_equal(np.moveaxis(changed, axis, 0).reshape(outs, -1).any(axis=1), read)


def test_max_unpool_may_put_a_value_anywhere_in_its_window():
    x, reading = Tensor(positive(1, 2, 8, 9), requires_grad=True), Reading()
    y, indices = nf.max_pool2d(x, (2, 3), return_indices=True)
    with watching(reading):
        nf.max_unpool2d(y, indices, (2, 3))
    read = reading.reads(0)[3][1].inside(np.arange(9))
    np.testing.assert_array_equal(read.max(axis=1), np.arange(9) // 3)


def test_pointwise_operations_are_known_by_name():
    x = Tensor(positive(2, 3, 4, 5), requires_grad=True)
    for function in (
        F.relu, F.relu6, F.leaky_relu, F.sigmoid, F.tanh, F.silu, F.gelu, Tensor.exp, Tensor.log, Tensor.sqrt, abs,
        lambda t: t + t, lambda t: 1 - t, lambda t: 2 * t, lambda t: 1 / t, lambda t: t**2, lambda t: t**t, lambda t: -t,
        lambda t: t.clip(0, 1), lambda t: t.maximum(0), lambda t: t.astype(np.float32), lambda t: t.std(dim=1),
        lambda t: t[:1].expand(2, 3, 4, 5),
    ):  # fmt: skip
        reading = Reading()
        with watching(reading):
            function(x)
        assert reading.reads is None and reading.name in reach.POINTWISE, reading.name


def test_the_base_knows_no_places():
    with pytest.raises(NotImplementedError):
        reach.Taps().places(np.arange(3))
