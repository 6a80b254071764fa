"""A check of labels after the fit: those that models which never saw them find wrong."""

import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from datamodules import CSVDataModule, TextCSVDataModule
from datamodules.sampler import Split
from kindling.baselines import Clock, Inputs, Maker, makers, texts
from kindling.doctor.findings import Finding

MOST = 20_000  # training samples that are judged
FEWEST = 60
FOLDS = 5
ROUNDS = 50  # of gradient boosting
TRIED = 512  # samples of the fit that is timed
COUNT = 10  # suspects that are named
UNLIKELY = 0.1  # probability of a label below which it is suspect, as a share of what is usual for its class
SKILL = 0.7  # share of the errors of always guessing the commonest class that a model avoids, if it may judge


class Judgement(NamedTuple):
    """What a cross-validated model thinks of some labels."""

    model: str
    probabilities: NDArray[np.float64]  # of each class, `(n, K)`, from a fit without the sample
    skill: float
    loss: float


def find_suspects(data: LightningDataModule, seconds: float) -> list[Finding]:
    """Find the training labels that are likeliest wrong, at most ten (confident learning, Northcutt et al. 2021).

    A sample is suspect if a cross-validated linear model or gradient boosting, whichever is better, gives its label a
    small probability, and another class one that is usual for samples of that class. A model that is often wrong
    itself is not asked: where classes overlap, an unusual sample is no mistake.

    Args:
        data: A table in memory, or labeled texts; of others nothing is found.
        seconds: How long this may take. Of many samples only as many are judged as it allows.
    """
    if not isinstance(data, CSVDataModule | TextCSVDataModule) or data.class_names is None:
        return []
    if not isinstance(data.splits["train"], Split):  # a stream
        return []
    clock, (samples, indices) = Clock(seconds), data.splits["train"]
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:MOST]
    rows = indices[order].numpy()
    y = samples.y[indices[order]].numpy()
    if isinstance(data, TextCSVDataModule):
        inputs = Inputs(texts(data, "train", rows), y, ())
    else:
        inputs = Inputs(samples.x[indices[order]].numpy(), y, (), data.cat_cardinalities)
    judged = judge(inputs, clock)
    if judged is None or judged.skill < SKILL:
        return []
    count = len(judged.probabilities)
    found = suspects(judged.probabilities, y[:count])
    places = data.source.parts["train"].places(rows[[at for at, _, _ in found]].tolist()) if found else []
    names = data.class_names
    return [
        Finding(
            "label",
            "low",
            [place],
            f"{names[y[at]]!r}, where cross-validated {judged.model} expects {names[other]!r} ({share:.3f})",
            "look whether the label is right; unusual is not wrong",
        )
        for place, (at, other, share) in zip(places, found, strict=True)
    ]


def suspects(probabilities: NDArray[np.float64], y: NDArray[Any]) -> list[tuple[int, int, float]]:
    """Return the most suspect labels, the worst first: the sample, the class that is expected, and its probability.

    Probabilities are compared with the usual ones of their classes, as those of a rare class are always small.

    Args:
        probabilities: Of each class, `(n, K)`, from models that never saw the sample.
        y: The labels, `(n,)`.
    """
    own = probabilities[np.arange(len(y)), y]
    sizes = np.bincount(y, minlength=probabilities.shape[1])
    usual = np.bincount(y, own, minlength=probabilities.shape[1]) / np.maximum(sizes, 1)
    likely = np.where((probabilities >= usual) & (sizes > 0), probabilities, 0.0)
    other = likely.argmax(1)
    share = likely[np.arange(len(y)), other]
    usual = np.maximum(usual, 1e-9)
    wrong = ((share > 0) & (other != y) & (own < UNLIKELY * usual[y])).nonzero()[0]
    worst = wrong[np.argsort((own / usual[y] - share / usual[other])[wrong], kind="stable")][:COUNT]
    return [(int(at), int(other[at]), float(share[at])) for at in worst]


def judge(inputs: Inputs, clock: Clock) -> Judgement | None:
    """Cross-validate models of these inputs in the time that is left, and return the better one's judgement."""
    found = []
    wanted = list(makers("multiclass", inputs).items())
    for maker in dict(wanted).values():
        maker.make()  # the import is not to be taken for the time of a fit
    with warnings.catch_warnings(action="ignore"):  # of classes with fewer samples than folds
        for at, (name, maker) in enumerate(wanted):
            rounds = [ROUNDS] if maker.rounds else []
            count = _affordable(maker, rounds, inputs, clock.left() / (len(wanted) - at))
            if count:
                found.append(_cross_validated(name, maker.make(*rounds), inputs.train[:count], inputs.y[:count]))
    return min(found, key=lambda judged: judged.loss, default=None)


def _affordable(maker: Maker, rounds: Sequence[int], inputs: Inputs, seconds: float) -> int:
    """Return how many samples can be judged in some seconds; 0 for too few."""
    size = few = min(len(inputs.y), TRIED)
    if len(np.unique(inputs.y[:few])) < 2 or seconds <= 0:
        return 0
    began = time.monotonic()
    maker.make(*rounds).fit(inputs.train[:few], inputs.y[:few])
    each = (time.monotonic() - began) / size
    count = min(len(inputs.y), int(seconds / (FOLDS * max(each, 1e-9))))
    return count if count >= FEWEST else 0


def _cross_validated(name: str, model: Any, x: NDArray[Any], y: NDArray[Any]) -> Judgement:  # noqa: ANN401
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    classes, codes = np.unique(y, return_inverse=True)
    probabilities = np.zeros((len(y), int(y.max()) + 1))
    probabilities[:, classes] = cross_val_predict(model, x, codes.reshape(-1), cv=folds, method="predict_proba")
    errors, guessed = (probabilities.argmax(1) != y).mean(), 1 - np.bincount(y).max() / len(y)
    loss = -np.log(probabilities[np.arange(len(y)), y].clip(1e-6)).mean()
    return Judgement(name, probabilities, 1 - errors / guessed, float(loss))


def summary_line(found: Sequence[Finding]) -> str:
    """Return the line that is printed of suspect labels."""
    first = ", ".join(f"{finding.where[0]} ({finding.what.partition(',')[0]})" for finding in found[:3])
    more = ", ..." if len(found) > 3 else ""
    which = "the label" if len(found) == 1 else f"the {len(found)} labels"
    return f"label: {which} most likely wrong in training: {first}{more}; look at them (unusual is not wrong)."
