"""Everything a `TextCSVDataModule` reads: texts with their labels, in tables or in lines."""

import logging
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.base import Stage
from datamodules.errors import DataError, check_names
from datamodules.sampler import Inputs, Samples, Split
from datamodules.tables.dialect import MISSING
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.labeled import LabeledSource
from datamodules.tables.values import is_missing, type_name
from datamodules.text.columns import find_labels, find_texts
from datamodules.text.labeled_lines import LineFiles, has_table_name
from datamodules.text.ragged import RaggedTokens

if TYPE_CHECKING:
    from datamodules.text.labeled import TextCSVDataModule

logger = logging.getLogger(__name__)

CHUNK = 4096  # texts that are Python strings at a time


class TextSource(LabeledSource):
    """Everything read from the files of a `TextCSVDataModule`.

    Args:
        data: The data module.
        files: The files at its path.
    """

    data: "TextCSVDataModule"

    def __init__(self, data: "TextCSVDataModule", files: TableFiles) -> None:
        super().__init__(data, files)
        self.truncated: dict[Stage, int] = {}  # how many texts were too long

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
            given[stage].x, self.truncated[stage] = self._encode(part.table)
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


def oddities(texts: list[RaggedTokens], truncated: int, max_length: int) -> list[str]:
    """Count the texts that were truncated, and those without any known token, in a line each.

    Args:
        texts: The texts.
        truncated: How many of them were truncated.
        max_length: To how many tokens.
    """
    size, unknown = sum(map(len, texts)), sum(int((x.known == 0).sum()) for x in texts)
    lines = [f"{truncated:,} of {size:,} texts have more than max_length={max_length} tokens, and are truncated"]
    return lines * bool(truncated) + [f"{unknown:,} of {size:,} texts have no known token"] * bool(unknown)


def strings(texts: pa.ChunkedArray) -> Iterator[Any]:
    """Yield the texts of a column, of which only some are Python strings at a time; a missing one is empty."""
    for start in range(0, len(texts), CHUNK):
        for text in texts.slice(start, CHUNK).to_pylist():
            yield text or ""
