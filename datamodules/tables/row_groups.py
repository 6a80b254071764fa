"""A table in row groups: the split of each row, and one pass over it before it is learned from."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamodules.cache import touch
from datamodules.errors import DataError
from datamodules.tables.reader import read_parquet, tidy
from datamodules.tables.values import MOSTLY, NUMBER, Where, is_missing, not_a_number, numbers, texts

SAMPLE = 2**26  # bytes of random training rows, on which the columns are fitted
LABELS = 10_000  # a target with more values than this has no classes
STAGES = {"train": 0, "val": 1, "test": 2}


class RowGroup(NamedTuple):
    """A row group: its `number` in `file`, its first row `start` in the whole table, and its `size` in rows."""

    file: Path
    number: int
    start: int
    size: int


class RowGroups:
    """The row groups of a table in Parquet files of the same columns; those in `text` are read as text."""

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
        """Read a row group, or some of its columns; a cached file is opened each time, so each is a use of it."""
        touch(group.file)
        return tidy(
            read_parquet(group.file, lambda parquet: parquet.read_row_group(group.number, columns=columns)), self.text
        )


@dataclass
class Division:
    """The split of each row: by a hash of its number, or of its group, so that all processes agree.

    The options are those of `Holdout` and `CSVDataModule`; `fold_is_val` says that the fold is the validation rows.
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
        in_fold = (first * self.num_folds).astype(np.int64) == self.fold
        held_out = in_fold if self.num_folds else first < self.test_fraction
        stages = np.zeros(len(table), np.int8)
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


def _looks(values: pa.ChunkedArray, start: int) -> tuple[int, int, int | None]:
    """Count the values of a column that look like numbers, and all values; and find the first row that does not."""
    present = len(values) - values.null_count
    if not pa.types.is_string(values.type):
        return present, present, None
    fits = np.asarray(pc.fill_null(pc.match_substring_regex(values, NUMBER), True))
    row = None if fits.all() else start + int(fits.argmin())
    return int(fits.sum()) - values.null_count, present, row


@dataclass
class Scan:
    """The result of one pass over a table.

    Args:
        counts: For each split, how many rows with a target each row group has, shape `(3, groups)`.
        labels: The values of the target, each at most twice; None if they are too many for classes.
        label_rows: The first row of each label.
        sample: Random training rows with a target.
        rows: The numbers of the sampled rows.
        unlabeled: How many rows have no target.
    """

    counts: NDArray[np.int64]
    labels: pa.ChunkedArray | None
    label_rows: list[int]
    sample: pa.Table
    rows: NDArray[np.int64]
    unlabeled: int


def scan(table: RowGroups, target: str, division: Division | None, where: Where, text: Collection[str] = ()) -> Scan:
    """Read a table once: count rows, collect labels, find text among numbers, and draw a sample.

    Without a `division` all are training rows; columns in `text` may have text among their numbers.

    Raises:
        DataError: If a number is infinite or too large for float32, or a column of numbers has text in it.
    """
    suspects: dict[str, list[tuple[int, int, int | None]]] = {name: [] for name in table.names if name not in text}
    counts = np.zeros((3, len(table.groups)), np.int64)
    seen: Counter[object] = Counter()
    first: dict[object, int] = {}
    share = SAMPLE / (4 * len(table.names) * max(1, table.num_rows))
    samples, rows, unlabeled = [], [], 0
    for at, group in enumerate(table.groups):
        part = table.read(group)

        def here(row: int, column: str, start: int = group.start) -> str:
            return where(start + row, column)

        for name in part.column_names:
            if pa.types.is_floating(part[name].type) and name not in text:
                numbers(part[name], name, here)
        for name in list(suspects):
            suspects[name].append(_looks(part[name], group.start))
            if suspects[name][-1][0] < MOSTLY / 2 * suspects[name][-1][1]:
                del suspects[name]  # it is text
        missing = is_missing(part[target])
        unlabeled += int(missing.sum())
        stages = division.stages(part, group.start, here) if division else np.zeros(len(part), np.int8)
        stages[missing] = -1
        counts[:, at] = [(stages == stage).sum() for stage in STAGES.values()]
        if len(seen) <= LABELS:
            met = pc.value_counts(part[target].filter(pa.array(~missing)))
            if len(met) > LABELS:  # too many for classes: skip counting each
                seen.update(range(LABELS + 1))
            else:
                for value, times in zip(met.field("values").to_pylist(), met.field("counts").to_pylist(), strict=True):
                    if value not in seen:
                        first[value] = group.start + pc.index(part[target], value).as_py()
                    seen[value] += times
        drawn = uniform(np.arange(group.start, group.start + group.size, dtype=np.uint64), 2**31) < share
        chosen = (drawn & (stages == STAGES["train"])).nonzero()[0]
        samples.append(part.take(chosen))
        rows.append(chosen + group.start)
    for name, found in suspects.items():
        fits, size = (sum(column) for column in zip(*(look[:2] for look in found), strict=True))
        row = next((row for _, _, row in found if row is not None), None)
        if row is not None and fits >= MOSTLY * size:
            raise not_a_number(where(row, name), name)
    labels, values = None, []
    if len(seen) <= LABELS:
        values = [value for value, count in seen.items() for _ in range(min(count, 2))]
        labels = pa.chunked_array([pa.array(values, table.type_of(target))])
    sample = pa.concat_tables(samples, promote_options="permissive")
    label_rows = [first[value] for value in values]
    return Scan(counts, labels, label_rows, sample.combine_chunks(), np.concatenate(rows), unlabeled)
