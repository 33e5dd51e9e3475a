"""Stateless operations on tensors: activations, linear and losses, each beside its backward.

Names and semantics are those of torch.nn.functional. Losses are computed from the logits in one step, with
the largest logit subtracted first, so that no exponential overflows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tinytorch.conv import planner
from tinytorch.conv.finish import Finish
from tinytorch.conv.problem import ConvProblem
from tinytorch.core import reach
from tinytorch.core.autograd import is_recorded, record
from tinytorch.core.kept import weights_of
from tinytorch.core.tensor import Tensor, numpy_spelling
from tinytorch.kernels import elementwise, memory, norm

# ---- activations ----------------------------------------------------------------------------------------


def relu(x: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); the gradient at 0 is 0.

    Parameters
    ----------
    inplace : bool
        Let x itself become the result, in the same memory if nobody else can see it. What does (a view, an array of the
        caller's, an operation that saved x for its backward) keeps what it has, and x moves.

    Raises
    ------
    RuntimeError
        If x is a leaf that requires grad, to be changed in place while operations are recorded.
    """
    return _bounded(x, 0, math.inf, inplace)


def relu6(x: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); the gradient at 0 and 6 is 0. In place as `relu`."""
    return _bounded(x, 0, 6, inplace)


def _bounded(x: Tensor, floor: float, ceiling: float, inplace: bool) -> Tensor:
    if inplace:
        _check_replaceable(x)
    here = inplace and memory.is_sole(x, "array")
    out = np.clip(x.array, floor, ceiling, out=x.array) if here else elementwise.clip(x.array, floor, ceiling)

    def backward(grad: np.ndarray):
        return (elementwise.bounded_grad(grad, out, floor, ceiling),)

    y = record(out, (x,), backward)
    return _become(x, y) if inplace else y


def _check_replaceable(x: Tensor) -> None:
    if x.is_leaf and is_recorded([x]):
        raise RuntimeError(
            "a leaf that requires grad can't be changed in place while operations are recorded, for its gradient would "
            "be that of other values; use inplace=False, or `with no_grad():`"
        )


def _become(x: Tensor, result: Tensor) -> Tensor:
    """Give a tensor the values of a result, and its place in the graph if it has one."""
    x.data = result.array
    if result.node is not None:
        x.attach(result.node)
    return x


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where positive, otherwise negative_slope · x."""
    slope = np.where(x.data > 0, 1, negative_slope).astype(x.dtype)

    def backward(grad: np.ndarray):
        return (grad * slope,)

    return record(x.data * slope, (x,), backward)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), without overflow."""
    out = _sigmoid(x.data)

    def backward(grad: np.ndarray):
        return (grad * out * (1 - out),)

    return record(out, (x,), backward)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, decay) / (1 + decay)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return x.tanh()


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x), also called swish."""
    data, gate = x.data, _sigmoid(x.data)

    def backward(grad: np.ndarray):
        return (grad * gate * (1 + data * (1 - gate)),)

    return record(data * gate, (x,), backward)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x), with Φ the distribution function of the standard normal.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        "tanh" uses Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.

    Raises
    ------
    TypeError
        If x is not floating point.
    ValueError
        If `approximate` is something else.

    References
    ----------
    Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv:1606.08415.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' (exact) or 'tanh', got {approximate!r}")
    if x.dtype.kind != "f":
        raise TypeError(f"gelu computes in float32 or float64, got {x.dtype}; convert with x.float()")
    return _gelu(x) if approximate == "none" else _gelu_by_tanh(x)


def _gelu(x: Tensor) -> Tensor:
    data = x.array

    def backward(grad: np.ndarray):
        return (elementwise.gelu_grad(grad, data),)

    return record(elementwise.gelu(data), (x,), backward)


def _gelu_by_tanh(x: Tensor) -> Tensor:
    data = x.array
    phi, density = _normal_cdf_by_tanh(data)

    def backward(grad: np.ndarray):
        return (grad * (phi + data * density),)

    return record(data * phi, (x,), backward)


