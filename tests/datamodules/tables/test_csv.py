"""A table of one's own: what is learned from it, and how a trained model meets other tables."""

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import CSVDataModule, DataError
from datamodules.base import Stage
from kindling.callbacks import PredictionWriter
from lit_models import LitMLP
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer

Row = dict[str, Any]
NAMES = ("id", "a", "b", "c", "group", "day", "price", "y")


def table(size: int = 90, seed: int = 0) -> list[Row]:
    """Rows that are recognizable by `a`, with gaps in `b` and `c`; one in three has the class `yes`."""
    draw = random.Random(seed)
    rows = []
    for i in range(size):
        rows.append(
            {
                "id": f"r{seed}-{i:03}",
                "a": f"{i + 0.5}",
                "b": "" if i % 11 == 3 else str(draw.randint(0, 50)),
                "c": "" if i % 13 == 5 else draw.choice(["red", "green", "blue"]),
                "group": f"g{draw.randint(0, 17)}",
                "day": f"20{draw.randint(10, 24)}-0{draw.randint(1, 9)}-{draw.randint(10, 28)}",
                "price": f"{1e5 + 1000 * i + draw.randint(0, 99)}",
                "y": "no" if i % 3 else "yes",
            }
        )
    return rows


def write(
    path: Path, rows: list[Row], names: tuple[str, ...] = NAMES, header: bool = True, delimiter: str = ","
) -> str:
    """Write some columns of a table as text, packed if the name says so."""
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([names] * header + [[row[name] for name in names] for row in rows])
    return str(path)


@pytest.fixture
def make(workdir: Path) -> Callable[..., CSVDataModule]:
    """Make the data of some rows."""

    def data(rows: list[Row], names: tuple[str, ...] = NAMES, **options: Any) -> CSVDataModule:
        return CSVDataModule(write(workdir / "table.csv", rows, names), **options)

    return data


Make = Callable[..., CSVDataModule]


def places(data: CSVDataModule, stage: Stage) -> list[int]:
    """Which rows of `table` are in a split; `a` is the first number."""
    samples, indices = data.splits[stage]
    return [int(a) for a in samples.x[indices][:, 0]]


def everywhere(data: CSVDataModule) -> list[int]:
    """Which rows are in any of the splits, sorted."""
    return sorted(place for stage in data.splits for place in places(data, stage))


# Splits


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
    with pytest.raises(DataError, match=r"--data.num_folds 40: group has too few groups"):
        _ = make(table(), num_folds=40, group_column="group").splits


def test_groups_and_time_together_are_refused(make: Make) -> None:
    with pytest.raises(DataError, match=r"--data.group_column"):
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
    with pytest.raises(DataError, match=r"--data.num_folds"):
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
    with pytest.raises(DataError, match=r"--data.balance downsample"):
        _ = make(table(), target="price", balance="downsample").splits


