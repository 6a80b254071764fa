"""Multilayer perceptron."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout
from lit_models.modules.categorical import ExpandCategories

Activation = Literal["relu", "sigmoid", "tanh", "gelu"]

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}


class MLP(nn.Module):
    """Linear layers with activations between them.

    Takes the arguments of `LitMLP`, and `num_outputs`; invalid ones raise a ModelError.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        num_outputs: int,
        activation: Activation = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        cat_cardinalities: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        if any(width < 1 for width in hidden):
            raise ModelError("a layer has at least 1 unit", option="hidden", value=list(hidden))
        layers: list[nn.Module] = [nn.Flatten()]
        if cat_cardinalities:
            categories = ExpandCategories(in_features, cat_cardinalities)
            layers, in_features = [categories], categories.out_features
        for width in hidden:
            layers.append(nn.Linear(in_features, width, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs, `(B, num_outputs)`, from inputs of shape `(B, ...)`."""
        outputs: Tensor = self.layers(x)
        return outputs


class LitMLP(LitModule):
    """A multilayer perceptron of any depth and width, for tables and for images, which it flattens.

    Args:
        in_features: Number of values in one input, whatever its shape.
        cat_cardinalities: Number of codes of each categorical column, if the last features of a row are such codes.
        hidden: Width of each hidden layer; without any the network is linear.
        activation: Activation between the layers.
        dropout: Share of the hidden units that are dropped in training.
        batch_norm: Whether to normalize each hidden layer over the batch, before the activation.
        kwargs: Options of `LitModule`.
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden: Sequence[int] = (128,),
        activation: Activation = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        cat_cardinalities: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.net = MLP(in_features, hidden, self.num_outputs, activation, dropout, batch_norm, cat_cardinalities)
        self.initialize()
        self.example_input_array = torch.zeros(2, in_features)
