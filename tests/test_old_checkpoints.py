"""Checkpoints written before modules moved test to the same figures, resume and predict.

Each has beside it the `config.yaml` and the `summary.json` of its run.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_models
from lit_models import LitModule
from tests.helpers.front_door import Run

OLD = ("digits_mlp", "digits_distiller", "digits_muon", "titanic_mlp", "pydocs_gpt")


@pytest.fixture
def summary(workdir: Path, data_dir: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Copy a run, named by the test's parameter, and the files that it read, into the working directory."""
    name = request.getfixturevalue("name")
    files = Path(data_dir, "checkpoints")
    if not files.is_dir():
        pytest.skip(f"{files} is not there: the checkpoints of an earlier version are part of the real data")
    for kind in ("ckpt", "yaml"):
        shutil.copy(files / f"{name}.{kind}", workdir)
    shutil.copy(files / "digits_mlp.ckpt", workdir / "teacher.ckpt")
    shutil.copy(Path(data_dir, "tabular", "titanic.csv"), workdir)
    found: dict[str, Any] = json.loads((files / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", OLD)
def test_an_old_checkpoint_tests_to_its_figures(run: Run, name: str, summary: dict[str, Any]) -> None:
    metrics = run(f"test --ckpt_path {name}.ckpt").trainer.callback_metrics
    assert summary["test"]
    for metric, value in summary["test"].items():
        assert metrics[metric].item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", OLD)
def test_an_old_checkpoint_resumes_and_names_public_addresses(
    run: Run, name: str, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    epochs, steps = summary["epochs"], summary["steps"]
    more = f"--max_epochs {epochs + 1}" if name != "pydocs_gpt" else f"--max_epochs -1 --max_steps {steps + 2}"
    resumed = run(f"--config {name}.yaml --ckpt_path {name}.ckpt {more}")
    assert resumed.trainer.global_step == steps + (2 if name == "pydocs_gpt" else resumed.trainer.num_training_batches)
    assert "anew" not in capsys.readouterr().out  # nor is the optimizer
    saved = torch.load(Path(resumed.trainer.default_root_dir, "checkpoints", "last.ckpt"), weights_only=True)
    assert saved["class_path"] == f"lit_models.{summary['model']}"
    assert saved[summary["data"]]["class_path"] == f"datamodules.{summary['data']}"


@pytest.mark.parametrize("name", OLD)
def test_an_old_checkpoint_predicts(run: Run, name: str, summary: dict[str, Any]) -> None:
    Path("prompts.txt").write_text("def \nclass \n")
    prompts = "--data.path prompts.txt" if name == "pydocs_gpt" else ""
    run(f"predict --ckpt_path {name}.ckpt {prompts}")
    assert len(Path("predictions.csv").read_text().splitlines()) > 2


@pytest.mark.parametrize("name", OLD)
def test_an_old_checkpoint_loads_in_a_notebook(name: str, summary: dict[str, Any]) -> None:
    cls: type[LitModule] = getattr(lit_models, summary["model"])
    model = cls.load_from_checkpoint(f"{name}.ckpt", weights_only=True).eval()
    assert model(model.example_input_array).isfinite().all()
