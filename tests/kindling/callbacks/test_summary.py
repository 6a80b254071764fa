"""Summaries of runs."""

import json
import time
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from datamodules import DigitsDataModule
from kindling.callbacks import BestCheckpoint, RunSummary
from lit_models import LitMLP
from tests.helpers.trainers import quiet_trainer


def _fit(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = quiet_trainer(
        callbacks=[RunSummary(), *callbacks], enable_checkpointing=True, default_root_dir=folder, **options
    )
    trainer.fit(LitMLP(64, [8]), DigitsDataModule())
    return trainer


def _read(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_a_finished_run_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = BestCheckpoint()
    trainer = _fit(tmp_path, best, max_epochs=3)
    summary = _read(tmp_path)
    assert (summary["status"], summary["model"], summary["data"]) == ("finished", "LitMLP", "DigitsDataModule")
    assert (summary["monitor"], summary["best_checkpoint"]) == ("val_loss", best.best_model_path)
    assert (summary["epochs"], summary["steps"]) == (3, trainer.global_step)
    assert summary["final"].keys() == {"train_loss", "val_loss", "val_acc", "val_f1"}
    for name, value in summary["final"].items():
        assert value == pytest.approx(float(trainer.callback_metrics[name]))
    assert summary["samples_per_second"] * summary["seconds"] == pytest.approx(3 * 1294, rel=0.02)
    assert summary["peak_memory_mib"] > 10
    assert summary["versions"].keys() == {"python", "torch", "lightning"}
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["versions"]["lightning"] == lightning.__version__
    out = capsys.readouterr().out
    assert "LitMLP (610 parameters) on DigitsDataModule (1,294 train, 144 val, 359 test), CPU" in out
    assert "chosen by val_loss" in out


class Worsen(Callback):
    """Spoils the weights after the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Blow the weights up."""
        if trainer.current_epoch == 2:
            for p in pl_module.parameters():
                p.data.mul_(50)


def test_the_best_metrics_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    best = BestCheckpoint()
    trainer = _fit(tmp_path, best, Worsen(), max_epochs=3)
    summary = _read(tmp_path)
    assert best.best_model_score is not None
    assert summary["best"]["val_loss"] == pytest.approx(float(best.best_model_score))
    assert summary["best"]["val_loss"] < summary["final"]["val_loss"]
    model = trainer.lightning_module
    (measured,) = trainer.validate(model, DigitsDataModule(), best.best_model_path, weights_only=True, verbose=False)
    for name, value in measured.items():
        assert summary["best"][name] == pytest.approx(value, rel=1e-5)


def test_a_test_is_added(tmp_path: Path) -> None:
    trainer = _fit(tmp_path)
    final = _read(tmp_path)["final"]
    measured = trainer.test(trainer.lightning_module, DigitsDataModule(), verbose=False)[0]
    summary = _read(tmp_path)
    assert summary["test"] == pytest.approx(measured)
    assert summary["final"] == final


def test_a_test_without_a_fit_writes_nothing(tmp_path: Path) -> None:
    trainer = quiet_trainer(callbacks=[RunSummary()], default_root_dir=tmp_path)
    trainer.test(LitMLP(64, [8]), DigitsDataModule(), verbose=False)
    assert list(tmp_path.rglob("*.json")) == []


class Fail(Callback):
    """Breaks the second epoch.

    Args:
        error: What is raised.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise in the second epoch."""
        if trainer.current_epoch == 1:
            raise self.error


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [(ValueError("no"), ValueError, "failed: ValueError"), (KeyboardInterrupt(), SystemExit, "interrupted")],
)
def test_a_run_that_broke_off_says_so(
    tmp_path: Path, error: BaseException, raised: type[BaseException], status: str
) -> None:
    with pytest.raises(raised):
        _fit(tmp_path, Fail(error), max_epochs=3)
    summary = _read(tmp_path)
    assert (summary["status"], summary["epochs"]) == (status, 1)
    assert "val_loss" in summary["final"]


def test_nan_is_left_out(tmp_path: Path) -> None:
    trainer = quiet_trainer(callbacks=[RunSummary()], default_root_dir=tmp_path)
    trainer.fit(LitMLP(64, [8], optimizer="SGD", lr=1e30), DigitsDataModule())
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    assert "train_loss" not in _read(tmp_path)["final"]
    assert "val_acc" in _read(tmp_path)["final"]


def test_tensorboard_gets_hyperparameters_with_final_metrics(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, "", "", default_hp_metric=False)
    trainer = _fit(tmp_path, logger=logger)
    trainer.test(trainer.lightning_module, DigitsDataModule(), verbose=False)
    logger.finalize("success")
    tags: set[str] = set()
    for path in tmp_path.rglob("events.out.*"):
        events = EventAccumulator(str(path))
        events.Reload()
        tags |= {*events.Tags()["scalars"], *events.summary_metadata}
    assert {"test_acc", "val_loss", "_hparams_/session_start_info"} <= tags


class Slow(LitMLP):
    """A model that has something to do before its first step."""

    def on_fit_start(self) -> None:
        """Sleep."""
        time.sleep(0.5)


class Broken(LitMLP):
    """A model that cannot be trained."""

    def on_fit_start(self) -> None:
        """Fail."""
        raise ValueError("no")


def test_what_comes_before_the_first_step_takes_time_too(tmp_path: Path) -> None:
    summary = RunSummary()
    trainer = quiet_trainer(callbacks=[summary], default_root_dir=tmp_path)
    trainer.fit(Slow(64, [8]), DigitsDataModule())
    first = _read(tmp_path)
    assert first["seconds"] >= 0.5
    assert first["samples_per_second"] <= 1294 / 0.5
    trainer = quiet_trainer(callbacks=[summary], default_root_dir=tmp_path / "second")
    trainer.fit(LitMLP(64, [8]), DigitsDataModule())
    assert _read(tmp_path / "second")["status"] == "finished"
    assert _read(tmp_path) == first


@pytest.mark.parametrize("after_another", [False, True])
def test_a_fit_that_never_began_has_no_summary(tmp_path: Path, after_another: bool) -> None:
    summary = RunSummary()
    if after_another:
        quiet_trainer(callbacks=[summary], default_root_dir=tmp_path / "first").fit(LitMLP(64, [8]), DigitsDataModule())
    trainer = quiet_trainer(callbacks=[summary], default_root_dir=tmp_path / "second")
    with pytest.raises(ValueError, match="no"):
        trainer.fit(Broken(64, [8]), DigitsDataModule())
    assert len(list(tmp_path.rglob("summary.json"))) == after_another
    if after_another:
        assert _read(tmp_path / "first")["status"] == "finished"
