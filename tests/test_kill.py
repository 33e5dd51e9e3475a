"""A run that is killed, at any moment and any number of times, ends with the bits of one that was never disturbed.

A process that has loaded everything forks a child for each attempt: starting Python anew would take most of the time.
Moments are measured in the child's own processor time, which does not depend on what else the machine does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinytorch.io.checkpoint import load_state

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

NURSERY = """
import json, os, random, signal, sys, threading, time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tinytorch.cli.main import app

def train(folder):
    resume = ["--resume"] if (folder / "config.json").exists() else []
    options = "--epochs 3 --batch-size 125 --log jsonl --log csv".split()
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        return app(["train", "digits", *options, "--out", str(folder), *resume], standalone_mode=False)

def attempt(folder, before=lambda: None):
    child = os.fork()
    if child == 0:
        try:
            before()
            os._exit(train(folder) or 0)
        finally:
            os._exit(99)
    return child

def finish(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

train(Path("loads everything"))
begin = time.process_time()
train(Path("whole"))
seconds = time.process_time() - begin
"""

AT_RANDOM_MOMENTS = """
def killed_after(seconds):
    def wait():
        while time.process_time() < seconds: time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    return threading.Thread(target=wait, daemon=True).start

random.seed(6)
killed, runs = 0, []
while killed < 20:
    folder = Path(f"run-{len(runs)}")
    code = finish(attempt(folder, killed_after(random.uniform(0, 0.8) * seconds)))
    assert code in (0, -signal.SIGKILL), code
    killed += code != 0
    if code == 0:
        runs.append(folder.name)
folder = Path(f"run-{len(runs)}")
assert finish(attempt(folder)) in (0, 2)  # 2: it was killed when everything was written
runs.append(folder.name)
print(json.dumps({"killed": killed, "runs": runs}))
"""

AROUND_EVERY_WRITE = """
def killed_at(moment):
    def arm():
        count, replace = [0], Path.replace
        def die(*arguments):
            count[0] += 1
            if count[0] == moment: os.kill(os.getpid(), signal.SIGKILL)  # the file is written, and not in its place
            replace(*arguments)
            count[0] += 1
            if count[0] == moment: os.kill(os.getpid(), signal.SIGKILL)
        Path.replace = die
    return arm

moment, runs = 1, []
while True:
    folder = Path(f"run-{moment}")
    code = finish(attempt(folder, killed_at(moment)))
    if code == 0: break
    assert code == -signal.SIGKILL, code
    assert finish(attempt(folder)) in (0, 2)
    runs.append(folder.name)
    moment += STRIDE
print(json.dumps({"killed": len(runs), "runs": runs}))
"""


def nurse(script: str, folder: Path) -> dict:
    environment = {
        **os.environ,
        "NUMBA_THREADING_LAYER": "workqueue",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", NURSERY + script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_like_undisturbed(folder: Path, whole: Path) -> None:
    """The same files with the same content, but for the seconds."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}  # and no leftovers
    for name in ("model.safetensors", "best.safetensors", "steps.jsonl", "confusion.png", "misclassified.png"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), (folder.name, name)
    own, other = (load_state(path / "checkpoint.safetensors") for path in (folder, whole))
    for part in ("model", "optimizer", "random", "epoch", "batch", "step"):
        np.testing.assert_equal(own[part], other[part])
    histories = ([{**r, "seconds": 0, "waiting": 0} for r in state["history"]] for state in (own, other))
    assert next(histories) == next(histories)


def test_killed_twenty_times_at_random_moments(tmp_path):
    told = nurse(AT_RANDOM_MOMENTS, tmp_path)
    assert told["killed"] == 20
    for name in told["runs"]:
        check_like_undisturbed(tmp_path / name, tmp_path / "whole")


def test_killed_before_and_after_files_are_put_in_their_place(tmp_path):
    told = nurse(AROUND_EVERY_WRITE.replace("STRIDE", "9"), tmp_path)
    assert told["killed"] >= 5
    for name in told["runs"]:
        check_like_undisturbed(tmp_path / name, tmp_path / "whole")
