"""Differentiable normalisation; the arithmetic is done in ``tinytorch.kernels.norm``."""

from __future__ import annotations

import numpy as np

from tinytorch.conv.pack import channels_last, empty_channels_last
from tinytorch.core.autograd import record
from tinytorch.core.images import UNBOUNDED, Bounds, check_images, rows_of
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import elementwise, norm


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    bounds: Bounds = UNBOUNDED,
) -> Tensor:
    """Normalise every channel to mean 0 and variance 1, then scale and shift it.

    ``y = weight · (x − mean) / √(var + eps) + bias``, per channel. In training the mean and the (biased) variance are
    those of the batch, and the running statistics move towards the mean and the unbiased variance by ``momentum``, in
    place; otherwise the running statistics themselves are used. S. Ioffe, C. Szegedy, "Batch Normalization", 2015,
    algorithms 1 and 2.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    running_mean, running_var : Tensor, shape (C,)
    weight, bias : Tensor, shape (C,)
        Scale (gamma) and shift (beta).
    residual : Tensor, optional
        Of the shape of x; added to the result.
    bounds : (floor, ceiling)
        That the result, with the residual, is clipped to; (0, ∞) is a ReLU.

    Raises
    ------
    ValueError
        If the channels do not match, or training has a single value per channel to take statistics of.
    """
    check_images("batch_norm", x)
    if weight.shape != (x.shape[1],):
        raise ValueError(
            f"Expected {weight.size} channels, got input {x.shape} with {x.shape[1]}; "
            f"build BatchNorm2d(num_features={x.shape[1]})"
        )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual must have the shape of x, {x.shape}, got {residual.shape}")
    rows = rows_of(channels_last(x.array))
    if training:
        mean, var = _batch_statistics(rows, x.shape)
        _move(running_mean, mean, momentum)
        _move(running_var, var * (len(rows) / (len(rows) - 1)), momentum)
    else:
        mean, var = running_mean.array.astype(np.float64), running_var.array.astype(np.float64)
    inverse_std = 1 / np.sqrt(var + eps)
    scale = weight.array * inverse_std
    y = empty_channels_last(x.shape, x.dtype)
    extra = None if residual is None else rows_of(channels_last(residual.array.astype(x.dtype, copy=False)))
    norm.scale_shift(rows, mean, scale, bias.array, rows_of(y), extra, bounds)
    clipped = None if bounds == UNBOUNDED else y

    def backward(grad: np.ndarray):
        grad = channels_last(grad)
        if clipped is not None:
            grad = elementwise.bounded_grad(grad, clipped, *bounds)
        dy = rows_of(grad)
        d_bias, d_weight = norm.gradient_sums(dy, rows, mean, inverse_std)
        dx = empty_channels_last(grad.shape, grad.dtype)
        through = scale / len(rows) if training else np.zeros_like(scale)  # frozen statistics do not depend on x
        norm.combine(dy, rows, mean, scale, -through * inverse_std * d_weight, -through * d_bias, rows_of(dx))
        return (dx, d_weight, d_bias) if residual is None else (dx, d_weight, d_bias, grad)

    return record(y, (x, weight, bias) if residual is None else (x, weight, bias, residual), backward)


def _batch_statistics(rows: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if len(rows) < 2:
        raise ValueError(
            f"BatchNorm in training needs more than one value per channel to take statistics of, got input {shape}; "
            "use a larger batch, or model.eval() to use the running statistics"
        )
    return norm.channel_moments(rows)


def _move(running: Tensor, value: np.ndarray, momentum: float) -> None:
    """Exponential moving average, in place."""
    running.data[...] = (1 - momentum) * running.data + momentum * value
