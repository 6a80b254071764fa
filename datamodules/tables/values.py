"""From a column of a table to numbers or labels, and what kind of column it is."""

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamodules.errors import DataError, listed

Kind = Literal["number", "date", "category"]
TaskName = Literal["regression", "binary", "multiclass"]
Where = Callable[[int, str], str]  # names the place of a value, from its row and column

MOSTLY = 0.9  # a text column with this share of numbers is one of numbers, with text that does not belong there
MAX_CLASSES = 20  # integers with more values than this are a regression's target
YEAR_FIRST = r"^\s*\d{4}(\D\d{2}(\D\d{2}.*)?)?$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def kind_of(values: pa.ChunkedArray, name: str, where: Where, remedy: str = "") -> Kind | None:
    """Tell what a column holds from its type and, if that is text, from the text.

    Raises:
        DataError: If it is text, and nearly all of it numbers; the message has the remedy.
    """
    if pa.types.is_temporal(values.type) and not pa.types.is_duration(values.type):
        return "date"
    if is_number_type(values.type) or pa.types.is_null(values.type):
        return "number"
    if not pa.types.is_string(values.type):
        return None
    counts = pc.value_counts(trimmed(values).drop_null())
    words, times = counts.field("values"), counts.field("counts").to_numpy()
    looks = pc.match_substring_regex(words, NUMBER).to_numpy(zero_copy_only=False)
    if len(words) and (times * looks).sum() >= MOSTLY * times.sum():
        numbers(values, name, where)  # raises, and says where, unless all of it are numbers after all
        return "number"
    return "category"


def type_name(kind: pa.DataType) -> str:
    """Say in a word what a column holds."""
    names = {
        "integer": pa.types.is_integer,
        "real": pa.types.is_floating,
        "text": pa.types.is_string,
        "boolean": pa.types.is_boolean,
        "date": pa.types.is_temporal,
    }
    return next((name for name, test in names.items() if test(kind)), str(kind))


def count_distinct(values: pa.ChunkedArray) -> int | None:
    """Count the values of a column; None where Arrow cannot tell them apart (lists and the like)."""
    if kind_is_nested(values.type):
        return None
    count: int = pc.count_distinct(values, mode="only_valid").as_py()
    return count


def kind_is_nested(kind: pa.DataType) -> bool:
    """Whether a column holds lists, structures or bytes, or durations, which cannot be learned from."""
    return bool(
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_duration(kind)
    )


def numbers(values: pa.ChunkedArray, name: str, where: Where, remedy: str = "") -> NDArray[np.floating[Any]]:
    """Give a column as numbers, NaN where it is missing: integers and times as float64, others as float32.

    Args:
        values: The column.
        name: Its name.
        where: Names the place of a value, for messages.
        remedy: What to do about text, beside mending it.

    Raises:
        DataError: If there is text, infinity, or a number that float32 cannot hold.
    """
    kind = values.type
    if pa.types.is_string(kind):
        values = trimmed(values)
        try:
            x = np.asarray(values.cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)
        except pa.ArrowInvalid as error:
            wrong = pc.invert(pc.match_substring_regex(values, NUMBER))
            row = pc.index(pc.fill_null(wrong, False), True).as_py()
            raise DataError(not_a_number(where(max(row, 0), name), name, remedy)) from error
    elif pa.types.is_temporal(kind):
        days = values.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False)
        x = np.asarray(days / 86_400e6, np.float64)
    elif pa.types.is_boolean(kind) or pa.types.is_null(kind):
        x = np.asarray(values.cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)
    else:
        x = np.asarray(values.to_numpy(zero_copy_only=False))
        x = x if x.dtype == np.float32 else x.astype(np.float64)
    infinite = np.abs(x) > np.finfo(np.float32).max
    if infinite.any():
        raise DataError(
            f"{where(int(infinite.argmax()), name)} is infinite, or too large for float32 (3.4e38); mend it or call it "
            "missing (--data.missing_values)."
        )
    return x


