"""A block as one step: against PyTorch, exactly on integers, and cut out of a Sequential without a trace."""

import copy
import weakref
from collections import OrderedDict
from itertools import product

import numpy as np
import pytest

from tests.oracle import convolution
from tests.oracle.torch_twin import assert_close, compare
from tinytorch.core import functional as F
from tinytorch.core import norm_ops
from tinytorch.core.activations import ReLU, ReLU6, Tanh
from tinytorch.core.fusion import Run, conv_block, runs
from tinytorch.core.layers import Flatten, Identity, Linear, Sequential
from tinytorch.core.spatial import AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor

CASE = convolution.Case(2, 3, 16, (7, 9), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
BLOCKS = list(product([False, True], [None, ReLU, ReLU6], [False, True]))  # norm, activation, pool


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def parts(with_norm, activation, with_pool):
    """Modules with random numbers in them."""
    conv = Conv2d(3, 16, 3, padding=1)
    conv.bias.data[...] = normal(16, seed=1)
    norm = BatchNorm2d(16) if with_norm else None
    if norm:
        norm.weight.data[...], norm.bias.data[...] = normal(16, seed=2) * 3, normal(16, seed=3)
        norm.running_mean.data[...], norm.running_var.data[...] = normal(16, seed=4), abs(normal(16, seed=5)) + 0.5
    pool = MaxPool2d(3, stride=2, padding=1) if with_pool else None
    return conv, norm, activation and activation(), pool


def leaves(conv, norm):
    return [*conv.parameters(), *(norm.parameters() if norm else [])]


def torch_block(torch, block, x, parameters, statistics, residual, training):
    """The block of `parts`, written out."""
    with_norm, activation, with_pool = block
    f = torch.nn.functional
    y = f.conv2d(x, *parameters[:2], padding=1)
    y = f.batch_norm(y, *statistics, *parameters[2:], training) if with_norm else y
    y = y + residual if residual is not None else y
    y = {None: torch.nn.Identity(), ReLU: f.relu, ReLU6: f.relu6}[activation](y)
    return f.max_pool2d(y, 3, 2, 1) if with_pool else y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("block", BLOCKS)
def test_block_as_torch(block, with_residual, training):
    torch = pytest.importorskip("torch")
    conv, norm, activation, pool = parts(*block)
    statistics = [torch.tensor(b.data) for b in norm.train(training).buffers()[:2]] if norm else []
    mine = [Tensor(normal(2, 3, 7, 9), requires_grad=True), *leaves(conv, norm)]
    mine += [Tensor(normal(2, 16, 7, 9) * 3, requires_grad=True)] * with_residual
    his = [torch.tensor(np.array(t.data), requires_grad=True) for t in mine]
    mine_extra, his_extra = (mine[-1], his[-1]) if with_residual else (None, None)

    out = conv_block(mine[0], conv, norm, activation, mine_extra, pool)
    expected = torch_block(torch, block, his[0], his[1 : len(his) - with_residual], statistics, his_extra, training)
    assert_close(out.numpy(), expected.detach().numpy(), out.dtype)
    weights = normal(*out.shape, seed=7)
    out.backward(weights)
    expected.backward(torch.tensor(weights))
    for ours, theirs in zip(mine, his, strict=True):
        scale = max(float(theirs.grad.abs().max()), 1)  # that of a bias in front of a normalisation is 0
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), atol=1e-4 * scale)
    for ours, theirs in zip(norm.buffers() if norm else [], [*statistics, torch.tensor(int(training))], strict=False):
        np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-4, atol=1e-5)


