"""tinytorch: the CNN engine you can read.

A convolution is seven plain loops (``tinytorch/conv/loops.py``), and the same layer runs at the speed of the machine
(``tinytorch/conv/direct.py``). Names only here; every one has its home in ``tinytorch.core`` or ``tinytorch.conv``.
"""

from tinytorch import nn, optim
from tinytorch.analysis.profile import profile
from tinytorch.analysis.summary import summary
from tinytorch.conv.planner import plan, use_algorithm
from tinytorch.conv.problem import ConvProblem
from tinytorch.core.autograd import enable_grad, is_grad_enabled, no_grad
from tinytorch.core.checkpointing import checkpoint, checkpoint_sequential
from tinytorch.core.creation import (
    arange,
    eye,
    full,
    ones,
    ones_like,
    rand,
    randint,
    randn,
    tensor,
    zeros,
    zeros_like,
)
from tinytorch.core.random import manual_seed
from tinytorch.core.tensor import Tensor, cat, stack
from tinytorch.kernels.jit import set_num_threads
from tinytorch.kernels.jit import workers as get_num_threads

__version__ = "0.1.0"

__all__ = [
    "ConvProblem",
    "Tensor",
    "arange",
    "cat",
    "checkpoint",
    "checkpoint_sequential",
    "enable_grad",
    "eye",
    "full",
    "get_num_threads",
    "is_grad_enabled",
    "manual_seed",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "plan",
    "profile",
    "rand",
    "randint",
    "randn",
    "set_num_threads",
    "stack",
    "summary",
    "tensor",
    "use_algorithm",
    "zeros",
    "zeros_like",
]
