"""The many sizes that these tests compile are kept apart from the library's, whose index would grow long."""

from pathlib import Path

import numba
import pytest


@pytest.fixture(autouse=True, scope="package")
def own_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "CACHE_DIR", str(Path(__file__).parent / "__pycache__"))
        yield
