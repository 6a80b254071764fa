"""Predictions as a file that a person, or a spreadsheet, can read."""

import csv
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer


class PredictionWriter(Callback):
    """Writes one row for each input, in their order: its key, if it has one, and what `decode` makes of the prediction.

    Rows are written as they come, into a file that takes its place when it is complete.

    Args:
        path: The CSV file; it is replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._file: IO[str] | None = None
        self._keys: dict[str, Iterator[Any]] = {}
        self._rows = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse several processes, each of which would have only its share of the rows.

        Raises:
            MisconfigurationException: If there is more than one process.
        """
        if stage == "predict" and trainer.world_size > 1:
            raise MisconfigurationException("--devices: predictions are written by one process; give --devices 1.")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        self._keys = data.row_keys() if hasattr(data, "row_keys") else {}
        self._decode = getattr(data, "decode", lambda values: {"prediction": values.tolist()})
        self._rows = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("w", newline="", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401  # Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Decode a batch of predictions and write it."""
        assert self._file is not None
        size = len(outputs)
        keys = {name: list(itertools.islice(values, size)) for name, values in self._keys.items()}
        values = outputs.float() if outputs.is_floating_point() else outputs  # NumPy knows no bfloat16
        columns: dict[str, list[Any]] = {**keys, **self._decode(values.cpu())}
        writer = csv.writer(self._file)
        if self._rows == 0:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        self._rows += size

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the file in its place."""
        assert self._file is not None
        self._file.close()
        os.replace(self._part, self.path)
        print(f"{self._rows:,} prediction{' is' if self._rows == 1 else 's are'} in {self.path}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove what is incomplete."""
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
