"""Encodings of text files: detected, named once, and the same for every reader."""

# ruff: noqa: RUF001  # texts in many scripts

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules import CSVDataModule, DataError, TextCorpusDataModule, TextCSVDataModule
from datamodules.tables import encodings
from datamodules.tables.encodings import Encodings, find_encoding
from datamodules.user_data import UserDataModule

GERMAN = "stadt,preis\nKöln,3\nMünchen,5\nBonn,4\n"
TEXTS = {
    "cp1252": "Größe,Straße\nschöne Grüße aus München,1\nüber Äpfel,2\n" * 3,
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy\n" * 3,
    "cp1251": "Москва столица России\nочень хороший фильм,1\nцена,город\n" * 3,
    "koi8_r": "Москва столица России\nочень хороший фильм,1\nцена,город\n" * 3,
    "gb18030": "城市,价格\n北京,100\n我们喜欢这个产品，质量很好\n" * 3,
    "big5": "城市,價格\n臺北,100\n我們喜歡這個產品，質量很好\n" * 3,
    "cp932": "東京は日本の首都です。\nとても良い映画でした,1\n" * 3,
    "euc_jp": "東京は日本の首都です。\nとても良い映画でした,1\n" * 3,
    "cp949": "서울은 대한민국의 수도이다\n정말 좋은 영화,1\n" * 3,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to be written."""
    return tmp_path / "t.csv"


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("packed", [False, True])
def test_an_encoding_is_detected(file: Path, encoding: str, packed: bool) -> None:
    content = TEXTS[encoding].encode(encoding)
    file.write_bytes(gzip.compress(content) if packed else content)
    assert find_encoding(file) == encoding


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (GERMAN.encode(), "utf-8-sig"),
        (b"a,b\n1,2\n", "utf-8-sig"),
        (GERMAN.encode("utf-8-sig"), "utf-8-sig"),
        (GERMAN.encode("utf-16"), "utf-16"),
        (b"one\ncaf\xe9\n", "cp1252"),
        (b"one\ncaf\xe9", "cp1252"),
        ("北京,n\n北京,1\na,2\n".encode("gb18030"), "gb18030"),
        (b"a,b\n" * 100_000 + "Köln,1\n".encode("latin-1"), "cp1252"),  # far behind the beginning
        (("Köln, " * 90_000).encode("latin-1"), "cp1252"),  # one line
        (("我们喜欢这个产品，" * 30_000).encode("gb18030"), "gb18030"),
        ((GERMAN * 9 + "a\xff").encode() + b"\xe9\n", "utf-8-sig"),  # damaged
        (b"\xef\xbb\xbfcaf\xe9\n", "utf-8-sig"),  # its mark says so
    ],
)
def test_little_is_enough(file: Path, content: bytes, encoding: str) -> None:
    file.write_bytes(content)
    assert find_encoding(file) == encoding


def test_as_much_is_read_as_is_asked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "SAMPLE", 64)
    file.write_bytes(b"a,b\n" * 40 + "Köln,1\n".encode("latin-1"))
    assert (find_encoding(file, 64), find_encoding(file)) == ("utf-8-sig", "cp1252")


def test_a_file_that_changes_is_detected_again(file: Path) -> None:
    file.write_bytes(TEXTS["cp1251"].encode("cp1251"))
    assert find_encoding(file) == "cp1251"
    file.write_bytes(GERMAN.encode())
    assert find_encoding(file) == "utf-8-sig"


@pytest.mark.parametrize(
    ("content", "what"), [(b"\x89PNG\0\0", "a NUL byte in line 1"), (b"a\x01\x02\x03", "control characters")]
)
def test_what_is_no_text_is_refused(file: Path, content: bytes, what: str) -> None:
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"this is not text \\({what}\\)"):
        find_encoding(file)


def test_each_file_has_its_own_encoding_and_one_line_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, encoding in {"a.csv": "utf-8", "b.csv": "latin-1", "c.csv": "latin-1"}.items():
        (tmp_path / name).write_bytes(GERMAN.encode(encoding))
    (tmp_path / "d.csv").write_bytes(TEXTS["cp1251"].encode("cp1251"))
    files = sorted(tmp_path.iterdir())
    caplog.set_level(logging.INFO, "datamodules")
    found = Encodings(files, None)
    assert [found.of(file) for file in files] == ["utf-8-sig", "cp1252", "cp1252", "cp1251"]
    assert found.detected is None
    assert caplog.messages == [
        f"3 of 4 files, as {files[1]}, are not UTF-8, and read as cp1252, cp1251, as detected ('Köln'); give the "
        "encoding if that is wrong"
    ]


def test_a_given_encoding_is_not_questioned(tmp_path: Path) -> None:
    found = Encodings([tmp_path / "absent"], "latin-1")
    assert (found.of(tmp_path / "absent"), found.detected) == ("latin-1", None)


def test_a_table_in_files_of_two_encodings_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GERMAN, encoding="utf-8")
    (tmp_path / "b.csv").write_text(GERMAN, encoding="latin-1")
    data = CSVDataModule(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert data.source.files.read()["stadt"].to_pylist() == ["Köln", "München", "Bonn"] * 2
    assert data.source.files.where(3, "stadt").endswith("b.csv, line 2: 'Köln' in column stadt")


def _rows(count: int = 60) -> list[str]:
    return [f"{'ab'[number % 2]}\tMüller {number % 7} aus Köln" for number in range(count)]


@pytest.mark.parametrize("kind", ["table", "lines", "corpus"])
def test_what_was_detected_is_kept_as_what_is_given(kind: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    made: Callable[[Path], UserDataModule] = {
        "table": lambda file: CSVDataModule(str(file), cache_dir=cache),
        "lines": lambda file: TextCSVDataModule(str(file), cache_dir=cache),
        "corpus": lambda file: TextCorpusDataModule(str(file), cache_dir=cache, context_length=8),
    }[kind]
    lines = [f"{row[-4:]},{number % 7},{row[0]}" for number, row in enumerate(_rows())] if kind == "table" else _rows()
    for encoding, kept in {"latin-1": "cp1252", "utf-8": None}.items():
        file = tmp_path / f"{encoding}.txt"
        file.write_text("\n".join(lines) + "\n", encoding=encoding)
        data = made(file)
        data.setup("fit")
        assert data.hparams["encoding"] == kept
        again = type(data)(**data.hparams)
        assert again.fingerprint == data.fingerprint


def test_files_of_two_encodings_are_detected_again(tmp_path: Path) -> None:
    for name, encoding in {"a.txt": "latin-1", "b.txt": "utf-8"}.items():
        (tmp_path / name).write_text("\n".join(_rows()), encoding=encoding)
    data = TextCSVDataModule(str(tmp_path / "a.txt"), val_path=str(tmp_path / "b.txt"), cache_dir=str(tmp_path / "c"))
    data.setup("fit")
    assert data.hparams["encoding"] is None
    assert {"köln"} <= {word.lower() for word in data.tokenizer.decode([*range(data.vocab_size)]).split()}
