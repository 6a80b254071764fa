"""Tables are found, told by their content, parsed once and kept."""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules import DataError
from datamodules.tables import files as tables
from datamodules.tables import reader as parsing
from datamodules.tables.dialect import Dialect
from datamodules.tables.files import TableFiles

TEXT = "a,b,y\n" + "".join(f"{i},{i}.5,{'no' if i % 3 else 'yes'}\n" for i in range(30))
TABLE = pa.table(
    {
        "a": range(30),
        "b": pa.array([i + 0.5 for i in range(30)], pa.float32()),
        "y": ["no" if i % 3 else "yes" for i in range(30)],
    }
)


def _write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def _open(
    path: Path, cache: str = "cache", expected: Sequence[str] | None = None, text: Sequence[str] = (), **given: Any
) -> TableFiles:
    return TableFiles(str(path), Dialect(**given), cache, expected=expected, text=text)


def _cached() -> list[Path]:
    return sorted(path for path in Path("cache").rglob("*") if path.is_file())


def _parsing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the table is parsed")

    monkeypatch.setattr(tables, "parse", fail)
    monkeypatch.setattr(tables, "batches", fail)


# What is read


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet", "t"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet"])
def test_a_table_is_told_by_its_content_whatever_its_name(workdir: Path, name: str, kind: str) -> None:
    if kind == "parquet":
        pq.write_table(TABLE, name)
    else:
        text = TEXT.replace(",", "\t") if kind == "tsv" else TEXT
        _write(workdir / name, gzip.compress(text.encode()) if kind == "csv.gz" else text)
    files = _open(workdir / name)
    assert files.names == ["a", "b", "y"]
    assert files.read().equals(TABLE)
    assert pa.concat_tables([pq.read_table(file) for file in files.as_parquet()]).equals(TABLE)


def test_a_float64_or_decimal_of_parquet_is_float32_and_a_dictionary_text(workdir: Path) -> None:
    table = pa.table({"a": [0.1, 0.2], "b": pa.array(["x", "y"]).dictionary_encode(), "c": [1, 2]})
    pq.write_table(table.append_column("d", pa.array([1, 2]).cast(pa.decimal128(21, 2))), "t.parquet")
    assert _open(workdir / "t.parquet").read().schema.types == [pa.float32(), pa.string(), pa.int64(), pa.float32()]


@pytest.mark.parametrize("path", ["folder", "folder/part-*.csv", "**/part-?.csv"])
@pytest.mark.parametrize("convert", [False, True])
def test_a_folder_or_a_glob_is_one_table_in_the_order_of_names(workdir: Path, path: str, convert: bool) -> None:
    lines = TEXT.splitlines(keepends=True)
    _write(workdir / "folder/part-2.csv", lines[0] + "".join(lines[21:]))
    _write(workdir / "folder/part-1.csv", "".join(lines[:21]))
    _write(workdir / "folder/README.md", "no table")
    files = TableFiles(path, Dialect(), "cache")
    table = pq.read_table(files.as_parquet()[0]) if convert else files.read()
    assert table.equals(TABLE)


