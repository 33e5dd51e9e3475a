"""From a run's config to the objects that train and test it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinytorch
from tinytorch import datasets
from tinytorch.core import finetune
from tinytorch.core import functional as F
from tinytorch.core.dataloader import DataLoader, Dataset, Normalize, TensorDataset, random_split
from tinytorch.core.layers import Module
from tinytorch.core.random import manual_seed
from tinytorch.core.stopping import EarlyStopping
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Observer, Trainer, accuracy
from tinytorch.datasets import FolderData, ImageData
from tinytorch.datasets.registry import is_path
from tinytorch.io.checkpoint import load_arrays
from tinytorch.io.run import RunConfig
from tinytorch.recipes import Recipe, build
from tinytorch.recipes import files as recipes
from tinytorch.recipes.recipe import VIEWS

EVALUATION_BATCH = 250

Data = ImageData | FolderData


def recipe(dataset: str, name: str | None = None) -> Recipe:
    """Return the recipe of this name or path; without one that of the data set, or of folders of pictures."""
    if name is not None:
        return recipes.load(name)
    return recipes.load(recipes.PICTURES) if is_path(dataset) else recipes.of_dataset(dataset)


def canonical(dataset: str) -> str:
    """Return the name that a run's config has: of a folder the absolute path."""
    return str(Path(dataset).expanduser().resolve()) if is_path(dataset) else dataset


def load_new(dataset: str, data_dir: Path | None, image_size: int | None, skip_corrupt: bool | None) -> Data:
    """Load the data set of a new run.

    Raises
    ------
    ValueError
        If an option is for folders of pictures, and this is none.
    """
    pictures: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    if skip_corrupt is not None:
        pictures["skip_corrupt"] = skip_corrupt
    if pictures and not is_path(dataset):
        names = " and ".join(f"--{name.replace('_', '-')}" for name in pictures)
        raise ValueError(f"{names} is for folders of pictures, got the data set {dataset}; leave it out")
    return datasets.load(dataset, data_dir, **pictures)


def describe(data: Data, recipe: Recipe, seed: int, data_dir: str | None, **options: Any) -> RunConfig:
    """Return the config of a new run on this data; `options` are further fields of it."""
    return RunConfig(
        dataset=data.name,
        recipe=recipe,
        seed=seed,
        input_shape=data.image_shape,
        classes=tuple(data.classes),
        mean=tuple(map(float, data.mean)),
        std=tuple(map(float, data.std)),
        data_dir=data_dir,
        data_digest=data.digest,
        **options,
    )


def load(config: RunConfig, data_dir: Path | None = None) -> Data:
    """Load the data set of a run.

    Raises
    ------
    ValueError
        If its classes or the size of its images are not those that the run's network was made for.
    """
    data = datasets.load(
        config.dataset,
        data_dir or config.data_dir,
        image_size=config.input_shape[1],
        skip_corrupt=config.skip_corrupt,
    )
    for what, own, wanted in (
        ("classes", data.classes, config.classes),
        ("images of shape", data.image_shape, config.input_shape),
    ):
        if tuple(own) != tuple(wanted):
            raise ValueError(
                f"the data set {data.name} has {what} {_listed(own)}, the run was trained for {_listed(wanted)}; "
                "name the run's own data with --data-dir"
            )
    return data


def _listed(values: tuple[Any, ...], most: int = 12) -> str:
    return ", ".join(map(str, values[:most])) + (" …" if len(values) > most else "")


def check_unchanged(config: RunConfig, data: Data) -> None:
    """Check that a run continues on the data it began with: on other data it would not be the same run.

    Raises
    ------
    ValueError
        If it is other data.
    """
    if config.data_digest not in ("", data.digest):
        raise ValueError(
            f"the data set {data.name} has changed since the run began (it has {len(data.train):,} training and "
            f"{len(data.test):,} test images now); restore it, or start a new run with another --out"
        )


def normalizer(config: RunConfig) -> Normalize:
    """Return the transform from uint8 images to the network's input."""
    return Normalize(config.mean, config.std)


def train_loader(config: RunConfig, data: Data) -> DataLoader:
    """Shuffled, augmented batches of the training images.

    Raises
    ------
    ValueError
        If there are too few for one batch, and smaller ones are to be left out.
    """
    size, train = config.recipe.batch_size, splits(config, data)[0]
    if config.recipe.drop_last and size > len(train):
        raise ValueError(
            f"batch_size must be at most the {len(train):,} training images where drop_last leaves smaller batches "
            f"out, got {size:,}"
        )
    return DataLoader(
        train,
        batch_size=size,
        shuffle=True,
        drop_last=config.recipe.drop_last,
        seed=config.seed,
        transform=build.augmentation(config.recipe, normalizer(config)),
    )


