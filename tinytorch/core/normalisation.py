"""Normalisation as layers. Arguments, initial values and the names in a state dict are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinytorch.conv.problem import check_count
from tinytorch.core import norm_ops as ops
from tinytorch.core.images import UNBOUNDED, Bounds, check_images, check_number, with_batch
from tinytorch.core.layers import Module, Parameter
from tinytorch.core.tensor import Tensor


class _Affine(Module):
    """A layer that ends with a learned scale, which starts at 1, and a learned shift, which starts at 0."""

    weight: Parameter  # None, as the others here, where the layer is told to have none
    bias: Parameter

    def _learn(self, shape: int | tuple[int, ...], weight: bool, bias: bool) -> None:
        self.register_parameter("weight", Parameter(np.ones(shape, np.float32)) if weight else None)
        self.register_parameter("bias", Parameter(np.zeros(shape, np.float32)) if weight and bias else None)


class _Tracking(_Affine):
    """What batch and instance normalisation share: a scale, a shift and running statistics for each channel."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    _dims: tuple[int, ...]  # how many spatial dimensions the images may have
    _usual: bool  # whether it is affine and tracks, by default

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool, bias: bool
    ) -> None:
        self.num_features = check_count("num_features", num_features, "feature maps")
        ops.check_eps(eps)
        if momentum is not None:
            ops.check_momentum(momentum)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._learn(num_features, affine, bias)
        starts = {
            "running_mean": np.zeros(num_features, np.float32),
            "running_var": np.ones(num_features, np.float32),
            "num_batches_tracked": np.zeros((), np.int64),
        }
        for name, start in starts.items():
            self.register_buffer(name, Tensor(start) if track_running_stats else None)

    def _check(self, x: Tensor) -> None:
        """Raise unless x is a batch of images with as many dimensions as we take."""
        dims = x.ndim - 2 if isinstance(x, Tensor) else 0
        check_images(type(self).__name__, x, dims if dims in self._dims else self._dims[-1])

    def extra_repr(self) -> str:
        """Settings; switches only where they are not as usual."""
        switches = {name: getattr(self, name) for name in ("affine", "track_running_stats")}
        if self.affine and self.bias is None:
            switches["bias"] = False
        unusual = "".join(f", {name}={on}" for name, on in switches.items() if on != self._usual or name == "bias")
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}{unusual}"


class _BatchNorm(_Tracking):
    """Normalise every channel over the batch and the image, then scale and shift it by learned amounts.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        How far the running statistics move towards those of each batch. None: as far as makes them the mean of all
        batches so far.
    affine : bool
        Whether to learn a scale and a shift.
    track_running_stats : bool
        Without running statistics those of the batch are used after ``eval()``, too.
    bias : bool
        Whether an affine layer learns a shift.

    Attributes
    ----------
    weight, bias : Parameter, shape (num_features,)
        Scale and shift, which the pages call ``gamma`` and ``beta``; they start at 1 and 0.
    running_mean, running_var, num_batches_tracked : Tensor
        Buffers, used in place of the batch's statistics after ``eval()``.

    Raises
    ------
    ValueError
        If ``num_features`` or ``eps`` is not positive, or ``momentum`` not in [0, 1].
    """

    _usual = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    @property
    def gamma(self) -> Parameter:
        """The scale, by its name in the pages."""
        return self.weight

    @property
    def beta(self) -> Parameter:
        """The shift, by its name in the pages."""
        return self.bias

    def forward(self, input: Tensor) -> Tensor:
        """Normalise a batch (N, num_features, …)."""
        return self.normalise(input)

    def normalise(self, x: Tensor, residual: Tensor | None = None, bounds: Bounds = UNBOUNDED) -> Tensor:
        """`forward`, then add a residual and clip, in the same pass over memory."""
        self._check(x)
        tracks = self.training and self.track_running_stats
        used = tracks or not self.training
        y = ops.batch_norm(
            x,
            self.running_mean if used else None,
            self.running_var if used else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self._step() if tracks else 0.0,
            self.eps,
            residual=residual,
            bounds=bounds,
        )
        if tracks:
            self.num_batches_tracked.data += 1
        return y

    def _step(self) -> float:
        """How far the running statistics move now."""
        return 1 / (int(self.num_batches_tracked.array) + 1) if self.momentum is None else self.momentum


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _dims = (0, 1)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _dims = (2,)


