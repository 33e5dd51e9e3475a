"""Initial weights as torchvision draws them, which differ from those of the layers themselves."""

from __future__ import annotations

from math import sqrt

import numpy as np

from tinytorch.conv.pack import taps
from tinytorch.core import random
from tinytorch.core.convolution import Conv2d
from tinytorch.core.layers import Linear, Module, Parameter
from tinytorch.kernels.watch import rehearsing


def draw_normal(model: Module, linear_std: float | None = None) -> None:
    """Draw every convolution from N(0, 2 / fan_out), fan_out = out_channels · kernel_h · kernel_w.

    This keeps the variance of the gradients through ReLU layers: K. He et al., "Delving Deep into Rectifiers", 2015,
    equation 14. Biases and BatchNorm2d stay as the layers made them, at 0, and 1 and 0.

    Parameters
    ----------
    model : Module
    linear_std : float, optional
        Draw every Linear from N(0, linear_std²) with bias 0; by default they stay as they are.
    """
    for module in model.modules():
        if isinstance(module, Conv2d):
            draw(module.weight, sqrt(2 * module.weight.shape[1] / module.weight.size))
        elif isinstance(module, Linear) and linear_std is not None:
            draw(module.weight, linear_std)
            if module.bias is not None:
                module.bias.data[...] = 0


def draw(weight: Parameter, std: float) -> None:
    """Draw from N(0, std²), in place and in the order of memory, which for a hundred million numbers is worth it.

    In a rehearsal nothing is drawn.
    """
    if rehearsing():
        return
    values = taps(weight.data)
    random.generator().standard_normal(out=values, dtype=np.float32)
    values *= np.float32(std)


def draw_uniform(model: Module) -> None:
    """Draw weight and bias of every convolution uniformly in ±1/√fan_in, PyTorch's default and that of `Linear`."""
    for module in model.modules():
        if isinstance(module, Conv2d):
            bound = 1 / sqrt(module.weight[0].size)
            for parameter in module.parameters():
                parameter.data[...] = random.generator().uniform(-bound, bound, parameter.shape)
