"""Data sets in memory, and the order in which batches of them are taken."""

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import BatchSampler, Samples, ToyDataModule
from datamodules.sampler import Annotated, BatchDataset, Inputs, Split
from datamodules.text.ragged import RaggedTokens

X, Y = torch.arange(40.0).view(20, 2), torch.arange(20)
DATA: dict[str, BatchDataset] = {
    "samples": Samples(X, Y),
    "annotated samples": Annotated(Samples(X, Y), -X),
    "inputs": Inputs(X),
    "split": Split(Samples(torch.cat([X, X]), torch.cat([-Y, Y])), torch.arange(20, 40)),
}
PARTS: dict[str, tuple[Tensor, ...]] = {
    "samples": (X, Y),
    "annotated samples": (X, Y, -X),
    "inputs": (X,),
    "split": (X, Y),
}
each = pytest.mark.parametrize("kind", DATA)


def _same(found: Any, kind: str, index: Any) -> bool:  # noqa: ANN401  # a sample or a batch, and its index
    found = (found,) if isinstance(found, Tensor) else found
    return len(found) == len(PARTS[kind]) and all(
        a.equal(part[index]) for a, part in zip(found, PARTS[kind], strict=True)
    )


@each
@pytest.mark.parametrize("index", [0, 7, 19, -1, -20, np.int64(3), torch.tensor(5)])
def test_an_integer_gives_one_sample(kind: str, index: Any) -> None:  # noqa: ANN401
    assert _same(DATA[kind][index], kind, int(index))


@each
@pytest.mark.parametrize(
    "index", [[3, 0, 19], [-1, 2], [], slice(2, 9, 3), slice(None), slice(-3, None), np.array([0, -1])]
)
def test_a_list_or_a_slice_gives_a_batch(kind: str, index: Any) -> None:  # noqa: ANN401
    places = torch.arange(20)[index] if isinstance(index, slice) else torch.tensor(index, dtype=torch.long)
    assert _same(DATA[kind][index], kind, places)
    assert _same(DATA[kind][places % 20], kind, places)


def test_a_mask_of_numpy_gives_a_batch() -> None:
    assert Inputs(X)[np.arange(20) > 16].equal(X[17:])


def test_a_slice_may_go_backwards() -> None:
    assert Inputs(X)[::-1].equal(X.flip(0))


@each
@pytest.mark.parametrize("index", [20, -21, [0, 20], [-21], torch.tensor([20]), np.array([0, 20])])
def test_there_is_nothing_past_the_end(kind: str, index: Any) -> None:  # noqa: ANN401
    with pytest.raises(IndexError):
        _ = DATA[kind][index]


@each
def test_a_plain_loader_works_in_a_notebook(kind: str) -> None:
    loader: DataLoader[Any] = DataLoader(DATA[kind], batch_size=4, shuffle=True)
    batches = [(batch,) if isinstance(batch, Tensor) else batch for batch in loader]
    assert [len(batch[0]) for batch in batches] == [4] * 5
    assert all(len(batch) == len(PARTS[kind]) for batch in batches)
    rows = torch.cat([batch[0] for batch in batches])[:, 0].long() // 2
    assert rows.tolist() != list(range(20))
    assert all(
        torch.cat(part).equal(of[rows]) for part, of in zip(zip(*batches, strict=True), PARTS[kind], strict=True)
    )


def test_so_does_one_over_a_split_of_a_data_module() -> None:
    split = ToyDataModule("iris").splits["train"]
    x, y = split[0]
    assert x.equal(split.samples.x[split.indices[0]])
    assert y.equal(split.samples.y[split.indices[0]])
    sizes = [(x.shape, y.shape) for x, y in DataLoader(split, batch_size=4, shuffle=True)]
    assert sizes == [((4, 4), (4,))] * 27
    samples, indices = split
    assert (samples, indices) == (split.samples, split.indices)


def test_texts_of_unequal_lengths_are_padded_by_a_plain_loader() -> None:
    tokens = RaggedTokens(torch.tensor([5, 6, 7, 8, 9, 3]), torch.tensor([0, 3, 4, 6]))
    batch = next(iter(DataLoader(Inputs(tokens), batch_size=3)))
    assert batch.tolist() == [[5, 6, 7], [8, 0, 0], [9, 3, 0]]


def _lengths(size: int) -> torch.Tensor:
    return torch.randint(1, 60, (size,), generator=torch.Generator().manual_seed(0))


def _padding(sampler: BatchSampler, lengths: torch.Tensor) -> float:
    """Share of a padded epoch that is padding; indices are places in `lengths`."""
    batches = [lengths[batch] for batch in sampler]
    return 1 - int(lengths.sum()) / sum(int(batch.max()) * len(batch) for batch in batches)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 33, 4000])
