"""What the recipe fast94 is in PyTorch: the same network, the same steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from benchmarks import optional

torch = optional("torch")


def network(state: dict[str, Any], scale: float) -> Any:
    """`airbench94` with these weights; only what the recipe trains requires gradients."""
    model = _Network(state, scale)
    model.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    model.whitening.weight.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.requires_grad_(False)
    return model


if torch is not None:
    nn = torch.nn

    class _Group(nn.Module):
        def __init__(self, channels: int, width: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)

        def forward(self, x: Any) -> Any:
            x = nn.functional.gelu(self.norm1(nn.functional.max_pool2d(self.conv1(x), 2)))
            return nn.functional.gelu(self.norm2(self.conv2(x)))

    class _Network(nn.Module):
        def __init__(self, state: dict[str, Any], scale: float) -> None:
            super().__init__()
            first, widths = state["whitening.weight"], [len(state[f"group{i}.conv1.weight"]) for i in (1, 2, 3)]
            self.whitening = nn.Conv2d(first.shape[1], first.shape[0], 2)
            channels = [first.shape[0], *widths]
            self.group1, self.group2, self.group3 = map(_Group, channels, widths)
            self.head = nn.Linear(state["head.weight"].shape[1], state["head.weight"].shape[0], bias=False)
            self.scale = scale

        def forward(self, x: Any) -> Any:
            x = nn.functional.gelu(self.whitening(x))
            x = nn.functional.max_pool2d(self.group3(self.group2(self.group1(x))), 3)
            return self.head(x.flatten(1)) * self.scale


class Steps:
    """SGD for biases and head, Muon for filters; as an optimizer.

    Parameters
    ----------
    model
        Of `network`.
    groups : list of (parameters, settings)
        For SGD.
    filters : iterable
        For Muon.
    """

    def __init__(
        self, groups: list[tuple[list[Any], dict[str, Any]]], filters: Iterable[Any], muon: dict[str, Any]
    ) -> None:
        self.sgd = torch.optim.SGD([{"params": params, **settings} for params, settings in groups], lr=1.0, fused=True)
        self.filters, self.muon = list(filters), muon
        self.velocities = [torch.zeros_like(p) for p in self.filters]

    def zero_grad(self) -> None:
        self.sgd.zero_grad()
        for p in self.filters:
            p.grad = None

    def step(self) -> None:
        self.sgd.step()
        with torch.no_grad():
            for p, velocity in zip(self.filters, self.velocities, strict=True):
                self._move(p, velocity)

    def _move(self, p: Any, velocity: Any) -> None:
        momentum = self.muon["momentum"]
        velocity.lerp_(p.grad, 1 - momentum)
        direction = orthogonalized(p.grad.lerp(velocity, momentum).flatten(1), self.muon["ns_steps"])
        p.mul_(math.sqrt(len(p)) / p.norm())
        p.sub_(direction.view_as(p), alpha=self.muon["lr"] * math.sqrt(max(1, len(p) / direction.shape[1])))


def orthogonalized(matrix: Any, steps: int) -> Any:
    """Singular values near 1, by G. Schulz's iteration with K. Jordan's coefficients."""
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if len(matrix) > matrix.shape[1] else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if len(matrix) > matrix.shape[1] else x
