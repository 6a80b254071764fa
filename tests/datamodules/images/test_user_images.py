"""Pictures give the same numbers wherever they are looked at, and options mean what they say."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from datamodules import ImageFolderDataModule
from datamodules.errors import DataError
from datamodules.images import user_images as pictures
from datamodules.images.decoding import open_picture, to_square
from datamodules.statistics import image_moments
from kindling.cli import main
from lit_models import LitConvNet, LitTransfer
from tests.helpers.front_door import Run
from tests.helpers.photos import pixels, write_photos
from tests.helpers.published import publish_weights

Mistake = Callable[[str], str]
FLAGS = (
    "--accelerator cpu --model LitConvNet --model.channels [4,8] --model.lr 0.03 --data ImageFolderDataModule "
    "--data.image_size 16 --data.cache_dir cache --data.path photos --enable_progress_bar false --max_epochs 1 "
    "--logger false"
)
BEST = "runs/LitConvNet-ImageFolderDataModule/version_0/checkpoints/best.ckpt"


def data_of(path: str | Path, **options: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule(**{"path": str(path), "image_size": 8, "cache": "memory", **options})


def rows() -> list[dict[str, str]]:
    with Path("predictions.csv").open() as file:
        return list(csv.DictReader(file))


# Evaluation is prediction


def write_odd_photos(root: Path) -> Path:
    """Write pictures of three classes in every shape, mode and format."""
    write_photos(root, count=8)
    exif = Image.Exif()
    exif[274] = 6
    wide, tall = Image.fromarray(pixels(0, 99, 20, 70)), Image.fromarray(pixels(1, 99, 90, 30))
    wide.save(root / "ants" / "wide.jpg")
    wide.save(root / "ants" / "turned.jpg", exif=exif)
    wide.convert("L").save(root / "ants" / "gray.png")
    tall.save(root / "bees" / "tall.webp")
    tall.convert("CMYK").save(root / "bees" / "inks.jpg")
    tall.quantize(16).save(root / "bees" / "palette.gif")
    cat = Image.fromarray(pixels(2, 99, 33, 31))
    cat.putalpha(Image.linear_gradient("L").resize(cat.size))
    cat.save(root / "cats" / "alpha.png")
    Image.fromarray(pixels(2, 98)[..., 0].astype(np.uint16) * 257).save(root / "cats" / "deep.tif")
    Image.fromarray(pixels(2, 97, 5, 4)).save(root / "cats" / "small.bmp")
    return root


class Collect(Callback):
    """Keeps what a test predicts."""

    found: list[Tensor]

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew, where the test can read it."""
        Collect.found = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401  # Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch."""
        Collect.found.append(outputs)


@pytest.mark.parametrize(
    ("cache", "transforms"),
    [("disk", ""), ("none", '--data.eval_transforms [{"class_path":"Resize","init_args":{"size":[16,16]}}]')],
)
def test_the_same_pictures_give_the_same_probabilities_everywhere(run: Run, cache: str, transforms: str) -> None:
    write_odd_photos(Path("photos"))
    run(f"{FLAGS} {transforms} --data.cache {cache} --data.test_fraction 0.4 --data.num_workers 0")
    cli = run(f"test --ckpt_path {BEST} --trainer.callbacks+=tests.datamodules.test_pictures.Collect")
    tested = torch.cat(Collect.found)
    split = cli.datamodule.splits["test"]
    names = [cli.datamodule._found.pictures.names[row] for row in split.samples.x.rows[split.indices].tolist()]
    assert len(names) == len(tested) == 13
    assert len([name for name in names if not name.endswith(".png")]) > 1

    run(f"predict --ckpt_path {BEST}")
    whole = rows()
    assert [row["file"] for row in whole] == sorted(row["file"] for row in whole)
    assert len(whole) == 33
    predicted = {row["file"]: [float(row[f"probability_{name}"]) for name in ("ants", "bees", "cats")] for row in whole}
    torch.testing.assert_close(torch.tensor([predicted[name] for name in names]), tested, rtol=0, atol=1e-6)
    for row in whole:
        assert row[f"probability_{row['prediction']}"] == max(row[f"probability_{n}"] for n in ("ants", "bees", "cats"))

    model = LitConvNet.load_from_checkpoint(BEST, weights_only=True).eval()
    data = ImageFolderDataModule.load_from_checkpoint(BEST, weights_only=True)
    assert data.class_names == ["ants", "bees", "cats"]
    for name, expected in predicted.items():
        path = Path("photos") / name
        for raw in (path, str(path), path.read_bytes(), Image.open(path), np.asarray(open_picture(path))):
            x = data.encode(raw)
            assert (x.dtype, tuple(x.shape)) == (torch.uint8, (3, 16, 16))
            with torch.no_grad():
                found = model.predict_step(x[None], 0)[0]
            torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)
    for name in ("ants/turned.jpg", "bees/inks.jpg"):
        run(f"predict --ckpt_path {BEST} --data.path photos/{name}")
        (row,) = rows()
        found = torch.tensor([float(row[f"probability_{n}"]) for n in ("ants", "bees", "cats")])
        torch.testing.assert_close(found, torch.tensor(predicted[name]), rtol=0, atol=1e-6)


