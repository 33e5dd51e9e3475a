"""Losses as modules: called with predictions and targets they return one number to minimise."""

from __future__ import annotations

from tinytorch.core import functional as F
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor


class MSELoss(Module):
    """Mean squared error.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return F.mse_loss(input, target, self.reduction)


class CrossEntropyLoss(Module):
    """Cross entropy of logits (N, C, …) and integer classes (N, …); see `functional.cross_entropy`.

    Parameters
    ----------
    ignore_index : int
        Label of positions that do not count.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        Share of the target distribution that is spread over all classes.
    """

    def __init__(self, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare logits, without a softmax before, with classes."""
        return F.cross_entropy(input, target, self.ignore_index, self.reduction, self.label_smoothing)


class BCEWithLogitsLoss(Module):
    """Binary cross entropy of logits and targets in [0, 1], both of one shape.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compare logits with targets."""
        return F.binary_cross_entropy_with_logits(input, target, self.reduction)
