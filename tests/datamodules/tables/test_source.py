"""How a table in memory is divided, and how a trained model meets other tables."""

import logging
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from datamodules import DataError
from tests.helpers.tables import NAMES, Make, Trained, by_key, everywhere, places, shuffled, table, train, write
from tests.helpers.trainers import quiet_trainer


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
    assert not data.fold_is_test
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


def test_the_rows_to_predict_say_something(expected: dict[str, float]) -> None:
    assert len({f"{value:.4f}" for value in expected.values()}) > 30


def test_predictions_are_in_the_order_of_the_rows_under_their_keys(
    trained: Trained, expected: dict[str, float], tmp_path: Path
) -> None:
    rows = table(40, seed=1)
    predictions = trained.predict(write(tmp_path / "new.csv", rows))
    assert list(predictions[0]) == ["id", "prediction", "probability_no", "probability_yes"]
    assert [row["id"] for row in predictions] == [row["id"] for row in rows]
    assert by_key(predictions) == pytest.approx(expected, abs=1e-6)
    for row in predictions:
        no, yes = float(row["probability_no"]), float(row["probability_yes"])
        assert no + yes == pytest.approx(1, abs=1e-6)
        assert row["prediction"] == ("yes" if yes > no else "no")


CHANGES: dict[str, Callable[[Path], str]] = {
    "rows shuffled": lambda path: write(path / "new.csv", shuffled(table(40, seed=1))),
    "columns reordered": lambda path: write(path / "new.csv", table(40, seed=1), NAMES[::-1]),
    "no target": lambda path: write(path / "new.csv", table(40, seed=1), NAMES[:-1]),
    "empty target": lambda path: write(path / "new.csv", [{**row, "y": ""} for row in table(40, seed=1)]),
    "other target": lambda path: write(path / "new.csv", [{**row, "y": "who knows"} for row in table(40, seed=1)]),
    "tabs": lambda path: write(path / "new.tsv", table(40, seed=1), delimiter="\t"),
    "semicolons": lambda path: write(path / "new.csv", table(40, seed=1), delimiter=";"),
    "gzip": lambda path: write(path / "new.csv.gz", table(40, seed=1)),
    "windows lines": lambda path: _recoded(path, "utf-8", "\r\n"),
    "byte order mark": lambda path: _recoded(path, "utf-8-sig", "\n"),
    "UTF-16": lambda path: _recoded(path, "utf-16", "\n"),
    "Parquet": lambda path: _parquet(path, {}),
    "Parquet of categories": lambda path: _parquet(path, {"c": pa.dictionary(pa.int8(), pa.string())}),
    "Parquet of text": lambda path: _parquet(path, dict.fromkeys(("a", "b", "price"), pa.string())),
    "Parquet of other numbers": lambda path: _parquet(path, {"b": pa.float64(), "price": pa.float32()}),
    "several files": lambda path: _folder(path),
}


def _recoded(path: Path, encoding: str, newline: str) -> str:
    text = Path(write(path / "new.csv", table(40, seed=1))).read_text()
    (path / "new.csv").write_text(text, encoding=encoding, newline=newline)
    return str(path / "new.csv")


def _parquet(path: Path, types: dict[str, pa.DataType]) -> str:
    import pyarrow.csv as pacsv

    read = pacsv.read_csv(
        write(path / "new.csv", table(40, seed=1)), convert_options=pacsv.ConvertOptions(strings_can_be_null=True)
    )
    for name, kind in types.items():
        column = read[name].dictionary_encode() if pa.types.is_dictionary(kind) else read[name].cast(kind)
        read = read.set_column(read.column_names.index(name), name, column)
    pq.write_table(read, path / "new.parquet", row_group_size=7)
    return str(path / "new.parquet")


def _folder(path: Path) -> str:
    (path / "new").mkdir()
    rows = table(40, seed=1)
    write(path / "new" / "1.csv", rows[:25])
    write(path / "new" / "2.csv", rows[25:], NAMES[::-1])
    return str(path / "new")


@pytest.mark.parametrize("change", CHANGES)
def test_a_row_is_predicted_the_same_however_the_table_is_written(
    trained: Trained, expected: dict[str, float], tmp_path: Path, change: str
) -> None:
    path = CHANGES[change](tmp_path)
    assert by_key(trained.predict(path)) == pytest.approx(expected, abs=1e-6)
    assert by_key(trained.predict(path)) == pytest.approx(expected, abs=1e-6)  # from the cache


def test_a_row_is_predicted_the_same_alone(trained: Trained, expected: dict[str, float], tmp_path: Path) -> None:
    rows = table(40, seed=1)
    for row in (rows[0], rows[3], rows[5]):  # complete, without b, without c
        assert by_key(trained.predict(write(tmp_path / "new.csv", [row]))) == pytest.approx(
            {row["id"]: expected[row["id"]]}, abs=1e-6
        )


