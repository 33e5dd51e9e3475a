"""Run folders: the best weights, checkpoints within an epoch, one process at a time, and the index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinytorch.cli import session
from tinytorch.core.training import Observer
from tinytorch.datasets import load
from tinytorch.io import run as module
from tinytorch.io.checkpoint import load_arrays, load_state
from tinytorch.io.files import sweep
from tinytorch.io.run import Run, RunWriter, summaries
from tinytorch.recipes import Recipe


@pytest.fixture
def run(tmp_path) -> Run:
    recipe = Recipe("mlp", epochs=3, batch_size=500, schedule="constant")
    return Run.create(tmp_path / "run", session.describe(load("digits"), recipe, 0, None))


def begin(run: Run):
    loader = session.train_loader(run.config, load("digits"))
    return session.make_trainer(run.config, load("digits"), len(loader)), loader


class Scores(Observer):
    """Puts chosen accuracies into the history, and keeps the weights of each epoch."""

    def __init__(self, *values: float) -> None:
        self.values = values
        self.weights: list[dict] = []

    def epoch_ended(self, trainer, record):
        record |= {"validation_accuracy": self.values[record["epoch"] - 1], "validation_loss": 1.0}
        self.weights.append(trainer.model.state_dict())


def test_the_best_weights_are_those_of_the_first_best_epoch(run):
    trainer, loader = begin(run)
    scores = Scores(0.5, 0.8, 0.8)
    trainer.fit(loader, epochs=3, observers=[scores, RunWriter(run)])
    arrays, metadata = load_arrays(run.folder / "best.safetensors")
    np.testing.assert_equal(arrays, scores.weights[1])
    assert metadata == {"model": "mlp", "epoch": "2", "validation_accuracy": "0.8"}
    np.testing.assert_equal(run.load_model(best=True).state_dict(), scores.weights[1])
    np.testing.assert_equal(run.load_model().state_dict(), scores.weights[2])


def test_a_killed_process_that_did_not_write_the_best_leaves_it_to_the_next(run):
    trainer, loader = begin(run)
    scores = Scores(0.5, 0.8)
    trainer.fit(loader, epochs=2, observers=[scores, RunWriter(run)])
    (run.folder / "best.safetensors").unlink()
    resumed, _ = begin(run)
    run.restore(resumed)
    RunWriter(run).started(resumed, 3, 3)
    np.testing.assert_equal(run.load_model(best=True).state_dict(), scores.weights[1])


def test_without_a_validated_epoch_there_is_no_best(run):
    trainer, loader = begin(run)
    trainer.fit(loader, epochs=1, observers=[RunWriter(run)])
    assert run.load_model()
    with pytest.raises(ValueError, match=r"has no weights: .*best.safetensors does not exist; train it with --resume"):
        run.load_model(best=True)


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_checkpoints_within_an_epoch_continue_to_the_same_bits(run, batches):
    """Three batches make an epoch; the process dies after one of them."""

    class Died(Exception):
        pass

    class Dies(Observer):
        def stepped(self, trainer, step):
            if step.step == 3 + batches:
                raise Died

    trainer, loader = begin(run)
    with pytest.raises(Died):
        trainer.fit(loader, epochs=3, observers=[RunWriter(run, every_seconds=0), Dies()])
    resumed, loader = begin(run)
    run.restore(resumed)
    assert (resumed.epoch, resumed.batch) == (1, batches)
    whole, other_loader = begin(run)
    resumed.fit(loader, epochs=3)
    whole.fit(other_loader, epochs=3)
    np.testing.assert_equal(resumed.state_dict()["model"], whole.state_dict()["model"])
    assert [r["loss"] for r in resumed.history] == [r["loss"] for r in whole.history]


def test_no_checkpoint_within_an_epoch_before_its_time(run):
    trainer, loader = begin(run)
    seen = []

    class Look(Observer):
        def stepped(self, trainer, step):
            seen.append(load_state(run.folder / "checkpoint.safetensors")["step"])

    trainer.fit(loader, epochs=1, observers=[RunWriter(run, every_seconds=1e9), Look()])
    assert seen == [0, 0, 0]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders")
def test_a_folder_has_one_process_at_a_time(run):
    code = f"""
from pathlib import Path
from tinytorch.io.run import Run
with Run.open(Path({str(run.folder)!r})).locked():
    print("has it", flush=True)
    input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as other:
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(ValueError, match="another process is training in /"), run.locked():
            pass
        assert summaries(run.folder)[0].state == "training"
        other.kill()
    with run.locked():  # the system let go
        pass


def test_an_error_under_the_lock_is_passed_on(run):
    with pytest.raises(BlockingIOError), run.locked():
        raise BlockingIOError
    with run.locked():
        pass


def test_two_processes_that_begin_at_once_get_a_folder_each(run, tmp_path, monkeypatch):
    seen = iter([tmp_path / "a-1", tmp_path / "a-1", tmp_path / "a-2"])  # both saw that there was none
    monkeypatch.setattr(module, "next_folder", lambda stem: next(seen))
    assert [Run.create_next(tmp_path / "a", run.config).folder.name for _ in range(2)] == ["a-1", "a-2"]


def test_leftovers_are_swept_and_nothing_else(run):
    (run.folder / ".model.safetensors.abcd1234.part").touch()
    (run.folder / ".gitignore").touch()
    (run.folder / "notes.part").touch()
    sweep(run.folder)
    assert {path.name for path in run.folder.iterdir()} == {"config.json", ".gitignore", "notes.part"}


def test_the_index(run, tmp_path):
    assert [s.state for s in summaries(tmp_path)] == ["stopped"]
    trainer, loader = begin(run)
    trainer.fit(loader, epochs=3, observers=[Scores(0.5, 0.8, 0.7), RunWriter(run)])
    run.save_result({"epochs": 3})
    damaged = tmp_path / "z" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "config.json").write_text("{")
    first, second = summaries(tmp_path)
    assert (first.folder, first.state, first.dataset, first.model) == (str(run.folder), "finished", "digits", "mlp")
    assert (first.epochs, first.epochs_wanted, first.accuracy, first.best_accuracy) == (3, 3, 0.7, 0.8)
    assert second.folder == str(damaged) and second.state == "damaged" and "can't be used" in second.problem


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"epochs": 2}'])
def test_a_result_that_does_not_tell_is_none(run, text):
    (run.folder / "result.json").write_text(text)
    assert not run.is_finished(3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data_digest", 5), ("skip_corrupt", "yes"), ("patience", 0), ("patience", True), ("weights", 1), ("freeze", "a"),
        ("freeze", (1,)), ("layer_decay", 0), ("layer_decay", 1.5), ("layer_decay", "x"),
    ],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_refused(run, field, value):
    from dataclasses import replace

    with pytest.raises(ValueError, match=f"{field} can't be"):
        replace(run.config, **{field: value})


def test_a_config_survives_the_file(run):
    from dataclasses import replace

    config = replace(run.config, freeze=("a.*", "b"), layer_decay=0.5, patience=3, weights="w", skip_corrupt=True)
    assert type(config).from_json(config.to_json()) == config