def integers(*shape, seed):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("block", BLOCKS)
def test_block_is_exact_on_integers(block, with_residual):
    conv, norm, activation, pool = parts(*block)
    x, residual = integers(*CASE.input_shape, seed=0), integers(*CASE.output_shape, seed=1) * with_residual
    for seed, parameter in enumerate(leaves(conv, norm)):
        parameter.data[...] = integers(*parameter.shape, seed=seed)
    y = convolution.forward(CASE, x, conv.weight.data, conv.bias.data)
    if norm:
        norm.eval().eps = 0.25
        norm.running_mean.data[...], norm.running_var.data[...] = 2, 0.75  # a standard deviation of 1
        y = (y - 2) * norm.weight.data.reshape(-1, 1, 1) + norm.bias.data.reshape(-1, 1, 1)
    y = y + residual
    if activation:
        y = np.clip(y, 0, 6 if block[1] is ReLU6 else np.inf)
    if pool:
        y = np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        y = np.lib.stride_tricks.sliding_window_view(y, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
    out = conv_block(Tensor(x), conv, norm, activation, Tensor(residual) if with_residual else None, pool)
    np.testing.assert_array_equal(out.data, y)


# ---- cutting ------------------------------------------------------------------------------------------------


class Doubled(Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


def kinds(modules):
    """The cut as text: the types in each run, joined."""
    return [
        "+".join(type(m).__name__ for m in (run.conv, run.norm, run.activation, run.pool) if m)
        if isinstance(run, Run)
        else f"({type(run).__name__})"
        for run in runs(modules)
    ]


def test_runs():
    conv, norm, relu, pool = Conv2d(3, 3, 1), BatchNorm2d(3), ReLU(), MaxPool2d(2)
    for modules, expected in [
        ([], []),
        ([conv], ["Conv2d"]),
        ([conv, norm, relu, pool], ["Conv2d+BatchNorm2d+ReLU+MaxPool2d"]),
        ([conv, pool], ["Conv2d+MaxPool2d"]),
        ([conv, ReLU6(), conv, norm, norm], ["Conv2d+ReLU6", "Conv2d+BatchNorm2d", "(BatchNorm2d)"]),
        ([conv, relu, norm, pool], ["Conv2d+ReLU", "(BatchNorm2d)", "(MaxPool2d)"]),
        ([relu, conv, pool, relu], ["(ReLU)", "Conv2d+MaxPool2d", "(ReLU)"]),
        ([conv, Tanh(), AvgPool2d(2), Flatten(), Linear(3, 2)], ["Conv2d", "(Tanh)", "(AvgPool2d)", "(Flatten)", "(Linear)"]),
        ([Doubled(3, 3, 1), norm, relu], ["(Doubled)", "(BatchNorm2d)", "(ReLU)"]),
        ([Sequential(conv, norm), relu], ["(Sequential)", "(ReLU)"]),
    ]:  # fmt: skip
        assert kinds(modules) == expected


def test_a_module_with_a_forward_of_its_own_stands_alone():
    conv, relu = Conv2d(3, 3, 1), ReLU()
    relu.forward = lambda x: x * 0 + 7
    assert kinds([conv, relu]) == ["Conv2d", "(ReLU)"]
    x = Tensor(normal(1, 3, 4, 4))
    assert (Sequential(conv, relu)(x).data == 7).all()
    assert (conv_block(x, conv, activation=relu).data == 7).all()


def test_other_modules_may_stand_for_a_part():
    doubled, x = Doubled(3, 4, 1), Tensor(normal(2, 3, 6, 6))
    y = conv_block(x, doubled, Identity(), Tanh(), pool=AvgPool2d(2)).data
    once = np.einsum("oc,nchw->nohw", doubled.weight.data[..., 0, 0], x.data)
    expected = np.tanh(2 * once).reshape(2, 4, 3, 2, 3, 2).mean((3, 5))
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_sequential_notices_that_its_modules_changed():
    conv, x = Conv2d(3, 4, 1), Tensor(normal(2, 3, 6, 6))
    net = Sequential(OrderedDict(conv=conv, act=ReLU()))
    plain = conv(x).data
    np.testing.assert_array_equal(net(x).data, np.maximum(plain, 0))
    net.act = Tanh()
    np.testing.assert_array_equal(net(x).data, np.tanh(plain))
    net.append(MaxPool2d(6))
    np.testing.assert_array_equal(net(x).data, np.tanh(plain).max((2, 3), keepdims=True))
    del net.act
    np.testing.assert_array_equal(net(x).data, plain.max((2, 3), keepdims=True))
    net.conv = Conv2d(3, 5, 1)
    assert net(x).shape == (2, 5, 1, 1)
    np.testing.assert_array_equal(Sequential(conv, ReLU())[:1](x).data, plain)


def test_a_copy_of_a_sequential_that_has_run_computes_with_its_own_parameters():
    net, x = Sequential(Conv2d(3, 4, 1), ReLU()), Tensor(normal(2, 3, 6, 6))
    before = net(x).data.copy()
    twin = copy.deepcopy(net)
    twin[0].weight.data[...] = 0
    assert (twin(x).data == 0).all()
    np.testing.assert_array_equal(net(x).data, before)


def test_running_a_sequential_adds_no_attribute():
    """Another thread may be walking over them."""
    net = Sequential(Conv2d(3, 4, 1), ReLU())
    before = list(vars(net))
    net(Tensor(normal(1, 3, 2, 2)))
    assert list(vars(net)) == before


# ---- ReLU6 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu6_as_torch(dtype):
    torch = pytest.importorskip("torch")
    compare(F.relu6, torch.nn.functional.relu6, (normal(2, 3, 4, 5) * 6).astype(dtype))
    corners = np.array([-np.inf, -1, -0.0, 0, 0.5, 6, 6.5, np.inf, np.nan], dtype)
    ours, theirs = Tensor(corners, requires_grad=True), torch.tensor(corners, requires_grad=True)
    out, expected = ReLU6()(ours), torch.nn.ReLU6()(theirs)
    out.backward(np.full_like(corners, 3))
    expected.backward(torch.full_like(theirs, 3))
    np.testing.assert_array_equal(out.data, expected.detach().numpy())
    np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())
    assert repr(ReLU6()) == repr(torch.nn.ReLU6())


# ---- a normalisation that clips ------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("clip", "bounds"), [(F.relu, (0, np.inf)), (F.relu6, (0, 6))])
def test_clipping_in_the_normalisation_has_the_bits_of_clipping_behind_it(clip, bounds, dtype, training):
    """Also at NaN and infinities, and where channels without scale lie on a bound."""

    def run(after, **options):
        x, weight, bias = (Tensor(array.copy(), requires_grad=True) for array in (images, scales, shifts))
        running = Tensor(np.zeros(8, dtype)), Tensor(np.ones(8, dtype))
        y = after(norm_ops.batch_norm(x, *running, weight, bias, training, **options))
        bias.data[...] = 100  # the backward goes by what the forward saw
        y.backward(normal(4, 8, 9, 7, seed=1).astype(dtype))
        return y.data, x.grad, weight.grad, bias.grad

    images = normal(4, 8, 9, 7).astype(dtype)
    images[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    scales, shifts = np.array([1, 2, -3, 9, 0, 0, 0, 1], dtype), np.array([0, 1, -1, 3, 0, 6, 2, 0], dtype)
    with np.errstate(invalid="ignore"):
        inside, behind = run(lambda y: y, bounds=bounds), run(clip)
    for ours, expected in zip(inside, behind, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert not inside[1][:, 4].any() and inside[3][6] != 0


def test_who_clips_in_the_normalisation_keeps_no_result():
    """Only its input stays for the backward, so a pooling behind it lets the larger array go."""
    y = norm_ops.batch_norm(
        Tensor(normal(4, 8, 16, 16), requires_grad=True), None, None, training=True, bounds=(0, np.inf)
    )
    alive = weakref.ref(y.array.base)
    pooled = MaxPool2d(2)(y)
    del y
    assert alive() is None
    pooled.sum().backward()
