"""What simple models reach on the very same split, measured like the model itself."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from datamodules import CSVDataModule, TextCSVDataModule
from kindling.intervals import Kind, Outcome

FIRST = 256  # samples of the first, timed fit; each further one is of at most GROWTH times as many
GROWTH = 4
MOST = 500_000  # samples that a baseline is fitted on
SLACK = 1.4  # by how much a fit may take longer than one of fewer samples lets expect
ROUNDS = 100  # of gradient boosting
MAX_CODES = 255  # of a category that gradient boosting takes as one
TOKEN = r"(?u)[\u3040-\u30ff\u3400-\u9fff]|\w+"  # a word, or a Chinese or Japanese character

Rows = NDArray[np.int64]


class Inputs(NamedTuple):
    """Inputs to fit a baseline on and to test it on, and the targets of the former; each can be indexed by rows."""

    train: Any  # a matrix `(N, F)`, or an array of texts
    y: NDArray[Any]
    test: Any
    cardinalities: Sequence[int] = ()  # of the codes of categories, which are the last columns of a matrix


@dataclass(frozen=True, eq=False)
class Baseline:
    """A simple model, and what it reaches on the test split.

    Args:
        name: What it is.
        outcomes: What it predicted, for each metric by its short name; under "" for all others.
        rows: How many samples it was fitted on.
        of: How many there are in training and validation.
        seconds: How long it took.
    """

    name: str
    outcomes: dict[str, Outcome]
    rows: int
    of: int
    seconds: float = 0.0
    is_constant: bool = False

    def outcome(self, metric: str) -> Outcome:
        """Return what it predicted to be measured by a metric."""
        return self.outcomes.get(metric, self.outcomes[""])

    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """Compute the metrics of these names, as `test_acc`, as far as they are known."""
        short = {name: name.removeprefix("test_") for name in names}
        found = {name: self.outcome(of).measures.get(of) for name, of in short.items()}
        return {name: measure.value for name, measure in found.items() if measure is not None}


def measure(
    data: LightningDataModule, outcome: Outcome, rows: Rows, seconds: float
) -> tuple[list[Baseline], dict[str, str]]:
    """Fit baselines on the training and validation samples, and predict the samples that a model was tested on.

    Args:
        data: The data module of the model.
        outcome: What the model predicted.
        rows: Which samples of the test split these are, `(n,)`.
        seconds: How long all of them may take, their import included. One that would take longer is fitted on a part of
            the samples, or left out.

    Returns:
        The baselines, and why others were left out, by their names.
    """
    clock = Clock(seconds)
    targets = _targets(data, outcome.kind)
    counted = targets >= 0 if outcome.kind != "regression" else np.ones(len(targets), bool)  # others are ignored
    found, left_out = [constant(data, outcome, targets[counted])], {}
    inputs = gather(data, rows, targets, counted)
    wanted = {} if inputs is None else makers(outcome.kind, inputs)
    for maker in wanted.values():
        maker.make()  # the import takes its time once, and would be taken for that of a fit
    for at, (name, maker) in enumerate(wanted.items()):
        assert inputs is not None
        began = time.monotonic()
        # A linear model seldom takes its share, and what it leaves is the next one's.
        fitted = fit_within(maker, outcome.kind, inputs, clock.left() / (len(wanted) - at))
        if fitted is None:
            left_out[name] = f"it would take longer than the fit ({seconds:.2g} s)"
            continue
        made = Outcome(outcome.kind, fitted[0], outcome.y, outcome.groups)
        found.append(Baseline(name, {"": made}, fitted[1], int(counted.sum()), time.monotonic() - began))
    return found, left_out


class Clock:
    """How much time is left of some seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()


