"""The files at a path."""

import difflib
import glob
from pathlib import Path

from datamodules.errors import DataError

SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".parquet", ".pq", ".gz")  # of the tables in a folder


def find_files(path: str, option: str = "path") -> list[Path]:
    """Return the files at a path, which `option` names, sorted: one, those that match a glob, or a folder's tables.

    Raises:
        DataError: If there is none; the message suggests the nearest name.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        files = sorted(file for file in given.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"this folder has no table ({', '.join(SUFFIXES)})", option=option, value=path)
    elif glob.has_magic(path) and not given.exists():
        files = sorted(Path(file) for file in glob.glob(str(given), recursive=True) if Path(file).is_file())
        if not files:
            raise DataError("no file matches", option=option, value=path)
    else:
        try:
            given.stat()
        except FileNotFoundError as error:
            names = [file.name for file in given.parent.iterdir()] if given.parent.is_dir() else []
            close = difflib.get_close_matches(given.name, names, n=1)
            remedy = f"did you mean {given.parent / close[0]}?" if close else ""
            raise DataError("there is no such file", remedy, option, path) from error
        files = [given]
    return files
