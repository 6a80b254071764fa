"""Where callbacks write what TensorBoard shows of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


@contextmanager
def open_writer(trainer: Trainer, log_dir: str | Path | None) -> Iterator[Any]:
    """Give the Trainer's own writer, or one to a folder, which is closed afterwards.

    Args:
        trainer: Whose logger is used, if one is TensorBoard's.
        log_dir: The folder otherwise; None for nowhere.

    Yields:
        A `SummaryWriter`, or None if there is nowhere to write.
    """
    own = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
    if own is not None:
        yield own.experiment
    elif log_dir is None:
        yield None
    else:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds, and only a test needs it

        with SummaryWriter(str(log_dir)) as writer:
            yield writer
