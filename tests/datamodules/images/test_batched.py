"""Random geometry, erasing and colors on batches, compared with torchvision's own."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from datamodules.images.batched import affine, crop, draw_resized_crop, erase, inverse_matrix, jitter, resized_crop
from datamodules.images.transforms import build, transform_batch
from tests.helpers.transforms import (
    HIGH,
    OPTION,
    WIDE,
    Elsewhere,
    both,
    channels_too,
    config_of,
    levels_between,
    run_transform,
    smooth_images,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", [Tensor, Elsewhere])
def test_a_crop_is_torchvisions(kind: type[Tensor]) -> None:
    x = smooth_images()
    top, left = torch.randint(0, 11, (8,)), torch.randint(0, 7, (8,))
    y = crop(x.as_subclass(kind), top, left, 30, 50)
    for image, i, j, made in zip(x, top.tolist(), left.tolist(), y, strict=True):
        assert made.equal(F.crop(image, i, j, 30, 50))


@pytest.mark.parametrize(
    "args",
    [
        {"size": 30},
        {"size": [40, 56]},
        {"size": [40, 40], "padding": 4},
        {"size": [44, 50], "padding": [3, 5], "fill": 7},
        {"size": [44, 50], "padding": [1, 2, 3, 4], "padding_mode": "reflect"},
        {"size": [44, 50], "padding": 3, "padding_mode": "symmetric"},
        {"size": [50, 70], "pad_if_needed": True, "fill": [1, 2, 3]},
        {"size": [50, 30], "padding": 1, "pad_if_needed": True, "padding_mode": "edge"},
    ],
)
def test_a_random_crop_is_any_window_of_the_padded_image(args: dict[str, Any]) -> None:
    image = smooth_images(1)
    high, wide = v2.RandomCrop(**args).size
    padding = v2.RandomCrop(**args).make_params([image])["padding"]
    padded = v2.Pad(padding, args.get("fill", 0), args.get("padding_mode", "constant"))(image)
    windows = padded.unfold(2, high, 1).unfold(3, wide, 1)[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
    y = run_transform(image.repeat(50, 1, 1, 1), "RandomCrop", **args)
    seen = {int((windows == made).flatten(1).all(1).nonzero()[0, 0]) for made in y}
    assert len(seen) > min(len(windows), 50) * 0.5
    if len(windows) <= 60:  # every place has its turn
        y = run_transform(image.repeat(600, 1, 1, 1), "RandomCrop", **args)
        assert len(y.unique(dim=0)) == len(windows.unique(dim=0))


@both
@channels_too
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [[24, 24], [60, 17], [40, 56]])
def test_a_resized_crop_is_torchvisions(size: list[int], antialias: bool, channels: int, dtype: torch.dtype) -> None:
    x = smooth_images(40, channels, dtype)
    box = draw_resized_crop(v2.RandomResizedCrop(24, ratio=[0.3, 3.0]), x)
    y = resized_crop(x, box, size, antialias)
    for image, place, made in zip(x, box.tolist(), y, strict=True):
        assert levels_between(made, F.resized_crop(image, *place, size=size, antialias=antialias)) <= 1


def test_a_resized_crop_of_floats_is_exact() -> None:
    x = torch.rand(20, 3, HIGH, WIDE)
    box = draw_resized_crop(v2.RandomResizedCrop(24), x)
    for antialias in (True, False):
        made = resized_crop(x, box, [24, 30], antialias)
        asked = [
            F.resized_crop(i, *p, size=[24, 30], antialias=antialias) for i, p in zip(x, box.tolist(), strict=True)
        ]
        torch.testing.assert_close(made, torch.stack(asked), rtol=0, atol=1e-5)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
def test_the_cpu_and_an_accelerator_give_the_same_resized_crop(interpolation: str, antialias: bool) -> None:
    x = smooth_images(20)
    transforms = build(
        [config_of("RandomResizedCrop", size=24, interpolation=interpolation, antialias=antialias)], OPTION
    )
    torch.manual_seed(1)
    here = transform_batch(transforms, x)
    torch.manual_seed(1)
    there = transform_batch(transforms, x.as_subclass(Elsewhere)) if interpolation == "bilinear" else here
    assert levels_between(here, there.as_subclass(Tensor)) <= 1
    torch.manual_seed(1)
    boxes = draw_resized_crop(transforms[0], x).tolist()
    options = {"size": [24, 24], "interpolation": v2.InterpolationMode(interpolation), "antialias": antialias}
    assert here.equal(torch.stack([F.resized_crop(i, *p, **options) for i, p in zip(x, boxes, strict=True)]))


@pytest.mark.parametrize(
    ("shape", "args"),
    [
        ((40, 56), {}),
        ((40, 56), {"scale": [0.3, 0.5], "ratio": [1.0, 1.0]}),
        ((100, 20), {"scale": [0.5, 1.0]}),  # mostly the way out: too narrow
        ((20, 100), {"scale": [0.9, 1.0]}),  # always: too wide
        ((30, 30), {"scale": [1.0, 1.0], "ratio": [0.5, 0.9]}),
        ((30, 30), {"scale": [1.5, 1.6], "ratio": [0.9, 1.1]}),  # always: the whole image
    ],
)
def test_boxes_of_a_resized_crop_are_distributed_as_torchvisions(shape: tuple[int, int], args: dict[str, Any]) -> None:
    transform = v2.RandomResizedCrop(24, **args)
    image = torch.zeros(3, *shape)
    theirs = [transform.make_params([image]) for _ in range(2000)]
    asked = torch.tensor([[p[k] for k in ("top", "left", "height", "width")] for p in theirs]).double()
    made = draw_resized_crop(transform, image.expand(2000, -1, -1, -1)).double()
    assert (made[:, :2] >= 0).all()
    assert (made[:, :2] + made[:, 2:] <= torch.tensor(shape)).all()
    for a, b in ((made, asked), (made[:, 2] * made[:, 3], asked[:, 2] * asked[:, 3]), (made.log1p(), asked.log1p())):
        error = (a.std(0) ** 2 / 2000 + b.std(0) ** 2 / 2000).sqrt()  # of a difference of two means
        assert ((a.mean(0) - b.mean(0)).abs() <= 4.5 * error + 1e-9).all()
        assert ((a.std(0) - b.std(0)).abs() <= 0.1 * b.std(0) + 1e-9).all()


@both
@channels_too
@pytest.mark.parametrize("fill", [0, None])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_rotation_is_torchvisions(mode: str, fill: int | None, channels: int, dtype: torch.dtype) -> None:
    x = smooth_images(40, channels, dtype)
    angle = torch.rand(40) * 360 - 180
    y = affine(x, inverse_matrix(-angle), None, mode, faded=fill is not None)
    asked = [F.rotate(i, a, v2.InterpolationMode(mode), fill=fill) for i, a in zip(x, angle.tolist(), strict=True)]
    off = (y.double() - torch.stack(asked).double()).abs() > (1e-4 if dtype.is_floating_point else 1)
    assert off.double().mean() < 1e-3  # a pixel on a border between two may go to either


@pytest.mark.parametrize(
    "args",
    [
        {"degrees": [90, 90], "interpolation": "bilinear"},  # without resampling
        {"degrees": [20, 20], "expand": True},
        {"degrees": [20, 20], "fill": 9},
        {"degrees": [20, 20], "center": [3, 4]},
    ],
)
def test_other_rotations_are_torchvisions_own(args: dict[str, Any]) -> None:
    x = smooth_images(dtype=torch.float32, high=WIDE)
    assert run_transform(x, "RandomRotation", **args).equal(
        torch.stack([v2.RandomRotation(**args)(image) for image in x])
    )


@pytest.mark.parametrize("args", [{"expand": True}, {"fill": [1, 2, 3]}, {"center": [3, 4]}])
def test_other_rotations_still_draw_for_every_sample(args: dict[str, Any]) -> None:
    x = smooth_images(1, high=WIDE).repeat(8, 1, 1, 1)
    made = transform_batch(
        build([config_of("RandomRotation", degrees=90, **args), config_of("CenterCrop", size=40)], OPTION), x
    )
    assert len(made.unique(dim=0)) == 8


@both
@pytest.mark.parametrize("name", ["RandomRotation", "RandomAffine"])
@pytest.mark.parametrize("degrees", [10, [20, 40]])
def test_angles_are_drawn_between_the_limits(degrees: Any, name: str, dtype: torch.dtype) -> None:  # noqa: ANN401  # YAML's
    x = torch.zeros(200, 1, 41, 61, dtype=dtype)
    x[:, 0, 20, 31:] = 1 if dtype.is_floating_point else 255  # a hand to the right
    y = run_transform(x, name, degrees=degrees, interpolation="bilinear").double()[:, 0]
    down, right = torch.arange(41.0) - 20, torch.arange(61.0) - 30
    turned = torch.atan2(-(y * down[:, None]).sum((1, 2)), (y * right).sum((1, 2))) * 180 / math.pi
    turned = turned if name == "RandomRotation" else -turned  # torchvision's affine transforms rotate clockwise
    low, high = v2.RandomRotation(degrees).degrees
    assert low - 1 < turned.min() < low + 3
    assert high - 3 < turned.max() < high + 1


@both
@channels_too
@pytest.mark.parametrize("fill", [0, None])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_an_affine_transform_is_torchvisions(mode: str, fill: int | None, channels: int, dtype: torch.dtype) -> None:
    x = smooth_images(40, channels, dtype)
    angle, scale = torch.rand(40) * 360 - 180, torch.rand(40) + 0.5
    shear, shift = torch.rand(40, 2) * 40 - 20, torch.randint(-9, 10, (40, 2))
    y = affine(x, inverse_matrix(angle, scale, *shear.unbind(1)), shift, mode, faded=fill is not None)
    drawn = zip(x, angle.tolist(), shift.tolist(), scale.tolist(), shear.tolist(), strict=True)
    asked = torch.stack([F.affine(*one, v2.InterpolationMode(mode), fill=fill) for one in drawn])
    off = (y.double() - asked.double()).abs() > (1e-4 if dtype.is_floating_point else 1)
    assert off.double().mean() < 1e-3  # a pixel on a border between two may go to either


@both
@pytest.mark.parametrize(
    "args",
    [
        {"scale": [0.5, 0.5]},
        {"scale": [1.5, 1.5], "shear": [10, 10]},
        {"shear": [10, 10, -20, -20], "interpolation": "bilinear"},
        {"interpolation": "bilinear", "fill": None},
        {"fill": 9},  # these two are left to torchvision
        {"center": [3, 4]},
    ],
)
def test_a_random_affine_transform_without_choice_is_torchvisions(args: dict[str, Any], dtype: torch.dtype) -> None:
    x = smooth_images(dtype=dtype)
    (transform,) = build([config_of("RandomAffine", degrees=[20, 20], **args)], OPTION)
    y = transform_batch([transform], x)
    off = (y.double() - torch.stack([transform(image) for image in x]).double()).abs()
    assert (off > (1e-4 if dtype.is_floating_point else 1)).double().mean() < 1e-3


def test_translations_are_drawn_as_torchvisions() -> None:
    x = torch.zeros(2000, 1, 41, 61, dtype=torch.uint8)
    x[:, 0, 20, 30] = 255
    args = {"degrees": 0, "translate": [0.1, 0.3]}
    made = run_transform(x, "RandomAffine", **args).flatten(1)
    assert (made == 255).sum(1).eq(1).all()  # by whole pixels
    place = made.int().argmax(1)
    right, down = (place % 61 - 30).double(), (place // 61 - 20).double()
    drawn = [v2.RandomAffine(**args).make_params([x[0]])["translate"] for _ in range(2000)]
    for a, b, most in zip((right, down), torch.tensor(drawn).double().unbind(1), (6, 12), strict=True):
        assert a.abs().max() == b.abs().max() == most
        assert (a.mean() - b.mean()).abs() <= 4.5 * ((a.var() + b.var()) / 2000).sqrt()
        assert (a.std() - b.std()).abs() <= 0.1 * b.std()


def test_scales_and_shears_are_drawn_for_every_sample_between_the_limits() -> None:
    x = torch.zeros(300, 1, 61, 61)
    x[:, 0, 21:40, 21:40] = 1
    args = {"degrees": 0, "interpolation": "bilinear"}
    side = run_transform(x, "RandomAffine", scale=[0.5, 1.5], **args).sum((1, 2, 3)).sqrt() / 19
    assert 0.48 < side.min() < 0.55
    assert 1.45 < side.max() < 1.52
    rows = run_transform(x, "RandomAffine", shear=[-30, 30], **args)[:, 0]
    center = (rows * torch.arange(61)).sum(2) / rows.sum(2).clamp(min=1e-6)
    slope = (center[:, 38] - center[:, 22]) / 16
    limit = math.tan(math.radians(30))
    assert slope.abs().max() <= limit + 0.02
    assert slope.min() < -0.9 * limit
    assert slope.max() > 0.9 * limit


@both
@pytest.mark.parametrize("kind", [Tensor, Elsewhere])
def test_erasing_is_torchvisions(kind: type[Tensor], dtype: torch.dtype) -> None:
    x = smooth_images(dtype=dtype)
    box = torch.tensor([[n, 2 * n, 3 * n, 4 * n + 1] for n in range(8)])
    for value in (torch.tensor([0.0])[:, None, None], torch.rand(3, 1, 1), torch.rand(8, 3, HIGH, WIDE)):
        y = erase(x.as_subclass(kind), box, value)
        for n, (i, j, h, w) in enumerate(box.tolist()):
            new = value[n, :, i : i + h, j : j + w] if value.ndim == 4 else value
            assert y[n].equal(F.erase(x[n], i, j, h, w, new))


@pytest.mark.parametrize(
    "args", [{}, {"p": 1.0, "scale": [0.4, 0.6], "ratio": [0.2, 5.0]}, {"p": 1.0, "scale": [0.9, 1.0]}]
)
def test_erased_boxes_are_distributed_as_torchvisions(args: dict[str, Any]) -> None:
    x = torch.full((2000, 1, 30, 42), 7, dtype=torch.uint8)
    made = (run_transform(x, "RandomErasing", **args) == 0)[:, 0]
    theirs = v2.RandomErasing(**args)
    asked = torch.stack([theirs(image) for image in x])[:, 0] == 0
    tall, wide = made.any(2).sum(1), made.any(1).sum(1)
    assert (tall * wide).equal(made.sum((1, 2)))
    measures: list[Callable[[Tensor], Tensor]] = [
        lambda e: e.any(2).sum(1),
        lambda e: e.any(1).sum(1),
        lambda e: e.sum((1, 2)),
        lambda e: e.any(2).int().argmax(1),
        lambda e: e.any(1).int().argmax(1),
        lambda e: e.any(2).any(1),
    ]
    for measure in measures:
        a, b = measure(made).double(), measure(asked).double()
        error = ((a.var() + b.var()) / 2000).sqrt()
        assert (a.mean() - b.mean()).abs() <= 4.5 * error + 1e-9


def test_erasing_writes_the_value_of_each_channel_or_noise() -> None:
    x = smooth_images(60, dtype=torch.float32)
    y = run_transform(x, "RandomErasing", p=1.0, value=[2.0, 3.0, 4.0])
    assert ((y == x) | (y == torch.tensor([2.0, 3.0, 4.0])[:, None, None])).all()
    assert not y.equal(x)
    noise = run_transform(x, "RandomErasing", p=1.0, value="random")
    new = noise[noise != x]
    assert new.mean().item() == pytest.approx(0, abs=0.05)
    assert new.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("side", [8, 28, 100])
def test_small_and_large_images_are_erased_and_cropped_alike(side: int) -> None:
    x = torch.randint(0, 256, (20, 1, side, side), dtype=torch.uint8)
    steps = [config_of("RandomCrop", size=side, padding=2), config_of("RandomErasing", p=0.7)]
    results = []
    for kind in (Tensor, Elsewhere):
        torch.manual_seed(1)
        results.append(transform_batch(build(steps, OPTION), x.as_subclass(kind)).as_subclass(Tensor))
    assert results[0].equal(results[1])
    assert not results[0].equal(x)


# Colors

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