def test_every_sample_comes_once_whatever_its_length(size: int, shuffle: bool) -> None:
    indices = torch.arange(7, 7 + size)
    sampler = BatchSampler(indices, 8, shuffle, lengths=_lengths(size))
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert torch.cat(batches).sort().values.equal(indices)


def test_batches_of_similar_length_need_little_padding() -> None:
    lengths = _lengths(4000)
    indices = torch.arange(4000)
    assert _padding(BatchSampler(indices, 32, shuffle=True), lengths) > 0.4
    assert _padding(BatchSampler(indices, 32, shuffle=True, lengths=lengths), lengths) < 0.05
    assert _padding(BatchSampler(indices, 32, lengths=lengths), lengths) < 0.02


def test_long_and_short_batches_are_mixed_in_training_and_the_longest_come_first_elsewhere() -> None:
    lengths = _lengths(4000)
    longest = [int(lengths[batch].max()) for batch in BatchSampler(torch.arange(4000), 32, lengths=lengths)]
    assert longest == sorted(longest, reverse=True)
    means = torch.tensor(
        [lengths[b].float().mean() for b in BatchSampler(torch.arange(4000), 32, True, lengths=lengths)]
    )
    assert means[:20].min() < 15
    assert means[:20].max() > 45


def test_neighbors_in_length_change_from_epoch_to_epoch() -> None:
    sampler = BatchSampler(torch.arange(4000), 32, shuffle=True, lengths=_lengths(4000))
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append([tuple(sorted(batch.tolist())) for batch in sampler])
    assert epochs[0] == epochs[2]
    assert not set(epochs[0]) & set(epochs[1])


@pytest.mark.parametrize("options", [{"lengths": _lengths(103)}, {"jitter": 1000}])
@pytest.mark.parametrize("start", [0, 1, 7, 11])
def test_a_start_skips_the_first_batches_of_the_same_epoch(start: int, options: dict[str, object]) -> None:
    sampler = BatchSampler(torch.arange(103), 10, True, **options)  # type: ignore[arg-type]  # of either kind
    whole = [batch.tolist() for batch in sampler]
    sampler.start = start
    assert [batch.tolist() for batch in sampler] == whole[start:]


def test_classes_are_drawn_equally_whatever_their_lengths() -> None:
    lengths = _lengths(1000)
    weights = torch.where(torch.arange(1000) < 100, 9.0, 1.0)
    drawn = torch.cat(list(BatchSampler(torch.arange(1000), 10, True, weights=weights, lengths=lengths)))
    assert 0.4 < (drawn < 100).float().mean() < 0.6


def test_processes_have_batches_of_the_same_lengths_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = _lengths(2000)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        ranks.append(list(BatchSampler(torch.arange(2000), 20, True, lengths=lengths)))
    assert torch.cat([batch for batches in ranks for batch in batches]).sort().values.equal(torch.arange(2000))
    for first, second in zip(*ranks, strict=True):
        assert abs(int(lengths[first].max()) - int(lengths[second].max())) <= 2


def test_jitter_moves_all_indices_of_an_epoch_together() -> None:
    indices = torch.arange(0, 1000, 10)
    sampler = BatchSampler(indices, 7, shuffle=True, jitter=10)
    offsets = set()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        found = torch.cat(list(sampler)).sort().values - indices
        assert found.unique().numel() == 1
        offsets.add(int(found[0]))
    assert offsets == set(range(10))


def _batches(sampler: BatchSampler) -> list[list[int]]:
    return [batch.tolist() for batch in sampler]


def _flat(sampler: BatchSampler) -> list[int]:
    return [index for batch in sampler for index in batch.tolist()]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_comes_once_in_an_epoch(shuffle: bool) -> None:
    indices = torch.arange(50, 153)
    sampler = BatchSampler(indices, 10, shuffle)
    assert sorted(_flat(sampler)) == indices.tolist()
    assert (_flat(sampler) == indices.tolist()) is not shuffle


