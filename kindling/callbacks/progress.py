"""Progress that can be read in a terminal and is no noise in a log file."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as stock
from tqdm import tqdm


class ProgressBar(stock.ProgressBar):
    """One line an epoch with its metrics; in a terminal, also a bar that moves and then goes away.

    Epochs that take less than `interval` are not all reported: the last one always is.

    Args:
        interval: Least time between two lines, in seconds.
    """

    def __init__(self, interval: float = 1.0) -> None:
        super().__init__()
        self.interval = interval
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._epoch = ""  # what the finished epoch's line begins with, until it is printed
        self._started = 0.0
        self._printed = -float("inf")

    def enable(self) -> None:
        """Show progress."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this on all processes but the first."""
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without breaking the bar."""
        if self._enabled:
            tqdm.write(" ".join(map(str, args)), file=sys.stdout)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch before, whose metrics are complete only now, and open a bar."""
        self._report(trainer)
        self._open(_count(trainer), trainer.num_training_batches)

    def on_train_batch_end(self, *args: object) -> None:
        """Move the bar."""
        self._advance()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()
        self._epoch = _count(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the last epoch."""
        self._report(trainer, last=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar, unless the validation belongs to a training, which has one."""
        if trainer.state.fn == "validate":
            self._open("validate", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if trainer.state.fn == "validate":
            self._advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        if trainer.state.fn == "validate":
            self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar."""
        self._open("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._advance()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar."""
        self._open("predict", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._advance()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no half-drawn bar."""
        self._close()

    def _open(self, title: str, total: float) -> None:
        self._close()
        if self._enabled and sys.stderr.isatty():
            self._bar = tqdm(desc=title, total=total if total < float("inf") else None, leave=False, file=sys.stderr)

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _report(self, trainer: Trainer, last: bool = False) -> None:
        now = time.monotonic()
        if not self._epoch or (not last and now - self._printed < self.interval):
            return
        metrics = {name: value for name, value in trainer.callback_metrics.items() if _is_of_an_epoch(name)}
        values = "  ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items(), key=_training_first))
        self.print(f"{self._epoch}  {values}  {now - self._started:.0f} s")
        self._epoch, self._printed = "", now


def _is_of_an_epoch(name: str) -> bool:
    return name != "train_loss_step" and not name.startswith("lr-")


def _training_first(metric: tuple[str, Any]) -> bool:
    return not metric[0].startswith("train_")


def _count(trainer: Trainer) -> str:
    limit = trainer.max_epochs
    return f"epoch {trainer.current_epoch + 1}" + (f"/{limit}" if limit and limit > 0 else "")
