"""How samples are divided: pure functions from labels and a seed to index tensors."""

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
    # Dealt out like cards: neighbours, which are of one class where the samples are stratified, go to different folds.
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


def downsample(indices: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Keep as many random samples of every class as the smallest class has.

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
    """Weigh every sample so that each class is drawn equally often.

    Args:
        labels: Class of every sample, shape `(n,)`.

    Returns:
        One over the size of each sample's class, shape `(n,)`, float64.
    """
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    weights: Tensor = counts.double().reciprocal()[inverse]
    return weights


def _shuffle(size: int, seed: int, labels: Tensor | None) -> Tensor:
    """Give a random order of `size` samples; with labels, class by class and random within each."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order if labels is None else order[torch.argsort(labels[order], stable=True)]
