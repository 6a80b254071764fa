"""Pictures of one's own in a folder for each class."""

import os
from collections.abc import Sequence
from pathlib import Path

from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.images.decoding import read_file
from datamodules.images.user_images import STAGES, Found, UserImageDataModule

# By their names, as a folder of pictures holds other things too: thumbnail databases, lists, licenses.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *(".avif", ".jp2", ".tga", ".heic", ".heif"),
)


class ImageFolderDataModule(UserImageDataModule):
    """Pictures in folders: `path/CLASS/*`, or divided by hand: `path/train/CLASS/*`, `path/val/...`, `path/test/...`.

    A picture counts by its ending and is decoded by its content. Where there is `val` and no `test`, nothing is held
    out for a test.

    `predict` takes any folder with pictures somewhere in it, or one picture.

    Args:
        kwargs: Options of `UserImageDataModule`, `UserDataModule` and `DataModule`.
    """

    def find(self) -> Found:
        """Find all pictures below the path, sorted by their names, and what their folders say of them."""
        if not self.path:
            raise DataError("--data.path: give the folder of the pictures.")
        root = Path(os.path.expanduser(self.path))
        try:
            if root.is_file():
                return Found(PictureFiles(root.parent, [Path(root.name)]), [None], [None])
            if not root.is_dir():
                raise DataError(f"--data.path {self.path}: there is no such folder.")
            files, others = find_pictures(root)
        except OSError as error:
            raise DataError(f"--data.path: {error.filename} cannot be read ({error.strerror}).") from error
        if not files:
            raise DataError(f"--data.path {self.path}: there is no picture in it ({others:,} other files).")
        folders = {file.parts[0] for file in files if len(file.parts) > 1}
        parts = {folder: STAGES[folder.lower()] for folder in folders if folder.lower() in STAGES}
        # A class may be called "train" or "test" as well, but then it has no class folders in it.
        trains = any(parts.get(file.parts[0]) == "train" and len(file.parts) > 2 for file in files)
        divided = bool(parts) and (trains or len(parts) == len(folders))
        stages: list[Stage | None] = [parts.get(file.parts[0]) if divided else None for file in files]
        # Below the class there may be further folders.
        labels = [readable(file.parts[divided]) if len(file.parts) > 1 + divided else None for file in files]
        if divided:  # what is beside the parts belongs to none
            labels = [label if stage else None for stage, label in zip(stages, labels, strict=True)]
        return Found(PictureFiles(root, files), stages, labels)


class PictureFiles:
    """Pictures in files.

    Args:
        root: The folder in which they are.
        files: Their paths below it.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.files = files
        self.names = [readable(file) for file in files]

    def read(self, number: int) -> bytes:
        """Give what is in a file."""
        return read_file(self.root / self.files[number])


def readable(name: str | Path) -> str:
    """Write a file's name so that it can be printed, which its bytes need not allow."""
    return os.fsencode(name).decode(errors="replace")


def find_pictures(root: Path) -> tuple[list[Path], int]:
    """Find all files below a folder that are pictures by their names; hidden ones are none.

    Args:
        root: The folder.

    Returns:
        Their sorted paths below `root`, and how many other files there are.

    Raises:
        OSError: If a folder cannot be read.
    """
    found, others = [], 0
    for folder, folders, files in os.walk(root, onerror=_raise, followlinks=True):
        place = os.path.realpath(folder)
        # A link to a folder above it would go round and round.
        folders[:] = [name for name in folders if not (name.startswith(".") or _is_above(folder, name, place))]
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in EXTENSIONS:
                found.append((Path(folder) / name).relative_to(root))
            else:
                others += 1
    return sorted(found), others


def _is_above(folder: str, name: str, place: str) -> bool:
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(place).is_relative_to(os.path.realpath(path))


def _raise(error: OSError) -> None:
    raise error
