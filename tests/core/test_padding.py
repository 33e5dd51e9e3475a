"""Padding as function and layers: against numpy.pad and PyTorch, by finite differences, and when misused."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle.gradcheck import check_gradients
from tests.oracle.torch_twin import compare
from tinytorch import Tensor, nn
from tinytorch.core.pad_ops import MODES, pad

TRIALS = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
NUMPY_NAME = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LAYERS = ("ConstantPad", "ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad")


def integers(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).integers(-9, 10, shape).astype(dtype)


def channels_last(array):
    """The same array, its channels (axis 1) neighbours in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def flat(widths):
    """Pairs, first axis first, as PyTorch orders them."""
    return [width for pair in reversed(widths) for width in pair]


@st.composite
def trials(draw, lowest):
    """A mode, the shape of images, and widths that fit."""
    mode = draw(st.sampled_from(MODES))
    dims = draw(st.integers(1, 3))
    sizes = draw(st.tuples(*[st.integers(1, 6)] * dims))
    most = {"reflect": -1, "circular": 0}.get(mode, 5)
    widths = [tuple(draw(st.integers(lowest, 5)) for _ in range(2)) for _ in sizes]
    limits = [n + most if most < 5 else 5 for n in sizes]
    if mode == "circular":
        limits = [n + min(b, 0) + min(a, 0) for n, (b, a) in zip(sizes, widths, strict=True)]
    widths = [tuple(min(w, limit) for w in pair) for pair, limit in zip(widths, limits, strict=True)]
    widths = [pair if n + sum(map(_negative, pair)) > 0 else (0, 0) for n, pair in zip(sizes, widths, strict=True)]
    lead = draw(st.sampled_from([(2, 3), (3,), (1, 1), (0, 2)]))
    return mode, (*lead, *sizes), widths


def _negative(width):
    return min(width, 0)


# ---- what it computes ---------------------------------------------------------------------------------------------


@TRIALS
@given(trials(lowest=0), st.sampled_from([np.float32, np.float64, np.int64, np.uint8, bool]))
def test_as_numpy(trial, dtype):
    mode, shape, widths = trial
    x = integers(*shape, dtype=dtype)
    every = [(0, 0)] * (len(shape) - len(widths)) + widths
    options = {"constant_values": 7} if mode == "constant" else {}
    out = pad(Tensor(x), flat(widths), mode, 7 if mode == "constant" else 0)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out.numpy(), np.pad(x, every, NUMPY_NAME[mode], **options))


