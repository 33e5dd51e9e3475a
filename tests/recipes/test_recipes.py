"""Recipes: what they may say, the files that come with the package, and the objects that they become."""

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pytest

from tinytorch import Tensor, datasets, models, nn, recipes
from tinytorch.core.averaging import EMA, Lookahead
from tinytorch.core.dataloader import DataLoader, Normalize, TensorDataset
from tinytorch.core.optimizers import SGD, Adam, AdamW, Combined, Muon
from tinytorch.core.random import manual_seed
from tinytorch.recipes import Recipe, build
from tinytorch.recipes.recipe import SCHEDULES

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
DATA = TensorDataset(IMAGES, np.arange(12) % 10)
NORMALIZE = Normalize([0.5] * 3, [0.25] * 3)


def shape_of(recipe):
    """Of the images that a recipe is for."""
    return {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28)}.get(recipe.dataset, (3, 32, 32))


# ---- the files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_trains_a_network_that_exists(name):
    recipe = recipes.load(name)
    assert recipe.model in models.names()
    shape = shape_of(recipe)
    trainer = build.trainer(recipe, build.network(recipe, shape, 10), batches=3)
    trained = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert trained == sum(p.requires_grad for p in trainer.model.parameters())


def test_every_data_set_has_a_recipe_of_its_own():
    assert {recipes.of_dataset(name).dataset for name in datasets.names()} == set(datasets.names())
    with pytest.raises(ValueError, match=r"dataset must be one of .*, got 'cifar'; did you mean 'cifar10'\?"):
        recipes.of_dataset("cifar")


def test_a_recipe_survives_json_and_toml():
    recipe = recipes.load("fast94")
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
    assert recipes.text("fast94").startswith("# CIFAR-10 to 94 %")


