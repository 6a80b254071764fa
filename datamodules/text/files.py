"""Plain text on disk: files are found, decoded, and split into pieces."""

import hashlib
import platform
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from datamodules.errors import DataError
from datamodules.files import find_files
from datamodules.tables.dialect import beginning, decoded

LONGEST = 4096  # characters of a piece
MARGIN = re.compile(r"\n(?=\S)")
HASHED = 1_000_000  # characters that are hashed at a time


class TextFiles:
    """The files of a plain text, which are read when they are needed, and again after `release`.

    Args:
        path: A file, a folder or a glob; several files are one text, in sorted order. If empty, the text is the
            language reference that Python carries.
        encoding: Python's name of the encoding; UTF-8, or UTF-16 with a mark, unless given.
    """

    def __init__(self, path: str, encoding: str | None) -> None:
        self.path = path
        self.encoding = encoding
        self.name = path or f"the language reference of Python {platform.python_version()}"  # in messages
        self.stem = Path(path).stem.strip("*.") or "text" if path else "pydoc"  # of cached files
        self._contents: dict[Path, str] | None = None

    @property
    def contents(self) -> dict[Path, str]:
        """The text of each file."""
        if self._contents is None:
            self._contents = read_texts(self.path, self.encoding) if self.path else {Path("pydoc"): _pydoc()}
        return self._contents

    @property
    def text(self) -> str:
        """The texts of all files, concatenated."""
        return "".join(self.contents.values())

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


def _pydoc() -> str:
    from pydoc_data.topics import topics  # half a megabyte, which is seldom needed

    return "\n".join(topics[name] for name in sorted(topics))


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of the UTF-8 of texts that are concatenated."""
    found = hashlib.sha256()
    for text in texts:
        for start in range(0, len(text), HASHED):
            found.update(text[start : start + HASHED].encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def pieces(text: str, start: int = 0, end: int | None = None) -> Iterator[str]:
    """Split a text, or a stretch of it, into pieces.

    A piece has the lines up to the next one that is not indented, so that a line break and the spaces after it stay
    together. A piece longer than `LONGEST` characters ends there, before a space if it has one.

    Args:
        text: The text.
        start: The start of the stretch.
        end: Its end; by default that of the text.
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
    """Read the files at a path; of several files, empty ones are skipped.

    Args:
        path: A file, a folder or a glob.
        encoding: Python's name of their encoding; UTF-8, or UTF-16 with a mark, unless given.

    Raises:
        DataError: If a file cannot be read, is no text, or has another encoding; or if all are empty.
    """
    files = find_text_files(path)
    texts = {file: read_text(file, encoding) for file in files if len(files) == 1 or not _is_empty(file)}
    if not texts:
        raise DataError("all of these files are empty", option="path", value=path)
    return texts


def _is_empty(file: Path) -> bool:
    return file.is_file() and not file.stat().st_size


def read_text(file: Path, encoding: str | None) -> str:
    r"""Read a text file, plain or gzip; line ends of any kind become `\n`.

    Args:
        file: The file.
        encoding: Python's name of its encoding; UTF-8, or UTF-16 with a mark, unless given.

    Raises:
        DataError: If it cannot be read, is empty or no text, or has another encoding.
    """
    if not file.is_file():  # a pipe, which might never end
        raise DataError(f"{file}: this is no regular file")
    try:
        text = "".join(decoded(file, beginning(file, encoding)[0]))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
