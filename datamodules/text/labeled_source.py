"""Everything a `TextCSVDataModule` reads: texts with their labels, in tables or in lines."""

import logging
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.base import Stage
from datamodules.errors import DataError, check_names, listed
from datamodules.sampler import Inputs, Samples, Split
from datamodules.tables.dialect import MISSING
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.labeled import LabeledSource
from datamodules.tables.values import MAX_CLASSES, count_distinct, is_missing, type_name
from datamodules.text.labeled_lines import LABEL_NAMES, TEXT_NAMES, LineFiles, has_table_name
from datamodules.text.ragged import RaggedTokens

if TYPE_CHECKING:
    from datamodules.text.labeled import TextCSVDataModule

logger = logging.getLogger(__name__)

CHUNK = 4096  # texts that are Python strings at a time


class TextSource(LabeledSource):
    """Everything read from the files of a `TextCSVDataModule`."""

    data: "TextCSVDataModule"
    truncated = 0  # how many texts of the `splits` were too long

    @cached_property
    def source_column(self) -> str:
        """The name of the column of texts."""
        name = self.data.text_column
        if name is None:
            return find_texts(self.whole.table, self.data.path, self.data.label_column)
        self._check_column(name, "text_column")
        return name

    @cached_property
    def target_column(self) -> str:
        """The name of the column to predict."""
        name, text = self.data.label_column, self.source_column
        if name is None:
            return find_labels(self.whole.table, self.data.path, text)
        self._check_column(name, "label_column")
        if name == text:
            remedy = "name the column of their labels, or another `text_column`"
            raise DataError("these are the texts", remedy, "label_column", name)
        return name

    def _check_column(self, name: str, option: str) -> None:
        names, path = self.whole.table.column_names, self.data.path
        if name in self.data.loaded_columns:
            check_names([name], names, f"{path}: this model was trained on the column {name}; name yours by `{option}`")
        check_names([name], names, path, option, name)

    @cached_property
    def whole(self) -> Part:
        """All rows, with or without a label."""
        try:
            return super().whole
        except DataError as error:
            if isinstance(self.files, LineFiles) or has_table_name(self.files.files[0]):
                raise
            why = "it is read as a table, as its lines are neither label<TAB>text nor LABEL:sub text"
            raise DataError(f"{error.problem} ({why})", error.remedy, error.option, error.value) from error

    def labeled(self, files: TableFiles) -> Part:
        """Read the rows that have both a text and a label."""
        table = self.whole.table if files is self.files else files.read()
        names, file = (self.source_column, self.target_column), files.files[0]
        check_names(names, table.column_names, str(file))
        table = self._with_missing_labels(table, files)
        missing = np.stack([is_missing(self.texts(table, file)), is_missing(table[self.target_column])])
        for name, of in zip(names, missing, strict=True):
            if of.all():
                raise DataError(f"{file}: no row has anything in the column {name!r}")
        dropped = missing.any(0)
        if dropped.all():
            raise DataError(f"{file}: no row has both {' and '.join(names)}")
        if dropped.any():
            row = int(dropped.argmax())
            place = files.where(row, names[0 if missing[0, row] else 1])
            what = f"{int(dropped.sum()):,} rows without {names[0]} or {names[1]} are dropped"
            logger.warning(f"{file}: {what}; the first is {place}")
            return Part(files, table.filter(pa.array(~dropped)), np.flatnonzero(~dropped))
        return Part(files, table)

    def _with_missing_labels(self, table: pa.Table, files: TableFiles) -> pa.Table:
        """Replace the usual signs of missing values in labels that are text, where the reader keeps them."""
        at = table.column_names.index(self.target_column)
        if files.is_parquet or isinstance(files, LineFiles) or not pa.types.is_string(table[at].type):
            return table
        signs = pa.array([*MISSING, *files.given.missing_values])
        return table.set_column(at, table.field(at), pc.if_else(pc.is_in(table[at], signs), None, table[at]))

    def texts(self, table: pa.Table, file: object) -> pa.ChunkedArray:
        """Return the column of texts; `file` is for messages."""
        texts = table[self.source_column]
        if pa.types.is_string(texts.type) or texts.null_count == len(texts):
            return texts
        problem = f"{file}: column {self.source_column} holds no text ({type_name(texts.type)})"
        raise DataError(problem, "give another `text_column`")

    @cached_property
    def splits(self) -> dict[Stage, Split]:
        """The training, validation and test splits, encoded by a tokenizer that is fitted on the first."""
        given = self.data.load()
        splits: dict[Stage, Split] = self.data.divide(given)
        table = self.parts["train"].table
        mask = np.zeros(len(table), bool)
        mask[splits["train"].indices.numpy()] = True
        self.data.fit(table[self.source_column].filter(pa.array(mask)))
        for stage, part in self.parts.items():
            given[stage].x, truncated = self._encode(part.table)
            self.truncated += truncated
            part.files.keep()
        return splits

    def _encode(self, table: pa.Table) -> tuple[RaggedTokens, int]:
        encoded = self.data.tokenizer.encode(strings(table[self.source_column]))
        return RaggedTokens.truncate(*encoded, self.data.max_length)

    @cached_property
    def everything(self) -> Samples:
        """All texts that have a label."""
        logger.info(f"{self.data.path} is not what the model was trained on: all of its texts are used")
        part = self.labeled(self.files)  # val_path and test_path, of another encoding perhaps, are not read
        return Samples(self._encode_new(part.table), self.targets(part))

    @cached_property
    def unlabeled(self) -> Inputs:
        """All texts, without their labels; an empty one is one unknown token."""
        texts = self.texts(self.whole.table, self.files.files[0])
        if is_missing(texts).all():
            raise DataError(f"{self.files.files[0]}: no row has anything in the column {self.source_column!r}")
        if isinstance(self.files, LineFiles) and self.files.form == "plain":
            logger.info(f"{self.data.path}: each of its {len(texts):,} lines is read as a text")
        return Inputs(self._encode_new(self.whole.table))

    def _encode_new(self, table: pa.Table) -> RaggedTokens:
        """Encode texts that the model was not trained on."""
        x, truncated = self._encode(table)
        for line in oddities([x], truncated, self.data.max_length):
            logger.warning(f"{self.data.path}: {line}")
        return x


