"""Batches of a table larger than memory: read row group by row group, shuffled, sharded over processes, resumable."""

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.errors import DataError
from datamodules.tables.preprocessing import TablePreprocessor
from datamodules.tables.row_groups import STAGES, Division, RowGroup, RowGroups
from datamodules.tables.values import Where, encode_target, is_missing

BUFFER = 2**25  # bytes of encoded rows that are shuffled together; two such buffers are held at a time


@dataclass(eq=False)
class TableStream(IterableDataset[tuple[Tensor, Tensor] | Tensor]):
    """Whole batches of one split of a table, read row group by row group.

    The row groups of an epoch are shuffled and sharded over the processes of a distributed run. Each process reads some
    groups at a time into a buffer, and shuffles its rows. Of several workers each makes one contiguous part of the
    batches, and they take turns. In training all processes make the same number of batches, so some rows are repeated
    and others are skipped.

    Args:
        table: The table.
        columns: How rows are encoded.
        target: Name of the target; None for inputs alone.
        class_names: The classes of the target, if it has any.
        stage: The split.
        counts: How many rows of the split each row group has.
        division: How rows are divided; None if all are in this split.
        batch_size: Rows in a batch.
        shuffle: Whether the order is random.
        seed: Seed of the order.
        where: Returns the place of a value, for messages.
        drop_last: Whether to leave out a last batch that is not full.
        epoch: The epoch, which determines the order.
        start: How many batches the next epoch skips, as an interrupted run has seen them.
        rank: Which process of a distributed run this is.
        num_ranks: How many there are.
    """

    table: RowGroups
    columns: TablePreprocessor
    target: str | None
    class_names: list[str] | None
    stage: str
    counts: NDArray[np.int64]
    division: Division | None
    batch_size: int
    shuffle: bool
    seed: int
    where: Where
    drop_last: bool = False
    epoch: int = 0
    start: int = 0
    rank: int = 0
    num_ranks: int = 1

    @property
    def samples(self) -> RowGroups:
        """The table that it is a split of."""
        return self.table

    @property
    def size(self) -> int:
        """Number of rows of the split."""
        return int(self.counts.sum())

    @property
    def num_samples(self) -> int:
        """Number of rows of this process in an epoch."""
        if self.shuffle:
            return math.ceil(self.size / self.num_ranks)
        return sum(int(self.counts[at]) for at in self._groups(0))

    def share_out(self) -> None:
        """Set rank and number of processes, which are known only once training starts.

        Raises:
            DataError: If there are more processes than row groups to train on.
        """
        if dist.is_available() and dist.is_initialized():
            self.rank, self.num_ranks = dist.get_rank(), dist.get_world_size()
        if (self.counts > 0).sum() < self.num_ranks:
            raise DataError(
                f"{self.table.groups[0].file}: fewer row groups than processes", "give `devices=1` or `streaming=False`"
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order; each epoch increments it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._edges()) - 1

    def __getitem__(self, index: object) -> NoReturn:
        """Raise a `DataError`: only a table in memory is indexed."""
        raise DataError("a stream has no rows by number", "use `train_dataloader()`, or give `streaming=False`")

    def _edges(self) -> list[int]:
        """Return the edges of batches among the rows of this process; a last batch of a single row joins another."""
        if self.drop_last:
            return [*range(0, self.num_samples + 1, self.batch_size)]
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
        """Return the row groups of an epoch, combined into buffers."""
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
            # The loader asks the workers in turn, and the first one first, also after resuming in mid-turn. So the
            # shares of the workers rotate.
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
        """Yield the buffers with the rows of this process from `start` to `stop`, reading one ahead.

        A process with fewer rows than the others repeats its first ones.
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
        """Read and encode the rows of some row groups; shuffle them in training."""
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
        # Encoding raises an error for a feature that is not there.
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
