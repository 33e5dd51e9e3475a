"""Who is told of what the library does: the one hook that summaries, profiles and drawings hang on.

Nobody, as a rule; asking costs some tens of nanoseconds. Within `watching(watcher)` the watcher is told, in the thread
that entered it, of every module that is called, every operation, every convolution, every step of a backward, and every
wait for a batch.

A watcher may ask for a rehearsal: then everything runs but the arithmetic. Arrays get their shapes and their storage,
gradients flow, and no number means anything. Storage that nobody writes to costs no time, so the rehearsal of a large
network takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Watcher:
    """Is told, and by default does nothing about it.

    Attributes
    ----------
    rehearsing : bool
        Whether arithmetic is left out.
    apart : bool
        Whether layers that could be computed in one pass are called one after the other.
    holding : bool
        Whether a rehearsal makes, beside results, the storage that algorithms hold while they work.
    """

    rehearsing = False
    apart = False
    holding = True

    def call(self, module: Any, inputs: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """A module is called with ``inputs``; must return ``run()``."""
        return run()

    def fused(self, module: Any, parts: tuple[Any, ...]) -> None:
        """``module``, called next, computes ``parts`` in the same pass: other modules, and a tensor that it adds."""

    def operation(self, inputs: tuple[Any, ...], output: Any, backward: Callable[..., Any], reads: Any) -> None:
        """A differentiable operation made a tensor from tensors; see `core.autograd.record`."""

    def convolution(self, problem: Any, direction: str, algorithm: str, itemsize: int) -> None:
        """A direction of a convolution is about to be computed; ``itemsize`` is the bytes of a number."""

    def waiting(self, loader: Any, run: Callable[[], Any]) -> Any:
        """The next batch of a data loader is asked for; must return ``run()``."""
        return run()

    def look(self, tensor: Any) -> None:
        """A number of a tensor is asked for, by an ``if`` for example; in a rehearsal it means nothing."""

    def backward(self, node: Any, run: Callable[[], Any]) -> Any:
        """A step of a backward runs: the gradients of an operation's inputs, each added to what has arrived there.

        Must return ``run()``.
        """
        return run()


watcher: ContextVar[Watcher | None] = ContextVar("tinytorch_watcher", default=None)


@contextmanager
def watching(by: Watcher) -> Iterator[None]:
    """Tell ``by`` of everything that this thread does within the block, and nobody else."""
    token = watcher.set(by)
    try:
        yield
    finally:
        watcher.reset(token)


def rehearsing() -> bool:
    """Whether arithmetic is to be left out."""
    by = watcher.get()
    return by is not None and by.rehearsing


def apart() -> bool:
    """Whether layers are to be called one after the other."""
    by = watcher.get()
    return by is not None and by.apart


def call(module: Any, inputs: tuple[Any, ...], run: Callable[[], Any], parts: tuple[Any, ...] = ()) -> Any:
    """``run()``, as the work of ``module``, and of those of ``parts`` that are not None."""
    by = watcher.get()
    if by is None:
        return run()
    if joined := tuple(part for part in parts if part is not None):
        by.fused(module, joined)
    return by.call(module, inputs, run)


def waiting(loader: Any, run: Callable[[], Any]) -> Any:
    """``run()``, as the time that a loop waits for a batch of ``loader``."""
    by = watcher.get()
    return run() if by is None else by.waiting(loader, run)
