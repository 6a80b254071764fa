"""Subwords of tokens: the sequences of characters that related words share, as "learn" in "learned" and "learner"."""

from collections.abc import Sequence
from itertools import islice
from zlib import crc32

import torch
from torch import Tensor

SIZES = (3, 4, 5)  # characters of a subword
MOST = 32  # subwords of a token; those of up to 11 letters have no more


def subword_hashes(tokens: Sequence[str]) -> Tensor:
    """Return the hash of every subword of each token, `(len(tokens), MOST)`, int32, from 1 on; 0 where there is none.

    Subwords see where a token begins and ends, `<learned>`, as in Bojanowski et al. 2017. A token is no subword of
    itself. The hashes are the same on every machine.
    """
    found = torch.zeros(len(tokens), MOST, dtype=torch.int32)
    for row, token in enumerate(tokens):
        marked = f"<{token}>"
        parts = {marked[at : at + n]: None for n in SIZES for at in range(len(marked) - n + 1) if n < len(marked)}
        hashes = [crc32(part.encode("utf-8", "surrogatepass")) % 0x7FFFFFFF + 1 for part in islice(parts, MOST)]
        found[row, : len(hashes)] = torch.tensor(hashes, dtype=torch.int32)
    return found
