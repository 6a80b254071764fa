"""Tables from Python: data frames and dicts of columns go the way of a file."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from lightning.pytorch.utilities.types import _EVALUATE_OUTPUT

from datamodules import CSVDataModule, DataError
from datamodules.tables.frames import TableFrame, to_arrow
from lit_models import LitMLP
from tests.helpers.tables import NAMES, Row, table, write
from tests.helpers.trainers import quiet_trainer

Make = Callable[[Path], Any]


def _dict(path: Path) -> dict[str, list[str]]:
    """The columns of a file as the csv module reads them: text, whatever it means."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


class _Stream:
    """A frame of a library that is not known here."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the frame."""
        return self.table.__arrow_c_stream__(requested_schema)


def _views(path: Path) -> _Stream:
    """The columns with text of the type that polars exports."""
    columns = {name: pa.array(values).cast(pa.string_view()) for name, values in _dict(path).items()}
    return _Stream(pa.table(columns))


def _pandas(path: Path) -> Any:  # noqa: ANN401
    pandas = pytest.importorskip("pandas", reason="pandas is optional, and not installed here")
    return pandas.read_csv(path)


def _filtered(path: Path) -> Any:  # noqa: ANN401
    """A frame of pandas whose index is not 0, 1, 2, ..."""
    return _pandas(path).set_index("a", drop=False)


def _polars(path: Path) -> Any:  # noqa: ANN401
    polars = pytest.importorskip("polars", reason="polars is optional, and not installed here")
    return polars.read_csv(path, try_parse_dates=True)


def _arrow(path: Path) -> pa.Table:
    whole = pa.table(_dict(path))
    return pa.concat_tables([whole.slice(0, 31), whole.slice(31)])


FRAMES = {
    "pandas": _pandas,
    "an index": _filtered,
    "polars": _polars,
    "arrow": _arrow,
    "stream": _views,
    "dict": _dict,
}


@pytest.fixture
def path(workdir: Path) -> Path:
    """A table with gaps, text, numbers and dates."""
    return Path(write(workdir / "table.csv", table()))


def _same(first: CSVDataModule, second: CSVDataModule) -> None:
    assert first.columns.to_state() == second.columns.to_state()
    assert (first.task, first.class_names, first.batch_size) == (second.task, second.class_names, second.batch_size)
    torch.testing.assert_close(first.statistics, second.statistics, rtol=0, atol=0)
    for one, other in zip(first.train_dataloader(), second.train_dataloader(), strict=True):
        assert all(map(torch.equal, one, other))
    for stage in first.splits:
        assert all(map(torch.equal, first.splits[stage][:], second.splits[stage][:]))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": "price", "exclude": ["c"]},
        {"group_column": "group", "num_folds": 3, "fold": 1},
        {"time_column": "day"},
        {"target": "c", "categorical": ["b"], "stratify": False},
    ],
    ids=str,
)
def test_a_frame_gives_the_batches_of_a_file_of_the_same_content(
    path: Path, make: Make, options: dict[str, Any]
) -> None:
    _same(CSVDataModule(str(path), **options), CSVDataModule(make(path), **options))


@pytest.mark.parametrize("make", [_pandas, _dict])
def test_a_real_table(data_dir: str, workdir: Path, make: Make) -> None:
    file = Path(data_dir) / "tabular" / "titanic.csv"
    _same(CSVDataModule(str(file), target="Survived"), CSVDataModule(make(file), target="Survived"))


def test_validation_and_test_may_be_frames_too_or_files(path: Path, workdir: Path) -> None:
    other = Path(write(workdir / "other.csv", table(30, seed=1)))
    files = CSVDataModule(str(path), val_path=str(other), test_path=str(other))
    _same(files, CSVDataModule(_dict(path), val_path=_arrow(other), test_path=_dict(other)))
    mixed = CSVDataModule(_dict(path), val_path=str(other), test_path=str(other), delimiter=",")
    _same(files, mixed)
    assert len(mixed.splits["test"]) == 30


