"""The Tensor: a NumPy array that remembers how it was computed. Each operation stands beside its backward.

Names and semantics are PyTorch's. Where PyTorch says `dim` and `keepdim`, NumPy's `axis` and `keepdims` are
accepted as well. Python numbers never promote a tensor: a float32 tensor times 0.5 stays float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinytorch.conv.pack import channels_first
from tinytorch.core import reach
from tinytorch.core.autograd import Node, is_grad_enabled, record, run_backward
from tinytorch.kernels import memory
from tinytorch.kernels.watch import watcher

Dims = int | tuple[int, ...] | None
Number = int | float

_KIND_RANK = {"b": 0, "u": 1, "i": 1, "f": 2}  # bool < integer < floating, as in PyTorch's promotion
_DEFAULT_DTYPE = (np.dtype(bool), np.dtype(np.int64), np.dtype(np.float32))  # by rank
_WIDEST_FLOAT = 8  # bytes
_versions = itertools.count()


def as_array(data: Any, dtype: DTypeLike | None = None) -> np.ndarray:
    """Turn numbers, lists, arrays or a Tensor into an array a Tensor can hold, copying only if it must.

    Python floats become float32 and Python ints int64; arrays keep their dtype, but float16 becomes float32.

    Raises
    ------
    TypeError
        If the result would not be boolean, integer, float32 or float64.
    ValueError
        If nested lists are ragged.
    """
    if isinstance(data, Tensor):
        data = data.data
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"data must be rectangular: nested lists of equal lengths; {error}") from error
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    wanted = np.dtype(dtype) if dtype is not None else _natural_dtype(data, array.dtype)
    for kind in (array.dtype, wanted):
        if kind.kind not in _KIND_RANK or kind.itemsize > _WIDEST_FLOAT or kind == np.float16:
            raise TypeError(
                f"a Tensor holds booleans, integers, float32 or float64, got {kind}; use .astype(np.float32)"
            )
    return array.astype(wanted, copy=False)


def _natural_dtype(data: Any, dtype: np.dtype) -> np.dtype:
    """The dtype a tensor gets when the caller names none."""
    from_python = not isinstance(data, np.ndarray | np.generic)
    return np.dtype(np.float32) if from_python and dtype.kind == "f" else dtype.newbyteorder("=")


def _sum_to(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo broadcasting: sum `grad` over the axes along which an input of this shape was repeated."""
    if grad.shape == shape:
        return grad
    extra = grad.ndim - len(shape)
    repeated = tuple(extra + i for i, n in enumerate(shape) if n == 1 and grad.shape[extra + i] != 1)
    return grad.sum(axis=(*range(extra), *repeated)).reshape(shape)


def _harmonise(a: Tensor, other: Any) -> tuple[Tensor, Tensor]:
    """Give two operands the dtype PyTorch would: the higher kind wins, and within a kind the wider array."""
    b = other if isinstance(other, Tensor) else Tensor.wrap(_operand_array(other, a.dtype))
    if a.dtype == b.dtype:
        return a, b
    rank_a, rank_b = _KIND_RANK[a.dtype.kind], _KIND_RANK[b.dtype.kind]
    if rank_a != rank_b:
        dtype = a.dtype if rank_a > rank_b else b.dtype
    elif (a.ndim == 0) != (b.ndim == 0):
        dtype = a.dtype if a.ndim else b.dtype
    else:
        dtype = np.promote_types(a.dtype, b.dtype)
    return a.astype(dtype), b.astype(dtype)


def _operand_array(other: Any, dtype: np.dtype) -> np.ndarray:
    """An array or number as the right operand of a tensor of this dtype, which a number takes if it can."""
    if isinstance(other, np.ndarray):
        return as_array(other)
    rank = _KIND_RANK[as_array(other).dtype.kind]
    return np.asarray(other, dtype if rank <= _KIND_RANK[dtype.kind] else _DEFAULT_DTYPE[rank])


