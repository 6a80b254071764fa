"""Progress: a bar in a terminal, and one line an epoch everywhere."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from kindling.callbacks.summary import epoch_metrics


class ProgressBar(TQDMProgressBar):
    """Prints one line an epoch with its metrics; in a terminal, also shows Lightning's bar until the epoch ends.

    Unlike Lightning's, the bar shows no metrics, which would force a GPU sync each step. It is drawn on stderr, at most
    ten times a second.

    Args:
        interval: Minimum time between two lines, in seconds; the last epoch's line is always printed.
    """

    def __init__(self, interval: float = 1.0) -> None:
        super().__init__(leave=True)  # a new bar each epoch
        self.interval = interval
        self._epoch = ""  # how the line of the epoch just finished starts, until it is printed
        self._started = 0.0
        self._printed = self._moved = -float("inf")

    def init_train_tqdm(self) -> Tqdm:
        """Return a bar with the name of the epoch or the subcommand."""
        stage = self.trainer.state.fn
        title = _count(self.trainer) if stage == "fit" else str(stage and stage.value)
        return _Bar(desc=title, disable=self.is_disabled or not sys.stderr.isatty(), leave=False, file=sys.stderr)

    init_test_tqdm = init_predict_tqdm = init_train_tqdm

    def init_validation_tqdm(self) -> Tqdm:
        """Return the bar of `validate`; a validation while fitting has no bar."""
        return self.init_train_tqdm() if self.trainer.state.fn == "validate" else Tqdm(disable=True)

    init_sanity_tqdm = init_validation_tqdm

    def _should_update(self, current: int, total: int) -> bool:
        now = time.monotonic()
        if now - self._moved < 0.1:
            return False
        self._moved = now
        return True

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Return no metrics for the bar: reading one from a GPU would force a sync."""
        return {}

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without breaking the bar."""
        if self.is_enabled:
            Tqdm.write(" ".join(map(str, args)), file=sys.stdout)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Start the clock, and open a bar: a run that goes on within an epoch does not start one."""
        self._started = time.monotonic()
        super().on_train_start(trainer, *args)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Report the previous epoch, whose metrics are complete only now, and open a bar."""
        self._report(trainer)
        self.train_progress_bar.close()
        super().on_train_epoch_start(trainer, *args)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        super().on_train_epoch_end(trainer, pl_module)
        self._epoch = _count(trainer)

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        """Report the last epoch."""
        self._report(trainer, last=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close every bar, so that none is left half drawn."""
        for bar in vars(self).values():
            if isinstance(bar, Tqdm):
                bar.close()

    def _report(self, trainer: Trainer, last: bool = False) -> None:
        now = time.monotonic()
        if not self._epoch or (not last and now - self._printed < self.interval):
            return
        metrics = epoch_metrics(trainer).items()
        training_first = sorted(metrics, key=lambda metric: not metric[0].startswith("train_"))
        values = "  ".join(f"{name} {value:.4g}" for name, value in training_first)
        self.print(f"{self._epoch}  {values}  {now - self._started:.0f} s")
        self._epoch, self._printed = "", now


class _Bar(Tqdm):
    def set_description(self, *args: Any) -> None:
        """Keep the title; Lightning would set its own."""


def _count(trainer: Trainer) -> str:
    limit = trainer.max_epochs
    return f"epoch {trainer.current_epoch + 1}" + (f"/{limit}" if limit and limit > 0 else "")
