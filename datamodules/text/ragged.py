"""Texts of unequal lengths as one tensor of token ids, from which a batch is indexed at once."""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.text.tokenizer import PAD, UNKNOWN


class RaggedTokens:
    """Token ids of texts, four bytes each; a batch is padded to its longest text.

    Args:
        ids: The ids of all texts, concatenated, `(N,)`, int32.
        offsets: Where each text starts, and where the last one ends, `(n + 1,)`, int64. No text is empty.
    """

    def __init__(self, ids: Tensor, offsets: Tensor) -> None:
        self.ids = ids
        self.offsets = offsets

    @classmethod
    def truncate(cls, ids: NDArray[np.int32], offsets: NDArray[np.int64], max_length: int) -> tuple[Self, int]:
        """Truncate texts to `max_length` tokens, and put one unknown token into empty ones.

        Returns:
            The texts, and how many of them were truncated.
        """
        lengths = np.diff(offsets)
        kept = np.minimum(lengths, max_length)
        cut = int((kept < lengths).sum())
        if cut or not lengths.all():
            starts = np.concatenate([[0], np.cumsum(np.maximum(kept, 1))])
            found = np.full(starts[-1], UNKNOWN, np.int32)
            # Positions of the kept tokens within their texts.
            place = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
            found[np.repeat(starts[:-1], kept) + place] = ids[np.repeat(offsets[:-1], kept) + place]
            ids, offsets = found, starts
        return cls(torch.from_numpy(ids), torch.from_numpy(offsets)), cut

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each text, `(n,)`."""
        return self.offsets.diff()

    @property
    def known(self) -> Tensor:
        """Number of tokens of each text that are in the vocabulary, `(n,)`."""
        before = torch.cat([torch.zeros(1, dtype=torch.long), (self.ids != UNKNOWN).cumsum(0)])
        return before[self.offsets].diff()

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Return a batch, `index` of shape `(B,)`: ids `(B, T)`, int64, with `PAD` after the end of each text."""
        starts = self.offsets[index]
        lengths = self.offsets[index + 1] - starts
        place = torch.arange(int(lengths.max()))
        # Padding of the last text would be read past the end.
        at = (starts[:, None] + place).clamp_(max=len(self.ids) - 1)
        return self.ids[at].long().masked_fill_(place >= lengths[:, None], PAD)
