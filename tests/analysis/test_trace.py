"""The rehearsal: what it finds, what it leaves alone, and that nothing is computed."""

import threading

import numpy as np
import pytest

from tinytorch import Tensor, models, nn
from tinytorch.analysis.stand_in import rehearsal, shapes_of, stand_in
from tinytorch.analysis.trace import trace
from tinytorch.conv import planner
from tinytorch.core import functional as F
from tinytorch.core import random
from tinytorch.core.layers import Module, Parameter
from tinytorch.kernels import jit


class Residual(Module):
    """A shared convolution, a functional activation, an addition, and a list that registers nothing."""

    def __init__(self):
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.hidden = [nn.ReLU()]

    def forward(self, x, twice=True):
        y = F.relu(self.conv(x))
        y = self.conv(y) if twice else y
        return self.hidden[0](y + x)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Residual(), nn.Flatten(), nn.Linear(4 * 36, 5))


def test_calls_are_a_tree():
    traced = trace(network(), (2, 3, 8, 8))
    found = [(call.path, call.kind, call.depth, call.turn) for call in traced.calls]
    assert found == [
        ("", "Sequential", 0, 0),
        ("0", "Conv2d", 1, 0),
        ("1", "Residual", 1, 0),
        ("1.conv", "Conv2d", 2, 0),
        ("1.conv", "Conv2d", 2, 1),
        ("1.<ReLU>", "ReLU", 2, 0),
        ("2", "Flatten", 1, 0),
        ("3", "Linear", 1, 0),
    ]
    assert [call.parent for call in traced.calls] == [None, 0, 0, 2, 2, 2, 0, 0]
    assert [call.path for call in traced.children(traced.calls[0])] == ["0", "1", "2", "3"]


def test_shapes_are_those_of_a_real_run():
    model, x = network(), Tensor(np.ones((2, 3, 8, 8), np.float32))
    traced, real = trace(model, x.shape), x
    for layer, call in zip(model, traced.children(traced.calls[0]), strict=True):
        assert traced.shapes(call.inputs) == (real.shape,)
        real = layer(real)
        assert traced.shapes(call.outputs) == (real.shape,)
        assert traced.values[call.outputs[0]].nbytes == real.data.nbytes


def test_operations_are_a_graph_from_the_image_to_the_output():
    traced = trace(network(), (2, 3, 8, 8))
    reached = set(traced.inputs)
    for operation in traced.operations:
        assert reached & set(operation.inputs), operation
        reached.add(operation.output)
    assert set(traced.calls[0].outputs) <= reached
    add = next(operation for operation in traced.operations if operation.name == "add")
    assert traced.calls[add.call].path == "1" and add.begun == 5 and add.ours
    residual = next(call for call in traced.calls if call.path == "1")
    assert residual.inputs[0] in add.inputs
    assert {traced.values[n].name for o in traced.operations for n in o.inputs} >= {"input", "0.weight", "1.conv.bias"}


def test_convolutions_are_told_with_their_layer():
    traced = trace(network(), (2, 3, 8, 8))
    found = [(traced.calls[c.call].path, c.direction, c.problem.macs, c.itemsize) for c in traced.convolutions]
    assert found == [
        ("0", "forward", 2 * 4 * 36 * 27, 4),
        ("1.conv", "forward", 2 * 4 * 36 * 36, 4),
        ("1.conv", "forward", 2 * 4 * 36 * 36, 4),
        ("3", "forward", 2 * 5 * 144, 4),
    ]


def test_fused_layers_are_called_one_after_the_other():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2))
    assert [call.kind for call in trace(model, (1, 1, 8, 8)).calls[1:]] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "MaxPool2d",
    ]


def test_arguments_by_name_are_inputs():
    class Outer(Module):
        def __init__(self):
            self.inner = Residual()

        def forward(self, x):
            return self.inner(x=x, twice=False)

    traced = trace(Outer(), (1, 4, 5, 5))
    assert traced.calls[1].inputs == traced.inputs


