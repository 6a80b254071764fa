"""A plain text is encoded once, and cached."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.cache import Cache
from datamodules.text.encoder import CorpusEncoder, unknown_characters
from datamodules.text.files import TextFiles
from datamodules.text.tokenizer import UNKNOWN, Tokenizer

TEXT = "A line.\n  And <unk> one, indented: äöü 日本語 🔥.\n\n" * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _encoder(folder: Path, text: str = TEXT) -> CorpusEncoder:
    file = folder.with_name("text.txt")
    file.write_text(text, encoding="utf-8")
    return CorpusEncoder(TextFiles(str(file), None), Cache(folder))


def _encoded(folder: Path, kind: str) -> tuple[Tokenizer, NDArray[Any]]:
    encoder = _encoder(folder)
    tokenizer = encoder.fit(kind, 300 if kind == "bpe" else 1000, 1000)
    return tokenizer, encoder.encode(tokenizer, 10, len(TEXT))


@pytest.mark.parametrize("kind", ["chars", "bpe"])
def test_tokens_take_two_bytes_and_give_the_text_back(folder: Path, kind: str) -> None:
    tokenizer, tokens = _encoded(folder, kind)
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.uint16
    assert tokenizer.decode(tokens.tolist()) == TEXT[10:]
    assert len(list(folder.iterdir())) == 2


def test_what_is_cached_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, tokens = _encoded(folder, "bpe")
    for name in ("fit", "encode"):
        monkeypatch.delattr(Tokenizer, name)
    again_state, again = _encoded(folder, "bpe")
    assert again_state.state == state.state
    assert np.array_equal(again, tokens)


@pytest.mark.parametrize("damage", ["nothing", "half", "other numbers", "a table"])
def test_a_damaged_cache_is_made_again(folder: Path, damage: str) -> None:
    _, tokens = _encoded(folder, "chars")
    tokens = np.array(tokens)  # no file may be cut short that is mapped
    whole = {file: file.read_bytes() for file in folder.iterdir()}
    for file, content in whole.items():
        if damage == "nothing":
            file.write_bytes(b"")
        elif damage == "half":
            file.write_bytes(content[: len(content) // 2])
        elif file.suffix == ".npy":
            with file.open("wb") as stream:
                np.save(stream, np.full(5, 60_000) if damage == "other numbers" else np.zeros((2, 3), int))
    assert np.array_equal(_encoded(folder, "chars")[1], tokens)
    assert {file: file.read_bytes() for file in folder.iterdir()} == whole


def test_a_vocabulary_too_large_for_two_bytes_takes_four(folder: Path) -> None:
    text = "".join(map(chr, range(0x10000, 0x10000 + 70_000)))
    encoder = _encoder(folder, text)
    tokenizer = encoder.fit("chars", 100_000, len(text))
    tokens = encoder.encode(tokenizer, 0, len(text))
    assert tokens.dtype == np.int32
    assert tokenizer.decode(tokens.tolist()) == text


def test_without_a_cache_it_is_made_each_time(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.write_text("no folder")
    tokenizer, tokens = _encoded(folder, "chars")
    assert tokenizer.decode(tokens.tolist()) == TEXT[10:]
    assert caplog.text.count("nothing can be kept there") == 1


def test_other_texts_and_stretches_have_tokens_of_their_own(folder: Path) -> None:
    tokenizer, tokens = _encoded(folder, "chars")
    for text, start in ((TEXT.upper(), 10), (TEXT, 11)):
        found = _encoder(folder, text).encode(tokenizer, start, len(text))
        assert not np.array_equal(found, tokens)


def test_unknown_characters_are_counted_and_named() -> None:
    tokens = np.array([2, UNKNOWN, 3, UNKNOWN, UNKNOWN])
    assert unknown_characters(tokens, "xxa€bж€", 2) == "3 of 5 characters are not in the vocabulary ('ж', '€')"
    assert unknown_characters(np.array([2, 3]), "ab", 0) == ""
    many = "".join(map(chr, range(0x400, 0x440)))
    assert unknown_characters(np.full(64, UNKNOWN), many, 0).endswith("'Ї', ...)")
