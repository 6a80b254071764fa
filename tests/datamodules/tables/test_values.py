"""From columns of a table to numbers, labels and tasks."""

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from datamodules import DataError
from datamodules.errors import check_names
from datamodules.tables.values import TaskName, encode_target, infer_target, is_missing, sort_key


def _where(row: int, column: str) -> str:
    return f"row {row} of {column}"


def _values(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("AGE", "the table: there is no column 'AGE'; did you mean 'Age'?"),
        ("Far", "the table: there is no column 'Far'; did you mean 'Fare'?"),
        ("zzz", "the table: there is no column 'zzz', only Age, Fare, Sex."),
    ],
)
def test_a_missing_column_is_named_with_the_nearest(wanted: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        check_names([wanted], ["Age", "Fare", "Sex"], "the table")
    assert str(error.value) == message
    check_names(["Sex", "Age"], ["Age", "Fare", "Sex"], "the table")


@pytest.mark.parametrize(
    ("values", "task", "labels"),
    [
        (["no", "yes"] * 3, "binary", ["no", "yes"]),
        (["c", "a", "b"] * 3, "multiclass", ["a", "b", "c"]),
        ([0, 1] * 3, "binary", ["0", "1"]),
        ([10, 9] * 3, "binary", ["9", "10"]),
        ([0.5, 1.5] * 3, "binary", ["0.5", "1.5"]),
        ([1.0, 2.0, 10.0] * 3, "multiclass", ["1", "2", "10"]),
        (["1", "2", "10"] * 3, "multiclass", ["1", "2", "10"]),
        ([True, False] * 3, "binary", ["False", "True"]),
        ([*range(20)] * 2, "multiclass", [str(i) for i in range(20)]),
        ([*range(21)] * 2, "regression", None),
        ([0.5, 1.5, 2.5] * 3, "regression", None),
        (["0.5", "1.5", "2.5"] * 3, "regression", None),
        ([f"word {i}" for i in range(50)] * 2, "multiclass", sorted(f"word {i}" for i in range(50))),
        (["yes", "no", "yes ", " no"] * 3, "binary", ["no", "yes"]),
        (["1", "2", " 1"] * 3, "binary", ["1", "2"]),
    ],
)
def test_the_task_is_told_from_the_target(values: list[Any], task: TaskName, labels: list[str] | None) -> None:
    assert infer_target(_values(values), "y", None, _where) == (task, labels)


@pytest.mark.parametrize(
    ("values", "task", "labels"),
    [
        ([1, 2, 3] * 3, "regression", None),
        ([0, 1] * 3, "regression", None),
        ([0, 1] * 3, "multiclass", ["0", "1"]),
        ([i / 2 for i in range(30)] * 2, "multiclass", [str(i / 2).removesuffix(".0") for i in range(30)]),
    ],
)
def test_a_given_task_is_believed(values: list[Any], task: TaskName, labels: list[str] | None) -> None:
    assert infer_target(_values(values), "y", task, _where) == (task, labels)


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a"] * 3, None, "the target is the same in every row"),
        (["a", "a "] * 3, None, "the target is the same in every row"),
        ([1.0] * 3, "regression", "the target is the same in every row"),
        (["a", "b", "c"] * 2, "binary", "task='binary': y has 3 values, not 2; give `task='multiclass'`"),
        (["a", "a", "b", "c", "c"], None, "row 2 of y is the only row of its class"),
        (["1", "2", *"3" * 30, "oops"], None, "row 32 of y is not a number"),
        ([[1], [2]], None, r"column 'y': list<item: int64> cannot be predicted"),
    ],
)
def test_a_target_that_cannot_be_learned_is_one_line(values: list[Any], task: TaskName | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        infer_target(_values(values), "y", task, _where)


@pytest.mark.parametrize("values", [[3, 10, 3], [3.0, 10.0, 3.0], ["3", " 10", "3 "]])
def test_a_class_is_the_same_however_it_is_stored(values: list[Any]) -> None:
    y = encode_target(_values(values), "y", ["3", "10"], _where)
    assert y.dtype == np.int64
    assert y.tolist() == [0, 1, 0]


def test_a_value_is_a_target_in_its_own_unit() -> None:
    y = encode_target(_values([3, 10]), "y", None, _where)
    assert y.dtype == np.float32
    assert y.tolist() == [3, 10]
    y[0] = 4  # torch.from_numpy needs what can be written to


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        (["a", "z"], ["a", "b"], r"row 1 of y is none of the training classes \(a, b\)"),
        (["0", "z"], [str(i) for i in range(9)], r"training classes \(0, 1, 2, 3, 4, 5, 6, 7, ...\)"),
        (["1", "z"], None, "row 1 of y is not a number; correct it, .* give another `target`"),
    ],
)
def test_a_target_that_was_not_learned_is_named(values: list[str], names: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_target(_values(values), "y", names, _where)


def test_missing_is_null_nan_or_nothing_but_spaces() -> None:
    assert is_missing(_values(["a", None, "", "  "])).tolist() == [False, True, True, True]
    assert is_missing(_values([1.0, None, float("nan")])).tolist() == [False, True, True]
    assert is_missing(_values([1, None])).tolist() == [False, True]


def test_text_that_does_not_sort_as_time_goes_is_refused() -> None:
    with pytest.raises(DataError, match="row 1 of t is not a sortable time"):
        sort_key(_values(["2020-03-01", "1/10/2020"]), "t", _where)


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2, 1],
        [0.3, 0.1, 0.2, 0.1],
        ["2020-03", "2020-01", "2020-02", "2020-01"],
        [datetime.date(2020, 1, day) for day in (3, 1, 2, 1)],
    ],
)
def test_times_are_ranked(values: list[Any]) -> None:
    assert sort_key(_values(values), "t", _where).tolist() == [3, 1, 2, 1]


def test_a_missing_time_is_named() -> None:
    with pytest.raises(DataError, match="row 1 of t is missing"):
        sort_key(_values([1, None]), "t", _where)
