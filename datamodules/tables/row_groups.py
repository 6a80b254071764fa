"""A table in row groups, and which split each of its rows belongs to."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.tables.parquet import read_parquet
from datamodules.tables.reader import tidy
from datamodules.tables.values import Where, texts

STAGES = {"train": 0, "val": 1, "test": 2}


class RowGroup(NamedTuple):
    """A row group: its `number` in `file`, its first row `start` in the whole table, and its `size` in rows."""

    file: Path
    number: int
    start: int
    size: int


class RowGroups:
    """The row groups of a table in Parquet files.

    Args:
        files: The files, of the same columns.
        text: Columns that are read as text, whatever their type.
    """

    def __init__(self, files: list[Path], text: Sequence[str] = ()) -> None:
        self.text = text
        self.groups: list[RowGroup] = []
        start = 0
        for file in files:
            metadata = pq.read_metadata(file)
            for number in range(metadata.num_row_groups):
                size = metadata.row_group(number).num_rows
                self.groups.append(RowGroup(file, number, start, size))
                start += size
        if not start:
            raise DataError(f"{files[0]}: there is no row of data")
        self._schema = tidy(pq.read_schema(files[0]).empty_table(), text).schema
        self.names = list(self._schema.names)
        self.num_rows = start

    def type_of(self, name: str) -> pa.DataType:
        """Return the type of a column."""
        return self._schema.field(name).type

    def read(self, group: RowGroup, columns: list[str] | None = None) -> pa.Table:
        """Read a row group, or some of its columns."""
        return tidy(read_parquet(group.file, group.number, columns), self.text)


@dataclass
class Division:
    """The split of each row: by a hash of its number, or of its group, so that all processes agree.

    Args:
        seed: Seed of the hash.
        test_fraction: Share of the rows that is held out for the test.
        val_fraction: Share of the rest that is held out for validation.
        num_folds: If not 0, `fold` of so many folds is held out as the test rows, or as the validation rows.
        fold: Which fold.
        fold_is_val: Whether the fold is the validation rows.
        group_column: Rows with the same value here belong to the same split.
    """

    seed: int
    test_fraction: float
    val_fraction: float
    num_folds: int = 0
    fold: int = 0
    fold_is_val: bool = False
    group_column: str | None = None

    def stages(self, table: pa.Table, start: int, where: Where) -> NDArray[np.int8]:
        """Return 0, 1 or 2 (training, validation, test) for each row, `(N,)`, of a part from row `start` on."""
        if self.group_column is None:
            ids = np.arange(start, start + len(table), dtype=np.uint64)
        else:
            labels, index = texts(table[self.group_column], self.group_column, where)
            digests = [hashlib.blake2b(str(label).encode(), digest_size=8).digest() for label in labels]
            ids = np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)[index]
        first, second = uniform(ids, 2 * self.seed), uniform(ids, 2 * self.seed + 1)
        stages = np.zeros(len(table), np.int8)
        if self.num_folds:
            held_out = (first * self.num_folds).astype(np.int64) == self.fold
        else:
            held_out = first < self.test_fraction
        if not self.fold_is_val:
            stages[second < self.val_fraction] = STAGES["val"]
        stages[held_out] = STAGES["val" if self.fold_is_val else "test"]
        return stages


def uniform(ids: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Hash numbers to [0, 1): splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = ids + np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def values_of(table: RowGroups, name: str) -> Iterator[object]:
    """Yield the values of one column."""
    for group in table.groups:
        yield from table.read(group, [name])[name].to_pylist()
