"""Short names of transforms, transforms by name, and normalization, for all images."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from datamodules import DataError, DigitsDataModule, ImageDataModule, Samples
from datamodules.base import Stage
from datamodules.images import base
from datamodules.images.base import Transformed
from datamodules.statistics import image_moments
from lit_models import LitMLP
from tests.helpers.tiny import TinyImages
from tests.helpers.trainers import quiet_trainer

SHAPES = [(1, 9, 7), (3, 8, 12), (1, 28, 28)]
ALL: dict[str, Any] = {"shift": 2, "rotation": 20.0, "crop": 0.3, "flip": True, "erasing": 0.5}


class Noise(ImageDataModule):
    """Forty random images of two classes.

    Args:
        shape: Channels, height and width.
        kwargs: Options of `ImageDataModule` and `DataModule`.
    """

    def __init__(self, shape: tuple[int, int, int] = (3, 10, 12), **kwargs: Any) -> None:
        self.input_shape = shape
        super().__init__(**kwargs)
        self.class_names = ["a", "b"]
        self.num_outputs = 2

    def load(self) -> dict[Stage, Samples]:
        """Make the images, the same every time."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (40, *self.image_shape), dtype=torch.uint8, generator=generator)
        return {"train": Samples(x, torch.arange(40) % 2)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def noise(shape: tuple[int, int, int], batch: int = 64) -> Tensor:
    return torch.randint(1, 256, (batch, *shape), dtype=torch.uint8)


def augmented(x: Tensor, **options: Any) -> Tensor:
    _, channels, height, width = x.shape
    return Noise((channels, height, width), **options).augment(x)


def shifted(x: Tensor, down: int, right: int, limit: int) -> Tensor:
    """Return images shifted with zeros coming in, by cropping padded ones."""
    _, _, height, width = x.shape
    padded = F.pad(x, (limit, limit, limit, limit))
    return padded[..., limit - down : limit - down + height, limit - right : limit - right + width]


# Short names


@pytest.mark.parametrize("rotation", [0.0, 1e-9])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_moves_whole_pixels_and_each_image_on_its_own(shape: tuple[int, int, int], rotation: float) -> None:
    x = noise(shape, 1000)
    moved = augmented(x, shift=2, rotation=rotation)
    counts = [
        int((moved == shifted(x, down, right, 2)).flatten(1).all(1).sum())
        for down in range(-2, 3)
        for right in range(-2, 3)
    ]
    assert sum(counts) == 1000
    assert min(counts) > 40 - 4.5 * math.sqrt(40)  # all 25 shifts are equally likely
    assert max(counts) < 40 + 4.5 * math.sqrt(40)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_flip_mirrors_half_of_the_images_exactly(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = noise(shape, 400).to(dtype)
    moved = augmented(x, flip=True)
    mirrored, kept = ((moved == other).flatten(1).all(1) for other in (x.flip(-1), x))
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_asked_changes_nothing(shape: tuple[int, int, int]) -> None:
    x = noise(shape)
    data = Noise(shape)
    assert data.augment(x) is x
    assert not data.augments


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_type_and_shape_stay(dtype: torch.dtype) -> None:
    x = noise((3, 8, 12)).to(dtype)
    moved = augmented(x, **ALL)
    assert (moved.shape, moved.dtype) == (x.shape, x.dtype)
    assert moved.float().min() >= 0
    assert moved.float().max() <= 255


@pytest.mark.parametrize("options", [{"shift": 3}, {"rotation": 20.0}, {"crop": 0.4}])
def test_every_image_gets_a_draw_of_its_own(options: dict[str, Any]) -> None:
    x = noise((1, 28, 28), 1).expand(50, -1, -1, -1)
    assert len(augmented(x, **options).unique(dim=0)) > 25


def test_all_channels_of_an_image_move_together() -> None:
    x = noise((1, 12, 10)).expand(-1, 3, -1, -1)
    moved = augmented(x, **ALL)
    assert moved[:, 0].equal(moved[:, 1])
    assert moved[:, 0].equal(moved[:, 2])


def test_a_rotation_keeps_the_center() -> None:
    x = noise((1, 9, 13))
    assert augmented(x, rotation=180.0)[..., 4, 6].equal(x[..., 4, 6])


@pytest.mark.parametrize(("height", "width"), [(41, 61), (61, 41)])
def test_a_rotation_keeps_distances_in_an_oblong_image_and_its_limit(height: int, width: int) -> None:
    y, x = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    blob = torch.exp(-((y[:, None] - 0) ** 2 + (x[None] - 12) ** 2) / 8.0)  # 12 pixels to the right of the center
    moved = augmented(blob.expand(300, 1, -1, -1), rotation=30.0)[:, 0]
    moved = moved / moved.sum((1, 2), keepdim=True)
    down, right = (moved * y[:, None]).sum((1, 2)), (moved * x).sum((1, 2))
    torch.testing.assert_close(torch.hypot(down, right), torch.full((300,), 12.0), rtol=0, atol=0.2)
    angle = torch.atan2(down, right) * 180 / math.pi
    assert angle.abs().max() < 31
    assert angle.min() < -20
    assert angle.max() > 20


def test_a_crop_only_enlarges_alike_in_both_directions() -> None:
    ramp = (torch.arange(20)[:, None] + 100.0 * torch.arange(30)).expand(300, 1, -1, -1)
    moved = augmented(ramp, crop=0.4)[:, 0]
    down = (moved[:, -2, 1] - moved[:, 1, 1]) / 17
    right = (moved[:, 1, -2] - moved[:, 1, 1]) / 27 / 100
    torch.testing.assert_close(down, right, rtol=0, atol=0.5 / 20 + 0.5 / 30)  # crops are of whole pixels
    assert right.min() >= 0.6 - 0.5 / 30
    assert right.min() < 0.65
    assert right.max() <= 1 + 1e-3
    assert right.max() > 0.95


def test_a_crop_may_lie_anywhere_in_the_image() -> None:
    rows = torch.arange(20.0)[:, None].expand(300, 1, 20, 30)
    middle = augmented(rows, crop=0.4)[:, 0, 9:11].mean((1, 2))
    assert middle.min() < 9.5 - 2
    assert middle.max() > 9.5 + 2


def test_a_crop_lets_nothing_in_from_outside() -> None:
    white = torch.full((64, 1, 12, 9), 255, dtype=torch.uint8)
    assert augmented(white, crop=0.4).min() >= 254


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_takes_one_rectangle_out_of_the_asked_share_of_images(probability: float) -> None:
    x = torch.full((400, 3, 120, 200), 7, dtype=torch.uint8)
    erased = augmented(x, erasing=probability) == 0
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
    x = noise((1, 28, 28))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(augmented(x, **ALL))
    assert results[0].equal(results[1])
    assert not results[0].equal(x)


def test_only_what_is_asked_changes_the_images() -> None:
    x = DigitsDataModule().load()["train"].x
    assert DigitsDataModule().augment(x) is x
    for name, value in {"shift": 1, "rotation": 15.0, "crop": 0.3, "flip": True, "erasing": 0.5}.items():
        data = DigitsDataModule(**{name: value})
        changed = data.augment(x)
        assert data.augments
        assert (changed.shape, changed.dtype) == (x.shape, x.dtype)
        assert (changed != x).flatten(1).any(1).float().mean() > 0.3, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 1.5}, "crop=1.5: give a share from 0 to 1."),
        ({"erasing": -0.1}, "erasing=-0.1: give a share from 0 to 1."),
        ({"shift": -1}, "shift=-1: give a number of pixels from 0 to 7."),
        ({"shift": 8}, "shift=8: give a number of pixels from 0 to 7."),
        ({"rotation": -5.0}, "rotation=-5.0: give degrees to either side, 0 or more."),
        (
            {"flip": True, "train_transforms": []},
            "flip=True: it is short for one of `train_transforms`, which are given too; give only one.",
        ),
        ({"normalize": "imagenet"}, "normalize='imagenet': give fitted, imagenet, or the means and"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        DigitsDataModule(**options)
    assert str(error.value).startswith(message)


def test_short_names_are_transforms_of_torchvision() -> None:
    data = Noise((3, 20, 30), **ALL)
    names = [type(transform).__name__ for transform in data.train_transforms]
    assert names == ["RandomAffine", "RandomResizedCrop", "RandomHorizontalFlip", "RandomErasing"]
    assert [type(transform) for transform in Noise((3, 20, 30), shift=2).train_transforms] == [v2.RandomCrop]


# Transforms by name

LARGER: list[Any] = [{"class_path": "Resize", "init_args": {"size": [16, 20]}}]


def test_known_data_sets_take_transforms_by_name() -> None:
    chain: list[Any] = [{"class_path": "RandomCrop", "init_args": {"size": 16}}, "RandomInvert"]
    center: list[Any] = [{"class_path": "CenterCrop", "init_args": {"size": 16}}]
    data = TinyImages(train_transforms=chain, eval_transforms=center, batch_size=8)
    assert (data.image_shape, data.input_shape, data.in_features) == ((1, 28, 28), (1, 16, 16), 256)
    assert data.augments
    for loader in (data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()):
        assert all(x.shape[1:] == (1, 16, 16) for x, _ in loader)
    samples, indices = data.splits["test"]
    raw = data.load()["train"].x
    assert samples[indices][0].equal(raw[indices][..., 6:22, 6:22])
    assert data.encode(raw[3]).equal(raw[3, :, 6:22, 6:22])
    train_rows = data.splits["train"].indices
    torch.testing.assert_close(data.statistics["mean"], image_moments(raw[train_rows][..., 6:22, 6:22])[0])


def test_short_names_follow_the_transforms_of_evaluation() -> None:
    data = Noise(eval_transforms=LARGER, shift=1)
    assert [type(transform) for transform in data.train_transforms] == [v2.Resize, v2.RandomCrop]
    assert data.augment(noise((3, 10, 12))).shape == (64, 3, 16, 20)
    assert data.encode(noise((3, 10, 12))[0]).shape == data.input_shape == (3, 16, 20)
    with pytest.raises(DataError, match="an input has 360 numbers, not 960"):
        data.encode(torch.zeros(3, 16, 20))


def test_training_and_evaluation_get_one_size_or_it_is_one_line() -> None:
    message = r"^train_transforms: they give \(3, 16, 20\), but `eval_transforms` give \(3, 10, 12\); end both"
    with pytest.raises(DataError, match=message):
        Noise(train_transforms=LARGER)
    to_float: list[Any] = [{"class_path": "ToDtype", "init_args": {"dtype": "float32"}}]
    with pytest.raises(DataError, match=r"^eval_transforms: they leave floating-point numbers that are not from 0 to"):
        Noise(eval_transforms=to_float)


def test_a_model_trains_and_tests_on_transformed_images() -> None:
    data = Noise(eval_transforms=LARGER, flip=True, batch_size=10, val_fraction=0.2)
    model = LitMLP(in_features=960, num_outputs=2, task="multiclass", hidden=[4])
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, data)
    assert trainer.test(model, data, verbose=False)[0]["test_loss"] > 0
    predicted = trainer.predict(model, Noise(eval_transforms=LARGER, test_fraction=0.0))  # of the training split
    assert predicted is not None
    assert [len(batch) for batch in predicted] == [36]


