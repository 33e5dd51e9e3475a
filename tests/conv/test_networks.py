"""Every convolution of the networks that the library is for, at its own channels: each algorithm, direction, thread."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.conv.test_winograd import THREADS, number_of_threads
from tinytorch import Tensor, no_grad
from tinytorch.conv import planner
from tinytorch.conv.pack import empty_channels_last
from tinytorch.conv.problem import DIRECTIONS, ConvProblem
from tinytorch.core.layers import Identity
from tinytorch.core.spatial import SimpleCNN
from tinytorch.models import convnets, mobilenet, resnet, vgg

torch = pytest.importorskip("torch")

# What makes a network, the shape of its images, and how many different layers are left when they are shrunk.
NETWORKS = {
    "SimpleCNN": (SimpleCNN, (3, 32, 32), 2),
    "MNISTConvNet": (convnets.MNISTConvNet, (1, 28, 28), 2),
    "MobileNet-V2": (mobilenet.mobilenet_v2, (3, 224, 224), 30),
    "ResNet-50": (resnet.resnet50, (3, 224, 224), 23),
    "VGG-16": (vgg.vgg16, (3, 224, 224), 8),
}
ALGORITHMS = [name for name in planner.ALGORITHMS if name not in ("loops", "fft")]  # those take too long


@cache
def layers(network: str) -> list[ConvProblem]:
    """The different convolutions that an image passes, shrunk."""
    make, shape, _ = NETWORKS[network]
    met: dict[ConvProblem, None] = {}

    def forward(problem, *_):
        if problem.dims == 2:  # a linear layer is a convolution too, along one axis
            met[shrunk(problem)] = None
        return empty_channels_last(problem.output_shape, np.dtype(np.float32))

    with pytest.MonkeyPatch.context() as patch, no_grad():
        patch.setattr(vgg, "Linear", lambda *_: Identity())  # a hundred million numbers to draw
        patch.setattr(planner, "forward", forward)
        make().eval()(Tensor(np.zeros((1, *shape), np.float32)))
    return list(met)


def shrunk(problem: ConvProblem) -> ConvProblem:
    """With 14 pixels a line of outputs where there are more: tiles, blocks and borders stay as they are."""
    return replace(problem, axes=tuple(replace(axis, size=min(axis.size, 14 * axis.stride)) for axis in problem.axes))


@cache
def example(problem: ConvProblem):
    """Small integers, and what every direction makes of them: exactly, since PyTorch computes in float64."""
    rng = np.random.default_rng(0)
    shapes = (problem.input_shape, problem.weight_shape, problem.output_shape)
    x, w, dy = (rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes)
    image, weight, gradient = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, w, dy))
    height, width = problem.axes
    y = torch.nn.functional.conv2d(
        image, weight, None, (height.stride, width.stride), (height.before, width.before), groups=problem.groups
    )
    y.backward(gradient)
    return (x, w, dy), dict(zip(DIRECTIONS, (y.detach().numpy(), image.grad.numpy(), weight.grad.numpy()), strict=True))


def computed(problem, direction, algorithm, x, w, dy):
    operands = {"forward": (x, w), "input_grad": (dy, w), "weight_grad": (x, dy)}[direction]
    return getattr(planner, direction)(problem, *operands, algorithm=algorithm)


@pytest.mark.parametrize("network", NETWORKS)
def test_all_layers_are_met(network):
    assert len(layers(network)) == NETWORKS[network][2]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_is_right(network, images, direction, algorithm, threads):
    """Those that sum the products themselves are exact on integers, the others as accurate as the planner says."""
    problems = [replace(layer, n=images) for layer in layers(network)]
    accepted = [problem for problem in problems if not planner.ALGORITHMS[algorithm].refuses(problem, direction)]
    if not accepted:
        pytest.skip("refuses every layer")
    with number_of_threads(threads):
        for problem in accepted:
            operands, results = example(problem)
            expected = results[direction]
            error = np.abs(computed(problem, direction, algorithm, *operands) - expected).max()
            assert error <= planner._ERROR.get(algorithm, 0) * np.abs(expected).max(), f"{direction} of {problem}"
