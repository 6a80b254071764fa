"""Where the repository is, and how tests run its command line."""

from collections.abc import Callable
from pathlib import Path

from kindling.cli import KindlingCLI

ROOT = Path(__file__).parent.parent.parent

Run = Callable[[str], KindlingCLI]
