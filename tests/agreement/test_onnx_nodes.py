"""Every node test of the ONNX project that our functions can express gives the stored outputs."""

import pytest

pytest.importorskip("onnx")

from tests.agreement import onnx_nodes
from tests.agreement.trials import check


@pytest.mark.parametrize("op", onnx_nodes.OPERATORS)
def test_nodes_agree(op):
    check(onnx_nodes.trials(op), onnx_nodes.DIFFERENCES)
