"""Ensembles: networks that learn apart and predict together. `LitMLPEnsemble` is the default for tables."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout, check_sizes
from lit_models.modules.categorical import ExpandCategories
from lit_models.modules.piecewise import PiecewiseLinearEncoding
from lit_models.optim.factory import SchedulerName

ROW_VISITS = 1_000_000  # of a fit, unless max_epochs is given: a minute on a CPU
FEW, MIN_EPOCHS, MAX_EPOCHS = 2000, 4, 128  # of fewer than FEW samples half of the epochs, or they would be overfitted


class LitEnsemble(LitModule):
    """Base of ensembles whose `net` has outputs `(B, k, num_outputs)`, those of each member."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs of the ensemble's mean prediction, `(B, num_outputs)`, from raw rows, `(B, in_features)`.

        In training each member has its own loss: `(B * k, num_outputs)`, the `k` of a row in succession.
        """
        outputs = self.task.rescale(self.net(self.normalize(x)))
        return outputs.flatten(0, 1) if self.training else self.task.average(outputs)

    def default_max_epochs(self, num_samples: int) -> int:
        """Return the epochs that suit this many training samples: fewer of few, and of many."""
        if num_samples < FEW:
            return MAX_EPOCHS // 2
        return min(max(ROW_VISITS // num_samples, MIN_EPOCHS), MAX_EPOCHS)


class MLPEnsemble(nn.Module):
    """Multilayer perceptrons side by side, each on the encoded rows or on the plain ones.

    Takes the arguments of `LitMLPEnsemble`, and `num_outputs` and `num_plain`: how many of the perceptrons see the
    numbers without their encoding. Weights have variance 1 and are divided by the square root of the layer's inputs in
    the forward pass, so that one learning rate suits all layers (the NTK parametrization, as in RealMLP: Holzmüller et
    al., NeurIPS 2024).
    """

    def __init__(
        self,
        in_features: int,
        cat_cardinalities: Sequence[int],
        num_outputs: int,
        k: int,
        hidden: Sequence[int],
        dropout: float,
        num_bins: int,
        num_plain: int = 0,
    ) -> None:
        super().__init__()
        self.categories = ExpandCategories(in_features, cat_cardinalities)
        self.num_numbers = self.categories.num_numbers
        self.encoding = PiecewiseLinearEncoding(self.num_numbers, num_bins)
        sizes = [*hidden, num_outputs]
        plain = self.categories.out_features
        shapes = [(num_plain, plain), (k - num_plain, plain + self.num_numbers * num_bins)]
        self.first = nn.ParameterList(torch.randn(*shape, sizes[0]) for shape in shapes if shape[0])
        self.weights = nn.ParameterList(torch.randn(k, *shape) for shape in itertools.pairwise(sizes))
        self.biases = nn.ParameterList(torch.randn(k, 1, size) for size in sizes)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs of every member, `(B, k, num_outputs)`, from rows of shape `(B, in_features)`."""
        plain = self.categories(x)
        encoded = torch.cat([plain, self.encoding(x[:, : self.num_numbers])], dim=1)
        biases = self.biases[0].split([len(weight) for weight in self.first])
        kinds = zip((plain, encoded)[-len(self.first) :], self.first, biases, strict=True)
        h = torch.cat([_linear(rows.expand(len(weight), -1, -1), weight, bias) for rows, weight, bias in kinds])
        for weight, bias in zip(self.weights, list(self.biases)[1:], strict=True):
            h = h.relu()
            if self.training and self.dropout:
                # One mask for all members: they differ enough, and random numbers take time.
                h = h * nn.functional.dropout(torch.ones_like(h[0]), self.dropout)
            h = _linear(h, weight, bias)
        return h.transpose(0, 1)


def _linear(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute a layer of each member, `(k, B, width)`, from its inputs, `(k, B, F)`."""
    return torch.baddbmm(bias, h, weight, alpha=weight.shape[1] ** -0.5)


class LitMLPEnsemble(LitEnsemble):
    """An ensemble of MLPs on piecewise-linear encodings, strong on tables of every size.

    Each of `k` perceptrons has its own weights and its own loss, and their mean is the prediction. A number is given
    to them both normalized and encoded by quantiles, so that they can bend where a tree would split. In a regression
    a quarter of them see it normalized only: smooth functions err elsewhere, and the mean of both kinds errs less.

    Args:
        in_features: Numbers in a row, codes included.
        cat_cardinalities: Number of codes of each category; codes are the last numbers of a row.
        k: Number of perceptrons.
        hidden: Width of each hidden layer.
        dropout: Share of the hidden units that are dropped in training.
        num_bins: Bins of each number's encoding.
        lr: Learning rate, in the NTK parametrization; by default 0.02 for classes, 0.06 for a regression.
        weight_decay: Weight decay.
        scheduler: Schedule of the learning rate.
        label_smoothing: Share of a label that is spread over all classes; by default 0.1 where there are classes.
        kwargs: Options of `LitModule`.
    """

    net: MLPEnsemble

    def __init__(
        self,
        in_features: int = 8,
        cat_cardinalities: Sequence[int] = (),
        k: int = 8,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.2,
        num_bins: int = 32,
        lr: float | None = None,
        weight_decay: float = 0.02,
        scheduler: SchedulerName = "cosine",
        label_smoothing: float | None = None,
        **kwargs: Any,
    ) -> None:
        is_regression = kwargs.get("task") == "regression"
        if label_smoothing is None:
            label_smoothing = 0.0 if is_regression else 0.1
        if lr is None:
            lr = 0.06 if is_regression else 0.02
        super().__init__(
            lr=lr, weight_decay=weight_decay, scheduler=scheduler, label_smoothing=label_smoothing, **kwargs
        )
        self.hparams["lr"] = lr  # what optimizer and checkpoint know
        check_dropout(dropout)
        check_sizes(k=k, num_bins=num_bins)
        if any(width < 1 for width in hidden):
            raise ModelError("a layer has at least 1 unit", option="hidden", value=list(hidden))
        num_plain = k // 4 if is_regression else 0
        sizes = (self.num_outputs, k, hidden, dropout, num_bins, num_plain)
        self.net = MLPEnsemble(in_features, cat_cardinalities, *sizes)
        self.initialize()
        self.example_input_array = torch.zeros(2, in_features)

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Set the statistics of inputs and targets, and the bins by the `quantiles` of numbers, `(F, Q)`, if given."""
        quantiles, is_new = statistics.get("quantiles"), not self.normalization.is_set
        super().load_statistics(statistics)
        if quantiles is not None and is_new:
            mean, std = (statistics[name][: self.net.num_numbers, None] for name in ("mean", "std"))
            self.net.encoding.set((quantiles - mean) / std if self.hparams["normalize"] else quantiles)

    def lr_factors(self) -> dict[str, float]:
        """Return the factors of the learning rate by prefix of parameter names, as in RealMLP."""
        return {"net.first": 1.0, "net.weights": 1.0, "net.biases": 0.1, "net.categories": 1.0}
