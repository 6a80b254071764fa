"""A user's table: CSV, TSV or Parquet files, or a data frame, from a messy table to batches."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.base import Stage
from datamodules.errors import DataError, check_names, listed
from datamodules.splits import Holdout
from datamodules.statistics import moments
from datamodules.tables.dialect import Dialect
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.frames import Table, TableFrame, check_flat, is_frame, to_arrow
from datamodules.tables.labeled import LabeledDataModule
from datamodules.tables.preprocessing import TablePreprocessor, fit
from datamodules.tables.source import StreamedTable, TableInMemory, TableSource
from datamodules.tables.streaming import TableStream
from datamodules.tables.values import Kind, TaskName, sort_key, texts
from datamodules.user_data import physical_memory

logger = logging.getLogger(__name__)

SMALLEST_BATCH, LARGEST_BATCH = 64, 1024  # rows, unless `batch_size` is given
PACKED = 5  # about how many times its size a gzip file unpacks to
FILE_OPTIONS = ("header", "delimiter", "quote", "decimal", "encoding", "streaming")  # without a meaning for frames


class CSVDataModule(LabeledDataModule):
    """A table with a column to predict, in CSV, TSV (plain or gzip) or Parquet files, detected from the content.

    In Python it may also be a data frame, of which all of this is true but for what concerns files. A frame is not kept
    in the checkpoint; a hash of it is.

    The types of the columns are inferred, and can be overridden. A batch is one float32 matrix `(B, F)` with its
    targets: the numbers, a flag for each number that can be missing, then the codes of the categories;
    `cat_cardinalities` has the number of codes of each category. Medians, means and categories are fitted on the
    training rows and kept in the checkpoint. A parsed table is cached as Parquet in `cache_dir`.

    Args:
        path: A file, a folder or a glob; in Python also a DataFrame of pandas or polars, an Arrow table or a dict of
            columns. `predict` predicts all of it; `test` tests all of it if the model was not trained on it.
        target: The column to predict; the last one unless given.
        val_path: A separate table for validation.
        test_path: A separate table for the test.
        task: `regression`, `binary` or `multiclass`; inferred from the target unless given.
        key_column: A column that identifies the rows: it is not a feature, and is written next to the predictions. By
            default one that is detected as an identifier.
        group_column: Rows with the same value here are never divided between training and a held-out split.
        time_column: The last rows by this column are held out. Folds are then successive: each is predicted from all
            rows before it.
        stratify: Whether each split has the same share of every class.
        numeric: Columns of numbers, whatever they look like.
        categorical: Columns of categories, whatever they look like.
        exclude: Columns that are not features.
        streaming: Whether to read the table in parts while training, in memory that does not grow with it; by default
            if it is larger than a quarter of the memory. Rows are then divided by a hash of their number (or group),
            columns are fitted on a random sample of the training rows, and `balance` and `time_column` are unavailable.
        batch_size: Rows in a training batch; by default a power of two near a hundredth of the training rows, from
            64 to 1024.
        kwargs: Options of `LabeledDataModule`, `UserDataModule` and `DataModule`.

    Raises:
        DataError: If the table cannot be read or learned from; the message names the file, line or column.
    """

    def __init__(
        self,
        path: Table = "",
        target: str | None = None,
        val_path: Table | None = None,
        test_path: Table | None = None,
        task: TaskName | None = None,
        key_column: str | None = None,
        group_column: str | None = None,
        time_column: str | None = None,
        stratify: bool = True,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        exclude: Sequence[str] = (),
        streaming: bool | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        tables = {"path": path, "val_path": val_path, "test_path": test_path}
        frames = {option: to_arrow(given, option) for option, given in tables.items() if is_frame(given)}
        given = path if "path" in frames else None
        paths = {name: None if name in frames or given is None else str(given) for name, given in tables.items()}
        # Only paths are left of these arguments: Lightning saves them as hyperparameters, and a frame is none.
        path, val_path, test_path = paths["path"] or "", paths["val_path"], paths["test_path"]
        batch = LARGEST_BATCH if batch_size is None else batch_size
        super().__init__(path, val_path, test_path, task, batch_size=batch, **kwargs)
        self._given_frame, self._frame = given, frames.get("path")
        self.val_path, self.test_path = frames.get("val_path", val_path), frames.get("test_path", test_path)
        self._choose_batch_size = batch_size is None
        # The columns of a frame may have numbers for names.
        self.target, self.key_column, self.group_column, self.time_column = (
            name if name is None else str(name) for name in (target, key_column, group_column, time_column)
        )
        self.stratify = stratify
        self.exclude = [str(name) for name in exclude]
        numeric, categorical = [str(name) for name in numeric], [str(name) for name in categorical]
        self.kinds: dict[str, Kind] = {**dict.fromkeys(numeric, "number"), **dict.fromkeys(categorical, "category")}
        self.streaming = streaming
        self._columns: TablePreprocessor | None = None  # fitted, or from a checkpoint
        both = set(numeric) & set(categorical)
        if both:
            raise DataError(f"{sorted(both)} cannot be numbers and categories at once", option="numeric")
        if group_column and time_column:
            raise DataError("rows are divided by group or by time, not both", "", "group_column", group_column)
        for option, table in frames.items():
            check_flat(table, self.exclude, option)
        for option, value in {**kwargs, "streaming": streaming or None}.items():
            if option in FILE_OPTIONS and value is not None and frames and not any(paths.values()):
                raise DataError("it is an option of files, and a frame was given", "leave it out", option, value)

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of an encoded row, `(F,)`."""
        return (len(self.columns),)

    @property
    def cat_cardinalities(self) -> list[int]:
        """Number of codes of each category; the codes are the last numbers of a row."""
        return self.columns.cardinalities

    @property
    def columns(self) -> TablePreprocessor:
        """The columns as fitted on the training rows, or loaded from a checkpoint."""
        if self._columns is None:
            _ = self.splits
        assert self._columns is not None
        return self._columns

    def open(self, path: str | pa.Table, option: str = "path") -> TableFiles:
        """Find the files of a table, or take a frame; `option` names the argument that gave it, for messages."""
        if isinstance(path, pa.Table):
            return TableFrame(path, option, self.text_columns, self.dialect[-1])
        names = None if self._columns is None else [column.name for column in self._columns.columns]
        return TableFiles(path, Dialect(*self.dialect), self.cache_dir, option, names, self.text_columns)

    def open_path(self) -> TableFiles:
        """Find the files at `path`, or take the frame."""
        return super().open_path() if self._frame is None else self.open(self._frame)

    def new(self, path: Table) -> "CSVDataModule":
        """Return the data module of another table, encoded as this one, to test or use a model that was trained on it.

        Args:
            path: A file, a folder or a glob, or a frame.

        Raises:
            DataError: If it cannot be read.
        """
        left_out = {"path", "val_path", "test_path", *(FILE_OPTIONS if is_frame(path) else ())}
        options = {name: value for name, value in self.hparams.items() if name not in left_out}
        other = type(self)(path, **options)
        other.load_state_dict({**self.state_dict(), "trained_on": self.fingerprint})
        return other

    def open_source(self) -> TableSource:
        """Open the table, to be held in memory or streamed."""
        files, streamed = self.open_path(), self.streaming
        if streamed is None:
            streamed = files.size * (PACKED if files.is_packed else 1) > physical_memory() / 4
        return StreamedTable(self, files) if streamed else TableInMemory(self, files)

    @property
    def source(self) -> TableSource:
        """Everything read from the table, in memory or streamed."""
        source = super().source
        assert isinstance(source, TableSource)
        return source

    @property
    def text_columns(self) -> list[str]:
        """Columns that are read as text, though they may look like numbers."""
        learned = [] if self._columns is None else [column.name for column in self._columns.categories]
        key = [] if self.key_column is None else [self.key_column]
        return [*self._asked()["categorical"], *learned, *key, *self.exclude]

    @property
    def holdout(self) -> Holdout:
        """How rows in memory are held out: whole groups, the last in time, or at random."""
        part, groups, times = self.source.parts["train"], None, None
        if self.group_column is not None:
            values = part.column(self.group_column, "group_column")
            groups = torch.from_numpy(texts(values, self.group_column, part.where)[1])
        if self.time_column is not None:
            values = part.column(self.time_column, "time_column")
            times = torch.from_numpy(sort_key(values, self.time_column, part.where))
        return replace(super().holdout, stratify=self.stratify, groups=groups, times=times)

    def fit(self, part: Part, rows: NDArray[np.int64] | None, size: int) -> None:
        """Fit the columns, unless they came with a checkpoint, and choose a batch size.

        Args:
            part: The rows that have a target.
            rows: The training rows among them, `(n,)`; None for all.
            size: How many training rows the whole table has.
        """
        if self._columns is None:
            kinds: dict[str, Kind] = {**dict.fromkeys(self.source.files.categories, "category"), **self.kinds}
            self._columns = fit(part.table, rows, part.where, self._roles(part), kinds)
            if self.key_column is None:
                self.key_column = next((column.name for column in self.columns.columns if column.is_identifier), None)
            self._trained_on = self.fingerprint
        if self._choose_batch_size:
            self.batch_size = min(max(2 ** round(math.log2(max(1, size / 100))), SMALLEST_BATCH), LARGEST_BATCH)

    def _roles(self, part: Part) -> dict[str, str]:
        """Return the columns that are not features, and what they are."""
        names = part.table.column_names
        for option, columns in self._asked().items():
            check_names(columns, names, option=option, value=columns)
        roles = dict.fromkeys(self.exclude, "dropped: excluded")
        for role in ("key", "group", "time"):
            name: str | None = getattr(self, f"{role}_column")
            if name is not None:
                check_names([name], names, option=f"{role}_column", value=name)
                if name not in self.kinds:
                    roles[name] = role
        return {**roles, self.target_column: "target"}

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of a row, `(F,)`, quantiles of its numbers, and moments of a target, `()`."""
        mean, std = self.columns.moments()
        found = {"mean": torch.from_numpy(mean), "std": torch.from_numpy(std)}
        quantiles = self.columns.quantiles()
        if quantiles is not None:
            found["quantiles"] = torch.from_numpy(quantiles)
        if self.task == "regression":
            found["target_mean"], found["target_std"] = moments(self.source.training_targets)
        return found

    def setup(self, stage: str) -> None:
        """Read and divide the table; before training, log the columns and the task."""
        super().setup(stage)
        if stage == "fit":
            self._loader("train")  # errors are raised in all processes together
            logger.info(self.describe())

    def describe(self) -> str:
        """Return a short table of the columns, and a line about the task."""
        what = "a number" if self.class_names is None else f"one of {listed(self.class_names, 8)}"
        how = f"{self.task}, inferred" if self.given_task is None else self.task
        target = self.target_column if self.target else f"{self.target_column}, the last column,"
        task = f"{target} is predicted as {what} ({how}), in batches of {self.batch_size}"
        return f"{self.source.describe()}\n{task}"

    def _make_loader(
        self, dataset: Dataset[Any], sampler: Iterable[Tensor] | None = None, num_workers: int | None = None
    ) -> DataLoader[Any]:
        if isinstance(dataset, TableStream):
            dataset.share_out()
        return super()._make_loader(dataset, sampler, num_workers)

    def groups(self, stage: Stage) -> Tensor | None:
        """Return the group of each row of a stage's table, `(N,)`; None if there are none, or the table is streamed."""
        name = self.group_column
        if name is None or self.source.is_streamed:
            return None
        if stage != "train" and self.is_new:
            part = self.source.labeled_path
        else:
            part = self.source.parts.get(stage, self.source.parts["train"])
        if name not in part.table.column_names:
            return None
        return torch.from_numpy(texts(part.table[name], name, part.where)[1])

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """The key of every predicted row, in their order, under the name of the key column."""
        name = self.key_column
        return {} if name is None or name not in self.source.files.names else {name: self.source.keys(name)}

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # a mapping, or anything that NumPy can read
        """Encode one row as in a batch, `(F,)`.

        Args:
            raw: A value for each feature, by name; None or an absent one is missing. Or encoded numbers.

        Raises:
            DataError: If a value is not of its column's kind.
        """
        return torch.from_numpy(self.columns.encode_row(raw)) if isinstance(raw, Mapping) else super().encode(raw)

    def resumed_settings(self) -> dict[str, Any]:
        """Return what a resumed run must share with the interrupted one, by option; also how rows are divided."""
        settings = {name: getattr(self, name) for name in ("group_column", "time_column", "stratify")}
        return {**super().resumed_settings(), **settings, "target": self.target_column, **self.source.settings}

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch and everything that was fitted, as primitives."""
        return {
            **super().state_dict(),
            "columns": self.columns.to_state(),
            "target": self.target_column,
            "key_column": self.key_column,
            "task": self.task,
            "asked": self._asked(),
        }

    def _asked(self) -> dict[str, list[str]]:
        """Return the columns that options name."""
        named = {kind: [name for name, of in self.kinds.items() if of == kind] for kind in ("number", "category")}
        return {"numeric": named["number"], "categorical": named["category"], "exclude": self.exclude}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what was fitted, before anything is inferred from this table."""
        if self._columns is None or self._columns.to_state() != state_dict["columns"]:
            self._source = None
            self._columns = TablePreprocessor.from_state(state_dict["columns"])
        for option, asked in self._asked().items():
            trained = state_dict["asked"][option]
            if asked and asked != trained:
                problem = f"this model was trained with {trained}, and its columns stay as they are"
                raise DataError(problem, "train anew without `ckpt_path`", option, asked)
        self.target = self.target or state_dict["target"]
        self.key_column = self.key_column or state_dict["key_column"]
        self.class_names, self.task = state_dict["class_names"], state_dict["task"]
        if self.streaming is None and state_dict["trained_on"] == self.fingerprint:
            self.streaming = state_dict["settings"]["streaming"]
            if self.streaming != self.source.is_streamed:
                self._source = None
        super().load_state_dict(state_dict)