def _normal_cdf_by_tanh(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The approximation of Φ and its derivative."""
    scale = (2 / np.pi) ** 0.5
    squared = x * x
    t = np.tanh(scale * x * (1 + 0.044715 * squared))
    return (1 + t) / 2, (1 - t * t) * (1 + 3 * 0.044715 * squared) * (scale / 2)


@numpy_spelling
def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) divided by its sum along `dim`."""
    out = np.exp(x.data - x.data.max(axis=dim, keepdims=True))
    out /= out.sum(axis=dim, keepdims=True)

    def backward(grad: np.ndarray):
        return (out * (grad - (grad * out).sum(axis=dim, keepdims=True)),)

    return record(out, (x,), backward, reach.reduced(x.ndim, dim, True))


@numpy_spelling
def log_softmax(x: Tensor, dim: int) -> Tensor:
    """Logarithm of `softmax`, exact where softmax itself would underflow."""
    out = _log_softmax(x.data, dim)

    def backward(grad: np.ndarray):
        return (grad - np.exp(out) * grad.sum(axis=dim, keepdims=True),)

    return record(out, (x,), backward, reach.reduced(x.ndim, dim, True))


def _log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


# ---- linear, shape --------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Affine map y = x Wᵀ + b over the last axis.

    Parameters
    ----------
    x : Tensor, shape (…, in_features)
    weight : Tensor, shape (out_features, in_features)
    bias : Tensor, shape (out_features,), optional

    Returns
    -------
    Tensor, shape (…, out_features)

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    _check_linear(x, weight, bias)
    dtype = np.promote_types(x.dtype, weight.dtype)
    pixels = _as_pixels(x.array.astype(dtype, copy=False))
    recorded = is_recorded([x, weight] if bias is None else [x, weight, bias])
    weights = weights_of(weight, dtype, recorded)
    problem = ConvProblem.of(pixels.shape, weights.array.shape)
    offsets = None if bias is None else bias.array.astype(dtype, copy=False)
    out = planner.forward(problem, pixels, weights, Finish(offsets))
    kernel = weights.array
    wants_x, saved = x.requires_grad, pixels if weight.requires_grad else None
    shape = x.shape

    def backward(grad: np.ndarray):
        dy = _as_pixels(grad)
        dx = planner.input_grad(problem, dy, kernel).reshape(shape) if wants_x else None
        dw = None if saved is None else planner.weight_grad(problem, saved, dy)[..., 0]
        return (dx, dw) if bias is None else (dx, dw, norm.channel_sums(dy[..., 0]))

    return record(
        out.reshape(*shape[:-1], weight.shape[0]),
        (x, weight) if bias is None else (x, weight, bias),
        backward,
        reach.reduced(len(shape), -1, True),
    )


def _as_pixels(array: np.ndarray) -> np.ndarray:
    """View rows (…, features) as images (rows, features, 1): to a 1×1 convolution a row is an image of one pixel."""
    return np.ascontiguousarray(array).reshape(-1, array.shape[-1], 1)


def _check_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear needs x of shape (…, in_features) and weight of shape (out_features, in_features), "
            f"got {x.shape} and {weight.shape}; flatten images with x.flatten(1) first"
        )
    if x.dtype.kind != "f" or weight.dtype.kind != "f":
        raise TypeError(
            f"linear computes in float32 or float64, got {x.dtype} and {weight.dtype}; convert with x.float()"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape (out_features,) = {weight.shape[:1]}, got {bias.shape}")


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the axes from `start_dim` to `end_dim` into one."""
    return x.flatten(start_dim, end_dim)


def one_hot(labels: Tensor | ArrayLike, num_classes: int) -> Tensor:
    """Rows of the identity: (…) integer labels become (…, num_classes) int64.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If a label is outside 0 … num_classes - 1.
    """
    indices = _as_tensor(labels).data
    _check_labels(indices, num_classes, ignore_index=None)
    return Tensor.wrap((indices[..., None] == np.arange(num_classes)).astype(np.int64))


# ---- losses ---------------------------------------------------------------------------------------------


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared difference of two tensors of one shape.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        If the shapes differ or the reduction is unknown.
    """
    _check_same_shape(input, target)
    difference = input - target
    return _reduce(difference * difference, reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-(y log σ(x) + (1-y) log(1-σ(x))) for logits x and targets y in [0, 1], both of one shape.

    Computed as max(x, 0) - x y + log(1 + exp(-|x|)), which neither overflows nor takes log 0.

    Raises
    ------
    ValueError
        If the shapes differ or the reduction is unknown.
    """
    target = _as_tensor(target)
    _check_same_shape(input, target)
    x, y = input.data, target.data.astype(input.dtype, copy=False)

    def backward(grad: np.ndarray):
        return grad * (_sigmoid(x) - y), -grad * x

    loss = np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))
    return _reduce(record(loss, (input, target), backward), reduction)


def nll_loss(input: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Negative log likelihood: minus the entry of `input`, log probabilities, that each label names.

    Parameters and errors are those of `cross_entropy`.
    """
    counted, labels = _read_labels(input, target, ignore_index)
    log_probabilities = input.data

    def backward(grad: np.ndarray):
        out = np.zeros_like(log_probabilities)
        np.put_along_axis(out, labels, np.expand_dims(-grad * counted, 1), axis=1)
        return (out,)

    picked = np.take_along_axis(log_probabilities, labels, axis=1).squeeze(1)
    return _reduce(record(np.where(counted, -picked, 0), (input,), backward), reduction, counted)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy between logits and class labels.

    Parameters
    ----------
    input : Tensor, shape (N, C) or (N, C, d1, …)
        Logits: any real numbers, no softmax before.
    target : Tensor of integers, shape (N,) or (N, d1, …)
        Classes 0 … C-1.
    ignore_index : int
        Label of positions that count neither in the loss nor in its mean. With no other label the mean is
        nan, as in PyTorch.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float
        ε in [0, 1]: the target distribution is 1-ε on the label plus ε/C on every class.

    Raises
    ------
    TypeError
        If the labels are not integers.
    ValueError
        If shapes, labels, the reduction or ε do not fit.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}; 0.1 is usual")
    counted, labels = _read_labels(input, target, ignore_index)
    log_p = _log_softmax(input.data, 1)
    spread = label_smoothing / input.shape[1]
    loss = -np.take_along_axis(log_p, labels, axis=1).squeeze(1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - spread * log_p.sum(axis=1)

    def backward(grad: np.ndarray):
        out = np.exp(log_p) - spread
        at_label = np.take_along_axis(out, labels, axis=1) - (1 - label_smoothing)
        np.put_along_axis(out, labels, at_label, axis=1)
        out *= np.expand_dims(grad * counted, 1)
        return (out,)

    return _reduce(record(np.where(counted, loss, 0), (input,), backward), reduction, counted)


def _read_labels(input: Tensor, target: Tensor | ArrayLike, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Check class labels; return where they count, and them with a class axis, 0 where ignored."""
    target = _as_tensor(target)
    expected = (*input.shape[:1], *input.shape[2:])
    if input.ndim < 2 or target.shape != expected:
        raise ValueError(
            f"logits of shape (N, C, …) need one label for each row, shape (N, …); got logits "
            f"{input.shape} and labels {target.shape}; turn one-hot labels into classes with .argmax(1)"
        )
    labels = target.data
    _check_labels(labels, input.shape[1], ignore_index)
    counted = labels != ignore_index
    return counted, np.expand_dims(np.where(counted, labels, 0).astype(np.int64, copy=False), 1)


def _check_labels(labels: np.ndarray, num_classes: int, ignore_index: int | None) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, the classes' numbers, got {labels.dtype}; use .long()")
    wrong = (labels < 0) | (labels >= num_classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if wrong.any():
        raise ValueError(
            f"labels must lie in 0 … {num_classes - 1} for {num_classes} classes, got "
            f"{labels[wrong].flat[0]}; count classes from 0 and check the size of the last layer"
        )


def _as_tensor(values: Tensor | ArrayLike) -> Tensor:
    """Let labels and targets be arrays or lists, as they often are."""
    return values if isinstance(values, Tensor) else Tensor(values)


def _check_same_shape(input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"input and target must have the same shape, got {input.shape} and {target.shape}; broadcasting "
            "one over the other is nearly always a mistake in a loss, so reshape it yourself"
        )


def _reduce(loss: Tensor, reduction: str, counted: np.ndarray | None = None) -> Tensor:
    """Combine the losses of all positions; the mean is over those that count."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if reduction == "none":
        return loss
    if reduction == "sum" or counted is None:
        return loss.sum() if reduction == "sum" else loss.mean()
    number = np.count_nonzero(counted)
    return loss.sum() * (1 / number if number else np.nan)
