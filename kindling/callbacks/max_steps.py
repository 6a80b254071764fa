"""A run that `max_steps` ends within an epoch is validated, and resumes as an interrupted one does."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


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
