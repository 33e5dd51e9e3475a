"""Write docs/agreement.md: python -m tests.agreement > docs/agreement.md"""

from collections.abc import Callable, Iterable, Sequence

import onnx
import torch

from tests.agreement import onnx_nodes, torch_modules, torch_op_db
from tests.agreement.torch_calls import DTYPES
from tests.agreement.trials import Difference, Trial, table

TEXT = f"""# Agreement with others' own tests

PyTorch and the ONNX project publish the inputs that their own tests run. `tests/agreement/` runs them here, and these tables count what
came of it; `python -m tests.agreement` prints them. A case *agrees* if its results are those of the other side: shapes, dtypes, and values
to 10⁻⁵ of the largest (float64: 10⁻¹¹). A case that must give an error agrees if it gives one here, which names the argument or quotes
its value. The last column says what the other cases do, and why that is meant. The list of meant differences is part of the tests: a
difference that is not on it fails them, and so does one on it that is no longer there.

Made with PyTorch {torch.__version__.partition("+")[0]} and ONNX {onnx.__version__}.
"""

OP_DB = """## PyTorch's operator database

Every sample input of `torch.testing._internal.common_methods_invocations.op_db` for the functions of this family, in float32 and float64:
results, arguments after the call (running statistics), and the gradients of Σ result · random with respect to every input. In float64 the
inputs lie in memory channels last. Not built: {absent}. The database has no fold and no lp_pool.
"""

OP_DB_ERRORS = """### Inputs that must give an error
"""

MODULES = """## PyTorch's module database

Every input of `torch.testing._internal.common_modules.module_db` for the layers of this family, in float32 and float64, in training and in
evaluation, with PyTorch's random parameters loaded: results, parameters and buffers after the call, and the gradients of Σ result · random
with respect to inputs and parameters.
"""

ONNX = """## The ONNX project's node tests

Every one-node model of `onnx.backend.test` for these operators. A function in `tests/agreement/onnx_nodes.py` carries a node's attributes
over to our functions' arguments; what has no spelling there is *not expressible*. Outputs only, in float32.
"""


def section(text: str, trials: Iterable[Trial], differences: Sequence[Difference]) -> list[str]:
    """One table under its text."""
    return [*text.split("\n"), *table(list(trials), differences), ""]


def both(names: Iterable[str], trials: Callable[[str, str], list[Trial]]) -> Iterable[Trial]:
    """The trials of both precisions, op by op."""
    return (trial for name in names for dtype in DTYPES for trial in trials(name, dtype))


def errors(names: Iterable[str], trials: Callable[[str], list[Trial]]) -> Iterable[Trial]:
    return (trial for name in names for trial in trials(name))


def page() -> list[str]:
    """The lines of docs/agreement.md."""
    absent = ", ".join(torch_op_db.ABSENT)
    samples = both(torch_op_db.OPS, torch_op_db.sample_trials)
    bad_samples = errors(torch_op_db.OPS, torch_op_db.error_trials)
    modules = both(torch_modules.MODULES, torch_modules.trials)
    bad_modules = errors(torch_modules.MODULES, torch_modules.error_trials)
    return [
        *TEXT.split("\n"),
        *section(OP_DB.format(absent=absent), samples, torch_op_db.DIFFERENCES),
        *section(OP_DB_ERRORS, bad_samples, torch_op_db.ERROR_DIFFERENCES),
        *section(MODULES, modules, torch_modules.DIFFERENCES),
        *section(OP_DB_ERRORS, bad_modules, torch_modules.ERROR_DIFFERENCES),
        *section(ONNX, errors(onnx_nodes.OPERATORS, onnx_nodes.trials), onnx_nodes.DIFFERENCES),
    ]


if __name__ == "__main__":
    print(*page(), sep="\n")
