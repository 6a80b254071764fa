"""Images as `datasets` has them: Parquet, folders and saved data sets on this machine, and the hub by name."""

import csv
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datamodules import HuggingFaceDataModule
from datamodules.errors import DataError
from kindling.errors import as_flags
from tests.conftest import Run
from tests.helpers.photos import encoded, pixels, write_photos

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")

Mistake = Callable[[str], str]
FLAGS = (
    "--accelerator cpu --model LitConvNet --model.channels [4,8] --data HuggingFaceDataModule --data.image_size 16 "
    "--data.cache_dir cache --max_epochs 1 --enable_progress_bar false --logger false"
)
BEST = "runs/LitConvNet-HuggingFaceDataModule/version_0/checkpoints/best.ckpt"
NAMES = ["zebra", "ant", "bee"]  # in no alphabetical order


@pytest.fixture(autouse=True)
def _elsewhere(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be read from the network, and nothing be written outside of the test's folder."""
    kept = workdir.parent / "huggingface"
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH", "HF_MODULES_CACHE"):
        monkeypatch.setattr(datasets.config, name, kept / name)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(kept / "hub"))
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "level", logging.ERROR)


def content(label: int, number: int) -> bytes:
    return encoded(Image.fromarray(pixels(label, number, 22, 20 + number % 4)), "PNG")


def table(count: int = 24, first: int = 0) -> dict[str, list[Any]]:
    """Make rows with images as bytes, and labels 0, 1 and 2 in turn."""
    labels = [number % 3 for number in range(first, first + count)]
    return {"image": [{"bytes": content(y, i), "path": None} for i, y in enumerate(labels, first)], "label": labels}


def dataset(count: int = 24, first: int = 0, **columns: list[Any]) -> Any:  # noqa: ANN401  # a datasets.Dataset
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({**table(count, first), **columns}, features=features)


