"""The PyTorch-style door to the optimizers: names only, their home is ``tinytorch.core.optimizers``."""

from tinytorch.core.optimizers import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
