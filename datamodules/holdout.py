"""Which samples of a data set are held out for validation and test."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from datamodules.errors import DataError
from datamodules.splits import holdout, holdout_groups, holdout_last, kfold, kfold_groups

Stage = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Holdout:
    """Random samples, stratified by class; or whole groups; or the last samples in time.

    Args:
        val_fraction: Share of the training samples that is held out for validation.
        test_fraction: Share of all samples that is held out for the test.
        num_folds: If not 0, `fold` of so many folds is held out for the test, or for validation if the test is given.
        fold: Which fold, counted from 0.
        seed: Seed of the random choice.
        stratify: Whether each class gives its share.
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
    """Raise an error if no fold can be held out.

    Args:
        num_folds: How many folds are asked for.
        given: The splits that have samples of their own.

    Raises:
        DataError: If both validation and test are given.
    """
    if num_folds and "val" in given and "test" in given:
        problem = "validation and test are given, so there is no fold to hold out"
        raise DataError(problem, option="num_folds", value=num_folds)
