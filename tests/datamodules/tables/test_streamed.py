"""A streamed table: the same splits, columns and predictions as if it were in memory."""

import csv
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from datamodules import CSVDataModule, DataError
from datamodules.base import Stage
from kindling.callbacks import PredictionWriter
from lit_models import LitMLP
from tests.helpers.streams import GROUP, SIZE, rows_of, stream_of, table, write_csv
from tests.helpers.trainers import quiet_trainer

pytestmark = pytest.mark.usefixtures("small_buffers")


def test_splits_are_disjoint_complete_and_about_as_large_as_asked(workdir: Path) -> None:
    pq.write_table(table(3000), workdir / "table.parquet", row_group_size=200)
    data = stream_of(workdir / "table.parquet", test_fraction=0.3, val_fraction=0.2)
    found = {stage: rows_of(data, stage) for stage in ("train", "val", "test")}
    assert sorted(itertools.chain.from_iterable(found.values())) == list(range(3000))
    # Four standard deviations are 100, 81 and 108.
    assert len(found["test"]) == pytest.approx(900, abs=100)
    assert len(found["val"]) == pytest.approx(420, abs=81)
    assert len(found["train"]) == pytest.approx(1680, abs=108)
    assert {stage: data.splits[stage].size for stage in data.splits} == {s: len(rows) for s, rows in found.items()}


def test_splits_are_those_of_the_seed(path: str) -> None:
    found = {}
    for seed in range(3):
        data, again = stream_of(path, seed=seed), stream_of(path, seed=seed)
        for stage in ("train", "val", "test"):
            found[seed, stage] = tuple(sorted(rows_of(data, stage)))
            assert found[seed, stage] == tuple(sorted(rows_of(again, stage)))
    assert len(set(found.values())) == 9


def test_splits_do_not_depend_on_how_the_file_is_stored(path: str, workdir: Path) -> None:
    pq.write_table(table(), workdir / "other.parquet", row_group_size=111)
    write_csv(workdir / "table.csv", table())
    (workdir / "folder").mkdir()
    pq.write_table(table()[:150], workdir / "folder" / "1.parquet")
    pq.write_table(table()[150:], workdir / "folder" / "2.parquet")
    data = stream_of(path)
    for other in ("other.parquet", "table.csv", "folder"):
        again = stream_of(workdir / other)
        for stage in ("train", "val", "test"):
            assert sorted(rows_of(again, stage)) == sorted(rows_of(data, stage))


@pytest.mark.parametrize("as_text", [True, False])
def test_groups_are_never_divided(workdir: Path, as_text: bool) -> None:
    made = table(1000)
    groups = made["group"].to_pylist()
    if as_text:
        made = made.set_column(4, "group", pa.array([f"group {group}" for group in groups]))
    pq.write_table(made, workdir / "table.parquet", row_group_size=50)
    data = stream_of(workdir / "table.parquet", group_column="group", test_fraction=0.3, val_fraction=0.3)
    stages: tuple[Stage, ...] = ("train", "val", "test")
    inside = [{groups[row] for row in rows_of(data, stage)} for stage in stages]
    assert all(inside)
    assert sum(map(len, inside)) == 50
    assert sorted(row for stage in stages for row in rows_of(data, stage)) == list(range(1000))


@pytest.mark.parametrize("group_column", [None, "group"])
def test_folds_cover_everything(path: str, group_column: str | None) -> None:
    tested: list[int] = []
    for fold in range(4):
        data = stream_of(path, num_folds=4, fold=fold, val_fraction=0.2, group_column=group_column)
        assert data.fold_is_test
        found = {stage: rows_of(data, stage) for stage in ("train", "val", "test")}
        assert all(found.values())
        assert sorted(itertools.chain.from_iterable(found.values())) == list(range(SIZE))
        tested += found["test"]
    assert sorted(tested) == list(range(SIZE))


