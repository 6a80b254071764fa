"""Intervals of metrics, beside exact distributions and SciPy's bootstrap."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, roc_auc_score, root_mean_squared_error

from kindling.intervals import UNITS, Outcome, difference
from lit_models.tasks import make_task


def _binary(size: int, seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, size)
    return Outcome("binary", np.clip(0.5 + 0.2 * (y - 0.5) + rng.normal(0, 0.2, size), 0, 1), y)


def _multiclass(size: int, classes: int = 5) -> Outcome:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, size)
    return Outcome("multiclass", np.where(rng.random(size) < 0.7, y, rng.integers(0, classes, size)), y)


def _regression(size: int) -> Outcome:
    rng = np.random.default_rng(0)
    y = rng.normal(50, 10, size)
    return Outcome("regression", y + rng.standard_t(5, size), y)


@pytest.mark.parametrize("outcome", [_binary(300), _multiclass(300), _regression(300)], ids=lambda o: o.kind)
def test_metrics_are_those_of_the_task(outcome: Outcome) -> None:
    task = make_task(outcome.kind, 5 if outcome.kind == "multiclass" else 1)
    metrics = task.metrics()
    predicted: Any = torch.from_numpy(outcome.predicted).float()
    if outcome.kind == "multiclass":
        predicted = torch.nn.functional.one_hot(predicted.long(), 5).float()
    metrics.update(predicted, torch.from_numpy(outcome.y).to(torch.float32 if outcome.kind == "regression" else None))
    logged = {name: float(value) for name, value in metrics.compute().items()}
    ours = outcome.metrics()
    assert {name: ours[name] for name in logged} == pytest.approx(logged, abs=1e-5)


def test_metrics_are_those_of_scikit_learn() -> None:
    binary, multiclass, values = _binary(500), _multiclass(500), _regression(500)
    assert binary.metrics()["auroc"] == pytest.approx(roc_auc_score(binary.y, binary.predicted))
    assert binary.metrics()["f1"] == pytest.approx(f1_score(binary.y, binary.predicted > 0.5))
    assert multiclass.metrics()["f1"] == pytest.approx(f1_score(multiclass.y, multiclass.predicted, average="macro"))
    assert values.metrics() == pytest.approx(
        {
            "mae": mean_absolute_error(values.y, values.predicted),
            "rmse": root_mean_squared_error(values.y, values.predicted),
            "r2": r2_score(values.y, values.predicted),
        }
    )


@pytest.mark.parametrize(("size", "right"), [(60, 45), (2000, 1900)])
def test_an_accuracy_has_the_interval_of_the_binomial_distribution(size: int, right: int) -> None:
    outcome = Outcome("multiclass", (np.arange(size) >= right).astype(np.int64), np.zeros(size, np.int64))
    low, high = outcome.intervals()["acc"]
    exact = stats.binom.ppf([0.025, 0.975], size, right / size) / size
    assert (low, high) == pytest.approx(exact, abs=2 / size + 0.001)


def _scipy(function: Any, *columns: NDArray[Any]) -> tuple[float, float]:  # noqa: ANN401  # a metric
    found = stats.bootstrap(
        columns, function, paired=True, vectorized=False, method="percentile", n_resamples=600, rng=1
    ).confidence_interval
    return found.low, found.high


def _auroc(y: NDArray[Any], scores: NDArray[Any]) -> float:
    ones, ranks = int(y.sum()), stats.rankdata(scores)
    return float((ranks[y == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def _f1(y: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(2 * (y & labels).sum() / (y.sum() + labels.sum()))


def _root(errors: NDArray[Any]) -> float:
    return float(np.sqrt(np.square(errors).mean()))


def _mean(errors: NDArray[Any]) -> float:
    return float(np.abs(errors).mean())


def test_intervals_agree_with_scipys_bootstrap() -> None:
    binary, multiclass, values = _binary(200), _multiclass(200), _regression(200)
    found = {**binary.intervals(), **values.intervals()}
    assert found["auroc"] == pytest.approx(_scipy(_auroc, binary.y, binary.predicted), abs=0.012)
    assert found["f1"] == pytest.approx(_scipy(_f1, binary.y, binary.labels), abs=0.015)
    errors = values.predicted - values.y
    assert found["rmse"] == pytest.approx(_scipy(_root, errors), rel=0.03)
    assert found["mae"] == pytest.approx(_scipy(_mean, errors), rel=0.03)
    expected = _scipy(lambda y, e: 1 - np.square(e).mean() / y.var(), values.y, errors)
    assert found["r2"] == pytest.approx(expected, abs=0.002)
    expected = _scipy(lambda y, p: np.mean([_f1(y == k, p == k) for k in range(5)]), multiclass.y, multiclass.predicted)
    assert multiclass.intervals()["f1"] == pytest.approx(expected, abs=0.015)


def test_rows_of_one_group_count_as_one() -> None:
    one = _binary(100)
    copies = Outcome("binary", np.repeat(one.predicted, 20), np.repeat(one.y, 20), np.repeat(np.arange(100), 20))
    assert copies.units == 100
    assert copies.metrics() == pytest.approx(one.metrics())
    for name, (low, high) in one.intervals().items():
        assert copies.intervals()[name] == pytest.approx((low, high), abs=0.02)
    alone = Outcome("binary", copies.predicted, copies.y).intervals()["acc"]
    low, high = one.intervals()["acc"]
    assert (high - low) / (alone[1] - alone[0]) == pytest.approx(20**0.5, rel=0.2)


def test_groups_of_values_count_as_one() -> None:
    one = _regression(100)
    copies = Outcome("regression", np.repeat(one.predicted, 9), np.repeat(one.y, 9), np.repeat(np.arange(100) * 7, 9))
    for name, interval in one.intervals().items():
        assert copies.intervals()[name] == pytest.approx(interval, rel=0.05)


def test_nothing_wrong_is_no_certainty() -> None:
    y = np.array([0, 1] * 15)
    found = Outcome("binary", y.astype(float), y).intervals()
    exact = stats.binomtest(30, 30).proportion_ci(0.95, "exact")
    assert found["acc"] == found["auroc"] == pytest.approx((exact.low, 1))
    everything = Outcome("binary", 1.0 - y, y).intervals()
    assert everything["acc"] == pytest.approx((0, 1 - exact.low))
    groups = Outcome("binary", y.astype(float), y, np.arange(30) // 10).intervals()
    assert groups["acc"][0] < found["acc"][0]


def test_one_sample_or_one_group_has_no_interval() -> None:
    assert Outcome("regression", np.ones(1), np.zeros(1)).intervals() == {}
    assert Outcome("binary", np.ones(4), np.array([0, 1, 1, 0]), np.zeros(4, np.int64)).intervals() == {}


def test_one_class_has_no_area() -> None:
    found = Outcome("binary", np.linspace(0, 1, 40), np.ones(40, np.int64)).intervals()
    assert "auroc" not in found
    assert "acc" in found


@pytest.mark.parametrize("groups", [False, True])
def test_many_samples_are_drawn_in_blocks_with_the_same_spread(groups: bool) -> None:
    size = 10 * UNITS
    outcome = _regression(size)
    outcome = Outcome("regression", outcome.predicted, outcome.y, np.arange(size) if groups else None)
    low, high = outcome.intervals(["mae"])["mae"]
    error = np.abs(outcome.predicted - outcome.y)
    assert (low + high) / 2 == pytest.approx(error.mean(), rel=0.005)
    assert high - low == pytest.approx(2 * 1.96 * error.std() / size**0.5, rel=0.15)


def test_a_million_samples_have_narrow_intervals() -> None:
    binary = _binary(10**6).intervals()
    values = _regression(10**6).intervals(["mae", "rmse"])
    assert all(high - low < 0.01 for low, high in [*binary.values(), *values.values()])


def test_a_difference_is_surer_than_two_intervals() -> None:
    one = _multiclass(400)
    other = Outcome("multiclass", np.where(np.arange(400) < 40, (one.y + 1) % 5, one.predicted), one.y)
    low, high = difference(one, other, "acc")
    change = (one.labels == one.y).astype(float) - (other.labels == other.y)
    assert (low, high) == pytest.approx(_scipy(np.mean, change), abs=0.008)
    assert low > 0
    first, second = one.intervals()["acc"], other.intervals()["acc"]
    assert second[1] > first[0]


@pytest.mark.parametrize("name", ["mae", "rmse"])
def test_a_difference_of_errors_agrees_with_scipy(name: str) -> None:
    one, rng = _regression(300), np.random.default_rng(2)
    other = Outcome("regression", one.predicted + rng.normal(0, 1, 300), one.y)
    metric = _mean if name == "mae" else _root
    low, high = difference(one, other, name)
    expected = _scipy(lambda a, b: metric(a) - metric(b), one.predicted - one.y, other.predicted - other.y)
    assert (low, high) == pytest.approx(expected, abs=0.02)
    assert high < 0
