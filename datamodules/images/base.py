"""What all images share: transforms of training and of evaluation, and statistics to normalize by."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from datamodules.base import DataModule, Stage
from datamodules.errors import DataError
from datamodules.images.batched import Transform
from datamodules.images.transforms import Config, build, is_random, transform_batch
from datamodules.sampler import Samples, Split, Store
from datamodules.statistics import image_moments, moments

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean and standard deviation, as torchvision has them
SAMPLE = 2_000  # training images at most that are transformed to fit the statistics


class Transformed:
    """Some of many images, after a chain of transforms; it is indexed like a tensor.

    Args:
        images: All images, shape `(N, C, H, W)`.
        rows: Which of them these are, shape `(n,)`.
        transforms: The transforms of every batch.
    """

    def __init__(self, images: Store, rows: Tensor, transforms: Sequence[Transform] = ()) -> None:
        self.images = images
        self.rows = rows
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.rows)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return a batch, `index` of shape `(B,)`."""
        return transform_batch(self.transforms, self.images.index_select(dim, self.rows[index]))


class ImageDataModule(DataModule):
    """Base of data modules for images, uint8 of shape `(N, C, H, W)`.

    Training gets what `train_transforms` make of the images, a new draw for every image of a batch, on the batch's
    device; everything else gets what `eval_transforms` make of them. Transforms are classes of
    `torchvision.transforms.v2`, by name or as `class_path` and `init_args`, or any other `Transform` by its import
    path. `Normalize` is not among them: the model normalizes, by the statistics that `normalize` chooses.

    A leaf defines `load`, and `input_shape`, the `(C, H, W)` of the images it loads, before this constructor runs. It
    stays there as `image_shape`; `input_shape` becomes what the transforms make of it.

    Args:
        train_transforms: From images to a training batch. By default those of `eval_transforms`, then those of the
            short names below; images from files are cropped and flipped at random unless there are such. An empty list
            trains on what is evaluated on.
        eval_transforms: From images to a batch of validation, test or prediction; by default none, and the center of
            images from files.
        normalize: Mean and standard deviation of each channel: `fitted` on the training images (on at most 2,000 where
            they are transformed), `imagenet`, or given as `[[r, g, b], [r, g, b]]` in units of [0, 1]. By default they
            are fitted, and give way to those of a model's pretrained weights.
        shift: Short for a `RandomCrop` of the padded image, or the translation of a `RandomAffine`: at most so many
            pixels in each direction.
        rotation: Short for a `RandomAffine`: degrees to either side, at most.
        crop: Short for a `RandomResizedCrop`: the share of each side that is cropped away, at most, 0 to 1.
        flip: Short for a `RandomHorizontalFlip`, of half of the images.
        erasing: Short for a `RandomErasing`: the share of the images that lose a rectangle, 0 to 1.
        kwargs: Options of `DataModule`.

    Raises:
        DataError: If a transform is impossible, or an option is.
    """

    task = "multiclass"
    num_outputs = 10

    def __init__(
        self,
        train_transforms: Sequence[Config] | None = None,
        eval_transforms: Sequence[Config] | None = None,
        normalize: Literal["fitted", "imagenet"] | list[list[float]] | None = None,
        shift: int = 0,
        rotation: float = 0.0,
        crop: float = 0.0,
        flip: bool = False,
        erasing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        short: dict[str, Any] = {"shift": shift, "rotation": rotation, "crop": crop, "flip": flip, "erasing": erasing}
        short = {name: value for name, value in short.items() if value}
        if short and train_transforms is not None:
            name, value = next(iter(short.items()))
            raise DataError("it is short for one of `train_transforms`, which are given", "give only one", name, value)
        self.normalize = normalize
        chosen = self.default_eval_transforms() if eval_transforms is None else eval_transforms
        self._evaluating = build(chosen, "eval_transforms")
        self.image_shape = self.input_shape
        self.input_shape = self._check_transforms(self._evaluating, "eval_transforms")
        if short:
            self._training = [*self._evaluating, *_short_transforms(self.input_shape, **short)]
        else:
            chosen = self.default_train_transforms() if train_transforms is None else train_transforms
            self._training = build(chosen, "train_transforms") or self._evaluating
        shape = self._check_transforms(self._training, "train_transforms")
        if shape != self.input_shape:
            problem = f"they give {shape}, but `eval_transforms` give {self.input_shape}"
            raise DataError(problem, "end both with a crop or a resize to one size", "train_transforms")
        self._given_moments = None if normalize in (None, "fitted") else _given_moments(normalize, shape[0])

    def default_train_transforms(self) -> list[Config]:
        """Return the transforms of training where none are given; without any, training is on what is evaluated."""
        return []

    def default_eval_transforms(self) -> list[Config]:
        """Return the transforms of evaluation where none are given."""
        return []

    def _check_transforms(self, transforms: Sequence[Transform], option: str) -> tuple[int, ...]:
        """Return the shape that transforms make of an image."""
        white = torch.full((2, *self.image_shape), 255, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):  # checking takes no random numbers away
            x = transform_batch(transforms, white)
        if x.is_floating_point() and x.max() > 1:
            problem = "they leave floating-point numbers that are not from 0 to 1"
            raise DataError(problem, "give ToDtype scale: true", option)
        return tuple(x.shape[1:])

    def divide(self, given: dict[Stage, Samples]) -> dict[Stage, Split]:
        """Hold out what was not given separately, and transform what is evaluated."""
        splits = super().divide(given)
        for stage in splits.keys() - {"train"}:
            samples, indices = splits[stage]
            splits[stage] = Split(self.evaluated(samples), indices)
        return splits

    def evaluated(self, samples: Samples) -> Samples:
        """Return samples whose images are transformed for evaluation when they are asked for."""
        return self._transformed(samples, self._evaluating)

    def _transformed(self, samples: Samples, transforms: Sequence[Transform]) -> Samples:
        x = samples.x
        if not transforms:
            return samples
        images, rows = (x.images, x.rows) if isinstance(x, Transformed) else (x, torch.arange(len(x)))
        return Samples(Transformed(images, rows, transforms), samples.y)

    @property
    def tests_fold(self) -> bool:
        """Whether the fold that is held out is the test split, and not the validation split."""
        return "test" in self.splits and self.splits["test"].samples.y is self.splits["train"].samples.y

    def _split(self, stage: Stage) -> Split:
        split = super()._split(stage)
        alone = self.trainer is None
        if stage == "train" and self._evaluating and (alone or self.trainer.predicting):  # type: ignore[union-attr]
            # Without a trainer nobody else makes of the images what a model takes.
            return Split(self._transformed(split.samples, self._training if alone else self._evaluating), split.indices)
        return split

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of each channel, `(C, 1, 1)`, in units of [0, 1]; of a regression also `target_`.

        They are those of the training images as they are evaluated.
        """
        mean_and_std = self._given_moments or image_moments(self._images_to_fit())
        found = dict(zip(("mean", "std"), mean_and_std, strict=True))
        if self.class_names is None:  # a regression
            samples, indices = self.splits["train"]
            found["target_mean"], found["target_std"] = moments(samples.y[indices])
        return found

    def _images_to_fit(self) -> Tensor:
        samples, indices = self.splits["train"]
        samples = self.evaluated(samples)
        if not isinstance(samples.x, Tensor):
            order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(self.seed))
            indices = indices[order[:SAMPLE]].sort().values
        return samples[indices][0]

    @property
    def augments(self) -> bool:
        """Whether the transforms of training draw at random."""
        return is_random(self._training)

    def augment(self, x: Tensor) -> Tensor:
        """Return a training batch of images, `(B, *image_shape)`: each with its own draw, `(B, *input_shape)`."""
        return transform_batch(self._training, x)

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # an array, a list or an image
        """Return what a batch of evaluation holds of one raw image.

        Args:
            raw: What `load_image` takes.

        Returns:
            Shape `input_shape`.

        Raises:
            DataError: If it is not such an image.
        """
        return transform_batch(self._evaluating, self.load_image(raw)[None])[0]

    def load_image(self, raw: Any) -> Tensor:  # noqa: ANN401
        """Return one raw image, rows of numbers from 0 to 255, as uint8 of shape `image_shape`.

        Raises:
            DataError: If it is not numbers, or of another size.
        """
        name, shape = type(self).__name__, self.image_shape
        try:
            x = torch.as_tensor(np.asarray(raw, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise DataError(f"{name}: an input must be numbers ({error})") from error
        if x.shape not in (shape, shape[1:], (math.prod(shape),)):
            raise DataError(f"{name}: an input is {shape}, or its {math.prod(shape)} numbers, not {tuple(x.shape)}")
        return x.reshape(shape).round().clamp(0, 255).to(torch.uint8)


def _short_transforms(
    shape: tuple[int, ...],
    shift: int = 0,
    rotation: float = 0.0,
    crop: float = 0.0,
    flip: bool = False,
    erasing: float = 0.0,
) -> list[Transform]:
    """Return the transforms that the short names stand for.

    Raises:
        DataError: If one is out of range.
    """
    height, width = shape[1:]
    for name, share in {"crop": crop, "erasing": erasing}.items():
        if not 0 <= share <= 1:
            raise DataError("give a share from 0 to 1", option=name, value=share)
    most = min(height, width) - 1
    if not 0 <= shift <= most:
        raise DataError(f"give a number of pixels from 0 to {most}", option="shift", value=shift)
    if rotation < 0:
        raise DataError("give degrees to either side, 0 or more", option="rotation", value=rotation)
    found: list[Transform] = []
    if rotation:  # with the shift, in one resampling; half a pixel more, as torchvision rounds what it draws
        translate = [(shift + 0.5) / width, (shift + 0.5) / height]
        bilinear = v2.InterpolationMode.BILINEAR
        found.append(v2.RandomAffine(rotation, translate, interpolation=bilinear, fill=None))
    elif shift:
        found.append(v2.RandomCrop([height, width], padding=shift))
    if crop:
        found.append(v2.RandomResizedCrop([height, width], [(1 - crop) ** 2, 1.0], [width / height] * 2))
    if flip:
        found.append(v2.RandomHorizontalFlip())
    if erasing:
        found.append(v2.RandomErasing(erasing))
    return found


def _given_moments(normalize: Any, channels: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401  # what was given
    """Return the mean and the standard deviation of each channel, `(C, 1, 1)`, that `normalize` gives."""
    try:
        values = np.asarray(IMAGENET if normalize == "imagenet" else normalize, dtype=np.float32)
    except ValueError:  # lists of different lengths
        values = np.zeros(0, np.float32)
    if values.shape != (2, channels) or not (np.isfinite(values).all() and (values[1] > 0).all()):
        example = [[0.5] * channels, [0.25] * channels]
        problem = f"give fitted, imagenet, or the means and the standard deviations of the channels, {example}"
        raise DataError(problem, option="normalize", value=normalize)
    mean, std = torch.from_numpy(values).view(2, channels, 1, 1).unbind()
    return mean, std
