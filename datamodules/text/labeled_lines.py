"""Labeled texts, one a line: read as tables, but quotes have no meaning."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa

from datamodules.errors import DataError
from datamodules.tables.dialect import Dialect, beginning
from datamodules.tables.encodings import decoded
from datamodules.tables.files import TableFiles
from datamodules.tables.values import is_number_text

# The form of a line: `LABEL:sub text`, `label<TAB>text`, `text<TAB>label`, two columns separated by a tab with their
# names in the first line, or a text without a label.
Form = Literal["fine", "first", "last", "headed", "plain"]

# Usual names of the columns in a table, the likeliest first.
TEXT_NAMES = ("text", "sentence", "review", "content", "question", "message", "comment", "document", "body", "tweet")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment")
TEXT, LABEL, FINE_LABEL = "text", "label", "fine_label"  # the columns of lines

FINE = re.compile(r"([^\W\d_]\w*):(\w\S*)(?:\s+(.*))?")
MOST = 0.9  # share of the lines that must have a form; the others are mistakes then
FEW = 20  # too few lines to tell labels by their repetition
SHOWN = 60  # characters of a text in a message


def open_texts(
    path: str,
    dialect: Dialect,
    cache_dir: str,
    option: str = "path",
    text: str | None = None,
    label: str | None = None,
    trained: Sequence[str] | None = None,
) -> TableFiles:
    """Open a table of texts, or texts in lines, as detected from the content.

    Args:
        path: A file, a folder or a glob.
        dialect: How it is written. With a delimiter, a quote or a header it is a table.
        cache_dir: Folder of parsed tables.
        option: The argument that gave the path, for messages.
        text: The column of texts, if it is known.
        label: The column of labels, if it is known; lines without column names get both names.
        trained: The columns of the table that a model was trained on. If given, labels may be missing.

    Raises:
        DataError: If there is nothing that can be read.
    """
    # A table of one column has texts without labels.
    expected = trained if trained is None or trained[0] == "x1" else [str(text), str(label)]
    table = TableFiles(path, dialect, cache_dir, option, expected, () if text is None else (text,))
    if table.is_parquet or dialect.delimiter or dialect.quote or dialect.header:
        return table
    known = [name for name in (text, label) if name is not None]
    form = form_of(table.files[0], dialect.encoding, known, may_be_plain=trained is not None)
    names = (TEXT, LABEL) if text is None or label is None else (text, label)
    return table if form is None else LineFiles(path, dialect, cache_dir, option, form, *names)


def form_of(
    file: Path, encoding: str | None = None, columns: Sequence[str] = (), may_be_plain: bool = False
) -> Form | None:
    """Detect the form of the lines from the beginning of a file; None if it is a table.

    Args:
        file: The file.
        encoding: Python's name of its encoding, if that is given.
        columns: Known columns, by which a header is recognized besides the usual names.
        may_be_plain: Whether a file without labels, header and the name of a table has a text in each line.
    """
    _, text, is_whole = beginning(file, encoding)
    lines = text.split("\n")
    if not is_whole and len(lines) > 1:
        lines.pop()  # it may be cut off
    lines = [line.rstrip("\r") for line in lines if line.strip()]
    if sum(FINE.fullmatch(line) is not None for line in lines) >= MOST * len(lines):
        return "fine"
    known = {name.lower() for name in (*columns, *TEXT_NAMES, *LABEL_NAMES)}
    is_headed = any(cell.strip("\"' ").lower() in known for cell in re.split("[\t;|,]", lines[0]))
    if is_headed and _is_unquoted(lines):
        return "headed"
    if not is_headed and (side := _side_of_labels(lines)) is not None:
        return side
    return "plain" if may_be_plain and not is_headed and not has_table_name(file) else None


def has_table_name(file: Path) -> bool:
    """Whether the suffix of a file is that of a table."""
    return file.name.lower().removesuffix(".gz").endswith((".csv", ".tsv", ".parquet", ".pq"))


def _is_unquoted(lines: list[str]) -> bool:
    """Whether each line has two values, and a quote, which would hide all lines up to the next one, has no meaning."""
    if any(line.count("\t") != 1 for line in lines):
        return False
    if any(line.count('"') % 2 for line in lines):
        return True
    return not any(re.fullmatch(r'".*"', cell) for line in lines for cell in line.split("\t"))


def _side_of_labels(lines: list[str]) -> Form | None:
    """Return the side of a tab on which the label is, if there is one."""
    tabs = [line.count("\t") for line in lines]
    if sum(map(bool, tabs)) < MOST * len(lines) or min(tabs) == max(tabs) > 1:  # several in every line: a table
        return None
    cells: dict[Form, list[str]] = {"first": [line.partition("\t")[0] for line in lines]}
    cells["last"] = [line.rpartition("\t")[2] for line in lines]
    numbers: list[Form] = [side for side, of in cells.items() if all(map(is_number_text, of))]
    if len(numbers) == 1:
        return numbers[0]
    side = min(cells, key=lambda side: len({cell.strip() for cell in cells[side]} - {""}) or len(lines))
    return side if len(lines) < FEW or len(set(cells[side])) <= len(lines) / 2 else None


class LineFiles(TableFiles):
    """Texts in the lines of one or more files, as a table of labels, fine labels and texts.

    Only the separator of label and text has a meaning. Empty lines are skipped, except those that are empty texts.
    Nothing is cached, as lines are read as fast as their cache would be. The first arguments are those of `TableFiles`.

    Args:
        form: The form of a line.
        text: The name of the column of texts.
        label: The name of the column of labels.
    """

    def __init__(
        self, path: str, dialect: Dialect, cache_dir: str, option: str, form: Form, text: str, label: str
    ) -> None:
        super().__init__(path, dialect, cache_dir, option)
        self.form = form
        self._text, self._label = text, label

    @cached_property
    def dialect(self) -> Dialect:
        """The encoding, detected unless given, and the form in place of a delimiter."""
        first = self.files[0]
        return replace(self.given, encoding=beginning(first, self.encodings.of(first))[0], delimiter=self.form)

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns."""
        if self.form == "headed":
            return self._header(self.files[0])[0]
        if self.form == "plain":
            return [self._text]
        if self.form == "fine":
            return [LABEL if self._label == FINE_LABEL else self._label, FINE_LABEL, self._text]
        return [self._label, self._text]

    def _header(self, file: Path) -> tuple[list[str], int]:
        for number, line in self._lines(file):
            return [cell.strip() for cell in line.partition("\t")[::2]], number
        raise DataError(f"{file}: the file is empty")

    def read(self) -> pa.Table:
        """Read all lines.

        Raises:
            DataError: If a line has another form than the others, or a byte another encoding.
        """
        rows = [cells for file in self.files for _, cells in self._rows(file)]
        columns = ([cells[at] for cells in rows] for at in range(len(self.names)))
        return pa.table({name: pa.array(of, pa.string()) for name, of in zip(self.names, columns, strict=True)})

    def _lines(self, file: Path) -> Iterator[tuple[int, str]]:
        lines = "".join(decoded(file, str(self.dialect_of(file).encoding))).split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip() or (self.form == "plain" and number < len(lines)):
                yield number, line.rstrip("\r")

    def _rows(self, file: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the values of each row of a file."""
        skip = 0
        if self.form == "headed":
            names, skip = self._header(file)
            if names != self.names:
                raise DataError(f"{file}, line {skip}: the columns are {names}, but {self.names} in {self.files[0]}")
        return ((number, self._cells(line, file, number)) for number, line in self._lines(file) if number > skip)

    def _cells(self, line: str, file: Path, number: int) -> list[str]:
        if self.form == "plain":
            return [line]
        if self.form == "fine":
            match = FINE.fullmatch(line)
            if match is None:
                raise DataError(f"{file}, line {number}: '{line[:SHOWN]}' is not a LABEL:sub text, as the others are")
            label, fine, text = match.groups(default="")
            return [label, f"{label}:{fine}", text]
        parts = line.rpartition("\t")[::-1] if self.form == "last" else line.partition("\t")
        if not parts[1]:
            problem = f"{file}, line {number}: there is no tab between label and text in '{line[:SHOWN]}'"
            raise DataError(problem, "put one there")
        return [parts[0], parts[2]]

    def where(self, row: int, column: str) -> str:
        """Return the place of a value, with its beginning, for messages."""
        at = self.names.index(column)
        for file in self.files:
            for number, cells in self._rows(file):
                if row == 0:
                    return f"{file}, line {number}: '{cells[at][:SHOWN]}' in column {column}"
                row -= 1
        raise IndexError(row)
