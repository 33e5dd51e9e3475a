"""How fast is it? Every figure is a ratio against a peer, both timed in one run: ``python -m benchmarks --help``."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def optional(package: str) -> Any:
    """The package, or None where it is not installed."""
    return import_module(package) if find_spec(package) else None
