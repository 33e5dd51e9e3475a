"""Describing a convolution: the output-size formula, parsing and printing, and what has no meaning."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conv.cases import cases, problem_of
from tinytorch.conv.problem import Axis, ConvProblem

MANY = settings(max_examples=300, deadline=None, derandomize=True)


@MANY
@given(cases(max_dims=3))
def test_output_size_counts_windows(case):
    assert problem_of(case).output_shape == case.output_shape


@MANY
@given(cases(max_dims=3))
def test_text_round_trip(case):
    problem = problem_of(case)
    assert ConvProblem.parse(str(problem)) == problem


def test_parse_takes_width_from_height_and_defaults():
    problem = ConvProblem.parse("g1ic64oc64_ih56kh3ph1")
    assert problem == ConvProblem(1, 64, 64, (Axis(56, 3, 1, 1, 1), Axis(56, 3, 1, 1, 1)))


def test_parse_reads_benchdnn_dilation_and_uneven_padding():
    problem = ConvProblem.parse("mb2_ic3oc4_ih9iw7kh3kw2sh2ph0-1pw1dh1")
    assert problem.axes == (Axis(9, 3, 2, 0, 1, 2), Axis(7, 2, 2, 1, 1, 2))


@pytest.mark.parametrize(
    ("axis", "out"),
    [
        (Axis(224, 3, 1, 1, 1), 224),
        (Axis(224, 3, 2, 1, 1), 112),  # floor(111.5) + 1
        (Axis(224, 3, 2), 111),
        (Axis(112, 3, 2), 55),
        (Axis(128, 5, 2, 2, 2), 64),
        (Axis(224, 7, 2, 3, 3), 112),
    ],
)
def test_the_pages_sizes(axis, out):
    assert axis.out == out


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("mb32ic3oc64_ih224kh3ph1", 2_774_532_096),
        ("mb16ic64oc128_ih56kh3ph1", 3_699_376_128),
    ],
)
def test_the_pages_multiply_accumulates(text, macs):
    assert ConvProblem.parse(text).macs == macs


def test_macs_of_groups():
    assert ConvProblem.parse("g4ic8oc8_ih6kh3").macs == 8 * 4 * 4 * 2 * 9


@MANY
@given(cases(max_dims=3), st.sampled_from(["same", "same_upper", "same_lower"]))
def test_same_padding_is_the_least_that_gives_so_many_outputs(case, name):
    """⌈size / stride⌉ of them, counted in windows that start on the image; the halves differ by the odd pixel."""
    problem = ConvProblem.of(case.input_shape, case.weight_shape, case.stride, name, case.dilation, case.groups)
    for axis, size in zip(problem.axes, case.size, strict=True):
        assert axis.out == len(range(0, size, axis.stride))
        total = axis.before + axis.after
        assert total == 0 or Axis(size, axis.kernel, axis.stride, total - 1, 0, axis.dilation).out < axis.out
        assert (axis.before - axis.after if name == "same_lower" else axis.after - axis.before) in (0, 1)


@MANY
@given(cases(max_dims=3))
def test_a_transposed_problem_leads_back(case):
    """From what a convolution makes of an image, to that image, if its size is asked for."""
    problem = problem_of(case)
    options = (case.stride, case.padding, 0, case.dilation, case.groups)
    back, beyond = ConvProblem.transposed(problem.output_shape, problem.weight_shape, *options, case.size)
    assert back.input_shape == problem.input_shape and back.output_shape == problem.output_shape
    assert set(beyond) == {(0, 0)}


def test_pixels_beyond_an_endless_input_are_those_that_reach_the_output():
    _, beyond = ConvProblem.transposed((1, 1, 4, 4), (1, 1, 5, 2), (2, 1), (0, 1), endless=True)
    assert beyond == ((2, 2), (0, 0))


def test_zeros_follow_an_input_whose_output_goes_on_for_a_stride():
    problem, beyond = ConvProblem.transposed((1, 1, 4), (1, 1, 2), output_padding=2, dilation=3)
    assert beyond == ((0, 2),) and problem.input_shape == (1, 1, 9) and problem.output_shape == (1, 1, 6)


def test_a_padded_problem_makes_the_same_outputs():
    problem = ConvProblem.parse("mb2_ic3oc4_ih9iw7kh3kw2sh2ph0-1pw1dh1")
    assert problem.padded.output_shape == problem.output_shape
    assert problem.padded.input_shape == (2, 3, 10, 9) and all(axis.before == 0 for axis in problem.padded.axes)


def test_same_padding_splits_unevenly_behind():
    assert ConvProblem.of((1, 1, 5, 5), (1, 1, 2, 3), padding="same").axes == (
        Axis(5, 2, 1, 0, 1),
        Axis(5, 3, 1, 1, 1),
    )
    assert ConvProblem.of((1, 1, 5), (1, 1, 3), padding="valid").axes == (Axis(5, 3),)


def of(input_shape=(1, 4, 8, 8), weight_shape=(6, 4, 3, 3), **options):
    return lambda: ConvProblem.of(input_shape, weight_shape, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of(input_shape=(4, 8, 8)), "input and weight must both have 3 to 5 dimensions"),
        (of((1, 4), (6, 4)), "input and weight must both have 3 to 5 dimensions"),
        (of(groups=0), "groups must be a positive integer, got 0"),
        (of(groups=True), "groups must be a positive integer, got True"),
        (of(groups=None), "groups must be a positive integer, got None; it counts independent convolutions"),
        (
            of(groups=3),
            "groups must divide both channel counts, got groups=3 with 4 input and 6 output channels; use a common divisor such as 2",
        ),
        (of(groups=2), "Expected 8 input channels (weight (6, 4, 3, 3), groups=2), got 4"),
        (of(input_shape=(1, 3, 8, 8)), "Expected 4 input channels (weight (6, 4, 3, 3), groups=1), got 3"),
        (of(input_shape=(1, 4, 0, 8)), "every size must be positive"),
        (
            of(input_shape=(1, 4, 2, 8)),
            "kernel is larger than the padded input: along the height the kernel spans 3 pixels",
        ),
        (
            of(dilation=4),
            "the kernel spans 9 pixels (kernel_size=3, dilation=4) but the input has 8 + padding 0 = 8",
        ),
        (of(stride=0), "stride must be positive, got 0"),
        (of(stride=(1, 2, 3)), "stride must be one integer or 2 (height, width), got (1, 2, 3)"),
        (of(padding=-1), "padding must be zero or more, got -1"),
        (of(padding="full"), "padding must be integers, 'same', 'same_upper', 'same_lower' or 'valid', got 'full'"),
        (of(padding=((1, 1),)), "padding must give a (before, after) pair for each of 2 axes"),
        (of(dilation=0), "dilation must be positive, got 0"),
    ],
)
def test_meaningless_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("value", [1.5, "3", None, True])
def test_sizes_are_integers(value):
    with pytest.raises(TypeError, match="stride must be an integer or a tuple of 2 integers"):
        ConvProblem.of((1, 4, 8, 8), (6, 4, 3, 3), stride=value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ic3oc16_ih32kh3!", "must be made of names and numbers"),
        ("ic3oc16_ih32kh3zz4", "has unknown fields ['zz']"),
        ("oc16_ih32kh3", "does not say ic"),
        ("ic3oc16_ih32", "does not say kh"),
        ("ic3oc16_ih32oh32kh3", "says oh32, but the formula gives 30"),
    ],
)
def test_unreadable_text_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ConvProblem.parse(text)
