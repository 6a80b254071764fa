"""What columns are is fitted on training rows alone; rows become numbers by it."""

import datetime
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from datamodules import DataError
from datamodules.tables import preprocessing
from datamodules.tables.preprocessing import Column, TablePreprocessor, describe, fit
from datamodules.tables.values import Kind


def _where(row: int, column: str) -> str:
    return f"row {row} of {column}"


def _values(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def _table(**values: Any) -> pa.Table:
    return pa.table(values)


def _fit(table: pa.Table, rows: Sequence[int] | None = None, **kinds: Kind) -> TablePreprocessor:
    return fit(table, None if rows is None else np.array(rows, np.int64), _where, {}, kinds)


def _encode(found: TablePreprocessor, table: pa.Table) -> NDArray[np.float32]:
    return found.encode(table, _where, "the table")


def _one(values: Sequence[Any] | pa.Array, kind: Kind | None = None, name: str = "a") -> Column:
    """Fit one column, beside another that varies."""
    table = _table(**{name: values, "other": np.arange(len(values)) / 2})
    return fit(table, None, _where, {}, {name: kind} if kind else {}).columns[0]


@pytest.fixture
def messy() -> pa.Table:
    """Forty rows of columns of every kind, with gaps."""
    rng = np.random.default_rng(0)
    gaps = rng.random((40, 3)) < 0.2
    return _table(
        x=pa.array(rng.normal(3, 2, 40).astype(np.float32), mask=gaps[:, 0]),
        n=pa.array(rng.integers(0, 9, 40)),
        c=pa.array(np.array(["red", "green", "blue"])[rng.integers(0, 3, 40)], mask=gaps[:, 1]),
        b=pa.array(rng.random(40) < 0.5),
        d=pa.array((18000 + rng.integers(0, 99, 40)).astype("datetime64[D]"), mask=gaps[:, 2]),
        s=pa.array(np.array(["a", "b"])[rng.integers(0, 2, 40)]),
    )


# Fitting


def test_what_is_held_out_changes_nothing_that_is_fitted(messy: pa.Table) -> None:
    other = _table(
        x=pa.array([1e9, None] * 10, pa.float32()),
        n=[10**6] * 20,
        c=["purple"] * 19 + [None],
        b=[True] * 20,
        d=pa.array([datetime.date(1900, 1, 1)] * 20),
        s=pa.nulls(20, pa.string()),
    )
    found = _fit(pa.concat_tables([messy, other]).combine_chunks(), range(40))
    assert found.to_state() == _fit(messy).to_state()


def test_what_is_held_out_does_not_choose_among_too_many_categories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "MAX_CATEGORIES", 2)
    train = ["a", "b", "c"] * 10
    states = [
        _fit(_table(c=held_out + train), range(3, 33), c="category").to_state()
        for held_out in (["a", "b", "c"], ["c", "b", "a"])
    ]
    assert states[0] == states[1]


@pytest.mark.parametrize("held_out", ["1", "20"])
def test_what_is_held_out_does_not_tell_what_an_identifier_is(held_out: str) -> None:
    table = _table(id=[str(i) for i in range(20)] + [held_out], x=np.arange(21.0))
    assert _fit(table, range(20)).columns[0].is_identifier


def test_a_number_has_median_mean_and_deviation_of_its_training_rows() -> None:
    known = np.array([1, 2, 2, 7, 30], np.float32)
    column = _fit(_table(a=pa.array([1, None, 2, 2, None, 7, 30, 1e6], pa.float32())), range(7)).columns[0]
    filled = np.array([*known, 2, 2])
    assert (column.kind, column.missing, column.median) == ("number", 2, 2.0)
    assert column.mean == pytest.approx(filled.mean())
    assert column.std == pytest.approx(filled.std())


def test_a_flag_for_each_number_with_gaps_stands_behind_the_numbers() -> None:
    table = _table(
        c=["u", "v", "u", None],
        a=pa.array([1.0, None, 3.0, 5.0], pa.float32()),
        b=[4, 3, 2, 1],
        d=pa.array([None, 7, None, 9]),
    )
    found = _fit(table, c="category")
    assert len(found) == 6
    assert found.cardinalities == [3]  # what was not seen, what is missing, u; v is rare
    #                             a  b  d  a? d? c
    assert _encode(found, table).tolist() == [
        [1, 4, 8, 0, 1, 2],
        [3, 3, 7, 1, 0, 0],
        [3, 2, 8, 0, 1, 2],
        [5, 1, 9, 0, 0, 1],
    ]
    mean, std = found.moments()
    assert mean.tolist() == [3, 2.5, 8, 0, 0, 0]
    assert std == pytest.approx([2**0.5, 1.25**0.5, 0.5**0.5, 1, 1, 1])


