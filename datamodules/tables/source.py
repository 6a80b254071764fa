"""Everything read from a table: in memory, or streamed, as one pass over it and streams of batches."""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import EVALUATION_BATCHES, Stage
from datamodules.errors import DataError, check_names
from datamodules.sampler import Inputs, Samples, Split
from datamodules.splits import check_folds
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.labeled import LabeledSource
from datamodules.tables.preprocessing import describe
from datamodules.tables.row_groups import Division, RowGroups, Scan, scan
from datamodules.tables.streaming import TableStream
from datamodules.tables.values import TaskName, infer_target, is_missing

if TYPE_CHECKING:
    from datamodules.tables.csv import CSVDataModule

logger = logging.getLogger(__name__)


class TableSource(LabeledSource):
    """Everything read from the tables of a `CSVDataModule`; a leaf keeps them in memory, or streams them."""

    is_streamed: ClassVar[bool]
    data: "CSVDataModule"

    @property
    @abstractmethod
    def training_rows(self) -> NDArray[np.int64] | None:
        """The rows of the training part on which columns and statistics are fitted, `(n,)`; None for all."""

    @abstractmethod
    def keys(self, name: str) -> Iterator[Any]:
        """Yield the values of a column of all rows."""

    @cached_property
    def target_column(self) -> str:
        """The name of the column to predict."""
        data, names = self.data, self.files.names
        target = data.target or names[-1]
        check_names([target], names, self.files.path, "target", target)
        if target in (*data.exclude, data.key_column, data.group_column, data.time_column):
            raise DataError("it cannot be predicted and excluded at once", "name another", "target", target)
        return target

    def labeled(self, files: TableFiles) -> Part:
        """Read the rows that have a target."""
        table = files.read()
        check_names([self.target_column], table.column_names, files.name)
        missing = is_missing(table[self.target_column])
        self.check_labeled(files, int(missing.sum()), len(table))
        if not missing.any():
            return Part(files, table)
        rows = (~missing).nonzero()[0]
        return Part(files, table.take(rows), rows)

    @cached_property
    def labeled_path(self) -> Part:
        """The rows at the path that have a target, whatever other files there are."""
        return self.labeled(self.files)

    def check_labeled(self, files: TableFiles, unlabeled: int, size: int) -> None:
        """Warn about rows without a target; raise an error if no row has one."""
        if unlabeled == size:
            raise DataError(f"{files.name}: no row has a value in the target column {self.target_column!r}")
        if unlabeled:
            logger.warning(
                "%s: %s rows without a value of %s are dropped", files.name, f"{unlabeled:,}", self.target_column
            )

    def warn_new(self) -> None:
        """Log that a model is tested on another table than its own, which is not divided."""
        logger.info("%s is not what the model was trained on: all of its rows are used", self.files.path)

    def warn_unknown(self) -> None:
        """Log the columns that the model was not trained with."""
        known = {column.name for column in self.data.columns.columns}
        unknown = [name for name in self.files.names if name not in known]
        if unknown:
            names = ", ".join(unknown)
            logger.warning("%s: columns that the model does not know are ignored: %s", self.files.path, names)

    @property
    def settings(self) -> dict[str, Any]:
        """Options that a resumed run must share with the interrupted one."""
        return {"streaming": self.is_streamed}

    @property
    def training_targets(self) -> Tensor:
        """The targets on which statistics are fitted, `(n,)`."""
        targets, rows = self.targets(self.parts["train"]), self.training_rows
        return targets if rows is None else targets[rows]

    def describe(self) -> str:
        """Return a short table of the columns."""
        return describe(self.data.columns, self.parts["train"].table, self.training_rows)


class TableInMemory(TableSource):
    """Everything read from a table that fits in memory."""

    is_streamed = False

    @property
    def training_rows(self) -> NDArray[np.int64]:
        """The training rows among those that have a target, `(n,)`."""
        rows: NDArray[np.int64] = self.splits["train"].indices.numpy()
        return rows

    @cached_property
    def splits(self) -> dict[Stage, Any]:
        """The training, validation and test splits; an empty one is absent."""
        given = self.data.load()
        splits: dict[Stage, Split] = self.data.divide(given)
        self.data.fit(self.parts["train"], splits["train"].indices.numpy(), splits["train"].size)
        for stage, part in self.parts.items():
            given[stage].x = self._encode(part)
            part.files.keep()
        return splits

    def _encode(self, part: Part) -> Tensor:
        return torch.from_numpy(self.data.columns.encode(part.table, part.where, part.files.name))

    @cached_property
    def everything(self) -> Any:  # noqa: ANN401  # a data set
        """All rows that have a target."""
        self.warn_new()
        part = self.labeled_path
        return Samples(self._encode(part), self.targets(part))

    @cached_property
    def unlabeled(self) -> Any:  # noqa: ANN401
        """All rows, without their targets."""
        self.warn_unknown()
        return Inputs(self._encode(self.whole))

    def keys(self, name: str) -> Iterator[Any]:
        """Yield the values of a column of all rows."""
        return iter(self.whole.table[name].to_pylist())


