"""Images are decoded once and kept; what is kept is found by content, whole or not at all."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.errors import DataError
from datamodules.images import decoded as module
from datamodules.images.decoded import CacheMode, Decoded, Decoder, choose_cache, decode_all
from datamodules.images.decoding import ImageError, open_image, resize_and_crop
from datamodules.images.folder import ImageFiles, find_images
from tests.helpers.photos import BAD, encoded, pixels, write_photos

SIZE = 16


def decoder(root: Path, size: int = SIZE, interpolation: Any = "bilinear") -> Decoder:  # noqa: ANN401  # a literal
    return Decoder(ImageFiles(root, find_images(root)[0]), size, interpolation)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", count=5)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decode(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Tensor, int]]:
    """Decode a folder; return all images, and how often an image was decoded."""
    count = 0
    real = Decoder.decode

    def counted(self: Decoder, number: int) -> Any:  # noqa: ANN401  # an array
        nonlocal count
        count += 1
        return real(self, number)

    monkeypatch.setattr(Decoder, "decode", counted)

    def run(root: Path, cache: CacheMode = "disk", stop: bool = True, **options: Any) -> tuple[Tensor, int]:
        nonlocal count
        count = 0
        found = decode_all(decoder(root, **options), cache, cache_dir, root.name, stop)
        times = count
        return found.images.index_select(0, torch.arange(len(find_images(root)[0]))).clone(), times

    return run


Decode = Callable[..., tuple[Tensor, int]]


def files_of(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
def test_every_cache_holds_the_same_images(photos: Path, decode: Decode, cache: CacheMode) -> None:
    expected = [resize_and_crop(open_image(photos / path), SIZE) for path in find_images(photos)[0]]
    found, times = decode(photos, cache)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), np.stack(expected))
    assert times == 15
    again, times = decode(photos, cache)
    assert torch.equal(again, found)
    assert times == {"disk": 0, "memory": 15, "none": 0}[cache]


def test_memory_writes_nothing(photos: Path, decode: Decode, cache_dir: Path) -> None:
    decode(photos, "memory")
    assert not cache_dir.exists()


def test_nothing_is_kept_but_what_was_looked_at(photos: Path, decode: Decode, cache_dir: Path) -> None:
    decode(photos, "none")
    assert files_of(cache_dir) == [".json"]


def test_a_cache_is_found_by_content(photos: Path, decode: Decode, tmp_path: Path) -> None:
    first, _ = decode(photos)
    moved = tmp_path / "elsewhere" / "other name"
    moved.parent.mkdir()
    photos.rename(moved)
    again, times = decode(moved)
    assert times == 0
    assert torch.equal(first, again)
    (moved / "ants").rename(moved / "ANTS")  # still the first
    for number, path in enumerate(sorted((moved / "cats").iterdir())):
        path.rename(path.with_name(f"x{number}.PNG"))
    os.utime(moved / "ANTS" / "0000.png", (0, 0))
    assert decode(moved)[1] == 0


def test_one_byte_makes_another_cache(photos: Path, decode: Decode) -> None:
    first, _ = decode(photos)
    Image.fromarray(pixels(7, 7)).save(photos / "bees" / "0002.png")
    again, times = decode(photos)
    assert times == 15
    assert (first != again).flatten(1).any(1).nonzero().flatten().tolist() == [7]
    with (photos / "bees" / "0003.png").open("ab") as file:
        file.write(b"\0")
    assert decode(photos)[1] == 15


@pytest.mark.parametrize("options", [{"size": 15}, {"interpolation": "nearest"}, {"interpolation": "bicubic"}])
def test_other_settings_make_another_cache(photos: Path, decode: Decode, options: dict[str, Any]) -> None:
    first, _ = decode(photos)
    again, times = decode(photos, **options)
    assert times == 15
    assert again.shape != first.shape or not torch.equal(again, first)
    assert decode(photos)[1] == 0


def test_another_order_makes_another_cache(photos: Path, decode: Decode) -> None:
    first, _ = decode(photos)
    (photos / "ants").rename(photos / "zebras")
    again, times = decode(photos)
    assert times == 15
    assert torch.equal(again, first.roll(-5, 0))


def test_another_pillow_makes_another_cache(photos: Path, decode: Decode, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(photos)
    monkeypatch.setattr(module, "pillow_version", "99.0")
    assert decode(photos)[1] == 15


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
@pytest.mark.parametrize("cache", ["disk", "none"])
def test_what_was_interrupted_is_not_taken_for_complete(
    photos: Path,
    decode: Decode,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    cache: CacheMode,
) -> None:
    real = resize_and_crop
    calls = 0

    def stop(*args: Any) -> Any:  # noqa: ANN401  # an array
        nonlocal calls
        calls += 1
        if calls == 9:
            raise error
        return real(*args)

    monkeypatch.setattr(module, "resize_and_crop", stop)
    with pytest.raises(error):
        decode(photos, cache)
    assert files_of(cache_dir) == []
    monkeypatch.setattr(module, "resize_and_crop", real)
    assert decode(photos, cache)[1] == 15


def _replace(images: Path, bad: Path) -> None:
    bad.unlink()
    images.unlink()


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "truncated images": lambda images, bad: os.truncate(images, 1000),
    "empty images": lambda images, bad: os.truncate(images, 0),
    "no images": lambda images, bad: images.unlink(),
    "garbage images": lambda images, bad: images.write_bytes(b"garbage" * 1000),
    "images of other data": lambda images, bad: np.save(images, np.zeros((3, 3, SIZE, SIZE), np.uint8)),
    "images of another type": lambda images, bad: np.save(images, np.zeros((15, 3, SIZE, SIZE), np.int8)),
    "objects": lambda images, bad: np.save(images, np.array([None, {}]), allow_pickle=True),
    "garbage list": lambda images, bad: bad.write_bytes(b"\xff{garbage"),
    "empty list": lambda images, bad: bad.write_text(""),
    "another list": lambda images, bad: bad.write_text("[1, 2]"),
    "list of words": lambda images, bad: bad.write_text('{"one": "why"}'),
    "no list": lambda images, bad: bad.unlink(),
    "nothing": _replace,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_anew(photos: Path, decode: Decode, cache_dir: Path, damage: str) -> None:
    first, _ = decode(photos)
    bad, kept = sorted(cache_dir.iterdir(), key=lambda path: path.suffix)
    DAMAGE[damage](kept, bad)
    again, times = decode(photos)
    assert times == 15
    assert torch.equal(again, first)
    assert decode(photos)[1] == 0
    assert files_of(cache_dir) == [".json", ".npy"]


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_folder_in_the_place_of_a_cache_is_one_line(
    photos: Path, decode: Decode, cache_dir: Path, suffix: str
) -> None:
    decode(photos)
    (kept,) = cache_dir.glob(f"*{suffix}")
    kept.unlink()
    kept.mkdir()
    with pytest.raises(DataError, match=r"cache='disk': .* cannot be written \(Is a directory\); give another"):
        decode(photos)
    assert kept.is_dir()


def test_a_cache_that_may_only_be_read_is_read(
    photos: Path, decode: Decode, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = decode(photos)

    def refuse(*args: Any, **kwargs: Any) -> None:  # root may write everywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for cache in ("disk", "auto"):
        again, times = decode(photos, cache)
        assert times == 0
        assert torch.equal(again, first)
    with pytest.raises(DataError, match=r"cache='disk': .*cache cannot be written \(Permission denied\)"):
        decode(photos, "disk", size=8)
    for cache in ("auto", "none", "memory"):  # these need no file
        assert decode(photos, cache, size=8)[0].shape == (15, 3, 8, 8)


def test_a_full_disk_leaves_nothing(photos: Path, decode: Decode, cache_dir: Path) -> None:
    resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(DataError, match=r"cache='disk': .*cache cannot be written \(File too large\); give an"):
            decode(photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(cache_dir.iterdir())
    assert decode(photos)[1] == 15


def test_a_place_for_the_cache_is_chosen(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "physical_memory", lambda: 4000.0)
    usage = shutil.disk_usage(cache_dir.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2001))
    assert choose_cache(1000, cache_dir) == "disk"
    assert choose_cache(1001, cache_dir) == "none"
    assert choose_cache(999, cache_dir / "a" / "b") == "disk"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    assert choose_cache(999, cache_dir) == "memory"
    assert choose_cache(1000, cache_dir) == "none"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert choose_cache(999, cache_dir) == "memory"
    assert not cache_dir.exists()


def test_what_is_on_the_disk_already_needs_no_more_room(
    photos: Path, decode: Decode, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(photos)
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert decode(photos, "auto")[1] == 0


def _decode_slowly(root: Path, cache_dir: Path, start: Any, results: Any) -> None:  # noqa: ANN401  # of processes
    start.wait()
    found = decode_all(decoder(root), "disk", cache_dir, "photos", stop=True)
    # By NumPy: torch's threads do not live on in a forked process, and it would die of their absence.
    assert isinstance(found.images, Tensor)
    results.put(int(found.images.numpy().sum()) if len(found.images) == 60 else -1)


def test_processes_at_once_agree(tmp_path: Path, cache_dir: Path) -> None:
    root = write_photos(tmp_path / "photos", count=20)
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    running = [context.Process(target=_decode_slowly, args=(root, cache_dir, start, results)) for _ in range(3)]
    for process in running:
        process.start()
    sums = {results.get(timeout=120) for _ in running}
    for process in running:
        process.join()
        assert process.exitcode == 0
    assert len(sums) == 1
    assert files_of(cache_dir) == [".json", ".npy"]


def test_writing_to_images_does_not_change_the_cache(photos: Path, decode: Decode, cache_dir: Path) -> None:
    first, _ = decode(photos)
    found = decode_all(decoder(photos), "disk", cache_dir, "photos", stop=True).images
    assert isinstance(found, Tensor)
    found.zero_()
    assert torch.equal(decode(photos)[0], first)


# What is bad


def bad_photos(root: Path) -> list[str]:
    for number, (write, ending, _) in enumerate(BAD.values()):
        write(root / "bees" / f"x{number:02}.{ending}")
    return [why for _, _, why in BAD.values()]


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
def test_all_that_is_bad_is_found_now_and_later(photos: Path, cache_dir: Path, cache: CacheMode) -> None:
    reasons = bad_photos(photos)
    for _ in range(2):
        found = decode_all(decoder(photos), cache, cache_dir, "photos", stop=False)
        assert list(found.bad) == list(range(10, 10 + len(reasons)))
        for why, reason in zip(found.bad.values(), reasons, strict=True):
            assert why.startswith(reason)
        good = torch.tensor([0, 9, len(reasons) + 10])
        expected = [resize_and_crop(open_image(photos / find_images(photos)[0][i]), SIZE) for i in good.tolist()]
        np.testing.assert_array_equal(found.images.index_select(0, good).numpy(), np.stack(expected))
        if cache != "none":
            assert not found.images.index_select(0, torch.tensor([10, 15])).any()


@pytest.mark.parametrize("cache", ["disk", "memory", "none"])
@pytest.mark.parametrize("kept", [False, True])
def test_the_first_that_is_bad_stops_it(photos: Path, cache_dir: Path, cache: CacheMode, kept: bool) -> None:
    bad_photos(photos)
    if kept:
        decode_all(decoder(photos), cache, cache_dir, "photos", stop=False)
    before = files_of(cache_dir) if cache_dir.exists() else []
    with pytest.raises(
        DataError, match=r"^path: bees/x00.jpg: damaged \(.*\); repair or remove it, or give `on_bad_image"
    ):
        decode_all(decoder(photos), cache, cache_dir, "photos", stop=True)
    assert (files_of(cache_dir) if cache_dir.exists() else []) == before


def test_names_are_those_of_now(photos: Path, cache_dir: Path) -> None:
    bad_photos(photos)
    decode_all(decoder(photos), "disk", cache_dir, "photos", stop=False)
    (photos / "bees" / "x00.jpg").rename(photos / "bees" / "renamed.jpg")
    with pytest.raises(DataError, match=r"bees/renamed\.jpg: damaged"):
        decode_all(decoder(photos), "disk", cache_dir, "photos", stop=True)


def test_a_repaired_image_is_good(photos: Path, cache_dir: Path) -> None:
    (photos / "ants" / "0000.png").write_bytes(b"")
    assert decode_all(decoder(photos), "disk", cache_dir, "photos", stop=False).bad == {0: "the file is empty"}
    Image.fromarray(pixels(0, 0)).save(photos / "ants" / "0000.png")
    found = decode_all(decoder(photos), "disk", cache_dir, "photos", stop=True)
    assert not found.bad
    assert found.images.index_select(0, torch.tensor([0])).any()


def test_an_image_that_goes_bad_later_is_one_line(photos: Path, cache_dir: Path) -> None:
    found = decode_all(decoder(photos), "none", cache_dir, "photos", stop=True)
    (photos / "ants" / "0003.png").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=r"^path: ants/0003\.png has changed since it was first decoded: the file is empty; leave",
    ):
        found.images.index_select(0, torch.tensor([2, 3]))


def test_many_images_keep_their_order(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    for number in range(30):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    for cache in ("memory", "disk", "none"):
        found = decode_all(decoder(tmp_path, 2), cache, cache_dir, "photos", stop=True)
        assert found.images.index_select(0, torch.arange(30))[:, 0, 0, 0].tolist() == list(range(30))


def test_an_unreadable_image_has_a_fingerprint(photos: Path) -> None:
    before = decoder(photos).fingerprint
    (photos / "ants" / "0000.png").unlink()
    (photos / "ants" / "0000.png").symlink_to("/nowhere")
    after = decoder(photos).fingerprint
    assert before != after == decoder(photos).fingerprint


def test_a_decoder_of_damaged_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (64, 64)), "JPEG")[:-20])
    with pytest.raises(ImageError, match="damaged"):
        decoder(tmp_path).decode(0)
    assert isinstance(decode_all(decoder(tmp_path), "memory", tmp_path, "x", stop=False), Decoded)
    assert json.loads(json.dumps(decode_all(decoder(tmp_path), "none", tmp_path, "x", stop=False).bad))
