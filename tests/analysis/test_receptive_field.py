"""Receptive fields of whole models: against closed forms, published numbers, and the gradient."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, cat, nn, randn
from tinytorch.analysis.receptive_field import Field, check_layer, effective, fields, receptive_fields
from tinytorch.analysis.trace import trace
from tinytorch.core.autograd import record
from tinytorch.kernels.watch import Watcher, watching
from tinytorch.models import create
from tinytorch.nn import functional as F


class Undrawn(Watcher):
    """Large networks need no random numbers here."""

    rehearsing = True


class Apply(nn.Module):
    """A model of one function."""

    def __init__(self, function, *layers):
        self.function = function
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """Of the layers' output and of the input."""
        return self.function(self.layers(x), x)


def field_of(model, *sizes: int) -> Field:
    return fields(model, (1, 2, *sizes))[""]


# ---- numbers that others found, or that follow by hand ---------------------------------------------------------------

# A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", 2019, and the table of
# their library; there residual networks halve the image in another layer of a block, so theirs are of no help here.
PUBLISHED = {
    "alexnet": ("features.12", 195, 32),
    "vgg16": ("features.30", 212, 32),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name):
    layer, size, stride = PUBLISHED[name]
    with watching(Undrawn()):
        model = create(name, (3, 224, 224), 10)
    field = fields(model, (1, 3, 224, 224))[layer]
    assert field.size == (size, size) and field.stride == (stride, stride)
    assert str(field) == f"{size}×{size}" and all(axis.uniform for axis in field.axes)


def by_hand(layers: list[tuple[int, int, int]]) -> tuple[int, int, float]:
    """Size, stride and first centre of windows (kernel, stride, padding), one after the other."""
    size, jump, centre = 1, 1, 0.0
    for kernel, stride, padding in layers:
        size += (kernel - 1) * jump
        centre += ((kernel - 1) / 2 - padding) * jump
        jump *= stride
    return size, jump, centre


@pytest.mark.parametrize("name, depths, block", [
    ("resnet18", (2, 2, 2, 2), lambda s: [(3, s, 1), (3, 1, 1)]),
    ("resnet50", (3, 4, 6, 3), lambda s: [(1, 1, 0), (3, s, 1), (1, 1, 0)]),
    ("resnet152", (3, 8, 36, 3), lambda s: [(1, 1, 0), (3, s, 1), (1, 1, 0)]),
])  # fmt: skip
def test_residual_networks(name, depths, block):
    """The longest path counts; every shortcut is shorter."""
    with watching(Undrawn()):
        model = create(name, (3, 224, 224), 10)
    found = fields(model, (1, 3, 224, 224))
    path = [(7, 2, 3), (3, 2, 1)]
    for stage, depth in enumerate(depths, start=1):
        for number in range(depth):
            path += block(2 if stage > 1 and number == 0 else 1)
            size, stride, first = by_hand(path)
            field = found[f"layer{stage}.{number}"]
            assert field.size == (size, size) and field.stride == (stride, stride)
            assert field.axes[0].first_centre == first and field.exceeds == (size > 224)
    assert found["avgpool"].whole and found["fc"].whole and str(found[""]) == "whole image"


def test_mobilenet():
    """M. Sandler et al., "MobileNetV2", 2018, table 2: only depthwise layers look around."""
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    size, jump, first = by_hand([(3, 2, 1), *((3, stride, 1) for stride in strides)])
    field = fields(create("mobilenet_v2", (3, 224, 224), 10), (1, 3, 224, 224))["features.18"]
    assert field.size == (size, size) == (491, 491) and field.stride == (jump, jump)
    assert field.axes[0].first_centre == first


def test_a_field_larger_than_the_image_warns():
    found = fields(nn.Sequential(nn.Conv2d(2, 2, 9, padding=4), nn.Conv2d(2, 2, 3, padding=1)), (1, 2, 10, 20))
    assert found["0"].warning == "" and not found["0"].exceeds
    assert found["1"].warning == (
        "the field, 11×11 pixels, exceeds the image of 10×20: every output sees beyond its borders"
    )
    assert found["1"].axes[0].exceeds and not found["1"].axes[1].exceeds


def test_one_and_three_dimensions():
    line = field_of(nn.Conv1d(2, 2, 3, dilation=2, padding=2), 9)
    assert line.size == (5,) and line.box == ((2, 6),) and line.centre == (4.0,)
    volume = field_of(nn.Sequential(nn.Conv3d(2, 2, (1, 2, 3)), nn.AvgPool3d((2, 1, 3))), 6, 7, 8)
    assert volume.size == (2, 2, 5) and volume.stride == (2, 1, 3)


