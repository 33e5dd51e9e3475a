"""Differentiable normalisation; the arithmetic is done in ``tinytorch.kernels.norm``.

Batch, instance and group normalisation take the statistics of channels: they differ in which images, and which
channels, share them. Layer and root-mean-square normalisation take those of the last axes. Numbers that share their
statistics should be neighbours: images are brought to channels-last memory, other arrays to one with those axes last.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import compress

import numpy as np

from tinytorch.conv.pack import channels_first, channels_last, empty_channels_last, pixels
from tinytorch.conv.problem import as_tuples, check_count
from tinytorch.core import reach
from tinytorch.core.autograd import record
from tinytorch.core.images import UNBOUNDED, Bounds, check_number, is_number, rows_of
from tinytorch.core.tensor import Dims, Tensor, as_axis
from tinytorch.kernels import elementwise, memory, norm

Statistics = tuple[np.ndarray, np.ndarray]  # mean and (biased) variance, in float64
Running = tuple[Tensor, Tensor] | None  # their moving averages

# ---- by channel -----------------------------------------------------------------------------------------------------


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
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
    input : Tensor, shape (N, C) to (N, C, D, H, W)
    running_mean, running_var : Tensor, shape (C,), or None
        In training both may be None; then nothing is tracked.
    weight, bias : Tensor, shape (C,), optional
        Scale (gamma) and shift (beta).
    residual : Tensor, optional
        Of the shape of the input; added to the result.
    bounds : (floor, ceiling)
        That the result, with the residual, is clipped to; (0, ∞) is a ReLU.

    Raises
    ------
    ValueError
        If shapes do not match, ``eps`` is not positive, ``momentum`` not in [0, 1], running statistics are missing, or
        training has a single value per channel to take statistics of.
    TypeError
        If something other than a floating-point Tensor stands where one is needed.
    """
    check_input("batch_norm", input, 2, 5)
    running = _check_running(input, "training", training, running_mean, running_var)
    _check_channels(input, weight=weight, bias=bias)
    check_eps(eps)
    check_momentum(momentum)
    _check_tensors(residual=residual)
    if residual is not None and residual.shape != input.shape:
        raise ValueError(f"residual must have the shape of the input, {input.shape}, got {residual.shape}")
    if training and input.size == input.shape[1]:
        raise ValueError(
            f"BatchNorm in training needs more than one value per channel to take statistics of, got input "
            f"{input.shape}; use a larger batch, or model.eval() to use the running statistics"
        )
    if not input.size:
        return _nothing(input, weight, bias, residual)
    rows = _blocks(input.array, 1)
    statistics, groups = _statistics(rows, running, training, momentum)
    return _by_channel("batch_norm", input, rows, statistics, groups, weight, bias, eps, residual, bounds)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise every channel of every image by itself, then scale and shift it.

    `batch_norm` of each image alone; running statistics move towards the mean of what the images have. D. Ulyanov,
    A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016, equation 1.

    Parameters
    ----------
    input : Tensor, shape (N, C, L) to (N, C, D, H, W)
    running_mean, running_var : Tensor, shape (C,), or None
        If the statistics of the input are used, both may be None; then nothing is tracked.
    weight, bias : Tensor, shape (C,), optional
    use_input_stats : bool
        False takes the running statistics instead.

    Raises
    ------
    ValueError
        As for `batch_norm`; there must be more than one pixel to take statistics of.
    """
    check_input("instance_norm", input, 2, 5)
    running = _check_running(input, "use_input_stats", use_input_stats, running_mean, running_var)
    _check_channels(input, weight=weight, bias=bias)
    check_eps(eps)
    check_momentum(momentum)
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        raise ValueError(
            f"instance_norm needs more than one pixel per channel to take statistics of, got input {input.shape}; "
            "a single value less its mean is always 0"
        )
    if not input.size:
        return _nothing(input, weight, bias)
    rows = _blocks(input.array, len(input) if use_input_stats else 1)
    statistics, groups = _statistics(rows, running, use_input_stats, momentum)
    return _by_channel("instance_norm", input, rows, statistics, groups, weight, bias, eps)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise groups of neighbouring channels of every image, then scale and shift each channel.

    Y. Wu, K. He, "Group Normalization", 2018, equations 1, 2 and 7. With as many groups as channels it is
    `instance_norm`.

    Parameters
    ----------
    input : Tensor, shape (N, C, …)
    num_groups : int
        A divisor of C.
    weight, bias : Tensor, shape (C,), optional

    Raises
    ------
    ValueError
        If shapes do not match, ``num_groups`` does not divide the channels, ``eps`` is not positive, or there is a
        single value to take statistics of.
    """
    check_input("group_norm", input, 2)
    num_groups = check_groups(num_groups, input.shape[1])
    _check_channels(input, weight=weight, bias=bias)
    check_eps(eps)
    if input.size == num_groups:
        raise ValueError(
            f"group_norm needs more than one value per group to take statistics of, got input {input.shape} with "
            f"num_groups={num_groups}; use fewer groups"
        )
    if not input.size:
        return _nothing(input, weight, bias)
    rows = _blocks(input.array, len(input))
    mean, var = norm.channel_moments(rows)
    middle = _shared(mean, num_groups)
    statistics = middle, _shared(var + (mean - middle) ** 2, num_groups)
    return _by_channel("group_norm", input, rows, statistics, num_groups, weight, bias, eps)


