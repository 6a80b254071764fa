"""What a test predicted, collected while it runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule

from datamodules import CSVDataModule, DataModule, DigitsDataModule, TextCSVDataModule, ToyDataModule
from kindling.callbacks import MetricIntervals
from lit_models import LitGPT, LitMLP, LitModule, LitSiamese, LitTextClassifier
from tests.helpers.tables import table, write
from tests.helpers.texts import lines, rows
from tests.helpers.tiny import TinyCorpus
from tests.helpers.trainers import quiet_trainer


def _tested(model: LightningModule, data: DataModule, **options: Any) -> tuple[MetricIntervals, dict[str, float]]:
    intervals = MetricIntervals()
    trainer = quiet_trainer(callbacks=[intervals], **options)
    return intervals, dict(trainer.test(model, data, verbose=False)[0])


def _model(data: Any, **options: Any) -> LitMLP:  # noqa: ANN401  # a data module with all of these
    sizes = {"task": data.task, "num_outputs": data.num_outputs}
    sizes |= {"cat_cardinalities": data.cat_cardinalities} if hasattr(data, "cat_cardinalities") else {}
    return LitMLP(data.in_features, [8], **sizes, **options)


@pytest.mark.parametrize("name", ["iris", "breast_cancer", "diabetes"])
def test_each_logged_metric_has_an_interval_around_it(name: Any) -> None:  # noqa: ANN401  # a ToyName
    data = ToyDataModule(name)
    found, logged = _tested(_model(data), data)
    assert found.intervals.keys() == logged.keys() - {"test_loss"}
    for metric, (low, high) in found.intervals.items():
        assert low <= logged[metric] <= high
    assert found.rows is not None
    samples, indices = data.splits["test"]
    assert found.rows.tolist() == indices.tolist()
    assert found.outcome is not None
    np.testing.assert_allclose(found.outcome.y, samples.y[indices])


def test_texts_are_told_though_they_are_sorted_by_length(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(lines(rows(200)))
    data = TextCSVDataModule(str(tmp_path / "texts.txt"), cache_dir=str(tmp_path))
    model = LitTextClassifier(task=data.task, num_outputs=1, vocab_size=data.vocab_size, max_length=data.max_length)
    found, _ = _tested(model, data)
    assert found.rows is not None
    assert found.outcome is not None
    assert sorted(found.rows) == data.splits["test"].indices.tolist() != found.rows.tolist()
    assert found.outcome.y.tolist() == data.splits["test"].samples.y[found.rows].tolist()


def test_a_part_of_a_test_is_measured_as_such() -> None:
    found, logged = _tested(LitMLP(64, [8]), DigitsDataModule(batch_size=16), limit_test_batches=2)
    assert found.outcome is not None
    assert len(found.outcome.y) == 128
    assert found.outcome.metrics()["acc"] == pytest.approx(logged["test_acc"])


def test_ignored_labels_do_not_count() -> None:
    found, logged = _tested(LitMLP(64, [8], ignore_index=3), DigitsDataModule())
    assert found.outcome is not None
    assert found.rows is not None
    assert 3 not in found.outcome.y
    assert len(found.rows) == len(found.outcome.y)
    assert "test_acc" in found.intervals
    assert found.outcome.metrics()["acc"] == pytest.approx(logged["test_acc"])


@pytest.mark.parametrize("elsewhere", ["no", "test_path", "new"])
def test_rows_of_a_group_are_drawn_together(tmp_path: Path, elsewhere: str) -> None:
    path, other = write(tmp_path / "t.csv", table(300)), write(tmp_path / "o.csv", table(120, seed=1))
    more: dict[str, Any] = {"test_path": other} if elsewhere == "test_path" else {}
    data = CSVDataModule(path, group_column="group", key_column="id", cache_dir=str(tmp_path), **more)
    model = _model(data)
    if elsewhere == "new":
        data.setup("fit")
        state, data = data.state_dict(), CSVDataModule(other, group_column="group", cache_dir=str(tmp_path))
        data.load_state_dict(state)
    found, _ = _tested(model, data)
    assert found.outcome is not None
    assert found.outcome.groups is not None
    names = [row["group"] for row in table(300)] if elsewhere == "no" else [r["group"] for r in table(120, seed=1)]
    assert found.rows is not None
    expected = [names[row] for row in found.rows]
    assert len(set(zip(expected, found.outcome.groups.tolist(), strict=True))) == len(set(expected))
    assert found.outcome.units == len(set(expected))


class OwnMetric(LitMLP):
    """A model whose accuracy is another one."""

    def on_test_epoch_end(self) -> None:
        """Log something else under the usual name."""
        self.log("test_acc", torch.tensor(0.123))


def test_a_metric_of_another_meaning_has_no_interval() -> None:
    assert _tested(OwnMetric(64, [8]), DigitsDataModule())[0].intervals == {}


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (lambda: LitSiamese(embedding_dim=4), DigitsDataModule),
        (lambda: LitGPT(vocab_size=12, num_outputs=12, width=8, num_layers=1, context_length=8), TinyCorpus),
    ],
    ids=["embeddings", "texts"],
)
def test_other_predictions_are_skipped(model: Any, data: Any) -> None:  # noqa: ANN401  # what makes them
    made: LitModule = model()
    assert _tested(made, data())[0].intervals == {}


def test_a_diverged_model_has_no_interval() -> None:
    model = LitMLP(64, [8])
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    data = ToyDataModule("diabetes")
    regression = _model(data)
    for parameter in regression.parameters():
        parameter.data.fill_(torch.nan)
    assert _tested(regression, data)[0].intervals == {}


def test_a_streamed_table_is_drawn_row_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", table(300))
    data = CSVDataModule(path, group_column="group", key_column="id", streaming=True, cache_dir=str(tmp_path))
    found, logged = _tested(_model(data), data)
    assert found.rows is None
    assert found.outcome is not None
    assert found.outcome.groups is None
    assert found.intervals["test_acc"][0] <= logged["test_acc"] <= found.intervals["test_acc"][1]
