"""Networks for texts: token embeddings, an encoder from tokens to one vector for each text, and a head.

Each encoder takes embedded tokens, `(B, T, E)`, and a mask, `(B, T)`, which is true for tokens and false for padding.
Padding ends a row, and does not change the result. A text without a token gets a vector too. The arguments of encoders
are those of `LitTextClassifier`; the width of the transformer is `embedding_dim`, E.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import ModelError

EncoderName = Literal["ngrams", "bag", "cnn", "gru", "lstm", "transformer"]

PAD, UNKNOWN = 0, 1  # ids of padding and of tokens that are not in the vocabulary
HASH = 116_049_371  # fastText's
MAX_SUBWORDS = 32  # of a token


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens, `(B, F)`, of `x`, `(B, T, F)`; 0 if a text has none."""
    weights = mask.unsqueeze(2).to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


class BagEncoder(nn.Module):
    """The mean of the embeddings, whatever their order (Joulin et al. 2016)."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.out_features = embedding_dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, `(B, T, E)`, to `(B, E)`."""
        return masked_mean(x, mask)


class CNNEncoder(nn.Module):
    """Convolutions over 3, 4 and 5 tokens, and the maximum of each over all places (Kim 2014).

    Every filter is centered at each token in turn, so that a text may be shorter than a filter.
    """

    sizes = (3, 4, 5)

    def __init__(self, embedding_dim: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding_dim, width, size) for size in self.sizes)
        self.out_features = len(self.sizes) * width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, `(B, T, E)`, to `(B, 3 * width)`."""
        channels, real = x.transpose(1, 2), mask.unsqueeze(1).to(x.dtype)
        maxima = []
        for size, convolution in zip(self.sizes, self.convolutions, strict=True):
            padded = F.pad(channels, ((size - 1) // 2, size // 2))
            # After the ReLU nothing is below 0, so that the maximum ignores positions that are set to 0.
            maxima.append((convolution(padded).relu() * real).amax(2))
        return torch.cat(maxima, dim=1)


class RecurrentEncoder(nn.Module):
    """A bidirectional recurrent network (Schuster and Paliwal 1997), and the maximum over all tokens.

    `torch.export` unrolls it, so that an exported graph has one length, to which shorter texts are padded.
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
        # Padding comes last in both directions, so that no state of a token depends on it. Packed sequences do the
        # same, at twice the time or more on a CPU.
        positions, lengths = torch.arange(x.shape[1], device=x.device), mask.sum(1, keepdim=True)
        reverse = torch.where(mask, lengths - 1 - positions, positions).unsqueeze(2)
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            x = self.dropout(x)
            left_to_right = forwards(x)[0]
            right_to_left = backwards(x.gather(1, reverse.expand_as(x)))[0]
            x = torch.cat([left_to_right, right_to_left.gather(1, reverse.expand_as(right_to_left))], dim=2)
        maxima = torch.where(mask.unsqueeze(2), x, -2.0).amax(1)  # states are between -1 and 1
        return torch.where(lengths > 0, maxima, 0.0)


class Block(nn.Module):
    """A layer of a transformer's encoder, with pre-normalization (Vaswani et al. 2017; Xiong et al. 2020)."""

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

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return tokens, `(B, T, E)`, from tokens that attend where `mask`, `(B, 1, 1, T)`, is true."""
        queries, keys, values = self.project_in(self.norm(x)).chunk(3, dim=2)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.project_out(attended))
        added: Tensor = self.dropout(self.feed_forward(x))
        return x + added


class TransformerEncoder(nn.Module):
    """A transformer's encoder with learned positions, and the mean over all tokens.

    Raises:
        ModelError: If the heads do not divide the width.
    """

    def __init__(self, embedding_dim: int, max_length: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if embedding_dim % num_heads:
            raise ModelError(f"give a divisor of `embedding_dim={embedding_dim}`", option="num_heads", value=num_heads)
        self.max_length = max_length
        self.positions = nn.Parameter(torch.empty(max_length, embedding_dim).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(embedding_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embedding_dim)
        self.out_features = embedding_dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, `(B, T, E)`, to `(B, E)`; raise a ModelError if there are more than `max_length`."""
        if x.shape[1] > self.max_length:
            problem = f"this transformer has no positions for the {x.shape[1]} tokens of a text"
            raise ModelError(problem, "cut the text, or train with a greater one", "max_length", self.max_length)
        x = self.dropout(x + self.positions[: x.shape[1]])
        # The first position is always attended: a softmax over no position is NaN.
        attended = mask | (torch.arange(x.shape[1], device=x.device) == 0)
        for block in self.blocks:
            x = block(x, attended[:, None, None, :])
        return masked_mean(self.norm(x), mask)


