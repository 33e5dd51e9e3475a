"""The house rules that a reader relies on: imports go down, and each noun stays in its room."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tinytorch"
STOREYS = ["kernels", "conv", "core", ("nn", "optim"), "models", "analysis", "recipes", ("datasets", "io"), "cli"]
LEVEL = {
    room: level for level, storey in enumerate(STOREYS) for room in ([storey] if isinstance(storey, str) else storey)
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str | None:
    """First folder below the package; None for the package's own files."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else None


def imported_rooms(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "tinytorch" and len(parts) > 1 and parts[1] in LEVEL:
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    here = room(path)
    if here is None:
        return
    above = {other for other in imported_rooms(path) if LEVEL[other] > LEVEL[here]}
    assert not above, f"{path.name} is in {here} and imports from above: {above}"


def files_with(pattern: str) -> set[str]:
    expression = re.compile(pattern)
    return {
        str(p.relative_to(PACKAGE))
        for p in FILES
        if any(expression.search(line) for line in p.read_text().splitlines())
    }


def test_each_noun_has_its_room():
    assert files_with(r"\bllvmlite import ir\b") == {"kernels/emit.py"}
    assert files_with(r"\bnjit\(") == {"kernels/jit.py"}
    assert all(name.startswith(("cli/",)) for name in files_with(r"^\s*print\("))
    assert all(
        name.startswith(("datasets/", "io/", "cli/"))
        for name in files_with(r"\bopen\(|https?://[a-z0-9.-]+/[^\s]*\.(gz|zip)")
    )
    assert all(not name.startswith(("kernels/", "conv/")) for name in files_with(r"\bTensor\("))


def test_nn_and_optim_only_re_export():
    for path in [*PACKAGE.glob("nn/*.py"), *PACKAGE.glob("optim/*.py")]:
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.Expr) for node in body), path


def test_no_pickle_anywhere():
    assert files_with(r"\bimport pickle\b|\bpickle\.load|allow_pickle=True") == set()
