"""What a checkpoint says: public addresses, and nothing imported that the user did not name."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kindling.checkpoints import public_address
from tests.helpers.front_door import Run

BEST = "runs/LitMLP-DigitsDataModule/version_0/checkpoints/best.ckpt"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lit_models.mlp.LitMLP", "lit_models.LitMLP"),
        ("lit_models.LitMLP", "lit_models.LitMLP"),
        ("datamodules.tabular.CSVDataModule", "datamodules.CSVDataModule"),
        ("datamodules.vision.MNISTDataModule", "datamodules.MNISTDataModule"),
        ("callbacks.LayerStatistics", "kindling.callbacks.LayerStatistics"),
        ("callbacks.checkpoints.BestCheckpoint", "kindling.callbacks.BestCheckpoint"),
        ("lit_models.mlp.Missing", "lit_models.mlp.Missing"),
        ("users_models.LitMLP", "users_models.LitMLP"),
        ("LitMLP", "LitMLP"),
    ],
)
def test_an_old_address_is_mapped_to_the_public_one(old: str, new: str) -> None:
    assert public_address(old) == new


def test_files_name_classes_by_their_public_addresses(run: Run) -> None:
    run("--max_epochs 1")
    saved = torch.load(BEST, weights_only=True)
    assert saved["class_path"] == "lit_models.LitMLP"
    assert saved["DigitsDataModule"]["class_path"] == "datamodules.DigitsDataModule"
    config = yaml.safe_load(Path(BEST).parent.with_name("config.yaml").read_text())
    assert config["model"]["class_path"] == "lit_models.LitMLP"
    assert config["data"]["class_path"] == "datamodules.DigitsDataModule"


def _name_evil(**changes: Any) -> None:
    """Let the checkpoint name something to import."""
    checkpoint = torch.load(BEST, weights_only=True)
    for key, value in changes.items():
        if isinstance(value, dict):
            checkpoint[key] = {**(checkpoint[key] or {}), **value}
        else:
            checkpoint[key] = value
    torch.save(checkpoint, BEST)


@pytest.mark.parametrize(
    ("changes", "flag", "path"),
    [
        ({"class_path": "evil.LitMLP"}, "--model", "evil.LitMLP"),
        ({"class_path": "lit_models.evil.LitMLP.x"}, "--model", "lit_models.evil.LitMLP.x"),
        ({"DigitsDataModule": {"class_path": "evil.DigitsDataModule"}}, "--data", "evil.DigitsDataModule"),
        ({"optimizer_config": {"class_path": "evil.SGD"}}, "--optimizer", "evil.SGD"),
        ({"lr_scheduler_config": {"class_path": "evil.StepLR"}}, "--lr_scheduler", "evil.StepLR"),
        ({"optimizer_config": {"class_path": "e\u0301vil.SGD"}}, "--optimizer", "e\u0301vil.SGD"),
        (
            {
                "lr_scheduler_config": {
                    "class_path": "torch.optim.lr_scheduler.LambdaLR",
                    "init_args": {"lr_lambda": "evil.f"},
                }
            },
            "--lr_scheduler.lr_lambda",
            "evil.f",
        ),
        (
            {"datamodule_hyper_parameters": {"tokenizer": "torch.optim.optimizer.call"}},
            "--data.tokenizer",
            "torch.optim.optimizer.call",
        ),
        ({"class_path": "lightning.pytorch.cli.call"}, "--model", "lightning.pytorch.cli.call"),
        ({"hyper_parameters": {"student": "evil.LitMLP"}}, "--model.student", "evil.LitMLP"),
        ({"datamodule_hyper_parameters": {"tokenizer": "evil.cut"}}, "--data.tokenizer", "evil.cut"),
        (
            {"datamodule_hyper_parameters": {"train_transforms": [{"class_path": "evil.Flip", "init_args": {}}]}},
            "--data.train_transforms",
            "evil.Flip",
        ),
    ],
)
def test_nothing_that_a_checkpoint_names_is_imported_unless_the_user_names_it(
    run: Run,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    flag: str,
    path: str,
) -> None:
    run("--max_epochs 1")
    (workdir / "evil.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(workdir))
    _name_evil(**changes)
    for command in ("test", "predict", "--max_epochs 2"):
        with pytest.raises(SystemExit) as stop:
            run(f"{command} --ckpt_path {BEST}")
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"it names {path}, which would be imported here; give {flag} {path} if you trust it." in said
    assert "evil" not in sys.modules


@pytest.mark.parametrize("changes", [{"optimizer_config": "evil.SGD"}, {"class_path": 3}, {"hyper_parameters": None}])
def test_a_file_of_another_form_is_one_line(run: Run, mistake: Callable[[str], str], changes: dict[str, Any]) -> None:
    run("--max_epochs 1 --default_root_dir elsewhere")
    path = next(Path("elsewhere").rglob("best.ckpt"))
    torch.save({**torch.load(path, weights_only=True), **changes}, "odd.ckpt")
    path.unlink()
    shutil.rmtree("elsewhere")
    assert "--ckpt_path odd.ckpt: not a checkpoint that can be read" in mistake("test --ckpt_path odd.ckpt")


def test_a_run_of_no_step_ends_well(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--max_steps 0")
    assert "test_acc" in capsys.readouterr().out


def test_data_without_arguments_train_and_save_their_config(
    run: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workdir / "users_data.py").write_text(
        "from datamodules import DigitsDataModule\n\n"
        "class Mine(DigitsDataModule):\n    def __init__(self):\n        super().__init__(batch_size=100)\n"
    )
    monkeypatch.syspath_prepend(str(workdir))
    assert run("--data users_data.Mine --max_epochs 1").trainer.num_training_batches == 13


def test_a_model_of_the_users_own_is_read_where_it_is_named(
    run: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "users_models.py").write_text("from lit_models import LitMLP\n\nclass LitOwn(LitMLP):\n    pass\n")
    monkeypatch.syspath_prepend(str(workdir))
    best = Path("runs/LitOwn-DigitsDataModule/version_0/checkpoints/best.ckpt")
    run("--model users_models.LitOwn --max_epochs 1")
    assert f"python train.py test --ckpt_path {best} --model users_models.LitOwn\n" in capsys.readouterr().out
    config = best.parent.with_name("config.yaml")
    for command in (
        f"test --ckpt_path {best} --model users_models.LitOwn",
        f"test --config {config} --ckpt_path {best}",
    ):
        assert type(run(command).model).__name__ == "LitOwn"


def test_a_saved_config_goes_with_data_of_another_size(run: Run, mistake: Callable[[str], str]) -> None:
    run("--model.hidden [16] --max_epochs 1")
    config = Path("runs/LitMLP-DigitsDataModule/version_0/config.yaml")
    options = yaml.safe_load(config.read_text())["model"]["init_args"]
    assert options["hidden"] == [16]
    assert options.keys().isdisjoint({"in_features", "num_outputs", "task", "cat_cardinalities"})
    other = run(f"--config {config} --data ToyDataModule --data.name wine")
    assert other.model.hparams["in_features"] == 13
    assert other.model.hparams["hidden"] == [16]


def test_a_size_that_was_given_stays_in_the_saved_config(run: Run) -> None:
    run("--model.num_outputs 12 --max_epochs 1")
    config = Path("runs/LitMLP-DigitsDataModule/version_0/config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["num_outputs"] == 12
