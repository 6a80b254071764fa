"""What all images share: transforms of training and of evaluation, and statistics to normalize by."""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(eq=False)
class Transformed:
    """A selection of images after a chain of transforms, indexed like a tensor."""

    images: Store  # all of them, shape `(N, C, H, W)`
    rows: Tensor  # which of them these are, shape `(n,)`
    transforms: Sequence[Transform] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return a batch, `index` of shape `(B,)`."""
        return transform_batch(self.transforms, self.images.index_select(dim, self.rows[index]))


class ImageDataModule(DataModule):
    """Base of data modules for images, uint8 of shape `(N, C, H, W)`.

    Transforms are classes of `torchvision.transforms.v2`, by name or as `class_path` and `init_args`, or any other
    `Transform` by its import path. Those of training run on the batch's device, with a new draw for every image.
    `Normalize` is not among them: the model normalizes.

    A leaf defines `load`, and before this constructor `input_shape`, the `(C, H, W)` of the images that are loaded. It
    is kept as `image_shape`, and `input_shape` becomes what the transforms make of it.

    Args:
        train_transforms: From images to a training batch. By default those of evaluation, then those of the short names
            below; images from files are cropped and flipped at random unless one of these is given. An empty list
            trains on images as they are evaluated.
        eval_transforms: From images to a batch of validation, test or prediction; by default none, and for images from
            files a crop of the center.
        normalize: Mean and standard deviation of each channel: `fitted` on the training images (at most 2,000 where
            they are transformed), `imagenet`, or given as `[[r, g, b], [r, g, b]]` in units of [0, 1]. By default they
            are fitted, and replaced by those of a model's pretrained weights.
        shift: Short for `RandomCrop` of the padded image: at most this many pixels in each direction.
        rotation: Short for `RandomAffine`, which takes over the shift: at most this many degrees to either side.
        crop: Short for `RandomResizedCrop`: at most this share of each side is cropped away, 0 to 1.
        flip: Short for `RandomHorizontalFlip` of half of the images.
        erasing: Short for `RandomErasing`: this share of the images loses a rectangle, 0 to 1.
        kwargs: Options of `DataModule`.

    Raises:
        DataError: If a transform or an option is invalid.
    """

    task = "multiclass"
    num_outputs = 10
    default_train_transforms: Sequence[Config] = ()
    default_eval_transforms: Sequence[Config] = ()

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
        name = next((name for name, value in short.items() if value), None)
        if name and train_transforms is not None:
            problem = "it is short for one of `train_transforms`, which are given too"
            raise DataError(problem, "give only one", name, short[name])
        self.normalize = normalize
        self.image_shape = self.input_shape
        chosen = self.default_eval_transforms if eval_transforms is None else eval_transforms
        self.eval_transforms = build(chosen, "eval_transforms")
        self.input_shape = self._check_transforms(self.eval_transforms, "eval_transforms")
        if name:
            self.train_transforms = [*self.eval_transforms, *_short_transforms(self.input_shape, **short)]
        else:
            chosen = self.default_train_transforms if train_transforms is None else train_transforms
            self.train_transforms = build(chosen, "train_transforms") or self.eval_transforms
        shape = self._check_transforms(self.train_transforms, "train_transforms")
        if shape != self.input_shape:
            problem = f"they give {shape}, but `eval_transforms` give {self.input_shape}"
            raise DataError(problem, "end both with a crop or a resize to one size", "train_transforms")
        self._given = None if normalize in (None, "fitted") else _given_statistics(normalize, shape[0])

    def _check_transforms(self, transforms: Sequence[Transform], option: str) -> tuple[int, ...]:
        """Return the shape that transforms make of an image."""
        white = torch.full((2, *self.image_shape), 255, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):  # checking leaves the random state as it was
            x = transform_batch(transforms, white)
        if x.is_floating_point() and x.max() > 1:
            problem = "they leave floating-point numbers that are not from 0 to 1"
            raise DataError(problem, "give ToDtype scale: true", option)
        return tuple(x.shape[1:])

    def divide(self, given: dict[Stage, Samples]) -> dict[Stage, Split]:
        """Hold out what was not given separately; all splits are of images as they are evaluated."""
        splits = super().divide(given)
        return {stage: Split(self.evaluated(samples), rows) for stage, (samples, rows) in splits.items()}

    def evaluated(self, samples: Samples) -> Samples:
        """Return samples whose images are transformed for evaluation, lazily."""
        return _transformed(samples, self.eval_transforms)

    def _split(self, stage: Stage) -> Split:
        samples, indices = split = super()._split(stage)
        if not self.eval_transforms or split is not self.splits.get("train"):
            return split
        if self.trainer is None:  # which would augment
            return Split(_transformed(samples, self.train_transforms), indices)
        return split if self.trainer.predicting or self._overfits else self._raw_train

    @property
    def _raw_train(self) -> Split:
        samples, indices = self.splits["train"]
        return Split(_transformed(samples, ()), indices)

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of the training images as they are evaluated, or as `normalize` gives them.

        `mean` and `std` are of each channel, `(C, 1, 1)`, in units of [0, 1]; a regression has those of its `target_`.
        """
        samples, indices = self.splits["train"]
        targets: dict[str, Tensor] = {}
        if self.class_names is None:  # a regression
            targets["target_mean"], targets["target_std"] = moments(samples.y[indices])
        x = samples.x
        if isinstance(x, Transformed):
            order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(self.seed))
            indices = indices[order[:SAMPLE]].sort().values
        mean, std = self._given or image_moments(x.index_select(0, indices))
        return {"mean": mean, "std": std, **targets}

    @property
    def augments(self) -> bool:
        """Whether the transforms of training draw at random."""
        return is_random(self.train_transforms)

    def augment(self, x: Tensor) -> Tensor:
        """Return a training batch, `(B, *input_shape)`, of images, `(B, *image_shape)`, each with its own draw."""
        return transform_batch(self.train_transforms, x)

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # an array, a list or an image
        """Encode one raw image, which `load_image` takes, for evaluation: a tensor of shape `input_shape`.

        Raises:
            DataError: If it is not such an image.
        """
        return transform_batch(self.eval_transforms, self.load_image(raw)[None])[0]

    def load_image(self, raw: Any) -> Tensor:  # noqa: ANN401
        """Return one raw image, rows of numbers from 0 to 255, as uint8 of shape `image_shape`."""
        return self._to_tensor(raw, self.image_shape).round().clamp(0, 255).to(torch.uint8)


