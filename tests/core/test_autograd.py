"""The graph and the walk along it: order, memory, ownership of gradients, grad mode."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

from tests.oracle.gradcheck import check_gradients
from tinytorch.core.autograd import enable_grad, is_grad_enabled, no_grad, record
from tinytorch.core.tensor import Tensor

DEPTH = 50_000


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values, dtype=np.float32), requires_grad=True)


def chain(x: Tensor, depth: int = DEPTH) -> Tensor:
    for _ in range(depth):
        x = x + 1
    return x


def test_chain_deeper_than_the_recursion_limit():
    x = leaf(1.0)
    assert sys.getrecursionlimit() < DEPTH
    chain(x).backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_backward_releases_the_graph_while_the_output_lives():
    x = leaf(1.0)
    y = chain(x, 3)
    first = weakref.ref(y.node.inputs[0].backward)
    y.backward()
    assert first() is None


@pytest.mark.parametrize("ran", [False, True])
def test_deleting_a_deep_chain_does_not_recurse(ran):
    y = chain(leaf(1.0), DEPTH)
    if ran:
        y.backward(retain_graph=True)
    del y
    gc.collect()


def test_deleting_a_deep_chain_of_closures_that_hold_tensors():
    x = leaf(1.0)
    for _ in range(DEPTH):
        previous = x
        x = record(x.data, (x,), lambda grad, previous=previous: (grad * previous.data,))
    del x, previous
    gc.collect()


def test_many_paths_are_walked_once():
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2**60 paths
        y = y + y
    y.backward()
    np.testing.assert_array_equal(x.grad, [2.0**60])


def test_diamond_with_uneven_arms():
    check_gradients(lambda x: (x * x).exp() * x + (x * 3).tanh() * x.exp(), np.array([0.3, -0.7]))


def test_gradients_accumulate_over_calls():
    x = leaf(2.0)
    for _ in range(3):
        (x * x).backward()
    np.testing.assert_array_equal(x.grad, [12])
    x.zero_grad()
    assert x.grad is None


def test_second_backward_teaches_retain_graph():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    np.testing.assert_array_equal(x.grad, [4])


def test_backward_into_a_freed_part_touches_no_gradient():
    x, w = leaf(2.0), leaf(3.0)
    shared = x * x
    shared.backward()
    with pytest.raises(RuntimeError, match="freed the arrays"):
        (shared * w).backward()
    assert w.grad is None


def test_retain_graph_allows_a_second_backward():
    x = leaf(2.0)
    y = x * x * x
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [24])


def test_backward_errors():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"needs a single number, got shape \(2,\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"tensor's shape \(2,\), got \(1,\)"):
        (x * 2).backward(np.ones(1))
    with pytest.raises(RuntimeError, match="depends on one with requires_grad=True"):
        Tensor([1.0]).backward()


def test_backward_on_a_leaf():
    x = leaf(1.0)
    x.backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_grad_does_not_alias_the_incoming_gradient():
    x, seed = leaf(1.0, 2.0), np.ones(2, np.float32)
    x.backward(seed)
    seed[:] = 7
    np.testing.assert_array_equal(x.grad, [1, 1])


@pytest.mark.parametrize("use", [lambda a, b: a + b, lambda a, b: a.reshape(1, 2) + b])
def test_leaves_do_not_share_one_gradient(use):
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), np.ones(2, np.float32)
    out = use(a, b)
    out.backward(seed.reshape(out.shape))
    assert not np.shares_memory(a.grad, b.grad)
    assert not np.shares_memory(a.grad, seed) and not np.shares_memory(b.grad, seed)


def test_leaves_do_not_share_an_array_that_a_closure_returns_twice():
    a, b = leaf(1.0), leaf(2.0)

    def backward(grad):
        both = grad * 2
        return both, both

    record(a.data + b.data, (a, b), backward).backward()
    assert not np.shares_memory(a.grad, b.grad)


def test_fresh_gradient_is_taken_over_without_a_copy():
    x, made = leaf(1.0, 2.0), []

    def backward(grad):
        made.append(grad * 3)
        return (made[0],)

    record(x.data, (x,), backward).backward(np.ones(2))
    assert x.grad is made[0]


def test_broadcast_gradient_becomes_a_writable_array():
    x = Tensor(np.zeros((2, 3)), requires_grad=True)
    x.mean().backward()  # its closure returns a read-only view of a new array
    x.grad += 1
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 1 + 1 / 6))


def test_gradient_that_waits_for_another_node_is_not_written_over():
    x, y, z = leaf(1.0), leaf(1.0), leaf(1.0)
    a, b, c = x * 2, y * 2, z * 2
    ((a + b) * 2 + (a + c) * 3).backward()  # what a + b hands to a and to b is one array
    assert (x.grad.item(), y.grad.item(), z.grad.item()) == (10, 4, 6)


def test_gradients_of_a_fan_out_are_not_modified_in_flight():
    check_gradients(lambda x: (lambda y: y.reshape(4) * 2 + y.exp() + y)(x * 2), np.linspace(-1, 1, 4))


def test_gradients_are_dropped_once_consumed():
    alive, x = [], leaf(*range(100))

    def step(tensor):
        def backward(grad):
            out = grad * 1
            alive.append(weakref.ref(out))
            counts.append(sum(ref() is not None for ref in alive))
            return (out,)

        return record(tensor.data.copy(), (tensor,), backward)

    counts, y = [], x
    for _ in range(20):
        y = step(y)
    y.sum().backward()
    assert max(counts) <= 2  # the incoming gradient and the one just made


def test_activations_live_only_while_a_closure_saved_them():
    x = leaf(1.0, 2.0)
    hidden = x + 1
    alive = weakref.ref(hidden)
    y = hidden + 1
    del hidden
    assert alive() is None and y.requires_grad


def test_grad_has_the_dtype_of_the_leaf():
    a = Tensor(np.ones(3, np.float32), requires_grad=True)
    b = Tensor(np.ones(3, np.float64), requires_grad=True)
    out = a * b
    out.sum().backward()
    assert (out.dtype, a.grad.dtype, b.grad.dtype) == (np.float64, np.float32, np.float64)


def test_none_gradients_stop_the_walk():
    x, w = leaf(1.0), leaf(1.0)
    hidden = x * 2
    out = record(hidden.data + w.data, (hidden, w), lambda grad: (None, grad))
    out.backward()
    assert x.grad is None
    np.testing.assert_array_equal(w.grad, [1])


def test_wrong_shape_from_a_closure_is_reported():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"gradient of shape \(\) for an input of shape \(2,\)"):
        record(x.data, (x,), lambda grad: (grad.sum(),)).backward(np.ones(2))


def test_no_grad_as_context_and_enable_grad_inside():
    x = leaf(1.0)
    with no_grad():
        assert not is_grad_enabled() and not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_no_grad_is_restored_after_an_exception():
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert is_grad_enabled()


def test_no_grad_as_decorator_survives_recursion():
    @no_grad()
    def depth(n):
        assert not is_grad_enabled()
        return 0 if n == 0 else 1 + depth(n - 1)

    assert depth(5) == 5 and is_grad_enabled()


def test_grad_mode_belongs_to_the_thread():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_node_names():
    x = leaf(1.0)
    y = x * 2
    assert y.node.name == "mul" and (x**2).node.name == "power_of_number"
    y.backward()
    assert y.node.name == "freed"
