"""Reads text and Parquet files into Arrow tables."""

import codecs
import io
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from datamodules.errors import DataError
from datamodules.tables.dialect import MISSING, Dialect, check_rows
from datamodules.tables.encodings import GZIP, SAMPLE, magic, open_bytes

BLOCK = 2**24  # bytes that are parsed at a time, into a row group each, where the whole does not fit


class WrongTypeError(Exception):
    """A column is not of the inferred type."""

    def __init__(self, column: str) -> None:
        self.column = column


def _options(
    dialect: Dialect, names: list[str], lines: int, types: dict[str, pa.DataType], multiline: bool = True, **kwargs: Any
) -> dict[str, Any]:
    """Return pyarrow's options, all three kinds; `kwargs` are those of reading."""
    utf8 = codecs.lookup(str(dialect.encoding)).name.startswith("utf-8")
    encoding = "utf8" if utf8 else dialect.encoding
    parse = {"delimiter": dialect.delimiter, "quote_char": dialect.quote, "newlines_in_values": multiline}
    return {
        "read_options": pacsv.ReadOptions(column_names=names, skip_rows=lines, encoding=encoding, **kwargs),
        "parse_options": pacsv.ParseOptions(**parse),
        "convert_options": pacsv.ConvertOptions(
            column_types=types,
            null_values=[*MISSING, *dialect.missing_values],
            strings_can_be_null=dialect.text_can_be_missing,
            decimal_point=dialect.decimal,
        ),
    }


def _stream(file: Path) -> pa.NativeFile:
    return pa.input_stream(str(file), compression="gzip" if magic(file) == GZIP else None)


def column_types(file: Path, dialect: Dialect, names: list[str], lines: int) -> dict[str, pa.DataType]:
    """Infer the types of the columns, `names`, that have a value in the beginning of a file, after so many `lines`."""
    with open_bytes(file) as stream:
        sample = stream.read(SAMPLE)
    text = codecs.getincrementaldecoder(str(dialect.encoding))().decode(sample)
    if len(sample) == SAMPLE:
        text = text[: text.rfind("\n") + 1]
    utf8 = replace(dialect, encoding="utf-8")
    try:
        table = pacsv.read_csv(io.BytesIO(text.encode()), **_options(utf8, names, lines, {}))
    except pa.ArrowInvalid:  # reading the whole file raises an error with the place
        return {}
    types = {field.name: field.type for field in tidy(table).schema}
    return {name: types[name] for name in names if table[name].null_count < len(table)}


def parse(file: Path, dialect: Dialect, names: list[str], lines: int, text: Collection[str] = ()) -> pa.Table:
    """Parse a whole text table, the rows after so many `lines`, on all cores.

    Columns in `text` are text, though they may look like numbers.

    Raises:
        DataError: If it cannot be parsed, or has no row.
    """
    given = {name: pa.string() for name in names if name in text}
    inferred = column_types(file, dialect, names, lines).items()
    floats = {name: kind for name, kind in inferred if pa.types.is_floating(kind)}
    # A number of a known type is parsed once, where type inference tries several types for each column.
    for types, multiline in (({**floats, **given}, False), (given, False), (given, True)):
        try:
            with _stream(file) as stream:
                table = pacsv.read_csv(stream, **_options(dialect, names, lines, types, multiline))
            break
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            failed = error
    else:
        raise _explain(file, dialect, failed) from failed
    if not len(table):
        raise DataError(f"{file}: there is a header, but no row of data")
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        check_rows(file, dialect)
    return tidy(table)


def batches(
    file: Path, dialect: Dialect, names: list[str], lines: int, types: dict[str, pa.DataType]
) -> Iterator[pa.Table]:
    """Parse a text table block by block, as the given types.

    Raises:
        WrongTypeError: If a value is not of its column's type.
        DataError: If it cannot be parsed.
    """
    try:
        options = _options(dialect, names, lines, types, block_size=BLOCK)
        with _stream(file) as stream, pacsv.open_csv(stream, **options) as reader:
            for batch in reader:
                yield tidy(pa.Table.from_batches([batch]))
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        column = re.search(r"In CSV column #(\d+):.*CSV conversion error", str(error))
        if column and not pa.types.is_string(types[names[int(column[1])]]):
            raise WrongTypeError(names[int(column[1])]) from error
        if "Empty CSV file" in str(error):
            return
        raise _explain(file, dialect, error) from error


def _explain(file: Path, dialect: Dialect, error: Exception) -> DataError:
    check_rows(file, dialect)  # raises an error with the line, if it finds it
    return DataError(f"{file}: cannot be parsed ({str(error).partition(chr(10))[0]})")


def tidy(table: pa.Table, text: Collection[str] = ()) -> pa.Table:
    """Cast real numbers to float32, all text to one type, times to one unit, and columns in `text` to text."""
    fields = []
    for field in table.schema:
        as_text = field.name in text and not pa.types.is_nested(field.type)
        fields.append(pa.field(field.name, pa.string() if as_text else _tidy_type(field.type)))
    # Not `safe`: float32 may round. A number that overflows becomes infinite, and is found later.
    return table.cast(pa.schema(fields), safe=False)


def _tidy_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return pa.float32()
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if is_text or pa.types.is_dictionary(kind) or pa.types.is_time(kind):
        return pa.string()
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return pa.timestamp("us", tz=getattr(kind, "tz", None))
    return kind


def check_same_columns(names: list[str], first: list[str], file: Path, other: Path) -> None:
    """Raise an error if two files of a table have different columns, in any order.

    Raises:
        DataError: If they have.
    """
    odd = sorted(set(names) ^ set(first))
    if odd:
        problem = f"{file}: column {odd[0]!r} is not in both this file and {other}"
        raise DataError(problem, "all files of a table need the same columns")


def join(parts: list[pa.Table]) -> pa.Table:
    """Concatenate tables of the same columns, in any order."""
    names = parts[0].column_names
    parts = [tidy(part.select(names)) for part in parts]
    fields = []
    for at, name in enumerate(names):
        kinds = {part.schema.field(at).type for part in parts if part[at].null_count < len(part)} or {pa.float32()}
        kind = kinds.pop() if len(kinds) == 1 else pa.float32() if all(map(_is_numeric, kinds)) else pa.string()
        fields.append(pa.field(name, kind))
    return pa.concat_tables([part.cast(pa.schema(fields), safe=False) for part in parts])


def mixed_columns(parts: list[pa.Table]) -> list[str]:
    """Return the columns that are text in some parts and something else in others."""
    found = []
    for name in parts[0].column_names:
        kinds = [pa.types.is_string(part[name].type) for part in parts if part[name].null_count < len(part)]
        if any(kinds) and not all(kinds):
            found.append(name)
    return found


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def is_parquet(file: Path) -> bool:
    """Whether a file is Parquet, by its first bytes.

    Raises:
        DataError: If it is empty, or a zip archive.
    """
    with file.open("rb") as stream:
        start = stream.read(8)
    if not start:
        raise DataError(f"{file}: the file is empty")
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{file}: this is a zip archive or an Excel sheet", "save it as CSV")
    return start.startswith(b"PAR1")


def read_parquet(file: Path, read: Callable[[pq.ParquetFile], Any]) -> Any:  # noqa: ANN401  # as `read` returns
    """Open a Parquet file, and read something from it.

    Raises:
        DataError: If it is damaged.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            return read(parquet)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: a damaged Parquet file ({str(error).partition(chr(10))[0]})") from error
