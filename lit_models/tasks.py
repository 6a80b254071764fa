"""What a kind of target means: the one place that knows which loss, activation and metrics belong together."""

import difflib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

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

from lit_models.errors import ModelError
from lit_models.modules.normalization import Normalization

TaskName = Literal["regression", "binary", "multiclass", "next_token"]
Reduction = Literal["mean", "sum"]

IGNORED = -100  # stands in the place of a target where nothing is to be predicted


class Task(nn.Module):
    """Loss, activation and metrics of one kind of target.

    Args:
        num_outputs: Scores for each sample.
        loss: A loss of `torch.nn` by name, one of `losses`; the first of them by default.
        reduction: Whether the loss of a batch is the mean or the sum over its samples.
        label_smoothing: Share of a label that is spread over all classes, 0 to 1 (Szegedy et al. 2016).
        class_weights: How much the samples of each class count: two numbers in a binary task, of class 0 and of class
            1, and `num_outputs` in a multiclass one, whose mean is divided by the weights of the batch's samples.
        ignore_index: The label of samples that count in no loss and no metric, of a multiclass task.

    Raises:
        ModelError: If the loss, or one of its options, does not fit the task.
    """

    name: ClassVar[TaskName]
    losses: ClassVar[tuple[str, ...]]
    class_weights: Tensor | None

    def __init__(
        self,
        num_outputs: int,
        loss: str | None = None,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.chosen = loss or self.losses[0]
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor([float(weight) for weight in class_weights])
        self.register_buffer("class_weights", weights, persistent=False)  # they are among the hyperparameters
        self._check()

    def _check(self) -> None:
        outputs = self.num_outputs
        if self.name == "binary" and outputs != 1:
            raise ModelError(f"--model.num_outputs {outputs}: a binary task has 1 output, the score of class 1.")
        if self.name == "multiclass" and outputs < 2:
            raise ModelError(f"--model.num_outputs {outputs}: a multiclass task has an output for each class.")
        if self.chosen not in self.losses:
            raise ModelError(f"--model.loss {self.chosen}: {self._remedy()}")
        smoothing, ignored, weights = self.label_smoothing, self.ignore_index, self.class_weights
        if smoothing and self.name == "regression":
            raise ModelError(f"--model.label_smoothing {smoothing}: a regression has no labels to smooth.")
        if smoothing and self.name == "next_token":
            raise ModelError(f"--model.label_smoothing {smoothing}: perplexity is that of the unsmoothed loss.")
        if not 0 <= smoothing <= 1:
            raise ModelError(f"--model.label_smoothing {smoothing}: give a share from 0 to 1.")
        if ignored != IGNORED and self.name != "multiclass":
            why = f"next tokens are left out by {IGNORED}" if self.name == "next_token" else "no target is left out"
            raise ModelError(f"--model.ignore_index {ignored}: in a {self.name} task {why}; leave it out.")
        if weights is None:
            return
        what = f"--model.class_weights {[round(weight, 4) for weight in weights.tolist()]}"
        if self.name in ("regression", "next_token"):
            raise ModelError(f"{what}: a {self.name} task has no classes to weigh; leave it out.")
        if len(weights) != max(2, outputs):
            raise ModelError(f"{what}: there are {max(2, outputs)} classes; give a weight for each.")
        if not weights.isfinite().all() or (weights < 0).any() or not weights.any():
            raise ModelError(f"{what}: give numbers of 0 or more, not all of them 0.")

    def _remedy(self) -> str:
        """Say which loss to give instead of the one that was chosen."""
        fitting = " or ".join(self.losses)
        if self.chosen in ("BCELoss", "NLLLoss") and self.name != "regression":
            return f"it takes probabilities or their logarithms, and networks give logits; give {fitting}."
        if hasattr(nn, self.chosen):
            return f"a {self.name} task takes {fitting}."
        near = difflib.get_close_matches(self.chosen, self.losses, n=1, cutoff=0.4)
        return f"torch.nn has none of this name; {f'did you mean {near[0]}?' if near else f'give {fitting}.'}"

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

    def __init__(self, num_outputs: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(num_outputs, *args, **kwargs)
        self.criterion: nn.Module = getattr(nn, self.chosen)(reduction=self.reduction)
        self.normalization = Normalization()

    def num_terms(self, scores: Tensor, y: Tensor) -> int:
        """Count the terms of a summed loss: one for each value."""
        return scores.numel()

    def rescale(self, scores: Tensor) -> Tensor:
        """Turn standardized values into the target's own unit."""
        return self.normalization.inverse(scores)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Compare values with targets, both standardized: a loss does not depend on the unit."""
        target = y.reshape(scores.shape).to(scores.dtype)
        result: Tensor = self.criterion(self.normalization(scores), self.normalization(target))
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

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Binary cross-entropy of the logits."""
        label = y.reshape(scores.shape)
        target = label.to(scores.dtype)
        if self.label_smoothing:
            target = target.lerp(torch.full_like(target, 0.5), self.label_smoothing)
        weights = None if self.class_weights is None else self.class_weights[label.long()]
        return F.binary_cross_entropy_with_logits(scores, target, weights, reduction=self.reduction)

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

    name: ClassVar[TaskName] = "multiclass"
    losses = ("CrossEntropyLoss",)

    def num_samples(self, y: Tensor) -> Tensor:
        """Count the samples that are not ignored, or add their weights up."""
        counted = y != self.ignore_index
        if self.class_weights is None:
            return counted.sum()
        return (self.class_weights[y.where(counted, 0).long()] * counted).sum()

    def num_terms(self, scores: Tensor, y: Tensor) -> Tensor:
        """Count the terms of a summed loss: one for each sample, with its weight; 1 where there are none."""
        terms = self.num_samples(y)
        return terms.masked_fill(terms == 0, 1)

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of the softmax of the logits."""
        # torch's mean of nothing is no number, nor is its gradient. A look at what counts would have a GPU waited for;
        # to divide the sum would cost small models on a CPU 2 % of a step.
        is_mean = self.reduction == "mean" and y.device.type == "cpu" and bool(self.num_samples(y))
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "label_smoothing": self.label_smoothing}
        reduction = "mean" if is_mean else "sum"
        result = F.cross_entropy(scores.flatten(0, -2), y.flatten(), self.class_weights, reduction=reduction, **options)
        return result if is_mean or self.reduction == "sum" else result / self.num_terms(scores, y)

    def average(self, scores: Tensor) -> Tensor:
        """Give the logarithms of the mean probabilities, up to a constant."""
        return scores.log_softmax(2).logsumexp(1)

    def activate(self, scores: Tensor) -> Tensor:
        """Probability of every class, shape `(B, num_outputs)`; in a next-token task, of every token to come next."""
        return scores.softmax(-1)

    def metrics(self) -> MetricCollection:
        """Accuracy over all samples, and the mean of the classes' F1 scores."""
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "validate_args": False}
        metrics: dict[str, Metric | MetricCollection] = {
            "acc": MulticlassAccuracy(self.num_outputs, average="micro", **options),
            "f1": MulticlassF1Score(self.num_outputs, **options),
        }
        return MetricCollection(metrics)


class NextToken(Multiclass):
    """The token after each token of a text: targets `(B, T)`, ids, or `IGNORED`; a logit for each id, `(B, T, K)`."""

    name = "next_token"

    def metrics(self) -> MetricCollection:
        """Nothing but the loss, from which perplexity and bits per character follow."""
        return MetricCollection({})


def make_task(task: TaskName, num_outputs: int, *args: Any, **kwargs: Any) -> Task:
    """Make the task of this name; see `Task` for the arguments."""
    classes: dict[TaskName, type[Task]] = {cls.name: cls for cls in (Regression, Binary, Multiclass, NextToken)}
    return classes[task](num_outputs, *args, **kwargs)
