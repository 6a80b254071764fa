"""TabM: an ensemble of multilayer perceptrons that share weights, the strong choice for tables."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.ensemble import LitEnsemble
from lit_models.errors import ModelError, check_dropout, check_non_negative, check_sizes
from lit_models.modules.categorical import split_features


class TabMNet(nn.Module):
    """TabM (Gorishniy et al., ICLR 2025) with periodic embeddings of the numbers (Gorishniy et al., NeurIPS 2022).

    Takes the arguments of `LitTabM`, and `num_outputs`.
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
        """Compute the outputs of every perceptron, `(B, k, num_outputs)`, from rows of shape `(B, in_features)`."""
        # Not `self.model(...)`: its checks in Python would fix the batch size of an exported graph.
        model, n = self.model, self.num_numbers
        parts = []
        if n:
            parts.append(x[:, :n] if model.num_module is None else model.num_module(x[:, :n]).flatten(1))
        if model.cat_module is not None:
            parts.append(model.cat_module(x[:, n:].long()))
        outputs: Tensor = model.output(model.backbone(model.ensemble_view(torch.cat(parts, dim=1))))
        return outputs


class LitTabM(LitEnsemble):
    """TabM: `k` perceptrons that share most of their weights, each with its own loss; their mean is the prediction.

    Args:
        in_features: Number of features of a row, codes included.
        cat_cardinalities: Number of codes of each categorical column; these codes are the last features of a row.
        k: Number of perceptrons in the ensemble.
        num_blocks: Hidden layers.
        width: Width of a hidden layer.
        dropout: Share of the hidden units that are dropped in training.
        embedding_dim: Size of the periodic embedding of a numeric feature; 0 for none.
        num_frequencies: Number of frequencies of an embedding.
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
        check_non_negative(embedding_dim=embedding_dim)
        if frequency_scale <= 0:
            raise ModelError("give more than 0", option="frequency_scale", value=frequency_scale)
        shape = in_features, cat_cardinalities, self.num_outputs
        embedding = embedding_dim, num_frequencies, frequency_scale
        self.net = TabMNet(*shape, k, num_blocks, width, dropout, *embedding)
        self.initialize()
        self.example_input_array = torch.zeros(2, in_features)
