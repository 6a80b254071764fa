"""Transfer learning: MNIST from 100 images, by a ResNet-18 from scratch and by one trained on FashionMNIST."""

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.front_door import train
from datamodules import MNISTDataModule, Samples
from datamodules.base import Stage

EACH = 10  # images of each class to learn from


class FewMNISTDataModule(MNISTDataModule):
    """MNIST with ten training images of each class, other ones for each seed, and its whole test split.

    Args:
        kwargs: Options of `MNISTDataModule`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val_fraction = 0.0

    def load(self) -> dict[Stage, Samples]:
        """Keep the same number of random images of every class."""
        given = super().load()
        x, y = given["train"].x, given["train"].y
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(self.seed))
        firsts = torch.cat([order[y[order] == label][:EACH] for label in range(10)])
        return {**given, "train": Samples(x[firsts], y[firsts])}


def run(data_dir: str, repeats: int = 5) -> None:
    """Print the table.

    Args:
        data_dir: A folder that `MNISTDataModule` and `FashionMNISTDataModule` can use.
        repeats: How many seeds, each with its own images and its own first weights.
    """
    folder = Path(data_dir).resolve()
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):  # where runs go
        print(f"\nTest accuracy on MNIST from {10 * EACH} images, ResNet-18 (28x28, 100 epochs)\n")
        print("| | mean | standard deviation | seeds 0, 1, ... |")
        print("|---|---|---|---|")
        before, _ = _fit(f"--model.weights none --data FashionMNISTDataModule --data.data_dir {folder} --max_epochs 3")
        few = f"--data benchmarks.transfer.FewMNISTDataModule --data.data_dir {folder} --max_epochs 100"
        _row("from scratch", f"{few} --model.weights none", repeats)
        few = f"{few} --model.weights {before}"
        _row("from FashionMNIST", f"{few} --model.unfreeze_epoch 0", repeats)
        _row("frozen", f"{few} --model.views 0", repeats)
        _row("frozen, cached features", f"{few} --model.views 1", repeats)
        few = f"{few} --data.shift 1 --data.rotation 10"
        _row("frozen, augmented", f"{few} --model.views 0", repeats)
        for views in (4, 10, 20):
            _row(f"frozen, augmented, cached features of {views} views", f"{few} --model.views {views}", repeats)


def _row(name: str, line: str, repeats: int) -> None:
    seeds = [f"--data.seed {seed} --seed_everything {seed} --data.batch_size 32" for seed in range(repeats)]
    found = [_fit(f"{line} {seed}")[1] for seed in seeds]
    each = ", ".join(f"{accuracy:.4f}" for accuracy in found)
    print(f"| {name} | {statistics.fmean(found):.4f} | {statistics.stdev(found):.4f} | {each} |", flush=True)


def _fit(line: str) -> tuple[str, float]:
    """Train, and return the best checkpoint and its test accuracy."""
    options = "--model LitTransfer --model.backbone_lr_factor 1 --model.scheduler one-cycle"
    trainer = train(f"{options} {line} --early_stopping.patience 1000")[0].trainer
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    return best, trainer.callback_metrics["test_acc"].item()