def test_one_s_own_recipe_is_read_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(recipes.text("mnist").replace("epochs = 5", "epochs = 7"))
    for name in ("mine.toml", tmp_path / "mine.toml", "./mine.toml"):
        assert recipes.load(name) == dataclasses.replace(recipes.load("mnist"), epochs=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", r"the recipe .*mine.toml can't be used: Invalid value"),
        ("epochs = 3", "it must say model; see `tinytorch recipes mnist`"),
        ('model = "mlp"', "it must say epochs"),
        ('model = "mlp"\nepochs = 1\nepoch = 3', r"it says epoch, which no recipe knows; did you mean epochs\?"),
        ('model = "mlp"\nepochs = 1\nzzz = 3', "it says zzz, which no recipe knows; it may say model, epochs"),
        ('model = "mlp"\nepochs = 0', "can't be used: epochs must be a positive integer, got 0; 1 is the least"),
        (b"\xff", "can't be used: 'utf-8'"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        recipes.load(path)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"there is no recipe .*mine.toml; copy one with `tinytorch recipes NAME > mine"
    ):
        recipes.load(tmp_path / "mine.toml")
    with pytest.raises(ValueError, match=r"recipe must be one of .*, got 'fast49'; did you mean 'fast94'\?"):
        recipes.text("fast49")
    with pytest.raises(ValueError, match=r"mine.toml can't be used: Is a directory"):
        (tmp_path / "mine.toml").mkdir()
        recipes.load(tmp_path / "mine.toml")


# ---- what they may say --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": 3}, "model must be text in quotes, got 3"),
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"batch_size": -1}, "batch_size must be a positive integer, got -1"),
        ({"batch_size": True}, "batch_size must be a positive integer, got True"),
        ({"lr": -0.1}, "lr must be positive and finite, got -0.1; try lr=0.003"),
        ({"lr": float("nan")}, "lr must be positive and finite"),
        ({"clip_norm": 0.0}, "clip_norm must be positive and finite, got 0.0; try clip_norm=1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be finite and not negative, got -1.0; 0.01 is usual"),
        ({"goal": 94}, r"goal must be in \(0, 1\], got 94"),
        ({"whiten": -1}, "whiten must be an integer, not negative, got -1"),
        ({"drop_last": 1}, "drop_last must be true or false, got 1"),
        ({"label_smoothing": 1}, r"label_smoothing must be in \[0, 1\), got 1; 0.1 is usual"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\), got 1.0; 0.999 averages"),
        ({"flip": "sometimes"}, "flip must be true, false or \"alternating\", got 'sometimes'"),
        ({"optimizer_options": 3}, "optimizer_options must be a table of settings, got 3"),
        ({"groups": 3}, "groups must be a list of tables, got 3"),
        ({"schedule": "cosin"}, r"schedule must be one of .*, got 'cosin'; did you mean 'cosine'\?"),
        ({"optimizer": "moun"}, r"optimizer must be one of .*, got 'moun'; did you mean 'muon'\?"),
        ({"views": "six"}, "views must be one of plain, mirrored, mirrored-and-shifted, got 'six'"),
        ({"shift_edge": "zero"}, r"shift_edge must be one of reflect, zeros, got 'zero'; did you mean 'zeros'\?"),
        ({"groups": [{"lr": 1.0}]}, r'a group must have names, such as names = \["\*.bias"\]'),
        ({"groups": [{"names": ["*"], "lR": 1.0}]}, "a group must have names"),
        ({"groups": [{"names": ["*"], "lr": 0.0}]}, r"lr of the group \['\*'\] must be positive and finite, got 0.0"),
        ({"groups": [{"names": ["*"], "epochs": 0.5}]}, r"epochs of the group \['\*'\] must be a positive integer"),
        (
            {"groups": [{"names": ["*"], "options": 1}]},
            r"options of the group \['\*'\] must be a table of settings, got 1",
        ),
        ({"groups": [{"names": ["*"], "optimizer": "x"}]}, "optimizer must be one of adamw"),
        ({"groups": [{"names": ["*"], "options": {"lr": 1}}]}, r"options of the group \['\*'\] can't say lr; lr and"),
        ({"optimizer_options": {"params": []}}, "optimizer_options can't say params; lr and weight_decay stand beside"),
        ({"optimizer": ["sgd"]}, r"optimizer must be one of .*, got \['sgd'\]"),
        ({"lr": 10**400}, "lr must be positive and finite, got 1000"),
        ({"margin": 0.5}, r"margin must be in \[0, 0.5\), got 0.5"),
        ({"validation": 1.0}, r"validation must be in \[0, 1\), got 1.0"),
        ({"schedule_options": {"start": "x"}}, "schedule_options must be a table of numbers, not negative"),
        ({"schedule_options": {"final": -5}}, "schedule_options must be a table of numbers, not negative"),
        ({"schedule_options": {"start": float("nan")}}, "schedule_options must be a table of numbers"),
        ({"model_options": {"since": datetime.date(1979, 5, 27)}}, "model_options must be a table of settings"),
        *[
            ({"lookahead": bad}, r"lookahead must be a table of k, a positive integer, and alpha or decay, in \[0, 1\]")
            for bad in (3, {}, {"k": 5}, {"k": -1, "alpha": 0.5}, {"decay": "0.5"}, {"decay": 3.0}, {"beta": 1})
        ],
        ({"lookahead": {"alpha": 0.5, "decay": 0.5}}, "lookahead must be a table of k"),
    ],
)
def test_a_recipe_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"model": "mlp", "epochs": 1, **settings})


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_every_schedule_starts_and_ends(name, steps):
    schedule = SCHEDULES[name](steps)
    assert all(0 <= schedule(step) <= 1 for step in range(steps))
    assert max(schedule(step) for step in range(steps)) > 0.8


# ---- what they become ---------------------------------------------------------------------------------------


def made(shape=(3, 32, 32), **settings):
    manual_seed(0)
    recipe = Recipe(**{"model": "airbench94", "epochs": 4, **settings})
    model = build.network(recipe, shape, 10)
    build.whiten(recipe, model, DATA, NORMALIZE)
    return recipe, model


def names_of(model, params):
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in params]


def test_options_of_the_network():
    _, model = made(model_options={"widths": [8, 16, 24], "scale": 0.5})
    assert (model.group1.conv1.out_channels, model.head.in_features, model.scale) == (8, 24, 0.5)
    for model, options in (("mlp", {"scale": 0.5}), ("mlp", {"num_classes": 3})):
        with pytest.raises(ValueError, match=r"model_options don't fit the network mlp: .*argument"):
            made(model=model, model_options=options)
    with pytest.raises(ValueError, match=r"widths must be three positive integers, got \[8\]"):
        made(model_options={"widths": [8]})
    for scale in ("x", -1.0, True, float("inf")):
        with pytest.raises(ValueError, match="scale must be positive and finite, got"):
            models.Airbench94(scale=scale)


