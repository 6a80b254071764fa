"""A cache of files that were computed from data, for later runs."""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar
from uuid import uuid4
from weakref import WeakSet

logger = logging.getLogger(__name__)

LIMIT = 20 * 2**30  # bytes
RECENT = 86_400  # seconds since its last use within which some process may still need a file
OURS = re.compile(r"-[0-9a-f]{24}\.\w+(\.[0-9a-f]{32}\.tmp)?$")  # how names in a cache end; no other file is deleted
OLD = re.compile(r"pictures-[0-9a-f]{24}")  # folders of earlier versions, which nothing reads any more

T = TypeVar("T")


def touch(path: Path) -> None:
    """Mark a file as used now, if it is one of a cache."""
    if OURS.search(path.name):
        with contextlib.suppress(OSError):  # it is someone else's, or read-only
            os.utime(path)


class Cache:
    """A folder of files, each named by a hash of all that it was made from.

    A file appears when it is complete, and one that is missing or damaged is made again, so that processes can share a
    folder and anything in it can be deleted between runs. Files that were used within the last day, or that a `Cache`
    in this process has read or written, are never deleted. When the others outgrow the limit, those that were not used
    for the longest time are. What opens a file again and again calls `touch`, so that other processes know of its use.

    Args:
        folder: Where the files are; it is created with the first of them.
        limit: Bytes that the files not in use may take.
    """

    _alive: ClassVar[WeakSet["Cache"]] = WeakSet()
    _warned: ClassVar[set[Path]] = set()

    def __init__(self, folder: str | Path, limit: int = LIMIT) -> None:
        self.folder = Path(folder).expanduser()
        self.limit = limit
        self._used: set[Path] = set()
        self._alive.add(self)

    def path(self, name: str, suffix: str, *made_from: object) -> Path:
        """Return where a file is kept; `made_from` is all that determines its content, and the number of its format."""
        key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:24]
        return self.folder / f"{name}-{key}{suffix}"

    def read(self, path: Path, load: Callable[[Path], T]) -> T | None:
        """Load a file, which counts as a use of it; return None if it is missing or damaged."""
        try:
            found = load(path)
        except Exception:  # damage is anything: tokenizers raises a bare Exception, pyarrow and NumPy their own
            return None
        touch(path)
        self._used.add(path)
        return found

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file by `write`, under a temporary name until it is complete, and delete the oldest beyond the limit.

        Raises:
            OSError: If it cannot be written; nothing is left behind then.
        """
        part = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        self._used.add(path)
        self._prune()

    def keep(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file as `write` does; if that is impossible, warn once about this folder and go on."""
        try:
            self.write(path, write)
        except OSError as error:
            if self.folder not in self._warned:
                self._warned.add(self.folder)
                logger.warning("%s: nothing can be kept there (%s); it is made again each time", self.folder, error)

    def has_room(self, size: int) -> bool:
        """Whether the folder can be written to, and twice as many bytes are free on its disk."""
        existing = next(folder for folder in (self.folder, *self.folder.parents) if os.path.exists(folder))
        return os.access(existing, os.W_OK) and shutil.disk_usage(existing).free > 2 * size

    def _prune(self) -> None:
        in_use = set[Path]().union(*(cache._used for cache in self._alive))
        found = []
        for path in self.folder.iterdir():
            if OLD.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
            elif OURS.search(path.name) and path not in in_use:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    stat = path.stat()
                    if stat.st_mtime < time.time() - RECENT:
                        found.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total > self.limit:
                with contextlib.suppress(OSError):  # it is someone else's, or open on Windows
                    path.unlink(missing_ok=True)
                    total -= size
