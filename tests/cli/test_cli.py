"""Every command as a person runs it, on the embedded digits with tiny networks; every error they can make."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.cli.command import refused, tinytorch, training, wait_for_epochs
from tinytorch import datasets
from tinytorch.cli.main import app
from tinytorch.cli.progress import Progress
from tinytorch.core.training import Step
from tinytorch.io.checkpoint import load_arrays, load_state, save_state
from tinytorch.io.run import Run

SMALL = ["--model", "mlp", "--batch-size", "300"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that knows its digits."""
    folder = tmp_path_factory.mktemp("runs") / "mlp"
    tinytorch("train", "digits", "--model", "mlp", "--epochs", 4, "--batch-size", 100, "--out", folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- train --------------------------------------------------------------------------------------------


def test_the_run_folder_is_complete(finished):
    saved = {"config.json", "checkpoint.safetensors", "model.safetensors", "best.safetensors", "history.jsonl"}
    pictures = {"curves.png", "confusion.png", "misclassified.png"}
    assert {path.name for path in finished.iterdir()} == saved | pictures | {"result.json"}
    records = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert records[-1]["validation_accuracy"] > 0.75
    weights, _ = load_arrays(finished / "model.safetensors")
    np.testing.assert_equal(weights, load_state(finished / "checkpoint.safetensors")["model"])
    assert Image.open(finished / "curves.png").size[0] > 1000


def test_json_ends_standard_output(here):
    result = tinytorch("train", "digits", *SMALL, "--epochs", 1, "--seed", 3, "--out", "x", "--json")
    assert result.stdout.count("\n") == 1
    answer = json.loads(result.stdout)
    assert answer["dataset"] == "digits" and answer["model"] == "mlp" and answer["seed"] == 3
    assert answer["epochs"] == 1 and answer["parameters"] == 75_010
    assert 0 < answer["test_accuracy"] <= 1
    assert answer["images_per_second"] == pytest.approx(1500 / answer["train_seconds"])
    assert answer == json.loads(Path("x/result.json").read_text())
    assert "epoch" in result.stderr


def test_without_a_terminal_there_are_plain_lines(here):
    output = tinytorch("train", *SMALL, "--epochs", 2).stdout
    assert "\x1b" not in output and "\r" not in output
    assert "1/2" in output and "2/2" in output and "test accuracy" in output


def test_folders_are_numbered_and_never_overwritten(here):
    for _ in range(2):
        tinytorch("train", "digits", *SMALL, "--epochs", 1)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["digits-mlp-1", "digits-mlp-2"]
    before = Path("runs/digits-mlp-1/model.safetensors").read_bytes()
    assert "is not empty and never overwritten" in refused("train", *SMALL, "--out", "runs/digits-mlp-1")
    assert Path("runs/digits-mlp-1/model.safetensors").read_bytes() == before


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tinytorch("train", "digits", "--epochs", 1, "--batch-size", 300, "--seed", seed, "--out", name)
    a, b, c = (load_arrays(f"{name}/model.safetensors")[0] for name in "abc")
    np.testing.assert_equal(a, b)
    assert any((a[key] != c[key]).any() for key in a)


def test_a_folder_may_have_any_name(here):
    for name in ("[red]", "[/x]"):
        assert name in tinytorch("train", *SMALL, "--epochs", 1, "--out", here / name).stdout
    assert "[/x]" in tinytorch("compare", "[red]", "[/x]").stdout


def test_settings_reach_the_config(here):
    options = ("--lr", 0.5, "--weight-decay", 0, "--schedule", "step", "--clip-norm", 0.1, "--epochs", 1)
    tinytorch("train", *SMALL, *options, "--out", "x")
    recipe = Run.open(Path("x")).config.recipe
    assert (recipe.lr, recipe.weight_decay, recipe.schedule, recipe.clip_norm) == (0.5, 0, "step", 0.1)


# ---- stop and resume ----------------------------------------------------------------------------------


def interrupt_after(folder: Path, epochs: int, arguments: list[str]) -> subprocess.CompletedProcess:
    """Start a training process and send it Ctrl-C once some epochs are in its history."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with training(*arguments, "--out", folder, **pipes) as process:
        wait_for_epochs(process, folder, epochs)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def test_ctrl_c_saves_and_resume_reaches_the_same_bits(here):
    arguments = ["digits", "--epochs", "12", "--batch-size", "50", "--model", "mlp"]
    stopped = interrupt_after(Path("stopped"), 2, arguments)
    assert stopped.returncode == 130, stopped
    assert "--out stopped --resume" in stopped.stdout
    assert stopped.stderr.strip() == "Stopping after this step; press Ctrl-C again to end at once."
    tinytorch("evaluate", "stopped")
    tinytorch("train", "--out", "stopped", "--resume")
    tinytorch("train", *arguments, "--out", "whole")
    np.testing.assert_equal(load_arrays("stopped/model.safetensors"), load_arrays("whole/model.safetensors"))
    losses = [[r["loss"] for r in Run.open(Path(name)).history()] for name in ("stopped", "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == 12


def test_resume_finds_the_latest_run_by_itself(here):
    arguments = ["digits", *SMALL, "--epochs", "1"]
    tinytorch("train", *arguments)
    tinytorch("train", *arguments)
    tinytorch("train", "digits", "--model", "mlp", "--epochs", 2, "--resume")
    assert [len(Run.open(Path(f"runs/digits-mlp-{n}")).history()) for n in (1, 2)] == [1, 2]
    assert Run.open(Path("runs/digits-mlp-2")).config.recipe.epochs == 2


def test_nothing_to_resume(here, finished):
    assert "there is nothing to resume: no folder runs/digits-mlp-1" in refused("train", "--model", "mlp", "--resume")
    assert "holds no run" in refused("train", "--resume", "--out", "nowhere")
    assert not Path("nowhere").exists()
    assert "has completed 4 epochs and 4 are wanted" in refused("train", "--resume", "--out", finished)
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    Path("x/checkpoint.safetensors").unlink()
    assert "there is nothing to resume: x/checkpoint.safetensors" in refused("train", "--resume", "--out", "x")


@pytest.mark.parametrize(
    ("option", "value"), [("--model", "simple-cnn"), ("--lr", 9), ("--seed", 5), ("--batch-size", 7)]
)
def test_a_run_can_t_be_resumed_as_another(finished, option, value):
    message = refused("train", "--resume", "--out", finished, "--epochs", 9, option, value)
    assert f"has {option[2:].replace('-', '_')}" in message and "start a new run in another --out" in message


def test_a_run_can_t_be_resumed_on_other_data(finished):
    assert "has dataset digits, got mnist" in refused("train", "mnist", "--resume", "--out", finished)


@pytest.fixture
def stopped_early(here) -> Path:
    """A run whose epochs were raised, so that it can be resumed."""
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    return Path("x")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_corrupt_checkpoint_is_refused_and_nothing_is_lost(stopped_early):
    path = stopped_early / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    before = files(stopped_early)
    assert "x/checkpoint.safetensors" in refused("train", "--resume", "--epochs", 2, "--out", "x")
    assert files(stopped_early) == before


def test_a_checkpoint_of_another_model_is_refused_and_nothing_is_lost(stopped_early):
    tinytorch("train", "--model", "simple-cnn", "--epochs", 1, "--batch-size", 500, "--out", "cnn")
    (stopped_early / "checkpoint.safetensors").write_bytes(Path("cnn/checkpoint.safetensors").read_bytes())
    before = files(stopped_early)
    message = refused("train", "--resume", "--epochs", 2, "--out", "x")
    assert "x/config.json is not that of the checkpoint: model is mlp, and was simple-cnn; restore what" in message
    assert files(stopped_early) == before


def test_weights_in_place_of_a_checkpoint_are_refused(stopped_early):
    save_state(stopped_early / "checkpoint.safetensors", {"epoch": 1})
    message = refused("train", "--resume", "--epochs", 2, "--out", "x")
    assert "is not a checkpoint of this run's mlp: state must come from Trainer.state_dict(), it lacks" in message


# ---- bad input to train -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", 0], "epochs must be a positive integer, got 0"),
        (["--batch-size", 0], "batch_size must be a positive integer, got 0"),
        (["--lr", -0.1], "lr must be positive and finite, got -0.1"),
        (["--lr", "nan"], "lr must be positive and finite, got nan"),
        (["--seed", -1], "seed must not be negative, got -1"),
        (["--clip-norm", 0], "clip_norm must be positive"),
        (["--model", "mpl"], "did you mean 'mlp'?"),
        (["--schedule", "onecycle"], "did you mean 'one-cycle'?"),
        (["digit"], "did you mean 'digits'?"),
        (["mnist", "--data-dir", "nowhere"], "mnist is not in nowhere"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(here, arguments, message):
    assert message in refused("train", *arguments)
    assert not list(here.iterdir())


def test_an_unwritable_folder(here):
    Path("file").touch()
    message = refused("train", *SMALL, "--out", "file/x")
    assert "the run folder file/x can't be written (Not a directory)" in message


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(here):
    diverging = ("--lr", 1e38, "--schedule", "constant", "--epochs", 3, "--out", "x")
    message = refused("train", *SMALL, *diverging)
    assert "stopped in epoch 1, step" in message and "lower learning rate" in message
    state = load_state("x/checkpoint.safetensors")
    assert all(np.isfinite(array).all() for array in state["model"].values())


def test_a_bug_shows_its_traceback(monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *args, **options: 1 / 0)
    result = CliRunner().invoke(app, ["train", "digits"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_tracebacks_on_request(monkeypatch):
    monkeypatch.setenv("TINYTORCH_TRACEBACK", "1")
    assert isinstance(CliRunner().invoke(app, ["train", "--epochs", "0"]).exception, ValueError)


def test_an_operating_system_error_is_one_paragraph(here, monkeypatch):
    def full(self, trainer):
        raise OSError(28, "No space left on device", "x/checkpoint.safetensors")

    monkeypatch.setattr(Run, "save", full)
    message = refused("train", *SMALL, "--epochs", 1)
    assert "No space left on device (x/checkpoint.safetensors)" in message


# ---- evaluate -------------------------------------------------------------------------------------------


def test_evaluate_agrees_with_training(finished):
    answer = json.loads(tinytorch("evaluate", finished, "--json").stdout)
    result = json.loads((finished / "result.json").read_text())
    assert answer["test_accuracy"] == result["test_accuracy"]
    assert answer["test_loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    labels = datasets.load("digits").test_labels
    weights = np.bincount(labels) / len(labels)
    assert np.dot(list(answer["class_accuracy"].values()), weights) == pytest.approx(answer["test_accuracy"])


def test_the_recipe_s_own_model_survives_saving(here):
    tinytorch("train", "digits", "--epochs", 1, "--batch-size", 300, "--out", "x")
    answer = json.loads(tinytorch("evaluate", "x", "--json").stdout)
    assert answer["test_accuracy"] == json.loads(Path("x/result.json").read_text())["test_accuracy"]
    tinytorch("train", "--resume", "--epochs", 2, "--out", "x")


def test_evaluate_shows_every_class(finished):
    output = tinytorch("evaluate", finished).stdout
    assert all(f"\n  {digit}" in output for digit in range(10))
    assert "█" in output and "accuracy" in output


def test_evaluate_refuses(here, finished):
    assert "holds no run" in refused("evaluate", "nowhere")
    copy = here / "copy"
    copy.mkdir()
    (copy / "config.json").write_text((finished / "config.json").read_text())
    assert "has no weights" in refused("evaluate", copy)
    (copy / "model.safetensors").write_bytes(b"rubbish")
    assert "no readable safetensors file" in refused("evaluate", copy)
    for text in ("{", "[]", "{}", '{"recipe": {"model": "mlp", "epochs": 1}, "flavour": 1}', "\xff"):
        (copy / "config.json").write_text(text, encoding="latin-1")
        assert "config.json can't be used" in refused("evaluate", copy)


def test_weights_of_another_model_are_refused(here, finished):
    tinytorch("train", "--model", "simple-cnn", "--epochs", 1, "--batch-size", 500, "--out", "cnn")
    Path("cnn/model.safetensors").write_bytes((finished / "model.safetensors").read_bytes())
    assert "does not hold this run's simple-cnn" in refused("evaluate", "cnn")


# ---- predict ----------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(here) -> list[Path]:
    """The first test image of each digit, as large dark-on-light pictures with a border."""
    data = datasets.load("digits")
    paths = []
    for digit in range(10):
        image = data.test_images[np.flatnonzero(data.test_labels == digit)[0], 0]
        page = np.full((120, 120), 255, np.uint8)
        page[20:100, 20:100] = 255 - np.kron(image, np.ones((10, 10), np.uint8))
        Image.fromarray(page).save(here / f"{digit}.png")
        paths.append(here / f"{digit}.png")
    return paths


def test_predict_reads_pictures_of_digits(finished, pictures):
    answer = json.loads(tinytorch("predict", finished, *pictures, "--json").stdout)
    best = [max(classes, key=classes.get) for classes in answer["predictions"].values()]
    assert sum(guess == str(digit) for digit, guess in enumerate(best)) >= 8
    assert all(0 <= p <= 1 for classes in answer["predictions"].values() for p in classes.values())


def test_predict_shows_bars(finished, pictures):
    output = tinytorch("predict", finished, pictures[0], "--top", 4).stdout
    lines = output.splitlines()
    assert lines[0].endswith("0.png") and len(lines) == 5
    assert "█" in lines[1] and "%" in lines[1] and lines[1].split()[0] == "0"


def test_predict_refuses(finished, here):
    Path("text.png").write_text("no picture")
    assert "text.png is no picture" in refused("predict", finished, "text.png")
    assert "gone.png is no file" in refused("predict", finished, "gone.png")
    assert "--top must be a positive integer, got 0" in refused("predict", finished, "text.png", "--top", 0)
    assert "holds no run" in refused("predict", "nowhere", "text.png")


# ---- compare ----------------------------------------------------------------------------------------------


def test_compare_draws_and_says_who_learns_faster(finished, here):
    tinytorch("train", "--model", "simple-cnn", "--epochs", 2, "--batch-size", 100, "--out", "cnn")
    output = tinytorch("compare", finished, "cnn").stdout
    assert "mlp" in output and "simple-cnn" in output and "75,010" in output and "% by" in output
    assert Image.open("compare.png").size[0] > 1000
    answer = json.loads(tinytorch("compare", finished, "cnn", "--out", "b.png", "--json").stdout)
    assert [row["epochs"] for row in answer["runs"]] == [4, 2]
    assert answer["common_accuracy"] == min(row["accuracy"] for row in answer["runs"])
    assert Path("b.png").exists()


def test_two_runs_of_one_model_are_told_apart(finished, here):
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "other")
    output = tinytorch("compare", finished, "other").stdout
    assert " other " in output and f" {finished.name} " not in output  # folders as they were given, not models


def test_compare_refuses(finished, here):
    assert "compare needs two runs, got 1" in refused("compare", finished)
    assert "compare needs different runs" in refused("compare", finished, finished)
    assert "--out must end in .png" in refused("compare", finished, "x", "--out", "a.jpg")
    assert "holds no run" in refused("compare", finished, "nowhere")
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    Path("x/history.jsonl").write_text("{")
    assert "history.jsonl is damaged" in refused("compare", finished, "x")
    Path("x/history.jsonl").unlink()
    assert "x has no complete epoch" in refused("compare", finished, "x")


def killed_before_the_first_checkpoint(folder: Path) -> None:
    """Leave what is there when the process dies right after the run folder was made."""
    tinytorch("train", *SMALL, "--epochs", 1, "--out", folder)
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()


def test_a_run_without_a_checkpoint_yet_starts_over(here):
    killed_before_the_first_checkpoint(Path("killed"))
    tinytorch("train", "--resume", "--out", "killed")
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "whole")
    assert Path("killed/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_a_leftover_of_a_killed_process_does_not_occupy_the_folder(here):
    Path("x").mkdir()
    Path("x/.config.json.k3y_").touch()
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    assert "x is not empty" in refused("train", *SMALL, "--out", "x")


def test_trained_weights_without_a_checkpoint_are_never_overwritten(here):
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    Path("x/checkpoint.safetensors").unlink()
    before = Path("x/model.safetensors").read_bytes()
    assert "there is nothing to resume" in refused("train", "--resume", "--epochs", 2, "--out", "x")
    assert Path("x/model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_shape", "abc"), ("input_shape", [1, 8]), ("input_shape", [0, 8, 8]), ("classes", []), ("classes", 5),
        ("mean", None), ("mean", [0.5, 0.5]), ("std", [0.0]), ("std", ["a"]), ("mean", [float("nan")]),
        ("seed", "x"), ("dataset", 7), ("recipe", None),
    ],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_refused(finished, here, field, value):
    config = json.loads((finished / "config.json").read_text())
    Path("x").mkdir()
    Path("x/config.json").write_text(json.dumps({**config, field: value}))
    assert f"x/config.json can't be used: it does not describe a run ({field}" in refused("evaluate", "x")


@pytest.mark.parametrize("line", ["5", "{}", "null", '{"epoch": 1}', '{"epoch": 1, "validation_accuracy": "a"}'])
def test_compare_refuses_a_history_that_makes_no_sense(finished, here, line):
    tinytorch("train", *SMALL, "--epochs", 1, "--out", "x")
    Path("x/history.jsonl").write_text(line + "\n")
    assert "history.jsonl is damaged" in refused("compare", finished, "x")


def test_an_output_that_knows_only_ascii_gets_question_marks(finished):
    command = [sys.executable, "-m", "tinytorch", "evaluate", str(finished)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "?" in done.stdout and "accuracy" in done.stdout


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_live_line_fits_the_terminal(columns):
    terminal = Console(width=columns, force_terminal=True, color_system=None, file=io.StringIO())
    progress = Progress(terminal, batch_size=64)
    progress._epochs, progress._batches = 30, 1000
    step = Step(11, 500, 10_500, 1.25, {"loss": 1.2345, "accuracy": 0.9876}, 32_000)
    line = terminal.render_lines(progress._line(step, 100.0))
    assert len(line) == 1
    text = "".join(segment.text for segment in line[0])
    assert "loss 1.2345" in text and "left" in text and "…" not in text


def test_a_narrow_terminal_gets_fewer_columns():
    terminal = Console(width=40, force_terminal=True, color_system=None, file=io.StringIO())
    record = {
        "epoch": 1, "loss": 1.0, "accuracy": 0.5, "validation_loss": 1.0, "validation_accuracy": 0.75, "seconds": 2.0,
        "images": 100,
    }  # fmt: skip
    Progress(terminal, batch_size=64).epoch_ended(None, record)
    shown = terminal.file.getvalue().rstrip("\n")
    assert len(shown) <= 40 and "75.00 %" in shown and "2.0 s" in shown


def test_commands_to_copy_quote_the_folder(here):
    assert "tinytorch predict 'a b' PICTURE.png" in tinytorch("train", *SMALL, "--epochs", 1, "--out", "a b").stdout


@pytest.mark.parametrize("arguments", [("train", "MNIST"), ("train", "--model", "MLP")])
def test_names_in_capitals_get_the_hint(here, arguments):
    assert "did you mean 'm" in refused(*arguments)


def test_help_paragraphs_flow():
    text = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "100"}).stdout
    assert "one with a light border" in " ".join(text.split())
    assert not any(line.strip() == "one" for line in text.splitlines())


# ---- doctor -----------------------------------------------------------------------------------------------


def test_doctor_reports():
    report = json.loads(tinytorch("doctor", "--json").stdout)
    assert report["broken"] == []
    assert report["NumPy"] == np.__version__
    assert "bits" in report["vectors"]
    assert "CPU" in tinytorch("doctor").stdout


def test_doctor_names_what_can_be_mended(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    output = tinytorch("doctor").stdout
    assert "OMP_NUM_THREADS is 999" in output and "NUMBA_DISABLE_JIT is set" in output


def test_doctor_notices_wrong_kernels(monkeypatch):
    from tinytorch.core import functional

    monkeypatch.setattr(functional, "relu", lambda x: x)
    output = tinytorch("doctor", code=1).stdout
    assert "differs from its definition" in output


# ---- the program -------------------------------------------------------------------------------------------


def test_help_names_every_command():
    output = tinytorch("--help").stdout
    assert all(name in output for name in ("train", "evaluate", "predict", "compare", "doctor"))


def test_commands_load_nothing_heavy():
    heavy = {"matplotlib", "PIL", "safetensors", "pooch"}
    code = f"import sys, tinytorch.cli.main; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_python_m_tinytorch():
    environment = {**os.environ, "TERM": "dumb"}
    command = [sys.executable, "-m", "tinytorch", "train", "--epochs", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: epochs must be a positive integer, got 0; 1 is the least\n"


# ---- warmup -----------------------------------------------------------------------------------------------


def test_warmup_says_for_which_networks_it_is_ready():
    assert "ready for digits-cnn, resnet18-cifar after" in tinytorch("warmup", "digits-cnn", "resnet18-cifar").stdout


def test_warmup_refuses_an_unknown_network_before_it_compiles():
    assert "got 'resnet5'; did you mean 'resnet50'?" in tinytorch("warmup", "digits-cnn", "resnet5", code=2).stderr
