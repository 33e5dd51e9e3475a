"""A run folder: what `tinytorch train` leaves behind, and all that the other commands need.

config.json             the recipe, the seed, and what prediction must know of the data set
checkpoint.safetensors  everything that the next step depends on (to resume)
model.safetensors       the weights after the last step, the same that the checkpoint holds: the last and not
                        the best, since choosing by the test data would flatter the result
history.jsonl           one JSON object an epoch
curves.png, result.json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from tinytorch.core.layers import Module
from tinytorch.core.training import Observer, Trainer
from tinytorch.io.checkpoint import load_arrays, load_state, save_arrays, save_state
from tinytorch.io.files import write_atomically
from tinytorch.models import Recipe, create

_SAVED = ("checkpoint.safetensors", "model.safetensors", "history.jsonl")
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
    """

    dataset: str
    recipe: Recipe
    seed: int
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_dir: str | None = None

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
        }.items():
            if not holds:
                raise ValueError(f"{name} can't be {getattr(self, name)!r}")

    def build_model(self) -> Module:
        """Return the network with fresh weights."""
        return create(self.recipe.model, self.input_shape, len(self.classes))

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
        """Write checkpoint, weights and history."""
        state = trainer.state_dict()
        save_state(self.folder / "checkpoint.safetensors", state)
        save_arrays(self.folder / "model.safetensors", state["model"], {"model": self.config.recipe.model})
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
        try:
            trainer.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{path} is not a checkpoint of this run's {self.config.recipe.model}: {error}") from error

    def load_model(self) -> Module:
        """Return the trained network, in evaluation mode.

        Raises
        ------
        ValueError
            If the weights are missing, damaged, or those of another model.
        """
        path = self.folder / "model.safetensors"
        if not path.is_file():
            raise ValueError(f"{self.folder} has no weights: {path} does not exist; train it with --resume")
        model = self.config.build_model()
        arrays, _ = load_arrays(path)
        try:
            model.load_state_dict(arrays)
        except ValueError as error:
            raise ValueError(f"{path} does not hold this run's {self.config.recipe.model}: {error}") from error
        return model.eval()

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


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), int | float) for name in _RECORDED)


class RunWriter(Observer):
    """Keeps a run folder up to date while its trainer works."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def started(self, trainer: Trainer, epochs: int, batches: int) -> None:
        """Save at once: an unwritable folder shows now, and there is always a checkpoint."""
        self.run.save(trainer)

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Save after every epoch."""
        self.run.save(trainer)

    def stopped(self, trainer: Trainer) -> None:
        """Save in mid-epoch, unless the last step broke the model: then the last epoch's checkpoint stays."""
        trainer.check_finite()
        self.run.save(trainer)


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
