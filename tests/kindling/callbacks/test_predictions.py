"""Predictions as a file."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import DataModule, TextCSVDataModule, ToyDataModule
from datamodules.sampler import Inputs
from datamodules.toy import ToyName
from datamodules.user_data import UserDataModule
from kindling.callbacks import PredictionWriter
from lit_models import LitLinearRegression, LitLogisticRegression, LitMLP, LitModule, LitTextClassifier
from tests.helpers.trainers import quiet_trainer


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


class _Shuffled(UserDataModule):
    """Rows that are predicted in another order than their own, each under its number."""

    task = "regression"
    num_outputs = 1
    rows = torch.arange(23.0)[:, None]
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))

    @property
    def prediction_order(self) -> Tensor | None:
        """The order."""
        return self.order

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """The rows."""
        return [self._make_loader(Inputs(self.rows), self.order.split(4))]

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """Their numbers."""
        return {"number": iter(range(23))}


@pytest.mark.parametrize("batches", [1.0, 3])
def test_rows_are_written_in_their_own_order(
    tmp_path: Path, batches: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kindling.callbacks.predictions.ROWS", 5)
    model, path = LitLinearRegression(1), tmp_path / "predictions.csv"
    trainer = quiet_trainer(callbacks=[PredictionWriter(path)], limit_predict_batches=batches)
    trainer.predict(model, _Shuffled(), return_predictions=False)
    header, *rows = _rows(path)
    assert header == ["number", "prediction"]
    expected = range(23) if batches == 1.0 else sorted(_Shuffled.order[:12].tolist())
    assert [int(number) for number, _ in rows] == list(expected)
    values = model(_Shuffled.rows)[:, 0].tolist()
    assert [float(value) for _, value in rows] == pytest.approx([values[number] for number in expected], rel=1e-5)
    assert f"{len(rows)} predictions are in {path}" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.csv"]


def test_texts_of_any_length_are_predicted_as_each_alone(tmp_path: Path) -> None:
    words = ["good", "bad", "so", "very", "film"]
    texts = [" ".join(words[place * place % 5] for place in range(row, row + 1 + row * 7 % 13)) for row in range(60)]
    file, path = tmp_path / "texts.csv", tmp_path / "predictions.csv"
    file.write_text("text,label\n" + "".join(f"{text},{text.split()[0] == 'good'}\n" for text in texts))
    data = TextCSVDataModule(str(file), batch_size=2, cache_dir=str(tmp_path / "cache"))
    model = LitTextClassifier(data.vocab_size, "gru", num_outputs=1, task="binary").eval()
    quiet_trainer(callbacks=[PredictionWriter(path)]).predict(model, data, return_predictions=False)
    _, *rows = _rows(path)
    assert [row[0] for row in rows] == texts
    with torch.no_grad():
        alone = torch.cat([model.predict_step(data.encode(text)[None], 0) for text in texts])
    columns = data.decode(alone)
    assert [row[1] for row in rows] == columns["prediction"]
    assert [float(row[-1]) for row in rows] == pytest.approx(list(columns.values())[-1], abs=1e-5)
