"""A run folder: what `tinytorch train` leaves behind, and all that the other commands need.

config.json             the recipe, the seed, and what prediction must know of the data set
checkpoint.safetensors  everything that the next step depends on (to resume)
model.safetensors       the weights after the last step, or their average if the recipe keeps one: the last and not
                        the best, since choosing by the test data would flatter the result
best.safetensors        the weights after the epoch with the highest validation accuracy, for those who want them
history.jsonl           one JSON object an epoch
curves.png, confusion.png, misclassified.png
result.json             written last: a run that has it, for as many epochs as its history, is finished

Each file is replaced as a whole, the checkpoint first. A process that is killed between two of them leaves the others
behind the checkpoint, and resuming writes them anew from it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from tinytorch.core.layers import Module
from tinytorch.core.stopping import BETTER, best_record
from tinytorch.core.training import Observer, Step, Trainer
from tinytorch.io.checkpoint import load_arrays, load_state, save_arrays, save_state
from tinytorch.io.files import sweep, write_atomically
from tinytorch.recipes import Recipe
from tinytorch.recipes.build import network

try:
    import fcntl
except ImportError:  # Windows: two processes in one run folder are not noticed there
    fcntl = None  # type: ignore[assignment]

_SAVED = ("checkpoint.safetensors", "model.safetensors", "best.safetensors", "history.jsonl")
_LEFTOVER = ".config.json."  # how the temporary file begins that a process killed while writing leaves behind
_RECORDED = ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds", "images")


@dataclass(frozen=True)
class RunConfig:
    """What a run is: written once, when it begins.

    Attributes
    ----------
    dataset : str
    recipe : Recipe
    seed : int
    input_shape : (channels, height, width)
    classes : tuple of str
    mean, std : tuple of float
        Of each channel of the training images, on the scale 0 to 1.
    data_dir : str or None
        Where the data set was found.
    data_digest : str
        Of the data that the run began with; "" is not compared.
    skip_corrupt : bool
        Whether damaged pictures of an image folder are left out.
    patience : int or None
        Epochs without a new best that end the run; see `EarlyStopping`.
    weights : str or None
        The file whose weights the run began with.
    freeze : tuple of str
        Patterns of the parameters that are not trained; see `tinytorch.core.finetune.freeze`.
    layer_decay : float or None
        Factor on the learning rate from each block to the one before it; see `finetune.parameter_groups`.
    """

    dataset: str
    recipe: Recipe
    seed: int
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_dir: str | None = None
    data_digest: str = ""
    skip_corrupt: bool = False
    patience: int | None = None
    weights: str | None = None
    freeze: tuple[str, ...] = ()
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        shape, channels = self.input_shape, len(self.mean) if isinstance(self.mean, tuple) else 0
        for name, holds in {
            "dataset": isinstance(self.dataset, str),
            "seed": isinstance(self.seed, int) and self.seed >= 0,
            "input_shape": _all(shape, int) and len(shape) == 3 and min(shape) > 0,
            "classes": _all(self.classes, str),
            "mean": _all(self.mean, float) and all(map(isfinite, self.mean)) and shape[:1] == (channels,),
            "std": _all(self.std, float) and len(self.std) == channels and all(0 < x < float("inf") for x in self.std),
            "data_dir": isinstance(self.data_dir, str | None),
            "data_digest": isinstance(self.data_digest, str),
            "skip_corrupt": isinstance(self.skip_corrupt, bool),
            "patience": self.patience is None or (type(self.patience) is int and self.patience > 0),
            "weights": isinstance(self.weights, str | None),
            "freeze": self.freeze == () or _all(self.freeze, str),
            "layer_decay": self.layer_decay is None
            or (isinstance(self.layer_decay, int | float) and 0 < self.layer_decay <= 1),
        }.items():
            if not holds:
                raise ValueError(f"{name} can't be {getattr(self, name)!r}")

    @property
    def title(self) -> str:
        """What to call the data set in a title: its name, of a folder the last part of it."""
        return Path(self.dataset).name

    @property
    def judged_by(self) -> str:
        """What the images are called by which epochs are judged."""
        return "validation" if self.recipe.validation else "test"

    def build_model(self) -> Module:
        """Return the network with fresh weights."""
        return network(self.recipe, self.input_shape, len(self.classes))

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Parse what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict) or not isinstance(fields.get("recipe"), dict):
                raise ValueError("recipe is missing")
            recipe = Recipe(**fields.pop("recipe"))
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return cls(recipe=recipe, **values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"it does not describe a run ({error})") from error

    def to_json(self) -> str:
        """Return the config as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, tuple) and len(values) > 0 and all(isinstance(value, kind) for value in values)


