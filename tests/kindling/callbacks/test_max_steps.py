"""Runs that `max_steps` ends."""

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.front_door import Run

FLAGS = "--model.hidden [16] --model.dropout 0.3 --data.batch_size 128"  # 11 steps are an epoch
LAST = "runs/LitMLP-DigitsDataModule/version_{}/checkpoints/last.ckpt"


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
