"""Divides samples into training, validation and test: which are held out, and how they are drawn."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from datamodules.errors import DataError

Stage = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Holdout:
    """A hold-out of random samples, stratified by class; of whole groups; or of the last samples in time.

    The first five arguments are those of `DataModule`.

    Args:
        stratify: Whether random samples are stratified by class.
        groups: Group of every sample, `(N,)`; none is divided.
        times: Time of every sample, `(N,)`: the last are held out. Folds are successive, and each is predicted from
            all samples before it.
    """

    val_fraction: float
    test_fraction: float
    num_folds: int
    fold: int
    seed: int
    stratify: bool = True
    groups: Tensor | None = None
    times: Tensor | None = None

    def divide(self, size: int, labels: Tensor | None, given: Collection[Stage]) -> dict[Stage, Tensor]:
        """Divide samples into training, validation and test.

        Args:
            size: How many samples there are.
            labels: Class of every sample, `(size,)`; None for a regression.
            given: The splits that have samples of their own, which are not held out here.

        Returns:
            The sorted indices of each split; they may be empty.

        Raises:
            DataError: If the samples cannot be divided into these folds.
        """
        labels = labels if self.stratify else None
        train, val, test = torch.arange(size), torch.arange(0), torch.arange(0)
        if self.num_folds:
            check_folds(self.num_folds, given)
            if self.num_folds > size:
                raise self._folds_error(f"there are only {size} samples to divide")
            train, held_out = self._hold_out_fold(labels, size)
            val, test = (held_out, test) if "test" in given else (test, held_out)
        elif "test" not in given:
            train, test = self._hold_out(train, self.test_fraction, labels)
        if not len(val) and "val" not in given:
            train, val = self._hold_out(train, self.val_fraction, labels)
        return {"train": train, "val": val, "test": test}

    def _hold_out(self, indices: Tensor, fraction: float, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the indices that stay, and those held out."""
        if self.groups is not None:
            return holdout_groups(indices, fraction, self.seed, self.groups[indices])
        if self.times is not None:
            return holdout_last(indices, fraction, self.times[indices])
        return holdout(indices, fraction, self.seed, None if labels is None else labels[indices])

    def _hold_out_fold(self, labels: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """Return the indices that stay, and those of the fold."""
        if self.times is not None:
            blocks = self.times.argsort(stable=True).tensor_split(self.num_folds + 1)
            return torch.cat(blocks[: self.fold + 1]).sort().values, blocks[self.fold + 1].sort().values
        if self.groups is not None:
            folds = kfold_groups(self.groups, self.num_folds, self.seed)
            if not all(len(fold) for fold in folds):
                raise self._folds_error("there are too few groups for so many folds")
        else:
            folds = kfold(size, self.num_folds, self.seed, labels)
        held_out = folds.pop(self.fold)
        return torch.cat(folds).sort().values, held_out

    def _folds_error(self, problem: str) -> DataError:
        return DataError(problem, option="num_folds", value=self.num_folds)


def check_folds(num_folds: int, given: Collection[Stage]) -> None:
    """Raise a `DataError` if folds are asked for, but validation and test are both given."""
    if num_folds and "val" in given and "test" in given:
        problem = "validation and test are given, so there is no fold to hold out"
        raise DataError(problem, option="num_folds", value=num_folds)


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
    """Divide samples as `kfold` does, so that none of their `groups`, shape `(n,)`, integers, is divided.

    With fewer groups than folds, some folds are empty.
    """
    place, inverse = _places(groups, seed)
    fold = (place * num_folds).long()[inverse]
    return [(fold == number).nonzero().squeeze(1) for number in range(num_folds)]


def holdout_groups(indices: Tensor, fraction: float, seed: int, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Hold out whole `groups`, shape `(n,)`, integers, with nearly the given fraction of the samples.

    Otherwise as `holdout`; the indices are in their order.
    """
    place, inverse = _places(groups, seed)
    taken = (place < fraction)[inverse]
    return indices[~taken], indices[taken]


def holdout_last(indices: Tensor, fraction: float, times: Tensor) -> tuple[Tensor, Tensor]:
    """Hold out the last of some samples, as `holdout` does, by their `times`, shape `(n,)`, in any unit."""
    order = times.argsort(stable=True)
    stay = len(indices) - round(len(indices) * fraction)
    return indices[order[:stay].sort().values], indices[order[stay:].sort().values]


def downsample(indices: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Reduce every class to as many random samples as the smallest class has; return their sorted indices.

    Args:
        indices: The samples to choose from, shape `(n,)`.
        labels: Their classes, shape `(n,)`.
        seed: Seed of the choice.
    """
    order = _shuffle(len(indices), seed, labels)
    counts = labels.unique(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    kept = torch.cat([order[start : start + int(counts.min())] for start in starts.tolist()])
    return indices[kept].sort().values


def class_weights(labels: Tensor) -> Tensor:
    """Return one over the size of each sample's class, `(n,)`, float64, from the classes, `(n,)`."""
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
