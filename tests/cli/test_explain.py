"""`tinytorch explain` as a person runs it, and its page."""

import json
import re
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.test_operations_pages import blocks, headings, wrong_examples
from tinytorch.analysis import explain
from tinytorch.cli import console
from tinytorch.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"

EVERY = [
    ("conv --input 32,3,128,128 --out 64 --kernel 5 --stride 2 --padding 2", lambda: explain.conv((32, 3, 128, 128), 64, 5, 2, 2)),
    ("conv --input 1x4x9 --out 8 --kernel 3 --padding 0:1 --dilation 2 --groups 2 --no-bias --dtype float64", lambda: explain.conv((1, 4, 9), 8, 3, 1, ((0, 1),), 2, 2, False, "float64")),
    ("conv --input 1,4,9,8 --out 8 --kernel 3,2 --stride 2,1 --padding same", lambda: explain.conv((1, 4, 9, 8), 8, (3, 2), (2, 1), "same")),
    ("conv-transpose --input 1,4,9,8 --out 2 --kernel 3 --stride 2 --padding 1 --output-padding 1,0 --groups 2 --dilation 2 --no-bias", lambda: explain.conv_transpose((1, 4, 9, 8), 2, 3, 2, 1, (1, 0), 2, False, 2)),
    ("pool --input 1,4,9,9 --kernel 2", lambda: explain.pool((1, 4, 9, 9), 2)),
    ("pool --input 1,4,9,9 --kernel 3 --stride 2 --padding 1 --dilation 1 --ceil-mode --avg", lambda: explain.pool((1, 4, 9, 9), 3, 2, 1, 1, True, "avg")),
    ("batchnorm --input 1,4,9,9 --no-affine --no-track", lambda: explain.batchnorm((1, 4, 9, 9), False, False)),
    ("linear --input 2,7 --out 5 --no-bias", lambda: explain.linear((2, 7), 5, False)),
    ("stack 'conv3 pool2' --input 1,3,8,8 --dense 10 --dtype float64", lambda: explain.stack("conv3 pool2", (1, 3, 8, 8), 10, "float64")),
    ("window '1 2, -3 4' '1 0; 0 1'", lambda: explain.window([[1, 2], [-3, 4]], [[1, 0], [0, 1]])),
]  # fmt: skip
of_every = pytest.mark.parametrize(("words", "explanation"), EVERY, ids=[words.split(" --")[0] for words, _ in EVERY])


