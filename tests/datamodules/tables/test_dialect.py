"""How text tables are written is found out, and what is given is believed."""

import codecs
import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datamodules import DataError
from datamodules.tables import encodings
from datamodules.tables.dialect import Dialect, beginning, complete, header, rows
from datamodules.tables.encodings import decoded

PLAIN = "color,size\nred,1\nblue,2\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a table that is not written yet."""
    return tmp_path / "table.csv"


def _write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def _read(file: Path, **given: Any) -> tuple[list[str], list[list[str]]]:
    """Give the names and the cells of a table, after its dialect is found out."""
    found = complete(file, Dialect(**given))
    return header(file, found)[0], [cells for _, cells in rows(file, found)]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
def test_delimiter_and_quote_are_found_though_they_stand_in_values(
    file: Path, delimiter: str, quote: str, newline: str
) -> None:
    cells = [[str(i), f"so{delimiter}and{delimiter}so {i}" if i % 2 else f"two{newline}lines"] for i in range(6)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quotechar=quote, lineterminator=newline).writerows([["n", "note"], *cells])
    _write(file, text.getvalue())
    found = complete(file, Dialect())
    assert (found.delimiter, found.quote, found.header) == (delimiter, quote, True)
    assert _read(file) == (["n", "note"], cells)


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("a;b\n1,5;2,5\n3,5;4,5\n", ";"),
        ("text;y\none, two, three;1\nfour;2\n", ";"),
        ("when,what\n2020-01-01 10:00:00,1\n2020-01-02 11:00:00,2\n", ","),
        ("first name,last name\nAda May,Lovelace\nAlan,Turing\n", ","),
        ("a\tb\nx, y\t1\nz, w\t2\n", "\t"),
        ('"a;b";"c"\n"1;2";"3"\n"4;5";"6"\n', ";"),
    ],
)
def test_the_delimiter_is_that_by_which_lines_have_the_same_number_of_values(
    file: Path, content: str, delimiter: str
) -> None:
    assert complete(_write(file, content), Dialect()).delimiter == delimiter


def test_apostrophes_in_values_are_no_quotes(file: Path) -> None:
    _write(file, "word,n\nit's,1\n'tis,2\ndogs',3\n")
    assert complete(file, Dialect()).quote == '"'
    assert _read(file)[1] == [["it's", "1"], ["'tis", "2"], ["dogs'", "3"]]


@pytest.mark.parametrize(
    ("content", "decimal"),
    [
        ("a;b\n1,5;x\n-2,25;z\n", ","),
        ("a\tb\n1,5\t2\n3,5\t4\n", ","),
        ("a;b\n1.5;x\n2.25;z\n", "."),
        ("a;b\n1;x\n2;z\n", "."),
        ("a,b\n1,5\n2,5\n", "."),  # two whole numbers in a row
    ],
)
def test_the_decimal_sign_is_found(file: Path, content: str, decimal: str) -> None:
    assert complete(_write(file, content), Dialect()).decimal == decimal


@pytest.mark.parametrize(
    ("content", "has_header"),
    [
        ("a,b\n1,2\n3,4\n", True),
        ("1,2\n3,4\n", False),
        ("red,1\nblue,2\n", False),
        ("color,shape\nred,round\nblue,square\n", True),  # all text
        ("name,2019\nred,1\nblue,2\n", False),  # cannot be told from a row
        ("size,2019\n1,1\n2,2\n", True),  # but here can: text above numbers
        ("?,2\n3,4\n5,6\n", False),
        (",2\n3,4\n5,6\n", False),
        ("a;b\n1,5;2,5\n", True),
        ("1,5;2,5\n3,5;4,5\n", False),
        ("a,b\n?,x\n1,z\n", True),
        ("1e5,-3\n2,4\n", False),
    ],
)
def test_the_header_is_told_from_a_row(file: Path, content: str, has_header: bool) -> None:
    assert complete(_write(file, content), Dialect()).header is has_header


def test_columns_without_names_are_numbered_and_the_last_is_the_target(file: Path) -> None:
    assert _read(_write(file, "1,2,3\n4,5,6\n")) == (["x1", "x2", "y"], [["1", "2", "3"], ["4", "5", "6"]])


@pytest.mark.parametrize(
    ("content", "given", "names", "count"),
    [
        ("2019,2020\n1,2\n3,4\n", {"header": True}, ["2019", "2020"], 2),
        ("red,round\nblue,square\n", {"header": False}, ["x1", "y"], 2),
        ("a;b,c\n1;2,3\n", {"delimiter": ","}, ["a;b", "c"], 1),
        ("'a','b'\n'1','2'\n", {"quote": '"'}, ["'a'", "'b'"], 1),
    ],
)
def test_what_is_given_is_believed(
    file: Path, content: str, given: dict[str, Any], names: list[str], count: int
) -> None:
    found, cells = _read(_write(file, content), **given)
    assert (found, len(cells)) == (names, count)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_a_byte_order_mark_tells_the_encoding_and_is_in_no_name(file: Path, mark: bytes, encoding: str) -> None:
    _write(file, mark + "größe,名\n1,é\n2,中\n".encode(encoding))
    assert _read(file) == (["größe", "名"], [["1", "é"], ["2", "中"]])


