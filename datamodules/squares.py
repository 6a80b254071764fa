"""Many pictures: found in files, decoded in parallel, once, and kept where a batch of them is one indexing."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from torch import Tensor
from tqdm import tqdm

from datamodules.batches import Store
from datamodules.decode import Interpolation, PictureError, read_file, to_rgb, to_square
from datamodules.errors import DataError
from datamodules.own import physical_memory
from datamodules.transforms import transform_batch

Cache = Literal["auto", "memory", "disk", "none"]

# By their names, as a folder of pictures holds other things too: thumbnail databases, lists, licences.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *(".avif", ".jp2", ".tga", ".heic", ".heif"),
)
FORMAT = 1  # of what is in a cache; another number makes older files unknown
SQUARES, BAD = "squares.npy", "bad.json"  # of a cache; the second is there only when all is complete
AT_ONCE = 256  # pictures that are decoded before the first of them is written


class Pictures(Protocol):
    """Pictures by number, not decoded yet."""

    @property
    def names(self) -> Sequence[str]:
        """What each is called."""

    def read(self, number: int) -> bytes:
        """Give what is in a picture's file.

        Raises:
            PictureError: If it cannot be read.
        """


class PictureFiles:
    """Pictures in files.

    Args:
        root: The folder in which they are.
        files: Their paths below it.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.files = files
        self.names = [str(file) for file in files]

    def read(self, number: int) -> bytes:
        """Give what is in a file."""
        return read_file(self.root / self.files[number])


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
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in EXTENSIONS:
                found.append((Path(folder) / name).relative_to(root))
            else:
                others += 1
    return sorted(found), others


def _raise(error: OSError) -> None:
    raise error


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
            PictureError: If it is none.
        """
        return to_square(to_rgb(self.pictures.read(number)), self.size, self.interpolation)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decode a batch, `index` of shape `(B,)`, as `Tensor.index_select` would take it."""
        try:
            return torch.from_numpy(np.stack([self.decode(number) for number in index.tolist()]))
        except PictureError as error:  # all were looked at once: this one has changed since
            raise DataError(f"--data.path: a picture that was good is {error}; leave the files as they are.") from None

    @cached_property
    def fingerprint(self) -> str:
        """What the content of all pictures hashes to; one that cannot be read counts as empty."""

        def digest(number: int) -> bytes:
            try:
                return hashlib.sha256(self.pictures.read(number)).digest()
            except PictureError:
                return b""

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and reading wait for no other thread
            return hashlib.sha256(b"".join(pool.map(digest, range(len(self))))).hexdigest()

    @property
    def key(self) -> str:
        """Name of what is kept of these pictures: by their content and all that makes squares of it."""
        made = (FORMAT, pillow_version, self.size, self.interpolation, self.fingerprint)
        return hashlib.sha256(repr(made).encode()).hexdigest()[:24]


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
    shape = (len(decoder), 3, decoder.size, decoder.size)
    if cache == "auto":
        cache = choose_cache(math.prod(shape), cache_dir)
    if cache == "memory":
        squares = np.zeros(shape, np.uint8)
        return Decoded(torch.from_numpy(squares), _scan(decoder, name, stop, squares.__setitem__))
    kept = cache_dir / f"{name}-{decoder.key}{'' if cache == 'disk' else '-looked-at'}"
    if not (kept / BAD).is_file():
        try:
            _keep(decoder, kept, name, stop, shape if cache == "disk" else None)
        except OSError as error:
            raise DataError(
                f"--data.cache {cache}: {cache_dir} cannot be written ({error.strerror}); give another "
                "--data.cache_dir, or --data.cache memory."
            ) from error
    bad = {int(number): why for number, why in json.loads((kept / BAD).read_text()).items()}
    if bad and stop:
        _refuse(decoder, *next(iter(bad.items())))
    if cache == "none":
        return Decoded(decoder, bad)
    # Copied when written to, as torch asks for; nobody writes.
    return Decoded(torch.from_numpy(np.load(kept / SQUARES, mmap_mode="c")), bad)


def choose_cache(size: int, cache_dir: Path) -> Cache:
    """Choose where `size` bytes are kept."""
    existing = next(folder for folder in (cache_dir, *cache_dir.parents) if folder.exists())
    if os.access(existing, os.W_OK) and shutil.disk_usage(existing).free > 2 * size:
        return "disk"
    return "memory" if size < physical_memory() / 4 else "none"


def _keep(decoder: Decoder, kept: Path, name: str, stop: bool, shape: tuple[int, ...] | None) -> None:
    """Write what is kept into a folder that takes its place when it is complete."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
    try:
        if shape is None:
            bad = _scan(decoder, name, stop, lambda number, square: None)
        else:
            # One after the other, not into mapped memory, where a full disk would end the process.
            with (part / SQUARES).open("wb") as file:
                np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                bad = _scan(decoder, name, stop, lambda number, square: file.write(square.tobytes()))
        (part / BAD).write_text(json.dumps(bad))
        part.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(part, kept)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _scan(decoder: Decoder, name: str, stop: bool, take: Callable[[int, NDArray[np.uint8]], object]) -> dict[int, str]:
    """Decode all pictures in parallel, hand the squares on in their order, and say what is bad."""

    def attempt(number: int) -> NDArray[np.uint8] | PictureError:
        try:
            return decoder.decode(number)
        except PictureError as error:
            return error

    bad: dict[int, str] = {}
    black = np.zeros((3, decoder.size, decoder.size), np.uint8)
    pool = ThreadPoolExecutor(os.cpu_count())  # decoding and resizing wait for no other thread
    # No bar in a file.
    bar = tqdm(total=len(decoder), desc=f"decoding {name}", unit=" pictures", disable=None, leave=False)
    try:
        for start in range(0, len(decoder), AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, len(decoder)))
            for number, square in zip(numbers, pool.map(attempt, numbers), strict=True):
                if isinstance(square, PictureError):
                    bad[number] = str(square)
                    if stop:
                        _refuse(decoder, number, bad[number])
                    square = black
                take(number, square)
                bar.update()
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)
    return bad


def _refuse(decoder: Decoder, number: int, why: str) -> NoReturn:
    raise DataError(
        f"--data.path: {decoder.pictures.names[number]}: {why}; mend or remove it, or give --data.on_bad_image skip."
    )
