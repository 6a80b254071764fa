"""Results of a run: `summary.json`, and hyperparameters with their final metrics in TensorBoard."""

import json
import math
import platform
import sys
import time
from collections.abc import Sized
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger


class RunSummary(Callback):
    """Measures a fit and writes `summary.json` to the run's folder.

    It holds the metrics of the last and the best epoch, those of a test that follows, epochs, steps, seconds, training
    samples per second, peak memory (MiB, of the GPU if there is one) and versions. An interrupted or failed run has one
    too; its `status` says so.

    Args:
        folder: The run's folder; by default where the Trainer logs.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self.summary: dict[str, Any] = {}
        self._folder: str | Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock, before the work that a model may do ahead of its first step."""
        if stage == "fit":
            self._start, self._folder, self.summary = time.monotonic(), None, {}
            self._best: dict[str, float] = {}
            self._best_score: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print which model is trained on which data."""
        # Now, as all processes of a distributed run must ask for it together.
        self._folder = self.folder or trainer.log_dir
        self._first_batch = _batches(trainer)
        if trainer.is_global_zero:
            whole = sum(p.numel() for p in pl_module.parameters())
            trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
            parameters = f"{trained:,}" + (f" of {whole:,}" if trained < whole else "")
            sizes = {stage: split.size for stage, split in getattr(_data(trainer), "splits", {}).items()}
            data = ", ".join(f"{size:,} {stage}" for stage, size in sizes.items())
            print(
                f"{type(pl_module).__name__} ({parameters} parameters) on {_name(trainer)}"
                f"{f' ({data})' if data else ''}, {trainer.accelerator.__class__.__name__.removesuffix('Accelerator')}"
                + (f"; the best checkpoint is chosen by {_monitor(trainer)}" if _monitor(trainer) else "")
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check whether the previous epoch was the best, now that its metrics are complete."""
        self._note_best(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the summary of a finished fit."""
        self._note_best(trainer)
        self.write(trainer, pl_module, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the summary of a fit that was interrupted or failed."""
        if trainer.state.fn == "fit" and self._folder is not None and not self.summary:
            interrupted = isinstance(exception, KeyboardInterrupt)
            self.write(trainer, pl_module, "interrupted" if interrupted else f"failed: {type(exception).__name__}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test metrics to the summary of the fit before."""
        if self.summary:
            self.summary["test"] = _numbers(trainer, "test_")
            self._dump(trainer)
            log_hyperparameters(trainer, pl_module, {**self.summary["final"], **self.summary["test"]})

    def add(self, trainer: Trainer, **entries: Any) -> None:
        """Add what was found after the test."""
        if self.summary:
            self.summary.update(entries)
            self._dump(trainer)

    def _note_best(self, trainer: Trainer) -> None:
        score = getattr(trainer.checkpoint_callback, "best_model_score", None)
        if score is not None and float(score) != self._best_score:
            now, monitor = _numbers(trainer), _monitor(trainer) or ""
            # Of a resumed run's best epoch only the monitored metric is known.
            self._best_score, self._best = float(score), now if monitor in now else {monitor: float(score)}

    def write(self, trainer: Trainer, pl_module: LightningModule, status: str) -> None:
        """Collect the summary of a fit and write it."""
        seconds = time.monotonic() - self._start
        loader = trainer.train_dataloader
        data = getattr(loader, "dataset", None)
        order = data if hasattr(data, "num_samples") else getattr(loader, "sampler", None)
        size = getattr(order, "num_samples", 0) * trainer.world_size
        samples = size * (_batches(trainer) - self._first_batch) / len(order) if isinstance(order, Sized) else 0
        self.summary = {
            "status": status,
            "model": type(pl_module).__name__,
            "data": _name(trainer),
            "monitor": _monitor(trainer),
            "best_checkpoint": getattr(trainer.checkpoint_callback, "best_model_path", ""),
            "best": self._best,
            "final": _numbers(trainer),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(seconds, 3),
            "samples_per_second": round(samples / seconds, 1),
            "peak_memory_mib": _peak_memory(pl_module.device),
            "versions": {
                "python": platform.python_version(),
                **{package.__name__: str(package.__version__) for package in (torch, lightning)},
            },
        }
        self._dump(trainer)

    def _dump(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self._folder is not None:
            path = Path(self._folder) / "summary.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.summary, indent=2) + "\n")


def log_hyperparameters(trainer: Trainer, pl_module: LightningModule, metrics: dict[str, float] | None = None) -> None:
    """Log the run's hyperparameters and final metrics for TensorBoard's table of runs."""
    metrics = _numbers(trainer) if metrics is None else metrics
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            data = getattr(_data(trainer), "hparams", {})
            params = {**{f"data/{name}": value for name, value in data.items()}, **pl_module.hparams}
            logger.log_hyperparams(params, metrics, step=trainer.global_step)


def _batches(trainer: Trainer) -> int:
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def _peak_memory(device: torch.device) -> float | None:
    """Return the peak memory in MiB: allocated on a GPU, else resident; None where the system does not report it."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if sys.platform == "win32":
        return None
    import resource  # Windows has no such module

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def epoch_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the metrics of an epoch; neither a single step's loss nor the learning rate is one."""
    metrics = trainer.callback_metrics.items()
    return {name: float(value) for name, value in metrics if name != "train_loss_step" and not name.startswith("lr-")}


def _numbers(trainer: Trainer, prefix: str = "") -> dict[str, float]:
    # JSON has no NaN.
    metrics = epoch_metrics(trainer).items()
    return {name: value for name, value in metrics if name.startswith(prefix) and math.isfinite(value)}


def _name(trainer: Trainer) -> str:
    return "its own data" if _data(trainer) is None else type(_data(trainer)).__name__


def _data(trainer: Trainer) -> LightningDataModule | None:
    data: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # Lightning gives no type
    return data


def _monitor(trainer: Trainer) -> str | None:
    return getattr(trainer.checkpoint_callback, "monitor", None)
