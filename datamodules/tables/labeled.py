"""The base of data modules for tables with a column to predict."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from datamodules.base import Stage
from datamodules.errors import DataError, check_names
from datamodules.sampler import Samples
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.values import TaskName, count_distinct, encode_target, infer_target
from datamodules.user_data import Source, UserDataModule


class LabeledSource(Source):
    """Everything read from the tables of a `LabeledDataModule`; `files` are those at its path."""

    data: "LabeledDataModule"

    def __init__(self, data: "LabeledDataModule", files: TableFiles) -> None:
        super().__init__(data)
        self.files = files

    @property
    @abstractmethod
    def target_column(self) -> str:
        """The name of the column to predict."""

    @cached_property
    def given(self) -> dict[Stage, TableFiles]:
        """The files to train on, under `train`, and those of their own for validation and test."""
        paths: dict[Stage, Any] = {"val": self.data.val_path, "test": self.data.test_path}
        others = {stage: self.data.open(path, f"{stage}_path") for stage, path in paths.items() if path is not None}
        return {"train": self.files, **others}

    @cached_property
    def parts(self) -> dict[Stage, Part]:
        """The rows of the given files that have a target."""
        return {stage: self.labeled(files) for stage, files in self.given.items()}

    @abstractmethod
    def labeled(self, files: TableFiles) -> Part:
        """Read the rows that have a target."""

    @cached_property
    def whole(self) -> Part:
        """All rows at the path, with or without a target."""
        return Part(self.files, self.files.read())

    @cached_property
    def target(self) -> tuple[TaskName, list[str] | None]:
        """The task, and the names of its classes, as inferred from the rows to train on."""
        part, name, task = self.parts["train"], self.target_column, self.data.given_task
        if task is None and name in self.files.categories:
            task = "binary" if count_distinct(part.table[name]) == 2 else "multiclass"
        return infer_target(part.table[name], name, task, part.where, self.data.target_option)

    def targets(self, part: Part) -> Tensor:
        """Return class indices, int64, or values in their own unit, float32; shape `(N,)`.

        Raises:
            DataError: If a label is none of the training classes, or a value is not a number.
        """
        name, classes = self.target_column, self.data.class_names
        check_names([name], part.table.column_names, part.files.name)
        return torch.from_numpy(encode_target(part.table[name], name, classes, part.where, self.data.target_option))


class LabeledDataModule(UserDataModule):
    """Base of data modules for tables with a column to predict.

    A leaf defines `open` and `open_source`, and fills in the inputs when the samples are divided.

    Args:
        path: A file, a folder or a glob. `predict` predicts all of it; `test` tests all of it if the model was not
            trained on it.
        val_path: Separate files for validation.
        test_path: Separate files for the test.
        task: `regression`, `binary` or `multiclass`; inferred from the target unless given.
        header: Whether the first line has the names of the columns; inferred unless given, as are the following
            options. Columns without names are called x1, x2, ... and y.
        delimiter: The character between two values.
        quote: The character around values that contain a delimiter.
        decimal: The decimal sign.
        encoding: Python's name of the encoding; detected for each file unless given.
        missing_values: Further signs of a missing value, besides the usual ones.
        kwargs: Options of `UserDataModule` and `DataModule`.
    """

    target_option = "target"  # the option that names the column to predict

    def __init__(
        self,
        path: str = "",
        val_path: str | None = None,
        test_path: str | None = None,
        task: TaskName | None = None,
        header: bool | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
        missing_values: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(path, **kwargs)
        self.val_path: str | pa.Table | None = val_path
        self.test_path: str | pa.Table | None = test_path
        self.given_task = task
        self.dialect = header, delimiter, quote, decimal, encoding, tuple(missing_values)

    @abstractmethod
    def open(self, path: str, option: str = "path") -> TableFiles:
        """Find the files of a table; `option` names the argument that gave the path, for messages."""

    @property
    def source(self) -> LabeledSource:
        """Everything read from the tables."""
        source: LabeledSource = super().source
        return source

    def open_path(self) -> TableFiles:
        """Find the files at `path`."""
        if not self.path:
            raise DataError("give the table, a file, a folder or a glob", option="path")
        return self.open(self.path)

    @property
    def target_column(self) -> str:
        """The name of the column to predict."""
        return self.source.target_column

    @cached_property
    def task(self) -> TaskName:  # type: ignore[override]  # found when it is asked for
        """The kind of target."""
        return self.source.target[0]

    @cached_property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """The labels, sorted: numbers by size, then text."""
        return self.source.target[1]

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Logits of each row: one for each class if there are several."""
        return len(self.class_names or ()) if self.task == "multiclass" else 1

    def load(self) -> dict[Stage, Samples]:
        """Read the targets; the inputs follow once the training rows are known."""
        return {stage: Samples(torch.empty(0), self.source.targets(part)) for stage, part in self.source.parts.items()}

    @property
    def detected_encoding(self) -> str | None:
        """The encoding of all files to train, validate and test on, if it was detected and is not UTF-8."""
        found = {files.detected_encoding for files in self.source.given.values()}
        return found.pop() if len(found) == 1 else None

    @property
    def fingerprint(self) -> str:
        """The hash of the table's content."""
        return self.source.files.fingerprint
