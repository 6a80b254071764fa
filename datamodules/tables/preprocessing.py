"""The columns of a table as fitted on its training rows, and how they encode a row as numbers."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamodules.errors import DataError, check_names, listed
from datamodules.tables.values import (
    Kind,
    Where,
    count_distinct,
    is_number_text,
    kind_of,
    natural,
    numbers,
    texts,
    type_name,
)

SAMPLE = 100_000  # rows of which medians and numbers of distinct values are taken, where there are more
IDENTIFIER = "dropped: identifier"  # the role of a column that identifies the rows
HALF = 0.5  # a text column of which a smaller share of rows repeats a value is not categorical
MIN_COUNT = 5  # a category in fewer training rows counts as unseen; in small tables, in fewer than 1 % of them
NUM_QUANTILES = 33  # of each number, for encodings by bins
ROWS_PER_BIN, MIN_BINS = 32, 16  # between two quantiles there are at least so many rows, in tables of some size
FAR = 1000  # standard deviations from 0: where float32 would resolve fewer than some 10,000 steps of one
MAX_CATEGORIES = 1000  # of one column, the most frequent ones
IDENTIFIER_NAME = re.compile(
    r"(?i:(?:^|[\W_])(?:id|uuid|guid|index|key|rownames|unnamed)(?:[\W_\d]|$))|[a-z](?:Id|ID)$|^column_1$"
)


@dataclass
class Column:
    """One column: its type, its role, and what was fitted on it.

    Args:
        name: Its name.
        kind: Its type. A missing number is filled in by `median`, and the model normalizes by `mean` and `std`; a date
            is the number of days since 1970; a category is encoded as its index in `categories`, plus 1.
        role: `feature`, or why it is not one.
        missing: How many training rows lack it.
        median: Median over the training rows.
        mean: Mean over the training rows, missing values filled in.
        std: Standard deviation likewise; 1 if it is 0.
        offset: Subtracted before a number becomes float32, whose 24 bits would not resolve its variation.
        quantiles: Evenly spaced quantiles of a number over the training rows that have it, the smallest and the largest
            among them. Of few rows they are fewer, and some are repeated.
        categories: The values of a category, None for a missing one. Code 0 is for values unseen in training.
    """

    name: str
    kind: Kind
    role: str = "feature"
    missing: int = 0
    median: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    offset: float = 0.0
    quantiles: list[float] = field(default_factory=list)
    categories: list[str | None] = field(default_factory=list)

    @property
    def is_identifier(self) -> bool:
        """Whether it identifies the rows."""
        return self.role == IDENTIFIER

    @property
    def is_flagged(self) -> bool:
        """Whether a second column has 1 where the number was missing, else 0."""
        return self.kind != "category" and self.missing > 0


class TablePreprocessor:
    """Encodes the rows of a table by what was fitted on the training rows.

    A row is encoded as float32: the numbers, then a flag for each number that can be missing, then the codes of the
    categories.

    Args:
        columns: All columns, in the order of the training table.
    """

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns
        features = [column for column in columns if column.role == "feature"]
        self.numbers = [column for column in features if column.kind != "category"]
        self.flagged = [column for column in self.numbers if column.is_flagged]
        self.categories = [column for column in features if column.kind == "category"]
        self.features = [*self.numbers, *self.categories]

    @classmethod
    def from_state(cls, state: list[dict[str, Any]]) -> "TablePreprocessor":
        """Create it from the primitives in a checkpoint."""
        return cls([Column(**column) for column in state])

    def to_state(self) -> list[dict[str, Any]]:
        """Return everything as primitives."""
        return [asdict(column) for column in self.columns]

    def __len__(self) -> int:
        return len(self.numbers) + len(self.flagged) + len(self.categories)

    @property
    def cardinalities(self) -> list[int]:
        """Number of codes of each category, the one for unseen values included."""
        return [len(column.categories) + 1 for column in self.categories]

    def moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of each number of a row, `(F,)`; 0 and 1 for flags and codes."""
        mean, std = np.zeros(len(self), np.float32), np.ones(len(self), np.float32)
        for at, column in enumerate(self.numbers):
            mean[at], std[at] = column.mean - column.offset, column.std
        return mean, std

    def quantiles(self) -> NDArray[np.float32] | None:
        """Return quantiles of each number of a row and of its flags, `(F, Q)`; None in an older checkpoint."""
        if not all(column.quantiles for column in self.numbers):
            return None
        flags = [np.linspace(0, 1, NUM_QUANTILES).round()] * len(self.flagged)
        rows = [*(np.array(column.quantiles) - column.offset for column in self.numbers), *flags]
        return np.array(rows, np.float32).reshape(-1, NUM_QUANTILES)

    def encode(self, table: pa.Table, where: Where, source: str) -> NDArray[np.float32]:
        """Encode the rows of a table, with all features among its columns, as numbers, `(N, F)`.

        Args:
            table: The table.
            where: Returns the place of a value, for messages.
            source: The name of the table, for messages.

        Raises:
            DataError: If a feature is missing, or a value of a number is text, infinite, or too large for float32.
        """
        check_names([column.name for column in self.features], table.column_names, source)
        x = np.empty((len(table), len(self)), np.float32)
        flag = len(self.numbers)
        for at, column in enumerate(self.numbers):
            values = numbers(table[column.name], column.name, where)
            gaps = np.isnan(values)
            values = np.where(gaps, column.median, values) if gaps.any() else values
            x[:, at] = values - column.offset if column.offset else values
            if column.is_flagged:
                x[:, flag] = gaps
                flag += 1
        for at, column in enumerate(self.categories, flag):
            labels, index = texts(table[column.name], column.name, where)
            known = [value for value in column.categories if value is not None]
            met = [label for label in labels if label is not None]
            if known and met and all(map(is_number_text, met)) and not any(map(is_number_text, known)):
                row = int((index == labels.index(met[0])).argmax())
                problem = f"numbers, where the model was trained on text ({listed(known, 3)})"
                raise DataError(f"{where(row, column.name)}: {problem}")
            codes = {value: code for code, value in enumerate(column.categories, 1)}
            x[:, at] = np.array([codes.get(label, 0) for label in labels], np.float32)[index]
        return x

    def encode_row(self, raw: Mapping[str, Any]) -> NDArray[np.float32]:
        """Encode one row, a value for each feature by name (None or an absent one is missing), as `(F,)`.

        Raises:
            DataError: If a value is not of its column's kind.
        """
        check_names(list(raw), [column.name for column in self.columns], "the row")
        table = pa.table({column.name: _cell(column, raw.get(column.name)) for column in self.features})
        row: NDArray[np.float32] = self.encode(table, lambda _, name: f"{name} {raw.get(name)!r}", "the row")[0]
        return row


