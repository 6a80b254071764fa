"""What a Trainer is made of: the user's callbacks and loggers beside ours, in one folder."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch import callbacks as stock

from kindling.callbacks import BestCheckpoint, EarlyStopping, LastCheckpoint, LayerStatistics
from tests.helpers.front_door import Run

QUICK = "--max_epochs 1 --limit_train_batches 2 --limit_val_batches 1 --limit_test_batches 1"
RUN = Path("runs/LitMLP-DigitsDataModule")


def _files(folder: Path) -> set[str]:
    """The names of a run's files, and `events` for those of TensorBoard."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {"events" if name.startswith("events.") else name for name in names}


def _has_statistics(trainer: Trainer) -> bool:
    return any(isinstance(callback, LayerStatistics) for callback in vars(trainer)["callbacks"])


EVERY_RUN = {"config.yaml", "summary.json", "hparams.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}


@pytest.mark.parametrize(
    ("flags", "cls"),
    [
        ("--trainer.callbacks+=EarlyStopping --trainer.callbacks.patience 3", EarlyStopping),
        ("--callbacks+=callbacks.EarlyStopping --callbacks.patience 3", EarlyStopping),
        (
            "--callbacks+=lightning.pytorch.callbacks.EarlyStopping --callbacks.monitor val_loss "
            "--callbacks.patience 3",
            stock.EarlyStopping,
        ),
    ],
)
def test_early_stopping_that_is_given_takes_the_place_of_ours(run: Run, flags: str, cls: type) -> None:
    (stop,) = run(f"{QUICK} {flags}").trainer.early_stopping_callbacks
    assert type(stop) is cls
    assert (stop.patience, stop.monitor) == (3, "val_loss")


def test_a_checkpoint_that_monitors_is_the_best(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli = run(f"{QUICK} --callbacks+=ModelCheckpoint --callbacks.monitor val_acc --callbacks.mode max")
    assert [type(callback) for callback in cli.trainer.checkpoint_callbacks] == [stock.ModelCheckpoint, LastCheckpoint]
    assert "best val_acc" in (out := capsys.readouterr().out)
    assert f"test --ckpt_path {RUN}/version_0/checkpoints/epoch=0-step=2.ckpt" in out
    assert {path.name for path in (RUN / "version_0/checkpoints").iterdir()} == {"epoch=0-step=2.ckpt", "last.ckpt"}


def test_a_checkpoint_that_monitors_nothing_is_one_more(run: Run) -> None:
    cli = run(f"{QUICK} --callbacks+=ModelCheckpoint --callbacks.every_n_train_steps 1 --callbacks.filename step")
    kinds = [BestCheckpoint, stock.ModelCheckpoint, LastCheckpoint]
    assert [type(callback) for callback in cli.trainer.checkpoint_callbacks] == kinds
    names = {path.name for path in (RUN / "version_0/checkpoints").iterdir()}
    assert {"best.ckpt", "step.ckpt", "last.ckpt"} <= names


def test_two_callbacks_of_one_kind_are_a_mistake(mistake: Callable[[str], str]) -> None:
    twice = "--callbacks+=ModelCheckpoint --callbacks.monitor val_loss"
    assert "more than one stateful callback" in mistake(f"{twice} {twice}")


@pytest.mark.parametrize("flags", ["--early_stopping null", "--config off.yaml"])
def test_early_stopping_can_be_turned_off(run: Run, workdir: Path, flags: str) -> None:
    (workdir / "off.yaml").write_text("early_stopping: null\n")
    cli = run(f"{QUICK} {flags}")
    assert not cli.trainer.early_stopping_callbacks
    again = run(f"--config {cli.trainer.default_root_dir}/config.yaml")
    assert not again.trainer.early_stopping_callbacks


@pytest.mark.parametrize("name", ["LayerStatistics", "callbacks.LayerStatistics", "kindling.callbacks.LayerStatistics"])
def test_our_callbacks_are_known_by_their_names(run: Run, name: str) -> None:
    cli = run(f"--fast_dev_run 1 --callbacks+={name}")
    assert _has_statistics(cli.trainer)


def test_an_older_configuration_names_classes_that_have_moved(run: Run, workdir: Path) -> None:
    (workdir / "old.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: callbacks.LayerStatistics\n"
        "  - class_path: callbacks.checkpoints.BestCheckpoint\n    init_args:\n      monitor: val_acc\n"
    )
    cli = run(f"{QUICK} --config old.yaml")
    assert _has_statistics(cli.trainer)
    assert cli.summary.summary["monitor"] == "val_acc"


def test_a_csv_logger_writes_to_the_runs_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli = run(f"{QUICK} --logger CSVLogger")
    assert _files(RUN / "version_0") == {*EVERY_RUN, "metrics.csv"}
    assert [path.name for path in Path().iterdir()] == ["runs"]
    out = capsys.readouterr().out
    assert f"  curves   {RUN}/version_0/metrics.csv\n" in out
    assert "tensorboard" not in out
    run(f"--config {cli.trainer.default_root_dir}/config.yaml")  # in a folder of its own
    assert _files(RUN / "version_1") == {*EVERY_RUN, "metrics.csv"}


@pytest.mark.parametrize("flags", ["--logger+=CSVLogger --logger+=TensorBoardLogger", "--config loggers.yaml"])
def test_several_loggers_share_the_runs_folder(
    run: Run, capsys: pytest.CaptureFixture[str], workdir: Path, flags: str
) -> None:
    names = ["CSVLogger", {"class_path": "lightning.pytorch.loggers.TensorBoardLogger"}]
    (workdir / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": names}}))
    run(f"{QUICK} {flags}")
    assert _files(RUN / "version_0") == {*EVERY_RUN, "metrics.csv", "events"}
    out = capsys.readouterr().out
    assert f"  curves   {RUN}/version_0/metrics.csv\n  curves   tensorboard --logdir runs\n" in out


def test_a_folder_that_is_given_to_a_logger_is_kept(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{QUICK} --logger CSVLogger --logger.save_dir mine")
    assert _files(RUN / "version_0") == EVERY_RUN - {"hparams.yaml"}
    assert "  curves   mine/lightning_logs/version_0/metrics.csv\n" in capsys.readouterr().out


def test_without_a_logger_no_curves_are_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{QUICK} --logger false")
    assert "curves" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("logger", "new"),
    [("--logger CSVLogger", {"{}/metrics.csv", "{}/hparams.yaml", "events"}), ("--logger true", {"events"})],
)
def test_what_is_evaluated_logs_to_the_run_that_it_belongs_to(run: Run, logger: str, new: set[str]) -> None:
    run(f"{QUICK} --logger CSVLogger")
    before, curves = _files(RUN / "version_0"), (RUN / "version_0/metrics.csv").read_text()
    found = set()
    for subcommand in ("test", "validate", "predict"):
        run(f"{subcommand} --ckpt_path {RUN}/version_0/checkpoints/best.ckpt {logger}")
        found |= {name.format(subcommand) for name in new}
    assert _files(RUN / "version_0") == before | found - {"predict/metrics.csv"}  # there is nothing to write
    assert (RUN / "version_0/metrics.csv").read_text() == curves
    assert {path.name for path in Path().iterdir()} == {"runs", "predictions.csv"}
    assert [path.name for path in RUN.iterdir()] == ["version_0"]


def test_what_logs_without_a_run_gets_one(run: Run) -> None:
    run(f"{QUICK} --logger false")
    Path(RUN / "version_0/checkpoints/best.ckpt").rename("kept.ckpt")
    run("test --ckpt_path kept.ckpt --logger CSVLogger")
    assert (RUN / "version_1/test/metrics.csv").is_file()


def test_one_batch_can_be_overfitted(run: Run) -> None:
    cli = run("--overfit_batches 1 --max_epochs 15 --data.val_fraction 0 --early_stopping null --model.lr 0.01")
    metrics = cli.summary.summary["final"]
    assert metrics["train_loss"] < 0.1
    # Measured after the last step, on the same batch.
    assert metrics["val_loss"] < metrics["train_loss"]
    assert cli.trainer.global_step == 15


def test_a_stream_has_no_batch_to_overfit(mistake: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{i % 5}.5\n" for i in range(400)))
    line = f"--model LitMLP --data CSVDataModule --data.path {tmp_path}/t.csv --data.streaming true --overfit_batches 1"
    assert "--overfit_batches: a stream has no batches to come back to" in mistake(line)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine that seems to have four GPUs; returns what the Trainer, which uses the CPU, was asked for."""
    asked: dict[str, Any] = {}
    create = Trainer.__init__

    @functools.wraps(create)
    def init(self: Trainer, *args: Any, **options: Any) -> None:
        asked.update(options)
        create(self, *args, **{**options, "accelerator": "cpu", "devices": 1, "strategy": "auto"})

    monkeypatch.setattr("kindling.trainer.device_count", lambda: 4)
    monkeypatch.setattr(Trainer, "__init__", init)
    return asked


FEW = "one of 4 GPUs is used, as 1,294 training samples are few; --devices 4 uses all of them\n"


@pytest.mark.parametrize(
    ("flags", "devices", "said"),
    [
        ("", 1, FEW),
        ("--accelerator gpu", 1, FEW),
        ("--devices auto", 1, FEW),
        ("--devices 2", "2", ""),
        ("--devices [1]", [1], ""),
        ("--strategy ddp", "auto", ""),
        ("--accelerator cpu", "auto", ""),
    ],
)
def test_few_samples_are_trained_on_one_gpu(
    run: Run,
    four_gpus: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    devices: object,
    said: str,
) -> None:
    monkeypatch.setattr("kindling.cli.KindlingCLI._run_subcommand", lambda *_: None)
    run(f"--max_epochs 1 {flags}")
    assert four_gpus["devices"] == devices
    assert [line for line in capsys.readouterr().out.splitlines(True) if "GPUs" in line] == [said] * bool(said)


def test_the_choice_of_one_gpu_is_not_in_the_configuration(run: Run, four_gpus: dict[str, Any]) -> None:
    run(f"{QUICK}")
    assert four_gpus["devices"] == 1
    assert yaml.safe_load((RUN / "version_0/config.yaml").read_text())["trainer"]["devices"] == "auto"


def test_many_samples_are_trained_on_all_and_predicted_by_one(
    run: Run, four_gpus: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling.trainer.FEW", 1294)
    run(QUICK)
    assert four_gpus["devices"] == "auto"
    run(f"predict --ckpt_path {RUN}/version_0/checkpoints/best.ckpt")
    assert four_gpus["devices"] == 1
    assert "one of 4 GPUs is used, as predictions are written by one process\n" in capsys.readouterr().out


def test_a_gpu_is_chosen_by_its_number(run: Run, monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("kindling.cli.KindlingCLI._run_subcommand", lambda *_: None)
    cli = run("--accelerator gpu --devices [1]")
    assert str(cli.trainer.strategy.root_device) == "cuda:1"


def test_a_gpu_that_is_not_there_is_a_mistake(
    mistake: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, workdir: Path
) -> None:
    assert "--devices: it names a GPU, and this machine has none that torch can use" in mistake("--devices [1]")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert "--devices [1]: the GPUs of this machine are [0]." in mistake("--accelerator gpu --devices [1]")
