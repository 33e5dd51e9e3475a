"""What is kept between two runs is never older than the numbers that it was made from; and it is kept."""

import copy
import pickle
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch import Tensor, no_grad, optim, use_algorithm
from tinytorch.conv import direct, winograd
from tinytorch.conv.weights import Weights
from tinytorch.core import fusion
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Linear, Parameter, Sequential
from tinytorch.core.spatial import BatchNorm2d, Conv2d

try:
    import torch
except ImportError:
    torch = None

TRIALS = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CASE = Case(1, 3, 5, (5, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
X = Tensor(np.random.default_rng(0).integers(-3, 4, CASE.input_shape).astype(np.float32))


def numbers(shape=CASE.weight_shape, seed=0):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


def convolution(weight=None):
    """A layer of small integers; the arrays are its own."""
    conv = Conv2d(3, 5, 3, padding=1, algorithm="direct")
    conv.weight = Parameter(numbers() if weight is None else weight)
    return conv


def run(model, x=X):
    with no_grad():
        return model(x).data


def assert_current(conv):
    """The oracle reads `array`, as the library does: taking `data` would itself be noticed."""
    np.testing.assert_array_equal(run(conv), oracle.forward(CASE, X.array, conv.weight.array, conv.bias.array))


# ---- one parameter, and all who may write to it -------------------------------------------------------------------


ALIASES = {
    "data": lambda p: p.data,
    "numpy": lambda p: p.numpy(),
    "row": lambda p: p.data[1],
    "view of a view": lambda p: p.data.T[1:][::-1],
    "asarray": np.asarray,
    "detached": lambda p: p.detach().data,
    "another tensor": lambda p: Tensor(p).data,
    "another parameter": lambda p: Parameter(p.data).data,
    "memory": lambda p: np.asarray(memoryview(p.data)),
    "strided": lambda p: np.lib.stride_tricks.as_strided(p.data, (3,), p.array.strides[:1]),
}
if torch:
    ALIASES["torch"] = lambda p: torch.from_numpy(p.data).numpy()


class Life:
    """A layer, and arrays that share the memory of its weight."""

    def __init__(self):
        self.conv, self.aliases, self.seed = convolution(), [], 0

    def fresh(self):
        self.seed += 1
        return numbers(seed=self.seed)

    def take(self, kind):
        self.aliases.append(ALIASES[kind](self.conv.weight))

    def drop(self):
        self.aliases.clear()

    def write(self):
        """Through every alias, without asking the parameter again."""
        for alias in self.aliases:
            alias[...] = self.fresh().flat[: alias.size].reshape(alias.shape)

    def fill(self):
        self.conv.weight.data[...] = self.fresh()

    def assign(self):
        self.conv.weight.data = self.fresh()

    def assign_strided(self):
        self.conv.weight.data = np.repeat(self.fresh(), 2, axis=3)[..., ::2]

    def assign_shared(self):
        self.aliases.append(self.fresh())
        self.conv.weight.data = self.aliases[-1]

    def replace(self):
        self.conv.weight = Parameter(self.fresh())

    def replace_shared(self):
        """By a part of an array that the user goes on holding."""
        self.aliases.append(np.concatenate([self.fresh(), self.fresh()]))
        self.conv.weight = Parameter(self.aliases[-1][5:])
        self.aliases[-1] = self.aliases[-1][3:8]

    def in_place(self):
        with no_grad():
            self.conv.weight += 1

    def step(self):
        self.conv(X).sum().backward()
        optim.SGD([self.conv.weight], lr=1.0).step()
        self.conv.weight.grad = None

    def load(self):
        self.conv.load_state_dict({"weight": self.fresh(), "bias": numbers((5,))})

    def double_and_back(self):
        self.conv.double().float()

    def copy(self):
        self.conv = copy.deepcopy(self.conv)

    def pickle(self):
        self.conv = pickle.loads(pickle.dumps(self.conv))

    def train(self):
        self.conv(X)


ACTIONS = [name for name in vars(Life) if not name.startswith("_") and name not in ("fresh", "take")]
STEPS = st.one_of(st.sampled_from(ACTIONS), st.sampled_from(list(ALIASES)))


def act(life, step):
    life.take(step) if step in ALIASES else getattr(life, step)()


@TRIALS
@given(st.lists(st.tuples(STEPS, st.booleans()), max_size=12))
def test_a_result_is_never_stale(steps):
    """Whatever was done, in whatever order, and whether or not the layer ran in between."""
    life = Life()
    assert_current(life.conv)
    for step, runs in steps:
        act(life, step)
        if runs:
            assert_current(life.conv)
    assert_current(life.conv)
    assert_current(life.conv)


@pytest.mark.parametrize("kind", ALIASES)
@pytest.mark.parametrize("before", [True, False], ids=["taken before the first run", "taken after"])
def test_an_alias_is_seen_each_time_it_writes(kind, before):
    life = Life()
    if before:
        life.take(kind)
    assert_current(life.conv)
    if not before:
        life.take(kind)
    for _ in range(3):
        earlier = run(life.conv)
        life.write()
        assert_current(life.conv)
        assert (run(life.conv) != earlier).any()


@pytest.mark.parametrize(
    "action", sorted(set(ACTIONS) - {"drop", "write", "train", "copy", "pickle", "double_and_back"})
)
def test_a_change_is_seen(action):
    life = Life()
    assert_current(life.conv)
    earlier = run(life.conv)
    act(life, action)
    assert_current(life.conv)
    assert (run(life.conv) != earlier).any()


@pytest.mark.parametrize("action", ["assign_shared", "replace_shared"])
def test_an_array_of_the_users_is_seen_each_time_he_writes(action):
    life = Life()
    act(life, action)
    for _ in range(3):
        assert_current(life.conv)
        earlier = run(life.conv)
        life.write()
        assert_current(life.conv)
        assert (run(life.conv) != earlier).any()


def test_a_copy_has_its_own():
    life = Life()
    assert_current(life.conv)
    twin = copy.deepcopy(life.conv)
    assert_current(twin)
    life.fill()
    assert_current(life.conv)
    assert_current(twin)
    twin.weight.data[...] = 1
    assert_current(twin)
    assert_current(life.conv)


def test_a_shallow_copy_shares_the_memory():
    conv = convolution()
    assert_current(conv)
    twin = copy.copy(conv.weight)
    twin.data[...] = 1
    assert_current(conv)


def test_weights_may_change_between_forward_and_another_forward_of_training():
    conv = convolution()
    for seed in range(3):
        conv.weight.data[...] = numbers(seed=seed)
        np.testing.assert_array_equal(conv(X).array, run(conv))
        assert_current(conv)


def test_a_linear_layer_keeps_the_same_rules():
    layer, x = Linear(7, 5), Tensor(numbers((4, 7)))
    layer.weight = Parameter(numbers((5, 7), 1))
    for seed in range(3):
        expected = x.array @ layer.weight.array.T + layer.bias.array
        np.testing.assert_allclose(run(layer, x), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(run(layer, x), run(layer, x))
        layer.weight.data[...] = numbers((5, 7), seed + 2)


# ---- threads ------------------------------------------------------------------------------------------------------


def together(*works):
    """Run all at once, and raise what one of them raises."""
    errors = []

    def guarded(work):
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def test_a_change_in_another_thread_is_seen():
    conv = convolution()

    def change():
        for seed in range(200):
            conv.weight.data[...] = numbers(seed=seed)

    together(change, *[lambda: [run(conv) for _ in range(200)]] * 2)
    assert_current(conv)


def test_threads_share_what_is_kept():
    conv, barrier = convolution(), threading.Barrier(3)

    def check():
        barrier.wait()
        for _ in range(100):
            assert_current(conv)

    together(*[check] * 3)


# ---- it is kept ---------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(monkeypatch):
    """A word for each time that weights are packed."""
    calls = []

    def counting(module, name):
        pack = getattr(module, name)

        def counted(weights, *options):
            calls.append(name)
            return pack(weights, *options)

        monkeypatch.setattr(module, name, counted)

    counting(direct, "lane_blocks")
    counting(winograd, "_transformed")
    return calls


def test_weights_are_packed_once_while_nothing_changes(packed):
    conv = convolution()
    first = run(conv)
    for _ in range(4):
        np.testing.assert_array_equal(run(conv), first)
    assert len(packed) == 1
    conv.weight.data[...] = 1
    run(conv), run(conv)
    assert len(packed) == 2


def test_transformed_weights_are_kept_too(packed):
    conv = convolution()
    conv.algorithm = "winograd"
    for _ in range(4):
        run(conv)
    assert packed == ["_transformed"]


def test_each_algorithm_and_image_finds_its_own(packed):
    conv = convolution()
    conv.algorithm = None
    for _ in range(3):
        for name in ("direct", "winograd"):
            with use_algorithm(name):
                run(conv)
    assert sorted(packed) == ["_transformed", "lane_blocks"]


def test_a_linear_layer_is_packed_once(packed):
    layer, x = Linear(7, 5), Tensor(numbers((4, 7)))
    with use_algorithm("direct"):
        for _ in range(4):
            run(layer, x)
    assert len(packed) == 1


def test_nothing_is_kept_while_another_holds_the_memory(packed):
    conv = convolution()
    alias = conv.weight.data[0]
    for _ in range(3):
        run(conv)
    assert len(packed) == 3
    del alias
    for _ in range(3):
        run(conv)
    assert len(packed) == 4


def test_an_array_from_the_user_is_kept_once_he_lets_go(packed):
    array = np.concatenate([numbers(), numbers()])
    conv = convolution(array[5:])
    run(conv), run(conv)
    assert len(packed) == 2
    del array
    run(conv), run(conv)
    assert len(packed) == 3


def test_a_trained_layer_keeps_its_weights_afterwards(packed):
    conv = convolution()
    for _ in range(2):
        conv(X).sum().backward()
        optim.AdamW(conv.parameters(), lr=0.1).step()
    trained = len(packed)
    for _ in range(3):
        run(conv)
    assert len(packed) == trained + 1


def test_a_copy_starts_with_nothing(packed):
    conv = convolution()
    run(conv)
    for copied in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        before = len(packed)
        run(copied), run(copied)
        assert len(packed) == before + 1


# ---- a normalisation folded into a convolution --------------------------------------------------------------------


def block():
    """In evaluation, of numbers that make no rounding small enough to hide a change."""
    conv, norm = convolution(), BatchNorm2d(5).eval()
    conv.bias = Parameter(numbers((5,), 1))
    norm.weight = Parameter(numbers((5,), 2) + 5)
    norm.bias = Parameter(numbers((5,), 3))
    norm.running_mean, norm.running_var = Tensor(numbers((5,), 4)), Tensor(numbers((5,), 5) + 5)
    return Sequential(conv, norm, ReLU()).eval()


FOLDED = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]


def tensor_of(model, name):
    index, attribute = name.split(".")
    return getattr(model[int(index)], attribute)


def assert_folded_is_current(model):
    """Against the two steps in float64, from the tensors as they are now."""
    arrays = [
        tensor_of(model, name).array.astype(np.float64) for name in FOLDED
    ]  # copies: nobody else holds the memory
    w, b, gamma, beta, mean, var = (a if a.ndim == 4 else a.reshape(-1, 1, 1) for a in arrays)
    y = oracle.forward(CASE, X.array, w) + b
    expected = np.maximum((y - mean) / np.sqrt(var + model[1].eps) * gamma + beta, 0)
    np.testing.assert_allclose(run(model), expected, rtol=1e-4, atol=1e-4)


def set_data(model, name):
    tensor_of(model, name).data[...] += 1


def write_alias(model, name, alias):
    alias += 1


def replace_tensor(model, name):
    index, attribute = name.split(".")
    old = tensor_of(model, name)
    setattr(model[int(index)], attribute, type(old)(old.array + 1))


def load(model, name):
    model.load_state_dict({key: value + (key == name) for key, value in model.state_dict().items()})


@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("change", [set_data, replace_tensor, load])
def test_a_change_of_any_of_the_six_is_seen(name, change):
    model = block()
    for _ in range(3):
        assert_folded_is_current(model)
        earlier = run(model)
        change(model, name)
        assert_folded_is_current(model)
        assert (run(model) != earlier).any()


@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("before", [True, False], ids=["taken before the first run", "taken after"])
def test_an_alias_of_any_of_the_six_is_seen(name, before):
    model = block()
    if not before:
        run(model)
    alias = tensor_of(model, name).data
    for _ in range(3):
        assert_folded_is_current(model)
        alias += 1
        assert_folded_is_current(model)


def test_eps_is_seen():
    model = block()
    for eps in (1e-5, 1.0, 30.0, 1e-5):
        model[1].eps = eps
        assert_folded_is_current(model)
        assert_folded_is_current(model)


def test_statistics_that_training_moved_are_seen():
    model = block()
    assert_folded_is_current(model)
    model.train()(X)
    model.eval()
    assert_folded_is_current(model)
    with no_grad():
        model.train()(X)
    model.eval()
    assert_folded_is_current(model)


def test_a_step_of_the_optimizer_is_seen():
    model = block()
    optimizer = optim.Adam(model.parameters(), lr=0.5)
    for _ in range(3):
        assert_folded_is_current(model)
        model(X).sum().backward()
        optimizer.step()
        assert_folded_is_current(model)


def test_a_bias_may_come_and_go():
    model = block()
    with_bias = run(model)
    bias, model[0].bias = model[0].bias, None
    without = run(model)
    assert (without != with_bias).any()
    model[0].bias = bias
    np.testing.assert_array_equal(run(model), with_bias)


def test_two_normalisations_may_share_a_convolution():
    model = block()
    other = Sequential(model[0], block()[1], ReLU())
    set_data(other, "1.weight")
    for _ in range(3):
        assert_folded_is_current(model)
        assert_folded_is_current(other)


def test_the_convolution_alone_is_not_the_folded_one():
    model = block()
    for _ in range(3):
        assert_folded_is_current(model)
        assert_current(model[0])


def test_a_parameter_that_left_and_came_back_is_seen():
    """The twin has the version that the parameter had when it was copied; an alias wrote to the parameter since."""
    model = block()
    alias, weight = model[0].weight.data, model[0].weight
    twin = copy.deepcopy(weight)
    alias += 1
    model[0].weight = twin
    assert_folded_is_current(model)
    del alias
    model[0].weight = weight
    assert_folded_is_current(model)


def test_folding_is_done_once_while_nothing_changes(monkeypatch):
    made = []

    def counting(array):
        made.append(array)
        return Weights(array)

    monkeypatch.setattr(fusion, "Weights", counting)
    model = block()
    first = run(model)
    for _ in range(4):
        np.testing.assert_array_equal(run(model), first)
    assert len(made) == 1
    for k, name in enumerate(FOLDED):
        set_data(model, name)
        run(model), run(model)
        assert len(made) == k + 2
    model[1].eps = 1.0
    run(model), run(model)
    assert len(made) == len(FOLDED) + 2
