"""The rooms of the house: which module may import which, and that libraries neither print nor know of flags."""

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest

from tests.helpers.front_door import ROOT

PACKAGES = ("datamodules", "kindling", "lit_models")
LIBRARIES = ("datamodules", "lit_models")
KINDS = ("tables", "images", "text")
FLAG = re.compile(r"(?<![\w-])--[a-z]\w*")

# What a room may import of this project; "" is what stands above the packages of a kind.
ALLOWED = {
    "train": {"kindling"},
    "deploy": {"kindling"},
    "kindling": {"kindling", "lit_models", "datamodules"},
    "lit_models": {"lit_models", "lit_models.modules", "lit_models.optim"},
    "lit_models.modules": {"lit_models.modules", "lit_models.optim"},
    "lit_models.optim": {"lit_models.modules", "lit_models.optim"},
    "datamodules": {"datamodules"},
    "datamodules.detection": {"datamodules", "datamodules.tables", "datamodules.images", "datamodules.text"},
    "datamodules.tables": {"datamodules", "datamodules.tables"},
    "datamodules.images": {"datamodules", "datamodules.images"},
    "datamodules.text": {"datamodules", "datamodules.tables", "datamodules.text"},
}
SHARED_BY_MODELS = ("lit_models.addresses", "lit_models.errors")  # no leaves
ADDRESSES = ("lit_models", "datamodules")  # their `__init__` imports every leaf, so no other module of theirs may


def room(module: str) -> str:
    """Return the longest name in `ALLOWED` that a module stands in."""
    parts = module.split(".")
    names = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
    return next((name for name in names if name in ALLOWED), "")


def imports(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Yield the modules that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                base = ".".join([*package, *filter(None, [base])])
            yield base
            yield from (f"{base}.{name.name}" for name in node.names if room(f"{base}.{name.name}") != room(base))


def wrong_imports(module: str, source: str, is_package: bool = False) -> list[str]:
    """Return the imports of a module that its room does not allow."""
    if module in ADDRESSES:
        return [name for name in imports(module, source, is_package) if room(name) and name.split(".")[0] != module]
    allowed, found = ALLOWED[room(module)], []
    for name in imports(module, source, is_package):
        from_its_own_top = name in ADDRESSES and module.startswith(f"{name}.")
        if room(name) and (
            from_its_own_top or (room(name) not in allowed_rooms(allowed) and name not in SHARED_BY_MODELS)
        ):
            found.append(name)
    return found


def allowed_rooms(allowed: set[str]) -> set[str]:
    """Add the rooms within another room's packages, where a front door may enter all of them."""
    doors = allowed if "kindling" in allowed else set()
    return allowed | {name for name in ALLOWED if name.split(".")[0] in doors}


def modules() -> Iterator[tuple[str, str, bool]]:
    """Yield every module of the project, its source, and whether it is a package."""
    files = [
        *ROOT.glob("train.py"),
        *ROOT.glob("deploy.py"),
        *(f for name in PACKAGES for f in ROOT.glob(f"{name}/**/*.py")),
    ]
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if is_package else parts), file.read_text(), is_package


def printed(source: str) -> bool:
    """Whether a module names `print`."""
    return any(isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(ast.parse(source)))


def test_imports_run_one_way() -> None:
    found = {module[0]: wrong for module in modules() if (wrong := wrong_imports(*module))}
    assert not found


def test_libraries_do_not_print() -> None:
    assert [module for module, source, _ in modules() if module.startswith(LIBRARIES) and printed(source)] == []


def test_libraries_know_of_no_flags() -> None:
    sources = {module: source for module, source, _ in modules() if module.startswith(LIBRARIES)}
    assert {module: flags for module, source in sources.items() if (flags := FLAG.findall(source))} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("train", "from lit_models import LitMLP"),
        ("lit_models.mlp", "from kindling.errors import explain"),
        ("lit_models.mlp", "import datamodules"),
        ("lit_models.mlp", "def f():\n    from datamodules.base import DataModule"),
        ("lit_models.modules.init", "from lit_models.base import LitModule"),
        ("lit_models.modules.init", "from .. import base"),
        ("lit_models.optim.factory", "import lit_models.mlp"),
        ("lit_models.mlp", "from lit_models import LitModule"),
        ("datamodules.base", "import lit_models"),
        ("datamodules.base", "from datamodules.tables.csv import CSVDataModule"),
        ("datamodules.base", "from datamodules import tables"),
        ("datamodules.base", "from . import images"),
        ("datamodules.tables.csv", "from datamodules.text.corpus import TextCorpusDataModule"),
        ("datamodules.tables.csv", "from datamodules import ToyDataModule"),
        ("datamodules.images.mnist", "from datamodules.tables.values import texts"),
        ("datamodules.text.corpus", "from datamodules.images import mnist"),
        ("datamodules.text.corpus", "from datamodules.detection import detect"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert wrong_imports(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("train", "from kindling.cli import main"),
        ("kindling.cli", "from lit_models.modules import init\nimport datamodules.tables.csv, lit_models"),
        ("lit_models.modules.init", "from lit_models.errors import ModelError\nimport torch"),
        ("lit_models.mlp", "from lit_models.modules.init import init\nfrom lit_models.base import LitModule"),
        (
            "datamodules.text.labeled",
            "from datamodules.tables.files import TableFiles\nfrom datamodules.base import Stage",
        ),
        ("datamodules.detection", "from datamodules.tables.csv import CSVDataModule"),
        ("datamodules.text.labeled", "from .tokenizer import Tokenizer\nfrom ..base import Stage"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert not wrong_imports(module, source)


def test_a_print_or_a_flag_is_found() -> None:
    assert printed("say = rank_zero_only(print)")
    assert not printed("def f(): 'print(x)'")
    assert FLAG.findall('"""Give --data.path, or `--help`."""') == ["--data", "--help"]
    assert not FLAG.findall("a - -b, a---b, 'x--y'")


def test_nothing_else_is_installed_at_the_top_level() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    there = {module for module, _, is_package in modules() if is_package}
    assert set(setuptools["packages"]) == there
    assert {name.partition(".")[0] for name in there} == set(PACKAGES)
    assert not setuptools.keys() & {"py-modules", "package-dir", "package-data"}
