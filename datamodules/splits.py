"""Functions that split samples: from labels and a seed to index tensors."""

import torch
from torch import Tensor


def kfold(size: int, num_folds: int, seed: int, labels: Tensor | None = None) -> list[Tensor]:
    """Divide `size` samples at random into folds of nearly equal size.

    Args:
        size: How many samples there are.
        num_folds: How many folds to make.
        seed: Seed of the shuffle; the same seed gives the same folds everywhere.
        labels: Class of every sample, shape `(size,)`. If given, the folds are stratified: each has nearly the same
            share of every class.

    Returns:
        The sorted indices of each fold, disjoint and together complete.
    """
    order = _shuffle(size, seed, labels)
    # Dealt like cards: neighbors, which are of one class if stratified, go to different folds.
    return [order[fold::num_folds].sort().values for fold in range(num_folds)]


def holdout(indices: Tensor, fraction: float, seed: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Hold out a random fraction of some samples.

    Args:
        indices: The samples to divide, shape `(n,)`.
        fraction: The share to hold out, 0 to 1; `round(n * fraction)` samples are taken.
        seed: Seed of the shuffle.
        labels: Class of every one of these samples, shape `(n,)`; if given, the choice is stratified.

    Returns:
        The indices that stay and the indices held out, both sorted.
    """
    size = len(indices)
    count = round(size * fraction)
    order = _shuffle(size, seed, labels)
    # Evenly spaced places along the classes: each class gives its share to within one sample.
    taken = torch.zeros(size, dtype=torch.bool)
    taken[order[(2 * torch.arange(count) + 1) * size // max(2 * count, 1)]] = True
    return indices[~taken], indices[taken]


def kfold_groups(groups: Tensor, num_folds: int, seed: int) -> list[Tensor]:
    """Divide samples into folds of nearly equal size so that none of their groups is divided.

    Args:
        groups: Group of every sample, shape `(n,)`, integers.
        num_folds: How many folds to make.
        seed: Seed of the order in which groups are dealt out.

    Returns:
        The sorted indices of each fold, disjoint and together complete; with fewer groups than folds, some are empty.
    """
    place, inverse = _places(groups, seed)
    fold = (place * num_folds).long()[inverse]
    return [(fold == number).nonzero().squeeze(1) for number in range(num_folds)]


def holdout_groups(indices: Tensor, fraction: float, seed: int, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Hold out whole groups, which are together nearly a fraction of some samples.

    Args:
        indices: The samples to divide, shape `(n,)`.
        fraction: The share to hold out, 0 to 1.
        seed: Seed of the choice.
        groups: Group of every one of these samples, shape `(n,)`, integers.

    Returns:
        The indices that stay and the indices held out, in their order.
    """
    place, inverse = _places(groups, seed)
    taken = (place < fraction)[inverse]
    return indices[~taken], indices[taken]


def holdout_last(indices: Tensor, fraction: float, times: Tensor) -> tuple[Tensor, Tensor]:
    """Hold out the last of some samples.

    Args:
        indices: The samples to divide, shape `(n,)`.
        fraction: The share to hold out, 0 to 1; `round(n * fraction)` samples are taken.
        times: Time of every one of these samples, shape `(n,)`, in any unit.

    Returns:
        The indices that stay and the indices held out, both sorted.
    """
    order = times.argsort(stable=True)
    stay = len(indices) - round(len(indices) * fraction)
    return indices[order[:stay].sort().values], indices[order[stay:].sort().values]


def downsample(indices: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Reduce every class to as many random samples as the smallest class has.

    Args:
        indices: The samples to choose from, shape `(n,)`.
        labels: Their classes, shape `(n,)`.
        seed: Seed of the choice.

    Returns:
        The sorted indices that are kept.
    """
    order = _shuffle(len(indices), seed, labels)
    counts = labels.unique(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    kept = torch.cat([order[start : start + int(counts.min())] for start in starts.tolist()])
    return indices[kept].sort().values


def class_weights(labels: Tensor) -> Tensor:
    """Compute weights by which each class is drawn equally often.

    Args:
        labels: Class of every sample, shape `(n,)`.

    Returns:
        One over the size of each sample's class, shape `(n,)`, float64.
    """
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    weights: Tensor = counts.double().reciprocal()[inverse]
    return weights


def _places(groups: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Place groups end to end in [0, 1] at random; return the middle of each, and the group of each sample."""
    _, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    order = _shuffle(len(counts), seed, None)
    place = torch.empty(len(counts), dtype=torch.float64)
    place[order] = (counts[order].cumsum(0) - counts[order] / 2).double() / len(groups)
    return place, inverse


def _shuffle(size: int, seed: int, labels: Tensor | None) -> Tensor:
    """Return a random order of `size` samples; with labels, class by class and random within each."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order if labels is None else order[torch.argsort(labels[order], stable=True)]
