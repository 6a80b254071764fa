"""A run of so many steps ends as one of so many epochs does, and goes on as one that was interrupted."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class MaxStepsCheckpointing(Callback):
    """Takes care of `max_steps` that end within an epoch.

    Lightning validates what `max_time` ends, but not what `max_steps` does, so that there would be no best checkpoint.
    And in its checkpoints an epoch that was left in its middle is over, and one that is over has begun again; what goes
    on from there would take other batches than if it had never stopped.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Ask for the stop that is coming anyway, before which Lightning validates."""
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True
            # They cannot put off this end, but would its validation.
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say how far the epoch is, as a run that is not at its last step would."""
        if trainer.global_step != trainer.max_steps:
            return
        loop = checkpoint["loops"]["fit_loop"]
        epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
        is_over = batches["current"]["ready"] >= trainer.num_training_batches
        if is_over and epochs["current"]["processed"] < epochs["current"]["ready"]:
            return  # this is the last validation, not the end
        for progress in epochs.values():
            progress["processed"] = progress["completed"] = progress["ready"] - (not is_over)
        if is_over:
            batches.update(current=dict.fromkeys(batches["current"], 0), is_last_batch=False)