def write(path: str, rows: dict[str, Any]) -> None:
    """Write a plain Parquet, which knows nothing of images and classes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path)


def data_of(path: str, **options: Any) -> HuggingFaceDataModule:
    return HuggingFaceDataModule(**{"path": path, "image_size": 8, "cache": "memory", **options})


def sizes(data: HuggingFaceDataModule) -> dict[str, int]:
    return {stage: split.size for stage, split in data.splits.items()}


def assert_learnable(data: HuggingFaceDataModule, names: list[str]) -> None:
    """Assert that each image has the class that its color shows."""
    assert data.class_names == names
    order = [names.index(name) for name in NAMES if name in names]
    for samples, indices in data.splits.values():
        x, y = samples[indices]
        assert [order[color] for color in x.float().mean((2, 3)).argmax(1).tolist()] == y.tolist()


def test_a_parquet_file_as_datasets_writes_it(workdir: Path) -> None:
    dataset().to_parquet("train.parquet")
    data = data_of("train.parquet")
    assert_learnable(data, NAMES)
    assert sizes(data) == {"train": 17, "val": 2, "test": 5}
    assert list(data.row_keys()["file"])[:2] == ["train[0]", "train[1]"]
    assert data.task == "multiclass"


@pytest.mark.parametrize("name", ["my [new] photos?.parquet", "{a,b}*.parquet", "Käfer.pq", "no_ending"])
def test_a_parquet_file_may_be_called_anything(workdir: Path, name: str) -> None:
    dataset().to_parquet("x.parquet")
    Path("folder").mkdir()
    Path("x.parquet").rename(Path("folder") / name)
    assert sum(sizes(data_of(f"folder/{name}")).values()) == 24


def test_plain_parquet_of_structs_and_words(workdir: Path) -> None:
    rows = table()
    write("photos.parquet", {"id": list(range(24)), "photo": rows["image"], "class": [NAMES[y] for y in rows["label"]]})
    assert_learnable(data_of("photos.parquet"), sorted(NAMES))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_parquet_of_bytes_and_numbers(workdir: Path, kind: Any) -> None:  # noqa: ANN401  # of pyarrow
    rows = table()
    images = pa.array([image["bytes"] for image in rows["image"]], kind)
    write("photos.parquet", {"img": images, "labels": rows["label"]})
    data = data_of("photos.parquet")
    assert data.class_names == ["0", "1", "2"]
    assert sizes(data) == {"train": 17, "val": 2, "test": 5}


def test_images_in_files_that_a_parquet_names(workdir: Path) -> None:
    root = write_photos(workdir / "photos", count=4)
    paths = sorted(root.rglob("*.png"))
    rows = [{"bytes": None, "path": str(path)} for path in paths]
    write("photos.parquet", {"image": rows, "label": [path.parent.name for path in paths]})
    data = data_of("photos.parquet")
    assert data.class_names == ["ants", "bees", "cats"]
    assert sum(sizes(data).values()) == 12


def test_paths_in_a_column_of_text(workdir: Path) -> None:
    paths = sorted(write_photos(workdir / "photos", count=4).rglob("*.png"))
    write("photos.parquet", {"file": [str(p) for p in paths], "label": [p.parent.name for p in paths]})
    with pytest.raises(DataError, match=r"none of its columns hold images; name one by `image_column`: file, lab"):
        _ = data_of("photos.parquet").splits
    assert sum(sizes(data_of("photos.parquet", image_column="file")).values()) == 12


def test_a_folder_of_parquet_files(workdir: Path) -> None:
    Path("photos").mkdir()
    for name, first in {"train-00000-of-00002": 0, "train-00001-of-00002": 24, "test-00000-of-00001": 48}.items():
        dataset(24, first).to_parquet(f"photos/{name}.parquet")
    data = data_of("photos", val_fraction=0.25)
    assert_learnable(data, NAMES)
    assert sizes(data) == {"train": 36, "val": 12, "test": 24}


def test_a_saved_data_set(workdir: Path) -> None:
    dataset().save_to_disk("saved")
    assert_learnable(data_of("saved"), NAMES)
    assert sum(sizes(data_of("saved")).values()) == 24


def test_saved_parts(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = {"train": dataset(24), "validation": dataset(6, 24), "test": dataset(9, 30), "extra": dataset(3, 40)}
    datasets.DatasetDict(parts).save_to_disk("saved")
    data = data_of("saved")
    assert_learnable(data, NAMES)
    assert sizes(data) == {"train": 24, "val": 6, "test": 9}
    assert "saved: dropped, as neither train, validation nor test: extra" in caplog.messages
    assert len(data.unlabeled) == 42


def test_parts_that_differ(workdir: Path) -> None:
    parts = {"train": dataset(24), "test": dataset(9, 24).remove_columns("label")}
    datasets.DatasetDict(parts).save_to_disk("saved")
    data = data_of("saved")
    assert_learnable(data, NAMES)
    assert sum(sizes(data).values()) == 24
    assert len(data.unlabeled) == 33


def test_a_part_without_images_is_one_line(workdir: Path) -> None:
    parts = {"train": dataset(24), "test": dataset(9, 24).rename_column("image", "photo")}
    datasets.DatasetDict(parts).save_to_disk("saved")
    with pytest.raises(DataError, match=r"^saved, test: there is no column 'image'"):
        _ = data_of("saved").splits


def test_a_folder_of_images(workdir: Path) -> None:
    write_photos(Path("photos"), count=4)
    data = data_of("photos")
    assert data.class_names == ["ants", "bees", "cats"]
    assert sum(sizes(data).values()) == 12
    write_photos(Path("divided/train"), count=4)
    write_photos(Path("divided/test"), count=2, first=4)
    assert sizes(data_of("divided", val_fraction=0)) == {"train": 12, "test": 6}


def test_hidden_labels(workdir: Path) -> None:
    parts = {"train": dataset(24), "test": dataset(9, 24, label=[-1] * 9)}
    datasets.DatasetDict(parts).save_to_disk("saved")
    data = data_of("saved")
    assert_learnable(data, NAMES)
    assert sizes(data) == {"train": 17, "val": 2, "test": 5}
    assert len(data.unlabeled) == 33


def test_missing_labels(workdir: Path) -> None:
    rows = table()
    write(
        "photos.parquet",
        {"image": rows["image"], "label": [None if i < 6 else str(y) for i, y in enumerate(rows["label"])]},
    )
    data = data_of("photos.parquet")
    assert sum(sizes(data).values()) == 18


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        (None, "there is no image"),
        ({"bytes": None, "path": None}, "there is no image"),
        ({"bytes": b"", "path": None}, "the file is empty"),
        ({"bytes": b"text", "path": None}, "not an image of a known format"),
        ({"bytes": None, "path": "/nowhere/a.jpg"}, "not a regular file"),
    ],
)
def test_missing_images(workdir: Path, missing: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ANN401
    rows = table()
    rows["image"][5] = missing
    write("photos.parquet", rows)
    with pytest.raises(DataError, match=rf"^path: train\[5\]: {why}; repair or remove it"):
        _ = data_of("photos.parquet").splits
    assert sum(sizes(data_of("photos.parquet", on_bad_image="skip")).values()) == 23
    assert f"train[5]: {why}" in caplog.text


def two_columns() -> None:
    rows = table()
    more = {"mask": rows["image"][::-1], "kind": [f"k{y}" for y in rows["label"]], "coat": ["a", "b"] * 12}
    write("photos.parquet", {"image": rows["image"], **more})


def test_columns_are_named(workdir: Path) -> None:
    two_columns()
    data = data_of("photos.parquet", image_column="mask", label_column="kind")
    assert data.class_names == ["k0", "k1", "k2"]
    first = data.unlabeled[torch.tensor([0])][0]
    assert first.float().mean((1, 2)).argmax() == 23 % 3
    assert data_of("photos.parquet", image_column="image", label_column="coat").class_names == ["a", "b"]


COLUMNS = {
    "--data.image_column images": "--data.image_column images: there is no column 'images'; did you mean 'image'?",
    "--data.image_column image --data.label_column kinds": "--data.label_column kinds: there is no column 'kinds'; did",
    "--data.label_column kind": "2 of its columns hold images; name one by --data.image_column: image, mask",
    "--data.image_column image": "there is no class to train on; name the column of the classes by",
    "--data.image_column coat --data.label_column kind": "--data.path: train[0]: not a regular file; repair or remove",
    "--data.image_column mask --data.label_column mask": "--data.label_column mask: these are the images; name anoth",
}


@pytest.mark.parametrize("flags", COLUMNS)
def test_a_bad_column_says_what_is_wrong(workdir: Path, flags: str) -> None:
    two_columns()
    words = flags.replace("--data.", "").split()
    with pytest.raises(DataError) as error:
        _ = data_of("photos.parquet", **dict(zip(words[::2], words[1::2], strict=True))).splits
    assert COLUMNS[flags] in as_flags(error.value)


def test_a_bad_column_is_one_line(mistake: Mistake) -> None:
    two_columns()
    flags = "--data.image_column images"
    assert COLUMNS[flags] in mistake(f"{FLAGS} --data.path photos.parquet {flags}")


def test_a_column_that_holds_no_images_says_so(workdir: Path) -> None:
    write("bad.parquet", {"image": [1.0, 2.0], "label": [0, 1]})
    with pytest.raises(DataError, match="none of its columns hold images"):
        _ = data_of("bad.parquet").splits
    with pytest.raises(DataError, match=r"^image_column='image': it holds no images \("):
        _ = data_of("bad.parquet", image_column="image").splits


@pytest.mark.parametrize(
    "path", ["text.parquet", "empty", "saved", "nobody/no-such-set", "missing.parquet", "/no/where"]
)
def test_what_cannot_be_loaded_says_what_can(workdir: Path, path: str) -> None:
    Path("text.parquet").write_text("text")
    Path("empty").mkdir()
    Path("saved").mkdir()
    Path("saved/dataset_info.json").write_text("{")
    with pytest.raises(DataError, match=rf"^path='{path}': datasets cannot load it \(.*\); give a name") as error:
        _ = data_of(path).splits
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("or a Parquet file, a folder or a saved data set on this machine.")


def test_what_cannot_be_found_is_one_line(mistake: Mistake) -> None:
    assert "--data.path: give the name of a data set on the hub, or a file or folder." in mistake(FLAGS)
    assert "--data.path nobody/no-such-set: datasets cannot load it (" in mistake(
        f"{FLAGS} --data.path nobody/no-such-set"
    )


def test_datasets_is_not_installed(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = mistake(f"{FLAGS} --data.path nobody/no-such-set")
    assert 'HuggingFaceDataModule: the package datasets is not installed; pip install -e ".[hub]".' in message


def test_name_and_revision_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: Any, **options: Any) -> Any:  # noqa: ANN401  # a datasets.DatasetDict
        asked.append((args, options))
        return datasets.DatasetDict({"train": dataset()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = data_of("nobody/photos", name="small", revision="abc123")
    assert data.class_names == NAMES
    assert asked == [(("nobody/photos", "small"), {"revision": "abc123"})]
    assert data.hparams["revision"] == "abc123"


def test_the_hub_is_not_asked_for_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset().save_to_disk("nobody/photos")
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert data_of("nobody/photos").class_names == NAMES


def rows() -> list[dict[str, str]]:
    with Path("predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_from_training_to_prediction(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    dataset(48).to_parquet("photos.parquet")
    cli = run(f"{FLAGS} --data.path photos.parquet --data.revision main")
    assert cli.datamodule.class_names == NAMES
    run(f"test --ckpt_path {BEST}")
    assert torch.load(BEST, weights_only=True)["datamodule_hyper_parameters"]["revision"] == "main"

    run(f"predict --ckpt_path {BEST}")
    assert [row["file"] for row in rows()] == [f"train[{number}]" for number in range(48)]
    assert list(rows()[0])[2:] == [f"probability_{name}" for name in NAMES]
    known = rows()[:9]

    write("new.parquet", {"image": table(9)["image"]})
    run(f"predict --ckpt_path {BEST} --data.path new.parquet")
    assert [{**row, "file": ""} for row in rows()] == [{**row, "file": ""} for row in known]

    write("other.parquet", {**table(6, 60), "label": ["ant", "wasp"] * 3})
    capfd.readouterr()
    with pytest.raises(SystemExit):
        run(f"test --ckpt_path {BEST} --data.path other.parquet")
    assert (
        "train[1] is of class 'wasp', which is none of those that are trained on (zebra, ant, bee)"
        in capfd.readouterr().err
    )
    assert capfd.readouterr().err == ""


def test_a_named_label_column_is_not_needed_to_predict(run: Run) -> None:
    rows_ = table(30)
    write("photos.parquet", {"photo": rows_["image"], "kind": [NAMES[y] for y in rows_["label"]]})
    run(f"{FLAGS} --data.path photos.parquet --data.label_column kind")
    write("new.parquet", {"photo": table(4)["image"]})
    run(f"predict --ckpt_path {BEST} --data.path new.parquet")
    assert len(rows()) == 4


def test_images_are_encoded_as_they_are_tested(workdir: Path) -> None:
    found = dataset()
    found.save_to_disk("saved")
    data = data_of("saved")
    x = data.unlabeled[torch.tensor([3])][0]
    assert torch.equal(data.encode(found[3]["image"]), x)
    assert torch.equal(data.encode(table()["image"][3]["bytes"]), x)
    assert np.asarray(Image.open(io.BytesIO(table()["image"][3]["bytes"]))).shape == (22, 23, 3)