@pytest.mark.parametrize(
    ("encoding", "word"), [("gb18030", "北京"), ("latin-1", "Größe"), ("cp1252", "€…é"), ("utf-16-le", "é")]
)
def test_another_encoding_is_given_by_its_name(file: Path, encoding: str, word: str) -> None:
    _write(file, f"{word},n\n{word},1\na,2\n".encode(encoding))
    assert _read(file, encoding=encoding) == ([word, "n"], [[word, "1"], ["a", "2"]])


def test_a_blank_name_is_the_number_of_its_column(file: Path) -> None:
    assert _read(_write(file, ",a, \n1,2,3\n"))[0] == ["column_1", "a", "column_3"]


def test_names_lose_the_spaces_around_them(file: Path) -> None:
    assert _read(_write(file, "a, b ,c\n1,2,3\n"))[0] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.rstrip(),
        PLAIN.replace("\n", "\r\n").rstrip(),
        "\n\n" + PLAIN,
        "\r\n" + PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("blue", "\nblue"),
        PLAIN + "\n\n",
    ],
)
def test_line_ends_and_empty_lines_change_nothing(file: Path, content: str) -> None:
    assert _read(_write(file, content)) == (["color", "size"], [["red", "1"], ["blue", "2"]])


def test_a_row_is_in_the_line_where_it_ends(file: Path) -> None:
    _write(file, '\nn,note\n1,"a\nb\nc"\n\n2,d\n')
    assert [line for line, _ in rows(file, complete(file, Dialect()))] == [5, 7]


def test_a_sample_that_ends_anywhere_gives_the_same_dialect(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(file, "größe;café\n" + '1,5;"é;é"\n2,5;中\n' * 10)
    whole = complete(file, Dialect())
    for size in range(60, 120):
        monkeypatch.setattr(encodings, "SAMPLE", size)
        assert complete(file, Dialect()) == whole, size


@pytest.fixture
def first_table() -> Iterator[None]:
    """Have Python's own limit on the size of a value, as before any table was read."""
    limit = csv.field_size_limit(2**17)
    yield
    csv.field_size_limit(limit)


@pytest.mark.usefixtures("first_table")
def test_a_value_may_be_a_long_text(file: Path) -> None:
    _write(file, f"n,note\n1,{'a b ' * 40_000}\n2,short\n")
    assert _read(file)[1][0] == ["1", "a b " * 40_000]


@pytest.mark.usefixtures("first_table")
def test_a_quote_that_is_never_closed_hides_no_delimiter(file: Path) -> None:
    opened = '3\t"' + "a " * 500 + "\n"
    _write(file, "n\tnote\n1\ta\n2\tb\n" + opened + "".join(f"{i}\t{'b ' * 500}\n" for i in range(190)))
    assert complete(file, Dialect()).delimiter == "\t"


# Text in parts


LONG = "".join(f"é中😀{i}\r\n" for i in range(300))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030"])
@pytest.mark.parametrize("size", [7, 64, 10**6])
def test_parts_together_are_the_text(file: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, size: int) -> None:
    monkeypatch.setattr(encodings, "SAMPLE", size)
    _write(file, LONG.encode(encoding))
    assert "".join(decoded(file, encoding)) == LONG
    _write(file, gzip.compress(LONG.encode(encoding)))
    assert "".join(decoded(file, encoding)) == LONG


def test_a_beginning_is_all_or_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(file, LONG)
    assert beginning(file, None) == ("utf-8-sig", LONG, True)
    monkeypatch.setattr(encodings, "SAMPLE", 64)
    encoding, text, is_whole = beginning(file, "UTF8")
    assert (encoding, is_whole) == ("utf-8-sig", False)
    assert LONG.startswith(text)
    assert text


@pytest.mark.parametrize("size", [7, 64, 10**6])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("tail", [b"\xe9\nmore\n", b"\xe9\xe9", b"\xe4\xb8"])
def test_a_wrong_byte_is_found_by_its_offset(
    file: Path, monkeypatch: pytest.MonkeyPatch, size: int, mark: bytes, tail: bytes
) -> None:
    monkeypatch.setattr(encodings, "SAMPLE", size)
    content = mark + LONG.encode() + b"caf"
    _write(file, content + tail)
    with pytest.raises(DataError) as error:
        list(decoded(file, "utf-8-sig"))
    byte = f"byte 0x{tail[0]:02x} at offset {len(content)} is not utf-8"
    assert str(error.value).startswith(f"{file}, line 301: {byte}; give `encoding`")
