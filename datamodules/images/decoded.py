"""Many pictures: decoded in parallel, once, and kept where a batch of them is one indexing."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from torch import Tensor
from tqdm import tqdm

from datamodules.cache import Cache
from datamodules.errors import DataError
from datamodules.images.decoding import ImageError, Interpolation, to_rgb, to_square
from datamodules.images.transforms import transform_batch
from datamodules.sampler import Store
from datamodules.user_data import available_cores, physical_memory, say

CacheMode = Literal["auto", "memory", "disk", "none"]

FORMAT = 2  # of what is cached; another number makes older files unknown
AT_ONCE = 256  # pictures that are decoded before the first of them is written


class Pictures(Protocol):
    """Pictures by number, not decoded yet."""

    @property
    def names(self) -> Sequence[str]:
        """What each is called."""

    def read(self, number: int) -> bytes:
        """Give what is in a picture's file.

        Raises:
            ImageError: If it cannot be read.
        """


class Decoder:
    """Squares `(3, size, size)`, uint8, made from pictures when they are asked for.

    Args:
        pictures: The pictures.
        size: Height and width of a square, in pixels.
        interpolation: How pixels are weighed.
    """

    def __init__(self, pictures: Pictures, size: int, interpolation: Interpolation) -> None:
        self.pictures = pictures
        self.size = size
        self.interpolation: Interpolation = interpolation

    def __len__(self) -> int:
        return len(self.pictures.names)

    def decode(self, number: int) -> NDArray[np.uint8]:
        """Decode one picture.

        Raises:
            ImageError: If it is none.
        """
        return to_square(to_rgb(self.pictures.read(number)), self.size, self.interpolation)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decode a batch, `index` of shape `(B,)`, as `Tensor.index_select` would take it."""
        squares = []
        # A large photograph is no bomb yet, and odd metadata are no damage.
        with warnings.catch_warnings(action="ignore"):
            for number in index.tolist():
                try:
                    squares.append(self.decode(number))
                except ImageError as error:  # all were looked at once
                    raise DataError(
                        f"--data.path: {self.pictures.names[number]} has changed since it was looked at: {error}; "
                        "leave the files as they are."
                    ) from None
        return torch.from_numpy(np.stack(squares))

    @cached_property
    def fingerprint(self) -> str:
        """What the content of all pictures hashes to; one that cannot be read counts as empty."""

        def digest(number: int) -> bytes:
            try:
                return hashlib.sha256(self.pictures.read(number)).digest()
            except ImageError:
                return b""

        with ThreadPoolExecutor(available_cores()) as pool:  # hashing and reading wait for no other thread
            return hashlib.sha256(b"".join(pool.map(digest, range(len(self))))).hexdigest()