def test_several_inputs():
    class Two(Module):
        def forward(self, a, b):
            return {"product": a @ b, "parts": [a, (b,)]}

    traced = trace(Two(), ((2, 3), (3, 4)))
    assert traced.shapes(traced.inputs) == ((2, 3), (3, 4))
    assert traced.shapes(traced.calls[0].outputs) == ((2, 4), (2, 3), (3, 4))


@pytest.mark.parametrize("dtype", [None, "f4", "f8"])
def test_dtype(dtype):
    model = nn.Conv2d(1, 1, 3).double()
    values = trace(model, (1, 1, 4, 4), dtype).values
    assert next(value.dtype for value in values if value.name == "input") == np.dtype(dtype or "f8")


def test_a_batch_of_none():
    traced = trace(network(), (0, 3, 8, 8))
    assert traced.shapes(traced.calls[0].outputs) == ((0, 5),)
    assert sum(c.problem.macs for c in traced.convolutions) == 0


# ---- what it leaves alone -----------------------------------------------------------------------------------------


def test_the_model_stays_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2))
    model[0].weight.requires_grad = False
    model[4].eval()
    model(Tensor(np.ones((2, 3, 8, 8), np.float32))).sum().backward()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    gradients = {name: None if p.grad is None else p.grad.copy() for name, p in model.named_parameters()}
    flags = [(m.training, m) for m in model.modules()]
    drawn = random.get_state()
    trace(model, (2, 3, 8, 8))
    np.testing.assert_equal(model.state_dict(), before)
    np.testing.assert_equal({name: p.grad for name, p in model.named_parameters()}, gradients)
    assert [(m.training, m) for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert random.get_state() == drawn


def test_nothing_is_computed(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a kernel runs")

    class Refusing:
        def __init__(self, algorithm):
            self.name, self.refuses = algorithm.name, algorithm.refuses
            self.forward = self.input_grad = self.weight_grad = refuse

    for name, algorithm in planner.ALGORITHMS.items():
        monkeypatch.setitem(planner.ALGORITHMS, name, Refusing(algorithm))
    monkeypatch.setattr(jit, "_is_reentrant", refuse)  # the last step of `jit.run` before a kernel
    with rehearsal():
        model = models.create("resnet50", (3, 224, 224), 1000)
    assert trace(model, (1, 3, 224, 224)).shapes(trace(model, (1, 3, 224, 224)).calls[0].outputs) == ((1, 1000),)
    with pytest.raises(AssertionError, match="a kernel runs"):
        model(Tensor(np.zeros((1, 3, 224, 224), np.float32)))


@pytest.mark.parametrize("algorithm", ["direct", "winograd", "planar", "depthwise"])
def test_what_a_rehearsal_plans_is_not_run(algorithm):
    """Plans of a rehearsal have no compiled code; a real run after it must not meet them."""
    groups = 6 if algorithm == "depthwise" else 1
    model = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=groups, algorithm=algorithm))
    shape = (1, 6, 19, 23)  # of no other test
    trace(model, shape)
    with rehearsal():
        model(Tensor(np.zeros(shape, np.float32)))
    x = Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    expected = torch_conv(x, model[0], groups)
    np.testing.assert_allclose(model(x).data, expected, atol=1e-4)


def torch_conv(x, layer, groups):
    torch = pytest.importorskip("torch")
    weight, bias = (torch.from_numpy(np.ascontiguousarray(p.data)) for p in (layer.weight, layer.bias))
    y = torch.nn.functional.conv2d(torch.from_numpy(x.data), weight, bias, padding=1, groups=groups)
    return y.numpy()


def test_a_model_built_in_a_rehearsal_draws_nothing():
    drawn = random.get_state()
    with rehearsal():
        model = models.create("vgg11", (3, 32, 32), 10)
    assert random.get_state() == drawn
    assert sum(p.size for p in model.parameters()) == 128_807_306


def test_a_double_has_the_same_memory_orders_and_no_numbers_of_its_own():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(3, 2))
    model.register_buffer("index", Tensor(np.arange(3)))
    double = stand_in(model)
    pairs = zip(model.state_dict(), model._named_state(), double._named_state(), strict=True)
    for name, (_, theirs), (_, ours) in pairs:
        assert ours is not theirs and ours.array is not theirs.array
        assert (ours.shape, ours.dtype, ours.array.strides) == (theirs.shape, theirs.dtype, theirs.array.strides), name
        assert not np.may_share_memory(ours.array, theirs.array)
    np.testing.assert_array_equal(double.index.data, [0, 1, 2])  # what indexes must not point anywhere


