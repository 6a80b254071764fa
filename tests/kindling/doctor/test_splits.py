"""Duplicates, classes and splits that are too small, and files that differ."""

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules import CSVDataModule, ImageFolderDataModule, TextCSVDataModule
from kindling.doctor import examine
from kindling.doctor.splits import find_duplicates, find_shifts, find_small
from tests.helpers.tables import table, write
from tests.helpers.texts import lines


def _lines(pair: str) -> list[int]:
    return [int(place.removeprefix("line ")) for place in pair.split(" = ")]


def test_rows_on_both_sides_are_named_by_their_lines(tmp_path: Path) -> None:
    rows = table(300)
    path = write(tmp_path / "t.csv", [*rows, *({**row, "id": f"again-{row['id']}"} for row in rows[:100])])
    data = CSVDataModule(path, key_column="id", cache_dir=str(tmp_path))
    (found,) = find_duplicates(data)
    assert found.severity == "high"
    sizes = {stage: split.indices.tolist() for stage, split in data.splits.items()}
    held_out = [row for stage in ("val", "test") for row in sizes[stage]]
    expected = {
        row + 2 for row in held_out if (row < 100 and row + 300 in sizes["train"]) or row - 300 in sizes["train"]
    }
    assert {_lines(pair)[0] for pair in found.where} == expected
    written = Path(path).read_text().splitlines()
    for pair in found.where:
        one, other = (written[line - 1].split(",")[1:] for line in _lines(pair))
        assert one == other
    assert f"of {data.splits['test'].size} test samples are in training too" in found.what


def test_rows_of_separate_files_are_compared(tmp_path: Path) -> None:
    path, other = write(tmp_path / "t.csv", table(200)), tmp_path / "o.csv"
    assert not find_duplicates(
        CSVDataModule(path, test_path=write(other, table(60, seed=1)), key_column="id", cache_dir=str(tmp_path))
    )
    write(other, [*table(60, seed=1), *table(200)[:5]])
    (found,) = find_duplicates(CSVDataModule(path, test_path=str(other), val_fraction=0, cache_dir=str(tmp_path)))
    assert found.what == "5 of 65 test samples are in training too"
    assert found.where == [f"line {62 + row} = line {2 + row}" for row in range(5)]


