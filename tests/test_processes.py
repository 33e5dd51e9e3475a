"""What can only be seen from outside a process: compiled code kept on disk, other CPUs, and Python without a
compiler.
"""

import os
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
SimpleCNN()(Tensor(np.zeros((2, 3, 32, 32), np.float32))).sum().backward()
print("compiled", Counter.compiled)
"""

CHECK = """
import numpy as np
from tests.conv.cases import integers, problem_of
from tests.oracle import convolution as oracle
from tests.oracle.convolution import Case
from tinytorch.conv import planner
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
        np.testing.assert_array_equal(planner.forward(problem, x, w, b, "direct"), oracle.forward(case, x, w, b))
        np.testing.assert_array_equal(planner.input_grad(problem, dy, w, "direct"), oracle.input_grad(case, dy, w))
        np.testing.assert_array_equal(planner.weight_grad(problem, x, dy, "direct"), oracle.weight_grad(case, x, dy))
print("exact")
"""


def run(code, cache=None, **environment):
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    if cache:
        settings["NUMBA_CACHE_DIR"] = str(cache)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_a_second_process_compiles_nothing(tmp_path):
    first = run(STEP, tmp_path)
    assert int(first.stdout.split()[-1]) > 5
    assert "compiling kernels for this CPU" in first.stderr
    second = run(STEP, tmp_path)
    assert second.stdout.split()[-1] == "0"
    assert second.stderr == ""


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"NUMBA_CPU_NAME": "haswell"}, "AVX2"),
        ({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}, "generic 128-bit"),
        ({"NUMBA_DISABLE_JIT": "1"}, ""),
        ({"NUMBA_THREADING_LAYER": "workqueue"}, ""),
        ({"NUMBA_NUM_THREADS": "1"}, ""),
        ({"NUMBA_NUM_THREADS": "5"}, ""),
    ],
)
def test_other_cpus_and_modes_are_exact(environment, name):
    import platform

    if "NUMBA_CPU_NAME" in environment and platform.machine() != "x86_64":
        pytest.skip("names an x86 CPU")
    lines = run(CHECK, **environment).stdout.split("\n")
    assert lines[1] == "exact" and name in lines[0]


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
print(ReLU()(Tensor([-1.0, 2.0])).data.tolist())
"""
    done = run(code)
    assert done.stdout == "[0.0, 2.0]\n"
    assert "set NUMBA_CACHE_DIR to a folder that can" in done.stderr
