"""The PyTorch-style door to initial weights: names only, their home is ``tinytorch.core.initial``."""

from tinytorch.core.initial import dirac_, whiten_

__all__ = ["dirac_", "whiten_"]
