"""Batches of samples of similar length, and indices that move from epoch to epoch."""

import pytest
import torch
import torch.distributed as dist

from datamodules import BatchSampler


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
