"""Whole training steps: zero_grad, forward, cross entropy, backward, AdamW."""

from __future__ import annotations

import numpy as np

from benchmarks.networks import NETWORKS
from benchmarks.peers import NetworkTask
from benchmarks.report import Report
from tinytorch import models

TOLERANCE = 1e-3  # of each of the first five losses
SHAPES = {"simple-cnn": (3, 32, 32), "mnist-convnet": (1, 28, 28), "resnet18-cifar": (3, 32, 32)}
CASES = (
    ("simple-cnn", 64),
    ("simple-cnn", 256),
    ("mnist-convnet", 64),
    ("mnist-convnet", 128),
    ("resnet18-cifar", 128),
)


def run(report: Report) -> None:
    """Measure every network and batch."""
    report.networks("train", CASES, task, TOLERANCE)


def task(name: str, n: int) -> NetworkTask:
    """A fresh network and one random batch."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((n, *SHAPES[name]), np.float32), rng.integers(0, 10, n)
    return NetworkTask(models.create(name, SHAPES[name], 10), NETWORKS[name], images, labels)
