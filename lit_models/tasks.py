"""Tasks: which loss, activation and metrics belong to a kind of target."""

import difflib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
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

IGNORED = -100  # the target of ignored positions


class Task(nn.Module):
    """Loss, activation and metrics of one kind of target.

    Its arguments are those of `LitModule`. Labels are smoothed as by Szegedy et al. 2016. In a multiclass task the mean
    of weighted losses is divided by the summed weights of the batch's samples.

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
        self.loss_name = loss or self.losses[0]
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        weights = None if class_weights is None else torch.tensor([float(weight) for weight in class_weights])
        self.register_buffer("class_weights", weights, persistent=False)  # they are among the hyperparameters
        self._check()

    def _check(self) -> None:
        outputs, smoothing, weights = self.num_outputs, self.label_smoothing, self.class_weights
        if self.name == "binary" and outputs != 1:
            raise ModelError("a binary task has 1 output, the logit of class 1", "", "num_outputs", outputs)
        if self.name == "multiclass" and outputs < 2:
            raise ModelError("a multiclass task has an output for each class", "", "num_outputs", outputs)
        if self.loss_name not in self.losses:
            raise ModelError(*self._loss_problem(), "loss", self.loss_name)
        if smoothing and self.name == "regression":
            raise ModelError("a regression has no labels to smooth", "", "label_smoothing", smoothing)
        if smoothing and self.name == "next_token":
            raise ModelError("perplexity is that of the unsmoothed loss", "", "label_smoothing", smoothing)
        if not 0 <= smoothing <= 1:
            raise ModelError("give a share from 0 to 1", "", "label_smoothing", smoothing)
        if self.ignore_index != IGNORED and self.name != "multiclass":
            why = f"next tokens are ignored by {IGNORED}" if self.name == "next_token" else "no target is ignored"
            raise ModelError(f"in a {self.name} task {why}", "leave it out", "ignore_index", self.ignore_index)
        if weights is None:
            return
        shown = [round(weight, 4) for weight in weights.tolist()]
        if self.name in ("regression", "next_token"):
            raise ModelError(f"a {self.name} task has no classes to weigh", "leave it out", "class_weights", shown)
        if len(weights) != max(2, outputs):
            problem = f"there are {max(2, outputs)} classes"
            raise ModelError(problem, "give a weight for each", "class_weights", shown)
        if not weights.isfinite().all() or (weights < 0).any() or not weights.any():
            raise ModelError("give numbers of 0 or more, not all of them 0", "", "class_weights", shown)

    def _loss_problem(self) -> tuple[str, str]:
        """Return why the loss does not fit this task, and which one to give instead."""
        fitting = " or ".join(self.losses)
        if self.loss_name in ("BCELoss", "NLLLoss") and self.name != "regression":
            return "it takes probabilities or their logarithms, and networks give logits", f"give {fitting}"
        if hasattr(nn, self.loss_name):
            return f"a {self.name} task takes {fitting}", ""
        near = difflib.get_close_matches(self.loss_name, self.losses, n=1, cutoff=0.4)
        return "torch.nn has none of this name", f"did you mean {near[0]}?" if near else f"give {fitting}"

    def num_samples(self, y: Tensor) -> int | Tensor:
        """Return the number of samples in a batch, over which the logged loss is the mean."""
        return len(y)

    def num_terms(self, outputs: Tensor, y: Tensor) -> int | Tensor:
        """Return the number of terms in a summed loss: one for each sample."""
        return len(outputs)

    def rescale(self, outputs: Tensor) -> Tensor:
        """Return the network's outputs in the target's own unit; logits stay as they are."""
        return outputs

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Compute the loss of a batch, a scalar, from outputs `(B, num_outputs)` and raw targets."""
        raise NotImplementedError

    def average(self, outputs: Tensor) -> Tensor:
        """Return the outputs, `(B, num_outputs)`, of an ensemble's mean prediction from `(B, k, num_outputs)`."""
        raise NotImplementedError

    def activate(self, outputs: Tensor) -> Tensor:
        """Return predictions from outputs `(B, num_outputs)`: probabilities, or values in the target's own unit."""
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        """Return the metrics of this task, which take predictions and raw targets."""
        raise NotImplementedError


