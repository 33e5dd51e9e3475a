"""Modules: finding parameters, saving and loading them, switching modes, and the layers themselves."""

import copy
import inspect
from collections import OrderedDict

import numpy as np
import pytest

from tests.oracle.torch_twin import compare
from tinytorch import nn
from tinytorch.core import activations, random, spatial
from tinytorch.core.layers import Flatten, Identity, Linear, Module, Parameter, Sequential
from tinytorch.core.tensor import Tensor


class Net(Module):
    def __init__(self):
        super().__init__()
        self.first = Linear(4, 3)
        self.scale = Parameter(np.ones(3, np.float32))
        self.body = Sequential(Linear(3, 3, bias=False), activations.ReLU())
        self.register_buffer("count", Tensor(np.zeros(2, np.float32)))
        self.register_buffer("seen", Tensor(0))
        self.register_buffer("nothing", None)

    def forward(self, x):
        return self.body(self.first(x) * self.scale)


NAMES = ["first.weight", "first.bias", "scale", "body.0.weight"]


# ---- registration and walking -----------------------------------------------------------------------------


def test_parameters_are_a_list_found_in_order():
    net = Net()
    assert isinstance(net.parameters(), list)
    by_name = dict(net.named_parameters())
    assert sorted(by_name) == sorted(NAMES)
    assert all(p is q for p, q in zip(net.parameters(), by_name.values(), strict=True))
    assert [name for name, _ in net.named_buffers()] == ["count", "seen"]
    assert net.buffers()[0] is net.count


def test_modules_and_children():
    net = Net()
    assert [name for name, _ in net.named_modules()] == ["", "first", "body", "body.0", "body.1"]
    assert [name for name, _ in net.named_children()] == ["first", "body"]
    assert list(net.children()) == [net.first, net.body]
    assert next(iter(net.modules())) is net


def test_shared_modules_and_parameters_come_once():
    net = Module()
    net.a = Linear(2, 2)
    net.b = net.a
    net.tied = net.a.weight
    assert len(net.parameters()) == 2 and len(list(net.modules())) == 2 and len(list(net.children())) == 1
    assert sorted(net.state_dict()) == ["a.bias", "a.weight", "b.bias", "b.weight", "tied"]


def test_super_init_may_be_left_out():
    class Small(Module):
        def __init__(self):
            self.linear = Linear(2, 1)

        def forward(self, x):
            return self.linear(x)

    small = Small()
    assert len(small.parameters()) == 2 and small.training and not small.eval().training
    assert small(Tensor(np.ones((1, 2), np.float32))).shape == (1, 1)


def test_settings_of_one_instance_do_not_leak_to_another():
    a, b = Net(), Net()
    a.register_buffer("extra", Tensor(1.0))
    a.eval()
    assert b.training and "extra" not in dict(b.named_buffers())


def test_forward_missing():
    with pytest.raises(NotImplementedError, match=r"Module has no forward; define `def forward"):
        Module()(1)


def test_parameters_and_buffers_can_not_be_replaced_by_other_things():
    net = Net()
    with pytest.raises(TypeError, match=r"Net.scale is a Parameter and can't become a Tensor"):
        net.scale = Tensor([1.0])
    with pytest.raises(TypeError, match=r"Net.count is a buffer and can't become a ndarray"):
        net.count = np.zeros(2)
    net.scale = Parameter([2.0])
    net.count = Tensor([1.0])
    net.first.bias = None
    assert len(net.parameters()) == 3


def test_registration_errors():
    net = Module()
    for register, value, message in [
        (net.register_buffer, [1.0], "buffer 'x' must be a Tensor or None, got list"),
        (net.register_parameter, Tensor([1.0]), "parameter 'x' must be a Parameter or None, got Tensor"),
        (net.add_module, Linear, "module 'x' must be a Module instance, got type"),
    ]:
        with pytest.raises(TypeError, match=message):
            register("x", value)
        for name in ("a.b", "", "forward", 3):
            with pytest.raises(ValueError, match=f"without dots .* got {name!r}"):
                register(name, None)


def test_register_parameter_and_add_module():
    net = Module()
    net.register_parameter("w", Parameter([1.0]))
    net.register_parameter("b", None)
    net.add_module("sub", Identity())
    assert [n for n, _ in net.named_parameters()] == ["w"] and isinstance(net.sub, Identity)


