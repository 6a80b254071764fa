"""The usual random transforms of torchvision on whole batches, each image with a draw of its own.

Each is a draw, then a function of the images and of what was drawn, which returns torchvision's pixels. A transform
whose options are better left to torchvision, one image after the other, returns None.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

Transform = Any  # a v2.Transform: torchvision ships no types
SMALL = 2**12  # pixels in all channels of an image: a CPU is faster with larger ones one by one


def one_by_one(x: Tensor) -> bool:
    """Return whether copying parts of images is faster one image after the other than in one indexing."""
    return x.is_cpu and x[0].numel() > SMALL


def uniform(x: Tensor, low: float, high: float, *more: int) -> Tensor:
    """Draw numbers for every image, shape `(B, *more)`."""
    return torch.rand(len(x), *more, device=x.device) * (high - low) + low


def put(x: Tensor, chosen: Tensor, changed: Tensor) -> Tensor:
    """Replace the images whose numbers are `chosen`, shape `(n,)`, by others of the same shape and type."""
    place = torch.arange(len(x), device=x.device)
    place[chosen] = torch.arange(len(x), len(x) + len(chosen), device=x.device)
    return torch.cat([x, changed]).index_select(0, place)  # copies whole images, unlike index_copy: 4 times as fast


def random_crop(t: Transform, x: Tensor) -> Tensor:
    """Run a `RandomCrop`."""
    params = t.make_params([x])  # torchvision computes the padding, and refuses an image that is too small
    if params["needs_pad"]:
        x = v2.Pad(params["padding"], t.fill, t.padding_mode)(x)
    room = x.shape[-2] - params["height"], x.shape[-1] - params["width"]
    top, left = (torch.randint(length + 1, (len(x),), device=x.device) for length in room)
    return crop(x, top, left, params["height"], params["width"])


def crop(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut a window of one size out of every image, whose upper left corner is `top`, `left`, both of shape `(B,)`."""
    if one_by_one(x):  # copies whole rows
        places = zip(x, top.tolist(), left.tolist(), strict=True)
        return torch.stack([image[:, i : i + height, j : j + width] for image, i, j in places])
    windows = x.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def _draw_sides(t: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    """Draw area and aspect ten times for each image, and return the two sides, shape `(B, 10)`."""
    area = uniform(x, *t.scale, 10) * (x.shape[-2] * x.shape[-1])
    aspect = uniform(x, math.log(t.ratio[0]), math.log(t.ratio[1]), 10).exp()
    return (area * aspect).sqrt().round(), (area / aspect).sqrt().round()


def _first(fits: Tensor, *sides: Tensor) -> list[Tensor]:
    place = fits.int().argmax(1, keepdim=True)
    return [side.gather(1, place)[:, 0] for side in sides]


def random_resized_crop(t: Transform, x: Tensor) -> Tensor:
    """Run a `RandomResizedCrop`."""
    box = draw_resized_crop(t, x)
    if one_by_one(x) or _mode(t) != "bilinear":
        # torchvision's uint8 kernel for the CPU is ten times as fast as products of large matrices.
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
    top = torch.where(found, uniform(x, 0, 1) * (high - height + 1), (high - height) / 2).floor()
    left = torch.where(found, uniform(x, 0, 1) * (wide - width + 1), (wide - width) / 2).floor()
    return torch.stack([top, left, height, width], 1).long()


def resized_crop(x: Tensor, box: Tensor, size: Sequence[int], antialias: bool = True) -> Tensor:
    """Cut a box out of every image and resize it bilinearly, as two matrix products for the whole batch.

    Args:
        x: Images, shape `(B, C, H, W)`, which become `(B, C, *size)`.
        box: Top, left, height and width, shape `(B, 4)`.
        size: Height and width of the result.
        antialias: Whether to average over the whole area that becomes one pixel.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    top, left, height, width = box.to(work).unbind(1)
    rows = _triangles(top, height, x.shape[-2], size[0], antialias)
    columns = _triangles(left, width, x.shape[-1], size[1], antialias)
    y = rows[:, None] @ (x.to(work) @ columns[:, None].mT)
    return (y if x.is_floating_point() else y.round_()).to(x.dtype)


def _triangles(start: Tensor, length: Tensor, old: int, new: int, antialias: bool) -> Tensor:
    """Return the weight of each old pixel of one axis in each new one, `(B, new, old)`; 0 outside of the box."""
    start, length = start[:, None, None], length[:, None, None]
    center = start + (torch.arange(new, device=start.device)[:, None] + 0.5) * (length / new)
    reach = (length / new).clamp(min=1) if antialias else 1
    pixel = torch.arange(old, device=start.device) + 0.5
    inside = (pixel > start) & (pixel < start + length)
    weight = (1 - (pixel - center).abs() / reach).clamp_(min=0) * inside
    return weight / weight.sum(-1, keepdim=True)


def random_rotation(t: Transform, x: Tensor) -> Tensor | None:
    """Run a `RandomRotation` about the center, with 0 outside."""
    # A fixed angle may be a quarter turn, which torchvision makes without resampling.
    plain = not t.expand and t.center is None and t.fill in (0, None) and t.degrees[0] != t.degrees[1]
    if not plain or _mode(t) not in ("nearest", "bilinear"):
        return None
    # torchvision rotates counterclockwise here, and clockwise below.
    return affine(x, inverse_matrix(-uniform(x, *t.degrees)), mode=_mode(t), faded=t.fill is not None)


def random_affine(t: Transform, x: Tensor) -> Tensor | None:
    """Run a `RandomAffine` about the center, with 0 outside."""
    if t.center is not None or t.fill not in (0, None) or _mode(t) not in ("nearest", "bilinear"):
        return None
    shear = [uniform(x, *limits) for limits in zip(t.shear[::2], t.shear[1::2], strict=True)] if t.shear else []
    matrix = inverse_matrix(uniform(x, *t.degrees), uniform(x, *t.scale) if t.scale else None, *shear)
    limits = [share * side for share, side in zip(t.translate or (0, 0), (x.shape[-1], x.shape[-2]), strict=True)]
    shift = torch.stack([uniform(x, -limit, limit).round() for limit in limits], 1)
    return affine(x, matrix, shift, _mode(t), faded=t.fill is not None)


def inverse_matrix(
    angle: Tensor, scale: Tensor | None = None, shear_x: Tensor | None = None, shear_y: Tensor | None = None
) -> Tensor:
    """Return the matrices from where a pixel goes to where it comes from, `(B, 2, 2)`, as torchvision defines them.

    Angles are in degrees, clockwise; all are of shape `(B,)`.
    """
    turn = angle.deg2rad()
    x, y = (torch.zeros_like(turn) if shear is None else shear.deg2rad() for shear in (shear_x, shear_y))
    cos, sin = (turn - y).cos() / y.cos(), (turn - y).sin() / y.cos()
    matrix = torch.stack([turn.cos() - sin * x.tan(), turn.sin() + cos * x.tan(), -sin, cos], 1).view(-1, 2, 2)
    return matrix if scale is None else matrix / scale[:, None, None]


def affine(
    x: Tensor, matrix: Tensor, shift: Tensor | None = None, mode: str = "bilinear", faded: bool = False
) -> Tensor:
    """Transform every image about its center; what comes in from outside is 0.

    Args:
        x: Images, shape `(B, C, H, W)`.
        matrix: From where a pixel goes to where it comes from, shape `(B, 2, 2)`.
        shift: Pixels to the right and down, shape `(B, 2)`.
        mode: `nearest` or `bilinear`.
        faded: Whether a bilinear edge fades once more, as in torchvision where a fill is given, if only 0.
    """
    height, width = x.shape[-2:]
    work = torch.promote_types(x.dtype, torch.float32)
    across = torch.arange(width, device=x.device, dtype=work) - (width - 1) / 2
    down = torch.arange(height, device=x.device, dtype=work) - (height - 1) / 2
    matrix = matrix.to(work) * torch.tensor([[2 / width], [2 / height]], dtype=work, device=x.device)
    # One row of the grid and one column of it: their sum is all of it.
    rows, columns = across[:, None] * matrix[:, None, :, 0], down[:, None] * matrix[:, None, :, 1]
    if shift is not None:
        columns = columns - (matrix @ shift.to(work)[:, :, None]).mT
    grid = rows[:, None] + columns[:, :, None]
    y = F.grid_sample(x.to(work), grid, mode, align_corners=False)
    if faded and mode == "bilinear":
        y *= F.grid_sample(torch.ones_like(x[:, :1], dtype=work), grid, mode, align_corners=False)
    return (y if x.is_floating_point() else y.round_()).to(x.dtype)


def _mode(t: Transform) -> str:
    return str(getattr(t.interpolation, "value", t.interpolation))  # an enum, or what it may be given as instead


def random_erasing(t: Transform, x: Tensor) -> Tensor | None:
    """Run a `RandomErasing`."""
    if t.value is not None and len(t.value) not in (1, x.shape[1]):
        return None
    heights, widths = _draw_sides(t, x)
    fits = (heights < x.shape[-2]) & (widths < x.shape[-1])
    height, width = _first(fits, heights, widths)
    top, left = uniform(x, 0, 1) * (x.shape[-2] - height + 1), uniform(x, 0, 1) * (x.shape[-1] - width + 1)
    erased = fits.any(1) & (uniform(x, 0, 1) < t.p)
    box = torch.stack([top, left, height * erased, width], 1).long()
    noise = t.value is None
    value = torch.randn(x.shape, device=x.device) if noise else torch.tensor(t.value, device=x.device)[:, None, None]
    return erase(x, box, value)


def erase(x: Tensor, box: Tensor, value: Tensor) -> Tensor:
    """Write `value`, of a shape that goes with `x`, into a box (top, left, height, width) of every image."""
    value = value.to(x.dtype)
    if one_by_one(x):  # few pixels change
        y = x.clone()
        for image, new, (i, j, h, w) in zip(y, value.expand_as(x), box.tolist(), strict=True):
            image[:, i : i + h, j : j + w] = new[:, i : i + h, j : j + w]
        return y
    top, left, height, width = box[:, :, None].unbind(1)
    down, across = (torch.arange(length, device=x.device) for length in x.shape[-2:])
    rows, columns = (down >= top) & (down < top + height), (across >= left) & (across < left + width)
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], value, x)


def color_jitter(t: Transform, x: Tensor) -> Tensor | None:
    """Run a `ColorJitter`."""
    if x.shape[1] not in (1, 3):
        return None
    names = [name for name in _COLORS if getattr(t, name) is not None]
    order = torch.rand(len(x), len(names), device=x.device).argsort(1)
    factors = [uniform(x, *getattr(t, name)) for name in names]
    return jitter(x, dict(zip(names, factors, strict=True)), order)


def jitter(x: Tensor, factors: dict[str, Tensor], order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of every image, in an order of its own.

    Args:
        x: Images, shape `(B, C, H, W)`, of 1 or 3 channels.
        factors: Of each of the four to change, its factors as torchvision defines them, shape `(B,)`.
        order: Which of `factors` comes first, second, ... for every image, shape `(B, len(factors))`.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    y = x.to(work)
    for turn in order.unbind(1):
        for number, (name, factor) in enumerate(factors.items()):
            chosen = (turn == number).nonzero()[:, 0]
            if len(chosen):
                one = y if len(chosen) == len(y) else y.index_select(0, chosen)
                one = _COLORS[name](one, factor[chosen].to(work)[:, None, None, None], x.dtype)
                one = one if x.is_floating_point() else one.floor_()
                y = one if len(chosen) == len(y) else put(y, chosen, one)
    return y.to(x.dtype)


def _gray(y: Tensor, dtype: torch.dtype) -> Tensor:
    if y.shape[1] == 1:
        return y
    red, green, blue = y.split(1, 1)
    gray: Tensor = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return gray if dtype.is_floating_point else gray.floor_()


def _blend(y: Tensor, other: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.lerp(other, y, factor).clamp_(0, 1 if dtype.is_floating_point else 255)


def _hue(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotate the color wheel by a share of it; each channel is a trapezium of the angle between highest and lowest."""
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


_COLORS: dict[str, Callable[[Tensor, Tensor, torch.dtype], Tensor]] = {
    "brightness": lambda y, factor, dtype: (y * factor).clamp_(0, 1 if dtype.is_floating_point else 255),
    "contrast": lambda y, factor, dtype: _blend(y, _gray(y, dtype).mean((1, 2, 3), keepdim=True), factor, dtype),
    "saturation": lambda y, factor, dtype: y if y.shape[1] == 1 else _blend(y, _gray(y, dtype), factor, dtype),
    "hue": _hue,
}
