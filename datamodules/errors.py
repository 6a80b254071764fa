"""What goes wrong with data."""


class DataError(ValueError):
    """Data, or an option of a data module, that cannot be used as it is.

    It reads `option=value: problem; remedy.`, in one line. An option that `problem` or `remedy` names stands in
    backticks, alone or with a value, as in "`streaming=False`", so that a command line can show it as a flag.

    Args:
        problem: What is wrong, with the file, row or column where there is one.
        remedy: How to mend it.
        option: The argument that is wrong, if one is.
        value: Its value; None if it was not given.
    """

    def __init__(self, problem: str, remedy: str = "", option: str = "", value: object = None) -> None:
        super().__init__(problem, remedy, option, value)  # all of them, so that it goes through pickle whole
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
        return text if text.endswith(".") else f"{text}."
