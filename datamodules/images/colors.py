"""torchvision's changes of color on whole batches, each image with factors and an order of its own."""

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.images.batched import Transform, put, uniform


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


def _brightness(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return (y * factor).clamp_(0, 1 if dtype.is_floating_point else 255)


def _contrast(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return _blend(y, _gray(y, dtype).mean((1, 2, 3), keepdim=True), factor, dtype)


def _saturation(y: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    return y if y.shape[1] == 1 else _blend(y, _gray(y, dtype), factor, dtype)


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
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}
