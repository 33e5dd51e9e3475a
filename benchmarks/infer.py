"""Whole networks in inference, on images of 224×224 pixels."""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.networks import NETWORKS
from benchmarks.peers import NetworkTask
from benchmarks.report import Report
from tinytorch import models

TOLERANCE = 1e-3  # of the largest score; rounding adds up over the layers
SHAPE = (3, 224, 224)
CASES = tuple(itertools.product(("resnet18", "resnet50", "vgg16", "mobilenet_v2"), (1, 16)))


def run(report: Report) -> None:
    """Measure every network and batch."""
    report.networks("infer", CASES, task, TOLERANCE)


def task(name: str, n: int) -> NetworkTask:
    """A network with fresh weights, and random images."""
    images = np.random.default_rng(0).standard_normal((n, *SHAPE), np.float32)
    return NetworkTask(models.create(name, SHAPE, 1000), NETWORKS[name], images)
