"""A decoder-only transformer with rotary positions and a cache of keys and values.

Its arguments are those of `LitGPT`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import ModelError, check_dropout, check_sizes

Rotation = tuple[Tensor, Tensor]  # cosine and sine of the angles of each position, `(T, head)` each


class KVCache:
    """Keys and values of the past tokens of a layer, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.length = 0  # tokens so far
        self._buffers: list[Tensor] = []

    def extend(self, *new: Tensor) -> list[Tensor]:
        """Append keys and values, each `(B, num_heads, T, head)`, and return all so far."""
        if not self._buffers:
            self._buffers = [x.new_empty(*x.shape[:2], self.size, x.shape[3]) for x in new]
        start, self.length = self.length, self.length + new[0].shape[2]
        for buffer, x in zip(self._buffers, new, strict=True):
            buffer[:, :, start : self.length] = x
        return [buffer[:, :, : self.length] for buffer in self._buffers]


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017) with rotary positions (Su et al. 2021).

    Queries and keys are normalized, which keeps large learning rates stable (Henry et al. 2020).
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width // num_heads, bias=False)

    def forward(self, x: Tensor, rotation: Rotation, cache: KVCache | None) -> Tensor:
        """Transform tokens, `(B, T, width)`, each of which attends to itself and those before it.

        With a cache, of the keys and values of the tokens before, `x` is one token, or the first ones.
        """
        parts = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = apply_rotary_emb(self.norm(parts[:2]), *rotation).unbind()
        v = parts[2]
        if cache is not None:
            k, v = cache.extend(k, v)
        # A single token attends to all tokens in the cache.
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=bool(x.shape[1] > 1))
        mixed: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return mixed


def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of features, from the halves of `x`, `(..., T, head)`, by the angle of its position."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class Block(nn.Module):
    """Attention and an MLP for each token, both residual and with pre-normalization (Xiong et al. 2020)."""

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

    It uses LayerNorm: RMSNorm gives the same loss here, and `torch` has a fused kernel for it on GPUs only.
    Invalid sizes raise a ModelError.
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
            problem = f"each of the `num_heads={num_heads}` rotates pairs of features"
            raise ModelError(problem, f"give a multiple of {2 * num_heads}", "width", width)
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
        # As GPT-2: small, and smaller still for the projections into the residual stream.
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                added = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * len(self.blocks)) if added else 0.02)

    def make_cache(self) -> list[KVCache]:
        """Return an empty cache of keys and values, one for each block."""
        return [KVCache(self.context_length) for _ in self.blocks]

    def forward(self, ids: Tensor, cache: Sequence[KVCache] | None = None) -> Tensor:
        """Compute the logits, `(B, T, vocab_size)`, of the token after each of `ids`, `(B, T)`.

        With a cache from `make_cache`, `ids`, several at first and then one by one, follow those in it and are added.
        More than `context_length` tokens raise a ModelError.
        """
        start = cache[0].length if cache else 0
        end = start + ids.shape[1]
        if end > self.context_length:
            raise ModelError(f"{end} tokens are too many", "give the last ones", "context_length", self.context_length)
        rotation = self.cos[start:end], self.sin[start:end]
        x = self.dropout(self.embedding(ids))
        caches = [None] * len(self.blocks) if cache is None else cache
        for block, past in zip(self.blocks, caches, strict=True):
            x = block(x, rotation, past)
        logits: Tensor = self.lm_head(self.norm(x))
        return logits


def _rename_old_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    if f"{prefix}head.weight" in state_dict:  # as older checkpoints call it
        state_dict[f"{prefix}lm_head.weight"] = state_dict.pop(f"{prefix}head.weight")
