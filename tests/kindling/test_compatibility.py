"""What must cross between data and model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import Namespace
from PIL import Image
from torchvision import models

import datamodules
import lit_models
from datamodules import ImageFolderDataModule
from kindling import compatibility
from kindling.compatibility import FOLLOWING, choose, prepare
from lit_models import LitTransfer
from tests.helpers.front_door import Run

BACKBONE = "mobilenet_v3_small"


@pytest.fixture(autouse=True)
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images of each of two classes."""
    draw = np.random.default_rng(0)
    for name, level in (("dark", 0), ("bright", 150)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = draw.integers(level, level + 100, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def _prepared(
    model: dict[str, Any], given: dict[str, Any], ckpt_path: str | None = None, name: str = "LitTransfer"
) -> dict[str, Any]:
    """Return the options of image data that its model's weights filled in."""
    options = {"path": "photos", "image_size": 224, "resize_size": None, "interpolation": "bilinear", **given}
    data = Namespace(class_path="datamodules.ImageFolderDataModule", init_args=Namespace(**options))
    by_hand = Namespace(data=Namespace(class_path=data.class_path, init_args=Namespace(**given)))
    config = Namespace(
        model=Namespace(class_path=f"lit_models.{name}", init_args=Namespace(**model)), data=data, ckpt_path=ckpt_path
    )
    prepare(config, by_hand)
    return {name: value for name, value in vars(config.data.init_args).items() if name != "path"}


def _chosen(
    data: dict[str, Any], model: dict[str, Any] | None = None, subcommand: str = "fit"
) -> tuple[str | None, str | None, list[str]]:
    """Return the names of the data and the model that are chosen, and what is said."""
    groups = {"data": data, "model": model or {}}
    chosen, lines = choose({key: {"init_args": {}, **group} for key, group in groups.items()}, subcommand)
    names = [chosen[key]["class_path"].rpartition(".")[2] if key in chosen else None for key in groups]
    return names[0], names[1], lines


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ("CSVDataModule", FOLLOWING["CSVDataModule"]),
        ("MNISTDataModule", "LitLeNet"),
        ("FashionMNISTDataModule", "LitLeNet"),
        ("TextCSVDataModule", "LitTextClassifier"),
        ("TextCorpusDataModule", "LitGPT"),
    ],
)
def test_the_model_follows_from_the_data(data: str, model: str) -> None:
    assert _chosen({"class_path": f"datamodules.{data}"}) == (None, model, [f"{data} with {model} (--model overrules)"])
    assert _chosen({"class_path": f"datamodules.{data}"}, {"class_path": "lit_models.LitMLP"}) == (None, None, [])


def test_options_that_only_an_mlp_has_get_an_mlp_as_in_older_command_lines() -> None:
    table = {"class_path": "datamodules.CSVDataModule"}
    assert _chosen(table, {"init_args": {"activation": "tanh", "lr": 0.1}})[1] == "LitMLP"
    assert _chosen(table, {"init_args": {"hidden": [8]}})[1] == FOLLOWING["CSVDataModule"]
    assert _chosen(table, {"init_args": {"hiden": [8]}})[1] == FOLLOWING["CSVDataModule"]


@pytest.mark.parametrize("data", ["datamodules.DigitsDataModule", "datamodules.ToyDataModule", "mine.CSVDataModule"])
def test_of_other_data_it_is_an_mlp_and_nothing_is_said(data: str) -> None:
    assert _chosen({"class_path": data}) == (None, "LitMLP", [])


