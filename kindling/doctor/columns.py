"""Checks of a table's columns: which of them alone predicts the target, and which a random split lets leak."""

import math
import re
import shlex
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from datamodules import CSVDataModule
from datamodules.tables.preprocessing import IDENTIFIER_NAME
from datamodules.tables.values import texts
from kindling.doctor.findings import Finding

MOST = 20_000  # rows that a column is judged by, and fewer where there are many columns
NUMBERS = 2_000_000  # of the matrix that is judged
FEWEST = 30  # rows, of which half are predicted from the other half
PERFECT = 0.985  # share of what is to be explained, from which a column predicts almost perfectly
ALIKE = 0.1  # correlation of the targets of neighbors in time above which they are alike
FLAG = "whether ", " is missing"  # around the name of a column
BIRTH = re.compile(r"birth|born|dob\b", re.IGNORECASE)


def find_leaks(data: CSVDataModule) -> list[Finding]:
    """Find columns that alone predict the target almost perfectly: they often say it in another way."""
    samples, indices = data.splits["train"]
    names = feature_names(data)
    few = max(FEWEST, min(MOST, NUMBERS // max(1, len(names))))
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:few]
    x, y = (part.numpy() for part in samples[indices[order]])
    if len(y) < FEWEST:
        return []
    found = []
    for at, name in enumerate(names):
        if alone(x[:, at], y, data.class_names is not None) < PERFECT:
            continue
        column = name.removeprefix(FLAG[0]).removesuffix(FLAG[1])
        what = f"{name} alone predicts {data.target_column} almost perfectly"
        remedy = f"if it is known only afterwards, leave it out: --data.exclude {shlex.quote(f'[{column}]')}"
        found.append(Finding("leak", "high", [column], what, remedy))
    return found


def feature_names(data: CSVDataModule) -> list[str]:
    """Return what each number of an encoded row is."""
    columns = data.columns
    names = [column.name for column in columns.numbers]
    names += [f"{FLAG[0]}{column.name}{FLAG[1]}" for column in columns.flagged]
    return names + [column.name for column in columns.categories]


def alone(x: NDArray[Any], y: NDArray[Any], classes: bool) -> float:
    """Return how much of a target one column explains, by its nearest values in the other half of the rows.

    Args:
        x: The column, `(n,)`, in random order.
        y: Class indices, or values, `(n,)`.
        classes: Whether they are classes.

    Returns:
        The share of the variance of the target's ranks (few large values would decide that of the values), or of the
        errors of always guessing the commonest class, that it explains; 1 is perfect. 0 or less where the target hardly
        varies in these rows.
    """
    half = len(y) // 2
    known, place = np.unique(x[:half], return_inverse=True)
    place, new, truth = place.reshape(-1), x[half:], y[half:]
    if classes:
        number = int(y.max()) + 1
        counts = np.bincount(place * number + y[:half], minlength=len(known) * number).reshape(-1, number)
        right = np.searchsorted(known, new).clip(1, max(1, len(known) - 1))
        nearest = right - (new - known[right - 1] <= known[right.clip(max=len(known) - 1)] - new)
        guess = counts.argmax(1)[nearest.clip(0, len(known) - 1)]
        commonest = np.bincount(y[:half]).argmax()
        wrong = int((truth != commonest).sum())
        return 1 - (guess != truth).sum() / wrong if wrong >= 5 else 0.0
    y = ranks(y)
    truth = y[half:]
    means = np.bincount(place, y[:half]) / np.bincount(place)
    error = np.square(np.interp(new, known, means) - truth).sum()
    spread = np.square(truth - truth.mean()).sum()
    return float(1 - error / spread) if spread > 0 else 0.0


def ranks(y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rank of each value, `(n,)`, from 0; equal ones share their mean."""
    _, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    middle: NDArray[np.float64] = np.cumsum(counts) - (counts + 1) / 2
    return middle[place.reshape(-1)]


def find_shared_identifiers(data: CSVDataModule) -> list[Finding]:
    """Find columns that name something of which rows stand on both sides of a random split."""
    if data.group_column or data.time_column or _is_split_by_hand(data):
        return []
    part, found = data.source.parts["train"], []
    held_out = [data.splits[stage].indices.numpy() for stage in ("val", "test") if stage in data.splits]
    rows = data.splits["train"].indices.numpy()
    for name in part.table.column_names:
        values = part.table[name]
        named = IDENTIFIER_NAME.search(name) or re.search(r"(?i)[\W_]id$", name)
        if name == data.target_column or not named or pa.types.is_floating(values.type) or not held_out:
            continue
        labels, index = texts(values, name, part.where)
        size = len(labels)
        # A few shops or machines come again; people seldom do.
        if not max(10, len(index) / 100) <= size <= len(index) / 1.2:
            continue
        shared = np.isin(index[np.concatenate(held_out)], index[rows]).mean()
        if shared < 0.1:
            continue
        what = f"{name} has {size:,} values in {len(index):,} rows, and {shared:.0%} of the held-out rows share theirs "
        what += "with rows to train on"
        remedy = f"if new ones are to be predicted, hold out whole ones: --data.group_column {name}"
        found.append(Finding("identifier", "medium", [name], what, remedy))
    return found


def find_dates(data: CSVDataModule) -> list[Finding]:
    """Find times by which neighbors are alike, which a random split puts on both sides."""
    if data.group_column or data.time_column or _is_split_by_hand(data):
        return []
    part, found = data.source.parts["train"], []
    y = data.splits["train"].samples.y.numpy()
    for column in data.columns.columns:
        values = part.table[column.name]
        if not pa.types.is_temporal(values.type) or pa.types.is_duration(values.type) or BIRTH.search(column.name):
            continue
        known = np.asarray(pc.is_valid(values)).nonzero()[0]
        times = values.take(pa.array(known))
        if len(known) < FEWEST or pc.count_distinct(times).as_py() < len(known) / 10:
            continue
        order = known[np.asarray(pc.sort_indices(times))]
        alike = neighbors_alike(y[order], data.class_names is not None)
        if alike < max(ALIKE, 4 / math.sqrt(len(order))):
            continue
        first, last = (str(value)[:10] for value in (pc.min(times).as_py(), pc.max(times).as_py()))
        what = f"rows near in {column.name} ({first} to {last}) have a like {data.target_column} "
        what += f"(correlation {alike:.2f}), and a random split puts them on both sides"
        remedy = f"if later rows are to be predicted: --data.time_column {column.name}"
        found.append(Finding("date", "medium", [column.name], what, remedy))
    return found[:1]  # the others tell the same


def neighbors_alike(y: NDArray[Any], classes: bool) -> float:
    """Return the correlation of the targets of neighbors, 0 to 1, from targets in their order, `(n,)`."""
    y = y == np.bincount(y).argmax() if classes else ranks(y)
    y = y - y.mean()
    total = np.square(y).sum()
    return float((y[:-1] * y[1:]).sum() / total) if total else 0.0


def _is_split_by_hand(data: CSVDataModule) -> bool:
    return data.test_path is not None
