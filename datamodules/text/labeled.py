"""A user's texts with labels: from a table, or from lines, to batches of token ids."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import pyarrow as pa
import torch
from torch import Tensor

from datamodules.base import Stage
from datamodules.errors import DataError, listed
from datamodules.sampler import Split
from datamodules.statistics import moments
from datamodules.tables.dialect import Dialect
from datamodules.tables.files import TableFiles
from datamodules.tables.labeled import LabeledDataModule
from datamodules.text.labeled_lines import open_texts
from datamodules.text.labeled_source import TextSource, oddities, strings
from datamodules.text.ragged import RaggedTokens
from datamodules.text.subwords import subword_hashes
from datamodules.text.tokenizer import KINDS, SPECIAL, Tokenizer

logger = logging.getLogger(__name__)

TOKENS = {"words": "words", "chars": "characters", "bpe": "byte pairs"}  # what tokens are called in messages


@dataclass(frozen=True)
class TextDialect(Dialect):
    """How a table of texts is written."""

    text_can_be_missing = False


class TextCSVDataModule(LabeledDataModule):
    """Texts with a label each: in CSV, TSV or Parquet, or in lines `label<TAB>text` or `LABEL:sub text`.

    The form is detected from the content. In lines quotes have no meaning, and the columns are `label`, `text` and, of
    `LABEL:sub`, `fine_label`. `predict` reads any of these without labels too, and a file with a text in each line.
    The signs of missing values are those of labels; a text is missing only if it is empty, as it may well be "NA".

    A batch is token ids, int64, `(B, T)`, with 0 as padding, and the labels. Batches are of texts of similar length.
    The tokenizer is fitted on the training texts and kept in the checkpoint. Texts and their ids, of four bytes a
    token, stay in memory.

    Args:
        path: A file, a folder or a glob. `predict` predicts all of it; `test` tests all of it if the model was not
            trained on it.
        text_column: The column of texts; by its name, or as the one with the longest texts, unless given.
        label_column: The column to predict; by its name, or as the only other one of few values, unless given.
        tokenizer: What a token is: `words` (a Chinese or Japanese character is one), `chars`, `bpe` (byte pairs), or
            the dotted name of a function from a text to its words, as `jieba.lcut`, which must be named again with a
            checkpoint.
        lowercase: Whether texts are lowercased.
        vocab_size: Maximum size of the vocabulary, which keeps the most frequent tokens.
        min_count: How often a token must occur in training to be in the vocabulary. Above 1, there are unknown tokens
            in training too.
        max_length: Maximum number of tokens of a text; longer ones are truncated at the end.
        kwargs: Options of `LabeledDataModule`, `UserDataModule` and `DataModule`.

    Raises:
        DataError: If the texts cannot be read or learned from; the message names the file, line or column.
    """

    target_option = "label_column"
    source: TextSource

    def __init__(
        self,
        path: str = "",
        text_column: str | None = None,
        label_column: str | None = None,
        tokenizer: str = "words",
        lowercase: bool = True,
        vocab_size: int = 20_000,
        min_count: int = 1,
        max_length: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, **kwargs)
        for name, value in {"min_count": min_count, "max_length": max_length}.items():
            if value < 1:
                raise DataError("give 1 or more", option=name, value=value)
        self.text_column, self.label_column = text_column, label_column
        self.max_length = max_length
        settings = {"tokenizer": tokenizer, "lowercase": lowercase, "vocab_size": vocab_size, "min_count": min_count}
        self._tokenizing: dict[str, Any] = {**settings, "max_length": max_length}
        self._tokenizer = Tokenizer(tokenizer, lowercase)
        self._trained: list[str] | None = None  # the columns of the table that the tokenizer was fitted on
        self.loaded_columns: set[str] = set()  # names that were not given, but came with a checkpoint

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, fitted on the training texts or loaded from a checkpoint."""
        if self._trained is None:
            _ = self.splits
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.tokenizer.size

    @property
    def source_column(self) -> str:
        """The name of the column of texts."""
        return self.source.source_column

    def open(self, path: str, option: str = "path") -> TableFiles:
        """Find texts, in a table or in lines; `option` names the argument that gave the path, for messages."""
        text, label = self.text_column, self.label_column
        if self._trained is None:  # other files have the columns of those to train on
            text, label = (text, None) if option == "path" else (self.source_column, self.target_column)
        return open_texts(path, TextDialect(*self.dialect), self.cache_dir, option, text, label, self._trained)

    def open_source(self) -> TextSource:
        """Open the files at the path."""
        return TextSource(self, self.open_path())

    def fit(self, texts: pa.ChunkedArray) -> None:
        """Fit the tokenizer on training texts, unless it was loaded from a checkpoint."""
        if self._trained is not None:
            return
        vocab_size, min_count = self._tokenizing["vocab_size"], self._tokenizing["min_count"]
        self._tokenizer.fit(strings(texts), vocab_size, min_count)
        if self._tokenizer.size == len(SPECIAL):
            problem = f"no token occurs so often in {len(texts):,} training texts"
            raise DataError(problem, "give less", "min_count", min_count)
        self._trained = self.source.files.names
        self._trained_on = self.fingerprint

    def _lengths(self, split: Split) -> Tensor | None:
        lengths: Tensor = split.samples.x.lengths[split.indices]
        return lengths

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Hashes of the tokens' `subwords`, `(vocab_size, n)`; mean and standard deviation of a regression's target."""
        found = {"subwords": subword_hashes(self.tokenizer.tokens)}
        if self.task != "regression":
            return found
        samples, indices = self.splits["train"]
        mean, std = moments(samples.y[indices])
        return {**found, "target_mean": mean, "target_std": std}

    def setup(self, stage: str) -> None:
        """Read and divide the texts; before training, log what is predicted from what."""
        _ = self.source.whole  # its errors explain best what is wrong with the files
        super().setup(stage)
        if stage == "fit":
            logger.info(self.describe())

    def describe(self) -> str:
        """Return a line each about the task, the vocabulary, and texts or classes that are not learned well."""
        what = "a number" if self.class_names is None else f"one of {listed(self.class_names, 8)}"
        how = f"{self.task}, inferred" if self.given_task is None else self.task
        tokens = TOKENS.get(self._tokenizing["tokenizer"], "words")
        samples, rows = self.splits["train"]
        vocabulary = f"vocabulary: {self.vocab_size - len(SPECIAL):,} {tokens} of {len(rows):,} training texts"
        held_out: Stage = "val" if "val" in self.splits else "test"
        if held_out in self.splits:
            x, others = self.splits[held_out].samples.x, self.splits[held_out].indices
            share = 1 - x.known[others].sum() / x.lengths[others].sum()
            where = "validation" if held_out == "val" else "test"
            vocabulary += f"; {share:.1%} of the {tokens} of the {where} texts are out of it"
        lines = [f"{self.target_column} is predicted as {what} from {self.source_column} ({how})", vocabulary]
        parts = {id(split.samples): split.samples.x for split in self.splits.values()}
        lines += oddities([*parts.values()], self.source.truncated, self.max_length)
        if self.class_names is not None:
            seen = samples.y[rows].unique().tolist()
            unseen = [name for index, name in enumerate(self.class_names) if index not in seen]
            if unseen:
                lines.append(f"no text of {listed(unseen, 8)} is left to train on; there are too few of them")
        return "\n".join(lines)

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """Return every predicted text, in their order."""
        return {"text": strings(self.source.whole.table[self.source_column])}

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # a text, or what can be made a tensor of
        """Return the ids of one text, or these ids, as in a batch: `(T,)`, int64; of a text, 1 to `max_length`.

        Raises:
            DataError: If it is neither, or an id is out of range.
        """
        if isinstance(raw, str):
            return RaggedTokens.truncate(*self.tokenizer.encode([raw]), self.max_length)[0].ids.long()
        try:
            ids = torch.as_tensor(raw)
        except (TypeError, ValueError, RuntimeError):
            ids = torch.empty(0)
        if ids.ndim != 1 or ids.is_floating_point() or not len(ids):
            raise DataError(f"{type(self).__name__}: an input is a text, or the ids of its tokens")
        if not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size:
            raise DataError(f"{type(self).__name__}: token ids are from 0 to {self.vocab_size - 1}")
        return ids.long()

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:
        """Load a data module as Lightning does; a tokenizer function must be named again by `tokenizer=`.

        Raises:
            DataError: If only the file names a function; it is not imported.
        """
        data = super().load_from_checkpoint(*args, **kwargs)  # this imports nothing by name
        if (named := data._tokenizing["tokenizer"]) not in (*KINDS, kwargs.get("tokenizer")):
            problem = "the checkpoint names this function, which would be imported"
            raise DataError(problem, "give it again if you trust it", "tokenizer", named)
        return data

    def resumed_settings(self) -> dict[str, Any]:
        """Return what a resumed run must share with the interrupted one, by option; also the columns."""
        columns = {"text_column": self.source_column, "label_column": self.target_column}
        return {**super().resumed_settings(), **columns}

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch and everything that was fitted, as primitives."""
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
        """Load what was fitted, before anything is inferred from these texts.

        The state cannot name a function that is imported: the tokenizer is always that of the constructor.

        Raises:
            DataError: As that of the base; or if texts would be tokenized otherwise than in training.
        """
        for name, trained in state_dict["tokenizing"].items():
            if self._tokenizing[name] != trained:
                problem = f"this model was trained with {trained}, and its texts are tokenized in this way"
                remedy = "give the same, or train anew without `ckpt_path`"
                raise DataError(problem, remedy, name, self._tokenizing[name])
        if self._trained is None or self._tokenizer.state != state_dict["vocabulary"]:
            self._source = None
            self._tokenizer = Tokenizer(self._tokenizer.kind, state=state_dict["vocabulary"])
            self._trained = state_dict["columns"]
        for name in ("text_column", "label_column"):
            if getattr(self, name) in (None, state_dict[name]):
                setattr(self, name, state_dict[name])
                self.loaded_columns.add(state_dict[name])
        self.class_names, self.task = state_dict["class_names"], state_dict["task"]
        super().load_state_dict(state_dict)
