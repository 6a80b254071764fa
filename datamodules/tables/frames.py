"""Tables from Python: data frames and dicts of columns, as Arrow tables that are read like those in files."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.errors import DataError
from datamodules.tables.files import TableFiles
from datamodules.tables.reader import join, tidy
from datamodules.tables.values import trimmed

ROWS = 2**20  # that are hashed at a time
# What a column of text may be, as the reader of a file would infer it: the first type that all of its values have.
TYPES = (pa.int64(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.float32())


class ArrowStream(Protocol):
    """A data frame that Arrow can read: of pandas, polars or pyarrow."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the frame as a stream of record batches."""


Frame: TypeAlias = ArrowStream | Mapping[str, Any]  # a data frame, or a dict of columns: lists, arrays, series
if TYPE_CHECKING:
    Table: TypeAlias = str | Frame
else:
    # A command line reads this, and has nothing but paths. It would load the file at a path as a dict.
    Table = str


class TableFrame(TableFiles):
    """A table in memory, which offers what one in files does.

    Args:
        table: The table, as `to_arrow` returns it.
        option: The argument that gave it, for messages.
        text: Columns of text, though they may look like numbers.
        missing_values: Values that stand for a missing one.
    """

    def __init__(
        self, table: pa.Table, option: str = "path", text: Sequence[str] = (), missing_values: Sequence[object] = ()
    ) -> None:
        self.table, self.text, self.missing_values = table, tuple(sorted(text)), missing_values
        self.path = self.name = "the frame" if option == "path" else f"the frame of {option}"
        self.size, self.is_packed, self.is_parquet = 0, False, True  # nothing on disk, nothing to decode
        self.categories = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns."""
        names: list[str] = self.table.column_names
        return names

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the columns' names, types and values, however they are divided into chunks."""
        digest = hashlib.sha256(repr(self.missing_values).encode())
        for name, values in zip(self.names, tidy(self.table).columns, strict=True):
            digest.update(repr((name, str(values.type), len(values))).encode())
            digest.update(np.packbits(np.asarray(values.is_valid())).tobytes())
            known = values.drop_null()  # what stands in a buffer where a value is missing is undefined
            for start in range(0, len(known), ROWS):
                part = known.slice(start, ROWS).combine_chunks()
                digest.update(pa.RecordBatch.from_arrays([part], [name]).serialize())
        return digest.hexdigest()

    def read(self) -> pa.Table:
        """Return the table as one that is read from a file: text that is numbers or dates throughout is such."""
        return self._read

    @cached_property
    def _read(self) -> pa.Table:
        table = tidy(self.table, self.text)
        is_text = {*self.text, *self.categories}
        columns = {}
        for name, values in zip(table.column_names, table.columns, strict=True):
            values = _without(values, self.missing_values)
            is_typed = name in is_text or not pa.types.is_string(values.type)
            columns[name] = values if is_typed else _inferred(values)
        return join([pa.table(columns)]).combine_chunks()

    def keep(self) -> None:
        """Do nothing: the table is in memory."""

    def as_parquet(self) -> NoReturn:
        """Raise a `DataError`: a table in memory is not streamed."""
        raise DataError("a frame is in memory, and is not streamed", "leave it out", "streaming", True)

    def places(self, numbers: Sequence[int]) -> list[str]:
        """Return where rows stand, counted from 0."""
        return [f"row {number} (from 0)" for number in numbers]

    def where(self, row: int, column: str) -> str:
        """Return the place of a value, with the value; rows count from 0."""
        return f"{self.name}, row {row} (from 0): {self.table[column][row].as_py()!r} in column {column}"


def to_arrow(given: Any, option: str) -> pa.Table:  # noqa: ANN401  # whatever the user has
    """Return a frame as an Arrow table.

    Args:
        given: A DataFrame of pandas or polars, an Arrow table, or a dict of columns: lists, arrays or series.
        option: The argument that gave it, for messages.

    Raises:
        DataError: If it is nothing of the kind, has no rows, has two columns of one name or columns of unequal length,
            or a column that Arrow cannot hold.
    """
    try:
        table = _converted(given, option)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join("; ".join(map(str, error.args)).split())
        raise DataError(f"a column mixes types, or has one that a table cannot hold ({reason})", "", option) from error
    check_unique(table.column_names, option)
    if not len(table):
        raise DataError(f"the frame has no {'rows' if table.num_columns else 'columns'}", option=option)
    return table.replace_schema_metadata(None)


def _converted(given: Any, option: str) -> pa.Table:  # noqa: ANN401
    if isinstance(given, pa.Table):
        return given
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        check_unique([str(name) for name in given.columns], option)
        return pa.Table.from_pandas(given, preserve_index=False)
    if isinstance(given, Mapping):
        columns = {str(name): _column(str(name), values, option) for name, values in given.items()}
        check_unique([str(name) for name in given], option)
        sizes = {name: len(values) for name, values in columns.items()}
        if len(set(sizes.values())) > 1:
            (first, size), *_ = sizes.items()
            other = next(name for name in sizes if sizes[name] != size)
            raise DataError(f"column {other!r} has {sizes[other]:,} values, and {first!r} has {size:,}", "", option)
        return pa.table(columns)
    if hasattr(given, "columns") and hasattr(given, "to_arrow"):  # polars: with text of a type that Arrow can cast
        return given.to_arrow()
    if hasattr(given, "__arrow_c_stream__"):
        return pa.table(given)
    problem = f"give a path, a DataFrame, an Arrow table or a dict of columns, not {type(given).__name__}"
    raise DataError(problem, option=option)


def _column(name: str, values: Any, option: str) -> pa.ChunkedArray:  # noqa: ANN401
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise DataError(f"column {name!r} is {values!r}", "give a list or an array of its values", option)
    if hasattr(values, "to_arrow") and not hasattr(values, "type"):  # a series of polars
        values = values.to_arrow()
    elif hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu().numpy()
    if getattr(values, "ndim", 1) != 1:
        problem = f"column {name!r} has {values.ndim} dimensions, {tuple(values.shape)}"
        raise DataError(problem, "give each of its columns a name", option)
    if isinstance(values, pa.ChunkedArray):
        return values
    return pa.chunked_array([values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)])


def check_unique(names: Sequence[str], option: str) -> None:
    """Raise a `DataError` if two columns have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"there are {list(names).count(twice[0])} columns named {twice[0]!r}", "rename one", option)


def check_flat(table: pa.Table, exclude: Sequence[str], option: str) -> None:
    """Raise a `DataError` for a column of lists or dicts that is not excluded."""
    for field in table.schema:
        if pa.types.is_nested(field.type) and field.name not in exclude:
            what = "dicts" if pa.types.is_struct(field.type) or pa.types.is_map(field.type) else "lists"
            remedy = f"make numbers or text of them, or leave them out (`exclude=[{field.name!r}]`)"
            raise DataError(f"column {field.name!r} holds {what}, which cannot be learned from", remedy, option)


def is_frame(given: object) -> bool:
    """Whether a table is given as such, and not by the path of its files."""
    return given is not None and not isinstance(given, str | Path)


def _without(values: pa.ChunkedArray, signs: Sequence[object]) -> pa.ChunkedArray:
    """Replace the signs of missing values that a column can hold."""
    found = []
    for sign in signs:
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            found.append(pa.scalar(sign).cast(values.type).as_py())
    return pc.if_else(pc.is_in(values, pa.array(found, values.type)), None, values) if found else values


def _inferred(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of text as numbers, booleans or times, if all of it is."""
    known = trimmed(values)
    for kind in TYPES:
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return known.cast(kind)
    return values
