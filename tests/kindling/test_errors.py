"""One line for what a person can mend, and a traceback for what is our fault."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, IterableDataset

from datamodules import DataError
from kindling.errors import explain, show_messages
from lit_models import LitMLP
from tests.helpers.front_door import Run

Mistake = Callable[[str], str]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("--modle LitMLP", "--modle: there is no such flag; did you mean --model?"),
        ("--max_epoch 3", "--max_epoch: there is no such flag; did you mean --max_epochs?"),
        ("--early_stopping.patiense 3", "did you mean --early_stopping.patience?"),
        ("--model.hiden [3]", "--model.hiden: LitMLP has no such option; did you mean --model.hidden?"),
        ("--model LitLenet", "--model LitLenet: there is no such class; did you mean LitLeNet?"),
        ("--data MnistDataModule", "did you mean MNISTDataModule?"),
        ("--optimizer AdamWW", "did you mean AdamW?"),
        ("--max_epochs three", "--max_epochs three: expected int."),
        ("--model.activation relo", "--model.activation relo: expected Literal['relu', 'sigmoid', 'tanh', 'gelu']."),
        ("--model.lr fast", "--model.lr fast: expected float."),
        ("--model torch.nn.Linear", "--model: the class that was given is no LightningModule."),
        ("--lr_scheduler StepLR", "--lr_scheduler.step_size: StepLR needs this option."),
        ("fitt", "fitt: there is no such subcommand; did you mean fit?"),
        ("--config nothing.yaml", "nothing.yaml"),
        ("--ckpt_path nothing.ckpt", "--ckpt_path nothing.ckpt: there is no such file"),
        ("--data.val_fraction 1.5", "--data.val_fraction 1.5: give a share from 0"),
        ("--config nothere.yaml", "--config nothere.yaml: no such file."),
        ("--data.batch_size 0", "--data.batch_size 0: a batch has at least 1 sample."),
        ("--data.num_folds 5 --data.fold 5", "--data.fold 5: the folds are 0 to 4."),
        ("--model LitLeNet", "made for 28x28 or 32x32 images, not 8x8"),
        ("--model.loss MSELoss", "--model.loss MSELoss: a multiclass task takes CrossEntropyLoss."),
        ("--model.scheduler cosine --max_epochs -1", "--model.scheduler: a schedule needs an end"),
        ("--data ToyDataModule --data.name diabetes --data.balance weights", "only classes can be balanced"),
        ("--model.in_features 5", "--model.in_features 5, but DigitsDataModule has 64; leave it out."),
        ("--model.num_outputs 3", "--model.num_outputs 3, but DigitsDataModule has 10; leave it out."),
        ("--default_root_dir /proc/nowhere", "--default_root_dir /proc/nowhere: no folder can be made there"),
        ("--early_stopping.monitor val_los", "--early_stopping.monitor val_los: nothing of this name is measured"),
        (
            "--optimizer SGD --model.lr 0.5",
            "--model.lr: --optimizer SGD is what trains this model; give --optimizer.lr.",
        ),
        ("--model.dropout 2", "--model.dropout 2.0: give a share from 0"),
        ("--model.hidden [-3]", "--model.hidden [-3]: a layer has at least 1 unit."),
        ("--model LitConvNet --model.channels []", "--model.channels []: give one stage or more"),
        ("--model.lr -1", "--model.lr -1.0: give 0 or more."),
        ("--accelerator foo", "foo"),
        ("--val_check_interval 1000", "--val_check_interval 1000: "),
        ("--accumulate_grad_batches 0", "--accumulate_grad_batches 0: give more"),
        ("--devices 0", "--devices 0: "),
        ("--early_stopping.mode foo", "--early_stopping.mode foo: "),
        ("--callbacks+=Timer --callbacks.duration never", "--callbacks.duration never: "),
        ("--callbacks+=RichProgressBar", "`RichProgressBar` requires `rich`"),
        ("--callbacks+=LayerStatistic", "--callbacks LayerStatistic: there is no such class; did you mean LayerStat"),
        ("--callbacks+=kindling.callbacks.Foo", "--callbacks kindling.callbacks.Foo: there is no such class"),
        ("--callbacks+=lightning.pytorch.callbacks.EarlyStopping", "--callbacks.monitor: EarlyStopping needs this"),
        ("--callbacks+=ModelCheckpoint --callbacks.monitor val_los", "val_los"),
        ("--logger WandbLogger", "--logger: Requirement 'wandb"),
        ("--logger.name foo --logger CSVLogger", "--logger.name foo: name the class first, by --logger CLASS."),
        ("--data ToyDataModule --data.name irs", "--data.name irs: expected Literal['iris'"),
    ],
)
def test_a_mistake_is_one_line_that_says_how_to_mend_it(mistake: Mistake, line: str, answer: str) -> None:
    assert answer in mistake(line)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_one_line(mistake: Mistake) -> None:
    assert "--accelerator gpu: this machine has no GPU that torch can use" in mistake("--accelerator gpu")


def test_a_misspelt_key_in_a_config_is_one_line(mistake: Mistake, workdir: Path) -> None:
    (workdir / "bad.yaml").write_text("modle:\n  class_path: LitMLP\n")
    assert "modle: a configuration has no such key; did you mean model?" in mistake("--config bad.yaml")
    (workdir / "broken.yaml").write_text("model:\n class_path: [LitMLP\n")
    assert "line 2" in mistake("--config broken.yaml")


def test_a_file_that_is_no_checkpoint_is_one_line(mistake: Mistake, workdir: Path) -> None:
    (workdir / "some.ckpt").write_text("hello")
    assert "some.ckpt: not a checkpoint that can be read" in mistake("test --ckpt_path some.ckpt")


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(Exception, match="modle"):
        run("--debug --modle LitMLP")


def test_a_fault_of_our_own_is_not_dressed_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(LitMLP, "training_step", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run("--max_epochs 1")
    summary = json.loads(Path("runs/LitMLP-DigitsDataModule/version_0/summary.json").read_text())
    assert summary["status"] == "failed: RuntimeError"


class Bad(IterableDataset[int]):
    """Data in which a worker process finds a mistake.

    Args:
        error: The mistake.
    """

    def __init__(self, error: DataError) -> None:
        self.error = error

    def __iter__(self) -> Iterator[int]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("ants/1.jpg has changed", "leave it"), "ants/1.jpg has changed; leave it."),
        (
            DataError("1.jpg has changed", "leave it, or give `cache='none'`", option="path", value="ants"),
            "--data.path ants: 1.jpg has changed; leave it, or give --data.cache none.",
        ),
    ],
)
def test_what_a_worker_finds_is_one_line_as_well(error: DataError, line: str) -> None:
    with pytest.raises(DataError) as caught:
        next(iter(DataLoader(Bad(error), num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert explain(caught.value) == line


def test_a_fault_of_our_own_that_lightning_finds_is_not_dressed_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LitMLP, "on_train_start", lambda model: model.log("two", torch.zeros(2)))
    with pytest.raises(ValueError, match="single element"):
        run("--max_epochs 1")


def test_libraries_are_heard_once_however_often_the_door_opens(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        show_messages()
        logging.getLogger("datamodules.tables").info("columns found: %s", "a, b")
        logging.getLogger("lit_models.gpt").warning("odd")
        assert capsys.readouterr() == ("columns found: a, b\nodd\n", "")


def test_other_processes_keep_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    show_messages()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logging.getLogger("datamodules.tables").info("columns found")
    assert capsys.readouterr() == ("", "")


def test_the_program_is_named_as_it_was_started(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kindling"])
    with pytest.raises(SystemExit):
        run("--xyz 1")
    assert capsys.readouterr().err == "kindling: --xyz: there is no such flag; see kindling --help.\n"
