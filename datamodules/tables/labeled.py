"""Tables of one's own with a column to predict: from files to rows and their targets."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from datamodules.base import Stage
from datamodules.errors import DataError, check_names
from datamodules.sampler import Samples
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.values import TaskName, encode_target, infer_target
from datamodules.user_data import UserDataModule


class LabeledDataModule(UserDataModule):
    """Base of data modules for tables, a column of which is to be predicted.

    A leaf gives `open`, `target_column` and `labeled`, and fills in the inputs when the samples are divided.

    Args:
        path: A file, a folder or a glob. `predict` predicts all of it; `test` tests all of it if it is not what the
            model was trained on.
        val_path: Files of their own for validation.
        test_path: Files of their own for the test.
        task: `regression`, `binary` or `multiclass`; inferred from the target unless given.
        kwargs: Options of `UserDataModule` and `DataModule`.
    """

    target_flag = "--data.target"  # the option that names the column to predict

    def __init__(
        self,
        path: str = "",
        val_path: str | None = None,
        test_path: str | None = None,
        task: TaskName | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, **kwargs)
        self.val_path, self.test_path = val_path, test_path
        self._task = task

    @abstractmethod
    def open(self, path: str, flag: str) -> TableFiles:
        """Find the files of a table; `flag` is the option that gave the path."""

    @property
    @abstractmethod
    def target_column(self) -> str:
        """The name of the column to predict."""

    @abstractmethod
    def labeled(self, files: TableFiles) -> Part:
        """Read the rows to learn from, or to test on."""

    @cached_property
    def task(self) -> TaskName:  # type: ignore[override]  # found when it is asked for
        """What kind of target this is."""
        return self._target[0]

    @cached_property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """The labels, sorted: numbers by size, then text."""
        return self._target[1]

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Scores for each row: one for each class if there are several."""
        return len(self.class_names or ()) if self.task == "multiclass" else 1

    @cached_property
    def _target(self) -> tuple[TaskName, list[str] | None]:
        part, name = self._parts["train"], self.target_column
        return infer_target(part.table[name], name, self._task, part.where, self.target_flag)

    @cached_property
    def _files(self) -> TableFiles:
        if not self.path:
            raise DataError("--data.path: give the table, a file, a folder or a glob.")
        return self.open(self.path, "--data.path")

    @cached_property
    def _sources(self) -> dict[Stage, TableFiles]:
        paths: dict[Stage, str | None] = {"val": self.val_path, "test": self.test_path}
        others = {stage: self.open(path, f"--data.{stage}_path") for stage, path in paths.items() if path is not None}
        return {"train": self._files, **others}

    @cached_property
    def _parts(self) -> dict[Stage, Part]:
        """The rows of each source that have a target."""
        return {stage: self.labeled(files) for stage, files in self._sources.items()}

    @cached_property
    def _whole(self) -> Part:
        """All rows, whether they have a target or not."""
        return Part(self._files, self._files.read())

    def load(self) -> dict[Stage, Samples]:
        """Read the targets; the inputs follow once the training rows are known."""
        return {stage: Samples(torch.empty(0), self.targets(part)) for stage, part in self._parts.items()}

    def targets(self, part: Part) -> Tensor:
        """Give class indices, int64, or values in their own unit, float32; shape `(N,)`.

        Raises:
            DataError: If a label is none of those that are trained on, or a value is no number.
        """
        name = self.target_column
        check_names([name], part.table.column_names, str(part.files.files[0]))
        return torch.from_numpy(encode_target(part.table[name], name, self.class_names, part.where, self.target_flag))

    @property
    def fingerprint(self) -> str:
        """What the table hashes to."""
        return self._files.fingerprint
