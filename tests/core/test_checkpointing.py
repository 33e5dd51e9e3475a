"""Checkpoints: the same bits as without, from less memory; against PyTorch's, and what they refuse."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.oracle.gradcheck import check_gradients
from tinytorch import Tensor, nn, no_grad
from tinytorch.core import random
from tinytorch.core.autograd import record
from tinytorch.core.checkpointing import checkpoint, checkpoint_sequential
from tinytorch.core.tensor import cat

RNG = np.random.default_rng(3)


def images(n: int = 4, requires_grad: bool = False, dtype=np.float32) -> Tensor:
    return Tensor(RNG.standard_normal((n, 3, 8, 8)).astype(dtype), requires_grad)


def network(seed: int = 0) -> nn.Sequential:
    """Everything that remembers or draws: batch normalisation, both kinds of dropout, a mean of all batches."""
    random.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout2d(0.3),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=None), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(128, 5),
    )  # fmt: skip


def step(model: nn.Module, run, x: Tensor) -> list[np.ndarray]:
    """Output, gradients and buffers of one step, and what is drawn after it."""
    random.manual_seed(7)
    x = Tensor(x.numpy().copy(), x.requires_grad)
    y = run(x)
    (y * y).sum().backward()
    gradients = [tensor.grad for tensor in (x, *model.parameters()) if tensor.requires_grad]
    return [y.numpy(), *gradients, *(b.numpy() for b in model.buffers()), random.generator().random(3)]


def assert_same_bits(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- the same numbers -----------------------------------------------------------------------------------


WAYS = {
    "module": lambda model, x: checkpoint(model, x),
    "method": lambda model, x: checkpoint(model.forward, x),
    "closure": lambda model, x: checkpoint(lambda t: model(t), x),
    "partial": lambda model, x: checkpoint(partial(lambda layers, t: layers(t), model), x),
    "keyword": lambda model, x: checkpoint(lambda *, t: model(t), t=x),
    "list": lambda model, x: checkpoint_sequential(list(model), 3, x),
    "nested": lambda model, x: checkpoint(lambda t: model[6:](checkpoint(model[:6], t)), x),
    "nested twice": lambda model, x: checkpoint(lambda t: checkpoint(lambda u: checkpoint(model, u), t), x),
    "one of two": lambda model, x: model[5:](checkpoint(model[:5], x)),
    **{f"{n} segments": lambda model, x, n=n: checkpoint_sequential(model, n, x) for n in (1, 2, 3, 4, 11)},
}  # fmt: skip


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_step_has_the_same_bits(way, requires_grad):
    x, plain, model = images(requires_grad=requires_grad), network(), network()
    for _ in range(2):
        assert_same_bits(step(model, lambda t: WAYS[way](model, t), x), step(plain, plain, x))


def test_in_evaluation_too_and_double_precision():
    x, plain, model = images(requires_grad=True, dtype=np.float64), network().double(), network().double()
    for net in (plain, model):
        step(net, net, x)
        net.zero_grad()
        net.eval()
    assert_same_bits(step(model, lambda t: checkpoint(model, t), x), step(plain, plain, x))


def test_an_empty_batch():
    layer = nn.Linear(3, 2)
    x = Tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    checkpoint(layer, x).sum().backward()
    assert x.grad.shape == (0, 3)
    np.testing.assert_array_equal(layer.weight.grad, np.zeros((2, 3)))


@settings(max_examples=25, deadline=None)
@given(segments=st.integers(1, 6), frozen=st.integers(0, 6), seed=st.integers(0, 99))
def test_any_chain_in_any_segments(segments, frozen, seed):
    def build() -> nn.Sequential:
        random.manual_seed(seed)
        model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5)) for _ in range(6)))
        model[:frozen].requires_grad_(False)
        return model

    x, plain, model = Tensor(np.ones((2, 4), np.float32), requires_grad=True), build(), build()
    assert_same_bits(step(model, lambda t: checkpoint_sequential(model, segments, t), x), step(plain, plain, x))


def test_finite_differences():
    check_gradients(lambda a, b: checkpoint(lambda x, y: (x * y).exp() + x, a, b), [0.3, -0.7], [1.1, 0.4])


def test_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    from torch.utils.checkpoint import checkpoint as torch_checkpoint

    weight, data = RNG.standard_normal((5, 4)).astype(np.float32), RNG.standard_normal((3, 4)).astype(np.float32)
    x, w = Tensor(data, True), Tensor(weight, True)
    a, b = checkpoint(lambda t, u: (nn.functional.linear(t, u).tanh(), t.exp()), x, w)
    (a.sum() + (b * a.mean()).sum()).backward()
    tx, tw = torch.tensor(data, requires_grad=True), torch.tensor(weight, requires_grad=True)
    ta, tb = torch_checkpoint(
        lambda t, u: (torch.nn.functional.linear(t, u).tanh(), t.exp()), tx, tw, use_reentrant=False
    )
    (ta.sum() + (tb * ta.mean()).sum()).backward()
    for ours, theirs in ((x, tx), (w, tw)):
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-5, atol=1e-6)


# ---- what it is made of ---------------------------------------------------------------------------------


def test_activations_are_not_kept():
    saved = []

    def watched(x: Tensor) -> Tensor:
        array = np.exp(x.numpy())
        saved.append(weakref.ref(array))
        return record(array, (x,), lambda grad: (grad * array,)) + 1

    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    y = checkpoint(watched, x)
    assert saved[0]() is None
    y.sum().backward()
    gc.collect()
    assert [alive() for alive in saved] == [None, None]
    np.testing.assert_allclose(x.grad, np.e * np.ones(3), rtol=1e-6)


def test_the_input_is_all_that_is_kept_of_what_came_before():
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    hidden = x.exp()
    alive = weakref.ref(hidden)
    y = checkpoint(lambda t: t * t, hidden)
    del hidden
    assert alive() is None
    y.sum().backward()
    np.testing.assert_allclose(x.grad, 2 * np.exp(2) * np.ones(3), rtol=1e-6)


@pytest.mark.parametrize("preserve", [True, False])
def test_random_numbers_are_drawn_once_unless_told_otherwise(preserve):
    random.manual_seed(0)
    x = Tensor(np.ones(1000, np.float32), requires_grad=True)
    y = checkpoint(nn.Dropout(0.5), x, preserve_rng_state=preserve)
    after = random.get_state()
    y.sum().backward()
    assert (random.get_state() == after) == preserve
    assert np.array_equal(x.grad, y.numpy()) == preserve


def test_buffers_that_change_between_forward_and_backward_keep_their_change():
    model = nn.BatchNorm2d(3)
    y = checkpoint(model, images())
    model.running_mean.data[...] = 5
    y.sum().backward()
    assert model.running_mean.numpy().tolist() == [5, 5, 5]
    assert model.num_batches_tracked.item() == 1


def test_the_second_call_sees_the_buffers_of_the_first():
    class Counting(nn.Module):
        def __init__(self) -> None:
            self.register_buffer("count", Tensor(np.zeros((), np.float32)))

        def forward(self, x: Tensor) -> Tensor:
            self.count.data += 1
            return x * float(self.count)

    model, x = Counting(), Tensor(np.ones(2, np.float32), requires_grad=True)
    first, second = checkpoint(model, x), checkpoint(model, x)
    (first + 10 * second).sum().backward()
    np.testing.assert_array_equal(x.grad, [21, 21])
    assert model.count.item() == 2


def test_contexts_of_the_forward_are_there_in_the_backward(monkeypatch):
    told = []

    def watched(x: Tensor) -> Tensor:
        told.append(tinytorch.conv.planner.told(None))
        return x * 2

    with tinytorch.use_algorithm("loops"):
        y = checkpoint(watched, Tensor([1.0], requires_grad=True))
    with no_grad():
        y.backward()
    assert told[0] == told[1] != tinytorch.conv.planner.told(None)


# ---- inputs and outputs ---------------------------------------------------------------------------------


def several(x: Tensor, scale: float, y: Tensor, *, labels: Tensor) -> tuple[Tensor, Tensor, int, Tensor]:
    return x * y * scale, (x + y).exp(), 3, labels + 1


def run_several(run, used: tuple[int, ...]) -> list[np.ndarray | None]:
    x, y = Tensor([0.5, 2.0], requires_grad=True), Tensor([1.0, -1.0], requires_grad=True)
    made = run(x * 1, 3.0, y, labels=Tensor([1, 2]))
    assert type(made) is tuple and made[2] == 3
    assert made[3].numpy().tolist() == [2, 3] and not made[3].requires_grad
    total = sum((made[i] * (i + 1)).sum() for i in used)
    total.backward()
    return [x.grad, y.grad]


@pytest.mark.parametrize("used", [(0, 1), (0,), (1,)])
def test_several_inputs_and_outputs(used):
    ours = run_several(partial(checkpoint, several), used)
    for a, b in zip(ours, run_several(several, used), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_output_may_come_twice_or_be_an_input_and_a_list_stays_one():
    def both(f):
        x, z = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
        made = f(lambda a: [a, a.exp(), a], x * 1)
        assert type(made) is list
        first, middle, last = made
        waiting = z * 1  # its gradient is the array that arrives at `last`
        (((waiting + last) * 2).sum() + first.sum() + middle.sum()).backward()
        return [x.grad, z.grad]

    for ours, plain in zip(both(checkpoint), both(lambda f, x: f(x)), strict=True):
        np.testing.assert_array_equal(ours, plain)
    assert both(checkpoint)[1].tolist() == [2, 2]


def test_gradients_that_are_passed_on_are_not_written_to():
    x, z = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
    hidden, waiting = x * 1, z * 1
    (((waiting + checkpoint(nn.Identity(), hidden)) * 2).sum() + (hidden * 3).sum()).backward()
    assert z.grad.tolist() == [2, 2]
    assert x.grad.tolist() == [5, 5]


def test_inputs_and_parameters_may_be_shared():
    x, layer = Tensor(np.ones((2, 3), np.float32), requires_grad=True), nn.Linear(3, 3)

    def run(f):
        x.grad, layer.weight.grad = None, None
        hidden = f(layer, x)
        (f(lambda a, b: a * b, hidden, hidden) + x).sum().backward()
        return x.grad, layer.weight.grad

    for ours, plain in zip(run(checkpoint), run(lambda f, *args: f(*args)), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-6)


def test_an_input_may_be_changed_in_place_inside():
    def run(f):
        x = Tensor([-1.0, 2.0, 3.0], requires_grad=True)
        h = x * 2
        y = f(lambda t: nn.functional.relu(t, inplace=True).exp() * t, h)
        y.sum().backward()
        return x.grad

    np.testing.assert_array_equal(run(checkpoint), run(lambda f, h: f(h)))


def test_nothing_to_differentiate():
    x = Tensor([1.0, 2.0])
    assert not checkpoint(lambda t: t * 2, x).requires_grad
    model = nn.Linear(2, 2)
    with no_grad():
        assert not checkpoint(model, x).requires_grad
    assert not checkpoint(lambda t: Tensor(t.numpy()), Tensor([1.0], requires_grad=True)).requires_grad


def test_only_some_outputs_need_a_gradient():
    x = Tensor([3.0, 1.0], requires_grad=True)
    y, place = checkpoint(lambda t: (t * t, t.argmax()), x)
    y.sum().backward()
    assert place.item() == 0 and x.grad.tolist() == [6, 2]


def test_parameters_alone_may_need_gradients_and_names_show():
    layer = nn.Linear(2, 1)
    y = checkpoint(layer, Tensor([[1.0, 2.0]]))
    assert "grad_fn=<checkpoint>" in repr(y)
    y.sum().backward()
    assert layer.weight.grad.tolist() == [[1, 2]]


def test_backward_twice():
    x = Tensor([2.0], requires_grad=True)
    y = checkpoint(lambda t: t * t, x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8]
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_backward_from_one_output_and_then_from_the_other():
    x, y = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
    a, b = checkpoint(lambda t, u: (t * t, u * u), x * 1, y * 1)
    a.backward(retain_graph=True)
    assert x.grad.tolist() == [4] and y.grad is None
    b.backward()
    assert x.grad.tolist() == [4] and y.grad.tolist() == [6]


# ---- what is refused ------------------------------------------------------------------------------------


def test_a_result_in_place_of_a_function_is_refused():
    with pytest.raises(
        TypeError, match=r"function must be a Module or a function, got Tensor; write checkpoint\(layer"
    ):
        checkpoint(Tensor([1.0]), Tensor([1.0]))


def test_a_dict_is_refused():
    with pytest.raises(
        TypeError, match="must return a Tensor, or a tuple or list of them, got dict; let it return a tuple"
    ):
        checkpoint(lambda t: {"y": t}, Tensor([1.0], requires_grad=True))


def test_a_function_that_changes_is_refused():
    shapes = iter([2, 3])
    x = Tensor([1.0], requires_grad=True)
    y = checkpoint(lambda t: cat([t] * next(shapes)), x)
    with pytest.raises(
        RuntimeError, match=r"\['float32 \(2,\)'\] in the forward and \['float32 \(3,\)'\] in the backward"
    ):
        y.sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("used_elsewhere", [False, True])
def test_a_computed_tensor_that_is_no_argument_is_refused(used_elsewhere):
    x, w = Tensor([1.0], requires_grad=True), Tensor([2.0], requires_grad=True)
    hidden = w.exp()
    y = checkpoint(lambda t: t * hidden, x)
    y = (y + hidden * 3) if used_elsewhere else y
    with pytest.raises(
        RuntimeError, match=r"computed tensor \(grad_fn=<(exp|freed)>\) that is not among its arguments.*pass it"
    ):
        y.backward()


def test_a_tensor_that_a_module_remembers_is_no_such_tensor():
    class Remembering(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.features = x.exp()
            return self.features * 2

    x = Tensor([0.0], requires_grad=True)
    checkpoint(Remembering(), x).backward()
    assert x.grad.tolist() == [2]


@pytest.mark.parametrize("segments", [0, -1, 4, 1.5, True])
def test_segments_have_to_fit(segments):
    with pytest.raises(
        ValueError, match=r"segments must be an integer from 1 to the number of functions, 3, got .*; about 2"
    ):
        checkpoint_sequential([nn.ReLU()] * 3, segments, Tensor([1.0]))


def test_an_error_inside_leaves_generator_and_buffers_alone():
    calls = iter([nullcontext(), None])
    model, x = nn.BatchNorm2d(3), images()

    def breaks(t: Tensor) -> Tensor:
        y = nn.functional.dropout(model(t))
        if next(calls) is None:
            raise ZeroDivisionError
        return y

    y = checkpoint(breaks, x)
    before, mean = random.get_state(), model.running_mean.numpy().copy()
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    assert random.get_state() == before
    np.testing.assert_array_equal(model.running_mean.numpy(), mean)
