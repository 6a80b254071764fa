"""Texts of one's own with labels: from a table, or from lines, to batches of token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from datamodules.base import Stage
from datamodules.errors import DataError, check_names, listed
from datamodules.sampler import Inputs, Samples, Split
from datamodules.statistics import moments
from datamodules.tables.dialect import MISSING, Dialect
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.labeled import LabeledDataModule, LabeledSource
from datamodules.tables.values import TaskName, is_missing, type_name
from datamodules.text.columns import find_labels, find_texts
from datamodules.text.labeled_lines import LineFiles, has_table_name, open_texts
from datamodules.text.ragged import RaggedTokens
from datamodules.text.tokenizer import SPECIAL, Tokenizer
from datamodules.user_data import say

TOKENS = {"words": "words", "chars": "characters", "bpe": "byte pairs"}  # what a person calls them
CHUNK = 4096  # texts that are Python strings at a time


@dataclass(frozen=True)
class TextDialect(Dialect):
    """How a table of texts is written."""

    text_can_be_missing = False


class TextSource(LabeledSource):
    """Everything read from the files of a `TextCSVDataModule`."""

    data: "TextCSVDataModule"

    @cached_property
    def source_column(self) -> str:
        """The name of the column of texts."""
        names = self.whole.table.column_names
        if self.data.text_column is not None:
            check_names([self.data.text_column], names, **self.data.said(self.data.text_column, "text_column"))
            return self.data.text_column
        return find_texts(self.whole.table, self.data.path, self.data.label_column)

    @cached_property
    def target_column(self) -> str:
        """The name of the column to predict."""
        names, text = self.whole.table.column_names, self.source_column
        if self.data.label_column is not None:
            check_names([self.data.label_column], names, **self.data.said(self.data.label_column, "label_column"))
            if self.data.label_column == text:
                raise DataError(
                    "these are the texts",
                    "name the column of their labels, or another `text_column`",
                    option="label_column",
                    value=text,
                )
            return self.data.label_column
        return find_labels(self.whole.table, self.data.path, text)

    @cached_property
    def whole(self) -> Part:
        """All rows, whether they have a label or not."""
        try:
            return super().whole
        except DataError as error:
            if isinstance(self.files, LineFiles) or has_table_name(self.files.files[0]):
                raise
            why = "it is read as a table, as its lines are neither label<TAB>text nor LABEL:sub text"
            raise DataError(f"{str(error).rstrip('.')} ({why}).") from error

    def labeled(self, files: TableFiles) -> Part:
        """Read the rows that have both a text and a label."""
        return self.data.labeled(files)

    @cached_property
    def everything(self) -> Samples:
        """All texts that have a label."""
        say(f"{self.data.path} is not what the model was trained on: all of its texts are used")
        part = self.labeled(self.files)  # those for validation and test, of another encoding perhaps, stay unread
        return Samples(self.data.encode_new(part.table), self.targets(part))

    @cached_property
    def unlabeled(self) -> Inputs:
        """All texts; one that is empty is one unknown token."""
        texts = self.data.texts(self.whole.table, self.files.files[0])
        if is_missing(texts).all():
            raise DataError(f"{self.files.files[0]}: no row has anything in the column {self.source_column!r}.")
        if isinstance(self.files, LineFiles) and self.files.form == "plain":
            say(f"{self.data.path}: each of its {len(texts):,} lines is taken for a text")
        return Inputs(self.data.encode_new(self.whole.table))


class TextCSVDataModule(LabeledDataModule):
    """Texts with a label each: in CSV, TSV or Parquet, or in lines `label<TAB>text` or `LABEL:sub text`.

    How they are written is told by their content. In lines no sign has a meaning of its own, and the columns are
    `label`, `text` and, of `LABEL:sub`, `fine_label`. `predict` takes any of these without labels too, and a file
    with a text in each line.

    A batch is token ids, int64, `(B, T)`, with 0 after the end of the shorter texts, and the labels. Batches are of
    texts of similar length. The tokenizer is fitted on the training texts and kept in the checkpoint. Texts and
    their ids, of four bytes a token, stay in memory.

    Args:
        path: A file, a folder or a glob. `predict` predicts all of it; `test` tests all of it if it is not what the
            model was trained on.
        text_column: The column of texts; by its name, or as the one with the longest texts, unless given.
        label_column: The column to predict; by its name, or as the only other one of few values, unless given.
        val_path: Texts of their own for validation.
        test_path: Texts of their own for the test.
        task: `regression`, `binary` or `multiclass`; inferred from the labels unless given.
        tokenizer: What a text is taken apart into: `words` (a Chinese or Japanese character is one), `chars`, `bpe`
            (byte pairs), or a function from a text to its words by its dotted name, as `jieba.lcut`, which is named
            again where a checkpoint is used.
        lowercase: Whether capitals count as small letters.
        vocab_size: The most tokens that are known; of more, those that are seen most often.
        min_count: How often a token must be seen in training to be known. Above 1, training meets unknown ones too.
        max_length: The most tokens of a text; of a longer one, the end is cut off.
        header: Whether the first line of a table has the names of the columns; found out unless given, as the following
            are. TablePreprocessor without names are called x1, x2, ... and y.
        delimiter: What stands between two values of a table.
        quote: What stands around values that contain a delimiter.
        decimal: The decimal sign.
        encoding: Python's name of the encoding; UTF-8, or UTF-16 with a mark, unless given.
        missing_values: What else stands for a missing label of a table, beside the usual signs. Among texts only an
            empty one is missing, as "NA" or "?" may be what someone wrote.
        batch_size: Texts in a training batch.
        kwargs: Options of `UserDataModule` and `DataModule`.

    Raises:
        DataError: If the texts cannot be read or learned from; the message names the file, line or column.
    """

    target_option = "label_column"

    def __init__(
        self,
        path: str = "",
        text_column: str | None = None,
        label_column: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        task: TaskName | None = None,
        tokenizer: str = "words",
        lowercase: bool = True,
        vocab_size: int = 20_000,
        min_count: int = 1,
        max_length: int = 256,
        header: bool | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
        missing_values: Sequence[str] = (),
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, val_path, test_path, task, batch_size=batch_size, **kwargs)
        for name, value in {"min_count": min_count, "max_length": max_length}.items():
            if value < 1:
                raise DataError(f"--data.{name} {value}: give 1 or more.")
        self.text_column, self.label_column = text_column, label_column
        self.max_length = max_length
        self._tokenizing: dict[str, Any] = {
            **{"tokenizer": tokenizer, "lowercase": lowercase, "vocab_size": vocab_size, "min_count": min_count},
            "max_length": max_length,
        }
        self._tokenizer = Tokenizer(tokenizer, lowercase)
        self._trained: list[str] | None = None  # the columns of the table that the tokenizer was fitted on
        self._taken_over: list[str] = []  # names of columns that came with a checkpoint, and nobody gave
        self._dialect = header, delimiter, quote, decimal, encoding, tuple(missing_values)
        self._cut: dict[Stage, int] = {}  # how many texts were too long

    # What the data determine

    @property
    def tokenizer(self) -> Tokenizer:
        """What was fitted on the training texts, or came with a checkpoint."""
        if self._trained is None:
            _ = self.splits
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """How many token ids there are."""
        return self.tokenizer.size

    @property
    def source(self) -> TextSource:
        """Everything read from the files."""
        source: TextSource = super().source  # type: ignore[assignment]
        return source

    def open_source(self) -> TextSource:
        """Open the files at the path."""
        return TextSource(self, self.open_path())

    @property
    def source_column(self) -> str:
        """The name of the column of texts."""
        return self.source.source_column

    def said(self, name: str, option: str) -> dict[str, str]:
        """Return where the name of a column is from: an option, or what a model was trained on."""
        if name in self._taken_over:
            return {"source": f"{self.path}: this model was trained on the column {name}; name yours by `{option}`"}
        return {"source": self.path, "option": option, "value": name}

    # From files to samples

    def open(self, path: str, option: str = "path") -> TableFiles:
        """Find texts, in a table or in lines."""
        text, label = self.text_column, self.label_column
        if self._trained is None:
            # Those to train on say what the columns of the others are called.
            text, label = (text, None) if option == "path" else (self.source_column, self.target_column)
        dialect = TextDialect(*self._dialect)
        return open_texts(path, dialect, self.cache_dir, option, text, label, self._trained)

    def labeled(self, files: TableFiles) -> Part:
        """Read the rows that have both a text and a label."""
        table = self.source.whole.table if files is self.source.files else files.read()
        names, file = (self.source_column, self.target_column), files.files[0]
        check_names(names, table.column_names, str(file))
        table = self._with_missing_labels(table, files)
        missing = np.stack([is_missing(self.texts(table, file)), is_missing(table[self.target_column])])
        for name, of in zip(names, missing, strict=True):
            if of.all():
                raise DataError(f"{file}: no row has anything in the column {name!r}.")
        left_out = missing.any(0)
        if left_out.all():
            raise DataError(f"{file}: no row has both {' and '.join(names)}.")
        if left_out.any():
            row = int(left_out.argmax())
            place = files.where(row, names[0 if missing[0, row] else 1])
            what = f"{int(left_out.sum()):,} rows without {names[0]} or {names[1]} are left out"
            say(f"{file}: {what}; the first is {place}")
            return Part(files, table.filter(pa.array(~left_out)), np.flatnonzero(~left_out))
        return Part(files, table)

    def _with_missing_labels(self, table: pa.Table, files: TableFiles) -> pa.Table:
        """Take the usual signs of missing values from labels that are text, where they were left as they are."""
        at = table.column_names.index(self.target_column)
        if files.is_parquet or isinstance(files, LineFiles) or not pa.types.is_string(table[at].type):
            return table
        signs = pa.array([*MISSING, *files.given.missing_values])
        return table.set_column(at, table.field(at), pc.if_else(pc.is_in(table[at], signs), None, table[at]))

    def texts(self, table: pa.Table, file: object) -> pa.ChunkedArray:
        """Return the column of texts."""
        texts = table[self.source_column]
        if pa.types.is_string(texts.type) or texts.null_count == len(texts):
            return texts
        raise DataError(
            f"{file}: column {self.source_column} holds no text ({type_name(texts.type)}); give another "
            "--data.text_column."
        )

    def divide(self, given: dict[Stage, Samples]) -> dict[Stage, Split]:
        """Hold out, fit the tokenizer on what is left to train on, and encode everything by it."""
        splits = super().divide(given)
        if self._trained is None:
            table, rows = self.source.parts["train"].table, splits["train"].indices
            mask = np.zeros(len(table), bool)
            mask[rows.numpy()] = True
            self._fit(table.filter(pa.array(mask)))
        for stage, part in self.source.parts.items():
            given[stage].x, self._cut[stage] = self._encode(part.table)
            part.files.keep()
        return splits

    def _fit(self, table: pa.Table) -> None:
        settings = self._tokenizing
        self._tokenizer.fit(strings(table[self.source_column]), settings["vocab_size"], settings["min_count"])
        if self._tokenizer.size == len(SPECIAL):
            raise DataError(
                f"--data.min_count {settings['min_count']}: in {len(table):,} training texts no token is seen so "
                "often; give less."
            )
        self._trained = self.source.files.names
        self._trained_on = self.fingerprint

    def _encode(self, table: pa.Table) -> tuple[RaggedTokens, int]:
        return RaggedTokens.cut(*self.tokenizer.encode(strings(table[self.source_column])), self.max_length)

    def _lengths(self, split: Split) -> Tensor | None:
        lengths: Tensor = split.samples.x.lengths[split.indices]
        return lengths

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of a regression's target, `()`; nothing for classes."""
        if self.task != "regression":
            return {}
        samples, indices = self.splits["train"]
        mean, std = moments(samples.y[indices])
        return {"target_mean": mean, "target_std": std}

    def setup(self, stage: str) -> None:
        """Read and divide the texts, and say before training what is learned from what."""
        _ = self.source.whole  # before anything else looks at the files: this says best what is wrong with them
        super().setup(stage)
        if stage == "fit":
            _ = self.splits
            say(self.describe())

    def describe(self) -> str:
        """Say what is predicted from what, what is known of its tokens, and what is not, in a line each."""
        what = "a number" if self.class_names is None else f"one of {listed(self.class_names, 8)}"
        how = f"{self.task}; --data.task overrules" if self.given_task is None else self.task
        tokens = TOKENS.get(self._tokenizing["tokenizer"], "words")
        samples, rows = self.splits["train"]
        known = f"{self.vocab_size - len(SPECIAL):,} {tokens} are known from {len(rows):,} training texts"
        held_out: Stage = "val" if "val" in self.splits else "test"
        if held_out in self.splits:
            x, others = self.splits[held_out].samples.x, self.splits[held_out].indices
            share = 1 - x.known[others].sum() / x.lengths[others].sum()
            where = "validation" if held_out == "val" else "the test"
            known += f"; {share:.1%} of the {tokens} of {where} are not among them"
        lines = [f"{self.target_column} is predicted as {what} from {self.source_column} ({how})", known]
        parts = {id(split.samples): split.samples.x for split in self.splits.values()}
        size = sum(map(len, parts.values()))
        unknown = sum(int((x.known == 0).sum()) for x in parts.values())
        lines += self._oddities(size, sum(self._cut.values()), unknown)
        if self.class_names is not None:
            seen = samples.y[rows].unique().tolist()
            unseen = [name for index, name in enumerate(self.class_names) if index not in seen]
            if unseen:
                lines.append(f"no text of {listed(unseen, 8)} is left to train on; there are too few of them")
        return "\n".join(lines)

    def _oddities(self, size: int, cut: int, unknown: int) -> list[str]:
        limit = f"--data.max_length {self.max_length}"
        lines = [f"{cut:,} of {size:,} texts have more than {limit} tokens, and are cut there"] * bool(cut)
        return lines + [f"{unknown:,} of {size:,} texts have nothing in them that is known"] * bool(unknown)

    # What is not divided: texts to predict, or to test a trained model on

    def encode_new(self, table: pa.Table) -> RaggedTokens:
        """Encode texts that the model was not trained on."""
        x, cut = self._encode(table)
        for line in self._oddities(len(x), cut, int((x.known == 0).sum())):
            say(f"{self.path}: {line}")
        return x

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """Every predicted text, in their order."""
        return {"text": strings(self.source.whole.table[self.source_column])}

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # a text, or what can be made a tensor of
        """Turn one text into what a batch holds of it.

        Args:
            raw: A text, or token ids.

        Returns:
            Token ids, shape `(T,)`, int64; at most `max_length` of a text, and at least one.

        Raises:
            DataError: If it is neither, or an id is none of the vocabulary's.
        """
        if isinstance(raw, str):
            return RaggedTokens.cut(*self.tokenizer.encode([raw]), self.max_length)[0].ids.long()
        try:
            ids = torch.as_tensor(raw)
        except (TypeError, ValueError, RuntimeError):
            ids = torch.empty(0)
        if ids.ndim != 1 or ids.is_floating_point() or not len(ids):
            raise DataError(f"{type(self).__name__}: an input is a text, or the ids of its tokens.")
        if not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size:
            raise DataError(f"{type(self).__name__}: token ids are from 0 to {self.vocab_size - 1}.")
        return ids.long()

    # What a checkpoint keeps

    def resumed_settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was interrupted: here also the columns."""
        columns = {"text_column": self.source_column, "label_column": self.target_column}
        return {**super().resumed_settings(), **columns}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the position in the epoch: all that was fitted, as primitives."""
        return {
            **super().state_dict(),
            "vocabulary": self.tokenizer.state,
            "tokenizing": self._tokenizing,
            "task": self.task,
            "text_column": self.source_column,
            "label_column": self.target_column,
            "columns": self._trained,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was fitted, before anything is inferred from these texts.

        Raises:
            DataError: As that of the base; or if texts are to be taken apart in another way than those trained on.
        """
        for name, trained in state_dict["tokenizing"].items():
            if self._tokenizing[name] != trained:
                raise DataError(
                    f"--data.{name} {self._tokenizing[name]}: this model was trained with {trained}, and its texts are "
                    "taken apart in this way; give the same, or train anew without --ckpt_path."
                )
        if self._trained is None or self._tokenizer.state != state_dict["vocabulary"]:
            self._source = None
            settings = state_dict["tokenizing"]
            self._tokenizer = Tokenizer(settings["tokenizer"], settings["lowercase"], state_dict["vocabulary"])
            self._trained = state_dict["columns"]
        for name in ("text_column", "label_column"):
            if getattr(self, name) in (None, state_dict[name]):
                setattr(self, name, state_dict[name])
                self._taken_over.append(state_dict[name])
        self.class_names, self.task = state_dict["class_names"], state_dict["task"]
        super().load_state_dict(state_dict)


def strings(texts: pa.ChunkedArray) -> Iterator[str]:
    """Go through a column of texts, without making Python strings of all of them at once; a missing one is empty."""
    for start in range(0, len(texts), CHUNK):
        for text in texts.slice(start, CHUNK).to_pylist():
            yield text or ""
