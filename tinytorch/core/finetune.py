"""Fine-tuning: keep some parameters as they are, take over the weights that fit, train early blocks more slowly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tinytorch.core.layers import Module, Parameter
from tinytorch.core.tensor import as_array


def freeze(model: Module, *patterns: str) -> list[str]:
    """Exclude parameters from training by their names: they no longer require gradients.

    Make the optimizer afterwards, from `parameter_groups` or from those that still require gradients. Running
    statistics of batch normalisation are no parameters and follow the data in training mode, as in PyTorch.

    Parameters
    ----------
    model : Module
    *patterns : str
        Shell patterns, matched against whole dotted names: "features.*", "*.bias", "layer[12].*".

    Returns
    -------
    list of str
        Names of what is now frozen, in the model's order.

    Raises
    ------
    ValueError
        If a pattern matches no parameter, or nothing would be left to train; nothing is frozen then.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise ValueError(f"freeze pattern {pattern!r} matches no parameter; their names are {_listed(list(named))}")
    chosen = [name for name in named if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not any(parameter.requires_grad for name, parameter in named.items() if name not in chosen):
        raise ValueError(f"freezing {', '.join(patterns)} leaves nothing to train; the last layer at least must learn")
    for name in chosen:
        named[name].requires_grad = False
    return chosen


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


@dataclass(frozen=True)
class Loaded:
    """What `load_matching` did, as names of parameters and buffers.

    Attributes
    ----------
    loaded : list of str
        Taken over.
    missing : list of str
        In the model only: left as they were.
    unexpected : list of str
        In the state only: not used.
    mismatched : list of str
        In both, with another shape: left as they were.
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]


def load_matching(model: Module, state: Mapping[str, Any]) -> Loaded:
    """Take over what fits by name and shape, as for another number of classes; the rest stays as it is.

    Parameters
    ----------
    model : Module
    state : mapping of str to array_like
        As `Module.state_dict` returns it, from a model that is alike in part.

    Raises
    ------
    ValueError
        If nothing fits.
    """
    own = model.state_dict()
    shapes = {name: as_array(array).shape for name, array in state.items()}
    loaded = [name for name in own if name in state and shapes[name] == own[name].shape]
    if not loaded:
        raise ValueError(
            f"state has nothing that fits {type(model).__name__}: it holds {_listed(list(state))}; the model needs "
            f"{_listed(list(own))}"
        )
    model.load_state_dict({name: state[name] for name in loaded}, strict=False)
    return Loaded(
        loaded,
        missing=[name for name in own if name not in state],
        unexpected=[name for name in state if name not in own],
        mismatched=[name for name in own if name in state and name not in loaded],
    )


def parameter_groups(model: Module, lr: float, decay: float = 1 / 2.6, depth: int = 1) -> list[dict[str, Any]]:
    """Group parameters by block for an optimizer, with a learning rate that falls from the last block to the first.

    Block k of n learns with lr · decay^(n − 1 − k): J. Howard & S. Ruder, "Universal Language Model Fine-tuning for
    Text Classification", 2018, section 3.2. What is frozen is in no group.

    Parameters
    ----------
    model : Module
    lr : float
        Of the last block.
    decay : float
        From each block to the one before it, in (0, 1]; 1 gives all the same rate.
    depth : int
        Blocks are told apart by this many parts of their names: at 1 "layer1", at 2 "layer1.0". A block counts from
        where its first parameter comes in the model's order.

    Returns
    -------
    list of {"params": list of Parameter, "lr": float}
        The first block first.

    Raises
    ------
    ValueError
        If a number is out of range, or nothing in the model requires gradients.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be a factor in (0, 1], got {decay}; 1 gives every block the same learning rate")
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth must be a positive integer, got {depth!r}; 1 groups by the model's own attributes")
    blocks: dict[str, list[Parameter]] = {}
    for name, parameter in model.named_parameters():
        blocks.setdefault(".".join(name.split(".")[:depth]), []).append(parameter)
    trained = [[p for p in block if p.requires_grad] for block in blocks.values()]
    if not any(trained):
        raise ValueError("the model has nothing to train: no parameter requires gradients; freeze fewer of them")
    rates = (lr * decay**below for below in reversed(range(len(trained))))
    return [{"params": block, "lr": rate} for block, rate in zip(trained, rates, strict=True) if block]
