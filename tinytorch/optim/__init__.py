"""The PyTorch-style door to the optimizers: names only, their homes are in ``tinytorch.core``."""

from tinytorch.core.averaging import EMA, Lookahead
from tinytorch.core.optimizers import SGD, Adam, AdamW, Combined, Muon, Optimizer, orthogonalize

__all__ = ["EMA", "SGD", "Adam", "AdamW", "Combined", "Lookahead", "Muon", "Optimizer", "orthogonalize"]