@TRIALS
@given(trials(lowest=-3), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_as_torch_also_cropping(trial, dtype, last):
    torch = pytest.importorskip("torch")
    mode, shape, widths = trial
    x = integers(*shape, dtype=dtype)
    x = channels_last(x) if last else x
    compare(lambda t: pad(t, flat(widths), mode), lambda t: torch.nn.functional.pad(t, flat(widths), mode), x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape, widths", [((1, 2, 4), (3, 2)), ((2, 4, 3), (1, 2, 2, 0)), ((1, 1, 3, 2, 3), (1, 2, 1, 0, 2, 1))]
)
def test_gradcheck(mode, shape, widths):
    x = np.random.default_rng(0).standard_normal(shape)
    check_gradients(lambda t: pad(t, widths, mode), x)


@pytest.mark.parametrize("mode", MODES)
def test_gradient_of_integers_is_exact_and_the_transpose(mode):
    x, widths = integers(2, 3, 5, 4, dtype=np.float64), (2, 3, -1, 4)
    images = Tensor(x, requires_grad=True)
    out = pad(images, widths, mode)
    weights = integers(*out.shape, dtype=np.float64, seed=1)
    out.backward(weights)
    assert (out.numpy() * weights).sum() == (x * images.grad).sum()


def test_reflected_and_replicated_pixels_may_be_cropped_ones_circular_ones_not():
    x = Tensor([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(pad(x, (-2, 3), "reflect").numpy(), [[3, 4, 3, 2, 1]])
    np.testing.assert_array_equal(pad(x, (-5, 7), "replicate").numpy(), [[4] * 6])
    np.testing.assert_array_equal(pad(x, (-1, 2), "circular").numpy(), [[2, 3, 4, 2, 3]])


def test_constant_pads_any_axes_and_none():
    x = integers(2, 3)
    expected = np.pad(x, [(1, 0), (2, 1)], constant_values=-1)
    np.testing.assert_array_equal(pad(Tensor(x), (2, 1, 1, 0), value=-1).numpy(), expected)
    np.testing.assert_array_equal(pad(Tensor(x), ()).numpy(), x)
    assert pad(Tensor(x), (4, -3)).shape == (2, 4)
    np.testing.assert_array_equal(pad(Tensor(x), (1, 0), value=None).numpy()[:, 0], [0, 0])
    assert pad(Tensor(5.0), ()).item() == 5


@pytest.mark.parametrize("mode", MODES)
def test_order_in_memory_stays(mode):
    x = integers(2, 3, 4, 5)
    plain, last = pad(Tensor(x), (1, 2, 1, 0), mode), pad(Tensor(channels_last(x)), (1, 2, 1, 0), mode)
    assert plain.numpy().flags.c_contiguous
    assert np.moveaxis(last.numpy(), 1, -1).flags.c_contiguous
    np.testing.assert_array_equal(plain.numpy(), last.numpy())


@pytest.mark.parametrize("mode", MODES)
def test_the_input_is_not_written_to_and_not_shared(mode):
    x = integers(1, 2, 3)
    before = x.copy()
    out = pad(Tensor(x), (0, 0), mode).numpy()
    out[...] = 99
    np.testing.assert_array_equal(x, before)


def test_infinite_and_nan_pixels_stay_where_they_are():
    x = np.array([[np.inf, 1.0, np.nan]])
    np.testing.assert_array_equal(pad(Tensor(x), (1, 1), "reflect").numpy(), [[1, np.inf, 1, np.nan, 1]])


# ---- layers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, dims", list(itertools.product(LAYERS, (1, 2, 3))))
@pytest.mark.parametrize("batched", [True, False])
def test_layers_as_torch(name, dims, batched):
    torch = pytest.importorskip("torch")
    kind = f"{name}{dims}d"
    extra = (2.5,) if name == "ConstantPad" else ()
    x = integers(*((2, 3) if batched else (3,)), 4, 5, 3, dtype=np.float64)[(..., *[0] * (3 - dims))]
    for padding in (2, (1, 2) * dims, (-1, 1) * dims):
        compare(getattr(nn, kind)(padding, *extra), getattr(torch.nn, kind)(padding, *extra), x)


def test_repr_names_the_sides():
    assert repr(nn.ReflectionPad2d(1)) == "ReflectionPad2d((1, 1, 1, 1))"
    assert repr(nn.ConstantPad1d((1, 2), 3.5)) == "ConstantPad1d(padding=(1, 2), value=3.5)"


# ---- misuse -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, arguments, message",
    [
        (
            (1, 4),
            ((1, 1), "mirror"),
            "mode must be one of 'constant', 'reflect', 'replicate', 'circular', got 'mirror'",
        ),
        ((1, 4), ((1, 1), "reflect", 1.5), "value is for mode='constant' only, got value=1.5 with mode='reflect'"),
        (
            (1, 4),
            ((1, 2, 3),),
            "pad must be (before, after) pairs, last axis first, for at most the 2 axes of input (1, 4), got (1, 2, 3)",
        ),
        ((1, 4), ((1,) * 6,), "for at most the 2 axes of input (1, 4), got (1, 1, 1, 1, 1, 1)"),
        ((4,), ((1, 1), "reflect"), "pad in mode 'reflect' must have two widths for every spatial axis, one to three"),
        (
            (1, 2, 4, 4),
            ((1, 1), "circular"),
            "got (1, 1) for input (1, 2, 4, 4); give 0 for an axis that stays as it is",
        ),
        ((1, 4), ((), "replicate"), "got () for input (1, 4)"),
        ((1, 1, 1, 1, 1, 1, 1), ((0,) * 8, "reflect"), "got (0, 0, 0, 0, 0, 0, 0, 0)"),
        (
            (2, 0, 4),
            ((1, 1), "reflect"),
            "every size but the batch must be positive in mode 'reflect', got input (2, 0, 4)",
        ),
        (
            (0, 4),
            ((1, 1), "replicate"),
            "every size but the batch must be positive in mode 'replicate', got input (0, 4)",
        ),
        (
            (1, 4),
            ((4, 0), "reflect"),
            "pad must be at most 3, the pixels that a border can repeat, got (4, 0) in mode 'reflect' for axis 1 of input (1, 4); pad less",
        ),
        ((1, 2, 2, 9), ((0, 0, 2, 0), "reflect"), "got (2, 0) in mode 'reflect' for axis 2"),
        ((1, 4), ((0, 5), "circular"), "pad must be at most 4, the pixels that a border can repeat, got (0, 5)"),
        ((1, 4), ((-2, 3), "circular"), "pad must be at most 2, the pixels that a border can repeat, got (-2, 3)"),
        ((2, 2, 0), ((1, 1), "circular"), "pad must be at most 0"),
        (
            (1, 4),
            ((-5, 0),),
            "pad must leave at least 0 pixels, got (-5, 0) in mode 'constant' for axis 1 of input (1, 4), which leaves -1; crop less",
        ),
        ((1, 4), ((-5, 7),), "pad must leave at least 0 pixels, got (-5, 7)"),
        ((1, 4), ((-2, -2), "replicate"), "pad must leave at least 1 pixels, got (-2, -2) in mode 'replicate'"),
        ((1, 4), ((-4, 0), "reflect"), "which leaves 0; crop less"),
    ],
)
def test_values_that_have_no_meaning(shape, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pad(Tensor(np.ones(shape, np.float32)), *arguments)


@pytest.mark.parametrize("widths", [(1.5, 2), 2, (True, 1), "11"])
def test_widths_are_integers(widths):
    with pytest.raises(
        TypeError, match=re.escape(f"pad must be a sequence of integers, (left, right, top, bottom, …), got {widths!r}")
    ):
        pad(Tensor([[1.0]]), widths)


@pytest.mark.parametrize("mode", [["reflect"], {"reflect"}, np.ones(2)])
def test_what_is_no_name_is_no_mode(mode):
    with pytest.raises(
        ValueError, match=re.escape(f"mode must be one of 'constant', 'reflect', 'replicate', 'circular', got {mode!r}")
    ):
        pad(Tensor([[1.0]]), (1, 1), mode)


def test_arrays_are_refused():
    with pytest.raises(TypeError, match=r"pad expects a Tensor, got ndarray; wrap the array: Tensor\(x\)"):
        pad(np.ones((1, 4)), (1, 1))


def test_arrays_of_widths():
    x = Tensor(np.arange(4.0).reshape(1, 1, 2, 2))
    np.testing.assert_array_equal(pad(x, np.array([1, 0])).data, pad(x, (1, 0)).data)
    assert repr(nn.ZeroPad1d(np.array([1, 2]))) == "ZeroPad1d((1, 2))"
    with pytest.raises(ValueError, match=r"padding must be an integer or 4 integers, left, .*, got array\(\[1, 1\]\)"):
        nn.ZeroPad2d(np.array([1, 1]))


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("value", ["7", "a", [1], np.ones(2), 1j])
def test_what_is_no_number_is_no_value(value, mode):
    message = re.escape(f"value must be a number, got {value!r}; it is what the border holds")
    with pytest.raises(TypeError, match=message):
        pad(Tensor([[1.0, 2.0]]), (1, 1), mode, value)
    with pytest.raises(TypeError, match=message):
        nn.ConstantPad2d(1, value)


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.int64, math.nan), (np.int32, 1 << 40), (np.uint8, -1), (np.int64, math.inf)]
)
def test_a_value_that_the_type_can_not_hold(dtype, value):
    limits = np.iinfo(dtype)
    message = f"value must be a number that {limits.dtype} can hold, {limits.min} to {limits.max}, got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        pad(Tensor(np.ones(2, dtype)), (1, 1), value=value)


def test_values_that_types_can_hold():
    assert pad(Tensor([1, 2]), (1, 0), value=True).data.tolist() == [1, 1, 2]
    assert pad(Tensor([1, 2]), (1, 0), value=2.75).data.tolist() == [2, 1, 2]  # as in PyTorch
    assert pad(Tensor(np.ones(1, np.uint8)), (1, 0), value=np.int64(255)).data.tolist() == [255, 1]
    assert np.isnan(pad(Tensor([1.0]), (1, 0), value=math.nan).data[0])


@pytest.mark.parametrize("padding", [(1, 2), (1, 2, 3, 4.0), 1.5, (True,) * 4, "same"])
def test_layers_refuse_other_paddings(padding):
    with pytest.raises(
        ValueError,
        match=re.escape(f"padding must be an integer or 4 integers, left, right, top, bottom, got {padding!r}"),
    ):
        nn.ReflectionPad2d(padding)
