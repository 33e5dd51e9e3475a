"""Every input of PyTorch's module database gives the same results and gradients here, every error input an error."""

import pytest

pytest.importorskip("torch")

from tests.agreement import torch_modules as db
from tests.agreement.torch_calls import DTYPES
from tests.agreement.trials import check


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", db.MODULES)
def test_inputs_agree(name, dtype):
    check(db.trials(name, dtype), db.DIFFERENCES)


@pytest.mark.parametrize("name", [name for name, info in db.MODULES.items() if info.module_error_inputs_func])
def test_error_inputs_are_refused(name):
    check(db.error_trials(name), db.ERROR_DIFFERENCES)
