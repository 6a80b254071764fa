"""Command lines as people write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kindling.arguments import expand, peek
from kindling.checkpoints import public_address
from tests.helpers.front_door import Run

QUICK = "--max_epochs 1 --limit_train_batches 2 --limit_val_batches 1 --limit_test_batches 1"
CHECKPOINTS = "runs/LitMLP-DigitsDataModule/version_{}/checkpoints"


@pytest.mark.parametrize(
    ("line", "spelled"),
    [
        ("", "fit"),
        ("test --ckpt_path a", "test --ckpt_path a"),
        ("--max_epochs 3", "fit --trainer.max_epochs 3"),
        ("--max_epochs=3 --callbacks.x 1", "fit --trainer.max_epochs=3 --trainer.callbacks.x 1"),
        ("--config a.yaml test --devices 1", "test --config=a.yaml --trainer.devices 1"),
        ("-c a.yaml --config=b.yaml fit", "fit --config=a.yaml --config=b.yaml"),
        ("--config a.yaml --model LitMLP", "fit --config=a.yaml --model=LitMLP"),
        ("--help_all", "fit --help"),
        ("cross_validate --devices 1", "cross_validate --trainer.devices 1"),
        ("--callbacks+=EarlyStopping", "fit --trainer.callbacks+=kindling.callbacks.EarlyStopping"),
        ("--callbacks+ Timer", "fit --trainer.callbacks+=Timer"),
        ("--logger CSVLogger", "fit --trainer.logger=lightning.pytorch.loggers.CSVLogger --trainer.logger.save_dir="),
        ("--logger mine.CSVLogger", "fit --trainer.logger=mine.CSVLogger"),
        (
            "--model lit_models.mlp.LitMLP --data=datamodules.vision.DigitsDataModule",
            "fit --model=lit_models.LitMLP --data=datamodules.DigitsDataModule",
        ),
        ("--logger false", "fit --trainer.logger=false"),
        ("houses.csv", "fit --data.path=houses.csv"),
        ("fit houses.csv --max_epochs 3", "fit --trainer.max_epochs 3 --data.path=houses.csv"),
        ("--max_epochs 3 photos/", "fit --trainer.max_epochs 3 --data.path=photos/"),
        ("predict --ckpt_path last new.csv", "predict --ckpt_path last --data.path=new.csv"),
        ("--ckpt_path last predict new.csv", "predict --ckpt_path last --data.path=new.csv"),
        ("cross_validate houses.csv", "cross_validate --data.path=houses.csv"),
        ("houses.csv --print_config", "fit --print_config --data.path=houses.csv"),
        ("--print_config houses.csv", "fit --print_config --data.path=houses.csv"),
        ("-c a.yaml houses.csv", "fit --config=a.yaml --data.path=houses.csv"),
        ("./fit", "fit --data.path=./fit"),
        ("--model.lr -1 --fast_dev_run --devices 1", "fit --model.lr -1 --trainer.fast_dev_run --trainer.devices 1"),
        ("fitt", "fitt"),
        ("beans", "fit --data.path=beans"),
    ],
)
def test_a_line_is_spelled_out(line: str, spelled: str, workdir: Path) -> None:
    assert expand(line.split()) == spelled.split()


def test_a_folder_may_have_a_name_like_a_subcommand(workdir: Path) -> None:
    (workdir / "tests").mkdir()
    assert expand(["tests"]) == ["fit", "--data.path=tests"]
    assert expand(["test", "tests"]) == ["test", "--data.path=tests"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("a.csv b.csv", "a.csv and b.csv: there are 2 paths; give one, of a file, of a folder, or in quotes a glob."),
        ("fit a.csv --data.path b.csv", "a.csv: there is a --data.path as well; give one of them."),
        ("fit a.csv --data.path=b.csv", "a.csv: there is a --data.path as well; give one of them."),
        ("fitt a.csv", "fitt: there is no such subcommand; did you mean fit?"),
    ],
)
def test_one_path_is_enough(mistake: Callable[[str], str], line: str, answer: str) -> None:
    assert mistake(line) == f"train.py: {answer}\n"


NONE: dict[str, Any] = {"init_args": {}}


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("", {}),
        ("a.csv", {"data": {"init_args": {"path": "a.csv"}}}),
        ("--data.init_args.path a.csv", {"data": {"init_args": {"path": "a.csv"}}}),
        ("--data mine.Data", {"data": {"class_path": "mine.Data", "init_args": {}}}),
        ("--model=LitMLP --model.lr 1", {"model": {"class_path": "LitMLP", "init_args": {"lr": "1"}}}),
        ("--data {class_path:\xa0mine.Data,\xa0init_args:\xa0{path:\xa0b}}", {}),
        ("--devices 1 --ckpt_path a.ckpt", {"trainer": {"devices": "1"}, "ckpt_path": "a.ckpt"}),
        ("--config none.yaml a.csv", {"data": {"init_args": {"path": "a.csv"}}}),
        ("--print_config a.csv", {"data": {"init_args": {"path": "a.csv"}}}),
    ],
)
def test_what_is_given_is_seen_before_it_is_parsed(line: str, given: dict[str, Any], workdir: Path) -> None:
    seen = peek(expand([word.replace("\xa0", " ") for word in line.split(" ") if word]))
    if "class_path:" in line:
        given = {"data": {"class_path": "mine.Data", "init_args": {"path": "b"}}}
    assert seen == {"model": NONE, "data": NONE, **given}


def test_files_are_seen_too_and_flags_beat_them(workdir: Path) -> None:
    (workdir / "a.yaml").write_text("model: LitGPT\ndata:\n  path: a.csv\n  target: y\nckpt_path: c\n")
    (workdir / "b.yaml").write_text("fit:\n  data:\n    class_path: CSVDataModule\n    init_args:\n      path: b.csv\n")
    seen = peek(expand(["--config", "a.yaml", "--config", "b.yaml", "--data.target", "z"]))
    assert seen == {
        "model": {"class_path": "LitGPT", "init_args": {}},
        "data": {"class_path": "CSVDataModule", "init_args": {"path": "b.csv", "target": "z"}},
        "ckpt_path": "c",
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("callbacks.LayerStatistics", "kindling.callbacks.LayerStatistics"),
        ("callbacks.checkpoints.BestCheckpoint", "kindling.callbacks.BestCheckpoint"),
        ("callbacks.Mine", "callbacks.Mine"),
        ("lightning.pytorch.callbacks.EarlyStopping", "lightning.pytorch.callbacks.EarlyStopping"),
    ],
)
def test_old_addresses_lead_to_the_new(old: str, new: str) -> None:
    assert public_address(old) == new


def test_a_file_with_nothing_to_change_is_left_to_the_parser(workdir: Path) -> None:
    (workdir / "a.yaml").write_text("model:\n  lr: 1e-3\n")
    assert expand(["--config", "a.yaml"]) == ["fit", "--config=a.yaml"]


def test_a_section_adds_to_what_stands_beside_it(workdir: Path) -> None:
    (workdir / "a.yaml").write_text("trainer:\n  max_epochs: 1\nfit:\n  trainer:\n    limit_train_batches: 3\n")
    (_, config) = expand(["--config", "a.yaml"])
    assert yaml.safe_load(config.partition("=")[2]) == {"trainer": {"max_epochs": 1, "limit_train_batches": 3}}


def test_sections_are_those_of_stock_lightning(run: Run, workdir: Path) -> None:
    (workdir / "stock.yaml").write_text(
        "fit:\n  model:\n    class_path: LitMLP\n    init_args:\n      lr: 1e-2\n"
        "  trainer:\n    max_epochs: 1\n    limit_train_batches: 2\n"
        "test:\n  ckpt_path: best\n  trainer:\n    fast_dev_run: 1\n"
    )
    for line in ("--config stock.yaml", "--config stock.yaml fit", "fit --config stock.yaml"):
        cli = run(line)
        assert (cli.model.hparams["lr"], cli.trainer.global_step) == (0.01, 2)
    tested = run("--config stock.yaml test")
    assert vars(tested.trainer)["fast_dev_run"] == 1
    assert str(tested.trainer.ckpt_path).startswith(CHECKPOINTS.format(2))


def test_a_flat_file_may_stand_before_the_subcommand(run: Run, workdir: Path) -> None:
    (workdir / "flat.yaml").write_text("trainer:\n  max_epochs: 2\n  fast_dev_run: 1\n")
    cli = run("--config flat.yaml fit --model.lr 0.5")
    assert (cli.model.hparams["lr"], cli.trainer.global_step) == (0.5, 1)


def test_the_newest_checkpoint_has_a_name(run: Run) -> None:
    run(f"{QUICK} --model.hidden [24]")
    run(f"{QUICK} --model.hidden [25]")
    cli = run(f"--ckpt_path last {QUICK.replace('1', '2', 1)}")
    assert (cli.model.hparams["hidden"], cli.trainer.current_epoch) == ([25], 2)
    Path(CHECKPOINTS.format(0), "best.ckpt").touch()
    assert run("test --ckpt_path=best").model.hparams["hidden"] == [24]


def test_there_is_no_newest_checkpoint_before_the_first(mistake: Callable[[str], str]) -> None:
    answer = "--ckpt_path last: there is no last.ckpt in runs/LitLeNet-MNISTDataModule; train first."
    assert answer in mistake("--ckpt_path last --model LitLeNet --data MNISTDataModule")
    assert "there is no best.ckpt in elsewhere; train" in mistake("test --ckpt_path best --default_root_dir elsewhere")


def test_the_newest_checkpoint_is_that_of_any_run_unless_one_is_named(run: Run, workdir: Path) -> None:
    run(f"{QUICK} --model LitLogisticRegression")
    run(QUICK)
    assert type(run("test --ckpt_path best").model).__name__ == "LitMLP"
    tested = run("test --ckpt_path best --model LitLogisticRegression")
    assert type(tested.model).__name__ == "LitLogisticRegression"
