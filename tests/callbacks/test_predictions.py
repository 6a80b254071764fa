"""Predictions as a file."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from callbacks import PredictionWriter
from datamodules import DataModule, ToyDataModule
from datamodules.toy import ToyName
from lit_models import LitLinearRegression, LitLogisticRegression, LitMLP, LitModule
from tests.trainers import quiet_trainer


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("iris", LitMLP(4, [8], num_outputs=3)),
        ("breast_cancer", LitLogisticRegression(30)),
        ("diabetes", LitLinearRegression(10)),
    ],
)
def test_every_input_has_a_row_of_what_it_is_decoded_to(
    tmp_path: Path, name: ToyName, model: LitModule, capsys: pytest.CaptureFixture[str]
) -> None:
    data, path = ToyDataModule(name, batch_size=7), tmp_path / "new" / "folder" / "predictions.csv"
    trainer = quiet_trainer(callbacks=[PredictionWriter(path)])
    trainer.predict(model, data, return_predictions=False)
    samples, indices = data.splits["test"]
    with torch.no_grad():
        decoded = data.decode(model.predict_step(samples[indices][0], 0))
    header, *rows = _rows(path)
    assert header == list(decoded)
    assert len(rows) == len(indices)
    for row, *expected in zip(rows, *decoded.values(), strict=True):
        for cell, value in zip(row, expected, strict=True):
            assert cell == value if isinstance(value, str) else float(cell) == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert f"{len(indices)} predictions are in {path}" in capsys.readouterr().out


def test_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("old\n" * 1000)
    quiet_trainer(callbacks=[PredictionWriter(path)]).predict(
        LitLinearRegression(), ToyDataModule("line"), return_predictions=False
    )
    header, *rows = _rows(path)
    assert header == ["prediction"]
    assert len(rows) == 3


def test_plain_loaders_give_plain_predictions(tmp_path: Path) -> None:
    model, path = LitLinearRegression(2), tmp_path / "predictions.csv"
    x = torch.randn(5, 2)
    loader: DataLoader[Any] = DataLoader(x, batch_size=2)  # type: ignore[arg-type]  # a tensor will do
    quiet_trainer(callbacks=[PredictionWriter(path)]).predict(model, loader, return_predictions=False)
    header, *rows = _rows(path)
    assert header == ["prediction"]
    assert [float(row[0]) for row in rows] == pytest.approx(model(x)[:, 0].tolist(), rel=1e-5)


def test_a_class_name_with_a_comma_stays_one_cell(tmp_path: Path) -> None:
    data: DataModule = ToyDataModule("iris")
    data.class_names = ["a, b", 'c "d"', "e\nf"]
    path = tmp_path / "predictions.csv"
    quiet_trainer(callbacks=[PredictionWriter(path)]).predict(
        LitMLP(4, [8], num_outputs=3), data, return_predictions=False
    )
    header, *rows = _rows(path)
    assert header == ["prediction", "probability_a, b", 'probability_c "d"', "probability_e\nf"]
    assert {row[0] for row in rows} <= set(data.class_names)
    assert len(rows) == 30