def test_what_is_encoded_is_decoded_once_more_the_same(tmp_path: Path) -> None:
    data = data_of(write_photos(tmp_path, count=4))
    x = data.encode(tmp_path / "ants" / "0000.png")
    assert torch.equal(data.encode(x), x)
    assert torch.equal(x, torch.from_numpy(to_square(open_picture(tmp_path / "ants/0000.png"), 9))[:, :8, :8])


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("nowhere.jpg", r"nowhere\.jpg: no regular file"),
        (Path("text.jpg"), r"text\.jpg: no picture of a known format"),
        (b"", "the file is empty"),
        (b"text", "no picture of a known format"),
        (np.zeros((4, 4, 3)), "an array of float64, not of uint8 from 0 to 255"),
        (torch.zeros(3, 4, 4), "an array of float32, not of uint8"),
        (np.zeros((0, 4), np.uint8), r"no picture can be made of an array of shape \(0, 4\)"),
        (None, "an array of object"),
        (Image.new("RGB", (0, 3)), r"damaged \(.*\)"),
    ],
)
def test_what_cannot_be_encoded_is_one_line(workdir: Path, raw: Any, why: str) -> None:  # noqa: ANN401  # anything
    Path("text.jpg").write_text("text")
    with pytest.raises(DataError, match=f"^ImageFolderDataModule: {why}.*\\.$") as error:
        data_of("anywhere").encode(raw)
    assert "\n" not in str(error.value)


# Options, through the real command line

CHAIN = [
    {"class_path": "RandomCrop", "init_args": {"size": 16, "padding": 2}},
    "RandomVerticalFlip",
    {"class_path": "ColorJitter", "init_args": {"brightness": 0.3}},
]
MIDDLE = [{"class_path": "CenterCrop", "init_args": {"size": 16}}]


def test_transforms_by_flags_by_file_and_by_checkpoint(run: Run) -> None:
    write_photos(Path("photos"), count=6)
    by_flag = [f"--data.train_transforms={json.dumps(CHAIN)}", f"--data.eval_transforms={json.dumps(MIDDLE)}"]
    options = {"train_transforms": CHAIN, "eval_transforms": MIDDLE}
    Path("own.yaml").write_text(yaml.safe_dump({"data": {"init_args": options}}))
    runs = [
        main([*FLAGS.split(), *by_flag]),
        main([*FLAGS.split(), "--config", "own.yaml"]),
    ]
    states = [cli.model.state_dict() for cli in runs]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    plain = run(FLAGS).model.state_dict()
    assert any(not torch.equal(plain[name], value) for name, value in states[0].items())
    cli = run(f"test --ckpt_path {BEST}")
    for name, value in options.items():
        assert cli.datamodule.hparams[name] == value
    assert [type(t).__name__ for t in cli.datamodule._training] == ["RandomCrop", "RandomVerticalFlip", "ColorJitter"]
    assert cli.trainer.callback_metrics["test_loss"] == pytest.approx(
        float(runs[0].trainer.callback_metrics["test_loss"])
    )
    saved = torch.load(BEST, weights_only=True)["datamodule_hyper_parameters"]
    assert saved["train_transforms"] == CHAIN


