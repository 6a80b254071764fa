"""Predictions as a CSV file."""

import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

ROWS = 4096  # decoded at a time, of predictions kept until the end


class PredictionWriter(Callback):
    """Writes a CSV with one row for each input, in input order: its key, if it has one, and its decoded prediction.

    The model's `decode` is used if it has one, else the data module's.

    Rows are written to a temporary file, which replaces `path` when it is complete. If the data module's
    `prediction_order` says that inputs are predicted in another order, predictions are kept until the end.

    Args:
        path: The CSV file; it is replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._file: IO[str] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is one process: with several, each would have only its share of the rows.

        Raises:
            MisconfigurationException: If there is more than one process.
        """
        if stage == "predict" and trainer.world_size > 1:
            raise MisconfigurationException("--devices: predictions are written by one process; give --devices 1.")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        self._keys: dict[str, Iterator[Any]] = data.row_keys() if hasattr(data, "row_keys") else {}
        decode = getattr(data, "decode", lambda outputs: {"prediction": outputs.tolist()})
        # A model with outputs of its own kind (texts, similarities) decodes them itself.
        self._decode = getattr(pl_module, "decode", decode)
        self._order: Tensor | None = getattr(data, "prediction_order", None)  # of the predictions: the row of each
        self._kept: list[Tensor] = []
        self._rows = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("w", newline="", encoding="utf-8")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: Any, **kwargs: Any
    ) -> None:
        """Decode a batch of predictions and write it, or keep it."""
        assert isinstance(outputs, Tensor)
        values = outputs.float() if outputs.is_floating_point() else outputs  # NumPy has no bfloat16
        if self._order is None:
            self._write(values.cpu())
        else:
            self._kept.append(values.cpu())

    def _write(self, outputs: Tensor) -> None:
        assert self._file is not None
        keys = {name: list(itertools.islice(values, len(outputs))) for name, values in self._keys.items()}
        columns: dict[str, list[Any]] = {**keys, **self._decode(outputs)}
        writer = csv.writer(self._file)
        if self._rows == 0:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        self._rows += len(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions that were kept, and move the file to `path`."""
        assert self._file is not None
        if self._order is not None and self._kept:
            self._write_kept(self._order, torch.cat(self._kept))
        self._file.close()
        os.replace(self._part, self.path)
        print(f"{self._rows:,} prediction{' is' if self._rows == 1 else 's are'} in {self.path}")

    def _write_kept(self, order: Tensor, outputs: Tensor) -> None:
        self._kept = []
        rows, places = order[: len(outputs)].sort()  # limit_predict_batches may have left out some
        predicted = torch.zeros(len(order), dtype=torch.bool).index_fill_(0, rows, True).tolist()
        self._keys = {name: itertools.compress(values, predicted) for name, values in self._keys.items()}
        for some in places.split(ROWS):
            self._write(outputs[some])

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the incomplete file."""
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
