"""What the columns of a table are, fitted on its training rows, and how a row becomes a row of numbers."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamodules.errors import DataError

Kind = Literal["number", "date", "category"]
TaskName = Literal["regression", "binary", "multiclass"]
Where = Callable[[int, str], str]  # names the place of a value, from its row and column

MOSTLY = 0.9  # a text column with this share of numbers is one of numbers, with text that does not belong there
HALF = 0.5  # a text column of which fewer rows repeat a value than this is no category
MIN_COUNT = 5  # a category in fewer training rows counts as unseen; in small tables, in fewer than 1 % of them
MAX_CATEGORIES = 1000  # of one column, the most frequent ones
MAX_CLASSES = 20  # integers with more values than this are a regression's target
SAMPLE = 100_000  # rows of which medians and quantiles are taken, where there are more
IDENTIFIER = re.compile(
    r"(?i:(?:^|[\W_])(?:id|uuid|guid|index|key|rownames|unnamed)(?:[\W_\d]|$))|[a-z](?:Id|ID)$|^column_1$"
)
YEAR_FIRST = r"^\s*\d{4}(\D\d{2}(\D\d{2}.*)?)?$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


@dataclass
class Column:
    """One column: what it holds, what it is for, and what was fitted on it.

    Args:
        name: Its name.
        kind: What it holds. A number is standardised by `mean` and `std`, and `median` takes the place of what is
            missing; a date is a number of days since 1970; a category becomes its place in `categories`, plus 1.
        role: `feature`, or why it is none.
        missing: How many training rows lack it.
        median: Median over the training rows.
        mean: Mean over the training rows, the median standing for what is missing.
        std: Standard deviation likewise; 1 if it is 0.
        categories: The values of a category, None for a missing one. Code 0 is for what training did not see.
    """

    name: str
    kind: Kind
    role: str = "feature"
    missing: int = 0
    median: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    categories: list[str | None] = field(default_factory=list)

    @property
    def is_identifier(self) -> bool:
        """Whether it names the rows."""
        return self.role == "left out: an identifier"

    @property
    def is_flagged(self) -> bool:
        """Whether a second column says, by 1 or 0, if the number was missing."""
        return self.kind != "category" and self.missing > 0


class Columns:
    """The columns of a table, as they were in training.

    A row becomes one of float32: the numbers, then a flag for each number that can be missing, then the codes of the
    categories.

    Args:
        columns: All of them, in the order of the training table.
    """

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns
        features = [column for column in columns if column.role == "feature"]
        self.numbers = [column for column in features if column.kind != "category"]
        self.flagged = [column for column in self.numbers if column.is_flagged]
        self.categories = [column for column in features if column.kind == "category"]
        self.features = [*self.numbers, *self.categories]

    @classmethod
    def from_state(cls, state: list[dict[str, Any]]) -> "Columns":
        """Rebuild columns from the primitives in a checkpoint."""
        return cls([Column(**column) for column in state])

    def to_state(self) -> list[dict[str, Any]]:
        """Give everything as primitives."""
        return [asdict(column) for column in self.columns]

    def __len__(self) -> int:
        return len(self.numbers) + len(self.flagged) + len(self.categories)

    @property
    def cardinalities(self) -> list[int]:
        """How many codes each category has, the unseen included."""
        return [len(column.categories) + 1 for column in self.categories]

    def moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of each number of a row, `(F,)`; 0 and 1 for flags and codes."""
        mean, std = np.zeros(len(self), np.float32), np.ones(len(self), np.float32)
        for at, column in enumerate(self.numbers):
            mean[at], std[at] = column.mean, column.std
        return mean, std

    def encode(self, table: pa.Table, where: Where, source: str) -> NDArray[np.float32]:
        """Turn rows into numbers.

        Args:
            table: A table with all the features among its columns, in any order.
            where: Names the place of a value, for messages.
            source: Names the table, likewise.

        Returns:
            Shape `(N, F)`.

        Raises:
            DataError: If a feature is missing, or a value is no number that float32 holds where one must be.
        """
        check_names([column.name for column in self.features], table.column_names, source)
        x = np.empty((len(table), len(self)), np.float32)
        flag = len(self.numbers)
        for at, column in enumerate(self.numbers):
            values = numbers(table[column.name], column.name, where)
            gaps = np.isnan(values)
            x[:, at] = np.where(gaps, np.float32(column.median), values) if gaps.any() else values
            if column.is_flagged:
                x[:, flag] = gaps
                flag += 1
        for at, column in enumerate(self.categories, flag):
            labels, index = texts(table[column.name], column.name, where)
            known = [value for value in column.categories if value is not None]
            met = [label for label in labels if label is not None]
            if known and met and all(map(_is_number_text, met)) and not any(map(_is_number_text, known)):
                row = int((index == labels.index(met[0])).argmax())
                raise DataError(
                    f"{where(row, column.name)}: numbers, where the model learned from text "
                    f"({', '.join(known[:3])}{', ...' if len(known) > 3 else ''})."
                )
            codes = {value: code for code, value in enumerate(column.categories, 1)}
            x[:, at] = np.array([codes.get(label, 0) for label in labels], np.float32)[index]
        return x


