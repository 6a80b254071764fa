"""Windows of a long sequence of tokens."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.text.tokenizer import PAD, UNKNOWN

IGNORED = -100  # the target where nothing is predicted: `ignore_index` of torch's losses


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of a sequence of tokens; targets are the tokens shifted by one. A batch is indexed at once.

    Args:
        tokens: The sequence, `(N,)`, 2 tokens or more.
        length: Tokens in a window.
    """

    def __init__(self, tokens: NDArray[Any], length: int) -> None:
        self.tokens = np.asarray(tokens)  # indexing a memory map itself is slower
        self.length = length

    @cached_property
    def unknown(self) -> int:
        """Number of tokens that are out of vocabulary."""
        return int(np.count_nonzero(self.tokens == UNKNOWN))

    @property
    def starts(self) -> Tensor:
        """Starts of adjacent windows, which together predict every token but the first once."""
        return torch.arange(0, len(self.tokens) - 1, self.length)

    @property
    def movable_starts(self) -> Tensor:
        """Starts of the adjacent windows that still predict something if shifted by less than a window."""
        return torch.arange(0, len(self.tokens) - self.length, self.length)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens of the windows at `starts`, `(B,)`, and their targets: int64, `(B, length)` each.

        Past the end of the sequence they are `PAD` and `IGNORED`. A target that is `UNKNOWN` is `IGNORED` too.
        """
        at = starts.numpy()[:, None] + np.arange(self.length + 1)
        found = self.tokens.take(at, mode="clip")
        x, y = (torch.from_numpy(some.astype(np.int64)) for some in (found[:, :-1], found[:, 1:]))
        if at[:, -1].max() >= len(self.tokens):
            beyond = torch.from_numpy(at >= len(self.tokens))
            x.masked_fill_(beyond[:, :-1], PAD)
            y.masked_fill_(beyond[:, 1:], IGNORED)
        if self.unknown:
            y.masked_fill_(y == UNKNOWN, IGNORED)
        return x, y
