"""The private parts of Lightning, jsonargparse and torch that Kindling relies on, for which pyproject.toml has bounds.

A new release that lacks one of them fails here, by name, and not somewhere in a run.
"""

import inspect
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.trainer.connectors.data_connector import _resolve_overfit_batches
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader

from datamodules import BatchSampler
from datamodules.sampler import Inputs
from lit_models import LitMLP
from tests.helpers.trainers import keep, quiet_trainer


def test_what_is_private_is_there(tmp_path: Path) -> None:
    # kindling/cli.py overrides or calls them.
    for name in ("_parse_ckpt_path", "_prepare_subcommand_kwargs", "_add_configure_optimizers_method_to_model"):
        assert callable(getattr(LightningCLI, name)), name
    assert list(inspect.signature(LightningCLI._parser).parameters) == ["self", "subcommand"]
    assert list(inspect.signature(LightningCLI._get).parameters) == ["self", "config", "key", "default"]
    assert "self.config_init[subcommand]" in inspect.getsource(LightningCLI._prepare_subcommand_kwargs)
    # kindling/callbacks/checkpoints.py
    assert ModelCheckpoint()._last_global_step_saved == 0
    assert list(inspect.signature(ModelCheckpoint._save_checkpoint).parameters) == ["self", "trainer", "filepath"]
    assert EarlyStopping("val_loss").stopping_reason_message is None
    # kindling/callbacks/summary.py, kindling/callbacks/resuming.py and datamodules/base.py
    trainer = quiet_trainer()
    loop = trainer.fit_loop
    assert (loop.epoch_progress.current.ready, loop.epoch_loop.batch_progress.total.ready) == (0, 0)
    assert loop.epoch_loop.batch_idx == -1
    assert hasattr(loop, "min_epochs")
    assert hasattr(loop.epoch_loop, "min_steps")
    assert trainer.predict_loop.return_predictions is False
    # kindling/callbacks/resuming.py, in a checkpoint
    saved = torch.load(keep(LitMLP(4), tmp_path / "a.ckpt"), weights_only=True)["loops"]["fit_loop"]
    assert saved["epoch_progress"]["current"].keys() == {"ready", "completed", "started", "processed"}
    assert saved["epoch_loop.batch_progress"]["current"].keys() == {"ready", "completed", "started", "processed"}
    assert "is_last_batch" in saved["epoch_loop.batch_progress"]
    # lit_models/base.py
    assert nn.Module()._compiled_call_impl is None


def test_overfitting_leaves_our_order_of_batches_alone() -> None:
    samples = Inputs(torch.arange(9))
    loader = DataLoader(samples, sampler=BatchSampler(torch.arange(9), 3), batch_size=None)
    combined = CombinedLoader([loader])
    _resolve_overfit_batches(combined, mode=RunningStage.TRAINING)
    assert combined.flattened == [loader]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--x", "1"], "unrecognized arguments: --x"),
        (["--optimizer", "SGDD"], "Expected a dot import path string: SGDD"),
        (["--optimizer", "SGD", "--optimizer.lt", "1"], "Option 'lt' is not accepted"),
        (["--optimizer", "torch.nn.Linear"], "does not correspond to a subclass of Optimizer\n"),
        (["--lr_scheduler", "StepLR"], "the following arguments are required: step_size"),
    ],
)
def test_jsonargparse_words_its_errors_as_kindling_reads_them(args: list[str], text: str) -> None:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_optimizer_args()
    parser.add_lr_scheduler_args()
    with pytest.raises(ArgumentError) as caught:
        parser.parse_args(args)
    assert text in str(caught.value)