def splits(config: RunConfig, data: Data) -> tuple[Dataset, Dataset | None]:
    """Return the images to train on, and those that are held out of them; None if none are.

    Raises
    ------
    ValueError
        If the share that is to be held out is no whole image.
    """
    share = config.recipe.validation
    if not share:
        return data.train, None
    count = int(share * len(data.train) + 1e-9)  # 0.29 · 100 is a little less than 29
    left = len(data.train) - count
    if not count or not left:
        raise ValueError(
            f"validation {share} of {len(data.train):,} training images leaves {left:,} to train on and {count:,} to "
            "judge by; there must be some of both"
        )
    train, held_out = random_split(data.train, [left, count], config.seed)
    return train, held_out


def validation_loader(config: RunConfig, data: Data) -> DataLoader:
    """Batches of the images that epochs are judged by: held out, or if there are none the test images."""
    held_out = splits(config, data)[1]
    return test_loader(config, data) if held_out is None else _plain_loader(config, held_out)


def test_loader(config: RunConfig, data: Data) -> DataLoader:
    """Batches of the test images, in order and unchanged."""
    return _plain_loader(config, data.test)


def image_loader(config: RunConfig, images: np.ndarray, labels: np.ndarray) -> DataLoader:
    """Batches of any uint8 images, as the network wants them."""
    return _plain_loader(config, TensorDataset(images, labels))


def _plain_loader(config: RunConfig, dataset: Dataset) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=EVALUATION_BATCH,
        transform=normalizer(config),
        seed=config.seed,
    )


def make_trainer(config: RunConfig, data: Data, batches: int) -> Trainer:
    """Return a trainer with fresh weights, which follow from seed and data; what is to be frozen is.

    Parameters
    ----------
    config : RunConfig
    data : ImageData or FolderData
    batches : int
        In an epoch.
    """
    manual_seed(config.seed)
    model = config.build_model()
    build.whiten(config.recipe, model, splits(config, data)[0], normalizer(config))
    if config.freeze:
        finetune.freeze(model, *config.freeze)
    return build.trainer(config.recipe, model, batches, config.layer_decay)


def observers(config: RunConfig) -> list[Observer]:
    """Return the observers that the recipe and the options ask for."""
    return [build.Resting(config.recipe), *early_stopping(config)]


def arithmetic(config: RunConfig, images: int) -> float:
    """Return how many floating-point operations training on so many images took: forward and backward, 2 a MAC.

    The backward is counted as two forwards, as records of training do: gradients of weights and of inputs.
    """
    macs = tinytorch.summary(config.build_model(), (1, *config.input_shape), memory=False).macs.value
    assert macs is not None  # known for every network that has a name
    return 3.0 * 2 * macs * images


def test(
    config: RunConfig, data: Data, predict: Callable[..., tuple[np.ndarray, np.ndarray]], views: str
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return figures of the test images, seen once and in views, the logits in the views, and the labels.

    `predict(loader, views)` is that of `training`, of a model; the loss is the one that the recipe trains for.
    """
    loader = test_loader(config, data)
    plain, labels = predict(loader)
    logits = plain if VIEWS[views] is None else predict(loader, VIEWS[views])[0]
    smoothing = config.recipe.label_smoothing
    figures = {
        "test_accuracy": accuracy(plain, labels),
        "test_loss": F.cross_entropy(Tensor(plain), Tensor(labels), label_smoothing=smoothing).item(),
        "views": views,
        "accuracy_in_views": accuracy(logits, labels),
    }
    return figures, logits, labels


def surest_mistakes(logits: np.ndarray, labels: np.ndarray, most: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of the images that are taken for something else, the surest first, and their probabilities."""
    probabilities = F.softmax(Tensor(logits), dim=1).numpy()
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    chosen = wrong[(-probabilities[wrong].max(axis=1)).argsort(kind="stable")[:most]]
    return chosen, probabilities[chosen]


def early_stopping(config: RunConfig) -> list[EarlyStopping]:
    """Return the observer that ends the run early, if it is to."""
    return [EarlyStopping(config.patience)] if config.patience is not None else []


def begin_with(model: Module, path: Path) -> finetune.Loaded:
    """Take over the weights that fit from a run's folder or a safetensors file.

    Raises
    ------
    ValueError
        If the file is damaged, or nothing in it fits.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    arrays, _ = load_arrays(file)
    try:
        return finetune.load_matching(model, arrays)
    except ValueError as error:
        raise ValueError(f"{file} can't be begun with: {error}") from error
