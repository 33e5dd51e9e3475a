"""Normalisation: against PyTorch, by finite differences, exactly on numbers that allow it, and when misused."""

import copy
import itertools
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle.gradcheck import check_gradients
from tinytorch import Tensor, nn
from tinytorch.nn import functional as F

TRIALS = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
DTYPES = st.sampled_from([np.float32, np.float64])
SPATIAL = st.lists(st.integers(1, 5), max_size=3)
CHANNELS = st.sampled_from([1, 2, 3, 4, 6, 16, 17])


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def channels_last(x):
    """The same array, the channels of a pixel being neighbours in memory."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, -1 % x.ndim, *range(1, x.ndim - 1))


def is_channels_last(x):
    return np.moveaxis(x, 1, -1).flags.c_contiguous


@st.composite
def images(draw, least=0):
    """An array of images in either order of memory, with a scale, an offset and perhaps a parameter or two."""
    spatial = draw(SPATIAL.filter(lambda sizes: len(sizes) >= least))
    shape = (draw(st.integers(2, 4)), draw(CHANNELS), *spatial)
    x = normal(*shape, dtype=draw(DTYPES), seed=draw(st.integers(0, 99))) * 3 + draw(st.sampled_from([0, 5]))
    return channels_last(x) if draw(st.booleans()) else x


def agree(ours, theirs, *arrays):
    """Compare results and gradients, to an error of the numbers that went in: those of a mean cancel."""
    torch = pytest.importorskip("torch")
    mine = [Tensor(a.copy("K"), requires_grad=True) for a in arrays]
    his = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*mine), theirs(*his)
    weights = normal(*out.shape, dtype=arrays[0].dtype, seed=9)
    out.backward(weights)
    expected.backward(torch.tensor(weights))
    pairs = [(out.data, expected.detach()), *((a.grad, b.grad) for a, b in zip(mine, his, strict=True))]
    for a, b in pairs:
        b = b.numpy()
        assert a.shape == b.shape and a.dtype == b.dtype
        tolerance = 2e-5 if a.dtype == np.float32 else 1e-10
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max(initial=0)))


def parameters(x, shape, chosen, seed=1):
    """Weight and bias of this shape, those that are chosen."""
    return [normal(*shape, dtype=x.dtype, seed=seed + i) for i, wanted in enumerate(chosen) if wanted]


def spread(chosen, tensors):
    """The tensors, with None for those that are not chosen."""
    rest = iter(tensors)
    return [next(rest) if wanted else None for wanted in chosen]


CHOSEN = st.tuples(st.booleans(), st.booleans())


# ---- as PyTorch -----------------------------------------------------------------------------------------------------


@TRIALS
@given(images(), CHOSEN, st.booleans(), st.booleans(), st.sampled_from([0.0, 0.1, 1.0]))
def test_batch_norm_as_torch(x, chosen, training, tracked, momentum):
    torch = pytest.importorskip("torch")
    channels = x.shape[1]
    statistics = normal(channels, dtype=x.dtype, seed=3), np.abs(normal(channels, dtype=x.dtype, seed=4)) + 0.5
    ours = [Tensor(s.copy()) for s in statistics] if tracked or not training else [None, None]
    theirs = [torch.tensor(s) for s in statistics] if tracked or not training else [None, None]
    agree(
        lambda x, *p: F.batch_norm(x, *ours, *spread(chosen, p), training, momentum, 1e-3),
        lambda x, *p: torch.nn.functional.batch_norm(x, *theirs, *spread(chosen, p), training, momentum, 1e-3),
        x,
        *parameters(x, (channels,), chosen),
    )
    check_statistics(ours, theirs)


def check_statistics(ours, theirs):
    for mine, his in zip(ours, theirs, strict=True):
        if mine is not None:
            np.testing.assert_allclose(mine.data, his.numpy(), rtol=1e-5 if mine.dtype == np.float32 else 1e-12)


@TRIALS
@given(images(least=1), CHOSEN, st.booleans(), st.booleans())
def test_instance_norm_as_torch(x, chosen, from_input, tracked):
    torch = pytest.importorskip("torch")
    if x[0, 0].size == 1:
        x = np.concatenate([x, x + 1, x * 2], axis=2)
    channels = x.shape[1]
    statistics = normal(channels, dtype=x.dtype, seed=3), np.abs(normal(channels, dtype=x.dtype, seed=4)) + 0.5
    ours = [Tensor(s.copy()) for s in statistics] if tracked or not from_input else [None, None]
    theirs = [torch.tensor(s) for s in statistics] if tracked or not from_input else [None, None]
    agree(
        lambda x, *p: F.instance_norm(x, *ours, *spread(chosen, p), from_input, 0.3, 1e-3),
        lambda x, *p: torch.nn.functional.instance_norm(x, *theirs, *spread(chosen, p), from_input, 0.3, 1e-3),
        x,
        *parameters(x, (channels,), chosen),
    )
    check_statistics(ours, theirs)


@TRIALS
@given(images(), CHOSEN.filter(lambda chosen: chosen[0] or not chosen[1]), st.data())  # torch fails on a bias alone
def test_group_norm_as_torch(x, chosen, data):
    torch = pytest.importorskip("torch")
    channels = x.shape[1]
    groups = data.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    agree(
        lambda x, *p: F.group_norm(x, groups, *spread(chosen, p), 1e-2),
        lambda x, *p: torch.nn.functional.group_norm(x, groups, *spread(chosen, p), 1e-2),
        x,
        *parameters(x, (channels,), chosen),
    )


@TRIALS
@given(images(), CHOSEN, st.data())
def test_layer_norm_as_torch(x, chosen, data):
    torch = pytest.importorskip("torch")
    shape = x.shape[data.draw(st.integers(0, x.ndim - 1)) :]
    agree(
        lambda x, *p: F.layer_norm(x, shape, *spread(chosen, p), 1e-2),
        lambda x, *p: torch.nn.functional.layer_norm(x, shape, *spread(chosen, p), 1e-2),
        x,
        *parameters(x, shape, chosen),
    )


@TRIALS
@given(images(), st.booleans(), st.sampled_from([None, 1e-2]), st.data())
def test_rms_norm_as_torch(x, weighted, eps, data):
    torch = pytest.importorskip("torch")
    shape = x.shape[data.draw(st.integers(0, x.ndim - 1)) :]
    agree(
        lambda x, w=None: F.rms_norm(x, shape, w, eps),
        lambda x, w=None: torch.nn.functional.rms_norm(x, shape, w, eps),
        x,
        *parameters(x, shape, (weighted,)),
    )


@TRIALS
@given(images(least=1), st.integers(1, 9), st.sampled_from([(1e-4, 0.75, 1.0), (2.0, 0.5, 1.25), (0.1, 1.0, 3.0)]))
def test_local_response_norm_as_torch(x, size, constants):
    torch = pytest.importorskip("torch")
    agree(
        lambda x: F.local_response_norm(x, size, *constants),
        lambda x: torch.nn.functional.local_response_norm(x, size, *constants),
        x,
    )


@TRIALS
@given(images(), st.sampled_from([2.0, 2, 1.0, 3.0, 0.5, 1.5, 0.0, -1.0, np.inf, -np.inf]), st.data())
def test_normalize_as_torch(x, p, data):
    torch = pytest.importorskip("torch")
    dims = st.lists(st.integers(-x.ndim, x.ndim - 1), min_size=1, unique_by=lambda d: d % x.ndim).map(tuple)
    dim = data.draw(st.one_of(st.integers(-x.ndim, x.ndim - 1), dims))
    agree(lambda x: F.normalize(x, p, dim), lambda x: torch.nn.functional.normalize(x, p, dim), x)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 0.5, np.inf, 0.0, -1.0])
def test_normalize_where_the_norm_is_small_or_has_a_kink_as_torch(p):
    torch = pytest.importorskip("torch")
    x = np.array([[0, 0, 0], [0, 0, 3], [2, -2, 1], [1e-3, 0, -2e-3], [4, 0, 4]], np.float64)
    agree(lambda x: F.normalize(x, p, 1, 0.01), lambda x: torch.nn.functional.normalize(x, p, 1, 0.01), x)


def test_normalize_of_one_number_and_of_everything():
    torch = pytest.importorskip("torch")
    agree(lambda x: F.normalize(x, dim=0), lambda x: torch.nn.functional.normalize(x, dim=0), np.array(-3.0))
    agree(lambda x: F.normalize(x, dim=None), lambda x: x / x.norm(), normal(2, 3, 4))


# ---- gradients ------------------------------------------------------------------------------------------------------

ZERO, ONE = Tensor(np.zeros(4)), Tensor(np.ones(4) * 0.7)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(3, 4, 2, 3), (4,), (4,)]),
        (lambda x: F.batch_norm(x, None, None, training=True), [(3, 4)]),
        (lambda x, w, b: F.batch_norm(x, ZERO, ONE, w, b), [(2, 4, 3), (4,), (4,)]),
        (lambda x: F.batch_norm(x, ZERO, ONE), [(2, 4, 2, 1, 2)]),
        (lambda x, w: F.instance_norm(x, weight=w), [(2, 4, 5), (4,)]),
        (lambda x, b: F.instance_norm(x, ZERO, ONE, bias=b, use_input_stats=False), [(2, 4, 3), (4,)]),
        (lambda x, w, b: F.group_norm(x, 2, w, b), [(2, 4, 3), (4,), (4,)]),
        (lambda x: F.group_norm(x, 1), [(2, 4)]),
        (lambda x, w, b: F.layer_norm(x, (3, 2), w, b), [(4, 3, 2), (3, 2), (3, 2)]),
        (lambda x, b: F.layer_norm(x, 5, None, b), [(2, 2, 5), (5,)]),
        (lambda x, w: F.rms_norm(x, 5, w), [(2, 3, 5), (5,)]),
        (lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 2.0), [(2, 5, 3)]),
        (lambda x: F.local_response_norm(x, 4, 0.5, 0.75, 2.0), [(1, 6, 2, 2)]),
        (lambda x: F.normalize(x), [(2, 4, 3)]),
        (lambda x: F.normalize(x, 3.0, (0, 2)), [(2, 4, 3)]),
    ],
)
def test_gradients_by_finite_differences(function, shapes):
    check_gradients(function, *(normal(*shape, dtype=np.float64, seed=i) for i, shape in enumerate(shapes)))


def test_only_what_requires_a_gradient_gets_one():
    x, w, b = Tensor(normal(2, 4, 3)), Tensor(normal(4), requires_grad=True), Tensor(normal(4))
    F.group_norm(x, 2, w, b).sum().backward()
    assert x.grad is None and b.grad is None and w.grad.shape == (4,)


# ---- what they are --------------------------------------------------------------------------------------------------

SIGNS = np.tile(np.array([[1, -1, -1, 1], [-1, 1, 1, -1]], np.float32), (2, 2)).reshape(2, 4, 2, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("normalise", "shape"),
    [
        (lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=3), (4,)),
        (lambda x, w, b: F.instance_norm(x, None, None, w, b, eps=3), (4,)),
        (lambda x, w, b: F.group_norm(x, 2, w, b, eps=3), (4,)),
        (lambda x, w, b: F.layer_norm(x, (4, 2, 2), w, b, eps=3), (4, 2, 2)),
        (lambda x, w, b: F.rms_norm(x, (2, 2), w, eps=3) + b, (2, 2)),
    ],
)
def test_exact_where_the_standard_deviation_is_two(normalise, shape, dtype):
    """Numbers of ±1 have mean 0 and variance 1, and √(1 + 3) is 2."""
    x = SIGNS.astype(dtype)
    w, b = (np.random.default_rng(i).integers(-4, 5, shape).astype(dtype) for i in range(2))
    own = (-1, 1, 1) if shape == (4,) else shape
    expected = x / 2 * w.reshape(own) + b.reshape(own)
    for images in (x, channels_last(x)):
        np.testing.assert_array_equal(normalise(Tensor(images), Tensor(w), Tensor(b)).data, expected)


@TRIALS
@given(images(least=1))
def test_group_norm_is_instance_norm_and_layer_norm_at_its_ends(x):
    if x[0, 0].size == 1:
        return
    t, tolerance = Tensor(x), 1e-5 if x.dtype == np.float32 else 1e-12
    np.testing.assert_array_equal(F.group_norm(t, x.shape[1]).data, F.instance_norm(t).data)
    np.testing.assert_array_equal(F.batch_norm(t[:1], None, None, training=True).data, F.instance_norm(t[:1]).data)
    whole = F.layer_norm(t, x.shape[1:]).data
    np.testing.assert_allclose(F.group_norm(t, 1).data, whole, rtol=tolerance, atol=tolerance)


NORMS = {
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "instance_norm": F.instance_norm,
    "group_norm": lambda x: F.group_norm(x, 2),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[1:]),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "normalize": F.normalize,
}


@pytest.mark.parametrize("name", NORMS)
def test_memory_stays_channels_last_forward_and_backward(name):
    x = Tensor(channels_last(normal(2, 4, 5, 3)), requires_grad=True)
    y = NORMS[name](x)
    assert is_channels_last(y.data) and f"grad_fn=<{name}>" in repr(y)
    y.backward(channels_last(normal(2, 4, 5, 3, seed=1)))
    assert is_channels_last(x.grad)


@pytest.mark.parametrize("name", NORMS)
def test_the_order_of_memory_does_not_matter(name):
    x, weights = normal(2, 4, 5, 3), normal(2, 4, 5, 3, seed=1)
    results = []
    for first, second in itertools.product((np.ascontiguousarray, channels_last), repeat=2):
        t = Tensor(first(x), requires_grad=True)
        y = NORMS[name](t)
        y.backward(second(weights))
        results.append((y.data, t.grad))
    for y, gradient in results[1:]:
        np.testing.assert_allclose(y, results[0][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, results[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm", "group_norm", "layer_norm"])
def test_a_large_mean_survives(name):
    y = NORMS[name](Tensor(normal(8, 2, 9, 9, dtype=np.float64) + 1e7)).data
    assert abs(y.std() - 1) < 1e-4


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", [(3, 4, 40, 33), (1, 2, 700, 3), (40, 8, 2, 2)])
def test_the_same_bits_every_time(name, shape):
    def run():
        x = Tensor(normal(*shape), requires_grad=True)
        y = NORMS[name](x)
        y.backward(normal(*shape, seed=1))
        return y.data, x.grad

    before = run()
    for after in (run() for _ in range(3)):
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(2500, 3), (3, 2500), (1, 5000), (9, 1025), (70, 64), (5, 16)])
@pytest.mark.parametrize("function", ["layer_norm", "rms_norm"])
def test_rows_of_many_and_of_few_numbers(function, shape):
    """Rows are shared among threads, long ones in runs; columns in strips."""
    torch = pytest.importorskip("torch")
    x, parameters = normal(*shape), [normal(shape[1], seed=1 + i) for i in range(1 + (function == "layer_norm"))]
    agree(
        lambda x, *p: getattr(F, function)(x, shape[1:], *p, eps=1e-3),
        lambda x, *p: getattr(torch.nn.functional, function)(x, shape[1:], *p, eps=1e-3),
        x,
        *parameters,
    )


def test_mixed_precision_computes_in_that_of_the_input():
    x, w = Tensor(normal(2, 4, 3, dtype=np.float64), requires_grad=True), Tensor(normal(4), requires_grad=True)
    y = F.group_norm(x, 2, w)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype, w.grad.dtype) == (np.float64, np.float64, np.float32)
    z, v = Tensor(normal(2, 4), requires_grad=True), Tensor(normal(4, dtype=np.float64), requires_grad=True)
    y = F.layer_norm(z, 4, v)
    y.sum().backward()
    assert (y.dtype, z.grad.dtype, v.grad.dtype) == (np.float32, np.float32, np.float64)


@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3)])
@pytest.mark.parametrize("name", NORMS)
def test_nothing_goes_through_as_in_torch(name, shape):
    torch = pytest.importorskip("torch")
    ours = Tensor(np.zeros(shape, np.float32), requires_grad=True)
    out = NORMS[name](ours)
    theirs = {
        **vars(torch.nn.functional),
        "batch_norm": lambda x: torch.nn.functional.batch_norm(x, None, None, training=True),
    }
    arguments = {"group_norm": (2,), "layer_norm": (shape[1:],), "rms_norm": (shape[1:],), "local_response_norm": (3,)}
    assert out.shape == theirs[name](torch.zeros(shape), *arguments.get(name, ())).shape
    out.sum().backward()
    assert ours.grad.shape == shape


def test_an_empty_batch_leaves_the_running_statistics_and_gives_parameters_no_gradient():
    layer = nn.BatchNorm2d(3)
    layer(Tensor(np.zeros((0, 3, 4, 4), np.float32), requires_grad=True)).sum().backward()
    assert (layer.running_mean.data == 0).all() and (layer.running_var.data == 1).all()
    assert (layer.weight.grad == 0).all() and (layer.bias.grad == 0).all()


# ---- layers ---------------------------------------------------------------------------------------------------------

LAYERS = [
    ("BatchNorm1d", (4,), {}, [(6, 4)]),
    ("BatchNorm1d", (4,), {"eps": 0.1, "momentum": 0.3}, [(3, 4, 5)]),
    ("BatchNorm2d", (4,), {"momentum": None}, [(3, 4, 5, 2)]),
    ("BatchNorm2d", (4, 1e-3, 0.2, False), {}, [(3, 4, 5, 2)]),
    ("BatchNorm2d", (4, 1e-3, 0.2, True, False), {}, [(3, 4, 5, 2)]),
    ("BatchNorm2d", (4,), {"bias": False}, [(3, 4, 5, 2)]),
    ("BatchNorm3d", (4,), {"affine": False, "track_running_stats": False}, [(2, 4, 3, 2, 3)]),
    ("BatchNorm3d", (4,), {}, [(2, 4, 3, 2, 3)]),
    ("InstanceNorm1d", (4,), {}, [(3, 4, 5), (4, 5)]),
    ("InstanceNorm2d", (4,), {"affine": True}, [(3, 4, 5, 2), (4, 5, 2)]),
    ("InstanceNorm2d", (4, 1e-3, 0.4, True, True), {}, [(3, 4, 5, 2), (4, 5, 2)]),
    ("InstanceNorm2d", (4,), {"momentum": None, "track_running_stats": True}, [(3, 4, 5, 2)]),
    ("InstanceNorm3d", (4,), {"affine": True, "bias": False}, [(2, 4, 3, 2, 3), (4, 3, 2, 3)]),
    ("GroupNorm", (1, 4), {}, [(3, 4, 5, 2), (3, 4)]),
    ("GroupNorm", (4, 4, 1e-2, False), {}, [(3, 4, 5)]),
    ("GroupNorm", (1, 4), {"bias": False}, [(3, 4, 5)]),
    ("LayerNorm", (5,), {}, [(3, 4, 5), (5,)]),
    ("LayerNorm", ([4, 5], 1e-2), {}, [(3, 4, 5)]),
    ("LayerNorm", ((4, 5), 1e-2, False), {}, [(3, 4, 5)]),
    ("LayerNorm", (5, 1e-2, True, False), {}, [(3, 4, 5)]),
    ("RMSNorm", (5,), {}, [(3, 4, 5)]),
    ("RMSNorm", ((4, 5), 1e-2, False), {}, [(3, 4, 5)]),
    ("LocalResponseNorm", (3,), {}, [(3, 4, 5), (2, 4, 3, 3)]),
    ("LocalResponseNorm", (2, 0.1, 0.5, 2.0), {}, [(3, 4, 5)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "options", "shapes"), LAYERS)
def test_layers_follow_torch_through_train_and_eval(name, arguments, options, shapes):
    torch = pytest.importorskip("torch")
    ours, theirs = (getattr(module, name)(*arguments, **options) for module in (nn, torch.nn))
    check_state(ours, theirs)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for mode in (True, True, False):
        ours.train(mode)
        theirs.train(mode)
        for seed, shape in enumerate(shapes):
            agree(ours, theirs, normal(*shape, seed=seed + 10 * mode) * 2 + 1)
        check_state(ours, theirs)
    for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad, his.grad.numpy(), rtol=1e-4, atol=1e-4)


def check_state(ours, theirs):
    """The same names in the same order, with the same values of the same shapes and types."""
    mine, his = ours.state_dict(), {key: value.detach().numpy() for key, value in theirs.state_dict().items()}
    assert list(mine) == list(his)
    for key, value in his.items():
        assert mine[key].shape == value.shape and mine[key].dtype == value.dtype
        np.testing.assert_allclose(mine[key], value, rtol=1e-5, atol=1e-6)


def test_a_layer_in_double_precision_and_its_copy():
    layer = nn.BatchNorm1d(3).double()
    x = Tensor(normal(5, 3, dtype=np.float64))
    twin = copy.deepcopy(layer)
    assert layer(x).dtype == np.float64 and layer.running_mean.dtype == np.float64
    assert (twin.running_mean.data == 0).all() and (layer.running_mean.data != 0).all()


def test_statistics_that_are_no_longer_tracked_stay_as_in_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    x = normal(4, 3, 5, 5) + 2
    for module in (ours, theirs):
        module.track_running_stats = False
    np.testing.assert_allclose(ours(Tensor(x)).data, theirs(torch.tensor(x)).detach().numpy(), atol=1e-5)
    check_state(ours, theirs)
    np.testing.assert_allclose(ours.eval()(Tensor(x)).data, theirs.eval()(torch.tensor(x)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: nn.BatchNorm1d(8), "BatchNorm1d(8, eps=1e-05, momentum=0.1)"),
        (lambda: nn.BatchNorm3d(8, 0.1, None, False, False), "BatchNorm3d(8, eps=0.1, momentum=None, affine=False, track_running_stats=False)"),
        (lambda: nn.BatchNorm2d(8, bias=False), "BatchNorm2d(8, eps=1e-05, momentum=0.1, bias=False)"),
        (lambda: nn.InstanceNorm2d(8), "InstanceNorm2d(8, eps=1e-05, momentum=0.1)"),
        (lambda: nn.InstanceNorm2d(8, affine=True), "InstanceNorm2d(8, eps=1e-05, momentum=0.1, affine=True)"),
        (lambda: nn.GroupNorm(2, 8), "GroupNorm(2, 8, eps=1e-05, affine=True, bias=True)"),
        (lambda: nn.LayerNorm(8), "LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True)"),
        (lambda: nn.GroupNorm(2, 8, bias=False), "GroupNorm(2, 8, eps=1e-05, affine=True, bias=False)"),
        (lambda: nn.LayerNorm(8, bias=False), "LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=False)"),
        (lambda: nn.RMSNorm((2, 8)), "RMSNorm((2, 8), eps=None, elementwise_affine=True)"),
        (lambda: nn.LocalResponseNorm(5), "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"),
    ],
)  # fmt: skip
def test_repr(layer, text):
    assert repr(layer()) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda nn: nn.GroupNorm(2, 8),
        lambda nn: nn.GroupNorm(2, 8, bias=False),
        lambda nn: nn.GroupNorm(2, 8, affine=False),
        lambda nn: nn.LayerNorm((2, 8)),
        lambda nn: nn.LayerNorm(8, bias=False),
        lambda nn: nn.RMSNorm(8),
        lambda nn: nn.LocalResponseNorm(5, k=2),
    ],
)
def test_repr_as_torch(make):
    torch = pytest.importorskip("torch")
    assert repr(make(nn)) == repr(make(torch.nn))


def test_integers_and_arrays_of_numpy_are_options():
    x = Tensor(normal(2, 6, 5, 5))
    for dim, plain in ((np.int64(1), 1), (np.array([1, -1]), (1, 3)), ([1, 2], (1, 2))):
        np.testing.assert_array_equal(F.normalize(x, dim=dim).data, F.normalize(x, dim=plain).data)
    np.testing.assert_array_equal(F.layer_norm(x, np.array([5, 5])).data, F.layer_norm(x, (5, 5)).data)
    np.testing.assert_array_equal(F.group_norm(x, np.int64(2)).data, F.group_norm(x, 2).data)
    np.testing.assert_array_equal(
        F.local_response_norm(x, np.int64(3), np.float32(0.5), 1, 2).data,
        F.local_response_norm(x, 3, 0.5, 1.0, 2.0).data,
    )


# ---- misuse ---------------------------------------------------------------------------------------------------------

X = Tensor(normal(2, 6, 5, 5))
R = Tensor(np.zeros(6, np.float32)), Tensor(np.ones(6, np.float32))


def flat(*shape):
    return Tensor(normal(*shape))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.batch_norm(X.data, *R), TypeError, "batch_norm expects a Tensor, got ndarray; wrap the array: Tensor(x)"),
        (lambda: F.batch_norm(X.long(), *R), TypeError, "batch_norm computes in float32 or float64, got int64; convert with x.float()"),
        (lambda: F.batch_norm(flat(6), *R), ValueError, "batch_norm expects input of 2 to 5 axes, (batch, channels, …), got shape (6,); add a batch"),
        (lambda: F.batch_norm(flat(1, 6, 1, 1, 1, 2), *R), ValueError, "2 to 5 axes"),
        (lambda: F.batch_norm(flat(2, 5), *R), ValueError, "Expected 6 channels, got input (2, 5) with 5; running_mean has shape (6,) and needs one number per channel"),
        (lambda: F.batch_norm(X, *R, flat(6), flat(7)), ValueError, "Expected 7 channels, got input (2, 6, 5, 5) with 6; bias has shape (7,)"),
        (lambda: F.batch_norm(X, *R, flat(6, 1)), ValueError, "weight has shape (6, 1) and needs one number per channel"),
        (lambda: F.batch_norm(X, None, None), ValueError, "running_mean and running_var are needed when training=False, got None; pass training=True"),
        (lambda: F.batch_norm(X, R[0], None, training=True), ValueError, "running_mean and running_var go together, got only running_mean; pass both or neither"),
        (lambda: F.batch_norm(X, None, R[1], training=True), ValueError, "got only running_var"),
        (lambda: F.batch_norm(X, *R, eps=0), ValueError, "eps must be positive, got 0; it keeps constant numbers from being divided by zero"),
        (lambda: F.batch_norm(X, *R, momentum=-1.2), ValueError, "momentum must be between 0 and 1, got -1.2"),
        (lambda: F.batch_norm(X, *R, residual=flat(2, 6, 5, 4)), ValueError, "residual must have the shape of the input, (2, 6, 5, 5), got (2, 6, 5, 4)"),
        (lambda: F.batch_norm(flat(1, 6, 1), *R, training=True), ValueError, "needs more than one value per channel to take statistics of, got input (1, 6, 1); use a larger batch, or model.eval()"),
        (lambda: F.instance_norm(flat(6)), ValueError, "instance_norm expects input of 2 to 5 axes"),
        (lambda: F.instance_norm(flat(3, 6, 1)), ValueError, "instance_norm needs more than one pixel per channel to take statistics of, got input (3, 6, 1)"),
        (lambda: F.instance_norm(X, use_input_stats=False), ValueError, "are needed when use_input_stats=False, got None; pass use_input_stats=True"),
        (lambda: F.instance_norm(X, eps=-1), ValueError, "eps must be positive, got -1"),
        (lambda: F.instance_norm(X, momentum=2), ValueError, "momentum must be between 0 and 1, got 2"),
        (lambda: F.group_norm(flat(6), 2), ValueError, "group_norm expects input of 2 or more axes"),
        (lambda: F.group_norm(X, 4), ValueError, "num_groups must divide the channels, got num_groups=4 for 6 channels; use one of [1, 2, 3, 6]"),
        (lambda: F.group_norm(X, 0), ValueError, "num_groups must be a positive integer, got 0; it counts groups"),
        (lambda: F.group_norm(X, 2.0), ValueError, "num_groups must be a positive integer, got 2.0"),
        (lambda: F.group_norm(X, 2, flat(3)), ValueError, "Expected 3 channels, got input (2, 6, 5, 5) with 6"),
        (lambda: F.group_norm(X, 2, eps=0), ValueError, "eps must be positive"),
        (lambda: F.group_norm(flat(1, 6), 6), ValueError, "group_norm needs more than one value per group to take statistics of, got input (1, 6) with num_groups=6; use fewer groups"),
        (lambda: F.layer_norm(X, (6, 5)), ValueError, "normalized_shape must be the lengths of the last axes, got (6, 5) for input (2, 6, 5, 5); to normalise over the last axis alone pass (5,)"),
        (lambda: F.layer_norm(flat(5), (2, 5)), ValueError, "got (2, 5) for input (5,)"),
        (lambda: F.layer_norm(X, ()), ValueError, "normalized_shape must be the lengths of one axis or more, got (); for the last axis of x pass x.shape[-1]"),
        (lambda: F.layer_norm(X, 2.5), ValueError, "normalized_shape must be the lengths of one axis or more, got 2.5"),
        (lambda: F.layer_norm(X, 5, flat(6)), ValueError, "weight must have shape normalized_shape = (5,), got (6,)"),
        (lambda: F.layer_norm(X, 5, None, flat(1, 5)), ValueError, "bias must have shape normalized_shape = (5,), got (1, 5)"),
        (lambda: F.layer_norm(X, 5, eps=-0.5), ValueError, "eps must be positive, got -0.5"),
        (lambda: F.rms_norm(X, 5, flat(5, 5)), ValueError, "weight must have shape normalized_shape = (5,), got (5, 5)"),
        (lambda: F.rms_norm(X, 5, eps=0), ValueError, "eps must be positive, got 0"),
        (lambda: F.rms_norm(X.long(), 5), TypeError, "rms_norm computes in float32 or float64"),
        (lambda: F.local_response_norm(flat(2, 6), 3), ValueError, "local_response_norm expects input of 3 or more axes"),
        (lambda: F.local_response_norm(X, 0), ValueError, "size must be a positive integer, got 0; it counts channels"),
        (lambda: F.normalize(X, dim=4), IndexError, "dim must lie in [-4, 3] for a tensor of 4 axes, got 4"),
        (lambda: F.normalize(X, eps=0), ValueError, "eps must be positive, got 0"),
        (lambda: F.normalize(X.long()), TypeError, "normalize computes in float32 or float64"),
        (lambda: F.batch_norm(X, *R, np.ones(6)), TypeError, "weight must be a floating-point Tensor, or None, got ndarray; wrap an array: Tensor(array)"),
        (lambda: F.batch_norm(X, *R, bias=Tensor(np.ones(6, np.int64))), TypeError, "bias must be a floating-point Tensor, or None, got int64"),
        (lambda: F.batch_norm(X, R[0], R[1].data), TypeError, "running_var must be a floating-point Tensor, or None, got ndarray"),
        (lambda: F.batch_norm(X, *R, residual=X.data), TypeError, "residual must be a floating-point Tensor, or None, got ndarray"),
        (lambda: F.batch_norm(X, *R, eps=None), ValueError, "eps must be positive, got None"),
        (lambda: F.batch_norm(X, *R, eps="1"), ValueError, "eps must be positive, got '1'"),
        (lambda: F.batch_norm(X, *R, momentum=None), ValueError, "momentum must be between 0 and 1, got None"),
        (lambda: F.instance_norm(X, momentum=np.ones(2)), ValueError, "momentum must be between 0 and 1, got array([1., 1.])"),
        (lambda: F.instance_norm(X, weight=[1] * 6), TypeError, "weight must be a floating-point Tensor, or None, got list"),
        (lambda: F.group_norm(X, 2, bias=np.ones(6)), TypeError, "bias must be a floating-point Tensor, or None, got ndarray"),
        (lambda: F.layer_norm(X, 5, np.ones(5)), TypeError, "weight must be a floating-point Tensor, or None, got ndarray"),
        (lambda: F.layer_norm(X, 5, eps=None), ValueError, "eps must be positive, got None"),
        (lambda: F.local_response_norm(X, 2, 1e-4, np.array([1, 1])), TypeError, "beta must be a number, got array([1, 1])"),
        (lambda: F.local_response_norm(X, 2, beta="1"), TypeError, "beta must be a number, got '1'"),
        (lambda: F.local_response_norm(X, 2, None), TypeError, "alpha must be a number, got None"),
        (lambda: nn.LocalResponseNorm(2, k="1"), TypeError, "k must be a number, got '1'"),
        (lambda: F.normalize(X, dim=(1, 1)), ValueError, "dim must name each axis once, got (1, 1) for 4 axes"),
        (lambda: F.normalize(X, dim=(3, -1)), ValueError, "dim must name each axis once, got (3, -1)"),
        (lambda: F.normalize(X, dim="1"), TypeError, "dim must be an integer, a tuple of them, or None for all axes, got '1'"),
        (lambda: F.normalize(X, "1"), TypeError, "p must be a number, got '1'"),
        (lambda: nn.BatchNorm2d(6, eps=None), ValueError, "eps must be positive, got None"),
        (lambda: nn.BatchNorm2d(6, momentum="1"), ValueError, "momentum must be between 0 and 1, got '1'"),
        (lambda: nn.InstanceNorm2d(5, affine=True)(X[0]), ValueError, "Expected 5 channels, got input (6, 5, 5) with 6"),
        (lambda: nn.BatchNorm1d(6)(X), ValueError, "Expected 3D input (batch, channels, "),
        (lambda: nn.BatchNorm1d(6)(flat(6)), ValueError, "Expected 3D input (batch, channels, "),
        (lambda: nn.BatchNorm2d(6)(flat(6, 5, 5)), ValueError, "Expected 4D input (batch, channels, height, width), got (6, 5, 5)\nFix: add the batch dimension: x = x.reshape(1, 6, 5, 5)"),
        (lambda: nn.BatchNorm2d(6)(X.data), TypeError, "BatchNorm2d expects a Tensor, got ndarray"),
        (lambda: nn.BatchNorm3d(6)(X), ValueError, "Expected 5D input (batch, channels, depth, height, width), got (2, 6, 5, 5)"),
        (lambda: nn.BatchNorm3d(0), ValueError, "num_features must be a positive integer, got 0"),
        (lambda: nn.BatchNorm1d(6, momentum=1.5), ValueError, "momentum must be between 0 and 1, got 1.5"),
        (lambda: nn.InstanceNorm1d(6)(X), ValueError, "Expected 3D input (batch, channels, "),
        (lambda: nn.InstanceNorm2d(5, affine=True)(X), ValueError, "Expected 5 channels, got input (2, 6, 5, 5) with 6"),
        (lambda: nn.InstanceNorm2d(6, eps=0), ValueError, "eps must be positive, got 0"),
        (lambda: nn.InstanceNorm2d(6)(flat(2, 6, 1, 1)), ValueError, "more than one pixel"),
        (lambda: nn.GroupNorm(4, 6), ValueError, "num_groups must divide the channels, got num_groups=4 for 6 channels"),
        (lambda: nn.GroupNorm(1, -6), ValueError, "num_channels must be a positive integer, got -6"),
        (lambda: nn.GroupNorm(2, 6, 0), ValueError, "eps must be positive, got 0"),
        (lambda: nn.LayerNorm(()), ValueError, "normalized_shape must be the lengths of one axis or more, got ()"),
        (lambda: nn.LayerNorm((3, -1)), ValueError, "normalized_shape must be the lengths of one axis or more, got (3, -1)"),
        (lambda: nn.LayerNorm(5, 0), ValueError, "eps must be positive, got 0"),
        (lambda: nn.RMSNorm(5, -1), ValueError, "eps must be positive, got -1"),
        (lambda: nn.LocalResponseNorm(0), ValueError, "size must be a positive integer, got 0"),
    ],
)  # fmt: skip
def test_misuse_is_explained(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_a_refused_batch_leaves_the_layer_as_it_was():
    layer = nn.BatchNorm2d(6)
    with pytest.raises(ValueError, match="more than one value"):
        layer(flat(1, 6, 1, 1))
    assert layer.num_batches_tracked.item() == 0 and (layer.running_mean.data == 0).all()