class TextNet(nn.Module):
    """An embedding for every token, an encoder of a text of any length, and a linear head.

    Takes the arguments of `LitTextClassifier`, and `num_outputs`.

    Of `ngrams`, a text is the sum of three means: of its tokens, its pairs, and the subwords of its tokens (Joulin et
    al. 2016; Bojanowski et al. 2017). Pairs and subwords start from 0, so that one that training has not seen says
    nothing, and have means of their own, as there are many more of them.
    """

    subwords: Tensor

    def __init__(
        self,
        vocab_size: int,
        num_outputs: int,
        encoder: EncoderName,
        embedding_dim: int,
        max_length: int,
        width: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        pairs: int,
        subwords: int,
        sparse: bool,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.pairs = pairs
        self.num_subwords = subwords if encoder == "ngrams" else 0
        size = vocab_size + pairs + self.num_subwords
        self.embedding = nn.Embedding(size, embedding_dim, padding_idx=PAD, sparse=sparse)
        if self.num_subwords:  # the embeddings of the subwords of each token; padding until they are known
            self.register_buffer("subwords", torch.zeros(vocab_size, MAX_SUBWORDS, dtype=torch.int32))
        # Ten times smaller than torch's, so that rare tokens, which are hardly trained, have little influence.
        with torch.no_grad():
            self.embedding.weight.mul_(0.1)
            self.embedding.weight[UNKNOWN] = 0  # no influence, unless training has such tokens
            if encoder == "ngrams":
                self.embedding.weight[vocab_size:] = 0
        self.is_sum = encoder == "ngrams"
        self.encoder: BagEncoder | CNNEncoder | RecurrentEncoder | TransformerEncoder
        if encoder == "ngrams" or encoder == "bag":
            self.encoder = BagEncoder(embedding_dim)
        elif encoder == "cnn":
            self.encoder = CNNEncoder(embedding_dim, width)
        elif encoder == "transformer":
            self.encoder = TransformerEncoder(embedding_dim, max_length, num_layers, num_heads, dropout)
        else:
            self.encoder = RecurrentEncoder(encoder, embedding_dim, width, num_layers, dropout)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.encoder.out_features, num_outputs))

    def forward(self, ids: Tensor) -> Tensor:
        """Compute outputs, `(B, num_outputs)`, from token ids, `(B, T)`, int64."""
        if self.is_sum:
            outputs: Tensor = self.head(self.sum_of_means(ids))
            return outputs
        if self.pairs:
            ids = torch.cat([ids, self.bigram_ids(ids)], dim=1)
        outputs = self.head(self.encoder(self.embedding(ids), ids != PAD))
        return outputs

    def sum_of_means(self, ids: Tensor) -> Tensor:
        """Return the mean embedding of a text's tokens, plus that of its pairs, plus that of its subwords, `(B, E)`."""
        tokens, place = ids, None
        if self.training and self.num_subwords:  # each token once, a fifth of the work, which no exported graph can
            tokens, place = ids.unique(return_inverse=True)
        parts = [ids]
        if self.pairs:
            parts.append(self.bigram_ids(ids))
        if self.num_subwords:
            parts.append(self.subwords[tokens].long())
        # In one lookup, as the gradient of each has the size of the whole table.
        found = self.embedding(torch.cat([part.flatten() for part in parts]))
        vectors = found.split([part.numel() for part in parts])
        total: Tensor = self.encoder(vectors[0].unflatten(0, ids.shape), ids != PAD)
        if self.pairs:
            total = total + self.encoder(vectors[1].unflatten(0, parts[1].shape), parts[1] != PAD)
        if self.num_subwords:
            sums = vectors[-1].unflatten(0, parts[-1].shape).sum(-2)
            counts = (parts[-1] != PAD).sum(-1, keepdim=True)
            if place is not None:
                sums, counts = F.embedding(place, sums), counts[place]
            total = total + sums.sum(1) / counts.sum(1).clamp(min=1)
        return total

    def set_subwords(self, hashes: Tensor) -> None:
        """Set which subwords each token has, by their hashes, `(V, n)`, integers; 0 is none. Those set before stay."""
        if not self.num_subwords or self.subwords.any():
            return
        hashes = hashes[: self.vocab_size, :MAX_SUBWORDS].to(self.subwords.device, torch.long)
        ids = self.vocab_size + self.pairs + hashes % self.num_subwords
        self.subwords[: len(ids), : ids.shape[1]] = ids.masked_fill(hashes == 0, PAD).int()

    def bigram_ids(self, ids: Tensor) -> Tensor:
        """Hash pairs of successive tokens, `(B, T)`, to ids after the vocabulary, `(B, T - 1)` (Joulin et al. 2016)."""
        first, second = ids[:, :-1], ids[:, 1:]
        hashed = self.vocab_size + (first * HASH + second) % self.pairs
        return torch.where(second == PAD, PAD, hashed)