def test_rows_without_a_target_are_left_out_and_that_is_said(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table()
    for place in (3, 50, 89):
        rows[place]["y"] = "NA" if place == 50 else ""
    data = make(rows)
    assert everywhere(data) == sorted(set(range(90)) - {3, 50, 89})
    assert capsys.readouterr().out.count("table.csv: 3 rows without a value of y are left out\n") == 1
    for stage in data.splits:
        samples, indices = data.splits[stage]
        assert samples.y[indices].tolist() == [int(place % 3 == 0) for place in places(data, stage)]


# What is fitted


def test_the_task_and_the_sizes_are_those_of_the_table(make: Make) -> None:
    data = make(table(), exclude=["group"])
    assert (data.task, data.num_outputs, data.class_names) == ("binary", 1, ["no", "yes"])
    # a, b, day, price, whether b is missing, c
    assert (data.in_features, data.input_shape, data.cat_cardinalities) == (6, (6,), [5])
    data = make(table(), target="c", exclude=["group"])
    assert (data.task, data.num_outputs, data.class_names) == ("multiclass", 3, ["blue", "green", "red"])
    assert data.cat_cardinalities == [3]
    data = make(table(), target="price", exclude=["group"])
    assert (data.task, data.num_outputs, data.class_names) == ("regression", 1, None)


def test_statistics_are_those_of_the_training_rows_in_their_own_units(make: Make) -> None:
    rows = table()
    data = make(rows, target="price")
    train = places(data, "train")
    prices = torch.tensor([float(rows[place]["price"]) for place in train], dtype=torch.float64)
    std, mean = torch.std_mean(prices, correction=0)
    torch.testing.assert_close(data.statistics["target_mean"], mean.float())
    torch.testing.assert_close(data.statistics["target_std"], std.float())
    assert 1e5 < data.statistics["target_mean"] < 2e5
    a = torch.tensor([place + 0.5 for place in train], dtype=torch.float64)
    torch.testing.assert_close(data.statistics["mean"][0], a.mean().float())
    torch.testing.assert_close(data.statistics["std"][0], a.std(correction=0).float())
    known = torch.tensor([float(rows[place]["b"]) for place in train if rows[place]["b"]])
    x = data.splits["train"].samples.x
    # The lower or the upper of two middle values, or their mean, is a median.
    assert known.quantile(0.5, interpolation="lower") <= x[3, 1] <= known.quantile(0.5, interpolation="higher")
    flags_and_codes = slice(len(data.columns.numbers), None)
    assert data.statistics["mean"][flags_and_codes].eq(0).all()
    assert data.statistics["std"][flags_and_codes].eq(1).all()


def test_what_is_held_out_has_no_say_in_what_is_fitted(make: Make) -> None:
    rows = table()
    data = make(rows)
    for place in (*places(data, "val"), *places(data, "test")):
        rows[place].update(a="1e9", b="-1e9", c="purple", price="1e9", day="1950-01-01")
    spoilt = make(rows)
    assert spoilt.columns.to_state() == data.columns.to_state()
    torch.testing.assert_close(spoilt.statistics, data.statistics, rtol=0, atol=0)


def test_the_column_that_names_the_rows_is_found_or_given(make: Make) -> None:
    data = make(table())
    assert data.columns
    assert data.key_column == "id"
    data = make(table(), key_column="price")
    assert "price" not in [column.name for column in data.columns.numbers]
    assert data.key_column == "price"
    data = make(table(), NAMES[1:])
    assert data.columns
    assert data.key_column is None
    assert data.row_keys() == {}


def test_columns_are_what_they_are_said_to_be(make: Make) -> None:
    rows = [{**row, "b": str(i % 4)} for i, row in enumerate(table())]
    data = make(rows, categorical=["b"], exclude=["group", "c"])
    assert [column.name for column in data.columns.numbers] == ["a", "day", "price"]
    assert [(column.name, column.categories) for column in data.columns.categories] == [("b", ["0", "1", "2", "3"])]
    with pytest.raises(DataError, match=r"--data.numeric"):
        make(rows, numeric=["b"], categorical=["b"])


# One row


def test_a_row_given_as_a_mapping_is_what_a_batch_holds_of_it(make: Make) -> None:
    data = make(table())
    x = data.splits["train"].samples.x
    read = pa.Table.from_batches(data._files.read().to_batches())
    for place, row in enumerate(read.to_pylist()):
        assert data.encode(row).equal(x[place])


def test_numbers_of_a_row_can_be_given_as_text(make: Make) -> None:
    data = make(table())
    row = {name: value for name, value in table()[8].items() if name != "day"}
    expected = data.encode({**row, "a": 8.5, "b": int(row["b"]), "price": float(row["price"])})
    assert data.encode(row).equal(expected)


def test_a_day_of_a_row_can_be_given_as_it_stands_in_the_file(make: Make) -> None:
    data = make(table())
    assert data.encode(table()[8]).equal(data.splits["train"].samples.x[8])


def test_what_a_row_lacks_is_missing_and_what_is_new_is_unseen(make: Make) -> None:
    data = make(table(), exclude=["group", "day"])
    assert data.columns.columns[2].is_flagged
    median = data.columns.columns[2].median
    lacking = data.encode({"a": 1.0, "price": 5.0})
    assert lacking.tolist() == [1, median, 5, 1, 1]  # a, b, price, whether b is missing, c: the code for a gap
    assert data.encode({"a": 1.0, "price": 5.0, "b": None, "c": None}).equal(lacking)
    unseen = data.encode({"a": 1.0, "b": 2, "price": 5.0, "c": "purple"})
    assert unseen.tolist() == [1, 2, 5, 0, 0]


def test_a_bad_value_of_a_row_is_named(make: Make) -> None:
    data = make(table())
    with pytest.raises(DataError, match="b 'many' is no number"):
        data.encode({"b": "many"})


def test_numbers_that_are_encoded_already_are_taken_as_they_are(make: Make) -> None:
    data = make(table())
    x = data.splits["train"].samples.x[4]
    assert data.encode(x).equal(x)
    with pytest.raises(DataError, match="numbers, not 2"):
        data.encode([1, 2])


# A trained model, and other tables


class Trained(NamedTuple):
    """A checkpoint, and the data it was trained on."""

    folder: Path
    checkpoint: str
    data: CSVDataModule

    def open(self, path: str | Path, **options: Any) -> CSVDataModule:
        """Make the data of another table, of which nothing else is said."""
        return CSVDataModule(str(path), cache_dir=str(self.folder / "cache"), **options)

    def model(self) -> LitMLP:
        """Load the model."""
        return LitMLP.load_from_checkpoint(self.checkpoint, weights_only=True).eval()

    def predict(self, path: str | Path, **options: Any) -> list[dict[str, str]]:
        """Predict a table as a notebook would, and read the file."""
        out = self.folder / "predictions.csv"
        trainer = quiet_trainer(callbacks=[PredictionWriter(out)])
        data = self.open(path, **options)
        trainer.predict(self.model(), data, ckpt_path=self.checkpoint, return_predictions=False, weights_only=True)
        with out.open(newline="") as file:
            return list(csv.DictReader(file))

    def test(self, data: CSVDataModule) -> dict[str, float]:
        """Test as a notebook would."""
        trainer = quiet_trainer()
        return dict(trainer.test(self.model(), data, ckpt_path=self.checkpoint, verbose=False, weights_only=True)[0])


def train(folder: Path, path: str, **options: Any) -> Trained:
    """Train for two epochs, the plain notebook way."""
    data = CSVDataModule(path, cache_dir=str(folder / "cache"), batch_size=16, **options)
    torch.manual_seed(0)
    model = LitMLP(
        data.in_features,
        [8],
        task=data.task,
        num_outputs=data.num_outputs,
        cat_cardinalities=data.cat_cardinalities,
        lr=0.02,
    )
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return Trained(folder, str(folder / "model.ckpt"), data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of the table."""
    folder = tmp_path_factory.mktemp("trained")
    return train(folder, write(folder / "train.csv", table()))


def by_key(predictions: list[dict[str, str]]) -> dict[str, float]:
    """Give the probability of `yes` under the key."""
    found = {row["id"]: float(row["probability_yes"]) for row in predictions}
    assert len(found) == len(predictions)
    return found


@pytest.fixture(scope="module")
def expected(trained: Trained) -> dict[str, float]:
    """What the model says of forty new rows, computed without a file in between."""
    data = trained.data
    path = write(trained.folder / "expected.csv", table(40, seed=1))
    part = trained.open(path)._files.read()
    x = torch.stack([data.encode(row) for row in part.to_pylist()])
    with torch.no_grad():
        outputs: Tensor = trained.model().predict_step(x, 0)
    return dict(zip(part["id"].to_pylist(), outputs.tolist(), strict=True))


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


def _shuffled(rows: list[Row]) -> list[Row]:
    return random.Random(5).sample(rows, len(rows))


CHANGES: dict[str, Callable[[Path], str]] = {
    "rows shuffled": lambda path: write(path / "new.csv", _shuffled(table(40, seed=1))),
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
    trained: Trained, expected: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "note": "inf", "more": i} for i, row in enumerate(table(40, seed=1))]
    path = write(tmp_path / "new.csv", rows, ("note", *NAMES, "more"))
    capsys.readouterr()
    assert by_key(trained.predict(path)) == pytest.approx(expected, abs=1e-6)
    assert capsys.readouterr().out.count(f"{path}: columns that the model does not know are ignored: note, more\n") == 1


def test_an_unlabeled_table_cannot_be_tested(trained: Trained, tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", table(40, seed=1), NAMES[:-1])
    with pytest.raises(DataError, match=r"there is no column 'y'"):
        trained.test(trained.open(path))


def test_a_test_on_another_table_takes_all_of_its_rows(
    trained: Trained, expected: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table(40, seed=1)
    path = write(tmp_path / "new.csv", rows)
    capsys.readouterr()
    found = trained.test(trained.open(path))
    assert f"{path} is not what the model was trained on: all of its rows are used\n" in capsys.readouterr().out
    right = [(expected[row["id"]] > 0.5) == (row["y"] == "yes") for row in rows]
    assert found["test_acc"] == pytest.approx(fmean(right))


def test_a_test_on_the_same_table_takes_what_was_held_out(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    data = trained.open(trained.folder / "train.csv")
    capsys.readouterr()
    found = trained.test(data)
    assert "not what the model was trained on" not in capsys.readouterr().out
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


# Without a header


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


# Other tasks


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


# The front door


def test_a_path_is_all_that_a_default_run_needs(run: Run, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workdir / "table.csv", table())
    cli = run("--data CSVDataModule --data.path table.csv --max_epochs 2")
    said = capsys.readouterr().out
    assert "y is predicted as one of no, yes (binary; --data.task overrules)" in said
    data = cli.datamodule
    assert isinstance(data, CSVDataModule)
    assert cli.model.hparams["in_features"] == data.in_features
    assert cli.model.hparams["cat_cardinalities"] == data.cat_cardinalities
    accuracy = cli.trainer.callback_metrics["test_acc"].item()
    checkpoint = "runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt"
    assert run(f"test --ckpt_path {checkpoint}").trainer.callback_metrics["test_acc"].item() == accuracy
    run(f"predict --ckpt_path {checkpoint}")
    with Path("predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert [row["id"] for row in predictions] == [row["id"] for row in table()]
    right = [predictions[place]["prediction"] == table()[place]["y"] for place in places(data, "test")]
    assert fmean(right) == pytest.approx(accuracy)


def test_the_front_door_predicts_another_table_with_what_was_fitted(run: Run, workdir: Path) -> None:
    write(workdir / "table.csv", table())
    rows = table(40, seed=1)
    run("--data CSVDataModule --data.path table.csv --max_epochs 1 --data.exclude [group]")
    checkpoint = "runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt"
    found = []
    for made in (rows, _shuffled(rows)[:11]):
        write(workdir / "new.csv", made, NAMES[:-1])
        run(f"predict --ckpt_path {checkpoint} --data.path new.csv")
        with Path("predictions.csv").open() as file:
            found.append(by_key(list(csv.DictReader(file))))
        assert list(found[-1]) == [row["id"] for row in made]
    assert found[1] == pytest.approx({key: found[0][key] for key in found[1]}, abs=1e-6)


def test_titanic_as_it_is(run: Run, data_dir: str) -> None:
    path = f"{data_dir}/tabular/titanic.csv"
    cli = run(f"--data CSVDataModule --data.path {path} --data.target Survived --max_epochs 2")
    data = cli.datamodule
    assert isinstance(data, CSVDataModule)
    assert (data.task, data.key_column) == ("binary", "PassengerId")
    assert cli.trainer.callback_metrics["test_acc"] > 0.65  # most died: 0.62
    run(f"predict --ckpt_path {cli.trainer.default_root_dir}/checkpoints/best.ckpt")
    with Path("predictions.csv").open() as file:
        assert [row["PassengerId"] for row in csv.DictReader(file)] == [str(at) for at in range(1, 892)]


@pytest.mark.parametrize(
    ("option", "other"),
    [("time_column", "day"), ("group_column", "group"), ("stratify", "false")],
)
def test_a_run_is_not_resumed_with_rows_held_out_by_something_else(
    run: Run, workdir: Path, capsys: pytest.CaptureFixture[str], option: str, other: str
) -> None:
    write(workdir / "table.csv", table())
    run("--data CSVDataModule --data.path table.csv --max_epochs 1 --data.exclude [group,day]")
    capsys.readouterr()
    last = "runs/LitMLP-CSVDataModule/version_0/checkpoints/last.ckpt"
    with pytest.raises(SystemExit):
        run(f"--ckpt_path {last} --max_epochs 2 --data.path table.csv --data.{option} {other}")
    assert f"--data.{option}" in capsys.readouterr().err


def test_a_flag_beside_a_checkpoint_does_not_ask_for_the_path_again(run: Run, workdir: Path) -> None:
    write(workdir / "table.csv", table())
    run("--data CSVDataModule --data.path table.csv --max_epochs 1")
    cli = run("test --ckpt_path runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt --data.batch_size 32")
    data = cli.datamodule
    assert isinstance(data, CSVDataModule)
    assert (data.path, data.batch_size) == ("table.csv", 32)


def test_training_goes_on_with_another_table_as_with_any(
    run: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workdir / "table.csv", table())
    write(workdir / "more.csv", table(120, seed=3))
    run("--data CSVDataModule --data.path table.csv --max_epochs 1")
    capsys.readouterr()
    last = "runs/LitMLP-CSVDataModule/version_0/checkpoints/last.ckpt"
    cli = run(f"--ckpt_path {last} --max_epochs 2 --data.path more.csv")
    data = cli.datamodule
    assert isinstance(data, CSVDataModule)
    assert everywhere(data) == list(range(120))
    assert sum(len(y) for _, y in data.val_dataloader()[0]) == len(places(data, "val"))
    assert "all of its rows are used" not in capsys.readouterr().out  # they are divided


# Cross-validation


class Tested(Callback):
    """Notes which rows are tested, by `a`."""

    seen: ClassVar[list[int]] = []

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at a batch."""
        self.seen.extend(int(a) for a in batch[0][:, 0])


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_cross_validation_tests_every_row_once_and_says_mean_and_spread(
    run: Run, workdir: Path, capsys: pytest.CaptureFixture[str], streaming: str
) -> None:
    write(workdir / "table.csv", table())
    Tested.seen.clear()
    run(
        "cross_validate --data CSVDataModule --data.path table.csv --data.num_folds 3 --max_epochs 1 "
        f"--data.streaming {streaming} --trainer.callbacks+={__name__}.Tested"
    )
    assert sorted(Tested.seen) == list(range(90))
    summaries = sorted(Path("runs/LitMLP-CSVDataModule").glob("version_*/summary.json"))
    assert len(summaries) == 3
    measured = [json.loads(path.read_text())["test"] for path in summaries]
    said = capsys.readouterr().out
    for fold, found in enumerate(measured, 1):
        assert f"fold {fold} of 3:  " + "  ".join(f"{name} {value:.4g}" for name, value in found.items()) in said
    assert {"test_loss", "test_acc"} <= measured[0].keys()
    tail = said.partition("mean and standard deviation over 3 folds\n")[2].splitlines()
    spread = {line.split()[0]: (float(line.split()[1]), float(line.split()[3])) for line in tail[: len(measured[0])]}
    assert spread.keys() == measured[0].keys()
    for name, (mean, deviation) in spread.items():
        values = [found[name] for found in measured]
        assert mean == pytest.approx(fmean(values), rel=1e-3)
        assert deviation == pytest.approx(stdev(values), rel=0.06, abs=1e-12)


@pytest.mark.parametrize("fold", ["0", "2"])
def test_cross_validation_chooses_the_fold_itself(mistake: Callable[[str], str], workdir: Path, fold: str) -> None:
    write(workdir / "table.csv", table())
    message = mistake(f"cross_validate --data CSVDataModule --data.path table.csv --data.fold {fold}")
    assert "--data.fold: cross_validate holds out each fold in turn; leave it out" in message


def test_large_numbers_that_vary_little_are_learned_from(workdir: Path) -> None:
    start = 1_700_000_000_000
    (workdir / "t.csv").write_text("ms,y\n" + "".join(f"{start + i},{i % 7}.5\n" for i in range(100)))
    data = CSVDataModule("t.csv")
    x = data.splits["train"].samples.x[:, 0]
    assert x.diff().tolist() == [1.0] * 99
    assert data.statistics["mean"].abs().item() < 1
    assert data.encode({"ms": start + 5}).item() == x[5].item()


def test_a_column_of_lists_is_left_out(workdir: Path) -> None:
    columns = {"a": [1.0, 2.0] * 20, "tags": [["u"], ["v", "w"]] * 20, "y": ["no", "yes"] * 20}
    pq.write_table(pa.table(columns), workdir / "t.parquet")
    data = CSVDataModule("t.parquet")
    assert "tags" in data.describe()
    assert data.in_features == 1


def test_one_feature_alone_can_be_predicted_from(run: Run, workdir: Path) -> None:
    (workdir / "t.csv").write_text("x,y\n" + "".join(f"{i / 9},{2 * i / 9}\n" for i in range(300)))
    (workdir / "new.csv").write_text("x\n1.0\n2.0\n")
    cli = run("--model LitLinearRegression --data CSVDataModule --data.path t.csv")
    assert cli.trainer.callback_metrics["test_mae"] < 0.5  # of values from 0 to 67
    run(
        "predict --ckpt_path runs/LitLinearRegression-CSVDataModule/version_0/checkpoints/best.ckpt --data.path new.csv"
    )
    assert len(Path("predictions.csv").read_text().splitlines()) == 3


def test_keys_of_a_parquet_file_are_kept_as_they_are(run: Run, workdir: Path) -> None:
    import decimal

    ids = [decimal.Decimal(12345678900 + i) for i in range(40)]
    table = pa.table({"id": ids, "a": [1.0, 2.0, 3.0, 4.0] * 10, "y": ["no", "yes"] * 20})
    pq.write_table(table, workdir / "t.parquet")
    run("--data CSVDataModule --data.path t.parquet --data.key_column id --max_epochs 1")
    run("predict --ckpt_path runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt")
    rows = Path("predictions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(number) for number in ids]
