"""Seconds of `python train.py --help`, against those of its imports alone."""

import subprocess
import sys
from pathlib import Path

from benchmarks.interleaved import compare, seconds_of

ROOT = Path(__file__).parent.parent


def run(rounds: int = 7) -> None:
    """Print the table.

    Args:
        rounds: How often each command runs.
    """

    def command(*arguments: str) -> float:
        whole = [sys.executable, *arguments]
        return seconds_of(lambda: subprocess.run(whole, cwd=ROOT, check=True, capture_output=True))

    imports = "import torch, torchvision, lightning.pytorch.cli"
    contenders = {
        imports: lambda: command("-c", imports),
        "python train.py --help": lambda: command("train.py", "--help"),
    }
    compare("Start-up", contenders, rounds)
