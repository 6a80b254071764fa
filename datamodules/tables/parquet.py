"""Parquet files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.errors import DataError


def is_parquet(file: Path) -> bool:
    """Whether a file is Parquet, by its first bytes.

    Raises:
        DataError: If it is empty, or a zip archive.
    """
    with file.open("rb") as stream:
        start = stream.read(8)
    if not start:
        raise DataError(f"{file}: the file is empty")
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{file}: this is a zip archive or an Excel sheet", "save it as CSV")
    return start.startswith(b"PAR1")


def open_parquet(file: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        DataError: If it is damaged.
    """
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(file, error) from error


def read_parquet(file: Path, row_group: int | None = None, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some columns of one row group.

    Raises:
        DataError: If it is damaged.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            return parquet.read(columns) if row_group is None else parquet.read_row_group(row_group, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: a damaged Parquet file ({str(error).partition(chr(10))[0]})")
