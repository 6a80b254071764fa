"""The user's images in a folder for each class."""

import os
from collections.abc import Sequence
from pathlib import Path

from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.images.decoding import read_file
from datamodules.images.user_images import STAGES, Found, UserImageDataModule

# A folder of images holds other things too: thumbnail databases, lists, licenses.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *(".avif", ".jp2", ".tga", ".heic", ".heif"),
)


class ImageFolderDataModule(UserImageDataModule):
    """Images in folders: `path/CLASS/*`, or split by hand: `path/train/CLASS/*`, `path/val/...`, `path/test/...`.

    An image is found by its file name extension and decoded by its content. Where there is `val` and no `test`, nothing
    is held out for a test. `predict` takes any folder with images somewhere in it, or one image.

    Args:
        kwargs: Options of `UserImageDataModule`, `ImageDataModule`, `UserDataModule` and `DataModule`.
    """

    def find(self) -> Found:
        """Return all images below the path, sorted by name, with the splits and classes of their folders."""
        if not self.path:
            raise DataError("give the folder of the images", option="path")
        root = Path(os.path.expanduser(self.path))
        try:
            if root.is_file():
                return Found(ImageFiles(root.parent, [Path(root.name)]), [None], [None])
            if not root.is_dir():
                raise DataError("there is no such folder", option="path", value=self.path)
            files, others = find_images(root)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read ({error.strerror})", option="path") from error
        if not files:
            raise DataError(f"there is no image in it ({others:,} other files)", option="path", value=self.path)
        folders = {file.parts[0] for file in files if len(file.parts) > 1}
        splits = {folder: STAGES[folder.lower()] for folder in folders if folder.lower() in STAGES}
        # A class may be called "train" or "test" as well, but then it has no class folders in it.
        trains = any(splits.get(file.parts[0]) == "train" and len(file.parts) > 2 for file in files)
        divided = bool(splits) and (trains or len(splits) == len(folders))
        stages: list[Stage | None] = []
        labels: list[str | None] = []
        for file in files:
            stages.append(splits.get(file.parts[0]) if divided else None)
            # Below the class there may be further folders; other folders beside the splits have no class.
            has_class = len(file.parts) > 1 + divided and (stages[-1] or not divided)
            labels.append(readable(file.parts[divided]) if has_class else None)
        return Found(ImageFiles(root, files), stages, labels)


class ImageFiles:
    """Images in files, whose paths are below `root`."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.files = files
        self.names = [readable(file) for file in files]

    def read(self, number: int) -> bytes:
        """Return the bytes of a file."""
        return read_file(self.root / self.files[number])


def readable(name: str | Path) -> str:
    """Return a file name that can be printed, as bytes that are not UTF-8 cannot."""
    return os.fsencode(name).decode(errors="replace")


def find_images(root: Path) -> tuple[list[Path], int]:
    """Return the sorted paths below `root` of images, by their file name extension, and the number of other files.

    What is hidden is skipped. Raises an `OSError` if a folder cannot be read.
    """
    found, others = [], 0
    for folder, folders, files in os.walk(root, onerror=_raise, followlinks=True):
        place, visible = Path(folder), [name for name in files if not name.startswith(".")]
        images = [place / name for name in visible if Path(name).suffix.lower() in EXTENSIONS]
        found += [image.relative_to(root) for image in images]
        others += len(visible) - len(images)
        # A link to a folder above it would be followed forever.
        folders[:] = [name for name in folders if not (name.startswith(".") or _is_link_up(place / name))]
    return sorted(found), others


def _is_link_up(path: Path) -> bool:
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _raise(error: OSError) -> None:
    raise error