def test_parameter():
    p = Parameter([1.0, 2.0])
    assert p.requires_grad and not Parameter([1.0], requires_grad=False).requires_grad
    assert repr(p) == "Parameter([1., 2.], requires_grad=True)"
    assert type(p * 2) is Tensor
    with pytest.raises(TypeError, match="needs a floating point tensor"):
        Parameter([1, 2])


# ---- saving and loading -----------------------------------------------------------------------------------


def test_state_dict_is_a_snapshot():
    net = Net()
    state = net.state_dict()
    assert sorted(state) == sorted([*NAMES, "count", "seen"])
    before = state["scale"].copy()
    net.scale.data += 1
    np.testing.assert_array_equal(state["scale"], before)


def test_load_state_dict_round_trip_in_place():
    source, target = Net(), Net()
    source.count.data[:] = 5
    arrays = [p.data for p in target.parameters()]
    assert target.load_state_dict(source.state_dict()) == ([], [])
    assert all(p.data is a for p, a in zip(target.parameters(), arrays, strict=True))
    for name, value in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[name], value)


def test_load_state_dict_keeps_the_dtype_and_takes_tensors():
    net = Net().double()
    net.load_state_dict({name: Tensor(value.astype(np.float32)) for name, value in Net().state_dict().items()})
    assert net.scale.dtype == np.float64


def test_load_state_dict_lists_every_problem_and_loads_nothing():
    net = Net()
    before = net.state_dict()
    state = net.state_dict()
    del state["count"], state["scale"]
    state["first.weight"] = state["first.weight"] + 1
    state["first.bias"] = np.zeros(7)
    state["body.0.weight"] = np.zeros((3, 2))
    state["other"] = np.zeros(1)
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        net.load_state_dict(state)
    for problem in (
        "count is missing",
        "scale is missing",
        "other is unexpected",
        "first.bias has shape (7,), the model needs (3,)",
        "body.0.weight has shape (3, 2), the model needs (3, 3)",
    ):
        assert problem in str(caught.value)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_load_state_dict_not_strict():
    net = Net()
    assert net.load_state_dict({"scale": np.full(3, 9), "x": np.zeros(1)}, strict=False) == (
        [n for n in net.state_dict() if n != "scale"],
        ["x"],
    )
    np.testing.assert_array_equal(net.scale.numpy(), [9, 9, 9])
    with pytest.raises(ValueError, match="scale has shape"):
        net.load_state_dict({"scale": np.zeros(2)}, strict=False)


def test_load_state_dict_refuses_what_is_no_array():
    with pytest.raises(TypeError, match="holds booleans"):
        Net().load_state_dict({"scale": "text"}, strict=False)


# ---- switches ---------------------------------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())


def test_zero_grad_and_requires_grad():
    net = Net()
    net(Tensor(np.ones((2, 4), np.float32))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(Tensor(np.ones((2, 4), np.float32))).requires_grad


def test_to_converts_parameters_and_floating_buffers_only():
    net = Net()
    parameter = net.scale
    assert net.double() is net and net.scale is parameter
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}
    assert (net.count.dtype, net.seen.dtype) == (np.float64, np.int64)
    assert net.float().scale.dtype == np.float32
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got int64"):
        net.to(np.int64)


def test_apply_visits_children_first():
    net, seen = Net(), []
    assert net.apply(seen.append) is net
    assert seen[-1] is net and len(seen) == 5
    assert seen.index(net.body[0]) < seen.index(net.body)


def test_deepcopy_is_independent():
    net = Net()
    twin = copy.deepcopy(net)
    twin.scale.data += 1
    assert not np.array_equal(net.scale.data, twin.scale.data)


def every_layer():
    kinds = {kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)}
    return sorted((kind for kind in kinds if kind is not nn.Module), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_layer(), ids=lambda kind: kind.__name__)
def test_every_layer_names_its_input_as_torch_does(kind):
    assert list(inspect.signature(kind.forward).parameters)[1] == "input"


