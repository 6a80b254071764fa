"""Windows of a sequence of tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamodules.sampler import BatchSampler
from datamodules.text.tokenizer import PAD, UNKNOWN
from datamodules.text.windows import IGNORED, Windows


@pytest.mark.parametrize("size", [2, 9, 10, 11, 12, 97])
@pytest.mark.parametrize("length", [1, 3, 10])
def test_windows_one_after_another_predict_every_token_but_the_first_once(size: int, length: int) -> None:
    row = np.arange(100, 100 + size, dtype=np.uint16)
    windows = Windows(row, length)
    x, y = windows[windows.starts]
    assert x.shape == y.shape == (len(windows), length)
    assert x.dtype == y.dtype == torch.int64
    assert y[y != IGNORED].tolist() == row[1:].tolist()
    assert x[y != IGNORED].tolist() == row[:-1].tolist()
    assert x.flatten().tolist()[size:] == [PAD] * (x.numel() - size)


@pytest.mark.parametrize("size", [4, 11, 12, 13, 50])
def test_windows_can_be_moved_and_each_still_predicts_something(size: int) -> None:
    row, length = np.arange(100, 100 + size, dtype=np.int32), 3
    windows = Windows(row, length)
    for offset in range(length):
        x, y = windows[windows.movable_starts + offset]
        assert (y[:, 0] != IGNORED).all()
        told = y[y != IGNORED].tolist()
        assert told == row[1 + offset : 1 + offset + len(told)].tolist()
        assert size - 1 - offset - len(told) < length  # no whole window is left out
        assert (y[y != IGNORED] == x[y != IGNORED] + 1).all()


def test_windows_equal_a_loop(tmp_path: Path) -> None:
    np.save(tmp_path / "row.npy", np.random.default_rng(0).integers(2, 60_000, 1000).astype(np.uint16))
    row: NDArray[Any] = np.load(tmp_path / "row.npy", mmap_mode="r")
    windows = Windows(row, 7)
    for starts in BatchSampler(windows.movable_starts, 5, shuffle=True, jitter=7):
        x, y = windows[starts]
        for number, start in enumerate(starts.tolist()):
            known = row[start : start + 8].tolist()
            assert x[number].tolist() == (known[:7] + [PAD] * 7)[:7]
            assert y[number].tolist() == (known[1:] + [IGNORED] * 7)[:7]


@pytest.mark.parametrize("size", [9, 12, 97])
def test_unknown_tokens_are_inputs_and_never_targets(size: int) -> None:
    row = np.random.default_rng(size).integers(1, 4, size).astype(np.uint16)
    windows = Windows(row, 4)
    x, y = windows[windows.starts]
    assert windows.unknown == (row == UNKNOWN).sum() > 0
    assert x.flatten().tolist()[:size] == row.tolist()[: x.numel()]
    told = y.flatten()[: size - 1].tolist()
    assert told == [IGNORED if token == UNKNOWN else token for token in row[1:].tolist()]
