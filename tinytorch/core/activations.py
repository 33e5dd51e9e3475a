"""Activation functions as modules, for use in Sequential; the arithmetic is in `functional`."""

from __future__ import annotations

from tinytorch.core import functional as F
from tinytorch.core.layers import Module
from tinytorch.core.tensor import Tensor


class ReLU(Module):
    """max(x, 0), elementwise.

    Parameters
    ----------
    inplace : bool
        Let the input become the result; see `functional.relu`. Behind a convolution or a normalisation that it is
        computed with (see `fusion`) it makes no difference: what it would replace is never stored.
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        """Whether it works in place."""
        return "inplace=True" if self.inplace else ""


class ReLU6(ReLU):
    """min(max(x, 0), 6), elementwise; in place as `ReLU`."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return F.relu6(input, self.inplace)


class LeakyReLU(Module):
    """x where positive, otherwise negative_slope · x.

    Parameters
    ----------
    negative_slope : float
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}"


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return F.sigmoid(input)


class Tanh(Module):
    """Hyperbolic tangent, elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return F.tanh(input)


class SiLU(Module):
    """x · sigmoid(x), elementwise."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return F.silu(input)


class GELU(Module):
    """x · Φ(x), elementwise; see `functional.gelu`.

    Parameters
    ----------
    approximate : {"none", "tanh"}
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """The kind of approximation."""
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """Probabilities along `dim`: exp(x) divided by its sum.

    Parameters
    ----------
    dim : int
        The axis of the classes.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Apply along `dim`."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """Logarithm of Softmax along `dim`, computed without underflow."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply along `dim`."""
        return F.log_softmax(input, self.dim)