def test_several_parquet_files_are_one_table(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    pq.write_table(TABLE[:10], "folder/1.parquet")
    pq.write_table(TABLE[10:].select(["y", "b", "a"]), "folder/2.pq")
    assert _open(workdir / "folder").read().equals(TABLE)


@pytest.mark.parametrize("convert", [False, True])
def test_files_may_have_their_columns_in_another_order(workdir: Path, convert: bool) -> None:
    _write(workdir / "folder/1.csv", "a,b,c\n1,x,0.5\n2,y,1.5\n")
    _write(workdir / "folder/2.csv", "c,a,b\n2.5,3,z\n")
    files = _open(workdir / "folder")
    table = pq.read_table(files.as_parquet()[0]) if convert else files.read()
    assert table.to_pydict() == {"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [0.5, 1.5, 2.5]}


@pytest.mark.parametrize("convert", [False, True])
def test_files_of_other_columns_are_refused(workdir: Path, convert: bool) -> None:
    _write(workdir / "folder/1.csv", "a,b\n1,2\n")
    _write(workdir / "folder/2.csv", "a,c\n1,2\n")
    files = _open(workdir / "folder")
    with pytest.raises(DataError, match=r"2\.csv.*'[bc]'"):
        _ = files.as_parquet() if convert else files.read()
    assert _cached() == []


# The cache


def test_a_table_is_parsed_once(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(workdir / "t.csv", TEXT)
    first = _open(path)
    parsed = first.read()
    assert _cached() == []  # only what turned out to be of use is kept
    first.keep()
    assert _cached() == [first.cached]
    _parsing_fails(monkeypatch)
    again = _open(path)
    assert again.read().equals(parsed)
    assert again.as_parquet() == [first.cached]


def test_a_copy_under_another_folder_is_parsed_no_more(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _open(_write(workdir / "t.csv", TEXT))
    first.read()
    first.keep()
    _parsing_fails(monkeypatch)
    assert _open(_write(workdir / "elsewhere/t.csv", TEXT)).read().equals(TABLE)


def test_what_is_cached_is_what_was_parsed(workdir: Path, data_dir: str) -> None:
    messy = "i,f,s,d,b,n\n1,0.1,x,2020-01-01,true,?\n?,?,?,?,?,?\n3,1e-30,é\t,2020-01-03,,\n"
    for path in (_write(workdir / "t.csv", messy), *sorted(Path(data_dir, "tabular").glob("*.*"))):
        files = _open(path)
        parsed = files.read()
        files.keep()
        cached = _open(path).read()
        assert cached.equals(parsed), path


def test_a_time_is_cached_as_it_was_parsed(workdir: Path) -> None:
    files = _open(_write(workdir / "t.csv", "t,n\n2020-01-01 10:00:00,1\n2020-01-01 10:00:01,2\n"))
    parsed = files.read()
    files.keep()
    assert _open(workdir / "t.csv").read().equals(parsed)


def test_a_changed_file_is_parsed_anew_though_size_and_time_are_the_same(workdir: Path) -> None:
    path = _write(workdir / "t.csv", TEXT)
    first = _open(path)
    first.read()
    first.keep()
    time = path.stat().st_mtime_ns
    _write(path, TEXT.replace("7,7.5", "8,7.5"))
    os.utime(path, ns=(time, time))
    again = _open(path)
    assert again.cached != first.cached
    assert again.read()["a"].to_pylist()[7] == 8


@pytest.mark.parametrize(
    "given",
    [
        {"header": False},
        {"delimiter": ","},
        {"quote": "'"},
        {"decimal": "."},
        {"encoding": "latin-1"},
        {"missing_values": ("7",)},
    ],
)
def test_another_dialect_has_a_cache_of_its_own(workdir: Path, given: dict[str, Any]) -> None:
    path = _write(workdir / "t.csv", "a;b,c;d\n1;2,3;4\n")
    assert _open(path, **given).cached != _open(path).cached


def test_a_cache_of_another_format_is_not_read(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(workdir / "t.csv", TEXT)
    before = _open(path).cached
    monkeypatch.setattr(tables, "FORMAT", "0")
    assert _open(path).cached != before


@pytest.mark.parametrize("convert", [False, True])
def test_nothing_but_the_cache_is_left(workdir: Path, convert: bool) -> None:
    files = _open(_write(workdir / "source/t.csv", TEXT))
    if convert:
        files.as_parquet()
    else:
        files.read()
        files.keep()
    assert _cached() == [files.cached]
    assert [path.name for path in (workdir / "source").iterdir()] == ["t.csv"]


@pytest.mark.parametrize("convert", [False, True])
def test_a_failed_conversion_leaves_nothing(workdir: Path, convert: bool) -> None:
    files = _open(_write(workdir / "t.csv", TEXT + "30,1,no,4\n"))
    with pytest.raises(DataError, match=r"t\.csv, line 32: 4 values"):
        _ = files.as_parquet() if convert else files.read()
    assert _cached() == []


def test_the_source_may_be_read_only(workdir: Path) -> None:
    path = _write(workdir / "source/t.csv", TEXT)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        files = _open(path)
        assert files.read().equals(TABLE)
        files.keep()
        assert files.as_parquet() == [files.cached]
    finally:
        path.parent.chmod(0o755)


def test_a_damaged_cache_is_made_anew(workdir: Path) -> None:
    path = _write(workdir / "t.csv", TEXT)
    first = _open(path)
    first.read()
    first.keep()
    first.cached.write_bytes(first.cached.read_bytes()[:50])
    assert _open(path).read().equals(TABLE)


def test_the_cache_does_not_remember_who_asked(workdir: Path) -> None:
    path = _write(workdir / "t.csv", "1,2\n3,4\n")
    without_target = _open(path, expected=["x1", "x2", "y"])
    assert without_target.read().column_names == ["x1", "x2"]
    without_target.keep()
    assert _open(path).read().column_names == _open(path).names == ["x1", "y"]


# Conversion


MESSY = "i,f,s,late,day,flag\n" + "".join(
    f'{i},{i}.25,"a\nb{i % 3}",{i if i < 1500 else i + 0.5},2020-01-{i % 30 + 1:02},{"true" if i % 2 else "false"}\n'
    for i in range(2000)
)


@pytest.mark.parametrize("packed", [False, True])
def test_converting_gives_what_reading_gives_in_several_row_groups(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    path = _write(workdir / "t.csv.gz", gzip.compress(MESSY.encode())) if packed else _write(workdir / "t.csv", MESSY)
    for module in (parsing, tables):
        monkeypatch.setattr(module, "BLOCK", 4096)
    (converted,) = _open(path).as_parquet()
    assert pq.ParquetFile(converted).metadata.num_row_groups > 10
    assert pq.read_table(converted).equals(_open(path, cache="other").read())


@pytest.mark.parametrize("cell", ["", "12:30:00", "2020-01-01 10:00:00", "99999999999999999999"])
def test_a_column_of_any_kind_is_converted_as_it_is_read(workdir: Path, cell: str) -> None:
    path = _write(workdir / "t.csv", f"a,n\n{cell},1\n{cell},2\n")
    (converted,) = _open(path).as_parquet()
    assert str(pq.read_table(converted).schema) == str(_open(path, cache="other").read().schema)


@pytest.mark.parametrize(
    ("first", "last"), [("1", "0.5"), ("1", "?"), ("", "0.5"), ("2020-01-01", "later"), ("x", "1")]
)
def test_a_type_that_shows_late_is_converted_as_it_is_read(workdir: Path, first: str, last: str) -> None:
    path = _write(workdir / "t.csv", "n,a\n" + f"1234567,{first}\n" * 40_000 + f"7,{last}\n")
    (converted,) = _open(path).as_parquet()
    assert pq.read_table(converted).equals(_open(path, cache="other").read())


def test_quoted_newlines_where_the_sample_ends_do_not_matter(workdir: Path) -> None:
    lines = "".join(f'{i if i < 9000 else i + 0.5},"a\nb\nc\nd{i}"\n' for i in range(30_000))
    for shift in range(4):
        path = _write(workdir / "t.csv", f"n,t{' ' * shift}\n{lines}")
        (converted,) = _open(path).as_parquet()
        assert pq.read_table(converted).equals(_open(path, cache=f"other{shift}").read()), shift


def test_text_that_comes_late_is_named(workdir: Path) -> None:
    path = _write(workdir / "t.csv", "n,a\n" + "1234567,1\n" * 40_000 + "7,\n7,word\n")
    with pytest.raises(DataError, match=r"t\.csv, line 40003: 'word' in column a is not a number"):
        _open(path).as_parquet()
    assert _cached() == []
    (converted,) = _open(path, text=["a"]).as_parquet()
    assert pq.read_table(converted)["a"].to_pylist()[-3:] == ["1", None, "word"]


def test_text_is_named_in_the_file_that_has_it(workdir: Path) -> None:
    _write(workdir / "folder/1.csv", "a,b\n1,2\n3,4\n")
    _write(workdir / "folder/2.csv", "a,b\n1,2\n3,word\n")
    with pytest.raises(DataError, match=r"2\.csv, line 3: 'word' in column b is not a number"):
        _open(workdir / "folder").as_parquet()


def test_columns_of_blank_names_are_converted_too(workdir: Path) -> None:
    late = "1,x,2,3\n" * 40_000 + "1,x,2,0.5\n"
    path = _write(workdir / "t.csv", ",,a,b\n" + late)
    (converted,) = _open(path).as_parquet()
    table = pq.read_table(converted)
    assert table.equals(_open(path, cache="other").read())
    assert table.column_names == ["column_1", "column_2", "a", "b"]


def test_text_columns_are_text_whatever_was_asked_before(workdir: Path) -> None:
    path = _write(workdir / "t.csv", "n,code\n1,007\n2,010\n")
    assert _open(path).read()["code"].to_pylist() == [7, 10]
    _open(path).as_parquet()
    (converted,) = _open(path, text=["code"]).as_parquet()
    assert pq.read_table(converted)["code"].to_pylist() == ["007", "010"]
    assert _open(path).read()["code"].to_pylist() == [7, 10]


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        (b"n,a\n", {}, "there is a header, but no row of data"),
        (
            b"n,a\n" + b"12345,\xc3\xa9\n" * 40_000 + b"1,\xe9\n",
            {},
            "line 40002: byte 0xe9 at offset 360006 is",
        ),
        (b"n,a\n" + b"1234567,a\n" * 40_000 + b"1,\xe9\n", {"encoding": "ascii"}, "0xe9 at offset 400006 is not ascii"),
        (b"n,a\n" + b"1234567,a\n" * 40_000 + b"1\n", {}, "line 40002: 1 values where there are 2 columns"),
        (
            gzip.compress(os.urandom(400_000).hex(",", 4).encode().replace(b",", b",1\n"))[:-99],
            {"header": False},
            "gzip",
        ),
    ],
    ids=["no rows", "encoding", "given encoding", "short row", "cut gzip"],
)
def test_what_is_wrong_beyond_the_beginning_is_one_line(
    workdir: Path, content: bytes, given: dict[str, Any], message: str, convert: bool
) -> None:
    files = _open(_write(workdir / "t.csv.gz" if message == "gzip" else workdir / "t.csv", content), **given)
    with pytest.raises(DataError, match=message) as error:
        _ = files.as_parquet() if convert else files.read()
    assert str(error.value).count("\n") == 0
    assert "cache_dir" not in str(error.value)


# Places and names


def test_the_place_of_a_value_is_its_line(workdir: Path) -> None:
    _write(workdir / "folder/1.csv", '\n\nn,t\n1,"a\nb"\n\n2,c\n')
    _write(workdir / "folder/2.csv", 't,n\r\n"x\r\ny",3\r\nz,4')
    files = _open(workdir / "folder")
    assert [files.where(row, "n").rpartition("/")[2] for row in range(4)] == [
        "1.csv, line 5: '1' in column n",
        "1.csv, line 7: '2' in column n",
        "2.csv, line 3: '3' in column n",
        "2.csv, line 4: '4' in column n",
    ]


def test_the_place_of_a_value_without_a_header_is_its_line(workdir: Path) -> None:
    _write(workdir / "t.csv", "1,2\n3,4\n")
    assert _open(workdir / "t.csv").where(1, "y").endswith("t.csv, line 2: '4' in column y")


def test_the_place_of_a_value_in_parquet_files_is_its_row(workdir: Path) -> None:
    (workdir / "folder").mkdir()
    for at in (1, 2):
        pq.write_table(TABLE, f"folder/{at}.parquet", row_group_size=7)
    assert _open(workdir / "folder").where(31, "b").endswith("2.parquet, row 2, column b")


@pytest.mark.parametrize(
    ("content", "expected", "names"),
    [
        ("1,2,3\n4,5,6\n", None, ["x1", "x2", "y"]),
        ("1,2,3\n4,5,6\n", ["x1", "x2", "y"], ["x1", "x2", "y"]),
        ("1,2\n4,5\n", ["x1", "x2", "y"], ["x1", "x2"]),  # nothing to compare with when it is to be predicted
        ("1,2\n4,5\n", ["a", "b", "y"], ["x1", "y"]),
        ("a,b\n4,5\n", ["x1", "x2", "y"], ["a", "b"]),
    ],
)
def test_columns_without_names_are_those_of_the_table_before(
    workdir: Path, content: str, expected: list[str] | None, names: list[str]
) -> None:
    files = _open(_write(workdir / "t.csv", content), expected=expected)
    assert files.names == names
    assert files.read().column_names == names
    assert files.where(0, names[-1]).endswith(f"in column {names[-1]}")


def test_what_is_text_in_one_file_is_as_written_in_all(workdir: Path) -> None:
    _write(workdir / "folder/1.csv", "n,a\n1,2.50\n2,007\n")
    _write(workdir / "folder/2.csv", "a,n\n2.50,3\n007,4\nword,5\n")
    assert _open(workdir / "folder").read()["a"].to_pylist() == ["2.50", "007", "2.50", "007", "word"]


def test_rows_are_placed_as_an_editor_counts_lines(workdir: Path) -> None:
    (workdir / "t.csv").write_text('a,y\n1,2\n\n"x\ny",3\n5,6\n')
    assert _open(workdir / "t.csv").places([2, 0, 1]) == ["line 6", "line 2", "line 5"]
    (workdir / "more").mkdir()
    for name in ("a", "b"):
        (workdir / "more" / f"{name}.csv").write_text("a,y\n1,2\n3,4\n")
    assert _open(workdir / "more").places([1, 2]) == ["a.csv, line 3", "b.csv, line 2"]
    pq.write_table(pa.table({"a": [1, 2], "y": [3, 4]}), workdir / "t.parquet")
    assert _open(workdir / "t.parquet").places([1]) == ["row 2"]
