"""torchvision's transforms by name, run on batches of images with a draw of its own for every sample.

A transform of `torchvision.transforms.v2` draws once a call, so it would change a whole batch alike. Here the usual
ones draw for all samples at once and change them at once; the others get one sample after the other.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from datamodules.errors import DataError
from datamodules.images.batched import (
    Transform,
    color_jitter,
    put,
    random_affine,
    random_crop,
    random_erasing,
    random_resized_crop,
    random_rotation,
    uniform,
)

Config = str | dict[str, Any]  # a class name, or {"class_path": name, "init_args": {...}}: checkpoints want primitives
_CACHED = 2**19  # how many numbers a CPU works on at once

_NAMES = [name for name, cls in vars(v2).items() if inspect.isclass(cls) and issubclass(cls, v2.Transform)][1:]
_BOXES = "RandomIoUCrop SanitizeBoundingBoxes ClampBoundingBoxes ConvertBoundingBoxFormat SetClampingMode"
_REFUSED = [  # names, problem and remedy
    ("Normalize", "the model normalizes, so that its checkpoint does", "leave it out and give `normalize` instead"),
    ("Lambda", "a function has no name here", "write a class derived from v2.Transform and give its import path"),
    ("LinearTransformation", "its tensors cannot be written here", "write a class of your own, give its import path"),
    ("ToPILImage", "a batch is one tensor", "leave it out"),
    ("UniformTemporalSubsample", "it is for videos", "leave it out"),
    ("MixUp CutMix", "it changes the labels too, and only images come here", "leave it out"),
    ("FiveCrop TenCrop", "it makes several images of one", "take CenterCrop or RandomCrop"),
    (_BOXES, "it is for bounding boxes, and only images come here", "leave it out"),
    ("SanitizeKeyPoints ClampKeyPoints", "it is for key points, and only images come here", "leave it out"),
]
_OBJECTS: dict[str, dict[str, Any]] = {  # arguments that take no string, or only in small letters
    "dtype": {name: getattr(torch, name) for name in ("uint8", "float16", "bfloat16", "float32", "float64")},
    "interpolation": {mode.value: mode for mode in v2.InterpolationMode},
    "policy": {policy.value: policy for policy in v2.AutoAugmentPolicy},
}


def build(configs: Sequence[Config], option: str) -> list[Transform]:
    """Build transforms from their names and arguments.

    Args:
        configs: Class names of `torchvision.transforms.v2`, import paths of classes derived from its `Transform`, or
            dictionaries of `class_path` and `init_args`. Dtypes, interpolations and policies are given by name.
        option: The argument that named them, for messages.

    Raises:
        DataError: If there is no such class or argument, if a value is bad, or if the class is not for images.
    """
    if isinstance(configs, str | dict):
        raise DataError(f"{configs!r} is not a list", f"give [{configs!r}]", option)
    return [_build(config, option) for config in configs]


def _build(config: Config, option: str) -> Transform:
    if isinstance(config, str):
        config = {"class_path": config}
    args = (config.get("init_args") or {}) if isinstance(config, dict) else None
    if not (isinstance(config, dict) and isinstance(args, dict) and config.keys() - {"init_args"} == {"class_path"}):
        raise DataError(f"{config!r} is not a transform", "give a class name, or class_path and init_args", option)
    cls = _find(config["class_path"], option)
    known = inspect.signature(cls).parameters
    for argument in args:
        if argument not in known and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            there = f"there are {', '.join(known)}" if known else "it takes none; leave it out"
            remedy = _close(str(argument), known) or there
            raise DataError(f"{cls.__name__} has no argument {argument!r}", remedy, option)
    given = {argument: _value(argument, value, cls.__name__, option) for argument, value in args.items()}
    try:
        return cls(**given)
    except Exception as error:  # whatever a class raises for its arguments, the remedy is the same
        raise DataError(f"{cls.__name__}: {_line(error)}", "correct its init_args", option) from error


def _find(path: Any, option: str) -> Any:  # noqa: ANN401  # what a config holds, and a class without types
    module, _, name = str(path).rpartition(".")
    if not module and name not in _NAMES:
        own = "give a class of your own by its import path, as my_module.MyTransform"
        raise DataError(f"torchvision.transforms.v2 has no {path!r}", _close(name, _NAMES) or own, option)
    try:
        cls = getattr(importlib.import_module(module), name) if module else getattr(v2, name)
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: the path begins with a dot
        raise DataError(f"{path} cannot be imported ({_line(error)})", "correct the import path", option) from error
    if not (inspect.isclass(cls) and issubclass(cls, v2.Transform)) or cls is v2.Transform:
        remedy = f"write {name} alone" if name in _NAMES else "derive it from that"
        raise DataError(f"{path} is not a torchvision.transforms.v2.Transform", remedy, option)
    for refused, reason, remedy in _REFUSED:
        # An older torchvision lacks some.
        if issubclass(cls, tuple(getattr(v2, known) for known in refused.split() if hasattr(v2, known))):
            raise DataError(f"{name} cannot be used here: {reason}", remedy, option)
    return cls


def _value(argument: str, value: Any, name: str, option: str) -> Any:  # noqa: ANN401  # whatever the argument takes
    if isinstance(value, dict) and "class_path" in value:
        return _build(value, option)
    if isinstance(value, list):
        if argument == "transforms":
            return build(value, option)
        return [_value("", item, name, option) for item in value]
    if not isinstance(value, str) or argument not in _OBJECTS:
        return value
    found = _OBJECTS[argument].get(value.lower().removeprefix("torch.").replace("_", "-"))
    if found is None:
        known = ", ".join(_OBJECTS[argument])
        raise DataError(f"{name}: {value!r} is not a known {argument}", f"give one of {known}", option)
    return found


def _close(name: str, names: Iterable[str]) -> str:
    lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"did you mean {lower[close[0]]}?" if close else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def transform_batch(transforms: Sequence[Transform], x: Tensor) -> Tensor:
    """Run transforms one after the other on a batch; a random one draws anew for every sample.

    Pixels and distributions are torchvision's. Draws come from torch's global generator of the batch's device; where
    torchvision itself draws, which it does for one sample after the other, from that of the CPU.

    Args:
        transforms: Any transforms of `torchvision.transforms.v2`, or derived from its `Transform`.
        x: Images, shape `(B, C, H, W)`, uint8 or floating point, which become `(B, C', H', W')` on the same device.

    Raises:
        DataError: If a transform cannot take such images, or leaves them in different sizes.
    """
    images: Tensor | list[Tensor] = x
    for transform in _flat(transforms):
        before, images = images, _run(transform, images)
        if isinstance(before, Tensor):
            last = transform
    if isinstance(images, list):
        problem = f"{type(last).__name__} leaves images of different sizes or types, which cannot be batched"
        raise DataError(problem, "let a Resize or a crop come last")
    return images


def is_random(transforms: Sequence[Transform]) -> bool:
    """Return whether any of the transforms may draw at random; a class of the user's own always may."""
    return not all(map(_is_fixed, _flat(transforms)))