def fit(
    table: pa.Table,
    rows: NDArray[np.int64] | None,
    where: Where,
    roles: dict[str, str],
    kinds: dict[str, Kind],
) -> Columns:
    """Find out what each column is and whether it can help, from the training rows alone.

    Args:
        table: The whole table.
        rows: The training rows, shape `(n,)`; None for all.
        where: Names the place of a value, for messages.
        roles: What is known of some columns: `target`, `key`, or why they are left out.
        kinds: What some columns are, whatever they look like.

    Raises:
        DataError: If a column of numbers has text, infinity or too large a number in it, or no column can help.
    """
    found = []
    for name in table.column_names:
        if name in roles:
            found.append(Column(name, "number", roles[name]))
        else:
            found.append(_fit_one(name, table[name], rows, where, kinds.get(name)))
    columns = Columns(found)
    if not len(columns):
        raise DataError(
            "no column is left to learn from ("
            + "; ".join(f"{column.name}: {column.role}" for column in found)
            + "); --data.numeric and --data.categorical bring one back."
        )
    return columns


def _fit_one(
    name: str, values: pa.ChunkedArray, rows: NDArray[np.int64] | None, where: Where, kind: Kind | None
) -> Column:
    asked = kind is not None
    kind = kind or _kind(values, name, where)
    if kind is None:
        return Column(name, "category", f"left out: {values.type} cannot be learned from")
    column = Column(name, kind)
    named = IDENTIFIER.search(name) and not asked and not pa.types.is_floating(values.type)
    if named and _all_differ(values, rows):
        column.role = "left out: an identifier"
        return column
    if kind == "category":
        labels, index = texts(values, name, where)
        _fit_category(column, labels, index if rows is None else index[rows], asked)
    else:
        x = numbers(values, name, where)
        _fit_number(column, x if rows is None else x[rows])
    return column


def _all_differ(values: pa.ChunkedArray, rows: NDArray[np.int64] | None) -> bool:
    seen = values if rows is None else values.take(pa.array(rows))
    return bool(pc.count_distinct(seen, mode="all").as_py() == len(seen))


def _fit_category(column: Column, labels: list[str | None], index: NDArray[np.int64], asked: bool) -> None:
    counts = np.bincount(index, minlength=len(labels)).tolist()
    seen = {label: count for label, count in zip(labels, counts, strict=True) if count}
    column.missing = seen.pop(None, 0)
    enough = max(2, min(MIN_COUNT, len(index) // 100))
    often = sorted((label for label in seen if label is not None and seen[label] >= enough), key=natural)
    often = sorted(often, key=lambda label: -seen[label or ""])[:MAX_CATEGORIES]
    column.categories = [*([None] if column.missing else []), *sorted(often, key=natural)]
    if not seen:
        column.role = "left out: empty"
    elif len(seen) == 1 and not column.missing:
        column.role = "left out: constant"
    elif not asked and column.missing + sum(seen[label] for label in often) < HALF * len(index):
        column.role = "left out: most values are rare"


def _fit_number(column: Column, x: NDArray[np.float32]) -> None:
    gaps = np.isnan(x)
    column.missing = int(gaps.sum())
    if column.missing == len(x):
        column.role = "left out: empty"
        return
    known = x[~gaps] if column.missing else x
    column.median = float(np.median(thin(known)))
    x = np.where(gaps, np.float32(column.median), x) if column.missing else x
    column.mean, std = float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64))
    column.std = std if std > 0 else 1.0
    if std == 0 and not column.missing:
        column.role = "left out: constant"


def _kind(values: pa.ChunkedArray, name: str, where: Where) -> Kind | None:
    """Tell what a column holds from its type and, if that is text, from the text."""
    if pa.types.is_temporal(values.type) and not pa.types.is_duration(values.type):
        return "date"
    if _is_number_type(values.type) or pa.types.is_null(values.type):
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


