"""Decode one image: from the bytes of a file, whatever its format, to upright RGB of one size."""

import contextlib
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

Interpolation = Literal["nearest", "bilinear", "bicubic"]

# Detected from the content. PostScript is not opened: Pillow has Ghostscript run it.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
LARGEST_FILE = 2**30  # bytes; nothing larger is an image

# The transpositions that make an image upright, by its EXIF orientation.
_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(Exception):
    """Something that is not an image, or a damaged one: the message says why."""


def read_file(path: Path) -> bytes:
    """Read a file; raise an `ImageError` if it cannot be read, or cannot be an image."""
    try:
        if not path.is_file():  # a pipe, which would never end, or a link to nothing
            raise ImageError("not a regular file")
        if path.stat().st_size > LARGEST_FILE:
            raise ImageError("larger than 1 GiB")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error


def to_rgb(content: bytes) -> Image.Image:
    """Decode the bytes of a file: upright, 8-bit RGB, whatever its mode, depth and orientation; the first of several.

    Raises:
        ImageError: If it cannot be decoded, or would be larger than Pillow's limit for decompression bombs.
    """
    if not content:
        raise ImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        is_heic = content[4:8] == b"ftyp"  # as AVIF begins, which Pillow knows
        why = "HEIC or the like is not read, convert it to JPEG" if is_heic else "not an image of a known format"
        raise ImageError(why) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"a decompression bomb ({error})") from error
    except Exception as error:
        raise _damage(error) from error
    return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB, upright by its EXIF orientation.

    16-bit gray is scaled to 8 bits, floating-point gray is taken to be in [0, 1], and transparent pixels are blended
    with white.

    Raises:
        ImageError: If it is damaged.
    """
    try:
        image.load()
        if not all(image.size):
            raise ValueError("no pixels")
        turn = None
        # Not ImageOps.exif_transpose, which writes all metadata again, and fails at a single malformed entry.
        with contextlib.suppress(Exception):  # malformed metadata are not damage
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        return _to_8_bits(image if turn is None else image.transpose(turn))
    except Exception as error:
        raise _damage(error) from error


def _damage(error: Exception) -> ImageError:
    """Return the error for a damaged image; decoders raise SyntaxError, struct.error, EOFError and others."""
    if isinstance(error, MemoryError):
        raise error
    return ImageError(f"damaged ({' '.join(str(error).split()) or type(error).__name__})")


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would clip 16 bits at 255
        levels = np.nan_to_num(np.asarray(image))
        levels = levels.clip(0, 1) * 255 if image.mode == "F" else levels.clip(0, 65535) / 257
        return Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, size: int, interpolation: Interpolation = "bilinear") -> NDArray[np.uint8]:
    """Resize the shorter side to `size` and crop the center: torchvision's `Resize` and `CenterCrop` in one step.

    Only the pixels of the crop are computed, so an image of one row and a million columns takes no memory.

    Args:
        image: An RGB image.
        size: Height and width of the result, `(3, size, size)`, in pixels.
        interpolation: How pixels are weighted; all but `nearest` are antialiased.
    """
    short = min(image.size)
    # torchvision cuts the longer side's size down to an integer, then rounds half the rest.
    sides = [int(size * side / short) for side in image.size]
    starts = [round((side - size) / 2) for side in sides]
    scales = [old / new for old, new in zip(image.size, sides, strict=True)]
    left, top = (start * scale for start, scale in zip(starts, scales, strict=True))
    right, bottom = ((start + size) * scale for start, scale in zip(starts, scales, strict=True))
    box = (left, top, min(right, image.width), min(bottom, image.height))
    cut = image.resize((size, size), Image.Resampling[interpolation.upper()], box)
    return np.ascontiguousarray(np.asarray(cut).transpose(2, 0, 1))


def open_image(raw: Any) -> Image.Image:  # noqa: ANN401  # whatever holds an image
    """Return upright RGB of whatever holds an image; raise an `ImageError` if nothing does.

    Args:
        raw: A path, the bytes of a file, a PIL image, or a uint8 array `(H, W)`, `(H, W, C)` or `(C, H, W)`.
    """
    if isinstance(raw, (str, Path)):
        return to_rgb(read_file(Path(raw)))
    if isinstance(raw, bytes):
        return to_rgb(raw)
    if isinstance(raw, Image.Image):
        return upright_rgb(raw)
    array = np.asarray(raw)
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype}, not of uint8 from 0 to 255")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or not array.size:
        raise ImageError(f"an array of shape {array.shape} is not an image")
    try:
        return upright_rgb(Image.fromarray(array.squeeze(2) if array.shape[2:] == (1,) else array))
    except (TypeError, ValueError) as error:
        raise ImageError(f"an array of shape {array.shape} is not an image") from error
