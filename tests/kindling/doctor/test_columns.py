"""Columns that tell the target, or that a random split lets leak; and tables where no person would cry wolf."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import CSVDataModule
from kindling.doctor import examine
from kindling.doctor.columns import alone, find_dates, find_leaks, find_shared_identifiers, neighbors_alike

Write = Callable[..., CSVDataModule]
SIZE = 600


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Write columns as a table, of which the last is the target, and open it."""

    def write(options: dict[str, Any] | None = None, /, **columns: list[Any]) -> CSVDataModule:
        rows = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        (tmp_path / "t.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
        return CSVDataModule(str(tmp_path / "t.csv"), cache_dir=str(tmp_path / "cache"), **(options or {}))

    return write


def _noise(seed: int = 0, size: int = SIZE) -> list[float]:
    draw = random.Random(seed)
    return [round(draw.gauss(0, 1), 4) for _ in range(size)]


def _labels(seed: int = 1, size: int = SIZE) -> list[str]:
    draw = random.Random(seed)
    return [draw.choice(["no", "no", "yes"]) for _ in range(size)]


def test_a_clean_table_is_silent(written: Write) -> None:
    x, labels = _noise(), _labels()
    helpful = [value + 2 * (label == "yes") for value, label in zip(x, labels, strict=True)]
    assert examine(written(a=x, b=_noise(2), helpful=helpful, y=labels)) == []
    assert examine(written(a=x, b=_noise(2), price=[3 * a + n for a, n in zip(x, _noise(5), strict=True)])) == []


@pytest.mark.parametrize(
    "leak",
    [
        lambda label, draw: {"yes": "A1", "no": draw.choice(["B1", "B2"])}[label],
        lambda label, draw: draw.random() + 5 * (label == "yes"),
        lambda label, draw: "" if label == "no" else draw.randint(1, 400),
    ],
    ids=["category", "number", "missing"],
)
def test_a_column_that_tells_the_class_is_a_leak(written: Write, leak: Callable[[str, random.Random], Any]) -> None:
    draw, labels = random.Random(0), _labels()
    data = written(a=_noise(), after=[leak(label, draw) for label in labels], y=labels)
    found = find_leaks(data)
    assert found[0].severity == "high"
    assert "after" in found[0].what
    assert found[0].where == ["after"]
    assert found[0].remedy.endswith("--data.exclude '[after]'")
    if "missing" in found[0].what:
        assert "whether after is missing alone predicts y" in found[0].what


def test_a_rare_class_is_not_told_by_always_guessing_the_other(written: Write) -> None:
    labels = ["yes" if i % 50 == 0 else "no" for i in range(3000)]
    assert find_leaks(written(a=_noise(0, 3000), y=labels)) == []
    codes = [int(label == "yes") + 5 for label in labels]
    assert len(find_leaks(written(a=_noise(0, 3000), code=codes, y=labels))) == 1


def test_the_target_in_another_currency_is_a_leak(written: Write) -> None:
    draw = random.Random(0)
    prices = [round(math.exp(draw.gauss(12, 0.7)), 2) for _ in range(SIZE)]
    euros = [round(price * 0.92 * draw.gauss(1, 0.005), 2) for price in prices]
    rough = [round(price * draw.gauss(1, 0.3), 2) for price in prices]
    (found,) = find_leaks(written(rough=rough, euros=euros, price=prices))
    assert found.where == ["euros"]


def test_few_rows_prove_nothing(written: Write) -> None:
    labels = ["no", "yes"] * 12
    assert find_leaks(written(a=_noise(0, 24), after=labels, y=labels)) == []


def test_a_column_explains_by_the_nearest_values_of_other_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    assert alone(x, np.sin(3 * x), False) > 0.999
    assert alone(x, rng.normal(size=2000), False) < 0.1
    assert alone(x, np.zeros(2000), False) == 0
    y = (np.abs(x) > 1).astype(np.int64)
    assert alone(x, y, True) > 0.98
    assert alone(rng.normal(size=2000), y, True) < 0.1
    assert alone(np.zeros(2000), y, True) == 0
    noisy = np.where(rng.random(2000) < 0.1, 1 - y, y)
    assert alone(x, noisy, True) < 0.8


def _patients(number: int = 90) -> list[str]:
    draw = random.Random(3)
    return [f"P{draw.randrange(number)}" for _ in range(SIZE)]


def test_an_identifier_that_comes_again_wants_groups(written: Write) -> None:
    (found,) = find_shared_identifiers(written(patient_id=_patients(), a=_noise(), y=_labels()))
    assert found.what.startswith("patient_id has 90 values in 600 rows")
    assert found.remedy.endswith("--data.group_column patient_id")


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"group_column": "patient_id"}, {"patient_id": _patients()}),
        ({}, {"patient_id": [f"P{i}" for i in range(SIZE)]}),
        ({}, {"city": _patients()}),
        ({}, {"shop_id": _patients(4)}),
    ],
    ids=["grouped", "unique", "no identifier", "few"],
)
def test_an_identifier_that_does_no_harm_is_silent(
    written: Write, options: dict[str, Any], columns: dict[str, list[str]]
) -> None:
    assert find_shared_identifiers(written(options, **columns, a=_noise(), y=_labels())) == []


