"""How text tables are written, inferred from the beginning of a file."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from datamodules.errors import DataError
from datamodules.tables.encodings import DEFAULT, decoded, find_encoding, open_bytes, read_sample, unpacked

DELIMITERS = ("\t", ";", "|", ",", " ")
MISSING = (
    *("", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null"),  # signs of a missing value
    *(" ", " ?", " NA"),
)
LONGEST = 2**27  # characters of one value


@dataclass(frozen=True)
class Dialect:
    """How a text table is written, as the options of `LabeledDataModule`; None is inferred from its beginning."""

    header: bool | None = None
    delimiter: str | None = None
    quote: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing_values: tuple[str, ...] = ()
    text_can_be_missing: ClassVar[bool] = True  # whether the signs of missing values apply to text too


def complete(file: Path, given: Dialect, may_have_one: bool = False) -> Dialect:
    """Infer the missing parts of a dialect from the beginning of a file, which `may_have_one` column only.

    Raises:
        DataError: If it is not text, is not of this encoding, or has one column only.
    """
    for name in ("delimiter", "quote", "decimal"):
        sign = getattr(given, name)
        if sign is not None and len(sign) != 1:
            raise DataError("give one character", "leave it out for a tab", option=name, value=sign)
    encoding, text, is_whole = beginning(file, given.encoding)
    lines = text.splitlines(keepends=True)
    if not is_whole and len(lines) > 1:
        lines.pop()  # it may be cut off
    quote = given.quote or _quote(text)
    try:
        delimiter = given.delimiter or _delimiter(lines, quote)
        rows = [row for row in _reader(lines[:200], delimiter, quote) if row]
    except csv.Error as error:
        raise _unclosed(file, quote) from error
    if len(rows[0]) == 1 and not may_have_one:
        found = _delimiter(lines, quote)
        hint = f"; it looks like {found!r}" if found != delimiter and found != "," else ""
        raise DataError(f"{file}: with the delimiter {delimiter!r} there is only one column", f"give `delimiter`{hint}")
    decimal = given.decimal or _decimal(rows, delimiter)
    header = _has_header(rows, decimal) if given.header is None else given.header
    return replace(given, header=header, delimiter=delimiter, quote=quote, decimal=decimal, encoding=encoding)


def beginning(file: Path, encoding: str | None) -> tuple[str, str, bool]:
    """Decode the beginning of a text file, plain or gzip; return its encoding, the text, and whether it is all.

    Raises:
        DataError: If it is not text, is empty, or is not of this encoding.
    """
    encoding = find_encoding(file) if encoding is None else encoding
    try:
        if not codecs.lookup(encoding)._is_text_encoding:  # base64 and the like
            raise LookupError(encoding)
    except LookupError as error:
        raise DataError("Python knows no such encoding", option="encoding", value=encoding) from error
    if codecs.lookup(encoding).name == "utf-8":
        encoding = DEFAULT
    parts, is_whole = decoded(file, encoding), read_sample(file)[1]
    text = "".join(parts) if is_whole else next(parts)
    if not text.strip():
        raise DataError(f"{file}: the file is empty")
    return encoding, text, is_whole


def _reader(lines: Iterable[str], delimiter: str, quote: str) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST)  # Python's own limit is 128 KiB
    return csv.reader(lines, delimiter=delimiter, quotechar=quote)


def _unclosed(file: Path, quote: str) -> DataError:
    return DataError(f"{file}: a quote ({quote}) is opened and not closed", "close it, or give another `quote`")


def _quote(text: str) -> str:
    single, double = (len(re.findall(rf"(?:^|[,;\t| ]){q}[^{q}\n]*{q}(?=\r?$|[,;\t| ])", text, re.M)) for q in "'\"")
    return "'" if single > double else '"'


def _delimiter(lines: list[str], quote: str) -> str:
    """Return the delimiter by which most lines have the same number of values, more than one."""

    def agreement(delimiter: str) -> float:
        widths = Counter(len(row) for row in _reader(lines[:200], delimiter, quote) if row)
        width, count = widths.most_common(1)[0]
        return count / widths.total() if width > 1 else 0.0

    best = max(DELIMITERS, key=agreement)  # the first of equals
    return best if agreement(best) else ","


def _decimal(rows: list[list[str]], delimiter: str) -> str:
    cells = [cell.strip() for row in rows[1:] for cell in row]
    comma = sum(bool(re.fullmatch(r"[+-]?\d+,\d+", cell)) for cell in cells)
    point = sum(bool(re.fullmatch(r"[+-]?\d+\.\d+", cell)) for cell in cells)
    return "," if delimiter != "," and comma > point else "."


def is_number(cell: str, decimal: str) -> bool:
    """Whether a text is a number."""
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return False
    return True


def _has_header(rows: list[list[str]], decimal: str) -> bool:
    """Whether the first line has no numbers, or has text above a column of numbers."""
    first, rest = rows[0], rows[1:]
    if not any(is_number(cell, decimal) for cell in first):
        return True
    for at, cell in enumerate(first):
        below = [row[at] for row in rest if len(row) > at and row[at].strip() not in MISSING]
        named = below and cell.strip() not in MISSING and not is_number(cell, decimal)
        if named and all(is_number(value, decimal) for value in below):
            return True
    return False


def header(file: Path, dialect: Dialect) -> tuple[list[str], int]:
    """Return the names of a file's columns, and how many lines they take, with empty lines before them.

    Raises:
        DataError: If two names are the same.
    """
    line, raw = next(rows(file, dialect, header=True), (0, []))
    if not dialect.header:
        return [f"x{at + 1}" for at in range(len(raw) - 1)] + ["y"], 0
    names = [cell.strip() or f"column_{at + 1}" for at, cell in enumerate(raw)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        problem = f"{file}, line {line}: there are {names.count(twice[0])} columns named {twice[0]!r}"
        raise DataError(problem, "rename one, or give `header=False` if these are values")
    return names, line


def rows(file: Path, dialect: Dialect, header: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the line in which each row ends, and its values; slow, for messages."""
    assert dialect.delimiter is not None
    assert dialect.quote is not None
    try:
        with (
            unpacked(file),
            open_bytes(file) as stream,
            io.TextIOWrapper(stream, dialect.encoding, newline="") as text,
        ):
            csv.field_size_limit(LONGEST)
            reader = csv.reader(text, delimiter=dialect.delimiter, quotechar=dialect.quote)
            skip = bool(dialect.header) and not header
            for row in reader:
                if row and not skip:
                    yield reader.line_num, row
                skip = skip and not row
    except csv.Error as error:
        raise _unclosed(file, dialect.quote) from error


def check_rows(file: Path, dialect: Dialect) -> None:
    """Raise an error for the row that a parser failed at.

    Raises:
        DataError: If a row has too few or too many values, or a byte is of another encoding.
    """
    width = None
    try:
        for line, row in rows(file, dialect, header=True):
            width = width or len(row)
            if len(row) != width:
                problem = f"{file}, line {line}: {len(row)} values where there are {width} columns"
                raise DataError(problem, "correct the line")
    except UnicodeDecodeError:
        for _ in decoded(file, str(dialect.encoding)):  # raises an error with the place
            pass
        raise
