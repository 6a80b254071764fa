"""A linear map: linear regression and logistic regression."""

from typing import Any

import torch
from torch import nn

from lit_models.base import LitModule
from lit_models.tasks import TaskName


class LitLinearRegression(LitModule):
    """Linear regression: every value is a weighted sum of the features and a bias.

    Args:
        in_features: Numbers in one input.
        num_outputs: Values to predict.
        task: The task; a regression.
        kwargs: Options of `LitModule`.
    """

    def __init__(
        self, in_features: int = 1, num_outputs: int = 1, task: TaskName = "regression", **kwargs: Any
    ) -> None:
        super().__init__(task=task, num_outputs=num_outputs, **kwargs)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_outputs))
        self.example_input_array = torch.zeros(2, in_features)


class LitLogisticRegression(LitModule):
    """Logistic regression: a linear map to a logit; with several classes, softmax regression.

    Args:
        in_features: Numbers in one input.
        num_outputs: 1 for a binary task, else the number of classes.
        task: `binary` (a sigmoid) or `multiclass` (a softmax).
        kwargs: Options of `LitModule`.
    """

    def __init__(self, in_features: int = 2, num_outputs: int = 1, task: TaskName = "binary", **kwargs: Any) -> None:
        super().__init__(task=task, num_outputs=num_outputs, **kwargs)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_outputs))
        self.example_input_array = torch.zeros(2, in_features)
