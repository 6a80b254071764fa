"""Distillation: a 784-32-10 network on MNIST, from labels alone and from labels and `mnist_conv`."""

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.front_door import train

ROOT = Path(__file__).parent.parent


def run(data_dir: str, teacher: str | None = None, repeats: int = 5) -> None:
    """Print the table.

    Args:
        data_dir: A folder that `MNISTDataModule` can use.
        teacher: A checkpoint of `configs/mnist_conv.yaml`; by default it is trained here first.
        repeats: How many seeds, each with its own first weights, validation split and order of batches.
    """
    folder = Path(data_dir).resolve()
    path = None if teacher is None else Path(teacher).resolve()
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):  # where runs go
        data = f"--data.data_dir {folder}"
        if path is None:
            path = Path(train(f"--config {ROOT}/configs/mnist_conv.yaml {data}")[0].trainer.default_root_dir)
            path = path / "checkpoints" / "best.ckpt"
        known = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        size = sum(value.numel() for name, value in known.items() if name.startswith("net."))
        print(f"\nTest accuracy on MNIST of a 784-32-10 network, with a teacher of {size:,} parameters\n")
        print("| | mean | standard deviation | seeds 0, 1, ... | s |")
        print("|---|---|---|---|---|")
        taught = f"--config {ROOT}/configs/mnist_distill.yaml {data} --model.teacher {path}"
        alone = _row("labels alone", f"{taught} --model.alpha 0", repeats)
        both = _row("labels and teacher", taught, repeats)
        gains = [after - before for before, after in zip(alone, both, strict=True)]
        print(f"\ngain in points: {100 * statistics.fmean(gains):.2f} ({', '.join(f'{100 * g:.2f}' for g in gains)})")


def _row(name: str, line: str, repeats: int) -> list[float]:
    start = time.perf_counter()
    measured = []
    for seed in range(repeats):
        cli, _ = train(f"{line} --seed_everything {seed} --data.seed {seed}")
        measured.append(float(cli.trainer.callback_metrics["test_acc"]))
    seconds = (time.perf_counter() - start) / repeats
    each = ", ".join(f"{accuracy:.4f}" for accuracy in measured)
    mean, spread = statistics.fmean(measured), statistics.stdev(measured)
    print(f"| {name} | {mean:.4f} | {spread:.4f} | {each} | {seconds:.0f} |", flush=True)
    return measured