def constant(data: LightningDataModule, outcome: Outcome, targets: NDArray[Any]) -> Baseline:
    """Always predict the commonest class; or the median, and the mean where squares count."""
    count = len(outcome.y)

    def always(value: Any) -> Outcome:  # noqa: ANN401  # a class, or values
        predicted = np.broadcast_to(np.asarray(value), (count, *outcome.predicted.shape[1:]))
        return Outcome(outcome.kind, predicted, outcome.y, outcome.groups)

    if outcome.kind == "regression":
        values = targets.astype(np.float64).reshape(len(targets), *outcome.predicted.shape[1:])
        mean = always(values.mean(0))
        outcomes = {"": always(np.median(values, 0)), "rmse": mean, "r2": mean}
        return Baseline("always the median (RMSE: the mean)", outcomes, len(targets), len(targets), is_constant=True)
    counts = np.bincount(targets.astype(np.int64))
    commonest = int(counts.argmax())
    names = getattr(data, "class_names", None) or []
    name = " ".join(str(names[commonest]).split()) if commonest < len(names) else str(commonest)
    guess = float(commonest) if outcome.kind == "binary" else commonest
    return Baseline(f"always {name}", {"": always(guess)}, len(targets), len(targets), is_constant=True)


def _splits(data: Any) -> Iterator[Any]:  # noqa: ANN401  # whatever has splits in memory
    return (data.splits[stage] for stage in ("train", "val") if stage in data.splits)


def _targets(data: Any, kind: Kind) -> NDArray[Any]:  # noqa: ANN401
    """Return the targets of the training and validation samples, in their order."""
    y = torch.cat([split.samples.y[split.indices] for split in _splits(data)])
    return y.numpy() if kind == "regression" else y.flatten().numpy()


def gather(data: Any, rows: Rows, targets: NDArray[Any], counted: NDArray[np.bool_]) -> Inputs | None:  # noqa: ANN401
    """Return a table as its encoded matrix, or labeled texts as they are, in random order; None for anything else.

    Args:
        data: The data module.
        rows: The samples of the test split to predict, `(n,)`.
        targets: Those of training and validation, in their order.
        counted: Which of them count.
    """
    splits = [*_splits(data)]
    order = counted.nonzero()[0][_order(targets[counted])][:MOST]
    ends = np.cumsum([split.size for split in splits])
    part = np.searchsorted(ends, order, side="right")
    picked = [split.indices.numpy()[order[part == at] - (ends[at] - split.size)] for at, split in enumerate(splits)]
    if isinstance(data, TextCSVDataModule):
        train = np.empty(len(order), object)
        for at, stage in enumerate(stage for stage in ("train", "val") if stage in data.splits):
            train[part == at] = texts(data, stage, picked[at])
        return Inputs(train, targets[order], texts(data, "test", rows))
    x = data.splits["test"].samples.x if len(rows) else splits[0].samples.x
    if getattr(x, "ndim", 0) != 2 or not x.is_floating_point():
        return None
    matrix = np.empty((len(order), x.shape[1]), np.float32)
    for at, split in enumerate(splits):
        matrix[part == at] = split.samples.x[torch.from_numpy(picked[at])].numpy()
    cardinalities = data.cat_cardinalities if isinstance(data, CSVDataModule) else ()
    return Inputs(matrix, targets[order], x[torch.from_numpy(rows)].numpy(), cardinalities)


def texts(data: TextCSVDataModule, stage: str, rows: Rows) -> NDArray[Any]:
    """Return some of the texts of a stage."""
    parts: dict[Any, Any] = data.source.parts
    column = parts.get(stage, parts["train"]).table[data.source_column]
    return np.array([text or "" for text in column.take(rows).to_pylist()], dtype=object)


def _order(targets: NDArray[Any]) -> Rows:
    """Return a random order of samples that begins with one of each class."""
    order = np.random.default_rng(0).permutation(len(targets))
    if targets.dtype.kind == "f":
        return order
    first = np.unique(targets[order], return_index=True)[1]
    return np.concatenate([order[first], np.delete(order, first)])


class Maker(NamedTuple):
    """Makes a model of scikit-learn, and if it is fitted in rounds, one of fewer rounds."""

    make: Callable[..., Any]
    rounds: int = 0