def test_augmentation_leaves_something_of_the_images():
    for name in ("shift", "cutout"):
        with pytest.raises(ValueError, match=f"{name} must be less than the images' 8 pixels a side, got 8; try 2"):
            made(model="mlp", shape=(1, 8, 9), **{name: 8})


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_takes_a_step(name):
    recipe = dataclasses.replace(recipes.load(name), batch_size=6, whiten=min(6, recipes.load(name).whiten))
    shape = shape_of(recipe)
    data = TensorDataset(RNG.integers(0, 256, (12, *shape), dtype=np.uint8), np.arange(12) % 10)
    normalize = Normalize([0.5] * shape[0], [0.25] * shape[0])
    manual_seed(0)
    model = build.network(recipe, shape, 10)
    build.whiten(recipe, model, data, normalize)
    before = model.state_dict()
    loader = DataLoader(data, 6, seed=0, transform=build.augmentation(recipe, normalize))
    build.trainer(recipe, model, 2).fit(loader, epochs=1, observers=[build.Resting(recipe)])
    changed = {key for key, array in model.state_dict().items() if (array != before[key]).any()}
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert trained <= changed | {"head.bias"}


def test_whitening_is_computed_from_the_first_images_and_frozen():
    _, model = made(whiten=5)
    expected = nn.Conv2d(3, 24, 2)
    nn.init.whiten_(expected.weight, Tensor((IMAGES[:5] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)))
    np.testing.assert_allclose(model.whitening.weight.data, expected.weight.data, rtol=1e-3, atol=1e-3)
    assert not model.whitening.weight.requires_grad
    assert made(whiten=0)[1].whitening.weight.requires_grad
    with pytest.raises(ValueError, match="whiten needs a network that can be whitened, such as airbench94, got mlp"):
        made(model="mlp", whiten=5)


def test_without_groups_one_optimizer_trains_everything():
    for kind, expected in {"adamw": AdamW, "adam": Adam, "sgd": SGD}.items():
        recipe, model = made(model="simple-cnn", optimizer=kind, lr=0.5, weight_decay=0.25)
        (group,) = (trainer := build.trainer(recipe, model, 3)).optimizer.param_groups
        assert type(trainer.optimizer) is expected and (group["lr"], group["weight_decay"]) == (0.5, 0.25)
        assert names_of(model, group["params"]) == [name for name, _ in model.named_parameters()]


GROUPS = [
    {"names": ["whitening.bias", "head.*"], "optimizer": "sgd", "lr": 3.0, "options": {"momentum": 0.9}, "epochs": 2},
    {"names": ["*.bias"], "optimizer": "sgd", "weight_decay": 0.5},
]


def test_a_parameter_belongs_to_the_first_group_that_names_it():
    recipe, model = made(optimizer="muon", lr=0.1, weight_decay=0.0, optimizer_options={"ns_steps": 3}, groups=GROUPS)
    trainer = build.trainer(recipe, model, batches=5)
    assert isinstance(trainer.optimizer, Combined)
    assert [type(optimizer) for optimizer in trainer.optimizer.optimizers] == [SGD, Muon]
    first, second, rest = trainer.optimizer.param_groups
    assert names_of(model, first["params"]) == ["whitening.bias", "head.weight"]
    assert (first["lr"], first["momentum"], first["weight_decay"]) == (3.0, 0.9, 0.0)
    assert all("norm" in name for name in names_of(model, second["params"])) and len(second["params"]) == 6
    assert (second["lr"], second["momentum"], second["weight_decay"]) == (0.1, 0.0, 0.5)
    assert names_of(model, rest["params"])[:2] == ["whitening.weight", "group1.conv1.weight"]
    assert (rest["lr"], rest["ns_steps"]) == (0.1, 3) and len(rest["params"]) == 7