def _binary(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """Let a method written for two tensors of one dtype take a tensor, array or number on its right."""

    @wraps(operation)
    def method(self: Tensor, other: Any) -> Tensor:
        if not isinstance(other, Tensor | np.ndarray | np.generic | int | float):
            return NotImplemented
        return operation(*_harmonise(self, other))

    return method


def _in_place(operation: Callable[[Tensor, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """`x op= y`: changes `x` where nothing is recorded, as in an update by hand; elsewhere the same as `x = x op y`."""

    @wraps(operation)
    def method(self: Tensor, other: Any) -> Tensor:
        if not is_grad_enabled():
            np.copyto(self.data, operation(self, other).data, casting="same_kind")
            return self
        if self.is_leaf and self.requires_grad:
            raise RuntimeError(
                "a leaf that requires grad can't be changed in place while operations are recorded; write x = x + … "
                "for a new tensor, or update it inside `with no_grad():`"
            )
        return operation(self, other)

    return method


def _comparison(ufunc: np.ufunc) -> Callable[[Tensor, Any], Tensor]:
    """A method that compares elementwise; its result is boolean and carries no gradient."""

    @_binary
    def compare(a: Tensor, b: Tensor) -> Tensor:
        return Tensor.wrap(ufunc(a.data, b.data))

    return compare


def _reshaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`array.reshape(shape)`; images flattened to lines, which NumPy would copy number by number, by our own kernel."""
    if (
        array.ndim == 4
        and len(shape) == 2
        and shape[0] == len(array)
        and min(array.shape[1], prod(array.shape[2:])) > 1
    ):
        return channels_first(array).reshape(shape)
    return array.reshape(shape)


def numpy_spelling(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Accept NumPy's `axis` and `keepdims` for PyTorch's `dim` and `keepdim`, as PyTorch does."""

    @wraps(function)
    def accepting(*args: Any, **kwargs: Any) -> Tensor:
        for alias, name in (("axis", "dim"), ("keepdims", "keepdim")):
            if alias in kwargs:
                if name in kwargs:
                    raise TypeError(f"{alias} and {name} are two spellings of one argument; pass only {name}")
                kwargs[name] = kwargs.pop(alias)
        return function(*args, **kwargs)

    return accepting


def shape_argument(shape: tuple) -> tuple[int, ...]:
    """Read a shape given as `f(2, 3)` or as `f((2, 3))`."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def as_axis(dim: int, ndim: int) -> int:
    """Read a possibly negative axis number."""
    if not -ndim <= dim < ndim:
        raise IndexError(f"dim must lie in [{-ndim}, {ndim - 1}] for a tensor of {ndim} axes, got {dim}")
    return dim % ndim


def _axes(dim: Dims, ndim: int) -> tuple[int, ...]:
    """Read the `dim` of a reduction: the axes it names, all of them for None."""
    if dim is None:
        return tuple(range(ndim))
    return (as_axis(dim, ndim),) if isinstance(dim, int) else tuple(as_axis(d, ndim) for d in dim)


def _restore_dims(array: np.ndarray, dim: Dims, ndim: int, keepdim: bool) -> np.ndarray:
    """Put back, with length 1, the axes that a reduction over `dim` removed."""
    if keepdim or ndim == 0:
        return array
    return np.expand_dims(array, _axes(dim, ndim))


class Tensor:
    """An n-dimensional array with gradients.

    Parameters
    ----------
    data : array_like or Tensor
        Python floats become float32; an array keeps its dtype (but float16) and shares its memory.
    requires_grad : bool
        Whether `backward` should leave the gradient of this tensor in `.grad`.
    dtype : dtype, optional
        Convert to this dtype.

    Attributes
    ----------
    data : ndarray
        The values.
    grad : ndarray or None
        For a leaf that requires grad: the gradients since the last `zero_grad`, summed, in the leaf's dtype.
    node : autograd.Node or None
        The operation that made this tensor; None for a leaf.

    Raises
    ------
    TypeError
        If `data` is not numeric, or gradients are wanted of integers.
    """

    __array_ufunc__ = None  # let `array * tensor` reach Tensor.__rmul__, and np.exp(tensor) raise

    array: np.ndarray  # the values, for code of the library that only reads them; everyone else takes `data`
    version: int  # another number, never used before, each time the array is handed out and may be changed
    grad: np.ndarray | None
    node: Node | None
    _requires_grad: bool

    def __init__(self, data: Any, requires_grad: bool = False, dtype: DTypeLike | None = None) -> None:
        self.array = as_array(data, dtype)
        self.version = next(_versions)
        self.grad = None
        self.node = None
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = True

    @staticmethod
    def wrap(data: ArrayLike) -> Tensor:
        """Make a tensor of a result that NumPy has just computed: no checks, no conversion, no gradient."""
        out = Tensor.__new__(Tensor)
        out.array = np.asarray(data)
        out.version = next(_versions)
        out.grad = None
        out.node = None
        out._requires_grad = False
        return out

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which may share the array: what is kept of it stays behind."""
        self.version = next(_versions)
        return {name: value for name, value in vars(self).items() if name != "kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, version=next(_versions))

    # ---- what it is -------------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values; writing to this array changes the tensor."""
        self.version = next(_versions)
        return self.array

    @data.setter
    def data(self, values: np.ndarray) -> None:
        self.version = next(_versions)
        self.array = values

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the values."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.array.size

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if flag and self.dtype.kind != "f":
            raise TypeError(
                f"requires_grad needs a floating point tensor, got {self.dtype}; a gradient is about values "
                "in between, so convert first: Tensor(data, dtype=np.float32, requires_grad=True)"
            )
        if not flag and self.node is not None:
            raise RuntimeError(
                "requires_grad can only be switched off on a leaf, and this tensor was computed; use detach()"
            )
        self._requires_grad = bool(flag)

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by the user and not by a recorded operation."""
        return self.node is None

    def __repr__(self) -> str:
        prefix = f"{type(self).__name__}("
        parts = [np.array2string(self.data, separator=", ", precision=4, prefix=prefix, threshold=1000)]
        if self.size > 1000 or self.size == 0:
            parts.append(f"shape={self.shape}")
        if self.dtype != np.float32:
            parts.append(f"dtype={self.dtype}")
        if self.node is not None:
            parts.append(f"grad_fn=<{self.node.name}>")
        elif self.requires_grad:
            parts.append("requires_grad=True")
        return prefix + ", ".join(parts) + ")"

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a tensor of shape () has no length; it holds one number, item() returns it")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self[i] for i in range(len(self))])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is None:
            return np.asarray(self.numpy(), dtype)
        return np.array(self.numpy(), dtype, copy=copy)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"a tensor of shape {self.shape} is neither true nor false; compare elementwise and reduce, "
                "for example (a == b).numpy().all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else repr(self)

    # ---- out of the graph -------------------------------------------------------------------------------

    def item(self) -> Number:
        """Return the single element as a Python number.

        Raises
        ------
        ValueError
            If there is not exactly one element.
        """
        if self.size != 1:
            raise ValueError(f"item() needs exactly one element, got shape {self.shape}; reduce first")
        return self.numpy().item()

    def numpy(self) -> np.ndarray:
        """Return the values as an array that shares memory with the tensor."""
        if (by := watcher.get()) is not None:
            by.look(self)
        return self.data

    def detach(self) -> Tensor:
        """Return the same values (shared memory) outside the graph."""
        return Tensor.wrap(self.data)

    def zero_grad(self) -> None:
        """Forget the accumulated gradient."""
        self.grad = None

    def attach(self, node: Node) -> None:
        """Make this tensor the output of a recorded operation (called by `autograd.record`)."""
        self.node = node
        self._requires_grad = True

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add to every leaf's `.grad` the gradient of this tensor with respect to it.

        Parameters
        ----------
        gradient : array_like, shape of self, optional
            Gradient of the final loss with respect to this tensor; 1 for a tensor of one element.
        retain_graph : bool
            Keep the saved arrays, so that backward can run through this graph again.

        Raises
        ------
        RuntimeError
            If nothing here requires grad, the graph was freed by an earlier backward, or the gradient is
            missing for a tensor of several elements.
        ValueError
            If the gradient has another shape.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "backward() needs a tensor that depends on one with requires_grad=True; create the leaf with "
                "Tensor(data, requires_grad=True), and compute outside no_grad()"
            )
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward() without a gradient needs a single number, got shape {self.shape}; reduce to "
                    "a loss first (sum() or mean()), or pass gradient, an array of that shape"
                )
            gradient = np.ones_like(self.data)
        gradient = as_array(gradient)
        if gradient.shape != self.shape:
            raise ValueError(f"gradient must have the tensor's shape {self.shape}, got {gradient.shape}")
        run_backward(self, gradient.astype(self.dtype, copy=False), retain_graph)

    # ---- dtype ------------------------------------------------------------------------------------------

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Convert; gradients flow between floating dtypes. Returns self where nothing changes."""
        if self.dtype == dtype:
            return self
        data = as_array(self.data, dtype)
        if data.dtype.kind != "f":
            return Tensor.wrap(data)
        own_dtype = self.dtype

        def backward(grad: np.ndarray):
            return (grad.astype(own_dtype),)

        return record(data, (self,), backward)

    def float(self) -> Tensor:
        """Convert to float32."""
        return self.astype(np.float32)

    def double(self) -> Tensor:
        """Convert to float64."""
        return self.astype(np.float64)

    def long(self) -> Tensor:
        """Convert to int64, rounding towards zero."""
        return self.astype(np.int64)

    def _floating(self) -> Tensor:
        """Self, or its float32 copy where it holds integers."""
        return self if self.dtype.kind == "f" else self.float()

    # ---- arithmetic -------------------------------------------------------------------------------------

    @_binary
    def __add__(self, other: Tensor) -> Tensor:
        a, b = self.shape, other.shape

        def backward(grad: np.ndarray):
            return _sum_to(grad, a), _sum_to(grad, b)

        return record(self.data + other.data, (self, other), backward)

    __radd__ = __add__

    @_binary
    def __sub__(self, other: Tensor) -> Tensor:
        a, b, wants_b = self.shape, other.shape, other.requires_grad

        def backward(grad: np.ndarray):
            return _sum_to(grad, a), -_sum_to(grad, b) if wants_b else None

        return record(self.data - other.data, (self, other), backward)

    @_binary
    def __rsub__(self, other: Tensor) -> Tensor:
        return other - self

    @_binary
    def __mul__(self, other: Tensor) -> Tensor:
        a, b = self.shape, other.shape
        saved_a = self.data if other.requires_grad else None
        saved_b = other.data if self.requires_grad else None

        def backward(grad: np.ndarray):
            return (
                None if saved_b is None else _sum_to(grad * saved_b, a),
                None if saved_a is None else _sum_to(grad * saved_a, b),
            )

        return record(self.data * other.data, (self, other), backward)

    __rmul__ = __mul__

    @_binary
    def __truediv__(self, other: Tensor) -> Tensor:
        a, b = self._floating(), other._floating()
        a_shape, divisor, wants_a = a.shape, b.data, a.requires_grad
        quotient = a.data / divisor
        saved = quotient if b.requires_grad else None

        def backward(grad: np.ndarray):
            scaled = grad / divisor
            return (
                _sum_to(scaled, a_shape) if wants_a else None,
                None if saved is None else -_sum_to(scaled * saved, divisor.shape),
            )

        return record(quotient, (a, b), backward)

    @_binary
    def __rtruediv__(self, other: Tensor) -> Tensor:
        return other / self

    def __pow__(self, exponent: Any) -> Tensor:
        if isinstance(exponent, int | float):
            return self._power_of_number(exponent)
        return self._power_of_tensor(exponent)

    def _power_of_number(self, exponent: Number) -> Tensor:
        """x**p for a Python number: NumPy squares, inverts and takes roots without calling pow."""
        base = self._floating() if isinstance(exponent, float) else self
        x = base.data

        def pow_backward(grad: np.ndarray):
            return (grad * exponent * x ** (exponent - 1) if exponent else np.zeros_like(grad),)

        return record(x**exponent, (base,), pow_backward)

    @_binary
    def _power_of_tensor(self, other: Tensor) -> Tensor:
        a, b, wants_a, wants_b = self.data, other.data, self.requires_grad, other.requires_grad
        power = a**b

        def pow_backward(grad: np.ndarray):
            with np.errstate(divide="ignore", invalid="ignore"):
                grad_a = np.where(b == 0, 0, grad * b * a ** (b - 1)) if wants_a else None
                grad_b = np.where((a == 0) & (b >= 0), 0, grad * power * np.log(a)) if wants_b else None
            return (
                None if grad_a is None else _sum_to(grad_a, a.shape),
                None if grad_b is None else _sum_to(grad_b, b.shape),
            )

        return record(power, (self, other), pow_backward)

    @_binary
    def __rpow__(self, other: Tensor) -> Tensor:
        return other._power_of_tensor(self)

    __iadd__ = _in_place(__add__)
    __isub__ = _in_place(__sub__)
    __imul__ = _in_place(__mul__)
    __itruediv__ = _in_place(__truediv__)

    def __neg__(self) -> Tensor:
        def backward(grad: np.ndarray):
            return (-grad,)

        return record(-self.data, (self,), backward)

    @_binary
    def maximum(self, other: Tensor) -> Tensor:
        """Elementwise maximum with a tensor, array or number; where equal, each gets half the gradient."""
        a, b = self.data, other.data

        def backward(grad: np.ndarray):
            share = (a > b) + 0.5 * (a == b)
            grad_a = grad * share.astype(grad.dtype)
            return _sum_to(grad_a, a.shape), _sum_to(grad - grad_a, b.shape)

        return record(np.maximum(a, b), (self, other), backward)

    __lt__ = _comparison(np.less)
    __le__ = _comparison(np.less_equal)
    __gt__ = _comparison(np.greater)
    __ge__ = _comparison(np.greater_equal)
    __eq__ = _comparison(np.equal)  # type: ignore[assignment]
    __ne__ = _comparison(np.not_equal)  # type: ignore[assignment]
    __and__ = _comparison(np.bitwise_and)
    __or__ = _comparison(np.bitwise_or)
    __hash__ = object.__hash__  # a tensor is a key by identity, since == compares elementwise

    def __invert__(self) -> Tensor:
        return Tensor.wrap(~self.data)

    # ---- elementwise functions --------------------------------------------------------------------------

    def exp(self) -> Tensor:
        """Elementwise exponential."""
        x = self._floating()
        out = np.exp(x.data)

        def backward(grad: np.ndarray):
            return (grad * out,)

        return record(out, (x,), backward)

    def log(self) -> Tensor:
        """Elementwise natural logarithm."""
        x = self._floating()
        data = x.data

        def backward(grad: np.ndarray):
            return (grad / data,)

        return record(np.log(data), (x,), backward)

    def sqrt(self) -> Tensor:
        """Elementwise square root."""
        x = self._floating()
        root = np.sqrt(x.data)

        def backward(grad: np.ndarray):
            return (grad / (2 * root),)

        return record(root, (x,), backward)

    def tanh(self) -> Tensor:
        """Elementwise hyperbolic tangent."""
        x = self._floating()
        out = np.tanh(x.data)

        def backward(grad: np.ndarray):
            return (grad * (1 - out * out),)

        return record(out, (x,), backward)

    def abs(self) -> Tensor:
        """Elementwise absolute value; its gradient at 0 is 0."""
        data = self.data

        def backward(grad: np.ndarray):
            return (grad * np.sign(data),)

        return record(np.abs(data), (self,), backward)

    __abs__ = abs

    def clip(self, min: Number | None = None, max: Number | None = None) -> Tensor:
        """Limit the values to [min, max]; the gradient is zero outside and passes on the bounds.

        Raises
        ------
        ValueError
            If both bounds are missing.
        """
        if min is None and max is None:
            raise ValueError("clip needs at least one of min and max, got neither")
        data = self.data
        out = np.clip(data, min, max).astype(self.dtype, copy=False)

        def backward(grad: np.ndarray):
            return (grad * (data == out),)

        return record(out, (self,), backward)

    # ---- reductions -------------------------------------------------------------------------------------

    @numpy_spelling
    def sum(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Sum over `dim` (an int, a tuple, or None for all); integers sum to int64."""
        shape = self.shape
        dtype = self.dtype if self.dtype.kind == "f" else np.int64

        def backward(grad: np.ndarray):
            return (np.broadcast_to(_restore_dims(grad, dim, len(shape), keepdim), shape),)

        total = self.data.sum(axis=dim, dtype=dtype, keepdims=keepdim)
        return record(total, (self,), backward, reach.reduced(self.ndim, dim, keepdim))

    @numpy_spelling
    def mean(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Mean over `dim`; of integers and booleans (an accuracy, say) in float32."""
        x = self._floating()
        shape, count = x.shape, x._reduced_count(dim)

        def backward(grad: np.ndarray):
            return (np.broadcast_to(_restore_dims(grad / count, dim, len(shape), keepdim), shape),)

        return record(x.data.mean(axis=dim, keepdims=keepdim), (x,), backward, reach.reduced(x.ndim, dim, keepdim))

    def _reduced_count(self, dim: Dims) -> int:
        """How many elements a reduction over `dim` combines into one."""
        return prod(self.shape[d] for d in _axes(dim, self.ndim))

    @numpy_spelling
    def var(self, dim: Dims = None, correction: int = 1, keepdim: bool = False) -> Tensor:
        """Variance over `dim`: squared deviations divided by (count - correction).

        Raises
        ------
        ValueError
            If no more than `correction` elements are reduced.
        """
        x = self._floating()
        freedom = x._reduced_count(dim) - correction
        if freedom <= 0:
            raise ValueError(
                f"var needs more than correction={correction} elements along dim={dim}, got shape "
                f"{self.shape}; use correction=0 for the variance of the values themselves"
            )
        centred = x - x.mean(dim=dim, keepdim=True)
        return (centred**2).sum(dim=dim, keepdim=keepdim) / freedom

    @numpy_spelling
    def std(self, dim: Dims = None, correction: int = 1, keepdim: bool = False) -> Tensor:
        """Standard deviation over `dim`: the root of `var`, with gradient 0 where it is 0."""
        variance = self.var(dim=dim, correction=correction, keepdim=keepdim)
        root = np.sqrt(variance.data)

        def backward(grad: np.ndarray):
            return (np.divide(grad, 2 * root, out=np.zeros_like(grad), where=root != 0),)

        return record(root, (variance,), backward)

    @numpy_spelling
    def max(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Largest value over `dim` (values only; see `argmax`).

        Of equal maxima the first gets the gradient where `dim` is an int, as in torch.max(x, dim); over all
        elements or a tuple of dims they share it, as in torch.max(x) and torch.amax.
        """
        return self._extreme(np.max, np.argmax, dim, keepdim)

    @numpy_spelling
    def min(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Smallest value over `dim`; gradients as for `max`."""
        return self._extreme(np.min, np.argmin, dim, keepdim)

    def _extreme(self, best: Callable, where: Callable, dim: Dims, keepdim: bool) -> Tensor:
        data = self.data
        if self._reduced_count(dim) == 0:
            raise ValueError(f"max and min need at least one element along dim={dim}, got shape {self.shape}")
        extreme = best(data, axis=dim, keepdims=True)

        def extreme_backward(grad: np.ndarray):
            grad = _restore_dims(grad, dim, data.ndim, keepdim)
            if isinstance(dim, int) and data.ndim:
                out = np.zeros_like(data)
                np.put_along_axis(out, where(data, axis=dim, keepdims=True), grad, axis=dim)
                return (out,)
            tied = (data == extreme) | np.isnan(data)
            return (tied * (grad / tied.sum(axis=dim, keepdims=True, dtype=data.dtype)),)

        extreme_backward.__qualname__ = best.__name__  # max or min, for repr
        out = extreme if keepdim else extreme.squeeze(axis=_axes(dim, data.ndim))
        return record(out, (self,), extreme_backward, reach.reduced(data.ndim, dim, keepdim))

    @numpy_spelling
    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index (int64) of the first largest value along `dim`, or into the flattened tensor."""
        return Tensor.wrap(np.argmax(self.data, axis=dim, keepdims=keepdim).astype(np.int64))

    # ---- matrix product ---------------------------------------------------------------------------------

    @_binary
    def __matmul__(self, other: Tensor) -> Tensor:
        a, b, wants_a, wants_b = self.data, other.data, self.requires_grad, other.requires_grad
        _check_matmul(a.shape, b.shape)

        def backward(grad: np.ndarray):
            rows = a[None, :] if a.ndim == 1 else a
            columns = b[:, None] if b.ndim == 1 else b
            grad = grad[..., None] if b.ndim == 1 else grad
            grad = grad[..., None, :] if a.ndim == 1 else grad
            return (
                _sum_to(grad @ columns.swapaxes(-1, -2), rows.shape).reshape(a.shape) if wants_a else None,
                _sum_to(rows.swapaxes(-1, -2) @ grad, columns.shape).reshape(b.shape) if wants_b else None,
            )

        return record(a @ b, (self, other), backward, reach.product(a.ndim, b.ndim))

    @_binary
    def __rmatmul__(self, other: Tensor) -> Tensor:
        return other @ self

    def matmul(self, other: Any) -> Tensor:
        """Matrix product as `self @ other`: vectors, matrices, or stacks of matrices that broadcast."""
        return self @ other

    # ---- shape ------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """Same elements in C order, other shape; one length may be -1. A view where memory allows."""
        before = self.shape

        def backward(grad: np.ndarray):
            return (grad.reshape(before),)

        data = _reshaped(self.data, shape_argument(shape))
        return record(data, (self,), backward, reach.reshaped(before, data.shape))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Merge the axes from `start_dim` to `end_dim`, both included, into one.

        Raises
        ------
        ValueError
            If `start_dim` lies behind `end_dim`.
        """
        if not self.ndim:
            return self.reshape(1)
        start, end = (as_axis(d, self.ndim) for d in (start_dim, end_dim))
        if start > end:
            raise ValueError(f"start_dim={start_dim} lies behind end_dim={end_dim}; swap them")
        return self.reshape(*self.shape[:start], prod(self.shape[start : end + 1]), *self.shape[end + 1 :])

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Swap two axes (a view)."""

        def backward(grad: np.ndarray):
            return (grad.swapaxes(dim0, dim1),)

        return record(self.data.swapaxes(dim0, dim1), (self,), backward, reach.swapped(self.ndim, dim0, dim1))

    def permute(self, *dims: Any) -> Tensor:
        """Reorder all axes (a view): axis i of the result is axis dims[i] of self."""
        order = shape_argument(dims)
        data = self.data.transpose(order)
        inverse = np.argsort([as_axis(d, self.ndim) for d in order])

        def backward(grad: np.ndarray):
            return (grad.transpose(inverse),)

        return record(data, (self,), backward, reach.permuted(order))

    @property
    def T(self) -> Tensor:
        """All axes reversed: the transpose of a matrix."""
        return self.permute(*reversed(range(self.ndim)))

    @numpy_spelling
    def squeeze(self, dim: Dims = None) -> Tensor:
        """Drop axes of length 1: all of them, or those in `dim` that have length 1."""
        dims = _axes(dim, self.ndim)
        return self.reshape(tuple(n for d, n in enumerate(self.shape) if n != 1 or d not in dims))

    @numpy_spelling
    def unsqueeze(self, dim: int) -> Tensor:
        """Insert an axis of length 1 at position `dim` of the result."""
        return self.reshape(np.expand_dims(self.data, dim).shape)

    def expand(self, *shape: Any) -> Tensor:
        """Repeat axes of length 1 without copying; -1 keeps a length, new axes go in front."""
        wanted, before = shape_argument(shape), self.shape
        own = (1,) * (len(wanted) - self.ndim) + before
        full = tuple(n if w == -1 else w for w, n in zip(wanted, own, strict=False))

        def backward(grad: np.ndarray):
            return (_sum_to(grad, before),)

        try:
            data = np.broadcast_to(self.data, full)
        except ValueError as error:
            raise ValueError(
                f"expand repeats axes of length 1 only, and shape {before} does not expand to {wanted}"
            ) from error
        return record(data, (self,), backward)

    # ---- indexing ---------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Tensor:
        basic, advanced = _split_key(key, self.ndim)
        data, repeats = self.data, any(_may_repeat(k) for k in advanced)

        def index_backward(grad: np.ndarray):
            out = np.zeros_like(data)
            if repeats:
                np.add.at(out[basic], advanced, grad)
            elif advanced:
                out[basic][advanced] = grad
            else:
                out[basic] = grad
            return (out,)

        picked = data[basic]
        reads = None if advanced else reach.sliced(basic[:-1], data.shape)
        return record(picked[advanced] if advanced else picked, (self,), index_backward, reads)


def _check_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    if not a or not b or a[-1] != b[-2 if len(b) > 1 else -1]:
        raise ValueError(
            f"matmul needs the last axis of the left factor to match the rows of the right one, got shapes "
            f"{a} and {b}; transpose one of them with .T"
        )


def _split_key(key: Any, ndim: int) -> tuple[tuple, tuple]:
    """Split an index into a basic step (ints, slices, None) and an advanced one (arrays).

    PyTorch applies the ints first and then the arrays, so that x[0, :, [1, 2]] keeps its axes in order;
    NumPy would treat the 0 as one more array. The second step is empty where there are no arrays.
    """
    items = [_index_item(item) for item in (key if isinstance(key, tuple) else (key,))]
    consumed = sum(_axes_consumed(item) for item in items)
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    basic: list = []
    advanced: list = []
    for item in items:
        if item is Ellipsis:
            basic += [slice(None)] * (ndim - consumed)
            advanced += [slice(None)] * (ndim - consumed)
        elif isinstance(item, np.ndarray):
            basic += [slice(None)] * _axes_consumed(item)
            advanced.append(item)
        else:
            basic.append(item)
            if item is None or isinstance(item, slice):
                advanced.append(slice(None))
    return (*basic, Ellipsis), tuple(advanced) if any(isinstance(a, np.ndarray) for a in advanced) else ()


def _index_item(item: Any) -> Any:
    """One entry of an index: a tensor or list becomes an array, a 0-d integer an int."""
    if isinstance(item, Tensor | list | range | np.ndarray | np.generic):
        array = item.data if isinstance(item, Tensor) else np.asarray(item)
        if array.size == 0 and isinstance(item, list):
            array = array.astype(np.int64)
        if array.dtype.kind not in "biu":
            raise IndexError(f"an index must be integer or boolean, got {array.dtype}; use .long()")
        return int(array) if array.ndim == 0 and array.dtype.kind != "b" else array
    return np.asarray(item) if isinstance(item, bool) else item


def _axes_consumed(item: Any) -> int:
    """How many axes of the tensor an index entry uses up."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, np.ndarray) and item.dtype.kind == "b" else 1


def _may_repeat(item: Any) -> bool:
    """Whether an index entry can name the same element twice, so that its gradients must be added."""
    return isinstance(item, np.ndarray) and item.dtype.kind != "b"


@numpy_spelling
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along an existing axis; all other lengths must agree.

    Raises
    ------
    ValueError
        If there is no tensor, or the shapes do not fit.
    """
    tensors = _tensors(tensors, "cat")
    data = _concatenated([t.array for t in tensors], dim)
    ends = np.cumsum([t.shape[dim] for t in tensors])[:-1]

    def backward(grad: np.ndarray):
        return np.split(grad, ends, axis=dim)

    return record(data, tuple(tensors), backward, reach.joined(data.ndim, dim))


def _concatenated(arrays: list[np.ndarray], axis: int) -> np.ndarray:
    """`np.concatenate`, with the axes in the first one's order in memory: what is channels last stays so."""
    ndim = arrays[0].ndim
    if arrays[0].flags.c_contiguous or not -ndim <= axis < ndim or any(array.ndim != ndim for array in arrays):
        return np.concatenate(arrays, axis)
    order = memory.slowest_first(arrays[0])
    place = order.index(axis % ndim)
    return np.concatenate([array.transpose(order) for array in arrays], place).transpose(np.argsort(order))


@numpy_spelling
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis at position `dim`.

    Raises
    ------
    ValueError
        If there is no tensor, or the shapes differ.
    """
    tensors = _tensors(tensors, "stack")
    data = np.stack([t.data for t in tensors], axis=dim)

    def backward(grad: np.ndarray):
        return list(np.moveaxis(grad, dim, 0))

    return record(data, tuple(tensors), backward, reach.stacked(data.ndim - 1, dim))


def _tensors(tensors: Sequence[Any], name: str) -> list[Tensor]:
    """A non-empty list of tensors of one dtype kind."""
    if not len(tensors):
        raise ValueError(f"{name} needs at least one tensor, got an empty list")
    return [t if isinstance(t, Tensor) else Tensor(t) for t in tensors]
