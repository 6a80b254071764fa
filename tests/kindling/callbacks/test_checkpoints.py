"""When to save, what is best, when to stop."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import DigitsDataModule
from kindling.callbacks import BestCheckpoint, EarlyStopping, LastCheckpoint
from lit_models import LitMLP
from lit_models.optim.factory import SchedulerName
from tests.helpers.tiny import Interrupt
from tests.helpers.trainers import quiet_trainer


class Losses(Callback):
    """Logs `given`, so that a test knows which epoch is best.

    Args:
        losses: The value of each epoch.
    """

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the value of this epoch."""
        if not trainer.sanity_checking:
            pl_module.log("given", self.losses[trainer.current_epoch])


@pytest.fixture(autouse=True)
def _restore_ctrl_c() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def _fit(
    folder: Path,
    *callbacks: Callback,
    val_fraction: float = 0.1,
    ckpt_path: Path | None = None,
    scheduler: SchedulerName = "none",
    **options: Any,
) -> Trainer:
    torch.manual_seed(0)
    trainer = quiet_trainer(
        callbacks=list(callbacks), enable_checkpointing=True, default_root_dir=folder, limit_train_batches=3, **options
    )
    data = DigitsDataModule(val_fraction=val_fraction)
    trainer.fit(LitMLP(64, [8], scheduler=scheduler), data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def _load(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


@pytest.mark.parametrize(("val_fraction", "watched"), [(0.1, "val_loss"), (0.0, "train_loss")])
def test_without_validation_the_training_loss_is_watched(tmp_path: Path, val_fraction: float, watched: str) -> None:
    stop, best = EarlyStopping(), BestCheckpoint()
    trainer = _fit(tmp_path, stop, best, val_fraction=val_fraction, max_epochs=2)
    assert stop.monitor == best.monitor == watched
    assert stop.best_score == best.best_model_score == trainer.callback_metrics[watched]
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_another_metric_is_watched_as_asked(tmp_path: Path) -> None:
    stop, best = EarlyStopping("val_acc", mode="max"), BestCheckpoint("val_acc", "max", "top")
    trainer = _fit(tmp_path, stop, best)
    assert stop.best_score == best.best_model_score == trainer.callback_metrics["val_acc"]
    assert (tmp_path / "checkpoints" / "top.ckpt").is_file()


def test_training_stops_when_patience_is_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = EarlyStopping("given", patience=2)
    trainer = _fit(tmp_path, Losses([5, 4, 4.5, 4, 1, 1]), stop, max_epochs=6)
    assert trainer.current_epoch == 4
    assert stop.best_score == 4
    assert "stopped early: " in capsys.readouterr().out
    _fit(tmp_path, Losses([3, 2, 1]), EarlyStopping("given", patience=2), max_epochs=3)
    assert "stopped early" not in capsys.readouterr().out


def test_a_schedule_that_ends_with_the_training_is_not_stopped_early(tmp_path: Path) -> None:
    schedules: list[tuple[SchedulerName, int]] = [("cosine", 14), ("none", 11)]
    for scheduler, epochs in schedules:
        callbacks = Losses([1.0, *range(2, 15)]), EarlyStopping("given")
        assert _fit(tmp_path / scheduler, *callbacks, scheduler=scheduler, max_epochs=14).current_epoch == epochs


@pytest.mark.parametrize(("patience", "epochs"), [(2, 3), (4, 5)])
def test_patience_is_that_of_now_and_what_was_waited_counts(tmp_path: Path, patience: int, epochs: int) -> None:
    losses = Losses([1, 2, 2, 2, 2, 2, 2, 2])
    _fit(tmp_path, losses, EarlyStopping("given", patience=9), LastCheckpoint(), max_epochs=2)
    last = tmp_path / "checkpoints" / "last.ckpt"
    trainer = _fit(tmp_path / "new", losses, EarlyStopping("given", patience=patience), max_epochs=8, ckpt_path=last)
    assert trainer.current_epoch == epochs


def test_a_loss_that_is_no_number_stops_training(tmp_path: Path) -> None:
    assert _fit(tmp_path, Losses([5, float("nan"), 1]), EarlyStopping("given"), max_epochs=3).current_epoch == 2


def test_a_metric_that_nobody_measures_is_a_mistake_in_words(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"--early_stopping\.monitor val_f2: .* there are .*val_acc"):
        _fit(tmp_path, EarlyStopping("val_f2"))


def test_waiting_for_the_first_validation_is_no_mistake(tmp_path: Path) -> None:
    stop = EarlyStopping()
    assert _fit(tmp_path, stop, max_epochs=3, check_val_every_n_epoch=2).current_epoch == 3
    assert stop.best_score.isfinite()


def test_the_best_checkpoint_is_that_of_the_best_epoch(tmp_path: Path) -> None:
    _fit(tmp_path, Losses([5, 2, 3]), BestCheckpoint("given"), max_epochs=3)
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["best.ckpt"]
    assert _load(tmp_path / "checkpoints" / "best.ckpt")["epoch"] == 1


@pytest.mark.parametrize(("later", "epoch"), [([9.0, 9.0], 1), ([9.0, 1.0], 4)])
def test_the_best_of_the_old_run_stays_the_best_until_it_is_beaten(
    tmp_path: Path, later: list[float], epoch: int
) -> None:
    losses, old, new = [5.0, 2.0, 3.0], tmp_path / "old", tmp_path / "new"
    _fit(old, Losses(losses), BestCheckpoint("given"), LastCheckpoint(), max_epochs=3)
    before = (old / "checkpoints" / "best.ckpt").read_bytes()
    best = BestCheckpoint("given")
    last = old / "checkpoints" / "last.ckpt"
    _fit(new, Losses(losses + later), best, LastCheckpoint(), max_epochs=5, ckpt_path=last)
    assert sorted(path.name for path in new.rglob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    assert best.best_model_path == str(new / "checkpoints" / "best.ckpt")
    assert best.best_model_score == min(losses + later)
    assert _load(new / "checkpoints" / "best.ckpt")["epoch"] == epoch
    assert (old / "checkpoints" / "best.ckpt").read_bytes() == before


def test_a_best_checkpoint_that_is_gone_does_not_hinder_a_resume(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    _fit(old, BestCheckpoint(), LastCheckpoint())
    (old / "checkpoints" / "best.ckpt").unlink()
    _fit(new, BestCheckpoint(), max_epochs=2, ckpt_path=old / "checkpoints" / "last.ckpt")
    assert _load(new / "checkpoints" / "best.ckpt")["epoch"] == 1


def test_the_last_checkpoint_is_the_last_however_bad(tmp_path: Path) -> None:
    trainer = _fit(tmp_path, Losses([1, 2, 3]), BestCheckpoint("given"), LastCheckpoint(), max_epochs=3)
    assert sorted(path.name for path in tmp_path.rglob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    last = _load(tmp_path / "checkpoints" / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (3, 9)  # three epochs are over
    state: dict[str, Tensor] = trainer.lightning_module.state_dict()
    torch.testing.assert_close(last["state_dict"], state, rtol=0, atol=0)
    assert isinstance(trainer.checkpoint_callback, BestCheckpoint)


# Three steps make an epoch: in the middle of the first, in its last step, in the middle of the second.
@pytest.mark.parametrize("step", [1, 3, 5])
def test_ctrl_c_ends_the_run_after_the_step_and_saves_it(
    tmp_path: Path, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _fit(tmp_path, LastCheckpoint(), Interrupt(step), max_epochs=3)
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert _load(path)["global_step"] == step
    out = capsys.readouterr().out
    assert "Ctrl-C: stopping after this step" in out
    assert f"python train.py --ckpt_path {path}" in out


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        _fit(tmp_path, LastCheckpoint(), Interrupt(2), Interrupt(2))
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_ctrl_c_means_what_it_meant_after_a_run(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    _fit(tmp_path, LastCheckpoint())
    assert signal.getsignal(signal.SIGINT) is before