def numbers(values: pa.ChunkedArray, name: str, where: Where, remedy: str = "") -> NDArray[np.float32]:
    """Give a column as float32, NaN where it is missing.

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
        x = np.asarray(days / 86_400e6, np.float32)
    elif pa.types.is_boolean(kind) or pa.types.is_null(kind):
        x = np.asarray(values.cast(pa.float32()).to_numpy(zero_copy_only=False), np.float32)
    else:
        with np.errstate(over="ignore"):
            x = np.asarray(values.to_numpy(zero_copy_only=False)).astype(np.float32, copy=False)
    infinite = np.isinf(x)
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


def _is_number_text(text: str | None) -> bool:
    return text is not None and re.match(NUMBER, text) is not None


def _is_number_type(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def natural(text: str) -> tuple[int, float, str]:
    """Sort key: numbers by their size, then text."""
    return (0, float(text), text) if _is_number_text(text) else (1, 0.0, text)


def thin(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take `SAMPLE` random values of `x`, the same every time, or all of them where there are no more."""
    return x if len(x) <= SAMPLE else x[np.random.default_rng(0).integers(0, len(x), SAMPLE)]


def check_names(wanted: Sequence[str], found: Sequence[str], source: str) -> None:
    """Look whether a table has the columns it needs.

    Raises:
        DataError: If one is not there; the message has the nearest name that is.
    """
    for name in wanted:
        if name not in found:
            close = [other for other in found if other.lower() == name.lower()]
            close = close or difflib.get_close_matches(name, found, n=1)
            raise DataError(
                f"{source}: there is no column {name!r}"
                + (f"; did you mean {close[0]!r}?" if close else f", only {', '.join(found[:12])}.")
            )


def infer_target(
    values: pa.ChunkedArray, name: str, task: TaskName | None, where: Where
) -> tuple[TaskName, list[str] | None]:
    """Tell what kind of target a column is, and the names of its classes.

    Text, whatever has two values, and integers of few values are classes; other numbers are a regression.

    Args:
        values: The target, none missing.
        name: Its name.
        task: The task, if it is not to be inferred.
        where: Names the place of a value, for messages.

    Returns:
        The task, and the labels sorted, numbers by size; None for a regression.

    Raises:
        DataError: If the target is constant, does not fit the task, or has a class of one row.
    """
    kind = _kind(values, name, where)
    if kind is None:
        raise DataError(f"column {name!r}: {values.type} cannot be predicted; give another --data.target.")
    is_text = pa.types.is_string(values.type)
    distinct = len(texts(values, name, where)[0]) if is_text else pc.count_distinct(values).as_py()
    if distinct < 2:
        raise DataError(f"{where(0, name)}: the target is the same in every row; give another --data.target.")
    if task is None:
        task = "binary" if distinct == 2 else "multiclass"
        if distinct > 2 and kind != "category" and not pa.types.is_boolean(values.type):
            x = numbers(values, name, where)
            if distinct > MAX_CLASSES or not np.array_equal(x, np.floor(x)):
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
            f"both learned and tested ({len(labels):,} classes); remove the row, give another --data.target, or "
            "--data.task regression."
        )
    return task, sorted((label for label in labels if label is not None), key=natural)


def encode_target(
    values: pa.ChunkedArray, name: str, class_names: list[str] | None, where: Where
) -> NDArray[np.float32] | NDArray[np.int64]:
    """Turn targets into class indices, int64, or values in their own unit, float32; shape `(N,)`.

    Raises:
        DataError: If a label is none of the classes, or a value is no number.
    """
    if class_names is None:
        return numbers(values, name, where, "give another --data.target, or --data.task multiclass").copy()
    labels, index = texts(values, name, where)
    classes = {label: at for at, label in enumerate(class_names)}
    for at, label in enumerate(labels):
        if label not in classes:
            row = int((index == at).argmax())
            raise DataError(
                f"{where(row, name)} is none of the classes that were learned ({', '.join(class_names[:8])}"
                f"{', ...' if len(class_names) > 8 else ''})."
            )
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


def describe(columns: Columns, table: pa.Table, rows: NDArray[np.int64] | None) -> str:
    """Lay out what the columns are in a short table: column, type, missing, distinct, role."""
    shown = columns.columns[:40]
    lines = [("column", "type", "missing", "distinct", "role")]
    few = None if rows is None else rows[:SAMPLE]
    for column in shown:
        values = table[column.name] if few is None else table[column.name].take(pa.array(few))
        distinct = f"{pc.count_distinct(values, mode='only_valid').as_py():,}"
        more = "+" if rows is not None and len(rows) > SAMPLE else ""
        missing = column.missing or values.null_count
        role = column.role
        if role == "feature":
            role = column.kind
            if column.kind == "category":
                role = f"category, {len(column.categories)} values"
            elif column.is_flagged:
                role += ", and whether it is missing"
        lines.append((column.name, str(values.type).replace("float", "real"), f"{missing:,}", distinct + more, role))
    widths = [max(len(line[at]) for line in lines) for at in range(5)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    text = "\n".join("  ".join(line).rstrip() for line in padded)
    rest = len(columns.columns) - len(shown)
    return text + (f"\n... and {rest} more" if rest else "")
