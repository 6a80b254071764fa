"""torchvision's transforms by name, run on batches of images with a draw of its own for every sample.

A transform of `torchvision.transforms.v2` draws once a call, so a batch given to it would be changed all alike. Here
the usual ones draw for all samples at once and change them at once; the others get one sample after the other.
"""

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from datamodules.errors import DataError

Config = str | dict[str, Any]  # a class name, or {"class_path": name, "init_args": {...}}: checkpoints want primitives
_CACHED = 2**19  # how many numbers a CPU works on at once
Transform = Any  # a v2.Transform: torchvision ships no types

_NAMES = [name for name, cls in vars(v2).items() if inspect.isclass(cls) and issubclass(cls, v2.Transform)][1:]
_REFUSED = {
    "Normalize": "the model normalises, so that its checkpoint does; leave it out and give --data.normalize instead.",
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
            if images.is_cpu and run in (_some, _random_rotation, _color_jitter):
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


# The usual transforms on a whole batch: what is drawn, then a function of the images and what was drawn. A runner
# returns None where its options are better left to torchvision, sample by sample.


def _uniform(x: Tensor, low: float, high: float, *more: int) -> Tensor:
    return torch.rand(len(x), *more, device=x.device) * (high - low) + low


def _chosen(x: Tensor, p: float) -> Tensor:
    return (_uniform(x, 0, 1) < p).nonzero()[:, 0]


def _some(t: Transform, x: Tensor) -> Tensor:
    """Do to some samples what has nothing to draw but whether it is done."""
    chosen = _chosen(x, t.p)
    if not len(chosen):
        return x
    changed: Tensor = t.transform(x.index_select(0, chosen), t.make_params([x]))
    return _put(x, chosen, changed)


def _put(x: Tensor, chosen: Tensor, changed: Tensor) -> Tensor:
    place = torch.arange(len(x), device=x.device)
    place[chosen] = torch.arange(len(x), len(x) + len(chosen), device=x.device)
    return torch.cat([x, changed]).index_select(0, place)  # copies whole images, unlike index_copy: 4 times as fast


def _random_apply(t: Transform, x: Tensor) -> Tensor | list[Tensor]:
    chosen = _chosen(x, t.p)
    changed: Tensor | list[Tensor] = x.index_select(0, chosen)
    for transform in _flat(t.transforms) if len(chosen) else []:
        changed = _run(transform, changed)
    if isinstance(changed, Tensor) and (changed.shape[1:], changed.dtype) == (x.shape[1:], x.dtype):
        return _put(x, chosen, changed)
    images = list(x)
    for place, image in zip(chosen.tolist(), changed, strict=True):
        images[place] = image
    return _join([image[None] for image in images])


def _random_crop(t: Transform, x: Tensor) -> Tensor:
    found = t.make_params([x])  # torchvision works out the padding, and refuses an image that is too small
    if found["needs_pad"]:
        x = v2.Pad(found["padding"], t.fill, t.padding_mode)(x)
    room = x.shape[-2] - found["height"], x.shape[-1] - found["width"]
    top, left = (torch.randint(length + 1, (len(x),), device=x.device) for length in room)
    return crop(x, top, left, found["height"], found["width"])


def crop(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut a window of one size out of every image, whose upper left corner is `top`, `left`, both of shape `(B,)`."""
    if x.is_cpu:  # copying whole rows is five times as fast as indexing there
        places = zip(x, top.tolist(), left.tolist(), strict=True)
        return torch.stack([image[:, i : i + height, j : j + width] for image, i, j in places])
    windows = x.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def _draw_sides(t: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    """Draw area and aspect ten times for each image; return the two sides, shape `(B, 10)`: only few fit nowhere."""
    area = _uniform(x, *t.scale, 10) * (x.shape[-2] * x.shape[-1])
    aspect = _uniform(x, math.log(t.ratio[0]), math.log(t.ratio[1]), 10).exp()
    return (area * aspect).sqrt().round(), (area / aspect).sqrt().round()


def _first(fits: Tensor, *sides: Tensor) -> list[Tensor]:
    place = fits.int().argmax(1, keepdim=True)
    return [side.gather(1, place)[:, 0] for side in sides]


def _random_resized_crop(t: Transform, x: Tensor) -> Tensor:
    box = draw_resized_crop(t, x)
    if x.is_cpu or _mode(t) != "bilinear":
        # torchvision's uint8 kernel for the CPU is ten times as fast as matrix products there.
        resize = {"size": t.size, "interpolation": t.interpolation, "antialias": t.antialias}
        boxes = zip(x, box.tolist(), strict=True)
        return torch.stack([v2.functional.resized_crop(image, *place, **resize) for image, place in boxes])
    return resized_crop(x, box, t.size, bool(t.antialias))


def draw_resized_crop(t: Transform, x: Tensor) -> Tensor:
    """Draw top, left, height and width of a `RandomResizedCrop` for every image, shape `(B, 4)`."""
    high, wide = x.shape[-2:]
    widths, heights = _draw_sides(t, x)
    fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= high)
    height, width = _first(fits, heights, widths)
    found = fits.any(1)  # else the largest crop in the middle whose aspect is allowed
    height = torch.where(found, height, min(high, round(wide / min(t.ratio))))
    width = torch.where(found, width, min(wide, round(high * max(t.ratio))))
    top = torch.where(found, _uniform(x, 0, 1) * (high - height + 1), (high - height) / 2).floor()
    left = torch.where(found, _uniform(x, 0, 1) * (wide - width + 1), (wide - width) / 2).floor()
    return torch.stack([top, left, height, width], 1).long()


def resized_crop(x: Tensor, box: Tensor, size: Sequence[int], antialias: bool = True) -> Tensor:
    """Cut a box out of every image and resize it bilinearly, as two matrix products for the whole batch.

    Args:
        x: Images, shape `(B, C, H, W)`.
        box: Top, left, height and width, shape `(B, 4)`.
        size: Height and width to come.
        antialias: Whether the filter is as wide as what becomes one pixel.

    Returns:
        Images of shape `(B, C, *size)`.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    top, left, height, width = box.to(work).unbind(1)
    rows = _triangles(top, height, x.shape[-2], size[0], antialias)
    columns = _triangles(left, width, x.shape[-1], size[1], antialias)
    y = rows[:, None] @ (x.to(work) @ columns[:, None].mT)
    return (y if x.is_floating_point() else y.round_()).to(x.dtype)


def _triangles(start: Tensor, length: Tensor, old: int, new: int, antialias: bool) -> Tensor:
    """What each old pixel of one axis gives to each new one, shape `(B, new, old)`; nothing from outside the box."""
    start, length = start[:, None, None], length[:, None, None]
    centre = start + (torch.arange(new, device=start.device)[:, None] + 0.5) * (length / new)
    reach = (length / new).clamp(min=1) if antialias else 1
    pixel = torch.arange(old, device=start.device) + 0.5
    inside = (pixel > start) & (pixel < start + length)
    weight = (1 - (pixel - centre).abs() / reach).clamp_(min=0) * inside
    return weight / weight.sum(-1, keepdim=True)


def _random_rotation(t: Transform, x: Tensor) -> Tensor | None:
    # A fixed angle may be a quarter turn, which torchvision makes without resampling.
    plain = not t.expand and t.center is None and t.fill in (0, None) and t.degrees[0] != t.degrees[1]
    if not plain or _mode(t) not in ("nearest", "bilinear"):
        return None
    return rotate(x, _uniform(x, *t.degrees), _mode(t), faded=t.fill is not None)


def rotate(x: Tensor, angle: Tensor, mode: str, faded: bool = True) -> Tensor:
    """Rotate every image about its centre; what comes in from outside is 0.

    Args:
        x: Images, shape `(B, C, H, W)`.
        angle: Degrees anticlockwise, shape `(B,)`.
        mode: `nearest` or `bilinear`.
        faded: Whether a bilinear edge fades once more, as in torchvision where a fill is given, if only 0.

    Returns:
        Images of the same shape and type.
    """
    height, width = x.shape[-2:]
    work = torch.promote_types(x.dtype, torch.float32)
    turn = angle.to(work).deg2rad()
    across = torch.arange(width, device=x.device, dtype=work) - (width - 1) / 2
    down = (torch.arange(height, device=x.device, dtype=work) - (height - 1) / 2)[:, None]
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    grid = torch.stack([(across * cos - down * sin) * (2 / width), (across * sin + down * cos) * (2 / height)], -1)
    y = F.grid_sample(x.to(work), grid, mode, align_corners=False)
    if faded and mode == "bilinear":
        y *= F.grid_sample(torch.ones_like(x[:, :1], dtype=work), grid, mode, align_corners=False)
    return (y if x.is_floating_point() else y.round_()).to(x.dtype)


def _mode(t: Transform) -> str:
    return str(t.interpolation.value if isinstance(t.interpolation, Enum) else t.interpolation)


def _color_jitter(t: Transform, x: Tensor) -> Tensor | None:
    if x.shape[1] not in (1, 3):
        return None
    names = [name for name in _COLOURS if getattr(t, name) is not None]
    order = torch.rand(len(x), len(names), device=x.device).argsort(1)
    factors = [_uniform(x, *getattr(t, name)) for name in names]
    return jitter(x, dict(zip(names, factors, strict=True)), order)


def jitter(x: Tensor, factors: dict[str, Tensor], order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of every image, in an order of its own.

    Args:
        x: Images, shape `(B, C, H, W)`, of 1 or 3 channels.
        factors: For each of the four that is wanted, its factors as torchvision's, shape `(B,)`.
        order: Which of `factors` comes first, second, ... for every image, shape `(B, len(factors))`.

    Returns:
        Images of the same shape and type.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    y = x.to(work)
    for turn in order.unbind(1):
        for number, (name, factor) in enumerate(factors.items()):
            chosen = (turn == number).nonzero()[:, 0]
            if len(chosen):
                one = y if len(chosen) == len(y) else y.index_select(0, chosen)
                one = _COLOURS[name](one, factor[chosen].to(work)[:, None, None, None], x.dtype)
                one = one if x.is_floating_point() else one.floor_()
                y = one if len(chosen) == len(y) else _put(y, chosen, one)
    return y.to(x.dtype)


def _grey(y: Tensor, dtype: torch.dtype) -> Tensor:
    if y.shape[1] == 1:
        return y
    red, green, blue = y.split(1, 1)
    grey: Tensor = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return grey if dtype.is_floating_point else grey.floor_()


def _blend(y: Tensor, other: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.lerp(other, y, factor).clamp_(0, 1 if dtype.is_floating_point else 255)


def _brightness(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return (y * factor).clamp_(0, 1 if dtype.is_floating_point else 255)


def _contrast(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return _blend(y, _grey(y, dtype).mean((1, 2, 3), keepdim=True), factor, dtype)


def _saturation(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return y if y.shape[1] == 1 else _blend(y, _grey(y, dtype), factor, dtype)


def _hue(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn the colour wheel by a share of it; each channel is a trapezium of the angle between highest and lowest."""
    if y.shape[1] == 1:
        return y
    red, green, blue = y.split(1, 1)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    angle = torch.where(high == green, (blue - red).add_(span, alpha=2), (red - green).add_(span, alpha=4))
    angle = torch.where(high == red, green - blue, angle).div_(span.clamp(min=1e-12)).div_(6).add_(factor)
    # A channel is lowest where the angle is within a sixth of its opposite, and highest two sixths away from that.
    away = angle + torch.tensor([1 / 2, 1 / 6, -1 / 6], dtype=y.dtype, device=y.device)[:, None, None]
    away.sub_(away.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)
    turned: Tensor = high - away.mul_(span)
    # torchvision goes by way of [0, 1], and from there to whole numbers with this factor.
    return turned if dtype.is_floating_point else turned.mul_(255.999 / 255)


_COLOURS: dict[str, Callable[[Tensor, Tensor, torch.dtype], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}


def _random_erasing(t: Transform, x: Tensor) -> Tensor | None:
    if t.value is not None and len(t.value) not in (1, x.shape[1]):
        return None
    heights, widths = _draw_sides(t, x)
    fits = (heights < x.shape[-2]) & (widths < x.shape[-1])
    height, width = _first(fits, heights, widths)
    top, left = (_uniform(x, 0, 1) * (x.shape[-2] - height + 1), _uniform(x, 0, 1) * (x.shape[-1] - width + 1))
    erased = fits.any(1) & (_uniform(x, 0, 1) < t.p)
    box = torch.stack([top, left, height * erased, width], 1).long()
    if t.value is None:
        return erase(x, box, torch.randn(x.shape, device=x.device))
    return erase(x, box, torch.tensor(t.value, device=x.device)[:, None, None])


def erase(x: Tensor, box: Tensor, value: Tensor) -> Tensor:
    """Write `value`, of a shape that goes with `x`, into a box (top, left, height, width) of every image."""
    value = value.to(x.dtype)
    if x.is_cpu:  # a fifth of the time, as few pixels change
        y = x.clone()
        for image, new, (i, j, h, w) in zip(y, value.expand_as(x), box.tolist(), strict=True):
            image[:, i : i + h, j : j + w] = new[:, i : i + h, j : j + w]
        return y
    top, left, height, width = box[:, :, None].unbind(1)
    down, across = (torch.arange(length, device=x.device) for length in x.shape[-2:])
    rows, columns = (down >= top) & (down < top + height), (across >= left) & (across < left + width)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], value, x)


_BATCHED: dict[Any, Callable[[Transform, Tensor], Tensor | list[Tensor] | None]] = {
    **dict.fromkeys((v2.RandomHorizontalFlip, v2.RandomVerticalFlip, v2.RandomGrayscale, v2.RandomInvert), _some),
    **dict.fromkeys((v2.RandomPosterize, v2.RandomSolarize, v2.RandomAutocontrast, v2.RandomEqualize), _some),
    v2.RandomAdjustSharpness: _some,
    v2.RandomApply: _random_apply,
    v2.RandomCrop: _random_crop,
    v2.RandomResizedCrop: _random_resized_crop,
    v2.RandomRotation: _random_rotation,
    v2.ColorJitter: _color_jitter,
    v2.RandomErasing: _random_erasing,
}
