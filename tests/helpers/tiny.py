"""Small data sets made on the spot, and a callback that presses Ctrl-C."""

import signal
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from datamodules import DataModule, ImageDataModule, Samples
from datamodules.base import Stage, TaskName


class TinyImages(ImageDataModule):
    """Sixty gray images of 28x28: noise, with a bright column that tells the class.

    Args:
        kwargs: Options of `ImageDataModule` and `DataModule`.
    """

    input_shape = (1, 28, 28)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_names = [str(label) for label in range(10)]

    def load(self) -> dict[Stage, Samples]:
        """Make the images, the same every time."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 100, (60, 1, 28, 28), dtype=torch.uint8, generator=generator)
        y = torch.arange(60) % 10
        x[torch.arange(60), 0, :, 2 * y] = 255
        return {"train": Samples(x, y)}


class TinyTexts(DataModule):
    """Sixty texts of 1 to 12 tokens, of which the first tells the class.

    Args:
        kwargs: Options of `DataModule`.
    """

    task: TaskName = "multiclass"
    num_outputs = 3
    vocab_size = 30
    max_length = 12
    input_shape = (12,)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_names = ["a", "b", "c"]
        self.statistics = {}  # token ids are not normalized

    def load(self) -> dict[Stage, Samples]:
        """Make the texts, the same every time."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(4, 30, (60, 12), generator=generator)
        y = torch.arange(60) % 3
        x[:, 0] = y + 1
        lengths = torch.arange(60) % 12 + 1
        return {"train": Samples(x.where(torch.arange(12) < lengths[:, None], 0), y)}


class TinyCorpus(DataModule):
    """Sixty stretches of eight tokens, of which each is one more than the one before, and begins anew after twelve.

    Args:
        kwargs: Options of `DataModule`.
    """

    task: TaskName = "next_token"
    num_outputs = 12
    vocab_size = 12
    context_length = 8
    input_shape = (8,)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.statistics = {"token_lengths": torch.ones(12, dtype=torch.long)}

    def load(self) -> dict[Stage, Samples]:
        """Make the stretches, the same every time."""
        tokens = (torch.arange(60)[:, None] + torch.arange(9)) % 12
        return {"train": Samples(tokens[:, :-1], tokens[:, 1:])}

    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Write the predicted tokens as numbers."""
        return {"prediction": [" ".join(map(str, row)) for row in outputs.tolist()]}


def labeled_embeddings(size: int, classes: int, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Return noisy embeddings, `(size, dim)`, around a center for each class, and the classes."""
    generator = torch.Generator().manual_seed(size)
    y = torch.randint(classes, (size,), generator=generator)
    centers = torch.randn(classes, dim, generator=generator)
    return centers[y] + torch.randn(size, dim, generator=generator), y


class Interrupt(Callback):
    """Presses Ctrl-C while a step is running.

    Args:
        step: During which step, counted from 1.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Send the signal that a terminal would send."""
        if trainer.global_step + 1 == self.step:
            signal.raise_signal(signal.SIGINT)