def _transformed(samples: Samples, transforms: Sequence[Transform]) -> Samples:
    x = samples.x
    if not transforms and not isinstance(x, Transformed):
        return samples
    images, rows = (x.images, x.rows) if isinstance(x, Transformed) else (x, torch.arange(len(x)))
    return Samples(Transformed(images, rows, transforms), samples.y)


def _short_transforms(
    shape: tuple[int, ...], shift: int, rotation: float, crop: float, flip: bool, erasing: float
) -> list[Transform]:
    """Return the transforms that the short names stand for; raise a `DataError` if a value is out of range."""
    size = height, width = shape[-2:]
    for name, share in {"crop": crop, "erasing": erasing}.items():
        if not 0 <= share <= 1:
            raise DataError("give a share from 0 to 1", option=name, value=share)
    if not 0 <= shift < min(size):
        raise DataError(f"give a number of pixels from 0 to {min(size) - 1}", option="shift", value=shift)
    if rotation < 0:
        raise DataError("give degrees to either side, 0 or more", option="rotation", value=rotation)
    # Half a pixel more makes all shifts equally likely, as torchvision rounds what it draws.
    translate = [(shift + 0.5) / width, (shift + 0.5) / height]
    bilinear = v2.InterpolationMode.BILINEAR
    steps = [
        (rotation, v2.RandomAffine(rotation, translate, interpolation=bilinear, fill=None)),  # in one resampling
        (shift and not rotation, v2.RandomCrop(size, padding=shift)),
        (crop, v2.RandomResizedCrop(size, [(1 - crop) ** 2, 1.0], [width / height] * 2)),
        (flip, v2.RandomHorizontalFlip()),
        (erasing, v2.RandomErasing(erasing)),
    ]
    return [transform for wanted, transform in steps if wanted]


def _given_statistics(normalize: Any, channels: int) -> tuple[Tensor, ...]:  # noqa: ANN401  # whatever was given
    """Return the mean and standard deviation of each channel, `(C, 1, 1)`, that `normalize` gives."""
    try:
        values = np.asarray(IMAGENET if normalize == "imagenet" else normalize, dtype=np.float32)
    except ValueError:  # lists of different lengths
        values = np.zeros(0, np.float32)
    if values.shape != (2, channels) or not (np.isfinite(values).all() and (values[1] > 0).all()):
        example = [[0.5] * channels, [0.25] * channels]
        problem = f"give fitted, imagenet, or the means and the standard deviations of the channels, {example}"
        raise DataError(problem, option="normalize", value=normalize)
    return torch.from_numpy(values).view(2, channels, 1, 1).unbind()
