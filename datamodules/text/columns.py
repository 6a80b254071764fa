"""What the columns of a table look like: texts, numbers, or what names the rows."""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from datamodules.errors import DataError
from datamodules.tables.dialect import MISSING, is_number
from datamodules.text.labeled_lines import TEXT_NAMES
from datamodules.text.labeled_source import find_texts

MOSTLY = 0.9  # share of the lines, or values, that must look alike
WORDS, FEW_WORDS = 4, 2  # mean number of words in a column of texts; and if its name says what it is
DISTINCT = 0.2  # least share of distinct values in a column of texts
IDENTIFIER = re.compile(r"(.*[_ ])?(id|idx|index|key|no|nr)|.*Id|.*ID")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def choose_text(file: Path, texts: Mapping[str, Sequence[str]]) -> str | None:
    """Return the column of texts among several, if one stands out by its name or its length."""
    try:
        return find_texts(pa.table({name: pa.array(cells, pa.string()) for name, cells in texts.items()}), str(file))
    except DataError:
        return None


def _present(cells: Collection[str]) -> list[str]:
    return [cell for cell in cells if cell not in MISSING]


def is_numeric(cells: Collection[str]) -> bool:
    """Whether nearly all values are numbers."""
    present = _present(cells)
    return bool(present) and sum(is_number(cell, ".") for cell in present) >= MOSTLY * len(present)


def is_text(name: str, cells: Collection[str]) -> bool:
    """Whether the values are texts: of several words, and seldom the same; fewer words will do by a usual name."""
    present = _present(cells)
    if not present or is_numeric(present) or len(set(present)) < max(3, DISTINCT * len(present)):
        return False
    return mean_words(present) >= (FEW_WORDS if name.lower() in TEXT_NAMES else WORDS)


def mean_words(cells: Collection[str]) -> float:
    """Return the mean number of words with a letter, of which a Chinese, Japanese or Korean character is one."""
    words = [sum(any(map(str.isalpha, word)) for word in cell.split()) + len(CJK.findall(cell)) for cell in cells]
    return sum(words) / max(1, len(words))


def is_identifier(name: str, cells: Sequence[str]) -> bool:
    """Whether each value is another, and they number or name the rows."""
    if len(set(cells)) < len(cells) or is_text(name, cells):
        return False
    counts = all(cell.isdecimal() for cell in cells) and {int(b) - int(a) for a, b in itertools.pairwise(cells)} == {1}
    return counts or IDENTIFIER.fullmatch(name) is not None
