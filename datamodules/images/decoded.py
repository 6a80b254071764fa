"""Many pictures: decoded in parallel, once, and kept where a batch of them is one indexing."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from torch import Tensor
from tqdm import tqdm

from datamodules.errors import DataError
from datamodules.images.decoding import ImageError, Interpolation, resize_and_crop, to_rgb
from datamodules.user_data import available_cores, physical_memory, say

Cache = Literal["auto", "memory", "disk", "none"]

FORMAT = 1  # of what is in a cache; another number makes older files unknown
SQUARES, BAD = "squares.npy", "bad.json"  # of a cache; the second is there only when all is complete
AT_ONCE = 256  # images that are decoded before the first of them is written


class EncodedImages(Protocol):
    """Images by number, not decoded yet."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each."""

    def read(self, number: int) -> bytes:
        """Return the bytes of an image's file.

        Raises:
            ImageError: If it cannot be read.
        """


class Decoder:
    """Images `(3, size, size)`, uint8, decoded when they are asked for.

    Args:
        images: The encoded images.
        size: Height and width of a decoded image, in pixels.
        interpolation: How pixels are weighted.
    """

    def __init__(self, images: EncodedImages, size: int, interpolation: Interpolation) -> None:
        self.images = images
        self.size = size
        self.interpolation: Interpolation = interpolation

    def __len__(self) -> int:
        return len(self.images.names)

    def decode(self, number: int) -> NDArray[np.uint8]:
        """Decode one image.

        Raises:
            ImageError: If it is not an image.
        """
        return resize_and_crop(to_rgb(self.images.read(number)), self.size, self.interpolation)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decode a batch, `index` of shape `(B,)`, as `Tensor.index_select` would take it."""
        images = []
        # Pillow warns of large photographs and malformed metadata.
        with warnings.catch_warnings(action="ignore"):
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

    @property
    def key(self) -> str:
        """Name of what is kept of these pictures: by their content and all that makes squares of it."""
        made = (FORMAT, pillow_version, self.size, self.interpolation, self.fingerprint)
        return hashlib.sha256(repr(made).encode()).hexdigest()[:24]


class Decoded(NamedTuple):
    """Decoded images, indexed by a tensor, and why some are bad, by their numbers."""

    images: Tensor | Decoder
    bad: dict[int, str]


def decode_all(decoder: Decoder, cache: Cache, cache_dir: Path, name: str, stop: bool) -> Decoded:
    """Decode every picture once, in parallel, and keep what comes out; or take what was kept the last time.

    Args:
        decoder: Makes the squares.
        cache: Where they are kept: `disk`, in a memory-mapped file; `memory`; or `none`, which only looks at each
            picture, and decodes it again whenever it is asked for. `auto` is the disk if there is twice the room, else
            a quarter of the memory, else none.
        cache_dir: The folder of such files.
        name: What the folder of this one begins with.
        stop: Whether the first bad picture ends it all.

    Returns:
        The squares, those of bad pictures black, and what is bad.

    Raises:
        DataError: If a picture is bad and `stop` is true, or the cache cannot be written.
    """
    shape: tuple[int, ...] = (len(decoder), 3, decoder.size, decoder.size)
    kept = cache_dir / f"pictures-{decoder.key}"
    if cache == "auto":
        cache = "disk" if os.path.isdir(kept) else choose_cache(math.prod(shape), cache_dir)
    if cache == "memory":
        resident = np.zeros(shape, np.uint8)
        return Decoded(torch.from_numpy(resident), _scan(decoder, name, stop, resident.__setitem__))
    if cache == "none":
        kept, shape = kept.with_name(f"{kept.name}-looked-at"), ()
    found = _read(kept, shape)
    if found is None:
        try:
            found = _keep(decoder, kept, name, stop, shape)
        except OSError as error:
            if cache == "disk":
                raise DataError(
                    f"--data.cache {cache}: {cache_dir} cannot be written ({error.strerror}); give another "
                    "--data.cache_dir, or --data.cache memory."
                ) from error
            found = None, _scan(decoder, name, stop, _drop)
    squares, bad = found
    if bad and stop:
        _refuse(decoder, *next(iter(bad.items())))
    return Decoded(decoder if squares is None else squares, bad)


def choose_cache(size: int, cache_dir: Path) -> Cache:
    """Choose where `size` bytes are kept."""
    existing = next(folder for folder in (cache_dir, *cache_dir.parents) if os.path.exists(folder))
    if os.access(existing, os.W_OK) and shutil.disk_usage(existing).free > 2 * size:
        return "disk"
    return "memory" if size < physical_memory() / 4 else "none"


Kept = tuple[Tensor | None, dict[int, str]]  # the squares, if they are kept, and what is bad


def _read(kept: Path, shape: tuple[int, ...]) -> Kept | None:
    """Read what was kept, squares of this shape if there are to be any; None if it is not there, or damaged."""
    try:
        bad = {int(number): why for number, why in json.loads((kept / BAD).read_text()).items()}
        if not shape:
            return None, bad
        # Copied when written to, as torch asks for; nobody writes.
        squares = torch.from_numpy(np.lib.format.open_memmap(kept / SQUARES, mode="c"))
    except (OSError, ValueError, AttributeError):
        return None
    return (squares, bad) if squares.shape == shape and squares.dtype == torch.uint8 else None


def _keep(decoder: Decoder, kept: Path, name: str, stop: bool, shape: tuple[int, ...]) -> Kept:
    """Write what is kept into a folder that takes its place when it is complete, and read it."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
    try:
        if not shape:
            bad = _scan(decoder, name, stop, _drop)
        else:
            # One after the other, not into mapped memory, where a full disk would end the process.
            with (part / SQUARES).open("wb") as file:
                np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                bad = _scan(decoder, name, stop, lambda number, square: file.write(square.tobytes()))
        (part / BAD).write_text(json.dumps(bad))
        part.chmod(0o755)
        try:
            os.rename(part, kept)
        except OSError:
            if _read(kept, shape) is None:  # damaged; else another process was faster
                shutil.rmtree(kept)
                os.rename(part, kept)
        found = _read(kept, shape)
        if found is None:
            raise OSError(errno.EIO, "what was written cannot be read")
        if shape:
            say(f"{len(decoder):,} decoded pictures are kept in {kept} ({math.prod(shape) / 2**20:,.0f} MiB)")
        return found
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _drop(number: int, square: NDArray[np.uint8]) -> None:
    """Drop a decoded image."""


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
    # No bar in a file.
    bar = tqdm(total=len(decoder), desc=f"decoding {name}", unit=" images", disable=None, leave=False)
    # Threads share the filters of warnings, so none of them may change these.
    with warnings.catch_warnings(action="ignore"), bar:
        try:
            for start in range(0, len(decoder), AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, len(decoder)))
                for number, image in zip(numbers, pool.map(attempt, numbers), strict=True):
                    if isinstance(image, ImageError):
                        bad[number] = str(image)
                        if stop:
                            _refuse(decoder, number, bad[number])
                        image = black
                    take(number, image)
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
    return bad


def _refuse(decoder: Decoder, number: int, why: str) -> NoReturn:
    remedy = "repair or remove it, or give `on_bad_image=skip`"
    raise DataError(f"{decoder.images.names[number]}: {why}", remedy, "path")
