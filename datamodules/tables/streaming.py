"""Tables larger than memory: Parquet files read row group by row group, shuffled, shared out, and resumable."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.errors import DataError
from datamodules.tables.files import read_parquet
from datamodules.tables.preprocessing import TablePreprocessor
from datamodules.tables.reader import tidy
from datamodules.tables.values import MOSTLY, NUMBER, Where, encode_target, is_missing, not_a_number, numbers, texts

SAMPLE = 2**26  # bytes of random training rows, on which the columns are fitted
BUFFER = 2**25  # bytes of encoded rows that are shuffled together; two such buffers are held at a time
LABELS = 10_000  # a target with more values than this is no class
STAGES = {"train": 0, "val": 1, "test": 2}


class RowGroup(NamedTuple):
    """A row group: its `number` in `file`, and the rows that it has, from row `start` of the whole table on."""

    file: Path
    number: int
    start: int
    size: int


class RowGroups:
    """The row groups of a table in Parquet files.

    Args:
        files: The files, of the same columns.
        text: TablePreprocessor that are read as text, whatever they are.
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
            raise DataError(f"{files[0]}: there is no row of data.")
        self._schema = tidy(pq.read_schema(files[0]).empty_table(), text).schema
        self.names = list(self._schema.names)
        self.num_rows = start

    def type_of(self, name: str) -> pa.DataType:
        """Give the type of a column."""
        return self._schema.field(name).type

    def read(self, group: RowGroup, columns: list[str] | None = None) -> pa.Table:
        """Read a row group, or some of its columns."""
        return tidy(read_parquet(group.file, group.number, columns), self.text)


@dataclass
class Division:
    """Which split each row belongs to: by a hash of its number, or of its group, and so the same in every process.

    Args:
        seed: Seed of the hash.
        test_fraction: Share of the rows that is held out for the test.
        val_fraction: Share of the rest that is held out for validation.
        num_folds: If not 0, `fold` of so many is held out in the place of the test rows, or of the validation rows.
        fold: Which fold.
        fold_is_val: Whether it takes the place of the validation rows.
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
        """Give 0, 1 or 2 (training, validation, test) for each row, `(N,)`, of a part that begins with row `start`."""
        if self.group_column is None:
            ids = np.arange(start, start + len(table), dtype=np.uint64)
        else:
            labels, index = texts(table[self.group_column], self.group_column, where)
            digests = [hashlib.blake2b(str(label).encode(), digest_size=8).digest() for label in labels]
            ids = np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)[index]
        first, second = _uniform(ids, 2 * self.seed), _uniform(ids, 2 * self.seed + 1)
        stages = np.zeros(len(table), np.int8)
        if self.num_folds:
            held_out = (first * self.num_folds).astype(np.int64) == self.fold
        else:
            held_out = first < self.test_fraction
        if not self.fold_is_val:
            stages[second < self.val_fraction] = STAGES["val"]
        stages[held_out] = STAGES["val" if self.fold_is_val else "test"]
        return stages


def _uniform(ids: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Hash numbers to [0, 1): splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = ids + np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _from(where: Where, start: int, row: int, column: str) -> str:
    """Name the place of a value in a part that begins with row `start`."""
    return where(start + row, column)


def _looks(values: pa.ChunkedArray, start: int) -> tuple[int, int, int | None]:
    """Count the values of a column that look like numbers, and all; and name the first row that does not."""
    present = len(values) - values.null_count
    if not pa.types.is_string(values.type):
        return present, present, None
    fits = np.asarray(pc.fill_null(pc.match_substring_regex(values, NUMBER), True))
    row = None if fits.all() else start + int(fits.argmin())
    return int(fits.sum()) - values.null_count, present, row


@dataclass
class Scan:
    """What one pass over a table finds.

    Args:
        counts: For each split, how many rows with a target each row group has, shape `(3, groups)`.
        labels: The values of the target, each twice if it is there so often; None if they are too many for classes.
        label_rows: In which row each of them is first.
        sample: Random training rows with a target.
        rows: Which rows of the table they are.
        unlabeled: How many rows have no target.
    """

    counts: NDArray[np.int64]
    labels: pa.ChunkedArray | None
    label_rows: list[int]
    sample: pa.Table
    rows: NDArray[np.int64]
    unlabeled: int


def scan(table: RowGroups, target: str, division: Division | None, where: Where, text: Collection[str] = ()) -> Scan:
    """Go through a table once: count, collect the labels, look for what is no number, and draw a sample.

    Args:
        table: The table.
        target: Name of its target.
        division: How its rows are divided; None if all are one split, the first.
        where: Names the place of a value, for messages.
        text: TablePreprocessor that may have text among their numbers.

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
        here = partial(_from, where, group.start)
        for name in part.column_names:
            if pa.types.is_floating(part[name].type) and name not in text:
                numbers(part[name], name, here)
        for name in list(suspects):
            suspects[name].append(_looks(part[name], group.start))
            if suspects[name][-1][0] < MOSTLY / 2 * suspects[name][-1][1]:
                del suspects[name]  # text, beyond doubt
        missing = is_missing(part[target])
        unlabeled += int(missing.sum())
        stages = division.stages(part, group.start, here) if division else np.zeros(len(part), np.int8)
        stages[missing] = -1
        counts[:, at] = [(stages == stage).sum() for stage in STAGES.values()]
        if len(seen) <= LABELS:
            met = pc.value_counts(part[target].filter(pa.array(~missing)))
            if len(met) > LABELS:  # so many are no classes, and not worth a look at each
                seen.update(range(LABELS + 1))
            else:
                for value, times in zip(met.field("values").to_pylist(), met.field("counts").to_pylist(), strict=True):
                    if value not in seen:
                        first[value] = group.start + pc.index(part[target], value).as_py()
                    seen[value] += times
        drawn = _uniform(np.arange(group.start, group.start + group.size, dtype=np.uint64), 2**31) < share
        chosen = (drawn & (stages == STAGES["train"])).nonzero()[0]
        samples.append(part.take(chosen))
        rows.append(chosen + group.start)
    for name, found in suspects.items():
        fits, size = (sum(column) for column in zip(*(look[:2] for look in found), strict=True))
        row = next((row for _, _, row in found if row is not None), None)
        if row is not None and fits >= MOSTLY * size:
            raise DataError(not_a_number(where(row, name), name))
    labels, values = None, []
    if len(seen) <= LABELS:
        values = [value for value, count in seen.items() for _ in range(min(count, 2))]
        labels = pa.chunked_array([pa.array(values, table.type_of(target))])
    sample = pa.concat_tables(samples, promote_options="permissive")
    label_rows = [first[value] for value in values]
    return Scan(counts, labels, label_rows, sample.combine_chunks(), np.concatenate(rows), unlabeled)


