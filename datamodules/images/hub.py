"""Images that Hugging Face's `datasets` reads: from the hub, or from files on this machine."""

import glob
import logging
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.base import Stage
from datamodules.errors import DataError, check_names, listed
from datamodules.images.decoding import ImageError, read_file
from datamodules.images.user_images import STAGES, Found, UserImageDataModule

logger = logging.getLogger(__name__)

SAVED = ("dataset_info.json", "dataset_dict.json")  # files that `save_to_disk` writes
LABELS = ("label", "labels", "class", "target")  # names of a column of classes, in order of preference


class HuggingFaceDataModule(UserImageDataModule):
    """Images of a data set on the Hugging Face hub, or of one in its formats on this machine.

    A data set on the hub is downloaded once, to the cache of `datasets` (`~/.cache/huggingface`), and found there
    offline. It needs the extra `hub`.

    Args:
        path: Name of a data set on the hub; or a Parquet file, a folder of Parquet files or of images, or what
            `save_to_disk` wrote. Files on this machine take precedence.
        name: Which of the hub data set's configurations to take, if there are several.
        revision: Branch, tag or commit of the hub data set; a commit never changes.
        image_column: The column of images; detected by its type unless given.
        label_column: The column of classes; detected by its type or name unless given.
        kwargs: Options of `UserImageDataModule`, `ImageDataModule`, `UserDataModule` and `DataModule`.
    """

    class_hint = "name the column of the classes by `label_column`"

    def __init__(
        self,
        path: str = "",
        name: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, **kwargs)
        self.config_name = name
        self.revision = revision
        self.image_column = image_column
        self.label_column = label_column

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The splits of the data set, `datasets.Dataset` by name."""
        path, config, revision = self.path, self.config_name, self.revision
        if not path:
            raise DataError("give the name of a data set on the hub, or a file or folder", option="path")
        try:
            import datasets  # the extra, and slow to import
        except ImportError as error:
            name = type(self).__name__
            raise DataError(f"{name}: the package datasets is not installed", 'pip install -e ".[hub]"') from error
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # every attempt to reach the hub is a warning
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        local = Path(path).expanduser()
        try:
            if any((local / name).is_file() for name in SAVED):
                found = datasets.load_from_disk(str(local))
            elif local.is_file():
                found = datasets.load_dataset("parquet", data_files=glob.escape(str(local)))
            elif local.is_dir():
                found = datasets.load_dataset(str(local))
            else:
                found = datasets.load_dataset(path, config, revision=revision)
        except Exception as error:  # whatever it meets: no network, no such name, a damaged file
            reason = " ".join(str(error).split())
            remedy = "give a name on the hub, which has to be reached once, "
            remedy += "or a Parquet file, a folder or a saved data set on this machine"
            raise DataError(f"datasets cannot load it ({reason})", remedy, "path", path) from error
        return {"": found} if isinstance(found, datasets.Dataset) else dict(found)

    @property
    def column_types(self) -> dict[Any, Any]:
        """The types of the columns, by name."""
        return dict(next(iter(self.tables.values())).features)

    def find(self) -> Found:
        """Return the images of the data set, with their splits and classes."""
        tables, (image, label) = self.tables, self._choose_columns()
        stages: list[Stage | None] = []
        labels: list[str | None] = []
        for part, table in tables.items():
            check_names([image], table.column_names, f"{self.path}{part and f', {part}'}")
            stages += [STAGES.get(part) if len(tables) > 1 else None] * len(table)
            known = label in table.column_names and (len(tables) == 1 or part in STAGES)
            labels += _names(table, str(label)) if known else [None] * len(table)
        others = [part for part in tables if part not in STAGES]
        if others and len(tables) > 1:
            logger.warning(f"{self.path}: dropped, as neither train, validation nor test: {listed(others, 8)}")
        return Found(ImageRows(tables, image), stages, labels)

    def _choose_columns(self) -> tuple[str, str | None]:
        """Return the columns of images and of classes; what is predicted needs none of classes."""
        features, image, label = self.column_types, self.image_column, self.label_column
        if image is not None:
            check_names([image], list(features), option="image_column", value=image)
        else:
            found = [name for name, feature in features.items() if _holds_images(feature)]
            if len(found) != 1:
                remedy = f"name one by `image_column`: {listed(list(features), 20)}"
                raise DataError(f"{len(found) or 'none'} of its columns hold images", remedy, "path", self.path)
            image = found[0]
        if label is not None:
            return image, label if label in features else None
        labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
        labels += [name for name in LABELS if name in features and name != image]
        return image, next(iter(labels), None)

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]  # found when it is asked for
        """The names that the data set gives its classes, in its order; else the values of the column, sorted."""
        features = self.column_types
        if self.label_column is not None:
            check_names([self.label_column], list(features), option="label_column", value=self.label_column)
        image, label = self._choose_columns()
        if label == image:
            raise DataError("these are the images", "name another column", "label_column", label)
        names = getattr(features.get(label), "names", None)
        return list(names) if names else super().class_names


class ImageRows:
    """The images in a column of some splits, `datasets.Dataset` by name; each is named by its split and row."""

    def __init__(self, tables: dict[str, Any], column: str) -> None:
        import datasets

        undecoded = datasets.Image(decode=False)
        try:
            parts = [table.select_columns([column]).cast_column(column, undecoded) for table in tables.values()]
            self._rows = datasets.concatenate_datasets(parts)
        except Exception as error:  # of pyarrow, or of datasets
            reason = " ".join(str(error).split())
            raise DataError(f"it holds no images ({reason})", option="image_column", value=column) from error
        self._column = column
        self.names = [f"{part}[{row}]" for part, table in tables.items() for row in range(len(table))]

    def read(self, number: int) -> bytes:
        """Return the bytes in a row, or in the file that it names."""
        image = self._rows[number][self._column]
        if image is None or image["bytes"] is image["path"] is None:
            raise ImageError("there is no image")
        return read_file(Path(image["path"])) if image["bytes"] is None else image["bytes"]


def _holds_images(feature: Any) -> bool:  # noqa: ANN401  # of datasets
    if type(feature).__name__ == "Image":
        return True
    if isinstance(feature, dict):  # as pandas and pyarrow write what datasets had read
        return feature.keys() == {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _names(table: Any, column: str) -> list[str | None]:  # noqa: ANN401  # a datasets.Dataset
    """Return the class of every row, None where it is not known."""
    values = list(table[column])
    names = getattr(table.features[column], "names", None)
    if names:  # hidden labels are -1
        return [None if value is None or value < 0 else names[value] for value in values]
    return [None if value is None else str(value) for value in values]
