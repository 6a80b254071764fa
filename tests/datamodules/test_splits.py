"""How samples are divided."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from datamodules.splits import class_weights, downsample, holdout, kfold

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
