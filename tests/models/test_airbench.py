"""The network of the speed records against itself in PyTorch: outputs, a training step, and what starts how."""

from __future__ import annotations

import numpy as np
import pytest

from tinytorch import models, no_grad
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.random import manual_seed
from tinytorch.core.tensor import Tensor
from tinytorch.models.airbench import Airbench94
from tinytorch.recipes import build, load

SMALL = (8, 12, 16)


def images(*shape, dtype=np.float32):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def network(dtype=np.float32, widths=SMALL, **options):
    manual_seed(0)
    model = Airbench94(widths=widths, **options).to(dtype)
    model.whiten(Tensor(images(20, 3, 32, 32, dtype=dtype)))
    return model


def twin(state, x, training, scale):
    """The network, from a dict of torch tensors."""
    f = pytest.importorskip("torch").nn.functional

    def norm(x, name):
        mean, var, weight, bias = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return f.batch_norm(x, mean, var, weight, bias, training, momentum=0.4, eps=1e-12)

    x = f.gelu(f.conv2d(x, state["whitening.weight"], state["whitening.bias"]))
    for group in ("group1", "group2", "group3"):
        x = f.max_pool2d(f.conv2d(x, state[f"{group}.conv1.weight"], padding=1), 2)
        x = f.gelu(norm(x, f"{group}.norm1"))
        x = f.gelu(norm(f.conv2d(x, state[f"{group}.conv2.weight"], padding=1), f"{group}.norm2"))
    return f.linear(f.max_pool2d(x, 3).flatten(1), state["head.weight"]) * scale


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-4), (np.float64, 1e-9)])
def test_a_training_step_as_torch(dtype, tolerance):
    torch = pytest.importorskip("torch")
    model = network(dtype, scale=1 / 16)
    state = {name: torch.from_numpy(array) for name, array in model.state_dict().items()}
    learned = {name: state[name].requires_grad_() for name, p in model.named_parameters() if p.requires_grad}
    x, labels = images(12, 3, 32, 32, dtype=dtype), np.arange(12) % 10
    logits = twin(state, torch.from_numpy(x), True, 1 / 16)
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=0.2)
    expected.backward()
    loss = CrossEntropyLoss(label_smoothing=0.2)(model(Tensor(x)), Tensor(labels))
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=tolerance)
    for name, p in model.named_parameters():
        if name in learned:
            theirs = learned[name].grad.numpy()
            assert np.linalg.norm(p.grad - theirs) < 10 * tolerance * np.linalg.norm(theirs), name
        else:
            assert p.grad is None and (name == "whitening.weight" or "norm" in name)
    with no_grad(), torch.no_grad():  # the running statistics have moved
        theirs = twin(state, torch.from_numpy(x), False, 1 / 16).numpy()
        ours = model.eval()(Tensor(x)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=10 * tolerance * np.abs(theirs).max())


def test_sizes():
    model = models.create("airbench94", (3, 32, 32), 10)
    assert sum(p.size for p in model.parameters()) == 1_972_792
    assert model(Tensor(images(2, 3, 32, 32))).shape == (2, 10)


@pytest.mark.parametrize("shape", [(1, 25, 25), (2, 28, 50), (3, 64, 33)])
def test_any_shape_from_25_pixels_and_every_parameter_learns(shape):
    model = Airbench94(shape, 7, SMALL)
    CrossEntropyLoss()(model(Tensor(images(4, *shape))), Tensor(np.array([0, 1, 2, 6]))).backward()
    for name, p in model.named_parameters():
        assert not p.requires_grad or np.abs(p.grad).sum() > 0, name
    with pytest.raises(ValueError, match="at least 25 pixels a side"):
        Airbench94((3, 24, 40))


def test_groups_start_as_the_identity_on_their_first_channels():
    group = network(widths=(32, 12, 16)).group1  # from 24 to 32 channels, and a group that narrows
    for conv in (group.conv1, group.conv2, network(widths=(32, 12, 16)).group2.conv1):
        least = min(conv.in_channels, conv.out_channels)
        weight = conv.weight.data
        np.testing.assert_array_equal(weight[:least, :, 1, 1], np.eye(conv.in_channels)[:least])
        assert (weight[:least].sum(axis=(1, 2, 3)) == 1).all() and (weight[least:] != 0).all()
    assert np.abs(group.conv1.weight.data[24:]).max() <= 1 / np.sqrt(24 * 9)


def test_or_at_random():
    group = network(identity=False).group1
    assert (group.conv1.weight.data != 0).all() and (group.conv2.weight.data != 0).all()


def test_the_head_starts_with_variance_one_and_weights_depend_on_the_seed():
    model = network()
    assert model.head.weight.data.std() == pytest.approx(1, rel=1e-4)
    np.testing.assert_equal(model.state_dict(), network().state_dict())


# ---- its recipes --------------------------------------------------------------------------------------------

RECIPES = ["fast94", "airbench94"]


def optimizer_of(name, model, batches=100):
    return build.trainer(load(name), model, batches).optimizer


