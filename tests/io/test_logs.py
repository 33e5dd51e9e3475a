"""Logs of training: what is in them, and that a resumed run continues them without gap or repetition."""

from __future__ import annotations

import csv
import json
import struct
import sys

import numpy as np
import pytest

from tinytorch import nn, optim
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.random import manual_seed
from tinytorch.core.training import Observer, Trainer
from tinytorch.io.logs import CSVLog, JSONLinesLog, StepLog, TensorBoardLog, make_logs


def problem() -> tuple[Trainer, DataLoader]:
    manual_seed(0)
    x = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).astype(np.int64)), batch_size=10, shuffle=True, seed=0)
    model = nn.Linear(4, 2)
    return Trainer(model, optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()), loader


class Seen(Observer):
    def __init__(self) -> None:
        self.steps: list[tuple] = []

    def stepped(self, trainer, step):
        norm = np.sqrt(sum((p.grad**2).sum() for p in trainer.model.parameters()))
        self.steps.append((step.step, step.epoch, step.loss, trainer.optimizer.lr, norm))


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_json_lines_hold_every_so_many_th_step(tmp_path):
    trainer, loader = problem()
    seen = Seen()
    trainer.fit(loader, epochs=2, observers=[JSONLinesLog(tmp_path, every=4), seen])
    assert [line["step"] for line in lines(tmp_path)] == [1, 5, 9, 13]
    for line in lines(tmp_path):
        step, epoch, loss, lr, norm = seen.steps[line["step"] - 1]
        assert (line["step"], line["epoch"], line["loss"], line["lr"]) == (step, epoch, loss, lr)
        assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_a_resumed_log_is_that_of_an_undisturbed_run(tmp_path):
    (tmp_path / "whole").mkdir()
    trainer, loader = problem()
    trainer.fit(loader, epochs=3, observers=[JSONLinesLog(tmp_path / "whole", every=2)])
    killed, loader = problem()
    killed.fit(loader, epochs=1)
    state = killed.state_dict()
    killed, loader = problem()
    killed.fit(loader, epochs=2, observers=[JSONLinesLog(tmp_path, every=2)])  # a checkpoint was made after one
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 1')  # cut short
    killed.load_state_dict(state)
    killed.fit(loader, epochs=3, observers=[JSONLinesLog(tmp_path, every=2)])
    assert (tmp_path / "steps.jsonl").read_bytes() == (tmp_path / "whole" / "steps.jsonl").read_bytes()


@pytest.mark.parametrize("rubbish", ["5\n", "{}\n", "\n", "{\n", '{"step": 1}'])
def test_lines_that_are_no_records_are_dropped(tmp_path, rubbish):
    (tmp_path / "steps.jsonl").write_text(rubbish)
    trainer, loader = problem()
    trainer.fit(loader, observers=[JSONLinesLog(tmp_path)])
    assert [line["step"] for line in lines(tmp_path)] == [1]


def test_a_norm_that_overflowed_is_null_and_the_file_stays_json(tmp_path):
    trainer, loader = problem()
    trainer.gradient_norm = lambda: float("inf")
    trainer.fit(loader, observers=[JSONLinesLog(tmp_path)])
    assert lines(tmp_path)[0]["grad_norm"] is None


def test_csv_has_a_row_an_epoch(tmp_path):
    trainer, loader = problem()
    trainer.fit(loader, loader, epochs=3, observers=[CSVLog(tmp_path)])
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == trainer.history


def records(path) -> list[bytes]:
    """The records of an event file: length (8 bytes), its checksum (4), content, checksum (4)."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(data[12 : 12 + length])
        data = data[16 + length :]
    return found


def test_tensorboard_gets_steps_and_epochs(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    trainer, loader = problem()
    seen = Seen()
    trainer.fit(loader, loader, epochs=2, observers=[TensorBoardLog(tmp_path, every=7), seen])
    (file,) = (tmp_path / "tensorboard").iterdir()
    values = {}
    for event in map(Event.FromString, records(file)):
        for value in event.summary.value:
            values[value.tag, event.step] = value.simple_value
    steps = [(1, "loss"), (8, "loss"), (1, "lr"), (8, "lr"), (1, "grad_norm"), (8, "grad_norm")]
    names = ("accuracy", "validation_loss", "validation_accuracy", "seconds", "waiting", "images")
    epochs = [(7, name) for name in names] + [(14, name) for name in names]
    assert set(values) == {(f"train/{name}", step) for step, name in steps} | {(f"epoch/{n}", s) for s, n in epochs}
    assert values["train/loss", 8] == pytest.approx(seen.steps[7][2])
    assert values["epoch/validation_accuracy", 14] == pytest.approx(trainer.history[1]["validation_accuracy"])


def test_tensorboard_forgets_what_a_killed_process_wrote(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    trainer, loader = problem()
    trainer.fit(loader, epochs=1)
    trainer.fit(loader, epochs=2, observers=[TensorBoardLog(tmp_path)])
    (file,) = (tmp_path / "tensorboard").iterdir()
    marks = [e.step for e in map(Event.FromString, records(file)) if e.session_log.status == SessionLog.START]
    assert marks == [8]


def test_tensorboard_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(
        ValueError, match=r"needs tensorboardX, which is not installed; pip install 'tinytorch\[tensorb"
    ):
        TensorBoardLog(tmp_path)


def test_logs_by_name(tmp_path):
    assert [type(log) for log in make_logs(["csv", "jsonl", "csv"], tmp_path)] == [CSVLog, JSONLinesLog]
    with pytest.raises(
        ValueError, match="log must be one of jsonl, csv, tensorboard, got 'json'; did you mean 'jsonl'"
    ):
        make_logs(["json"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("every", [0, 1.5, True])
def test_every_must_be_positive(tmp_path, every):
    with pytest.raises(ValueError, match=f"every must be a positive number of steps, got {every!r}"):
        JSONLinesLog(tmp_path, every)


def test_a_step_log_has_to_say_where():
    trainer, loader = problem()
    with pytest.raises(NotImplementedError, match="StepLog needs record; write the values of a step somewhere"):
        trainer.fit(loader, observers=[StepLog()])
