"""A Trainer for tests: on the CPU, silent, writing nothing unless asked to."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer


def quiet_trainer(**options: Any) -> Trainer:
    """Make a Trainer of one epoch; any option can be given."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**defaults, **options})


def keep(model: LightningModule, path: Path) -> str:
    """Write a checkpoint of a model that no run has trained, and return its path."""
    trainer = quiet_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return str(path)
