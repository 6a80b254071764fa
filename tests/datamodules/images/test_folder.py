"""Images in folders: which are found, and the split and class of each."""

import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datamodules import ImageFolderDataModule
from datamodules.errors import DataError
from datamodules.images.folder import find_images
from kindling.errors import as_flags
from tests.helpers.front_door import Run
from tests.helpers.photos import write_photos

Mistake = Callable[[str], str]
FLAGS = (
    "--accelerator cpu --model LitConvNet --model.channels [4,8] --model.lr 0.03 --data ImageFolderDataModule "
    "--data.image_size 16 --data.cache_dir cache --logger false"
)
BEST = "runs/LitConvNet-ImageFolderDataModule/version_0/checkpoints/best.ckpt"


def data_of(path: Path, **options: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule(**{"path": str(path), "image_size": 8, "cache": "memory", **options})


def counts(data: ImageFolderDataModule) -> dict[str, Counter[str]]:
    """Return how many images of each class are in each split."""
    names = data.class_names
    return {
        stage: Counter(names[label] for label in split.samples.y[split.indices].tolist())
        for stage, split in data.splits.items()
    }


def files_in(data: ImageFolderDataModule) -> dict[str, list[str]]:
    """Return the names of the images in each split."""
    names = data.source.found.images.names
    return {
        stage: [names[row] for row in split.samples.x.rows[split.indices].tolist()]
        for stage, split in data.splits.items()
    }


# Layouts


def test_a_folder_for_each_class_is_divided_by_seed_and_class(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    data = data_of(root, val_fraction=0.2, test_fraction=0.2)
    assert data.class_names == ["ants", "bees", "cats"]
    assert (data.task, data.num_outputs, data.input_shape) == ("multiclass", 3, (3, 8, 8))
    for stage, size in {"train": 38, "val": 10, "test": 12}.items():
        assert sum(counts(data)[stage].values()) == size
        assert max(counts(data)[stage].values()) - min(counts(data)[stage].values()) <= 1
    again = data_of(write_photos(tmp_path / "elsewhere"), val_fraction=0.2, test_fraction=0.2)
    assert files_in(again) == files_in(data)
    assert files_in(data_of(root, val_fraction=0.2, test_fraction=0.2, seed=1)) != files_in(data)
    parts = [set(files) for files in files_in(data).values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60


def test_labels_are_those_of_the_folders(tmp_path: Path) -> None:
    data = data_of(write_photos(tmp_path))
    for samples, indices in data.splits.values():
        x, y = samples[indices]
        assert x.float().mean((2, 3)).argmax(1).tolist() == y.tolist()


def test_two_classes_are_binary(tmp_path: Path) -> None:
    data = data_of(write_photos(tmp_path, ["no", "yes"]))
    assert (data.task, data.num_outputs) == ("binary", 1)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_who_divides_by_hand_and_gives_no_test_trains_on_all_of_train(tmp_path: Path, val: str) -> None:
    write_photos(tmp_path / "train", count=5)
    write_photos(tmp_path / val, count=2, first=5)
    data = data_of(tmp_path)
    assert data.class_names == ["ants", "bees", "cats"]
    assert {stage: split.size for stage, split in data.splits.items()} == {"train": 15, "val": 6}
    assert all(name.startswith("train/") for name in files_in(data)["train"])
    assert all(name.startswith(f"{val}/") for name in files_in(data)["val"])


@pytest.mark.parametrize(("train_name", "test"), [("train", "test"), ("Train", "Test"), ("Training", "Testing")])
def test_a_test_that_is_given_apart_stays_whole(tmp_path: Path, train_name: str, test: str) -> None:
    write_photos(tmp_path / train_name, count=10)
    write_photos(tmp_path / test, count=4, first=10)
    data = data_of(tmp_path, val_fraction=0.2)
    assert {stage: split.size for stage, split in data.splits.items()} == {"train": 24, "val": 6, "test": 12}
    assert all(name.startswith(f"{train_name}/") for name in files_in(data)["train"] + files_in(data)["val"])


def test_three_parts_by_hand(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        write_photos(tmp_path / part, count=3, first=3 * number)
    data = data_of(tmp_path)
    assert counts(data) == {part: Counter(ants=3, bees=3, cats=3) for part in ("train", "val", "test")}
    with pytest.raises(DataError, match=r"num_folds.*: validation and test are given"):
        _ = data_of(tmp_path, num_folds=3).splits


def test_what_is_beside_the_parts_belongs_to_none(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", count=5)
    write_photos(tmp_path / "rejected", count=5)
    data = data_of(tmp_path)
    assert data.class_names == ["ants", "bees", "cats"]
    assert sum(split.size for split in data.splits.values()) == 15


@pytest.mark.parametrize(
    "names", [["test", "good"], ["train", "bus"], ["val", "train", "bus"], ["test", "Validation", "x"]]
)
def test_a_class_may_be_called_like_a_part(tmp_path: Path, names: list[str]) -> None:
    data = data_of(write_photos(tmp_path, names, 10))
    assert data.class_names == sorted(names)
    assert sum(split.size for split in data.splits.values()) == 10 * len(names)


def test_a_class_within_the_parts_may_be_called_like_a_part(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", ["train", "test"], 5)
    write_photos(tmp_path / "val", ["train", "test"], 2, first=5)
    data = data_of(tmp_path)
    assert data.class_names == ["test", "train"]
    assert {stage: split.size for stage, split in data.splits.items()} == {"train": 10, "val": 4}


def test_names_may_be_anything(tmp_path: Path) -> None:
    names = ["Käfer", "蟻", "bees and wasps", "a,b", "10", "9", "-x", "[y]"]
    data = data_of(write_photos(tmp_path / "my photos ü", names, 5))
    assert data.class_names == sorted(names)
    assert sum(split.size for split in data.splits.values()) == 5 * len(names)


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    root = write_photos(tmp_path, ["ants", "bees"], 5)
    (root / "ants" / "0000.png").rename(root / "ants" / "\udcff\udcfe.png")
    (root / "bees").rename(root / "\udce9")
    data = data_of(root)
    assert data.class_names == ["ants", "\N{REPLACEMENT CHARACTER}"]
    assert list(data.row_keys()["file"])[4] == "ants/\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.png"
    for name in [*data.class_names, *data.row_keys()["file"]]:
        name.encode()
    assert sum(split.size for split in data.splits.values()) == 10


def test_other_files_and_deeper_folders(tmp_path: Path) -> None:
    root = write_photos(tmp_path, count=5)
    (root / "ants" / "deep" / "er").mkdir(parents=True)
    (root / "ants" / "0000.png").rename(root / "ants" / "deep" / "er" / "0000.PNG")
    for name in ("LICENSE", "ants/Thumbs.db", "ants/.hidden.png", "labels.csv"):
        (root / name).write_text("no image")
    (root / ".trash" / "birds").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "papers").mkdir()
    (root / "papers" / "a.pdf").write_text("no image")
    Image.new("RGB", (9, 9)).save(root / ".trash" / "birds" / "a.png")
    data = data_of(root)
    assert data.class_names == ["ants", "bees", "cats"]
    assert sum(split.size for split in data.splits.values()) == 15
    assert "ants/deep/er/0000.PNG" in [name for names in files_in(data).values() for name in names]


def test_loose_images_are_predicted_but_not_learned(tmp_path: Path) -> None:
    root = write_photos(tmp_path, count=5)
    Image.new("RGB", (9, 9)).save(root / "cover.png")
    data = data_of(root)
    assert sum(split.size for split in data.splits.values()) == 15
    assert len(data.unlabeled) == 16


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_folds(tmp_path: Path, ending: str) -> None:
    root = write_photos(tmp_path, count=9, ending=ending)
    held_out = [files_in(data_of(root, num_folds=3, fold=fold))["test"] for fold in range(3)]
    assert sorted(itertools.chain(*held_out)) == sorted(data_of(root).row_keys()["file"])
    assert all(
        counts(data_of(root, num_folds=3, fold=fold))["test"] == Counter(ants=3, bees=3, cats=3) for fold in (0, 2)
    )
    assert data_of(root, num_folds=3).fold_is_test


def test_folds_where_a_test_is_given_apart(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", count=6)
    write_photos(tmp_path / "test", count=2, first=6)
    data = data_of(tmp_path, num_folds=3)
    assert {stage: split.size for stage, split in data.splits.items()} == {"train": 12, "val": 6, "test": 6}
    assert not data.fold_is_test


def test_folds_where_a_validation_is_given_apart(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", count=6)
    write_photos(tmp_path / "val", count=2, first=6)
    data = data_of(tmp_path, num_folds=3)
    assert {stage: split.size for stage, split in data.splits.items()} == {"train": 12, "val": 6, "test": 6}
    assert data.fold_is_test


def test_balance(tmp_path: Path) -> None:
    root = write_photos(tmp_path, ["ants", "bees"], 20)
    write_photos(root, ["cats"], 6)
    data = data_of(root, balance="downsample", val_fraction=0, test_fraction=0)
    assert counts(data) == {"train": Counter(ants=6, bees=6, cats=6)}
    weighted = data_of(root, balance="weights", val_fraction=0, test_fraction=0, batch_size=46)
    drawn = Counter(label for _ in range(20) for _, y in weighted.train_dataloader() for label in y.tolist())
    assert drawn[2] > 0.25 * sum(drawn.values())


def test_training_is_on_what_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(Path("photos"), [f"c{i:02}" for i in range(12)], 3)
    run(f"{FLAGS} --data.path photos --max_epochs 1 --data.val_fraction 0 --data.test_fraction 0")
    kept, said = capsys.readouterr().out.splitlines()[:2]
    assert kept.startswith("36 decoded images are kept in cache/images-")
    assert said.startswith("images to train on: c00 (3), c01 (3)")
    assert said.endswith("c09 (3), ...")


def test_cross_validation(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(Path("photos"), ["ants", "bees"], 6)
    run(f"cross_validate {FLAGS} --data.path photos --max_epochs 1 --data.num_folds 2")
    assert "mean and standard deviation over 2 folds" in capsys.readouterr().out
    assert len(list(Path("cache").glob("*.npy"))) == 1


# Mistakes


def _nothing(root: Path) -> None:
    root.mkdir()


def _only_text(root: Path) -> None:
    (root / "ants").mkdir(parents=True)
    (root / "ants" / "a.txt").write_text("text")


def _one_class(root: Path) -> None:
    write_photos(root, ["ants"], 5)


def _no_class(root: Path) -> None:
    write_photos(root, ["."], 5)


def _no_train(root: Path) -> None:
    write_photos(root / "val", count=3)
    write_photos(root / "test", count=3)


def _no_class_in_train(root: Path) -> None:
    write_photos(root, ["train", "test"], 3)


def _unknown_in_val(root: Path) -> None:
    write_photos(root / "train", ["ants", "bees"], 3)
    write_photos(root / "val", ["ants", "wasps"], 3, first=3)


def _few_images(root: Path) -> None:
    write_photos(root, ["ants", "bees"], 1)


LAYOUTS: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "missing": (lambda root: None, {}, "--data.path photos: there is no such folder."),
    "empty": (_nothing, {}, "--data.path photos: there is no image in it (0 other files)."),
    "only text": (_only_text, {}, "--data.path photos: there is no image in it (1 other files)."),
    "one class": (
        _one_class,
        {},
        "there is only the class 'ants'; put the images of each class into a folder of its",
    ),
    "no class": (_no_class, {}, "there is no class to train on; put the images of each class into a folder"),
    "no train": (_no_train, {}, "there is no class to train on; put the images"),
    "no class in train": (_no_class_in_train, {}, "there is no class to train on; put the images"),
    "unknown in val": (_unknown_in_val, {}, "val/wasps/0003.png is of class 'wasps', which is none of"),
    "a file": (lambda root: root.write_text("text"), {}, "--data.path photos: there is no class to train on"),
    "nothing left": (_few_images, {"test_fraction": 0.9}, "no sample of 2 is left to train on; hold out less"),
    "too many folds": (_few_images, {"num_folds": 3}, "--data.num_folds 3: there are only 2 samples to divide"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_bad_layout_says_what_is_wrong(workdir: Path, case: str) -> None:
    make, options, expected = LAYOUTS[case]
    make(workdir / "photos")
    with pytest.raises(DataError) as error:
        _ = data_of(Path("photos"), **options).splits
    assert expected in as_flags(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["missing", "one class", "unknown in val"])
def test_a_bad_layout_is_one_line(mistake: Mistake, workdir: Path, case: str) -> None:
    make, _, expected = LAYOUTS[case]
    make(workdir / "photos")
    assert expected in mistake(f"{FLAGS} --data.path photos")


def test_no_path_is_one_line(mistake: Mistake) -> None:
    assert "--data.path: give the folder of the images." in mistake(FLAGS)
    assert "--data.path ~nobody-at-all/x: there is no such folder." in mistake(f"{FLAGS} --data.path ~nobody-at-all/x")


def test_a_folder_that_cannot_be_read_is_one_line(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_photos(Path("photos"), count=2)
    real = os.scandir

    def refuse(path: object) -> object:
        if path == str(root / "bees"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    assert "--data.path: photos/bees cannot be read (Permission denied)." in mistake(f"{FLAGS} --data.path photos")


# What is found in a folder


def test_images_are_found_by_their_endings(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.tar.gz", ".hidden.jpg", "notes.txt", "Thumbs.db", "jpg", "d.jpeg.txt", "e.heic"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "f.webp").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "g.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    found, others = find_images(tmp_path)
    assert [str(path) for path in found] == ["a.png", "b.JPG", "deep/er/f.webp", "e.heic"]
    assert others == 5


def test_links_are_followed_but_not_round_and_round(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", ["ants"], 2)
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere" / "a.png")
    (photos / "bees").symlink_to(tmp_path / "elsewhere")
    (photos / "copies").symlink_to(tmp_path / "elsewhere")
    (photos / "ants" / "up").symlink_to(photos)
    (photos / "ants" / "self").symlink_to(photos / "ants")
    (tmp_path / "elsewhere" / "top").symlink_to(tmp_path)
    found, _ = find_images(photos)
    assert [str(path) for path in found] == ["ants/0000.png", "ants/0001.png", "bees/a.png", "copies/a.png"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path, count=1)
    real = os.scandir

    def refuse(path: Any) -> Any:  # noqa: ANN401  # of os
        if str(path).endswith("bees"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        find_images(photos)
