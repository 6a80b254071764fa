"""Images on the command line: bad files, evaluation and prediction by a trained model, other folders."""

import contextlib
import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from datamodules import ImageFolderDataModule
from datamodules.images import user_images
from datamodules.images.decoding import open_image
from kindling.cli import main
from lit_models import LitConvNet
from tests.conftest import Run
from tests.helpers.photos import BAD, pixels, write_photos

Mistake = Callable[[str], str]
FLAGS = (
    "--accelerator cpu --model LitConvNet --model.channels [4,8] --model.lr 0.03 --data ImageFolderDataModule "
    "--data.image_size 16 --data.cache_dir cache --data.path photos --enable_progress_bar false --max_epochs 1 "
    "--logger false"
)
BEST = "runs/LitConvNet-ImageFolderDataModule/version_0/checkpoints/best.ckpt"


def rows() -> list[dict[str, str]]:
    with Path("predictions.csv").open() as file:
        return list(csv.DictReader(file))


# Evaluation is prediction


def write_odd_photos(root: Path) -> Path:
    """Write images of three classes in every shape, mode and format."""
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
def test_the_same_images_give_the_same_probabilities_everywhere(run: Run, cache: str, transforms: str) -> None:
    write_odd_photos(Path("photos"))
    run(f"{FLAGS} {transforms} --data.cache {cache} --data.test_fraction 0.4 --data.num_workers 0")
    cli = run(f"test --ckpt_path {BEST} --trainer.callbacks+=tests.datamodules.images.test_user_images_runs.Collect")
    tested = torch.cat(Collect.found)
    split = cli.datamodule.splits["test"]
    names = [cli.datamodule.source.found.images.names[row] for row in split.samples.x.rows[split.indices].tolist()]
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
        for raw in (path, str(path), path.read_bytes(), Image.open(path), np.asarray(open_image(path))):
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
    monkeypatch.setattr(user_images, "physical_memory", lambda: 4.0)
    run(f"predict --ckpt_path {BEST} --data.path new --data.num_workers 0")
    assert rows() == expected
    assert not [path for path in Path("cache").glob("images-*.npy") if path not in before]
    run(f"predict --ckpt_path {BEST} --data.path new --data.cache disk")
    assert len(list(Path("cache").glob("images-*.npy"))) == 2


def test_a_tuned_model_takes_new_images_of_the_same_classes(run: Run) -> None:
    write_photos(Path("photos"), count=5)
    run(FLAGS)
    write_photos(Path("new"), count=6, first=50)
    cli = run(f"--accelerator cpu --ckpt_path {BEST} --data.path new --max_epochs 2 --enable_progress_bar false")
    assert cli.trainer.current_epoch == 2
    assert {stage: split.size for stage, split in cli.datamodule.splits.items()} == {"train": 13, "val": 1, "test": 4}


def test_photographs(data_dir: str, run: Run) -> None:
    cli = run(
        f"{FLAGS} --data.path {data_dir}/hymenoptera_data --data.cache memory --limit_train_batches 2 "
        "--data.num_workers 0"
    )
    assert cli.datamodule.class_names == ["ants", "bees"]
    assert {stage: split.size for stage, split in cli.datamodule.splits.items()} == {"train": 245, "val": 153}
    assert cli.model.hparams["task"] == "binary"


# A thousand images, of which twenty are bad in ten ways

KINDS = [kind for kind in BAD if kind != "HEIC"]


@pytest.fixture
def thousand(workdir: Path) -> list[str]:
    """Write 980 good images in four classes, and 20 bad ones; give the names of these, sorted, with what is wrong."""
    good = workdir / "photos"
    for label, name in enumerate(("ants", "bees", "cats", "dogs")):
        (good / name).mkdir(parents=True)
        for number in range(245):
            Image.fromarray(pixels(label, number, 20, 20)).save(good / name / f"{number:03}.png")
    names = []
    for number, kind in enumerate(2 * KINDS):
        write, ending, why = BAD[kind]
        name = f"{['bees', 'dogs'][number % 2]}/0{number:02}-bad.{ending}"
        write(good / name)
        names.append(f"{name}: {why}")
    return sorted(names)


def test_the_first_bad_image_of_a_thousand_is_named(mistake: Mistake, thousand: list[str], workdir: Path) -> None:
    assert len(KINDS) == 10
    before = sorted(workdir.rglob("*"))
    for cache in ("auto", "memory", "none"):
        message = mistake(f"{FLAGS} --data.cache {cache}")
        assert f"--data.path: {thousand[0]}" in message
        assert "; repair or remove it, or give --data.on_bad_image skip." in message
        assert [path for path in sorted(workdir.rglob("*")) if path not in before] in ([], [workdir / "cache"])