def fit_within(maker: Maker, kind: Kind, inputs: Inputs, seconds: float) -> tuple[NDArray[Any], int] | None:
    """Fit on as many samples as the time allows, and predict those of the test; None if it allows nothing.

    Fits of more and more samples are timed, until all of them are used or the next one would take too long.
    """
    clock, size, tests = Clock(seconds), len(inputs.y), len(inputs.test)
    count, spent, done = min(size, FIRST), 0.0, None
    with warnings.catch_warnings(action="ignore"):  # of what did not converge, or of classes that are rare
        if maker.rounds and clock.left() > 0:
            spent = _estimate(maker, inputs.train[:count], _shaped(kind, inputs.y[:count]))
        while clock.left() > spent:
            began = time.monotonic()
            model = maker.make().fit(inputs.train[:count], _shaped(kind, inputs.y[:count]))
            few = min(tests, FIRST)
            fitted = time.monotonic()
            predicted = predict(kind, model, inputs.test[:few])
            if few < tests:
                if (time.monotonic() - fitted) * (tests / few - 1) > clock.left():
                    break
                predicted = np.concatenate([predicted, predict(kind, model, inputs.test[few:])])
            spent, done = time.monotonic() - began, (predicted, count)
            room = clock.left() / (SLACK * max(spent, 1e-6))
            if count == size or room < 1:
                break
            count, spent = min(size, int(count * min(room, GROWTH))), 0.0
    return done


def _estimate(maker: Maker, x: Any, y: NDArray[Any]) -> float:  # noqa: ANN401
    """Return the seconds that all rounds of a fit take, from those of a few."""
    took = {}
    for rounds in (1, 2, 6):  # the first fit of all takes longer
        began = time.monotonic()
        maker.make(rounds).fit(x, y)
        took[rounds] = time.monotonic() - began
    return took[2] + max(0.0, took[6] - took[2]) / 4 * (maker.rounds - 2)


def makers(kind: Kind, inputs: Inputs) -> dict[str, Maker]:
    """Return how each baseline of these inputs is made."""
    linear = "ridge regression" if kind == "regression" else "logistic regression"
    if inputs.train.dtype == object:
        return {f"TF-IDF and {linear}": Maker(lambda: _of_texts(kind))}
    found = {linear: Maker(lambda: _linear(kind, inputs))}
    if kind != "regression" or inputs.y.size == len(inputs.y):
        found["gradient boosting"] = Maker(lambda rounds=ROUNDS: _boosting(kind, inputs, rounds), ROUNDS)
    return found


def _of_texts(kind: Kind) -> Any:  # noqa: ANN401  # a model of scikit-learn, as those below
    """Make a linear model of the TF-IDF of words and of pairs of them."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes half a second
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, dtype=np.float32)
    return make_pipeline(words, Ridge() if kind == "regression" else LogisticRegression(C=10, max_iter=300, tol=1e-3))


def _linear(kind: Kind, inputs: Inputs) -> Any:  # noqa: ANN401
    """Make a linear model of normalized numbers and one-hot categories."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    model = Ridge() if kind == "regression" else LogisticRegression(max_iter=300)
    if not inputs.cardinalities:
        return make_pipeline(StandardScaler(), model)
    at = inputs.train.shape[1] - len(inputs.cardinalities)
    parts = [("numbers", StandardScaler(), slice(0, at))] * bool(at)
    parts += [("categories", OneHotEncoder(handle_unknown="ignore"), slice(at, None))]
    return make_pipeline(ColumnTransformer(parts), model)


def _boosting(kind: Kind, inputs: Inputs, rounds: int) -> Any:  # noqa: ANN401
    """Make scikit-learn's histogram gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    at = inputs.train.shape[1] - len(inputs.cardinalities)
    categories = [number for number, codes in enumerate(inputs.cardinalities, at) if codes <= MAX_CODES]
    cls = HistGradientBoostingRegressor if kind == "regression" else HistGradientBoostingClassifier
    return cls(max_iter=rounds, categorical_features=categories or None, random_state=0)


def _shaped(kind: Kind, y: NDArray[Any]) -> NDArray[Any]:
    """Return targets as scikit-learn wants them: `(n,)` if there is one for each sample."""
    return y.reshape(len(y), -1) if kind == "regression" and y.size != len(y) else y.reshape(-1)


def predict(kind: Kind, model: Any, x: Any) -> NDArray[Any]:  # noqa: ANN401
    """Return classes, the probability of class 1, or values, as an `Outcome` has them."""
    if kind != "binary":
        found: NDArray[Any] = model.predict(x)
        return found
    probabilities, classes = model.predict_proba(x), list(model.classes_)
    return np.asarray(probabilities[:, classes.index(1)] if 1 in classes else np.zeros(len(probabilities)))
