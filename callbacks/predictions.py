"""Predictions as a file that a person, or a spreadsheet, can read."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


class PredictionWriter(BasePredictionWriter):
    """Writes one row for each input, in their order: what the data module's `decode` makes of the predictions.

    Args:
        path: The CSV file; it is replaced.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(write_interval="epoch")
        self.path = Path(path)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse several processes, each of which would have only its share of the rows.

        Raises:
            MisconfigurationException: If there is more than one process.
        """
        super().setup(trainer, pl_module, stage)
        if stage == "predict" and trainer.world_size > 1:
            raise MisconfigurationException("--devices: predictions are written by one process; give --devices 1.")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Decode all predictions at once and write them."""
        outputs = torch.cat(list(predictions)).float().cpu()
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
        decode = getattr(data, "decode", lambda values: {"prediction": values.tolist()})
        columns: dict[str, list[Any]] = decode(outputs)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        print(f"{len(outputs):,} predictions are in {self.path}")
