"""Many images: decoded in parallel, once, and cached for fast indexing."""

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from torch import Tensor
from tqdm import tqdm

from datamodules.cache import Cache
from datamodules.errors import DataError
from datamodules.images.decoding import ImageError, Interpolation, resize_and_crop, to_rgb
from datamodules.user_data import available_cores, physical_memory

logger = logging.getLogger(__name__)

CacheMode = Literal["auto", "memory", "disk", "none"]

FORMAT = 2  # version of the cached files; others are ignored
AT_ONCE = 256  # images that are decoded before the first of them is written


class EncodedImages(Protocol):
    """Images by number, each with a name, not decoded yet."""

    names: list[str]

    def read(self, number: int) -> bytes:
        """Return the bytes of an image's file; raise an `ImageError` if it cannot be read."""


@dataclass(eq=False)
class Decoder:
    """Images `(3, size, size)`, uint8, decoded when they are asked for."""

    images: EncodedImages
    size: int  # in pixels
    interpolation: Interpolation

    def __len__(self) -> int:
        return len(self.images.names)

    def decode(self, number: int) -> NDArray[np.uint8]:
        """Decode one image; raise an `ImageError` if it is not one."""
        return resize_and_crop(to_rgb(self.images.read(number)), self.size, self.interpolation)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decode a batch, `index` of shape `(B,)`, as `Tensor.index_select` would take it."""
        images = []
        with warnings.catch_warnings(action="ignore"):  # Pillow warns of large photographs and malformed metadata
            for number in index.tolist():
                try:
                    images.append(self.decode(number))
                except ImageError as error:  # all were decoded once
                    problem = f"{self.images.names[number]} has changed since it was first decoded: {error}"
                    raise DataError(problem, "leave the files as they are", "path") from None
        return torch.from_numpy(np.stack(images))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of all images; one that cannot be read counts as empty."""

        def digest(number: int) -> bytes:
            try:
                return hashlib.sha256(self.images.read(number)).digest()
            except ImageError:
                return b""

        with ThreadPoolExecutor(available_cores()) as pool:  # hashing and reading release the GIL
            return hashlib.sha256(b"".join(pool.map(digest, range(len(self))))).hexdigest()


class Decoded(NamedTuple):
    """Decoded images, indexed by a tensor, and the errors of bad ones, by their numbers."""

    images: Tensor | Decoder
    bad: dict[int, str]


def decode_all(decoder: Decoder, cache: CacheMode, cache_dir: Path, name: str, stop: bool) -> Decoded:
    """Decode every image once, in parallel, and cache the results; or load what was cached before.

    Args:
        decoder: Decodes the images.
        cache: Where they are kept: `disk`, in a memory-mapped file in `cache_dir`; `memory`; or `none`, which only
            checks each image, and decodes it again whenever it is asked for. `auto` is the disk if there is twice the
            room, else the memory if a quarter of it suffices, else none.
        cache_dir: The folder of such files.
        name: The name of the images, shown while they are decoded.
        stop: Whether the first bad image is an error; else it is black.

    Raises:
        DataError: If an image is bad and `stop` is true, or the cache cannot be written.
    """
    shape = len(decoder), 3, decoder.size, decoder.size
    files = Cache(cache_dir)
    made_from = FORMAT, pillow_version, decoder.size, decoder.interpolation, decoder.fingerprint
    images_file, bad_file = (files.path("images", suffix, *made_from) for suffix in (".npy", ".json"))
    mode = cache
    if cache == "auto":
        mode = "disk" if images_file.is_file() else choose_cache(math.prod(shape), cache_dir)
    if mode == "memory":
        resident = np.zeros(shape, np.uint8)
        return Decoded(torch.from_numpy(resident), _scan(decoder, name, stop, resident.__setitem__))

    def load(path: Path) -> Tensor:
        # Copied when written to, as torch asks for; nobody writes.
        images = torch.from_numpy(np.lib.format.open_memmap(path, mode="c"))
        if images.shape != shape or images.dtype != torch.uint8:
            raise ValueError(f"{path}: not images of shape {shape}")
        return images

    bad = files.read(bad_file, _load_bad)
    images = files.read(images_file, load) if mode == "disk" and bad is not None else None
    if mode == "disk" and images is None:

        def write(path: Path) -> None:
            with path.open("wb") as file:
                # One after the other, not into mapped memory, where a full disk would end the process.
                np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                found = _scan(decoder, name, stop, lambda number, image: file.write(image.tobytes()))
            files.write(bad_file, lambda path: path.write_text(json.dumps(found)))

        try:
            (files.write if cache == "disk" else files.keep)(images_file, write)
        except OSError as error:
            problem = f"{cache_dir} cannot be written ({error.strerror})"
            raise DataError(problem, "give another `cache_dir`, or `cache='memory'`", "cache", cache) from error
        bad, images = files.read(bad_file, _load_bad), files.read(images_file, load)
        if images is not None:
            size = math.prod(shape) / 2**20
            logger.info(f"{len(decoder):,} decoded images are kept in {images_file} ({size:,.0f} MiB)")
    if bad is None:
        bad = _scan(decoder, name, stop, lambda number, image: None)
        files.keep(bad_file, lambda path: path.write_text(json.dumps(bad)))
    if bad and stop:
        raise _bad_image(decoder, *next(iter(bad.items())))
    return Decoded(decoder if images is None else images, bad)


def choose_cache(size: int, cache_dir: Path) -> CacheMode:
    """Return where `size` bytes are kept."""
    if Cache(cache_dir).has_room(size):
        return "disk"
    return "memory" if size < physical_memory() / 4 else "none"


def _load_bad(path: Path) -> dict[int, str]:
    return {int(number): why for number, why in json.loads(path.read_text()).items()}


def _scan(decoder: Decoder, name: str, stop: bool, take: Callable[[int, NDArray[np.uint8]], object]) -> dict[int, str]:
    """Decode all images in parallel, pass them to `take` in their order, and return which are bad, and why."""

    def attempt(number: int) -> NDArray[np.uint8] | ImageError:
        try:
            return decoder.decode(number)
        except ImageError as error:
            return error

    bad: dict[int, str] = {}
    black = np.zeros((3, decoder.size, decoder.size), np.uint8)
    pool = ThreadPoolExecutor(available_cores())  # decoding and resizing release the GIL
    bar = tqdm(total=len(decoder), desc=f"decoding {name}", unit=" images", disable=None, leave=False)  # not in a file
    # Threads share the filters of warnings, so none of them may change these.
    with warnings.catch_warnings(action="ignore"), bar:
        try:
            for start in range(0, len(decoder), AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, len(decoder)))
                for number, image in zip(numbers, pool.map(attempt, numbers), strict=True):
                    if isinstance(image, ImageError):
                        bad[number] = str(image)
                        if stop:
                            raise _bad_image(decoder, number, bad[number])
                        image = black
                    take(number, image)
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
    return bad


def _bad_image(decoder: Decoder, number: int, why: str) -> DataError:
    return DataError(
        f"{decoder.images.names[number]}: {why}", "repair or remove it, or give `on_bad_image='skip'`", "path"
    )
