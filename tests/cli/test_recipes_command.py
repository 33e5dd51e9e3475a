"""Training by recipes: those that come with the package, and one's own."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import refused, tinytorch
from tinytorch import recipes
from tinytorch.cli.console import operations
from tinytorch.io.checkpoint import load_arrays, load_state
from tinytorch.io.run import Run

MINE = """
dataset = "digits"
goal = {goal}
model = "mlp"
epochs = 2
batch_size = 300
optimizer = "sgd"
lr = 0.05
optimizer_options = {{ momentum = 0.9, nesterov = true }}
schedule = "triangle"
label_smoothing = 0.1
ema = 0.5
views = "mirrored"

[[groups]]
names = ["*.bias"]
optimizer = "adamw"
lr = 0.01
epochs = 1
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(MINE.format(goal=0.2))
    return tmp_path


def test_recipes_are_listed_and_printed_to_copy(here):
    listed = tinytorch("recipes").stdout
    assert all(name in listed for name in recipes.names()) and "94.00 %" in listed
    Path("copy.toml").write_text(tinytorch("recipes", "mnist").stdout)
    assert recipes.load("copy.toml") == recipes.load("mnist")
    assert "got 'mnits'; did you mean 'mnist'?" in refused("recipes", "mnits")


def test_one_s_own_recipe_trains_what_it_was_made_for(here):
    printed = tinytorch("train", "--recipe", "mine.toml").stdout
    run = Run.open(Path("runs/digits-mine-1"))
    assert run.config.recipe == recipes.load("mine.toml")
    assert "mirrored" in printed and "goal 20.00 %   reached in epoch" in printed
    groups = load_state(run.folder / "checkpoint.safetensors")["optimizer"]["optimizers"]
    assert [[g["lr"] for g in groups[str(i)]["param_groups"]] for i in range(2)] == [[0.0], [pytest.approx(0.05 / 8)]]


def test_the_result_tells_time_and_arithmetic_to_the_goal(here):
    tinytorch("train", "--recipe", "mine.toml", "--out", "x")
    result = json.loads(Path("x/result.json").read_text())
    goal = result["goal"]
    assert goal["accuracy"] == 0.2 and goal["reached"] and 0 < goal["train_seconds"] <= result["train_seconds"]
    macs = 64 * 1000 + 1000 * 10  # a hidden layer and a classifier
    assert result["pflop"] == pytest.approx(6 * macs * 2 * 1500 / 1e15)
    assert goal["pflop"] == pytest.approx(result["pflop"] * goal["epoch"] / 2)
    assert 0 <= result["waiting_seconds"] < result["train_seconds"]


def test_operations_are_written_in_the_unit_that_fits():
    assert [operations(pflop) for pflop in (0.2841, 0.01, 0.0099, 3.1e-4)] == [
        "0.284 PFLOP", "0.01 PFLOP", "9.9 TFLOP", "0.31 TFLOP",
    ]  # fmt: skip


def test_a_goal_is_for_the_recipe_s_own_data(here):
    Path("mine.toml").write_text(MINE.format(goal=0.2).replace('dataset = "digits"', 'dataset = "mnist"'))
    tinytorch("train", "digits", "--recipe", "mine.toml", "--out", "x")
    assert json.loads(Path("x/result.json").read_text())["goal"] is None


def test_a_goal_that_is_missed_is_called_so(here):
    Path("mine.toml").write_text(MINE.format(goal=1))
    printed = tinytorch("train", "--recipe", "mine.toml", "--epochs", 1, "--out", "x").stdout
    assert "not reached after" in printed
    assert not json.loads(Path("x/result.json").read_text())["goal"]["reached"]


def test_what_is_saved_and_tested_is_the_average(here):
    tinytorch("train", "--recipe", "mine.toml", "--out", "x")
    state = load_state(Path("x/checkpoint.safetensors"))
    weights, _ = load_arrays(Path("x/model.safetensors"))
    np.testing.assert_equal(weights, state["average"])
    assert (weights["hidden.weight"] != state["model"]["hidden.weight"]).any()
    result = json.loads(Path("x/result.json").read_text())
    shown = json.loads(tinytorch("evaluate", "x", "--json").stdout)
    for name in ("test_accuracy", "test_loss", "views", "accuracy_in_views"):
        assert shown[name] == result[name]
    plain = json.loads(tinytorch("evaluate", "x", "--views", "plain", "--json").stdout)
    assert plain["accuracy_in_views"] == plain["test_accuracy"] == result["test_accuracy"]
    assert ", mirrored " in tinytorch("evaluate", "x").stdout
    assert "--views must be one of plain, mirrored" in refused("evaluate", "x", "--views", "six")


