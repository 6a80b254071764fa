"""Smooth images, and transforms run on a batch of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.images.transforms import Config, build, transform_batch

OPTION = "train_transforms"
HIGH, WIDE = 40, 56

both = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
channels_too = pytest.mark.parametrize("channels", [1, 3])


class Elsewhere(Tensor):
    """A tensor that claims not to be on the CPU, so that the code for an accelerator can be tested here."""

    is_cpu = False


def smooth_images(batch: int = 8, channels: int = 3, dtype: torch.dtype = torch.uint8, high: int = HIGH) -> Tensor:
    """Return smooth images, `(batch, channels, high, 56)`, on which filters are compared best."""
    small = torch.rand(batch, channels, 5, 7)
    x = torch.nn.functional.interpolate(small, (high, WIDE), mode="bilinear").mul(255).round().to(torch.uint8)
    return x if dtype == torch.uint8 else x.to(dtype) / 255


def config_of(name: str, **args: Any) -> Config:
    """Return a transform as a configuration names it."""
    return {"class_path": name, "init_args": args} if args else name


def run_transform(x: Tensor, name: str, **args: Any) -> Tensor:
    """Run one transform on a batch."""
    return transform_batch(build([config_of(name, **args)], OPTION), x)


def levels_between(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, in gray levels of 256."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    return float((a.double() - b.double()).abs().max()) * (255 if a.is_floating_point() else 1)
