"""Pictures of one's own: from files, however they look inside, to batches."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.base import Stage, TaskName
from datamodules.errors import DataError, listed
from datamodules.images.decoded import CacheMode, Decoded, Decoder, Pictures, Transformed, decode_all
from datamodules.images.decoding import ImageError, Interpolation, open_picture, to_square
from datamodules.images.transforms import Config, build, is_random, transform_batch
from datamodules.sampler import Inputs, Samples, Split
from datamodules.statistics import image_moments
from datamodules.user_data import UserDataModule, available_cores, physical_memory, say

# How data that are divided by hand call their parts.
STAGES: dict[str, Stage] = {
    **{"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean and standard deviation, as torchvision has them
SAMPLE = 2_000  # training pictures at most, by which the statistics are fitted


class Found(NamedTuple):
    """Pictures, and of each the part it was put into and its class, None where there is none."""

    pictures: Pictures
    stages: list[Stage | None]
    labels: list[str | None]


class UserImageDataModule(UserDataModule):
    """Base of data modules for pictures of one's own. A leaf gives `find`.

    Every picture is decoded once, to upright RGB; its shorter side is resized to `resize_size` pixels and the middle
    cut out. From these squares, training takes what `train_transforms` make of them, a new draw for every picture of a
    batch, on the batch's device; everything else takes what `eval_transforms` make. A batch is uint8,
    `(B, 3, image_size, image_size)`.

    Transforms are classes of `torchvision.transforms.v2`, by name or as `class_path` and `init_args`, or any other
    `Transform` by its import path. `Normalize` is none of them: the model does that, by what `normalize` says.

    Args:
        path: Where the pictures are. `predict` predicts all of them; `test` tests all of them if they are not what the
            model was trained on.
        image_size: Height and width of what a model gets, in pixels.
        resize_size: Height and width of the squares that pictures are kept in; by default `image_size` and a seventh.
        interpolation: How pixels are weighed in resizing.
        train_transforms: From squares to a training batch; by default a random resized crop of 35 to 100 % of the area
            and a random horizontal flip. An empty list trains on what is evaluated on.
        eval_transforms: From squares to a batch of validation, test or prediction; by default the middle.
        normalize: Mean and standard deviation of each channel: `fitted` on (at most 2,000 of) the training pictures,
            `imagenet`, or given as `[[r, g, b], [r, g, b]]` in units of [0, 1]. By default they are fitted, and give
            way to those of a model's weights.
        cache: Where the squares are kept: on the `disk` (memory-mapped), in `memory`, or `none`: worker processes
            decode them anew in every epoch. `auto` is the first of these for which there is room; what is only
            predicted is never put on the disk.
        on_bad_image: Whether one that cannot be decoded is an `error`, or left out and named (`skip`).
        batch_size: Pictures in a training batch.
        num_workers: Processes that prepare batches; by default one for each core where nothing is cached, else none.
        kwargs: Options of `UserDataModule` and `DataModule`.

    Raises:
        DataError: If there are no such pictures or classes, one cannot be decoded, or a transform is impossible.
    """

    def __init__(
        self,
        path: str = "",
        image_size: int = 224,
        resize_size: int | None = None,
        interpolation: Interpolation = "bilinear",
        train_transforms: Sequence[Config] | None = None,
        eval_transforms: Sequence[Config] | None = None,
        normalize: Literal["fitted", "imagenet"] | list[list[float]] | None = None,
        cache: CacheMode = "auto",
        on_bad_image: Literal["error", "skip"] = "error",
        batch_size: int = 32,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, batch_size=batch_size, num_workers=num_workers or 0, **kwargs)
        self.image_size = image_size
        self.resize_size = round(image_size * 8 / 7) if resize_size is None else resize_size
        for name, size in {"image_size": image_size, "resize_size": self.resize_size}.items():
            if size < 1:
                raise DataError(f"--data.{name} {size}: give a number of pixels, 1 or more.")
        if eval_transforms is None and self.resize_size < image_size:
            raise DataError(
                f"--data.resize_size {resize_size}: the middle of --data.image_size {image_size} is cut out of it; "
                "give no less than that."
            )
        self.interpolation = interpolation
        self.normalize = normalize
        self.cache = cache
        self.on_bad_image = on_bad_image
        self._choose_workers = num_workers is None
        crop: Config = {"class_path": "CenterCrop", "init_args": {"size": image_size}}
        random_crop: Config = {
            "class_path": "RandomResizedCrop",
            "init_args": {"size": image_size, "scale": [0.35, 1.0], "interpolation": interpolation},
        }
        self._evaluating = build([crop] if eval_transforms is None else eval_transforms, "--data.eval_transforms")
        self._training = self._evaluating
        if train_transforms is None:
            self._training = build([random_crop, "RandomHorizontalFlip"], "--data.train_transforms")
        elif train_transforms:
            self._training = build(train_transforms, "--data.train_transforms")
        self._check_shapes()
        if normalize not in (None, "fitted"):
            _ = self.statistics  # bad ones are found at once

    def _check_shapes(self) -> None:
        white = torch.full((2, 3, self.resize_size, self.resize_size), 255, dtype=torch.uint8)
        shapes = {}
        with torch.random.fork_rng(devices=[]):  # a look takes no random numbers away
            for name, chain in {"train": self._training, "eval": self._evaluating}.items():
                x = transform_batch(chain, white)
                shapes[name] = tuple(x.shape[1:])
                if x.is_floating_point() and x.max() > 1:
                    raise DataError(
                        f"--data.{name}_transforms: they leave floating-point numbers that are not from 0 to 1; "
                        "ToDtype wants scale: true."
                    )
        if shapes["train"] != shapes["eval"]:
            raise DataError(
                f"--data.train_transforms: they give {shapes['train']}, but --data.eval_transforms give "
                f"{shapes['eval']}; end both with a crop or a resize to one size."
            )
        self.input_shape = shapes["eval"]

    # What the data determine

    @abstractmethod
    def find(self) -> Found:
        """Find all pictures at the path, in an order that stays."""

    @cached_property
    def _found(self) -> Found:
        return self.find()

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]  # found when it is asked for
        """The classes of the pictures to learn from, sorted."""
        names = {
            label
            for stage, label in zip(self._found.stages, self._found.labels, strict=True)
            if label is not None and stage in (None, "train")
        }
        if len(names) < 2:
            what = f"only the class {names.pop()!r}" if names else "no class to train on"
            raise DataError(f"--data.path {self.path}: there is {what}; {self.how_classes_are_given}")
        return sorted(names)

    how_classes_are_given = "put the pictures of each class into a folder of its own."

    @property
    def task(self) -> TaskName:  # type: ignore[override]
        """Binary if there are two classes, else multiclass."""
        return "binary" if len(self.class_names) == 2 else "multiclass"

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """One score for two classes, else one for each."""
        return 1 if self.task == "binary" else len(self.class_names)

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._found.pictures, self.resize_size, self.interpolation)

    @cached_property
    def fingerprint(self) -> str:
        """What the pictures, their parts and their classes hash to."""
        return hashlib.sha256(repr((self._decoder.fingerprint, *self._found[1:])).encode()).hexdigest()

    # From pictures to batches

    def prepare_data(self) -> None:
        """Decode what has not been yet; Lightning calls this on one process only."""
        _ = self._decoded

    @cached_property
    def _decoded(self) -> Decoded:
        cache: CacheMode = self.cache
        if cache == "auto" and self.is_new:  # what is only predicted, or tested once, is not worth a file
            cache = "memory" if len(self._decoder) * 3 * self.resize_size**2 < physical_memory() / 4 else "none"
        name = Path(self.path).resolve().name or "pictures"
        decoded = decode_all(
            self._decoder, cache, Path(self.cache_dir).expanduser(), name, stop=self.on_bad_image == "error"
        )
        if decoded.bad:
            say(f"{len(decoded.bad):,} of {len(self._decoder):,} pictures are bad, and left out:")
            for number, why in decoded.bad.items():
                say(f"  {self._found.pictures.names[number]}: {why}")
        if len(decoded.bad) == len(self._decoder):
            raise DataError(f"--data.path {self.path}: there is no good picture in it.")
        return decoded

    def _good(self) -> list[int]:
        return [number for number in range(len(self._decoder)) if number not in self._decoded.bad]

    def _samples(self, numbers: Sequence[int]) -> Samples:
        """Give some pictures with their classes, as squares."""
        known = {name: index for index, name in enumerate(self.class_names)}
        labels = [str(self._found.labels[number]) for number in numbers]
        for number, label in zip(numbers, labels, strict=True):
            if label not in known:
                raise DataError(
                    f"--data.path {self.path}: {self._found.pictures.names[number]} is of class {label!r}, which is "
                    f"none of those that are trained on ({listed(self.class_names, 8)}); take it away, or train anew."
                )
        y = torch.tensor([known[label] for label in labels], dtype=torch.long)
        return Samples(Transformed(self._decoded.squares, torch.tensor(numbers, dtype=torch.long)), y)

    def load(self) -> dict[Stage, Samples]:
        """Decode the pictures, and sort them into the parts that they are divided into by hand."""
        _ = self.class_names  # that there are none is said before any picture is decoded
        parts: dict[Stage, list[int]] = {}
        for number in self._good():
            if self._found.labels[number] is not None:
                parts.setdefault(self._found.stages[number] or "train", []).append(number)
        if "val" in parts and not self.num_folds:
            parts.setdefault("test", [])  # who divides by hand wants to train on all of `train`
        given = {stage: self._samples(numbers) for stage, numbers in parts.items()}
        if "train" not in given:
            raise DataError(f"--data.path {self.path}: there is no good picture to train on.")
        return given

    def _counts(self, y: Tensor) -> list[int]:
        counts: list[int] = y.bincount(minlength=len(self.class_names)).tolist()
        return counts

    def divide(self, given: dict[Stage, Samples]) -> dict[Stage, Split]:
        """Hold out what was not given apart, and evaluate on what the transforms of evaluation make of it."""
        splits = super().divide(given)
        for stage in splits.keys() - {"train"}:
            samples, indices = splits[stage]
            splits[stage] = Split(self._with(self._evaluating, samples), indices)
        return splits

    def _split(self, stage: Stage) -> Split:
        split = super()._split(stage)
        if stage == "train" and self.trainer is None:  # nobody else would make a batch of the squares
            return Split(self._with(self._training, split.samples), split.indices)
        return split

    def _with(self, transforms: Sequence[Any], samples: Samples) -> Samples:
        return Samples(Transformed(samples.x.squares, samples.x.rows, transforms), samples.y)

    @property
    def tests_fold(self) -> bool:
        """Whether the fold that is held out is the test split, and not the validation split."""
        return "test" in self.splits and self.splits["test"].samples.y is self.splits["train"].samples.y

    @cached_property
    def everything(self) -> Samples:
        """All good pictures that have a class, as they are evaluated."""
        say(f"{self.path} is not what the model was trained on: all of its pictures are used")
        numbers = [number for number in self._good() if self._found.labels[number] is not None]
        if not numbers:
            raise DataError(f"--data.path {self.path}: no picture has a class; {self.how_classes_are_given}")
        return self._with(self._evaluating, self._samples(numbers))

    @cached_property
    def unlabeled(self) -> Inputs:
        """All good pictures, as they are evaluated."""
        return Inputs(Transformed(self._decoded.squares, torch.tensor(self._good()), self._evaluating))

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """The name of every predicted picture."""
        return {"file": (self._found.pictures.names[number] for number in self._good())}

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of each channel, `(C, 1, 1)`, in units of [0, 1]."""
        if self.normalize in (None, "fitted"):
            samples, indices = self.splits["train"]
            order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(self.seed))
            x, _ = self._with(self._evaluating, samples)[indices[order[:SAMPLE]].sort().values]
            mean, std = image_moments(x)
            return {"mean": mean, "std": std}
        given = IMAGENET if self.normalize == "imagenet" else self.normalize
        try:
            values = np.asarray(given, dtype=np.float32)
        except ValueError:  # lists of different lengths
            values = np.zeros(0, np.float32)
        channels = self.input_shape[0]
        if values.shape != (2, channels) or not (np.isfinite(values).all() and (values[1] > 0).all()):
            raise DataError(
                f"--data.normalize {given}: give fitted, imagenet, or the means and the standard deviations of the "
                f"channels, {[[0.5] * channels, [0.25] * channels]}."
            )
        mean, std = torch.from_numpy(values).view(2, channels, 1, 1).unbind()
        return {"mean": mean, "std": std}

    def setup(self, stage: str) -> None:
        """Decode and divide the pictures, and say before training what they are."""
        super().setup(stage)
        if stage == "fit":
            counts = self._counts(self.splits["train"].samples.y[self.splits["train"].indices])
            shares = [f"{name} ({count:,})" for name, count in zip(self.class_names, counts, strict=True)]
            say(f"pictures to train on: {listed(shares, 10)}")
            unlabeled = self._found.labels.count(None)
            if unlabeled:
                say(f"pictures without a class, which are left out: {unlabeled:,}")

    @property
    def augments(self) -> bool:
        """Whether the transforms of training draw at random."""
        return is_random(self._training)

    def augment(self, x: Tensor) -> Tensor:
        """Make a training batch of squares, `(B, 3, resize_size, resize_size)`, each with its own draw."""
        return transform_batch(self._training, x)

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # whatever holds a picture
        """Turn one picture into what a batch of evaluation holds of it.

        Args:
            raw: A path, the bytes of a file, a PIL image, or an array: uint8 `(H, W)`, `(H, W, C)` or `(C, H, W)`. One
                of shape `input_shape` is taken to be encoded already.

        Returns:
            Shape `input_shape`.

        Raises:
            DataError: If it is no picture.
        """
        if isinstance(raw, (Tensor, np.ndarray)) and tuple(raw.shape) == self.input_shape:
            return torch.as_tensor(raw)
        try:
            square = to_square(open_picture(raw), self.resize_size, self.interpolation)
        except ImageError as error:
            what = f"{raw}: " if isinstance(raw, (str, Path)) else ""
            raise DataError(f"{type(self).__name__}: {what}{error}.") from error
        return transform_batch(self._evaluating, torch.from_numpy(square)[None])[0]

    def _make_loader(
        self, dataset: Dataset[Any], sampler: Iterable[Tensor] | None = None, num_workers: int | None = None
    ) -> DataLoader[Any]:
        if num_workers is None and self._choose_workers and isinstance(self._decoded.squares, Decoder):
            num_workers = available_cores()
        return super()._make_loader(dataset, sampler, num_workers)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the classes before anything is inferred from these pictures."""
        if self.__dict__.get("class_names") != state_dict["class_names"]:
            self.__dict__.pop("everything", None)
            self._source = None
        super().load_state_dict(state_dict)
