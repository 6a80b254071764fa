"""The bytes of text files, plain or gzip, and their encodings, which are detected where they are not given."""

import codecs
import contextlib
import gzip
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

from datamodules.errors import DataError, listed

GZIP = b"\x1f\x8b"  # the first bytes of such a file
SAMPLE = 2**18  # bytes, from which the dialect and the types of the columns are inferred
SCANNED = 2**26  # bytes in which a byte that is not UTF-8 is looked for
EVIDENCE = 2**15  # bytes that tell an encoding
# What is not UTF-8 is one of these; the legacy encodings of Western Europe are all but the same.
LEGACY = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"),
    *("gb18030", "big5", "cp932", "euc_jp", "cp949"),
)
LIKELIEST = ("cp1252", "gb18030")  # of those that are as good as another
DEFAULT = "utf-8-sig"  # with or without a mark
SHOWN = 24  # characters of a message

logger = logging.getLogger(__name__)


def magic(file: Path) -> bytes:
    """Return the first two bytes of a file, which tell its type."""
    with file.open("rb") as stream:
        return stream.read(2)


def open_bytes(file: Path) -> IO[bytes]:
    """Open a file, plain or gzip, to read its unpacked content."""
    return gzip.open(file) if magic(file) == GZIP else file.open("rb")  # type: ignore[return-value]  # it reads bytes too


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[None]:
    """Turn the errors of a damaged gzip file into one for people."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: the gzip file is truncated or damaged", "copy or download it again") from error


def read_sample(file: Path) -> tuple[bytes, bool]:
    """Return the first bytes of a file, unpacked, and whether they are the whole."""
    with unpacked(file), open_bytes(file) as stream:
        sample = stream.read(SAMPLE)
    return sample, len(sample) < SAMPLE


def decoded(file: Path, encoding: str) -> Iterator[str]:
    """Decode a text file, plain or gzip, in parts of `SAMPLE` bytes.

    Raises:
        DataError: If a byte is of another encoding; the message has the line, and the offset in the unpacked file.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    with unpacked(file), open_bytes(file) as stream:
        while True:
            part = stream.read(SAMPLE)
            try:
                yield decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                # The decoder got this part with bytes left over from the last one, or without a byte order mark.
                at = len(part) - len(error.object) + error.start
                line += part[: max(at, 0)].count(b"\n")
                byte, name = f"byte 0x{error.object[error.start]:02x}", encoding.removesuffix("-sig")
                problem = f"{file}, line {line}: {byte} at offset {offset + at} is not {name}"
                raise DataError(problem, "give `encoding` (latin-1, cp1252, gb18030, ...)") from error
            except UnicodeError as error:  # UTF-16 without its byte order mark
                raise DataError(f"{file}: this is not {encoding} ({error})", "give another `encoding`") from error
            if not part:
                return
            offset, line = offset + len(part), line + part.count(b"\n")


class Encodings:
    """The encoding of each of some text files: the given one, or else UTF-8, UTF-16 by its mark, or what it looks like.

    Those that are neither are logged in one line.

    Args:
        files: The files.
        given: Python's name of the encoding of all of them, if it is given.
    """

    def __init__(self, files: Sequence[Path], given: str | None) -> None:
        self.files, self.given = files, given

    @cached_property
    def _found(self) -> dict[Path, str]:
        found = {file: find_encoding(file) for file in self.files}
        others = {file: encoding for file, encoding in found.items() if encoding not in (DEFAULT, "utf-16")}
        if others:
            file, encoding = next(iter(others.items()))
            count = f"{len(others):,} of {len(self.files):,} files, as {file}, are"
            what = f"{file} is" if len(self.files) == 1 else count
            named = listed(list(dict.fromkeys(others.values())), 4)
            how = f"read as {named}, as detected ('{_odd(file, encoding)}')"
            logger.info(f"{what} not UTF-8, and {how}; give the encoding if that is wrong")
        return found

    def of(self, file: Path) -> str:
        """Return the encoding of one of the files.

        Raises:
            DataError: If it is not text.
        """
        return self._found[file] if self.given is None else self.given

    @property
    def detected(self) -> str | None:
        """The encoding that was detected for all of the files, which a checkpoint should keep; None if they differ."""
        found = {self.of(file) for file in self.files}
        return found.pop() if self.given is None and len(found) == 1 and not found & {DEFAULT, "utf-16"} else None


def find_encoding(file: Path, most: int = SCANNED) -> str:
    """Return the encoding of a text file: UTF-8, UTF-16 if it has that mark, or else what its bytes look like.

    Args:
        file: The file, plain or gzip.
        most: How many bytes of it are read.

    Raises:
        DataError: If it is not text.
    """
    status = file.stat()
    return _find_encoding(file, most, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _find_encoding(file: Path, most: int, *_: int) -> str:
    sample = read_sample(file)[0]
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    controls = re.findall(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]", sample[:4096])
    if b"\0" in sample or len(controls) > 1:
        line = sample[: max(sample.find(b"\0"), 0)].count(b"\n") + 1
        what = f"a NUL byte in line {line}" if b"\0" in sample else "control characters"
        raise DataError(f"{file}: this is not text ({what})", "give a text file, or a CSV, TSV or Parquet file")
    foreign = None if sample.startswith(codecs.BOM_UTF8) else find_foreign(file, most)
    return DEFAULT if foreign is None else guess(foreign) or DEFAULT


def find_foreign(file: Path, most: int = SCANNED) -> bytes | None:
    """Return the first part of a file that is not UTF-8; None if there is none among the first `most` bytes.

    There is none either if most of its characters beyond ASCII are UTF-8: then it is UTF-8, but damaged.
    """
    decoder, whole = codecs.getincrementaldecoder("utf-8")(), 0
    with unpacked(file), open_bytes(file) as stream:
        for _ in range(max(most // SAMPLE, 1)):
            part = stream.read(SAMPLE)
            try:
                whole += _beyond_ascii(decoder.decode(part, final=len(part) < SAMPLE))
            except UnicodeDecodeError as error:
                text = error.object.decode("utf-8", "replace")
                broken = text.count("\N{REPLACEMENT CHARACTER}")
                return None if whole + _beyond_ascii(text) - broken > broken else error.object
            if len(part) < SAMPLE:
                break
    return None


def _beyond_ascii(text: str) -> int:
    return 0 if text.isascii() else len(re.findall(r"[^\x00-\x7f]", text))


def guess(text: bytes) -> str | None:
    """Return which of the `LEGACY` encodings a text looks like; None if it looks like none of them."""
    from charset_normalizer import from_bytes  # a few milliseconds, which are seldom needed

    lines = [line for line in text.split(b"\n") if not line.isascii()]
    evidence = b"\n".join(lines)
    # What is cut off within a character is no text in its encoding.
    cuts = [evidence[: EVIDENCE - short] for short in range(4)] if len(evidence) > EVIDENCE else [evidence]
    for cut in cuts:
        found = [name for match in from_bytes(cut, cp_isolation=list(LEGACY)) for name in match.could_be_from_charset]
        found = [name for name in found if name in LEGACY]
        if found:
            return next((name for name in LIKELIEST if name in found), found[0])
    return None


def _odd(file: Path, encoding: str) -> str:
    """Return the first word of a file that is not ASCII, which shows whether it is read well."""
    text = (find_foreign(file) or b"").decode(encoding, "replace")
    word = re.search(r"\w*[^\x00-\x7f]\w*", text)
    return word[0][:SHOWN] if word else ""
