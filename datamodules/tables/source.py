"""Everything read from a table in memory, and the base of that of a streamed table."""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from datamodules.base import Stage
from datamodules.errors import DataError, check_names
from datamodules.sampler import Inputs, Samples, Split
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.labeled import LabeledSource
from datamodules.tables.preprocessing import describe
from datamodules.tables.values import is_missing

if TYPE_CHECKING:
    from datamodules.tables.csv import CSVDataModule

logger = logging.getLogger(__name__)


class TableSource(LabeledSource):
    """Everything read from the tables of a `CSVDataModule`; a leaf keeps them in memory, or streams them.

    Args:
        data: The data module.
        files: The files at its path.
    """

    is_streamed: ClassVar[bool]
    data: "CSVDataModule"

    @cached_property
    def target_column(self) -> str:
        """The name of the column to predict."""
        data, names = self.data, self.files.names
        target = data.target or names[-1]
        check_names([target], names, data.path, "target", target)
        if target in (*data.exclude, data.key_column, data.group_column, data.time_column):
            raise DataError("it cannot be predicted and excluded at once", "name another", "target", target)
        return target

    def labeled(self, files: TableFiles) -> Part:
        """Read the rows that have a target."""
        table = files.read()
        check_names([self.target_column], table.column_names, str(files.files[0]))
        missing = is_missing(table[self.target_column])
        self.check_labeled(files, int(missing.sum()), len(table))
        if not missing.any():
            return Part(files, table)
        rows = (~missing).nonzero()[0]
        return Part(files, table.take(rows), rows)

    def check_labeled(self, files: TableFiles, unlabeled: int, size: int) -> None:
        """Warn about rows without a target; raise an error if no row has one."""
        if unlabeled == size:
            raise DataError(f"{files.files[0]}: no row has a value in the target column {self.target_column!r}")
        if unlabeled:
            logger.warning(
                "%s: %s rows without a value of %s are dropped", files.files[0], f"{unlabeled:,}", self.target_column
            )

    def warn_new(self) -> None:
        """Log that a model is tested on another table than its own, which is not divided."""
        logger.info("%s is not what the model was trained on: all of its rows are used", self.data.path)

    def warn_unknown(self) -> None:
        """Log the columns that the model was not trained with."""
        known = {column.name for column in self.data.columns.columns}
        unknown = [name for name in self.files.names if name not in known]
        if unknown:
            names = ", ".join(unknown)
            logger.warning("%s: columns that the model does not know are ignored: %s", self.data.path, names)

    @property
    def settings(self) -> dict[str, Any]:
        """Options that a resumed run must share with the interrupted one."""
        return {"streaming": self.is_streamed}

    @property
    @abstractmethod
    def training_targets(self) -> Tensor:
        """The targets on which statistics are fitted, `(n,)`."""

    @abstractmethod
    def describe(self) -> str:
        """Return a short table of the columns."""

    @abstractmethod
    def keys(self, name: str) -> Iterator[Any]:
        """Yield the values of a column of all rows."""


class TableInMemory(TableSource):
    """Everything read from a table that fits in memory."""

    is_streamed: ClassVar[bool] = False

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
        return torch.from_numpy(self.data.columns.encode(part.table, part.where, str(part.files.files[0])))

    @property
    def training_targets(self) -> Tensor:
        """The targets on which statistics are fitted, `(n,)`."""
        return self.targets(self.parts["train"])[self.splits["train"].indices]

    def describe(self) -> str:
        """Return a short table of the columns."""
        return describe(self.data.columns, self.parts["train"].table, self.splits["train"].indices.numpy())

    @cached_property
    def everything(self) -> Any:  # noqa: ANN401  # a data set
        """All rows that have a target."""
        self.warn_new()
        part = self.labeled(self.files)
        return Samples(self._encode(part), self.targets(part))

    @cached_property
    def unlabeled(self) -> Any:  # noqa: ANN401
        """All rows, without their targets."""
        self.warn_unknown()
        return Inputs(self._encode(self.whole))

    def keys(self, name: str) -> Iterator[Any]:
        """Yield the values of a column of all rows."""
        return iter(self.whole.table[name].to_pylist())
