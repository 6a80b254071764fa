"""Errors of data modules."""

import difflib
from collections.abc import Sequence


class DataError(ValueError):
    """Data, or an option of a data module, that cannot be used.

    It reads `option=value: problem; remedy.`, in one line. An option that `problem` or `remedy` names stands in
    backticks, alone or with a value, as in "`streaming=False`", so that a command line can show it as a flag.

    Args:
        problem: What is wrong, with the file, row or column where there is one.
        remedy: How to mend it.
        option: The argument that is wrong, if one is.
        value: Its value; None if it was not given.
    """

    def __init__(self, problem: str, remedy: str = "", option: str = "", value: object = None) -> None:
        super().__init__(problem, remedy, option, value)  # all of them, so that pickle restores it
        self.problem = problem
        self.remedy = remedy
        self.option = option
        self.value = value

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value!r}"
        return (f"{self.option}{value}: " if self.option else "") + self.sentence

    @property
    def sentence(self) -> str:
        """Problem and remedy."""
        text = f"{self.problem}; {self.remedy}" if self.remedy else self.problem
        return text if text.endswith((".", "?")) else f"{text}."


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names, separated by commas, and an ellipsis if there are more."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def check_names(
    wanted: Sequence[str], found: Sequence[str], source: str = "", option: str = "", value: object = None
) -> None:
    """Raise an error for a column that is `wanted`, but not `found` in the table `source`.

    Raises:
        DataError: If there is one, about the option that names the columns, if given; it suggests the nearest name.
    """
    for name in wanted:
        if name not in found:
            close = [other for other in found if other.lower() == name.lower()]
            close = close or difflib.get_close_matches(name, found, n=1)
            problem = f"{source}{source and ': '}there is no column {name!r}"
            if not close:
                raise DataError(f"{problem}, only {', '.join(found[:12])}", option=option, value=value)
            raise DataError(problem, f"did you mean {close[0]!r}?", option, value)
