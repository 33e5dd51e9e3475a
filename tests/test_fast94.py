"""The scripts around the recipe fast94: PyTorch's twin takes the same steps, and every variant leaves one thing out."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import ablation, fast94, torch94
from tinytorch import Tensor, recipes
from tinytorch.datasets import ImageData
from tinytorch.recipes import build

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
DATA = ImageData("cifar10", IMAGES, np.arange(12) % 10, IMAGES[:4], np.arange(4), classes=tuple("abcdefghij"))
SMALL = dataclasses.replace(
    recipes.load("fast94"), batch_size=6, epochs=2, model_options={"widths": [4, 6, 8], "scale": 1 / 8}, whiten=12
)


@pytest.fixture
def small(monkeypatch):
    """The scripts see a small network and a dozen images."""
    load = recipes.load
    monkeypatch.setattr(fast94.datasets, "load", lambda name, folder: DATA)
    for script in (fast94, ablation):
        monkeypatch.setattr(script.recipes, "load", lambda name: load(name) if name == "airbench94" else SMALL)


# ---- PyTorch's twin -----------------------------------------------------------------------------------------


def test_the_orthogonal_directions_are_those_of_a_decomposition():
    torch = pytest.importorskip("torch")
    for shape in ((5, 9), (9, 5)):
        matrix = RNG.standard_normal(shape)
        u, values, vt = np.linalg.svd(matrix, full_matrices=False)
        values /= np.linalg.norm(values)
        for _ in range(3):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        out = torch94.orthogonalized(torch.tensor(matrix), 3).numpy()
        np.testing.assert_allclose(out, u * values @ vt, atol=1e-5)


def test_three_steps_of_both_libraries_have_the_same_losses():
    pytest.importorskip("torch")
    images, labels = next(iter(fast94.loaders(SMALL, DATA, 0)[0]))
    ours = fast94.ours(SMALL, DATA, images, labels)
    theirs = fast94.theirs(SMALL, DATA, images, labels, "torch", True, False)
    expected = [ours.call() for _ in range(3)]
    np.testing.assert_allclose([theirs.call() for _ in range(3)], expected, rtol=2e-3)
    assert expected[0] != pytest.approx(expected[1], rel=1e-2)


# ---- the script ---------------------------------------------------------------------------------------------


def test_it_trains_every_seed_and_times_steps_in_between(small, tmp_path, capsys):
    path = tmp_path / "figures.json"
    fast94.main(data_dir=tmp_path, recipe="small", seeds=2, rounds=1, json=path)
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.count("epoch 2: ") == 2 and "test accuracy" in printed and "ours is faster by" in printed
    assert [run["seed"] for run in figures["runs"]] == [0, 1] and figures["batches"] == 2
    assert all(len(seconds) == 2 for seconds in figures["steps"].values())
    assert next(iter(figures["steps"])) == "tinytorch"
    first, second = figures["runs"]
    assert all(0 <= run[view] <= 1 for run in (first, second) for view in ("plain", "mirrored", "mirrored-and-shifted"))


def test_a_seed_decides_everything(small):
    one, again, other = (fast94.train(SMALL, DATA, seed, quiet=True) for seed in (3, 3, 4))
    timeless = [{k: v for k, v in run.items() if k not in ("seconds", "waiting", "seed")} for run in (one, again)]
    assert timeless[0] == timeless[1] and one["seed"] != other["seed"]
    weights = [fast94.fresh(SMALL, DATA, seed).head.weight.data for seed in (3, 3, 4)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


# ---- variants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ablation.VARIANTS)[1:])
def test_every_variant_differs_and_trains(name):
    recipe = ablation.VARIANTS[name](SMALL)
    assert recipe != SMALL and ablation.VARIANTS[ablation.WHOLE](SMALL) == SMALL
    trainer = build.trainer(recipe, fast94.fresh(recipe, DATA, 0), 2)
    images, labels = next(iter(fast94.loaders(recipe, DATA, 0)[0]))
    assert np.isfinite(trainer._train_batch(images, labels))


def settings_of(name, batch_size=2000):
    """Groups of the optimizer by the first name in them."""
    recipe = ablation.VARIANTS[name](dataclasses.replace(SMALL, batch_size=batch_size))
    model = fast94.fresh(recipe, DATA, 0)
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = build.trainer(recipe, model, 2).optimizer
    return {names[id(group["params"][0])]: group for group in optimizer.param_groups}


def test_settings_of_variants():
    whole = settings_of(ablation.WHOLE)
    slow = settings_of("biases learn 64 times as slowly")
    for name in ("whitening.bias", "group1.norm1.bias"):
        assert slow[name]["lr"] == whole[name]["lr"] / 64
        assert slow[name]["lr"] * slow[name]["weight_decay"] == pytest.approx(
            whole[name]["lr"] * whole[name]["weight_decay"]
        )
    assert slow["head.weight"]["lr"] == whole["head.weight"]["lr"]
    assert not any(group["nesterov"] for group in settings_of("no Nesterov").values())
    assert not any(group["weight_decay"] for group in settings_of("no weight decay").values())
    sgd = settings_of("Nesterov SGD instead of Muon", batch_size=512)
    assert (sgd["group1.conv1.weight"]["lr"], sgd["group1.norm1.bias"]["lr"]) == (0.75, 48)
    assert all("ns_steps" not in group for group in sgd.values())


def test_a_worth_is_the_mean_over_seeds_of_what_is_lost():
    def run(variant, seed, plain):
        return {
            "variant": variant,
            "seed": seed,
            "plain": plain,
            "mirrored": 0.5,
            "mirrored-and-shifted": 0.5,
            "seconds": [1.0],
        }

    runs = [
        run(ablation.WHOLE, 0, 0.9),
        run(ablation.WHOLE, 1, 0.92),
        run("no flips", 0, 0.88),
        run("no flips", 1, 0.91),
    ]
    assert ablation.worth(runs, "no flips") == "+1.50 ± 0.50"
    assert ablation.worth(runs[:3], "no flips") == "+2.00" and ablation.worth(runs, ablation.WHOLE) == ""
    assert ablation.as_table(runs, "small").row_count == 2


def test_ablation_goes_on_from_its_file(small, tmp_path, capsys):
    path = tmp_path / "runs.json"
    ablation.main(data_dir=tmp_path, recipe="small", seeds=1, only="flips", json=path)
    first = json.loads(path.read_text())
    assert [run["variant"] for run in first["runs"]] == ["flips by chance, not alternating", "no flips"]
    ablation.main(data_dir=tmp_path, recipe="small", seeds=1, only="no flips", json=path)
    assert json.loads(path.read_text()) == first and "small, 2 epochs, mean of 1 seeds" in capsys.readouterr().out


def test_ablation_does_not_mix_recipes(small, tmp_path):
    path = tmp_path / "runs.json"
    ablation.main(data_dir=tmp_path, recipe="small", seeds=1, only="no flips", json=path)
    with pytest.raises(ValueError, match="has runs of another recipe or other epochs; name another file"):
        ablation.main(data_dir=tmp_path, recipe="small", seeds=1, epochs=1, json=path)


def test_variants_can_be_made_of_every_recipe_of_the_network():
    for recipe in map(recipes.load, ("fast94", "fast90", "airbench94", "mnist995")):
        assert all(isinstance(change(recipe), recipes.Recipe) for change in ablation.VARIANTS.values())


def test_a_race_is_for_recipes_with_muon():
    pytest.importorskip("torch")
    images, labels = next(iter(fast94.loaders(SMALL, DATA, 0)[0]))
    sgd = ablation.nesterov_sgd(SMALL)
    with pytest.raises(ValueError, match="the race is for recipes that move all filters by Muon"):
        fast94.theirs(sgd, DATA, images, labels, "torch", True, False)


def test_tensors_stay_what_they_were():
    """The batch that all libraries share is not changed by a step."""
    images, labels = Tensor(RNG.random((6, 3, 32, 32), np.float32)), Tensor(np.arange(6))
    before = images.numpy().copy()
    fast94.ours(SMALL, DATA, images, labels).call()
    np.testing.assert_array_equal(images.numpy(), before)
