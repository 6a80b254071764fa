"""Base of the callbacks that show a test in TensorBoard."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor


class Figure(Callback):
    """Collects some samples of a test for TensorBoard; in a distributed test those of rank 0.

    Args:
        log_dir: Where TensorBoard's events go if the Trainer has no logger of its own; None for nowhere.
        count: The largest number of samples.
    """

    def __init__(self, log_dir: str | Path | None = None, count: int = 16) -> None:
        self.log_dir = log_dir
        self.count = count
        self._found: list[Any] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the previous test."""
        self._found = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, *args: Any
    ) -> None:
        """Keep some samples of a batch."""
        if isinstance(batch, (tuple, list)) and isinstance(outputs, Tensor) and trainer.is_global_zero:
            self._keep(trainer, pl_module, outputs, *batch)

    @abstractmethod
    def _keep(self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, x: Tensor, y: Tensor) -> None: ...

    @contextmanager
    def _open_writer(self, trainer: Trainer) -> Iterator[Any]:
        """Open the Trainer's own `SummaryWriter`, or one to `log_dir`, closed afterwards; None for nowhere."""
        own = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
        if own is not None or self.log_dir is None:
            yield own and own.experiment
        else:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds, and only a test needs it

            with SummaryWriter(str(self.log_dir)) as writer:
                yield writer


def class_name(trainer: Trainer, label: int) -> str:
    """Return the name of a class on one line, or its number if the data have no names."""
    names = getattr(trainer.datamodule, "class_names", None) or []  # type: ignore[attr-defined]  # set without a type
    return " ".join(names[label].split()) if label < len(names) else str(label)
