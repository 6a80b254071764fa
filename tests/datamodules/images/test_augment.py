"""Random changes to images."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.images.augment import random_affine, random_erasing

SHAPES = [(1, 9, 7), (3, 8, 12), (1, 28, 28)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _noise(shape: tuple[int, int, int], batch: int = 64) -> Tensor:
    return torch.randint(1, 256, (batch, *shape), dtype=torch.uint8)


def _shifted(x: Tensor, down: int, right: int, limit: int) -> Tensor:
    """Shift images with zeros coming in, by cutting from a padded one."""
    _, _, height, width = x.shape
    padded = F.pad(x, (limit, limit, limit, limit))
    return padded[..., limit - down : limit - down + height, limit - right : limit - right + width]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_moves_whole_pixels_exactly_and_each_image_on_its_own(shape: tuple[int, int, int]) -> None:
    x = _noise(shape, 200)
    moved = random_affine(x, shift=2)
    found = torch.zeros(200, dtype=torch.bool)
    steps = set()
    for down in range(-2, 3):
        for right in range(-2, 3):
            same = (moved == _shifted(x, down, right, 2)).flatten(1).all(1)
            found |= same
            if same.any():
                steps.add((down, right))
    assert found.all()
    assert len(steps) == 25


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_flip_mirrors_half_of_the_images_exactly(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = _noise(shape, 400).to(dtype)
    moved = random_affine(x, flip=True)
    tolerance = 0 if dtype == torch.uint8 else 1e-2  # in units of 255
    mirrored = ((moved.float() - x.flip(-1).float()).abs() <= tolerance).flatten(1).all(1)
    kept = ((moved.float() - x.float()).abs() <= tolerance).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_asked_changes_nothing(shape: tuple[int, int, int]) -> None:
    x = _noise(shape)
    assert random_affine(x).equal(x)
    assert random_erasing(x, 0.0).equal(x)
    torch.testing.assert_close(random_affine(x / 255), x / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_type_and_shape_stay(dtype: torch.dtype) -> None:
    x = _noise((3, 8, 12)).to(dtype)
    moved = random_erasing(random_affine(x, 2, 20.0, 0.3, True), 0.5)
    assert (moved.shape, moved.dtype) == (x.shape, dtype)
    assert moved.float().min() >= 0
    assert moved.float().max() <= 255


@pytest.mark.parametrize("options", [{"shift": 3}, {"rotation": 20.0}, {"crop": 0.4}])
def test_every_image_gets_a_draw_of_its_own(options: dict[str, float]) -> None:
    x = _noise((1, 28, 28), 1).expand(50, -1, -1, -1)
    assert len(random_affine(x, **options).unique(dim=0)) > 25  # type: ignore[arg-type]  # shift is an int


def test_all_channels_of_an_image_move_together() -> None:
    x = _noise((1, 12, 10)).expand(-1, 3, -1, -1)
    moved = random_erasing(random_affine(x, 2, 20.0, 0.3, True), 0.5)
    assert moved[:, 0].equal(moved[:, 1])
    assert moved[:, 0].equal(moved[:, 2])


def test_a_rotation_keeps_the_center() -> None:
    x = _noise((1, 9, 13))
    moved = random_affine(x, rotation=180.0)
    assert moved[..., 4, 6].equal(x[..., 4, 6])


@pytest.mark.parametrize(("height", "width"), [(41, 61), (61, 41)])
def test_a_rotation_keeps_distances_in_an_oblong_image_and_its_limit(height: int, width: int) -> None:
    y, x = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    blob = torch.exp(-((y[:, None] - 0) ** 2 + (x[None] - 12) ** 2) / 8.0)  # 12 pixels to the right of the center
    moved = random_affine(blob.expand(300, 1, -1, -1), rotation=30.0)[:, 0]
    moved = moved / moved.sum((1, 2), keepdim=True)
    down, right = (moved * y[:, None]).sum((1, 2)), (moved * x).sum((1, 2))
    torch.testing.assert_close(torch.hypot(down, right), torch.full((300,), 12.0), rtol=0, atol=0.2)
    angle = torch.atan2(down, right) * 180 / math.pi
    assert angle.abs().max() < 31
    assert angle.min() < -20
    assert angle.max() > 20


def test_a_crop_only_enlarges_alike_in_both_directions() -> None:
    ramp = (torch.arange(20)[:, None] + 100.0 * torch.arange(30)).expand(300, 1, -1, -1)
    moved = random_affine(ramp, crop=0.4)[:, 0]
    down = (moved[:, -2, 1] - moved[:, 1, 1]) / 17
    right = (moved[:, 1, -2] - moved[:, 1, 1]) / 27 / 100
    torch.testing.assert_close(down, right, rtol=0, atol=1e-3)
    assert right.min() >= 0.6 - 1e-3
    assert right.min() < 0.65
    assert right.max() <= 1 + 1e-3
    assert right.max() > 0.95


def test_a_crop_may_lie_anywhere_in_the_image() -> None:
    rows = torch.arange(20.0)[:, None].expand(300, 1, 20, 30)
    middle = random_affine(rows, crop=0.4)[:, 0, 9:11].mean((1, 2))
    assert middle.min() < 9.5 - 2
    assert middle.max() > 9.5 + 2


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_takes_one_rectangle_out_of_the_asked_share_of_images(probability: float) -> None:
    x = torch.full((400, 3, 120, 200), 7, dtype=torch.uint8)
    erased = random_erasing(x, probability) == 0
    assert erased[:, 0].equal(erased[:, 1])
    assert erased[:, 0].equal(erased[:, 2])
    area = erased[:, 0].sum((1, 2))
    box = erased[:, 0].any(1).sum(1) * erased[:, 0].any(2).sum(1)
    assert area.equal(box)
    hit = area > 0
    assert hit.float().mean().item() == pytest.approx(probability, abs=0.08)
    share = area[hit] / (120 * 200)
    assert share.min() > 0.017  # 2 %, but for the rounding to whole pixels
    assert share.max() < 0.345
    assert share.max() - share.min() > 0.25
    assert len(erased[hit, 0].unique(dim=0)) > 0.9 * hit.sum()


def test_augmenting_can_be_repeated() -> None:
    x = _noise((1, 28, 28))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(random_erasing(random_affine(x, 2, 20.0, 0.3, True), 0.5))
    assert results[0].equal(results[1])
    assert not results[0].equal(x)


def test_a_crop_lets_nothing_in_from_outside() -> None:
    torch.manual_seed(0)
    white = torch.full((64, 1, 12, 9), 255, dtype=torch.uint8)
    assert random_affine(white, crop=0.4).min() >= 254
