"""Text classifiers: accuracy on TREC by encoder, and the time of a step with dense and with sparse gradients."""

import contextlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from kindling.cli import main
from lit_models import LitTextClassifier
from lit_models.optim.factory import make_optimizer

CONFIGS = Path(__file__).parent.parent / "configs"
OTHERS = (
    "--model LitTextClassifier --model.scheduler one-cycle "
    "--data TextCSVDataModule --data.encoding latin-1 --data.min_count 1 --max_epochs 10"
)
ENCODERS = {
    "bag": "--model.encoder bag --model.lr 0.01",
    "bag with pairs (text_trec_bag)": f"--config {CONFIGS}/text_trec_bag.yaml",
    "cnn": "--model.encoder cnn",
    "gru": "--model.encoder gru --model.num_layers 1 --model.lr 0.003",
    "lstm": "--model.encoder lstm --model.num_layers 1 --model.lr 0.003",
    "transformer (text_trec_transformer)": f"--config {CONFIGS}/text_trec_transformer.yaml",
}
STEPS = 30  # of each contender; the first ones, which allocate memory, are not counted
WARM_UP = 5


def run(data_dir: str, repeats: int = 3) -> None:
    """Print both tables.

    Args:
        data_dir: A folder with `text/train_5500.label` and `text/TREC_10.label`.
        repeats: How many seeds each figure of the first is a mean of.
    """
    folder, start = Path(data_dir).resolve() / "text", Path.cwd()
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)  # where runs go
        try:
            _encoders(folder, repeats)
        finally:
            os.chdir(start)
    _gradients()


def _encoders(folder: Path, repeats: int) -> None:
    print(f"\nTREC, 6 classes of questions, 500 to test, mean of seeds 0 to {repeats - 1}\n")
    print("| encoder | val_acc | test_acc | test_acc of each seed | seconds of train.py |")
    print("|---|---|---|---|---|")
    paths = f"--data.path {folder}/train_5500.label --data.test_path {folder}/TREC_10.label"
    for name, options in ENCODERS.items():
        line = options if "--config" in options else f"{OTHERS} {options}"
        val, test, seconds = [], [], []
        for seed in range(repeats):
            begin = time.perf_counter()
            quiet = f"--seed_everything {seed} --data.seed {seed} --enable_progress_bar false"
            with contextlib.redirect_stdout(io.StringIO()):
                summary = main(f"{line} {paths} {quiet}".split()).summary.summary
            seconds.append(time.perf_counter() - begin)
            val.append(summary["best"]["val_acc"])
            test.append(summary["test"]["test_acc"])
        each = ", ".join(f"{accuracy:.3f}" for accuracy in test)
        means = [f"{statistics.fmean(found):.4f}" for found in (val, test)]
        print(f"| {name} | {' | '.join(means)} | {each} | {statistics.fmean(seconds):.1f} |", flush=True)


def _gradients() -> None:
    print("\nMilliseconds of a step of the bag: 64 texts of 40 tokens, embeddings of 64\n")
    print("| vocabulary | dense, AdamW | sparse, SparseAdam | ratio |")
    print("|---|---|---|---|")
    for vocab_size in (10_000, 100_000, 1_000_000):
        dense, sparse = _Steps(vocab_size, sparse=False), _Steps(vocab_size, sparse=True)
        times = [(dense.take(), sparse.take()) for _ in range(STEPS)][WARM_UP:]
        first, second = (1000 * statistics.median(each) for each in zip(*times, strict=True))
        print(f"| {vocab_size:,} | {first:.2f} | {second:.2f} | {second / first:.2f} |", flush=True)


class _Steps:
    """Trains on random texts, a batch at a time."""

    def __init__(self, vocab_size: int, sparse: bool) -> None:
        self.model = LitTextClassifier(vocab_size, embedding_dim=64, sparse=sparse)
        self.optimizer = make_optimizer(self.model.optimization["optimizer"], self.model.param_groups())
        self.vocab_size = vocab_size

    def take(self) -> float:
        """Return the seconds of one training step."""
        x, y = torch.randint(1, self.vocab_size, (64, 40)), torch.randint(10, (64,))
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.model.task.loss(self.model(x), y).backward()
        self.optimizer.step()
        return time.perf_counter() - start
