"""Text classification and regression: token ids in, logits or values out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout, check_non_negative, check_sizes
from lit_models.modules.text_encoders import PAD, EncoderName, TextNet

# What suits an encoder where nothing is given: size of the embeddings, learning rate, and embeddings of pairs.
EMBEDDING_DIM, LR, PAIRS = {"ngrams": 16}, {"ngrams": 3e-3}, {"ngrams": 100_000}


class LitTextClassifier(LitModule):
    """A network for texts that predicts the class of each, or a value.

    Sizes that the chosen encoder does not have are ignored, so that encoders can be compared by one option; `pairs` and
    `sparse`, which only the bags have, are refused for the others.

    Args:
        vocab_size: Number of token ids; 0 is padding, at the end of a row.
        encoder: `ngrams` adds the means of the embeddings of tokens, of `pairs` and of `subwords`, and is the best on
            thousands of texts; `bag`, the mean of the embeddings, is the fastest; `cnn` (Kim 2014) has filters over 3
            to 5 tokens; `gru` and `lstm` are bidirectional; `transformer` needs the most data.
        embedding_dim: Size of a token's embedding, and the width of the transformer; by default 16 for `ngrams`, 128
            for the others.
        max_length: Maximum number of tokens of a text, for the transformer, which learns a position for each.
        width: Filters of each size of the CNN, or units in each direction of the recurrent networks.
        num_layers: Layers of the transformer and of the recurrent networks.
        num_heads: Attention heads of the transformer.
        dropout: Dropout before the head, of the inputs of recurrent layers, and within the transformer.
        pairs: For the bags, number of embeddings that the pairs of successive tokens share by a hash; 0 ignores the
            order of the tokens. By default 100,000 for `ngrams`, 0 for `bag`.
        subwords: For `ngrams`, number of embeddings that the sequences of 3 to 5 characters in tokens share by a hash,
            if the data know the characters of their tokens; 0 for none.
        sparse: For the bags, whether only the embeddings of a batch's tokens are updated, by `torch.optim.SparseAdam`,
            which has no weight decay; `optimizer` trains the rest. It pays off from about 100,000 embeddings of 64 on.
        lr: Learning rate; by default 0.003 for `ngrams`, 0.001 for the others.
        kwargs: Options of `LitModule`.

    Raises:
        ModelError: If an option is invalid, or the encoder does not have it.
    """

    net: TextNet

    def __init__(
        self,
        vocab_size: int = 20_000,
        encoder: EncoderName = "ngrams",
        embedding_dim: int | None = None,
        max_length: int = 256,
        width: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.5,
        pairs: int | None = None,
        subwords: int = 50_000,
        sparse: bool = False,
        lr: float | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("task") == "next_token":
            raise ModelError("LitTextClassifier predicts from a whole text", "use LitGPT", "task", "next_token")
        embedding_dim = EMBEDDING_DIM.get(encoder, 128) if embedding_dim is None else embedding_dim
        lr = LR.get(encoder, 1e-3) if lr is None else lr
        pairs = PAIRS.get(encoder, 0) if pairs is None else pairs
        super().__init__(lr=lr, **kwargs)
        check_dropout(dropout)
        check_sizes(embedding_dim=embedding_dim, max_length=max_length)
        check_sizes(num_layers=num_layers, num_heads=num_heads, width=width)
        check_non_negative(pairs=pairs, subwords=subwords)
        if vocab_size < 2:
            raise ModelError("there is padding, id 0, and 1 token or more", option="vocab_size", value=vocab_size)
        for name, value in {"pairs": pairs, "sparse": sparse}.items():
            if value and encoder not in ("ngrams", "bag"):
                raise ModelError(f"the {encoder} has none", "give `encoder=bag`", name, value)
        sizes = embedding_dim, max_length, width, num_layers, num_heads
        self.net = TextNet(vocab_size, self.num_outputs, encoder, *sizes, dropout, pairs, subwords, sparse)
        self.initialize()
        self.sparse = sparse
        self.example_input_array = torch.ones(2, min(8, max_length), dtype=torch.long)

    def normalize(self, x: Tensor) -> Tensor:
        """Return token ids as int64, `(B, T)`, an empty text as one of padding; raise a ModelError for other inputs."""
        if x.is_floating_point() or x.ndim != 2:
            found = f"{x.dtype} of shape {tuple(x.shape)}"
            raise ModelError(f"LitTextClassifier takes token ids, integers of shape (B, T), not {found}", "give texts")
        return x.long() if x.shape[1] else torch.full((len(x), 1), PAD, device=x.device)

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Set what the base sets, and the `subwords` of each token."""
        super().load_statistics(statistics)
        if self.hparams["normalize"] and "subwords" in statistics:
            self.net.set_subwords(statistics["subwords"])

    def setup(self, stage: str) -> None:
        """Raise a ModelError if sparse gradients are to be clipped by value."""
        trainer = self.trainer
        if stage == "fit" and self.sparse and trainer.gradient_clip_val and trainer.gradient_clip_algorithm == "value":
            remedy = "give norm, or `sparse=False`"
            raise ModelError("sparse gradients can be clipped by norm only", remedy, "gradient_clip_algorithm", "value")
        super().setup(stage)
