"""What trains: the `--optimizer` and `--lr_scheduler` groups, or the model's own options."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.front_door import Run

BEST = "runs/LitMLP-DigitsDataModule/version_0/checkpoints/best.ckpt"


def test_optimizer_and_scheduler_groups_are_what_runs_and_what_is_restored(run: Run) -> None:
    run("--max_epochs 2 --optimizer SGD --optimizer.lr 0.05 --lr_scheduler StepLR --lr_scheduler.step_size 1")
    checkpoint = torch.load(BEST, weights_only=True)
    assert checkpoint["optimizer_config"]["class_path"] == "torch.optim.SGD"
    cli = run(f"--ckpt_path {BEST.replace('best', 'last')} --max_epochs 3")
    optimizer = cli.trainer.optimizers[0]
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.1**3)


def test_a_models_own_flags_beat_the_groups_of_a_checkpoint(run: Run) -> None:
    run("--max_epochs 1 --optimizer SGD --optimizer.lr 0.05 --lr_scheduler StepLR --lr_scheduler.step_size 1")
    last = BEST.replace("best", "last")
    cli = run(f"--ckpt_path {last} --max_epochs 2 --model.optimizer Adam --model.scheduler cosine")
    assert isinstance(cli.trainer.optimizers[0], torch.optim.Adam)
    assert isinstance(cli.trainer.lr_scheduler_configs[0].scheduler, torch.optim.lr_scheduler.LambdaLR)


def test_a_scheduler_alone_keeps_the_models_optimizer_and_one_cycle_counts_steps(run: Run) -> None:
    cli = run("--max_epochs 2 --model.optimizer SGD --lr_scheduler OneCycleLR --lr_scheduler.max_lr 0.1")
    assert isinstance(cli.trainer.optimizers[0], torch.optim.SGD)
    scheduler = cli.trainer.lr_scheduler_configs[0].scheduler
    assert scheduler.last_epoch == cli.trainer.global_step == 2 * cli.trainer.num_training_batches


def test_the_line_of_the_readme_with_a_cosine_schedule(run: Run, mnist_dir: str) -> None:
    cli = run(
        f"--model LitMLP --data MNISTDataModule --data.data_dir {mnist_dir} --optimizer AdamW --optimizer.lr 0.003 "
        "--lr_scheduler CosineAnnealingLR --lr_scheduler.T_max 3 --max_epochs 3 --limit_train_batches 20"
    )
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    assert cli.trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        ("--model.init_args.lr 0.5 --optimizer SGD", "--model.lr: --optimizer SGD is what trains this model"),
        ("--model.lr=0.001 --optimizer SGD", "--model.lr: --optimizer SGD is what trains this model"),
        ("--config hidden.yaml", "--model.momentum: --optimizer SGD is what trains this model"),
    ],
)
def test_an_option_that_a_group_hides_is_refused_however_it_is_given(
    mistake: Callable[[str], str], workdir: Path, flags: str, answer: str
) -> None:
    (workdir / "hidden.yaml").write_text("model:\n  momentum: 0.5\noptimizer: SGD\n")
    assert answer in mistake(flags)


def test_the_configuration_of_a_run_with_a_group_is_no_mistake(run: Run) -> None:
    cli = run("--max_epochs 1 --optimizer SGD --limit_train_batches 2")
    again = run(f"--config {cli.trainer.default_root_dir}/config.yaml")
    assert isinstance(again.trainer.optimizers[0], torch.optim.SGD)


@pytest.mark.parametrize(
    "flags",
    [
        "--lr_scheduler StepLR --lr_scheduler.step_size 0",
        "--lr_scheduler CosineAnnealingLR --lr_scheduler.T_max 0",
        "--lr_scheduler ReduceLROnPlateau --lr_scheduler.monitor val_loss --lr_scheduler.factor 2.0",
        "--optimizer SGD --optimizer.lr -1.0",
        "--optimizer AdamW --optimizer.eps -1.0",
    ],
)
def test_what_only_torch_refuses_is_one_line(mistake: Callable[[str], str], flags: str) -> None:
    assert f"train.py: {flags}: torch cannot use this (" in mistake(flags)
