"""Prompts for a language model, from a file of one's own."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError
from datamodules.text.files import find_text_files, read_text
from datamodules.user_data import say

TABLES = (".csv", ".tsv")
COLUMNS = ("prompt", "text")  # of a table, the first of these that it has


class Prompt(NamedTuple):
    """A text to go on with, and the line of its file in which it ends."""

    text: str
    file: Path
    line: int


class Prompts(Dataset[Tensor]):
    """Prompts as tokens, each a batch of its own.

    They are of unequal lengths, and padding at their end would stand between them and what is to follow.

    Args:
        ids: The tokens of each, `(T,)`.
    """

    def __init__(self, ids: Sequence[Tensor]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Take one prompt, `indices` of shape `(1,)`, as a batch `(1, T)`."""
        return self.ids[int(indices)][None]


def read_prompts(path: str, encoding: str | None) -> list[Prompt]:
    """Read prompts: each line of a text file is one; of a CSV or TSV file, each value of its column `prompt` or `text`.

    Args:
        path: A file, a folder or a glob.
        encoding: Python's name of their encoding; UTF-8, or UTF-16 with a mark, unless given.

    Returns:
        Those that are not empty, in their order.

    Raises:
        DataError: If there is none, or a table has no such column.
    """
    found = []
    for file in find_text_files(path):
        text = read_text(file, encoding)
        if file.suffix.lower() in TABLES:
            found += _column(file, text)
        else:
            lines = text.removesuffix("\n").split("\n")
            found += [Prompt(line, file, number) for number, line in enumerate(lines, 1)]
    some = [prompt for prompt in found if prompt.text]
    if not some:
        raise DataError(f"--data.path {path}: there is no prompt; each line, or each value of a column, is one.")
    if len(some) < len(found):
        say(f"{path}: {len(found) - len(some):,} of {len(found):,} prompts are empty, and are left out")
    return some


def _column(file: Path, text: str) -> list[Prompt]:
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    try:
        names = [name.strip().lower() for name in next(rows)]
        at = next((names.index(name) for name in COLUMNS if name in names), None)
        if at is None:
            raise DataError(
                f"{file}: none of its columns {', '.join(names)} is named {' or '.join(COLUMNS)}; rename the one with "
                "the prompts, or give a text file with one prompt a line."
            )
        return [Prompt(row[at] if len(row) > at else "", file, rows.line_num) for row in rows]
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: {error}; mend the line.") from error
