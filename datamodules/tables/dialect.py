"""How text tables are written, inferred from the beginning of a file."""

import codecs
import contextlib
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, ClassVar

from datamodules.errors import DataError

GZIP = b"\x1f\x8b"  # the first bytes of such a file
DELIMITERS = ("\t", ";", "|", ",", " ")
MISSING = (
    *("", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null"),  # signs of a missing value
    *(" ", " ?", " NA"),
)
LONGEST = 2**27  # characters of one value
SAMPLE = 2**18  # bytes, from which the dialect and the types of the columns are inferred


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


def magic(file: Path) -> bytes:
    """Return the first two bytes of a file, which tell its type."""
    with file.open("rb") as stream:
        return stream.read(2)


def open_bytes(file: Path) -> IO[bytes]:
    """Open a file, plain or gzip, to read its unpacked content."""
    return gzip.open(file) if magic(file) == GZIP else file.open("rb")  # type: ignore[return-value]  # it reads bytes too


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
    with _unpacked(file), open_bytes(file) as stream:
        sample = stream.read(SAMPLE)
    is_utf16 = sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = encoding or ("utf-16" if is_utf16 else "utf-8-sig")
    controls = re.findall(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]", sample[:4096])
    if encoding == "utf-8-sig" and (b"\0" in sample or len(controls) > 1):
        line = sample[: max(sample.find(b"\0"), 0)].count(b"\n") + 1
        what = f"a NUL byte in line {line}" if b"\0" in sample else "control characters"
        raise DataError(f"{file}: this is not text ({what})", "give a text file, or a CSV, TSV or Parquet file")
    try:
        if not codecs.lookup(encoding)._is_text_encoding:  # base64 and the like
            raise LookupError(encoding)
    except LookupError as error:
        raise DataError("Python knows no such encoding", option="encoding", value=encoding) from error
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"  # with or without a byte order mark
    parts, is_whole = decoded(file, encoding), len(sample) < SAMPLE
    text = "".join(parts) if is_whole else next(parts)
    if not text.strip():
        raise DataError(f"{file}: the file is empty")
    return encoding, text, is_whole


def decoded(file: Path, encoding: str) -> Iterator[str]:
    """Decode a text file, plain or gzip, in parts of `SAMPLE` bytes.

    Raises:
        DataError: If a byte is of another encoding; the message has the line, and the offset in the unpacked file.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    with _unpacked(file), open_bytes(file) as stream:
        while True:
            part = stream.read(SAMPLE)
            try:
                yield decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                # The decoder got this part with bytes left over from the last one, or without a byte order mark.
                at = len(part) - len(error.object) + error.start
                line += part[: max(at, 0)].count(b"\n")
                byte, name = f"byte 0x{error.object[error.start]:02x}", encoding.removesuffix("-sig")
                problem = f"{file}, line {line}: {byte} at offset {offset + at} is not {name}"
                raise DataError(problem, "give `encoding` (latin-1, cp1252, gb18030, ...)") from error
            except UnicodeError as error:  # UTF-16 without its byte order mark
                raise DataError(f"{file}: this is not {encoding} ({error})", "give another `encoding`") from error
            if not part:
                return
            offset, line = offset + len(part), line + part.count(b"\n")


@contextlib.contextmanager
def _unpacked(file: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: the gzip file is truncated or damaged", "copy or download it again") from error


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
            _unpacked(file),
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