def test_shared_parameters_stay_shared():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    double = stand_in(model)
    assert double[1].weight is double[0].weight


# ---- values -------------------------------------------------------------------------------------------------------


class Deciding(Module):
    def __init__(self, look):
        self.look = look
        self.small, self.large = nn.Linear(4, 1), nn.Linear(4, 100)

    def forward(self, x):
        return self.large(x) if self.look(x.sum()) else self.small(x)


LOOKS = {
    "if": lambda s: s > 0,
    "item": lambda s: s.item() > 0,
    "float": lambda s: float(s) > 0,
    "numpy": lambda s: s.numpy() > 0,
    "asarray": lambda s: np.asarray(s) > 0,
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_path_that_depends_on_values_is_told(name):
    traced = trace(nn.Sequential(nn.Linear(3, 4), Deciding(LOOKS[name])), (2, 3))
    assert traced.looks == ["1"]
    assert traced.calls[-1].path == "1.small"  # numbers are zeros, whatever lay in memory


def test_no_path_depends_on_values_otherwise():
    assert trace(network(), (2, 3, 8, 8)).looks == []


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_an_input_that_does_not_fit_is_explained():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(7, 2)))
    with pytest.raises(ValueError) as caught:
        trace(model, (1, 3, 8, 8))
    text = str(caught.value)
    assert "input_shape (1, 3, 8, 8) does not fit the model: layer '2.1' (Linear) was called with (1, 144)" in text
    assert "  0 (Conv2d) -> (1, 4, 6, 6)\n  1 (ReLU) -> (1, 4, 6, 6)\n  2.0 (Flatten) -> (1, 144)" in text
    assert "the layer's own error: ValueError: linear needs x of shape (…, in_features)" in text
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_models_own_error_is_told_too():
    class Broken(Module):
        def forward(self, x):
            raise KeyError("no such thing")

    with pytest.raises(ValueError, match=r"the forward of Broken was called with \(1, 2\) and failed"):
        trace(Broken(), (1, 2))


@pytest.mark.parametrize("model", [nn.ReLU, 3, lambda x: x])
def test_a_model_must_be_a_module(model):
    with pytest.raises(TypeError, match="model must be a Module, got "):
        trace(model, (1, 2))


def test_a_class_is_no_instance():
    with pytest.raises(TypeError, match="got the class ReLU; make an instance first"):
        trace(nn.ReLU, (1, 2))


def test_what_can_not_be_copied_is_named():
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    model[1].lock = threading.Lock()
    with pytest.raises(ValueError, match=r"the attribute 1\.lock \(_thread\.lock\) can't be copied"):
        stand_in(model)


def test_a_model_that_refuses_copies_is_named():
    class Single(Module):
        def __deepcopy__(self, memo):
            raise RuntimeError("there is one of me")

    with pytest.raises(ValueError, match=r"the model, a Single, can't be copied \(there is one of me\)"):
        stand_in(Single())


@pytest.mark.parametrize("shape", [(), 3, "1,3,8,8", (1, -3, 8, 8), (1.0, 3), ((1, 3), 4), (True, 3), None])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match="input_shape must be the shape of the input with its batch"):
        shapes_of(shape)


def test_shapes_that_are_some():
    assert shapes_of([1, 3]) == ((1, 3),)
    assert shapes_of(((1, 3), [2])) == ((1, 3), (2,))


def test_dtypes_that_are_none():
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got int64"):
        trace(nn.ReLU(), (1, 2), np.int64)


def test_a_parameter_that_is_not_registered_is_called_after_its_class():
    class Hidden(Module):
        def __init__(self):
            self.layers = [nn.Linear(2, 2)]
            self.scale = Parameter(np.ones(2, np.float32))

        def forward(self, x):
            return self.layers[0](x) * self.scale

    assert [call.path for call in trace(Hidden(), (1, 2)).calls] == ["", "<Linear>"]
