"""What people do with training beyond a first run: own pictures, fine-tuning, limits, logs, and what goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import refused, tinytorch, training, wait_for_epochs
from tinytorch.cli.train import _seconds
from tinytorch.io.checkpoint import load_arrays, load_state
from tinytorch.io.run import Run

SMALL = ["--model", "mlp", "--batch-size", "300"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "mlp"
    tinytorch("train", *SMALL, "--epochs", 2, "--out", folder)
    return folder


# ---- folders of pictures ----------------------------------------------------------------------------------


@pytest.fixture
def shades(here) -> Path:
    """Dark and light pictures, twenty of each to train on and five to test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 5)):
        for name, low in (("dark", 0), ("light", 150)):
            (here / "shades" / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(rng.integers(low, low + 100, (30, 20 + i, 3), np.uint8))
                image.save(here / "shades" / split / name / f"{i}.jpg")
    return here / "shades"


PICTURES = ["--image-size", "16", "--epochs", "4", "--batch-size", "10", "--lr", "0.02"]


def test_a_folder_of_pictures_from_training_to_prediction(shades):
    output = tinytorch("train", "./shades", *PICTURES).stdout
    assert "simple-cnn · " in output and " shades, 40 training and 10 test images · runs/shades-simple-cnn-1" in output
    run = Path("runs/shades-simple-cnn-1")
    config = Run.open(run).config
    assert config.dataset == str(shades) and config.input_shape == (3, 16, 16) and config.classes == ("dark", "light")
    result = json.loads((run / "result.json").read_text())
    assert result["test_accuracy"] == 1.0
    assert (run / "confusion.png").exists() and not (run / "misclassified.png").exists()
    assert json.loads(tinytorch("evaluate", run, "--json").stdout)["test_accuracy"] == 1.0
    answer = json.loads(tinytorch("predict", run, "shades/test/light/3.jpg", "--json").stdout)
    assert max(answer["predictions"]["shades/test/light/3.jpg"].items(), key=lambda item: item[1])[0] == "light"


def test_a_folder_that_moved_is_named_with_data_dir(shades):
    tinytorch("train", "shades", *PICTURES, "--out", "x")
    shades.rename("elsewhere")
    assert "shades is no folder" in refused("train", "--resume", "--epochs", 5, "--out", "x")
    tinytorch("train", "--resume", "--epochs", 5, "--out", "x", "--data-dir", "elsewhere")
    assert "accuracy" in tinytorch("evaluate", "x", "--data-dir", "elsewhere").stdout


def test_a_resumed_run_of_pictures_has_the_same_bits(shades):
    tinytorch("train", "./shades", *PICTURES, "--out", "whole")
    tinytorch("train", "./shades", *PICTURES, "--out", "stopped", "--wall-time", "0.000001s", code=124)
    tinytorch("train", "./shades/", "--out", "stopped", "--resume")
    np.testing.assert_equal(load_arrays("stopped/model.safetensors"), load_arrays("whole/model.safetensors"))


def test_a_damaged_picture_ends_training_by_name_or_is_skipped(shades):
    (shades / "train" / "dark" / "7.jpg").write_bytes(b"no picture")
    message = refused("train", "./shades", *PICTURES, "--out", "a")
    assert f"{shades}/train/dark/7.jpg is no picture" in message and "--skip-corrupt" in message
    output = tinytorch("train", "./shades", *PICTURES, "--out", "b", "--skip-corrupt").stdout
    assert f"skipped, damaged: {shades}/train/dark/7.jpg" in output and "39 training and 10 test images" in output
    tinytorch("train", "--resume", "--epochs", 5, "--out", "b")
    tinytorch("evaluate", "b")


def test_data_that_changed_is_not_the_same_run(shades):
    tinytorch("train", "./shades", *PICTURES, "--out", "x")
    before = {path: path.read_bytes() for path in Path("x").iterdir()}
    (shades / "train" / "dark" / "7.jpg").unlink()
    message = refused("train", "--resume", "--epochs", 9, "--out", "x")
    assert "has changed since the run began (it has 39 training and 10 test images now)" in message
    (shades / "train" / "light").rename(shades / "train" / "bright")
    (shades / "test" / "light").rename(shades / "test" / "bright")
    for command in (["train", "--resume", "--epochs", 9, "--out", "x"], ["evaluate", "x"]):
        assert "has classes bright, dark, the run was trained for dark, light" in refused(*command)
    assert {path: path.read_bytes() for path in Path("x").iterdir()} == before


def test_options_of_folders_are_for_folders(here):
    assert "--image-size is for folders of pictures, got the data set digits" in refused("train", "--image-size", 9)
    assert "--image-size and --skip-corrupt is for" in refused("train", "--image-size", 9, "--skip-corrupt")
    assert "has image_size 8, got 9" in _resume_refused("--image-size", 9)
    assert [path.name for path in here.iterdir()] == ["x"]


def _resume_refused(*options: object) -> str:
    if not Path("x").exists():
        tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    return refused("train", "--resume", "--epochs", 2, "--out", "x", *options)


# ---- fine-tuning --------------------------------------------------------------------------------------------


def test_fine_tuning_begins_with_what_fits_and_freezes(shades):
    tinytorch("train", "digits", "--model", "simple-cnn", "--epochs", 1, "--batch-size", 500, "--out", "base")
    base = load_arrays("base/model.safetensors")[0]
    frozen = [name for name in base if name.startswith("conv2.")]
    options = ("--weights", "base", "--freeze", "conv2.*", "--layer-decay", 0.5)
    output = tinytorch("train", "./shades", *PICTURES, *options, "--out", "x").stdout
    assert f"arrays of {Path('base').resolve()}, fresh: conv1.weight" in output and "of them trained" in output
    tuned = load_arrays("x/model.safetensors")[0]
    assert frozen and all(np.array_equal(tuned[name], base[name]) for name in frozen)
    assert any(not np.array_equal(tuned[name], base[name]) for name in base if base[name].shape == tuned[name].shape)
    groups = load_state("x/checkpoint.safetensors")["optimizer"]["param_groups"]
    assert len({group["lr"] for group in groups}) == len(groups) > 1
    (Path("base") / "model.safetensors").unlink()  # it was needed at the beginning only
    tinytorch("train", "--resume", "--epochs", 5, "--out", "x")


def test_fine_tuning_is_refused_before_anything_is_written(here, digits):
    cnn = ["--model", "digits-cnn"]
    assert "nowhere does not exist" in refused("train", "--weights", "nowhere")
    assert "can't be begun with: state has nothing that fits" in refused("train", *cnn, "--weights", digits)
    assert "'tail.*' matches no parameter" in refused("train", "--freeze", "tail.*")
    assert "leaves nothing to train" in refused("train", "--freeze", "*")
    assert "layer_decay can't be 2.0" in refused("train", "--layer-decay", 2)
    assert not list(here.iterdir())
    assert "has freeze (), got ('a',)" in _resume_refused("--freeze", "a")


def test_a_run_killed_before_its_first_checkpoint_begins_with_the_weights_again(here, digits):
    tinytorch("train", *SMALL, "--epochs", 1, "--weights", digits, "--out", "whole")
    tinytorch("train", *SMALL, "--epochs", 1, "--weights", digits, "--out", "killed")
    for path in Path("killed").iterdir():
        if path.name != "config.json":
            path.unlink()
    assert "began with" in tinytorch("train", "--resume", "--out", "killed").stdout
    np.testing.assert_equal(load_arrays("killed/model.safetensors"), load_arrays("whole/model.safetensors"))


# ---- early stopping, wall time, logs ---------------------------------------------------------------------------


def test_patience_ends_a_run_that_does_not_improve(here):
    stuck = ("--lr", 1e-12, "--schedule", "constant", "--epochs", 9, "--patience", 2, "--out", "x")
    output = tinytorch("train", *SMALL, *stuck).stdout
    assert "no better than epoch 1 for 2 epochs" in output and "3/9" in output and "4/9" not in output
    result = json.loads(Path("x/result.json").read_text())
    assert result["epochs"] == 3 and result["best_epoch"] == 1 and result["stopped"].startswith("no better")
    message = refused("train", "--resume", "--out", "x")
    assert "has completed 3 epochs and no better than epoch 1 for 2 epochs; train it longer with a larger" in message
    tinytorch("train", "--resume", "--patience", 4, "--out", "x")
    assert json.loads(Path("x/result.json").read_text())["epochs"] == 5
    assert "patience can't be 0" in refused("train", "--patience", 0)


def test_a_run_killed_at_its_end_is_finished_by_resuming(here):
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    expected = {path.name: path.read_bytes() for path in Path("x").iterdir() if path.suffix != ".jsonl"}
    for name in ("result.json", "curves.png", "model.safetensors"):
        (Path("x") / name).unlink()
    assert json.loads(tinytorch("runs", ".", "--json").stdout)["runs"][0]["state"] == "stopped"
    tinytorch("train", "--resume", "--out", "x")
    assert {name: (Path("x") / name).read_bytes() for name in expected} == expected


def test_wall_time_stops_saves_and_tells(here):
    result = tinytorch("train", *SMALL, "--epochs", 2, "--out", "x", "--wall-time", "0.000001s", code=124)
    assert "Stopped in epoch 1 after batch 1 (the wall time of 1e-06 s is up), and saved." in result.stdout
    assert load_state("x/checkpoint.safetensors")["step"] == 1
    tinytorch("train", "--resume", "--out", "x", "--wall-time", "1h")
    tinytorch("train", *SMALL, "--epochs", 2, "--out", "whole")
    np.testing.assert_equal(load_arrays("x/model.safetensors"), load_arrays("whole/model.safetensors"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("1.5h", 5400), ("1h 1m 1s", 3661)]
)
def test_wall_times(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "1m1h", "h", "-5s", "1.2.3s"])
def test_a_wall_time_needs_its_unit(here, text):
    assert f"such as 1h30m or 90s, got {text!r}; name the unit" in refused("train", "--wall-time", text)
    assert "the wall time must be positive, got 0.0 s" in refused("train", "--wall-time", "0s")
    assert not list(here.iterdir())