def test_no_transforms_train_on_what_is_evaluated(tmp_path: Path) -> None:
    root = write_photos(tmp_path, count=6)
    data = data_of(root, train_transforms=[])
    assert not data.augments
    squares, indices = data.splits["train"]
    x, _ = squares[indices]
    expected = torch.stack(
        [data.encode(root / data._found.pictures.names[i]) for i in squares.x.rows[indices].tolist()]
    )
    assert torch.equal(data.augment(x), expected)
    assert data_of(root).augments


def test_no_transforms_by_flag(run: Run) -> None:
    write_photos(Path("photos"), count=4)
    cli = run(f"{FLAGS} --data.train_transforms []")
    assert not cli.datamodule.augments
    assert cli.datamodule.input_shape == (3, 16, 16)


def test_pictures_are_augmented_only_in_training(run: Run) -> None:
    write_photos(Path("photos"), count=6)
    black = '[{"class_path":"RandomErasing","init_args":{"p":1.0,"scale":[1.0,1.0],"ratio":[1.0,1.0]}}]'
    cli = run(f"{FLAGS} --data.resize_size 16 --data.train_transforms {black}")
    for loaders in (cli.datamodule.val_dataloader(), cli.datamodule.test_dataloader()):
        assert all((x.flatten(1).long().sum(1) > 0).all() for x, _ in loaders[0])
    assert cli.datamodule.augments


