"""How sure a test is of its metrics: 95 % intervals by the bootstrap, over samples or over groups of them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["regression", "binary", "multiclass"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Interval = tuple[float, float]

RESAMPLES, FEWEST = 1000, 200  # how often a test is drawn again; less often where that would cost much
WORK = 2e8  # numbers that one interval may cost
CHUNK = 2**22  # numbers in memory at a time, of what is drawn
MATRIX = 2 * 10**7  # numbers in memory, of how often each cell occurs in each group
UNITS = 4096  # groups, or errors of samples, that are drawn one by one
BLOCKS = 1000  # at random, to which more of them are joined: their spread is known to 2 %
BINS = 2000  # of scores, where more than this differ
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a model predicted for the samples of a test, and what was right.

    Args:
        kind: What is predicted.
        predicted: Class indices, `(n,)`; in a binary task the probability of class 1; in a regression values, `(n,)` or
            `(n, K)`.
        y: What was right: class indices, `(n,)`, or values in the shape of the predicted ones.
        groups: Group of each sample, `(n,)`, integers; None if each stands for itself.
    """

    kind: Kind
    predicted: NDArray[Any]
    y: NDArray[Any]
    groups: Integers | None = None

    @cached_property
    def labels(self) -> Integers:
        """The predicted classes, `(n,)`."""
        chosen = self.predicted > 0.5 if self.kind == "binary" else self.predicted
        return chosen.astype(np.int64)

    @property
    def units(self) -> int:
        """How many samples, or groups of them, a test is drawn from."""
        return len(self.y) if self.groups is None else len(np.unique(self.groups))

    def metrics(self) -> dict[str, float]:
        """Compute the metrics by their short names, as the model's task does."""
        return {name: measure.value for name, measure in self.measures.items()}

    def intervals(self, names: Collection[str] = ("acc", "f1", "auroc", "mae", "rmse", "r2")) -> dict[str, Interval]:
        """Compute the 95 % interval of each of these metrics; of one sample, or one group, there is none."""
        if self.units < 2:
            return {}
        found = {name: measure.interval() for name, measure in self.measures.items() if name in names}
        return {name: self._widened(name, interval) for name, interval in found.items() if np.isfinite(interval).all()}

    def _widened(self, name: str, interval: Interval) -> Interval:
        """Return an interval that is no point where nothing, or everything, was wrong: as exact binomial ones are."""
        low, high = interval
        bound = ((1 - LEVEL) / 2) ** (1 / self.units)
        if name in ("acc", "f1", "auroc") and low == high:
            if low == 1:
                return bound, 1.0
            if name == "acc" and high == 0:
                return 0.0, 1 - bound
        return interval

    @cached_property
    def measures(self) -> dict[str, "Measure"]:
        """The metrics, as functions of how often each cell of samples is drawn."""
        if self.kind == "regression":
            return _of_errors(self)
        right = (self.labels == self.y).astype(np.int64)
        found = {"acc": Measure(right, self.groups, lambda counts: counts[:, 1] / counts.sum(1), 2)}
        found["f1"] = _f1(self)
        if self.kind == "binary":
            found["auroc"] = _auroc(self)
        return found


class Measure(NamedTuple):
    """A metric as a function of how often each of the cells, into which samples are sorted, is drawn.

    Samples in one cell are alike to the metric, so that drawing `n` samples anew is drawing the counts of the cells.
    """

    cells: Integers  # of each sample, `(n,)`
    groups: Integers | None  # of each sample, `(n,)`, drawn as a whole
    of: Callable[[Integers], Floats]  # from counts, `(R, C)`, to a value for each draw, `(R,)`
    size: int  # how many cells there are, C

    @property
    def value(self) -> float:
        """The metric of all samples."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(self.of(np.bincount(self.cells, minlength=self.size)[None])[0])

    def interval(self) -> Interval:
        """Compute the percentile interval of the bootstrap (Efron 1979)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.concatenate([self.of(counts) for counts in draw(self.cells, self.size, self.groups)])
        values = values[np.isfinite(values)]
        if not len(values):
            return np.nan, np.nan
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)


