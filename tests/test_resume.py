"""A run that is interrupted and resumed ends exactly as an uninterrupted one."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.front_door import Run

FLAGS = (
    "--max_epochs 3 --model.hidden [16] --model.dropout 0.3 --model.scheduler one-cycle --model.optimizer AdamW "
    "--data.shift 1 --data.batch_size 128"
)
LAST = "runs/LitMLP-DigitsDataModule/version_{}/checkpoints/last.ckpt"


def _state(version: int) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(LAST.format(version), weights_only=True)["state_dict"]
    return state


def _summary(version: int) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(
        Path(f"runs/LitMLP-DigitsDataModule/version_{version}/summary.json").read_text()
    )
    return summary


def _interrupted(run: Run, flags: str, step: int) -> None:
    with pytest.raises(SystemExit):
        run(f"{flags} --trainer.callbacks+=tests.helpers.tiny.Interrupt --trainer.callbacks.step {step}")


# There are 11 steps in an epoch: in the first one, at its end, after its end, and in the middle.
@pytest.mark.parametrize("step", [1, 10, 11, 12, 17])
def test_resumed_run_equals_an_uninterrupted_one(run: Run, step: int, capsys: pytest.CaptureFixture[str]) -> None:
    run(FLAGS)
    _interrupted(run, FLAGS, step)
    command = capsys.readouterr().out.partition("go on with: python train.py ")[2].partition("\n")[0]
    assert command.endswith(f"--ckpt_path {LAST.format(1)}")
    assert (
        json.loads(Path("runs/LitMLP-DigitsDataModule/version_1/summary.json").read_text())["status"] == "interrupted"
    )
    assert torch.load(LAST.format(1), weights_only=True)["global_step"] == step
    resumed = run(command)
    assert resumed.trainer.global_step == 33
    torch.testing.assert_close(_state(2), _state(0), rtol=0, atol=0)
    losses = [_summary(version)["final"]["train_loss"] for version in (0, 2)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_run_interrupted_in_its_last_step_is_finished(run: Run) -> None:
    run(FLAGS)
    _interrupted(run, FLAGS, 33)
    torch.testing.assert_close(_state(1), _state(0), rtol=0, atol=0)
    cli = run(f"--ckpt_path {LAST.format(1)} --max_epochs 3")
    assert "test_acc" in cli.trainer.callback_metrics


def test_an_interrupted_run_that_accumulates_gradients_ends_a_whole_step(run: Run) -> None:
    flags = f"{FLAGS} --accumulate_grad_batches 4"
    run(flags)
    _interrupted(run, flags, 2)
    run(f"--ckpt_path {LAST.format(1)} --max_epochs 3 --accumulate_grad_batches 4")
    torch.testing.assert_close(_state(2), _state(0), rtol=0, atol=0)


def test_so_does_one_with_worker_processes(run: Run) -> None:
    run(FLAGS)
    _interrupted(run, f"{FLAGS} --data.num_workers 2", 17)
    run(f"--ckpt_path {LAST.format(1)} --max_epochs 3")
    torch.testing.assert_close(_state(2), _state(0), rtol=0, atol=0)


@pytest.mark.parametrize("scheduler", ["none", "one-cycle", "cosine", "plateau"])
def test_more_epochs_can_be_added_to_a_finished_run(run: Run, scheduler: str) -> None:
    run(f"--max_epochs 2 --model.hidden [16] --model.scheduler {scheduler}")
    cli = run(f"--ckpt_path {LAST.format(0)} --max_epochs 4")
    assert cli.trainer.current_epoch == 4
    lr = cli.trainer.optimizers[0].param_groups[0]["lr"]
    assert lr == pytest.approx(1e-3) if scheduler in ("none", "plateau") else lr < 1e-5


def test_the_best_of_the_old_run_stays_the_best_until_it_is_beaten(run: Run) -> None:
    run("--max_epochs 3 --model.hidden [16]")
    old = torch.load(LAST.format(0).replace("last", "best"), weights_only=True)
    # A learning rate that only destroys.
    run(f"--ckpt_path {LAST.format(0)} --max_epochs 4 --model.lr 10")
    new = torch.load(LAST.format(1).replace("last", "best"), weights_only=True)
    torch.testing.assert_close(new["state_dict"], old["state_dict"], rtol=0, atol=0)


def test_a_schedule_that_comes_with_resuming_is_where_the_training_is(run: Run) -> None:
    run("--max_epochs 2 --model.hidden [16] --model.lr 0.01")
    cli = run(f"--ckpt_path {LAST.format(0)} --max_epochs 4 --model.scheduler cosine")
    assert cli.trainer.lr_scheduler_configs[0].scheduler.last_epoch == cli.trainer.global_step
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_ctrl_c_means_what_it_did_before(run: Run) -> None:
    before = signal.getsignal(signal.SIGINT)
    _interrupted(run, FLAGS, 3)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_optimizer_can_take_over(run: Run) -> None:
    run("--max_epochs 1 --model.hidden [16]")
    cli = run(f"--ckpt_path {LAST.format(0)} --max_epochs 2 --model.optimizer SGD --model.lr 0.1")
    assert isinstance(cli.trainer.optimizers[0], torch.optim.SGD)
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.1
