"""PyTorch's module database, run through ``tinytorch.nn``: layers built with the same arguments and the same state."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

import torch

from tests.agreement.torch_calls import DTYPES, alone, carried, compare, internal, spoken, values
from tests.agreement.trials import ACCEPTED, MATCHED, REFUSED, Difference, Trial, attempt, call
from tinytorch import Tensor, nn

# Layers of the family that are not built, and why.
ABSENT = {
    "FractionalMaxPool.d": "random windows",
    "Lazy.*": "a layer here knows its channels from the start",
}

DIFFERENCES: list[Difference] = []
ERROR_DIFFERENCES: list[Difference] = []


def _is_run(name: str) -> bool:
    known = re.search("Conv|Pool|Norm|Pad", name)
    return known is not None and not any(re.fullmatch(pattern, name) for pattern in ABSENT)


MODULES = {
    info.module_cls.__name__: info for info in internal("common_modules").module_db if _is_run(info.module_cls.__name__)
}


@cache
def trials(name: str, dtype: str) -> list[Trial]:
    """A trial of every input, in training and in evaluation."""
    options = {"device": "cpu", "dtype": DTYPES[dtype], "requires_grad": True}
    torch.manual_seed(0)
    with alone():
        return [
            _trial(name, case, training, DTYPES[dtype])
            for training in (True, False)
            for case in MODULES[name].module_inputs_func(MODULES[name], training=training, **options)
        ]


def _trial(name: str, case: Any, training: bool, dtype: torch.dtype) -> Trial:
    inputs = case.forward_input.args

    def run() -> str:
        theirs = _with_random_weights(_built(MODULES[name].module_cls, case).to(dtype).train(training))
        mine = _built(getattr(nn, name), case).to(str(dtype).removeprefix("torch.")).train(training)
        mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
        own_inputs = [carried(value) for value in inputs]
        own, their = _tensors(mine, own_inputs), _tensors(theirs, inputs)
        return compare(lambda: call(mine.forward, *own_inputs), lambda: theirs(*inputs), own, their, dtype)

    return Trial(name, case, _text(name, case, training), *attempt(run, lambda: _names(name, case)))


def _built(kind: Callable, case: Any) -> Any:
    return call(kind, *case.constructor_input.args, **case.constructor_input.kwargs)


def _with_random_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Ones and zeros would hide a weight or bias that is not used."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def _tensors(module: Any, inputs: Any) -> dict[str, Any]:
    """Everything a layer computes from, by name."""
    given = {f"input {i}": value for i, value in enumerate(inputs) if isinstance(value, torch.Tensor | Tensor)}
    return {**given, **dict(module.named_parameters()), **dict(module.named_buffers())}


@cache
def error_trials(name: str) -> list[Trial]:
    """A trial of every input that must give an error, from the layer's construction or its call."""
    info, options = MODULES[name], {"device": "cpu", "dtype": torch.float32, "requires_grad": False}
    errors = info.module_error_inputs_func(info, training=True, **options) if info.module_error_inputs_func else []
    with alone():
        return [_error_trial(name, error.module_error_input) for error in errors]


def _error_trial(name: str, case: Any) -> Trial:
    def run() -> str:
        call(_built(getattr(nn, name), case).forward, *map(carried, case.forward_input.args))
        return ""

    outcome, detail = attempt(run, lambda: _names(name, case))
    outcome = ACCEPTED if outcome == MATCHED else outcome
    return Trial(name, case, _text(name, case, True), outcome, detail, wanted=REFUSED)


def _text(name: str, case: Any, training: bool) -> str:
    build, forward = case.constructor_input, case.forward_input
    evaluated = "" if training else ".eval()"
    return f"{name}{spoken(build.args, build.kwargs)}{evaluated}{spoken(forward.args, forward.kwargs)}"


def _names(name: str, case: Any) -> list[str]:
    """What the text of an error may name: the constructor's parameters, or a shape."""
    given = [*case.constructor_input.args, *case.forward_input.args]
    return ["input", *signature(getattr(nn, name)).parameters, *values(given)]
