"""The values of a column: its kind, and its conversion to numbers or labels."""

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
Where = Callable[[int, str], str]  # returns the place of a value, from its row and column

MOSTLY = 0.9  # a text column with this share of numbers is numeric, with mistakes in it
MAX_CLASSES = 20  # a target of more different integers than this is a regression
YEAR_FIRST = r"^\s*\d{4}(\D\d{2}(\D\d{2}.*)?)?$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def kind_of(values: pa.ChunkedArray, name: str, where: Where, remedy: str = "") -> Kind | None:
    """Infer what a column holds from its type and, if that is text, from the text; None if it cannot be learned from.

    Raises:
        DataError: If it is text, and nearly all of it are numbers; `remedy` is what to do about that.
    """
    if pa.types.is_temporal(values.type) and not pa.types.is_duration(values.type):
        return "date"
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if any(test(values.type) for test in tests):
        return "number"
    if not pa.types.is_string(values.type):
        return None
    counts = pc.value_counts(trimmed(values).drop_null())
    words, times = counts.field("values"), counts.field("counts").to_numpy()
    looks = pc.match_substring_regex(words, NUMBER).to_numpy(zero_copy_only=False)
    if len(words) and (times * looks).sum() >= MOSTLY * times.sum():
        numbers(values, name, where, remedy)  # raises an error with the place, unless all of it are numbers
        return "number"
    return "category"


def type_name(kind: pa.DataType) -> str:
    """Return the name of a type, for people."""
    names = {
        "integer": pa.types.is_integer,
        "real": pa.types.is_floating,
        "text": pa.types.is_string,
        "boolean": pa.types.is_boolean,
        "date": pa.types.is_temporal,
    }
    return next((name for name, test in names.items() if test(kind)), str(kind))


def count_distinct(values: pa.ChunkedArray) -> int | None:
    """Count the distinct values of a column; None where Arrow cannot compare them (lists and the like)."""
    tests = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_duration)
    if any(test(values.type) for test in tests):
        return None
    count: int = pc.count_distinct(values, mode="only_valid").as_py()
    return count


def numbers(values: pa.ChunkedArray, name: str, where: Where, remedy: str = "") -> NDArray[np.floating[Any]]:
    """Return a column as numbers, NaN where it is missing: integers and times as float64, others as float32; `(N,)`.

    Raises:
        DataError: If there is text (`remedy` is what to do besides correcting it), infinity, or a number that float32
            cannot hold.
    """
    kind = values.type
    if pa.types.is_string(kind):
        values = trimmed(values)
        try:
            x = np.asarray(values.cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)
        except pa.ArrowInvalid as error:
            wrong = pc.invert(pc.match_substring_regex(values, NUMBER))
            row = pc.index(pc.fill_null(wrong, False), True).as_py()
            raise not_a_number(where(max(row, 0), name), name, remedy) from error
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
        problem = f"{where(int(infinite.argmax()), name)} is infinite, or too large for float32 (3.4e38)"
        raise DataError(problem, "correct it, or declare it missing (`missing_values`)")
    return x


def trimmed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strip the spaces from text; what is then empty is missing. Other values stay unchanged."""
    if not pa.types.is_string(values.type):
        return values
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(pc.utf8_length(values), 0), None, values)


def not_a_number(place: str, name: str, remedy: str = "") -> DataError:
    """Return the error for text at a place in a column of numbers."""
    remedy = remedy or f"declare the column one of categories (`categorical=[{name!r}]`)"
    return DataError(f"{place} is not a number", f"correct it, declare it missing (`missing_values`), or {remedy}")


def texts(values: pa.ChunkedArray, name: str, where: Where) -> tuple[list[str | None], NDArray[np.int64]]:
    """Return the distinct values of a column as text, None for a missing one, and the index of each row's value.

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
            spot = where(int((index == at).argmax()), name)
            raise DataError(f"{spot} has a NUL byte in it; is this a text file?")
    merged = list(dict.fromkeys(words))
    if len(merged) < len(words):  # some differed in spaces only
        place = {word: at for at, word in enumerate(merged)}
        index = np.array([place[word] for word in words], np.int64)[index]
    return merged, index