def test_the_data_follow_from_their_path(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1.5,2\n" * 40)
    options = {"init_args": {"path": str(path)}}
    model = FOLLOWING["CSVDataModule"]
    what = f"{path}: a table of 2 columns; CSVDataModule"
    assert _chosen(options) == ("CSVDataModule", model, [f"{what} with {model} (--data and --model overrule)"])
    named = {"class_path": "lit_models.LitMLP"}
    assert _chosen(options, named) == ("CSVDataModule", None, [f"{what} (--data overrules)"])
    assert _chosen({**options, "class_path": "datamodules.ToyDataModule"})[0] is None
    assert _chosen({}) == (None, None, [])


def test_without_weights_a_small_network_learns_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = {"class_path": "datamodules.ImageFolderDataModule"}
    assert _chosen(folder, subcommand="test")[1] == "LitTransfer"
    monkeypatch.setattr(compatibility, "why_unavailable", lambda backbone: f"no {backbone}")
    name, model, lines = _chosen(folder)
    assert (name, model) == ("ImageFolderDataModule", "LitConvNet")
    assert (
        lines[1]
        == "no pretrained weights (no resnet18): a small network learns from scratch (--model LitTransfer insists)"
    )
    assert _chosen(folder, {"init_args": {"backbone": "vgg16"}})[1] == "LitTransfer"
    monkeypatch.setattr(compatibility, "why_unavailable", lambda backbone: "")
    assert _chosen(folder)[1:] == ("LitTransfer", ["ImageFolderDataModule with LitTransfer (--model overrules)"])


def test_each_kind_of_data_that_a_model_follows_from_exists() -> None:
    assert {*FOLLOWING} <= {*datamodules.__all__}
    assert {*FOLLOWING.values()} <= {*lit_models.__all__}


B1: dict[str, Any] = {"backbone": "efficientnet_b1", "weights": "IMAGENET1K_V1", "lr": 0.1}


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (B1, {}, (240, 256, "bicubic")),
        ({"backbone": "resnet18", "weights": "DEFAULT"}, {}, (224, 256, "bilinear")),
        (B1, {"resize_size": 300}, (240, 300, "bicubic")),
        (B1, {"interpolation": "nearest"}, (240, 256, "nearest")),
        (B1, {"image_size": 64}, (64, None, "bicubic")),  # the size of the squares follows from it
        (B1, {"image_size": 64, "resize_size": 70, "interpolation": "bilinear"}, (64, 70, "bilinear")),
        ({**B1, "weights": "none"}, {}, (224, None, "bilinear")),
        ({**B1, "weights": None}, {}, (224, None, "bilinear")),
    ],
    ids=str,
)
def test_images_are_prepared_as_those_of_the_weights(
    model: dict[str, Any], given: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    assert tuple(_prepared(model, given).values()) == expected


def test_a_checkpoint_knows_how_its_images_were_prepared() -> None:
    assert _prepared(B1, {}, ckpt_path="best.ckpt")["image_size"] == 224


def test_other_models_have_nothing_to_say() -> None:
    assert _prepared({"lr": 0.1}, {}, name="LitConvNet")["image_size"] == 224


def test_data_without_these_options_are_left_alone(run: Run, tmp_path: Path) -> None:
    torch.save(models.get_model(BACKBONE, weights=None).state_dict(), tmp_path / "w.pth")
    cli = run(
        f"--model LitTransfer --model.backbone {BACKBONE} --model.weights {tmp_path}/w.pth "
        "--data tests.helpers.tiny.TinyImages --fast_dev_run true"
    )
    assert isinstance(cli.model, LitTransfer)
    assert cli.model.hparams["input_shape"] == [1, 28, 28]


def test_a_notebook_asks_for_them(photos: Path) -> None:
    data = ImageFolderDataModule(str(photos), cache="memory", **LitTransfer.preprocessing(**B1))
    assert (data.image_size, data.resize_size, data.interpolation) == (240, 256, "bicubic")
    assert data.input_shape == (3, 240, 240)


def test_from_the_command_line_to_a_prediction(run: Run, photos: Path, tmp_path: Path) -> None:
    torch.save(models.get_model(BACKBONE, weights=None).state_dict(), tmp_path / "w.pth")
    common = "--data.cache_dir cache"
    cli = run(
        f"--model LitTransfer --model.backbone {BACKBONE} --model.weights {tmp_path}/w.pth --max_epochs 1 "
        f"--logger false --data ImageFolderDataModule --data.path {photos} --data.resize_size 240 {common}"
    )
    assert isinstance(cli.datamodule, ImageFolderDataModule)
    assert (cli.datamodule.image_size, cli.datamodule.resize_size) == (224, 240)
    assert cli.model.hparams["input_shape"] == [3, 224, 224]
    assert cli.model.hparams["task"] == "binary"
    best = Path(cli.trainer.default_root_dir) / "checkpoints" / "best.ckpt"
    (tmp_path / "w.pth").unlink()
    tested = run(f"test --ckpt_path {best}")
    assert isinstance(tested.datamodule, ImageFolderDataModule)
    assert (tested.datamodule.image_size, tested.datamodule.resize_size) == (224, 240)
    run(f"predict --ckpt_path {best} --data.path {photos}/dark")
    assert len(Path("predictions.csv").read_text().splitlines()) == 11


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (
            "--model LitMLP --data TextCorpusDataModule",
            "--model LitMLP: it cannot read running text, which these data are (TextCorpusDataModule); give --model "
            "LitGPT.",
        ),
        (
            "--model LitMLP --data TextCSVDataModule --data.path nothing.csv",
            "--model LitMLP: it cannot read labeled texts, which these data are (TextCSVDataModule); give --model "
            "LitTextClassifier.",
        ),
        (
            "--model LitGPT",
            "--model LitGPT: it reads running text, which these data are not (DigitsDataModule); give --data "
            "TextCorpusDataModule.",
        ),
        (
            "--model LitTextClassifier --data ToyDataModule",
            "--model LitTextClassifier: it reads labeled texts, which these data are not (ToyDataModule); give --data "
            "TextCSVDataModule.",
        ),
        (
            "--model LitGPT --data TextCSVDataModule --data.path nothing.csv",
            "--model LitGPT: it reads running text, and these data are labeled texts (TextCSVDataModule); give --model "
            "LitTextClassifier or give --data TextCorpusDataModule.",
        ),
        (
            "--model LitTextClassifier --data TextCorpusDataModule",
            "--model LitTextClassifier: it reads labeled texts, and these data are running text "
            "(TextCorpusDataModule); give --model LitGPT or give --data TextCSVDataModule.",
        ),
        (
            "--model LitSiamese --model.encoder LitMLP --data TextCSVDataModule --data.path nothing.csv",
            "--model.encoder LitMLP: it cannot read labeled texts, which these data are (TextCSVDataModule); give "
            "--model.encoder LitTextClassifier.",
        ),
    ],
)
def test_a_model_reads_its_own_kind_of_text(mistake: Callable[[str], str], line: str, answer: str) -> None:
    assert answer in mistake(line)


def test_a_model_learns_the_sizes_of_its_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abcdefg\n" * 100)
    cli = run(
        f"--model LitGPT --model.width 8 --data TextCorpusDataModule --data.path {tmp_path}/t.txt "
        "--data.context_length 12 --fast_dev_run 1"
    )
    sizes = {"vocab_size": 10, "context_length": 12, "task": "next_token"}
    assert {name: cli.model.hparams[name] for name in sizes} == sizes
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{n} is a number,{n % 2}\n" for n in range(40)))
    cli = run(
        f"--model LitTextClassifier --data TextCSVDataModule --data.path {tmp_path}/t.csv --data.max_length 7 "
        "--fast_dev_run 1"
    )
    assert cli.model.hparams["max_length"] == 7
    assert cli.model.hparams["vocab_size"] == cli.datamodule.vocab_size
    assert cli.model.hparams["task"] == "binary"


def test_missing_weights_are_found_before_images_are_decoded(photos: Path, mistake: Callable[[str], str]) -> None:
    line = "--model LitTransfer --model.weights nowhere.pth --data ImageFolderDataModule --data.cache_dir cache"
    assert "--model.weights nowhere.pth: there is no such file" in mistake(f"{line} --data.path {photos}")
    assert not Path("cache").exists()
