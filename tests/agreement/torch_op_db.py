"""PyTorch's operator database, run through ``tinytorch.nn.functional``.

``torch.testing._internal`` keeps, for every operator, the sample inputs that PyTorch's own tests run, and inputs that must
give an error. Here they go to our function of the same name with the same arguments, in both precisions; results, changed
buffers, and the gradients of Σ result · random are compared with PyTorch's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

import torch

from tests.agreement.torch_calls import DTYPES, alone, carried, compare, internal, spoken, values
from tests.agreement.trials import ACCEPTED, FOREIGN, MATCHED, REFUSED, Difference, Foreign, Trial, attempt, call
from tinytorch.nn import functional

# Functions of the family that are not built, and why.
ABSENT = {
    "fractional_max_pool2d": "random windows",
    "fractional_max_pool3d": "random windows",
    "conv_tbc": "another order of axes, for sequences",
    "upsample": "deprecated: interpolate",
}

# Functions of the family that the database lacks: tests.agreement.torch_modules and onnx_nodes run them.
UNKNOWN = {"fold", "lp_pool1d", "lp_pool2d", "lp_pool3d"}

DIFFERENCES = [
    Difference(
        "_upsample_bilinear2d_aa",
        FOREIGN,
        "a size and a scale at once",
        lambda case: case.kwargs.get("output_size") and case.kwargs.get("scales_h"),
    ),
    Difference(
        "(group|layer|rms)_norm", REFUSED, "eps must be positive", lambda case: (case.kwargs.get("eps") or 1) <= 0
    ),
    Difference(
        r"(batch|instance)_norm.*",
        REFUSED,
        "momentum must be between 0 and 1",
        lambda case: not 0 <= case.kwargs.get("momentum", 0.1) <= 1,
    ),
    Difference("batch_norm.*", REFUSED, "no axis of channels", lambda case: case.input.ndim < 2),
]
ERROR_DIFFERENCES = [
    Difference(
        "conv3d", ACCEPTED, "padding='same' takes a stride, as in XLA", lambda case: case.kwargs.get("stride") == 2
    ),
]


def _antialiased(interpolate: Callable, x: Any, *, output_size: Any, align_corners: bool, **scales: Any) -> Any:
    given = scales.get("scale_factors") or [s for s in (scales.get("scales_h"), scales.get("scales_w")) if s]
    if output_size is not None and given:
        raise Foreign("interpolate takes a size or a scale, not both")
    return interpolate(x, output_size, given or None, "bilinear", align_corners, antialias=True)


# Ops that another function answers for here: that function, and how its arguments follow.
SPELLED: dict[str, tuple[str, Callable]] = {
    "constant_pad_nd": ("pad", lambda f, x, pad, value=0: f(x, pad, "constant", value)),
    "upsample_nearest": ("interpolate", lambda f, x, size=None, scale_factor=None: f(x, size, scale_factor, "nearest")),
    "upsample_bilinear": (
        "interpolate",
        lambda f, x, size=None, scale_factor=None: f(x, size, scale_factor, "bilinear", align_corners=True),
    ),
    "_upsample_bilinear2d_aa": ("interpolate", _antialiased),
}


def is_family(name: str) -> bool:
    """Whether this is the name of a function of the family."""
    return re.search("conv|pool|norm|pad$|fold|interpolate|upsample|shuffle", name) is not None


def bare(op: Any) -> str:
    """Name of an operator without its module."""
    return op.name.removeprefix("nn.functional.")


def title(op: Any) -> str:
    """Name of an operator with its variant: pad.reflect."""
    return ".".join(filter(None, [bare(op), op.variant_test_name]))


def _is_run(op: Any) -> bool:
    public = op.name.startswith("nn.functional.") and is_family(bare(op))
    return bare(op) not in ABSENT and (public or bare(op) in SPELLED)


OPS = {title(op): op for op in sorted(internal("common_methods_invocations").op_db, key=title) if _is_run(op)}


def home(name: str) -> str:
    """Our function that answers for the operator of this title."""
    return SPELLED[bare(OPS[name])][0] if bare(OPS[name]) in SPELLED else bare(OPS[name])


def ours(name: str) -> Callable:
    """What to call with the operator's arguments."""
    function = getattr(functional, home(name))
    return partial(SPELLED[bare(OPS[name])][1], function) if bare(OPS[name]) in SPELLED else function


@cache
def sample_trials(name: str, dtype: str) -> list[Trial]:
    """A trial of every sample input."""
    torch.manual_seed(0)
    samples = OPS[name].sample_inputs("cpu", DTYPES[dtype], requires_grad=True, set_seed=False)
    with alone():
        return [_sample_trial(name, sample, DTYPES[dtype]) for sample in samples]


def _sample_trial(name: str, sample: Any, dtype: torch.dtype) -> Trial:
    args = [sample.input, *sample.args]

    def run() -> str:
        own_args, own_kwargs = [carried(a) for a in args], {key: carried(a) for key, a in sample.kwargs.items()}
        own, their = _by_name(own_args, own_kwargs), _by_name(args, sample.kwargs)
        tensors = {key: value for key, value in their.items() if isinstance(value, torch.Tensor)}
        return compare(
            lambda: call(ours(name), *own_args, **own_kwargs),
            lambda: OPS[name].op(*args, **sample.kwargs),
            own,
            tensors,
            dtype,
        )

    return Trial(name, sample, f"{name}{spoken(args, sample.kwargs)}", *attempt(run, lambda: _names(name, sample)))


@cache
def error_trials(name: str) -> list[Trial]:
    """A trial of every input that must give an error."""
    errors = OPS[name].error_inputs("cpu") if OPS[name].error_inputs_func else []
    with alone():
        return [_error_trial(name, error.sample_input) for error in errors]


def _error_trial(name: str, sample: Any) -> Trial:
    args = [sample.input, *sample.args]

    def run() -> str:
        call(ours(name), *map(carried, args), **{key: carried(a) for key, a in sample.kwargs.items()})
        return ""

    outcome, detail = attempt(run, lambda: _names(name, sample))
    outcome = ACCEPTED if outcome == MATCHED else outcome
    return Trial(name, sample, f"{name}{spoken(args, sample.kwargs)}", outcome, detail, wanted=REFUSED)


def _by_name(args: list, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**{f"argument {position}": value for position, value in enumerate(args)}, **kwargs}


def _names(name: str, sample: Any) -> list[str]:
    """What the text of an error may name: the function's parameters, or what one of them was given.

    A complex tensor does not even become one of ours, and that error is as good.
    """
    parameters = signature(getattr(functional, home(name))).parameters
    return ["a Tensor holds", *parameters, *values([sample.input, *sample.args, *sample.kwargs.values()])]