def test_a_declared_category_is_one(path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is optional, and not installed here")
    frame = pandas.DataFrame({"a": range(60), "b": [1, 2, 3] * 20, "y": [i % 25 for i in range(60)]})
    plain = CSVDataModule(frame)
    assert ([column.kind for column in plain.columns.features], plain.task) == (["number", "number"], "regression")
    declared = CSVDataModule(frame.astype({"b": "category", "y": "category"}))
    assert [column.kind for column in declared.columns.features] == ["number", "category"]
    assert (declared.task, declared.num_outputs) == ("multiclass", 25)
    by_hand = CSVDataModule(frame.astype({"b": "category", "y": "category"}), numeric=["b"])
    assert [column.kind for column in by_hand.columns.features] == ["number", "number"]


def test_signs_of_missing_values_are_those_that_are_given() -> None:
    columns = {"a": [1.0, -999.0, 3.0, np.inf] * 10, "n": [5, -999, 7, 8] * 10, "c": ["u", "?", "v", "NA"] * 10}
    data = CSVDataModule({**columns, "y": [0.5, 1.5] * 20}, missing_values=["-999", "?", "inf"])
    found = data.source.files.read()
    assert [found[name].null_count for name in ("a", "n", "c")] == [20, 10, 10]
    assert [column.is_flagged for column in data.columns.numbers] == [True, True]


def test_columns_may_have_numbers_for_names() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is optional, and not installed here")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(40, 4)))
    data = CSVDataModule(frame, target=2, exclude=[0])  # type: ignore[arg-type, list-item]  # as pandas names them
    assert (data.target_column, [column.name for column in data.columns.features]) == ("2", ["1", "3"])


def test_a_fingerprint_is_that_of_the_content() -> None:
    frame = pa.table({"a": [1.5, None, 3.5, 4.5], "s": ["x", "y", None, "z"]})
    expected = TableFrame(frame).fingerprint
    chunked = pa.concat_tables([frame.slice(0, 1), frame.slice(1)])
    assert TableFrame(chunked).fingerprint == expected
    assert TableFrame(pa.concat_tables([chunked, frame]).slice(4)).fingerprint == expected
    hidden = pa.array(np.array([1.5, 7.0, 3.5, 4.5]), mask=np.array([False, True, False, False]))
    assert TableFrame(frame.set_column(0, "a", hidden)).fingerprint == expected
    views = frame.set_column(1, "s", frame["s"].cast(pa.large_string()))
    assert TableFrame(views).fingerprint == expected
    for other in (
        frame.rename_columns(["a", "t"]),
        frame.take([1, 0, 2, 3]),
        frame.slice(0, 3),
        frame.set_column(0, "a", pc.fill_null(frame["a"], 0.0)),
        frame.select(["s", "a"]),
    ):
        assert TableFrame(other).fingerprint != expected
    assert TableFrame(frame, missing_values=["x"]).fingerprint != expected


def _fitted(data: CSVDataModule, **options: Any) -> tuple[LitMLP, Any]:
    torch.manual_seed(0)
    model = LitMLP.for_data(data, hidden=[8], lr=0.02)
    trainer = quiet_trainer(max_epochs=2, **options)
    trainer.fit(model, data)
    return model, trainer


def _figures(found: _EVALUATE_OUTPUT) -> dict[str, float]:
    return dict(found[0])


def test_a_checkpoint_is_safe_and_knows_its_frame(path: Path, workdir: Path) -> None:
    frame = _dict(path)
    data = CSVDataModule(frame, val_path=_arrow(path), exclude=np.array(["group"]))  # type: ignore[arg-type]
    model, trainer = _fitted(data)
    expected = _figures(trainer.test(model, data, verbose=False))
    trainer.save_checkpoint("model.ckpt")
    saved = torch.load("model.ckpt", weights_only=True)
    hparams = saved["datamodule_hyper_parameters"]
    assert (hparams["path"], hparams["val_path"], hparams["exclude"]) == ("", None, ["group"])

    def test(other: CSVDataModule) -> dict[str, float]:
        again = LitMLP.load_from_checkpoint("model.ckpt", weights_only=True)
        return _figures(quiet_trainer().test(again, other, ckpt_path="model.ckpt", verbose=False, weights_only=True))

    # The same frame has its test split held out; another, or a file, is tested as a whole.
    assert test(CSVDataModule(frame, val_path=_arrow(path))) == expected
    other = write(workdir / "other.csv", table(40, seed=1))
    whole = test(CSVDataModule(other))
    assert test(CSVDataModule(_dict(Path(other)))) == whole
    new = data.new(_dict(Path(other)))
    assert _figures(trainer.test(model, new, verbose=False)) == whole
    assert _figures(trainer.test(model, data.new(other), verbose=False)) == whole
    assert len(next(iter(new.test_dataloader()[0]))[0]) == 40


def test_the_command_line_goes_on_with_a_file(run: Callable[[str], Any], mistake: Callable[[str], str]) -> None:
    path = Path(write(Path("table.csv"), table()))
    model, trainer = _fitted(CSVDataModule(_dict(path)))
    trainer.save_checkpoint("model.ckpt")
    other = write(Path("other.csv"), table(40, seed=1))
    expected = _figures(trainer.test(model, CSVDataModule(_dict(path)).new(other), verbose=False))
    cli = run(f"test --ckpt_path model.ckpt --data.path {other}")
    assert {name: cli.trainer.callback_metrics[name].item() for name in expected} == pytest.approx(expected)
    assert "--data.path: give the table" in mistake("test --ckpt_path model.ckpt")


def test_a_resumed_run_has_the_same_frame(path: Path) -> None:
    data = CSVDataModule(_dict(path), batch_size=8)
    _, trainer = _fitted(data, limit_train_batches=3)
    trainer.save_checkpoint("model.ckpt")
    straight = LitMLP.for_data(data, hidden=[8])
    quiet_trainer(max_epochs=3).fit(
        straight, CSVDataModule(_arrow(path), batch_size=8), ckpt_path="model.ckpt", weights_only=True
    )
    state = torch.load("model.ckpt", weights_only=True)
    state["CSVDataModule"]["batch"] = 3  # interrupted within an epoch
    torch.save(state, "model.ckpt")
    with pytest.raises(DataError, match=r"^this run was interrupted within an epoch on other data; finish it there.$"):
        quiet_trainer(max_epochs=3).fit(
            LitMLP.for_data(data, hidden=[8]),
            CSVDataModule(_arrow(path).slice(1), batch_size=8),
            ckpt_path="model.ckpt",
            weights_only=True,
        )


def test_predictions_are_a_frame_as_the_data_are(path: Path) -> None:
    frame = _filtered(path)
    data = CSVDataModule(frame)
    model, _ = _fitted(data)
    some = frame[frame["price"] > 120_000].drop(columns="y")
    found = data.new(some).predictions(model)
    assert type(found) is type(frame)
    assert found.index.equals(some.index)
    assert found["id"].tolist() == some["id"].tolist()
    assert list(found) == ["id", "prediction", "probability_no", "probability_yes"]
    rows: list[Row] = some.astype(object).where(some.notna(), None).to_dict("records")
    x = torch.stack([data.encode(row) for row in rows[:5]])
    with torch.no_grad():
        expected = model.eval().predict_step(x, 0).tolist()
    assert found["probability_yes"].tolist()[:5] == pytest.approx(expected, abs=1e-6)


def test_predictions_of_polars_are_of_polars(path: Path) -> None:
    frame = _polars(path)
    data = CSVDataModule(frame)
    assert type(data.predictions(_fitted(data)[0])) is type(frame)


def test_without_pandas_predictions_are_columns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CSVDataModule(_dict(path))
    monkeypatch.setitem(sys.modules, "pandas", None)
    found = data.predictions(LitMLP.for_data(data))
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(
        ["id", "prediction", "probability_no", "probability_yes"], 90
    )


GOOD = {"a": list(range(40)), "b": [0.5, 1.5] * 20, "y": ["u", "v"] * 20}


@pytest.mark.parametrize(
    ("given", "options", "answer"),
    [
        ({**GOOD, "y": [1]}, {}, r"path: column 'y' has 1 values, and 'a' has 40\."),
        ({**GOOD, "t": 5}, {}, r"path: column 't' is 5; give a list or an array of its values\."),
        ({**GOOD, "t": np.zeros((40, 2))}, {}, r"path: column 't' has 2 dimensions, \(40, 2\); give each .* a name\."),
        ({**GOOD, "t": [[1]] * 40}, {}, r"path: column 't' holds lists, .* leave them out \(`exclude=\['t'\]`\)\."),
        ({**GOOD, "t": [{"u": 1}] * 40}, {}, r"path: column 't' holds dicts, which cannot be learned from; .*"),
        ({**GOOD, "t": [1, "x"] * 20}, {}, r"path: a column mixes types, or has one that a table cannot hold \(.*"),
        ({name: [] for name in GOOD}, {}, r"path: the frame has no rows\."),
        ({}, {}, r"path: the frame has no columns\."),
        (pa.table([[1], [2]], ["a", "a"]), {}, r"path: there are 2 columns named 'a'; rename one\."),
        ([1, 2], {}, r"path: give a path, a DataFrame, an Arrow table or a dict of columns, not list\."),
        (GOOD, {"target": "prise"}, r"target='prise': the frame: there is no column 'prise', only a, b, y\."),
        (GOOD, {"target": "Y"}, r"target='Y': the frame: there is no column 'Y'; did you mean 'y'\?"),
        ({**GOOD, "y": [1] * 40}, {}, r"the frame, row 0 \(from 0\): 1 in column y: the target is the same in .*"),
        ({**GOOD, "y": [None] * 40}, {}, r"the frame: no row has a value in the target column 'y'\."),
        (
            {**GOOD, "y": [*np.linspace(0, 1, 39), np.inf]},
            {},
            r"the frame, row 39 \(from 0\): inf in column y is infinite, .*",
        ),
        (GOOD, {"delimiter": ";"}, r"delimiter=';': it is an option of files, and a frame was given; leave it out\."),
        (GOOD, {"header": False}, r"header=False: it is an option of files, .*"),
        (GOOD, {"streaming": True}, r"streaming=True: it is an option of files, .*"),
        (GOOD, {"val_path": {"a": [1, 2], "y": [1]}}, r"val_path: column 'y' has 1 values, and 'a' has 2\."),
        (GOOD, {"val_path": {"a": [1], "b": [1]}}, r"the frame of val_path: there is no column 'y', only a, b\."),
    ],
)
def test_what_cannot_be_used_is_one_line(given: Any, options: dict[str, Any], answer: str) -> None:  # noqa: ANN401
    with pytest.raises(DataError) as error:
        _ = CSVDataModule(given, **options).splits
    assert "\n" not in str(error.value)
    error.match(f"^{answer}$")


def test_two_columns_of_one_name_in_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is optional, and not installed here")
    with pytest.raises(DataError, match=r"^path: there are 2 columns named 'a'; rename one.$"):
        CSVDataModule(pandas.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]))


def test_lists_may_be_left_out_and_rows_without_a_target_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    y = [np.nan, *np.linspace(0, 1, 39)]
    data = CSVDataModule({**GOOD, "t": [[1]] * 40, "y": y}, target="y", exclude=["t"])
    assert sum(len(split) for split in data.splits.values()) == 39
    assert "the frame: 1 rows without a value of y are dropped" in caplog.text


def test_tensors_and_arrays_are_columns() -> None:
    found = to_arrow({"a": torch.arange(3), "b": np.array(["x", "y", "z"]), "c": pa.array([1, None, 3])}, "path")
    assert found.to_pydict() == {"a": [0, 1, 2], "b": ["x", "y", "z"], "c": [1, None, 3]}


def test_columns_are_named_as_in_a_file() -> None:
    assert CSVDataModule(_rename(NAMES)).target_column == "y"


def _rename(names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in table()] for name in names}
