"""The cache keeps what was used last, whatever happens to its files."""

import contextlib
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from datamodules.cache import Cache

DAY = 86_400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _keep(folder: Path, number: int, limit: int = 10**6, size: int = 1000, days: float = 0) -> Path:
    """Keep a file, last used some days ago, by a cache that nobody holds on to afterwards."""
    cache = Cache(folder, limit)
    path = cache.path("file", ".bin", number)
    cache.write(path, lambda part: part.write_bytes(bytes([number]) * size))
    _age(path, days)
    return path


def _age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def test_a_file_is_named_by_what_it_is_made_from(folder: Path) -> None:
    cache = Cache(folder)
    path = cache.path("table", ".npy", 1, "abc", (2.0, None))
    assert path.parent == folder
    assert path.name.startswith("table-")
    assert path.suffix == ".npy"
    assert path == Cache(folder).path("table", ".npy", 1, "abc", (2.0, None))
    assert path != cache.path("table", ".npy", 2, "abc", (2.0, None))
    assert not folder.exists()


def test_what_is_written_is_read(folder: Path) -> None:
    path = _keep(folder, 1)
    assert Cache(folder).read(path, Path.read_bytes) == b"\1" * 1000
    assert list(folder.iterdir()) == [path]


def test_what_is_missing_or_damaged_is_none(folder: Path) -> None:
    cache = Cache(folder)
    path = cache.path("list", ".json", 1)

    def load(file: Path) -> Any:  # noqa: ANN401  # whatever the file says
        return json.loads(file.read_text())

    assert cache.read(path, load) is None
    cache.write(path, lambda part: part.write_text("[1]"))
    assert cache.read(path, load) == [1]
    path.write_text("[1")
    assert cache.read(path, load) is None
    cache.write(path, lambda part: part.write_text("[1]"))
    assert cache.read(path, load) == [1]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, RuntimeError])
def test_a_file_is_there_whole_or_not_at_all(folder: Path, error: type[BaseException]) -> None:
    path = _keep(folder, 1)

    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        Cache(folder).write(path, fail)
    assert list(folder.iterdir()) == [path]
    assert path.read_bytes() == b"\1" * 1000


def test_the_least_recently_used_go_first(folder: Path) -> None:
    paths = [_keep(folder, number) for number in range(5)]
    for age, path in enumerate(paths):  # the first was used last
        _age(path, age + 2)
    assert Cache(folder).read(paths[4], Path.read_bytes)  # and now it is this one
    new = _keep(folder, 5, limit=1500)
    assert set(folder.iterdir()) == {new, paths[4], paths[0]}


def test_below_the_limit_nothing_goes(folder: Path) -> None:
    paths = {_keep(folder, number, limit=5000) for number in range(5)}
    assert set(folder.iterdir()) == paths


def test_what_this_process_uses_stays(folder: Path) -> None:
    old = _keep(folder, 1)
    user = Cache(folder)
    assert user.read(old, Path.read_bytes)
    _age(old, 3)
    other = _keep(folder, 2, days=2)
    new = _keep(folder, 3, limit=500)
    assert set(folder.iterdir()) == {old, new}, f"{other} was the only one that nobody used"
    del user
    _age(new, 2)
    newest = _keep(folder, 4, limit=500)
    assert list(folder.iterdir()) == [newest]


def test_what_another_process_used_within_a_day_stays(folder: Path) -> None:
    recent, old = _keep(folder, 1, days=0.9), _keep(folder, 2, days=1.1)
    new = _keep(folder, 3, limit=0)
    assert set(folder.iterdir()) == {recent, new}, f"{old} was not used for a day"


def test_a_large_file_in_use_costs_no_other_its_place(folder: Path) -> None:
    user = Cache(folder)
    large = _keep(folder, 1, size=10_000)
    assert user.read(large, Path.read_bytes)
    _age(large, 3)
    others = {_keep(folder, number, days=2) for number in (2, 3)}
    new = _keep(folder, 4, limit=2000)
    assert set(folder.iterdir()) == {large, new, *others}


