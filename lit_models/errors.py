"""The error of a model that cannot be created or used, and the checks of options that many models share."""

from collections.abc import Collection


class ModelError(ValueError):
    """A model that cannot be created, or an option of a model with an invalid value.

    It reads `option=value: problem; remedy.`, in one line. An option that `problem` or `remedy` names stands in
    backticks, alone or with a value, as in "`normalize=False`", so that a command line can show it as a flag.

    Args:
        problem: What is wrong.
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


def check_dropout(dropout: float) -> None:
    """Raise a ModelError unless a dropout is in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ModelError("give a share from 0 up to, but not including, 1", option="dropout", value=dropout)


def check_sizes(**sizes: int) -> None:
    """Raise a ModelError unless all sizes, by the names of their options, are 1 or more."""
    for name, size in sizes.items():
        if size < 1:
            raise ModelError("give 1 or more", option=name, value=size)


def check_non_negative(**values: float | None) -> None:
    """Raise a ModelError unless all numbers, by the names of their options, are 0 or more, or None."""
    for name, value in values.items():
        if value is not None and value < 0:
            raise ModelError("give 0 or more", option=name, value=value)


# The size by which each kind of text is recognized.
TEXTS = {"max_length": "labeled texts", "context_length": "running text"}


def find_misfit(takes: Collection[str], offers: Collection[str]) -> str:
    """Return why a model with the arguments `takes` cannot read data with the known sizes `offers`; empty if it can."""
    reads, has = (
        [text for size, text in TEXTS.items() if size in names] or ["text"] * ("vocab_size" in names)
        for names in (takes, offers)
    )
    if has and not reads:
        return f"it cannot read {has[0]}, which these data are"
    if reads and not has and offers:
        return f"it reads {reads[0]}, which these data are not"
    if reads != has and "text" not in (*reads, *has):
        return f"it reads {reads[0]}, and these data are {has[0]}"
    if "cat_cardinalities" in offers and "cat_cardinalities" not in takes:
        return "it takes no cat_cardinalities, and would read the codes of categories as numbers"
    return ""
