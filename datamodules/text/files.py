"""Running text on disk: found, decoded, and gone through in pieces."""

import re
from collections.abc import Iterator
from pathlib import Path

from datamodules.errors import DataError
from datamodules.files import find_files
from datamodules.tables.dialect import beginning, decoded

LONGEST = 4096  # characters of a piece
MARGIN = re.compile(r"\n(?=\S)")


def pieces(text: str, start: int = 0, end: int | None = None) -> Iterator[str]:
    """Go through a text, or a stretch of it, in pieces that together are that text.

    A piece is the lines up to the next one that begins at the margin, so that a line break and the spaces after it stay
    together; one that is longer than `LONGEST` characters ends there, before a space if it has one.

    Args:
        text: The text.
        start: Where to begin.
        end: Where to end; by default with the text.
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
    """Find the files at a path, sorted: one file, those that match a glob, or all in a folder, however deep.

    Raises:
        DataError: If there is none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return find_files(path)
    inside = [(file, file.relative_to(folder).parts) for file in folder.rglob("*") if file.is_file()]
    files = sorted(file for file, parts in inside if not any(part.startswith(".") for part in parts))
    if not files:
        raise DataError(f"--data.path {path}: there is no file in this folder.")
    return files


def read_texts(path: str, encoding: str | None) -> str:
    """Read the files at a path as one text; those that are empty among others are nothing to speak of.

    Args:
        path: A file, a folder or a glob.
        encoding: Python's name of their encoding; UTF-8, or UTF-16 with a mark, unless given.

    Raises:
        DataError: If one cannot be read, is no text, or is of another encoding; or if there is no text at all.
    """
    files = find_text_files(path)
    text = "".join(read_text(file, encoding) for file in files if len(files) == 1 or not _is_empty(file))
    if not text:
        raise DataError(f"--data.path {path}: all of these files are empty.")
    return text


def _is_empty(file: Path) -> bool:
    return file.is_file() and not file.stat().st_size


def read_text(file: Path, encoding: str | None) -> str:
    """Read a text file, plain or gzip; each line ends in one line feed, however it is written.

    Args:
        file: The file.
        encoding: Python's name of its encoding; UTF-8, or UTF-16 with a mark, unless given.

    Raises:
        DataError: If it cannot be read, is empty or no text, or is of another encoding.
    """
    if not file.is_file():  # a pipe, which might never end
        raise DataError(f"{file}: this is no regular file.")
    try:
        text = "".join(decoded(file, beginning(file, encoding)[0]))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