def test_folders_of_earlier_versions_go(folder: Path) -> None:
    key = "0123456789abcdef01234567"
    for name in (f"pictures-{key}", f"pictures-{key}0", f"my-pictures-{key}", f"other-{key}"):
        (folder / name).mkdir(parents=True)
        (folder / name / "images.npy").write_bytes(b"x")
    new = _keep(folder, 1)
    assert {path.name for path in folder.iterdir()} == {
        f"pictures-{key}0",
        f"my-pictures-{key}",
        f"other-{key}",
        new.name,
    }


def test_files_of_others_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    others = {folder / name for name in ("table.csv", "run-0123456789abcdef.npy", "x-0123456789abcdef01234567")}
    for path in others:
        path.write_bytes(bytes(5000))
        _age(path, 10)
    new = _keep(folder, 1, limit=100)
    assert set(folder.iterdir()) == {*others, new}


def test_only_an_abandoned_temporary_file_goes(folder: Path) -> None:
    parts: list[Path] = []

    def interrupted(part: Path) -> None:
        part.write_bytes(bytes(5000))
        shutil.copy(part, part.with_name(part.name.replace(part.name[-36:-4], f"{len(parts):032x}")))
        parts.append(part)
        raise OSError

    for number in range(2):
        with pytest.raises(OSError, match=r"^$"):
            Cache(folder).write(Cache(folder).path("file", ".bin", number), interrupted)
    being_written, abandoned = sorted(folder.iterdir(), key=lambda path: path.suffixes[-2])
    _age(abandoned, 2)
    new = _keep(folder, 1, limit=100)
    assert set(folder.iterdir()) == {being_written, new}


def test_a_folder_that_cannot_be_is_said_once_and_never_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    for number in range(3):
        cache = Cache(tmp_path / "file" / "folder")
        path = cache.path("file", ".bin", number)
        cache.keep(path, lambda part: part.write_text("x"))
        assert cache.read(path, Path.read_text) is None
    assert caplog.text.count("nothing can be kept there (") == 1
    with pytest.raises(OSError, match="Not a directory"):
        cache.write(path, lambda part: part.write_text("x"))


def test_a_read_only_folder_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = _keep(folder, 1)

    def refuse(*args: object) -> None:  # root may write everywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    cache = Cache(folder, limit=0)
    assert cache.read(path, Path.read_bytes) == b"\1" * 1000
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", refuse)
    cache.keep(cache.path("file", ".bin", 2), lambda part: part.write_text("x"))
    assert "nothing can be kept there ([Errno 13] Permission denied)" in caplog.text
    assert list(folder.iterdir()) == [path]


def test_room_is_twice_the_size_where_one_may_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2001))
    assert Cache(folder / "a" / "b").has_room(1000)
    assert not Cache(folder).has_room(1001)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not Cache(folder).has_room(1)


def _fill(folder: Path, start: Any, results: Any) -> None:  # noqa: ANN401  # of processes
    start.wait()
    bad = 0
    for number in range(200):
        cache = Cache(folder, limit=2000)
        path = cache.path("file", ".bin", number % 7)
        content = bytes([number % 7]) * 1000
        found = cache.read(path, Path.read_bytes)
        if found is None:  # the other process deleted it, or never wrote it
            cache.write(path, lambda part, content=content: part.write_bytes(content))  # type: ignore[misc]
        bad += found not in (None, content)
        with contextlib.suppress(FileNotFoundError):
            _age(path, 2)
    results.put(bad)


def test_processes_that_share_a_folder_delete_nothing_that_matters(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    running = [context.Process(target=_fill, args=(folder, start, results)) for _ in range(3)]
    for process in running:
        process.start()
    assert [results.get(timeout=60) for _ in running] == [0, 0, 0]
    for process in running:
        process.join()
        assert process.exitcode == 0
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5000
    assert all(path.suffix == ".bin" for path in folder.iterdir())
