"""`tinytorch bench conv` as a person runs it: tables, data, picture, and every error."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.test_operations_pages import wrong_examples
from tinytorch.analysis import race as room
from tinytorch.cli import console
from tinytorch.cli.bench import _SPEED, _WORK
from tinytorch.cli.main import app
from tinytorch.conv import planner
from tinytorch.conv.cost import cost
from tinytorch.conv.problem import ConvProblem
from tinytorch.io.race_plot import digits, draw_race, duration
from tinytorch.kernels import jit

PAGE = Path(__file__).parents[2] / "docs" / "race.md"
TEXT = "mb2ic3oc4_ih9kh3ph1"
PROBLEM = ConvProblem.parse(TEXT)
LARGE = "g2ic16oc16_ih40kh3ph1"  # of which the loops see a part


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(room, "_BLOCK", 0.0)
    monkeypatch.setattr(room, "_REST", 0.0)


def bench(*words: object, code: int = 0):
    result = CliRunner().invoke(app, ["bench", "conv", *map(str, words)])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def refused(*words: object) -> str:
    error = bench(*words, code=2).stderr
    assert error.startswith("Error: ") and error.count("\n") == 1
    return error


def answer(*words: object) -> list[dict]:
    output = bench(*words, "--rounds", 1, "--json").stdout
    assert output.count("\n") == 1
    return json.loads(output)["races"]


def test_json_has_everything():
    (race,) = answer(TEXT)
    assert race["problem"] == str(PROBLEM) and race["direction"] == "forward" and race["dtype"] == "float32"
    assert race["macs"] == 2 * 4 * 81 * 27 and race["threads"] == jit.workers()
    assert race["chosen"] == planner.plan(PROBLEM).algorithm and race["peak_flop_per_s"] > 0
    assert race["refused"] == {"depthwise": planner.ALGORITHMS["depthwise"].refuses(PROBLEM, "forward")}
    assert race["wrong"] == [] and race["reference_elements"] > 0
    by_name = {row["algorithm"]: row for row in race["algorithms"]}
    assert by_name.keys() == planner.ALGORITHMS.keys() - {"depthwise"}
    for name, row in by_name.items():
        counted = cost(PROBLEM, "forward", name, 4)
        assert (row["multiplies"], row["moved_bytes"]) == (counted.multiplies, counted.bytes)
        assert (row["scratch_bytes"], row["forms_bytes"]) == (counted.scratch, counted.forms)
        assert row["definition_flop_per_s"] == pytest.approx(2 * PROBLEM.macs / row["median_s"])
        assert row["speed_up_over_loops"] == pytest.approx(by_name["loops"]["median_s"] / row["median_s"])
        assert row["multiplies_saved"] == pytest.approx(PROBLEM.macs / row["multiplies"])


def test_all_directions_batch_and_type():
    races = answer(TEXT, "--direction", "all", "--batch", 3, "--dtype", "float64", "--algorithm", "direct")
    assert [race["direction"] for race in races] == ["forward", "input_grad", "weight_grad"]
    assert all(race["macs"] == 3 * 4 * 81 * 27 and race["dtype"] == "float64" for race in races)


@pytest.mark.parametrize(
    "words", [["--algorithm", "direct,im2col"], ["--algorithm", "im2col", "--algorithm", "direct"]]
)
def test_the_loops_always_take_part(words):
    (race,) = answer(TEXT, *words)
    assert {row["algorithm"] for row in race["algorithms"]} == {"direct", "im2col", "loops"} and race["refused"] == {}


def test_all_stands_for_all():
    (race,) = answer(TEXT, "--algorithm", "all")
    assert len(race["algorithms"]) == len(planner.ALGORITHMS) - 1


def test_threads_are_as_before_afterwards():
    before = jit.workers()
    (race,) = answer(TEXT, "--threads", 1, "--algorithm", "direct")
    assert race["threads"] == 1 and jit.workers() == before


def test_tables_are_narrow_and_say_what_they_mean():
    output = bench(LARGE, "--rounds", 1).stdout
    lines = output.splitlines()
    chosen = planner.plan(ConvProblem.parse(LARGE)).algorithm
    rows = [
        line for line in lines if line.split()[:1] and line.split()[0] in planner.ALGORITHMS and "left out" not in line
    ]
    assert len(rows) == 2 * 5 and all(len(row) <= 80 for row in rows)
    assert sum(f"{chosen} *" in row for row in rows) == 2
    assert "* the planner's choice. GFLOP/s: 2 FLOP for each of the 1,843,200 MACs of the definition" in output
    assert "≈ estimated: the loops, plain Python, were timed on" in output and "all MACs are " in output
    assert "winograd left out: it needs one group, not 2." in output
    assert "elements differ from the seven loops by" in output


def test_facts_fit_a_narrow_terminal(monkeypatch):
    narrow = Console(
        file=io.StringIO(), width=80, force_terminal=True, soft_wrap=True, highlight=False, color_system=None
    )
    wide = console.console
    monkeypatch.setattr(console, "console", lambda to_stderr=False: wide(True) if to_stderr else narrow)
    bench(LARGE, "--rounds", 1)
    lines = narrow.file.getvalue().splitlines()
    assert len(lines) > 15 and max(map(len, lines)) <= 80


def test_markdown_has_the_two_tables_of_every_direction():
    output = bench(TEXT, "--rounds", 1, "--algorithm", "direct", "--direction", "all", "--markdown").stdout
    assert [line for line in output.splitlines() if line.startswith("## ")] == [
        "## forward",
        "## input_grad",
        "## weight_grad",
    ]
    rows = [line for line in output.splitlines() if line.startswith("|")]
    assert [row.count("|") for row in rows] == 3 * (4 * [9] + 4 * [8])


def test_csv_is_read_by_others():
    output = bench(TEXT, "--rounds", 2, "--algorithm", "direct", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(output)))
    assert {row["algorithm"] for row in rows} == {"direct", "loops"}
    assert all(float(row["median_s"]) > 0 and row["problem"] == str(PROBLEM) for row in rows)


def test_what_is_wrong_is_said_and_the_code_is_1(monkeypatch):
    right = planner.ALGORITHMS["im2col"].forward
    monkeypatch.setattr(planner.ALGORITHMS["im2col"], "forward", lambda *args: right(*args) * 2)
    output = bench(TEXT, "--rounds", 1, "--algorithm", "im2col", code=1).stdout
    assert "WRONG: im2col does not compute what it should." in output


def test_the_picture_has_a_bar_each(tmp_path):
    path = tmp_path / "race.png"
    bench(LARGE, "--rounds", 1, "--algorithm", "direct,im2col", "--direction", "all", "--plot", path)
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert rgb.shape[1] > 800
    for colour in ((0x56, 0xB4, 0xE9), (0xBB, 0xBB, 0xBB)):
        assert (np.abs(rgb - colour).max(axis=2) < 3).sum() > 1000


def test_what_can_not_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"races must have at least one to draw, got none; run race"):
        draw_race(tmp_path / "a.png", [], "")
    race = room.race(PROBLEM, algorithms=["direct"], rounds=1)
    with pytest.raises(ValueError, match=r"path must end in .png, got .*a.svg; the picture is a PNG"):
        draw_race(tmp_path / "a.svg", [race], "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12345.6, "12,346 s"), (1.0, "1.00 s"), (0.9996, "1.00 s"), (0.0123, "12.3 ms"), (9.99e-4, "999 µs"), (5e-7, "0.500 µs")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (43622.4, "43,622"), (99.96, "100"), (1, "1.00"), (0.05123, "0.0512"), (1.9e-5, "1.9e-05")],
)
def test_digits(value, text):
    assert digits(value) == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ic3oc4"], "problem 'ic3oc4' does not say"),
        ([TEXT, "--algorithm", "wino"], "algorithm must be one of ['depthwise', "),
        ([TEXT, "--algorithm", "depthwise"], "algorithm 'depthwise' refuses the forward of"),
        ([TEXT, "--algorithm", "planar", "--direction", "all"], "algorithm 'planar' refuses the weight_grad of"),
        ([TEXT, "--direction", "backward"], "--direction must be one of forward, input_grad, weight_grad or all, got backward"),
        ([TEXT, "--dtype", "int8"], "--dtype must be float32 or float64, got int8"),
        ([TEXT, "--batch", 0], "problem must have at least one image, got"),
        ([TEXT, "--rounds", 0], "rounds must be at least 1, got 0"),
        ([TEXT, "--threads", 0], "count must be a whole number of threads from 1 to"),
        ([TEXT, "--json", "--csv"], "--json, --csv and --markdown exclude each other"),
        ([TEXT, "--plot", "race.svg"], "--plot must end in .png, got race.svg"),
    ],
)  # fmt: skip
def test_errors_teach(words, message):
    assert message in refused(*words)


# ---- the page -----------------------------------------------------------------------------------------


def test_the_page_counts_as_the_code_does():
    page = PAGE.read_text()
    problem = ConvProblem.parse("g1ic64oc64_ih56kh3ph1")
    assert f"{64 * 56 * 56 * 64 * 9:,}" in page and problem.macs == 64 * 56 * 56 * 64 * 9
    tables = page.split("| algorithm | ")[1:]
    rows = [
        [cell.replace("\\*", "").strip() for cell in line.split("|")[1:-1]]
        for line in tables[1].split("\n\n")[0].splitlines()[2:]
    ]
    assert {row[0] for row in rows} == planner.ALGORITHMS.keys() - {"depthwise"}
    for name, multiplies, saved, moved, *_ in rows:
        counted = cost(problem, "forward", name, 4)
        assert multiplies == f"{digits(counted.multiplies / 1e6)} million"
        assert saved == f"{problem.macs / counted.multiplies:.2f}×"
        assert moved == f"{digits(counted.bytes / 1e6)} MB"


def test_the_page_names_every_column_and_its_examples_are_right():
    page = PAGE.read_text()
    for header in (*_SPEED, *_WORK):
        assert header in page
    assert wrong_examples(page) == []