RESIZE = [{"class_path": "Resize", "init_args": {"size": [8, 12]}}]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 16, 16)),
        ({"image_size": 20}, (3, 20, 20)),
        ({"eval_transforms": ["Grayscale"], "train_transforms": []}, (1, 18, 18)),
        ({"eval_transforms": RESIZE, "train_transforms": []}, (3, 8, 12)),
        ({"resize_size": 16}, (3, 16, 16)),
    ],
)
def test_shapes_are_those_that_transforms_give(tmp_path: Path, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    data = data_of(write_photos(tmp_path, count=4), **{"image_size": 16, **options})
    assert data.input_shape == shape
    ((x, _),) = data.test_dataloader()[0]
    assert x.shape[1:] == shape
    assert data.augment(torch.zeros(2, 3, data.resize_size, data.resize_size, dtype=torch.uint8)).shape == (2, *shape)


def test_the_model_gets_the_shape_that_transforms_give(run: Run) -> None:
    write_photos(Path("photos"), count=4)
    cli = run(f"{FLAGS} --data.image_size 20 --fast_dev_run true")
    assert list(cli.model.hparams["input_shape"]) == [3, 20, 20]


MISTAKES = {
    "--data.image_size 0": "--data.image_size 0: give a number of pixels, 1 or more.",
    "--data.resize_size -1": "--data.resize_size -1: give a number of pixels, 1 or more.",
    "--data.resize_size 12": "--data.resize_size 12: the middle of --data.image_size 16 is cut out of it; give no less",
    '--data.train_transforms [{"class_path":"RandomCrop","init_args":{"size":10}}]': (
        "--data.train_transforms: they give (3, 10, 10), but --data.eval_transforms give (3, 16, 16)"
    ),
    '--data.eval_transforms ["Grayscale"]': "they give (3, 16, 16), but --data.eval_transforms give (1, 18, 18)",
    "--data.eval_transforms CenterCrop": "--data.eval_transforms CenterCrop: expected",
    '--data.train_transforms ["RandomFlip"]': "--data.train_transforms: torchvision.transforms.v2 has no 'RandomFlip'",
    '--data.train_transforms ["Normalize"]': "the model normalizes",
    "--data.normalize what": "--data.normalize what: expected",
    "--data.normalize [[0.5],[0.5,0.5]]": "--data.normalize [[0.5], [0.5, 0.5]]: give fitted, imagenet, or the means",
    "--data.normalize [[0,0,0],[1,1,0]]": "--data.normalize [[0, 0, 0], [1, 1, 0]]: give fitted, imagenet",
    "--data.normalize [[0,.nan,0],[1,1,1]]": "--data.normalize [[0, nan, 0], [1, 1, 1]]: give fitted",
    "--data.normalize [[0,0,0],[1,.inf,1]]": "--data.normalize [[0, 0, 0], [1, inf, 1]]: give fitted",
    "--data.normalize [[0,0,0]]": "--data.normalize [[0, 0, 0]]: give fitted",
    "--data.interpolation lanczos": "--data.interpolation lanczos: expected",
    "--data.cache everywhere": "--data.cache everywhere: expected",
    "--data.on_bad_image ignore": "--data.on_bad_image ignore: expected",
    "--data.cache_dir photos/ants/0000.png": "cache='disk': photos/ants/0000.png cannot be written (File exists)",
}


# The same is said from a command line, where every option is a flag.
TYPED = [*(flags for flags, said in MISTAKES.items() if said.endswith("expected")), "--data.resize_size 12"]


@pytest.mark.parametrize("flags", [flags for flags in MISTAKES if flags not in TYPED])
def test_a_bad_option_says_what_is_wrong(workdir: Path, flags: str) -> None:
    name, value = flags.removeprefix("--data.").split(" ", 1)
    options = {"image_size": 16, "cache": "disk", name: yaml.safe_load(value)}
    with pytest.raises(DataError, match=re.escape(MISTAKES[flags])) as error:
        _ = data_of(write_photos(Path("photos"), count=3), **options).splits
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flags", TYPED)
def test_a_bad_flag_is_one_line(mistake: Mistake, workdir: Path, flags: str) -> None:
    write_photos(Path("photos"), count=3)
    assert MISTAKES[flags] in mistake(f"{FLAGS} {flags}")
    assert not Path("cache").exists()


def test_smaller_squares_may_be_enlarged(tmp_path: Path) -> None:
    enlarge = [{"class_path": "Resize", "init_args": {"size": [16, 16]}}]
    data = data_of(write_photos(tmp_path, count=4), resize_size=4, eval_transforms=enlarge, train_transforms=[])
    assert data.input_shape == (3, 16, 16)


def test_settings_are_printed_and_read(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(Path("photos"), count=4)
    with pytest.raises(SystemExit):
        main([*FLAGS.split(), f"--data.train_transforms={json.dumps(CHAIN)}", "--print_config"])
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["data"]["init_args"]["train_transforms"] == CHAIN
    Path("printed.yaml").write_text(yaml.safe_dump({"data": yaml.safe_load(printed)["data"]}))
    cli = run("--config printed.yaml --model LitConvNet --model.channels [4] --accelerator cpu --fast_dev_run true")
    assert cli.datamodule.hparams["train_transforms"] == CHAIN


# Statistics


@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("[[0.1,0.2,0.3],[0.4,0.5,0.6]]", [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
    ],
)
def test_what_is_normalized_by_is_in_the_model(run: Run, normalize: str, mean: list[float], std: list[float]) -> None:
    write_photos(Path("photos"), count=4)
    run(f"{FLAGS} --data.normalize {normalize}")
    model = LitConvNet.load_from_checkpoint(BEST, weights_only=True)
    torch.testing.assert_close(model.normalization.mean.flatten(), torch.tensor(mean))
    torch.testing.assert_close(model.normalization.std.flatten(), torch.tensor(std))


def test_statistics_are_fitted_on_training_pictures_only(run: Run) -> None:
    write_photos(Path("photos"), count=8)
    cli = run(f"{FLAGS} --data.val_fraction 0.2")
    names = cli.datamodule._found.pictures.names
    samples, indices = cli.datamodule.splits["train"]
    train_names = {names[row] for row in samples.x.rows[indices].tolist()}
    x = np.stack([to_square(open_picture(Path("photos") / name), 18) for name in sorted(train_names)])
    mean, std = image_moments(torch.from_numpy(x[:, :, 1:17, 1:17]))  # of 18 pixels, the 16 that are evaluated on
    model = LitConvNet.load_from_checkpoint(BEST, weights_only=True)
    torch.testing.assert_close(model.normalization.mean, mean)
    torch.testing.assert_close(model.normalization.std, std)
    for name in names:
        if name not in train_names:
            Image.new("RGB", (9, 9), "white").save(Path("photos") / name)
    again = data_of("photos", image_size=16, val_fraction=0.2)
    assert torch.equal(again.statistics["mean"], mean)
    Image.new("RGB", (9, 9), "white").save(Path("photos") / min(train_names))
    assert not torch.equal(data_of("photos", image_size=16, val_fraction=0.2).statistics["mean"], mean)


def test_statistics_of_many_are_those_of_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_photos(tmp_path, count=20)
    whole = data_of(root).statistics
    monkeypatch.setattr(pictures, "SAMPLE", 10)
    some, again, other = (data_of(root, seed=seed).statistics for seed in (0, 0, 1))
    assert torch.equal(some["mean"], again["mean"])
    assert not torch.equal(some["mean"], whole["mean"])
    assert not torch.equal(some["mean"], other["mean"])
    assert (some["mean"] - whole["mean"]).abs().max() < 0.2


# Caches, workers and resumption


def batches(data: ImageFolderDataModule) -> list[Tensor]:
    """Give all of two epochs, as they come."""
    loaders = [data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader(), *data.predict_dataloader()]
    return [
        batch if isinstance(batch, Tensor) else torch.cat([batch[0].flatten(), batch[1]])
        for loader in loaders
        for batch in loader
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_from_every_cache(tmp_path: Path, workers: int) -> None:
    root = write_photos(tmp_path / "photos")
    options = {"cache_dir": str(tmp_path / "cache"), "train_transforms": []}
    expected = batches(data_of(root, cache="disk", num_workers=0, **options))
    found = batches(data_of(root, cache="none", num_workers=workers, **options))
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_workers_decode_where_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_photos(tmp_path / "photos", count=6)
    monkeypatch.setattr(pictures, "available_cores", lambda: 3)
    options = {"cache_dir": str(tmp_path / "cache")}
    assert data_of(root, cache="none", **options).train_dataloader().num_workers == 3
    assert data_of(root, cache="disk", **options).train_dataloader().num_workers == 0
    assert data_of(root, cache="none", num_workers=1, **options).train_dataloader().num_workers == 1
    assert data_of(root, cache="none", num_workers=0, **options).train_dataloader().num_workers == 0
    assert data_of(root, cache="disk", num_workers=2, **options).train_dataloader().num_workers == 2


def test_a_run_interrupted_within_an_epoch_goes_on_exactly_with_workers(run: Run) -> None:
    write_photos(Path("photos"))
    flags = f"{FLAGS} --max_epochs 2 --data.cache none --data.num_workers 2 --data.batch_size 8"
    whole = run(flags).model.state_dict()
    with pytest.raises(SystemExit):
        run(f"{flags} --trainer.callbacks+=tests.helpers.tiny.Interrupt --trainer.callbacks.step 3")
    last = "runs/LitConvNet-ImageFolderDataModule/version_1/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3
    resumed = run(f"--accelerator cpu --enable_progress_bar false --max_epochs 2 --ckpt_path {last}")
    torch.testing.assert_close(resumed.model.state_dict(), whole, rtol=0, atol=0)


def test_a_run_interrupted_within_an_epoch_does_not_go_on_with_other_pictures(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(Path("photos"))
    with pytest.raises(SystemExit):
        run(f"{FLAGS} --data.batch_size 8 --trainer.callbacks+=tests.helpers.tiny.Interrupt --trainer.callbacks.step 3")
    Image.new("RGB", (9, 9)).save("photos/ants/0000.png")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("--ckpt_path runs/LitConvNet-ImageFolderDataModule/version_0/checkpoints/last.ckpt --max_epochs 1")
    assert "--data.path photos: this run was interrupted within an epoch on other data" in capsys.readouterr().err


def test_what_is_only_predicted_is_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(Path("photos"), count=5)
    run(FLAGS)
    write_photos(Path("new"), ["bees", "cats"], 4, first=50)
    before = sorted(Path().rglob("*"))
    run(f"predict --ckpt_path {BEST} --data.path new")
    expected = rows()
    run(f"test --ckpt_path {BEST} --data.path new")
    new = [path for path in sorted(Path().rglob("*")) if path not in before]
    assert [path for path in new if "tfevents" not in path.name] == [Path("predictions.csv")]
    monkeypatch.setattr(pictures, "physical_memory", lambda: 4.0)
    run(f"predict --ckpt_path {BEST} --data.path new --data.num_workers 0")
    assert rows() == expected
    assert not [path for path in Path("cache").rglob("*.npy") if path not in before]
    run(f"predict --ckpt_path {BEST} --data.path new --data.cache disk")
    assert len(list(Path("cache").rglob("*.npy"))) == 2


def test_a_tuned_model_takes_new_pictures_of_the_same_classes(run: Run) -> None:
    write_photos(Path("photos"), count=5)
    run(FLAGS)
    write_photos(Path("new"), count=6, first=50)
    cli = run(f"--accelerator cpu --ckpt_path {BEST} --data.path new --max_epochs 2 --enable_progress_bar false")
    assert cli.trainer.current_epoch == 2
    assert {stage: split.size for stage, split in cli.datamodule.splits.items()} == {"train": 13, "val": 1, "test": 4}


def test_a_state_goes_to_another_data_module(tmp_path: Path) -> None:
    data = data_of(write_photos(tmp_path / "photos", count=5))
    data.setup("fit")
    other = data_of(write_photos(tmp_path / "other", ["bees", "cats"], 3))
    assert other.class_names == ["bees", "cats"]
    other.load_state_dict(data.state_dict())
    assert other.class_names == ["ants", "bees", "cats"]
    assert other.is_new
    assert not data.is_new
    ((_, y),) = other.test_dataloader()[0]
    assert y.tolist() == [1, 1, 1, 2, 2, 2]
    assert other.decode(torch.tensor([[0.1, 0.7, 0.2]]))["prediction"] == ["bees"]


def test_photographs(data_dir: str, run: Run) -> None:
    cli = run(
        f"{FLAGS} --data.path {data_dir}/hymenoptera_data --data.cache memory --limit_train_batches 2 "
        "--data.num_workers 0"
    )
    assert cli.datamodule.class_names == ["ants", "bees"]
    assert {stage: split.size for stage, split in cli.datamodule.splits.items()} == {"train": 245, "val": 153}
    assert cli.model.hparams["task"] == "binary"


def test_gray_pictures_have_one_mean(run: Run) -> None:
    write_photos(Path("photos"), count=6)
    crop = '{"class_path":"CenterCrop","init_args":{"size":16}}'
    for more in ("", ',{"class_path":"ToDtype","init_args":{"dtype":"float32","scale":true}}'):
        chain = f"[{crop},Grayscale{more}]"
        run(f"{FLAGS} --data.train_transforms {chain} --data.eval_transforms {chain}")
    folders = sorted(Path("runs").rglob("best.ckpt"))
    means = [LitConvNet.load_from_checkpoint(path, weights_only=True).normalization.mean for path in folders]
    assert means[0].shape == (1, 1, 1)
    torch.testing.assert_close(means[0], means[1])  # whether they are counted or averaged


def test_without_a_trainer_a_training_batch_is_what_a_model_takes(tmp_path: Path) -> None:
    data = data_of(write_photos(tmp_path / "photos"), image_size=16, cache="memory")
    for loader in (data.train_dataloader(), *data.val_dataloader()):
        assert next(iter(loader))[0].shape[1:] == data.input_shape == (3, 16, 16)
    torch.manual_seed(0)
    first, second = (next(iter(data.train_dataloader()))[0] for _ in range(2))
    assert not first.equal(second)  # the same pictures, drawn anew


def test_what_the_user_normalizes_by_goes_before_the_weights(run: Run, request: pytest.FixtureRequest) -> None:
    write_photos(Path("photos"), count=6)
    publish_weights(request, "squeezenet1_1")
    flags = FLAGS.replace("LitConvNet --model.channels [4,8]", "LitTransfer --model.backbone squeezenet1_1")
    flags = f"{flags.replace('--data.image_size 16', '--data.image_size 32')} --data.normalize"
    means = []
    for told in ("[[0.1,0.2,0.3],[1,1,1]]", "null"):
        run(f"{flags} {told}")
    for path in sorted(Path("runs").rglob("best.ckpt")):
        model = LitTransfer.load_from_checkpoint(path, weights_only=True)
        means.append(model.normalization.mean.flatten().tolist())
    assert means == [pytest.approx([0.1, 0.2, 0.3]), pytest.approx([0.485, 0.456, 0.406])]
