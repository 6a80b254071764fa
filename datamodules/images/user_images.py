"""Images from the user's files, whatever their formats, to batches."""

import hashlib
import logging
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
from datamodules.images.base import ImageDataModule, Transformed
from datamodules.images.decoded import CacheMode, Decoded, Decoder, EncodedImages, decode_all
from datamodules.images.decoding import ImageError, Interpolation, open_image, resize_and_crop
from datamodules.sampler import Inputs, Samples
from datamodules.user_data import Source, UserDataModule, available_cores, physical_memory

logger = logging.getLogger(__name__)

# What folders and data sets call their splits.
STAGES: dict[str, Stage] = {
    **{"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}


class Found(NamedTuple):
    """Images, with the split and the class of each, None where there is none."""

    images: EncodedImages
    stages: list[Stage | None]
    labels: list[str | None]


class ImageSource(Source):
    """The images at a path, with their labels, and decoded."""

    data: "UserImageDataModule"

    @cached_property
    def found(self) -> Found:
        """All images, in their order."""
        return self.data.find()

    @cached_property
    def decoder(self) -> Decoder:
        """The images, decoded when they are asked for."""
        return Decoder(self.found.images, self.data.resize_size, self.data.interpolation)

    @cached_property
    def decoded(self) -> Decoded:
        """All images, decoded and kept where the option `cache` says; and which of them are bad."""
        data, count = self.data, len(self.decoder)
        cache: CacheMode = data.cache
        if cache == "auto" and data.is_new:  # what is only predicted, or tested once, is not worth a file
            cache = "memory" if count * 3 * data.resize_size**2 < physical_memory() / 4 else "none"
        name, folder = Path(data.path).resolve().name or "images", Path(data.cache_dir).expanduser()
        decoded = decode_all(self.decoder, cache, folder, name, stop=data.on_bad_image == "error")
        if decoded.bad:
            logger.warning(f"{len(decoded.bad):,} of {count:,} images are bad, and dropped:")
            for number, why in decoded.bad.items():
                logger.warning(f"  {self.found.images.names[number]}: {why}")
        if len(decoded.bad) == count:
            raise DataError("there is no good image in it", option="path", value=data.path)
        return decoded

    @property
    def good(self) -> list[int]:
        """The numbers of the images that are not bad."""
        return [number for number in range(len(self.decoder)) if number not in self.decoded.bad]

    def samples(self, numbers: Sequence[int]) -> Samples:
        """Return decoded images by their numbers; raise a `DataError` for one of an unknown class."""
        names = self.data.class_names
        known = {name: index for index, name in enumerate(names)}
        labels = [str(self.found.labels[number]) for number in numbers]
        for number, label in zip(numbers, labels, strict=True):
            if label not in known:
                why = f"of class {label!r}, which is none of those that are trained on ({listed(names, 8)})"
                problem = f"{self.found.images.names[number]} is {why}"
                raise DataError(problem, "remove it, or train again", "path", self.data.path)
        y = torch.tensor([known[label] for label in labels], dtype=torch.long)
        return Samples(Transformed(self.decoded.images, torch.tensor(numbers, dtype=torch.long)), y)

    @cached_property
    def everything(self) -> Samples:
        """All good images that have a class, as they are evaluated."""
        logger.info(f"{self.data.path} is not what the model was trained on: all of its images are used")
        numbers = [number for number in self.good if self.found.labels[number] is not None]
        if not numbers:
            raise DataError("no image has a class", self.data.class_hint, "path", self.data.path)
        return self.data.evaluated(self.samples(numbers))

    @cached_property
    def unlabeled(self) -> Inputs:
        """All good images, as they are evaluated."""
        return Inputs(Transformed(self.decoded.images, torch.tensor(self.good), self.data.eval_transforms))


class UserImageDataModule(UserDataModule, ImageDataModule):
    """Base of data modules for the user's images. A leaf defines `find`.

    Every image is decoded once, to upright RGB; its shorter side is resized to `resize_size` pixels and the center
    cropped. Transforms start from there: by default, training takes a random resized crop of 35 to 100 % of the area
    and a random horizontal flip, and evaluation the center. A batch is uint8, `(B, 3, image_size, image_size)`.

    Args:
        path: Where the images are. `predict` predicts all of them; `test` tests all of them if they are not what the
            model was trained on.
        image_size: Height and width of a model's input, in pixels.
        resize_size: Height and width of the decoded images; by default 8/7 of `image_size`.
        interpolation: How pixels are weighted in resizing.
        cache: Where decoded images are kept: on the `disk` (memory-mapped), in `memory`, or `none`: worker processes
            decode them again in every epoch. `auto` is the first of these for which there is room; what is only
            predicted is never written to the disk.
        on_bad_image: Whether an image that cannot be decoded is an `error`, or dropped and named (`skip`).
        batch_size: Images in a training batch.
        num_workers: Processes that prepare batches; by default one for each core where nothing is cached, else none.
        kwargs: Options of `UserDataModule`, `ImageDataModule` and `DataModule`.

    Raises:
        DataError: If there are no such images or classes, one cannot be decoded, or a transform is invalid.
    """

    source: ImageSource
    class_hint = "put the images of each class into a folder of its own"  # remedy where there are too few classes

    def __init__(
        self,
        path: str = "",
        image_size: int = 224,
        resize_size: int | None = None,
        interpolation: Interpolation = "bilinear",
        cache: CacheMode = "auto",
        on_bad_image: Literal["error", "skip"] = "error",
        batch_size: int = 32,
        num_workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.resize_size = round(image_size * 8 / 7) if resize_size is None else resize_size
        for name, size in {"image_size": image_size, "resize_size": self.resize_size}.items():
            if size < 1:
                raise DataError("give a number of pixels, 1 or more", option=name, value=size)
        if kwargs.get("eval_transforms") is None and self.resize_size < image_size:
            problem = f"the center of `image_size={image_size}` is cropped out of it"
            raise DataError(problem, "give no less than that", "resize_size", resize_size)
        self.input_shape = (3, self.resize_size, self.resize_size)
        self.default_eval_transforms = [{"class_path": "CenterCrop", "init_args": {"size": image_size}}]
        args = {"size": image_size, "scale": [0.35, 1.0], "interpolation": interpolation}
        self.default_train_transforms = [{"class_path": "RandomResizedCrop", "init_args": args}, "RandomHorizontalFlip"]
        self.interpolation = interpolation
        self.cache = cache
        self.on_bad_image = on_bad_image
        super().__init__(path, batch_size=batch_size, num_workers=num_workers or 0, **kwargs)
        self._choose_workers = num_workers is None

    @abstractmethod
    def find(self) -> Found:
        """Return all images at the path, in a stable order."""

    def open_source(self) -> ImageSource:
        """Return the images at the path; nothing is read yet."""
        return ImageSource(self)

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]  # found when it is asked for
        """The classes of the images to learn from, sorted."""
        found = self.source.found
        labels = [label for stage, label in zip(found.stages, found.labels, strict=True) if stage in (None, "train")]
        names = {label for label in labels if label is not None}
        if len(names) < 2:
            problem = f"there is only the class {names.pop()!r}" if names else "there is no class to train on"
            raise DataError(problem, self.class_hint, "path", self.path)
        return sorted(names)

    @property
    def task(self) -> TaskName:  # type: ignore[override]
        """Binary if there are two classes, else multiclass."""
        return "binary" if len(self.class_names) == 2 else "multiclass"

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """One logit for two classes, else one for each."""
        return 1 if self.task == "binary" else len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Hash of the images, their splits and their classes."""
        source = self.source
        return hashlib.sha256(repr((source.decoder.fingerprint, *source.found[1:])).encode()).hexdigest()

    def prepare_data(self) -> None:
        """Decode the images unless they are cached; Lightning calls this on one process only."""
        _ = self.source.decoded

    def load(self) -> dict[Stage, Samples]:
        """Decode the images, and divide them into the splits that their folders or the data set give."""
        _ = self.class_names  # an error where there are none comes before any image is decoded
        source, found = self.source, self.source.found
        parts: dict[Stage, list[int]] = {}
        for number in source.good:
            if found.labels[number] is not None:
                parts.setdefault(found.stages[number] or "train", []).append(number)
        if "val" in parts and not self.num_folds:
            parts.setdefault("test", [])  # who divides by hand wants to train on all of `train`
        given = {stage: source.samples(numbers) for stage, numbers in parts.items()}
        if "train" not in given:
            raise DataError("there is no good image to train on", option="path", value=self.path)
        return given

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """Return the name of every predicted image."""
        return {"file": (self.source.found.images.names[number] for number in self.source.good)}

    def setup(self, stage: str) -> None:
        """Decode and divide the images, and log before training what they are."""
        super().setup(stage)
        if stage == "fit":
            samples, indices = self.splits["train"]
            counts = samples.y[indices].bincount(minlength=len(self.class_names)).tolist()
            shares = [f"{name} ({count:,})" for name, count in zip(self.class_names, counts, strict=True)]
            logger.info(f"images to train on: {listed(shares, 10)}")
            if unlabeled := self.source.found.labels.count(None):
                logger.warning(f"images without a class, which are dropped: {unlabeled:,}")

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # whatever holds an image
        """Encode one image for evaluation: a tensor of shape `input_shape`.

        Args:
            raw: A path, the bytes of a file, a PIL image, or an array: uint8 `(H, W)`, `(H, W, C)` or `(C, H, W)`. One
                of shape `input_shape` is taken to be encoded already.

        Raises:
            DataError: If it is not an image.
        """
        if isinstance(raw, (Tensor, np.ndarray)) and tuple(raw.shape) == self.input_shape:
            return torch.as_tensor(raw)
        return super().encode(raw)

    def load_image(self, raw: Any) -> Tensor:  # noqa: ANN401
        """Return one image, decoded and resized, uint8 of shape `image_shape`."""
        try:
            return torch.from_numpy(resize_and_crop(open_image(raw), self.resize_size, self.interpolation))
        except ImageError as error:
            what = f"{raw}: " if isinstance(raw, (str, Path)) else ""
            raise DataError(f"{type(self).__name__}: {what}{error}") from error

    def _make_loader(
        self, dataset: Dataset[Any], sampler: Iterable[Tensor] | None = None, num_workers: int | None = None
    ) -> DataLoader[Any]:
        if num_workers is None and self._choose_workers and isinstance(self.source.decoded.images, Decoder):
            num_workers = available_cores()
        return super()._make_loader(dataset, sampler, num_workers)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the classes before anything is inferred from these images."""
        if self.__dict__.get("class_names") != state_dict["class_names"]:
            self._source = None
        super().load_state_dict(state_dict)
