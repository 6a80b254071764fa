"""Texts as token ids in one row."""

import numpy as np
import torch

from datamodules.text.ragged import RaggedTokens
from datamodules.text.tokenizer import PAD, UNKNOWN

TEXTS = [[5, 6, 7], [8], [], [9, 10, 11, 12, 13], [UNKNOWN, 14]]


def ragged(max_length: int = 10, texts: list[list[int]] = TEXTS) -> tuple[RaggedTokens, int]:
    ids = np.array([token for text in texts for token in text], np.int32)
    return RaggedTokens.truncate(ids, np.cumsum([0, *map(len, texts)]), max_length)


def test_a_batch_is_padded_to_its_longest() -> None:
    x, _ = ragged()
    assert len(x) == 5
    batch = x.index_select(0, torch.tensor([1, 0, 4]))
    assert batch.tolist() == [[8, PAD, PAD], [5, 6, 7], [UNKNOWN, 14, PAD]]
    assert batch.dtype == torch.int64
    assert x.index_select(0, torch.tensor([1])).tolist() == [[8]]
    assert x.index_select(0, torch.tensor([3, 4])).tolist() == [[9, 10, 11, 12, 13], [UNKNOWN, 14, PAD, PAD, PAD]]


def test_an_empty_text_is_one_unknown_token() -> None:
    x, cut = ragged()
    assert cut == 0
    assert x.index_select(0, torch.tensor([2])).tolist() == [[UNKNOWN]]
    assert x.lengths.tolist() == [3, 1, 1, 5, 2]
    assert x.known.tolist() == [3, 1, 0, 5, 1]


def test_long_texts_lose_their_end() -> None:
    x, cut = ragged(max_length=2)
    assert cut == 2
    assert x.index_select(0, torch.arange(5)).tolist() == [[5, 6], [8, PAD], [UNKNOWN, PAD], [9, 10], [UNKNOWN, 14]]


def test_what_needs_no_change_is_not_copied() -> None:
    ids = np.arange(2, 8, dtype=np.int32)
    x, cut = RaggedTokens.truncate(ids, np.array([0, 2, 6]), 4)
    assert cut == 0
    assert x.ids.data_ptr() == ids.ctypes.data
    assert x.ids.dtype == torch.int32


def test_any_batch_is_what_a_loop_makes_of_it() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(2, 99, rng.integers(0, 30)).tolist() for _ in range(200)]
    x, cut = ragged(20, texts)
    assert cut == sum(len(text) > 20 for text in texts)
    for _ in range(20):
        index = rng.integers(0, 200, 16)
        rows = [texts[at][:20] or [UNKNOWN] for at in index]
        width = max(map(len, rows))
        expected = [row + [PAD] * (width - len(row)) for row in rows]
        assert x.index_select(0, torch.from_numpy(index)).tolist() == expected
