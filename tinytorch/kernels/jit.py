"""How every compiled function of the library is compiled and called: the options, in one place.

``serial`` and ``parallel`` are the only decorators that the kernels use. Both release the GIL (a prefetch thread
keeps running), keep the compiled code on disk (a second process starts without compiling) and follow IEEE arithmetic
as written: no ``fastmath``, so that a reduction has one order and the same inputs give the same bits.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from typing import Any

import numba
import numpy as np
from numba.core import event

from tinytorch.kernels.watch import rehearsing

logger = logging.getLogger("tinytorch")

# How often a thread of GNU's OpenMP looks for new work before it sleeps. The default of 300,000 looks lasts
# milliseconds and takes the CPU from whoever shares it: two training runs side by side on two cores then slow each
# other down by ten and more. A few thousand bridge the time between two kernels just as well. Read when the library
# is loaded, so set before that.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_ENTRY_OPTIONS: dict[str, Any] = {"nopython": True, "error_model": "numpy"}
_one_at_a_time = threading.RLock()


def interpreted() -> bool:
    """Whether Numba is told to leave every function in plain Python (``NUMBA_DISABLE_JIT``)."""
    return bool(vars(numba.config)["DISABLE_JIT"])


def planned(maxsize: int) -> Callable[[Callable[..., Any]], Any]:
    """``functools.lru_cache`` for what holds addresses of compiled code.

    In a rehearsal nothing is compiled, so what is made there is kept apart from what is called.
    """

    def decorated(function: Callable[..., Any]) -> Any:
        kept = lru_cache(maxsize)(lambda rehearsal, *args, **options: function(*args, **options))

        @wraps(function)
        def looked_up(*args: Any, **options: Any) -> Any:
            return kept(rehearsing(), *args, **options)

        looked_up.cache_clear = kept.cache_clear  # type: ignore[attr-defined]
        return looked_up

    return decorated


def compiles() -> bool:
    """Whether code is compiled: not where it stays plain Python, nor in a rehearsal."""
    return not interpreted() and not rehearsing()


def serial(function: Callable[..., Any]) -> Any:
    """Compile ``function`` for one thread."""
    return _compiled(function)


def parallel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` whose ``prange`` loops are shared among ``workers()`` threads; call it through `run`."""
    return _compiled(function, parallel=True)


def entry(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function at once, for compiled code to call by its ``address``."""

    def decorated(function: Callable[..., Any]) -> Any:
        return _kept_on_disk(lambda **cache: numba.cfunc(signature, **_ENTRY_OPTIONS, **cache)(function))

    return decorated


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """The function as Numba will compile it at its first call."""
    return _kept_on_disk(lambda **cache: numba.njit(**_OPTIONS, **options, **cache)(function))


def _kept_on_disk(compiled: Callable[..., Any]) -> Any:
    """What ``compiled`` makes, its code kept on disk if there is a place."""
    try:
        return compiled(cache=True)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        _say_no_cache()
        return compiled()


@cache
def _say_no_cache() -> None:
    logger.warning(
        "tinytorch: compiled kernels can't be kept, so every start compiles them again: neither the package's folder "
        "nor the user's cache folder can be written; set NUMBA_CACHE_DIR to a folder that can"
    )


def set_num_threads(count: int) -> None:
    """Let kernels use this many threads from now on, whichever Python thread calls them.

    Parameters
    ----------
    count : int
        From 1 to the number that the process started with: ``NUMBA_NUM_THREADS``, or the cores it may use.
        ``OMP_NUM_THREADS`` in the environment does the same at the start.

    Raises
    ------
    ValueError
        If it is less or more.
    """
    global _wanted
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST:
        raise ValueError(
            f"count must be a whole number of threads from 1 to {_MOST}, got {count!r}; to allow more, set "
            "NUMBA_NUM_THREADS in the environment before Python starts"
        )
    _wanted = count


def workers() -> int:
    """Threads that a parallel kernel uses."""
    if _here.count != _wanted:  # Numba keeps the number for each Python thread
        numba.set_num_threads(_wanted)
        _here.count = _wanted
    return _wanted


def _from_environment() -> int:
    """What ``OMP_NUM_THREADS`` asks for, which Numba's thread pool does not look at; its first number, if a list."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if "NUMBA_NUM_THREADS" in os.environ or not asked.isdigit():
        return _MOST
    return min(max(int(asked), 1), _MOST)


class _Here(threading.local):
    """What the calling Python thread has told Numba."""

    count = 0


_MOST: int = vars(numba.config)["NUMBA_NUM_THREADS"]
_wanted = _from_environment()
_here = _Here()


def run(kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Call a parallel kernel, safely from any Python thread.

    OpenMP and TBB let several Python threads enter at once. Numba's own ``workqueue`` layer ends the process when two
    do, so there the calls take turns. In a rehearsal it is not called.
    """
    if rehearsing():
        return None
    workers()
    if _is_reentrant():
        return kernel(*arguments)
    with _one_at_a_time:
        return kernel(*arguments)


def table_of(**fields: int) -> np.ndarray:
    """One row of named integers, as compiled code reads them: ``table[0].name``."""
    return np.array([tuple(fields.values())], dtype=(np.record, [(name, np.int64) for name in fields]))


_reentrant = False


def _is_reentrant() -> bool:
    global _reentrant
    if not _reentrant:
        try:
            _reentrant = numba.threading_layer() in ("omp", "tbb")
        except ValueError:  # the layer is chosen by the first parallel call, which must therefore run alone
            return False
    return _reentrant


class _Announcer(event.Listener):
    """Says what is going on when a kernel of ours takes more than a second to compile."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def on_start(self, event: event.Event) -> None:
        if self._timer is None and _is_ours(event):
            self._timer = threading.Timer(1.0, self._say)
            self._timer.daemon = True
            self._timer.start()

    def on_end(self, event: event.Event) -> None:
        """Leave the timer: one kernel compiles in less than a second, but a first forward compiles several."""

    def _say(self) -> None:
        logger.warning("tinytorch: compiling kernels for this CPU, once; they are kept on disk for the next run …")


def _is_ours(event: event.Event) -> bool:
    function = getattr(event.data.get("dispatcher"), "py_func", None)
    return getattr(function, "__module__", "").startswith("tinytorch.")


event.register("numba:compile", _Announcer())