def test_whole_images():
    for layer in (
        nn.InstanceNorm2d(2), nn.GroupNorm(1, 2), nn.LayerNorm((2, 6, 7)), nn.AdaptiveAvgPool2d(1),
        Apply(lambda y, _: y.mean((2, 3))), Apply(lambda y, _: y @ Tensor(np.ones((7, 5), np.float32)), nn.GroupNorm(2, 2)),
    ):  # fmt: skip
        field = field_of(layer, 6, 7)
        assert field.whole and field.size == (6, 7) and not field.exceeds and field.box == ((0, 5), (0, 6))
    linear = fields(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(60, 4)), (1, 2, 6, 7))
    assert linear["1"].size == (3, 3)  # each of the numbers still has its place
    assert linear["2"].whole
    assert str(field_of(nn.BatchNorm2d(2), 6, 7)) == "1×1"  # in evaluation mode


def test_a_map_of_one_pixel_sees_what_its_window_holds():
    """LeNet's last convolution leaves one pixel: its field is that of the window, and flattening keeps it."""
    field = field_of(nn.Sequential(nn.Conv2d(2, 3, 4, padding=1), nn.Flatten(), nn.Linear(3, 4)), 2, 2)
    assert field.size == (4, 4) and not field.whole and field.exceeds and field.box == ((0, 1), (0, 1))


def test_transposed_strides_are_fractions_and_fields_depend_on_the_phase():
    field = field_of(nn.ConvTranspose2d(2, 2, (4, 3), 2, 1), 6, 6)
    assert field.stride == (Fraction(1, 2), Fraction(1, 2))
    assert field.size == (2, 2)  # along the width, one or two
    assert [axis.uniform for axis in field.axes] == [False, False]
    assert fields(nn.Sequential(nn.ConvTranspose2d(2, 2, 4, 2, 1), nn.AvgPool2d(2)), (1, 2, 6, 6))[""].stride == (1, 1)


def test_gaps_see_nothing():
    field = field_of(nn.ConvTranspose2d(2, 2, 1, 3), 4, 5)
    assert field.size == (1, 1) and field.box is None  # the middle, (5, 6), is a gap along the height
    assert np.isnan(field.centre[0]) and field.centre[1] == 2
    assert field.axes[1].box == (2, 2)


def test_image_axes_may_move_and_come_back():
    """As in ConvNeXt and in transformers."""
    channels_last = Apply(
        lambda y, _: nn.Linear(3, 4)(nn.LayerNorm(3)(y.permute(0, 2, 3, 1))).permute(0, 3, 1, 2), nn.Conv2d(2, 3, 3)
    )
    assert field_of(channels_last, 8, 9).size == (3, 3)
    tokens = Apply(lambda y, _: nn.Linear(3, 4)(y.flatten(2).transpose(1, 2)), nn.Conv2d(2, 3, 3, 2))
    assert field_of(tokens, 8, 9).size == (3, 3) and field_of(tokens, 8, 9).stride == (2, 2)
    attention = Apply(
        lambda y, _: F.softmax(y.transpose(1, 2) @ y, dim=-1) @ y.transpose(1, 2), nn.Conv2d(2, 3, 3, 2), nn.Flatten(2)
    )
    assert field_of(attention, 8, 9).whole
    columns = Apply(lambda y, _: (Tensor(np.ones((4, 18), np.float32)) @ F.unfold(y, 3)).reshape(1, 4, 6, 7))
    assert field_of(columns, 8, 9).size == (3, 3)
    back = Apply(lambda y, _: F.fold(F.unfold(y, (3, 2), stride=2), (9, 10), (3, 2), stride=2))
    assert field_of(back, 9, 10).size == (5, 2)
    line = Apply(lambda y, _: F.fold(F.unfold(y, (3,), stride=2), (9,), (3,), stride=2))
    assert field_of(line, 9).size == (5,) and field_of(line, 9).box == ((2, 6),)
    pixel = Apply(lambda y, _: y[:, :, 2, 3], nn.Conv2d(2, 3, 3))
    assert field_of(pixel, 8, 9).size == (3, 3) and field_of(pixel, 8, 9).box == ((2, 4), (3, 5))
    crop = field_of(Apply(lambda y, _: F.pad(y, (-1, 0, -2, 1))), 9, 10)
    assert crop.size == (1, 1) and crop.box == ((6, 6), (5, 5)) and crop.axes[0].first_centre == 2