def _flat(transforms: Iterable[Transform]) -> list[Transform]:
    parts = [_flat(part.transforms) if type(part) is v2.Compose else [part] for part in transforms]
    return [transform for part in parts for transform in part]


def _is_fixed(transform: Transform) -> bool:
    """Return whether a transform treats all images alike: torchvision's own without parameters to draw."""
    cls = type(transform)
    return (
        getattr(v2, cls.__name__, None) is cls
        and cls.forward is v2.Transform.forward
        and cls.make_params is v2.Transform.make_params
        and cls not in (v2.GaussianNoise, v2.Lambda)  # they draw, or may, in `transform`
    )


def _run(transform: Transform, images: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """Run one transform; images are a list as long as their sizes differ."""
    try:
        if isinstance(images, Tensor):
            if _is_fixed(transform):
                changed: Tensor = transform(images)
                return changed.as_subclass(Tensor)  # ToImage makes a subclass
            run = _BATCHED.get(type(transform), _each)
            share = len(images)
            if images.is_cpu and run in (_some, random_affine, random_rotation, color_jitter):
                # Up to four times as fast where what is computed stays in the cache; the others only copy.
                share = max(1, _CACHED // images[0].numel())
            parts = [done for part in images.split(share) if (done := run(transform, part)) is not None]
            if parts:
                return _join(parts)
        return _each(transform, images)
    except DataError:  # of a transform within this one
        raise
    except (TypeError, ValueError) as error:
        what = f"{str(images[0].dtype).removeprefix('torch.')} images of shape {tuple(images[0].shape)}"
        problem = f"{type(transform).__name__} cannot change {what} ({_line(error)})"
        raise DataError(problem, "correct its arguments or leave it out") from error


def _each(transform: Transform, images: Iterable[Tensor]) -> Tensor | list[Tensor]:
    changed = [transform(image) for image in images]
    if not all(isinstance(image, Tensor) and image.ndim == 3 for image in changed):
        raise TypeError("it does not make one tensor of shape (C, H, W) of each")
    return _join([image[None] for image in changed])


def _join(parts: Sequence[Tensor | list[Tensor]]) -> Tensor | list[Tensor]:
    """Return one batch, or a list of images if these differ in shape or type."""
    whole = [part for part in parts if isinstance(part, Tensor)]
    if len(whole) == len(parts) and len({(part.shape[1:], part.dtype) for part in whole}) == 1:
        return torch.cat(whole) if len(whole) > 1 else whole[0]
    return [image for part in parts for image in part]


def _chosen(x: Tensor, p: float) -> Tensor:
    return (uniform(x, 0, 1) < p).nonzero()[:, 0]


def _some(t: Transform, x: Tensor) -> Tensor:
    """Run a transform that draws nothing but whether it is run."""
    chosen = _chosen(x, t.p)
    if not len(chosen):
        return x
    changed: Tensor = t.transform(x.index_select(0, chosen), t.make_params([x]))
    return put(x, chosen, changed)


def _random_apply(t: Transform, x: Tensor) -> Tensor | list[Tensor]:
    chosen = _chosen(x, t.p)
    changed: Tensor | list[Tensor] = x.index_select(0, chosen)
    for transform in _flat(t.transforms) if len(chosen) else []:
        changed = _run(transform, changed)
    if isinstance(changed, Tensor) and (changed.shape[1:], changed.dtype) == (x.shape[1:], x.dtype):
        return put(x, chosen, changed)
    images = list(x)
    for place, image in zip(chosen.tolist(), changed, strict=True):
        images[place] = image
    return _join([image[None] for image in images])


_BATCHED: dict[Any, Callable[[Transform, Tensor], Tensor | list[Tensor] | None]] = {
    **dict.fromkeys((v2.RandomHorizontalFlip, v2.RandomVerticalFlip, v2.RandomGrayscale, v2.RandomInvert), _some),
    **dict.fromkeys((v2.RandomPosterize, v2.RandomSolarize, v2.RandomAutocontrast, v2.RandomEqualize), _some),
    v2.RandomAdjustSharpness: _some,
    v2.RandomAffine: random_affine,
    v2.RandomApply: _random_apply,
    v2.RandomCrop: random_crop,
    v2.RandomResizedCrop: random_resized_crop,
    v2.RandomRotation: random_rotation,
    v2.ColorJitter: color_jitter,
    v2.RandomErasing: random_erasing,
}
