"""Small folders of images whose classes can be learned, and files that are no images, in eleven ways."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(label: int, number: int, height: int = 24, width: int = 24) -> NDArray[np.uint8]:
    """Make the pixels of an image, `(height, width, 3)`: noise on gray, and one channel that tells the class."""
    rng = np.random.default_rng((label, number))
    image = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    image[..., label % 3] += np.uint8(120)
    return image


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """Encode an image."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def write_photos(
    root: Path, classes: Sequence[str] = ("ants", "bees", "cats"), count: int = 20, first: int = 0, ending: str = "png"
) -> Path:
    """Write `count` images of each class into folders of its own, `root/CLASS/NUMBER.ending`, and give `root`."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            image = Image.fromarray(pixels(label, number, 24 + number % 9, 24 + number % 5))
            image.save(root / name / f"{number:04}.{ending}")
    return root


def chunk(kind: bytes, content: bytes) -> bytes:
    """Make a part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb() -> bytes:
    """Make a PNG of a few bytes that would become 10 GB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _jpeg() -> bytes:
    return encoded(Image.fromarray(pixels(0, 0, 64, 64)), "JPEG")


def _png() -> bytes:
    return encoded(Image.fromarray(pixels(0, 0, 64, 64)), "PNG")


def _broken_header() -> bytes:
    png = bytearray(_png())
    png[30] ^= 255  # in the checksum of the header
    return bytes(png)


def _writing(make: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(make()))


def void(_: object) -> None:
    """Forget a value."""


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(owned) (w) file closefile showpage\n"
NO_FORMAT = "not an image of a known format"

# How each is written, its ending, and what is said of it.
BAD: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "truncated JPEG": (_writing(lambda: _jpeg()[:900]), "jpg", "damaged (image file is truncated"),
    "truncated PNG": (_writing(lambda: _png()[:900]), "png", "damaged (image file is truncated"),
    "zero bytes": (_writing(lambda: b""), "jpg", "the file is empty"),
    "text": (_writing(lambda: b"Not Found: 404\n" * 30), "jpg", NO_FORMAT),
    "bomb": (_writing(bomb), "png", "a decompression bomb (Image size (3600000000 pixels) exceeds"),
    "dangling link": (lambda path: path.symlink_to("/nowhere/at/all.jpg"), "jpg", "not a regular file"),
    "FIFO": (lambda path: os.mkfifo(path), "jpg", "not a regular file"),
    "checksum": (_writing(_broken_header), "png", NO_FORMAT),
    "PostScript": (_writing(lambda: EPS), "jpg", NO_FORMAT),
    "random bytes": (_writing(lambda: np.random.default_rng(0).bytes(3000)), "webp", NO_FORMAT),
    "HEIC": (
        _writing(lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)),
        "heic",
        "HEIC or the like is not read",
    ),
}
