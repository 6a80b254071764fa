"""Any samples as a data module."""

from typing import Any

from datamodules import DataModule, Samples
from datamodules.base import Stage, TaskName


class Table(DataModule):
    """Any samples, as a data module.

    Args:
        pool: The samples to learn from.
        test: The official test split.
        task: The task.
        kwargs: Options of `DataModule`.
    """

    def __init__(
        self, pool: Samples, test: Samples | None = None, task: TaskName = "multiclass", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pool, self.official = pool, test
        self.task = task
        self.input_shape = tuple(pool.x.shape[1:])
        self.class_names = None if task == "regression" else [str(label) for label in pool.y.unique().tolist()]
        self.num_outputs = len(self.class_names) if self.class_names and task == "multiclass" else 1

    def load(self) -> dict[Stage, Samples]:
        """Return the samples."""
        return {"train": self.pool} if self.official is None else {"train": self.pool, "test": self.official}
