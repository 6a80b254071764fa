"""A linear map: linear regression and logistic regression."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lit_models.base import LitModule
from lit_models.errors import ModelError
from lit_models.modules.categorical import ExpandCategories
from lit_models.tasks import TaskName


def linear(in_features: int, cat_cardinalities: Sequence[int], num_outputs: int) -> nn.Sequential:
    """Return a linear map with a weight for each numeric feature and for each code of each categorical column."""
    if not cat_cardinalities:
        return nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_outputs))
    categories = ExpandCategories(in_features, cat_cardinalities, max_one_hot=math.inf)
    return nn.Sequential(categories, nn.Linear(categories.out_features, num_outputs))


class LitLinearRegression(LitModule):
    """Linear regression: every value is a weighted sum of the features and a bias.

    Args:
        in_features: Number of input features.
        cat_cardinalities: Number of codes of each categorical column, if the last features of a row are such codes.
        num_outputs: Number of values to predict.
        task: `regression`, the only task.
        lr: Learning rate, higher than a deep network's.
        kwargs: Options of `LitModule`.
    """

    def __init__(
        self,
        in_features: int = 1,
        num_outputs: int = 1,
        task: TaskName = "regression",
        cat_cardinalities: Sequence[int] = (),
        lr: float = 0.03,
        **kwargs: Any,
    ) -> None:
        if task != "regression":
            raise ModelError("LitLinearRegression is for regression", "use LitLogisticRegression", "task", task)
        super().__init__(task=task, num_outputs=num_outputs, lr=lr, **kwargs)
        self.net = linear(in_features, cat_cardinalities, num_outputs)
        self.initialize()
        self.example_input_array = torch.zeros(2, in_features)


class LitLogisticRegression(LitModule):
    """Logistic regression: a linear map to a logit; with several classes, softmax regression.

    Args:
        in_features: Number of input features.
        cat_cardinalities: Number of codes of each categorical column, if the last features of a row are such codes.
        num_outputs: 1 for a binary task, else the number of classes.
        task: `binary` (a sigmoid) or `multiclass` (a softmax).
        lr: Learning rate, higher than a deep network's.
        kwargs: Options of `LitModule`.
    """

    def __init__(
        self,
        in_features: int = 2,
        num_outputs: int = 1,
        task: TaskName = "binary",
        cat_cardinalities: Sequence[int] = (),
        lr: float = 0.03,
        **kwargs: Any,
    ) -> None:
        if task == "regression":
            raise ModelError("LitLogisticRegression is for classification", "use LitLinearRegression", "task", task)
        super().__init__(task=task, num_outputs=num_outputs, lr=lr, **kwargs)
        self.net = linear(in_features, cat_cardinalities, num_outputs)
        self.initialize()
        self.example_input_array = torch.zeros(2, in_features)
