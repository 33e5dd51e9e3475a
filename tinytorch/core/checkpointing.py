"""Gradient checkpointing: what a function saves for its backward is thrown away, and computed again when it is needed.

A network of n equal layers, cut into √n segments, then keeps the √n inputs of the segments and the activations of one
of them, for one more forward. T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training Deep Nets with Sublinear Memory Cost",
2016.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from itertools import chain
from typing import Any
from weakref import ref

import numpy as np

from tinytorch.core import fusion, random
from tinytorch.core.autograd import Node, is_grad_enabled, record, run_backward
from tinytorch.core.layers import Module, Sequential
from tinytorch.core.tensor import Tensor


def checkpoint(function: Callable[..., Any], *inputs: Any, preserve_rng_state: bool = True, **keywords: Any) -> Any:
    """Return ``function(*inputs, **keywords)``, saving its inputs in place of its activations.

    The backward calls the function a second time, as it was called before: with the same random numbers, buffers and
    contexts, such as `use_algorithm`. So gradients have the same bits as without. What the second call does to
    the buffers of modules is undone: running statistics move once. (In PyTorch they move twice.)

    Parameters
    ----------
    function : callable
        A Module, or any function of tensors. The modules whose buffers are looked after are the function itself, what
        it is bound to, and what it names or closes over.
    *inputs, **keywords
        Of the function. Gradients flow to those that are tensors.
    preserve_rng_state : bool
        False does without the random numbers of the first call: for functions that draw none.

    Returns
    -------
    Tensor, or tuple or list of Tensor and other values
        What the function returns.

    Raises
    ------
    TypeError
        If `function` can't be called, or returns tensors in something else.
    RuntimeError
        In the backward: if the second call returns something else, or the function uses a computed tensor that is not
        among its arguments.
    """
    if not callable(function):
        raise TypeError(
            f"function must be a Module or a function, got {type(function).__name__}; write checkpoint(layer, x) "
            "in place of checkpoint(layer(x))"
        )
    if not is_grad_enabled():
        return function(*inputs, **keywords)
    call = _Call(function, inputs, keywords, preserve_rng_state)
    made = call()
    results = _listed(made)
    differentiable = [index for index, result in enumerate(results) if _wants_grad(result)]
    if not differentiable:
        return made
    call.returned(results)
    gradients: list[np.ndarray | None] = [None] * len(results)  # as they arrive

    def backward(_: np.ndarray):
        arrived, gradients[:] = list(gradients), [None] * len(gradients)
        return (*call.again(arrived), None)

    def collect(index: int):
        def backward(grad: np.ndarray):
            gradients[index] = grad
            return (np.zeros((), np.float32),)

        return backward

    # The second call has to wait for the gradients of all results. So these come from one number, which comes from the
    # inputs; and from a leaf nobody sees, since it may be parameters alone that want gradients.
    hidden = Tensor(0.0, requires_grad=True)
    origin = record(np.zeros((), np.float32), (*call.tensors(), hidden), backward)
    for index in differentiable:
        results[index] = record(results[index].array, (origin,), collect(index))
    return type(made)(results) if isinstance(made, tuple | list) else results[0]


def checkpoint_sequential(
    functions: Sequential | Sequence[Callable[[Tensor], Tensor]],
    segments: int,
    input: Tensor,
    preserve_rng_state: bool = True,
) -> Tensor:
    """Apply a chain of functions, cut into segments: each but the last, whose backward comes first, is a `checkpoint`.

    Parameters
    ----------
    functions : Sequential, or sequence of callable
    segments : int
        About the square root of the number of functions needs the least memory. What remains of dividing the functions
        by it goes into the last segment.

    Raises
    ------
    ValueError
        If `segments` is not between 1 and the number of functions.
    """
    functions = list(functions)
    count = len(functions)
    if isinstance(segments, bool) or not isinstance(segments, int | np.integer) or not 1 <= segments <= count:
        raise ValueError(
            f"segments must be an integer from 1 to the number of functions, {count}, got {segments!r}; "
            f"about {max(1, round(count**0.5))} needs the least memory"
        )
    length = count // segments
    last = length * (segments - 1)
    for start in range(0, last, length):
        segment = partial(_apply, functions[start : start + length])
        input = checkpoint(segment, input, preserve_rng_state=preserve_rng_state)
    return _apply(functions[last:], input)


def _apply(functions: Sequence[Any], x: Tensor) -> Tensor:
    for function in fusion.runs(functions):
        x = function(x)
    return x


# ---- calling twice --------------------------------------------------------------------------------------------------


class _Call:
    """A function with its arguments, cut off from the graph behind them, and what else the result depends on."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Any], keywords: dict[str, Any], draws: bool):
        self._function, self._names = function, tuple(keywords)
        self._values = [_Cut(value) if isinstance(value, Tensor) else value for value in (*inputs, *keywords.values())]
        self._sources = [value for value in (*inputs, *keywords.values()) if _wants_grad(value)]
        self._buffers = [buffer for module in _modules(function) for buffer in module.buffers()]
        self._draws = draws
        self._before = self._state()
        self._context = copy_context()

    def tensors(self) -> list[Tensor]:
        """The arguments that want a gradient; to be asked for once, as they hold on to the graph."""
        sources, self._sources = self._sources, []
        return sources

    def __call__(self) -> Any:
        values = [value.entrance() if isinstance(value, _Cut) else value for value in self._values]
        positional = len(values) - len(self._names)
        return self._function(*values[:positional], **dict(zip(self._names, values[positional:], strict=True)))

    def returned(self, results: Sequence[Any]) -> None:
        """Remember what the first call made, and let go of its graph."""
        self._described = _describe(results)
        self._recorded = [ref(node.backward) for node in _graph(results)]

    def again(self, gradients: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
        """Call a second time and run backward from the results; returns the gradients of `tensors`."""
        with self._as_before():
            end = self._context.run(self._join, gradients)
        run_backward(end, np.zeros(()))
        arrived = [gradient for gradient in gradients if gradient is not None]
        return [_own(value.taken(), arrived) for value in self._values if isinstance(value, _Cut) and value.wanted]

    def _join(self, gradients: Sequence[np.ndarray | None]) -> Tensor:
        """A number that stands for all results, behind which each finds its gradient."""
        results = _listed(self())
        if _describe(results) != self._described:
            raise RuntimeError(
                f"a function under checkpoint must do the same when it is called again; it returned "
                f"{self._described} in the forward and {_describe(results)} in the backward; "
                "let it depend on nothing but its arguments, parameters, buffers and tinytorch's random numbers"
            )
        self._check_closed(results)
        ends = [(_pass_on(result), g) for result, g in zip(results, gradients, strict=True) if _wants_grad(result)]
        return record(np.zeros(()), tuple(end for end, _ in ends), lambda _: [gradient for _, gradient in ends])

    def _check_closed(self, results: Sequence[Any]) -> None:
        """Raise if there is a node that this call has not made: it was there in the first call, or was freed since."""
        before = {id(closure) for alive in self._recorded if (closure := alive()) is not None}
        for node in _graph(results):
            if node.backward is None or id(node.backward) in before:
                raise RuntimeError(
                    f"a function under checkpoint used a computed tensor (grad_fn=<{node.name}>) that is not among "
                    "its arguments, so its gradient would be lost; pass it: checkpoint(function, x, that_tensor)"
                )

    def _state(self) -> tuple[Any, list[np.ndarray]]:
        return random.get_state() if self._draws else None, [np.array(buffer.array) for buffer in self._buffers]

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """Put the generator and the buffers back to where the first call found them, and forth again after."""
        now = self._state()
        self._set_state(*self._before)
        try:
            yield
        finally:
            self._set_state(*now)

    def _set_state(self, drawn: Any, buffers: Sequence[np.ndarray]) -> None:
        if self._draws:
            random.set_state(drawn)
        for buffer, values in zip(self._buffers, buffers, strict=True):
            buffer.data[...] = values


class _Cut:
    """A tensor without the graph behind it. The gradient that arrives at it is kept for us."""

    def __init__(self, tensor: Tensor) -> None:
        self.wanted = tensor.requires_grad
        self._array = tensor.array
        self._gradient: np.ndarray | None = None

    def entrance(self) -> Tensor:
        """Where a new graph begins. It is no leaf, so that it can be changed in place as what it stands for."""

        def checkpoint_input(grad: np.ndarray):
            self._gradient = grad
            return (None,)

        leaf = Tensor.wrap(self._array)
        leaf.requires_grad = self.wanted
        return record(self._array, (leaf,), checkpoint_input)

    def taken(self) -> np.ndarray | None:
        """The gradient, handed over."""
        gradient, self._gradient = self._gradient, None
        return gradient


def _own(gradient: np.ndarray | None, arrived: Iterable[np.ndarray]) -> np.ndarray | None:
    """A gradient in memory of its own: a function may pass on what arrives, which others may be reading."""
    shared = gradient is not None and any(np.may_share_memory(gradient, other) for other in arrived)
    return np.array(gradient) if shared else gradient


def _pass_on(tensor: Tensor) -> Tensor:
    return record(tensor.array, (tensor,), lambda grad: (grad,))


def _wants_grad(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _listed(made: Any) -> list[Any]:
    if isinstance(made, Tensor):
        return [made]
    if type(made) not in (tuple, list):
        raise TypeError(
            f"a function under checkpoint must return a Tensor, or a tuple or list of them, got {type(made).__name__}; "
            "let it return a tuple, and put it together outside"
        )
    return list(made)


def _describe(results: Iterable[Any]) -> list[str]:
    """Types and shapes of those that gradients come from."""
    return [f"{result.dtype} {result.shape}" if _wants_grad(result) else "no gradient" for result in results]


def _graph(results: Iterable[Any]) -> Iterator[Node]:
    """Every node behind some tensors, once."""
    stack: list[Any] = [result.node for result in results if isinstance(result, Tensor)]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in seen:
            seen.add(node)
            stack += node.inputs
            yield node


def _modules(function: Callable[..., Any]) -> list[Module]:
    """Modules that a function is, is bound to, names, or closes over, and those in lists of them."""
    return list({id(value): value for value in _reachable(function) if isinstance(value, Module)}.values())


def _reachable(value: Any) -> Iterator[Any]:
    if isinstance(value, partial):
        parts: Iterable[Any] = (value.func, *value.args, *value.keywords.values())
        return chain.from_iterable(map(_reachable, parts))
    if inspect.ismethod(value):
        return iter((value.__self__, *_named(value.__func__)))
    values = _named(value) if inspect.isfunction(value) else (value,)
    return chain.from_iterable(value if isinstance(value, tuple | list) else (value,) for value in values)


def _named(function: Callable[..., Any]) -> list[Any]:
    variables = inspect.getclosurevars(function)
    return [*variables.nonlocals.values(), *variables.globals.values()]
