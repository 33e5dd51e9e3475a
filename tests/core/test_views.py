"""Triangular schedules, schedules for each group, and prediction from several views."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.core import training
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.layers import Flatten, Linear, Module, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD
from tinytorch.core.regularisation import Dropout
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Trainer, mirrored, mirrored_and_shifted, predict, triangle

# ---- schedules --------------------------------------------------------------------------------------------


@given(total=st.integers(1, 300), peak=st.floats(0, 1), start=st.floats(0, 1), final=st.floats(0, 1), data=st.data())
def test_a_triangle_is_two_lines(total, peak, start, final, data):
    step, top = data.draw(st.integers(0, total + 3)), peak * total
    value = triangle(total, peak, start, final)(step)
    assert 0 <= value <= 1
    if 1 <= top <= total - 1e-6:
        assert value == pytest.approx(np.interp(step, [0, top, total], [start, 1, final]), abs=1e-6)
    elif top < 1:  # no step to rise in
        assert value == pytest.approx(np.interp(step, [0, total], [1, final]), abs=1e-6)


def test_a_triangle_without_rise_falls_and_without_fall_rises():
    assert [triangle(4, peak=0)(step) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    assert [triangle(4, peak=1, start=0.2)(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])


def test_a_triangle_as_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=20)
    ours = triangle(20, peak=0, final=0.1)
    for step in range(25):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_a_triangle_refuses():
    with pytest.raises(ValueError, match="total_steps must be a positive integer, got 0"):
        triangle(0)
    for peak in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"peak must be a fraction of the steps between 0 and 1, got"):
            triangle(10, peak)


def groups():
    model = Sequential(Linear(4, 4), Linear(4, 3))
    return model, SGD([{"params": layer.parameters(), "lr": lr} for layer, lr in zip(model, (1.0, 2.0), strict=True)])


def test_each_group_may_have_a_schedule_of_its_own():
    model, optimizer = groups()
    trainer = Trainer(model, optimizer, CrossEntropyLoss(), [triangle(4, peak=0), training.constant()])
    rates = []

    class Watch(training.Observer):
        def stepped(self, trainer, step):
            rates.append([group["lr"] for group in trainer.optimizer.param_groups])

    data = TensorDataset(np.ones((4, 4), np.float32), np.arange(4) % 3)
    trainer.fit(DataLoader(data, 1), epochs=1, observers=[Watch()])
    assert rates == [[1.0, 2.0], [0.75, 2.0], [0.5, 2.0], [0.25, 2.0]]


def test_schedules_must_be_as_many_as_groups():
    model, optimizer = groups()
    with pytest.raises(ValueError, match="one for each of the 2 parameter groups, got 3"):
        Trainer(model, optimizer, CrossEntropyLoss(), [training.constant()] * 3)


# ---- views ------------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(-99, 100, (10, 2, 5, 4)).astype(np.float32)


class Corner(Module):
    """The pixels of two corners, so that every view of an image gives other logits."""

    def forward(self, x):
        return x[:, 0, :2, :2].flatten(1)


def loader(images=IMAGES, batch_size=4):
    return DataLoader(TensorDataset(images, np.arange(len(images))), batch_size)


def test_mirrored_is_the_mean_of_both_sides():
    logits, labels = predict(Corner(), loader(), mirrored)
    corners = [x[:, 0, :2, :2].reshape(len(x), -1) for x in (IMAGES, IMAGES[..., ::-1])]
    np.testing.assert_array_equal(logits, sum(corners) / 2)
    np.testing.assert_array_equal(labels, np.arange(10))


def test_mirrored_and_shifted_is_the_mean_of_six():
    torch = pytest.importorskip("torch")
    padded = torch.nn.functional.pad(torch.tensor(IMAGES), (1, 1, 1, 1), mode="reflect").numpy()
    expected = 0
    for at, weight in ((0, 0.125), (1, 0.25), (2, 0.125)):
        window = padded[:, :, at : at + 5, at : at + 4]
        for view in (window, window[..., ::-1]):
            expected = expected + weight * view[:, 0, :2, :2].reshape(10, -1)
    logits, _ = predict(Corner(), loader(), mirrored_and_shifted)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


@pytest.mark.parametrize("views", [mirrored, mirrored_and_shifted])
@pytest.mark.parametrize("shape", [(3, 2, 7), (3, 1, 4, 5), (2, 1, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_views_have_the_shape_and_type_of_the_images_and_weigh_one(views, shape, dtype):
    images = Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype))
    weights, tensors = zip(*views(images), strict=True)
    assert sum(weights) == 1
    assert all(t.shape == shape and t.dtype == dtype for t in tensors)
    assert len({t.numpy().tobytes() for t in tensors}) == len(tensors)


def test_views_are_seen_in_evaluation_mode_and_without_views_nothing_changes():
    model = Sequential(Flatten(), Dropout(0.5), Linear(40, 3))
    plain, _ = predict(model, loader())
    one, _ = predict(model, loader(), lambda images: [(1.0, images)])
    np.testing.assert_array_equal(plain, one)
    assert model.training