class StreamedTable(TableSource):
    """Everything read from a table in row groups, in memory that does not grow with it."""

    is_streamed, training_rows = True, None

    @cached_property
    def scans(self) -> dict[Stage, tuple[RowGroups, Scan]]:
        """Each given table in row groups, and the result of one pass over it."""
        data = self.data
        for option, value, unset in (("balance", data.balance, "none"), ("time_column", data.time_column, None)):
            if value != unset:
                raise DataError("a streamed table does not have this option", "give `streaming=False`", option, value)
        check_folds(data.num_folds, self.given.keys())
        found = {}
        for stage, files in self.given.items():
            table = self._row_groups(files)
            names = [self.target_column, *([data.group_column] if data.group_column and stage == "train" else [])]
            check_names(names, table.names, files.name)
            division = self._division if stage == "train" else None
            scanned = scan(table, self.target_column, division, files.where, data.text_columns)
            self.check_labeled(files, scanned.unlabeled, table.num_rows)
            found[stage] = (table, scanned)
        return found

    @cached_property
    def parts(self) -> dict[Stage, Part]:
        """Random rows that have a target."""
        return {stage: Part(self.given[stage], found.sample, found.rows) for stage, (_, found) in self.scans.items()}

    @cached_property
    def target(self) -> tuple[TaskName, list[str] | None]:
        """The task, and the names of its classes, as inferred from all values of the target."""
        scanned = self.scans["train"][1]
        if scanned.labels is None:
            return super().target
        name, rows = self.target_column, scanned.label_rows
        return infer_target(
            scanned.labels, name, self.data.given_task, lambda row, column: self.files.where(rows[row], column)
        )

    @cached_property
    def splits(self) -> dict[Stage, Any]:
        """The training, validation and test splits, a `TableStream` each; an empty one is absent."""
        rows = int(self.scans["train"][1].counts[0].sum())
        if not rows:
            raise DataError(f"{self.files.path}: no row is left to train on", "hold out less")
        self.data.fit(self.parts["train"], None, rows)
        found: dict[Stage, Any] = {}
        for given, (table, scanned) in self.scans.items():
            stages: tuple[Stage, ...] = ("train", "val", "test") if given == "train" else (given,)
            for counts, stage in zip(scanned.counts, stages, strict=False):
                if counts.sum():
                    division = self._division if given == "train" else None
                    found[stage] = self._stream(table, stage, self.given[given], counts, division)
        return found

    def describe(self) -> str:
        """Return a short table of the columns, and what they were fitted on."""
        size = len(self.parts["train"].table)
        return f"{super().describe()}\nfitted on {size:,} random training rows, as the table is streamed"

    @cached_property
    def everything(self) -> TableStream:
        """All rows that have a target."""
        self.warn_new()
        table, scanned = self.scans["train"]
        return self._stream(table, "test", self.files, scanned.counts.sum(0))

    @cached_property
    def unlabeled(self) -> TableStream:
        """All rows, without their targets."""
        self.warn_unknown()
        table = self._row_groups(self.files)
        counts = np.array([group.size for group in table.groups])
        return self._stream(table, "test", self.files, counts, labeled=False)

    def keys(self, name: str) -> Iterator[Any]:
        """Yield the values of a column of all rows."""
        table = self._row_groups(self.files)
        return (value for group in table.groups for value in table.read(group, [name])[name].to_pylist())

    @property
    def settings(self) -> dict[str, Any]:
        """Options that a resumed run must share with the interrupted one; each worker reads a part of an epoch."""
        return {**super().settings, "num_workers": self.data.num_workers}

    def _row_groups(self, files: TableFiles) -> RowGroups:
        return RowGroups(files.as_parquet(), self.data.text_columns)

    @property
    def _division(self) -> Division:
        data, has_test = self.data, self.data.test_path is not None
        test, val = 0.0 if has_test else data.test_fraction, 0.0 if data.val_path else data.val_fraction
        return Division(data.seed, test, val, data.num_folds, data.fold, has_test, data.group_column)

    def _stream(
        self,
        table: RowGroups,
        stage: Stage,
        files: TableFiles,
        counts: NDArray[np.int64],
        division: Division | None = None,
        labeled: bool = True,
    ) -> TableStream:
        data, trains = self.data, stage == "train"
        target, classes = (self.target_column, data.class_names) if labeled else (None, None)
        size = data.batch_size * (1 if trains else EVALUATION_BATCHES)
        columns, where = data.columns, files.where
        order, drop_last = (size, trains, data.seed), trains and data.drop_last
        return TableStream(table, columns, target, classes, stage, counts, division, *order, where, drop_last)
