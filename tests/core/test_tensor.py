"""Tensor operations against torch, forward and backward, and the rules of dtypes, shapes and errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.oracle.gradcheck import check_gradients
from tests.oracle.torch_twin import compare
from tinytorch.core import creation, random
from tinytorch.core.autograd import no_grad
from tinytorch.core.tensor import Tensor, cat, stack

RNG = np.random.default_rng(7)
DTYPES = (np.float32, np.float64)
quick = settings(max_examples=60, deadline=None)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def positive(*shape, dtype=np.float32):
    return (RNG.random(shape) + 0.5).astype(dtype)


# ---- against torch ----------------------------------------------------------------------------------------

UNARY = {
    "add number": lambda x: x + 2,
    "radd": lambda x: 2.5 + x,
    "sub number": lambda x: x - 0.3,
    "rsub": lambda x: 1 - x,
    "mul number": lambda x: x * 3,
    "rmul": lambda x: 0.1 * x,
    "div number": lambda x: x / 3,
    "rdiv": lambda x: 2 / (x * x + 1),
    "neg": lambda x: -x,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "power 0": lambda x: x**0,
    "rpow": lambda x: 2.0**x,
    "exp": lambda x: x.exp(),
    "tanh": lambda x: x.tanh(),
    "abs": lambda x: abs(x),
    "clip": lambda x: x.clip(-0.5, 0.7),
    "clip below": lambda x: x.clip(min=0.1),
    "clip above": lambda x: x.clip(max=0.1),
    "sum": lambda x: x.sum(),
    "sum axis": lambda x: x.sum(axis=1),
    "sum dim keepdim": lambda x: x.sum(dim=-1, keepdim=True),
    "sum axes": lambda x: x.sum((0, 2)),
    "mean": lambda x: x.mean(),
    "mean axes": lambda x: x.mean((1, 2)),
    "mean keepdim": lambda x: x.mean(0, keepdim=True),
    "max": lambda x: x.max(),
    "min": lambda x: x.min(),
    "var": lambda x: x.var(),
    "var axes": lambda x: x.var((0, 2), correction=0),
    "std": lambda x: x.std(1, keepdim=True),
    "reshape": lambda x: x.reshape(4, -1),
    "reshape tuple": lambda x: x.reshape((2, 12)),
    "view": lambda x: x.view(24),
    "flatten": lambda x: x.flatten(),
    "flatten 1": lambda x: x.flatten(1),
    "flatten 0 1": lambda x: x.flatten(0, 1),
    "transpose": lambda x: x.transpose(0, -1),
    "permute": lambda x: x.permute(2, 0, 1),
    "permute tuple": lambda x: x.permute((-1, 1, 0)),
    "squeeze": lambda x: x[:, :1].squeeze(),
    "squeeze 1": lambda x: x[:1, :1].squeeze(1),
    "squeeze long axis": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "unsqueeze last": lambda x: x.unsqueeze(-1),
    "expand": lambda x: x[:, :1].expand(5, 2, 3, 4),
    "expand keep": lambda x: x[:1].expand(3, -1, 4),
    "index int": lambda x: x[1],
    "index negative": lambda x: x[-1, 2],
    "index slices": lambda x: x[:, 1:, ::2],
    "index none": lambda x: x[None, :, 1, None],
    "index ellipsis": lambda x: x[..., 0],
    "index list": lambda x: x[:, [2, 0, 2]],
    "index list after int": lambda x: x[0, :, [1, 1, 3]],
    "index two lists": lambda x: x[[0, 1, 1], :, [3, 3, 3]],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_unary_as_torch(name, dtype):
    compare(UNARY[name], None, normal(2, 3, 4, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "f", [lambda x: x.log(), lambda x: x.sqrt(), lambda x: x**-1, lambda x: x**0.5, lambda x: x**-1.7]
)
def test_unary_of_positive_numbers_as_torch(f, dtype):
    compare(f, None, positive(3, 4, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_max_and_min_over_a_dim_as_torch(dim, dtype):
    x = RNG.integers(0, 3, (4, 5, 3)).astype(dtype)  # full of ties
    compare(lambda t: t.max(dim), lambda t: t.max(dim).values, x)
    compare(lambda t: t.min(dim, keepdim=True), lambda t: t.min(dim, keepdim=True).values, x)


def test_max_ties_as_torch():
    x = RNG.integers(0, 3, (4, 5, 3)).astype(np.float64)
    compare(lambda t: t.max(), None, x)
    compare(lambda t: t.max((0, 2)), lambda t: t.amax((0, 2)), x)
    compare(lambda t: t.min((1, 2)), lambda t: t.amin((1, 2)), x)


def test_max_passes_nan():
    x = Tensor([1.0, np.nan, 3.0], requires_grad=True)
    x.max().backward()
    np.testing.assert_array_equal(x.grad, [0, 1, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: a**b,
        lambda a, b: a * b + a / b - b,
    ],
)
def test_binary_broadcasting_as_torch(f, dtype):
    for a, b in [((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((), (2, 3)), ((1,), ()), ((0, 2), (2,))]:
        compare(f, None, positive(*a, dtype=dtype), positive(*b, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_maximum_as_torch(dtype):
    torch = pytest.importorskip("torch")
    a, b = (RNG.integers(0, 3, shape).astype(dtype) for shape in ((4, 5), (5,)))
    compare(lambda a, b: a.maximum(b), torch.maximum, a, b)


MATMULS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((4, 1, 2, 3), (5, 3, 2)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((0, 3), (3, 2)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("a,b", MATMULS)
def test_matmul_as_torch(a, b, dtype):
    compare(lambda a, b: a @ b, None, normal(*a, dtype=dtype), normal(*b, dtype=dtype))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cat_and_stack_as_torch(dim):
    torch = pytest.importorskip("torch")
    arrays = [normal(2, 3), normal(2, 3)]
    compare(lambda *t: cat(t, dim), lambda *t: torch.cat(t, dim), *arrays)
    compare(lambda *t: stack(t, dim=dim), lambda *t: torch.stack(t, dim), *arrays)


def test_cat_of_different_lengths_as_torch():
    torch = pytest.importorskip("torch")
    compare(lambda *t: cat(t, axis=1), lambda *t: torch.cat(t, 1), normal(2, 1), normal(2, 0), normal(2, 3))


def test_power_gradients_at_zero_as_torch():
    base, exponent = np.array([0.0, 0.0, 2.0]), np.array([0.0, 2.0, 0.0])
    compare(lambda a, b: a**b, None, base, exponent)
    compare(lambda a: a**0, None, base)


def test_std_of_equal_numbers_has_gradient_zero():
    compare(lambda t: t.std(), None, np.ones(4))


def test_zero_dimensional_reductions_as_torch():
    for f in (lambda t: t.sum(), lambda t: t.mean(), lambda t: t.max(), lambda t: t.flatten()):
        compare(f, None, np.array(2.0))
    compare(lambda t: t.sum(0), None, np.array(2.0))


# ---- properties -------------------------------------------------------------------------------------------


@quick
@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_broadcasting_has_exact_gradients(shapes):
    a, b, c = (np.linspace(0.5, 1.5, int(np.prod(s))).reshape(s) for s in shapes.input_shapes)
    check_gradients(lambda a, b, c: (a * b - c) / b + c * a, a, b, c)


@st.composite
def array_and_index(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    return shape, draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))


@quick
@given(array_and_index())
def test_basic_indexing_as_numpy_and_its_gradient_counts_elements(case):
    shape, key = case
    x = Tensor(np.arange(np.prod(shape), dtype=np.float64).reshape(shape), requires_grad=True)
    picked = x[key]
    np.testing.assert_array_equal(picked.numpy(), x.data[key])
    picked.sum().backward()
    expected = np.zeros(shape)
    expected[key] += 1
    np.testing.assert_array_equal(x.grad, expected)


@quick
@given(st.lists(st.integers(-4, 3), max_size=8), st.booleans())
def test_repeated_indices_add_their_gradients(rows, as_tensor):
    x = Tensor(np.arange(12.0).reshape(4, 3), requires_grad=True)
    picked = x[Tensor(np.array(rows, np.int64)) if as_tensor else rows]
    np.testing.assert_array_equal(picked.numpy(), x.data[np.array(rows, int)])
    picked.sum().backward()
    counts = np.bincount(np.array(rows, int) % 4, minlength=4)
    np.testing.assert_array_equal(x.grad, np.repeat(counts[:, None], 3, axis=1))


@quick
@given(hnp.arrays(bool, (3, 4)), st.booleans())
def test_boolean_masks(mask, as_tensor):
    x = Tensor(np.arange(24.0).reshape(3, 4, 2), requires_grad=True)
    picked = x[Tensor(mask) if as_tensor else mask]
    np.testing.assert_array_equal(picked.numpy(), x.data[mask])
    picked.sum().backward()
    np.testing.assert_array_equal(x.grad, np.repeat(mask[..., None], 2, axis=2).astype(float))


@pytest.mark.parametrize(
    "key",
    [
        lambda lib: (0, lib([True, False, True])),
        lambda lib: (slice(None), lib([2, 0]), None),
        lambda lib: (lib([[0, 1], [1, 0]]), 1),
        lambda lib: (Ellipsis, lib([0, 0]), 1),
        lambda lib: (lib([True, False]), slice(1, None), lib([3])),
        lambda lib: (lib(1), slice(None), lib([0, 3])),
        lambda lib: lib([[True, False, True], [False, False, True]]),
    ],
)
def test_mixed_indices_as_torch(key):
    torch = pytest.importorskip("torch")
    x = normal(2, 3, 4)
    compare(lambda t: t[key(Tensor)], lambda t: t[key(torch.tensor)], x)


def test_indexing_errors():
    x = Tensor(np.zeros((2, 3)))
    with pytest.raises(IndexError, match=r"integer or boolean, got float32; use .long\(\)"):
        x[Tensor([1.0])]
    with pytest.raises(IndexError, match="out of bounds"):
        x[5]
    with pytest.raises(IndexError, match="too many indices"):
        x[0, 0, 0]


# ---- dtypes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data,dtype",
    [
        (1.5, np.float32),
        ([1.0, 2], np.float32),
        ([1, 2], np.int64),
        (True, bool),
        ([[True]], bool),
        ([], np.float32),
        (np.zeros(2), np.float64),
        (np.float64(1), np.float64),
        (np.zeros(2, np.float16), np.float32),
        (np.zeros(2, ">f8"), np.float64),
        (np.zeros(2, np.uint8), np.uint8),
    ],
)
def test_dtype_of_a_new_tensor(data, dtype):
    assert Tensor(data).dtype == dtype and Tensor(data).dtype.isnative


def test_array_memory_is_shared_and_creation_copies():
    array = np.zeros(3)
    assert np.shares_memory(Tensor(array).data, array)
    assert not np.shares_memory(creation.tensor(array).data, array)
    assert Tensor(Tensor(array)).data is array


def test_data_errors():
    with pytest.raises(TypeError, match="holds booleans, integers, float32 or float64, got complex128"):
        Tensor(np.zeros(2, complex))
    with pytest.raises(TypeError, match="got object"):
        Tensor([None])
    with pytest.raises(TypeError, match="got <U"):
        Tensor("text")
    with pytest.raises(TypeError, match="got float16"):
        Tensor([1.0], dtype=np.float16)
    with pytest.raises(ValueError, match="must be rectangular"):
        Tensor([[1.0], [1.0, 2.0]])


def test_integers_can_not_require_grad():
    with pytest.raises(TypeError, match=r"needs a floating point tensor, got int64.*dtype=np.float32"):
        Tensor([1, 2], requires_grad=True)


def test_requires_grad_can_not_be_switched_off_inside_the_graph():
    y = Tensor([1.0], requires_grad=True) * 2
    with pytest.raises(RuntimeError, match=r"only be switched off on a leaf.*detach\(\)"):
        y.requires_grad = False


SCALARS = [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2)]


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("f", [lambda x, s: x + s, lambda x, s: s * x, lambda x, s: x / s, lambda x, s: s - x])
def test_numbers_never_promote(f, scalar):
    for dtype in DTYPES:
        for shape in ((), (3,)):
            assert f(Tensor(np.ones(shape, dtype)), scalar).dtype == dtype


@pytest.mark.parametrize("left", ["bool", "uint8", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("right", ["bool", "uint8", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("shapes", [((2,), (2,)), ((), (2,)), ((2,), ()), ((), ())])
def test_promotion_as_torch(left, right, shapes):
    torch = pytest.importorskip("torch")
    a, b = np.ones(shapes[0], left), np.ones(shapes[1], right)
    expected = torch.tensor(a) * torch.tensor(b)
    assert str((Tensor(a) * Tensor(b)).dtype) == str(expected.dtype).removeprefix("torch.")


@pytest.mark.parametrize("number", [2, 2.5, True])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float64"])
def test_promotion_with_numbers_as_torch(number, dtype):
    torch = pytest.importorskip("torch")
    a = np.ones(2, dtype)
    for f in (lambda x: x * number, lambda x: x / number):
        assert str(f(Tensor(a)).dtype) == str(f(torch.tensor(a)).dtype).removeprefix("torch.")


def test_mixed_precision_gradients_return_in_each_dtype():
    compare(lambda a, b: a * b + a, None, normal(3), normal(2, 3, dtype=np.float64))


def test_integer_arithmetic():
    x = Tensor([1, 2, 4])
    assert (x / 2).dtype == np.float32 and (x**2).dtype == np.int64 and x.exp().dtype == np.float32
    assert x.sum().dtype == np.int64 and Tensor([True, True]).sum().item() == 2
    assert Tensor(np.full(300, 255, np.uint8)).sum().item() == 300 * 255
    assert Tensor([True, False]).mean().item() == 0.5
    assert (x**0.5).dtype == np.float32
    with pytest.raises(OverflowError, match="out of bounds"):
        Tensor(np.zeros(2, np.uint8)) + 300


def test_conversions():
    x = Tensor([1.5, -2.5], requires_grad=True)
    assert x.float() is x and x.double().dtype == np.float64
    np.testing.assert_array_equal(x.long().numpy(), [1, -2])
    assert not x.long().requires_grad
    x.double().sum().backward()
    assert x.grad.dtype == np.float32


# ---- protocols --------------------------------------------------------------------------------------------


def test_array_on_the_left_reaches_the_tensor():
    x = Tensor([1.0, 2.0], requires_grad=True)
    for out in (np.ones(2) * x, np.ones(2) - x, np.ones((3, 2)) @ x, np.float64(2) / x, np.ones(2) + x):
        assert isinstance(out, Tensor) and out.requires_grad
    with pytest.raises(TypeError, match="ufunc"):
        np.exp(x)


def test_operators_refuse_what_they_do_not_know():
    with pytest.raises(TypeError, match="unsupported operand"):
        Tensor([1.0]) + "a"
    with pytest.raises(ValueError, match="broadcast"):
        Tensor(np.zeros(2)) + Tensor(np.zeros(3))
    assert (Tensor([1.0]) == None) is False  # noqa: E711
    with pytest.raises(TypeError, match="holds booleans"):
        Tensor([1.0]) * np.complex128(1)


def test_comparisons_are_boolean_without_grad():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    cases = {"lt": x < 2, "le": x <= 2, "gt": x > 2, "ge": x >= 2, "eq": x == 2, "ne": x != 2}
    for name, result in cases.items():
        assert result.dtype == bool and not result.requires_grad
        np.testing.assert_array_equal(result.numpy(), getattr(np.array([1, 2, 3]), f"__{name}__")(2))
    np.testing.assert_array_equal(((x > 1) & (x < 3)).numpy(), [False, True, False])
    np.testing.assert_array_equal(((x > 2) | ~(x > 1)).numpy(), [True, False, True])


def test_tensors_are_keys_by_identity():
    a, b = Tensor([1.0]), Tensor([1.0])
    assert {a: 1, b: 2}[a] == 1


def test_truth_of_several_elements_is_refused():
    assert Tensor([2.0]) and not Tensor(0)
    with pytest.raises(ValueError, match=r"shape \(2,\) is neither true nor false"):
        bool(Tensor([1.0, 2.0]))


def test_item_float_int_format():
    x = Tensor([[2.75]])
    assert x.item() == 2.75 and float(x) == 2.75 and int(x) == 2 and f"{x:.1f}" == "2.8"
    with pytest.raises(ValueError, match=r"exactly one element, got shape \(2,\)"):
        Tensor([1.0, 2.0]).item()


def test_len_and_iteration_terminate():
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    rows = list(x)
    assert len(x) == len(rows) == 3
    rows[1].sum().backward()
    np.testing.assert_array_equal(x.grad, [[0, 0], [1, 1], [0, 0]])
    for use in (len, list):
        with pytest.raises(TypeError, match="has no length"):
            use(Tensor(1.0))


def test_numpy_reads_a_tensor():
    x = Tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(x), x.data) and x.numpy() is x.data
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(x), x.data)


def test_repr():
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert repr(Tensor([1.0, 2.5])) == "Tensor([1. , 2.5])"
    assert repr(Tensor([1])) == "Tensor([1], dtype=int64)"
    assert repr(x) == "Tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2) == "Tensor([2., 4.], grad_fn=<mul>)"
    long = repr(Tensor(np.zeros((100, 100), np.float32)))
    assert "shape=(100, 100)" in long and "..." in long and len(long) < 1000


def test_properties():
    x = Tensor(np.zeros((2, 3)), requires_grad=True)
    assert (x.shape, x.ndim, x.size, x.is_leaf) == ((2, 3), 2, 6, True)
    assert not (x + 1).is_leaf and not x.detach().requires_grad
    assert np.shares_memory(x.detach().data, x.data)


def test_memory_order_survives_elementwise_operations():
    nhwc = np.zeros((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
    x = Tensor(nhwc)
    for out in (x + 1, x * x, x.exp(), x - x.mean((0, 2, 3), keepdim=True), cat([x, x], 0)):
        assert out.data.transpose(0, 2, 3, 1).flags.c_contiguous


# ---- errors of shapes -------------------------------------------------------------------------------------


def test_shape_errors():
    x = Tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"matmul needs .* got shapes \(2, 3\) and \(2, 3\)"):
        x @ x
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(\)"):
        x.matmul(Tensor(1.0))
    with pytest.raises(ValueError, match="start_dim=1 lies behind end_dim=0"):
        x.flatten(1, 0)
    with pytest.raises(IndexError, match=r"dim must lie in \[-2, 1\] .* got 2"):
        x.mean(2)
    with pytest.raises(ValueError, match="clip needs at least one"):
        x.clip()
    with pytest.raises(ValueError, match="more than correction=1 elements"):
        x[:, :1].var(1)
    with pytest.raises(ValueError, match="max and min need at least one element"):
        Tensor(np.zeros((0, 3))).max()
    with pytest.raises(TypeError, match="two spellings of one argument"):
        x.sum(dim=0, axis=0)
    with pytest.raises(ValueError, match="cat needs at least one tensor"):
        cat([])
    with pytest.raises(ValueError, match="stack needs at least one tensor"):
        stack([])
    with pytest.raises(ValueError, match=r"shape \(2, 3\) does not expand to \(3,\)"):
        x.expand(3)
    with pytest.raises(ValueError, match="reshape"):
        x.reshape(4)


# ---- creation ---------------------------------------------------------------------------------------------


def test_creation():
    assert creation.zeros(2, 3).shape == creation.ones((2, 3)).shape == (2, 3)
    assert creation.zeros(2, requires_grad=True).requires_grad
    assert creation.full((2,), 7).dtype == np.int64 and creation.full(2, 0.5).dtype == np.float32
    np.testing.assert_array_equal(creation.arange(2, 5).numpy(), [2, 3, 4])
    assert creation.arange(3).dtype == np.int64 and creation.arange(0, 1, 0.25).dtype == np.float32
    np.testing.assert_array_equal(creation.eye(2, 3).numpy(), [[1, 0, 0], [0, 1, 0]])
    x = Tensor(np.zeros((1, 2)))
    assert creation.zeros_like(x).dtype == creation.ones_like(x).dtype == np.float64
    with pytest.raises(ValueError, match="step must not be zero"):
        creation.arange(1, 2, 0)


def test_random_creation_is_seeded():
    def draw():
        random.manual_seed(3)
        return [creation.rand(2, 3), creation.randn(4), creation.randint(0, 10, (5,))]

    for a, b in zip(draw(), draw(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    uniform, gaussian, integers = draw()
    assert uniform.dtype == gaussian.dtype == np.float32 and integers.dtype == np.int64
    assert uniform.numpy().min() >= 0 and integers.numpy().max() < 10


def test_random_state_round_trip():
    generator = random.manual_seed(1)
    state = random.get_state()
    first = generator.random(3)
    random.set_state(state)
    np.testing.assert_array_equal(random.generator().random(3), first)
    with pytest.raises(ValueError, match="non-negative integer, got -1"):
        random.manual_seed(-1)
    with pytest.raises(ValueError, match=r"must come from random.get_state\(\)"):
        random.set_state({"nonsense": 1})


def test_repr_names_max_and_min():
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert repr(x.max()) == "Tensor(2., grad_fn=<max>)"
    assert repr(x.min()) == "Tensor(1., grad_fn=<min>)"


# ---- in place ---------------------------------------------------------------------------------------------


def test_an_update_by_hand_changes_the_leaf():
    w = Tensor([4.0, 8.0], requires_grad=True)
    same, memory = w, w.data
    with no_grad():
        w -= 1
        w *= Tensor([2.0, 1.0])
        w /= 2
        w += np.float32(1)
    assert w is same and w.data is memory and w.requires_grad and w.is_leaf
    np.testing.assert_array_equal(w.data, [4.0, 4.5])


def test_in_place_on_a_recorded_leaf_is_refused_and_elsewhere_makes_a_new_tensor():
    w = Tensor([1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf that requires grad can't be changed in place"):
        w += 1
    y = first = w * 3
    y += w
    assert y is not first
    y.backward()
    assert w.grad[0] == 4


def test_in_place_keeps_the_kind_of_number():
    counts = Tensor([1, 2])
    with no_grad(), pytest.raises(TypeError, match="same_kind"):
        counts += 0.5