def _days() -> list[str]:
    return [f"{2015 + day // 360}-{1 + day // 30 % 12:02}-{1 + day % 28:02}" for day in range(SIZE)]


def _drifting() -> list[float]:
    return [day / 100 + noise for day, noise in enumerate(_noise(7))]


def test_a_date_by_which_neighbors_are_alike_wants_a_split_in_time(written: Write) -> None:
    shuffled = random.Random(0).sample(list(zip(_days(), _drifting(), strict=True)), SIZE)
    (found,) = find_dates(written(day=[day for day, _ in shuffled], a=_noise(), y=[value for _, value in shuffled]))
    assert "rows near in day (2015-01-01 to 2016-" in found.what
    assert found.remedy.endswith("--data.time_column day")


@pytest.mark.parametrize(
    ("options", "name", "target"),
    [({}, "day", _noise(7)), ({"time_column": "day"}, "day", _drifting()), ({}, "date_of_birth", _drifting())],
    ids=["unrelated", "split", "birth"],
)
def test_a_date_that_does_no_harm_is_silent(
    written: Write, options: dict[str, Any], name: str, target: list[float]
) -> None:
    assert find_dates(written(options, **{name: _days()}, a=_noise(), y=target)) == []


def test_neighbors_are_alike_where_values_drift() -> None:
    rng = np.random.default_rng(0)
    assert neighbors_alike(np.arange(100), False) > 0.9
    assert abs(neighbors_alike(rng.permutation(1000), False)) < 0.1
    assert neighbors_alike(np.repeat([0, 1], 50), True) > 0.9
    assert neighbors_alike(np.zeros(9, np.int64), True) == 0


# What a person would agree with: duplicates that are there, and splits of fewer than thirty rows.
KNOWN = {
    "glass": {"validation"},
    "phoneme": {"duplicates"},
    "breast-cancer": {"validation"},
    "ionosphere": {"duplicates", "validation"},
    "winequality-red": {"duplicates"},
}
TARGETS = {
    "titanic": "Survived",
    "california_housing": "median_house_value",
    "pima_diabetes": "Outcome",
    "mpg": "mpg",
    "taxis": "total",
}


@pytest.mark.parametrize("excluded", [True, False])
def test_real_tables_raise_no_false_alarm(data_dir: str, tmp_path: Path, excluded: bool) -> None:
    files = sorted(Path(data_dir, "tabular").glob("**/*.csv*"))
    assert len(files) == 14
    for file in files:
        name = file.name.partition(".")[0]
        without = ["fare", "tip", "tolls"] if name == "taxis" and excluded else []
        data = CSVDataModule(str(file), target=TARGETS.get(name), exclude=without, cache_dir=str(tmp_path))
        found = examine(data)
        assert {finding.check for finding in found} == KNOWN.get(name, set()), (name, [f.line for f in found])