def find_texts(table: pa.Table, source: str, label: str | None = None) -> str:
    """Find the column of texts: by its name, or as the one whose texts are at least twice as long as any other's.

    The column `label` is chosen only if no other can be the texts; `source` is the file, for messages.

    Raises:
        DataError: If there is none, or there are several candidates.
    """
    found: list[str] = [field.name for field in table.schema if pa.types.is_string(field.type)]
    if not found:
        raise DataError(f"{source}: no column holds text; it has {listed(table.column_names, 12)}")
    if named := _named(found, TEXT_NAMES):
        return named[0]
    lengths: dict[str, float] = {name: pc.mean(pc.utf8_length(table[name])).as_py() or 0 for name in found}
    found = [name for name, length in lengths.items() if 2 * length > max(lengths.values())]
    found = [name for name in found if name != label] or found
    if len(found) > 1:
        raise DataError(f"{source}: {_either(found)} may be the texts", "name the column by `text_column`")
    return found[0]


def find_labels(table: pa.Table, source: str, text: str) -> str:
    """Find the column of labels: by its name, as the only one besides the texts, or as the only one of few values.

    Raises:
        DataError: If there is none, or there are several candidates.
    """
    others: list[str] = [name for name in table.column_names if name != text]
    if not others:
        raise DataError(f"{source}: there is no column of labels beside {text!r}")
    few = max(MAX_CLASSES, len(table) // 20)
    found = _named(others, LABEL_NAMES)[:1] or others
    if len(found) > 1:
        found = [name for name in others if 1 < (count_distinct(table[name]) or 0) <= few]
    if len(found) != 1:
        which = f"{_either(found)} may be" if found else f"{_either(others)}: none looks like"
        raise DataError(f"{source}: {which} the labels", "name the column by `label_column`")
    return found[0]


def _named(found: list[str], known: tuple[str, ...]) -> list[str]:
    return [name for likely in known for name in found if name.lower() == likely]


def _either(names: list[str]) -> str:
    return listed(names, 8).replace(", ", " or ")


def oddities(texts: list[RaggedTokens], truncated: int, max_length: int) -> list[str]:
    """Count the texts that were truncated to `max_length`, and those without any known token, in a line each."""
    size, unknown = sum(map(len, texts)), sum(int((x.known == 0).sum()) for x in texts)
    lines = [f"{truncated:,} of {size:,} texts have more than max_length={max_length} tokens, and are truncated"]
    return lines * bool(truncated) + [f"{unknown:,} of {size:,} texts have no known token"] * bool(unknown)


def strings(texts: pa.ChunkedArray) -> Iterator[Any]:
    """Yield the texts of a column, of which only some are Python strings at a time; a missing one is empty."""
    for start in range(0, len(texts), CHUNK):
        yield from (text or "" for text in texts.slice(start, CHUNK).to_pylist())
