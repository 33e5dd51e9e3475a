"""Every sample of PyTorch's operator database gives the same results and gradients here, every error input an error."""

import pytest

torch = pytest.importorskip("torch")

from tests.agreement import torch_op_db as db  # noqa: E402
from tests.agreement.torch_calls import DTYPES  # noqa: E402
from tests.agreement.trials import check  # noqa: E402
from tinytorch import nn  # noqa: E402


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", db.OPS)
def test_samples_agree(name, dtype):
    check(db.sample_trials(name, dtype), db.DIFFERENCES)


@pytest.mark.parametrize("name", [name for name, op in db.OPS.items() if op.error_inputs_func])
def test_error_inputs_are_refused(name):
    check(db.error_trials(name), db.ERROR_DIFFERENCES)


def test_the_family_is_whole():
    """Every public function of the family in PyTorch is run, or known to be absent here or there."""
    public = {name for name in dir(torch.nn.functional) if name[0] != "_" and db.is_family(name)}
    aliases = {name for name in public if name.endswith("_with_indices") or name.startswith("native_")}
    run = {db.bare(op) for op in db.OPS.values()}
    assert public - aliases == (run & public) | set(db.ABSENT) | db.UNKNOWN
    assert not run & (set(db.ABSENT) | db.UNKNOWN)


def test_absent_functions_are_absent():
    assert not [name for name in db.ABSENT if hasattr(nn.functional, name)]
