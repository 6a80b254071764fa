"""Known data sets of images: the embedded digits, MNIST and FashionMNIST."""

import contextlib
import gzip
import math
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.datasets.utils import check_integrity, download_url

from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.images.base import ImageDataModule
from datamodules.sampler import Samples


class DigitsDataModule(ImageDataModule):
    """The 1,797 handwritten digits that come with scikit-learn: 8x8 gray images, 10 classes, nothing to download.

    Args:
        kwargs: Options of `ImageDataModule` and `DataModule`.
    """

    input_shape = (1, 8, 8)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_names = [str(digit) for digit in range(10)]

    def load(self) -> dict[Stage, Samples]:
        """Load the images, their 17 gray levels spread over 0 to 255."""
        from sklearn.datasets import load_digits  # takes a second, which help need not wait for

        x, y = load_digits(return_X_y=True)
        images = (torch.from_numpy(x) * (255 / 16)).round().to(torch.uint8)
        return {"train": Samples(images.view(-1, *self.image_shape), torch.from_numpy(y))}


class MNISTDataModule(ImageDataModule):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28, 10 classes (LeCun et al. 1998).

    The files are expected in `data_dir/MNIST/raw`, where torchvision keeps them, compressed or not, or, compressed, in
    `data_dir` itself; missing ones are downloaded to the former. Compressed files are checked against torchvision's
    checksums.

    Args:
        data_dir: Folder of downloaded data sets.
        kwargs: Options of `ImageDataModule` and `DataModule`.
    """

    source: type[MNIST] = MNIST
    input_shape = (1, 28, 28)

    def __init__(self, data_dir: str = "data", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_dir = data_dir
        # torchvision calls MNIST's classes "0 - zero" to "9 - nine".
        self.class_names = [name.split(" - ")[0] for name in self.source.classes]

    def prepare_data(self) -> None:
        """Download missing files; Lightning calls this on one process only."""
        for packed, md5 in self.source.resources:
            if self._find(packed) is None:
                self._download(packed, md5)

    def load(self) -> dict[Stage, Samples]:
        """Load the official training and test split."""
        self.prepare_data()  # for those who use the data module without a Trainer
        return {"train": self._read_part("train"), "test": self._read_part("t10k")}

    def _read_part(self, part: str) -> Samples:
        path, images = self._read(f"{part}-images-idx3-ubyte.gz")
        _, labels = self._read(f"{part}-labels-idx1-ubyte.gz")
        if images.shape != (len(labels), *self.image_shape[1:]):
            problem = f"{path}: images of {tuple(images.shape)} do not go with {len(labels)} labels"
            raise DataError(problem, "delete the folder, and it is downloaded again")
        return Samples(images.unsqueeze(1), labels.long())

    @property
    def _folder(self) -> Path:
        return Path(self.data_dir) / self.source.__name__ / "raw"

    def _find(self, packed: str) -> Path | None:
        # An uncompressed file has no checksum: only its folder tells which data set it belongs to.
        places = [self._folder / packed, self._folder / packed.removesuffix(".gz"), Path(self.data_dir) / packed]
        return next((path for path in places if path.is_file()), None)

    def _download(self, packed: str, md5: str) -> None:
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        for mirror in self.source.mirrors:
            try:
                download_url(mirror + packed, str(self._folder), packed, md5)
                return
            except (URLError, HTTPException, RuntimeError, OSError) as error:
                reason = error
        for folder in missing:  # leave no empty ones behind
            with contextlib.suppress(OSError):  # it was not made, or something is in it
                folder.rmdir()
        remedy = "give the folder that already holds it by `data_dir`, or put the file there by hand"
        raise DataError(f"{self._folder / packed}: could not be downloaded ({reason})", remedy)

    def _read(self, packed: str) -> tuple[Path, Tensor]:
        """Read an idx file: two zero bytes, the type (8 is uint8), the number of dimensions, each size, the data."""
        path = self._find(packed)
        assert path is not None, f"{packed} is there once prepare_data has passed"
        content = path.read_bytes()
        if path.suffix == ".gz":
            published = check_integrity(str(path), dict(self.source.resources)[packed])
            content = gzip.decompress(content) if published else b""
        start = 4 + 4 * content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
        shape = [int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4)]
        if not start or len(content) != start + math.prod(shape):
            problem = f"{path}: the file is damaged, or not one of {self.source.__name__}'s"
            raise DataError(problem, "delete it, and it is downloaded again, or give another `data_dir`")
        return path, torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


class FashionMNISTDataModule(MNISTDataModule):
    """FashionMNIST: 60,000 training and 10,000 test images of clothes, 28x28, 10 classes (Xiao et al. 2017).

    Args:
        data_dir: Folder of downloaded data sets; used as `MNISTDataModule` does.
        kwargs: Options of `ImageDataModule` and `DataModule`.
    """

    source = FashionMNIST
