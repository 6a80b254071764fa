"""Prompts for a language model, from a user's file."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError

logger = logging.getLogger(__name__)

TABLES = (".csv", ".tsv")
COLUMNS = ("prompt", "text")  # of a table, the first of these that it has


class Prompt(NamedTuple):
    """A text to continue, and the line of its file in which it ends."""

    text: str
    file: Path
    line: int


class Prompts(Dataset[Tensor]):
    """Prompts as tokens, each a batch of its own.

    They have unequal lengths, and padding would stand between a prompt and its continuation.

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

    Args:
        texts: The text of each file.
        path: Where they are from, for messages.

    Returns:
        Those that are not empty, in their order.

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
        empty = len(found) - len(prompts)
        logger.warning(f"{path}: {empty:,} of {len(found):,} prompts are empty, and are dropped")
    return prompts


def _column(file: Path, text: str) -> list[Prompt]:
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    try:
        names = [name.strip().lower() for name in next(rows)]
        at = next((names.index(name) for name in COLUMNS if name in names), None)
        if at is None:
            raise DataError(
                f"{file}: none of its columns {', '.join(names)} is named {' or '.join(COLUMNS)}",
                "rename the one with the prompts, or give a text file with one prompt a line",
            )
        return [Prompt(row[at] if len(row) > at else "", file, rows.line_num) for row in rows]
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: {error}", "correct the line") from error
