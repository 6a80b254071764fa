"""Text classifiers: the default beside TF-IDF, encoders on TREC, and a step with dense and with sparse gradients."""

import contextlib
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks.front_door import train
from benchmarks.interleaved import seconds_of
from datamodules import TextCSVDataModule
from datamodules.text.labeled_source import strings
from lit_models import LitTextClassifier
from lit_models.optim.factory import make_optimizer

CONFIGS = Path(__file__).parent.parent / "configs"
OTHERS = (
    "--model LitTextClassifier --model.scheduler one-cycle "
    "--data TextCSVDataModule --data.encoding latin-1 --data.min_count 1 --max_epochs 10"
)
ENCODERS = {
    "ngrams (the default)": "--model.scheduler none --max_epochs 30",
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
    """Print all tables.

    Args:
        data_dir: A folder with `text/train_5500.label` and `text/TREC_10.label`, and movie reviews in
            `text/mr/rt-polarity.pos` and `.neg`.
        repeats: How many seeds an accuracy is a mean of.
    """
    folder = Path(data_dir).resolve() / "text"
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):  # where runs go
        _defaults(folder, repeats)
        _encoders(folder, repeats)
    _gradients()


def _defaults(folder: Path, repeats: int) -> None:
    print(f"\nTest accuracy without any option, of seeds 0 to {repeats - 1}\n")
    print("| data | default | of each seed | TF-IDF, logistic regression | of each seed | seconds of train.py |")
    print("|---|---|---|---|---|---|")
    trec = f"--data.path {folder}/train_5500.label --data.test_path {folder}/TREC_10.label --data.encoding latin-1"
    for name, flags in {"MR": f"--data.path {_movie_reviews(folder / 'mr')}", "TREC": trec}.items():
        default, baseline, seconds = [], [], []
        for seed in range(repeats):
            begin = time.perf_counter()
            line = f"--model LitTextClassifier --data TextCSVDataModule {flags} --seed_everything {seed}"
            cli = train(f"{line} --data.seed {seed}")[0]
            seconds.append(time.perf_counter() - begin)
            default.append(cli.summary.summary["test"]["test_acc"])
            baseline.append(_tfidf(cli.datamodule))
        cells = [cell for found in (default, baseline) for cell in (f"{statistics.fmean(found):.4f}", _each(found))]
        print(f"| {name} | {' | '.join(cells)} | {statistics.fmean(seconds):.1f} |", flush=True)


def _movie_reviews(folder: Path) -> str:
    """Write the sentences of Pang and Lee 2005, a file for each class, to one table; return its name."""
    with Path("mr.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "text"])
        for label in ("pos", "neg"):
            lines = (folder / f"rt-polarity.{label}").read_text("latin-1").split("\n")
            rows.writerows([label, line.strip()] for line in lines if line.strip())
    return "mr.csv"


def _tfidf(data: TextCSVDataModule) -> float:
    """Return the test accuracy of logistic regression, fit on the training and the validation rows of this split."""
    texts = {
        id(data.splits[part].samples): list(strings(data.source.parts[part].table[data.source_column]))
        for part in data.source.parts
    }
    xs, ys = {}, {}
    for stage, (samples, indices) in data.splits.items():
        of = texts[id(samples)]
        xs[stage], ys[stage] = [of[row] for row in indices.tolist()], samples.y[indices].tolist()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    return float(model.fit(xs["train"] + xs["val"], ys["train"] + ys["val"]).score(xs["test"], ys["test"]))


def _each(found: list[float]) -> str:
    return ", ".join(f"{accuracy:.3f}" for accuracy in found)


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
            summary = train(f"{line} {paths} --seed_everything {seed} --data.seed {seed}")[0].summary.summary
            seconds.append(time.perf_counter() - begin)
            val.append(summary["best"]["val_acc"])
            test.append(summary["test"]["test_acc"])
        means = [f"{statistics.fmean(found):.4f}" for found in (val, test)]
        print(f"| {name} | {' | '.join(means)} | {_each(test)} | {statistics.fmean(seconds):.1f} |", flush=True)


def _gradients() -> None:
    print("\nMilliseconds of a step of the bag: 64 texts of 40 tokens, embeddings of 64\n")
    print("| vocabulary | dense, AdamW | sparse, SparseAdam | ratio |")
    print("|---|---|---|---|")
    for vocab_size in (10_000, 100_000, 1_000_000):
        dense, sparse = _step(vocab_size, sparse=False), _step(vocab_size, sparse=True)
        times = [(dense(), sparse()) for _ in range(STEPS)][WARM_UP:]
        first, second = (1000 * statistics.median(each) for each in zip(*times, strict=True))
        print(f"| {vocab_size:,} | {first:.2f} | {second:.2f} | {second / first:.2f} |", flush=True)


def _step(vocab_size: int, sparse: bool) -> Callable[[], float]:
    """Return what trains on a batch of random texts, and returns the seconds."""
    model = LitTextClassifier(vocab_size, embedding_dim=64, sparse=sparse)
    optimizer = make_optimizer(model.optimization["optimizer"], model.param_groups())

    def step() -> float:
        x, y = torch.randint(1, vocab_size, (64, 40)), torch.randint(10, (64,))

        def train_on_batch() -> None:
            optimizer.zero_grad()
            model.task.loss(model(x), y).backward()
            optimizer.step()

        return seconds_of(train_on_batch)

    return step