def test_what_is_not_known_is_said_and_stays():
    def mine(y, _):
        return record(y.data[:, :, ::-1], (y,), lambda grad: (grad[:, :, ::-1],))

    for function, reason in (
        (mine, "does not say which pixels it reads"),
        (lambda y, _: cat((y, y), dim=2), "cat joins or cuts along an axis of the image"),
        (lambda y, _: y.flatten(2)[:, :, 1:], "joins or cuts along an axis of the image"),
        (lambda y, _: y.reshape(1, 2, 2, 3, 7), "reshape cuts an axis of the image into pieces"),
        (lambda y, _: y[:, :, [0, 1]], "getitem does not say which pixels it reads"),
        (lambda y, _: y + y.transpose(2, 3)[:, :, :6, :1], "two places each, as in a matrix of attention"),
        (lambda y, _: F.conv2d(Tensor(np.ones((1, 2, 9, 9), np.float32)), y), "makes use of the image in an operand"),
        (lambda y, _: y.detach(), "no differentiable operation leads here from the image"),
    ):
        found = fields(nn.Sequential(Apply(function), nn.ReLU()), (1, 2, 6, 7))
        assert reason in found["0"].reason and found["1"].reason == found["0"].reason
        assert str(found["1"]) == "unavailable" and found["1"].size == () and found["1"].box is None
        assert not found["1"].whole and not found["1"].exceeds
    assert "no axes of an image" in fields(nn.Linear(4, 2), (3, 4))[""].reason


def test_a_call_that_returns_no_tensor():
    traced = trace(Apply(lambda y, _: {"loss": None}), (1, 2, 5, 5))
    assert receptive_fields(traced)[0].reason == "the layer returns no tensor"


def test_a_module_that_is_called_twice_has_two_fields():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    found = fields(nn.Sequential(layer, nn.ReLU(), layer), (1, 2, 9, 9))
    assert found["0"].size == (3, 3) and found["0 (2)"].size == (5, 5)


def test_branches_of_different_speed():
    """Down to half of an odd size and back, as in feature pyramids: the middle counts, and is near to what it would be."""

    def pyramid(y, x):
        return x + F.interpolate(F.avg_pool2d(x, 2), x.shape[2:], mode="nearest")

    axis = field_of(Apply(pyramid), 15, 16).axes[0]
    assert not axis.uniform and axis.places == 15 and axis.box == (6, 7)
    assert field_of(Apply(pyramid), 16, 16).size == (2, 2)


# ---- against the gradient --------------------------------------------------------------------------------------------


def made_positive(model):
    """All weights are positive, so that no two paths cancel."""
    random = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data[...] = random.uniform(0.5, 1.5, parameter.shape)
    return model.double()


def positive_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 2, shape)


class Residual(nn.Module):
    """A branch, added to its input."""

    def __init__(self, *layers):
        self.branch = nn.Sequential(*layers)

    def forward(self, x):
        """A ReLU cuts nothing off what is positive."""
        return (x + self.branch(x)).maximum(0)


class Concat(nn.Module):
    """Two branches side by side, as channels."""

    def __init__(self, left, right):
        self.left, self.right = left, right

    def forward(self, x):
        """Twice as many channels, mixed to two."""
        y = cat((self.left(x), self.right(x)), dim=1)
        return y[:, :2] + y[:, 2:]


class Resize(nn.Module):
    """Interpolation; without bicubic, whose weights may be negative."""

    def __init__(self, **options):
        self.options = options

    def forward(self, x):
        """As the options say."""
        return F.interpolate(x, **self.options)


class Fickle(nn.Module):
    """Goes another way where there are numbers."""

    def __init__(self):
        self.spare = nn.ReLU()

    def forward(self, x):
        """Of zeros, as in a rehearsal, the ReLU."""
        return x if x.sum().item() else self.spare(x)


small = st.integers(1, 3)
pads = st.tuples(st.integers(0, 2), st.integers(0, 2))


@st.composite
def convolutions(draw):
    options = {"stride": draw(small), "dilation": draw(small), "groups": draw(st.sampled_from([1, 2])), "bias": False}
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    return nn.Conv2d(2, 2, (draw(small), draw(small)), padding=(draw(pads), draw(pads)), padding_mode=mode, **options)


