"""torchvision's transforms by name, run on batches of images with a draw of its own for every sample.

A transform of `torchvision.transforms.v2` draws once a call, so a batch given to it would be changed all alike. Here
the usual ones draw for all samples at once and change them at once; the others get one sample after the other.
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
    random_crop,
    random_erasing,
    random_resized_crop,
    random_rotation,
    uniform,
)

Config = str | dict[str, Any]  # a class name, or {"class_path": name, "init_args": {...}}: checkpoints want primitives
_CACHED = 2**19  # how many numbers a CPU works on at once

_NAMES = [name for name, cls in vars(v2).items() if inspect.isclass(cls) and issubclass(cls, v2.Transform)][1:]
_REFUSED = {
    "Normalize": "the model normalizes, so that its checkpoint does; leave it out and give --data.normalize instead.",
    "Lambda": "a function has no name here; write a class derived from v2.Transform and give its import path.",
    "LinearTransformation": "its tensors cannot be written here; write a class of your own and give its import path.",
    "ToPILImage": "a batch is one tensor; leave it out.",
    "UniformTemporalSubsample": "it is for videos; leave it out.",
    **dict.fromkeys(("MixUp", "CutMix"), "it changes the labels too, and only images come here; leave it out."),
    **dict.fromkeys(("FiveCrop", "TenCrop"), "it makes several images of one; take CenterCrop or RandomCrop."),
    **dict.fromkeys(
        ("RandomIoUCrop", "SanitizeBoundingBoxes", "ClampBoundingBoxes", "ConvertBoundingBoxFormat", "SetClampingMode"),
        "it is for bounding boxes, and only images come here; leave it out.",
    ),
    **dict.fromkeys(
        ("SanitizeKeyPoints", "ClampKeyPoints"), "it is for key points, and only images come here; leave it out."
    ),
}
_OBJECTS: dict[str, dict[str, Any]] = {  # arguments that take no string, or only in small letters
    "dtype": {name: getattr(torch, name) for name in ("uint8", "float16", "bfloat16", "float32", "float64")},
    "interpolation": {mode.value: mode for mode in v2.InterpolationMode},
    "policy": {policy.value: policy for policy in v2.AutoAugmentPolicy},
}


def build(configs: Sequence[Config], flag: str) -> list[Transform]:
    """Make transforms of their names and arguments.

    A name is one of `torchvision.transforms.v2`, or the import path of any class derived from its `Transform`. A dtype,
    an interpolation and a policy are given by name; transforms within a transform as those in the list.

    Args:
        configs: Class names, or dictionaries of `class_path` and `init_args`.
        flag: By what they were given; messages begin with it.

    Returns:
        The transforms, in the same order.

    Raises:
        DataError: If there is no such class or argument, if a value is bad, or if the class is not for images.
    """
    if isinstance(configs, str | dict):
        raise DataError(f"{flag}: {configs!r} is no list; give [{configs!r}].")
    return [_build(config, flag) for config in configs]


def _build(config: Config, flag: str) -> Transform:
    if isinstance(config, str):
        config = {"class_path": config}
    args = (config.get("init_args") or {}) if isinstance(config, dict) else None
    if not (isinstance(config, dict) and isinstance(args, dict) and config.keys() - {"init_args"} == {"class_path"}):
        raise DataError(f"{flag}: {config!r} is no transform; give a class name, or class_path and init_args.")
    cls = _find(config["class_path"], flag)
    name = f"{flag}: {cls.__name__}"
    known = inspect.signature(cls).parameters
    for argument in args:
        if argument not in known and not any(option.kind is option.VAR_KEYWORD for option in known.values()):
            there = f"there are {', '.join(known)}." if known else "it takes none; leave it out."
            raise DataError(f"{name} has no argument {argument!r}; {_close(str(argument), known) or there}")
    given = {argument: _value(argument, value, name, flag) for argument, value in args.items()}
    try:
        return cls(**given)
    except Exception as error:  # whatever a class raises for its arguments, the remedy is the same
        raise DataError(f"{name}: {_line(error)}; mend its init_args.") from error


def _find(path: Any, flag: str) -> Any:  # noqa: ANN401  # what a config holds, and a class without types
    module, _, name = str(path).rpartition(".")
    if not module and name not in _NAMES:
        own = "give a class of your own by its import path, as my_module.MyTransform."
        raise DataError(f"{flag}: torchvision.transforms.v2 has no {path!r}; {_close(name, _NAMES) or own}")
    try:
        cls = getattr(importlib.import_module(module), name) if module else getattr(v2, name)
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: the path begins with a dot
        raise DataError(f"{flag}: {path} cannot be imported ({_line(error)}); mend the import path.") from error
    if not (inspect.isclass(cls) and issubclass(cls, v2.Transform)) or cls is v2.Transform:
        remedy = f"write {name} alone" if name in _NAMES else "derive it from that"
        raise DataError(f"{flag}: {path} is no torchvision.transforms.v2.Transform; {remedy}.")
    for refused, reason in _REFUSED.items():
        if issubclass(cls, getattr(v2, refused, ())):  # an older torchvision lacks some
            raise DataError(f"{flag}: {name} cannot be used here: {reason}")
    return cls


def _value(argument: str, value: Any, name: str, flag: str) -> Any:  # noqa: ANN401  # whatever the argument takes
    if isinstance(value, dict) and "class_path" in value:
        return _build(value, flag)
    if isinstance(value, list):
        if argument == "transforms":
            return build(value, flag)
        return [_value("", item, name, flag) for item in value]
    if not isinstance(value, str) or argument not in _OBJECTS:
        return value
    found = _OBJECTS[argument].get(value.lower().removeprefix("torch.").replace("_", "-"))
    if found is None:
        raise DataError(f"{name}: {value!r} is no {argument}; give one of {', '.join(_OBJECTS[argument])}.")
    return found


def _close(name: str, names: Iterable[str]) -> str:
    lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"did you mean {lower[close[0]]}?" if close else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def transform_batch(transforms: Sequence[Transform], x: Tensor) -> Tensor:
    """Run transforms one after the other on a batch, each random one drawing anew for every sample.

    Pixels and distributions are torchvision's. Draws come from torch's global generator of the batch's device; where
    torchvision itself draws, which it does for one sample after the other, from that of the CPU.

    Args:
        transforms: Any transforms of `torchvision.transforms.v2`, or derived from its `Transform`.
        x: Images, shape `(B, C, H, W)`, uint8 or floating point.

    Returns:
        Images of one shape, `(B, C', H', W')`, on the same device.

    Raises:
        DataError: If a transform cannot take such images, or leaves them in different sizes.
    """
    images: Tensor | list[Tensor] = x
    for transform in _flat(transforms):
        before, images = images, _run(transform, images)
        if isinstance(before, Tensor):
            last = transform
    if isinstance(images, list):
        raise DataError(
            f"{type(last).__name__} leaves images of different sizes or types, which make no batch; let a Resize or a "
            "crop come last."
        )
    return images


def is_random(transforms: Sequence[Transform]) -> bool:
    """Tell whether any of the transforms may draw at random; a class of the user's own always may."""
    return not all(map(_is_fixed, _flat(transforms)))


