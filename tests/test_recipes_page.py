"""docs/recipes.md holds what it says: examples are run, arithmetic is done, every file and name exists."""

import re
from pathlib import Path

from tests.test_operations_pages import wrong_arithmetic, wrong_examples
from tinytorch import nn, optim
from tinytorch.core import dataloader, training

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
TEXT = PAGE.read_text()


def test_examples_print_what_the_page_says():
    assert wrong_examples(TEXT) == []


def test_arithmetic():
    assert wrong_arithmetic(TEXT) == []


def test_links_lead_somewhere():
    links = re.findall(r"\]\((\.\./[^)]+)\)", TEXT)
    assert len(links) >= 2 and all((PAGE.parent / link).exists() for link in links)


def test_the_table_names_what_exists():
    table = TEXT.split("| trick |")[1].split("\n\n")[0]
    doors = {"nn": nn, "optim": optim, "training": training}
    names = re.findall(r"`([A-Za-z_.]+)[`(]", table)
    assert len(names) >= 10
    for name in names:
        *path, last = name.split(".")
        place = doors[path[0]] if path else next(d for d in (nn, optim, dataloader) if hasattr(d, last))
        for step in path[1:]:
            place = getattr(place, step)
        assert hasattr(place, last), name
