"""Multiply-accumulates of a PyTorch network, layer by layer, from the shapes that pass through it."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def layer_macs(model: nn.Module, *shapes: tuple[int, ...]) -> dict[str, int]:
    """Count what every convolution, transposed convolution and linear layer multiplies, taps on padding included.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated once, on its own device: on "meta" nothing is computed. It is left in `eval` mode.
    *shapes : tuple of int
        Of its arguments.

    Returns
    -------
    dict of str to int
        By dotted name, in the order of the first calls. A layer that is called twice counts twice; a product that is
        not the call of such a layer, as `torch.nn.functional.conv2d` or `@`, is not seen.
    """
    counts: Counter[str] = Counter()
    parameter = next(model.parameters())
    hooks = [
        module.register_forward_hook(lambda module, x, y, name=name: counts.update({name: _macs(module, x[0], y)}))
        for name, module in model.named_modules()
        if isinstance(module, Convolution | Transposed | nn.Linear)
    ]
    with torch.no_grad():
        model.eval()(*(torch.empty(shape, dtype=parameter.dtype, device=parameter.device) for shape in shapes))
    for hook in hooks:
        hook.remove()
    return dict(counts)


def macs(model: nn.Module, *shapes: tuple[int, ...]) -> int:
    """Sum of `layer_macs`."""
    return sum(layer_macs(model, *shapes).values())


def _macs(module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Every output pixel meets all the weights of its channel; in a transposed convolution, every input pixel does."""
    pixels = x if isinstance(module, Transposed) else y
    return pixels.numel() * module.weight[0].numel()