def test_a_number_that_was_never_missing_in_training_has_no_flag() -> None:
    found = _fit(_table(a=[1.0, 2.0, 6.0]))
    assert _encode(found, _table(a=pa.array([None, 5.0], pa.float32()))).tolist() == [[2], [5]]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1, -3.3333, 1e30])
def test_what_does_not_vary_has_a_deviation_of_1_and_helps_only_by_its_gaps(value: float) -> None:
    constant = _one(pa.array([value] * 1000, pa.float32()))
    assert (constant.std, constant.role) == (1.0, "dropped: constant")
    with_gaps = _one(pa.array([*[value] * 999, None], pa.float32()))
    assert (with_gaps.std, with_gaps.role, with_gaps.is_flagged) == (1.0, "feature", True)


@pytest.mark.parametrize(
    ("values", "kind", "role"),
    [
        (["a"] * 20, "category", "dropped: constant"),
        ([7] * 20, "number", "dropped: constant"),
        ([True] * 20, "number", "dropped: constant"),
        ([datetime.date(2020, 1, 1)] * 20, "date", "dropped: constant"),
        (pa.array([None] * 20, pa.string()), "category", "dropped: empty"),
        (pa.array([None] * 20, pa.float32()), "number", "dropped: empty"),
        (pa.nulls(20), "number", "dropped: empty"),
        ([float("nan")] * 20, "number", "dropped: empty"),
        (["  ", ""] * 10, "category", "dropped: empty"),
        ([f"name {i}" for i in range(20)], "category", "dropped: most values are rare"),
        (pa.array([[1], [2]] * 10), "category", "dropped: list<item: int64> cannot be learned from"),
        (pa.array([b"x", b"y"] * 10), "category", "dropped: binary cannot be learned from"),
        (["a", None] * 10, "category", "feature"),
        ([f"name {i}" for i in range(9)] + ["a"] * 11, "category", "feature"),
        ([*range(20)], "number", "feature"),
    ],
)
def test_what_cannot_help_is_left_out_with_the_reason(values: Any, kind: Kind, role: str) -> None:  # noqa: ANN401
    column = _one(values)
    assert (column.kind, column.role) == (kind, role)


def test_nothing_to_learn_from_is_refused_with_all_reasons() -> None:
    with pytest.raises(DataError, match=r"a: dropped: constant; id: dropped: identifier"):
        _fit(_table(a=[1] * 20, id=range(20)))


@pytest.mark.parametrize(
    ("name", "values", "is_identifier"),
    [
        ("id", range(20), True),
        ("PassengerId", range(20), True),
        ("user_id", [f"u{i}" for i in range(20)], True),
        ("USER_ID", range(20), True),
        ("Index", range(20), True),
        ("Unnamed: 0", range(20), True),
        ("column_1", range(20), True),
        ("index", range(20), True),
        ("id", [*range(19), 0], False),  # it repeats
        ("id", [i + 0.5 for i in range(20)], False),  # a measurement
        ("width", range(20), False),
        ("humid", range(20), False),
        ("column_2", range(20), False),
        ("keyboard", range(20), False),
    ],
)
def test_an_identifier_is_told_by_its_name_and_that_it_never_repeats(
    name: str, values: Sequence[Any], is_identifier: bool
) -> None:
    assert _one(list(values), name=name).is_identifier is is_identifier


def test_an_identifier_that_is_asked_for_is_a_feature() -> None:
    found = _fit(_table(id=range(20)), id="number")
    assert found.columns[0].role == "feature"


def test_known_roles_are_kept() -> None:
    table = _table(a=[1, 2], y=["u", "v"], k=[1, 2], e=["x", "z"])
    roles = {"y": "target", "k": "key", "e": "dropped: excluded"}
    found = fit(table, None, _where, roles, {})
    assert {column.name: column.role for column in found.columns} == {"a": "feature", **roles}
    assert len(found) == 1


# Categories


@pytest.mark.parametrize(("size", "least"), [(10, 2), (300, 3), (500, 5), (5000, 5)])
def test_a_rare_category_counts_as_unseen(size: int, least: int) -> None:
    often, rare = ["often"] * least, ["rare"] * (least - 1)
    column = _one(often + rare + ["most"] * (size - len(often) - len(rare)))
    assert column.categories == ["most", "often"]


def test_the_most_frequent_categories_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "MAX_CATEGORIES", 2)
    assert _one(["a"] * 3 + ["b"] * 5 + ["c"] * 4).categories == ["b", "c"]