def difference(one: Outcome, other: Outcome, name: str) -> Interval:
    """Compute the 95 % interval of the difference of a metric, one less other, on the same samples in one order."""
    if one.kind == "regression":
        return _difference_of_errors(one, other, name)
    first, second = ((outcome.labels == outcome.y).astype(np.int64) for outcome in (one, other))
    if name != "acc":
        raise ValueError(f"{name}: only accuracies are compared")
    both = Measure(2 * first + second, one.groups, lambda counts: (counts[:, 2] - counts[:, 1]) / counts.sum(1), 4)
    return both.interval()


def draw(cells: Integers, size: int, groups: Integers | None, seed: int = 0) -> Iterator[Integers]:
    """Draw the samples, or their groups, again and again with replacement; yield counts of the cells, `(R, size)`."""
    rng = np.random.default_rng(seed)
    if groups is None:
        n, sizes = len(cells), np.bincount(cells, minlength=size)
        one_by_one = n <= 8 * size
        for times in _chunks(n if one_by_one else size):
            if one_by_one:
                yield _count(cells[rng.integers(n, size=(times, n))], size)
            else:
                yield rng.multinomial(n, sizes / n, size=times)
        return
    group, number = _joined(groups, limit=max(100, min(UNITS, MATRIX // size)))
    if groups is cells:  # a cell is a group
        sizes = np.bincount(group, minlength=size)
        yield from (_count(rng.integers(number, size=(times, number)), number) * sizes for times in _chunks(number))
        return
    of_group = np.bincount(group * size + cells, minlength=number * size).reshape(number, size).astype(np.float64)
    for times in _chunks(max(number, size)):
        taken = _count(rng.integers(number, size=(times, number)), number)
        yield np.rint(taken.astype(np.float64) @ of_group).astype(np.int64)


def _chunks(width: int) -> Iterator[int]:
    """Yield how many draws of this width to make at a time."""
    left = int(min(RESAMPLES, max(FEWEST, WORK // width)))
    while left:
        times = min(left, max(1, CHUNK // width))
        yield times
        left -= times


def _count(drawn: Integers, size: int) -> Integers:
    """Count the values below `size` in each row, `(R, n)`: `(R, size)`."""
    rows = size * np.arange(len(drawn))[:, None]
    return np.bincount((drawn + rows).ravel(), minlength=size * len(drawn)).reshape(len(drawn), size)


def _joined(groups: Integers, limit: int = UNITS) -> tuple[Integers, int]:
    """Return groups as numbers from 0, and how many there are; many are joined to random blocks."""
    _, group = np.unique(groups, return_inverse=True)
    number = int(group.max(initial=-1)) + 1
    if number <= limit:
        return group.reshape(-1), number
    blocks = min(BLOCKS, limit)
    return (np.random.default_rng(1).permutation(number) % blocks)[group.reshape(-1)], blocks


def _flat(outcome: Outcome, values: NDArray[Any]) -> Floats:
    """Return values, `(n,)` or `(n, K)`, as `(n, K)`."""
    return values.astype(np.float64).reshape(len(outcome.y), -1)


class _Means(NamedTuple):
    """Means over units of some values of each sample."""

    unit: Integers
    values: Floats  # of each unit, `(U, d)`

    @classmethod
    def over(cls, outcome: Outcome, values: Floats) -> "_Means":
        unit, _ = _joined(np.arange(len(outcome.y)) if outcome.groups is None else outcome.groups)
        sizes = np.bincount(unit)
        sums = [np.bincount(unit, column) for column in values.T]
        return cls(unit, np.stack(sums, 1) / sizes[:, None])

    def measure(self, of: Callable[[Floats], Floats]) -> Measure:
        """Return the metric that is a function of the means, `(R, d)`, over the samples that are drawn."""
        number = len(self.values)
        groups = None if number == len(self.unit) else self.unit
        return Measure(self.unit, groups, lambda counts: of(counts @ self.values / counts.sum(1)[:, None]), number)


def _of_errors(outcome: Outcome) -> dict[str, Measure]:
    y, predicted = _flat(outcome, outcome.y), _flat(outcome, outcome.predicted)
    error = predicted - y
    center = y.mean(0)  # squares of what is far from 0 have no digits left for the variance
    columns = [np.abs(error).mean(1), np.square(error).mean(1), (y - center).mean(1), np.square(y - center).mean(1)]
    means = _Means.over(outcome, np.stack(columns, 1))
    found = {"mae": means.measure(lambda m: m[:, 0]), "rmse": means.measure(lambda m: np.sqrt(m[:, 1]))}
    if y.shape[1] == 1:
        found["r2"] = means.measure(lambda m: 1 - m[:, 1] / (m[:, 3] - np.square(m[:, 2])))
    return found


def _difference_of_errors(one: Outcome, other: Outcome, name: str) -> Interval:
    errors = [_flat(outcome, outcome.predicted) - _flat(outcome, outcome.y) for outcome in (one, other)]
    measured = np.abs if name == "mae" else np.square
    means = _Means.over(one, np.stack([measured(error).mean(1) for error in errors], 1))
    root = (lambda m: m) if name == "mae" else np.sqrt
    return means.measure(lambda m: root(m[:, 0]) - root(m[:, 1])).interval()


def _f1(outcome: Outcome) -> Measure:
    """Return F1 of class 1, or the mean of all classes that occur."""
    y, labels = outcome.y.astype(np.int64), outcome.labels
    if outcome.kind == "binary":
        return Measure(
            2 * y + labels, outcome.groups, lambda n: 2 * n[:, 3] / np.maximum(1, n[:, 1] + n[:, 2] + 2 * n[:, 3]), 4
        )
    number = int(max(y.max(initial=0), labels.max(initial=0))) + 1
    pairs, cells = np.unique(y * number + labels, return_inverse=True)
    true, guess = pairs // number, pairs % number

    def of(counts: Integers) -> Floats:
        sizes = _sums(counts, true, number) + _sums(counts, guess, number)
        hits = np.zeros_like(sizes)
        hits[:, true[true == guess]] = counts[:, true == guess]
        score = 2 * hits / np.maximum(sizes, 1)
        means: Floats = score.sum(1) / (sizes > 0).sum(1)
        return means

    return Measure(cells.reshape(-1), outcome.groups, of, len(pairs))


def _sums(counts: Integers, keys: Integers, size: int) -> Integers:
    """Sum the columns of counts, `(R, C)`, by their keys, `(C,)`: `(R, size)`."""
    order = np.argsort(keys, kind="stable")
    there, starts = np.unique(keys[order], return_index=True)
    sums = np.zeros((len(counts), size), counts.dtype)
    sums[:, there] = np.add.reduceat(counts[:, order], starts, axis=1)
    return sums


def _auroc(outcome: Outcome) -> Measure:
    """Return the area under the ROC curve: the share of pairs of both classes in the right order, ties half."""
    scores, place = np.unique(outcome.predicted, return_inverse=True)
    place = place.reshape(-1)
    exact = _area(_count((2 * place + outcome.y.astype(np.int64))[None], 2 * len(scores)))
    if len(scores) > BINS:
        ranks = np.cumsum(np.bincount(place))
        place = ((ranks - 1) * BINS // len(place))[place]
    cells = 2 * place + outcome.y.astype(np.int64)
    size = 2 * (int(place.max(initial=0)) + 1)
    shift = exact[0] - _area(_count(cells[None], size))[0]  # of ties within a bin
    return Measure(cells, outcome.groups, lambda counts: _area(counts) + shift, size)


def _area(counts: Integers) -> Floats:
    """Compute areas from counts, `(R, 2 * scores)`, of both classes for each score, in rising order."""
    negative, positive = counts[:, 0::2].astype(np.float64), counts[:, 1::2].astype(np.float64)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):  # there is none of one class
        areas: Floats = (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
    return areas
