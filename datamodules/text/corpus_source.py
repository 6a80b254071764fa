"""Everything a `TextCorpusDataModule` reads: a text as windows of tokens, or prompts."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.sampler import Samples, Split
from datamodules.text.files import Tokens
from datamodules.text.tokenizer import UNKNOWN
from datamodules.text.windows import Windows
from datamodules.user_data import Source

if TYPE_CHECKING:
    from datamodules.text.corpus import TextCorpusDataModule

logger = logging.getLogger(__name__)

PURPOSES: dict[Stage, str] = {"train": "train on", "val": "validate on", "test": "test on"}
SHOWN = 8  # unknown characters that are named at most
TABLES = (".csv", ".tsv")  # files of prompts in a column
COLUMNS = ("prompt", "text")  # of such a table, the first of these that it has


class CorpusSource(Source):
    """Everything made from a text by one tokenizer."""

    data: "TextCorpusDataModule"
    unknown: dict[Stage, str]  # the out-of-vocabulary characters of each of the `parts`

    @cached_property
    def parts(self) -> dict[Stage, Windows]:
        """The windows of each part of the text; a part without a share of it is absent."""
        data, found, self.unknown = self.data, dict[Stage, Windows](), {}
        for stage, (start, end) in data.bounds.items():
            if stage != "train" and not getattr(data, f"{stage}_fraction"):
                continue
            found[stage], self.unknown[stage] = self._windows(start, end)
            size = len(found[stage].tokens)
            if size <= data.context_length:
                problem = f"to {PURPOSES[stage]}, {data.files.name} has {end - start:,} characters in {size:,} tokens"
                remedy = "give a longer text, a shorter context, or other `val_fraction` and `test_fraction`"
                problem += ", and must have more tokens than that"
                raise DataError(problem, remedy, "context_length", data.context_length)
        data.files.release()
        return found

    @cached_property
    def splits(self) -> dict[Stage, Split]:
        """The training, validation and test windows, indexed by their starts."""
        return {
            stage: Split(cast("Samples", windows), windows.movable_starts if stage == "train" else windows.starts)
            for stage, windows in self.parts.items()
        }

    def _windows(self, start: int, end: int) -> tuple[Windows, str]:
        """Return the windows of a stretch of the text, and its out-of-vocabulary characters."""
        data = self.data
        windows = Windows(data.files.encode(data.fitted, start, end), data.context_length)
        return windows, unknown_characters(windows.tokens, data.files.text, start) if windows.unknown else ""

    @cached_property
    def everything(self) -> Windows:
        """All windows of a text that the model was not trained on."""
        path = self.data.path
        windows, unknown = self._windows(0, self.data.files.size)
        self.data.files.release()
        if len(windows.tokens) < 2:
            raise DataError("a text of 2 tokens or more can be tested, and this has fewer", option="path", value=path)
        logger.info(f"{path} is not what the model was trained on: all of its {len(windows.tokens):,} tokens are used")
        if unknown:
            logger.warning(f"{path}: {unknown}")
        return windows

    @cached_property
    def prompts(self) -> list["Prompt"]:
        """The prompts at the path."""
        if not self.data.path or not self.data.is_new:
            raise DataError("give prompts to continue, a text file with one a line or a CSV file", option="path")
        return find_prompts(self.data.files.contents, self.data.path)

    @cached_property
    def unlabeled(self) -> "Prompts":
        """The prompts as tokens."""
        length = self.data.context_length
        ids = [self.data.encode_known(prompt.text, f"{prompt.file}, line {prompt.line}") for prompt in self.prompts]
        longer = sum(len(some) > length for some in ids)
        if longer:
            what = f"{longer:,} of {len(ids):,} prompts have more than {length} tokens"
            logger.warning(f"{self.data.path}: {what}; only the last are read")
        return Prompts([some[-length:] for some in ids])


def unknown_characters(tokens: Tokens, text: str, start: int) -> str:
    """Count and name the out-of-vocabulary characters; `tokens` are those of the text from `start` on, one each."""
    at = np.flatnonzero(tokens == UNKNOWN)
    names = sorted({text[start + place] for place in at[:100_000].tolist()})
    named = ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
    return f"{len(at):,} of {len(tokens):,} characters are not in the vocabulary ({named})" if len(at) else ""


class Prompt(NamedTuple):
    """A text to continue, and the line of its file in which it ends."""

    text: str
    file: Path
    line: int


class Prompts(Dataset[Tensor]):
    """Prompts as tokens, each a batch of its own, as padding would stand between a prompt and its continuation.

    Args:
        ids: The tokens of each, `(T,)`.
    """

    def __init__(self, ids: Sequence[Tensor]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return one prompt, `indices` of shape `(1,)`, as a batch `(1, T)`."""
        return self.ids[int(indices)][None]


def find_prompts(texts: Mapping[Path, str], path: str) -> list[Prompt]:
    """Return the prompts in files: each line of a text file; of a CSV or TSV file, the column `prompt` or `text`.

    Raises:
        DataError: If there is none, or a table has no such column.
    """
    found = []
    for file, text in texts.items():
        if file.suffix.lower() in TABLES:
            found += _column(file, text)
        else:
            lines = text.removesuffix("\n").split("\n")
            found += [Prompt(line, file, number) for number, line in enumerate(lines, 1)]
    prompts = [prompt for prompt in found if prompt.text]
    if not prompts:
        raise DataError("there is no prompt; each line, or each value of a column, is one", option="path", value=path)
    if len(prompts) < len(found):
        what = f"{len(found) - len(prompts):,} of {len(found):,} prompts are empty"
        logger.warning(f"{path}: {what}, and are dropped")
    return prompts


def _column(file: Path, text: str) -> list[Prompt]:
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    try:
        names = [name.strip().lower() for name in next(rows)]
        at = next((names.index(name) for name in COLUMNS if name in names), None)
        if at is None:
            problem = f"{file}: none of its columns {', '.join(names)} is named {' or '.join(COLUMNS)}"
            raise DataError(problem, "rename the one with the prompts, or give a text file with one prompt a line")
        return [Prompt(row[at] if len(row) > at else "", file, rows.line_num) for row in rows]
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: {error}", "correct the line") from error