def test_layers_take_their_input_by_name():
    x = Tensor(np.ones((1, 1, 2, 2), np.float32))
    for layer in (nn.Conv2d(1, 1, 1), nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), spatial.Conv2d(1, 1, 1)):
        np.testing.assert_array_equal(layer(input=x).data, layer(x).data)


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Linear(in_features=4, out_features=3, bias=True)\n"
        "  (body): Sequential(\n"
        "    (0): Linear(in_features=3, out_features=3, bias=False)\n"
        "    (1): ReLU()\n"
        "  )\n"
        ")"
    )
    assert repr(Sequential()) == "Sequential()"


@pytest.mark.parametrize(
    "name,kwargs",
    [
        ("ReLU", {}),
        ("LeakyReLU", {"negative_slope": 0.2}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("SiLU", {}),
        ("GELU", {}),
        ("GELU", {"approximate": "tanh"}),
        ("Softmax", {"dim": 1}),
        ("LogSoftmax", {"dim": -1}),
    ],
)
def test_activation_modules_and_their_repr_as_torch(name, kwargs):
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(activations, name)(**kwargs), getattr(torch.nn, name)(**kwargs)
    compare(ours, theirs, np.random.default_rng(0).standard_normal((3, 4)))
    if name != "LogSoftmax":  # torch prints LogSoftmax without its dim
        assert repr(ours) == repr(theirs)


# ---- layers -----------------------------------------------------------------------------------------------


def test_linear_as_torch():
    torch = pytest.importorskip("torch")
    ours, theirs = Linear(4, 3), torch.nn.Linear(4, 3)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    compare(ours, theirs, np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32))
    assert repr(ours) == repr(theirs)


def test_linear_initialisation():
    random.manual_seed(0)
    layer = Linear(100, 200)
    for tensor in (layer.weight, layer.bias):
        assert tensor.dtype == np.float32 and tensor.data.T.flags.c_contiguous  # lanes last
        assert np.abs(tensor.data).max() <= 0.1 and np.abs(tensor.data).max() > 0.09
    assert abs(layer.weight.data.std() - 0.1 / np.sqrt(3)) < 1e-3
    random.manual_seed(0)
    np.testing.assert_array_equal(Linear(100, 200).weight.data, layer.weight.data)


@pytest.mark.parametrize("sizes", [(0, 1), (1, -1), (2.0, 1), (1, True)])
def test_linear_sizes(sizes):
    with pytest.raises(ValueError, match="features must be a positive integer"):
        Linear(*sizes)


def test_flatten_and_identity():
    x = Tensor(np.zeros((2, 3, 4)), requires_grad=True)
    assert Flatten()(x).shape == (2, 12) and Flatten(0, 1)(x).shape == (6, 4)
    assert Identity()(x) is x
    Flatten()(x).sum().backward()
    assert x.grad.shape == (2, 3, 4)
    assert repr(Flatten()) == "Flatten(start_dim=1, end_dim=-1)"


def test_sequential():
    first, second = Linear(2, 3), activations.ReLU()
    net = Sequential(first, second)
    assert len(net) == 2 and net[0] is first and net[-1] is second and list(net) == [first, second]
    assert isinstance(net[:1], Sequential) and net[:1][0] is first
    third = Linear(3, 1)
    assert net.append(third) is net and net[2] is third
    assert net(Tensor(np.ones((4, 2), np.float32))).shape == (4, 1)
    assert sorted(net[1:].state_dict()) == ["2.bias", "2.weight"]
    with pytest.raises(IndexError, match="out of range"):
        net[3]


def test_sequential_appends_behind_a_slice_without_overwriting():
    net = Sequential(Identity(), Linear(2, 3))[1:]
    net.append(Linear(3, 1))
    assert len(net) == 2 and net[0].out_features == 3


def test_sequential_of_one_module_twice():
    layer = Linear(2, 2)
    assert len(Sequential(layer, layer)) == 2 and len(Sequential(layer, layer).parameters()) == 2


def test_sequential_with_names_and_errors():
    net = Sequential(OrderedDict(inner=Linear(2, 2), act=activations.Tanh()))
    assert net.inner is net[0] and [n for n, _ in net.named_children()] == ["inner", "act"]
    with pytest.raises(TypeError, match="module '0' must be a Module instance, got function"):
        Sequential(lambda x: x)
