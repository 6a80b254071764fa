"""Seconds of `python train.py --help`, against those of its imports alone."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.interleaved import compare

ROOT = Path(__file__).parent.parent


def run(rounds: int = 7) -> None:
    """Print the table.

    Args:
        rounds: How often each command runs.
    """

    def command(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start

    contenders = {
        "import torch, torchvision, lightning.pytorch.cli": lambda: command(
            "-c", "import torch, torchvision, lightning.pytorch.cli"
        ),
        "python train.py --help": lambda: command("train.py", "--help"),
    }
    compare("Start-up", contenders, rounds)
