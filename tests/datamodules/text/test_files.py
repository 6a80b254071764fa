"""Plain text on disk: read, split into pieces, and encoded once."""

import gzip
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules import DataError
from datamodules.text.files import TextFiles, find_text_files, hash_texts, pieces, read_text, read_texts
from datamodules.text.tokenizer import Tokenizer

TEXT = "A line.\n  And <unk> one, indented: äöü 日本語 🔥.\n\n" * 50


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "\n",
        "\n\n\n",
        "a\n",
        "a\nb",
        "  a\n\n  b\n\nc\n   d",
        "x" * 700_000,
        "\n" * 700_000,
        "a b\n  " * 90_000,
        "words of one line " * 40_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_pieces_are_the_text(text: str) -> None:
    found = list(pieces(text))
    assert "".join(found) == text
    assert all(0 < len(piece) <= 4096 for piece in found)


def test_a_stretch_is_split_as_if_it_were_all() -> None:
    draw = random.Random(0)
    text = "".join(draw.choices("ab \n", k=3000))
    for _ in range(50):
        start, end = sorted(draw.choices(range(3001), k=2))
        assert list(pieces(text, start, end)) == list(pieces(text[start:end]))


def test_line_breaks_stay_with_the_spaces_after_them() -> None:
    assert list(pieces("def f():\n    return 1\n\n\nx = 2\n")) == ["def f():\n    return 1\n\n\n", "x = 2\n"]


def test_a_long_line_is_divided_between_words() -> None:
    assert all(piece.startswith(" word") for piece in list(pieces("word word " * 5000))[1:])


def test_a_folder_is_read_in_sorted_order_however_deep(tmp_path: Path) -> None:
    for name, text in {"b.txt": "two\n", "a/z.md": "one\n", "c": "", ".git/x": "no", "a/.y": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [file.name for file in find_text_files(str(tmp_path))] == ["z.md", "b.txt", "c"]
    assert read_texts(str(tmp_path), None) == {tmp_path / "a/z.md": "one\n", tmp_path / "b.txt": "two\n"}
    assert read_texts(f"{tmp_path}/*.txt", None) == {tmp_path / "b.txt": "two\n"}


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        ("für\n".encode(), None, "für\n"),
        (b"\xef\xbb\xbf" + "für\n".encode(), None, "für\n"),
        ("für\n".encode("utf-16"), None, "für\n"),
        ("für\n".encode("latin-1"), None, "für\n"),
        ("für\n".encode("latin-1"), "latin-1", "für\n"),
        ("für\n".encode("latin-1"), "latin1", "für\n"),
        ("日本\n".encode("gb18030"), "gb18030", "日本\n"),
        (b"a\r\nb\rc\n\nd", None, "a\nb\nc\n\nd"),
        (gzip.compress(b"packed\n", mtime=0), None, "packed\n"),
        (b"x" * 600_000 + "ü".encode(), None, "x" * 600_000 + "ü"),
    ],
)
def test_a_text_is_read_however_it_is_written(
    tmp_path: Path, content: bytes, encoding: str | None, expected: str
) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes(content)
    assert read_text(file, encoding) == expected


@pytest.mark.parametrize(
    ("content", "encoding", "answer"),
    [
        (b"", None, "t.txt: the file is empty"),
        (b"\x7fELF\x02\x01\x01\0\0\0", None, "t.txt: this is not text"),
        (b"\xc3\xa9\xc3\xa9\ncaf\xe9\n", None, "t.txt, line 2: byte 0xe9 at offset 8 is not utf-8; give `encoding`"),
        (b"\xc3\xa9" * 250_000 + b"\n\xff", None, "t.txt, line 2: byte 0xff at offset 500001 is not utf-8"),
        (b"\xef\xbb\xbfabc\xff", None, "line 1: byte 0xff at offset 6"),
        ("ж".encode(), "ascii", "byte 0xd0 at offset 0 is not ascii"),
        (b"a", "utf-88", "encoding='utf-88': Python knows no such encoding."),
        (b"a", "base64", "encoding='base64': Python knows no such encoding."),
        (gzip.compress(b"packed" * 1000, mtime=0)[:-9], None, "the gzip file is truncated or damaged"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, encoding: str | None, answer: str) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_text(file, encoding)
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_without_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "other").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, answer in {
        "note.txt": "there is no such file; did you mean",
        "*.md": "no file matches",
        "other": "there is no file in this folder",
        "pipe": "this is not a regular file",
        "notes.txt": "the file is empty",
    }.items():
        with pytest.raises(DataError, match=answer):
            read_texts(f"{tmp_path}/{path}", None)
    (tmp_path / "more.txt").write_text("")
    with pytest.raises(DataError, match="all of these files are empty"):
        read_texts(f"{tmp_path}/*.txt", None)


def test_a_hash_is_that_of_the_whole_text() -> None:
    text = "A line.\n äöü 日本語 🔥.\n" * 50_000
    for texts in ([], [""], ["ab", "cü"], [text, "x", text]):
        assert hash_texts(texts) == hashlib.sha256("".join(texts).encode()).hexdigest()


def test_files_are_one_text_that_is_read_once_until_it_is_released(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("one ")
    (tmp_path / "2.txt").write_text("two")
    files = TextFiles(f"{tmp_path}/*.txt", None, "")
    assert (files.text, files.size, files.stem) == ("one two", 7, "text")
    assert files.fingerprint == hash_texts(["one two"])
    (tmp_path / "2.txt").write_text("2")
    assert files.text == "one two"
    files.release()
    assert files.text == "one 2"
    assert TextFiles(str(tmp_path / "1.txt"), None, "").stem == "1"


def test_without_a_path_the_text_is_that_of_python() -> None:
    files = TextFiles("", None, "")
    assert "assert" in files.text[:100]
    assert files.name.startswith("the language reference of Python 3.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _files(folder: Path, text: str = TEXT) -> TextFiles:
    file = folder.with_name("text.txt")
    file.write_text(text, encoding="utf-8")
    return TextFiles(str(file), None, str(folder))


def _encoded(folder: Path, kind: str) -> tuple[Tokenizer, NDArray[Any]]:
    files = _files(folder)
    tokenizer = files.fit(kind, 300 if kind == "bpe" else 1000, 1000)
    return tokenizer, files.encode(tokenizer, 10, len(TEXT))


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
    files = _files(folder, text)
    tokenizer = files.fit("chars", 100_000, len(text))
    tokens = files.encode(tokenizer, 0, len(text))
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
        found = _files(folder, text).encode(tokenizer, start, len(text))
        assert not np.array_equal(found, tokens)
