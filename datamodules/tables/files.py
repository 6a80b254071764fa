"""Tables on disk: found, detected from the content, parsed once, and cached as columns."""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datamodules.cache import Cache
from datamodules.errors import DataError, check_names
from datamodules.files import find_files
from datamodules.tables.dialect import MISSING, Dialect, complete, header, is_number, rows
from datamodules.tables.encodings import GZIP, Encodings, magic
from datamodules.tables.reader import (
    BLOCK,
    WrongTypeError,
    batches,
    check_same_columns,
    column_types,
    is_parquet,
    join,
    mixed_columns,
    parse,
    read_parquet,
    tidy,
)
from datamodules.tables.values import not_a_number

FORMAT = "1"  # version of the cached files; others are ignored
COUNTED = 10**8  # bytes, the most in which lines are counted

logger = logging.getLogger(__name__)


class TableFiles:
    """A table in one or more files of the same columns: CSV, TSV (plain or gzip) or Parquet, detected from the content.

    Args:
        path: A file, a folder or a glob.
        dialect: How text tables are written.
        cache_dir: Folder in which parsed tables are cached as Parquet.
        option: The argument that gave the path, for messages.
        expected: The columns of the training table, whose names a table without a header takes over.
        text: Columns of text, though they may look like numbers.

    Raises:
        DataError: If there is no file that can be read.
    """

    def __init__(
        self,
        path: str,
        dialect: Dialect,
        cache_dir: str,
        option: str = "path",
        expected: Sequence[str] | None = None,
        text: Sequence[str] = (),
    ) -> None:
        self.path, self.option, self.expected, self.text = path, option, expected, tuple(sorted(text))
        self.given, self.cache = dialect, Cache(cache_dir)
        try:
            self.files = find_files(path, option)
            self.size = sum(file.stat().st_size for file in self.files)
            kinds = {file: is_parquet(file) for file in self.files}
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", option=option, value=path) from error
        self.name = str(self.files[0])  # in messages
        self.categories: list[str] = []  # columns that are declared to be categories
        self.is_parquet = kinds[self.files[0]]
        for file, kind in kinds.items():
            if kind != self.is_parquet:
                problem = f"{file}: this folder mixes Parquet and text files"
                raise DataError(problem, "give a glob that matches one kind")
        self.is_packed = any(magic(file) == GZIP for file in self.files)
        self._parsed: pa.Table | None = None

    @cached_property
    def dialect(self) -> Dialect:
        """The dialect, with the inferred parts."""
        # The training table of one feature has two columns, and a table to predict may have one.
        first = replace(self.given, encoding=self.encodings.of(self.files[0]))
        return complete(self.files[0], first, self.expected is not None and len(self.expected) == 2)

    @cached_property
    def encodings(self) -> Encodings:
        """The encodings of the files, if they are text."""
        return Encodings(self.files, self.given.encoding)

    def dialect_of(self, file: Path) -> Dialect:
        """Return the dialect of one of the files, which differ in nothing but their encodings."""
        return self.dialect if file is self.files[0] else replace(self.dialect, encoding=self.encodings.of(file))

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the files' content, and of how they are read."""
        try:
            digests = [_digest(file) for file in self.files]
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read ({error.strerror})", option=self.option) from error
        names = None if self.is_parquet else self.names  # without a header, they depend on what is expected
        dialect = None if self.is_parquet else self.dialect
        return hashlib.sha256(repr((FORMAT, dialect, names, digests)).encode()).hexdigest()

    @property
    def cached(self) -> Path:
        """The file in which this table is kept once it is parsed."""
        return self.cache.path(self.files[0].name.partition(".")[0], ".parquet", self.fingerprint, self.text)

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns."""
        if self.is_parquet:
            names: list[str] = read_parquet(self.files[0], lambda parquet: parquet.schema_arrow.names)
            return names
        return self._header(self.files[0])[0]

    def _header(self, file: Path) -> tuple[list[str], int]:
        """Return the names of a file's columns, and how many lines they take."""
        names, lines = header(file, self.dialect_of(file))
        if not self.dialect.header and self.expected and self.expected[0] == "x1" and len(names) < len(self.expected):
            names[-1] = f"x{len(names)}"  # there is no target
        return names, lines

    def _check_columns(self) -> None:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"{self.files[0]}: there are {self.names.count(twice[0])} columns named {twice[0]!r}")
        for file in self.files[1:]:
            names = (
                read_parquet(file, lambda parquet: parquet.schema_arrow.names)
                if self.is_parquet
                else self._header(file)[0]
            )
            check_same_columns(names, self.names, file, self.files[0])

    def read(self) -> pa.Table:
        """Read the whole table, real numbers as float32; `keep` then caches what had to be parsed."""
        self._check_columns()
        if self.is_parquet:
            parts = [tidy(read_parquet(file, lambda parquet: parquet.read()), self.text) for file in self.files]
            if not sum(map(len, parts)):
                raise DataError(f"{self.files[0]}: there is no row of data")
            return join(parts).combine_chunks()
        cached = self.cache.read(self.cached, lambda file: pq.read_table(file, memory_map=True))
        if cached is not None:
            return cached
        parts = self._parse(self.text)
        mixed = mixed_columns(parts)
        if mixed:  # keep them as written in all files
            parts = self._parse([*self.text, *mixed])
        self._parsed = join(parts)
        return self._parsed

    def _parse(self, text: Sequence[str]) -> list[pa.Table]:
        return [parse(file, self.dialect_of(file), *self._header(file), text) for file in self.files]

    def keep(self) -> None:
        """Store the table that `read` parsed, so that the next run need not."""
        if self._parsed is not None:
            table = self._parsed
            self.cache.keep(self.cached, lambda file: self._write(file, [table]))
            self._parsed = None

    def as_parquet(self) -> list[Path]:
        """Return Parquet files of the table, made in bounded memory and kept in the cache if it is not Parquet already.

        Raises:
            DataError: If a column that begins with numbers has text in it.
        """
        self._check_columns()
        if self.is_parquet:
            return self.files
        if self.cache.read(self.cached, pq.read_metadata) is None:
            size = f"{self.size / 1e6:,.0f} MB"
            logger.info("%s: %s are converted to Parquet once, in %s", self.files[0], size, self.cache.folder)
            self._convert()
        return [self.cached]

    def _convert(self) -> None:
        inferred = column_types(self.files[0], self.dialect, *self._header(self.files[0]))
        types = {name: inferred.get(name, pa.float32()) for name in self.names} | dict.fromkeys(self.text, pa.string())
        while True:
            try:
                parts = (
                    table.select(self.names)
                    for file in self.files
                    for table in batches(file, self.dialect_of(file), *self._header(file), types)
                )
                return self.cache.write(self.cached, partial(self._write, tables=parts))
            except OSError as error:
                problem, remedy = (
                    f"the parsed table cannot be kept there ({error})",
                    "make room, or give another folder",
                )
                raise DataError(problem, remedy, "cache_dir", str(self.cache.folder)) from error
            except WrongTypeError as error:
                # The beginning did not tell the type of a column: it is widened, and all begins anew.
                name = error.column
                if pa.types.is_floating(types[name]) and name in inferred:
                    raise self._text_among_numbers(name) from error
                types[name] = pa.float32() if pa.types.is_integer(types[name]) else pa.string()

    def _text_among_numbers(self, name: str) -> DataError:
        known = {*MISSING, *self.given.missing_values}
        for file in self.files:
            at = self._header(file)[0].index(name)
            for line, cells in rows(file, self.dialect_of(file)):
                if cells[at] not in known and not is_number(cells[at], str(self.dialect.decimal)):
                    return not_a_number(f"{file}, line {line}: '{cells[at]}' in column {name}", name)
        return DataError(f"{self.files[0]}: column {name} has text among its numbers")

    def _write(self, path: Path, tables: Iterable[pa.Table]) -> None:
        tables = iter(tables)
        first = next(tables, None)
        if first is None:
            raise DataError(f"{self.files[0]}: there is a header, but no row of data.")
        text = [field.name for field in first.schema if pa.types.is_string(field.type)]
        options = {"compression": "none", "use_dictionary": text, "write_statistics": False}
        with pq.ParquetWriter(path, first.schema, **options) as writer:
            for table in itertools.chain([first], tables):
                writer.write_table(table, row_group_size=max(1, BLOCK // (8 * max(1, table.num_columns))))

    @property
    def detected_encoding(self) -> str | None:
        """The encoding that was detected, where it was neither given nor UTF-8."""
        return None if self.is_parquet else self.encodings.detected

    def places(self, numbers: Sequence[int]) -> list[str]:
        """Return where rows, counted from 0 through all files, stand: `line 7`, after the file if there are several.

        Where lines cannot be counted in a moment, as in Parquet or a large file, it is `row 6`, which counts from 1.
        """
        if self.is_parquet or self.is_packed or self.size > COUNTED:
            return [f"row {number + 1}" for number in numbers]
        wanted, found, row = set(numbers), {}, 0
        for file in self.files:
            start = f"{file.name}, " if len(self.files) > 1 else ""
            for line, _ in self._rows(file):
                if row in wanted:
                    found[row] = f"{start}line {line}"
                row += 1
        return [found[number] for number in numbers]

    def _rows(self, file: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the values of each row of a file."""
        return rows(file, self.dialect)

    def where(self, row: int, column: str) -> str:
        """Return the place of a value in the files, with its text; rows count from 0 through all files."""
        if self.is_parquet:
            for file in self.files:
                size = read_parquet(file, lambda parquet: parquet.metadata.num_rows)
                if row < size:
                    return f"{file}, row {row + 1}, column {column}"
                row -= size
        for file in self.files:
            at = self._header(file)[0].index(column)
            for line, cells in rows(file, self.dialect_of(file)):
                if row == 0:
                    return f"{file}, line {line}: '{cells[at]}' in column {column}"
                row -= 1
        raise IndexError(row)


@dataclass
class Part:
    """A table that was read, or some of its rows.

    Args:
        files: The files of the table.
        table: The rows.
        rows: Their numbers in the files, shape `(n,)`; None for all.
    """

    files: TableFiles
    table: pa.Table
    rows: NDArray[np.int64] | None = None

    def where(self, row: int, column: str) -> str:
        """Return the place of a value in the files."""
        return self.files.where(row if self.rows is None else int(self.rows[row]), column)

    def places(self, rows: Sequence[int]) -> list[str]:
        """Return the places of rows in the files, as `TableFiles.places` does."""
        return self.files.places([row if self.rows is None else int(self.rows[row]) for row in rows])

    def column(self, name: str, option: str) -> pa.ChunkedArray:
        """Return a column that an option names."""
        check_names([name], self.table.column_names, option=option, value=name)
        return self.table[name]


def _digest(file: Path) -> str:
    """Hash a file's content, on all cores: SHA-256 of the SHA-256 of its blocks."""

    def one(start: int) -> bytes:
        with file.open("rb") as stream:
            stream.seek(start)
            return hashlib.sha256(stream.read(BLOCK // 2)).digest()

    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(pool.map(one, range(0, file.stat().st_size, BLOCK // 2)))).hexdigest()