def test_the_public_training_split_is_of_evaluated_images_and_a_fit_loads_raw_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Noise(eval_transforms=LARGER, flip=True)
    batch, _ = next(iter(DataLoader(data.splits["train"], batch_size=4)))
    raw = data.load()["train"].x[data.splits["train"].indices]
    assert batch.shape[1:] == data.input_shape
    assert batch.equal(torch.stack([data.encode(image) for image in raw[:4]]))
    shapes, augment = set(), data.augment

    def look(x: Tensor) -> Tensor:
        shapes.add(x.shape[1:])
        return augment(x)

    monkeypatch.setattr(data, "augment", look)
    quiet_trainer().fit(LitMLP(in_features=960, num_outputs=2, task="multiclass", hidden=[4]), data)
    assert shapes == {data.image_shape}


class Seen(LitMLP):
    """Keeps the inputs of every training and validation step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401
        """Keep the inputs."""
        self.seen = [*getattr(self, "seen", []), batch[0].clone()]
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Keep the inputs."""
        self.seen = [*getattr(self, "seen", []), batch[0].clone()]
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize("options", [{}, {"eval_transforms": LARGER}])
def test_one_batch_is_overfitted_as_it_is_evaluated(options: dict[str, Any]) -> None:
    data = Noise(flip=True, erasing=1.0, batch_size=8, **options)
    model = Seen(in_features=data.in_features, num_outputs=2, task="multiclass", hidden=[4])
    quiet_trainer(max_epochs=2, overfit_batches=1).fit(model, data)
    x, _ = data.splits["train"][:]
    assert len(model.seen) >= 4
    assert all(other.equal(model.seen[0]) for other in model.seen)
    assert all((x == image).flatten(1).all(1).any() for image in model.seen[0])


