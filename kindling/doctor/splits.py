"""Checks of how samples are divided: duplicates on both sides, classes and splits that are too small, and shifts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules import CSVDataModule, DataModule, TextCSVDataModule
from datamodules.base import Stage
from datamodules.images.base import Transformed
from datamodules.images.user_images import UserImageDataModule
from datamodules.tables.files import Part
from datamodules.tables.values import texts
from kindling.baselines import texts as read_texts
from kindling.doctor.columns import feature_names
from kindling.doctor.findings import Finding

NUM_FOLDS = 5  # of a cross-validation, unless the data say otherwise
SMALLEST = 30  # samples of a validation split that can tell one epoch from another
VARIED = 0.1  # share of the rows that differ in some column, without which rows may be equal by chance
LONG = 20  # characters of a text that two people hardly write by chance
ROWS = 1_000_000  # of which duplicates are searched
MANY = 0.02  # share of a split
COMPARED = 2000  # samples of each side that a classifier is to tell apart
APART = 0.75  # area under its ROC curve above which they differ
HELD_OUT: tuple[Stage, ...] = ("val", "test")
SPOKEN: dict[str, str] = {"val": "validation", "test": "test", "train": "training"}


def find_small(data: DataModule) -> list[Finding]:
    """Find classes of fewer samples than folds, and a validation split by which no epoch can be chosen."""
    found = []
    folds = data.num_folds or NUM_FOLDS
    if data.class_names is not None:
        parts = {id(split.samples): split.samples.y for split in data.splits.values()}
        counts = torch.cat([y.long() for y in parts.values()]).bincount(minlength=len(data.class_names)).tolist()
        rare = [(name, count) for name, count in zip(data.class_names, counts, strict=True) if count < folds]
        if rare:
            shown = [f"{name!r} ({count})" for name, count in rare]
            what = f"classes of fewer than {folds} samples, so that some fold or split has none of them"
            found.append(Finding("classes", "medium", shown, what, "collect more of them, or join classes"))
    size = data.splits["val"].size if "val" in data.splits else SMALLEST
    if size < SMALLEST:
        what = f"{size} samples are too few to choose the best epoch by"
        remedy = "give a larger --data.val_fraction, or use cross_validate"
        found.append(Finding("validation", "low", [], what, remedy))
    return found


def find_duplicates(data: DataModule) -> list[Finding]:
    """Find samples of validation and test that are in training too, and so are known to the model."""
    if isinstance(data, CSVDataModule):
        keys = _row_keys(data)
    elif isinstance(data, TextCSVDataModule):
        keys = _text_keys(data)
    else:
        keys = _image_keys(data) if isinstance(data, UserImageDataModule) else None
    if keys is None:
        return []
    known, first = np.unique(keys["train"], return_index=True)
    known, first = known[known != 0], first[known != 0]
    said, where, worst = [], [], 0.0
    for stage in HELD_OUT:
        if stage not in keys or not len(known):
            continue
        at = np.searchsorted(known, keys[stage]).clip(max=len(known) - 1)
        same = (known[at] == keys[stage]).nonzero()[0]
        if pairs := _pairs(data, stage, same, first[at[same]]):
            said.append(f"{len(pairs):,} of {data.splits[stage].size:,} {SPOKEN[stage]} samples")
            where += pairs
            worst = max(worst, len(pairs) / data.splits[stage].size)
    if not said:
        return []
    what, severity = f"{' and '.join(said)} are in training too", "high" if worst > MANY else "medium"
    remedy = "remove them, as knowing them by heart makes results look better"
    return [Finding("duplicates", severity, where, what, remedy)]  # type: ignore[arg-type]  # one of the severities


def _pairs(data: Any, stage: Stage, rows: NDArray[np.int64], twins: NDArray[np.int64]) -> list[str]:  # noqa: ANN401
    """Return the places of samples that are the same, by their positions in a split and in training."""
    here, there = data.splits[stage].indices[rows], data.splits["train"].indices[twins]
    if isinstance(data, UserImageDataModule):
        held, trained = (data.splits[which].samples.x for which in (stage, "train"))
        names = data.source.found.images.names
        pairs = zip(held.rows[here].tolist(), trained.rows[there].tolist(), strict=True)
        images = held.images
        return [f"{names[a]} = {names[b]}" for a, b in pairs if torch.equal(images[a], images[b])]
    parts = data.source.parts
    part = parts.get(stage, parts["train"])
    if not len(here):
        return []
    places = zip(part.places(here.tolist()), parts["train"].places(there.tolist()), strict=True)
    return [f"{a} = {b}" for a, b in places]


def _row_keys(data: CSVDataModule) -> dict[Stage, NDArray[np.uint64]] | None:
    """Return a hash of each row of a split, but for its identifier; None where rows may well be equal by chance."""
    columns = data.columns.columns
    names = [column.name for column in columns if not column.is_identifier and column.name != data.key_column]
    parts = data.source.parts
    if any(len(part.table) > ROWS or set(names) - set(part.table.column_names) for part in parts.values()):
        return None
    train = parts["train"].table
    distinct = [_count(train[name]) for name in names if name != data.target_column]
    if max(distinct, default=0) < VARIED * len(train):
        return None
    hashes = {stage: _hash(part, names) for stage, part in parts.items()}
    return {
        stage: hashes[stage if stage in hashes else "train"][split.indices.numpy()]
        for stage, split in data.splits.items()
    }


def _count(values: pa.ChunkedArray) -> int:
    if pa.types.is_nested(values.type):
        return 0
    count: int = pc.count_distinct(values).as_py()
    return count


def _hash(part: Part, names: Sequence[str]) -> NDArray[np.uint64]:
    """Hash the rows of a table by their values in some columns; no hash is 0."""
    whole = np.zeros(len(part.table), np.uint64)
    for name in names:
        values = part.table[name]
        if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
            continue
        if pa.types.is_string(values.type):
            labels, index = texts(values, name, part.where)
            codes = np.array([hash(label) for label in labels], np.int64).view(np.uint64)[index]
        else:
            if pa.types.is_temporal(values.type):
                values = values.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            numbers = np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
            codes = (np.nan_to_num(numbers, nan=-1.2345e300) + 0.0).view(np.uint64)
        whole = _mixed(whole ^ _mixed(codes + np.uint64(0x9E3779B97F4A7C15)))
    return np.maximum(whole, np.uint64(1))


def _mixed(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter the bits of numbers, as SplitMix64 does."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))


def _text_keys(data: TextCSVDataModule) -> dict[Stage, NDArray[np.uint64]] | None:
    """Return a hash of each long text of a split; 0 for others."""
    if sum(split.size for split in data.splits.values()) > ROWS:
        return None
    keys = {}
    for stage, split in data.splits.items():
        found = [hash(text) if len(text) >= LONG else 0 for text in read_texts(data, stage, split.indices.numpy())]
        keys[stage] = np.array(found, np.int64).view(np.uint64)
    return keys


def _image_keys(data: UserImageDataModule) -> dict[Stage, NDArray[np.uint64]] | None:
    """Return a hash of the middle row of each decoded image; None where images are not kept decoded."""
    if not isinstance(data.source.decoded.images, Tensor):
        return None
    keys = {}
    for stage, split in data.splits.items():
        x = split.samples.x
        assert isinstance(x, Transformed)
        assert isinstance(x.images, Tensor)
        middle = x.images[:, :, x.images.shape[2] // 2][x.rows[split.indices]].numpy()
        weights = _mixed(np.arange(1, middle[0].size + 1, dtype=np.uint64))
        keys[stage] = np.maximum((middle.reshape(len(middle), -1) * weights).sum(1, dtype=np.uint64), np.uint64(1))
    return keys


def find_shifts(data: DataModule) -> list[Finding]:
    """Find files of validation or test that a classifier tells from those to train on."""
    if not isinstance(data, CSVDataModule | TextCSVDataModule):
        return []
    given = {"val": data.val_path, "test": data.test_path}
    return [found for stage in HELD_OUT if given[stage] and (found := _shift(data, stage)) is not None]


def _shift(data: CSVDataModule | TextCSVDataModule, stage: Stage) -> Finding | None:
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from kindling.baselines import Inputs, makers
    from kindling.intervals import Outcome

    sides = [_some(data.splits[which].indices) for which in ("train", stage)]
    if min(map(len, sides)) < SMALLEST:
        return None
    y = np.repeat([0, 1], [len(side) for side in sides])
    cardinalities: Sequence[int] = ()
    if isinstance(data, TextCSVDataModule):
        x = np.concatenate([read_texts(data, which, rows) for which, rows in zip(("train", stage), sides, strict=True)])
    else:
        x = np.concatenate(
            [data.splits[which].samples.x[rows].numpy() for which, rows in zip(("train", stage), sides, strict=True)]
        )
        cardinalities = data.cat_cardinalities
    maker = [*makers("binary", Inputs(x, y, x, cardinalities)).values()][-1]
    model = maker.make(20) if maker.rounds else maker.make()
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    scores = cross_val_predict(model, x, y, cv=folds, method="predict_proba")[:, 1]
    outcome = Outcome("binary", scores, y)
    area, (low, _) = outcome.metrics()["auroc"], outcome.intervals(["auroc"])["auroc"]
    if area < APART or low < (1 + APART) / 2 - 0.25:
        return None
    by = _differing(data, x, y) if isinstance(data, CSVDataModule) else []
    what = f"a classifier tells {SPOKEN[stage]} rows from training rows (AUROC {area:.2f})"
    what += f", by {' and '.join(by)}" if by else ""
    remedy = "results there say little of data like those to train on; see how the files came about"
    return Finding("shift", "medium", [], what, remedy)


def _some(indices: Tensor) -> NDArray[np.int64]:
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:COMPARED]
    rows: NDArray[np.int64] = indices[order].numpy()
    return rows


def _differing(data: CSVDataModule, x: NDArray[Any], y: NDArray[Any]) -> list[str]:
    """Return the columns in which two tables differ most."""
    gaps = {}
    numbers = x.shape[1] - len(data.cat_cardinalities)
    for at, name in enumerate(feature_names(data)):
        _, place = np.unique(x[:, at], return_inverse=True)
        place = place.reshape(-1)
        shares = [np.bincount(place[y == side], minlength=place.max() + 1) / (y == side).sum() for side in (0, 1)]
        # Kolmogorov's distance of numbers, and the total variation of categories.
        gap = shares[0] - shares[1]
        gaps[name] = np.abs(gap.cumsum()).max() if at < numbers else np.abs(gap).sum() / 2
    return [name for name in sorted(gaps, key=lambda name: -gaps[name])[:2] if gaps[name] > 0.2]
