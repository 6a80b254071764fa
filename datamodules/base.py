"""The base of all data modules: splits, batches, a resumable shuffle, and fitted state."""

import math
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from datamodules.errors import DataError
from datamodules.features import EVALUATION_BATCHES as EVALUATION_BATCHES
from datamodules.features import AugmentingDataModule
from datamodules.predictions import as_frame, predict
from datamodules.sampler import BatchSampler, Samples, Split
from datamodules.splits import Holdout, class_weights, downsample
from datamodules.splits import Stage as Stage
from datamodules.statistics import image_moments, moments

TaskName = Literal["regression", "binary", "multiclass", "next_token"]
Balance = Literal["none", "downsample", "weights"]

# Options that a resumed run must share with the interrupted one.
RESUMED = ("seed", "val_fraction", "test_fraction", "num_folds", "fold", "balance", "batch_size", "drop_last")
WITHIN_EPOCH = ("batch_size", "num_workers", "drop_last")  # what may change between two epochs


class DataModule(AugmentingDataModule):
    """Base of all data modules whose samples fit in memory.

    A leaf defines `load`, and `task`, `num_outputs`, `input_shape` and, for classification, `class_names`, which are
    available before `setup`. A batch is `(x, y)`, encoded but not normalized: the model normalizes by `statistics`.

    Args:
        batch_size: Samples in a training batch, on each device. Validation and test, which need no memory for a
            backward pass, use four times as many.
        val_fraction: Share of the training samples that is held out for validation; 0 for none.
        test_fraction: Share of all samples that is held out for the test, unless the data have a test split.
        balance: `downsample` keeps as many training samples of every class as the smallest class has; `weights` draws
            the classes equally often.
        num_folds: If not 0, the number of folds of a cross-validation. One is held out as the test split, or as the
            validation split if the data have a test split.
        fold: Which fold is held out, counted from 0.
        seed: Seed of the splits and of the order of the batches.
        num_workers: Processes that prepare batches; data in memory need none.
        drop_last: Whether to leave out a last training batch that is not full. Which samples it would have had changes
            from epoch to epoch.
    """

    task: TaskName
    num_outputs: int
    input_shape: tuple[int, ...]
    class_names: list[str] | None = None
    is_fitted_by_state = False  # whether new data can only be encoded by the state in a checkpoint

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
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        # Of every leaf; not for the logger, where a name could clash with one of the model's.
        self.save_hyperparameters(logger=False)
        self.hparams.update({name: _primitive(value) for name, value in self.hparams.items()})
        for name, value in {"val_fraction": val_fraction, "test_fraction": test_fraction}.items():
            if not 0 <= value < 1:
                raise DataError("give a share from 0 up to, but not including, 1", option=name, value=value)
        if batch_size < 1:
            raise DataError("a batch has at least 1 sample", option="batch_size", value=batch_size)
        if num_workers < 0:
            raise DataError("give a number of processes, 0 or more", option="num_workers", value=num_workers)
        if num_folds < 0 or num_folds == 1:
            raise DataError("give 2 or more folds, or 0 for none", option="num_folds", value=num_folds)
        if num_folds and not 0 <= fold < num_folds:
            raise DataError(f"the folds are 0 to {num_folds - 1}", option="fold", value=fold)
        # NumPy's numbers, as of a loop over an array, become Python's: these are in the state too.
        self.batch_size = int(batch_size)
        self.val_fraction = float(val_fraction)
        self.test_fraction = float(test_fraction)
        self.balance = balance
        self.num_folds = int(num_folds)
        self.fold = int(fold)
        self.seed = int(seed)
        self.num_workers = int(num_workers)
        self.drop_last = bool(drop_last)
        self._position = (0, 0)  # the epoch and the batch at which training resumes
        self._given_frame: object = None

    def load(self) -> dict[Stage, Samples]:
        """Read all samples: `train`, to be divided, and `val` and `test` if the data have such splits."""
        raise NotImplementedError

    @property
    def fold_is_test(self) -> bool:
        """Whether the held-out fold is the test split, and not the validation split."""
        if "test" not in self.splits:
            return False
        train, test = (self.splits[stage].samples for stage in ("train", "test"))
        return train is test or getattr(train, "y", 0) is getattr(test, "y", 1)  # views of the same images

    @property
    def in_features(self) -> int:
        """Number of values of one input."""
        return math.prod(self.input_shape)

    @cached_property
    def splits(self) -> dict[Stage, Split]:
        """The training, validation and test splits; an empty one is absent."""
        return self.divide(self.load())

    @property
    def holdout(self) -> Holdout:
        """How samples are held out."""
        return Holdout(self.val_fraction, self.test_fraction, self.num_folds, self.fold, self.seed)

    def divide(self, given: dict[Stage, Samples]) -> dict[Stage, Split]:
        """Hold out validation and test samples, unless they are given.

        Raises:
            DataError: If no sample is left to train on, or the options do not fit the data.
        """
        pool = given["train"]
        labels = pool.y if self.task != "regression" else None
        if self.balance != "none" and labels is None:
            raise DataError("only classes can be balanced, and this is a regression", "", "balance", self.balance)
        indices = self.holdout.divide(len(pool), labels, given.keys())
        if not len(indices["train"]):
            raise DataError(f"{type(self).__name__}: no sample of {len(pool)} is left to train on", "hold out less")
        if self.balance == "downsample":
            indices["train"] = downsample(indices["train"], pool.y[indices["train"]], self.seed)
        splits = {stage: Split(pool, chosen) for stage, chosen in indices.items()}
        for stage in given.keys() - {"train"}:
            splits[stage] = Split(given[stage], torch.arange(len(given[stage])))
        return {stage: split for stage, split in splits.items() if split.size}

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation over the training split, float32.

        `mean` and `std` are of the inputs: of each channel of images, `(C, 1, 1)`, in units of [0, 1], or of each
        column of a table, `(F,)`. A regression also has `target_mean` and `target_std`, in the shape of one target. The
        deviation of a constant is 1.
        """
        x, y = self.splits["train"][:]
        mean, std = image_moments(x) if x.dtype == torch.uint8 or x.ndim == 4 else moments(x)
        found = {"mean": mean, "std": std}
        if self.task == "regression":
            found["target_mean"], found["target_std"] = moments(y)
        return found

    def setup(self, stage: str) -> None:
        """Load and divide the data; Lightning calls this in every process."""
        super().setup(stage)
        if self.trainer is not None and stage in ("fit", "validate") and not self.val_dataloader():
            self.trainer.limit_val_batches = 0  # so that `trainer.enable_validation` is right

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # whatever NumPy can read: a row, an image, a list
        """Encode one raw input, an array, list or image, as in a batch: a tensor of shape `input_shape`.

        Raises:
            DataError: If it is not numeric, or has another size.
        """
        return self._to_tensor(raw, self.input_shape)

    def _to_tensor(self, raw: Any, shape: tuple[int, ...]) -> Tensor:  # noqa: ANN401
        size = math.prod(shape)
        try:
            x = torch.as_tensor(np.asarray(raw, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise DataError(f"{type(self).__name__}: an input must be numbers ({error})") from error
        if x.numel() != size:
            raise DataError(f"{type(self).__name__}: an input has {size} numbers, not {x.numel()}")
        if x.shape not in (shape, shape[1:], (size,)):
            raise DataError(f"{type(self).__name__}: an input is {shape}, not {tuple(x.shape)}")
        return x.reshape(shape)

    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Decode predictions into readable columns.

        Args:
            outputs: As returned by `predict_step`: probabilities, `(B, C)`, or of the second class, `(B,)`; or values,
                `(B,)` or `(B, K)`.

        Returns:
            `prediction` (the class name or the value) and, for classes, one `probability_<class>` each.
        """
        if self.class_names is None:
            return {"prediction": outputs.tolist()}
        table = torch.stack([1 - outputs, outputs], dim=1) if outputs.ndim == 1 else outputs
        # A model may have outputs for more classes than these data; they are named by their numbers.
        names = [*self.class_names, *map(str, range(len(self.class_names), table.shape[1]))]
        columns = {f"probability_{name}": table[:, i].tolist() for i, name in enumerate(names)}
        return {"prediction": [names[i] for i in table.argmax(1).tolist()], **columns}

    def groups(self, stage: Stage) -> Tensor | None:
        """Return the group of each sample of a stage, `(N,)`, integers, where groups are held out whole; else None."""
        return None

    def predictions(self, model: nn.Module) -> Any:  # noqa: ANN401  # a frame of an optional library
        """Return the predictions of a model of what `predict` predicts, as a data frame, in the order of the rows.

        Args:
            model: A trained model.

        Returns:
            The key of each row, if it has one, its prediction and, for classes, their probabilities: a DataFrame of
            polars if the data are one, else of pandas (with the index of the data, if they are a DataFrame), or a dict
            of columns where pandas is not installed.
        """
        return as_frame(predict(self, model), self._given_frame)

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """Return the key columns of the predicted rows, in their order; without keys, none."""
        return {}

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of the training split, in a new order every epoch, from the position of a checkpoint on.

        Raises:
            DataError: If the split is smaller than a batch, and the last batch is left out.
        """
        loader = self._loader("train")[0]
        order: Any = loader.dataset if isinstance(loader.dataset, IterableDataset) else loader.sampler
        if not len(order):
            problem = f"{order.num_samples:,} training samples do not fill a batch of {self.batch_size}"
            raise DataError(problem, "give a smaller `batch_size`, or `drop_last=False`", "drop_last", True)
        if self._overfits:
            return _with_fixed_order(loader)
        epoch, order.start = self._position
        order.set_epoch(epoch if self.trainer is None else max(epoch, self.trainer.current_epoch))
        self._position = (0, 0)
        return loader

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return batches of the validation split, or those of `overfit_batches`; an empty list if there is none."""
        return [_with_fixed_order(self._loader("train")[0])] if self._overfits else self._loader("val")

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Return batches of the test split in its own order; an empty list if there is none."""
        return self._loader("test")

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Return batches of the test split, or of all training samples if there is none."""
        return self._loader("test") or self._loader("train", shuffle=False)

    def resumed_settings(self) -> dict[str, Any]:
        """Return the options that a resumed run must share with the interrupted one."""
        return {name: getattr(self, name) for name in RESUMED}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: the class, what was fitted, and the position in the epoch."""
        epoch, batch = self._position
        if self.trainer is not None and self.trainer.train_dataloader is not None:
            loop = self.trainer.fit_loop
            batch = loop.epoch_loop.batch_idx + 1
            # At the end of a run `current_epoch` is already incremented; before the first batch only it is known.
            epoch = loop.epoch_progress.current.ready - 1 if batch else self.trainer.current_epoch
            if batch >= self.trainer.num_training_batches:
                epoch, batch = epoch + 1, 0
        cls, package = type(self), type(self).__module__.partition(".")[0]
        is_public = getattr(sys.modules[package], cls.__name__, None) is cls  # so that modules can move
        return {
            "class_path": f"{package if is_public else cls.__module__}.{cls.__qualname__}",
            "class_names": self.class_names,
            "statistics": self.statistics,
            "settings": self.resumed_settings(),
            "epoch": epoch,
            "batch": batch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a checkpoint.

        Raises:
            DataError: If training would resume with another split, which would train on held-out samples, or within an
                epoch of other batches.
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
                    raise DataError(f"a {what}", f"it had {value}", name, now)
        self.class_names = state_dict["class_names"]
        self.statistics = state_dict["statistics"]
        self._position = state_dict["epoch"], state_dict["batch"]

    def _loader(self, stage: Stage, shuffle: bool | None = None) -> list[DataLoader[Any]]:
        if stage not in self.splits:
            return []
        split: Any = self._split(stage)
        if isinstance(split, IterableDataset):  # makes its own batches
            return [self._make_loader(split)]
        samples, indices = split.samples, split.indices
        shuffle = stage == "train" if shuffle is None else shuffle
        weights = class_weights(samples.y[indices]) if shuffle and self.balance == "weights" else None
        views = len(samples) // len(indices) if stage in self._features else 1
        batch_size = self.batch_size * (1 if stage == "train" else EVALUATION_BATCHES)
        options = (shuffle, self.seed, weights, views, self._lengths(split))
        sampler = BatchSampler(indices, batch_size, *options, drop_last=self.drop_last and stage == "train" and shuffle)
        return [self._make_loader(samples, sampler)]

    def _lengths(self, split: Split) -> Tensor | None:
        """Return the lengths of samples that are padded, shape `(n,)`, for batches of similar ones; else None."""
        return None

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
            generator=torch.Generator(),  # its own, or iterators would draw from the global one, as dropout does
        )


def _primitive(value: Any) -> Any:  # noqa: ANN401  # whatever an argument may be
    """Return a hyperparameter as a checkpoint can keep it: a path as text, arrays and their numbers as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _with_fixed_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    loader.sampler.is_fixed = True  # type: ignore[attr-defined]  # it is a BatchSampler
    return loader
