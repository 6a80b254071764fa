"""Runs of `train.py` in this process, whose output is read and not shown."""

import contextlib
import io

from kindling.cli import KindlingCLI, main


def train(line: str, progress: bool = False) -> tuple[KindlingCLI, str]:
    """Run a command line, with or without its progress, and return the finished command and what it printed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        cli = main([*line.split(), f"--enable_progress_bar={str(progress).lower()}"])
    return cli, output.getvalue()
