"""Everything read from a table in memory."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from datamodules.base import Stage
from datamodules.sampler import Inputs, Samples, Split
from datamodules.tables.files import Part
from datamodules.tables.preprocessing import describe
from datamodules.tables.source import TableSource


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
