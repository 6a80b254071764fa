"""Fits the columns of a table on its training rows: types, missing values, categories, moments."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamodules.errors import DataError
from datamodules.tables.preprocessing import IDENTIFIER, SAMPLE, Column, TablePreprocessor
from datamodules.tables.values import Kind, Where, kind_of, natural, numbers, texts

HALF = 0.5  # a text column of which fewer rows repeat a value than this is no category
MIN_COUNT = 5  # a category in fewer training rows counts as unseen; in small tables, in fewer than 1 % of them
FAR = 1000  # standard deviations from 0: where float32 would resolve fewer than some 10,000 steps of one
MAX_CATEGORIES = 1000  # of one column, the most frequent ones
IDENTIFIER_NAME = re.compile(
    r"(?i:(?:^|[\W_])(?:id|uuid|guid|index|key|rownames|unnamed)(?:[\W_\d]|$))|[a-z](?:Id|ID)$|^column_1$"
)


def fit(
    table: pa.Table,
    rows: NDArray[np.int64] | None,
    where: Where,
    roles: dict[str, str],
    kinds: dict[str, Kind],
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
    found = []
    for name in table.column_names:
        if name in roles:
            found.append(Column(name, "number", roles[name]))
        else:
            found.append(_fit_one(name, table[name], rows, where, kinds.get(name)))
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
    named = IDENTIFIER_NAME.search(name) and not asked and not pa.types.is_floating(values.type)
    if named and _all_differ(values, rows):
        column.role = IDENTIFIER
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
    column.median = float(np.median(thin(known)))
    x = np.where(gaps, column.median, x) if column.missing else x
    column.mean, std = float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64))
    column.std = std if std > 0 else 1.0
    if std and abs(column.mean) > FAR * std:
        column.offset = column.mean
    if std == 0 and not column.missing:
        column.role = "dropped: constant"


def thin(x: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return `SAMPLE` random values of `x`, the same every time, or all of them if there are no more."""
    return x if len(x) <= SAMPLE else x[np.random.default_rng(0).integers(0, len(x), SAMPLE)]
