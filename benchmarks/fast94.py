"""Train the network of CIFAR-10's speed records: ``python -m benchmarks.fast94 --data-dir DIR``.

Every trick can be left out with ``--without``, which is what the table in docs/recipes.md is made of.
"""

from __future__ import annotations

import json as json_format
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import tinytorch
from tinytorch import Tensor, datasets, nn
from tinytorch.core import dataloader, random, training
from tinytorch.core.averaging import EMA, Lookahead
from tinytorch.core.training import Observer, Trainer, triangle
from tinytorch.models.airbench import Airbench94, muon, nesterov
from tinytorch.models.initial import draw_uniform

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
WHITENING_EPOCHS = 3  # then the bias of the whitening rests
TEST_BATCH = 500  # its activations stay in fewer pages of memory than those of 2000


class Trick(StrEnum):
    """What can be left out."""

    whitening, dirac, alternating, flip, translate = "whitening", "dirac", "alternating", "flip", "translate"
    smoothing, muon = "smoothing", "muon"


class _Log(Observer):
    """Prints a line after each epoch, and lets the bias of the whitening rest when its time is over."""

    def epoch_ended(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if trainer.epoch == WHITENING_EPOCHS:
            trainer.model.whitening.bias.requires_grad = False
        print(
            f"epoch {record['epoch']}: {record['seconds']:.1f} s, loss {record['loss']:.4f}, training accuracy "
            f"{record['accuracy']:.2%}, test accuracy {record['validation_accuracy']:.2%}",
            flush=True,
        )


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with CIFAR-10.")],
    epochs: Annotated[int, typer.Option(min=1)] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and augmentation.")] = 0,
    batch_size: Annotated[int, typer.Option(min=2)] = 2000,
    without: Annotated[
        list[Trick] | None, typer.Option(help="Leave this trick out; may be given several times.")
    ] = None,
    cutout: Annotated[int, typer.Option(min=0, help="Side of a square cut out of training images.")] = 0,
    ema: Annotated[float | None, typer.Option(help="Decay of an average of the weights, which is then tested.")] = None,
    lookahead: Annotated[bool, typer.Option("--lookahead", help="With the paper's schedule.")] = False,
    images: Annotated[
        int | None, typer.Option(min=1, help="Of each split take only so many, to try things out.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Train, and print the time of each epoch, the accuracy with and without test-time views, and the arithmetic."""
    left_out = set(without or ())
    random.manual_seed(seed)
    data, normalize = datasets.load("cifar10", data_dir), dataloader.Normalize(MEAN, STD)
    train, test = splits(data, images)
    transform = augmentation(left_out, normalize, cutout)
    loader = dataloader.DataLoader(train, batch_size, shuffle=True, drop_last=True, seed=seed, transform=transform)
    test_loader = dataloader.DataLoader(test, TEST_BATCH, transform=normalize)
    model = network(left_out, normalize(train.arrays[0][:5000], np.random.default_rng(seed)))
    trainer = make_trainer(model, batch_size, len(loader), epochs, left_out, lookahead)
    average = None if ema is None else EMA(model, ema)
    trainer.fit(loader, test_loader, epochs, [_Log(), *([] if average is None else [average])])
    if average is not None:
        model.load_state_dict(average.average)
    result = {
        "seed": seed, "epochs": epochs,
        "without": sorted(left_out), "cutout": cutout, "ema": ema, "lookahead": lookahead,
        "seconds_per_epoch": [record["seconds"] for record in trainer.history],
        **{f"accuracy_{name}": accuracy(model, test_loader, views) for name, views in VIEWS.items()},
        "training_pflop": 3 * 2 * macs(model) * epochs * len(loader) * batch_size / 1e15,
    }  # fmt: skip
    report(result)
    if json is not None:
        json.write_text(json_format.dumps(result, indent=2) + "\n")


VIEWS: dict[str, training.Views | None] = {"plain": None, "six_views": training.mirrored_and_shifted}


def splits(data: datasets.ImageData, images: int | None) -> tuple[dataloader.TensorDataset, dataloader.TensorDataset]:
    """The first images of each split for training and testing."""
    train = data.train_images[:images], data.train_labels[:images]
    return dataloader.TensorDataset(*train), dataloader.TensorDataset(
        data.test_images[:images], data.test_labels[:images]
    )


def augmentation(left_out: set[Trick], normalize: dataloader.Normalize, cutout: int) -> dataloader.Augment:
    """Flip, translate and cut out, unless left out."""
    flip = dataloader.RandomHorizontalFlip() if Trick.alternating in left_out else dataloader.AlternatingFlip()
    pieces: list[Any] = [] if Trick.flip in left_out else [flip]
    pieces += [] if Trick.translate in left_out else [dataloader.RandomTranslate(2)]
    pieces += [dataloader.Cutout(cutout)] if cutout else []
    return dataloader.Augment(pieces, normalize)


def network(left_out: set[Trick], images: np.ndarray) -> Airbench94:
    """The network, its first weights drawn and computed."""
    model = Airbench94(scale=1 / 9 if Trick.muon in left_out else 1 / 256)
    if Trick.dirac in left_out:
        for group in (model.group1, model.group2, model.group3):
            draw_uniform(group)
    if Trick.whitening not in left_out:
        model.whiten(Tensor(images))
    return model


def make_trainer(
    model: Airbench94, batch_size: int, batches: int, epochs: int, left_out: set[Trick], lookahead: bool
) -> Trainer:
    """Loss, optimizer and learning rates."""
    steps = epochs * batches
    loss = nn.CrossEntropyLoss(label_smoothing=0.0 if Trick.smoothing in left_out else 0.2)
    schedule: Callable[[int], float] | Sequence[Callable[[int], float]]
    if Trick.muon in left_out:
        optimizer: Any = nesterov(model, batch_size)
        schedule = triangle(steps, peak=0.23, start=0.2, final=0.07)
    else:
        optimizer, falling = muon(model, batch_size), triangle(steps, peak=0)
        schedule = [triangle(min(WHITENING_EPOCHS, epochs) * batches, peak=0), falling, falling, falling]
    if lookahead:
        optimizer = Lookahead(optimizer, k=5, alpha=lambda step: 1 - 0.95**5 * (step / steps) ** 3)
    return Trainer(model, optimizer, loss, schedule)


def accuracy(model: nn.Module, loader: dataloader.DataLoader, views: training.Views | None) -> float:
    """Of the test images, seen once or in several views."""
    return training.accuracy(*training.predict(model, loader, views))


def macs(model: Airbench94) -> int:
    """Multiply-accumulates of one image on its way through the convolutions and the head."""
    return tinytorch.summary(model, (1, 3, 32, 32), memory=False).macs.value


def report(result: dict[str, Any]) -> None:
    """Print the figures."""
    seconds = result["seconds_per_epoch"]
    print(f"{sum(seconds):.1f} s of training, {sum(seconds) / len(seconds):.1f} s per epoch")
    for name in VIEWS:
        print(f"test accuracy, {name.replace('_', ' ')}: {result[f'accuracy_{name}']:.2%}")
    print(f"{result['training_pflop']:.3f} PFLOP of training: forward and backward are counted as three forwards")


if __name__ == "__main__":
    typer.run(main)