class BatchNorm3d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _dims = (3,)


class _InstanceNorm(_Tracking):
    """Normalise every channel of every image by itself; by default nothing is learned and nothing is tracked.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        How far the running statistics move towards those of each batch; with None they stay, as in PyTorch.
    affine : bool
        Whether to learn a scale and a shift.
    track_running_stats : bool
        Whether to keep running statistics, and to use them after ``eval()``.
    bias : bool
        Whether an affine layer learns a shift.

    Raises
    ------
    ValueError
        If ``num_features`` or ``eps`` is not positive, or ``momentum`` not in [0, 1].
    """

    _usual = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise a batch (N, num_features, …), or one image (num_features, …)."""
        return with_batch(input, self._dims[-1], self._normalise)

    def _normalise(self, x: Tensor) -> Tensor:
        self._check(x)
        from_input = self.training or not self.track_running_stats
        running = self.running_mean, self.running_var
        return ops.instance_norm(x, *running, self.weight, self.bias, from_input, self.momentum or 0.0, self.eps)


class InstanceNorm1d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    _dims = (1,)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    _dims = (2,)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    _dims = (3,)


class GroupNorm(_Affine):
    """Normalise groups of neighbouring channels of every image, then scale and shift every channel.

    Parameters
    ----------
    num_groups : int
        A divisor of ``num_channels``.
    num_channels : int
    eps : float
        Added to the variance.
    affine : bool
        Whether to learn a scale and a shift, of shape (num_channels,).
    bias : bool
        Whether an affine layer learns a shift.

    Raises
    ------
    ValueError
        If the groups do not divide the channels, or ``eps`` is not positive.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, bias: bool = True
    ) -> None:
        self.num_channels = check_count("num_channels", num_channels, "feature maps")
        self.num_groups = ops.check_groups(num_groups, num_channels)
        ops.check_eps(eps)
        self.eps, self.affine = eps, affine
        self._learn(num_channels, affine, bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise a batch (N, num_channels, …)."""
        return ops.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Settings."""
        groups = f"{self.num_groups}, {self.num_channels}, eps={self.eps}"
        return f"{groups}, affine={self.affine}, bias={self.bias is not None}"


class _LastAxesNorm(_Affine):
    """What layer and root-mean-square normalisation share."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None, elementwise_affine: bool, bias: bool
    ) -> None:
        self.normalized_shape = ops.check_normalized_shape(normalized_shape)
        if eps is not None:
            ops.check_eps(eps)
        self.eps: Any = eps
        self.elementwise_affine = elementwise_affine
        self._learn(self.normalized_shape, elementwise_affine, bias)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm(_LastAxesNorm):
    """Normalise over the last axes, then scale and shift each of their numbers.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Lengths of these axes.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether to learn a scale and a shift, of shape ``normalized_shape``.
    bias : bool
        Whether an affine layer learns a shift.

    Raises
    ------
    ValueError
        If there are no axes, or ``eps`` is not positive.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise a tensor of shape (…, *normalized_shape)."""
        return ops.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{super().extra_repr()}, bias={self.bias is not None}"


class RMSNorm(_LastAxesNorm):
    """Divide by the root mean square over the last axes, then scale each of their numbers.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Lengths of these axes.
    eps : float, optional
        Added to the mean square; by default the distance from 1 to the next number of the input's type.
    elementwise_affine : bool
        Whether to learn a scale, of shape ``normalized_shape``.

    Raises
    ------
    ValueError
        If there are no axes, or ``eps`` is not positive.
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Divide a tensor of shape (…, *normalized_shape)."""
        return ops.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class LocalResponseNorm(Module):
    """Divide every number by a power of what its neighbours in other channels amount to; see `local_response_norm`.

    Parameters
    ----------
    size : int
        Channels of a neighbourhood.
    alpha, beta, k : float

    Raises
    ------
    ValueError
        If ``size`` is not a positive integer.
    TypeError
        If one of the others is not a number.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = check_count("size", size, "channels")
        for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
            check_number(name, value)
        self.alpha, self.beta, self.k = alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """Divide a batch (N, C, …)."""
        return ops.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Settings."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
