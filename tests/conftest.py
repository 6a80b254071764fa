"""Fixtures of all tests: real data, MNIST, and the command line in an empty folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kindling.cli import main
from tests.helpers.front_door import ROOT, Run
from tests.helpers.mnist_files import write_mnist

# Test processes share the cores: if each used all of them, they would wait for one another.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that a test starts


DATA_DIR = Path(os.environ.get("KINDLING_DATA", ROOT / "../shared/data")).resolve()


@pytest.fixture
def data_dir() -> str:
    """The folder of real data, which is not a part of the project."""
    if not DATA_DIR.is_dir():
        pytest.skip(f"{DATA_DIR} is not there: set KINDLING_DATA to a folder that holds MNIST and FashionMNIST")
    return str(DATA_DIR)


@pytest.fixture(scope="session")
def mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with MNIST and FashionMNIST: the real ones, or else a few hundred digits of scikit-learn."""
    return str(DATA_DIR if DATA_DIR.is_dir() else write_mnist(tmp_path_factory.mktemp("mnist")))


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
    """Run a command line that must fail as a user's mistake, and return its one line."""

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
