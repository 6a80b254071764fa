"""Data sets in memory, and samplers of whole batches."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

POOL = 50  # batches whose samples are sorted by length together


class Store(Protocol):
    """A tensor of inputs, or something that is indexed like one."""

    def __len__(self) -> int: ...

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Return a whole batch in one call."""


class BatchDataset(Dataset[Any], ABC):
    """A data set that an integer indexes for one sample, and a slice, list, array or tensor for a whole batch.

    So a plain `DataLoader` over it works, and one whose sampler yields index tensors takes each batch in one call.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: Tensor) -> Any:  # noqa: ANN401  # one tensor, or several
        """Return a batch, `(B, ...)` or a tuple of such tensors, from indices, `(B,)`, none negative."""

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any] | Tensor) -> Any:  # noqa: ANN401
        """Return one sample, or a batch; a negative index counts from the end.

        Raises:
            IndexError: If there is no such sample.
        """
        if isinstance(index, Tensor) and index.ndim:
            return self.take(index)
        if isinstance(index, np.ndarray) and index.ndim:  # of numbers, or a mask
            return self.take(torch.as_tensor(np.arange(len(self))[index]))
        if isinstance(index, slice):
            return self.take(torch.tensor(range(len(self))[index], dtype=torch.long))
        if isinstance(index, Sequence):
            return self.take(torch.tensor([range(len(self))[at] for at in index], dtype=torch.long))
        return self.__getitems__([operator.index(index)])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return samples; a `DataLoader` that makes its own batches calls this once for each."""
        batch = self[indices]
        return list(batch) if isinstance(batch, Tensor) else list(zip(*batch, strict=True))


class Samples(BatchDataset):
    """Inputs with targets, in memory.

    Args:
        x: The inputs, shape `(N, ...)`.
        y: The targets, shape `(N,)` or `(N, K)`.
    """

    def __init__(self, x: Store, y: Tensor) -> None:
        self.x: Any = x  # a tensor, but for images and texts
        self.y = y

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Return inputs, `(B, ...)`, and targets, `(B,)` or `(B, K)`."""
        return self.x.index_select(0, indices), self.y.index_select(0, indices)


class Annotated(Samples):
    """Samples with a third part, `more`, of shape `(N, ...)`."""

    def __init__(self, samples: Samples, more: Tensor) -> None:
        super().__init__(samples.x, samples.y)
        self.more = more

    def take(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Return inputs, targets and third parts."""
        return *super().take(indices), self.more.index_select(0, indices)


class Inputs(BatchDataset):
    """Inputs without targets, `(N, ...)`."""

    def __init__(self, x: Store) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: Tensor) -> Tensor:
        """Return inputs, `(B, ...)`."""
        return self.x.index_select(0, indices)


class Split(BatchDataset):
    """Some of the samples of a data set; it unpacks as `samples, indices = split`.

    Args:
        samples: The data set.
        indices: The samples of this split, shape `(n,)`.
    """

    def __init__(self, samples: Samples, indices: Tensor) -> None:
        self.samples = samples
        self.indices = indices

    def __iter__(self) -> Iterator[Any]:
        return iter((self.samples, self.indices))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def size(self) -> int:
        """How many samples it has."""
        return len(self)

    def take(self, indices: Tensor) -> Any:  # noqa: ANN401  # as that of its samples
        """Return a batch; `indices`, `(B,)`, count the samples of this split."""
        return self.samples[self.indices[indices]]


# A SequentialSampler by name: with `overfit_batches` Lightning puts one of single samples in the place of any other.
class BatchSampler(DistributedSampler[Tensor], SequentialSampler):
    """Yields an index tensor for each batch: shuffled by seed and epoch, sharded over ranks, resumable within an epoch.

    A last batch of one sample, with which batch normalization cannot train, is added to the batch before it, unless
    the batch size is 2 or less.

    Args:
        indices: The samples, shape `(n,)`.
        batch_size: Samples in a batch.
        shuffle: Whether every epoch has its own order.
        seed: Seed of the orders.
        weights: If given, every epoch draws `n` samples with replacement, in proportion to their weights.
        views: How many versions of all samples there are, each `n` after the last; epochs cycle through them.
        lengths: If given, the lengths of the samples, shape `(n,)`: batches are of samples of similar length, sorted
            within random pools if shuffled, else over all, the longest first.
        jitter: If not 0, every epoch adds a random number below this to all indices.
        drop_last: Whether to leave out a last batch that is not full; no rank then repeats a sample.
    """

    def __init__(
        self,
        indices: Tensor,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        weights: Tensor | None = None,
        views: int = 1,
        lengths: Tensor | None = None,
        jitter: int = 0,
        drop_last: bool = False,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        super().__init__(
            cast("Dataset[Tensor]", indices),
            num_replicas=dist.get_world_size() if distributed else 1,
            rank=dist.get_rank() if distributed else 0,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
        )
        self.indices = indices
        self.batch_size = batch_size
        self.weights = weights
        self.views = views
        self.lengths = lengths
        self.jitter = jitter
        self.is_fixed = False  # whether every epoch has the order of the first
        self.start = 0  # how many batches the next epoch skips, as an interrupted run has seen them

    def __len__(self) -> int:
        if self.drop_last:
            return self.num_samples // self.batch_size
        joined = self.num_samples % self.batch_size == 1 and self.num_samples > self.batch_size > 2
        return math.ceil(self.num_samples / self.batch_size) - joined

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        super().set_epoch(0 if self.is_fixed else epoch)

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # a SequentialSampler yields numbers
        size = len(self.indices)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.weights is not None:
            # Not torch.multinomial, which stops at 2**24 samples.
            bounds = self.weights.cumsum(0)
            draws = torch.rand(size, generator=generator, dtype=bounds.dtype) * bounds[-1]
            order = torch.searchsorted(bounds, draws, right=True).clamp_(max=size - 1)
        elif self.shuffle:
            order = torch.randperm(size, generator=generator)
        else:
            order = torch.arange(size)
        total = self.total_size
        if self.drop_last:  # before samples are sorted by length, or it would always be the shortest
            total = len(self) * self.batch_size * self.num_replicas
            order = order[:total]
        if self.lengths is not None:
            pool = POOL * self.batch_size * self.num_replicas if self.shuffle else max(1, size)
            pools = order.split(pool)
            order = torch.cat([some[self.lengths[some].argsort(descending=True, stable=True)] for some in pools])
        if self.num_replicas > 1:  # all ranks need the same number of batches: wrap around
            order = order[torch.arange(self.rank, max(self.rank, total), self.num_replicas) % size]
        edges = [min(batch * self.batch_size, len(order)) for batch in range(len(self))] + [len(order)]
        batches = list(range(len(self)))
        if self.lengths is not None and self.shuffle:
            batches = torch.randperm(len(self), generator=generator).tolist()
        offset = size * (self.epoch % self.views)
        if self.jitter:
            offset += int(torch.randint(self.jitter, (), generator=generator))
        start, self.start = self.start, 0
        for batch in batches[start:]:
            yield self.indices[order[edges[batch] : edges[batch + 1]]] + offset
