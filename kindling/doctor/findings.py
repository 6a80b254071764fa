"""What a check of the data finds, as a line and as rows of `doctor.csv`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

SHOWN = 3  # places in a line; the file has all of them
KEPT = 1000  # places in the file

Severity = Literal["high", "medium", "low"]


class Finding(NamedTuple):
    """Something in the data that makes results wrong, or may.

    Args:
        check: The name of the check.
        severity: How likely it is to spoil the result.
        where: The rows, files or columns that it is about.
        what: What was found.
        remedy: What to do about it.
    """

    check: str
    severity: Severity
    where: Sequence[str]
    what: str
    remedy: str

    @property
    def line(self) -> str:
        """What is printed."""
        places = [place for place in self.where if place not in self.what]
        where = f" ({listed(places)})" if places else ""
        return f"{self.check}: {self.what}{where}; {self.remedy}."


def listed(places: Sequence[str], most: int = SHOWN) -> str:
    """Return the first places, and an ellipsis if there are more."""
    return ", ".join([*places[:most], *["..."] * (len(places) > most)])


def write(findings: Sequence[Finding], path: Path) -> None:
    """Write findings as a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Finding._fields)
        for check, severity, where, what, remedy in findings:
            writer.writerow([check, severity, listed(where, KEPT), what, remedy])