class TableStream(IterableDataset[tuple[Tensor, Tensor] | Tensor]):
    """Whole batches of one split of a table, read row group by row group.

    The row groups of an epoch are put in a random order and dealt out to the processes of a distributed run. Each reads
    some at a time into a buffer, and goes through it in a random order. So the order of the rows is that of the groups
    and of the buffers. Of several workers each makes one stretch of the batches, and they take turns. In training every
    process makes as many batches as the others, for which some rows are repeated and others left out.

    Args:
        table: The table.
        columns: How rows are encoded.
        target: Name of the target; None for inputs alone.
        class_names: Its classes, if it has any.
        stage: The split.
        counts: How many of the split's rows each row group has; None for all of them.
        division: How rows are divided; None if all are of this split.
        batch_size: Rows in a batch.
        shuffle: Whether the order is random.
        seed: Seed of the order.
        where: Names the place of a value, for messages.
    """

    def __init__(
        self,
        table: RowGroups,
        columns: TablePreprocessor,
        target: str | None,
        class_names: list[str] | None,
        stage: str,
        counts: NDArray[np.int64] | None,
        division: Division | None,
        batch_size: int,
        shuffle: bool,
        seed: int,
        where: Where,
    ) -> None:
        super().__init__()
        self.table = table
        self.columns = columns
        self.target = target
        self.class_names = class_names
        self.stage = stage
        self.counts = np.array([group.size for group in table.groups]) if counts is None else counts
        self.division = division
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.where = where
        self.epoch = 0
        self.start = 0  # how many batches the next epoch skips: those that an interrupted run has already seen
        self.rank, self.num_ranks = 0, 1

    @property
    def samples(self) -> RowGroups:
        """What it is a split of."""
        return self.table

    @property
    def size(self) -> int:
        """How many rows the split has."""
        return int(self.counts.sum())

    @property
    def num_samples(self) -> int:
        """How many rows this process goes through in an epoch."""
        if self.shuffle:
            return math.ceil(self.size / self.num_ranks)
        return sum(int(self.counts[at]) for at in self._groups(0))

    def share_out(self) -> None:
        """Take this process's place among the others, which are known only once training starts.

        Raises:
            DataError: If there are more processes than row groups to train on.
        """
        if dist.is_available() and dist.is_initialized():
            self.rank, self.num_ranks = dist.get_rank(), dist.get_world_size()
        if (self.counts > 0).sum() < self.num_ranks:
            raise DataError(
                f"{self.table.groups[0].file}: fewer row groups than processes; give --devices 1 or --data.streaming "
                "false."
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; it is counted up by itself from one epoch to the next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._edges()) - 1

    def _edges(self) -> list[int]:
        """Where batches begin and end among the rows of this process; a last one of a single row joins another."""
        edges = [*range(0, self.num_samples, self.batch_size), self.num_samples]
        if len(edges) > 2 and edges[-1] - edges[-2] == 1 and self.batch_size > 2:
            del edges[-2]
        return edges

    def _groups(self, epoch: int) -> list[int]:
        order = self.counts.nonzero()[0]
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        return [int(at) for at in order[self.rank :: self.num_ranks]]

    def _buffers(self, epoch: int) -> list[list[int]]:
        """Put the row groups of an epoch together to buffers."""
        buffers: list[list[int]] = []
        room = 0
        for at in self._groups(epoch):
            if room <= 0:
                buffers.append([])
                room = BUFFER // (4 * len(self.columns))
            buffers[-1].append(at)
            room -= int(self.counts[at])
        return buffers

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor] | Tensor]:
        epoch, start = self.epoch, self.start
        self.epoch, self.start = epoch + 1, 0
        edges = self._edges()
        worker = get_worker_info()
        share = range(len(edges) - 1)[start:]
        if worker is not None:
            # Batches are asked of the workers in turn; after a resumption, too, the first is asked first, whichever
            # was due. So the workers take turns in their shares.
            place, number = (worker.id + start) % worker.num_workers, worker.num_workers
            sizes = [len(range(at, len(edges) - 1, number)) for at in range(number)]
            share = range(sum(sizes[:place]), sum(sizes[: place + 1]))[len(range(place, start, number)) :]
        if not share:
            return
        blocks = self._blocks(epoch, edges[share[0]], edges[share[-1] + 1])
        x, y = next(blocks)
        for batch in share:
            size = edges[batch + 1] - edges[batch]
            while len(x) < size:
                more_x, more_y = next(blocks)
                x, y = torch.cat([x, more_x]), torch.cat([y, more_y])
            yield x[:size].clone() if self.target is None else (x[:size].clone(), y[:size].clone())
            x, y = x[size:], y[size:]

    def _blocks(self, epoch: int, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the buffers that hold the rows of this process from `start` to `stop`, the next one while one is used.

        A process with fewer rows than the others begins anew when it is through.
        """
        buffers = self._buffers(epoch)
        needed = []
        end = 0
        for buffer in itertools.cycle(buffers):
            begin, end = end, end + int(self.counts[buffer].sum())
            if end > start:
                needed.append((buffer, max(0, start - begin)))
            if end >= stop:
                break
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._load, needed[0][0], epoch)
            for at, (_, skipped) in enumerate(needed):
                x, y = ahead.result()
                if at + 1 < len(needed):
                    ahead = pool.submit(self._load, needed[at + 1][0], epoch)
                yield x[skipped:], y[skipped:]

    def _load(self, buffer: list[int], epoch: int) -> tuple[Tensor, Tensor]:
        """Read and encode the rows of some row groups, in their order or a random one."""
        parts = [self._encode(self.table.groups[at]) for at in buffer]
        x, y = (torch.cat(column) for column in zip(*parts, strict=True))
        if self.shuffle:
            order = torch.from_numpy(np.random.default_rng([self.seed, epoch, buffer[0]]).permutation(len(x)))
            x, y = x[order], y[order]
        return x, y

    def _encode(self, group: RowGroup) -> tuple[Tensor, Tensor]:
        needed = [column.name for column in self.columns.features]
        if self.target is not None:
            needed.append(self.target)
            if self.division is not None and self.division.group_column is not None:
                needed.append(self.division.group_column)
        # A feature that is not there is missed, by name, when the rows are encoded.
        part = self.table.read(group, [name for name in dict.fromkeys(needed) if name in self.table.names])
        rows = np.arange(len(part))
        if self.target is not None:
            keep = ~is_missing(part[self.target])
            if self.division is not None:
                keep &= self.division.stages(part, group.start, self.where) == STAGES[self.stage]
            rows = keep.nonzero()[0]
            part = part.take(rows)

        def where(row: int, column: str) -> str:
            return self.where(group.start + int(rows[row]), column)

        x = torch.from_numpy(self.columns.encode(part, where, str(group.file)))
        if self.target is None:
            return x, x.new_empty(len(x))
        return x, torch.from_numpy(encode_target(part[self.target], self.target, self.class_names, where))


def values_of(table: RowGroups, name: str) -> Iterator[object]:
    """Go through the values of one column."""
    for group in table.groups:
        yield from table.read(group, [name])[name].to_pylist()
