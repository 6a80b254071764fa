"""Text becomes columns of the right type, wherever in a file the type shows."""

import csv
import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datamodules import DataError
from datamodules.tables import reader as parsing
from datamodules.tables.dialect import MISSING, Dialect, complete, header
from datamodules.tables.encodings import SAMPLE
from datamodules.tables.reader import batches, check_same_columns, column_types, join, parse


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a table that is not written yet."""
    return tmp_path / "table.csv"


def _parse(file: Path, content: str | bytes, **given: Any) -> pa.Table:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    dialect = complete(file, Dialect(**given))
    return parse(file, dialect, *header(file, dialect))


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", " 3"], pa.int64(), [1, -2, 3]),
        (["1.5", "2", "-1e-3"], pa.float32(), [1.5, 2.0, -0.001]),
        (["0.1", "0.2", "0.3"], pa.float32(), [0.1, 0.2, 0.3]),
        (["99999999999999999999", "1", "2"], pa.float32(), [1e20, 1.0, 2.0]),
        (["true", "False", "TRUE"], pa.bool_(), [True, False, True]),
        (["2020-01-31", "1969-12-31", "2000-02-29"], pa.date32(), [18292, -1, 11016]),
        (["red", "2", "3.5"], pa.string(), ["red", "2", "3.5"]),
        (["12:30:00", "01:00:00", "00:00:01"], pa.string(), ["12:30:00", "01:00:00", "00:00:01"]),
        (["?", "NA", ""], pa.float32(), [None] * 3),
    ],
)
def test_a_column_has_the_type_of_its_values(
    file: Path, cells: list[str], kind: pa.DataType, values: list[Any]
) -> None:
    column = _parse(file, "c,n\n" + "".join(f"{cell},1\n" for cell in cells))["c"]
    assert column.type == kind
    if pa.types.is_date(kind):
        column = column.cast(pa.int32())  # days since 1970
    assert column.to_pylist() == (pytest.approx(values) if pa.types.is_floating(kind) and values[0] else values)


def test_a_date_with_a_time_is_a_time(file: Path) -> None:
    column = _parse(file, "t,n\n2020-01-01 10:00:00,1\n2020-01-01 10:00:01,2\n")["t"]
    assert pa.types.is_timestamp(column.type)
    assert column.cast(pa.timestamp("s")).cast(pa.int64()).to_pylist() == [1577872800, 1577872801]


@pytest.mark.parametrize("sign", MISSING)
@pytest.mark.parametrize("known", ["1", "1.5", "red", "2020-01-01"])
def test_a_missing_value_changes_no_type(file: Path, sign: str, known: str) -> None:
    table = _parse(file, f"a,n\n{known},1\n{sign},2\n{known},3\n")
    assert table["a"].is_null().to_pylist() == [False, True, False]
    assert table["a"].type == _parse(file, f"a,n\n{known},1\n{known},3\n")["a"].type


@pytest.mark.parametrize("sign", ["?", "", "NA"])
def test_a_missing_value_may_be_quoted(file: Path, sign: str) -> None:
    assert _parse(file, f'a,n\n"1",1\n"{sign}",2\n')["a"].to_pylist() == [1, None]


def test_other_missing_signs_are_given(file: Path) -> None:
    table = _parse(file, "a,b\n1,x\n-999,none\n?,y\n", missing_values=("-999", "none"))
    assert table.to_pydict() == {"a": [1, None, None], "b": ["x", None, "y"]}


ONE = {"größe": [1, None, -3], "b": [0.5, 1.5, None], "c": ["red, or so", None, "blue"]}
TEXT = 'größe,b,c\n1,0.5,"red, or so"\n,1.5,NA\n-3,?,blue\n'
GERMAN = TEXT.replace(",", ";").replace(".", ",").replace("red;", "red,")


@pytest.mark.parametrize(
    ("content", "given"),
    [
        (TEXT, {}),
        (TEXT.rstrip(), {}),
        ("\n\n" + TEXT, {}),
        (TEXT.replace("\n", "\r\n"), {}),
        ("\r\n" + TEXT.replace("\n", "\r\n").rstrip(), {}),
        (TEXT.replace('"', "'"), {}),
        (GERMAN, {}),
        (GERMAN.replace(";", "\t"), {}),
        (GERMAN.replace(";", "|"), {}),
        (TEXT.encode("utf-8-sig"), {}),
        (TEXT.encode("utf-16"), {}),
        (TEXT.encode("latin-1"), {"encoding": "latin-1"}),
        (TEXT.encode("cp1252"), {"encoding": "cp1252"}),
        (TEXT.encode("gb18030"), {"encoding": "gb18030"}),
        (TEXT.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        (TEXT.partition("\n")[2], {"header": False}),
        ("\n" + TEXT.partition("\n")[2], {}),
    ],
)
def test_however_it_is_written_a_table_is_the_same(file: Path, content: str | bytes, given: dict[str, Any]) -> None:
    table = _parse(file, content, **given)
    assert list(table.to_pydict().values()) == list(ONE.values())
    assert table.schema.types == [pa.int64(), pa.float32(), pa.string()]


def test_any_text_comes_back_as_it_was(file: Path) -> None:
    for seed in range(40):
        draw = random.Random(seed)
        delimiter, quote = draw.choice(",;\t|"), draw.choice("\"'")
        cells = [
            [str(i), "x" + "".join(draw.choice("ab ,;|\t\n\"'é中") for _ in range(draw.randint(0, 9))) + "x"]
            for i in range(20)
        ]
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, quotechar=quote, lineterminator="\n").writerows([["n", "t"], *cells])
        table = _parse(file, text.getvalue(), delimiter=delimiter, quote=quote)
        assert table["t"].to_pylist() == [cell for _, cell in cells], seed


BEGINNING = SAMPLE // 8  # rows of at least 8 bytes, which fill what the types are first told from


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        ("1", "0.5", pa.float32()),
        ("1", "word", pa.string()),
        ("1", "?", pa.int64()),
        ("0.5", "1", pa.float32()),
        ("1.50", "word", pa.string()),
        ("", "1", pa.int64()),
        ("", "0.5", pa.float32()),
        ("", "word", pa.string()),
        ("true", "word", pa.string()),
        ("2020-01-01", "later", pa.string()),
        ("2020-01-01", "", pa.date32()),
    ],
)
def test_the_end_of_a_column_has_a_say_in_its_type(file: Path, first: str, last: str, kind: pa.DataType) -> None:
    table = _parse(file, "n,a\n" + f"1234567,{first}\n" * BEGINNING + f"7,{last}\n")
    assert table["a"].type == kind
    assert len(table) == BEGINNING + 1
    if kind == pa.string():
        assert table["a"].to_pylist()[:: len(table) - 1] == [first or None, last]  # as it is written
    assert table["n"].to_pylist()[-1] == 7


def test_a_large_file_is_parsed_in_its_order(file: Path) -> None:
    size = 200_000  # 3 MB, several of Arrow's blocks
    table = _parse(file, "i,x,t\n" + "".join(f"{i},{i}.25,t{i % 7}\n" for i in range(size)))
    assert table["i"].to_pylist() == list(range(size))
    assert table["x"].to_pylist()[:: size // 4] == [0.25, 50_000.25, 100_000.25, 150_000.25]
    assert table["t"].to_pylist() == [f"t{i % 7}" for i in range(size)]


def test_quoted_newlines_may_be_anywhere(file: Path) -> None:
    texts = ["a\n" * (i % 50) + f",{i}" for i in range(60_000)]
    content = "i,t\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(texts))
    assert len(content) > 3 * 2**20
    table = _parse(file, content)
    assert table["i"].to_pylist() == list(range(60_000))
    assert table["t"].to_pylist() == texts


def test_blocks_are_the_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = _parse(file, "i,x,t\n" + "".join(f'{i},{i}.5,"a\nb{i % 3}"\n' for i in range(2000)))
    monkeypatch.setattr(parsing, "BLOCK", 1000)
    dialect = complete(file, Dialect())
    names, lines = header(file, dialect)
    parts = list(batches(file, dialect, names, lines, column_types(file, dialect, names, lines)))
    assert len(parts) > 20
    assert pa.concat_tables(parts).equals(table)


@pytest.mark.parametrize("rest", ["1\n", "1,2,3\n"])
def test_a_row_of_another_length_is_named_though_newlines_are_quoted(file: Path, rest: str) -> None:
    with pytest.raises(DataError, match=r"table.csv, line 5: \d values where there are 2 columns"):
        _parse(file, 'n,t\n1,"a\nb"\n2,c\n' + rest)


# Several files


def _join(*columns: dict[str, list[Any]]) -> pa.Table:
    return join([pa.table(column) for column in columns])


@pytest.mark.parametrize(
    ("first", "second", "kind", "together"),
    [
        ([1, 2], [3], pa.int64(), [1, 2, 3]),
        ([1, 2], [0.5], pa.float32(), [1.0, 2.0, 0.5]),
        ([0.5], [1, 2], pa.float32(), [0.5, 1.0, 2.0]),
        ([1, 2], ["a"], pa.string(), ["1", "2", "a"]),
        (["a"], [0.5], pa.string(), ["a", "0.5"]),
        ([None], [1], pa.int64(), [None, 1]),
        (["a"], [None], pa.string(), ["a", None]),
        ([None], [None], pa.float32(), [None, None]),
    ],
)
def test_a_column_has_one_type_in_all_files(
    first: list[Any], second: list[Any], kind: pa.DataType, together: list[Any]
) -> None:
    joined = _join({"a": first}, {"a": second})
    assert joined["a"].type == kind
    assert joined["a"].to_pylist() == together


def test_columns_are_put_together_by_name_in_the_order_of_the_first_file() -> None:
    assert _join({"a": [1], "b": ["x"]}, {"b": ["y"], "a": [2]}).to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


@pytest.mark.parametrize("second", [["a"], ["a", "b", "c"], ["a", "c"]])
def test_a_file_of_other_columns_is_named(second: list[str]) -> None:
    with pytest.raises(DataError, match=r"1\.csv: column '[bc]' is not in both this file and 0\.csv"):
        check_same_columns(second, ["b", "a"], Path("1.csv"), Path("0.csv"))
    check_same_columns(["a", "b"], ["b", "a"], Path("1.csv"), Path("0.csv"))
