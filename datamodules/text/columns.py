"""Find the columns of texts and labels in a table."""

import pyarrow as pa
import pyarrow.compute as pc

from datamodules.errors import DataError, listed
from datamodules.tables.values import MAX_CLASSES, count_distinct

# Usual names of these columns, the likeliest first.
TEXT_NAMES = ("text", "sentence", "review", "content", "question", "message", "comment", "document", "body", "tweet")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment")


def find_texts(table: pa.Table, source: str, label: str | None = None) -> str:
    """Find the column of texts: by its name, or as the one whose texts are at least twice as long as any other's.

    Args:
        table: The table.
        source: Where it is from, for messages.
        label: The column of labels, if it is known, which is chosen only if no other can be the texts.

    Returns:
        Its name.

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

    Args:
        table: The table.
        source: Where it is from, for messages.
        text: The column of texts.

    Returns:
        Its name.

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
