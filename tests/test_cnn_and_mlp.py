"""The comparison of a CNN and an MLP, and docs/cnn-and-mlp.md: sizes, images, figures; never how accurate or fast."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import cnn_and_mlp as script
from benchmarks.cnn_and_mlp import Training
from tests.test_operations_pages import wrong_arithmetic, wrong_examples
from tinytorch import models, recipes
from tinytorch.core import training
from tinytorch.datasets import ImageData

PAGE = Path(__file__).parent.parent / "docs" / "cnn-and-mlp.md"
TEXT = PAGE.read_text()
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
LABELS = np.arange(24) % 10
DATA = ImageData("digits", IMAGES, LABELS, IMAGES, LABELS, classes=tuple("0123456789"))


# ---- widths -------------------------------------------------------------------------------------------


def parameters_of(hidden, inputs, classes):
    """Counted array by array: two matrices and two biases."""
    return sum(np.empty(shape, np.int8).size for shape in ((inputs, hidden), hidden, (hidden, classes), classes))


def sizes(column):
    return sum(array.size for array in column.create().state_dict().values()) - statistics_of(column.create())


def statistics_of(model):
    """Numbers that a network keeps but does not learn."""
    return sum(array.size for name, array in model.state_dict().items() if "running" in name or "num_batches" in name)


@pytest.mark.parametrize("task", script.TASKS, ids=lambda task: task.title)
def test_networks_of_a_task_are_equal_in_what_they_say(task):
    cnn, mlp, *wide = script.columns(task, SHAPES[task.dataset], 10)
    assert (sizes(cnn), sizes(mlp)) == (cnn.parameters, mlp.parameters)
    if task.hidden is None:
        assert abs(sizes(mlp) - sizes(cnn)) <= sizes(cnn) / 100
        assert abs(wide[0].macs - cnn.macs) <= cnn.macs / 100
    else:
        assert mlp.create().hidden.weight.shape[0] == task.hidden and not wide


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(2, 12), st.integers(1, 1_000))
def test_no_other_width_is_nearer(inputs, classes, parameters):
    distances = [abs(parameters_of(hidden, inputs, classes) - parameters) for hidden in range(1, 300)]
    if min(distances) * 100 <= parameters:
        found = script.width_of_parameters(parameters, inputs, classes)
        assert distances[found - 1] == min(distances)
    else:
        with pytest.raises(ValueError, match="within 1%"):
            script.width_of_parameters(parameters, inputs, classes)


def test_a_cnn_too_small_for_an_equal_mlp_is_refused():
    message = r"within 1% of what some MLP has, got 25,578: .* 3,083, and 8 units have 24,674; take a larger CNN"
    with pytest.raises(ValueError, match=message):
        script.width_of_parameters(25_578, 3_072, 10)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(2, 12), st.integers(1, 50))
def test_every_weight_is_a_multiply_accumulate(inputs, classes, hidden):
    macs = sum(hidden for _ in range(inputs)) + sum(classes for _ in range(hidden))
    assert script.width_of_macs(macs, inputs, classes) == hidden


# ---- images -------------------------------------------------------------------------------------------

SMALL = np.arange(6 * 2 * 3 * 4).reshape(6, 2, 3, 4)


def test_pixels_are_permuted_one_by_one():
    order = np.random.default_rng(1).permutation(12)
    found = script.permuted(SMALL, order)
    for n, c, k in np.ndindex(6, 2, 12):
        assert found[n, c, k // 4, k % 4] == SMALL[n, c, order[k] // 4, order[k] % 4]


def test_training_test_and_all_seeds_share_the_permutation():
    permuted = Training("pixels permuted", 24, 1, permuted=True)
    ((name, tested),) = script.test_images(DATA, permuted)
    assert name == permuted.name and (tested != IMAGES).any()
    np.testing.assert_array_equal(np.sort(tested.reshape(24, -1)), np.sort(IMAGES.reshape(24, -1)))
    for seed in (0, 1):
        images, labels = script.train_images(DATA, permuted, seed)
        rows = {row.tobytes(): label for row, label in zip(tested, LABELS, strict=True)}
        assert [rows[image.tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize("pixels", [0, 1, 2, 3])
def test_images_move_by_turns_and_repeat_their_edge(pixels):
    found = script.shifted(SMALL, pixels)
    for n, c, y, x in np.ndindex(SMALL.shape):
        down, right = [(0, pixels), (pixels, 0), (0, -pixels), (-pixels, 0)][n % 4]
        from_row, from_column = min(max(y - down, 0), 2), min(max(x - right, 0), 3)
        assert found[n, c, y, x] == SMALL[n, c, from_row, from_column]


def test_only_plain_training_is_tested_on_shifted_images():
    plain, few = Training(script.PLAIN, 24, 1), Training("10 training images", 10, 1)
    names = [name for name, _ in script.test_images(DATA, plain)]
    assert names == ["as they are", "shifted by 1 pixel", "shifted by 2 pixels", "shifted by 3 pixels"]
    assert [name for name, _ in script.test_images(DATA, few)] == ["10 training images"]


def test_few_images_are_drawn_by_the_seed():
    few = Training("10 training images", 10, 1)
    first, again, other = (script.train_images(DATA, few, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and len({image.tobytes() for image in first}) == 10


# ---- the run ------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    tasks = (
        script.Task("digits", "digits", "digits-cnn", script.trainings(24, 2, {10: 1})),
        script.Task("elsewhere", "mnist", "mnist-convnet", script.trainings(24, 1, {})),
    )
    monkeypatch.setattr(script, "TASKS", tasks)
    monkeypatch.setattr(script, "width_of_macs", lambda macs, inputs, classes: 20)
    monkeypatch.setattr(script, "interleave", timed)
    monkeypatch.setattr(script.datasets, "load", loaded)


def timed(runners, effort):
    """Half a second for each; they run without a graph."""
    for runner in runners:
        with runner.mode():
            assert not runner.call().requires_grad
    return {runner.name: [0.5] for runner in runners}


def loaded(name, folder):
    if name == "digits":
        return DATA
    raise FileNotFoundError(folder)


def run(folder, **options):
    settings = {"data_dir": [folder], "seeds": 2, "longer": 1, "only": "", "picture": None}
    script.main(**{**settings, "json": folder / "figures.json", **options})
    return json.loads((folder / "figures.json").read_text())


def test_a_run_prints_and_writes_its_figures(tiny, tmp_path, capsys):
    figures = run(tmp_path, picture=tmp_path / "made" / "picture.png")
    printed = capsys.readouterr().out
    assert "elsewhere is left out: mnist is in no --data-dir" in printed
    assert "trained on 24 images × 2 epochs, 10 images × 1 epochs" in printed
    (task,) = figures["tasks"]
    cnn, mlp, wide = task["columns"]
    assert f"| {cnn['parameters']:,} | {mlp['parameters']:,} |" in re.sub(" +", " ", printed)
    assert len(cnn["accuracies"]) == 6 and len(wide["accuracies"]) == 4
    assert all(len(found) == 2 for column in (cnn, mlp, wide) for found in column["accuracies"].values())
    assert len(cnn["seconds"]) == 4 and cnn["images_per_second"] == 48
    assert (tmp_path / "made" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_runs_are_repeatable_and_stretched(tiny, tmp_path):
    first, again, longer = (run(tmp_path, seeds=1, longer=times)["tasks"][0] for times in (1, 1, 3))
    assert [c["accuracies"] for c in first["columns"]] == [c["accuracies"] for c in again["columns"]]
    assert len(longer["columns"][0]["seconds"]) == 3 * len(first["columns"][0]["seconds"]) == 6


def test_the_recipe_is_the_data_sets_own_but_for_augmentation(monkeypatch):
    seen = []
    monkeypatch.setattr(script.Trainer, "fit", lambda self, loader, epochs: seen.append((self, loader, epochs)))
    normalize = script.Normalize([0.5], [0.5])
    script.train(lambda: models.MLP((1, 8, 8), 10, 4), "digits", IMAGES, LABELS, normalize, 3, 7)
    ((trainer, loader, epochs),) = seen
    recipe = recipes.of_dataset("digits")
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["weight_decay"], epochs) == (recipe.lr, recipe.weight_decay, 3)
    assert (loader.batch_size, loader.shuffle, loader.seed) == (recipe.batch_size, True, 7)
    assert loader.transform is normalize
    assert trainer.schedules[0](0) == pytest.approx(training.one_cycle(3)(0))


def test_means_and_deviations():
    values = [0.5, 0.75, 0.875]
    assert script._accuracy(values) == f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"
    assert (script._accuracy([0.5]), script._accuracy(None)) == ("50.0", "–")


# ---- the page -----------------------------------------------------------------------------------------


def test_examples_print_what_the_page_says():
    assert wrong_examples(TEXT) == []


def test_arithmetic():
    assert wrong_arithmetic(TEXT) == []


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert len(links) >= 2 and all((PAGE.parent / link).exists() for link in links)


def test_the_tables_have_the_networks_of_the_script():
    rows = [
        re.findall(r"(?<![\d.,])\d[\d,]{3,}", row)
        for row in re.findall(r"^\| (?:parameters|MACs of an image) .*", TEXT, re.M)
    ]
    wanted = []
    for task in script.TASKS:
        columns = script.columns(task, SHAPES[task.dataset], 10)
        wanted += [[f"{c.parameters:,}" for c in columns], [f"{c.macs:,}" for c in columns]]
    assert rows == wanted
