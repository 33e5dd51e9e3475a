"""From a run's config to the objects that train and test it."""

from __future__ import annotations

import numpy as np

from tinytorch.core.dataloader import (
    Compose,
    DataLoader,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    TensorDataset,
    Transform,
)
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import AdamW
from tinytorch.core.random import manual_seed
from tinytorch.core.training import Trainer
from tinytorch.datasets import ImageData
from tinytorch.io.run import RunConfig
from tinytorch.models import Recipe
from tinytorch.models.recipes import SCHEDULES

EVALUATION_BATCH = 250


def describe(data: ImageData, recipe: Recipe, seed: int, data_dir: str | None) -> RunConfig:
    """Return the config of a new run on this data."""
    return RunConfig(
        dataset=data.name,
        recipe=recipe,
        seed=seed,
        input_shape=data.train_images.shape[1:],
        classes=tuple(data.classes),
        mean=tuple(map(float, data.mean)),
        std=tuple(map(float, data.std)),
        data_dir=data_dir,
    )


def normalizer(config: RunConfig) -> Normalize:
    """Return the transform from uint8 images to the network's input."""
    return Normalize(config.mean, config.std)


def train_loader(config: RunConfig, data: ImageData) -> DataLoader:
    """Shuffled, augmented batches of the training images."""
    recipe = config.recipe
    transforms: list[Transform] = []
    if recipe.flip:
        transforms.append(RandomHorizontalFlip())
    if recipe.shift:
        transforms.append(RandomCrop(config.input_shape[1:], padding=recipe.shift))
    return DataLoader(
        TensorDataset(data.train_images, data.train_labels),
        batch_size=recipe.batch_size,
        shuffle=True,
        seed=config.seed,
        transform=Compose([*transforms, normalizer(config)]),
    )


def test_loader(config: RunConfig, data: ImageData) -> DataLoader:
    """Batches of the test images, in order and unchanged."""
    return image_loader(config, data.test_images, data.test_labels)


def image_loader(config: RunConfig, images: np.ndarray, labels: np.ndarray) -> DataLoader:
    """Batches of any uint8 images, as the network wants them."""
    return DataLoader(
        TensorDataset(images, labels),
        batch_size=EVALUATION_BATCH,
        transform=normalizer(config),
        seed=config.seed,
    )


def make_trainer(config: RunConfig, batches: int) -> Trainer:
    """Return a trainer with fresh weights, which depend on the seed alone.

    Parameters
    ----------
    config : RunConfig
    batches : int
        In an epoch.
    """
    recipe = config.recipe
    manual_seed(config.seed)
    model = config.build_model()
    optimizer = AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = SCHEDULES[recipe.schedule](recipe.epochs * batches)
    return Trainer(model, optimizer, CrossEntropyLoss(), schedule, recipe.clip_norm)