@pytest.mark.parametrize("cache", ["auto", "memory", "none"])
def test_all_bad_images_are_named_and_the_good_ones_train(
    run: Run, thousand: list[str], cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(1 if cache == "memory" else 2):
        cli = run(
            f"{FLAGS} --data.on_bad_image skip --data.cache {cache} --max_epochs 1 "
            "--data.batch_size 256 --data.resize_size 16 --data.train_transforms [] --data.num_workers 0"
        )
        said = capsys.readouterr()
        lines = said.out.splitlines()
        start = lines.index("20 of 1,000 images are bad, and dropped:") + 1
        assert len(thousand) == 20
        for line, expected in zip(lines[start : start + 20], thousand, strict=True):
            assert line.startswith(f"  {expected}")
        assert said.out.count("-bad.") == 20
        assert sum(split.size for split in cli.datamodule.splits.values()) == 980
        assert cli.trainer.callback_metrics["test_acc"] >= 0
    Path("photos/ants/000.png").write_bytes(b"")
    data = ImageFolderDataModule("photos", image_size=16, cache_dir="cache", on_bad_image="skip")
    assert sum(split.size for split in data.splits.values()) == 979


def test_only_bad_images_are_one_line(mistake: Mistake, workdir: Path) -> None:
    for name in ("ants", "bees"):
        (workdir / "photos" / name).mkdir(parents=True)
        (workdir / "photos" / name / "a.jpg").write_text("text")
    flags = f"{FLAGS} --data.on_bad_image skip"
    assert "--data.path photos: there is no good image in it." in mistake(flags)


def test_a_class_of_bad_images_only(tmp_path: Path) -> None:
    root = write_photos(tmp_path, ["ants", "bees"], 10)
    (root / "cats").mkdir()
    (root / "cats" / "a.jpg").write_text("text")
    data = ImageFolderDataModule(str(root), image_size=8, cache="memory", on_bad_image="skip", balance="downsample")
    samples, indices = data.splits["train"]
    counts = samples.y[indices].bincount()
    assert counts[0] == counts[1] > 0


# A model that is trained already


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a model has learned ants, bees and cats."""
    folder = tmp_path_factory.mktemp("learned")
    write_photos(folder / "photos", count=10)
    with contextlib.chdir(folder):
        main(f"{FLAGS}".split())
    return folder


@pytest.fixture
def trained(workdir: Path, learned: Path) -> str:
    """A checkpoint of that model, beside what it learned from."""
    shutil.copytree(learned, workdir, dirs_exist_ok=True)
    return BEST


def test_any_folder_is_predicted(run: Run, trained: str) -> None:
    for path in (
        "new/deep/er/b.png",
        "new/a.png",
        "new/.hidden.png",
        "new/c.jpg",
        "new/train/x.png",
        "new/unknown/d.png",
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(1, 1)).save(path)
    before = sorted(Path("cache").rglob("*"))
    run(f"predict --ckpt_path {trained} --data.path new")
    assert [row["file"] for row in rows()] == ["a.png", "c.jpg", "deep/er/b.png", "train/x.png", "unknown/d.png"]
    assert list(rows()[0]) == ["file", "prediction", "probability_ants", "probability_bees", "probability_cats"]
    assert sorted(Path("cache").rglob("*")) == before


def test_one_image_is_predicted(run: Run, trained: str) -> None:
    run(f"predict --ckpt_path {trained}")
    (expected,) = [row for row in rows() if row["file"] == "bees/0003.png"]
    run(f"predict --ckpt_path {trained} --data.path photos/bees/0003.png")
    (row,) = rows()
    assert (row["file"], row["prediction"]) == ("0003.png", expected["prediction"])
    for name in ("probability_ants", "probability_bees", "probability_cats"):
        assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-6)


def test_bad_images_are_not_predicted(run: Run, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(Path("new"), ["x"], 3)
    Path("new/x/0001a.png").write_text("text")
    with pytest.raises(SystemExit):
        run(f"predict --ckpt_path {trained} --data.path new")
    assert "--data.path: x/0001a.png: not an image of a known format" in capsys.readouterr().err
    assert not Path("predictions.csv").exists()
    run(f"predict --ckpt_path {trained} --data.path new --data.on_bad_image skip")
    assert [row["file"] for row in rows()] == ["x/0000.png", "x/0001.png", "x/0002.png"]


def test_all_of_another_folder_is_tested(run: Run, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(Path("new"), ["bees", "cats"], 4, first=50)
    before = sorted(Path("cache").rglob("*"))
    capsys.readouterr()
    cli = run(f"test --ckpt_path {trained} --data.path new")
    assert "new is not what the model was trained on: all of its images are used" in capsys.readouterr().out
    (loader,) = cli.datamodule.test_dataloader()
    assert torch.cat([y for _, y in loader]).tolist() == [1] * 4 + [2] * 4
    assert sorted(Path("cache").rglob("*")) == before


def test_a_class_that_was_not_learned_is_one_line(run: Run, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(Path("new"), ["bees", "wasps"], 2)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(f"test --ckpt_path {trained} --data.path new")
    error = capsys.readouterr().err
    assert "new/wasps" not in error
    assert "wasps/0000.png is of class 'wasps', which is none of those that are trained on (ants, bees, cats)" in error
    assert error.count("\n") == 1


def test_a_model_is_tested_with_its_own_splits(run: Run, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ("--data.seed 3", "--data.num_folds 3", "--data.test_fraction 0.4"):
        with pytest.raises(SystemExit):
            run(f"test --ckpt_path {trained} {flags}")
        assert f"{flags}: a model is tested with the splits it was trained with" in capsys.readouterr().err


def test_names_with_spaces_and_commas_are_predicted(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_photos(workdir / "my photos", ["ein Käfer", "a,b"], 6)
    line = f"{FLAGS}".split()
    main([*line, "--data.path", str(root)])
    main(["predict", "--ckpt_path", BEST])
    assert list(rows()[0])[2:] == ["probability_a,b", "probability_ein Käfer"]
    assert {row["prediction"] for row in rows()} <= {"ein Käfer", "a,b"}
    assert capsys.readouterr().err == ""


def test_a_model_learns(run: Run) -> None:
    write_photos(Path("photos"), count=40)
    flip = '--data.resize_size 16 --data.train_transforms ["RandomHorizontalFlip"]'
    cli = run(f"{FLAGS} --max_epochs 4 {flip}")
    assert cli.trainer.callback_metrics["test_acc"] > 0.9
