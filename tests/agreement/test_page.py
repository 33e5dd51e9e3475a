"""The tables of docs/agreement.md are those of this commit. After the other tests of this folder it costs nothing."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from tests.agreement.__main__ import page

PAGE = Path(__file__).parents[2] / "docs" / "agreement.md"


def test_page_is_current():
    committed, current = PAGE.read_text().rstrip().splitlines(), "\n".join(page()).rstrip().splitlines()
    made_with = next(line for line in committed if line.startswith("Made with"))
    if made_with not in current:
        pytest.skip(f"the page says {made_with!r}, and other versions are installed")
    assert current == committed
