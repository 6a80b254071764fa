"""A table of a million rows: from a CSV to columns, and from the cache, against `numpy.loadtxt`."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from benchmarks.interleaved import compare, seconds_of
from datamodules import CSVDataModule
from datamodules.tables.dialect import Dialect
from datamodules.tables.files import TableFiles


def run(rounds: int = 7) -> None:
    """Print the table.

    Args:
        rounds: How often each contender reads the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "table.csv", Path(folder) / "cache"
        x = np.random.default_rng(0).normal(size=(1_000_000, 9)).round(4)
        pacsv.write_csv(pa.table({f"x{at}": column for at, column in enumerate(x.T)}), path)

        def read() -> None:
            files = TableFiles(str(path), Dialect(), str(cache))
            files.read()
            files.keep()

        def first() -> float:
            for file in cache.glob("*"):
                file.unlink()
            return seconds_of(read)

        def loadtxt() -> None:
            np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)

        def batch() -> None:
            next(iter(CSVDataModule(str(path), cache_dir=str(cache)).train_dataloader()))

        contenders = {
            "numpy.loadtxt": lambda: seconds_of(loadtxt),
            "Kindling, parsed and cached": first,
            "Kindling, from the cache": lambda: seconds_of(read),
            "Kindling, from the cache to the first batch: split, fitted, encoded": lambda: seconds_of(batch),
        }
        compare(f"A CSV of 1,000,000 rows and 9 columns, {path.stat().st_size / 1e6:.0f} MB", contenders, rounds)
