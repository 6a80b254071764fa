"""How a table in memory is divided."""

from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import DataError
from tests.helpers.tables import NAMES, Make, everywhere, places, table, write


def test_every_row_is_in_one_of_the_splits(make: Make) -> None:
    data = make(table(), test_fraction=0.2, val_fraction=0.25)
    assert [len(places(data, stage)) for stage in ("train", "val", "test")] == [54, 18, 18]
    assert everywhere(data) == list(range(90))


def test_the_seed_decides_the_splits(make: Make) -> None:
    first, again, other = (make(table(), seed=seed) for seed in (1, 1, 2))
    assert places(first, "test") == places(again, "test") != places(other, "test")
    assert places(first, "val") == places(again, "val") != places(other, "val")


@pytest.mark.parametrize("stratify", [True, False])
def test_splits_are_stratified_unless_that_is_not_wanted(make: Make, stratify: bool) -> None:
    shares = set()
    for seed in range(5):
        data = make(table(), seed=seed, stratify=stratify, test_fraction=1 / 3)
        shares.add(sum(place % 3 == 0 for place in places(data, "test")))
    assert (shares == {10}) is stratify


def test_a_regression_is_divided_too(make: Make) -> None:
    data = make(table(), target="price", test_fraction=0.2, val_fraction=0.25)
    assert data.task == "regression"
    assert [len(places(data, stage)) for stage in ("train", "val", "test")] == [54, 18, 18]
    assert everywhere(data) == list(range(90))


@pytest.mark.parametrize("target", ["y", "price"])
def test_groups_are_never_divided(make: Make, target: str) -> None:
    rows = table(300)
    data = make(rows, target=target, group_column="group", test_fraction=0.3, val_fraction=0.3)
    groups = [{rows[place]["group"] for place in places(data, stage)} for stage in ("train", "val", "test")]
    assert all(groups)
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert everywhere(data) == list(range(300))
    assert len(places(data, "test")) == pytest.approx(90, abs=40)
    assert {column.role for column in data.columns.columns if column.name == "group"} == {"group"}


def test_what_is_held_out_by_time_is_the_last(make: Make) -> None:
    rows = table()
    data = make(rows, time_column="day", test_fraction=0.2, val_fraction=0.25)
    days = [[rows[place]["day"] for place in places(data, stage)] for stage in ("train", "val", "test")]
    assert [len(stage) for stage in days] == [54, 18, 18]
    assert max(days[0]) <= min(days[1])
    assert max(days[1]) <= min(days[2])


@pytest.mark.parametrize("options", [{}, {"stratify": False}, {"target": "price"}, {"group_column": "group"}])
def test_every_row_is_in_one_fold(make: Make, options: dict[str, Any]) -> None:
    rows = table(120)
    held_out: list[int] = []
    for fold in range(4):
        data = make(rows, num_folds=4, fold=fold, val_fraction=0.2, **options)
        assert everywhere(data) == list(range(120))
        held_out += places(data, "test")
        if "group_column" in options:
            inside = {rows[place]["group"] for place in places(data, "test")}
            assert not inside & {rows[place]["group"] for stage in ("train", "val") for place in places(data, stage)}
        elif not options:
            assert sum(place % 3 == 0 for place in places(data, "test")) == 10
    assert sorted(held_out) == list(range(120))


def test_folds_of_time_are_learned_from_what_is_before_them(make: Make) -> None:
    rows = table(100)
    tested: list[int] = []
    for fold in range(4):
        data = make(rows, num_folds=4, fold=fold, val_fraction=0.2, time_column="day")
        days = [[rows[place]["day"] for place in places(data, stage)] for stage in ("train", "val", "test")]
        assert [len(stage) for stage in days] == [16 * (fold + 1), 4 * (fold + 1), 20]
        assert max(days[0]) <= min(days[1])
        assert max(days[1]) <= min(days[2])
        tested += places(data, "test")
    assert len(set(tested)) == 80


def test_too_few_groups_for_so_many_folds_are_refused(make: Make) -> None:
    with pytest.raises(DataError, match=r"num_folds=40: there are too few groups"):
        _ = make(table(), num_folds=40, group_column="group").splits


def test_groups_and_time_together_are_refused(make: Make) -> None:
    with pytest.raises(DataError, match=r"group_column='group': rows are divided by group or by time"):
        make(table(), group_column="group", time_column="day")


def test_a_row_without_a_time_is_named(make: Make) -> None:
    rows = table()
    rows[7]["day"] = ""
    with pytest.raises(DataError, match=r"line 9: '' in column day is missing"):
        _ = make(rows, time_column="day").splits


def test_validation_and_test_can_be_tables_of_their_own(make: Make, workdir: Path) -> None:
    val, test = write(workdir / "val.csv", table(20, seed=1)), write(workdir / "test.csv", table(30, seed=2))
    data = make(table(), val_path=val, test_path=test)
    assert {stage: len(places(data, stage)) for stage in data.splits} == {"train": 90, "val": 20, "test": 30}
    data = make(table(), test_path=test, val_fraction=0.1)
    assert {stage: len(places(data, stage)) for stage in data.splits} == {"train": 81, "val": 9, "test": 30}
    data = make(table(), val_path=val, test_fraction=0.1)
    assert {stage: len(places(data, stage)) for stage in data.splits} == {"train": 81, "val": 20, "test": 9}
    data = make(table(), test_path=test, num_folds=3)
    assert {stage: len(places(data, stage)) for stage in data.splits} == {"train": 60, "val": 30, "test": 30}
    assert not data.tests_fold
    with pytest.raises(DataError, match=r"num_folds=3: validation and test are given"):
        _ = make(table(), val_path=val, test_path=test, num_folds=3).splits


def test_a_table_for_validation_is_encoded_as_the_training_table(make: Make, workdir: Path) -> None:
    rows = table()
    val = write(workdir / "val.csv", rows[:10], NAMES[::-1])  # in another order of columns
    data = make(rows, val_path=val, target="y", test_fraction=0)
    torch.testing.assert_close(data.splits["val"].samples.x, data.splits["train"].samples.x[:10], rtol=0, atol=0)
    assert data.splits["val"].samples.y.equal(data.splits["train"].samples.y[:10])


def test_downsampling_balances_the_training_split_alone(make: Make) -> None:
    plain, balanced = make(table()), make(table(), balance="downsample")
    yes = sum(place % 3 == 0 for place in places(plain, "train"))
    assert torch.bincount(balanced.splits["train"].samples.y[balanced.splits["train"].indices]).tolist() == [yes, yes]
    assert set(places(balanced, "train")) < set(places(plain, "train"))
    assert places(balanced, "test") == places(plain, "test")


def test_a_regression_cannot_be_balanced(make: Make) -> None:
    with pytest.raises(DataError, match=r"balance='downsample'"):
        _ = make(table(), target="price", balance="downsample").splits


def test_rows_without_a_target_are_dropped_with_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    rows = table()
    for place in (3, 50, 89):
        rows[place]["y"] = "NA" if place == 50 else ""
    data = make(rows)
    assert everywhere(data) == sorted(set(range(90)) - {3, 50, 89})
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("table.csv: 3 rows without a value of y are dropped")
    for stage in data.splits:
        samples, indices = data.splits[stage]
        assert samples.y[indices].tolist() == [int(place % 3 == 0) for place in places(data, stage)]
