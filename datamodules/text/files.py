"""Plain text on disk: read, split into pieces, and encoded once as cached tokens."""

import hashlib
import platform
import re
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import Cache
from datamodules.errors import DataError
from datamodules.files import find_files
from datamodules.tables.dialect import beginning
from datamodules.tables.encodings import Encodings, decoded
from datamodules.text.tokenizer import Tokenizer, chunks

FORMAT = "2"  # version of the cached files; others are ignored
LONGEST = 4096  # characters of a piece
MARGIN = re.compile(r"\n(?=\S)")
HASHED = 1_000_000  # characters that are hashed at a time

Tokens = NDArray[Any]  # uint16 if the vocabulary is small enough, else int32


class TextFiles:
    """The files of a plain text, which are read when they are needed, and again after `release`.

    Tokenizers that are fitted on the text, and its tokens, are cached.

    Args:
        path: A file, a folder or a glob; several files are one text, in sorted order. If empty, the text is the
            language reference that Python carries.
        encoding: Python's name of the encoding; detected for each file unless given.
        cache_dir: Folder of the cached files.
    """

    def __init__(self, path: str, encoding: str | None, cache_dir: str) -> None:
        self.path = path
        self.encoding = encoding
        self.cache = Cache(cache_dir)
        self.name = path or f"the language reference of Python {platform.python_version()}"  # in messages
        self.stem = Path(path).stem.strip("*.") or "text" if path else "pydoc"  # of cached files
        self._contents: dict[Path, str] | None = None

    @property
    def contents(self) -> dict[Path, str]:
        """The text of each file."""
        if self._contents is None and self.path:
            self._contents = read_texts(self.path, self.encoding)
            _ = self.detected_encoding  # which is logged
        elif self._contents is None:
            from pydoc_data.topics import topics  # half a megabyte, which is seldom needed

            self._contents = {Path("pydoc"): "\n".join(topics[name] for name in sorted(topics))}
        return self._contents

    @property
    def text(self) -> str:
        """The texts of all files, concatenated."""
        return "".join(self.contents.values())

    @cached_property
    def detected_encoding(self) -> str | None:
        """The encoding of all files, if it was detected and is not UTF-8."""
        return Encodings([*self.contents] if self.path else [], self.encoding).detected

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the text."""
        return hash_texts(self.contents.values())

    @cached_property
    def size(self) -> int:
        """Number of characters."""
        return sum(map(len, self.contents.values()))

    def release(self) -> None:
        """Free the memory of the text."""
        self._contents = None

    def fit(self, kind: str, vocab_size: int, end: int) -> Tokenizer:
        """Return a tokenizer fitted on the text up to `end`."""
        path = self._cached("tokenizer", ".json", kind, vocab_size, self.fingerprint, end)
        cached = self.cache.read(path, lambda file: Tokenizer(kind, state=file.read_text(encoding="utf-8")))
        if cached is not None:
            return cached
        tokenizer = Tokenizer(kind)
        tokenizer.fit(pieces(self.text, 0, end), vocab_size)
        self.cache.keep(path, lambda file: file.write_text(tokenizer.state, encoding="utf-8"))
        return tokenizer

    def encode(self, tokenizer: Tokenizer, start: int, end: int) -> Tokens:
        """Return the tokens of a stretch of the text, `(N,)`, memory-mapped if they could be cached."""
        path = self._cached("tokens", ".npy", tokenizer.state, self.fingerprint, start, end)
        load = partial(_load, size=tokenizer.size)
        cached = self.cache.read(path, load)
        if cached is not None:
            return cached
        dtype = np.uint16 if tokenizer.size <= 2**16 else np.int32
        parts = [tokenizer.encode(some)[0].astype(dtype) for some in chunks(pieces(self.text, start, end))]
        tokens: Tokens = np.concatenate(parts or [np.zeros(0, dtype)])
        self.cache.keep(path, lambda file: _save(file, tokens))
        cached = self.cache.read(path, load)
        return tokens if cached is None else cached

    def _cached(self, what: str, suffix: str, *made_from: object) -> Path:
        return self.cache.path(f"{self.stem}-{what}", suffix, FORMAT, what, *made_from)


def _save(path: Path, tokens: Tokens) -> None:
    with path.open("wb") as file:
        np.save(file, tokens)


def _load(path: Path, size: int) -> Tokens:
    tokens: Tokens = np.load(path, mmap_mode="r")
    if tokens.ndim != 1 or (len(tokens) and not 0 <= tokens.min() <= tokens.max() < size):
        raise ValueError(f"{path}: these are no tokens")
    return tokens


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of the UTF-8 of texts that are concatenated."""
    found = hashlib.sha256()
    for text in texts:
        for start in range(0, len(text), HASHED):
            found.update(text[start : start + HASHED].encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def pieces(text: str, start: int = 0, end: int | None = None) -> Iterator[str]:
    """Split a text, or a stretch of it, into pieces, which together are the same text.

    A piece has the lines up to the next one that is not indented, so that a line break and the spaces after it stay
    together. A piece longer than `LONGEST` characters ends there, before a space if it has one.
    """
    end = len(text) if end is None else end
    while start < end:
        stop = min(start + LONGEST, end)
        found = MARGIN.search(text, start, stop)
        if found is not None:
            stop = found.end()
        elif stop < end:
            space = text.rfind(" ", start + 1, stop)
            stop = stop if space < 0 else space
        yield text[start:stop]
        start = stop


def find_text_files(path: str) -> list[Path]:
    """Return the files at a path, sorted: one file, those that match a glob, or all in a folder, at any depth.

    Raises:
        DataError: If there is none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return find_files(path)
    inside = [(file, file.relative_to(folder).parts) for file in folder.rglob("*") if file.is_file()]
    files = sorted(file for file, parts in inside if not any(part.startswith(".") for part in parts))
    if not files:
        raise DataError("there is no file in this folder", option="path", value=path)
    return files


def read_texts(path: str, encoding: str | None) -> dict[Path, str]:
    """Read the files at a path, as `read_text` does; of several files, empty ones are skipped.

    Raises:
        DataError: As from `read_text`; or if all are empty.
    """
    files = find_text_files(path)
    wanted = [file for file in files if len(files) == 1 or not file.is_file() or file.stat().st_size]
    texts = {file: read_text(file, encoding) for file in wanted}
    if not texts:
        raise DataError("all of these files are empty", option="path", value=path)
    return texts


def read_text(file: Path, encoding: str | None) -> str:
    r"""Read a text file, plain or gzip; line ends of any kind become `\n`.

    Args:
        file: The file.
        encoding: Python's name of its encoding; detected unless given.

    Raises:
        DataError: If it cannot be read, is empty or no text, or has another encoding.
    """
    if not file.is_file():  # a pipe, which might never end
        raise DataError(f"{file}: this is not a regular file")
    try:
        text = "".join(decoded(file, beginning(file, encoding)[0]))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
