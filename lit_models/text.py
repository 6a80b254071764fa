"""A classifier of texts, which also finds values: token ids in, scores out."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout, check_sizes
from lit_models.modules.text_encoders import BagEncoder, CNNEncoder, EncoderName, RecurrentEncoder, TransformerEncoder

PAD, UNKNOWN = 0, 1  # the ids that fill the end of a row, and that stand for what was not seen
HASH = 116_049_371  # fastText's


class TextNet(nn.Module):
    """An embedding for every token, an encoder of a text of any length, and a linear head.

    Padding, wherever it ends a row, changes nothing.

    Args:
        vocab_size: How many ids there are; 0 is padding.
        num_outputs: Scores for each text.
        encoder: One of `EncoderName`.
        embedding_dim: Size of an embedding.
        max_length: Most tokens of a text, for the transformer.
        width: Filters of each size of the CNN, or units in each direction of the recurrent networks.
        num_layers: Layers of the transformer and of the recurrent networks.
        num_heads: Attention heads of the transformer.
        dropout: Share of what the head gets that is dropped in training; also of what the layers of the recurrent
            networks get, and of the transformer's embeddings and what its layers add.
        pairs: How many embeddings pairs of successive tokens share; 0 for none.
        sparse: Whether the gradient of the embeddings is sparse.
    """

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
        sparse: bool,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.pairs = pairs
        self.embedding = nn.Embedding(vocab_size + pairs, embedding_dim, padding_idx=PAD, sparse=sparse)
        # Ten times smaller than torch's: what is seen rarely, or never, has less of a say from the start.
        with torch.no_grad():
            self.embedding.weight.mul_(0.1)
            self.embedding.weight[UNKNOWN] = 0  # what was never seen has none, unless training meets it
        self.encoder: BagEncoder | CNNEncoder | RecurrentEncoder | TransformerEncoder
        if encoder == "bag":
            self.encoder = BagEncoder(embedding_dim)
        elif encoder == "cnn":
            self.encoder = CNNEncoder(embedding_dim, width)
        elif encoder == "transformer":
            self.encoder = TransformerEncoder(embedding_dim, max_length, num_layers, num_heads, dropout)
        else:
            self.encoder = RecurrentEncoder(encoder, embedding_dim, width, num_layers, dropout)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.encoder.out_features, num_outputs))

    def forward(self, ids: Tensor) -> Tensor:
        """Compute scores, `(B, num_outputs)`, from token ids, `(B, T)`, int64."""
        if self.pairs:
            ids = torch.cat([ids, self.pair_ids(ids)], dim=1)
        scores: Tensor = self.head(self.encoder(self.embedding(ids), ids != PAD))
        return scores

    def pair_ids(self, ids: Tensor) -> Tensor:
        """Hash every two successive tokens of rows, `(B, T)`, to an id beyond the vocabulary, `(B, T - 1)`.

        Pairs that fall on the same id share an embedding (Joulin et al. 2016).
        """
        first, second = ids[:, :-1], ids[:, 1:]
        hashed = self.vocab_size + (first * HASH + second) % self.pairs
        return torch.where(second == PAD, PAD, hashed)


class LitTextClassifier(LitModule):
    """A network for texts: their class, or a value that belongs to each.

    Sizes that the chosen encoder has no use for are not looked at, so that encoders can be compared by one flag; what
    only the bag can do, `pairs` and `sparse`, is refused for the others.

    Args:
        vocab_size: How many ids there are, of which 0 is padding and stands at the end of a row.
        encoder: `bag`, the mean of the embeddings, is the quickest, and does well with `pairs`; `cnn` (Kim 2014)
            looks at 3 to 5 tokens at a time; `gru` and `lstm` read in both directions; `transformer` wants the
            most data.
        embedding_dim: Size of a token's embedding, and the width of the transformer.
        max_length: Most tokens of a text, for the transformer, which has a position for each.
        width: Filters of each size of the CNN, or units in each direction of the recurrent networks.
        num_layers: Layers of the transformer and of the recurrent networks.
        num_heads: Attention heads of the transformer.
        dropout: Share of what the head gets that is dropped in training; also of what the layers of the recurrent
            networks get, and of the transformer's embeddings and what its layers add.
        pairs: For the bag, how many embeddings there are for pairs of successive tokens, which share them by a hash;
            0 leaves the order of the tokens out.
        sparse: For the bag, whether only the embeddings of a batch's tokens are updated, by `torch.optim.SparseAdam`,
            which knows no weight decay; `optimizer` trains the rest. It pays from about 100,000 embeddings on.
        kwargs: Options of `LitModule`.
    """

    net: TextNet

    def __init__(
        self,
        vocab_size: int = 20_000,
        encoder: EncoderName = "bag",
        embedding_dim: int = 128,
        max_length: int = 256,
        width: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.5,
        pairs: int = 0,
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("task") == "next_token":
            raise ModelError(
                "--model LitTextClassifier: it gives scores for a whole text, and does not go on with one; give "
                "--model LitGPT."
            )
        super().__init__(**kwargs)
        check_dropout(dropout)
        check_sizes(embedding_dim=embedding_dim, max_length=max_length)
        check_sizes(num_layers=num_layers, num_heads=num_heads, width=width)
        if vocab_size < 2:
            raise ModelError(f"--model.vocab_size {vocab_size}: there is padding, id 0, and 1 token or more.")
        if pairs < 0:
            raise ModelError(f"--model.pairs {pairs}: give 0, for none, or more.")
        for name, asked in {"pairs": pairs, "sparse": sparse}.items():
            if asked and encoder != "bag":
                raise ModelError(f"--model.{name} {asked}: the {encoder} has none; give --model.encoder bag.")
        self.net = TextNet(
            vocab_size,
            self.num_outputs,
            encoder,
            embedding_dim,
            max_length,
            width,
            num_layers,
            num_heads,
            dropout,
            pairs,
            sparse,
        )
        self.sparse = sparse
        self.example_input_array = torch.ones(2, min(8, max_length), dtype=torch.long)

    def normalize(self, x: Tensor) -> Tensor:
        """Give token ids as they are, in the type that the embedding takes; a batch of empty texts gets its padding.

        Raises:
            ModelError: If they are none.
        """
        if x.is_floating_point() or x.ndim != 2:
            raise ModelError(
                f"--model LitTextClassifier: it takes token ids, whole numbers of shape (B, T), not {x.dtype} of shape "
                f"{tuple(x.shape)}; give texts, by --data TextCSVDataModule."
            )
        return x.long() if x.shape[1] else torch.full((len(x), 1), PAD, device=x.device)

    def setup(self, stage: str) -> None:
        """Refuse what sparse gradients do not allow."""
        trainer = self.trainer
        if stage == "fit" and self.sparse and trainer.gradient_clip_val and trainer.gradient_clip_algorithm == "value":
            raise ModelError(
                "--gradient_clip_algorithm value: sparse gradients can be clipped by norm only; give norm, or "
                "--model.sparse false."
            )
        super().setup(stage)