def test_codes_tell_unseen_missing_and_known_apart() -> None:
    with_gaps = _fit(_table(c=["u", "v", None] * 5))
    assert with_gaps.columns[0].categories == [None, "u", "v"]
    new = _table(c=["v", "w", None, " u ", "  "])
    assert _encode(with_gaps, new)[:, 0].tolist() == [3, 0, 1, 2, 1]
    without = _fit(_table(c=["u", "v"] * 5))
    assert _encode(without, new)[:, 0].tolist() == [2, 0, 0, 1, 0]
    assert (with_gaps.cardinalities, without.cardinalities) == ([4], [3])


def test_a_column_that_is_empty_when_predicting_is_missing_everywhere() -> None:
    found = _fit(_table(c=["u", "v", None] * 5, x=[1.0, 2.0, None] * 5))
    assert _encode(found, _table(c=pa.nulls(2), x=pa.nulls(2))).tolist() == [[1.5, 1, 1]] * 2


@pytest.mark.parametrize("fitted", range(5))
@pytest.mark.parametrize("encoded", range(5))
def test_numbers_as_categories_are_the_same_however_they_are_stored(fitted: int, encoded: int) -> None:
    stored = [
        _values([3, 10, None] * 5),
        _values([3.0, 10.0, None] * 5),
        _values([3.0, 10.0, float("nan")] * 5, pa.float32()),
        _values(["3", "10", None] * 5),
        _values(["10", " 3", "10 ", "3", "?"], pa.string()).take(pa.array([3, 0, 4] * 5)),
    ]
    stored[4] = _values([None if value == "?" else value for value in stored[4].to_pylist()])
    found = _fit(_table(c=stored[fitted]), c="category")
    assert found.columns[0].categories == [None, "3", "10"]
    assert _encode(found, _table(c=stored[encoded]))[:, 0].tolist() == [2, 3, 1] * 5


@pytest.mark.parametrize("value", [0.1, 2.5, 1e-7, 123456.7])
def test_a_fraction_as_category_is_what_was_written(value: float) -> None:
    found = _fit(_table(c=pa.array([value, 1.0] * 5, pa.float32())), c="category")
    for kind in (pa.float32(), pa.float64()):
        assert _encode(found, _table(c=pa.array([value, 1.0], kind)))[:, 0].all()


@pytest.mark.parametrize(
    "values",
    [
        [True, False] * 5,
        [*range(10)],  # each is rare
        [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)] * 5,
        pa.nulls(10),
    ],
    ids=["booleans", "rare numbers", "dates", "nothing"],
)
def test_whatever_can_be_fitted_as_category_can_be_encoded(values: Any) -> None:  # noqa: ANN401
    table = _table(c=values, x=np.arange(10.0))
    found = _fit(table, c="category")
    x = _encode(found, table)
    assert x.shape == (10, len(found))
    assert len(np.unique(x[:, 1:], axis=0)) == max(1, len(found.columns[0].categories))


def test_numbers_where_training_had_words_are_refused() -> None:
    found = _fit(_table(c=["u", "v"] * 5))
    with pytest.raises(DataError, match=r"row 1 of c: numbers, where the model was trained on text \(u, v\)"):
        _encode(found, _table(c=pa.array([None, 1])))


# Numbers, dates and text that looks like them


def test_a_date_is_a_number_of_days_and_a_time_has_fractions_of_it() -> None:
    table = _table(
        d=[datetime.date(1970, 1, 2), datetime.date(1969, 12, 31)],
        t=[datetime.datetime(1970, 1, 1, 12), datetime.datetime(1970, 1, 3)],
    )
    found = _fit(table)
    assert [column.kind for column in found.columns] == ["date", "date"]
    assert _encode(found, table).tolist() == [[1, 0.5], [-1, 2]]


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.date64()])
def test_times_of_any_resolution_are_days(kind: pa.DataType) -> None:
    day = 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[getattr(kind, "unit", "ms")]
    ticks = [day, 2 * day + (1 if kind == pa.timestamp("ns") else 0)]
    table = _table(t=pa.array(ticks, pa.int64()).cast(kind))
    assert _encode(_fit(table), table)[:, 0].tolist() == [1, 2]


def test_booleans_are_0_and_1() -> None:
    table = _table(b=[True, False, None, True])
    assert _encode(_fit(table), table).tolist() == [[1, 0], [0, 0], [1, 1], [1, 0]]


@pytest.mark.parametrize(
    "values", [["1", "-2.5", " 3 ", "1e3", None], ["+1", "+2.5", "-3", "4", "5"], ["1.", ".5", "2"]]
)
def test_text_that_is_all_numbers_is_a_number(values: list[str | None]) -> None:
    table = _table(a=values)
    found = _fit(table)
    assert found.columns[0].kind == "number"
    known = [float(value) for value in values if value]
    assert _encode(found, table)[:, 0].tolist()[: len(known)] == known


