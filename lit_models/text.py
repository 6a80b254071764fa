"""Text classification and regression: token ids in, logits or values out."""

from typing import Any

import torch
from torch import Tensor

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout, check_non_negative, check_sizes
from lit_models.modules.text_encoders import PAD, EncoderName, TextNet


class LitTextClassifier(LitModule):
    """A network for texts that predicts the class of each, or a value.

    Sizes that the chosen encoder does not have are ignored, so that encoders can be compared by one option; `pairs` and
    `sparse`, which only the bag has, are refused for the others.

    Args:
        vocab_size: Number of token ids; 0 is padding, at the end of a row.
        encoder: `bag`, the mean of the embeddings, is the fastest, and does well with `pairs`; `cnn` (Kim 2014)
            has filters over 3 to 5 tokens; `gru` and `lstm` are bidirectional; `transformer` needs the most data.
        embedding_dim: Size of a token's embedding, and the width of the transformer.
        max_length: Maximum number of tokens of a text, for the transformer, which learns a position for each.
        width: Filters of each size of the CNN, or units in each direction of the recurrent networks.
        num_layers: Layers of the transformer and of the recurrent networks.
        num_heads: Attention heads of the transformer.
        dropout: Dropout before the head, of the inputs of recurrent layers, and within the transformer.
        pairs: For the bag, number of embeddings that the pairs of successive tokens share by a hash; 0 ignores the
            order of the tokens.
        sparse: For the bag, whether only the embeddings of a batch's tokens are updated, by `torch.optim.SparseAdam`,
            which has no weight decay; `optimizer` trains the rest. It pays off from about 100,000 embeddings on.
        kwargs: Options of `LitModule`.

    Raises:
        ModelError: If an option is invalid, or the encoder does not have it.
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
            raise ModelError("LitTextClassifier predicts from a whole text", "use LitGPT", "task", "next_token")
        super().__init__(**kwargs)
        check_dropout(dropout)
        check_sizes(embedding_dim=embedding_dim, max_length=max_length)
        check_sizes(num_layers=num_layers, num_heads=num_heads, width=width)
        check_non_negative(pairs=pairs)
        if vocab_size < 2:
            raise ModelError("there is padding, id 0, and 1 token or more", option="vocab_size", value=vocab_size)
        for name, value in {"pairs": pairs, "sparse": sparse}.items():
            if value and encoder != "bag":
                raise ModelError(f"the {encoder} has none", "give `encoder=bag`", name, value)
        sizes = embedding_dim, max_length, width, num_layers, num_heads
        self.net = TextNet(vocab_size, self.num_outputs, encoder, *sizes, dropout, pairs, sparse)
        self.initialize()
        self.sparse = sparse
        self.example_input_array = torch.ones(2, min(8, max_length), dtype=torch.long)

    def normalize(self, x: Tensor) -> Tensor:
        """Return token ids as int64, `(B, T)`, an empty text as one of padding; raise a ModelError for other inputs."""
        if x.is_floating_point() or x.ndim != 2:
            found = f"{x.dtype} of shape {tuple(x.shape)}"
            raise ModelError(f"LitTextClassifier takes token ids, integers of shape (B, T), not {found}", "give texts")
        return x.long() if x.shape[1] else torch.full((len(x), 1), PAD, device=x.device)

    def setup(self, stage: str) -> None:
        """Raise a ModelError if sparse gradients are to be clipped by value."""
        trainer = self.trainer
        if stage == "fit" and self.sparse and trainer.gradient_clip_val and trainer.gradient_clip_algorithm == "value":
            remedy = "give norm, or `sparse=False`"
            raise ModelError("sparse gradients can be clipped by norm only", remedy, "gradient_clip_algorithm", "value")
        super().setup(stage)
