"""Whatever is in a file comes out as upright RGB, or is named with what is wrong with it."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, features
from torchvision.transforms import v2

from datamodules.images import decoding as decode
from datamodules.images.decoding import ImageError, Interpolation, open_image, read_file, resize_and_crop, to_rgb
from tests.helpers.photos import BAD, bomb, chunk, encoded

# Four flat corners, so that they survive JPEG: red, green, blue and white.
CORNERS = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]]
SIDE = 16


def four() -> Image.Image:
    """Return an image of four rectangles, 48 wide and 32 high; the left ones are twice as wide."""
    small = np.array(CORNERS, np.uint8)
    return Image.fromarray(small.repeat(SIDE, 0).repeat([2 * SIDE, SIDE], 1))


def corners(image: Image.Image) -> NDArray[np.int_]:
    """Give the colors of the four corners, `(2, 2, 3)`."""
    assert image.mode == "RGB"
    array = np.asarray(image).astype(int)
    return array[[[4, 4], [-5, -5]], [[4, -5], [4, -5]]]


def assert_colors(image: Image.Image, expected: Any, within: int = 2) -> None:  # noqa: ANN401  # nested lists
    np.testing.assert_allclose(corners(image), np.array(expected), atol=within)


# How an image that is upright must have been stored under each orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_images_stand_upright(orientation: int, kind: str) -> None:
    turn = STORED[orientation]
    stored = four() if turn is None else four().transpose(turn)
    exif = Image.Exif()
    exif[274] = orientation
    image = to_rgb(encoded(stored, kind, exif=exif))
    assert image.size == (48, 32)
    assert_colors(image, CORNERS, within=8)


def _entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(">HHI", tag, kind, count) + value


def _exif(*entries: bytes) -> bytes:
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize(
    ("exif", "upright"),
    [
        (_exif(_entry(274, 3, 1, b"\0\x06\0\0"), _entry(282, 2, 1, b"\0\x06\0\0")), True),  # a resolution in words
        (_exif(_entry(255, 4, 1, b"\0\x06\0\0"), _entry(274, 3, 1, b"\0\x06\0\0")), True),  # a number too large
        (_exif(_entry(274, 3, 1, b"\0\x06\0\0"), _entry(0x8769, 9, 1, b"\xff" * 4)), True),  # a place before the file
        (_exif(_entry(274, 3, 1, b"\0\x63\0\0")), False),  # there are eight orientations, not 99
        (_exif(_entry(274, 2, 2, b"6\0\0\0")), False),
        (b"Exif\0\0garbage garbage", False),
        (b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12\0\x03", False),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_odd_metadata_are_no_damage(exif: bytes, upright: bool) -> None:
    stored = four().transpose(Image.Transpose.ROTATE_90)
    image = to_rgb(encoded(stored, "JPEG", exif=exif))
    assert image.size == ((48, 32) if upright else (32, 48))


def test_gray() -> None:
    assert_colors(to_rgb(encoded(four().convert("L"), "JPEG")), [[[76] * 3, [150] * 3], [[29] * 3, [255] * 3]])


def test_black_and_white() -> None:
    image = to_rgb(encoded(four().convert("L").point(lambda level: 255 * (level > 100)).convert("1"), "PNG"))
    assert_colors(image, [[[0] * 3, [255] * 3], [[0] * 3, [255] * 3]], within=0)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_palette(kind: str) -> None:
    assert_colors(to_rgb(encoded(four().quantize(4), kind)), CORNERS, within=0)


def _two_greens(transparent: bool) -> list[list[tuple[int, int, int]]]:
    found = [list(row) for row in CORNERS]
    found[0][1] = (255, 255, 255) if transparent else (0, 255, 0)
    return found


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_color_of_a_palette_is_white(kind: str) -> None:
    image = four().quantize(4)
    green = int(np.asarray(image)[4, -5])
    assert_colors(to_rgb(encoded(image, kind, transparency=green)), _two_greens(True), within=0)


def test_a_palette_of_half_transparent_colors() -> None:
    image = four().quantize(4)
    alpha = bytearray([255] * 4)
    alpha[int(np.asarray(image)[4, -5])] = 128
    expected = _two_greens(True)
    expected[0][1] = (127, 255, 127)
    assert_colors(to_rgb(encoded(image, "PNG", transparency=bytes(alpha))), expected, within=1)


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_a_transparent_color_without_a_palette_is_white(mode: str) -> None:
    image = Image.new(mode, (48, 32), 0)
    image.paste((255, 255, 255) if mode == "RGB" else 255, (0, 0, 24, 16))
    black = (0, 0, 0) if mode == "RGB" else 0
    assert_colors(to_rgb(encoded(image, "PNG", transparency=black)), np.full((2, 2, 3), 255), within=0)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_what_is_transparent_is_white(mode: str, kind: str) -> None:
    image = Image.new("RGB", (48, 32), "black").convert(mode)
    alpha = np.full((32, 48), 255, np.uint8)
    alpha[:16, :24], alpha[16:, 24:] = 0, 128
    image.putalpha(Image.fromarray(alpha))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert_colors(to_rgb(encoded(image, kind, **options)), [[[255] * 3, [0] * 3], [[0] * 3, [127] * 3]], within=1)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    assert_colors(to_rgb(encoded(four().convert("CMYK"), kind)), CORNERS, within=6)


def test_inverted_cmyk_as_adobe_writes_it() -> None:
    # A flat CMYK JPEG with Adobe's marker, whose inks Pillow writes inverted as Adobe does: full cyan is no red.
    image = Image.new("CMYK", (48, 32), (255, 0, 0, 0))
    content = encoded(image, "JPEG")
    assert b"Adobe" in content
    assert_colors(to_rgb(content), np.full((2, 2, 3), (0, 255, 255)), within=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF", "32-bit TIFF", "PPM"])
def test_16_bit_gray_keeps_its_range(kind: str) -> None:
    levels = np.array([[0, 20_000], [40_000, 65_535]], np.uint16).repeat(16, 0).repeat(24, 1)
    if kind == "big-endian TIFF":
        content = encoded(Image.frombytes("I;16B", (48, 32), levels.astype(">u2").tobytes()), "TIFF")
    elif kind == "32-bit TIFF":
        content = encoded(Image.fromarray(levels.astype(np.int32)), "TIFF")
    else:
        content = encoded(Image.fromarray(levels), kind)
    expected = [[[0] * 3, [78] * 3], [[156] * 3, [255] * 3]]
    assert_colors(to_rgb(content), expected, within=1)


def test_16_bit_colors() -> None:
    row = b"\0" + struct.pack(">6H", 0, 32_896, 65_535, 65_535, 32_896, 0)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert np.asarray(to_rgb(content)).tolist() == [[[0, 128, 255], [255, 128, 0]]]


def test_floating_point_gray() -> None:
    levels = np.array([[0, 0.5], [np.nan, 7.0]], np.float32).repeat(16, 0).repeat(24, 1)
    expected = [[[0] * 3, [128] * 3], [[0] * 3, [255] * 3]]
    assert_colors(to_rgb(encoded(Image.fromarray(levels), "TIFF")), expected, within=0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
def test_the_first_of_several_images(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(four(), kind, save_all=True, append_images=[Image.new("RGB", (48, 32))], **options)
    assert_colors(to_rgb(content), CORNERS, within=12)


@pytest.mark.parametrize("kind", ["JPEG2000", "TGA", "BMP", "PPM", "AVIF"])
def test_other_formats(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    assert_colors(to_rgb(encoded(four(), kind)), CORNERS, within=12)


def test_other_color_spaces() -> None:
    assert_colors(to_rgb(encoded(four().convert("YCbCr"), "TIFF")), CORNERS, within=4)


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_says_why(tmp_path: Path, case: str) -> None:
    write, ending, why = BAD[case]
    path = tmp_path / f"bad.{ending}"
    write(path)
    with pytest.raises(ImageError) as error:
        open_image(path)
    assert str(error.value).startswith(why)
    assert "\n" not in str(error.value)


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def run(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a program was run: {args}")

    monkeypatch.setattr(subprocess, "Popen", run)
    content = encoded(four(), "EPS")
    assert content.startswith(b"%!PS")
    for text in (
        content,
        b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, len(content), 0, 0, 0, 0) + b"\xff\xff" + content,
    ):
        with pytest.raises(ImageError, match="not an image of a known format"):
            to_rgb(text)
    with pytest.raises(ImageError, match="not an image of a known format"):
        to_rgb(b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(ImageError, match="not a regular file"):
        read_file(tmp_path / "a.jpg")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(decode.LARGEST_FILE + 1)  # it takes no room
    with pytest.raises(ImageError, match="larger than 1 GiB"):
        read_file(tmp_path / "a.jpg")


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"^cannot be read \(Permission denied\)$"):
        read_file(tmp_path / "a.jpg")


SEEDS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(four(), "JPEG"),
    "PNG": lambda: encoded(four(), "PNG"),
    "palette": lambda: encoded(four().quantize(4), "PNG", transparency=2),
    "GIF": lambda: encoded(four(), "GIF"),
    "BMP": lambda: encoded(four(), "BMP"),
    "WEBP": lambda: encoded(four(), "WEBP"),
    "PPM": lambda: encoded(four(), "PPM"),
    "TGA": lambda: encoded(four(), "TGA", compression="tga_rle"),
}


@pytest.mark.parametrize("kind", SEEDS)
@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_is_an_image_error(kind: str) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(SEEDS[kind](), np.uint8)
    outcomes = set()
    for _ in range(300):
        content = whole[: rng.integers(len(whole))] if rng.random() < 0.2 else whole
        content = content.copy()
        places = rng.integers(0, max(1, min(len(content), int(rng.choice([40, 200, 10**6])))), rng.integers(1, 20))
        if len(content):
            content[places] = rng.integers(0, 256, len(places))
        try:
            assert resize_and_crop(to_rgb(content.tobytes()), 8).shape == (3, 8, 8)
            outcomes.add("image")
        except ImageError:
            outcomes.add("none")
    assert "none" in outcomes


def test_warnings_are_as_before_when_threads_have_decoded(tmp_path: Path) -> None:
    from datamodules.images.decoded import Decoder, decode_all
    from datamodules.images.folder import ImageFiles

    exif = _exif(_entry(274, 3, 2, b"\0\x06\0\x06"))  # two orientations, of which Pillow warns
    for number in range(60):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(four(), "JPEG", exif=exif))
    files = ImageFiles(tmp_path, [Path(f"{number}.jpg") for number in range(60)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        for _ in range(5):
            decode_all(Decoder(files, 8, "bilinear"), "memory", tmp_path, "name", stop=True)
        Decoder(files, 8, "bilinear").index_select(0, torch.tensor([3, 5]))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(to_rgb, [encoded(four(), "PNG")] * 100))
        assert list(warnings.filters) == before
    assert not caught


# To one size


def torchvision_crop(image: Image.Image, size: int, interpolation: Interpolation) -> NDArray[np.int_]:
    mode = v2.InterpolationMode(interpolation)
    crop = v2.Compose([v2.Resize(size, mode), v2.CenterCrop(size)])(image)
    return np.asarray(crop).transpose(2, 0, 1).astype(int)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_those_of_torchvision_on_photographs(data_dir: str, interpolation: Interpolation) -> None:
    photos = sorted(Path(data_dir, "hymenoptera_data").rglob("*.jpg"))[::40]
    assert len(photos) > 5
    for path in photos:
        image = to_rgb(read_file(path))
        for size in (37, 224):
            difference = resize_and_crop(image, size, interpolation) - torchvision_crop(image, size, interpolation)
            # Cubic weights overshoot, and Pillow cuts off between its two passes, whose order depends on the shape.
            within = 1 if interpolation == "bilinear" else 8
            assert abs(difference).max() <= within, path
            assert (abs(difference) > 1).mean() < 0.005, path


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (300, 1), (7, 901), (901, 7), (31, 33), (32, 33), (33, 32), (500, 32)]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_those_of_torchvision_for_any_shape(size: tuple[int, int], interpolation: Interpolation) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).resize(size, Image.Resampling.BILINEAR)
    for side in (1, 16, 32, 33):
        difference = resize_and_crop(image, side, interpolation) - torchvision_crop(image, side, interpolation)
        assert abs(difference).max() <= 1


def test_nearest_takes_pixels_as_they_are() -> None:
    crop = resize_and_crop(four(), 16, "nearest")
    assert {tuple(pixel) for pixel in crop.reshape(3, -1).T.tolist()} <= {tuple(c) for row in CORNERS for c in row}


def test_a_row_of_a_million_pixels_is_no_danger() -> None:
    crop = resize_and_crop(Image.new("RGB", (1_000_000, 1), "red"), 256)  # resized whole it would be 200 GB
    assert (crop == np.array([255, 0, 0])[:, None, None]).all()


# What holds an image


def _arrays() -> dict[str, Any]:
    array = np.asarray(four())
    return {
        "PIL": four(),
        "bytes": encoded(four(), "PNG"),
        "HWC": array,
        "CHW": array.transpose(2, 0, 1),
        "tensor": torch.from_numpy(array.copy()),
        "RGBA": np.asarray(four().convert("RGBA")),
        "list of rows": None,
    }


@pytest.mark.parametrize("kind", ["PIL", "bytes", "HWC", "CHW", "tensor", "RGBA"])
def test_whatever_holds_an_image_is_opened(kind: str) -> None:
    assert_colors(open_image(_arrays()[kind]), CORNERS, within=0)


@pytest.mark.parametrize("shape", [(32, 48), (1, 32, 48), (32, 48, 1)])
def test_gray_arrays(shape: tuple[int, ...]) -> None:
    image = open_image(np.asarray(four().convert("L")).reshape(shape))
    assert_colors(image, [[[76] * 3, [150] * 3], [[29] * 3, [255] * 3]], within=1)


@pytest.mark.parametrize("name", ["a.png", Path("a.png")])
def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path) -> None:
    monkeypatch.chdir(tmp_path)
    four().save("a.png")
    assert_colors(open_image(name), CORNERS, within=0)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (None, "an array of object, not of uint8 from 0 to 255"),
        (np.zeros((4, 4, 3), np.float32), "an array of float32, not of uint8"),
        ([[1, 2], [3, 4]], "an array of int64, not of uint8"),
        (io.BytesIO(b"x"), "an array of object, not of uint8"),
        (bytearray(b"some bytes"), r"an array of shape \(10,\) is not an image"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of shape \(0, 4, 3\) is not an image"),
        (np.zeros((), np.uint8), r"an array of shape \(\) is not an image"),
        (np.zeros((2, 5, 5, 3), np.uint8), r"an array of shape \(2, 5, 5, 3\) is not an image"),
        (np.zeros((5, 5, 7), np.uint8), r"an array of shape \(5, 5, 7\) is not an image"),
        (Image.new("RGB", (0, 0)), "damaged"),
        (b"", "the file is empty"),
        (b"text", "not an image of a known format"),
        (bomb(), "a decompression bomb"),
        ("", "not a regular file"),
        ("a\0b", "not a regular file"),
        ("nowhere.jpg", "not a regular file"),
    ],
)
def test_what_holds_no_image_says_why(raw: Any, why: str) -> None:  # noqa: ANN401  # anything
    with pytest.raises(ImageError, match=f"^{why}"):
        open_image(raw)


def test_an_image_that_pillow_has_only_begun_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(four(), "JPEG")[:-10])
    with pytest.raises(ImageError, match="damaged"):
        open_image(Image.open(tmp_path / "a.jpg"))