def _text(value: Any) -> str | None:  # noqa: ANN401  # whatever a column can hold
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, float):
        value = np.float32(value)  # which is printed as it was written
    return None if value is None else re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip()) or None


def is_number_text(text: str | None) -> bool:
    """Whether a text looks like a number."""
    return text is not None and re.match(NUMBER, text) is not None


def natural(text: str) -> tuple[int, float, str]:
    """Sort key: numbers by their size, then text."""
    return (0, float(text), text) if is_number_text(text) else (1, 0.0, text)


def infer_target(
    values: pa.ChunkedArray, name: str, task: TaskName | None, where: Where, option: str = "target"
) -> tuple[TaskName, list[str] | None]:
    """Infer the task from the target, and the names of its classes.

    Text, any two values, and integers of few values are classes; other numbers are a regression.

    Args:
        values: The target, none missing.
        name: Its name.
        task: The task, if it is given.
        where: Returns the place of a value, for messages.
        option: The argument that names the target, for messages.

    Returns:
        The task, and the labels sorted, numbers by size; None for a regression.

    Raises:
        DataError: If the target is constant, does not fit the task, or has a class of one row.
    """
    another = f"give another `{option}`"
    classes = pa.types.is_string(values.type) and task in ("binary", "multiclass")  # whatever they look like
    kind = "category" if classes else kind_of(values, name, where, f"{another}, or `task='multiclass'`")
    if kind is None:
        raise DataError(f"column {name!r}: {values.type} cannot be predicted", another)
    is_text = pa.types.is_string(values.type)
    distinct = len(texts(values, name, where)[0]) if is_text else pc.count_distinct(values).as_py()
    if distinct < 2:
        raise DataError(f"{where(0, name)}: the target is the same in every row", another)
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
        raise DataError(f"{name} has {len(labels)} values, not 2", "give `task='multiclass'`", "task", task)
    if counts.min() < 2:
        place = where(int((index == counts.argmin()).argmax()), name)
        problem = "is the only row of its class, which cannot be both learned and tested"
        remedy = f"remove the row, {another}, or `task='regression'`"
        raise DataError(f"{place} {problem} ({len(labels):,} classes)", remedy)
    return task, sorted((label for label in labels if label is not None), key=natural)


def encode_target(
    values: pa.ChunkedArray, name: str, class_names: list[str] | None, where: Where, option: str = "target"
) -> NDArray[np.float32] | NDArray[np.int64]:
    """Convert targets to class indices, int64, or values in their own unit, float32; shape `(N,)`.

    Raises:
        DataError: If a label is none of the classes, or a value is not a number.
    """
    if class_names is None:
        return numbers(values, name, where, f"give another `{option}`, or `task='multiclass'`").astype(np.float32)
    labels, index = texts(values, name, where)
    classes = {label: at for at, label in enumerate(class_names)}
    for at, label in enumerate(labels):
        if label not in classes:
            row = int((index == at).argmax())
            raise DataError(f"{where(row, name)} is none of the training classes ({listed(class_names, 8)})")
    return np.array([classes[str(label)] for label in labels], np.int64)[index]


def is_missing(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return which values are missing: null, NaN, or nothing but spaces; shape `(N,)`."""
    return np.asarray(pc.is_null(trimmed(values), nan_is_null=True))


def sort_key(values: pa.ChunkedArray, name: str, where: Where) -> NDArray[np.int64]:
    """Return the ranks of the values of a column of times, however they are written; shape `(N,)`.

    Raises:
        DataError: If one is missing, or is text of which the order is not that of time.
    """
    missing = is_missing(values)
    if missing.any():
        raise DataError(f"{where(int(missing.argmax()), name)} is missing, but rows are divided by it", "fill it in")
    if pa.types.is_string(values.type):
        odd = ~np.asarray(pc.match_substring_regex(values, YEAR_FIRST))
        if odd.any():
            place = where(int(odd.argmax()), name)
            raise DataError(f"{place} is not a sortable time", "write times as 2024-12-31 or as numbers")
    return np.asarray(pc.rank(values, tiebreaker="dense"), np.int64)
