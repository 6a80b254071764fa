"""Data of a user: a model is trained on some files, then tested and used on others."""

import math
import os
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datamodules.base import EVALUATION_BATCHES, DataModule, Stage
from datamodules.errors import DataError
from datamodules.sampler import BatchSampler, Inputs, Samples, Split


def physical_memory() -> float:
    """Return the bytes of memory of this machine; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Source:
    """Everything that a data module read from its files: each part once, lazily.

    What is read depends on the options of the data module and on what was fitted. Where a checkpoint changes the
    latter, a new source takes the place of this one.

    Args:
        data: The data module.
    """

    everything: Any  # the data set of all samples that have a target, in their order
    unlabeled: Any  # that of all samples, without their targets

    def __init__(self, data: Any) -> None:  # noqa: ANN401  # a leaf says which class it is
        self.data = data

    @cached_property
    def splits(self) -> dict[Stage, Any]:
        """The training, validation and test splits."""
        return cast("dict[Stage, Any]", self.data.divide(self.data.load()))


class UserDataModule(DataModule):
    """Base of data modules for user data, which tell by a hash whether a model was trained on it.

    `predict` takes all files at the path, and so does `test` if they are not what the model was trained on. A leaf
    defines `fingerprint` and `open_source`.

    Args:
        path: A file, folder or glob.
        cache_dir: Folder of cached tables, images and tokens; it can be deleted between runs.
        kwargs: Options of `DataModule`.
    """

    is_fitted_by_state = True

    def __init__(self, path: str = "", cache_dir: str = "~/.cache/kindling", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.cache_dir = cache_dir
        self._source: Source | None = None  # everything read from the files; None before that, or if it is outdated
        self._trained_on: str | None = None  # the fingerprint of what the model was trained on

    def open_source(self) -> Source:
        """Return a new source; nothing needs to be read yet."""
        return Source(self)

    @property
    def source(self) -> Any:  # noqa: ANN401  # a leaf says which class it is
        """Everything read from the files; opened when it is first asked for, and again after `_source = None`."""
        if self._source is None:
            self._source = self.open_source()
        return self._source

    @property
    def splits(self) -> dict[Stage, Any]:
        """The training, validation and test splits; an empty one is absent."""
        splits: dict[Stage, Any] = self.source.splits
        return splits

    @property
    def everything(self) -> Any:  # noqa: ANN401  # a data set
        """All samples that have a target, in their order."""
        return self.source.everything

    @property
    def unlabeled(self) -> Any:  # noqa: ANN401
        """All samples, without their targets, in their order."""
        return self.source.unlabeled

    @property
    def fingerprint(self) -> str:
        """The hash of the data at the path."""
        raise NotImplementedError

    @property
    def is_new(self) -> bool:
        """Whether a model was trained on other data than these."""
        return self._trained_on is not None and self._trained_on != self.fingerprint

    @property
    def detected_encoding(self) -> str | None:
        """The encoding of all text files, if it was detected and is not UTF-8; None as well if they differ."""
        return None

    def setup(self, stage: str) -> None:
        """Read and divide the data; before training, note their fingerprint and encoding."""
        if stage == "fit":
            self._trained_on = self.fingerprint
            if self.detected_encoding is not None:
                self.hparams["encoding"] = self.detected_encoding  # which a checkpoint keeps, as one that is given
        super().setup(stage)

    def _loader(self, stage: Stage, shuffle: bool | None = None) -> list[DataLoader[Any]]:
        if stage != "train" and self.is_new:
            return [self._in_order(self.everything)]
        return super()._loader(stage, shuffle)

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Return batches of all samples at the path, with or without a target, in their order or `prediction_order`."""
        return [self._in_order(self.unlabeled)]

    @property
    def prediction_order(self) -> Tensor | None:
        """The order in which rows are predicted, `(n,)`, if they are sorted by length; else None."""
        dataset = self.unlabeled
        sampler = self._sampler(dataset) if isinstance(dataset, Inputs) else None
        return None if sampler is None or sampler.lengths is None else torch.cat(list(sampler))

    def _in_order(self, dataset: Samples | Inputs | IterableDataset[Any]) -> DataLoader[Any]:
        if isinstance(dataset, IterableDataset):
            return self._make_loader(dataset, num_workers=0)  # several workers would mix the order
        return self._make_loader(dataset, self._sampler(dataset))

    def _sampler(self, dataset: Samples | Inputs) -> BatchSampler:
        order = torch.arange(len(dataset))
        trainer, lengths = self.trainer, None
        # Predictions that are returned instead of written are in the order of the rows.
        writes = trainer is not None and trainer.predicting and not trainer.predict_loop.return_predictions
        if writes or isinstance(dataset, Samples):
            lengths = self._lengths(Split(cast("Samples", dataset), order))  # only the inputs are used
        return BatchSampler(order, EVALUATION_BATCHES * self.batch_size, lengths=lengths)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, with the fingerprint of the training data."""
        return {**super().state_dict(), "trained_on": self._trained_on}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what was fitted, before anything is inferred from these data.

        Raises:
            DataError: As the base; or if a run that was interrupted within an epoch is resumed on other data.
        """
        fits = self.trainer is not None and self.trainer.state.fn == "fit"
        same = state_dict["trained_on"] == self.fingerprint
        # Other data are tested or predicted as a whole, so the settings of the splits do not matter.
        super().load_state_dict(state_dict if fits or same else {**state_dict, "settings": {}})
        if fits and state_dict["batch"] and not same:
            problem, option = "this run was interrupted within an epoch on other data", "path" if self.path else ""
            raise DataError(problem, "finish it there", option, self.path or None)
        # After a fit on these data, they are not new to validate or test on.
        self._trained_on = self.fingerprint if fits else state_dict["trained_on"]