def test_validation_and_test_can_be_tables_of_their_own(path: str, workdir: Path) -> None:
    pq.write_table(table(50, seed=1), workdir / "val.parquet", row_group_size=9)
    pq.write_table(table(60, seed=2), workdir / "test.parquet", row_group_size=9)
    val, test = str(workdir / "val.parquet"), str(workdir / "test.parquet")
    data = stream_of(path, val_path=val, test_path=test)
    assert [sorted(rows_of(data, stage)) for stage in ("train", "val", "test")] == [
        list(range(size)) for size in (SIZE, 50, 60)
    ]
    held_out: list[int] = []
    for fold in range(3):
        data = stream_of(path, test_path=test, num_folds=3, fold=fold)
        assert rows_of(data, "test") == list(range(60))
        assert not data.fold_is_test
        assert sorted(rows_of(data, "train") + rows_of(data, "val")) == list(range(SIZE))
        held_out += rows_of(data, "val")
    assert sorted(held_out) == list(range(SIZE))


def test_with_both_there_is_no_fold_to_hold_out(path: str) -> None:
    with pytest.raises(DataError, match=r"num_folds=3: validation and test are given"):
        _ = stream_of(path, val_path=path, test_path=path, num_folds=3).splits


def test_rows_without_a_target_are_dropped_with_a_warning(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    y: list[str | None] = table()["y"].to_pylist()
    y[7], y[200], y[399] = None, " ", ""
    pq.write_table(table().set_column(6, "y", pa.array(y)), workdir / "table.parquet", row_group_size=GROUP)
    data = stream_of(workdir / "table.parquet")
    found = sorted(row for stage in data.splits for row in rows_of(data, stage))
    assert found == sorted(set(range(SIZE)) - {7, 200, 399})
    assert "table.parquet: 3 rows without a value of y are dropped" in caplog.text


def test_what_is_held_out_has_no_say_in_what_is_fitted(path: str, workdir: Path) -> None:
    data = stream_of(path)
    train = set(rows_of(data, "train"))
    rows = table().to_pylist()
    for at, row in enumerate(rows):
        if at not in train:
            row.update(b=1e9, c="purple", group=10**6)
    pq.write_table(pa.Table.from_pylist(rows, table().schema), workdir / "other.parquet", row_group_size=GROUP)
    spoilt = stream_of(workdir / "other.parquet")
    assert sorted(rows_of(spoilt, "train")) == sorted(train)
    assert spoilt.columns.to_state() == data.columns.to_state()
    a = torch.tensor(sorted(train), dtype=torch.float64)
    torch.testing.assert_close(data.statistics["mean"][0], a.mean().float())
    torch.testing.assert_close(data.statistics["std"][0], a.std(correction=0).float())


@pytest.fixture
def checkpoint(path: str, workdir: Path) -> str:
    """A model that learned from the table in memory."""
    data = CSVDataModule(path)
    torch.manual_seed(0)
    model = LitMLP(data.in_features, [8], task="binary", num_outputs=1, cat_cardinalities=data.cat_cardinalities)
    trainer = quiet_trainer()
    trainer.fit(model, data)
    trainer.save_checkpoint(workdir / "model.ckpt")
    return str(workdir / "model.ckpt")


def _predict(checkpoint: str, data: CSVDataModule) -> tuple[list[str], list[float]]:
    trainer = quiet_trainer(callbacks=[PredictionWriter("predictions.csv")])
    model = LitMLP.load_from_checkpoint(checkpoint, weights_only=True)
    trainer.predict(model, data, ckpt_path=checkpoint, return_predictions=False, weights_only=True)
    with open("predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["id"] for row in rows], [float(row["probability_yes"]) for row in rows]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["Parquet", "CSV", "no target"])
def test_predictions_are_those_of_a_table_in_memory(
    checkpoint: str, workdir: Path, kind: str, num_workers: int
) -> None:
    new = table(150, seed=1)
    if kind == "CSV":
        path = write_csv(workdir / "new.csv", new)
    else:
        new = new.drop_columns(["y"]) if kind == "no target" else new
        pq.write_table(new, workdir / "new.parquet", row_group_size=GROUP)
        path = str(workdir / "new.parquet")
    keys, expected = _predict(checkpoint, CSVDataModule(path))
    assert keys == new["id"].to_pylist()
    assert len(set(expected)) > 100
    found_keys, found = _predict(checkpoint, stream_of(path, num_workers=num_workers, batch_size=8))
    assert found_keys == keys
    assert found == pytest.approx(expected, abs=1e-6)


def test_rows_are_encoded_as_in_memory(path: str) -> None:
    resident = CSVDataModule(path)
    streamed = stream_of(path)
    streamed.load_state_dict(resident.state_dict())
    whole = resident.splits["train"].samples
    assert torch.cat(list(streamed.predict_dataloader()[0])).equal(whole.x)
    for stage in ("train", "val", "test"):
        for x, y in streamed._loader(stage)[0]:
            rows = x[:, 0].long()
            assert x.equal(whole.x[rows])
            assert y.equal(whole.y[rows])


def test_columns_are_fitted_as_in_memory(path: str) -> None:
    resident = CSVDataModule(path, val_fraction=0, test_fraction=0)
    streamed = stream_of(path, val_fraction=0, test_fraction=0)
    assert streamed.columns.to_state() == resident.columns.to_state()
    assert (streamed.task, streamed.class_names) == (resident.task, resident.class_names)
    torch.testing.assert_close(streamed.statistics, resident.statistics)
    assert streamed.key_column == resident.key_column == "id"


def test_a_regression_is_streamed_too(path: str) -> None:
    resident = CSVDataModule(path, target="a", val_fraction=0, test_fraction=0)
    streamed = stream_of(path, target="a", val_fraction=0, test_fraction=0)
    assert streamed.task == resident.task == "regression"
    torch.testing.assert_close(streamed.statistics, resident.statistics)
    targets = torch.cat([y for _, y in streamed.train_dataloader()])
    assert targets.sort().values.equal(torch.arange(float(SIZE)))


def test_a_test_on_another_table_takes_all_of_its_rows(
    checkpoint: str, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(table(150, seed=1), workdir / "new.parquet", row_group_size=GROUP)
    found = []
    caplog.set_level(logging.INFO)
    for data in (CSVDataModule(str(workdir / "new.parquet")), stream_of(workdir / "new.parquet")):
        model = LitMLP.load_from_checkpoint(checkpoint, weights_only=True)
        found.append(quiet_trainer().test(model, data, ckpt_path=checkpoint, verbose=False, weights_only=True)[0])
        assert "new.parquet is not what the model was trained on: all of its rows are used" in caplog.text
        caplog.clear()
        assert sum(len(y) for _, y in data.test_dataloader()[0]) == 150
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def _same_as_resident(path: str | Path) -> None:
    resident = CSVDataModule(str(path), target="y", val_fraction=0, test_fraction=0)
    streamed = stream_of(path, target="y", val_fraction=0, test_fraction=0)
    assert streamed.columns.to_state() == resident.columns.to_state()
    torch.testing.assert_close(
        torch.cat(list(streamed.predict_dataloader()[0])), resident.splits["train"].samples.x, rtol=0, atol=0
    )


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a text table be parsed in small blocks, of which the first tells the types."""
    monkeypatch.setattr("datamodules.tables.reader.SAMPLE", 1000)
    monkeypatch.setattr("datamodules.tables.reader.BLOCK", 1000)
    monkeypatch.setattr("datamodules.tables.files.BLOCK", 8000)


@pytest.mark.usefixtures("small_blocks")
def test_text_is_converted_to_what_it_is_in_memory(workdir: Path) -> None:
    _same_as_resident(write_csv(workdir / "table.csv", table()))


@pytest.mark.usefixtures("small_blocks")
def test_a_fraction_that_comes_late_is_no_surprise(workdir: Path) -> None:
    rows = table().to_pylist()
    for row in rows[200:]:
        row["group"] += 0.5
    made = pa.Table.from_pylist(rows, table().schema.set(4, pa.field("group", pa.float64())))
    path = Path(write_csv(workdir / "table.csv", made))
    path.write_text(path.read_text().replace(".0,no two", ",no two"))
    _same_as_resident(path)


@pytest.mark.usefixtures("small_blocks")
def test_files_of_a_folder_may_have_their_columns_in_another_order(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    write_csv(workdir / "folder" / "1.csv", table()[:100])
    write_csv(workdir / "folder" / "2.csv", table()[100:], table().column_names[::-1])
    _same_as_resident(workdir / "folder")


@pytest.mark.usefixtures("small_blocks")
def test_and_a_fraction_in_the_second_only(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    whole = table().set_column(4, "group", pa.array([at % 50 for at in range(SIZE)]))
    write_csv(workdir / "folder" / "1.csv", whole[:100])
    names = [*whole.column_names[1:], "id"]
    late = whole[100:].set_column(4, "group", pa.array([at % 50 + 0.5 for at in range(300)]))
    write_csv(workdir / "folder" / "2.csv", late, names)
    _same_as_resident(workdir / "folder")


def test_parquet_files_of_a_folder_may_have_their_columns_in_another_order(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    pq.write_table(table()[:100], workdir / "folder" / "1.parquet")
    pq.write_table(table()[100:].select(table().column_names[::-1]), workdir / "folder" / "2.parquet")
    _same_as_resident(workdir / "folder")


def test_a_second_run_need_not_convert_again(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_csv(workdir / "table.csv", table())
    caplog.set_level(logging.INFO)
    for times in (1, 0):
        caplog.clear()
        assert stream_of(path).columns
        assert caplog.text.count("are converted to Parquet once") == times


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--data.balance downsample", "--data.balance downsample: a streamed table does not have"),
        ("--data.balance weights", "--data.balance weights: a streamed table does not have"),
        ("--data.time_column a", "--data.time_column a: a streamed table does not have"),
        ("--data.target why", "there is no column 'why'"),
        ("--data.group_column g", "there is no column 'g'"),
        (
            "--data.test_fraction 0.99 --data.val_fraction 0.99 --data.seed 1 --data.path few.parquet",
            "left to train on",
        ),
    ],
)
def test_what_a_stream_cannot_do_is_one_line(
    mistake: Callable[[str], str], path: str, workdir: Path, flags: str, expected: str
) -> None:
    pq.write_table(table()[:20], workdir / "few.parquet")
    flags = flags if "--data.path" in flags else f"--data.path table.parquet {flags}"
    assert expected in mistake(f"--data CSVDataModule --data.streaming true {flags}")


GOOD = "a,b,y\n" + "".join(f"{i},{i * i % 7}.5,{'no' if i % 3 else 'yes'}\n" for i in range(60))


BAD = {
    "a class of one": ("20,1.5,no", "20,1.5,maybe", "", "line 22: 'maybe' in column y is the only row of its class"),
    "regression of words": ("", "", "--data.task regression", "line 2: 'yes' in column y is not a number"),
    "asked for numbers": ("", "", "--data.target a --data.numeric [y]", "line 2: 'yes' in column y is not a number"),
    "short row": ("20,1.5,no", "20,1.5", "", "line 22: 2 values where there are 3 columns"),
    "infinity": ("20,1.5,no", "20,inf,no", "", "line 22: 'inf' in column b is infinite"),
    "one value": ("yes", "no", "", "the target is the same in every row"),
}


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_named_as_in_memory(
    mistake: Callable[[str], str], workdir: Path, case: str, streaming: str
) -> None:
    old, new, flags, expected = BAD[case]
    (workdir / "bad.csv").write_text(GOOD.replace(old, new) if old else GOOD)
    line = f"--data CSVDataModule --data.path bad.csv --data.streaming {streaming} {flags}"
    assert expected in mistake(line)


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_of_other_columns_are_one_line(
    mistake: Callable[[str], str], workdir: Path, suffix: str, streaming: str
) -> None:
    (workdir / "folder").mkdir()
    for number, made in enumerate((table()[:100], table()[100:].drop_columns(["b"])), 1):
        if suffix == "csv":
            write_csv(workdir / "folder" / f"{number}.csv", made)
        else:
            pq.write_table(made, workdir / "folder" / f"{number}.parquet")
    message = mistake(f"--data CSVDataModule --data.path folder --data.streaming {streaming}")
    assert f"folder/2.{suffix}: column 'b' is not in both this file and folder/1.{suffix}" in message


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_damaged_file_among_others_is_one_line(mistake: Callable[[str], str], workdir: Path, streaming: str) -> None:
    (workdir / "folder").mkdir()
    pq.write_table(table(), workdir / "folder" / "1.parquet")
    (workdir / "folder" / "2.parquet").write_bytes(b"PAR1" + b"junk" * 50)
    message = mistake(f"--data CSVDataModule --data.path folder --data.streaming {streaming}")
    assert "folder/2.parquet: a damaged Parquet file" in message
