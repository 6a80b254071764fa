"""When the doctor speaks, and what it leaves behind."""

import csv
import random
from pathlib import Path

import numpy as np
import pytest

from datamodules import CSVDataModule, DigitsDataModule
from kindling.callbacks import Doctor
from kindling.doctor import examine
from lit_models import LitMLP
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer

TABLE = "--data CSVDataModule --data.path t.csv --data.target y --max_epochs 1"
RUN = Path("runs/LitMLPEnsemble-CSVDataModule/version_0")


@pytest.fixture
def leaky(workdir: Path) -> Path:
    """A table with a column that tells the target, and some rows twice."""
    draw = random.Random(0)
    rows = []
    for _ in range(500):
        label = draw.choice(["no", "yes"])
        rows.append(f"{draw.gauss(0, 1):.4f},{'A' if label == 'yes' else 'B'},{label}\n")
    (workdir / "t.csv").write_text("a,code,y\n" + "".join([*rows, *rows[:60]]))
    return workdir


@pytest.mark.usefixtures("leaky")
def test_what_is_wrong_is_told_before_the_first_step_and_written_down(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(TABLE)
    out = capsys.readouterr().out
    leak = "doctor: leak: code alone predicts y almost perfectly; if it is known only afterwards, leave it out"
    assert out.index(leak) < out.index("epoch 1/1")
    told = [line.strip() for line in out.splitlines() if line.startswith(("doctor: ", "        "))]
    assert [line.removeprefix("doctor: ").partition(":")[0] for line in told] == ["leak", "duplicates"]
    with (RUN / "doctor.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["check"] for row in rows] == ["leak", "duplicates"]
    assert rows[0]["where"] == "code"
    assert rows[0]["severity"] == "high"
    assert rows[1]["where"].count(" = line ") > 10
    assert rows[0]["remedy"].endswith("--data.exclude '[code]'")
    run(f"{TABLE} --data.exclude [code]")
    assert "leak" not in capsys.readouterr().out


@pytest.mark.usefixtures("leaky")
@pytest.mark.parametrize(
    "flags", ["--doctor false", "--overfit_batches 1", "--fast_dev_run 1", "--data.streaming true"]
)
def test_the_doctor_can_be_silent(run: Run, capsys: pytest.CaptureFixture[str], flags: str) -> None:
    run(f"{TABLE} {flags}")
    assert "doctor:" not in capsys.readouterr().out
    assert not list(Path().rglob("doctor.csv"))


@pytest.mark.usefixtures("leaky")
def test_a_cross_validation_is_examined_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"cross_validate {TABLE} --data.num_folds 2 --baselines false")
    assert capsys.readouterr().out.count("doctor:") == 1


def test_nothing_found_is_nothing_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--max_epochs 1")
    assert "doctor" not in capsys.readouterr().out
    assert not list(Path().rglob("doctor.csv"))


def test_suspect_labels_follow_the_fit(
    run: Run, workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling.cli.LABELS", 1000.0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    x = rng.normal(4 * labels, 0.6)
    told = np.where(np.arange(500) % 60 == 7, 1 - labels, labels)
    rows = [f"{a:.4f},{rng.normal():.4f},{label}\n" for a, label in zip(x, told, strict=True)]
    (workdir / "t.csv").write_text("a,b,y\n" + "".join(rows))
    run(TABLE)
    out = capsys.readouterr().out
    assert "label: the " in out
    assert out.index("best val_loss") < out.index("labels most likely wrong in training: line ")
    with (RUN / "doctor.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["check"] == "label"]
    lines = {int(row["where"].removeprefix("line ")) for row in found}
    assert sum((line - 2) % 60 == 7 for line in lines) >= len(lines) - 3 >= 2


def test_it_works_in_a_notebook(leaky: Path, tmp_path: Path) -> None:
    data = CSVDataModule("t.csv", cache_dir=str(tmp_path))
    doctor = Doctor(tmp_path / "notes")
    model = LitMLP(data.in_features, [4], task="binary", num_outputs=1, cat_cardinalities=data.cat_cardinalities)
    quiet_trainer(callbacks=[doctor]).fit(model, data)
    assert [finding.check for finding in doctor.findings] == ["leak", "duplicates"]
    assert (tmp_path / "notes" / "doctor.csv").is_file()
    quiet_trainer(callbacks=[doctor]).fit(LitMLP(64, [4]), DigitsDataModule())
    assert doctor.findings == []


def test_nothing_is_found_in_fifty_thousand_rows_of_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50_000, 20))
    body = "\n".join(",".join(f"{value:.5f}" for value in row) for row in np.c_[x, x.sum(1) + rng.normal(size=50_000)])
    (tmp_path / "t.csv").write_text(body + "\n")
    data = CSVDataModule(str(tmp_path / "t.csv"), cache_dir=str(tmp_path))
    _ = data.splits
    assert examine(data) == []
