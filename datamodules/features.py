"""Augmentation of training batches, and features of a frozen network, computed once, in place of inputs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datamodules.sampler import Annotated, Samples, Split
from datamodules.splits import Stage

Change = Callable[[Tensor], Tensor]

EVALUATION_BATCHES = 4  # size of a validation or test batch, in training batches


class AugmentingDataModule(LightningDataModule):
    """Base of data modules whose training batches are augmented, or replaced by features, in a fit."""

    batch_size: int
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self._features: dict[Stage, Split] = {}  # what replaces the inputs in a fit
        self._annotated: Split | None = None  # the training split of a fit, with a third part

    @property
    def splits(self) -> dict[Stage, Any]:
        """The training, validation and test splits; an empty one is absent."""
        raise NotImplementedError

    def _make_loader(
        self, dataset: Dataset[Any], sampler: Iterable[Tensor] | None = None, num_workers: int | None = None
    ) -> DataLoader[Any]:
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Discard the features of an earlier fit."""
        self._features, self._annotated = {}, None

    def teardown(self, stage: str) -> None:
        """Free the features of this fit."""
        self._features, self._annotated = {}, None

    def augment(self, x: Tensor) -> Tensor:
        """Augment a training batch, `(B, *input_shape)`, at random, each sample in its own way; here: unchanged."""
        return x

    @property
    def augments(self) -> bool:
        """Whether `augment` is random."""
        return False

    @property
    def _overfits(self) -> bool:
        """Whether a fit is to see the same few batches in every epoch."""
        trainer: Any = self.trainer  # Lightning sets `overfit_batches` without a type
        return trainer is not None and trainer.state.fn == "fit" and trainer.overfit_batches > 0

    @property
    def _raw_train(self) -> Any:  # noqa: ANN401  # a split, or a stream
        """The training split as `augment` takes it."""
        return self.splits["train"]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401  # Lightning's signature
        """Augment training batches on the device, but not a lone input (Lightning passes a model's example)."""
        as_it_is = isinstance(batch, Tensor) or self._features or self._overfits
        if self.trainer is not None and self.trainer.training and not as_it_is:
            x, *others = batch
            return self.augment(x), *others
        return batch

    def precompute(self, extract: Change, views: int, device: torch.device) -> None:
        """Compute features once, and use them in place of the inputs in this fit.

        Args:
            extract: Maps a batch of inputs on its device to features, `(B, F)`; it must not change in the fit.
            views: How many augmented versions of each training sample to compute, if `augment` is random; epochs cycle
                through them.
            device: The device of `extract`.
        """
        for stage in self.splits.keys() - {"test"}:
            split, augment, times = self.splits[stage], _identity, 1
            if stage == "train" and not self._overfits:
                split, augment, times = self._raw_train, self.augment, views if self.augments else 1
            self._features[stage] = self._compute(split, extract, augment, times, device)

    def annotate(self, extract: Change, device: torch.device) -> None:
        """Compute something of every training input once, and add it to this fit's training batches as a third part.

        Nothing is done where inputs are augmented, and differ in every epoch, or are streamed, or a fit overfits.

        Args:
            extract: Maps a batch of inputs on its device to the third part, `(B, F)`; it must not change in the fit.
            device: The device of `extract`.
        """
        split = self._raw_train
        if self.augments or self._overfits or not isinstance(split, Split):
            return
        found = self._compute(split, extract, self.augment, 1, device).samples.x
        more = found.new_zeros(len(split.samples), *found.shape[1:]).index_copy_(0, split.indices, found)
        self._annotated = Split(Annotated(split.samples, more), split.indices)

    def _compute(self, split: Split, extract: Change, augment: Change, views: int, device: torch.device) -> Split:
        """Return samples of all features, all first versions before all second ones, and the indices of the first."""
        batches = self._make_loader(split.samples, split.indices.split(EVALUATION_BATCHES * self.batch_size))
        found: Tensor | None = None
        targets, start = [], 0
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # `disable=None`: no progress bar in a file.
            progress = tqdm(batches, "computing features", unit=" batches", disable=None, leave=False)
            for number, (x, y) in enumerate(progress):
                x = x.to(device)
                for view in range(views):
                    # Seeded by batch and version, so that a resumed run gets the same features.
                    torch.manual_seed((self.seed * 2**20 + number) * 2**10 + view)
                    features = extract(augment(x)).float().cpu()
                    if found is None:
                        found = torch.empty(views, split.size, *features.shape[1:])
                    found[view, start : start + len(y)] = features
                targets.append(y)
                start += len(y)
        assert found is not None
        return Split(Samples(found.flatten(0, 1), torch.cat(targets * views)), torch.arange(split.size))

    def _split(self, stage: Stage) -> Split:
        """Return what the loader of a stage loads: the split, or what replaces it in this fit."""
        if stage == "train" and self._annotated is not None:
            return self._annotated
        split: Split = self._features.get(stage) or self.splits[stage]
        return split


def _identity(x: Tensor) -> Tensor:
    return x
