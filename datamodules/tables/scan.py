"""One pass over a streamed table, before it is learned from."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from datamodules.tables.row_groups import STAGES, Division, RowGroups, uniform
from datamodules.tables.values import MOSTLY, NUMBER, Where, is_missing, not_a_number, numbers

SAMPLE = 2**26  # bytes of random training rows, on which the columns are fitted
LABELS = 10_000  # a target with more values than this has no classes


def _from(where: Where, start: int, row: int, column: str) -> str:
    """Return the place of a value in a part that begins with row `start`."""
    return where(start + row, column)


def _looks(values: pa.ChunkedArray, start: int) -> tuple[int, int, int | None]:
    """Count the values of a column that look like numbers, and all values; and find the first row that does not."""
    present = len(values) - values.null_count
    if not pa.types.is_string(values.type):
        return present, present, None
    fits = np.asarray(pc.fill_null(pc.match_substring_regex(values, NUMBER), True))
    row = None if fits.all() else start + int(fits.argmin())
    return int(fits.sum()) - values.null_count, present, row


@dataclass
class Scan:
    """The result of one pass over a table.

    Args:
        counts: For each split, how many rows with a target each row group has, shape `(3, groups)`.
        labels: The values of the target, each at most twice; None if they are too many for classes.
        label_rows: The first row of each label.
        sample: Random training rows with a target.
        rows: The numbers of the sampled rows.
        unlabeled: How many rows have no target.
    """

    counts: NDArray[np.int64]
    labels: pa.ChunkedArray | None
    label_rows: list[int]
    sample: pa.Table
    rows: NDArray[np.int64]
    unlabeled: int


def scan(table: RowGroups, target: str, division: Division | None, where: Where, text: Collection[str] = ()) -> Scan:
    """Read a table once: count rows, collect labels, find text among numbers, and draw a sample.

    Args:
        table: The table.
        target: Name of its target.
        division: How its rows are divided; None if all are training rows.
        where: Returns the place of a value, for messages.
        text: Columns that may have text among their numbers.

    Raises:
        DataError: If a number is infinite or too large for float32, or a column of numbers has text in it.
    """
    suspects: dict[str, list[tuple[int, int, int | None]]] = {name: [] for name in table.names if name not in text}
    counts = np.zeros((3, len(table.groups)), np.int64)
    seen: Counter[object] = Counter()
    first: dict[object, int] = {}
    share = SAMPLE / (4 * len(table.names) * max(1, table.num_rows))
    samples, rows, unlabeled = [], [], 0
    for at, group in enumerate(table.groups):
        part = table.read(group)
        here = partial(_from, where, group.start)
        for name in part.column_names:
            if pa.types.is_floating(part[name].type) and name not in text:
                numbers(part[name], name, here)
        for name in list(suspects):
            suspects[name].append(_looks(part[name], group.start))
            if suspects[name][-1][0] < MOSTLY / 2 * suspects[name][-1][1]:
                del suspects[name]  # it is text
        missing = is_missing(part[target])
        unlabeled += int(missing.sum())
        stages = division.stages(part, group.start, here) if division else np.zeros(len(part), np.int8)
        stages[missing] = -1
        counts[:, at] = [(stages == stage).sum() for stage in STAGES.values()]
        if len(seen) <= LABELS:
            met = pc.value_counts(part[target].filter(pa.array(~missing)))
            if len(met) > LABELS:  # too many for classes: skip counting each
                seen.update(range(LABELS + 1))
            else:
                for value, times in zip(met.field("values").to_pylist(), met.field("counts").to_pylist(), strict=True):
                    if value not in seen:
                        first[value] = group.start + pc.index(part[target], value).as_py()
                    seen[value] += times
        drawn = uniform(np.arange(group.start, group.start + group.size, dtype=np.uint64), 2**31) < share
        chosen = (drawn & (stages == STAGES["train"])).nonzero()[0]
        samples.append(part.take(chosen))
        rows.append(chosen + group.start)
    for name, found in suspects.items():
        fits, size = (sum(column) for column in zip(*(look[:2] for look in found), strict=True))
        row = next((row for _, _, row in found if row is not None), None)
        if row is not None and fits >= MOSTLY * size:
            raise not_a_number(where(row, name), name)
    labels, values = None, []
    if len(seen) <= LABELS:
        values = [value for value, count in seen.items() for _ in range(min(count, 2))]
        labels = pa.chunked_array([pa.array(values, table.type_of(target))])
    sample = pa.concat_tables(samples, promote_options="permissive")
    label_rows = [first[value] for value in values]
    return Scan(counts, labels, label_rows, sample.combine_chunks(), np.concatenate(rows), unlabeled)
