"""Images from the user's files: options, transforms, statistics, caches, workers and state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from datamodules import ImageFolderDataModule
from datamodules.errors import DataError
from datamodules.images import base, user_images
from datamodules.images.decoding import open_image, resize_and_crop
from datamodules.statistics import image_moments
from kindling.cli import main
from kindling.errors import as_flags
from lit_models import LitConvNet, LitTransfer
from tests.helpers.front_door import Run
from tests.helpers.photos import write_photos
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


# One image


def test_what_is_encoded_is_decoded_once_more_the_same(tmp_path: Path) -> None:
    data = data_of(write_photos(tmp_path, count=4))
    x = data.encode(tmp_path / "ants" / "0000.png")
    assert torch.equal(data.encode(x), x)
    assert torch.equal(x, torch.from_numpy(resize_and_crop(open_image(tmp_path / "ants/0000.png"), 9))[:, :8, :8])


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("nowhere.jpg", r"nowhere\.jpg: not a regular file"),
        (Path("text.jpg"), r"text\.jpg: not an image of a known format"),
        (b"", "the file is empty"),
        (b"text", "not an image of a known format"),
        (np.zeros((4, 4, 3)), "an array of float64, not of uint8 from 0 to 255"),
        (torch.zeros(3, 4, 4), "an array of float32, not of uint8"),
        (np.zeros((0, 4), np.uint8), r"an array of shape \(0, 4\) is not an image"),
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
    assert [type(t).__name__ for t in cli.datamodule.train_transforms] == [
        "RandomCrop",
        "RandomVerticalFlip",
        "ColorJitter",
    ]
    assert cli.trainer.callback_metrics["test_loss"] == pytest.approx(
        float(runs[0].trainer.callback_metrics["test_loss"])
    )
    saved = torch.load(BEST, weights_only=True)["datamodule_hyper_parameters"]
    assert saved["train_transforms"] == CHAIN


def test_no_transforms_train_on_what_is_evaluated(tmp_path: Path) -> None:
    root = write_photos(tmp_path, count=6)
    data = data_of(root, train_transforms=[])
    assert not data.augments
    samples, indices = data.splits["train"]
    x = samples.x.images.index_select(0, samples.x.rows[indices])
    expected = torch.stack(
        [data.encode(root / data.source.found.images.names[i]) for i in samples.x.rows[indices].tolist()]
    )
    assert torch.equal(data.augment(x), expected)
    assert data_of(root).augments


def test_no_transforms_by_flag(run: Run) -> None:
    write_photos(Path("photos"), count=4)
    cli = run(f"{FLAGS} --data.train_transforms []")
    assert not cli.datamodule.augments
    assert cli.datamodule.input_shape == (3, 16, 16)


def test_images_are_augmented_only_in_training(run: Run) -> None:
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
    "--data.resize_size 12": "--data.resize_size 12: the center of --data.image_size 16 is cropped out of it; give",
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
    "--data.cache_dir photos/ants/0000.png": "--data.cache disk: photos/ants/0000.png cannot be written (File exists)",
}


# The same is said from a command line, where every option is a flag.
TYPED = [*(flags for flags, said in MISTAKES.items() if said.endswith("expected")), "--data.resize_size 12"]


@pytest.mark.parametrize("flags", [flags for flags in MISTAKES if flags not in TYPED])
def test_a_bad_option_says_what_is_wrong(workdir: Path, flags: str) -> None:
    name, value = flags.removeprefix("--data.").split(" ", 1)
    options = {"image_size": 16, "cache": "disk", name: yaml.safe_load(value)}
    with pytest.raises(DataError) as error:
        _ = data_of(write_photos(Path("photos"), count=3), **options).splits
    assert MISTAKES[flags] in as_flags(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flags", TYPED)
def test_a_bad_flag_is_one_line(mistake: Mistake, workdir: Path, flags: str) -> None:
    write_photos(Path("photos"), count=3)
    assert MISTAKES[flags] in mistake(f"{FLAGS} {flags}")
    assert not Path("cache").exists()


def test_smaller_images_may_be_enlarged(tmp_path: Path) -> None:
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


def test_statistics_are_fitted_on_training_images_only(run: Run) -> None:
    write_photos(Path("photos"), count=8)
    cli = run(f"{FLAGS} --data.val_fraction 0.2")
    names = cli.datamodule.source.found.images.names
    samples, indices = cli.datamodule.splits["train"]
    train_names = {names[row] for row in samples.x.rows[indices].tolist()}
    x = np.stack([resize_and_crop(open_image(Path("photos") / name), 18) for name in sorted(train_names)])
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
    monkeypatch.setattr(base, "SAMPLE", 10)
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
    monkeypatch.setattr(user_images, "available_cores", lambda: 3)
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


def test_a_run_interrupted_within_an_epoch_does_not_go_on_with_other_images(
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


def test_gray_images_have_one_mean(run: Run) -> None:
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
    assert not first.equal(second)  # the same images, drawn anew


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
