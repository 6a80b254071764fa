"""Runs that go on: random states in checkpoints, and runs that `max_steps` ends."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules import DigitsDataModule
from kindling.callbacks import RNGState
from lit_models import LitMLP
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer

FLAGS = "--model.hidden [16] --model.dropout 0.3 --data.batch_size 128"  # 11 steps are an epoch
LAST = "runs/LitMLP-DigitsDataModule/version_{}/checkpoints/last.ckpt"


def _draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), *np.random.rand(3), np.random.randn(), *torch.rand(3).tolist()]


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("drawn_before", [0, 1, 5])
def test_all_generators_go_on_where_they_were(drawn_before: int) -> None:
    for _ in range(drawn_before):
        _draw()
    state = _through_a_file(RNGState().state_dict())
    expected = _draw() + _draw()
    assert _draw() != expected[: len(expected) // 2]
    callback = RNGState()
    callback.load_state_dict(state)
    trainer, model = quiet_trainer(), LitMLP(4, [4])
    callback.on_train_start(trainer, model)
    assert _draw() + _draw() == expected
    callback.on_train_start(trainer, model)  # and it happens once
    assert _draw() + _draw() != expected


def test_a_state_changes_nothing_before_training_starts() -> None:
    callback = RNGState()
    state = _through_a_file(callback.state_dict())
    _draw()
    before = torch.get_rng_state()
    callback.load_state_dict(state)
    assert torch.get_rng_state().equal(before)


def test_without_a_state_nothing_is_restored() -> None:
    trainer, model = quiet_trainer(), LitMLP(4, [4])
    before = torch.get_rng_state()
    RNGState().on_train_start(trainer, model)
    assert torch.get_rng_state().equal(before)


class Draws(Callback):
    """Draws numbers in every step."""

    def __init__(self) -> None:
        self.numbers: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Draw from every generator."""
        self.numbers.append(_draw())


class Save(Callback):
    """Saves after the first epoch.

    Args:
        path: Where.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_draws_what_the_whole_run_drew(tmp_path: Path) -> None:
    whole, resumed = Draws(), Draws()
    options: dict[str, Any] = {"limit_train_batches": 3}
    path = str(tmp_path / "first.ckpt")
    quiet_trainer(max_epochs=3, callbacks=[RNGState(), whole, Save(path)], **options).fit(
        LitMLP(64, [8]), DigitsDataModule()
    )
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    quiet_trainer(max_epochs=3, callbacks=[RNGState(), resumed], **options).fit(
        LitMLP(64, [8]), DigitsDataModule(), ckpt_path=path, weights_only=True
    )
    assert resumed.numbers == whole.numbers[3:]


@pytest.mark.parametrize("steps", [1, 11, 16])
def test_it_ends_with_a_validation_of_its_last_step(run: Run, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    cli = run(f"{FLAGS} --max_steps {steps}")
    assert cli.trainer.global_step == steps
    out = capsys.readouterr().out
    assert "best val_loss" in out
    assert "checkpoints/best.ckpt" in out
    best = torch.load(LAST.format(0).replace("last", "best"), weights_only=True)
    assert best["global_step"] == steps
    summary = json.loads(Path("runs/LitMLP-DigitsDataModule/version_0/summary.json").read_text())
    assert summary["best"]["val_loss"] == summary["final"]["val_loss"]
    validated = run(f"validate --ckpt_path {LAST.format(0)}").trainer.callback_metrics["val_loss"]
    assert float(validated) == pytest.approx(summary["final"]["val_loss"], rel=1e-5)


@pytest.mark.parametrize("least", ["--min_epochs 3", "--min_steps 9"])
def test_a_least_length_does_not_put_the_validation_off(run: Run, least: str) -> None:
    cli = run(f"{FLAGS} --max_steps 5 {least}")
    assert cli.trainer.global_step == 5
    assert torch.load(LAST.format(0).replace("last", "best"), weights_only=True)["global_step"] == 5


@pytest.mark.parametrize("steps", [1, 10, 11, 12, 22])
def test_it_goes_on_as_if_it_had_never_stopped(run: Run, steps: int) -> None:
    run(f"{FLAGS} --max_steps 26")
    run(f"{FLAGS} --max_steps {steps}")
    resumed = run(f"--ckpt_path {LAST.format(1)} --max_steps 26")
    assert resumed.trainer.global_step == 26
    whole, parts = (torch.load(LAST.format(version), weights_only=True)["state_dict"] for version in (0, 2))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)


def test_it_goes_on_for_epochs_too(run: Run) -> None:
    run(f"{FLAGS} --max_epochs 2")
    run(f"{FLAGS} --max_steps 5")
    run(f"--ckpt_path {LAST.format(1)} --max_epochs 2")
    whole, parts = (torch.load(LAST.format(version), weights_only=True)["state_dict"] for version in (0, 2))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)
