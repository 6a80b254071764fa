"""Pictures of one's own in a folder for each class."""

from pathlib import Path
from typing import Any

from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.pictures import STAGES, Found, PictureDataModule
from datamodules.squares import PictureFiles, find_pictures


class ImageFolderDataModule(PictureDataModule):
    """Pictures in folders: `path/CLASS/*`, or divided by hand: `path/train/CLASS/*`, `path/val/...`, `path/test/...`.

    A picture counts by its ending and is decoded by its content. Where there is `val` and no `test`, nothing is held
    out for a test.

    Args:
        path: The folder; for `predict` any folder with pictures somewhere in it, or one picture.
        kwargs: Options of `PictureDataModule`, `OwnDataModule` and `DataModule`.
    """

    def __init__(self, path: str = "", **kwargs: Any) -> None:
        super().__init__(path, **kwargs)

    def find(self) -> Found:
        """Find all pictures below the path, sorted by their names, and what their folders say of them."""
        if not self.path:
            raise DataError("--data.path: give the folder of the pictures.")
        root = Path(self.path).expanduser()
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
        divided = bool(folders) and ("train" in folders or folders <= STAGES.keys())
        stages: list[Stage | None] = [STAGES.get(file.parts[0]) if divided else None for file in files]
        # Below the class there may be further folders.
        labels = [file.parts[divided] if len(file.parts) > 1 + divided else None for file in files]
        if divided:  # what is beside the parts belongs to none
            labels = [label if stage else None for stage, label in zip(stages, labels, strict=True)]
        return Found(PictureFiles(root, files), stages, labels)