def test_logs_are_in_the_run_folder(here):
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x", "--log", "jsonl", "--log", "csv")
    assert Path("x/steps.jsonl").exists() and Path("x/history.csv").exists()
    assert "log must be one of jsonl, csv, tensorboard" in refused("train", "--log", "excel", "--out", "y")
    assert not Path("y").exists()


# ---- find-lr, runs, evaluate -----------------------------------------------------------------------------------


def test_find_lr(here):
    answer = json.loads(tinytorch("find-lr", "digits", "--model", "mlp", "--steps", 60, "--json").stdout)
    assert 1e-5 < answer["suggestion"] < 0.1 and len(answer["lrs"]) == len(answer["losses"]) <= 60
    assert {path.name for path in here.iterdir()} == {"lr.png"}
    output = tinytorch("find-lr", "digits", "--model", "mlp", "--steps", 60).stdout
    assert f"tinytorch train digits --model mlp --lr {answer['suggestion']:.2g}" in output
    assert "--out must end in .png, got x.jpg" in refused("find-lr", "--out", "x.jpg")


def test_runs_are_listed(here):
    assert "runs is no folder; make a first run" in refused("runs")
    assert "no run in ." in tinytorch("runs", ".").stdout
    tinytorch("train", *SMALL, "--epochs", 1)
    tinytorch("train", *SMALL, "--epochs", 2, "--wall-time", "0.000001s", code=124)
    Path("runs/[red]").mkdir()
    Path("runs/[red]/config.json").write_text("{")
    lines = tinytorch("runs").stdout.splitlines()
    assert any("runs/digits-mlp-1" in line and "1/1" in line and "finished" in line for line in lines)
    assert any("runs/digits-mlp-2" in line and "0/2" in line and "stopped" in line and "–" in line for line in lines)
    assert any("runs/[red]" in line and "damaged" in line for line in lines)
    assert "runs/[red]/config.json can't be used" in lines[-1]
    states = [run["state"] for run in json.loads(tinytorch("runs", "--json").stdout)["runs"]]
    assert states == ["finished", "stopped", "damaged"]


