"""How many threads the kernels use, from every Python thread."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import tinytorch
from tinytorch.conv import planner
from tinytorch.conv.problem import ConvProblem
from tinytorch.kernels import jit

MOST = jit._MOST


@pytest.fixture(autouse=True)
def as_before():
    before = tinytorch.get_num_threads()
    yield
    tinytorch.set_num_threads(before)


def test_number_holds_for_every_python_thread():
    seen = []
    tinytorch.set_num_threads(1)
    thread = threading.Thread(target=lambda: seen.append(tinytorch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [1] and tinytorch.get_num_threads() == 1
    tinytorch.set_num_threads(MOST)
    assert tinytorch.get_num_threads() == MOST


@pytest.mark.parametrize("count", [0, -1, MOST + 1, 1.0, True, "2"])
def test_a_number_that_cannot_be_is_refused(count):
    with pytest.raises(ValueError, match=f"whole number of threads from 1 to {MOST}, got {count!r}; to allow more"):
        tinytorch.set_num_threads(count)


def test_results_are_exact_from_several_python_threads_at_once():
    problem = ConvProblem.parse("mb3ic5oc9_ih12kh3ph1")
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-3, 4, s).astype(np.float32) for s in (problem.input_shape, problem.weight_shape))
    expected = planner.forward(problem, x, w, algorithm="direct")
    results = []
    work = lambda: results.extend(planner.forward(problem, x, w, algorithm="direct") for _ in range(20))  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80 and all((y == expected).all() for y in results)


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1,4"}, 1),
        ({"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}, 2),
    ],
)
def test_environment_is_honoured(environment, threads):
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    code = "import tinytorch; print(tinytorch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == [str(threads)], done.stderr
