"""What can only be seen from outside a process: compiled code kept on disk, other CPUs, and Python without a
compiler.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

STEP = """
import numpy as np
from numba.core import event
class Counter(event.Listener):
    compiled = 0
    def on_start(self, e):
        function = getattr(e.data.get("dispatcher"), "py_func", None)
        Counter.compiled += getattr(function, "__module__", "").startswith("tinytorch.")
    def on_end(self, e): pass
event.register("numba:compile", Counter())
from tinytorch import Tensor
from tinytorch.core.spatial import SimpleCNN
from tinytorch.kernels import emit
SimpleCNN()(Tensor(np.zeros((2, 3, 32, 32), np.float32))).sum().backward()
print(Counter.compiled, len(emit._kept), sum(function.cache_hits for function in emit._kept))
"""

CHECK = """
import numpy as np
from tests.conv.cases import integers, problem_of
from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch.conv import planner
from tinytorch.conv.finish import Finish
from tinytorch.kernels.target import target
print(target().name)
cases = [
    Case(1, 3, 5, (6, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    Case(2, 4, 6, (5, 6), (3, 2), (2, 1), ((0, 1), (1, 0)), (1, 2), 2),
    Case(1, 5, 19, (4, 4), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    Case(7, 3, 40, (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    Case(1, 3, 90, (2, 9), (2, 3), (1, 1), ((0, 0), (1, 1)), (1, 1)),
]
for case in cases:
    for dtype in (np.float32, np.float64) if case is cases[1] else (np.float32,):
        x, w, b, dy = integers(case, 0, dtype)
        problem = problem_of(case)
        np.testing.assert_array_equal(planner.forward(problem, x, w, Finish(b), "direct"), oracle.forward(case, x, w, b))
        np.testing.assert_array_equal(planner.input_grad(problem, dy, w, "direct"), oracle.input_grad(case, dy, w))
        np.testing.assert_array_equal(planner.weight_grad(problem, x, dy, "direct"), oracle.weight_grad(case, x, dy))
print("exact")
"""


def run(code, cache=None, **environment):
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    if cache:
        settings["NUMBA_CACHE_DIR"] = str(cache)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_second_process_compiles_nothing(tmp_path):
    first = run(STEP, tmp_path)
    compiled, tiles, loaded = map(int, first.stdout.split())
    assert compiled > 5 and tiles > loaded
    assert "compiling kernels for this CPU" in first.stderr
    second = run(STEP, tmp_path)
    assert second.stdout.split() == ["0", str(tiles), str(tiles)]
    assert second.stderr == ""


def test_tiles_are_compiled_anew_when_the_emitter_changes(tmp_path):
    code = """
from tinytorch.kernels import emit
from tinytorch.kernels.tile import tile_of
for emit.DIGEST in ("this", "that", "this"):
    tile_of.__wrapped__(1, 1, False, "f4")
print([function.cache_hits for function in emit._kept])
"""
    assert run(code, tmp_path).stdout == "[0, 0, 1]\n"


def skip_unless_this_cpu_can(environment):
    if "NUMBA_CPU_NAME" in environment and platform.machine() != "x86_64":
        pytest.skip("names an x86 CPU")


HASWELL, SSE2 = {"NUMBA_CPU_NAME": "haswell"}, {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
PYTHON = {"NUMBA_DISABLE_JIT": "1"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (HASWELL, "AVX2"),
        (SSE2, "generic 128-bit"),
        (PYTHON, ""),
        ({"NUMBA_THREADING_LAYER": "workqueue"}, ""),
        ({"NUMBA_NUM_THREADS": "1"}, ""),
        ({"NUMBA_NUM_THREADS": "5"}, ""),
    ],
)
def test_other_cpus_and_modes_are_exact(environment, name):
    skip_unless_this_cpu_can(environment)
    lines = run(CHECK, **environment).stdout.split("\n")
    assert lines[1] == "exact" and name in lines[0]


@pytest.mark.parametrize("environment", [HASWELL, SSE2, PYTHON], ids=["AVX2", "generic", "Python"])
def test_kernels_of_other_cpus_and_modes_keep_their_contract(environment):
    skip_unless_this_cpu_can(environment)
    run(
        "import pytest; raise SystemExit(pytest.main(['-k', 'is_einsum and compiled', 'tests/kernels']))", **environment
    )


EDGE = """
import ctypes, itertools, mmap
import numba, numpy as np
from tinytorch.kernels.target import target
from tinytorch.kernels.tile import numbers, tile, tile_of
from tinytorch.kernels.transform import transform, transform_of

def at_the_edge(numbers):
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    behind = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + mmap.PAGESIZE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(behind), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    array = np.frombuffer(memory, numbers.dtype, mmap.PAGESIZE // numbers.itemsize)[-numbers.size :]
    array[:] = numbers
    return array, 0

@numba.njit
def call_tile(which, operands): tile(which, *operands)

@numba.njit
def call_transform(which, operands): transform(which, *operands)

for dtype, vectors in itertools.product((np.float32, np.float64), (1, 2)):
    width = target().lanes(np.dtype(dtype).itemsize)
    for lanes in (1, width - 1, vectors * width - 1, vectors * width):
        ones = lambda count: at_the_edge(np.ones(count, dtype))
        blocks = [ones(count) for count in (2 * lanes, 2 * lanes, 2, lanes, 2 * lanes)]
        sizes = at_the_edge(np.array(numbers(c_row=lanes, d_row=lanes, a_row=1, e_row=lanes, n_o=1, n_m=1, n_i=1, n_e=1)))
        call_tile(tile_of(2, vectors, True, dtype), (*blocks, sizes, at_the_edge(np.array([0, 9], dtype)), lanes, 1))
        assert (blocks[0][0] == 3).all()
        pixel, lane, place, flag = ones(lanes), ones(lanes), at_the_edge(np.zeros(1, np.int64)), at_the_edge(np.zeros(1, dtype))
        result = ones(lanes)
        tail = (ones(lanes), lane, ones(lanes), at_the_edge(np.array([0, 9], dtype)), flag, lanes, 1)
        call_transform(transform_of(((2.0,),), True, True, dtype), (pixel, place, result, place, *tail))
        assert (result[0] == 6).all()
print("untouched")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks a page by mprotect")
@pytest.mark.parametrize("environment", [{}, HASWELL, SSE2], ids=["this CPU", "AVX2", "generic"])
def test_masked_kernels_touch_nothing_behind_their_operands(environment):
    """Each operand ends where a locked page begins; a process that touches that is ended by the system."""
    skip_unless_this_cpu_can(environment)
    assert run(EDGE, **environment).stdout == "untouched\n"


def test_workqueue_survives_two_threads_at_once():
    code = """
import threading, numpy as np
from tinytorch import Tensor, no_grad
from tinytorch.core.spatial import SimpleCNN
model, x = SimpleCNN(), Tensor(np.ones((4, 3, 32, 32), np.float32))
expected = model(x).data
def work():
    for _ in range(30):
        with no_grad():
            assert np.array_equal(model(x).data, expected)
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
print("survived")
"""
    assert run(code, NUMBA_THREADING_LAYER="workqueue").stdout == "survived\n"


def test_import_is_light():
    code = "import sys, tinytorch; print(sorted({'torch', 'matplotlib', 'typer', 'rich', 'PIL', 'pooch', 'pandas'} & set(sys.modules)))"
    assert run(code).stdout == "[]\n"


def test_without_a_place_for_the_cache_kernels_still_run():
    code = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
import numpy as np
from tinytorch import Tensor
from tinytorch.core.activations import ReLU
from tinytorch.kernels.tile import tile_of
print(ReLU()(Tensor([-1.0, 2.0])).data.tolist(), tile_of(1, 1, False, "f4") > 0)
"""
    done = run(code)
    assert done.stdout == "[0.0, 2.0] True\n"
    assert done.stderr.count("set NUMBA_CACHE_DIR to a folder that can") == 1