def test_the_order_is_that_of_seed_and_epoch() -> None:
    orders = {}
    for seed in (0, 10):
        sampler = BatchSampler(torch.arange(100), 10, shuffle=True, seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders[seed, epoch] = tuple(_flat(sampler))
            assert tuple(_flat(sampler)) == orders[seed, epoch]
    assert len(set(orders.values())) == 6
    torch.manual_seed(99)
    again = BatchSampler(torch.arange(100), 10, shuffle=True, seed=10)
    again.set_epoch(2)
    assert tuple(_flat(again)) == orders[10, 2]


@pytest.mark.parametrize("start", [0, 1, 4, 10, 11])
def test_a_start_skips_the_first_batches_once(start: int) -> None:
    sampler = BatchSampler(torch.arange(103), 10, shuffle=True)
    whole = _batches(sampler)
    sampler.start = start
    assert _batches(sampler) == whole[start:]
    assert _batches(sampler) == whole


@pytest.mark.parametrize(
    ("size", "batch_size", "sizes"),
    [
        (9, 4, [4, 5]),  # a lone last sample joins the batch before it
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (1, 4, [1]),  # there is nothing to join
        (5, 2, [2, 2, 1]),  # would make a batch half as large again
        (3, 1, [1, 1, 1]),
        (4, 3, [4]),
    ],
)
def test_batches_have_the_asked_size(size: int, batch_size: int, sizes: list[int]) -> None:
    sampler = BatchSampler(torch.arange(size), batch_size)
    assert [len(batch) for batch in _batches(sampler)] == sizes


def test_the_length_is_the_number_of_batches() -> None:
    draw = random.Random(0)
    pairs = [(size, batch) for size in range(1, 30) for batch in range(1, 12)]
    pairs += [(draw.randint(1, 3000), draw.randint(1, 300)) for _ in range(200)]
    for size, batch_size in pairs:
        sampler = BatchSampler(torch.arange(size), batch_size, shuffle=True)
        batches = _batches(sampler)
        assert len(batches) == len(sampler), (size, batch_size)
        assert sorted(index for batch in batches for index in batch) == list(range(size)), (size, batch_size)


def _ranks(monkeypatch: pytest.MonkeyPatch, world_size: int, **options: Any) -> list[BatchSampler]:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: world_size)
    samplers = []
    for rank in range(world_size):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        samplers.append(BatchSampler(**options))
    return samplers


@pytest.mark.parametrize(("size", "world_size"), [(103, 4), (100, 4), (33, 2), (3, 4), (1, 3)])
def test_ranks_share_all_samples_in_as_many_batches_each(
    monkeypatch: pytest.MonkeyPatch, size: int, world_size: int
) -> None:
    samplers = _ranks(monkeypatch, world_size, indices=torch.arange(size), batch_size=8, shuffle=True)
    batches = [_batches(sampler) for sampler in samplers]
    assert {len(shared) for shared in batches} == {len(samplers[0])}
    for together in zip(*batches, strict=True):
        assert len({len(batch) for batch in together}) == 1
    seen = [index for shared in batches for batch in shared for index in batch]
    assert set(seen) == set(range(size))
    assert len(seen) == -(-size // world_size) * world_size  # rounded up by repeating a few


def test_weights_draw_the_classes_equally_often() -> None:
    labels = (torch.arange(2000) % 10 == 0).long()  # 1 in 10
    weights = torch.where(labels == 1, 1 / 200, 1 / 1800).double()
    sampler = BatchSampler(torch.arange(2000), 64, shuffle=True, weights=weights)
    first = _flat(sampler)
    assert len(first) == 2000
    assert labels[first].sum().item() == pytest.approx(1000, abs=100)  # more than four standard deviations
    assert _flat(sampler) == first
    sampler.set_epoch(1)
    assert _flat(sampler) != first


@pytest.mark.parametrize(("size", "batch_size", "count"), [(9, 4, 2), (10, 4, 2), (8, 4, 2), (3, 4, 0), (7, 1, 7)])
@pytest.mark.parametrize("sorted_by_length", [False, True])
def test_a_last_batch_that_is_not_full_is_left_out(
    size: int, batch_size: int, count: int, sorted_by_length: bool
) -> None:
    lengths = torch.arange(size) if sorted_by_length else None
    sampler = BatchSampler(torch.arange(size), batch_size, shuffle=True, lengths=lengths, drop_last=True)
    seen = set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        batches = _batches(sampler)
        assert [len(batch) for batch in batches] == [batch_size] * count
        assert len(sampler) == count
        assert len(set(_flat(sampler))) == count * batch_size
        seen |= set(_flat(sampler))
    assert seen == (set(range(size)) if count else set())  # not always the same, as the shortest ones


def test_a_run_without_last_batches_is_resumed_where_it_was() -> None:
    sampler = BatchSampler(torch.arange(103), 10, shuffle=True, drop_last=True)
    whole = _batches(sampler)
    sampler.start = 7
    assert _batches(sampler) == whole[7:]


@pytest.mark.parametrize(("size", "world_size"), [(103, 4), (100, 4), (33, 2), (3, 4)])
def test_without_last_batches_no_rank_repeats_a_sample(
    monkeypatch: pytest.MonkeyPatch, size: int, world_size: int
) -> None:
    samplers = _ranks(monkeypatch, world_size, indices=torch.arange(size), batch_size=8, shuffle=True, drop_last=True)
    batches = [_batches(sampler) for sampler in samplers]
    assert {len(shared) for shared in batches} == {size // world_size // 8}
    seen = [index for shared in batches for batch in shared for index in batch]
    assert len(set(seen)) == len(seen) == size // world_size // 8 * 8 * world_size
