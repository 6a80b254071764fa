"""Encoders of texts: from embedded tokens, of which some are padding, to one vector for each text.

Each takes tokens, `(B, T, E)`, and a mask, `(B, T)`, which is true where there is a token; padding stands at the end of
a row, and changes nothing. A text without a token gets a vector too.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import ModelError

EncoderName = Literal["bag", "cnn", "gru", "lstm", "transformer"]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Take the mean over the tokens, `(B, F)`, of `x`, `(B, T, F)`; 0 where there is none."""
    weights = mask.unsqueeze(2).to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


class BagEncoder(nn.Module):
    """The mean of the embeddings, in which order plays no part (Joulin et al. 2016).

    Args:
        embedding_dim: Size of an embedding.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.out_features = embedding_dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, `(B, T, E)`, to `(B, E)`."""
        return masked_mean(x, mask)


class CNNEncoder(nn.Module):
    """Convolutions over 3, 4 and 5 tokens, and the maximum of each over all places (Kim 2014).

    Every filter is centered at each token in turn, so that a text may be shorter than a filter.

    Args:
        embedding_dim: Size of an embedding.
        width: Filters of each size.
    """

    sizes = (3, 4, 5)

    def __init__(self, embedding_dim: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding_dim, width, size) for size in self.sizes)
        self.out_features = len(self.sizes) * width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, `(B, T, E)`, to `(B, 3 * width)`."""
        channels, real = x.transpose(1, 2), mask.unsqueeze(1).to(x.dtype)
        found = []
        for size, convolution in zip(self.sizes, self.convolutions, strict=True):
            padded = F.pad(channels, ((size - 1) // 2, size // 2))
            # Nothing is less than 0 after the ReLU: a place that is set to 0 is not seen by the maximum.
            found.append((convolution(padded).relu() * real).amax(2))
        return torch.cat(found, dim=1)


class RecurrentEncoder(nn.Module):
    """A recurrent network in both directions (Schuster and Paliwal 1997), and the maximum over all tokens.

    An exported graph of it has one length, to which shorter texts are padded: `torch.export` unrolls it.

    Args:
        kind: `gru` (Cho et al. 2014) or `lstm` (Hochreiter and Schmidhuber 1997).
        embedding_dim: Size of an embedding.
        width: Units in each direction.
        num_layers: Layers, each of which gets what both directions of the one before it gave.
        dropout: Share of what each layer gets that is dropped in training.
    """

    def __init__(
        self, kind: Literal["gru", "lstm"], embedding_dim: int, width: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        cls = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        sizes = [embedding_dim] + [2 * width] * (num_layers - 1)
        self.forwards = nn.ModuleList(cls(size, width, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(cls(size, width, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.out_features = 2 * width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, `(B, T, E)`, to `(B, 2 * width)`."""
        # Padding comes last in either direction: neither reads it before its text. Packing would do the same, and take
        # twice the time or more on a CPU.
        places, lengths = torch.arange(x.shape[1], device=x.device), mask.sum(1, keepdim=True)
        turned = torch.where(mask, lengths - 1 - places, places).unsqueeze(2)
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            x = self.dropout(x)
            there = forwards(x)[0]
            back = backwards(x.gather(1, turned.expand_as(x)))[0]
            x = torch.cat([there, back.gather(1, turned.expand_as(back))], dim=2)
        # What a token has is between -1 and 1.
        highest = torch.where(mask.unsqueeze(2), x, -2.0).amax(1)
        return torch.where(lengths > 0, highest, 0.0)


class Block(nn.Module):
    """A layer of a transformer's encoder, normalized before each part (Vaswani et al. 2017; Xiong et al. 2020).

    Args:
        width: Size of a token's vector.
        num_heads: Attention heads.
        dropout: Share of what either part adds that is dropped in training.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        """Compute tokens from tokens, `(B, T, E)`, each of which looks at those `attended`, `(B, 1, 1, T)`."""
        queries, keys, values = self.project_in(self.norm(x)).chunk(3, dim=2)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=attended).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.project_out(seen))
        added: Tensor = self.dropout(self.feed_forward(x))
        return x + added


class TransformerEncoder(nn.Module):
    """A transformer's encoder with learned positions, and the mean of what it gives for the tokens.

    Args:
        embedding_dim: Size of an embedding, which is the width of all layers.
        max_length: Most tokens of a text.
        num_layers: Layers.
        num_heads: Attention heads, which divide the width.
        dropout: Share of the embeddings, and of what each layer adds, that is dropped in training.

    Raises:
        ModelError: If the heads do not divide the width.
    """

    def __init__(self, embedding_dim: int, max_length: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if embedding_dim % num_heads:
            raise ModelError(
                f"--model.num_heads {num_heads}: give a number of heads that divides --model.embedding_dim "
                f"{embedding_dim}."
            )
        self.max_length = max_length
        self.positions = nn.Parameter(torch.empty(max_length, embedding_dim).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(embedding_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embedding_dim)
        self.out_features = embedding_dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, `(B, T, E)`, to `(B, E)`.

        Raises:
            ModelError: If there are more than `max_length` of them.
        """
        if x.shape[1] > self.max_length:
            raise ModelError(
                f"--model.max_length {self.max_length}: this transformer has no positions for the {x.shape[1]} tokens "
                "of a text; cut it, or train with a greater --data.max_length."
            )
        x = self.dropout(x + self.positions[: x.shape[1]])
        # The first place is always looked at: attention to nothing at all is no number.
        attended = mask | (torch.arange(x.shape[1], device=x.device) == 0)
        for block in self.blocks:
            x = block(x, attended[:, None, None, :])
        return masked_mean(self.norm(x), mask)
