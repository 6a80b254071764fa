"""A table, and a model of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from datamodules import CSVDataModule
from tests.helpers import streams
from tests.helpers.tables import NAMES, Row, Trained, table, train, write


@pytest.fixture
def make(workdir: Path) -> Callable[..., CSVDataModule]:
    """Make the data of some rows."""

    def data(rows: list[Row], names: tuple[str, ...] = NAMES, **options: Any) -> CSVDataModule:
        return CSVDataModule(write(workdir / "table.csv", rows, names), **options)

    return data


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of the table."""
    folder = tmp_path_factory.mktemp("trained")
    return train(folder, write(folder / "train.csv", table()))


@pytest.fixture(scope="module")
def expected(trained: Trained) -> dict[str, float]:
    """What the model says of forty new rows, computed without a file in between."""
    data = trained.data
    path = write(trained.folder / "expected.csv", table(40, seed=1))
    part = trained.open(path).source.files.read()
    x = torch.stack([data.encode(row) for row in part.to_pylist()])
    with torch.no_grad():
        outputs: Tensor = trained.model().predict_step(x, 0)
    return dict(zip(part["id"].to_pylist(), outputs.tolist(), strict=True))


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make buffers as small as these tables need to have many."""
    # a, b and group, whether b is missing, c; 4 bytes each
    monkeypatch.setattr("datamodules.tables.streaming.BUFFER", 4 * 5 * streams.BUFFERED)


@pytest.fixture
def path(workdir: Path) -> str:
    """A Parquet file of many row groups."""
    pq.write_table(streams.table(), workdir / "table.parquet", row_group_size=streams.GROUP)
    return str(workdir / "table.parquet")
