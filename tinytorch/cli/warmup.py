"""`tinytorch warmup`: compile the kernels ahead of their first use."""

from __future__ import annotations

import time
from typing import Annotated

import typer

_TRAINED = ("simple-cnn", "mnist-convnet", "digits-cnn")


def warmup(
    models: Annotated[
        list[str] | None, typer.Argument(help="Networks to prepare for; by default the small ones and resnet50.")
    ] = None,
) -> None:
    """Compile the kernels that networks use, and keep them on disk, so that nothing waits for them later.

    Small networks make a training step, large ones see one image.
    """
    from tinytorch.cli import console as out
    from tinytorch.models import registry

    chosen = models or [*_TRAINED, "resnet50"]
    for name in chosen:
        registry.check_known(name)
    start = time.perf_counter()
    with out.console().status("compiling …") as status:
        for name in chosen:
            status.update(f"compiling the kernels of {name} …")
            _run(name)
    out.console().print(f"ready for {', '.join(chosen)} after {time.perf_counter() - start:.1f} s")


def _run(name: str) -> None:
    """One image through a network, and for a small one a training step with two."""
    import numpy as np

    from tinytorch import Tensor, nn, no_grad, optim
    from tinytorch.models import create, usual_shape

    shape = usual_shape(name)
    model = create(name, shape, 10)
    if name in _TRAINED:
        loss = nn.CrossEntropyLoss()(model(Tensor(np.zeros((2, *shape), np.float32))), Tensor([0, 1]))
        loss.backward()
        optim.AdamW(model.parameters()).step()
    with no_grad():
        model.eval()(Tensor(np.zeros((1, *shape), np.float32)))
