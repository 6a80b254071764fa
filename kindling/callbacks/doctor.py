"""Checks of the data before the first step, and of the labels after the last."""

import time
from pathlib import Path

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from kindling.doctor import examine
from kindling.doctor.findings import Finding, write
from kindling.doctor.labels import find_suspects, summary_line


class Doctor(Callback):
    """Prints, before the first step, what in the data makes results wrong, and writes it to `doctor.csv`.

    Nothing is printed or written where nothing is found. Only a person's own tables, texts and images are examined, by
    one process, and not where a fit is a mere trial (`fast_dev_run`, `overfit_batches`).

    Args:
        folder: Where `doctor.csv` goes; by default where the Trainer logs.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self.findings: list[Finding] = []
        self._examines = False
        self.seconds = 0.0  # that the checks before the first step took

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the data."""
        self.findings, self._folder = [], self.folder or trainer.log_dir  # all processes must ask for it together
        is_trial = trainer.fast_dev_run or trainer.overfit_batches  # type: ignore[attr-defined]  # set without types
        self._examines = trainer.is_global_zero and not is_trial
        if not self._examines:
            return
        began = time.monotonic()
        self._add(examine(trainer.datamodule))  # type: ignore[attr-defined]  # Lightning sets it without a type
        self.seconds = time.monotonic() - began
        for number, finding in enumerate(self.findings):
            start = "        " if number else "doctor: "
            print(start + finding.line)

    def check_labels(self, data: LightningDataModule, seconds: float) -> list[str]:
        """Return a line about the labels that are likeliest wrong, if there are any, and write them down."""
        found = find_suspects(data, seconds) if self._examines else []
        self._add(found)
        return [f"  {summary_line(found)}"] if found else []

    def _add(self, findings: list[Finding]) -> None:
        self.findings += findings
        if findings and self._folder is not None:
            write(self.findings, Path(self._folder) / "doctor.csv")