def test_rows_that_may_be_equal_by_chance_are_no_duplicates(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [f"{draw.choice('abc')},{draw.randint(0, 5)},{draw.choice(['no', 'yes'])}\n" for _ in range(500)]
    (tmp_path / "t.csv").write_text("color,size,y\n" + "".join(rows))
    assert find_duplicates(CSVDataModule(str(tmp_path / "t.csv"), cache_dir=str(tmp_path))) == []


def _texts(size: int, start: int = 0) -> list[tuple[str, str]]:
    return [("good" if i % 3 else "bad", f"a film of the year {i} that I saw") for i in range(start, start + size)]


def test_texts_on_both_sides_are_named_by_their_lines(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(lines(_texts(200)))
    (tmp_path / "test.txt").write_text(lines([*_texts(40, 900), *_texts(3), ("good", "so good"), ("bad", "so good")]))
    options: dict[str, Any] = {"test_path": str(tmp_path / "test.txt"), "val_fraction": 0.0, "cache_dir": str(tmp_path)}
    (found,) = find_duplicates(TextCSVDataModule(str(tmp_path / "t.txt"), **options))
    assert found.where == ["line 41 = line 1", "line 42 = line 2", "line 43 = line 3"]
    (tmp_path / "test.txt").write_text(lines(_texts(40, 900)))
    assert find_duplicates(TextCSVDataModule(str(tmp_path / "t.txt"), **options)) == []


def test_short_texts_are_the_same_by_chance(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(lines([("good", "yes!"), ("bad", "no")] * 50))
    assert find_duplicates(TextCSVDataModule(str(tmp_path / "t.txt"), cache_dir=str(tmp_path))) == []


def _images(folder: Path, count: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("train", "test")[number % 4 == 0] / ("cats", "dogs")[number // 4 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    return folder


def test_images_on_both_sides_are_named_by_their_files(tmp_path: Path) -> None:
    folder = _images(tmp_path / "photos")
    assert find_duplicates(ImageFolderDataModule(str(folder), image_size=16, cache_dir=str(tmp_path))) == []
    Image.open(folder / "train/cats/1.png").save(folder / "test/cats/copy.bmp")
    data = ImageFolderDataModule(str(folder), image_size=16, cache_dir=str(tmp_path), val_fraction=0)
    (found,) = find_duplicates(data)
    assert found.where == ["test/cats/copy.bmp = train/cats/1.png"]
    assert found.what == "1 of 11 test samples are in training too"
    assert not find_duplicates(ImageFolderDataModule(str(folder), image_size=16, cache="none", cache_dir=str(tmp_path)))


def test_a_class_smaller_than_the_folds_is_named(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [f"{rng.random()},{'rare' if i < 4 else 'ab'[i % 2]}\n" for i in range(600)]
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(rows))
    (found,) = find_small(CSVDataModule(str(tmp_path / "t.csv"), cache_dir=str(tmp_path)))
    assert (found.check, found.where) == ("classes", ["'rare' (4)"])
    few = CSVDataModule(str(tmp_path / "t.csv"), num_folds=3, cache_dir=str(tmp_path))
    assert find_small(few) == []
    many = CSVDataModule(str(tmp_path / "t.csv"), num_folds=10, cache_dir=str(tmp_path))
    assert "fewer than 10" in find_small(many)[0].what


def test_a_validation_split_of_few_rows_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", table(200))
    (found,) = find_small(CSVDataModule(path, key_column="id", cache_dir=str(tmp_path)))
    assert found.what == "16 samples are too few to choose the best epoch by"
    assert find_small(CSVDataModule(path, key_column="id", val_fraction=0.3, cache_dir=str(tmp_path))) == []
    assert find_small(CSVDataModule(path, key_column="id", val_fraction=0, cache_dir=str(tmp_path))) == []


def _sold(path: Path, area: float, seed: int) -> str:
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rooms", "area", "price"])
        for rooms, size in zip(rng.integers(1, 6, 300), rng.normal(area, 10, 300), strict=True):
            writer.writerow([rooms, f"{size:.1f}", f"{size * rooms + rng.normal():.1f}"])
    return str(path)


def test_a_test_table_of_another_kind_is_told_by_its_columns(tmp_path: Path) -> None:
    path = _sold(tmp_path / "t.csv", 100, 0)
    alike = CSVDataModule(path, test_path=_sold(tmp_path / "a.csv", 100, 1), cache_dir=str(tmp_path))
    assert find_shifts(alike) == []
    assert examine(alike) == []
    other = CSVDataModule(path, test_path=_sold(tmp_path / "o.csv", 130, 1), cache_dir=str(tmp_path))
    (found,) = find_shifts(other)
    assert found.what.startswith("a classifier tells test rows from training rows (AUROC 0.9")
    assert found.what.endswith(", by area")
    assert find_shifts(CSVDataModule(path, cache_dir=str(tmp_path))) == []


@pytest.mark.parametrize(("words", "shifted"), [("a film of the year", False), ("a book by someone", True)])
def test_test_texts_of_another_kind_are_told(tmp_path: Path, words: str, shifted: bool) -> None:
    rng = random.Random(0)

    def some(start: str) -> list[tuple[str, str]]:
        return [
            ("good" if i % 3 else "bad", f"{start} {rng.randrange(50)} and {rng.randrange(50)}") for i in range(150)
        ]

    (tmp_path / "t.txt").write_text(lines(some("a film of the year")))
    (tmp_path / "o.txt").write_text(lines(some(words)))
    data = TextCSVDataModule(
        str(tmp_path / "t.txt"), test_path=str(tmp_path / "o.txt"), val_fraction=0, cache_dir=str(tmp_path)
    )
    assert bool(find_shifts(data)) is shifted
