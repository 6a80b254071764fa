"""Texts that several tests read."""

import logging
from pathlib import Path
from typing import Any

import pytest

from datamodules import TextCSVDataModule
from tests.helpers.texts import CORPUS, Make, lines, rows


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture) -> None:
    """Capture what is logged to inform, too."""
    caplog.set_level(logging.INFO, "datamodules")


@pytest.fixture
def make(workdir: Path) -> Make:
    """Make the data of a file of labeled texts."""

    def data(content: str | bytes | None = None, name: str = "texts.txt", **options: Any) -> TextCSVDataModule:
        content = lines(rows()) if content is None else content
        (workdir / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return TextCSVDataModule(name, **{"min_count": 1, **options})

    return data


@pytest.fixture
def state(make: Make) -> dict[str, Any]:
    """What a checkpoint keeps of labeled texts."""
    data = make()
    data.setup("fit")
    return data.state_dict()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A plain text of about ten thousand characters."""
    file = tmp_path / "text.txt"
    file.write_text(CORPUS + CORPUS[::-1], encoding="utf-8")
    return str(file)
