"""What a person sees while a model trains: a line for each epoch, and in a terminal a live one below."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tinytorch.cli.console import duration, percent
from tinytorch.core.training import Observer, Step, Trainer

_NAMES = ("epoch", "loss", "accuracy", "{} loss", "{} acc.", "images/s", "time")
_WIDTHS = (7, 9, 10, 11, 11, 10, 12)
_NARROW = (0, 1, 4, 6)  # what fits 40 columns: epoch, loss, test accuracy, time
_LEAST_BAR = 5  # columns; a shorter bar says nothing
_REFRESH_SECONDS = 0.2  # drawing costs milliseconds, a training step may take fewer


class Progress(Observer):
    """Prints the events of a training run.

    Without a terminal there are only the plain lines, no control characters.

    Parameters
    ----------
    console : rich.console.Console
    batch_size : int
        Images in a step, for the speed that the live line shows.
    judged : str
        What the images that an epoch is judged by are called.
    """

    def __init__(self, console: Console, batch_size: int, judged: str = "test") -> None:
        short = judged if len(judged) < 5 else f"{judged[:3]}."
        self._names = tuple(name.format(short) for name in _NAMES)
        self._console = console
        self._batch_size = batch_size
        live = Live(console=console, auto_refresh=False, transient=True)
        self._live = live if console.is_terminal else None
        self._epochs = self._batches = self._first_step = 0
        self._begin = self._drawn = 0.0

    def close(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """Print the header, and on resuming the epochs that were done before."""
        self._epochs, self._batches = epochs, batches
        self._console.print(self._row(self._names), style="dim")
        for record in trainer.history:
            self._print_epoch(record)
        if self._live is not None:
            self._live.start()

    def stepped(self, trainer: Trainer, step: Step) -> None:
        """Redraw the live line, a few times a second; the first step, which may compile, does not count."""
        now = perf_counter()
        if not self._begin:
            self._begin, self._first_step = now, step.step
            return
        if self._live is not None and now - self._drawn > _REFRESH_SECONDS:
            self._drawn = now
            self._live.update(self._line(step, now - self._begin), refresh=True)

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Print the epoch's line."""
        self._print_epoch(record)

    def _print_epoch(self, record: dict[str, Any]) -> None:
        cells = (
            f"{record['epoch']}/{self._epochs}",
            f"{record['loss']:.4f}",
            percent(record["accuracy"]),
            f"{record['validation_loss']:.4f}",
            percent(record["validation_accuracy"]),
            f"{record['images'] / record['seconds']:,.0f}",
            duration(record["seconds"]),
        )
        self._console.print(self._row(cells))

    def _row(self, cells: tuple[str, ...]) -> str:
        shown = range(len(cells)) if self._console.width >= sum(_WIDTHS) else _NARROW
        return "".join(cells[i].rjust(_WIDTHS[i]) for i in shown)

    def _line(self, step: Step, seconds: float) -> Table:
        """The live line: a bar over the whole run, the epoch's averages so far, speed and time left."""
        done, total = step.step, self._epochs * self._batches
        steps_per_second = (done - self._first_step) / seconds
        cells = [
            f" epoch {step.epoch}/{self._epochs}",
            f"loss {step.averages['loss']:.4f}",
            f"{duration((total - done) / steps_per_second)} left",
            f"accuracy {percent(step.averages['accuracy'])}",
            f"{steps_per_second * self._batch_size:,.0f} images/s",
        ]
        while len(cells) > 3 and self._room(cells) < 0:
            cells.pop()
        if self._room(cells) < 0:
            cells[0] = cells[0].replace("epoch ", "")
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=total, completed=done, width=min(24, self._room(cells) - 2))
        line.add_row(*cells[:1], *([bar] if bar.width and bar.width >= _LEAST_BAR else []), *cells[1:])
        return line

    def _room(self, cells: list[str]) -> int:
        """Columns that are left in the line."""
        return self._console.width - sum(map(len, cells)) - 2 * (len(cells) - 1)
