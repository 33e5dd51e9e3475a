"""The pages of docs/operations hold what they say: examples are run, arithmetic is done, defaults are looked up."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import math
import re
import runpy
from fractions import Fraction
from pathlib import Path

import pytest

from tinytorch import nn
from tinytorch.nn import functional as F

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted((DOCS / "operations").glob("*.md"))
PICTURES = sorted((DOCS / "images" / "operations").glob("*"))
OPERATIONS = [page for page in PAGES if page.stem != "index"]

of_each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
of_operations = pytest.mark.parametrize("page", OPERATIONS, ids=lambda page: page.stem)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


# ---- examples -------------------------------------------------------------------------------------------


def wrong_examples(text: str) -> list[str]:
    """What examples print other than they say; also that they say nothing."""
    names: dict = {}
    wrong, said = [], 0
    for block in blocks(text, "python"):
        for statement, expected in steps(block):
            printed = run(statement, names)
            said += len(expected)
            if expected and printed != expected:
                wrong.append(f"{statement}: {printed} in place of {expected}")
    return wrong if said else ["no example says what it prints"]


def steps(block: str) -> list[tuple[str, list[str]]]:
    """Statements, each with what is expected of it: the lines "# → …" that follow."""
    lines, body = block.splitlines(), ast.parse(block).body
    ends = [node.lineno - 1 for node in body[1:]] + [len(lines)]
    return [
        (
            "\n".join(lines[node.lineno - 1 : node.end_lineno]),
            [line.removeprefix("# → ") for line in lines[node.end_lineno : end] if line.startswith("# →")],
        )
        for node, end in zip(body, ends, strict=True)
    ]


def run(statement: str, names: dict) -> list[str]:
    """Lines that a statement prints; an expression prints its value."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(statement, "<page>", "single"), names)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
    return out.getvalue().splitlines()


@of_operations
def test_examples_print_what_the_page_says(page):
    assert wrong_examples(page.read_text()) == []


def test_wrong_examples_are_found():
    assert wrong_examples("```python\nx = 2\nx + 1\n# → 3\n```\n") == []
    assert wrong_examples("```python\nx = 2\nx + 1\n# → 4\n```\n") == ["x + 1: ['3'] in place of ['4']"]
    assert wrong_examples("```python\n1 / 0\n# → 4\n```\n")[0].startswith("1 / 0: ['ZeroDivisionError")
    assert wrong_examples("```python\nx = 2\n```\n") == ["no example says what it prints"]


# ---- arithmetic -----------------------------------------------------------------------------------------

SIGNS = {
    "·": "*",
    "×": "*",
    "−": "-",
    "⌊": "floor(",
    "⌋": ")",
    "⌈": "ceil(",
    "⌉": ")",
    "²": "**2",
    "³": "**3",
    "√": "sqrt",
}


def value(expression: str) -> Fraction | float:
    for sign, meaning in SIGNS.items():
        expression = expression.replace(sign, meaning)
    expression = re.sub(r"\d[\d,]*(\.\d+)?", lambda number: f"F('{number[0].replace(',', '')}')", expression)
    expression = re.sub(r"\*\*F\('(\d)'\)", r"**\1", expression)
    return eval(expression.strip(), {"F": Fraction, "floor": math.floor, "ceil": math.ceil, "sqrt": math.sqrt})


def wrong_arithmetic(text: str) -> list[str]:
    """Lines whose sides differ; "≈" means to the digits that are written. What follows three spaces is a remark."""
    lines = [line for block in blocks(text, "arithmetic") for line in block.splitlines() if line.strip()]
    wrong = [line for line in lines if not holds(line.split("   ")[0])]
    return wrong if lines else ["no arithmetic"]


def holds(line: str) -> bool:
    sides = re.split(r"([=≈])", line)
    if len(sides) < 3:
        return False
    first = value(sides[0])
    return all(
        same(value(side), first)
        if sign == "="
        else round(float(first), len(side.strip().partition(".")[2])) == float(value(side))
        for sign, side in zip(sides[1::2], sides[2::2], strict=True)
    )