def test_without_a_test_split_predictions_are_of_transformed_images() -> None:
    data = Noise(eval_transforms=LARGER, train_transforms=[*LARGER, "RandomInvert"], num_folds=2)
    assert data.fold_is_test
    assert data.splits["test"].samples is not data.splits["train"].samples


# Statistics


def test_given_normalization_is_taken_and_fitted_is_of_the_training_split() -> None:
    given = Noise(normalize=[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]).statistics
    assert given["mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert given["std"].flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    for normalize in (None, "fitted"):
        data = Noise(normalize=normalize, flip=True)
        samples, indices = data.splits["train"]
        assert [value.tolist() for value in data.statistics.values()] == [
            value.tolist() for value in image_moments(samples.x[indices])
        ]


def test_statistics_of_many_transformed_images_are_those_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Noise(eval_transforms=LARGER).statistics["mean"]
    monkeypatch.setattr(base, "SAMPLE", 5)
    some, again = (Noise(eval_transforms=LARGER).statistics["mean"] for _ in range(2))
    assert some.equal(again)
    assert not some.equal(whole)
    assert Noise().statistics["mean"].allclose(whole, atol=0.02)  # what is not transformed is used whole


def test_transformed_images_are_indexed_like_a_tensor() -> None:
    x = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 4).contiguous()
    some = Transformed(x, torch.tensor([4, 2, 0]), [v2.CenterCrop(2)])
    assert len(some) == 3
    batch = some.index_select(0, torch.tensor([2, 0]))
    assert batch.shape == (2, 3, 2, 2)
    assert batch[:, 0, 0, 0].tolist() == [0, 4]
