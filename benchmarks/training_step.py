"""One epoch of training and validation of a small MLP: `train.py`, a bare Trainer, and a loop written by hand."""

import contextlib
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn

from benchmarks.front_door import train
from benchmarks.interleaved import compare
from datamodules import MNISTDataModule
from lit_models import MLP, LitMLP

EPOCHS = 4  # in a run: the first one warms up, and is not counted
BATCH_SIZE = 256
RECIPE = Path(__file__).parent.parent / "configs" / "mnist_mlp_256.yaml"


class Stopwatch(Callback):
    """Measures from the start of one epoch to the start of the next: all that an epoch costs."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the time."""
        self.starts.append(time.perf_counter())

    on_train_end = on_train_epoch_start

    def median(self) -> float:
        """Return the median seconds of an epoch, without the first."""
        epochs = [after - before for before, after in pairwise(self.starts)]
        return statistics.median(epochs[1:])


def run(data_dir: str, rounds: int = 7) -> None:
    """Print the table.

    Args:
        data_dir: A folder that `MNISTDataModule` can use.
        rounds: How often each contender trains for `EPOCHS` epochs.
    """
    data_dir = str(Path(data_dir).resolve())

    contenders = {
        "PyTorch loop over resident, normalized tensors": lambda: _loop(data_dir),
        "bare Trainer": lambda: _trainer(data_dir),
        "python train.py": lambda: _front_door(data_dir),
    }
    compare("An epoch of the 784-256-10 MLP on MNIST, batch 256, validation included", contenders, rounds)


def _loop(data_dir: str) -> float:
    seed_everything(0, verbose=False)
    data = MNISTDataModule(data_dir, batch_size=BATCH_SIZE)
    samples, indices = data.splits["train"]
    mean, std = data.statistics["mean"], data.statistics["std"]
    x, y = (samples.x[indices] / 255 - mean) / std, samples.y[indices]
    held_out = data.splits["val"].indices
    val_x, val_y = (samples.x[held_out] / 255 - mean) / std, samples.y[held_out]
    net = MLP(784, [256], 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001, fused=True)
    criterion = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        net.train()
        total = torch.zeros(())
        for batch in torch.randperm(len(x)).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = criterion(net(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        net.eval()
        correct, val_loss = torch.zeros(()), torch.zeros(())
        with torch.no_grad():
            for images, labels in zip(val_x.split(4 * BATCH_SIZE), val_y.split(4 * BATCH_SIZE), strict=True):
                logits = net(images)
                val_loss += criterion(logits, labels) * len(labels)
                correct += (logits.argmax(1) == labels).sum()
        _ = float(total), float(val_loss), float(correct)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _trainer(data_dir: str) -> float:
    seed_everything(0, verbose=False)
    stopwatch = Stopwatch()
    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=[stopwatch],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = LitMLP(784, hidden=[256], optimizer="Adam", lr=0.001)
    trainer.fit(model, MNISTDataModule(data_dir, batch_size=BATCH_SIZE))
    return stopwatch.median()


def _front_door(data_dir: str) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        cli, _ = train(
            f"--config {RECIPE} --data.data_dir {data_dir} --accelerator cpu --max_epochs {EPOCHS} "
            "--trainer.callbacks+=benchmarks.training_step.Stopwatch",
            progress=True,
        )
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]  # Lightning gives no type
    return next(callback for callback in callbacks if isinstance(callback, Stopwatch)).median()
