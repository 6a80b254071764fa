"""Random colors on batches, compared with torchvision's own."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from datamodules.images.colors import jitter
from tests.helpers.transforms import both, channels_too, levels_between, run_transform, smooth_images


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


ADJUST = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}
RANGES = {"brightness": (0.0, 2.5), "contrast": (0.0, 2.5), "saturation": (0.0, 2.5), "hue": (-0.5, 0.5)}


@both
@channels_too
@pytest.mark.parametrize("name", ADJUST)
def test_colors_are_torchvisions(name: str, channels: int, dtype: torch.dtype) -> None:
    x = torch.randint(0, 256, (30, channels, 20, 31), dtype=torch.uint8)
    x[:, :, :4] = x[:, :1, :4]  # gray: a hue of its own
    x[:, :, 4:6] = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(31).view(2, 31)
    x = x if dtype == torch.uint8 else x / 255
    low, high = RANGES[name]
    factor = torch.rand(30) * (high - low) + low
    factor[:3] = torch.tensor([low, high, 0.0 if name == "hue" else 1.0])
    y = jitter(x, {name: factor}, torch.zeros(30, 1, dtype=torch.long))
    asked = torch.stack([ADJUST[name](i, f) for i, f in zip(x, factor.tolist(), strict=True)])
    assert levels_between(y, asked) <= (1 if dtype == torch.uint8 else 0.02)
    assert levels_between(y[2], x[2]) <= 0.01  # the factor that changes nothing


@both
def test_every_image_has_its_own_order_of_colors(dtype: torch.dtype) -> None:
    x = smooth_images(50, dtype=dtype)
    factors = {name: torch.rand(50) * (high - low) + low for name, (low, high) in RANGES.items()}
    order = torch.rand(50, 4).argsort(1)
    y = jitter(x, factors, order)
    for number, (image, made) in enumerate(zip(x, y, strict=True)):
        for place in order[number].tolist():
            name = list(ADJUST)[place]
            image = ADJUST[name](image, factors[name][number].item())
        # A level lost in one step may grow in the next: by 2.5 in each of three, and hue swings where all are close.
        assert (made.double() - image.double()).abs().mean() * (255 if dtype.is_floating_point else 1) < 0.3


def test_an_order_of_colors_and_factors_are_drawn_for_every_sample() -> None:
    x = smooth_images(1).repeat(200, 1, 1, 1)
    y = run_transform(x, "ColorJitter", brightness=[2.0, 2.0], contrast=[0.3, 0.3])
    orders = y.unique(dim=0)
    assert len(orders) == 2  # two orders of two fixed changes
    share = (y == orders[0]).flatten(1).all(1).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.16)  # four and a half standard deviations
    gray = torch.full((2000, 1, 2, 2), 100, dtype=torch.uint8)
    light = run_transform(gray, "ColorJitter", brightness=0.4)[:, 0, 0, 0].double()
    assert 60 <= light.min() < 61
    assert 138 < light.max() <= 140
    assert light.mean().item() == pytest.approx(99.5, abs=80 / math.sqrt(12 * 2000) * 4.5)
    assert run_transform(x, "ColorJitter").equal(x)