def trimmed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take the spaces from both ends of text; what then is empty is missing. Other values stay as they are."""
    if not pa.types.is_string(values.type):
        return values
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(pc.utf8_length(values), 0), None, values)


def not_a_number(place: str, name: str, remedy: str = "") -> str:
    """Say that a value is text in a column of numbers, and what can be done."""
    remedy = remedy or f"take the column for categories (--data.categorical [{name}])"
    return f"{place} is no number; mend it, call it missing (--data.missing_values), or {remedy}."


def texts(values: pa.ChunkedArray, name: str, where: Where) -> tuple[list[str | None], NDArray[np.int64]]:
    """Give the distinct values of a column as text, None for a missing one, and which of them each row has.

    Raises:
        DataError: If a text has a NUL byte in it.
    """
    if pa.types.is_floating(values.type):  # NaN is missing too
        values = pc.if_else(pc.is_nan(values), None, values)
    coded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    words = [_text(word) for word in coded.dictionary.to_pylist()]
    index = np.asarray(coded.indices, np.int64)
    for at, word in enumerate(words):
        if word is not None and "\0" in word:
            raise DataError(f"{where(int((index == at).argmax()), name)} has a NUL byte in it; is this a text file?")
    merged = list(dict.fromkeys(words))
    if len(merged) < len(words):  # some differed in spaces only
        place = {word: at for at, word in enumerate(merged)}
        index = np.array([place[word] for word in words], np.int64)[index]
    return merged, index


def _text(value: Any) -> str | None:  # noqa: ANN401  # whatever a column can hold
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, float):
        value = np.float32(value)  # which prints as it was written
    return None if value is None else re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip()) or None


def is_number_text(text: str | None) -> bool:
    """Whether a text looks like a number."""
    return text is not None and re.match(NUMBER, text) is not None


def is_number_type(kind: pa.DataType) -> bool:
    """Whether a type is one of numbers, or of 0 and 1."""
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def natural(text: str) -> tuple[int, float, str]:
    """Sort key: numbers by their size, then text."""
    return (0, float(text), text) if is_number_text(text) else (1, 0.0, text)


def infer_target(
    values: pa.ChunkedArray, name: str, task: TaskName | None, where: Where, flag: str = "--data.target"
) -> tuple[TaskName, list[str] | None]:
    """Tell what kind of target a column is, and the names of its classes.

    Text, whatever has two values, and integers of few values are classes; other numbers are a regression.

    Args:
        values: The target, none missing.
        name: Its name.
        task: The task, if it is not to be inferred.
        where: Names the place of a value, for messages.
        flag: The option that names the target, for messages.

    Returns:
        The task, and the labels sorted, numbers by size; None for a regression.

    Raises:
        DataError: If the target is constant, does not fit the task, or has a class of one row.
    """
    remedy = f"give another {flag}, or --data.task multiclass"
    classes = pa.types.is_string(values.type) and task in ("binary", "multiclass")  # whatever they look like
    kind = "category" if classes else kind_of(values, name, where, remedy)
    if kind is None:
        raise DataError(f"column {name!r}: {values.type} cannot be predicted; give another {flag}.")
    is_text = pa.types.is_string(values.type)
    distinct = len(texts(values, name, where)[0]) if is_text else pc.count_distinct(values).as_py()
    if distinct < 2:
        raise DataError(f"{where(0, name)}: the target is the same in every row; give another {flag}.")
    if task is None:
        task = "binary" if distinct == 2 else "multiclass"
        if distinct > 2 and kind != "category" and not pa.types.is_boolean(values.type):
            x = numbers(values, name, where)
            if distinct > min(MAX_CLASSES, len(values) / 2) or not np.array_equal(x, np.floor(x)):
                task = "regression"
    if task == "regression":
        return task, None
    labels, index = texts(values, name, where)
    counts = np.bincount(index)
    if task == "binary" and len(labels) != 2:
        raise DataError(f"--data.task binary: {name} has {len(labels)} values, not 2; give --data.task multiclass.")
    if counts.min() < 2:
        raise DataError(
            f"{where(int((index == counts.argmin()).argmax()), name)} is the only row of its class, which cannot be "
            f"both learned and tested ({len(labels):,} classes); remove the row, give another {flag}, or "
            "--data.task regression."
        )
    return task, sorted((label for label in labels if label is not None), key=natural)


def encode_target(
    values: pa.ChunkedArray,
    name: str,
    class_names: list[str] | None,
    where: Where,
    flag: str = "--data.target",
) -> NDArray[np.float32] | NDArray[np.int64]:
    """Turn targets into class indices, int64, or values in their own unit, float32; shape `(N,)`.

    Raises:
        DataError: If a label is none of the classes, or a value is no number.
    """
    if class_names is None:
        return numbers(values, name, where, f"give another {flag}, or --data.task multiclass").astype(np.float32)
    labels, index = texts(values, name, where)
    classes = {label: at for at, label in enumerate(class_names)}
    for at, label in enumerate(labels):
        if label not in classes:
            row = int((index == at).argmax())
            raise DataError(f"{where(row, name)} is none of the classes that were learned ({listed(class_names, 8)}).")
    return np.array([classes[str(label)] for label in labels], np.int64)[index]


def is_missing(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Tell which values are missing: null, NaN, or nothing but spaces; shape `(N,)`."""
    return np.asarray(pc.is_null(trimmed(values), nan_is_null=True))


def sort_key(values: pa.ChunkedArray, name: str, where: Where) -> NDArray[np.int64]:
    """Rank the values of a column of times, whatever they are written as; shape `(N,)`.

    Raises:
        DataError: If one is missing, or is text of which the order is not that of time.
    """
    missing = is_missing(values)
    if missing.any():
        raise DataError(
            f"{where(int(missing.argmax()), name)} is missing, but rows are to be divided by it; fill it in."
        )
    if pa.types.is_string(values.type):
        odd = ~np.asarray(pc.match_substring_regex(values, YEAR_FIRST))
        if odd.any():
            place = where(int(odd.argmax()), name)
            raise DataError(f"{place} is no time that can be put in order; write times as 2024-12-31 or as numbers.")
    return np.asarray(pc.rank(values, tiebreaker="dense"), np.int64)