class Regression(Task):
    """Regression: targets `(B,)` or `(B, K)` in their own unit. The loss is that of normalized targets."""

    name = "regression"
    losses = ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss")

    def __init__(self, num_outputs: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(num_outputs, *args, **kwargs)
        self.criterion: nn.Module = getattr(nn, self.loss_name)(reduction=self.reduction)
        self.normalization = Normalization()

    def num_terms(self, outputs: Tensor, y: Tensor) -> int:
        """Return the number of terms in a summed loss: one for each value."""
        return outputs.numel()

    def rescale(self, outputs: Tensor) -> Tensor:
        """Return normalized values in the target's own unit."""
        return self.normalization.inverse(outputs)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Compute the loss of normalized values, so that it does not depend on the unit."""
        target = y.reshape(outputs.shape).to(outputs.dtype)
        result: Tensor = self.criterion(self.normalization(outputs), self.normalization(target))
        return result

    def average(self, outputs: Tensor) -> Tensor:
        """Return the mean of the values."""
        return outputs.mean(1)

    def activate(self, outputs: Tensor) -> Tensor:
        """Return the values themselves: `(B,)` for one output, else `(B, K)`."""
        return outputs.squeeze(1) if self.num_outputs == 1 else outputs

    def metrics(self) -> MetricCollection:
        """Return mean absolute error and root mean squared error, in the target's own unit."""
        return MetricCollection({"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False)})


class Binary(Task):
    """Binary classification: targets `(B,)`, 0 or 1; one output each, the logit of class 1."""

    name = "binary"
    losses = ("BCEWithLogitsLoss",)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Compute the binary cross-entropy of the logits."""
        label = y.reshape(outputs.shape)
        target = label.to(outputs.dtype)
        if self.label_smoothing:
            target = target.lerp(torch.full_like(target, 0.5), self.label_smoothing)
        weights = None if self.class_weights is None else self.class_weights[label.long()]
        return F.binary_cross_entropy_with_logits(outputs, target, weights, reduction=self.reduction)

    def average(self, outputs: Tensor) -> Tensor:
        """Return the logits of the mean probabilities."""
        # The difference of the logarithms of both summed probabilities, of which 1/k cancels out.
        return F.logsigmoid(outputs).logsumexp(1) - F.logsigmoid(-outputs).logsumexp(1)

    def activate(self, outputs: Tensor) -> Tensor:
        """Return the probability of class 1, shape `(B,)`."""
        return outputs.sigmoid().squeeze(1)

    def metrics(self) -> MetricCollection:
        """Return accuracy, area under the ROC curve, and F1 score of class 1."""
        # Data modules check their labels once; torchmetrics would check them with every batch.
        metrics = {"acc": BinaryAccuracy, "auroc": BinaryAUROC, "f1": BinaryF1Score}
        return MetricCollection({name: metric(validate_args=False) for name, metric in metrics.items()})


class Multiclass(Task):
    """Multiclass classification: targets `(B,)`, class indices; one logit for each class."""

    name: ClassVar[TaskName] = "multiclass"
    losses = ("CrossEntropyLoss",)

    def num_samples(self, y: Tensor) -> Tensor:
        """Return the number of samples that are not ignored, or the sum of their weights."""
        counted = y != self.ignore_index
        if self.class_weights is None:
            return counted.sum()
        return (self.class_weights[y.where(counted, 0).long()] * counted).sum()

    def num_terms(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the terms' weights in a summed loss, one for each sample; 1 if there are none."""
        terms = self.num_samples(y)
        return terms.masked_fill(terms == 0, 1)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Compute the cross-entropy of the softmax of the logits."""
        # torch's mean over no samples is NaN, and so is its gradient. To count them would force a GPU sync; to divide
        # the sum would cost small models on a CPU 2 % of a step.
        is_mean = self.reduction == "mean" and y.device.type == "cpu" and bool(self.num_samples(y))
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "label_smoothing": self.label_smoothing}
        reduction = "mean" if is_mean else "sum"
        result = F.cross_entropy(
            outputs.flatten(0, -2), y.flatten(), self.class_weights, reduction=reduction, **options
        )
        return result if is_mean or self.reduction == "sum" else result / self.num_terms(outputs, y)

    def average(self, outputs: Tensor) -> Tensor:
        """Return the logarithms of the mean probabilities, up to a constant."""
        return outputs.log_softmax(2).logsumexp(1)

    def activate(self, outputs: Tensor) -> Tensor:
        """Return the probability of every class, in the shape of the logits."""
        return outputs.softmax(-1)

    def metrics(self) -> MetricCollection:
        """Return accuracy over all samples, and the mean of the classes' F1 scores."""
        options: dict[str, Any] = {"ignore_index": self.ignore_index, "validate_args": False}
        acc = MulticlassAccuracy(self.num_outputs, average="micro", **options)
        return MetricCollection({"acc": acc, "f1": MulticlassF1Score(self.num_outputs, **options)})


class NextToken(Multiclass):
    """Next-token prediction: targets `(B, T)`, ids or `IGNORED`; a logit for each id, `(B, T, K)`."""

    name = "next_token"

    def metrics(self) -> MetricCollection:
        """Return no metrics: perplexity and bits per character follow from the loss."""
        return MetricCollection({})


def make_task(task: TaskName, num_outputs: int, *args: Any, **kwargs: Any) -> Task:
    """Return the task of this name; see `Task` for the arguments."""
    classes: dict[TaskName, type[Task]] = {cls.name: cls for cls in (Regression, Binary, Multiclass, NextToken)}
    return classes[task](num_outputs, *args, **kwargs)
