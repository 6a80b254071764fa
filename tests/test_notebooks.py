"""Every notebook runs from a fresh kernel, in order, and is stored without outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from ipykernel.kernelspec import install
from nbclient import NotebookClient

from tests.helpers.front_door import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = ("01_tensors_and_autograd", "02_cost_curve")  # neither Lightning nor data
# Their cells assert figures of the real data.
ON_REAL_DATA = ("07_mnist_mlp", "08_lenet_filters", "10_optimizers", "11_transfer_learning")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for all kernels, so that Matplotlib builds its font cache once, with a kernel of this Python."""
    folder = tmp_path_factory.mktemp("home")
    install(prefix=str(folder))
    return folder


@pytest.fixture
def kernel(home: Path, mnist_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a kernel: data, no network, and an empty home."""
    environment = {
        **{"HOME": home, "JUPYTER_PATH": home / "share" / "jupyter", "MPLCONFIGDIR": home / "matplotlib"},
        **{"KINDLING_DATA": mnist_dir, "PYTHONPATH": ROOT},
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),  # nothing listens there
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))


def _read(path: Path) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's
    return notebook


def _by_speed(path: Path) -> Any:  # noqa: ANN401  # pytest does not export its class of parameters
    return pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow])


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("path", [_by_speed(path) for path in NOTEBOOKS])
def test_it_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if path.stem in ON_REAL_DATA:
        request.getfixturevalue("data_dir")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = _read(path)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    plots = [cell for cell in notebook.cells if "plt.show()" in cell.source]
    assert plots
    for cell in plots:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
    assert list(tmp_path.rglob("*")) == [folder], "it leaves nothing behind"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    notebook = _read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_a_title_and_ends_with_two_exercises(path: Path) -> None:
    cells = _read(path).cells
    assert cells[0].source.startswith(f"# {int(path.stem[:2])}. ")
    sections = [place for place, cell in enumerate(cells) if cell.source.startswith("## ")]
    first, second = sections[-2:]
    assert cells[first].source.startswith("## Exercise 1")
    assert cells[second].source.startswith("## Exercise 2")
    for exercise in (cells[first:second], cells[second:]):
        answers = [place for place, cell in enumerate(exercise) if cell.source.startswith("### Answer")]
        assert len(answers) == 1
        assert "assert" in "".join(cell.source for cell in exercise[answers[0] :] if cell.cell_type == "code")


def test_they_are_numbered() -> None:
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == list(range(1, 15))
