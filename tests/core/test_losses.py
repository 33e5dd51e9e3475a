"""Loss modules: the numbers are tested in test_functional; here that every argument arrives."""

import numpy as np
import pytest

from tests.oracle.torch_twin import compare
from tinytorch.core.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from tinytorch.core.tensor import Tensor

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("kwargs", [{}, {"reduction": "sum"}, {"reduction": "none"}])
def test_elementwise_losses_as_torch(kwargs):
    torch = pytest.importorskip("torch")
    x, y = RNG.standard_normal((4, 3)), RNG.random((4, 3))
    compare(MSELoss(**kwargs), torch.nn.MSELoss(**kwargs), x, y)
    compare(BCEWithLogitsLoss(**kwargs), torch.nn.BCEWithLogitsLoss(**kwargs), x, y)


@pytest.mark.parametrize(
    "kwargs", [{}, {"reduction": "sum"}, {"label_smoothing": 0.1}, {"ignore_index": 2, "reduction": "none"}]
)
def test_cross_entropy_as_torch(kwargs):
    torch = pytest.importorskip("torch")
    x, labels = RNG.standard_normal((8, 3)), RNG.integers(0, 3, 8)
    ours, theirs = CrossEntropyLoss(**kwargs), torch.nn.CrossEntropyLoss(**kwargs)
    compare(lambda t: ours(t, Tensor(labels)), lambda t: theirs(t, torch.tensor(labels)), x)


def test_losses_have_no_parameters():
    assert MSELoss().parameters() == CrossEntropyLoss().parameters() == BCEWithLogitsLoss().parameters() == []
