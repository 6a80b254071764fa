"""A table to be streamed, whose rows are recognizable."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from datamodules import CSVDataModule
from datamodules.base import Stage

SIZE = 400


GROUP = 13  # rows in a row group


BUFFERED = 40  # rows, about, that are shuffled together


def table(size: int = SIZE, seed: int = 0) -> pa.Table:
    """Rows that are recognizable by `a`, with gaps in `b` and `c`, of about fifty groups."""
    rng = np.random.default_rng(seed)
    b = pa.array(rng.normal(size=size).astype(np.float32), mask=rng.random(size) < 0.1)
    c = pa.array(rng.choice(["red", "green", "blue"], size), mask=rng.random(size) < 0.1)
    return pa.table(
        {
            "id": [f"r{seed}-{at:04}" for at in range(size)],
            "a": np.arange(size, dtype=np.float32),
            "b": b,
            "c": c,
            "group": rng.integers(0, 50, size),
            "note": [f"no two are alike: {at}" for at in range(size)],
            "y": rng.choice(["no", "no", "yes"], size),
        }
    )


def stream_of(path: str | Path, **options: Any) -> CSVDataModule:
    """Make streamed data."""
    return CSVDataModule(str(path), streaming=True, **{"batch_size": 16, **options})


def numbers(batches: Iterable[Any]) -> list[list[int]]:
    """Which rows are in each batch."""
    return [[int(a) for a in (batch if isinstance(batch, Tensor) else batch[0])[:, 0]] for batch in batches]


def flat(batches: Iterable[Any]) -> list[int]:
    """Which rows are in the batches."""
    return [number for batch in numbers(batches) for number in batch]


def rows_of(data: CSVDataModule, stage: Stage) -> list[int]:
    """Which rows are in a split, in their order."""
    if stage == "train":
        return flat(data.train_dataloader())
    return flat((data.val_dataloader() if stage == "val" else data.test_dataloader())[0])


def write_csv(path: Path, made: pa.Table, names: list[str] | None = None, header: bool = True) -> str:
    """Write a table as text, as it is."""
    names = names or made.column_names
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([names] * header)
        writer.writerows([["" if row[name] is None else row[name] for name in names] for row in made.to_pylist()])
    return str(path)
