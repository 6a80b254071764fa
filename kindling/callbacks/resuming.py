"""Callbacks by which a resumed run goes on as an uninterrupted one would."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RNGState(Callback):
    """Saves the states of all random number generators in every checkpoint and restores them when training resumes.

    The order of the batches does not depend on them: data modules derive it from their own seed and the epoch.
    """

    state_key = "RandomState"  # in checkpoints, older ones too

    def __init__(self) -> None:
        self._saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Collect the states, as types that `weights_only=True` loads."""
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # the global one
        return {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: building loaders and the sanity check also draw numbers."""
        self._saved = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states from the checkpoint."""
        if self._saved is None:
            return
        version, numbers, gauss = self._saved["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, *rest = self._saved["numpy"]
        np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
        torch.set_rng_state(self._saved["torch"].cpu())
        if len(self._saved["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in self._saved["cuda"]])
        self._saved = None


class MaxStepsCheckpointing(Callback):
    """Validates at `max_steps`, and corrects the progress of the epoch that its checkpoint stores.

    Lightning validates before `max_time` stops a run, but not before `max_steps` does, so there would be no best
    checkpoint. Its checkpoint at `max_steps` also marks an unfinished epoch as finished and a finished one as begun
    again, so that a resumed run would see other batches than an uninterrupted one.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Request the stop that is due anyway, since Lightning validates before a requested stop."""
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True
            # They do not delay this stop, but would delay its validation.
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct the progress of the epoch to what a run with more steps to go would store."""
        if trainer.global_step != trainer.max_steps:
            return
        loop = checkpoint["loops"]["fit_loop"]
        epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
        is_over = batches["current"]["ready"] >= trainer.num_training_batches
        if is_over and epochs["current"]["processed"] < epochs["current"]["ready"]:
            return  # saved in the last validation, before the epoch ends
        for progress in epochs.values():
            progress["processed"] = progress["completed"] = progress["ready"] - (not is_over)
        if is_over:
            batches.update(current=dict.fromkeys(batches["current"], 0), is_last_batch=False)
