"""Reverse-mode automatic differentiation: the graph, the walk along it, and its on/off switch.

Every differentiable operation computes its result with NumPy and hands `record` a closure that maps the
gradient of the result to the gradients of the inputs. The closures form a graph; `run_backward` visits it
from the loss towards the leaves and frees each closure, with the arrays it saved, once it has run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tinytorch.kernels.watch import watcher

if TYPE_CHECKING:
    from tinytorch.core.reach import Reads
    from tinytorch.core.tensor import Tensor

Backward = Callable[[np.ndarray], Sequence[np.ndarray | None]]
Pending = dict["Node", np.ndarray]

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)


def is_grad_enabled() -> bool:
    """Return whether operations are being recorded in this thread (or task)."""
    return _grad_enabled.get()


class _GradMode(ContextDecorator):
    """Set the grad mode inside a `with` block or a decorated function, and restore it after."""

    mode: bool

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def _recreate_cm(self) -> _GradMode:
        return type(self)()  # a decorated function may run in several threads at once

    def __enter__(self) -> None:
        self._tokens.append(_grad_enabled.set(self.mode))

    def __exit__(self, *exc_info: object) -> None:
        _grad_enabled.reset(self._tokens.pop())


class no_grad(_GradMode):
    """Record nothing: `with no_grad():` around inference, or `@no_grad()` on a function."""

    mode = False


class enable_grad(_GradMode):
    """Record again inside a `no_grad` block."""

    mode = True


class Node:
    """One recorded operation.

    It refers to the nodes before it and not to their tensors, so that an activation lives on only if
    some closure saved it.

    Parameters
    ----------
    backward : callable or None
        Maps the gradient of the output to one gradient (or None) for each input. None once freed.
    inputs : tuple
        For each input its Node, the Tensor itself where it is a leaf, or None where no gradient is wanted.
    shape, dtype
        Of the output, and so of the gradient that arrives here.
    """

    __slots__ = ("backward", "dtype", "inputs", "shape")

    def __init__(
        self,
        backward: Backward,
        inputs: tuple[Node | Tensor | None, ...],
        shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> None:
        self.backward: Backward | None = backward
        self.inputs = inputs
        self.shape = shape
        self.dtype = dtype

    @property
    def name(self) -> str:
        """Name of the operation: that of the function in which the closure was written."""
        return "freed" if self.backward is None else operation_name(self.backward)

    def free(self) -> None:
        """Let go of the saved arrays and of the graph before this node."""
        self.backward = None
        self.inputs = ()


def operation_name(backward: Backward) -> str:
    """Name of the function in which a backward was written."""
    return backward.__qualname__.split(".<locals>")[0].rsplit(".", 1)[-1].strip("_")


def record(data: np.ndarray, inputs: tuple[Tensor, ...], backward: Backward, reads: Reads | None = None) -> Tensor:
    """Wrap the result of an operation, remembering how to differentiate it if anyone will ask.

    Parameters
    ----------
    data : ndarray
        The result, floating point.
    inputs : tuple of Tensor
        The tensors it was computed from, at least one.
    backward : callable
        `backward(grad)` receives the gradient of the loss with respect to `data` and returns a sequence
        with one entry for each input: an array of that input's shape, or None where there is no gradient
        or the input does not require one. It must not modify `grad`, and each array it returns is either
        new or a view of `grad`, never one that it keeps.
    reads : callable, optional
        Which pixels of its inputs a pixel of the result is computed from, see `core.reach`: for watchers only.
        Left out where these are known by the operation's name, or unknown.

    Returns
    -------
    Tensor
        Requires grad if recording is on and any of the inputs does.
    """
    out = inputs[0].wrap(data)
    if is_recorded(inputs):
        out.attach(Node(backward, tuple(map(_edge, inputs)), out.data.shape, out.data.dtype))
    if (by := watcher.get()) is not None:
        by.operation(inputs, out, backward, reads)
    return out


def is_recorded(inputs: Iterable[Tensor]) -> bool:
    """Whether an operation on these tensors will be differentiated."""
    return _grad_enabled.get() and any(tensor.requires_grad for tensor in inputs)


def _edge(tensor: Tensor) -> Node | Tensor | None:
    """Where the gradient of this tensor goes: its node, the leaf itself, or nowhere."""
    if not tensor.requires_grad:
        return None
    return tensor.node or tensor


def run_backward(tensor: Tensor, gradient: np.ndarray, retain_graph: bool = False) -> None:
    """Add the gradient of `tensor`, weighted by `gradient`, to the `.grad` of every leaf behind it.

    A node runs when all its consumers have run (Kahn's topological order), with an explicit stack: the
    depth of the graph is bounded by memory and not by Python's recursion limit.

    Raises
    ------
    RuntimeError
        If part of the graph was freed by an earlier backward. No `.grad` has been touched then.
    """
    if tensor.node is None:
        _deliver(gradient, tensor, {}, others=(gradient,))
        return
    waiting = _count_consumers(tensor.node)
    pending = {tensor.node: gradient}
    ready = [tensor.node]
    by = watcher.get()
    while ready:
        node = ready.pop()
        inputs = node.inputs
        if by is None:
            _propagate(node, pending, retain_graph)
        else:
            by.backward(node, partial(_propagate, node, pending, retain_graph))
        for edge in inputs:
            if isinstance(edge, Node):
                waiting[edge] -= 1
                if not waiting[edge]:
                    ready.append(edge)


def _count_consumers(root: Node) -> dict[Node, int]:
    """Count, for every node that `root` depends on, the edges that lead to it."""
    counts = {root: 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.backward is None:
            raise RuntimeError(
                "backward() ran through this graph before and freed the arrays it had saved; call the first "
                "backward(retain_graph=True) to keep them, or run the forward pass again"
            )
        for edge in node.inputs:
            if isinstance(edge, Node):
                if edge not in counts:
                    stack.append(edge)
                counts[edge] = counts.get(edge, 0) + 1
    return counts


def _propagate(node: Node, pending: Pending, retain_graph: bool) -> None:
    """Run one node: its gradient leaves `pending`, those of its inputs enter."""
    grad = pending.pop(node, None)
    backward, inputs = node.backward, node.inputs
    if not retain_graph:
        node.free()
    if grad is None or backward is None:  # every consumer said None: no gradient comes this way
        return
    grads = [None if g is None else np.asarray(g) for g in backward(grad)]
    for index, (edge, g) in enumerate(zip(inputs, grads, strict=True)):
        if edge is not None and g is not None:
            siblings = [other for other in grads[:index] + grads[index + 1 :] if other is not None]
            _deliver(g, edge, pending, others=(grad, *siblings))


def _deliver(g: np.ndarray, edge: Node | Tensor, pending: Pending, others: Sequence[np.ndarray]) -> None:
    """Add `g` to what has arrived at `edge`, copying only if it may share memory with `others`."""
    if g.shape != edge.shape:
        raise RuntimeError(
            f"a backward closure returned a gradient of shape {g.shape} for an input of shape {edge.shape}; "
            "a gradient has the shape of its input: sum it over the broadcast axes"
        )
    converted = g.astype(edge.dtype, copy=False)
    fresh = converted is not g or _is_fresh(g, others)
    if isinstance(edge, Node):
        pending[edge] = _total(pending.get(edge), converted, fresh)
    elif edge.grad is None:
        edge.grad = converted if fresh else np.array(converted)
    else:
        np.add(edge.grad, converted, out=edge.grad)


def _is_fresh(array: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether nobody else can see this array. (A read-only one is a broadcast view, never dense.)"""
    return array.flags.writeable and not any(np.may_share_memory(array, other) for other in others)


def _total(before: np.ndarray | None, g: np.ndarray, fresh: bool) -> np.ndarray:
    """Sum of two gradients, written over `g` where that is ours."""
    if before is None:
        return g
    return np.add(before, g, out=g if fresh else None)
