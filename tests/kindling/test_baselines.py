"""Baselines, beside scikit-learn called by hand."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, mean_absolute_error, roc_auc_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from datamodules import CSVDataModule, DataModule, DigitsDataModule, TextCSVDataModule, ToyDataModule
from kindling.baselines import Baseline, Inputs, Maker, fit_within, makers, measure
from kindling.intervals import Outcome
from tests.helpers.tables import table, write
from tests.helpers.texts import lines, rows

LONG = 1000.0  # seconds, in which everything can be fitted


def _split(data: Any) -> tuple[NDArray[Any], ...]:  # noqa: ANN401  # a data module in memory
    """Return training and validation together, and test: `(x, y, test_x, test_y)`."""
    parts = [data.splits[stage].samples[data.splits[stage].indices] for stage in ("train", "val", "test")]
    (x, y), (test_x, test_y) = (map(torch.cat, zip(*parts[:2], strict=True))), parts[2]
    return x.numpy(), y.numpy(), test_x.numpy(), test_y.numpy()


def _measured(data: DataModule, seconds: float = LONG) -> tuple[dict[str, Baseline], dict[str, str]]:
    samples, rows = data.splits["test"]
    y = samples.y[rows].numpy()
    predicted = y.astype(float) if data.task != "multiclass" else y
    found, left_out = measure(data, Outcome(data.task, predicted, y), rows.numpy(), seconds)  # type: ignore[arg-type]
    return {baseline.name: baseline for baseline in found}, left_out


def test_classes_of_numbers_are_predicted_as_by_scikit_learn() -> None:
    data = ToyDataModule("breast_cancer")
    x, y, test_x, test_y = _split(data)
    found, left_out = _measured(data)
    assert list(found) == ["always benign", "logistic regression", "gradient boosting"]
    assert not left_out
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(x, y)
    metrics = found["logistic regression"].metrics(["test_acc", "test_auroc", "test_f1", "test_loss"])
    assert metrics["test_acc"] == pytest.approx(accuracy_score(test_y, linear.predict(test_x)))
    assert metrics["test_auroc"] == pytest.approx(roc_auc_score(test_y, linear.predict_proba(test_x)[:, 1]), abs=1e-3)
    assert metrics.keys() == {"test_acc", "test_auroc", "test_f1"}
    trees = HistGradientBoostingClassifier(random_state=0).fit(x, y)
    accuracy = found["gradient boosting"].metrics(["test_acc"])["test_acc"]
    assert accuracy == pytest.approx(accuracy_score(test_y, trees.predict(test_x)), abs=0.01)
    constant = found["always benign"].metrics(["test_acc", "test_auroc"])
    assert constant == {"test_acc": pytest.approx((test_y == 1).mean()), "test_auroc": 0.5}
    assert all(baseline.rows == baseline.of == len(y) for baseline in found.values())


def test_values_are_predicted_as_by_scikit_learn() -> None:
    data = ToyDataModule("diabetes")
    x, y, test_x, test_y = _split(data)
    found, _ = _measured(data)
    ridge = make_pipeline(StandardScaler(), Ridge()).fit(x, y)
    trees = HistGradientBoostingRegressor(random_state=0).fit(x, y)
    for name, model in {"ridge regression": ridge, "gradient boosting": trees}.items():
        predicted = model.predict(test_x)
        expected = [mean_absolute_error(test_y, predicted), root_mean_squared_error(test_y, predicted)]
        tolerance = 0.001 if name == "ridge regression" else 0.05  # rows stand in another order
        assert list(found[name].metrics(["test_mae", "test_rmse"]).values()) == pytest.approx(expected, rel=tolerance)
    constant = found["always the median (RMSE: the mean)"].metrics(["test_mae", "test_rmse", "test_r2"])
    assert constant["test_mae"] == pytest.approx(np.abs(test_y - np.median(y)).mean())
    assert constant["test_rmse"] == pytest.approx(np.sqrt(np.square(test_y - y.mean()).mean()))
    assert abs(constant["test_r2"]) < 0.1


def test_categories_are_one_hot_for_the_linear_model_and_categories_for_the_trees(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 12, 600)
    likely = rng.random(12) > 0.5
    path.write_text("shop,area,y\n" + "".join(f"s{c},{rng.normal():.3f},{int(likely[c])}\n" for c in codes))
    data = CSVDataModule(str(path), cache_dir=str(tmp_path))
    x, y, test_x, test_y = _split(data)
    assert data.cat_cardinalities == [13]
    found, _ = _measured(data)
    one_hot = OneHotEncoder(handle_unknown="ignore").fit(x[:, 1:])
    scaled = StandardScaler().fit(x[:, :1])

    def both(new: NDArray[Any]) -> NDArray[Any]:
        return np.hstack([scaled.transform(new[:, :1]), one_hot.transform(new[:, 1:]).toarray()])

    expected = accuracy_score(test_y, LogisticRegression(max_iter=300).fit(both(x), y).predict(both(test_x)))
    assert found["logistic regression"].metrics(["test_acc"])["test_acc"] == pytest.approx(expected)
    assert expected > 0.99
    model = makers("binary", Inputs(x, y, test_x, data.cat_cardinalities))["gradient boosting"].make(1).fit(x, y)
    assert model.is_categorical_.tolist() == [False, True]


def test_texts_are_predicted_by_their_words_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(lines(rows(300)))
    data = TextCSVDataModule(str(tmp_path / "texts.txt"), cache_dir=str(tmp_path))
    found, left_out = _measured(data)
    assert list(found) == ["always good", "TF-IDF and logistic regression"]
    assert not left_out
    assert found["TF-IDF and logistic regression"].metrics(["test_acc"]) == {"test_acc": 1.0}
    texts = ["the cat sat", "a dog ran", "the cat ran off"]
    pipeline = makers("binary", Inputs(np.array(texts, object), np.array([1, 0, 1]), ()))
    words = pipeline["TF-IDF and logistic regression"].make()[0].fit(texts)
    assert {"the cat", "cat sat", "a"} <= set(words.get_feature_names_out())
    default = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+").fit(texts)
    np.testing.assert_allclose(words.transform(texts).toarray(), default.transform(texts).toarray(), rtol=1e-6)
    chinese = makers("binary", Inputs(np.array(["天气好"], object), np.array([1]), ()))
    assert "气 好" in chinese["TF-IDF and logistic regression"].make()[0].fit(["天气好"]).get_feature_names_out()


def test_images_have_the_commonest_class_alone() -> None:
    found, left_out = _measured(DigitsDataModule())
    (constant,) = found.values()
    assert constant.name.startswith("always ")
    assert constant.is_constant
    assert not left_out


def test_test_rows_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    data = ToyDataModule("iris")
    samples, indices = data.splits["test"]
    order = np.random.default_rng(0).permutation(indices.numpy())[:20]
    y = samples.y[order].numpy()
    found, _ = measure(data, Outcome("multiclass", y, y), order, LONG)
    assert found[1].metrics(["test_acc"])["test_acc"] > 0.85
    assert len(found[1].outcome("acc").y) == 20


def test_a_validation_split_of_its_own_is_fitted_on_too(tmp_path: Path) -> None:
    path, other = write(tmp_path / "t.csv", table(90)), write(tmp_path / "v.csv", table(60, seed=1))
    data = CSVDataModule(path, val_path=other, cache_dir=str(tmp_path))
    found, _ = _measured(data)
    assert {baseline.of for baseline in found.values()} == {data.splits["train"].size + 60}
    (tmp_path / "texts.txt").write_text(lines(rows(90)))
    (tmp_path / "more.txt").write_text(lines(rows(30)))
    texts = TextCSVDataModule(str(tmp_path / "texts.txt"), val_path=str(tmp_path / "more.txt"), cache_dir=str(tmp_path))
    found, _ = _measured(texts)
    assert {baseline.of for baseline in found.values()} == {texts.splits["train"].size + 30}


def test_what_would_take_longer_than_the_fit_is_left_out() -> None:
    found, left_out = _measured(ToyDataModule("breast_cancer"), seconds=0.0)
    assert list(found) == ["always benign"]
    assert left_out.keys() == {"logistic regression", "gradient boosting"}
    assert left_out["gradient boosting"] == "it would take longer than the fit (0 s)"


class Slow:
    """A model that takes a millisecond for each sample."""

    def fit(self, x: NDArray[Any], y: NDArray[Any]) -> "Slow":
        """Sleep."""
        time.sleep(len(x) / 1000)
        return self

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return zeros."""
        return np.zeros(len(x))


def test_a_part_of_the_samples_is_used_where_all_would_take_too_long() -> None:
    inputs = Inputs(np.zeros((20_000, 1)), np.zeros(20_000), np.zeros((10, 1)))
    began = time.monotonic()
    fitted = fit_within(Maker(Slow), "regression", inputs, 2.0)
    assert time.monotonic() - began < 10  # all of them would take 20 s or more
    assert fitted is not None
    assert 256 < fitted[1] < 2000
    few = Inputs(np.zeros((300, 1)), np.zeros(300), np.zeros((10, 1)))
    whole = fit_within(Maker(Slow), "regression", few, 5.0)
    assert whole is not None
    assert whole[1] == 300


def test_a_rare_class_is_among_the_first_samples() -> None:
    data = ToyDataModule("iris")
    x = torch.randn(5000, 4)
    y = torch.zeros(5000, dtype=torch.long)
    y[4000] = 1
    data._table = (type(data._table[0])(x, y), data._table[1])
    data.val_fraction = data.test_fraction = 0.2
    found, left_out = _measured(data)
    assert found.keys() - {"always setosa"} == {"logistic regression", "gradient boosting"}
    assert not left_out
