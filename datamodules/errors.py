"""What goes wrong with data."""


class DataError(Exception):
    """Data that cannot be used as they are: the message names the file or the option, and the remedy."""