class Run:
    """One run folder.

    Parameters
    ----------
    folder : path
        Use `Run.create` or `Run.open`.
    config : RunConfig
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def create(cls, folder: Path, config: RunConfig) -> Run:
        """Make the folder and write the config.

        Raises
        ------
        ValueError
            If the folder has something in it, or can't be made.
        """
        config.to_json()  # what can't be written down shows before there is a folder
        try:
            if folder.is_dir() and any(not path.name.startswith(_LEFTOVER) for path in folder.iterdir()):
                raise ValueError(
                    f"{folder} is not empty and never overwritten; continue its run with --resume or choose "
                    "another folder with --out"
                )
            folder.mkdir(parents=True, exist_ok=True)
            run = cls(folder, config)
            run.save_config()
        except OSError as error:
            raise ValueError(
                f"the run folder {folder} can't be written ({error.strerror}); choose one you may write to with --out"
            ) from error
        return run

    @classmethod
    def create_next(cls, stem: Path, config: RunConfig) -> Run:
        """Make the next of the numbered folders `stem`-1, `stem`-2, …; processes that begin at once get one each."""
        while True:
            folder = next_folder(stem)
            with contextlib.suppress(FileExistsError):  # another process was faster
                folder.mkdir(parents=True)
                return cls.create(folder, config)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open an existing run.

        Raises
        ------
        ValueError
            If the folder holds no run, or its config.json can't be understood.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(
                f"{folder} holds no run: there is no {path}; make one with `tinytorch train --out {folder}`"
            )
        try:
            return cls(folder, RunConfig.from_json(path.read_text()))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} can't be used: {error}; restore it from a copy") from error

    def is_untouched(self) -> bool:
        """Whether there is only the config: the process died before its first checkpoint, so nothing is to lose."""
        return not any((self.folder / name).exists() for name in _SAVED)

    # ---- what is in it -------------------------------------------------------------------------------

    def save_config(self) -> None:
        """Write the config."""
        write_atomically(self.folder / "config.json", self.config.to_json().encode())

    def save(self, trainer: Trainer) -> None:
        """Write checkpoint, weights and history; and the best weights, if they are those of the epoch just ended."""
        state, weights = trainer.state_dict(), trainer.weights()
        save_state(self.folder / "checkpoint.safetensors", {**state, "recipe": self._recipe()})
        best = best_record(trainer.history)
        if trainer.batch == 0 and best is not None and best is trainer.history[-1]:
            epoch = {"model": self.config.recipe.model, "epoch": str(best["epoch"]), BETTER: str(best[BETTER])}
            save_arrays(self.folder / "best.safetensors", weights, epoch)
        save_arrays(self.folder / "model.safetensors", weights, {"model": self.config.recipe.model})
        lines = (json.dumps(record, allow_nan=False) + "\n" for record in trainer.history)
        write_atomically(self.folder / "history.jsonl", "".join(lines).encode())

    def restore(self, trainer: Trainer) -> None:
        """Bring a trainer to where the checkpoint was made.

        Raises
        ------
        ValueError
            If the checkpoint is missing, damaged, or that of another model.
        """
        path = self.folder / "checkpoint.safetensors"
        if not path.is_file():
            raise ValueError(f"there is nothing to resume: {path} does not exist; start a new run with another --out")
        state = load_state(path)
        self._check_recipe(state.get("recipe", {}))
        try:
            trainer.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{path} is not a checkpoint of this run's {self.config.recipe.model}: {error}") from error

    def _recipe(self) -> dict[str, Any]:
        """The recipe as JSON has it, without the one setting that may change."""
        return {name: value for name, value in json.loads(self.config.to_json())["recipe"].items() if name != "epochs"}

    def _check_recipe(self, saved: dict[str, Any]) -> None:
        for name, value in self._recipe().items():
            if name in saved and saved[name] != value:
                raise ValueError(
                    f"{self.folder / 'config.json'} is not that of the checkpoint: {name} is {value}, and was "
                    f"{saved[name]}; restore what was changed, or start a new run in another --out"
                )

    def load_model(self, best: bool = False) -> Module:
        """Return the trained network, in evaluation mode.

        Parameters
        ----------
        best : bool
            With the weights of the epoch with the highest validation accuracy, not those after the last step.

        Raises
        ------
        ValueError
            If the weights are missing, damaged, or those of another model.
        """
        path = self.folder / ("best.safetensors" if best else "model.safetensors")
        if not path.is_file():
            raise ValueError(f"{self.folder} has no weights: {path} does not exist; train it with --resume")
        model = self.config.build_model()
        arrays, _ = load_arrays(path)
        try:
            model.load_state_dict(arrays)
        except ValueError as error:
            raise ValueError(f"{path} does not hold this run's {self.config.recipe.model}: {error}") from error
        return model.eval()

    def save_result(self, result: dict[str, Any]) -> None:
        """Write what the finished run reached."""
        write_atomically(self.folder / "result.json", (json.dumps(result, indent=2) + "\n").encode())

    def is_finished(self, epochs: int) -> bool:
        """Whether the result of exactly so many epochs was written."""
        try:
            return json.loads((self.folder / "result.json").read_text())["epochs"] == epochs
        except (OSError, ValueError, KeyError, TypeError):  # none, or none that tells
            return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; the system lets go when the process ends, however it does.

        Raises
        ------
        ValueError
            If another process has the folder.
        """
        if fcntl is None:
            yield
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            if not _lock(handle):
                raise ValueError(
                    f"another process is training in {self.folder}; wait until it ends, or start a new run in "
                    "another --out"
                )
            yield
        finally:
            os.close(handle)

    def history(self) -> list[dict[str, Any]]:
        """Return one record an epoch; none if no epoch is complete.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        path = self.folder / "history.jsonl"
        if not path.is_file():
            return []
        try:
            records = [json.loads(line) for line in path.read_text().splitlines()]
            if not all(map(_is_record, records)):
                raise ValueError("an epoch's record is incomplete")
            return records
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); --resume writes it anew from the checkpoint") from error


def _lock(handle: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), int | float) for name in _RECORDED)


class RunWriter(Observer):
    """Keeps a run folder up to date while its trainer works.

    Parameters
    ----------
    run : Run
        Locked, see `Run.locked`.
    every_seconds : float
        Within a long epoch a checkpoint is made this often: the most that a killed process loses.
    """

    def __init__(self, run: Run, every_seconds: float = 300.0) -> None:
        self.run = run
        self.every_seconds = every_seconds
        self._saved = 0.0

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """Save at once: an unwritable folder shows now, and there is always a checkpoint."""
        sweep(self.run.folder)
        self._save(trainer)

    def stepped(self, trainer: Trainer, step: Step) -> None:
        """Save in mid-epoch if the last time is long ago."""
        if monotonic() - self._saved >= self.every_seconds:
            trainer.check_finite()
            self._save(trainer)

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Save after every epoch."""
        self._save(trainer)

    def stopped(self, trainer: Trainer) -> None:
        """Save in mid-epoch, unless the last step broke the model: then the last checkpoint stays."""
        trainer.check_finite()
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self.run.save(trainer)
        self._saved = monotonic()