@pytest.mark.parametrize("gap", ["", " ", "   "])
def test_spaces_among_numbers_are_missing(gap: str) -> None:
    column = _one([str(i) for i in range(19)] + [gap])
    assert (column.kind, column.missing) == ("number", 1)


def test_a_word_among_numbers_is_named_and_many_make_a_category() -> None:
    with pytest.raises(DataError, match=r"row 4 of a is not a number.*`categorical=\['a'\]`"):
        _one([str(i) if i != 4 else "oops" for i in range(20)])
    assert _one(["1", "2", "oops", "oh"] * 5).kind == "category"


def test_a_word_in_a_column_that_is_asked_to_be_numbers_is_named() -> None:
    with pytest.raises(DataError, match="row 2 of a is not a number"):
        _one(["1", "2", "oops", "oh"] * 5, "number")


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e39])
def test_infinity_is_named(value: float) -> None:
    with pytest.raises(DataError, match="row 2 of a is infinite, or too large"):
        _one([1.0, 2.0, value])


@pytest.mark.parametrize("values", [["1", "2", "1"] * 5, [1, 2, 1] * 5])
def test_columns_are_what_is_asked_for(values: list[Any]) -> None:
    assert _one(values, "category").categories == ["1", "2"]
    assert _one(values, "number").median == 1


# Encoding


def test_encoding_does_not_depend_on_the_order_of_columns_or_rows(messy: pa.Table) -> None:
    found = _fit(messy)
    x = _encode(found, messy)
    assert _encode(found, messy.select(messy.column_names[::-1])).tolist() == x.tolist()
    order = np.random.default_rng(1).permutation(40)
    assert _encode(found, messy.take(order)).tolist() == x[order].tolist()
    assert _encode(found, pa.concat_tables([messy[:7], messy[7:]])).tolist() == x.tolist()
    assert _fit(messy.take(order)).moments()[0] == pytest.approx(found.moments()[0])


def test_what_was_fitted_survives_a_safe_checkpoint(messy: pa.Table) -> None:
    found = _fit(messy)
    file = io.BytesIO()
    torch.save(found.to_state(), file)
    file.seek(0)
    again = TablePreprocessor.from_state(torch.load(file, weights_only=True))
    assert again.to_state() == found.to_state()
    assert _encode(again, messy).tolist() == _encode(found, messy).tolist()
    assert again.cardinalities == found.cardinalities


def test_columns_that_are_not_known_are_ignored(messy: pa.Table) -> None:
    found = _fit(messy)
    extra = messy.append_column("extra", pa.array(["?"] * 40))
    assert _encode(found, extra).tolist() == _encode(found, messy).tolist()


def test_a_feature_that_is_not_there_is_an_error(messy: pa.Table) -> None:
    with pytest.raises(DataError, match="the table: there is no column 'c'"):
        _encode(_fit(messy), messy.drop_columns("c"))


def test_a_description_has_a_line_for_each_column(messy: pa.Table) -> None:
    table = messy.append_column("id", pa.array(range(40)))
    lines = describe(_fit(table), table, None).splitlines()
    assert lines[0].split() == ["column", "type", "missing", "distinct", "role"]
    assert [line.split()[0] for line in lines[1:]] == table.column_names
    missing, distinct = table["x"].null_count, len(set(table["x"].drop_null().to_pylist()))
    assert lines[1].split() == [
        "x",
        "real",
        str(missing),
        str(distinct),
        "number,",
        "and",
        "whether",
        "it",
        "is",
        "missing",
    ]
    assert lines[3].endswith("category, 4 values")
    assert lines[7].endswith("dropped: identifier")


def test_a_description_of_a_wide_table_is_short() -> None:
    table = _table(**{f"a{i}": [1.0, i + 2.0] for i in range(100)})
    lines = describe(_fit(table), table, np.array([0, 1])).splitlines()
    assert len(lines) < 45
    assert lines[-1] == "... and 60 more"


def test_real_columns_are_what_a_person_would_say(data_dir: str) -> None:
    import pyarrow.csv as pacsv

    options = pacsv.ConvertOptions(strings_can_be_null=True)
    table = pacsv.read_csv(f"{data_dir}/tabular/titanic.csv", convert_options=options)
    found = fit(table, None, _where, {"Survived": "target"}, {})
    assert {column.name: column.role.removeprefix("dropped: ") for column in found.columns} == {
        "PassengerId": "identifier",
        "Survived": "target",
        **dict.fromkeys(["Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked"], "feature"),
        "Name": "most values are rare",
        "Ticket": "most values are rare",
        "Cabin": found.columns[-2].role.removeprefix("dropped: "),
    }
    assert [column.name for column in found.flagged] == ["Age"]
    assert found.columns[5].median == 28