def _by_channel(
    name: str,
    x: Tensor,
    rows: np.ndarray,
    statistics: Statistics,
    groups: int | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    bounds: Bounds = UNBOUNDED,
) -> Tensor:
    """Normalise blocks of pixels by statistics (blocks, channels), which so many groups of channels have in common.

    Without groups the statistics are fixed: they do not depend on x.
    """
    inputs = (x, weight, bias, residual)
    given = [tensor is not None for tensor in inputs]
    mean, var = statistics
    inverse_std = 1 / np.sqrt(var + eps)
    gamma = np.ones(x.shape[1]) if weight is None else weight.array.astype(np.float64)
    beta = np.zeros(x.shape[1]) if bias is None else bias.array.astype(np.float64)
    y = empty_channels_last(x.shape, x.dtype)
    extra = None if residual is None else _blocks(residual.array.astype(x.dtype, copy=False), len(rows))
    scale = gamma * inverse_std
    norm.scale_shift(rows, mean, scale, beta, _blocks(y, len(rows)), extra, bounds)
    # x tells where y was clipped, unless something was added.
    clip = (scale, beta, bounds) if bounds != UNBOUNDED and residual is None else None
    clipped = y if bounds != UNBOUNDED and residual is not None else None

    def backward(grad: np.ndarray):
        grad = channels_last(grad)
        if clipped is not None:
            grad = elementwise.bounded_grad(grad, clipped, *bounds)
        dy = _blocks(grad, len(rows))
        d_bias, d_weight = norm.gradient_sums(dy, rows, mean, inverse_std, clip)
        b = c = np.zeros_like(inverse_std)
        if groups is not None:
            through = -inverse_std / rows.shape[1]
            b, c = through * inverse_std * _shared(gamma * d_weight, groups), through * _shared(gamma * d_bias, groups)
        dx = empty_channels_last(grad.shape, grad.dtype)
        norm.combine(dy, rows, mean, scale, b, c, _blocks(dx, len(rows)), clip)
        return list(compress((dx, d_weight.sum(axis=0), d_bias.sum(axis=0), grad), given))

    backward.__qualname__ = name  # for repr
    whole = () if groups is None else range(len(rows) > 1, x.ndim)  # the axes of the statistics: of one block, all
    return record(y, tuple(t for t in inputs if t is not None), backward, reach.reduced(x.ndim, whole, True))


def _blocks(images: np.ndarray, blocks: int) -> np.ndarray:
    """Images as (blocks, pixels, channels); copied only if they are not channels last."""
    return rows_of(channels_last(images)).reshape(blocks, -1, images.shape[1])


