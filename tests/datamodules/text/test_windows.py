"""A long row of tokens, kept and taken in windows."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamodules.cache import Cache
from datamodules.sampler import BatchSampler
from datamodules.text.tokenizer import PAD, UNKNOWN, Tokenizer
from datamodules.text.windows import IGNORED, CorpusEncoder, Windows, hashed

TEXT = "A line.\n  And <unk> one, indented: äöü 日本語 🔥.\n\n" * 50


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


def _encoded(folder: Path, kind: str) -> tuple[Tokenizer, NDArray[Any]]:
    encoder = CorpusEncoder(Cache(folder), "t", hashed(TEXT))
    tokenizer = encoder.fit(kind, 300 if kind == "bpe" else 1000, TEXT, 1000)
    return tokenizer, encoder.encode(tokenizer, TEXT, 10, len(TEXT))


@pytest.mark.parametrize("kind", ["chars", "bpe"])
def test_tokens_are_kept_in_few_bytes_and_give_the_text_back(tmp_path: Path, kind: str) -> None:
    tokenizer, tokens = _encoded(tmp_path, kind)
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.uint16
    assert tokenizer.decode(tokens.tolist()) == TEXT[10:]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_kept_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, tokens = _encoded(tmp_path, "bpe")
    for name in ("fit", "encode"):
        monkeypatch.delattr(Tokenizer, name)
    again_state, again = _encoded(tmp_path, "bpe")
    assert again_state.state == state.state
    assert np.array_equal(again, tokens)


@pytest.mark.parametrize("damage", ["nothing", "half", "other numbers", "a table"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, damage: str) -> None:
    _, tokens = _encoded(tmp_path, "chars")
    tokens = np.array(tokens)  # no file may be cut short that is mapped
    whole = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for file, content in whole.items():
        if damage == "nothing":
            file.write_bytes(b"")
        elif damage == "half":
            file.write_bytes(content[: len(content) // 2])
        elif file.suffix == ".npy":
            with file.open("wb") as stream:
                np.save(stream, np.full(5, 60_000) if damage == "other numbers" else np.zeros((2, 3), int))
    assert np.array_equal(_encoded(tmp_path, "chars")[1], tokens)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == whole


def test_a_vocabulary_too_large_for_two_bytes_takes_four(tmp_path: Path) -> None:
    text = "".join(map(chr, range(0x10000, 0x10000 + 70_000)))
    encoder = CorpusEncoder(Cache(tmp_path), "t", hashed(text))
    tokenizer = encoder.fit("chars", 100_000, text, len(text))
    tokens = encoder.encode(tokenizer, text, 0, len(text))
    assert tokens.dtype == np.int32
    assert tokenizer.decode(tokens.tolist()) == text


def test_where_nothing_can_be_kept_it_is_made_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    tokenizer, tokens = _encoded(tmp_path / "file" / "folder", "chars")
    assert tokenizer.decode(tokens.tolist()) == TEXT[10:]
    assert caplog.text.count("nothing can be kept there") == 1


def test_a_hash_is_that_of_the_whole_text() -> None:
    for text in ("", TEXT, TEXT * 1000):
        assert hashed(text) == hashlib.sha256(text.encode()).hexdigest()


def test_other_texts_and_stretches_have_tokens_of_their_own(tmp_path: Path) -> None:
    tokenizer, tokens = _encoded(tmp_path, "chars")
    for text, start in ((TEXT.upper(), 10), (TEXT, 11)):
        found = CorpusEncoder(Cache(tmp_path), "t", hashed(text)).encode(tokenizer, text, start, len(text))
        assert not np.array_equal(found, tokens)


@pytest.mark.parametrize("size", [9, 12, 97])
def test_what_is_unknown_is_read_and_never_predicted(size: int) -> None:
    row = np.random.default_rng(size).integers(1, 4, size).astype(np.uint16)
    windows = Windows(row, 4)
    x, y = windows[windows.starts]
    assert windows.unknown == (row == UNKNOWN).sum() > 0
    assert x.flatten().tolist()[:size] == row.tolist()[: x.numel()]
    told = y.flatten()[: size - 1].tolist()
    assert told == [IGNORED if token == UNKNOWN else token for token in row[1:].tolist()]
