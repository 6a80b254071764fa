"""Texts as token ids, all in one row, of which a batch is one indexing."""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.text.tokenizer import PAD, UNKNOWN


class RaggedTokens:
    """Token ids of texts of any length, four bytes each; a batch is padded to the longest text in it.

    Args:
        ids: The ids of all texts, one text after the other, shape `(N,)`, int32.
        offsets: Where each text begins, with the end of the last, shape `(n + 1,)`, int64. No text is empty.
    """

    def __init__(self, ids: Tensor, offsets: Tensor) -> None:
        self.ids = ids
        self.offsets = offsets

    @classmethod
    def cut(cls, ids: NDArray[np.int32], offsets: NDArray[np.int64], max_length: int) -> tuple[Self, int]:
        """Cut long texts off at their end, and put one unknown token into those that have none.

        Args:
            ids: The ids of all texts, shape `(N,)`.
            offsets: Where each text begins, with the end of the last, shape `(n + 1,)`.
            max_length: The most tokens of a text.

        Returns:
            The texts, and how many of them were cut.
        """
        lengths = np.diff(offsets)
        kept = np.minimum(lengths, max_length)
        cut = int((kept < lengths).sum())
        if cut or not lengths.all():
            starts = np.concatenate([[0], np.cumsum(np.maximum(kept, 1))])
            found = np.full(starts[-1], UNKNOWN, np.int32)
            # The n-th token that is kept goes on from the start of its text.
            place = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
            found[np.repeat(starts[:-1], kept) + place] = ids[np.repeat(offsets[:-1], kept) + place]
            ids, offsets = found, starts
        return cls(torch.from_numpy(ids), torch.from_numpy(offsets)), cut

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """How many tokens each text has, shape `(n,)`."""
        return self.offsets.diff()

    @property
    def known(self) -> Tensor:
        """How many tokens of each text are in the vocabulary, shape `(n,)`."""
        before = torch.cat([torch.zeros(1, dtype=torch.long), (self.ids != UNKNOWN).cumsum(0)])
        return before[self.offsets].diff()

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Take a batch, `index` of shape `(B,)`: ids `(B, T)`, int64, with `PAD` after the end of each text."""
        starts = self.offsets[index]
        lengths = self.offsets[index + 1] - starts
        place = torch.arange(int(lengths.max()))
        # Past the end of the last text there is nothing to be read.
        at = (starts[:, None] + place).clamp_(max=len(self.ids) - 1)
        return self.ids[at].long().masked_fill_(place >= lengths[:, None], PAD)
