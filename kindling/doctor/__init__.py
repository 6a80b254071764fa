"""A doctor of data: cheap checks before the first step for what makes results wrong, and of labels after the last."""

from lightning.pytorch import LightningDataModule

from datamodules import CSVDataModule
from datamodules.user_data import UserDataModule
from kindling.doctor.columns import find_dates, find_leaks, find_shared_identifiers
from kindling.doctor.findings import Finding
from kindling.doctor.splits import find_duplicates, find_shifts, find_small


def examine(data: LightningDataModule) -> list[Finding]:
    """Return what is wrong with a person's own table, texts or images; a streamed table is not examined."""
    if not isinstance(data, UserDataModule) or data.task == "next_token":
        return []
    if isinstance(data, CSVDataModule):
        if data.source.is_streamed:
            return []
        found = [*find_leaks(data), *find_duplicates(data), *find_shared_identifiers(data), *find_dates(data)]
        return [*found, *find_shifts(data), *find_small(data)]
    return [*find_duplicates(data), *find_shifts(data), *find_small(data)]