def _shared(values: np.ndarray, groups: int) -> np.ndarray:
    """For every channel the mean over the channels of its group: (blocks, channels)."""
    blocks, channels = values.shape
    if groups == channels:
        return values
    return np.repeat(values.reshape(blocks, groups, -1).mean(axis=2), channels // groups, axis=1)


def _statistics(rows: np.ndarray, running: Running, from_input: bool, momentum: float) -> tuple[Statistics, int | None]:
    """Statistics of every channel, and as many groups as channels; or the running ones, which have none.

    Those of the input move the running ones towards their mean over the blocks.
    """
    if not from_input:
        assert running is not None  # as `_check_running` has seen
        mean, var = (statistic.array.astype(np.float64)[None] for statistic in running)
        return (mean, var), None
    mean, var = norm.channel_moments(rows)
    if running is not None:
        count = rows.shape[1]
        _move(running[0], mean.mean(axis=0), momentum)
        _move(running[1], var.mean(axis=0) * (count / (count - 1)), momentum)
    return (mean, var), rows.shape[2]


def _move(running: Tensor, value: np.ndarray, momentum: float) -> None:
    """Exponential moving average, in place."""
    running.data[...] = (1 - momentum) * running.data + momentum * value


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide every number by a power of what its neighbours in other channels amount to.

    ``y = x / (k + alpha · mean(x²))^beta``, the mean over ``size`` channels, ⌊size / 2⌋ of them in front; channels that
    do not exist count as zeros. A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet Classification with Deep
    Convolutional Neural Networks", 2012, section 3.3; its alpha is that of a sum, ``alpha / size``.

    Parameters
    ----------
    input : Tensor, shape (N, C, L), (N, C, H, W), …
    size : int
        Channels of a neighbourhood.
    alpha, beta, k : float

    Raises
    ------
    ValueError
        If ``size`` is not a positive integer, or there are no pixels.
    TypeError
        If one of the others is not a number.
    """
    check_input("local_response_norm", input, 3)
    size = check_count("size", size, "channels")
    alpha, beta, k = map(check_number, ("alpha", "beta", "k"), (alpha, beta, k))
    if not input.size:
        return _nothing(input)
    layout = Rows(input.array, (1,))
    window, share = (size // 2, (size - 1) // 2), alpha / size
    rows, shape = layout.rows(input.array), input.shape
    y, s = norm.respond(rows, window, k, share, beta)

    def backward(grad: np.ndarray):
        dx = norm.respond_grad(layout.rows(grad), rows, y, s, window, share, beta)
        return (layout.array(dx, shape),)

    backward.__qualname__ = "local_response_norm"
    return record(layout.array(y, shape), (input,), backward, reach.reduced(input.ndim, 1, True))


# ---- by row ---------------------------------------------------------------------------------------------------------


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes to mean 0 and variance 1, then scale and shift each of their numbers.

    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016, equation 3.

    Parameters
    ----------
    input : Tensor, shape (…, *normalized_shape)
    normalized_shape : int or sequence of int
        Lengths of the axes to normalise over.
    weight, bias : Tensor, shape normalized_shape, optional

    Raises
    ------
    ValueError
        If shapes do not match, or ``eps`` is not positive.
    """
    axes = _check_last_axes("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    check_eps(eps)
    return _by_row(input, axes, weight, bias, eps, centred=True)


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root mean square over the last axes, then scale each of their numbers.

    ``y = weight · x / √(mean(x²) + eps)``. B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", 2019,
    equation 4.

    Parameters
    ----------
    input : Tensor, shape (…, *normalized_shape)
    normalized_shape : int or sequence of int
        Lengths of the axes to normalise over.
    weight : Tensor, shape normalized_shape, optional
    eps : float, optional
        By default the distance from 1 to the next number of the input's type.

    Raises
    ------
    ValueError
        If shapes do not match, or ``eps`` is not positive.
    """
    axes = _check_last_axes("rms_norm", input, normalized_shape, weight=weight)
    eps = float(np.finfo(input.dtype).eps) if eps is None else eps
    check_eps(eps)
    return _by_row(input, axes, weight, None, eps, centred=False)


def _by_row(
    x: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float, centred: bool
) -> Tensor:
    """Normalise over these axes; where it is not centred the mean counts as 0."""
    inputs = (x, weight, bias)
    if not x.size:
        return _nothing(*inputs)
    given, shape = [tensor is not None for tensor in inputs], x.shape
    layout = Rows(x.array, axes)
    rows = layout.rows(x.array)
    mean, var = norm.row_moments(rows) if centred else (np.zeros(len(rows)), norm.row_squares(rows) / layout.length)
    inverse_std = 1 / np.sqrt(var + eps)
    own = (1,) * (x.ndim - len(axes)) + shape[x.ndim - len(axes) :]  # of weight and bias, as axes of x
    gamma, beta = (
        np.full(layout.length, blank, x.dtype) if tensor is None else layout.rows(tensor.array.reshape(own))[0]
        for tensor, blank in ((weight, 1), (bias, 0))
    )
    y = memory.empty(rows.shape, x.dtype)
    norm.normalise_rows(rows, mean, inverse_std, gamma, beta, y)

    def backward(grad: np.ndarray):
        dy = layout.rows(grad)
        plain, weighted = norm.row_gradient_sums(dy, rows, mean, inverse_std, gamma)
        through = -inverse_std / layout.length
        b, c = through * inverse_std * weighted, through * plain if centred else np.zeros_like(plain)
        dx = memory.empty(rows.shape, grad.dtype)
        norm.combine_rows(dy, rows, mean, gamma, inverse_std, b, c, dx)
        if not any(given[1:]):
            return (layout.array(dx, shape),)
        d_bias, d_weight = norm.column_gradient_sums(dy, rows, mean, inverse_std)
        lines = (layout.array(line, own).reshape(own[-len(axes) :]) for line in (d_weight, d_bias))
        return list(compress((layout.array(dx, shape), *lines), given))

    backward.__qualname__ = "layer_norm" if centred else "rms_norm"
    reads = reach.reduced(x.ndim, axes, True)
    return record(layout.array(y, shape), tuple(t for t in inputs if t is not None), backward, reads)


def normalize(input: Tensor, p: float = 2.0, dim: Dims = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the p-norm along ``dim``: ``y = x / max(‖x‖ₚ, eps)``.

    Parameters
    ----------
    input : Tensor
    p : float
        Of (Σ |x|ᵖ)^(1/p). ∞ takes the largest |x|, −∞ the smallest, and 0 counts those that are not 0.
    dim : int, tuple of int, or None for all
        By default the channels: the features of a pixel become a vector of length 1.
    eps : float

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If ``eps`` is not positive, or an axis is named twice.
    TypeError
        If ``p`` is not a number, or ``dim`` not of integers.
    """
    check_input("normalize", input, 0)
    axes, p = _axes(dim, input.ndim), check_number("p", p)
    check_eps(eps)
    if not input.size:
        return _nothing(input)
    x = input if input.ndim else input.reshape(1)
    layout, shape = Rows(x.array, axes), x.shape
    rows = layout.rows(x.array)
    with np.errstate(divide="ignore"):  # of 0 to a negative power
        size = np.sqrt(norm.row_squares(rows)) if p == 2 else np.linalg.norm(rows, p, axis=1).astype(np.float64)
    inverse, zeros, ones = 1 / np.maximum(size, eps), np.zeros(len(rows)), np.ones(layout.length)
    y = memory.empty(rows.shape, x.dtype)
    norm.normalise_rows(rows, zeros, inverse, ones, np.zeros(layout.length), y)

    def backward(grad: np.ndarray):
        dy = layout.rows(grad)
        _, along = norm.row_gradient_sums(dy, rows, zeros, inverse, ones)
        slope, scale = _norm_gradient(rows, p, size)
        b = np.where(size > eps, -inverse * along * scale, 0)
        dx = memory.empty(rows.shape, grad.dtype)
        norm.combine_rows(dy, slope, zeros, ones, inverse, b, zeros, dx)
        return (layout.array(dx, shape),)

    backward.__qualname__ = "normalize"
    out = record(layout.array(y, shape), (x,), backward, reach.reduced(x.ndim, axes, True))
    return out if input.ndim else out.reshape(())


def _axes(dim: Dims, ndim: int) -> tuple[int, ...]:
    """The axes that are named, all of them for None; a single number has one."""
    named = as_tuples(dim)
    named = named if isinstance(named, tuple) else range(ndim) if named is None else (named,)
    try:
        axes = tuple(as_axis(operator.index(d), max(ndim, 1)) for d in named or range(ndim))
    except TypeError:
        raise TypeError(f"dim must be an integer, a tuple of them, or None for all axes, got {dim!r}") from None
    if len({*axes}) < len(axes):
        raise ValueError(f"dim must name each axis once, got {dim!r} for {ndim} axes")
    return axes


def _norm_gradient(rows: np.ndarray, p: float, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of each row's p-norm, which is ``size``: numbers, and a factor for each row. Of 0 it is 0.

    Equally large numbers share that of the largest.
    """
    positive = np.where(size > 0, size, 1)
    if p == 2:
        return rows, 1 / positive
    if p == 0:
        return rows, np.zeros_like(size)
    if math.isinf(p):
        extreme = np.abs(rows) == size[:, None].astype(rows.dtype)
        return np.sign(rows) * extreme, 1 / extreme.sum(axis=1)
    with np.errstate(divide="ignore"):
        powers = np.abs(rows) ** rows.dtype.type(p - 1)
    return np.where(rows == 0, 0, np.copysign(powers, rows)).astype(rows.dtype, copy=False), positive ** (1 - p)


class Rows:
    """How the numbers of an array lie as rows (rows, length) along some axes: in the order of its memory, if that fits.

    Parameters
    ----------
    array
        The array; others of its shape, or with some axes of length 1, are brought to the same order.
    axes
        That a row runs along.
    """

    def __init__(self, array: np.ndarray, axes: tuple[int, ...]) -> None:
        self.length = math.prod(array.shape[axis] for axis in axes)
        self._first, self._last = tuple(range(array.ndim)), (0, *range(2, array.ndim), 1)
        if array.ndim > 2 and pixels(array).flags.c_contiguous and {*self._last[-len(axes) :]} == {*axes}:
            self._order: tuple[int, ...] = self._last
        else:
            self._order = (*(axis for axis in self._first if axis not in axes), *sorted(axes))

    def rows(self, array: np.ndarray) -> np.ndarray:
        """The rows of an array; copied only if its memory is in another order."""
        if array.ndim > 2 and self._order in (self._first, self._last):  # quicker than NumPy
            array = (channels_first if self._order == self._first else channels_last)(array)
        return np.ascontiguousarray(array.transpose(self._order)).reshape(-1, self.length)

    def array(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """View of rows as an array of this shape."""
        return rows.reshape([shape[axis] for axis in self._order]).transpose(np.argsort(self._order))


# ---- checks ---------------------------------------------------------------------------------------------------------


def _nothing(*inputs: Tensor | None) -> Tensor:
    """The result, and the zero gradients, of no numbers at all, which have no statistics."""
    given = [tensor for tensor in inputs if tensor is not None]
    arrays = [tensor.array for tensor in given]
    return record(np.empty_like(arrays[0]), tuple(given), lambda grad: [np.zeros_like(array) for array in arrays])


def check_input(name: str, x: Tensor, least: int, most: int | None = None) -> None:
    """Raise unless x is a floating-point tensor with so many axes."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} expects a Tensor, got {type(x).__name__}; wrap the array: Tensor(x)")
    if x.dtype.kind != "f":
        raise TypeError(f"{name} computes in float32 or float64, got {x.dtype}; convert with x.float()")
    if x.ndim < least or (most is not None and x.ndim > most):
        wanted = f"{least} to {most}" if most is not None else f"{least} or more"
        raise ValueError(
            f"{name} expects input of {wanted} axes, (batch, channels, …), got shape {x.shape}; add a batch with "
            "x.unsqueeze(0), or reshape"
        )


def _check_tensors(**given: Tensor | None) -> None:
    """Raise unless all that is given is a floating-point tensor."""
    for name, tensor in given.items():
        if tensor is not None and not (isinstance(tensor, Tensor) and tensor.dtype.kind == "f"):
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating-point Tensor, or None, got {got}; wrap an array: Tensor(array)")


def _check_channels(x: Tensor, **given: Tensor | None) -> None:
    """Raise unless every tensor that is given has one number for each channel."""
    _check_tensors(**given)
    for name, tensor in given.items():
        if tensor is not None and tensor.shape != (x.shape[1],):
            raise ValueError(
                f"Expected {tensor.size} channels, got input {x.shape} with {x.shape[1]}; {name} has shape "
                f"{tensor.shape} and needs one number per channel: build the layer for {x.shape[1]} channels"
            )


def _check_running(x: Tensor, switch: str, from_input: bool, mean: Tensor | None, var: Tensor | None) -> Running:
    """Raise unless running mean and variance are both there and fit, or both missing and not needed."""
    if mean is not None and var is not None:
        _check_channels(x, running_mean=mean, running_var=var)
        return mean, var
    if mean is not None or var is not None:
        raise ValueError(
            f"running_mean and running_var go together, got only running_{'var' if mean is None else 'mean'}; "
            "pass both or neither"
        )
    if not from_input:
        raise ValueError(f"running_mean and running_var are needed when {switch}=False, got None; pass {switch}=True")
    return None


def _check_last_axes(
    name: str, x: Tensor, normalized_shape: int | Sequence[int], **given: Tensor | None
) -> tuple[int, ...]:
    """The last axes of x, which have these lengths, as have the tensors that are given."""
    check_input(name, x, 0)
    wanted = check_normalized_shape(normalized_shape)
    if x.shape[-len(wanted) :] != wanted:
        raise ValueError(
            f"normalized_shape must be the lengths of the last axes, got {wanted} for input {x.shape}; "
            f"to normalise over the last axis alone pass {x.shape[-1:]}"
        )
    _check_tensors(**given)
    for parameter, tensor in given.items():
        if tensor is not None and tensor.shape != wanted:
            raise ValueError(f"{parameter} must have shape normalized_shape = {wanted}, got {tensor.shape}")
    return tuple(range(x.ndim - len(wanted), x.ndim))


def check_normalized_shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Lengths of the axes to normalise over, as a tuple.

    Raises
    ------
    ValueError
        If there is none, or one is not an integer of 0 or more.
    """
    lengths: tuple[int, ...] = as_tuples(normalized_shape)
    lengths = lengths if isinstance(lengths, tuple) else (lengths,)
    if not lengths or not all(isinstance(n, int | np.integer) and n >= 0 for n in lengths):
        raise ValueError(
            f"normalized_shape must be the lengths of one axis or more, got {normalized_shape!r}; "
            "for the last axis of x pass x.shape[-1]"
        )
    return lengths


def check_groups(num_groups: int, channels: int) -> int:
    """Return ``num_groups`` if it divides the channels."""
    num_groups = check_count("num_groups", num_groups, "groups")
    if channels % num_groups:
        divisors = [n for n in range(1, channels + 1) if channels % n == 0]
        raise ValueError(
            f"num_groups must divide the channels, got num_groups={num_groups} for {channels} channels; "
            f"use one of {divisors}"
        )
    return num_groups


def check_eps(eps: float) -> None:
    """Raise unless ``eps`` is positive."""
    if not is_number(eps) or not eps > 0:
        raise ValueError(f"eps must be positive, got {eps!r}; it keeps constant numbers from being divided by zero")


def check_momentum(momentum: float) -> None:
    """Raise unless ``momentum`` lies between 0 and 1."""
    if not is_number(momentum) or not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be between 0 and 1, got {momentum!r}; 0.1 averages over about ten batches")
