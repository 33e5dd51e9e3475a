"""The figures that docs/other-tools.md counted are those of the summary, network by network."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def load():
    spec = importlib.util.spec_from_file_location("compare_tools_ours", DOCS / "compare_tools_ours.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counted(heading):
    """Truth by network, from the table under a heading of the page."""
    section = (DOCS / "other-tools.md").read_text().split(f"\n## {heading}\n")[1]
    table = section[section.index("| network | truth |") :].split("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines()]
    return {name.strip(): int(truth.replace(",", "")) for name, truth in rows[2:]}


@pytest.fixture(scope="module")
def figures():
    return load().figures()


@pytest.mark.parametrize(("heading", "figure"), [("MACs", "macs"), ("Parameters", "parameters")])
def test_the_summary_agrees_with_the_page(figures, heading, figure):
    truths = counted(heading)
    assert len(truths) == 10
    assert {name: figures[name][figure] for name in figures} == truths
