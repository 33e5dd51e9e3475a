"""Five questions about a layer, answered with formula, numbers and result: shape, parameters, work, memory, field."""

from tinytorch.analysis.explain.answer import Answer, Explanation, Question
from tinytorch.analysis.explain.conv import conv, conv_transpose
from tinytorch.analysis.explain.points import batchnorm, linear
from tinytorch.analysis.explain.pool import pool
from tinytorch.analysis.explain.stack import Stack, Stage, stack
from tinytorch.analysis.explain.window import window

__all__ = [
    "Answer",
    "Explanation",
    "Question",
    "Stack",
    "Stage",
    "batchnorm",
    "conv",
    "conv_transpose",
    "linear",
    "pool",
    "stack",
    "window",
]
