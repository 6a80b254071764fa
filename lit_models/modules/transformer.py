"""A decoder-only transformer, which sees of a text what was before."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import ModelError, check_dropout, check_sizes

Rotation = tuple[Tensor, Tensor]  # cosine and sine of the angle of each position, `(T, head)`


class KVCache:
    """Keys and values of the tokens that a layer has read.

    Args:
        size: How many tokens there is room for.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.length = 0  # how many there are
        self._kept: list[Tensor] = []

    def extend(self, *new: Tensor) -> list[Tensor]:
        """Add keys and values, each `(B, num_heads, T, head)`, and give all there are."""
        if not self._kept:
            self._kept = [x.new_empty(*x.shape[:2], self.size, x.shape[3]) for x in new]
        start, self.length = self.length, self.length + new[0].shape[2]
        for kept, x in zip(self._kept, new, strict=True):
            kept[:, :, start : self.length] = x
        return [kept[:, :, : self.length] for kept in self._kept]


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017) with rotary positions (Su et al. 2021).

    Queries and keys are normalized, which keeps large learning rates stable (Henry et al. 2020).

    Args:
        width: Numbers for each token.
        num_heads: Heads among which they are divided.
        dropout: Share of the attention that is dropped in training.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width // num_heads, bias=False)

    def forward(self, x: Tensor, rotation: Rotation, cache: KVCache | None) -> Tensor:
        """Let every token look at those before it.

        Args:
            x: Tokens, `(B, T, width)`.
            rotation: Cosine and sine of their positions' angles, `(T, head)` each.
            cache: The tokens before; if given, these are one token, or the first.
        """
        parts = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = apply_rotary_emb(self.norm(parts[:2]), *rotation).unbind()
        v = parts[2]
        if cache is not None:
            k, v = cache.extend(k, v)
        # A single token may look at all there is.
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=bool(x.shape[1] > 1))
        mixed: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return mixed


def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of numbers, the halves of `x`, `(..., T, head)`, by the angle of its position."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class Block(nn.Module):
    """Attention, then two layers for each token, both added to what comes in and normalized before (Xiong et al. 2020).

    Args:
        width: Numbers for each token.
        num_heads: Heads of the attention.
        dropout: Share that is dropped of what is added.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, num_heads, dropout)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotation: Rotation, cache: KVCache | None) -> Tensor:
        """Transform tokens, `(B, T, width)`; see `Attention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation, cache))
        mixed: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return mixed


class GPT(nn.Module):
    """A decoder-only transformer (Radford et al. 2019), with rotary positions and without biases.

    Its norms are layer norms: RMSNorm gives the same loss here, and `torch` has it in one kernel on a GPU only.

    Args:
        vocab_size: How many different tokens there are.
        context_length: How many tokens it looks at.
        num_layers: Blocks.
        num_heads: Heads of each attention.
        width: Numbers for each token.
        dropout: Share of attention, and of what each block adds, that is dropped in training.

    Raises:
        ModelError: If a size is impossible.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self, vocab_size: int, context_length: int, num_layers: int, num_heads: int, width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        check_sizes(vocab_size=vocab_size, context_length=context_length)
        check_sizes(num_layers=num_layers, num_heads=num_heads, width=width)
        if width % (2 * num_heads):
            raise ModelError(
                f"--model.width {width}: each of the --model.num_heads {num_heads} turns pairs of numbers; give a "
                f"multiple of {2 * num_heads}."
            )
        self.context_length = context_length
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.lm_head = nn.Linear(width, vocab_size, bias=False)
        self.lm_head.weight = self.embedding.weight  # Press and Wolf 2017
        self.register_load_state_dict_pre_hook(_rename_old_keys)  # type: ignore[no-untyped-call]  # torch's
        head = width // num_heads
        angles = torch.outer(torch.arange(context_length), 10_000 ** (-torch.arange(0, head, 2) / head)).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """As GPT-2: small, and what is added to the tokens by each of many blocks smaller still."""
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                added = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * len(self.blocks)) if added else 0.02)

    def make_cache(self) -> list[KVCache]:
        """Make an empty cache, in which tokens are kept that need not be read again."""
        return [KVCache(self.context_length) for _ in self.blocks]

    def forward(self, ids: Tensor, cache: Sequence[KVCache] | None = None) -> Tensor:
        """Compute a logit for every token that may come next.

        Args:
            ids: Tokens, `(B, T)`.
            cache: One for each layer, as `make_cache` gives them: these tokens, several at first and then one by one,
                follow those in it, and are added.

        Returns:
            Shape `(B, T, vocab_size)`.

        Raises:
            ModelError: If there are more than `context_length` tokens.
        """
        at = cache[0].length if cache else 0
        end = at + ids.shape[1]
        if end > self.context_length:
            raise ModelError(f"{end} tokens are more than --model.context_length {self.context_length}; give the last.")
        rotation = self.cos[at:end], self.sin[at:end]
        x = self.dropout(self.embedding(ids))
        caches = [None] * len(self.blocks) if cache is None else cache
        for block, past in zip(self.blocks, caches, strict=True):
            x = block(x, rotation, past)
        logits: Tensor = self.lm_head(self.norm(x))
        return logits


def _rename_old_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    if f"{prefix}head.weight" in state_dict:  # as older checkpoints call it
        state_dict[f"{prefix}lm_head.weight"] = state_dict.pop(f"{prefix}head.weight")
