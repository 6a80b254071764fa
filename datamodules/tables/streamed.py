"""Everything read from a streamed table: the result of one pass over it, and its splits as streams of batches."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import EVALUATION_BATCHES, Stage
from datamodules.errors import DataError, check_names
from datamodules.holdout import check_folds
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.preprocessing import describe
from datamodules.tables.row_groups import Division, RowGroups, values_of
from datamodules.tables.scan import Scan, scan
from datamodules.tables.source import TableSource
from datamodules.tables.streaming import TableStream
from datamodules.tables.values import TaskName, infer_target


class StreamedTable(TableSource):
    """Everything read from a table in row groups, in memory that does not grow with it."""

    is_streamed: ClassVar[bool] = True

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
            check_names(names, table.names, str(files.files[0]))
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
            raise DataError(f"{self.data.path}: no row is left to train on", "hold out less")
        self.data.fit(self.parts["train"], None, rows)
        found: dict[Stage, Any] = {}
        for given, (table, scanned) in self.scans.items():
            stages: tuple[Stage, ...] = ("train", "val", "test") if given == "train" else (given,)
            for counts, stage in zip(scanned.counts, stages, strict=False):
                if counts.sum():
                    division = self._division if given == "train" else None
                    found[stage] = self._stream(table, stage, self.given[given], counts, division)
        return found

    @property
    def training_targets(self) -> Tensor:
        """The targets on which statistics are fitted, `(n,)`."""
        return self.targets(self.parts["train"])

    def describe(self) -> str:
        """Return a short table of the columns, and what they were fitted on."""
        sample = self.parts["train"].table
        text = describe(self.data.columns, sample, None)
        return f"{text}\nfitted on {len(sample):,} random training rows, as the table is streamed"

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
        return self._stream(self._row_groups(self.files), "test", self.files, labeled=False)

    def keys(self, name: str) -> Iterator[Any]:
        """Yield the values of a column of all rows."""
        return values_of(self._row_groups(self.files), name)

    @property
    def settings(self) -> dict[str, Any]:
        """Options that a resumed run must share with the interrupted one; each worker reads a part of an epoch."""
        return {**super().settings, "num_workers": self.data.num_workers}

    def _row_groups(self, files: TableFiles) -> RowGroups:
        return RowGroups(files.as_parquet(), self.data.text_columns)

    @property
    def _division(self) -> Division:
        data = self.data
        return Division(
            data.seed,
            0.0 if data.test_path else data.test_fraction,
            0.0 if data.val_path else data.val_fraction,
            data.num_folds,
            data.fold,
            data.test_path is not None,
            data.group_column,
        )

    def _stream(
        self,
        table: RowGroups,
        stage: Stage,
        files: TableFiles,
        counts: NDArray[np.int64] | None = None,
        division: Division | None = None,
        labeled: bool = True,
    ) -> TableStream:
        data, trains = self.data, stage == "train"
        return TableStream(
            table,
            data.columns,
            self.target_column if labeled else None,
            data.class_names if labeled else None,
            stage,
            counts,
            division,
            data.batch_size * (1 if trains else EVALUATION_BATCHES),
            trains,
            data.seed,
            files.where,
        )