def run(words: str, code: int = 0):
    result = CliRunner().invoke(app, ["explain", *shlex.split(words)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@of_every
def test_json_holds_every_answer(words, explanation):
    output = run(f"{words} --json").stdout
    answer = json.loads(output)
    assert output.count("\n") == 1
    expected = explanation()
    assert (answer["layer"], answer["given"]) == (expected.layer, expected.given)
    numbers = {a["name"]: a["number"] for question in answer["questions"] for a in question["answers"]}
    assert numbers == {name: listed(expected[name].number) for name in numbers} and numbers


def listed(number):
    return list(number) if isinstance(number, tuple) else number


@of_every
def test_every_answer_is_printed(words, explanation):
    output, expected = " ".join(run(words).stdout.split()), explanation()
    for question in expected.questions:
        assert question.title in output
        for answer in question.answers:
            for part in (answer.question, answer.formula, *answer.substituted, f"→ {answer.value}", answer.note):
                assert " ".join(part.split()) in output


@of_every
def test_markdown_is_well_formed(words, explanation):
    output, expected = run(f"{words} --markdown").stdout, explanation()
    assert output.startswith(f"## `{expected.layer}`\n") and output.count("```") % 2 == 0
    assert [f"### {n}. {q.title}" in output for n, q in enumerate(expected.questions, 1)] == [True] * len(
        expected.questions
    )
    rows = [line.count("|") for line in output.splitlines() if line.startswith("|")]
    assert len(set(rows)) == (1 if "stack" in words else 0)


@pytest.mark.parametrize("width", [60, 80, 120])
@of_every
def test_lines_fit_the_terminal(monkeypatch, words, explanation, width):
    monkeypatch.setattr(console, "Console", lambda **options: Console(**options, width=width, force_terminal=True))
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in run(words).stdout.splitlines()]
    assert [line for line in lines if len(line) > width] == []
    assert not any("…" in line for line in lines) and any("→" in line for line in lines)


def test_what_is_piped_has_no_escapes_and_no_spaces_at_the_end():
    output = run(EVERY[0][0]).stdout + run(EVERY[-2][0]).stdout
    assert "\x1b" not in output and not re.search(r" $", output, re.M)


def test_long_equations_break_in_front_of_the_sign(monkeypatch):
    monkeypatch.setattr(console, "Console", lambda **options: Console(**options, width=60, force_terminal=True))
    lines = re.sub(r"\x1b\[[\d;]*m", "", run(EVERY[0][0]).stdout).splitlines()
    start = next(n for n, line in enumerate(lines) if "H_out = W_out" in line)
    assert lines[start : start + 3] == [
        "     H_out = W_out = ⌊(128 + 2·2 − 5) / 2⌋ + 1",
        "       = ⌊127 / 2⌋ + 1 = ⌊63.5⌋ + 1 = 63 + 1 = 64",
        "     → (32, 64, 64, 64)",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("conv --input a,b --out 1 --kernel 3", "--input must be whole numbers with commas between them, got 'a,b'"),
        ("conv --input 1,1,8,8 --out 1 --kernel 3.5", "--kernel must be whole numbers"),
        ("conv --input 1,1,8,8 --out 1 --kernel 3 --padding 1:1,2", "--padding must have before:after for every axis"),
        ("conv --input 1,1,8,8 --out 1 --kernel 3 --padding full", "padding must be integers, 'same'"),
        ("conv --input 1,1,2,8 --out 1 --kernel 3", "along the height the kernel spans 3 pixels"),
        ("conv --input 1,1,8,8 --out 1 --kernel 3 --json --markdown", "--json and --markdown must not both be given"),
        ("conv-transpose --input 1,1,8 --out 1 --kernel 3 --output-padding x", "--output-padding must be whole numbers"),
        ("pool --input 1,1,8,8 --kernel 3 --padding 2", "padding must be at most half the kernel"),
        ("stack 'conv3 cnv3'", "word 2 of the stack, 'cnv3', begins with no layer"),
        ("window '1 a' '1'", "image must be rows of whole numbers, got '1 a'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_paragraph(words, message):
    error = run(words, code=2).stderr
    assert message in error and error.startswith("Error: ") and error.count("\n") == 1


def test_help_names_every_command():
    output = CliRunner().invoke(app, ["explain", "--help"]).stdout
    assert all(name in output for name in ("conv", "conv-transpose", "pool", "batchnorm", "linear", "stack", "window"))


# ---- the page -----------------------------------------------------------------------------------------------


def wrong_commands(text: str) -> list[str]:
    """Commands that print other than the page says; a line "…" stands for any lines."""
    wrong = []
    for block in blocks(text, "console"):
        command, _, expected = block.partition("\n")
        pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line) + r"\n" for line in expected.splitlines())
        if not re.fullmatch(pattern, run(command.removeprefix("$ tinytorch explain ")).stdout):
            wrong.append(command)
    return wrong if blocks(text, "console") else ["no commands"]


def test_commands_print_what_the_page_says():
    assert wrong_commands(PAGE.read_text()) == []


def test_wrong_commands_are_found():
    command = "$ tinytorch explain linear --input 1,2 --out 3 --no-bias"
    assert wrong_commands(f"```console\n{command}\n…\n     → 6 parameters\n…\n```\n") == []
    assert wrong_commands(f"```console\n{command}\n…\n     → 7 parameters\n…\n```\n") == [command]
    assert wrong_commands("") == ["no commands"]


def test_the_page_is_right_about_python_links_and_options():
    text = PAGE.read_text()
    assert wrong_examples(text) == []
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert links and [link for link in links if not (PAGE.parent / link).exists()] == []
    assert "options" in headings(PAGE)
    for name, options in re.findall(r"^\| `([\w-]+)` \| (.*--.*) \|$", text, re.M):
        shown = run(f"{name} --help").stdout
        assert [option for option in re.findall(r"`(--[\w-]+)`", options) if option not in shown] == []


def test_the_page_corrects_every_figure():
    text = PAGE.read_text()
    for figure in (
        "2,774,532,096", "3,699,376,128", "822,083,584 B = 822 MB = 784 MiB", "411,041,792 B = 411 MB = 392 MiB", "5,376",
        "12,845,056 B = 12.8 MB = 12.25 MiB", "3,211,264 B", "quadratic in the side", "⌊111.5⌋ + 1 = 112", "111; 112 pixels give 55",
        "corner 4, edge 6, inside 9", "2.78", "49 / 9 ≈ 5.4", "many minutes", "18,432", "18,496", "5,088", "25,578",
        "only where H·W = 1", "cuts the graph", "17 in the newer pages; milestone 04",
    ):  # fmt: skip
        assert figure in text, figure
