"""What every test can ask for: the repository, real data, and the front door in an empty folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kindling.cli import main
from tests.helpers.front_door import ROOT, Run

# Processes that run tests at once share the cores: those who all want all of them wait for one another.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that a test starts


@pytest.fixture
def data_dir() -> str:
    """The folder of real data, which is not a part of the project."""
    folder = Path(os.environ.get("KINDLING_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set KINDLING_DATA to a folder that holds MNIST and FashionMNIST")
    return str(folder)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def run(workdir: Path) -> Run:
    """Run a command line, given as one string, in an empty working directory."""
    return lambda line: main(line.split())


@pytest.fixture
def mistake(run: Run, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a command line that must fail as a user's mistake does, and give its one line."""

    def fail(line: str) -> str:
        with pytest.raises(SystemExit) as stop:
            run(line)
        assert stop.value.code == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("train.py: ")
        assert not list(Path().rglob("version_*")), "a mistake leaves no run behind"
        return captured.err

    return fail
