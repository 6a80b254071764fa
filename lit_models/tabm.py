"""TabM: many multilayer perceptrons in one, the strong choice for tables."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout, check_sizes
from lit_models.modules.categorical import split_features


class TabMNet(nn.Module):
    """TabM (Gorishniy et al., ICLR 2025) with periodic embeddings of the numbers (Gorishniy et al., NeurIPS 2022).

    Args:
        in_features: Numbers in a row, codes included.
        cat_cardinalities: How many codes each category has; they are the last numbers of a row.
        num_outputs: Scores for each row.
        k: How many perceptrons share their weights.
        num_blocks: Hidden layers.
        width: Width of a hidden layer.
        dropout: Share of the hidden units that are dropped in training.
        embedding_dim: Size of a number's embedding; 0 for none.
        num_frequencies: Frequencies in a number's embedding.
        frequency_scale: Standard deviation of the frequencies at the start.
    """

    def __init__(
        self,
        in_features: int,
        cat_cardinalities: Sequence[int],
        num_outputs: int,
        k: int,
        num_blocks: int,
        width: int,
        dropout: float,
        embedding_dim: int,
        num_frequencies: int,
        frequency_scale: float,
    ) -> None:
        from rtdl_num_embeddings import PeriodicEmbeddings  # it imports scikit-learn, which takes a second
        from tabm import TabM

        super().__init__()
        self.num_numbers = split_features(in_features, cat_cardinalities)
        embeddings = None
        if embedding_dim and self.num_numbers:
            embeddings = PeriodicEmbeddings(
                self.num_numbers,
                embedding_dim,
                n_frequencies=num_frequencies,
                frequency_init_scale=frequency_scale,
                lite=True,
            )
        self.model = TabM.make(
            n_num_features=self.num_numbers,
            cat_cardinalities=list(cat_cardinalities),
            d_out=num_outputs,
            num_embeddings=embeddings,
            k=k,
            n_blocks=num_blocks,
            d_block=width,
            dropout=dropout,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of every perceptron, `(B, k, num_outputs)`, from rows of shape `(B, in_features)`."""
        # Not `self.model(...)`: what it checks in Python ties an exported graph to one batch size.
        model, n = self.model, self.num_numbers
        parts = []
        if n:
            parts.append(x[:, :n] if model.num_module is None else model.num_module(x[:, :n]).flatten(1))
        if model.cat_module is not None:
            parts.append(model.cat_module(x[:, n:].long()))
        scores: Tensor = model.output(model.backbone(model.ensemble_view(torch.cat(parts, dim=1))))
        return scores


class LitTabM(LitModule):
    """TabM: `k` perceptrons that share most of their weights, each learning by itself; their mean is the prediction.

    Args:
        in_features: Numbers in a row, codes included.
        cat_cardinalities: How many codes each category has; they are the last numbers of a row.
        k: How many perceptrons.
        num_blocks: Hidden layers.
        width: Width of a hidden layer.
        dropout: Share of the hidden units that are dropped in training.
        embedding_dim: Size of a number's periodic embedding; 0 for none.
        num_frequencies: Frequencies in a number's embedding.
        frequency_scale: Standard deviation of the frequencies at the start: 0.1 to 0.3 do well on hundreds of rows, 1
            on tens of thousands.
        kwargs: Options of `LitModule`.
    """

    def __init__(
        self,
        in_features: int = 8,
        cat_cardinalities: Sequence[int] = (),
        k: int = 16,
        num_blocks: int = 2,
        width: int = 128,
        dropout: float = 0.1,
        embedding_dim: int = 16,
        num_frequencies: int = 48,
        frequency_scale: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_dropout(dropout)
        check_sizes(k=k, num_blocks=num_blocks, width=width, num_frequencies=num_frequencies)
        if embedding_dim < 0:
            raise ModelError(f"--model.embedding_dim {embedding_dim}: give 0, for none, or more.")
        if frequency_scale <= 0:
            raise ModelError(f"--model.frequency_scale {frequency_scale}: give more than 0.")
        self.net = TabMNet(
            in_features,
            cat_cardinalities,
            self.num_outputs,
            k,
            num_blocks,
            width,
            dropout,
            embedding_dim,
            num_frequencies,
            frequency_scale,
        )
        self.example_input_array = torch.zeros(2, in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Compute scores from raw rows, `(B, in_features)`.

        Returns:
            Shape `(B, num_outputs)`: what gives the mean of all perceptrons' predictions. In training, where each
            learns by itself, `(B * k, num_outputs)`, the `k` of a row in succession.
        """
        scores = self.task.rescale(self.net(self.normalization(x)))
        return scores.flatten(0, 1) if self.training else self.task.average(scores)
