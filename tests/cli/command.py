"""Commands as a person runs them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from tinytorch.cli.main import app


def tinytorch(*args: object, code: int = 0):
    """Run a command; on failure the message must be one paragraph on standard error."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    if code == 2:
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    return result


def refused(*args: object) -> str:
    """What a command that fails says."""
    return tinytorch(*args, code=2).stderr


@contextmanager
def training(*arguments: object, first: Callable[[], object] = lambda: None, **options) -> Iterator[subprocess.Popen]:
    """Training in a process of its own, which ends with the block.

    What stops a program stops it, even where the tests run in the background or under nohup, and so ignore that;
    unless ``first``, which the process calls before anything else, says otherwise.
    """

    def as_in_a_terminal() -> None:
        for name in ("SIGINT", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        first()

    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "tinytorch", "train", *map(str, arguments)],
        env=environment, stdin=subprocess.DEVNULL, preexec_fn=as_in_a_terminal, **options,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_epochs(process: subprocess.Popen, folder: Path, count: int) -> None:
    """Return when so many epochs are in the history of the folder."""
    deadline, history = time.monotonic() + 250, folder / "history.jsonl"
    while not history.exists() or len(history.read_text().splitlines()) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