def _cell(column: Column, value: Any) -> pa.ChunkedArray:  # noqa: ANN401  # whatever a row may hold
    if column.kind == "date" and isinstance(value, str):  # as in a file, or in JSON
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise DataError(f"{column.name} {value!r}: a date is written as 2024-12-31") from error
    try:
        return pa.chunked_array([pa.array([value])])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{column.name} {value!r}: a table cannot hold this value") from error


def describe(columns: TablePreprocessor, table: pa.Table, rows: NDArray[np.int64] | None) -> str:
    """Return a short table of the columns: name, type, missing, distinct, role."""
    shown = columns.columns[:40]
    lines = [("column", "type", "missing", "distinct", "role")]
    few = None if rows is None else rows[:SAMPLE]
    for column in shown:
        values = table[column.name] if few is None else table[column.name].take(pa.array(few))
        count = count_distinct(values)
        distinct = "" if count is None else f"{count:,}"
        more = "+" if rows is not None and len(rows) > SAMPLE else ""
        missing = column.missing or values.null_count
        role = column.role
        if role == "feature":
            role = column.kind
            if column.kind == "category":
                role = f"category, {len(column.categories)} values"
            elif column.is_flagged:
                role += ", and whether it is missing"
        lines.append((column.name, type_name(values.type), f"{missing:,}", distinct + more, role))
    widths = [max(len(line[at]) for line in lines) for at in range(5)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    text = "\n".join("  ".join(line).rstrip() for line in padded)
    rest = len(columns.columns) - len(shown)
    return text + (f"\n... and {rest} more" if rest else "")


def fit(
    table: pa.Table, rows: NDArray[np.int64] | None, where: Where, roles: dict[str, str], kinds: dict[str, Kind]
) -> TablePreprocessor:
    """Infer the type of each column, drop uninformative ones, and fit the others on the training rows.

    Args:
        table: The whole table.
        rows: The training rows, shape `(n,)`; None for all.
        where: Returns the place of a value, for messages.
        roles: Columns that are not features: `target`, `key`, or why they are dropped.
        kinds: The types of some columns, whatever they look like.

    Raises:
        DataError: If a column of numbers has text, infinity or too large a number in it, or no feature is left.
    """
    found = [
        Column(name, "number", roles[name]) if name in roles else _fit_one(name, values, rows, where, kinds.get(name))
        for name, values in zip(table.column_names, table.columns, strict=True)
    ]
    columns = TablePreprocessor(found)
    if not len(columns):
        roles_found = "; ".join(f"{column.name}: {column.role}" for column in found)
        raise DataError(f"no column is left to learn from ({roles_found})", "`numeric` and `categorical` keep one")
    return columns


def _fit_one(
    name: str, values: pa.ChunkedArray, rows: NDArray[np.int64] | None, where: Where, kind: Kind | None
) -> Column:
    asked = kind is not None
    kind = kind or kind_of(values, name, where)
    if kind is None:
        return Column(name, "category", f"dropped: {values.type} cannot be learned from")
    column = Column(name, kind)
    if IDENTIFIER_NAME.search(name) and not asked and not pa.types.is_floating(values.type):
        seen = values if rows is None else values.take(pa.array(rows))
        if pc.count_distinct(seen, mode="all").as_py() == len(seen):
            column.role = IDENTIFIER
            return column
    if kind == "category":
        labels, index = texts(values, name, where)
        _fit_category(column, labels, index if rows is None else index[rows], asked)
    else:
        x = numbers(values, name, where)
        _fit_number(column, x if rows is None else x[rows])
    return column


def _fit_category(column: Column, labels: list[str | None], index: NDArray[np.int64], asked: bool) -> None:
    counts = np.bincount(index, minlength=len(labels)).tolist()
    seen = {label: count for label, count in zip(labels, counts, strict=True) if count}
    column.missing = seen.pop(None, 0)
    enough = max(2, min(MIN_COUNT, len(index) // 100))
    often = sorted((label for label in seen if label is not None and seen[label] >= enough), key=natural)
    often = sorted(often, key=lambda label: -seen[label or ""])[:MAX_CATEGORIES]
    column.categories = [*([None] if column.missing else []), *sorted(often, key=natural)]
    if not seen:
        column.role = "dropped: empty"
    elif len(seen) == 1 and not column.missing:
        column.role = "dropped: constant"
    elif not asked and column.missing + sum(seen[label] for label in often) < HALF * len(index):
        column.role = "dropped: most values are rare"


def _fit_number(column: Column, x: NDArray[np.floating[Any]]) -> None:
    gaps = np.isnan(x)
    column.missing = int(gaps.sum())
    if column.missing == len(x):
        column.role = "dropped: empty"
        return
    known = x[~gaps] if column.missing else x
    some = known if len(known) <= SAMPLE else known[np.random.default_rng(0).integers(0, len(known), SAMPLE)]
    column.median = float(np.median(some))
    values = np.unique(some)
    if len(values) > NUM_QUANTILES:  # otherwise each of them, so that bins end where the value changes
        bins = min(max(len(x) // ROWS_PER_BIN, MIN_BINS), NUM_QUANTILES - 1)
        values = np.quantile(some, np.linspace(0, 1, bins + 1))
    column.quantiles = np.sort(np.resize(values, NUM_QUANTILES)).tolist()
    x = np.where(gaps, column.median, x) if column.missing else x
    column.mean, std = float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64))
    column.std = std if std > 0 else 1.0
    if std and abs(column.mean) > FAR * std:
        column.offset = column.mean
    if std == 0 and not column.missing:
        column.role = "dropped: constant"