def _flat(transforms: Iterable[Transform]) -> list[Transform]:
    parts = [_flat(part.transforms) if type(part) is v2.Compose else [part] for part in transforms]
    return [transform for part in parts for transform in part]


def _is_fixed(transform: Transform) -> bool:
    """Tell whether a transform treats all images alike: torchvision's own without parameters to draw."""
    cls = type(transform)
    return (
        getattr(v2, cls.__name__, None) is cls
        and cls.forward is v2.Transform.forward
        and cls.make_params is v2.Transform.make_params
        and cls not in (v2.GaussianNoise, v2.Lambda)  # the one draws, the other may, where nobody sees it
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
            if images.is_cpu and run in (_some, random_rotation, color_jitter):
                # Up to four times as fast where what is computed stays in the cache; the others only copy.
                share = max(1, _CACHED // images[0].numel())
            parts = [done for part in images.split(share) if (done := run(transform, part)) is not None]
            if parts:
                return _join(parts)
        return _each(transform, images)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{type(transform).__name__} cannot change {str(images[0].dtype).removeprefix('torch.')} images of shape "
            f"{tuple(images[0].shape)} ({_line(error)}); mend its arguments or leave it out."
        ) from error


def _each(transform: Transform, images: Iterable[Tensor]) -> Tensor | list[Tensor]:
    changed = [transform(image) for image in images]
    if not all(isinstance(image, Tensor) and image.ndim == 3 for image in changed):
        raise TypeError("it does not make one tensor of shape (C, H, W) of each")
    return _join([image[None] for image in changed])


def _join(parts: Sequence[Tensor | list[Tensor]]) -> Tensor | list[Tensor]:
    """Join parts of a batch to a batch, or to a list of images if these differ in shape or type."""
    whole = [part for part in parts if isinstance(part, Tensor)]
    if len(whole) == len(parts) and len({(part.shape[1:], part.dtype) for part in whole}) == 1:
        return torch.cat(whole) if len(whole) > 1 else whole[0]
    return [image for part in parts for image in part]


def _chosen(x: Tensor, p: float) -> Tensor:
    return (uniform(x, 0, 1) < p).nonzero()[:, 0]


def _some(t: Transform, x: Tensor) -> Tensor:
    """Do to some samples what has nothing to draw but whether it is done."""
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
    v2.RandomApply: _random_apply,
    v2.RandomCrop: random_crop,
    v2.RandomResizedCrop: random_resized_crop,
    v2.RandomRotation: random_rotation,
    v2.ColorJitter: color_jitter,
    v2.RandomErasing: random_erasing,
}
