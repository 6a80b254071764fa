"""What every data module shares: splits, batches, a resumable shuffle, and what was fitted."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from datamodules.errors import DataError
from datamodules.features import compute_features
from datamodules.sampler import Annotated, BatchSampler, Samples, Split
from datamodules.splits import class_weights, downsample, holdout, kfold
from datamodules.statistics import image_moments, moments

TaskName = Literal["regression", "binary", "multiclass", "next_token"]
Balance = Literal["none", "downsample", "weights"]
Stage = Literal["train", "val", "test"]

# What a run that is resumed must have in common with the one that was interrupted.
RESUMED = ("seed", "val_fraction", "test_fraction", "num_folds", "fold", "balance", "batch_size")
WITHIN_EPOCH = ("batch_size", "num_workers")  # what may change between two epochs
EVALUATION_BATCHES = 4  # how many training batches go into one of validation or test


class DataModule(LightningDataModule):
    """Base of all data modules whose samples fit in memory.

    A leaf gives `task`, `num_outputs`, `input_shape` and, for classification, `class_names`, all known before `setup`,
    and `load`; the base does the rest. A batch is `(x, y)`, encoded but not normalized: the model normalizes, by the
    `statistics` found here.

    Args:
        batch_size: Samples in a training batch, on each device. Validation and test, which keep nothing for a backward
            pass, take four times as many at once.
        val_fraction: Share of the training samples that is held out for validation; 0 for none.
        test_fraction: Share of all samples that is held out for the test, where the data have no test split of
            their own.
        balance: `downsample` keeps as many training samples of every class as the smallest class has; `weights` draws
            the classes equally often.
        num_folds: If not 0, cross-validation: the samples are dealt into this many folds, and `fold` is held out. It is
            the test split, or the validation split where the data have a test split of their own.
        fold: Which fold is held out, counted from 0.
        seed: Seed of the splits and of the order of the batches.
        num_workers: Processes that prepare batches; resident data need none.
    """

    task: TaskName
    num_outputs: int
    input_shape: tuple[int, ...]
    class_names: list[str] | None = None
    is_fitted_by_state = False  # whether a trained model can only be fed with what its checkpoint keeps of its data

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        balance: Balance = "none",
        num_folds: int = 0,
        fold: int = 0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        # Collected here for every leaf; not for the logger, where a name could clash with one of the model's.
        self.save_hyperparameters(logger=False)
        for name, value in {"val_fraction": val_fraction, "test_fraction": test_fraction}.items():
            if not 0 <= value < 1:
                raise DataError(f"--data.{name} {value}: give a share from 0 up to, but not including, 1.")
        if batch_size < 1:
            raise DataError(f"--data.batch_size {batch_size}: a batch has at least 1 sample.")
        if num_workers < 0:
            raise DataError(f"--data.num_workers {num_workers}: give a number of processes, 0 or more.")
        if num_folds and not (num_folds > 1 and 0 <= fold < num_folds):
            raise DataError(
                f"--data.fold {fold} of --data.num_folds {num_folds}: give 2 or more folds, counted from 0."
            )
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.balance = balance
        self.num_folds = num_folds
        self.fold = fold
        self.seed = seed
        self.num_workers = num_workers
        self._position = (0, 0)  # the epoch and the batch from which training goes on
        self._features: dict[Stage, Split] = {}  # what takes the place of the inputs in a fit
        self._annotated: Split | None = None  # the training split of a fit, with something more to each sample

    def load(self) -> dict[Stage, Samples]:
        """Read all samples: `train`, those to learn from, and `val` and `test` where the data have them apart."""
        raise NotImplementedError

    @property
    def tests_fold(self) -> bool:
        """Whether the fold that is held out is the test split, and not the validation split."""
        return "test" in self.splits and self.splits["test"].samples is self.splits["train"].samples

    @property
    def in_features(self) -> int:
        """How many numbers one input has."""
        return math.prod(self.input_shape)

    @cached_property
    def splits(self) -> dict[Stage, Split]:
        """The training, validation and test splits; one that is empty is left out."""
        return self.divide(self.load())

    def divide(self, given: dict[Stage, Samples]) -> dict[Stage, Split]:
        """Hold out of the training samples what was not given apart."""
        pool = given["train"]
        labels = pool.y if self.task != "regression" else None
        if self.balance != "none" and labels is None:
            raise DataError(f"--data.balance {self.balance}: only classes can be balanced, and this is a regression.")
        train, test = torch.arange(len(pool)), torch.arange(0)
        val = test
        if self.num_folds:
            self._check_fold(given.keys())
            if self.num_folds > len(pool):
                raise DataError(f"--data.num_folds {self.num_folds}: there are only {len(pool)} samples to divide.")
            train, held_out = self.hold_out_fold(labels, len(pool))
            val, test = (held_out, test) if "test" in given else (test, held_out)
        elif "test" not in given:
            train, test = self.hold_out(train, self.test_fraction, labels)
        if not len(val) and "val" not in given:
            train, val = self.hold_out(train, self.val_fraction, labels)
        if not len(train):
            raise DataError(f"{type(self).__name__}: no sample of {len(pool)} is left to train on; hold out less.")
        if self.balance == "downsample":
            train = downsample(train, pool.y[train], self.seed)
        found: dict[Stage, Split] = {"train": Split(pool, train), "val": Split(pool, val), "test": Split(pool, test)}
        for stage in given.keys() - {"train"}:
            found[stage] = Split(given[stage], torch.arange(len(given[stage])))
        return {stage: split for stage, split in found.items() if split.size}

    def _check_fold(self, given: Collection[str]) -> None:
        if self.num_folds and "val" in given and "test" in given:
            raise DataError("--data.num_folds: validation and test are given apart; there is no fold to hold out.")

    def hold_out(self, indices: Tensor, fraction: float, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hold out a fraction of some samples, `(n,)`: those that stay, and those held out.

        Args:
            indices: The samples to choose from.
            fraction: The share to hold out.
            labels: The class of every sample that there is, `(N,)`, if each is to give its share.
        """
        return holdout(indices, fraction, self.seed, None if labels is None else labels[indices])

    def hold_out_fold(self, labels: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """Divide `size` samples into folds and hold out the one asked for: those that stay, and those held out."""
        return self._pick_fold(kfold(size, self.num_folds, self.seed, labels))

    def _pick_fold(self, folds: list[Tensor]) -> tuple[Tensor, Tensor]:
        held_out = folds.pop(self.fold)
        return torch.cat(folds).sort().values, held_out

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation over the training split, float32.

        `mean` and `std` are those of the inputs: of each channel of images, shape `(C, 1, 1)` and in units of [0, 1],
        or of each column of a table, shape `(F,)`. For regression there are also `target_mean` and `target_std`, of
        the shape of one target. What does not vary has a standard deviation of 1.
        """
        samples, indices = self.splits["train"]
        x, y = samples[indices]
        mean, std = image_moments(x) if x.dtype == torch.uint8 else moments(x)
        found = {"mean": mean, "std": std}
        if self.task == "regression":
            found["target_mean"], found["target_std"] = moments(y)
        return found

    def setup(self, stage: str) -> None:
        """Load and divide the data; Lightning calls this on every process."""
        self._features, self._annotated = {}, None
        if self.trainer is not None and stage in ("fit", "validate") and not self.val_dataloader():
            # So that everyone who asks `trainer.enable_validation` hears the truth.
            self.trainer.limit_val_batches = 0

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # whatever NumPy can read: a row, an image, a list
        """Turn one raw input into what a batch holds of it.

        Args:
            raw: An array, list or image of the size of one input.

        Returns:
            A tensor of shape `input_shape`.

        Raises:
            DataError: If it is no numbers, or of another size.
        """
        try:
            x = torch.as_tensor(np.asarray(raw, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise DataError(f"{type(self).__name__}: an input must be numbers ({error}).") from error
        if x.numel() != self.in_features:
            raise DataError(f"{type(self).__name__}: an input has {self.in_features} numbers, not {x.numel()}.")
        if x.shape not in (self.input_shape, self.input_shape[1:], (self.in_features,)):
            raise DataError(f"{type(self).__name__}: an input is {self.input_shape}, not {tuple(x.shape)}.")
        return x.reshape(self.input_shape)

    def augment(self, x: Tensor) -> Tensor:
        """Vary a training batch at random, each sample in its own way, on the device where it is.

        Args:
            x: Inputs, shape `(B, *input_shape)`.

        Returns:
            Inputs of the same shape and type; here the very same.
        """
        return x

    @property
    def augments(self) -> bool:
        """Whether `augment` draws at random."""
        return False

    def precompute(self, extract: Callable[[Tensor], Tensor], views: int, device: torch.device) -> None:
        """Compute features once, and have this fit train and validate on them in the place of the inputs.

        Args:
            extract: From a batch of inputs on its device to features, `(B, F)`; it must not change in the fit.
            views: How many augmented versions of each training sample to take, if any augmenting is random; the
                epochs take them in turn.
            device: Where `extract` wants its batch.
        """
        for stage in self.splits.keys() - {"test"}:
            samples, indices = self.splits[stage]
            loader = self._make_loader(samples, indices.split(EVALUATION_BATCHES * self.batch_size))
            augment, times = (self.augment, views if self.augments else 1) if stage == "train" else (_as_it_is, 1)
            self._features[stage] = compute_features(loader, len(indices), extract, augment, times, self.seed, device)

    def annotate(self, extract: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Compute something of every training input once, and have this fit's training batches hold it as a third part.

        Nothing is done where inputs are augmented, which are others in every epoch, or do not stay in memory.

        Args:
            extract: From a batch of inputs on its device to what is wanted, `(B, F)`; it must not change in the fit.
            device: Where `extract` wants its batch.
        """
        split = self.splits["train"]
        if self.augments or not isinstance(split, Split):
            return
        samples, indices = split
        loader = self._make_loader(samples, indices.split(EVALUATION_BATCHES * self.batch_size))
        found = compute_features(loader, len(indices), extract, self.augment, 1, self.seed, device).samples.x
        more = found.new_zeros(len(samples), *found.shape[1:]).index_copy_(0, indices, found)
        self._annotated = Split(Annotated(samples, more), indices)

    def teardown(self, stage: str) -> None:
        """Let go of the features: after the fit a model may look at other things."""
        self._features, self._annotated = {}, None

    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Turn predictions into columns for a person to read.

        Args:
            outputs: What `predict_step` gives: probabilities, `(B, C)`, or of the second class, `(B,)`; or values,
                `(B,)` or `(B, K)`.

        Returns:
            `prediction` (the class name or the value) and, for classes, one `probability_<class>` each.
        """
        if self.class_names is None:
            return {"prediction": outputs.tolist()}
        table = torch.stack([1 - outputs, outputs], dim=1) if outputs.ndim == 1 else outputs
        # A model may have outputs for more classes than these data; they go by their numbers.
        names = [*self.class_names, *map(str, range(len(self.class_names), table.shape[1]))]
        columns = {f"probability_{name}": table[:, i].tolist() for i, name in enumerate(names)}
        return {"prediction": [names[i] for i in table.argmax(1).tolist()], **columns}

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """What names each predicted row, in their order, under the name of the column; here nothing does."""
        return {}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401  # Lightning's signature
        """Augment training batches, but no input on its own (Lightning sends a model's example), on the device."""
        if self.trainer is not None and self.trainer.training and not (isinstance(batch, Tensor) or self._features):
            x, *others = batch
            return self.augment(x), *others
        return batch

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training split in a new order every epoch, going on from where a checkpoint stopped."""
        loader = self._loader("train")[0]
        if self._overfits:
            return _with_fixed_order(loader)
        order: Any = loader.dataset if isinstance(loader.dataset, IterableDataset) else loader.sampler
        epoch, order.start = self._position
        order.set_epoch(epoch if self.trainer is None else max(epoch, self.trainer.current_epoch))
        self._position = (0, 0)
        return loader

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Batches of the validation split in their own order; an empty list where there is none.

        With `overfit_batches` they are those that are trained on.
        """
        return [_with_fixed_order(self._loader("train")[0])] if self._overfits else self._loader("val")

    @property
    def _overfits(self) -> bool:
        """Whether a fit is to see the same few batches in every epoch."""
        trainer: Any = self.trainer  # Lightning sets `overfit_batches` without a type
        return trainer is not None and trainer.state.fn == "fit" and trainer.overfit_batches > 0

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Batches of the test split in their own order; an empty list where there is none."""
        return self._loader("test")

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """What is predicted unless other data are given: the test split, or all training samples without one."""
        return self._loader("test") or self._loader("train", shuffle=False)

    def resumed_settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was interrupted, by the names of the options."""
        return {name: getattr(self, name) for name in RESUMED}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: which class this is, what was fitted, and the position in the epoch."""
        epoch, batch = self._position
        if self.trainer is not None and self.trainer.train_dataloader is not None:
            loop = self.trainer.fit_loop
            batch = loop.epoch_loop.batch_idx + 1
            # At the end of a run `current_epoch` is one more already, but before its first batch only that is known.
            epoch = loop.epoch_progress.current.ready - 1 if batch else self.trainer.current_epoch
            if batch >= self.trainer.num_training_batches:
                epoch, batch = epoch + 1, 0
        cls = type(self)
        return {
            "class_path": f"{cls.__module__}.{cls.__qualname__}",
            "class_names": self.class_names,
            "statistics": self.statistics,
            "settings": self.resumed_settings(),
            "epoch": epoch,
            "batch": batch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint kept.

        Raises:
            DataError: If training is to go on with another split, which would put what was held out into training, or
                within an epoch of other batches.
        """
        stage = None if self.trainer is None else self.trainer.state.fn
        if stage in ("fit", "validate", "test"):
            settings = self.resumed_settings()
            for name, value in state_dict["settings"].items():
                now = settings.get(name, value)
                if stage == "fit":
                    matters = name not in WITHIN_EPOCH or state_dict["batch"]
                else:
                    matters = name not in (*WITHIN_EPOCH, "balance")
                if now != value and matters:
                    what = "run is resumed with its own splits and batches"
                    if stage != "fit":
                        what = "model is tested with the splits it was trained with"
                    raise DataError(f"--data.{name} {now}: a {what}; it had {value}.")
        self.class_names = state_dict["class_names"]
        self.statistics = state_dict["statistics"]
        self._position = state_dict["epoch"], state_dict["batch"]

    def _loader(self, stage: Stage, shuffle: bool | None = None) -> list[DataLoader[Any]]:
        if stage not in self.splits:
            return []
        split = self._split(stage)
        samples, indices = split
        shuffle = stage == "train" if shuffle is None else shuffle
        weights = None
        if shuffle and self.balance == "weights":
            weights = class_weights(samples.y[indices])
        views = len(samples) // len(indices) if stage in self._features else 1
        # Without gradients there is room for more.
        batch_size = self.batch_size * (1 if stage == "train" else EVALUATION_BATCHES)
        lengths = self._lengths(split)
        sampler = BatchSampler(indices, batch_size, shuffle, self.seed, weights, views, lengths)
        return [self._make_loader(samples, sampler)]

    def _lengths(self, split: Split) -> Tensor | None:
        """Give the lengths of samples that are padded to each other's, shape `(n,)`: batches are of similar ones."""
        return None

    def _split(self, stage: Stage) -> Split:
        """Give what the loader of a stage goes through."""
        if stage == "train" and self._annotated is not None and not self._overfits:
            return self._annotated
        return self._features.get(stage, self.splits[stage])

    def _make_loader(
        self, dataset: Dataset[Any], sampler: Iterable[Tensor] | None = None, num_workers: int | None = None
    ) -> DataLoader[Any]:
        num_workers = self.num_workers if num_workers is None else num_workers
        return DataLoader(
            dataset=dataset,
            sampler=sampler,
            batch_size=None,  # the sampler, or the data set, makes whole batches
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # Its own generator, or each new iterator would take a number from the global one and no resumed run
            # could draw the same dropout again.
            generator=torch.Generator(),
        )


def _with_fixed_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of which every epoch is the first."""
    loader.sampler.is_fixed = True  # type: ignore[attr-defined]  # it is a BatchSampler
    return loader


def _as_it_is(x: Tensor) -> Tensor:
    return x
