"""A table of one's own: CSV, TSV or Parquet, from a messy file to batches."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import EVALUATION_BATCHES, Stage
from datamodules.errors import DataError, check_names, listed
from datamodules.sampler import Inputs, Samples, Split
from datamodules.splits import holdout_groups, holdout_last, kfold_groups
from datamodules.statistics import moments
from datamodules.tables.dialect import Dialect
from datamodules.tables.files import Part, TableFiles
from datamodules.tables.labeled import LabeledDataModule
from datamodules.tables.preprocessing import Column, TablePreprocessor, describe, fit
from datamodules.tables.streaming import Division, RowGroups, Scan, TableStream, scan, values_of
from datamodules.tables.values import Kind, TaskName, infer_target, is_missing, sort_key, texts
from datamodules.user_data import physical_memory, say

SMALLEST_BATCH, LARGEST_BATCH = 32, 1024  # rows, unless --data.batch_size says otherwise
LAZY = ("_files", "_sources", "_parts", "_scans", "_target", "_groups", "_times", "_whole", "everything", "unlabeled")
PACKED = 5  # times as much as a gzip file holds, about, is in it


class CSVDataModule(LabeledDataModule):
    """A table with a column to predict, in CSV, TSV (plain or gzip) or Parquet files, told by their content.

    What the columns are is inferred, and can be overridden. A batch is one float32 matrix `(B, F)` with its targets:
    the numbers, a flag for each of them that can be missing, then the codes of the categories, of which
    `cat_cardinalities` says how many there are and how large. Medians, means and categories are fitted on the training
    rows and kept in the checkpoint. A parsed table is kept as Parquet in `cache_dir`, under the hash of its content.

    Args:
        path: A file, a folder or a glob. `predict` predicts all of it; `test` tests all of it if it is not what the
            model was trained on.
        target: The column to predict; the last one unless given.
        val_path: A table of its own for validation.
        test_path: A table of its own for the test.
        task: `regression`, `binary` or `multiclass`; inferred from the target unless given.
        key_column: A column that names the rows: it is not learned from, and is written beside the predictions. An
            identifier that was found is taken unless one is given.
        group_column: Rows with the same value here are never divided between training and what is held out.
        time_column: What is held out is the last by this column. Folds, then, are successive: each is learned from all
            that is before it.
        stratify: Whether each split has the same share of every class.
        numeric: TablePreprocessor to be taken as numbers, whatever they look like.
        categorical: TablePreprocessor to be taken as categories, whatever they look like.
        exclude: TablePreprocessor to leave out.
        header: Whether the first line has the names of the columns; found out unless given, as the following are.
            TablePreprocessor without names are called x1, x2, ... and y.
        delimiter: What stands between two values.
        quote: What stands around values that contain a delimiter.
        decimal: The decimal sign.
        encoding: Python's name of the encoding; UTF-8 unless given.
        missing_values: What else stands for a missing value, beside the usual signs.
        streaming: Whether to read the table in parts while training, in memory that does not grow with it; by default
            if it is larger than a quarter of the memory. Rows are then divided by a hash of their number (or group),
            columns are fitted on a random sample of the training rows, and neither `balance` nor `time_column` can be.
        batch_size: Rows in a training batch; by default a power of two near a two-hundredth of the training rows, from
            32 to 1024.
        kwargs: Options of `UserDataModule` and `DataModule`.

    Raises:
        DataError: If the table cannot be read or learned from; the message names the file, line or column.
    """

    def __init__(
        self,
        path: str = "",
        target: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        task: TaskName | None = None,
        key_column: str | None = None,
        group_column: str | None = None,
        time_column: str | None = None,
        stratify: bool = True,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        exclude: Sequence[str] = (),
        header: bool | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
        missing_values: Sequence[str] = (),
        streaming: bool | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        batch = LARGEST_BATCH if batch_size is None else batch_size
        super().__init__(path, val_path, test_path, task, batch_size=batch, **kwargs)
        self._choose_batch_size = batch_size is None
        self.target, self.key_column = target, key_column
        self.group_column, self.time_column, self.stratify = group_column, time_column, stratify
        self.exclude = list(exclude)
        self.kinds: dict[str, Kind] = {**dict.fromkeys(numeric, "number"), **dict.fromkeys(categorical, "category")}
        self._dialect = header, delimiter, quote, decimal, encoding, tuple(missing_values)
        self.streaming = streaming
        self._columns: TablePreprocessor | None = None  # once fitted, or loaded from a checkpoint
        both = set(numeric) & set(categorical)
        if both:
            raise DataError(f"--data.numeric: {sorted(both)} cannot be numbers and categories at once.")
        if group_column and time_column:
            raise DataError("--data.group_column: rows are divided by group or by time, not both.")

    # What the data determine

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """How many numbers a row has."""
        return (len(self.columns),)

    @property
    def cat_cardinalities(self) -> list[int]:
        """How many codes each category has; they are the last numbers of a row."""
        return self.columns.cardinalities

    @property
    def columns(self) -> TablePreprocessor:
        """What was fitted on the training rows, or came with a checkpoint."""
        if self._columns is None:
            _ = self.splits
        assert self._columns is not None
        return self._columns

    @cached_property
    def target_column(self) -> str:
        """The name of the column to predict."""
        names = self._files.names
        target = self.target or names[-1]
        check_names([target], names, f"--data.target {target}: {self.path}")
        if target in (*self.exclude, self.key_column, self.group_column, self.time_column):
            raise DataError(f"--data.target {target}: it cannot be predicted and be left out at once; name another.")
        return target

    @cached_property
    def _target(self) -> tuple[TaskName, list[str] | None]:
        scanned = self._scans["train"][1] if self.is_streamed else None
        if scanned is None or scanned.labels is None:
            return super()._target
        rows = scanned.label_rows
        return infer_target(
            scanned.labels, self.target_column, self._task, lambda row, name: self._files.where(rows[row], name)
        )

    # From files to samples

    def open(self, path: str, flag: str) -> TableFiles:
        """Find the files of a table."""
        names = None if self._columns is None else [column.name for column in self._columns.columns]
        return TableFiles(path, Dialect(*self._dialect), self.cache_dir, flag, names, self._text_columns)

    @cached_property
    def is_streamed(self) -> bool:
        """Whether the table is read in parts while training."""
        if self.streaming is not None:
            return self.streaming
        return self._files.size * (PACKED if self._files.is_packed else 1) > physical_memory() / 4

    @cached_property
    def _parts(self) -> dict[Stage, Part]:
        """The rows that have a target; of a streamed table, a sample of those to train on."""
        if self.is_streamed:
            return {
                stage: Part(self._sources[stage], found.sample, found.rows) for stage, (_, found) in self._scans.items()
            }
        return super()._parts

    def labeled(self, files: TableFiles) -> Part:
        """Read the rows that have a target."""
        table = files.read()
        check_names([self.target_column], table.column_names, f"{files.files[0]}")
        missing = is_missing(table[self.target_column])
        self._say_unlabeled(files, int(missing.sum()), len(table))
        if not missing.any():
            return Part(files, table)
        rows = (~missing).nonzero()[0]
        return Part(files, table.take(rows), rows)

    def _say_unlabeled(self, files: TableFiles, count: int, size: int) -> None:
        if count == size:
            raise DataError(f"{files.files[0]}: no row has a value in the target column {self.target_column!r}.")
        if count:
            say(f"{files.files[0]}: {count:,} rows without a value of {self.target_column} are left out")

    def divide(self, given: dict[Stage, Samples]) -> dict[Stage, Split]:
        """Hold out, fit the columns on what is left to train on, and encode everything by them."""
        splits = super().divide(given)
        self._fit(splits["train"].indices.numpy(), splits["train"].size)
        for stage, part in self._parts.items():
            given[stage].x = self._encode(part)
            part.files.keep()
        return splits

    @cached_property
    def splits(self) -> dict[Stage, Any]:  # of a streamed table, each is a TableStream
        """The training, validation and test splits; one that is empty is left out."""
        if not self.is_streamed:
            return super().splits
        rows = int(self._scans["train"][1].counts[0].sum())
        if not rows:
            raise DataError(f"{self.path}: no row is left to train on; hold out less.")
        self._fit(None, rows)
        found: dict[Stage, Any] = {}
        for given, (table, scanned) in self._scans.items():
            stages: tuple[Stage, ...] = ("train", "val", "test") if given == "train" else (given,)
            for counts, stage in zip(scanned.counts, stages, strict=False):
                if counts.sum():
                    division = self._division if given == "train" else None
                    found[stage] = self._stream(table, stage, self._sources[given], counts, division)
        return found

    @cached_property
    def _scans(self) -> dict[Stage, tuple[RowGroups, Scan]]:
        """What one pass over each streamed table finds."""
        for name, value in {"balance": self.balance != "none", "time_column": self.time_column}.items():
            if value:
                raise DataError(f"--data.{name}: a streamed table cannot be taken so; give --data.streaming false.")
        self._check_fold(self._sources.keys())
        found = {}
        for stage, files in self._sources.items():
            table = self._row_groups(files)
            names = [self.target_column, *([self.group_column] if self.group_column and stage == "train" else [])]
            check_names(names, table.names, str(files.files[0]))
            division = self._division if stage == "train" else None
            scanned = scan(table, self.target_column, division, files.where, self._text_columns)
            self._say_unlabeled(files, scanned.unlabeled, table.num_rows)
            found[stage] = (table, scanned)
        return found

    def _row_groups(self, files: TableFiles) -> RowGroups:
        return RowGroups(files.as_parquet(), self._text_columns)

    @property
    def _text_columns(self) -> list[str]:
        """What is read as it is written, though it may look like numbers."""
        learned = [] if self._columns is None else [column.name for column in self._columns.categories]
        key = [] if self.key_column is None else [self.key_column]
        return [*self._asked()["categorical"], *learned, *key, *self.exclude]

    @property
    def _division(self) -> Division:
        return Division(
            self.seed,
            0.0 if self.test_path else self.test_fraction,
            0.0 if self.val_path else self.val_fraction,
            self.num_folds,
            self.fold,
            self.test_path is not None,
            self.group_column,
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
        return TableStream(
            table,
            self.columns,
            self.target_column if labeled else None,
            self.class_names if labeled else None,
            stage,
            counts,
            division,
            self.batch_size * (1 if stage == "train" else EVALUATION_BATCHES),
            stage == "train",
            self.seed,
            files.where,
        )

    def _fit(self, rows: NDArray[np.int64] | None, size: int) -> None:
        """Fit the columns, unless they came with a checkpoint, and the batches to the training rows, `size` of them."""
        if self._columns is None:
            self._columns = self._fit_columns(self._parts["train"], rows)
            self._trained_on = self.fingerprint
        if self._choose_batch_size:
            near = 2 ** round(math.log2(max(1, size / 200)))
            self.batch_size = min(max(near, SMALLEST_BATCH), LARGEST_BATCH)

    def _fit_columns(self, part: Part, rows: NDArray[np.int64] | None) -> TablePreprocessor:
        for flag, columns in self._asked().items():
            check_names(columns, part.table.column_names, f"--data.{flag}")
        roles = dict.fromkeys(self.exclude, "left out: as asked")
        for role in ("key", "group", "time"):
            name: str | None = getattr(self, f"{role}_column")
            if name is not None:
                check_names([name], part.table.column_names, f"--data.{role}_column")
                if name not in self.kinds:
                    roles[name] = role
        roles[self.target_column] = "target"
        found = fit(part.table, rows, part.where, roles, self.kinds)
        if self.key_column is None:
            self.key_column = next((column.name for column in found.columns if column.is_identifier), None)
        return found

    def _encode(self, part: Part) -> Tensor:
        return torch.from_numpy(self.columns.encode(part.table, part.where, str(part.files.files[0])))

    def hold_out(self, indices: Tensor, fraction: float, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hold out whole groups, or the last rows, where there is a column for it; else a random choice."""
        if self.group_column is not None:
            return holdout_groups(indices, fraction, self.seed, self._groups[indices])
        if self.time_column is not None:
            return holdout_last(indices, fraction, self._times[indices])
        return super().hold_out(indices, fraction, labels if self.stratify else None)

    def hold_out_fold(self, labels: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """Hold out a fold of whole groups, or a successive one with all that is before it, or a random one."""
        if self.group_column is not None:
            folds = kfold_groups(self._groups, self.num_folds, self.seed)
            if not all(len(fold) for fold in folds):
                raise DataError(
                    f"--data.num_folds {self.num_folds}: {self.group_column} has too few groups for so many folds."
                )
            return self._pick_fold(folds)
        if self.time_column is not None:
            order = self._times.argsort(stable=True)
            blocks = order.tensor_split(self.num_folds + 1)
            return torch.cat(blocks[: self.fold + 1]).sort().values, blocks[self.fold + 1].sort().values
        return super().hold_out_fold(labels if self.stratify else None, size)

    @cached_property
    def _groups(self) -> Tensor:
        part, name = self._parts["train"], str(self.group_column)
        return torch.from_numpy(texts(part.column(name, "--data.group_column"), name, part.where)[1])

    @cached_property
    def _times(self) -> Tensor:
        part, name = self._parts["train"], str(self.time_column)
        return torch.from_numpy(sort_key(part.column(name, "--data.time_column"), name, part.where))

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of each number of a row, `(F,)`, and of a regression's target, `()`."""
        mean, std = self.columns.moments()
        found = {"mean": torch.from_numpy(mean), "std": torch.from_numpy(std)}
        if self.task == "regression":
            y = self.targets(self._parts["train"])
            y = y if self.is_streamed else y[self.splits["train"].indices]
            found["target_mean"], found["target_std"] = moments(y)
        return found

    def setup(self, stage: str) -> None:
        """Read and divide the table, and say before training what is learned from what."""
        super().setup(stage)
        if stage == "fit":
            self._loader("train")  # what is wrong is found by all processes together
            say(self.describe())

    def describe(self) -> str:
        """Lay out what the columns are, in a short table, and what the task is, in one line."""
        rows = None if self.is_streamed else self.splits["train"].indices.numpy()
        sample = self._parts["train"].table
        text = describe(self.columns, sample, rows)
        if self.is_streamed:
            text += f"\nfitted on {len(sample):,} random training rows, as the table is streamed"
        what = "a number"
        if self.class_names is not None:
            what = f"one of {listed(self.class_names, 8)}"
        how = f"{self.task}; --data.task overrules" if self._task is None else self.task
        return f"{text}\n{self.target_column} is predicted as {what} ({how}), in batches of {self.batch_size}"

    # What is not divided: tables to predict, or to test a trained model on

    def _loader(self, stage: Stage, shuffle: bool | None = None) -> list[DataLoader[Any]]:
        if not self.is_streamed or (stage != "train" and self.is_new):
            return super()._loader(stage, shuffle)
        if stage not in self.splits:
            return []
        self.splits[stage].share_out()
        return [self._make_loader(self.splits[stage])]

    @cached_property
    def everything(self) -> Samples | TableStream:
        """All rows that have a target."""
        say(f"{self.path} is not what the model was trained on: all of its rows are used")
        if self.is_streamed:
            table, scanned = self._scans["train"]
            return self._stream(table, "test", self._files, scanned.counts.sum(0))
        part = self.labeled(self._files)
        return Samples(self._encode(part), self.targets(part))

    @cached_property
    def unlabeled(self) -> Inputs | TableStream:
        """All rows, without their targets."""
        known = {column.name for column in self.columns.columns}
        extra = [name for name in self._files.names if name not in known]
        if extra:
            say(f"{self.path}: columns that the model does not know are ignored: {', '.join(extra)}")
        if self.is_streamed:
            return self._stream(self._row_groups(self._files), "test", self._files, labeled=False)
        return Inputs(self._encode(self._whole))

    def _in_order(self, dataset: Samples | Inputs | TableStream) -> DataLoader[Any]:
        if isinstance(dataset, TableStream):
            dataset.share_out()
            return self._make_loader(dataset, num_workers=0)  # several would mix the order
        return super()._in_order(dataset)

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """The key of every predicted row, in their order, under the name of the key column."""
        name = self.key_column
        if name is None or name not in self._files.names:
            return {}
        if self.is_streamed:
            return {name: values_of(self._row_groups(self._files), name)}
        return {name: iter(self._whole.table[name].to_pylist())}

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # a mapping, or anything that NumPy can read
        """Turn one row into what a batch holds of it.

        Args:
            raw: A value for each column that is learned from, by name; one that is None, or not there, is missing. Or
                numbers that are encoded already.

        Returns:
            Shape `(F,)`.

        Raises:
            DataError: If a value is not of its column's kind.
        """
        if not isinstance(raw, Mapping):
            return super().encode(raw)
        check_names(list(raw), [column.name for column in self.columns.columns], "the row")
        table = pa.table({column.name: self._cell(column, raw.get(column.name)) for column in self.columns.features})
        return torch.from_numpy(self.columns.encode(table, lambda _, name: f"{name} {raw.get(name)!r}", "the row"))[0]

    def _cell(self, column: Column, value: Any) -> pa.ChunkedArray:  # noqa: ANN401  # whatever a row may hold
        if column.kind == "date" and isinstance(value, str):  # as it stands in a file, or in JSON
            try:
                value = datetime.fromisoformat(value)
            except ValueError as error:
                raise DataError(f"{column.name} {value!r}: a date is written as 2024-12-31.") from error
        try:
            return pa.chunked_array([pa.array([value])])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{column.name} {value!r}: this is no value of a table.") from error

    # What a checkpoint keeps

    def resumed_settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was interrupted: here also how rows are divided."""
        settings = {name: getattr(self, name) for name in ("group_column", "time_column", "stratify")}
        settings |= {"target": self.target_column, "streaming": self.is_streamed}
        if self.is_streamed:  # where every worker has its own stretch of an epoch
            settings["num_workers"] = self.num_workers
        return {**super().resumed_settings(), **settings}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the position in the epoch: all that was fitted, as primitives."""
        return {
            **super().state_dict(),
            "columns": self.columns.to_state(),
            "target": self.target_column,
            "key_column": self.key_column,
            "task": self.task,
            "asked": self._asked(),
        }

    def _asked(self) -> dict[str, list[str]]:
        """What was said of columns, by the names of the options."""
        named = {kind: [name for name, of in self.kinds.items() if of == kind] for kind in ("number", "category")}
        return {"numeric": named["number"], "categorical": named["category"], "exclude": self.exclude}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was fitted, before anything is inferred from this table."""
        if self._columns is None or self._columns.to_state() != state_dict["columns"]:
            for name in ("splits", "target_column", *LAZY):
                self.__dict__.pop(name, None)
            self._columns = TablePreprocessor.from_state(state_dict["columns"])
        for name, asked in self._asked().items():
            trained = state_dict["asked"][name]
            if asked and asked != trained:
                raise DataError(
                    f"--data.{name} {asked}: this model was trained with {trained}, and its columns stay as they are; "
                    "train anew without --ckpt_path."
                )
        self.target = self.target or state_dict["target"]
        self.key_column = self.key_column or state_dict["key_column"]
        self.class_names, self.task = state_dict["class_names"], state_dict["task"]
        if self.streaming is None and state_dict["trained_on"] == self.fingerprint:
            self.is_streamed = state_dict["settings"]["streaming"]
        super().load_state_dict(state_dict)