def test_the_schedule_of_a_group_ends_after_its_epochs():
    recipe, model = made(schedule="triangle", schedule_options={"peak": 0.0}, groups=GROUPS)
    trainer = build.trainer(recipe, model, batches=5)
    steps = (0, 5, 10, 20)
    assert [[schedule(step) for step in steps] for schedule in trainer.schedules] == [
        [1, 0.5, 0, 0], [1, 0.75, 0.5, 0], [1, 0.75, 0.5, 0],
    ]  # fmt: skip


def test_a_group_rests_when_its_epochs_are_over_also_after_a_resume():
    groups = [{"names": ["head.*"], "epochs": 2}]
    recipe, model = made(groups=groups, model_options={"widths": [2, 2, 2]}, optimizer="sgd", lr=0.1)
    asked = []

    class Watch(build.Resting):
        def started(self, trainer, epochs, batches):
            super().started(trainer, epochs, batches)
            asked.append(model.head.weight.requires_grad)

        def epoch_ended(self, trainer, record):
            super().epoch_ended(trainer, record)
            asked.append(model.head.weight.requires_grad)

    trainer = build.trainer(recipe, model, batches=1)
    loader = DataLoader(DATA, 12, transform=build.augmentation(recipe, NORMALIZE))
    trainer.fit(loader, epochs=3, observers=[Watch(recipe)])
    assert asked == [True, True, False, False]
    asked.clear()
    model.head.weight.requires_grad = True
    trainer.fit(loader, epochs=4, observers=[Watch(recipe)])
    assert asked == [False, False]


def test_somebody_learns_to_the_end():
    recipe, model = made(groups=[{"names": ["*"], "epochs": 3}])
    with pytest.raises(ValueError, match="all groups of the recipe rest after 3 epochs, and it has 4; one must learn"):
        build.trainer(recipe, model, 1)


def test_groups_that_do_not_fit():
    recipe, model = made(groups=[{"names": ["*"]}, {"names": ["head.*"]}])
    with pytest.raises(ValueError, match=r"the group \['head.\*'\] of the recipe has no parameter of airbench94 left"):
        build.trainer(recipe, model, 1)
    recipe, model = made(groups=GROUPS)
    with pytest.raises(ValueError, match="layer_decay needs a recipe without groups"):
        build.trainer(recipe, model, 1, layer_decay=0.5)


def test_blocks_learn_by_their_depth():
    recipe, model = made(model="mlp", lr=0.4)
    groups = build.trainer(recipe, model, 1, layer_decay=0.5).optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.2, 0.4]


def test_what_belongs_to_the_trainer():
    recipe, model = made(ema=0.9, accumulate=3, clip_norm=2.0, label_smoothing=0.1)
    trainer = build.trainer(recipe, model, 1)
    assert isinstance(trainer.average, EMA) and trainer.average.decay == 0.9
    assert (trainer.accumulate, trainer.clip_norm, trainer.loss.label_smoothing) == (3, 2.0, 0.1)
    assert build.trainer(*made(), 1).average is None


def test_lookahead():
    recipe, model = made(lookahead={"k": 3, "alpha": 0.25})
    optimizer = build.trainer(recipe, model, 5).optimizer
    assert isinstance(optimizer, Lookahead) and (optimizer.k, optimizer.alpha) == (3, 0.25)
    recipe, model = made(lookahead={"k": 5, "decay": 0.95})
    assert build.trainer(recipe, model, 5).optimizer.alpha(10) == pytest.approx(1 - 0.95**5 / 8)


def test_a_schedule_names_what_it_does_not_know():
    recipe, model = made(schedule_options={"peak": 0.5})
    with pytest.raises(ValueError, match=r"schedule_options don't fit the schedule one-cycle: .*'peak'"):
        build.trainer(recipe, model, 5)


def test_augmentation():
    def kinds(**settings):
        return [type(piece).__name__ for piece in build.augmentation(made(**settings)[0], NORMALIZE).pieces]

    assert kinds() == []
    assert kinds(flip=True, shift=2, cutout=3) == ["RandomHorizontalFlip", "RandomTranslate", "Cutout"]
    assert kinds(flip="alternating") == ["AlternatingFlip"]
    edges = [
        build.augmentation(made(shift=2, shift_edge=edge)[0], NORMALIZE).pieces[0].edge for edge in ("zeros", "reflect")
    ]
    assert edges == ["zeros", "reflect"]
