"""Logs of a training run, as observers: JSON lines of the steps, CSV of the epochs, TensorBoard.

A resumed run continues its logs: what was written after the checkpoint, by a process that was killed, is dropped.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tinytorch.core.training import Observer, Step, Trainer
from tinytorch.io.files import write_atomically

EVERY = 10  # steps from one record to the next


class StepLog(Observer):
    """Collects numbers every few steps; subclasses write them.

    Parameters
    ----------
    every : int
        Steps from one record to the next; the first step of `fit` is always recorded.

    Raises
    ------
    ValueError
        If `every` is not positive.
    """

    def __init__(self, every: int = EVERY) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a positive number of steps, got {every!r}; {EVERY} is the default")
        self.every = every

    def stepped(self, trainer: Trainer, step: Step) -> None:
        """Record the step, if it is its turn."""
        if (step.step - 1) % self.every == 0:
            self.record(step, _measured(trainer, step))

    def record(self, step: Step, values: dict[str, float]) -> None:
        """Write the numbers of one step."""
        raise NotImplementedError(f"{type(self).__name__} needs record; write the values of a step somewhere")


def _measured(trainer: Trainer, step: Step) -> dict[str, float]:
    """Loss of the batch, learning rate of the first group, norm of the gradients before clipping."""
    return {
        "loss": step.loss,
        "lr": trainer.lr,
        "grad_norm": trainer.gradient_norm(),
    }


class JSONLinesLog(StepLog):
    """One JSON object every few steps in `steps.jsonl`: step, epoch, loss, lr, grad_norm (null if it overflowed).

    Parameters
    ----------
    folder : path
    every : int
        See `StepLog`.
    """

    def __init__(self, folder: Path, every: int = EVERY) -> None:
        super().__init__(every)
        self.path = folder / "steps.jsonl"

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """Keep what belongs to the steps before the checkpoint, and not half a line."""
        kept = [line for line in _lines(self.path) if _step(line) <= trainer.step]
        write_atomically(self.path, "".join(kept).encode())

    def record(self, step: Step, values: dict[str, float]) -> None:
        """Append a line; opened each time, so that nothing waits in a buffer."""
        finite = {name: value if abs(value) < float("inf") else None for name, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step.step, "epoch": step.epoch, **finite}) + "\n")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.is_file() else []


def _step(line: str) -> float:
    """The step of a line; infinite if it is none, as after a crash of the machine."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except (ValueError, TypeError, KeyError):
        return float("inf")


class CSVLog(Observer):
    """A row for each epoch in `history.csv`, for spreadsheets: the records of `Trainer.history`.

    Parameters
    ----------
    folder : path
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.csv"

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Write the whole table anew."""
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(record), restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(trainer.history)
        write_atomically(self.path, table.getvalue().encode())


class TensorBoardLog(StepLog):
    """Event files in `tensorboard/`: loss, learning rate and gradient norm by step, validation by epoch.

    Parameters
    ----------
    folder : path
    every : int
        See `StepLog`.

    Raises
    ------
    ValueError
        If tensorboardX is not installed.
    """

    def __init__(self, folder: Path, every: int = EVERY) -> None:
        super().__init__(every)
        try:
            import tensorboardX  # noqa: F401 (now, and not after the first epoch)
        except ImportError as error:
            raise ValueError(
                "the tensorboard log needs tensorboardX, which is not installed; pip install 'tinytorch[tensorboard]'"
            ) from error
        self.folder = folder / "tensorboard"

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """Open a file; TensorBoard then forgets later steps of files before it."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=trainer.step + 1, flush_secs=10)

    def record(self, step: Step, values: dict[str, float]) -> None:
        """Add the numbers under train/."""
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step.step)

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Add accuracy and validation, at the epoch's last step."""
        for name in record.keys() - {"epoch", "step", "lr", "loss"}:
            self._writer.add_scalar(f"epoch/{name}", record[name], record["step"])

    def ended(self, trainer: Trainer) -> None:
        """Write what waits in a buffer."""
        self._writer.close()


LOGS: dict[str, Callable[[Path], Observer]] = {"jsonl": JSONLinesLog, "csv": CSVLog, "tensorboard": TensorBoardLog}


def make_logs(names: list[str], folder: Path) -> list[Observer]:
    """Return the logs of these names, each once.

    Raises
    ------
    ValueError
        If a name is unknown, or the log's package is not installed.
    """
    for name in names:
        if name not in LOGS:
            near = get_close_matches(name.lower(), LOGS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"log must be one of {', '.join(LOGS)}, got {name!r}{hint}")
    return [LOGS[name](folder) for name in dict.fromkeys(names)]