def same(one: Fraction | float, other: Fraction | float) -> bool:
    return one == other or (isinstance(other, float) and float(one) == other)  # a root is not a fraction


@of_operations
def test_arithmetic_is_right(page):
    assert wrong_arithmetic(page.read_text()) == []


def test_wrong_arithmetic_is_found():
    right = "⌊(7 + 1 + 1 − 2·(3 − 1) − 1) / 2⌋ + 1 = 3   rows\n2,000 × 3² = 18,000\n1 / 3 ≈ 0.33\n2 / √(4) = 1"
    assert wrong_arithmetic(f"```arithmetic\n{right}\n```\n") == []
    for line in ("⌈7 / 2⌉ = 3", "1 / 3 ≈ 0.34", "1 / 3 = 0.33", "2 + 2"):
        assert wrong_arithmetic(f"```arithmetic\n{line}\n```\n") == [line]
    assert wrong_arithmetic("nothing") == ["no arithmetic"]


# ---- options --------------------------------------------------------------------------------------------


def tables(text: str) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """For each table of options whose it is, and by option its default and what is said of PyTorch."""
    found = []
    for name, body in re.findall(r"^\| `(\w+)` \| default \|[^\n]*\n\|[-| ]+\n((?:\|[^\n]*\n)+)", text, re.M):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
        options = {
            option: (default.strip("`"), remark)
            for cell, default, remark in rows
            for option in re.findall(r"`(\w+)`", cell)
        }
        found.append((name, options))
    return found


def defaults(function) -> dict[str, str]:
    """Of each argument but tensors; "required" where there is none."""
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: "required" if p.default is p.empty else repr(p.default)
        for p in parameters
        if p.name not in ("input", "device", "dtype", "inplace")
    }


@of_operations
def test_tables_name_every_option_and_its_default(page):
    found = tables(page.read_text())
    assert found
    for name, options in found:
        function = getattr(nn, name, None) or getattr(F, name)
        assert {option: default for option, (default, _) in options.items()} == defaults(function), name


@of_operations
def test_what_is_as_in_pytorch_and_what_is_not(page):
    torch = pytest.importorskip("torch")
    for name, options in tables(page.read_text()):
        peer = getattr(torch.nn, name, None) or getattr(torch.nn.functional, name)
        theirs = defaults(peer)
        claimed = {option: default for option, (default, remark) in options.items() if remark.startswith("as PyTorch")}
        assert claimed == {option: theirs.get(option) for option in claimed}, name
        ours_alone = {option for option, (_, remark) in options.items() if remark.startswith("beyond PyTorch")}
        assert ours_alone == set(options) - set(theirs), name
        assert set(theirs) <= set(options), name


# ---- pictures and links ---------------------------------------------------------------------------------


@of_each
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", page.read_text())
    assert links
    assert [link for link, _ in links if not (page.parent / link).exists()] == []
    assert [anchor for link, anchor in links if anchor and anchor not in headings(page.parent / link)] == []


def headings(page: Path) -> list[str]:
    """Headings, as links name them."""
    return [
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)", page.read_text(), re.M)
    ]


def test_pictures_are_used_and_small():
    text = "".join(page.read_text() for page in PAGES)
    assert PICTURES
    assert [picture.name for picture in PICTURES if f"(../images/operations/{picture.name})" not in text] == []
    assert [picture.name for picture in PICTURES if picture.stat().st_size >= 60_000] == []


def test_pictures_are_drawn_by_the_library(tmp_path):
    runpy.run_path(str(DOCS / "make_pictures.py"))["main"](tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [picture.name for picture in PICTURES]


def test_every_page_is_in_the_index():
    index = (DOCS / "operations" / "index.md").read_text()
    assert [page.name for page in OPERATIONS if f"({page.name})" not in index] == []
    assert "operations/index.md" in (DOCS / "reading.md").read_text()