def test_evaluate_the_best_weights(here, digits):
    best = json.loads(tinytorch("evaluate", digits, "--best", "--json").stdout)
    assert best["test_accuracy"] == json.loads((digits / "result.json").read_text())["best_accuracy"]


# ---- processes -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no hang-up")
@pytest.mark.parametrize("nohup", [False, True])
def test_a_hang_up_stops_and_saves_but_not_under_nohup(here, nohup):
    ignore = (lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if nohup else (lambda: None)  # what nohup does
    arguments = [*SMALL, "--epochs", 30 if nohup else 3000, "--out", "x"]
    with open("out", "wb") as out, training(*arguments, first=ignore, stdout=out, stderr=out) as process:
        wait_for_epochs(process, Path("x"), 1)
        process.send_signal(signal.SIGHUP)
        code = process.wait(timeout=250)
    text = Path("out").read_bytes()
    assert b"\x1b" not in text and b"\r" not in text
    assert code == (0 if nohup else 128 + signal.SIGHUP), text
    assert (b"test accuracy" if nohup else b"and saved. Continue with") in text
    history = Path("x/history.jsonl").read_text().splitlines()
    assert len(history) == 30 if nohup else load_state("x/checkpoint.safetensors")["step"] >= len(history) * 5


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(here):
    resource = pytest.importorskip("resource")
    # Files of half a megabyte at most: the weights fit, and with the optimizer's moments they do not.
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))  # noqa: E731
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with training(*SMALL, "--epochs", 2, "--out", "x", first=limit, **pipes) as process:
        error = process.communicate(timeout=250)[1].decode()
    assert process.returncode == 2
    assert (
        error
        == "Error: File too large (x/checkpoint.safetensors); check the path, its permissions and the free space\n"
    )
    assert load_state("x/checkpoint.safetensors")["step"] == 0
    tinytorch("train", "--resume", "--out", "x")
    tinytorch("train", *SMALL, "--epochs", 2, "--out", "whole")
    np.testing.assert_equal(load_arrays("x/model.safetensors"), load_arrays("whole/model.safetensors"))