def test_a_column_that_is_wholly_missing_in_a_new_table_is_missing(trained: Trained, tmp_path: Path) -> None:
    rows = [{**row, "b": "", "c": "", "day": ""} for row in table(40, seed=1)]
    predictions = by_key(trained.predict(write(tmp_path / "new.csv", rows)))
    data = trained.data
    x = torch.stack([data.encode({"a": float(row["a"]), "price": float(row["price"]), "group": row["group"]})
                     for row in rows])  # fmt: skip
    with torch.no_grad():
        outputs = trained.model().predict_step(x, 0)
    assert list(predictions.values()) == pytest.approx(outputs.tolist(), abs=1e-6)


@pytest.mark.parametrize("codes", [("01", "02", "3A"), ("1.10", "1.20", "b"), ("true", "false", "maybe")])
def test_a_category_that_looks_like_something_else_in_a_new_table_is_still_itself(
    tmp_path: Path, codes: tuple[str, str, str]
) -> None:
    rows = [{**row, "c": codes[i % 3]} for i, row in enumerate(table())]
    trained = train(tmp_path, write(tmp_path / "train.csv", rows))
    whole = by_key(trained.predict(tmp_path / "train.csv"))
    alone = by_key(trained.predict(write(tmp_path / "new.csv", rows[0::3])))  # of these rows alone: one code
    assert alone == pytest.approx({key: whole[key] for key in alone}, abs=1e-6)


def test_integers_are_the_same_categories_where_a_gap_makes_them_fractions(tmp_path: Path) -> None:
    rows = [{**row, "b": str(i % 4)} for i, row in enumerate(table())]
    trained = train(tmp_path, write(tmp_path / "train.csv", rows), categorical=["b"])
    whole = by_key(trained.predict(tmp_path / "train.csv"))
    ids, b = [row["id"] for row in rows], [float(row["b"]) for row in rows]
    others = {name: [row[name] for row in rows] for name in ("a", "price", "c", "group")}
    for name in ("a", "price"):
        others[name] = [float(value) for value in others[name]]
    days = pa.array([row["day"] for row in rows]).cast(pa.date32())
    c = [value or None for value in others.pop("c")]
    made = pa.table({"id": ids, "b": b, "c": c, "day": days, **others})
    pq.write_table(made, tmp_path / "new.parquet")
    assert by_key(trained.predict(tmp_path / "new.parquet")) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("key", ["007", "12345678901234567890", "1.50"])
def test_a_key_is_written_as_it_stands_in_the_file(tmp_path: Path, key: str) -> None:
    rows = [{**row, "id": f"{i}{key}" if key == "1.50" else f"{key}{i:02}"} for i, row in enumerate(table())]
    trained = train(tmp_path, write(tmp_path / "train.csv", rows), key_column="id")
    assert [row["id"] for row in trained.predict(tmp_path / "train.csv")] == [row["id"] for row in rows]