@st.composite
def transposed(draw):
    kernel, stride = draw(st.integers(1, 4)), draw(small)
    return nn.ConvTranspose2d(
        2, 2, kernel, stride, dilation=draw(small), output_padding=draw(st.integers(0, stride - 1))
    )


@st.composite
def poolings(draw):
    kernel, stride, ceil = draw(small), draw(small), draw(st.booleans())
    kind = draw(st.sampled_from([nn.AvgPool2d, nn.MaxPool2d]))
    return kind(kernel, stride, draw(st.integers(0, kernel // 2)), ceil_mode=ceil)


@st.composite
def resizes(draw):
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "area"]))
    if draw(st.booleans()):
        return Resize(scale_factor=draw(st.sampled_from([0.6, 1.5, 2.0])), mode=mode)
    corners = draw(st.booleans()) if mode == "bilinear" else None
    return Resize(size=(draw(st.integers(2, 9)), draw(st.integers(2, 9))), mode=mode, align_corners=corners)


def same(kernel: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(2, 2, kernel, padding="same", dilation=dilation, bias=False)


layers = st.one_of(
    convolutions(), poolings(), transposed(), resizes(),
    st.builds(lambda k, d: Residual(same(k, d)), small, small),
    st.builds(lambda k, d: Concat(same(k, d), nn.MaxPool2d(3, 1, 1)), small, small),
    st.builds(lambda s: Concat(nn.ConvTranspose2d(2, 2, 1, s, output_padding=s - 1), Resize(scale_factor=s)), small),
    st.builds(lambda r: nn.Sequential(nn.Conv2d(2, 2 * r * r, 2, bias=False), nn.PixelShuffle(r)), small),
    st.builds(lambda: nn.AdaptiveAvgPool2d((3, 5))),
    st.builds(lambda: nn.AdaptiveMaxPool2d((4, None))),
    st.builds(lambda: nn.ReflectionPad2d(1)),
)  # fmt: skip


def seen_by_gradient(model, image: np.ndarray) -> list[np.ndarray | None]:
    """For both axes, whether the gradient of the middle output has something there. No code of the analysis."""
    x = Tensor(image, requires_grad=True)
    y = model(x)
    seed = np.zeros(y.shape)
    seed[..., y.shape[-2] // 2, y.shape[-1] // 2] = 1
    y.backward(seed)
    there = np.abs(x.grad).sum(axis=(0, 1)) > 1e-12
    return [there.any(axis=1), there.any(axis=0)]


@settings(deadline=None, max_examples=100)
@given(st.lists(layers, min_size=1, max_size=5), st.integers(9, 14), st.integers(9, 14))
def test_the_gradient_reaches_to_the_ends_of_the_box_and_no_further(stack, height, width):
    """Of maxima only those that win pass gradients on: there the box is a bound."""
    model = made_positive(nn.Sequential(*stack))
    image = positive_images(1, 2, height, width)
    try:
        shape = model(Tensor(image)).shape
    except ValueError:
        assume(False)  # the image became too small
    assume(max(shape[2:]) < 60)
    found = fields(model, image.shape)[""]
    assert not found.reason
    bound = any(isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d) for module in model.modules())
    rows, columns = seen_by_gradient(model, image)
    if found.box is None or not rows.any():
        assert bound or (not rows.any() and any(axis.box is None for axis in found.axes))
        return
    for axis, there in zip(found.axes, (rows, columns), strict=True):
        places = np.flatnonzero(there)
        first, last = axis.box
        assert first <= places[0] and places[-1] <= last
        if not bound:
            assert (places[0], places[-1]) == (first, last)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 4), small, small), min_size=1, max_size=4))