def test_options_change_a_recipe_and_resuming_needs_none(here):
    options = ("--lr", 0.2, "--accumulate", 3)
    tinytorch("train", "--recipe", "mine.toml", *options, "--wall-time", "0.0001s", code=124)
    tinytorch("train", "--recipe", "mine.toml", "--resume")
    tinytorch("train", "--recipe", "mine.toml", *options, "--out", "whole")
    run = Run.open(Path("runs/digits-mine-1"))
    assert (run.config.recipe.lr, run.config.recipe.accumulate) == (0.2, 3)
    for name in ("model.safetensors", "best.safetensors"):
        assert (run.folder / name).read_bytes() == (Path("whole") / name).read_bytes()


def test_a_run_is_not_resumed_by_another_recipe(here):
    tinytorch("train", "--recipe", "mine.toml", "--wall-time", "0.0001s", "--out", "x", code=124)
    assert "the run in x has another recipe than mnist; leave" in refused(
        "train", "--recipe", "mnist", "--resume", "--out", "x"
    )


def test_a_config_that_was_edited_is_not_resumed(here):
    tinytorch("train", "--recipe", "mine.toml", "--wall-time", "0.0001s", "--out", "x", code=124)
    path = Path("x/config.json")
    before = path.read_text()
    for old, new in (
        ('"lr": 0.05', '"lr": 0.5'),
        ('"ema": 0.5', '"ema": null'),
        ('"lookahead": null', '"lookahead": {"alpha": 0.5}'),
    ):
        assert old in before
        path.write_text(before.replace(old, new))
        name = old.split('"')[1]
        message = refused("train", "--resume", "--out", "x")
        assert f"config.json is not that of the checkpoint: {name} is" in message
    path.write_text(before)
    tinytorch("train", "--resume", "--out", "x")


def test_a_recipe_may_come_from_a_pipe(here, tmp_path):
    import os
    import threading

    os.mkfifo(tmp_path / "pipe.toml")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.toml").write_text(MINE.format(goal=0.2)))
    writer.start()
    tinytorch("train", "--recipe", tmp_path / "pipe.toml", "--out", "x")
    writer.join()
    assert Run.open(Path("x")).config.recipe == recipes.load("mine.toml")


def test_bad_recipes_are_refused_before_anything_is_written(here):
    assert "got 'fast49'; did you mean 'fast94'?" in refused("train", "--recipe", "fast49")
    assert "there is no recipe none.toml; copy one" in refused("train", "--recipe", "none.toml")
    assert "the recipe pictures was made for no data set in particular" in refused("train", "--recipe", "pictures")
    Path("mine.toml").write_text(MINE.format(goal=1) + "options = { beta = 1 }\n")
    assert "AdamW has no setting beta; it has lr" in refused("train", "--recipe", "mine.toml")
    Path("mine.toml").write_text('dataset = "digits"\nmodel = "mlp"\nepochs = 1\nbatch_size = 5000\ndrop_last = true')
    assert "batch_size must be at most the 1,500 training images" in refused("train", "--recipe", "mine.toml")
    assert [path.name for path in here.iterdir()] == ["mine.toml"]


# ---- held out images ----------------------------------------------------------------------------------------


def test_epochs_can_be_judged_by_images_that_are_held_out(here):
    printed = tinytorch("train", "--recipe", "mine.toml", "--validation", 0.2, "--out", "x").stdout
    assert "val. loss" in printed and "of the validation images" in printed
    result = json.loads(Path("x/result.json").read_text())
    records = [json.loads(line) for line in Path("x/history.jsonl").read_text().splitlines()]
    assert [record["images"] for record in records] == [1200, 1200]
    assert result["judged_by"] == "validation" and result["goal"]["epoch"] == 2
    assert result["best_accuracy"] == max(record["validation_accuracy"] for record in records)
    assert round(result["best_accuracy"] * 300, 6).is_integer()
    assert "1,200 training, 300 validation and 297 test images" in printed
    shown = json.loads(tinytorch("evaluate", "x", "--views", "plain", "--json").stdout)
    assert shown["test_images"] == 297 and shown["test_accuracy"] == result["test_accuracy"]
    assert "has validation 0.2, got 0.1" in refused("train", "--resume", "--out", "x", "--validation", 0.1)


def test_runs_that_are_judged_by_other_images_are_compared_with_a_warning(here):
    tinytorch("train", "--recipe", "mine.toml", "--validation", 0.2, "--out", "x")
    tinytorch("train", "--recipe", "mine.toml", "--out", "y")
    assert "not all are judged by the same images" in tinytorch("compare", "x", "y").stdout
    rows = json.loads(tinytorch("compare", "x", "y", "--json").stdout)["runs"]
    assert [row["judged_by"] for row in rows] == ["validation", "test"]


def test_something_must_be_held_out_and_something_left(here):
    assert "validation must be in [0, 1), got 1.0" in refused("train", "--validation", 1)
    message = "validation 0.0001 of 1,500 training images leaves 1,500 to train on and 0 to judge by"
    assert message in refused("train", "--validation", 0.0001)