@pytest.mark.parametrize("name", RECIPES)
def test_every_parameter_has_one_place(name):
    model = network()
    held = [p for group in optimizer_of(name, model).param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(held) == 1 + 6 + 6 + 1  # the whitening's bias, filters, biases, the head


def test_rates_are_those_of_a_loss_summed_over_the_batch():
    """A step with these settings and the mean is the records' step with the sum: the same lr per image, the same decay."""
    published = [(0.053, 2e-6 * 2000)] * 2 + [(0.67, 2e-6 * 2000)]
    for group, (lr, decay) in zip(optimizer_of("fast94", network()).param_groups, published, strict=False):
        assert group["lr"] / 2000 == pytest.approx(lr)
        assert group["lr"] * group["weight_decay"] == pytest.approx(decay, rel=0.002)
    kilostep = 1024 * (1 + 1 / (1 - 0.85))
    for group, factor in zip(optimizer_of("airbench94", network()).param_groups, (1, 64, 1), strict=True):
        assert group["lr"] / 1024 == pytest.approx(factor * 11.5 / kilostep)
        assert group["lr"] * group["weight_decay"] == pytest.approx(0.0153 * 1024 / kilostep, rel=0.002)


@pytest.mark.parametrize("name", RECIPES)
def test_it_learns_four_images_by_heart(name):
    model = network(scale=1 / 16 if name == "fast94" else 1 / 9)
    x, labels, loss = Tensor(images(4, 3, 32, 32)), Tensor(np.arange(4)), CrossEntropyLoss()
    steps = optimizer_of(name, model)
    for group in steps.param_groups:
        if group["lr"] > 1:  # made for two thousand images
            group["lr"] /= 500
    losses = []
    for _ in range(30):
        steps.zero_grad()
        value = loss(model(x), labels)
        value.backward()
        steps.step()
        losses.append(value.item())
    assert min(losses[-5:]) < 0.2 * losses[0]


def record_muon(parameters, batch_size, torch):
    """The record's two optimizers, for a loss that is the sum: SGD of torch, and Muon by a singular value decomposition."""
    decay, velocity = 2e-6 * batch_size, {}
    groups = [
        {"params": [p for name, p in parameters.items() if "bias" in name], "lr": 0.053, "weight_decay": decay / 0.053},
        {"params": [parameters["head.weight"]], "lr": 0.67, "weight_decay": decay / 0.67},
    ]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)

    def step():
        sgd.step()
        for name, p in parameters.items():
            if p.ndim == 4:
                velocity[name] = 0.6 * velocity.get(name, 0) + p.grad
                u, values, vt = torch.linalg.svd((p.grad + 0.6 * velocity[name]).flatten(1), full_matrices=False)
                values = values / values.norm()
                for _ in range(3):
                    values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
                p.data *= len(p) ** 0.5 / p.data.norm()
                p.data -= 0.24 * (u * values @ vt).view(p.shape)

    return step


def record_sgd(parameters, batch_size, torch):
    """The paper's optimizer, for a loss that is the sum."""
    kilostep = 1024 * (1 + 1 / (1 - 0.85))
    lr, decay = 11.5 / kilostep, 0.0153 * batch_size / kilostep
    norms = [p for name, p in parameters.items() if "norm" in name]
    others = [p for name, p in parameters.items() if "norm" not in name]
    groups = [
        {"params": norms, "lr": 64 * lr, "weight_decay": decay / (64 * lr)},
        {"params": others, "lr": lr, "weight_decay": decay / lr},
    ]
    return torch.optim.SGD(groups, momentum=0.85, nesterov=True).step


@pytest.mark.parametrize(
    ("name", "record", "batch_size", "scale"),
    [("fast94", record_muon, 2000, 1 / 256), ("airbench94", record_sgd, 1024, 1 / 9)],
)
def test_three_steps_are_those_of_the_records(name, record, batch_size, scale):
    torch = pytest.importorskip("torch")
    model = network(np.float64, scale=scale, widths=(24, 28, 32))  # no filters with more rows than columns
    state = {name: torch.from_numpy(array) for name, array in model.state_dict().items()}
    learned = {name: state[name].requires_grad_() for name, p in model.named_parameters() if p.requires_grad}
    optimizer, step = optimizer_of(name, model), record(learned, batch_size, torch)
    loss = CrossEntropyLoss(label_smoothing=0.2)
    for number in range(3):
        x = np.random.default_rng(number).standard_normal((6, 3, 32, 32))
        labels = np.arange(6) + number
        optimizer.zero_grad()
        loss(model(Tensor(x)), Tensor(labels)).backward()
        optimizer.step()
        for p in learned.values():
            p.grad = None
        logits = twin(state, torch.from_numpy(x), True, scale)
        mean = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=0.2)
        (batch_size * mean).backward()  # the sum over as many images
        step()
    for name, p in model.named_parameters():
        if name in learned:
            theirs = learned[name].detach().numpy()  # whose decay is not rounded to three digits
            np.testing.assert_allclose(p.data, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)
