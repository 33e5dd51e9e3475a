"""What a recipe can say, and which values make sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from tinytorch.core import optimizers, training
from tinytorch.core.dataloader import EDGES


def _thirds(total_steps: int) -> training.Schedule:
    return training.step_decay(every=-(-total_steps // 3))


def _constant(total_steps: int) -> training.Schedule:
    return training.constant()


SCHEDULES: dict[str, Callable[..., training.Schedule]] = {
    "one-cycle": training.one_cycle,
    "triangle": training.triangle,
    "cosine": training.cosine,
    "step": _thirds,
    "constant": _constant,
}
OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "adamw": optimizers.AdamW,
    "adam": optimizers.Adam,
    "sgd": optimizers.SGD,
    "muon": optimizers.Muon,
}
VIEWS: dict[str, training.Views | None] = {
    "plain": None,
    "mirrored": training.mirrored,
    "mirrored-and-shifted": training.mirrored_and_shifted,
}
_CHOICES = {"schedule": SCHEDULES, "optimizer": OPTIMIZERS, "views": VIEWS, "shift_edge": EDGES}


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Parameters
    ----------
    model : str
        See `tinytorch.models.names()`.
    epochs : int
    dataset : str or None
        What the recipe was made for, and is used on if nothing else is named.
    goal : float or None
        Test accuracy that it is to reach, in (0, 1].
    model_options : dict
        Further arguments of the network, such as widths.
    whiten : int
        The network's first convolution is computed from so many training images, if it is made for that.
    batch_size : int
    drop_last : bool
        Whether to leave out a smaller last batch of each epoch.
    accumulate : int
        Parts in which each batch is computed, for less memory.
    label_smoothing : float
    optimizer : str
        One of `OPTIMIZERS`.
    lr : float
        Peak learning rate.
    weight_decay : float
    optimizer_options : dict
        Further settings of the optimizer, such as momentum.
    groups : sequence of dict
        Parameters with settings of their own, each {"names": shell patterns, …} and any of optimizer, lr, weight_decay,
        options, and epochs: the schedule ends after so many, and then the group rests. A parameter belongs to the first
        group that has a pattern for its name; all others have the settings above.
    schedule : str
        One of `SCHEDULES`; "step" divides the learning rate by ten after each third of the run.
    schedule_options : dict
        Further arguments of the schedule.
    clip_norm : float or None
        Upper bound of the gradients' norm.
    lookahead : dict or None
        Arguments of `Lookahead`: k, and alpha; or decay for α = 1 − decayᵏ · (step / steps)³, as airbench94 has it.
    ema : float or None
        Decay of an average of the weights, which is what is tested and saved.
    flip : bool or "alternating"
        Whether half of the training images are mirrored, by chance or in turns.
    shift : int
        Each training image is moved by up to this many pixels, up or down and left or right.
    shift_edge : {"zeros", "reflect"}
        What moves in.
    cutout : int
        Side of a square that is hidden in each training image.
    validation : float
        Share of the training images, drawn by the seed, that are held out: what is best, and when to stop early, is
        judged by them. With 0 it is judged by the test images, which flatters.
    views : str
        One of `VIEWS`: how the finished network looks at a test image.
    margin : float
        For prediction from any picture: the blank border of this data set's images, as a share of the side.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    model: str
    epochs: int
    dataset: str | None = None
    goal: float | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    whiten: int = 0
    batch_size: int = 64
    drop_last: bool = False
    accumulate: int = 1
    label_smoothing: float = 0.0
    optimizer: str = "adamw"
    lr: float = 0.003
    weight_decay: float = 0.01
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()
    schedule: str = "one-cycle"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    clip_norm: float | None = None
    lookahead: Mapping[str, Any] | None = None
    ema: float | None = None
    flip: bool | str = False
    shift: int = 0
    shift_edge: str = "zeros"
    cutout: int = 0
    validation: float = 0.0
    views: str = "plain"
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name, (holds, rule) in _RULES.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"{name} must be {rule}, got {value!r}{_EXAMPLES.get(name, '')}")
        for name, known in _CHOICES.items():
            check_choice(name, getattr(self, name), known)
        _check_options("optimizer_options", self.optimizer_options)
        object.__setattr__(self, "groups", tuple(self.groups))
        for group in self.groups:
            _check_group(group)


def check_choice(name: str, value: Any, known: Any) -> None:
    """Raise unless a setting is one of those known; the message gives the nearest."""
    if not isinstance(value, str) or value not in known:
        near = get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}{hint}")


def _check_group(group: Any) -> None:
    known = ("names", "optimizer", "lr", "weight_decay", "epochs", "options")
    if not isinstance(group, Mapping) or not set(group) <= set(known) or not _is_names(group.get("names")):
        raise ValueError(
            f'a group must have names, such as names = ["*.bias"], and any of {", ".join(known[1:])}, got {group!r}'
        )
    for name in ("lr", "weight_decay", "epochs"):
        holds, rule = _RULES[name]
        if name in group and not holds(group[name]):
            raise ValueError(f"{name} of the group {group['names']} must be {rule}, got {group[name]!r}")
    if not _is_table(group.get("options", {})):
        raise ValueError(f"options of the group {group['names']} must be a table of settings, got {group['options']!r}")
    _check_options(f"options of the group {group['names']}", group.get("options", {}))
    check_choice("optimizer", group.get("optimizer", "adamw"), OPTIMIZERS)


def _check_options(where: str, options: Mapping[str, Any]) -> None:
    """Raise if options say what a recipe says itself, so that there is one place for it."""
    if clash := {"params", "lr", "weight_decay"} & set(options):
        raise ValueError(f"{where} can't say {', '.join(sorted(clash))}; lr and weight_decay stand beside them")


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(name, str) for name in value)


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold it, and a checkpoint."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return _is_table(value) or isinstance(value, bool | str) or _is_number(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) and _is_plain(value[name]) for name in value)


def _is_lookahead(value: Any) -> bool:
    if not _is_table(value) or len(value.keys() & {"alpha", "decay"}) != 1 or value.keys() - {"k", "alpha", "decay"}:
        return False
    shares = (value.get(name, 0) for name in ("alpha", "decay"))
    return _is_count(value.get("k", 5), 1) and all(_is_number(share) and 0 <= share <= 1 for share in shares)


def _optional(rule: tuple[Callable[[Any], bool], str]) -> tuple[Callable[[Any], bool], str]:
    holds, text = rule
    return lambda value: value is None or holds(value), text


_TEXT = (lambda value: isinstance(value, str)), "text in quotes"
_TRUTH = (lambda value: isinstance(value, bool)), "true or false"
_TABLE = _is_table, "a table of settings"
_POSITIVE_COUNT = (lambda value: _is_count(value, 1)), "a positive integer"
_COUNT = (lambda value: _is_count(value, 0)), "an integer, not negative"
_POSITIVE = (lambda value: _is_number(value) and value > 0), "positive and finite"
_SHARE = (lambda value: _is_number(value) and 0 <= value < 1), "in [0, 1)"
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": _TEXT,
    "epochs": _POSITIVE_COUNT,
    "dataset": _optional(_TEXT),
    "goal": _optional(((lambda value: _is_number(value) and 0 < value <= 1), "in (0, 1]")),
    "model_options": _TABLE,
    "whiten": _COUNT,
    "batch_size": _POSITIVE_COUNT,
    "drop_last": _TRUTH,
    "accumulate": _POSITIVE_COUNT,
    "label_smoothing": _SHARE,
    "lr": _POSITIVE,
    "weight_decay": ((lambda value: _is_number(value) and value >= 0), "finite and not negative"),
    "optimizer_options": _TABLE,
    "groups": ((lambda value: isinstance(value, list | tuple)), "a list of tables"),
    "schedule_options": (
        (lambda value: _is_table(value) and all(_is_number(x) and x >= 0 for x in value.values())),
        "a table of numbers, not negative",
    ),
    "clip_norm": _optional(_POSITIVE),
    "lookahead": _optional((_is_lookahead, "a table of k, a positive integer, and alpha or decay, in [0, 1]")),
    "ema": _optional(_SHARE),
    "flip": ((lambda value: value == "alternating" or isinstance(value, bool)), 'true, false or "alternating"'),
    "shift": _COUNT,
    "cutout": _COUNT,
    "validation": _SHARE,
    "margin": ((lambda value: _is_number(value) and 0 <= value < 0.5), "in [0, 0.5)"),
}
_EXAMPLES = {
    "epochs": "; 1 is the least",
    "batch_size": "; 1 is the least",
    "lr": "; try lr=0.003",
    "clip_norm": "; try clip_norm=1.0",
    "weight_decay": "; 0.01 is usual",
    "ema": "; 0.999 averages about a thousand steps",
    "label_smoothing": "; 0.1 is usual",
}
NAMES = tuple(setting.name for setting in fields(Recipe))
