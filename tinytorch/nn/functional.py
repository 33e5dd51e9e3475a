"""Stateless operations, as PyTorch groups them: names only, their homes are in ``tinytorch.core``."""

from tinytorch.core.conv_ops import conv2d
from tinytorch.core.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    dropout,
    gelu,
    leaky_relu,
    linear,
    log_softmax,
    mse_loss,
    nll_loss,
    one_hot,
    pad,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    tanh,
)
from tinytorch.core.norm_ops import batch_norm
from tinytorch.core.pool_ops import adaptive_avg_pool2d, avg_pool2d, max_pool2d

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "cross_entropy",
    "dropout",
    "gelu",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "pad",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]
