"""Normalisation as layers."""

from __future__ import annotations

import numpy as np

from tinytorch.core.images import UNBOUNDED, Bounds, feature_maps
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.norm_ops import batch_norm
from tinytorch.core.tensor import Tensor


class BatchNorm2d(Module):
    """Normalise every channel over the batch and the image, then scale and shift it by learned amounts.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float
        How far the running statistics move towards those of each batch.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,)
        Scale and shift, which the pages call ``gamma`` and ``beta``; they start at 1 and 0.
    running_mean, running_var, num_batches_tracked : Tensor
        Buffers, used in place of the batch's statistics after ``eval()``.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.num_features = feature_maps("num_features", num_features)
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}; it keeps a constant channel from dividing by zero")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}; 0.1 averages over about ten batches")
        self.eps, self.momentum = eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.register_buffer("running_mean", Tensor(np.zeros(num_features, np.float32)))
        self.register_buffer("running_var", Tensor(np.ones(num_features, np.float32)))
        self.register_buffer("num_batches_tracked", Tensor(np.zeros((), np.int64)))

    @property
    def gamma(self) -> Parameter:
        """The scale, by its name in the pages."""
        return self.weight

    @property
    def beta(self) -> Parameter:
        """The shift, by its name in the pages."""
        return self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, num_features, H, W)."""
        return self.normalise(x)

    def normalise(self, x: Tensor, residual: Tensor | None = None, bounds: Bounds = UNBOUNDED) -> Tensor:
        """`forward`, then add a residual and clip, in the same pass over memory."""
        y = batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
            residual=residual,
            bounds=bounds,
        )
        if self.training:
            self.num_batches_tracked.data += 1
        return y

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
