"""What a kind of target means: the one place that knows which loss, activation and metrics belong together."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from lit_models.standardize import Standardize

TaskName = Literal["regression", "binary", "multiclass", "next_token"]
Reduction = Literal["mean", "sum"]

IGNORED = -100  # stands in the place of a target where nothing is to be predicted


class ModelError(Exception):
    """A model that cannot be built or trained as asked: the message names the option and the remedy."""


def check_dropout(dropout: float) -> None:
    """Refuse a share that is none.

    Raises:
        ModelError: If it is not from 0 up to 1.
    """
    if not 0 <= dropout < 1:
        raise ModelError(f"--model.dropout {dropout}: give a share from 0 up to, but not including, 1.")


def check_sizes(**sizes: int) -> None:
    """Refuse sizes, by the names of their options, of which there is nothing.

    Raises:
        ModelError: If one is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ModelError(f"--model.{name} {size}: give 1 or more.")


class Task(nn.Module):
    """Loss, activation and metrics of one kind of target.

    Args:
        num_outputs: Scores for each sample.
        loss: A loss of `torch.nn` by name, one of `losses`; the first of them by default.
        reduction: Whether the loss of a batch is the mean or the sum over its samples.
        label_smoothing: Share of a label that is spread over all classes, 0 to 1 (Szegedy et al. 2016).

    Raises:
        ModelError: If the loss or the smoothing does not fit the task.
    """

    name: ClassVar[TaskName]
    losses: ClassVar[tuple[str, ...]]

    def __init__(
        self, num_outputs: int, loss: str | None = None, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        chosen = loss or self.losses[0]
        if chosen not in self.losses:
            raise ModelError(f"--model.loss {chosen}: a {self.name} task takes {' or '.join(self.losses)}.")
        if label_smoothing and self.name == "regression":
            raise ModelError(f"--model.label_smoothing {label_smoothing}: a regression has no labels to smooth.")
        if label_smoothing and self.name == "next_token":
            raise ModelError(f"--model.label_smoothing {label_smoothing}: perplexity is that of the unsmoothed loss.")
        if not 0 <= label_smoothing <= 1:
            raise ModelError(f"--model.label_smoothing {label_smoothing}: give a share from 0 to 1.")
        self.num_outputs = num_outputs
        self.label_smoothing = label_smoothing
        self.criterion: nn.Module = getattr(nn, chosen)(reduction=reduction)

    def num_samples(self, y: Tensor) -> int | Tensor:
        """Count the samples of a batch, over which the logged loss is the mean."""
        return len(y)

    def num_terms(self, scores: Tensor, y: Tensor) -> int | Tensor:
        """Count the terms of a summed loss: one for each sample."""
        return len(scores)

    def rescale(self, scores: Tensor) -> Tensor:
        """Turn what the network gives into scores: logits as they are, values into the target's own unit."""
        return scores

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Compute the loss of a batch, a scalar, from scores `(B, num_outputs)` and raw targets."""
        raise NotImplementedError

    def average(self, scores: Tensor) -> Tensor:
        """Turn the scores of an ensemble, `(B, k, num_outputs)`, into those of its mean prediction."""
        raise NotImplementedError

    def activate(self, scores: Tensor) -> Tensor:
        """Turn scores `(B, num_outputs)` into predictions: probabilities, or values in the target's own unit."""
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        """Make the metrics of this task, which take predictions and raw targets."""
        raise NotImplementedError


class Regression(Task):
    """Values in their own unit: targets `(B,)` or `(B, K)`. The loss is that of standardized targets."""

    name = "regression"
    losses = ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss")

    def __init__(
        self, num_outputs: int, loss: str | None = None, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(num_outputs, loss, reduction, label_smoothing)
        self.standardize = Standardize()

    def num_terms(self, scores: Tensor, y: Tensor) -> int:
        """Count the terms of a summed loss: one for each value."""
        return scores.numel()

    def rescale(self, scores: Tensor) -> Tensor:
        """Turn standardized values into the target's own unit."""
        return self.standardize.inverse(scores)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Compare values with targets, both standardized: a loss does not depend on the unit."""
        target = y.reshape(scores.shape).to(scores.dtype)
        result: Tensor = self.criterion(self.standardize(scores), self.standardize(target))
        return result

    def average(self, scores: Tensor) -> Tensor:
        """Give the mean of the values."""
        return scores.mean(1)

    def activate(self, scores: Tensor) -> Tensor:
        """Give the values themselves: `(B,)` for one output, else `(B, K)`."""
        return scores.squeeze(1) if self.num_outputs == 1 else scores

    def metrics(self) -> MetricCollection:
        """Mean absolute error and root mean squared error, in the target's own unit."""
        metrics: dict[str, Metric | MetricCollection] = {
            "mae": MeanAbsoluteError(),
            "rmse": MeanSquaredError(squared=False),
        }
        return MetricCollection(metrics)


class Binary(Task):
    """One of two classes: targets `(B,)`, 0 or 1; one score each, the logit of class 1."""

    name = "binary"
    losses = ("BCEWithLogitsLoss",)

    def __init__(
        self, num_outputs: int, loss: str | None = None, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> None:
        if num_outputs != 1:
            raise ModelError(f"--model.num_outputs {num_outputs}: a binary task has 1 output, the score of class 1.")
        super().__init__(num_outputs, loss, reduction, label_smoothing)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Binary cross-entropy of the logits."""
        target = y.reshape(scores.shape).to(scores.dtype)
        if self.label_smoothing:
            target = target.lerp(torch.full_like(target, 0.5), self.label_smoothing)
        result: Tensor = self.criterion(scores, target)
        return result

    def average(self, scores: Tensor) -> Tensor:
        """Give the logits of the mean probabilities."""
        # The logarithms of both probabilities' sums, whose common divisor does not change their difference.
        return F.logsigmoid(scores).logsumexp(1) - F.logsigmoid(-scores).logsumexp(1)

    def activate(self, scores: Tensor) -> Tensor:
        """Probability of class 1, shape `(B,)`."""
        return scores.sigmoid().squeeze(1)

    def metrics(self) -> MetricCollection:
        """Accuracy, area under the ROC curve, and F1 score of class 1."""
        # Data modules check their labels once; torchmetrics would check them again with every batch.
        metrics: dict[str, Metric | MetricCollection] = {
            "acc": BinaryAccuracy(validate_args=False),
            "auroc": BinaryAUROC(validate_args=False),
            "f1": BinaryF1Score(validate_args=False),
        }
        return MetricCollection(metrics)


class Multiclass(Task):
    """One of several classes: targets `(B,)`, class indices; one logit for each class."""

    name = "multiclass"
    losses = ("CrossEntropyLoss",)

    def __init__(
        self, num_outputs: int, loss: str | None = None, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> None:
        if num_outputs < 2:
            raise ModelError(f"--model.num_outputs {num_outputs}: a multiclass task has an output for each class.")
        super().__init__(num_outputs, loss, reduction, label_smoothing)
        self.criterion = nn.CrossEntropyLoss(reduction=reduction, label_smoothing=label_smoothing)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of the softmax of the logits."""
        result: Tensor = self.criterion(scores, y)
        return result

    def average(self, scores: Tensor) -> Tensor:
        """Give the logarithms of the mean probabilities, up to a constant."""
        return scores.log_softmax(2).logsumexp(1)

    def activate(self, scores: Tensor) -> Tensor:
        """Probability of every class, shape `(B, num_outputs)`."""
        return scores.softmax(1)

    def metrics(self) -> MetricCollection:
        """Accuracy over all samples, and the mean of the classes' F1 scores."""
        metrics: dict[str, Metric | MetricCollection] = {
            "acc": MulticlassAccuracy(self.num_outputs, average="micro", validate_args=False),
            "f1": MulticlassF1Score(self.num_outputs, validate_args=False),
        }
        return MetricCollection(metrics)


class NextToken(Task):
    """The token after each token of a text: targets `(B, T)`, ids, or `IGNORED`; a logit for each id."""

    name = "next_token"
    losses = ("CrossEntropyLoss",)

    def __init__(
        self, num_outputs: int, loss: str | None = None, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(num_outputs, loss, "sum", label_smoothing)
        self.summed = reduction == "sum"

    def num_samples(self, y: Tensor) -> Tensor:
        """Count the tokens that are to be predicted."""
        return (y != IGNORED).sum()

    def num_terms(self, scores: Tensor, y: Tensor) -> Tensor:
        """Count the terms of a summed loss: one for each token."""
        return self.num_samples(y)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of the softmax of the logits, `(B, T, num_outputs)`."""
        total: Tensor = self.criterion(scores.flatten(0, 1), y.flatten())  # `IGNORED` is what torch ignores
        # There may be nothing to be predicted in a whole batch, of which the mean, or its gradient, is no number.
        return total if self.summed else total / self.num_samples(y).clamp(min=1)

    def activate(self, scores: Tensor) -> Tensor:
        """Probability of every token to come next, shape `(B, T, num_outputs)`."""
        return scores.softmax(-1)

    def metrics(self) -> MetricCollection:
        """Nothing but the loss, from which perplexity and bits per character follow."""
        return MetricCollection({})


def make_task(
    task: TaskName,
    num_outputs: int,
    loss: str | None = None,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Task:
    """Make the task of this name; see `Task` for the arguments."""
    classes: dict[TaskName, type[Task]] = {cls.name: cls for cls in (Regression, Binary, Multiclass, NextToken)}
    return classes[task](num_outputs, loss, reduction, label_smoothing)