# ---- the index ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSummary:
    """One line of the index of runs.

    Attributes
    ----------
    folder : str
    state : {"training", "finished", "stopped", "damaged"}
        Stopped is what `--resume` continues.
    dataset, model : str
        "" if the run is damaged.
    epochs, epochs_wanted : int
        Complete epochs, and those of its recipe.
    accuracy, best_accuracy : float or None
        After the last epoch, and after the best, of the images by which epochs are judged.
    train_seconds : float
    problem : str
        What is damaged.
    """

    folder: str
    state: str
    dataset: str = ""
    model: str = ""
    epochs: int = 0
    epochs_wanted: int = 0
    accuracy: float | None = None
    best_accuracy: float | None = None
    train_seconds: float = 0.0
    problem: str = ""


def summaries(folder: Path) -> list[RunSummary]:
    """Summarize all runs in a folder and below, the oldest first; a damaged one does not hide the others."""
    configs = sorted(folder.rglob("config.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    return [_summary(path.parent) for path in configs]


def _summary(folder: Path) -> RunSummary:
    try:
        run = Run.open(folder)
        history = run.history()
    except ValueError as error:
        return RunSummary(str(folder), "damaged", problem=str(error))
    best = best_record(history)
    return RunSummary(
        str(folder),
        _state(run, len(history)),
        run.config.title,
        run.config.recipe.model,
        len(history),
        run.config.recipe.epochs,
        history[-1][BETTER] if history else None,
        best[BETTER] if best else None,
        sum(record["seconds"] for record in history),
    )


def _state(run: Run, epochs: int) -> str:
    try:
        with run.locked():
            return "finished" if run.is_finished(epochs) else "stopped"
    except ValueError:
        return "training"


# ---- numbered folders -----------------------------------------------------------------------------------------------


def numbered_folders(stem: Path) -> list[Path]:
    """Return the existing folders `stem`-1, `stem`-2, …, in the order of their numbers."""
    prefix = f"{stem.name}-"
    suffixes = {path: path.name.removeprefix(prefix) for path in stem.parent.glob(f"{prefix}*")}
    return sorted((path for path, text in suffixes.items() if text.isdecimal()), key=lambda path: int(suffixes[path]))


def next_folder(stem: Path) -> Path:
    """Return the folder after the last numbered one."""
    existing = numbered_folders(stem)
    number = int(existing[-1].name.rsplit("-", 1)[1]) + 1 if existing else 1
    return stem.with_name(f"{stem.name}-{number}")
