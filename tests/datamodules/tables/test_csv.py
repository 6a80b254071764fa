"""A user's table: what is fitted on it, and the front door."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import CSVDataModule, DataError
from tests.helpers.front_door import Run
from tests.helpers.tables import NAMES, Make, by_key, everywhere, places, shuffled, table, write


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
    with pytest.raises(DataError, match=r"numeric: \['b'\] cannot be numbers and categories at once"):
        make(rows, numeric=["b"], categorical=["b"])


def test_a_row_given_as_a_mapping_is_what_a_batch_holds_of_it(make: Make) -> None:
    data = make(table())
    x = data.splits["train"].samples.x
    read = pa.Table.from_batches(data.source.files.read().to_batches())
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
    with pytest.raises(DataError, match="b 'many' is not a number"):
        data.encode({"b": "many"})


def test_numbers_that_are_encoded_already_are_taken_as_they_are(make: Make) -> None:
    data = make(table())
    x = data.splits["train"].samples.x[4]
    assert data.encode(x).equal(x)
    with pytest.raises(DataError, match="numbers, not 2"):
        data.encode([1, 2])


def test_a_path_is_all_that_a_default_run_needs(run: Run, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workdir / "table.csv", table())
    cli = run("--model LitMLP --data CSVDataModule --data.path table.csv --max_epochs 2")
    said = capsys.readouterr().out
    assert "y, the last column, is predicted as one of no, yes (binary, inferred)" in said
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
    run("--model LitMLP --data CSVDataModule --data.path table.csv --max_epochs 1 --data.exclude [group]")
    checkpoint = "runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt"
    found = []
    for made in (rows, shuffled(rows)[:11]):
        write(workdir / "new.csv", made, NAMES[:-1])
        run(f"predict --ckpt_path {checkpoint} --data.path new.csv")
        with Path("predictions.csv").open() as file:
            found.append(by_key(list(csv.DictReader(file))))
        assert list(found[-1]) == [row["id"] for row in made]
    assert found[1] == pytest.approx({key: found[0][key] for key in found[1]}, abs=1e-6)


def test_titanic_as_it_is(run: Run, data_dir: str) -> None:
    path = f"{data_dir}/tabular/titanic.csv"
    cli = run(f"--model LitMLP --data CSVDataModule --data.path {path} --data.target Survived --max_epochs 2")
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
    run("--model LitMLP --data CSVDataModule --data.path table.csv --max_epochs 1 --data.exclude [group,day]")
    capsys.readouterr()
    last = "runs/LitMLP-CSVDataModule/version_0/checkpoints/last.ckpt"
    with pytest.raises(SystemExit):
        run(f"--ckpt_path {last} --max_epochs 2 --data.path table.csv --data.{option} {other}")
    assert f"--data.{option}" in capsys.readouterr().err


def test_a_flag_beside_a_checkpoint_does_not_ask_for_the_path_again(run: Run, workdir: Path) -> None:
    write(workdir / "table.csv", table())
    run("--model LitMLP --data CSVDataModule --data.path table.csv --max_epochs 1")
    cli = run("test --ckpt_path runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt --data.batch_size 32")
    data = cli.datamodule
    assert isinstance(data, CSVDataModule)
    assert (data.path, data.batch_size) == ("table.csv", 32)


def test_training_goes_on_with_another_table_as_with_any(
    run: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workdir / "table.csv", table())
    write(workdir / "more.csv", table(120, seed=3))
    run("--model LitMLP --data CSVDataModule --data.path table.csv --max_epochs 1")
    capsys.readouterr()
    last = "runs/LitMLP-CSVDataModule/version_0/checkpoints/last.ckpt"
    cli = run(f"--ckpt_path {last} --max_epochs 2 --data.path more.csv")
    data = cli.datamodule
    assert isinstance(data, CSVDataModule)
    assert everywhere(data) == list(range(120))
    assert sum(len(y) for _, y in data.val_dataloader()[0]) == len(places(data, "val"))
    assert "all of its rows are used" not in capsys.readouterr().out  # they are divided


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
        "cross_validate --model LitMLP --data CSVDataModule --data.path table.csv --data.num_folds 3 --max_epochs 1 "
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
    run("--model LitMLP --data CSVDataModule --data.path t.parquet --data.key_column id --max_epochs 1")
    run("predict --ckpt_path runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt")
    rows = Path("predictions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(number) for number in ids]
