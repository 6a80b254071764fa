"""Resident samples, and the order in which whole batches of them are taken."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

POOL = 50  # batches of which the samples are sorted by length together


class Store(Protocol):
    """What inputs are kept in: a tensor, or what can be indexed like one."""

    def __len__(self) -> int: ...

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Take a whole batch in one call."""


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Samples, of which a batch is one indexing.

    Args:
        x: The inputs, shape `(N, ...)`.
        y: The targets, shape `(N,)` or `(N, K)`.
    """

    def __init__(self, x: Store, y: Tensor) -> None:
        self.x: Any = x  # a tensor, but for pictures
        self.y = y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Take a whole batch, `indices` of shape `(B,)`, in one call for each tensor."""
        return self.x.index_select(0, indices), self.y.index_select(0, indices)


class Annotated(Samples):
    """Samples with something more to each, which a batch holds in the third place.

    Args:
        samples: The samples.
        more: What comes with them, shape `(N, ...)`.
    """

    def __init__(self, samples: Samples, more: Tensor) -> None:
        super().__init__(samples.x, samples.y)
        self.more = more

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]  # one more
        """Take a whole batch, `indices` of shape `(B,)`."""
        return *super().__getitem__(indices), self.more.index_select(0, indices)


class Inputs(Dataset[Tensor]):
    """Inputs without targets, `(N, ...)`."""

    def __init__(self, x: Store) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Take a whole batch, `indices` of shape `(B,)`."""
        return self.x.index_select(0, indices)


class Split(NamedTuple):
    """Some of the samples: `indices` into `samples`."""

    samples: Samples
    indices: Tensor

    @property
    def size(self) -> int:
        """How many samples it has."""
        return len(self.indices)


# A SequentialSampler by name: with `overfit_batches` Lightning puts one of single samples in the place of any other.
class BatchSampler(DistributedSampler[Tensor], SequentialSampler):
    """Yields one index tensor a batch: shuffled by seed and epoch, shared out over ranks, resumable within an epoch.

    A last batch of one sample, from which batch normalization could not learn, joins the batch before it, unless
    batches are as small as 2.

    Args:
        indices: The samples to go through, shape `(n,)`.
        batch_size: Samples in a batch.
        shuffle: Whether every epoch has an order of its own.
        seed: Seed of these orders.
        weights: If given, every epoch draws `n` samples with replacement, each in proportion to its weight.
        views: How many versions of all samples there are, each `n` after the one before; epochs take them in turn.
        lengths: If given, those of the samples, shape `(n,)`: batches are of samples of similar length, which are
            sorted within random pools of them; in a random order if shuffled, else the longest first.
        jitter: If not 0, every epoch adds a random number below this to all indices.
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
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        super().__init__(
            cast("Dataset[Tensor]", indices),
            num_replicas=dist.get_world_size() if distributed else 1,
            rank=dist.get_rank() if distributed else 0,
            shuffle=shuffle,
            seed=seed,
        )
        self.indices = indices
        self.batch_size = batch_size
        self.weights = weights
        self.views = views
        self.lengths = lengths
        self.jitter = jitter
        self.is_fixed = False  # whether all epochs are the first
        self.start = 0  # how many batches the next epoch skips: those that an interrupted run has already seen

    def __len__(self) -> int:
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
        if self.lengths is not None:
            pool = POOL * self.batch_size * self.num_replicas if self.shuffle else max(1, size)
            pools = order.split(pool)
            order = torch.cat([some[self.lengths[some].argsort(descending=True, stable=True)] for some in pools])
        if self.num_replicas > 1:  # every rank needs as many batches as the others: wrap around
            order = order[torch.arange(self.rank, self.total_size, self.num_replicas) % size]
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
