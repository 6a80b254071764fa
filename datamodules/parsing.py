"""From text to columns of an Arrow table."""

import codecs
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from datamodules.dialect import MISSING, SAMPLE, Dialect, check_rows, open_bytes
from datamodules.errors import DataError

BLOCK = 2**24  # bytes that are parsed at a time where the whole does not fit: a row group each


def _read_options(dialect: Dialect, raw: list[str], **kwargs: Any) -> pacsv.ReadOptions:
    utf8 = codecs.lookup(str(dialect.encoding)).name.startswith("utf-8")
    names = None if dialect.header else [str(at) for at in range(len(raw))]
    return pacsv.ReadOptions(column_names=names, encoding="utf8" if utf8 else dialect.encoding, **kwargs)


def _convert_options(dialect: Dialect, types: dict[str, pa.DataType]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types=types,
        null_values=[*MISSING, *dialect.missing_values],
        strings_can_be_null=True,
        decimal_point=dialect.decimal,
    )


def _parse_options(dialect: Dialect, multiline: bool) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(delimiter=dialect.delimiter, quote_char=dialect.quote, newlines_in_values=multiline)


def column_types(file: Path, dialect: Dialect, raw: list[str]) -> dict[str, pa.DataType]:
    """Infer the types of the columns, under their names as written, from the beginning of a file."""
    with open_bytes(file) as stream:
        sample = stream.read(SAMPLE)
    text = codecs.getincrementaldecoder(str(dialect.encoding))().decode(sample)
    if len(sample) == SAMPLE:
        text = text[: text.rfind("\n") + 1]
    utf8 = replace(dialect, encoding="utf-8")
    try:
        table = pacsv.read_csv(
            io.BytesIO(text.encode()),
            _read_options(utf8, raw),
            _parse_options(utf8, multiline=True),
            _convert_options(utf8, {}),
        )
    except pa.ArrowInvalid:  # whatever it is, reading the whole file will tell
        return {}
    return {field.name: _narrow(field.type) for field in table.schema}


def _narrow(kind: pa.DataType) -> pa.DataType:
    return pa.float32() if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else kind


def parse(file: Path, dialect: Dialect, names: list[str], raw: list[str]) -> pa.Table:
    """Parse a whole text table on all cores."""
    floats = {name: kind for name, kind in column_types(file, dialect, raw).items() if pa.types.is_floating(kind)}
    # Numbers whose type is known beforehand are parsed once, where inferring tries several types for each column.
    for types, multiline in ((floats, False), ({}, False), ({}, True)):
        try:
            with pa.input_stream(str(file)) as stream:
                table = pacsv.read_csv(
                    stream,
                    _read_options(dialect, raw),
                    _parse_options(dialect, multiline),
                    _convert_options(dialect, types),
                )
            break
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            failed = error
    else:
        check_rows(file, dialect)
        raise DataError(f"{file}: cannot be parsed ({str(failed).partition(chr(10))[0]}).") from failed
    if not len(table):
        raise DataError(f"{file}: there is a header, but no row of data.")
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        check_rows(file, dialect)
    return tidy(table.rename_columns(names))


def batches(
    file: Path, dialect: Dialect, names: list[str], raw: list[str], types: dict[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    """Parse a text table block by block, as the given types."""
    with (
        pa.input_stream(str(file)) as stream,
        pacsv.open_csv(
            stream,
            _read_options(dialect, raw, block_size=BLOCK),
            _parse_options(dialect, multiline=True),
            _convert_options(dialect, types),
        ) as reader,
    ):
        for batch in reader:
            yield batch.rename_columns(names)


def tidy(table: pa.Table) -> pa.Table:
    """Make numbers with a fraction float32, and text plain text."""
    fields = []
    for field in table.schema:
        kind = _narrow(field.type)
        if pa.types.is_large_string(kind) or pa.types.is_dictionary(kind) or pa.types.is_time(kind):
            kind = pa.string()
        fields.append(pa.field(field.name, kind))
    # Not `safe`: a fraction that float32 rounds is no fault. What overflows becomes infinite, and is found later.
    return table.cast(pa.schema(fields), safe=False)


def join(parts: list[pa.Table], files: list[Path]) -> pa.Table:
    """Put the tables of several files under each other."""
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        odd = set(part.column_names) ^ set(first.column_names)
        if odd:
            raise DataError(
                f"{file}: column {sorted(odd)[0]!r} is not in both this file and {files[0]}; all files of a table need "
                "the same columns."
            )
    parts = [tidy(part.select(first.column_names)) for part in parts]
    fields = []
    for at, name in enumerate(first.column_names):
        kinds = {part.schema.field(at).type for part in parts} - {pa.null()}
        kind = kinds.pop() if len(kinds) == 1 else pa.float32() if all(map(_is_numeric, kinds)) else pa.string()
        fields.append(pa.field(name, kind))
    return pa.concat_tables([part.cast(pa.schema(fields), safe=False) for part in parts])


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