class Transformed:
    """Some of many squares, as a chain of transforms leaves them; it is indexed like a tensor.

    Args:
        squares: All squares, `(N, 3, S, S)`.
        rows: Which of them these are, `(n,)`.
        transforms: What is done to every batch.
    """

    def __init__(self, squares: Store, rows: Tensor, transforms: Sequence[Any] = ()) -> None:
        self.squares = squares
        self.rows = rows
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.rows)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Take a batch, `index` of shape `(B,)`."""
        return transform_batch(self.transforms, self.squares.index_select(dim, self.rows[index]))


class Decoded(NamedTuple):
    """What gives squares when it is indexed by a tensor, and why some pictures have none, by their numbers."""

    squares: Tensor | Decoder
    bad: dict[int, str]


def decode_all(decoder: Decoder, cache: CacheMode, cache_dir: Path, name: str, stop: bool) -> Decoded:
    """Decode every picture once, in parallel, and keep what comes out; or take what was kept the last time.

    Args:
        decoder: Makes the squares.
        cache: Where they are kept: `disk`, in a memory-mapped file; `memory`; or `none`, which only looks at each
            picture, and decodes it again whenever it is asked for. `auto` is the disk if there is twice the room, else
            a quarter of the memory, else none.
        cache_dir: The folder of such files.
        name: What the images are called while they are decoded.
        stop: Whether the first bad picture ends it all.

    Returns:
        The squares, those of bad pictures black, and what is bad.

    Raises:
        DataError: If a picture is bad and `stop` is true, or the cache cannot be written.
    """
    shape = len(decoder), 3, decoder.size, decoder.size
    files = Cache(cache_dir)
    made_from = FORMAT, pillow_version, decoder.size, decoder.interpolation, decoder.fingerprint
    squares_file, bad_file = (files.path("images", suffix, *made_from) for suffix in (".npy", ".json"))
    load = partial(_load, shape=shape)
    mode = cache
    if cache == "auto":
        mode = "disk" if squares_file.is_file() else choose_cache(math.prod(shape), cache_dir)
    if mode == "memory":
        resident = np.zeros(shape, np.uint8)
        return Decoded(torch.from_numpy(resident), _scan(decoder, name, stop, resident.__setitem__))
    bad = files.read(bad_file, _load_bad)
    squares = files.read(squares_file, load) if mode == "disk" and bad is not None else None
    if mode == "disk" and squares is None:

        def write(path: Path) -> None:
            with path.open("wb") as file:
                # One after the other, not into mapped memory, where a full disk would end the process.
                np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                found = _scan(decoder, name, stop, lambda number, square: file.write(square.tobytes()))
            files.write(bad_file, partial(_save_bad, bad=found))

        try:
            (files.write if cache == "disk" else files.keep)(squares_file, write)
        except OSError as error:
            raise DataError(
                f"{cache_dir} cannot be written ({error.strerror})",
                "give another `cache_dir`, or `cache='memory'`",
                "cache",
                cache,
            ) from error
        bad, squares = files.read(bad_file, _load_bad), files.read(squares_file, load)
        if squares is not None:
            say(f"{len(decoder):,} decoded pictures are kept in {squares_file} ({math.prod(shape) / 2**20:,.0f} MiB)")
    if bad is None:
        bad = _scan(decoder, name, stop, _drop)
        files.keep(bad_file, partial(_save_bad, bad=bad))
    if bad and stop:
        _refuse(decoder, *next(iter(bad.items())))
    return Decoded(decoder if squares is None else squares, bad)


def choose_cache(size: int, cache_dir: Path) -> CacheMode:
    """Choose where `size` bytes are kept."""
    if Cache(cache_dir).has_room(size):
        return "disk"
    return "memory" if size < physical_memory() / 4 else "none"


def _load(path: Path, shape: tuple[int, ...]) -> Tensor:
    # Copied when written to, as torch asks for; nobody writes.
    squares = torch.from_numpy(np.lib.format.open_memmap(path, mode="c"))
    if squares.shape != shape or squares.dtype != torch.uint8:
        raise ValueError(f"{path}: these are no squares of shape {shape}")
    return squares


def _save_bad(path: Path, bad: dict[int, str]) -> None:
    path.write_text(json.dumps(bad))


def _load_bad(path: Path) -> dict[int, str]:
    return {int(number): why for number, why in json.loads(path.read_text()).items()}


def _drop(number: int, square: NDArray[np.uint8]) -> None:
    """Keep nothing of a square."""


def _scan(decoder: Decoder, name: str, stop: bool, take: Callable[[int, NDArray[np.uint8]], object]) -> dict[int, str]:
    """Decode all pictures in parallel, hand the squares on in their order, and say what is bad."""

    def attempt(number: int) -> NDArray[np.uint8] | ImageError:
        try:
            return decoder.decode(number)
        except ImageError as error:
            return error

    bad: dict[int, str] = {}
    black = np.zeros((3, decoder.size, decoder.size), np.uint8)
    pool = ThreadPoolExecutor(available_cores())  # decoding and resizing wait for no other thread
    # No bar in a file.
    bar = tqdm(total=len(decoder), desc=f"decoding {name}", unit=" pictures", disable=None, leave=False)
    # Threads share the filters of warnings, so that none of them may change these.
    with warnings.catch_warnings(action="ignore"), bar:
        try:
            for start in range(0, len(decoder), AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, len(decoder)))
                for number, square in zip(numbers, pool.map(attempt, numbers), strict=True):
                    if isinstance(square, ImageError):
                        bad[number] = str(square)
                        if stop:
                            _refuse(decoder, number, bad[number])
                        square = black
                    take(number, square)
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
    return bad


def _refuse(decoder: Decoder, number: int, why: str) -> NoReturn:
    raise DataError(
        f"--data.path: {decoder.pictures.names[number]}: {why}; mend or remove it, or give --data.on_bad_image skip."
    )