def test_the_endless_field_is_that_in_the_middle_of_a_large_image(stack):
    """Size, centre and stride of windows and their transposes, found far from all borders."""
    made = [
        nn.Conv1d(2, 2, k, s, dilation=d, bias=False) if number % 2 == 0 else nn.ConvTranspose1d(2, 2, k, s, dilation=d, bias=False)
        for number, (k, s, d) in enumerate(stack)
    ]  # fmt: skip
    model = made_positive(nn.Sequential(*made))
    x = Tensor(positive_images(36, 2, 1000), requires_grad=True)  # 36 is a multiple of any period here
    axis = fields(model, x.shape)[""].axes[0]
    y = model(x)
    seed = np.zeros(y.shape)
    seed[np.arange(36), :, y.shape[-1] // 2 + np.arange(36)] = 1  # another place in each image
    y.backward(seed)
    there = [np.flatnonzero(image > 1e-12) for image in np.abs(x.grad).sum(axis=1)]
    ends = [(places[0], places[-1]) if len(places) else None for places in there]
    assert axis.size == max(end[1] - end[0] + 1 for end in ends if end)
    assert axis.box == ends[0]
    assert np.isnan(axis.centre) if ends[0] is None else axis.centre == sum(ends[0]) / 2
    steps = {None if a is None or b is None else (b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ends)}
    assert axis.uniform == (steps == {(axis.stride, axis.stride)})


@pytest.mark.parametrize("layer", ["maxpool", "layer1.1.bn2", "layer2.0.conv1", "layer3.0.downsample", "fc", ""])
def test_effective_fields_stay_inside(layer):
    model = create("resnet18", (3, 64, 64), 10)
    before = model.state_dict()
    found = effective(model, layer, (3, 3, 64, 96))
    assert found.strength.shape == (64, 96) and found.images == 3 and found.layer == layer
    for (first, last), (low, high) in zip(found.field.box, found.box, strict=True):
        assert first <= low <= high <= last
    assert 0 < found.size <= np.sqrt(64 * 96)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_effective_is_the_gradient():
    """Of one convolution: the mean over input channels of the sums over output channels of its weights."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU6())
    image = randn(2, 2, 6, 7)
    found = effective(model, "0", image)
    expected = np.abs(model[0].weight.numpy().sum(axis=0)).mean(axis=0)
    np.testing.assert_allclose(found.strength[2:5, 2:5], expected, rtol=1e-5)
    assert found.strength.sum() == pytest.approx(expected.sum(), rel=1e-5)
    assert found.box == ((2, 4), (2, 4)) and found.of == "2 images"
    model[0].weight.requires_grad = False
    model[1].eval()
    again = effective(model, "0", image.numpy())
    np.testing.assert_array_equal(found.strength, again.strength)
    assert not model[0].weight.requires_grad and model[0].bias.requires_grad
    assert model[0].training and not model[1].training


def test_random_images_depend_on_the_seed_alone():
    model = create("simple-cnn", (3, 32, 32), 10)
    one, same, other = (effective(model, "pool2", (2, 3, 32, 32), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.strength, same.strength)
    assert (one.strength != other.strength).any()
    assert one.of == "2 random images" and effective(model, "pool2", (1, 3, 32, 32)).of == "1 random image"


def test_the_middle_of_tokens_is_found():
    model = Apply(lambda y, _: y.flatten(2).transpose(1, 2), nn.Conv2d(2, 3, 3, 2))
    found = effective(model, "", (1, 2, 9, 12))
    assert found.box == found.field.box == ((4, 6), (4, 6))


def test_nothing_reaches_a_gap():
    found = effective(nn.ConvTranspose2d(2, 2, 1, 3), "", (1, 2, 4, 5))
    assert found.box is None and found.size == 0 and not found.strength.any()


def test_what_effective_refuses():
    model = create("resnet18", (3, 64, 64), 10)
    with pytest.raises(
        ValueError, match=r"path of a layer of ResNet, got 'layer1.0.conv3'; did you mean 'layer1.0.conv"
    ):
        effective(model, "layer1.0.conv3", (1, 3, 64, 64))
    with pytest.raises(ValueError, match="it has conv1, bn1, relu, maxpool"):
        check_layer(model, "xyzzy")
    with pytest.raises(ValueError, match=r"got 'downsample'; did you mean .*'layer2.0.downsample'"):
        check_layer(model, "downsample")
    with pytest.raises(ValueError, match=r"images must be one or more, of shape \(N, C, …\), got \(0, 3, 8, 8\)"):
        effective(model, "fc", (0, 3, 8, 8))
    idle = Apply(lambda y, _: y.detach())
    idle.spare = nn.ReLU()
    with pytest.raises(ValueError, match="layer 'spare' is not called by the model"):
        effective(idle, "spare", (1, 2, 8, 8))
    with pytest.raises(ValueError, match="layer 'spare' is not called with these images, for the path"):
        effective(Fickle(), "spare", np.ones((1, 2, 8, 8), np.float32))
    with pytest.raises(ValueError, match="the field of layer '' is not known: no differentiable operation"):
        effective(idle, "", (1, 2, 8, 8))
