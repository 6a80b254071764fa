"""Settings and fitted state in a checkpoint, read without running anything that it names."""

import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentError

import datamodules
import kindling.callbacks
import lit_models

# The packages whose classes files name, by the first part of a present or former address.
PACKAGES = {"lit_models": lit_models, "datamodules": datamodules, "callbacks": kindling.callbacks}
# Modules whose classes may be named; what is called as a function, as a tokenizer is, never.
TRUSTED = re.compile(r"torch\.optim(\.\w+)*|torchvision\.transforms\.v2|lightning\.pytorch\.cli")
# Settings whose values, and all that is in them, may be imported.
IMPORTED = {
    *("class_path", "student", "encoder", "teacher_class", "tokenizer", "train_transforms", "eval_transforms"),
    *("optimizer", "lr_scheduler"),
}


def public_address(path: str) -> str:
    """Return the public address of a class of ours: `lit_models.LitMLP` for `lit_models.mlp.LitMLP`; else the path."""
    package = PACKAGES.get(path.partition(".")[0])
    name = path.rpartition(".")[2]
    return f"{package.__name__}.{name}" if package and name in package.__all__ else path


class Checkpoint(NamedTuple):
    """The settings and the fitted state in a checkpoint."""

    settings: dict[str, Any]  # defaults for a parser: `model`, `data`, `optimizer` and `lr_scheduler`
    data_class: str  # the name of the class of the data; empty if there was none
    data_state: dict[str, Any] | None  # what was fitted on the data


def read_checkpoint(path: str) -> Checkpoint:
    """Read the settings in a checkpoint.

    Raises:
        ArgumentError: If it cannot be read.
    """
    if not Path(path).is_file():
        raise ArgumentError(None, f"--ckpt_path {path}: there is no such file{newest_checkpoint()}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        _ = checkpoint["state_dict"]
        settings: dict[str, Any] = {}
        if "class_path" in checkpoint:
            class_path, init_args = public_address(checkpoint["class_path"]), dict(checkpoint["hyper_parameters"])
            settings["model"] = {"class_path": class_path, "init_args": init_args}
        for group in ("optimizer", "lr_scheduler"):
            if checkpoint.get(f"{group}_config"):
                settings[group] = dict(checkpoint[f"{group}_config"])
        for name, state in checkpoint.items():
            # A data module's state is kept under its class's name.
            if isinstance(state, dict) and str(state.get("class_path", "")).endswith(f".{name}"):
                init_args = dict(checkpoint.get("datamodule_hyper_parameters", {}))
                settings["data"] = {"class_path": public_address(state["class_path"]), "init_args": init_args}
                return Checkpoint(settings, name, state)
    except Exception as error:  # whatever unpickling a file of another kind may raise
        reason = str(error).partition("\n")[0]
        raise ArgumentError(None, f"--ckpt_path {path}: not a checkpoint that can be read ({reason}).") from error
    return Checkpoint(settings, "", None)


def read_trusted(path: str, args: list[str]) -> Checkpoint:
    """Read the settings in a checkpoint, which may import what is ours and what the command line or its files name.

    Raises:
        ArgumentError: If it cannot be read, or would import something else; the message says how to allow it.
    """
    saved = read_checkpoint(path)
    for flag, wanted in _imports(saved.settings):
        if wanted not in _named(args):
            what = f"it names {wanted}, which would be imported here"
            raise ArgumentError(None, f"--ckpt_path {path}: {what}; give {flag} {wanted} if you trust it.")
    return saved


def import_named(given: dict[str, Any]) -> None:
    """Import the modules of the classes that the user named in arguments of a model, as models import nothing by name.

    Raises:
        ArgumentError: If there is no such module.
    """
    for option in ("student", "encoder", "teacher_class"):
        module = str(given.get(option) or "").rpartition(".")[0]
        try:
            _ = importlib.import_module(module) if module else None
        except ImportError as error:
            raise ArgumentError(None, f"--model.{option} {given[option]}: it cannot be imported ({error}).") from error


def trust_flags(path: str) -> str:
    """Return the flags that a command with this checkpoint needs, as it names more than is ours; each after a space."""
    try:
        saved = read_checkpoint(path)
    except ArgumentError:  # nothing was saved, or in a form of the user's own
        return ""
    return "".join(f" {flag} {wanted}" for flag, wanted in _imports(saved.settings))


def _imports(settings: object, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Find what settings would import beside what is trusted: the flag that names it, and its import path."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from _imports(value, (*keys, key))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _imports(value, keys)
    elif isinstance(settings, str) and not IMPORTED.isdisjoint(keys) and "." in settings:
        module, _, name = settings.rpartition(".")
        ours = any(module == package.__name__ and name in package.__all__ for package in PACKAGES.values())
        is_class = keys[-1] in ("class_path", "train_transforms", "eval_transforms", "transforms")
        trusted = ours or (is_class and TRUSTED.fullmatch(module) and name[:1].isupper())
        if not trusted and all(part.isidentifier() for part in settings.split(".")):
            yield "--" + ".".join([key for key in keys if key not in ("class_path", "init_args")][:2]), settings


def _named(args: list[str]) -> set[str]:
    """Collect the words of a command line and of the configuration files that it names."""
    words = {word for arg in args for word in re.split(r"[\s=,:\[\]{}'\"]+", arg)}
    files = [Path(word) for word in words if word.endswith((".yaml", ".yml", ".json")) and Path(word).is_file()]
    return words.union(*(re.split(r"[\s=,\[\]{}'\"]+", file.read_text()) for file in files))


def find_checkpoint(name: str, root: Path, run: str) -> str:
    """Return the newest checkpoint of a name among some runs.

    Args:
        name: `last` or `best`.
        root: The folder of all runs.
        run: Model and data, `<Model>-<Data>`, with a `*` for one that is not known.

    Raises:
        ArgumentError: If there is none.
    """
    found = _newest(root.glob(f"{run}/version_*/checkpoints/{name}.ckpt"))
    if found is None:
        place = root if "*" in run else root / run
        raise ArgumentError(None, f"--ckpt_path {name}: there is no {name}.ckpt in {place}; train first.")
    return str(found)


def newest_checkpoint() -> str:
    """Return the newest best checkpoint, for a message; empty if there is none."""
    found = _newest(Path("runs").glob("*/*/checkpoints/best.ckpt"))
    return f", for instance {found}" if found else ""


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)
