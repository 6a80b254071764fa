"""Checkpoints, early stopping, and interruptions that lose nothing."""

import math
import shutil
import signal
import sys
import threading
import time
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch import callbacks as stock
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.types import STEP_OUTPUT

from kindling.runs import command

SECONDS_BETWEEN = 10  # from one last.ckpt to the next
PATIENCE = 10  # validations without improvement
ANNEALED = ("one-cycle", "cosine")  # schedules that end with the training


def better(monitor: str) -> str:
    """Return whether less (`min`) or more (`max`) of a metric is better, by its name."""
    return "max" if monitor.endswith(("acc", "auroc", "f1", "recall1")) else "min"


class _Monitored(Callback):
    """Monitors a metric; `val_loss` means `train_loss` where nothing is validated."""

    monitor: Any
    _asked_for = ""

    @cached_property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint; cached, as Lightning asks for it several times a step."""
        return super().state_key

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the metric of a fit, before anything is restored under its name."""
        self._fits, self._writes = stage == "fit", trainer.is_global_zero
        if self._fits and self.monitor is not None:
            self.__dict__.pop("state_key", None)
            self._asked_for = self._asked_for or self.monitor
            unvalidated = self._asked_for == "val_loss" and not trainer.enable_validation
            self.monitor = "train_loss" if unvalidated else self._asked_for
        super().setup(trainer, pl_module, stage)


class EarlyStopping(_Monitored, stock.EarlyStopping):
    """Stops training when a metric no longer improves, or is NaN.

    Args:
        monitor: The metric; `val_loss` means `train_loss` where there is no validation split.
        patience: How many validations without improvement to wait; by default 10, or for ever where the learning rate
            falls to 0 at the end of the training (`one-cycle`, `cosine`), which is best then.
        mode: `min` if less is better, `max` if more is; by default `max` for accuracy, AUROC, F1 and recall at 1.
        kwargs: Options of Lightning's `EarlyStopping`.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int | None = None, mode: str | None = None, **kwargs: Any
    ) -> None:
        self._chooses_patience = patience is None
        super().__init__(
            monitor=monitor, patience=PATIENCE if patience is None else patience, mode=mode or better(monitor), **kwargs
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the metric and the patience."""
        super().setup(trainer, pl_module, stage)
        if self._chooses_patience:
            anneals = getattr(pl_module, "optimization", {}).get("scheduler") in ANNEALED
            self.patience = sys.maxsize if anneals else PATIENCE

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric, unless training ended before the first validation could measure it."""
        if self._is_measured(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric where validation does not wait for the end of the epoch."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or self._is_measured(trainer):
            super().on_validation_end(trainer, pl_module)

    def _is_measured(self, trainer: Trainer) -> bool:
        measured = [name for name in trainer.callback_metrics if not name.startswith("lr-")]
        if self.monitor not in measured and any(name.startswith("val_") for name in measured):
            raise MisconfigurationException(
                f"--early_stopping.monitor {self.monitor}: nothing of this name is measured; "
                f"there are {', '.join(measured)}."
            )
        return self.monitor in measured

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print why training ended early."""
        if self.stopping_reason_message and trainer.is_global_zero:
            print(f"stopped early: {self.stopping_reason_message}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count of epochs without improvement, but keep the `patience` of this run."""
        super().load_state_dict({**state_dict, "patience": self.patience, "stopping_reason_message": None})


class BestCheckpoint(_Monitored, stock.ModelCheckpoint):
    """Keeps `best.ckpt`, the state of the epoch with the best value of a metric.

    When a run is resumed in a new folder, the best of the old run is copied there and stays the best until it is
    beaten.

    Args:
        monitor: The metric; `val_loss` means `train_loss` where there is no validation split.
        mode: `min` if less is better, `max` if more is; by default `max` for accuracy, AUROC, F1 and recall at 1.
        filename: Name of the file, without its extension.
        kwargs: Options of Lightning's `ModelCheckpoint`.
    """

    def __init__(
        self, monitor: str = "val_loss", mode: str | None = None, filename: str = "best", **kwargs: Any
    ) -> None:
        super().__init__(monitor=monitor, mode=mode or better(monitor), filename=filename, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore which checkpoint is best, and copy its file."""
        old = Path(state_dict["best_model_path"])
        if not self._fits or not old.is_file():
            return
        if self.dirpath and Path(state_dict["dirpath"]) != Path(self.dirpath):
            new = Path(self.dirpath) / old.name
            if self._writes:
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(old, new)
            score = state_dict["best_model_score"]
            state_dict = {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(new),
                "kth_best_model_path": str(new),
                "best_k_models": {str(new): score},
                "kth_value": score,
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)


class LastCheckpoint(_Monitored, stock.ModelCheckpoint):
    """Keeps `last.ckpt`, the state after the last epoch, or after the last step of an interrupted one.

    Where epochs are short, not every one of them is worth a file: it is written every ten seconds and at the end.

    The first Ctrl-C ends the run after the step in progress, so that nothing is lost or done twice; a second one ends
    it at once.
    """

    _between_steps = _whole_step = False
    _handler: Any = None

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the last checkpoint of one run means nothing to the next."""
        return {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle Ctrl-C, which only the main thread can; later than Lightning, which restores the handler it found."""
        super().on_train_start(trainer, pl_module)
        self._interrupted = self._between_steps = False
        self._saved_at = -math.inf
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        print("\nCtrl-C: stopping after this step; once more stops at once, and loses what this epoch learned.")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """End an interrupted run where it can go on exactly; an epoch's last step also waits for the validation."""
        self._whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # The processes of a distributed run leave together, at the end of an epoch.
        alone = trainer.world_size == 1
        if self._interrupted and self._whole_step and alone and not trainer.is_last_batch:
            self._between_steps = True
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if it is time; and end a run that was interrupted in the last step or during validation."""
        due = time.monotonic() - self._saved_at >= SECONDS_BETWEEN
        if trainer.strategy.broadcast(due):  # all processes save, or none
            super().on_train_epoch_end(trainer, pl_module)
            self._saved_at = time.monotonic()
        if trainer.strategy.reduce_boolean_decision(self._interrupted, all=False):
            self._between_steps = True
            raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what an interruption would lose, and print how to go on."""
        self._restore_handler()
        if trainer.state.fn != "fit":
            return
        path = self.format_checkpoint_name({})
        terminated = isinstance(exception, SIGTERMException) and self._whole_step and not trainer.validating
        complete = self._between_steps or terminated
        if complete and self._last_global_step_saved != trainer.global_step:
            self._save_checkpoint(trainer, path)
        if trainer.is_global_zero and Path(path).is_file():
            kept = "Nothing is lost" if complete else "The last checkpoint is kept"
            # The Trainer's settings are not in the checkpoint but in the configuration, if the front door wrote one.
            config = Path(path).parent.parent / "config.yaml"
            settings = f"--config {config} " if config.is_file() else ""
            print(f"{kept}; go on with: {command()} {settings}--ckpt_path {path}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, and restore the handler of Ctrl-C."""
        if self._last_global_step_saved != trainer.global_step:
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))
        self._restore_handler()

    def _restore_handler(self) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None
