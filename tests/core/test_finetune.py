"""Freezing, partial loading, and learning rates by depth."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tinytorch import Tensor, nn, optim
from tinytorch.core.finetune import freeze, load_matching, parameter_groups


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        self.stem = nn.Linear(4, 5)
        self.body = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5, bias=False))
        self.head = nn.Linear(5, classes)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


def trained(model) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_freeze_by_pattern():
    model = Net()
    assert freeze(model, "stem.*", "body.[02].weight") == ["stem.weight", "stem.bias", "body.0.weight", "body.2.weight"]
    assert trained(model) == ["body.0.bias", "head.weight", "head.bias"]


def test_what_is_frozen_stays_and_the_rest_learns():
    model = Net()
    freeze(model, "stem.*", "body.*")
    before = model.state_dict()
    optimizer = optim.SGD(parameter_groups(model, lr=0.1), lr=0.1)
    model(Tensor(np.ones((2, 4), np.float32))).sum().backward()
    optimizer.step()
    changed = [name for name, array in model.state_dict().items() if (array != before[name]).any()]
    assert changed == ["head.weight", "head.bias"]


def test_freeze_refuses_and_freezes_nothing():
    model = Net()
    with pytest.raises(ValueError, match=r"'tail\.\*' matches no parameter; their names are stem.weight, stem.bias, b"):
        freeze(model, "stem.*", "tail.*")
    with pytest.raises(ValueError, match=r"freezing \* leaves nothing to train; the last layer at least must learn"):
        freeze(model, "*")
    assert len(trained(model)) == 7


def test_a_long_list_of_names_is_cut():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(8)))
    with pytest.raises(ValueError, match=r"5.bias and 4 more$"):
        freeze(model, "x")


def test_weights_for_another_number_of_classes_are_loaded_in_part():
    source, model = Net(7), Net(3)
    own = model.state_dict()
    state = {**source.state_dict(), "extra": np.zeros(2)}
    del state["stem.bias"]
    found = load_matching(model, state)
    assert found.loaded == ["stem.weight", "body.0.weight", "body.0.bias", "body.2.weight"]
    assert found.missing == ["stem.bias"] and found.unexpected == ["extra"]
    assert found.mismatched == ["head.weight", "head.bias"]
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, (state if name in found.loaded else own)[name])


def test_nothing_that_fits_is_an_error():
    with pytest.raises(ValueError, match=r"nothing that fits Net: it holds w; the model needs stem.weight, "):
        load_matching(Net(), {"w": np.zeros(3)})


def test_learning_rates_fall_towards_the_first_block():
    model = Net()
    groups = parameter_groups(model, lr=0.8, decay=0.5)
    assert [group["lr"] for group in groups] == [0.2, 0.4, 0.8]
    assert [len(group["params"]) for group in groups] == [2, 3, 2]
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in model.parameters()]
    assert [len(group["params"]) for group in parameter_groups(model, 0.8, 0.5, depth=2)] == [1, 1, 2, 1, 1, 1]
    assert parameter_groups(model, 1.0)[0]["lr"] == pytest.approx(2.6**-2)


def test_a_frozen_block_keeps_its_place_and_has_no_group():
    model = Net()
    freeze(model, "body.*")
    assert [group["lr"] for group in parameter_groups(model, lr=0.8, decay=0.5)] == [0.2, 0.8]


@pytest.mark.parametrize("decay", [0, -1, 1.5, float("nan")])
def test_decay_must_be_a_factor(decay):
    with pytest.raises(ValueError, match=re.escape(f"decay must be a factor in (0, 1], got {decay}")):
        parameter_groups(Net(), 0.1, decay)


@pytest.mark.parametrize("depth", [0, 1.0, True])
def test_depth_must_be_positive(depth):
    with pytest.raises(ValueError, match=f"depth must be a positive integer, got {depth!r}"):
        parameter_groups(Net(), 0.1, depth=depth)


def test_nothing_to_train():
    with pytest.raises(ValueError, match="the model has nothing to train: no parameter requires gradients"):
        parameter_groups(Net().requires_grad_(False), 0.1)
