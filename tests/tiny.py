"""A data set too small to be worth a download, and a finger on Ctrl-C."""

import signal
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from datamodules import ImageDataModule, Samples
from datamodules.base import Stage


class TinyImages(ImageDataModule):
    """Sixty grey images of 28x28: noise, with a bright column that tells the class.

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
