"""What the callbacks share that show a test in TensorBoard: the writer, and the names of classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


@contextmanager
def open_writer(trainer: Trainer, log_dir: str | Path | None) -> Iterator[Any]:
    """Open a TensorBoard writer: the Trainer's own, or one to a folder, which is closed afterwards.

    Args:
        trainer: Its TensorBoard logger is used, if it has one.
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


def class_name(trainer: Trainer, label: int) -> str:
    """Return the name of a class on one line, or its number if the data have no names."""
    names = getattr(trainer.datamodule, "class_names", None) or []  # type: ignore[attr-defined]  # set without a type
    return " ".join(names[label].split()) if label < len(names) else str(label)
