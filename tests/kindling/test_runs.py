"""Where runs live, what is printed at their end, and how the program is called."""

import os
import shlex
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from jsonargparse import ArgumentError

from kindling.checkpoints import find_checkpoint, newest_checkpoint
from kindling.runs import command, new_folder, program, remove_if_untrained
from tests.helpers.front_door import ROOT


def _checkpoint(path: Path, seconds: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))
    return path


def test_runs_are_numbered(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path / "runs", "A-B") for _ in range(3)]
    assert [folder.name for folder in folders] == ["version_0", "version_1", "version_2"]
    assert all(folder.is_dir() for folder in folders)


def test_a_run_that_left_nothing_leaves_no_folder(tmp_path: Path) -> None:
    remove_if_untrained(new_folder(tmp_path / "runs", "A-B"))
    assert list(tmp_path.iterdir()) == []
    folder = new_folder(tmp_path / "runs", "A-B")
    _checkpoint(folder / "checkpoints" / "last.ckpt", 1)
    remove_if_untrained(folder)
    assert folder.is_dir()


def test_the_newest_checkpoint_is_found_by_its_time(tmp_path: Path, workdir: Path) -> None:
    newest = _checkpoint(tmp_path / "A-B/version_0/checkpoints/last.ckpt", 9)
    _checkpoint(tmp_path / "A-B/version_1/checkpoints/last.ckpt", 8)
    _checkpoint(tmp_path / "A-C/version_0/checkpoints/last.ckpt", 10)
    assert find_checkpoint("last", tmp_path, "A-B") == str(newest)
    with pytest.raises(ArgumentError, match=r"--ckpt_path best: there is no best\.ckpt in .*A-B; train first"):
        find_checkpoint("best", tmp_path, "A-B")
    assert newest_checkpoint() == ""
    best = _checkpoint(Path("runs/A-B/version_0/checkpoints/best.ckpt"), int(time.time()))
    assert newest_checkpoint() == f", for instance {best}"


@pytest.mark.parametrize(
    ("started", "name", "line"),
    [
        ("train.py", "train.py", "python train.py"),
        ("/usr/bin/kindling", "kindling", "kindling"),
        ("kindling.exe", "kindling", "kindling"),
        ("/usr/bin/pytest", "train.py", "python train.py"),
    ],
)
def test_commands_are_printed_as_the_program_was_started(
    monkeypatch: pytest.MonkeyPatch, started: str, name: str, line: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert (program(), command()) == (name, line)


@pytest.mark.slow
def test_it_works_from_any_folder_twice_in_a_row(tmp_path: Path) -> None:
    for name in ("runs", "callbacks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('a decoy')\n")
    for name in ("links", "messages"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a decoy')\n")
    module, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["kindling"].split(":")
    library = (
        "from lit_models import LitLeNet; from kindling.cli import main; "
        "main(['--max_epochs', '1', '--limit_train_batches', '2'])"
    )
    # As the script that an installer makes.
    script = f"import sys; from {module} import {function}; sys.argv[0] = 'kindling'; sys.exit({function}())"
    for version in range(4):
        code, line = (library, "python train.py") if version % 2 == 0 else (script, "kindling")
        done = subprocess.run(
            [sys.executable, "-c", code, *shlex.split("fit --max_epochs 1 --limit_train_batches 2" * (version % 2))],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        run = f"runs/LitMLP-DigitsDataModule/version_{version}"
        assert f"  test     {line} test --ckpt_path {run}/checkpoints/best.ckpt\n" in done.stdout
        assert (tmp_path / run / "summary.json").is_file()
