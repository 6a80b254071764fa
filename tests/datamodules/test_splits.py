"""How samples are divided."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from datamodules.splits import class_weights, downsample, holdout, holdout_groups, holdout_last, kfold, kfold_groups

SIZES = torch.tensor([97, 41, 13, 2])  # of each class


@pytest.fixture
def labels() -> Tensor:
    """Four classes of very different sizes, in no order."""
    order = torch.randperm(int(SIZES.sum()), generator=torch.Generator().manual_seed(0))
    return torch.arange(4).repeat_interleave(SIZES)[order]


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_a_holdout_is_disjoint_complete_and_of_the_asked_size(
    labels: Tensor, fraction: float, stratified: bool
) -> None:
    indices = torch.arange(1000, 1000 + len(labels))
    kept, held_out = holdout(indices, fraction, 0, labels if stratified else None)
    assert torch.cat([kept, held_out]).sort().values.equal(indices)
    assert len(held_out) == round(len(labels) * fraction)
    assert kept.equal(kept.sort().values)
    assert held_out.equal(held_out.sort().values)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_a_holdout_has_its_share_of_every_class_to_within_one_sample(
    labels: Tensor, fraction: float, seed: int
) -> None:
    _, held_out = holdout(torch.arange(len(labels)), fraction, seed, labels)
    share = len(held_out) / len(labels)
    assert (labels[held_out].bincount(minlength=4) - SIZES * share).abs().max() <= 1


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("num_folds", [2, 5, 10])
def test_folds_are_disjoint_complete_and_of_nearly_equal_size(labels: Tensor, num_folds: int, stratified: bool) -> None:
    folds = kfold(len(labels), num_folds, 0, labels if stratified else None)
    assert torch.cat(folds).sort().values.equal(torch.arange(len(labels)))
    sizes = [len(fold) for fold in folds]
    assert len(sizes) == num_folds
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("num_folds", [2, 5, 10])
def test_stratified_folds_differ_by_one_sample_of_a_class_at_most(labels: Tensor, num_folds: int) -> None:
    counts = torch.stack([labels[fold].bincount(minlength=4) for fold in kfold(len(labels), num_folds, 0, labels)])
    assert (counts.max(0).values - counts.min(0).values).max() <= 1


def test_downsampling_keeps_as_many_of_every_class_as_the_smallest_has(labels: Tensor) -> None:
    indices = torch.arange(len(labels)) * 3
    kept = downsample(indices, labels, 0)
    assert labels[kept // 3].bincount().tolist() == [2, 2, 2, 2]
    assert len(kept.unique()) == len(kept)
    assert torch.isin(kept, indices).all()
    assert kept.equal(kept.sort().values)


def test_downsampling_needs_no_class_to_be_called_0() -> None:
    kept = downsample(torch.arange(5), torch.tensor([7, 3, 3, 3, 7]), 0).tolist()
    assert len(kept) == 4
    assert {0, 4} < set(kept)


@pytest.mark.parametrize("stratified", [True, False])
def test_the_seed_alone_decides(labels: Tensor, stratified: bool) -> None:
    given, indices = labels if stratified else None, torch.arange(len(labels))
    divisions: list[Callable[[int], Tensor]] = [
        lambda seed: holdout(indices, 0.3, seed, given)[1],
        lambda seed: kfold(len(labels), 3, seed, given)[0],
        lambda seed: downsample(indices, labels, seed),
    ]
    for divide in divisions:
        first = divide(1)
        torch.manual_seed(torch.initial_seed() + 1)  # the global generator has no say
        assert divide(1).equal(first)
        assert not divide(2).equal(first)


def test_dividing_draws_nothing_from_the_global_generator(labels: Tensor) -> None:
    state = torch.get_rng_state()
    holdout(torch.arange(len(labels)), 0.3, 0, labels)
    kfold(len(labels), 3, 0)
    assert torch.get_rng_state().equal(state)


def test_weights_give_every_class_the_same_sum(labels: Tensor) -> None:
    weights = class_weights(labels)
    assert weights.dtype == torch.float64
    for label in range(4):
        assert weights[labels == label].sum().item() == pytest.approx(1)
        assert len(weights[labels == label].unique()) == 1


def test_a_large_set_is_held_out_to_the_sample() -> None:
    stays, held_out = holdout(torch.arange(3_000_000), 0.9, 0)
    assert (len(stays), len(held_out)) == (300_000, 2_700_000)


@pytest.fixture
def groups() -> Tensor:
    """Two hundred groups of 1 to 9 samples, called by any numbers, in no order."""
    generator = torch.Generator().manual_seed(0)
    names = torch.randperm(10_000, generator=generator)[:200] - 5000
    every = names.repeat_interleave(torch.randint(1, 10, (200,), generator=generator))
    return every[torch.randperm(len(every), generator=generator)]


@pytest.mark.parametrize("num_folds", [2, 5, 10])
@pytest.mark.parametrize("seed", range(3))
def test_folds_of_groups_are_complete_of_nearly_equal_size_and_divide_no_group(
    groups: Tensor, num_folds: int, seed: int
) -> None:
    folds = kfold_groups(groups, num_folds, seed)
    assert torch.cat(folds).sort().values.equal(torch.arange(len(groups)))
    assert all(fold.equal(fold.sort().values) for fold in folds)
    assert sum(len(groups[fold].unique()) for fold in folds) == 200
    sizes = [len(fold) for fold in folds]
    assert len(sizes) == num_folds
    assert max(abs(size - len(groups) / num_folds) for size in sizes) <= 9  # half a group at either end


def test_folds_for_which_there_are_no_groups_are_empty() -> None:
    assert sorted(map(len, kfold_groups(torch.tensor([7, 7, 7, 3, 3]), 4, 0))) == [0, 0, 2, 3]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_holdout_of_groups_is_nearly_of_the_asked_size_and_divides_no_group(
    groups: Tensor, fraction: float, seed: int
) -> None:
    indices = torch.arange(1000, 1000 + len(groups))
    kept, held_out = holdout_groups(indices, fraction, seed, groups)
    assert torch.cat([kept, held_out]).sort().values.equal(indices)
    assert not torch.isin(groups[kept - 1000], groups[held_out - 1000]).any()
    assert abs(len(held_out) - fraction * len(groups)) <= 4.5  # half a group
    assert kept.equal(kept.sort().values)
    assert held_out.equal(held_out.sort().values)


def test_groups_of_one_are_held_out_to_the_sample() -> None:
    kept, held_out = holdout_groups(torch.arange(100), 0.2, 0, torch.arange(100))
    assert (len(kept), len(held_out)) == (80, 20)


def test_the_seed_alone_decides_on_groups(groups: Tensor) -> None:
    indices = torch.arange(len(groups))
    divisions: list[Callable[[int], Tensor]] = [
        lambda seed: holdout_groups(indices, 0.3, seed, groups)[1],
        lambda seed: kfold_groups(groups, 3, seed)[0],
    ]
    state = torch.get_rng_state()
    for divide in divisions:
        assert divide(1).equal(divide(1))
        assert not divide(2).equal(divide(1))
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_what_is_held_out_last_is_after_all_that_stays(fraction: float) -> None:
    times = torch.randperm(97, generator=torch.Generator().manual_seed(0)) * 1000 - 20_000
    indices = torch.arange(97) * 2
    kept, held_out = holdout_last(indices, fraction, times)
    assert torch.cat([kept, held_out]).sort().values.equal(indices)
    assert len(held_out) == round(97 * fraction)
    assert kept.equal(kept.sort().values)
    assert held_out.equal(held_out.sort().values)
    assert not len(kept) or not len(held_out) or times[kept // 2].max() < times[held_out // 2].min()


def test_of_equal_times_the_last_rows_are_held_out() -> None:
    kept, held_out = holdout_last(torch.arange(6), 0.5, torch.tensor([2, 1, 1, 1, 1, 0]))
    assert (kept.tolist(), held_out.tolist()) == ([1, 2, 5], [0, 3, 4])