def test_columns_that_the_model_does_not_know_are_ignored_and_that_is_said(
    trained: Trained, expected: dict[str, float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{**row, "note": "inf", "more": i} for i, row in enumerate(table(40, seed=1))]
    path = write(tmp_path / "new.csv", rows, ("note", *NAMES, "more"))
    assert by_key(trained.predict(path)) == pytest.approx(expected, abs=1e-6)
    assert caplog.messages.count(f"{path}: columns that the model does not know are ignored: note, more") == 1


def test_an_unlabeled_table_cannot_be_tested(trained: Trained, tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", table(40, seed=1), NAMES[:-1])
    with pytest.raises(DataError, match=r"there is no column 'y'"):
        trained.test(trained.open(path))


def test_a_test_on_another_table_takes_all_of_its_rows(
    trained: Trained, expected: dict[str, float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = table(40, seed=1)
    path = write(tmp_path / "new.csv", rows)
    caplog.set_level(logging.INFO)
    found = trained.test(trained.open(path))
    assert f"{path} is not what the model was trained on: all of its rows are used" in caplog.messages
    right = [(expected[row["id"]] > 0.5) == (row["y"] == "yes") for row in rows]
    assert found["test_acc"] == pytest.approx(fmean(right))


def test_a_test_on_the_same_table_takes_what_was_held_out(trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    data = trained.open(trained.folder / "train.csv")
    caplog.set_level(logging.INFO)
    found = trained.test(data)
    assert "not what the model was trained on" not in caplog.text
    samples, indices = trained.data.splits["test"]
    with torch.no_grad():
        outputs = trained.model().predict_step(samples.x[indices], 0)
    assert found["test_acc"] == pytest.approx(((outputs > 0.5) == samples.y[indices]).float().mean().item())
    assert places(data, "test") == places(trained.data, "test")


def test_so_it_does_however_the_same_table_is_said_to_be_written(trained: Trained) -> None:
    data = trained.open(trained.folder / "train.csv", delimiter=",", header=True)
    trained.test(data)
    assert sum(len(y) for _, y in data.test_dataloader()[0]) == len(places(trained.data, "test"))


def test_a_validation_on_another_table_takes_all_of_its_rows(
    trained: Trained, expected: dict[str, float], tmp_path: Path
) -> None:
    rows = table(40, seed=1)
    data = trained.open(write(tmp_path / "new.csv", rows))
    trainer = quiet_trainer()
    found = trainer.validate(trained.model(), data, ckpt_path=trained.checkpoint, verbose=False, weights_only=True)[0]
    right = [(expected[row["id"]] > 0.5) == (row["y"] == "yes") for row in rows]
    assert found["val_acc"] == pytest.approx(fmean(right))


def test_the_state_loads_safely_and_nothing_is_fitted_again(trained: Trained, tmp_path: Path) -> None:
    state = torch.load(trained.checkpoint, weights_only=True)["CSVDataModule"]
    rows = [{**row, "a": str(1e6 + i), "c": "purple"} for i, row in enumerate(table(40, seed=1))]
    path = write(tmp_path / "new.csv", rows, NAMES[::-1])
    alone = trained.open(path, target="y")
    assert alone.columns.to_state() != trained.data.columns.to_state()
    data = trained.open(path)
    data.load_state_dict(state)
    assert data.columns.to_state() == trained.data.columns.to_state()
    torch.testing.assert_close(data.statistics, trained.data.statistics, rtol=0, atol=0)
    assert (data.target_column, data.key_column, data.task) == ("y", "id", "binary")
    assert (data.class_names, data.cat_cardinalities) == (["no", "yes"], trained.data.cat_cardinalities)
    x = torch.cat(list(data.predict_dataloader()[0]))
    assert x[:, 0].tolist() == [1e6 + i for i in range(40)]
    assert data.encode({"c": "purple"})[-2] == 0


def test_one_class_in_a_table_to_test_is_enough(trained: Trained, tmp_path: Path) -> None:
    rows = [{**row, "y": "yes"} for row in table(40, seed=1)]
    found = trained.test(trained.open(write(tmp_path / "new.csv", rows)))
    predictions = trained.predict(tmp_path / "new.csv")
    assert found["test_acc"] == pytest.approx(fmean(row["prediction"] == "yes" for row in predictions))


@pytest.mark.parametrize("target", [True, False])
def test_a_table_without_a_header_is_predicted_with_or_without_its_target(tmp_path: Path, target: bool) -> None:
    names = ("a", "b", "c", "y")
    trained = train(tmp_path, write(tmp_path / "train.csv", table(), names, header=False))
    assert trained.data.target_column == "y"
    whole = trained.predict(tmp_path / "train.csv")
    assert len(whole) == 90
    shown = names if target else names[:-1]
    some = trained.predict(write(tmp_path / "new.csv", table()[20:60], shown, header=False))
    for column in ("probability_no", "probability_yes"):
        assert [float(row[column]) for row in some] == pytest.approx(
            [float(row[column]) for row in whole[20:60]], abs=1e-6
        )


def test_a_single_row_without_a_header_and_target_is_predicted(tmp_path: Path) -> None:
    names = ("a", "b", "c", "y")
    trained = train(tmp_path, write(tmp_path / "train.csv", table(), names, header=False))
    whole = trained.predict(tmp_path / "train.csv")
    alone = trained.predict(write(tmp_path / "new.csv", table()[20:21], names[:-1], header=False))
    assert len(alone) == 1
    assert float(alone[0]["probability_yes"]) == pytest.approx(float(whole[20]["probability_yes"]), abs=1e-6)


def test_several_classes_have_a_probability_each(tmp_path: Path) -> None:
    trained = train(tmp_path, write(tmp_path / "train.csv", table()), target="c")
    predictions = trained.predict(tmp_path / "train.csv")
    assert len(predictions) == 90  # those without a class too
    names = ["blue", "green", "red"]
    assert list(predictions[0]) == ["id", "prediction", *(f"probability_{name}" for name in names)]
    for row in predictions:
        shares = [float(row[f"probability_{name}"]) for name in names]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == names[shares.index(max(shares))]


def test_classes_that_are_numbers_are_sorted_by_size(make: Make) -> None:
    rows = [{**row, "y": str((2, 10, -1)[i % 3])} for i, row in enumerate(table())]
    data = make(rows)
    assert (data.task, data.class_names) == ("multiclass", ["-1", "2", "10"])


def test_a_regression_predicts_and_is_measured_in_its_own_unit(tmp_path: Path) -> None:
    rows = table()
    trained = train(tmp_path, write(tmp_path / "train.csv", rows, ("id", "a", "b", "c", "price")), target="price")
    predictions = trained.predict(tmp_path / "train.csv")
    assert list(predictions[0]) == ["id", "prediction"]
    values = [float(row["prediction"]) for row in predictions]
    assert all(5e4 < value < 3e5 for value in values)
    errors = [abs(values[place] - float(rows[place]["price"])) for place in places(trained.data, "test")]
    found = trained.test(trained.open(tmp_path / "train.csv"))
    assert found["test_mae"] == pytest.approx(fmean(errors), rel=1e-4)
